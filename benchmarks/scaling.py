"""How time grows with the number of texts and with their length.

    python benchmarks/scaling.py --model FOLDER|NAME|base --texts FILE [--most 100000] [--save NAME]

Numbers: 1, 10, 100, ... texts in one call, cycling through the file. Small numbers are timed over several calls, 100
texts in total, so that every number sees the same mixture. Lengths: texts of exactly 8 to 512 tokens, cut from the
file's texts, about 16,384 tokens in total. Memory is the growth of the resident memory during the call, including the
vectors returned. Memory that earlier calls left for reuse does not count, so the first call accounts for it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import measure
import subjects

LENGTHS = (8, 16, 32, 64, 128, 256, 512)
TOKENS = 16_384
LEAST_TEXTS = 100
WARM_UP = 1_000  # texts after which no call is the first of its kind
COLUMNS = {
    "subject": ("subject", ""),
    "texts": ("texts", ",d"),
    "length": ("tokens of a text", ".1f"),
    "seconds": ("median (s)", ".4f"),
    "texts_per_second": ("texts/s", ",.0f"),
    "tokens_per_second": ("tokens/s", ",.0f"),
    "gflops": ("GFLOP/s", ",.0f"),
    "share": ("of GEMM", ".0%"),
    "megabytes": ("memory (MB)", ",.0f"),
}
MEASURED = ("minibert float32", "minibert bfloat16", "sentence-transformers float32")
COLOURS = dict(zip(MEASURED, ("#f0a882", measure.OURS, measure.THEIRS), strict=True))


@dataclass
class Case:
    """One point of a curve: all of `texts` are encoded, `count` per call."""

    texts: list[str]
    count: int


def by_number(pool: list[str], most: int) -> Iterator[Case]:
    """1, 10, 100, ... texts."""
    count = 1
    while count <= most:
        yield Case(list(islice(cycle(pool), max(count, LEAST_TEXTS))), count)
        count *= 10


def by_length(pool: list[str], work: subjects.Work) -> Iterator[Case]:
    """8, 16, 32, ... tokens per text."""
    for length in LENGTHS:
        if length <= work.max_length:
            texts = list(islice(cycle(cut(" ".join(pool), length, work)), TOKENS // length))
            yield Case(texts, len(texts))


def cut(text: str, length: int, work: subjects.Work) -> list[str]:
    """Parts of `text` with exactly this many tokens. They start and end at words; their tokens are recounted."""
    encoding = work.bert.tokenizer.backend.encode(text, add_special_tokens=False)
    parts, start, size = [], 0, length - 2
    while start + size < len(encoding):
        if encoding.tokens[start].startswith("##") or encoding.tokens[start + size].startswith("##"):
            start += 1
            continue
        parts.append(text[encoding.offsets[start][0] : encoding.offsets[start + size - 1][1]])
        start += size
    exact = [part for part, counted in zip(parts, work.lengths(parts), strict=True) if counted == length]
    return exact or measure.stop(f"--texts ({len(encoding)} tokens in all) must give a text of {length} tokens")


def sweep(
    work: subjects.Work,
    cases: Iterator[Case],
    options: argparse.Namespace,
    gemm: measure.Gemm,
    most_peer: float = math.inf,
) -> tuple[list[dict[str, Any]], list[dict[str, list[float]]]]:
    """The rows of the table and the raw seconds per call for each case; peers get at most `most_peer` texts."""
    chosen = [subject for subject in subjects.choose(options.peers) if subject.name in MEASURED]
    encoders = {subject: subject.make(work, subject.dtype) for subject in chosen}
    rows, raw = [], []
    for case in cases:
        measured = [s for s in chosen if s.package == "minibert" or case.count <= most_peer]
        grown: dict[str, int] = {}

        def calls(encode: subjects.Encode, case: Case = case) -> None:
            for start in range(0, len(case.texts), case.count):
                encode(case.texts[start : start + case.count])

        def run(subject: subjects.Subject, grown: dict[str, int] = grown, calls: Any = calls) -> None:
            memory = measure.growth(partial(calls, encoders[subject]))
            if memory is not None:
                grown[subject.name] = max(memory, grown.get(subject.name, 0))

        gemm()
        runs = {subject.name: partial(run, subject) for subject in measured}
        taken = measure.alternate(runs, options.rounds, warm_up=not rows or case.count <= WARM_UP)
        number = len(case.texts) / case.count
        seconds = {name: [value / number for value in values] for name, values in taken.items()}
        raw.append(seconds)
        lengths = work.lengths(case.texts)
        length = sum(lengths) / len(lengths)
        for subject in measured:
            speed = measure.speed(seconds[subject.name], case.count, measure.flops(lengths, work.bert.config) / number)
            row = {"subject": subject.name, "dtype": subject.dtype, "texts": case.count, "length": length, **speed}
            row["tokens_per_second"] = speed["texts_per_second"] * length
            row["megabytes"] = grown[subject.name] / 1e6 if subject.name in grown else None
            rows.append(row)
    return rows, raw


def plot(path: Path, title: str, counts: list[dict[str, Any]], lengths: list[dict[str, Any]]) -> None:
    """Seconds by number, tokens/s by length."""
    figure, (left, right) = measure.pyplot().subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for axis, rows, x, y in ((left, counts, "texts", "seconds"), (right, lengths, "length", "tokens_per_second")):
        for name in dict.fromkeys(row["subject"] for row in rows):
            points = [(row[x], row[y]) for row in rows if row["subject"] == name]
            axis.plot(*zip(*points, strict=True), marker="o", color=COLOURS[name], label=name)
        axis.grid(alpha=0.3)
    left.set(xscale="log", yscale="log", xlabel="texts in a call", ylabel="seconds")
    right.set(xlabel="tokens of each text", ylabel="tokens per second")
    right.set_xscale("log", base=2)
    right.set_xticks(ticks := sorted({row["length"] for row in lengths}), [f"{tick:.0f}" for tick in ticks])
    right.set_ylim(bottom=0)
    right.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    left.legend(frameon=False, fontsize=9)
    measure.save_figure(figure, path, title)


def main() -> None:
    """Measure, print, write."""
    parser = subjects.parser(__doc__, rounds=3)
    parser.add_argument("--most", type=int, default=100_000, help="the largest number of texts (default: 100000)")
    parser.add_argument("--peers", nargs="*", choices=("sentence-transformers",), default=())
    parser.add_argument("--most-peer", type=int, default=1_000, help="the largest number for a peer (default: 1000)")
    options = parser.parse_args()
    gemm = measure.Gemm(list(measure.DTYPES))
    with subjects.opened(options) as (work, pool):
        title = f"{subjects.model_title(options, work)}: texts of {options.texts.name}"
        counts, count_seconds = sweep(work, by_number(pool, options.most), options, gemm, options.most_peer)
        most = options.max_length or work.bert.config.max_position_embeddings
        longer = subjects.Work(work.model, most, work.threads, work.scratch)
        lengths, length_seconds = sweep(longer, by_length(pool, longer), options, gemm)
    for row in counts + lengths:
        row["share"] = gemm.share(row["gflops"], row["dtype"])

    print(f"{title}\n{measure.machine_line()}\n{gemm}\n")
    print(measure.table(counts, COLUMNS), "\n")
    print(measure.table(lengths, COLUMNS))
    print(f"\nmedian of {options.rounds} rounds")
    seconds = {"counts": count_seconds, "lengths": length_seconds}
    measure.write_json(options, gemm_gflops=gemm.rates, counts=counts, lengths=lengths, seconds=seconds)
    if options.save:
        plot(measure.output(options, ".png"), title, counts, lengths)


if __name__ == "__main__":
    main()
