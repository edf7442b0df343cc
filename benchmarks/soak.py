"""Encode for a long time, and check that memory is stable.

    python benchmarks/soak.py --model FOLDER|NAME|base --texts FILE [--total 200000] [--call 1000] [--dtype auto]
        [--save NAME]

Each call draws random texts, so passes of many sizes are computed. The exit code is 1 if the resident memory at the end
exceeds that after the first tenth by more than 5 % and 20 MB.
"""

from __future__ import annotations

import argparse
import random
import sys
from time import perf_counter

import measure
import subjects

import minibert

COLUMNS = {
    "texts": ("texts", ",d"),
    "megabytes": ("resident memory (MB)", ",.1f"),
    "texts_per_second": ("texts/s since the line before", ",.0f"),
}


def soak(bert: minibert.Bert, pool: list[str], total: int, call: int) -> list[dict[str, float]]:
    """Memory and speed after the first call and after each tenth of the run, printed as measured."""
    draw = random.Random(0)
    rows: list[dict[str, float]] = []
    calls = max(10, total // call)
    marks = {1, *(calls * tenth // 10 for tenth in range(1, 11))}
    start, since = perf_counter(), 0
    for number in range(1, calls + 1):
        bert.encode(draw.choices(pool, k=call))
        if number in marks:
            speed = (number - since) * call / (perf_counter() - start)
            rows.append(
                {"texts": number * call, "megabytes": (measure.resident() or 0) / 1e6, "texts_per_second": speed}
            )
            print(measure.table(rows[-1:], COLUMNS).splitlines()[-1], flush=True)
            start, since = perf_counter(), number
    return rows


def main() -> int:
    """Measure, print, write. Returns the exit code."""
    parser = subjects.parser(__doc__, rounds=None)
    parser.add_argument("--total", type=int, default=200_000, help="texts in all (default: 200000)")
    parser.add_argument("--call", type=int, default=1_000, help="texts per call (default: 1000)")
    parser.add_argument("--dtype", choices=("auto", *measure.DTYPES), default="auto")
    options = parser.parse_args()
    if measure.resident() is None:
        measure.stop("the resident memory is read from /proc/self/status, which this system does not have")
    with subjects.opened(options) as (work, pool):
        bert = minibert.load(work.model, dtype=measure.DTYPES.get(options.dtype, "auto"))
        bert.recipe = work.bert.recipe
        print(f"{subjects.title(options, pool, work)}\n{measure.machine_line()}\n\n{measure.table([], COLUMNS)}")
        rows = soak(bert, pool, options.total, options.call)
    return verdict(options, rows)


def verdict(options: argparse.Namespace, rows: list[dict[str, float]]) -> int:
    """0 if the memory has not grown."""
    tenth, end = next(row for row in rows if 10 * row["texts"] >= rows[-1]["texts"])["megabytes"], rows[-1]["megabytes"]
    grown = end > 1.05 * tenth + 20
    print(f"\nfrom the first tenth to the end: {end - tenth:+.1f} MB, {'too much' if grown else 'within the limit'}")
    measure.write_json(options, rows=rows, grown=grown)
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
