"""The speed of sentence vectors: minibert beside its alternatives.

    python benchmarks/encode.py --model FOLDER|NAME|base --texts FILE [--latency] [--save NAME]

All subjects get the same texts and length limit, and tokenization is part of the measured time. Each runs once to warm
up; then the subjects take turns. The reference for the vectors is transformers in float32. GFLOP/s count only the work
for real tokens, so padding lowers them. The share of GEMM is relative to the rate of large matrix products in the same
dtype, measured between the rounds.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Any

import measure
import numpy as np
import subjects
from numpy.typing import NDArray

QUESTION = "How do I reset my password?"
FEW_WORDS = 20
CALLS = 10  # calls of one subject before the next takes its turn
STANDARD = "sentence-transformers float32"
LATENCY = (STANDARD, "minibert float32", "minibert bfloat16", "transformers float32, sorted")
LATENCY_COLUMNS = {
    "input": ("input", ""),
    "subject": ("subject", ""),
    "milliseconds": ("median (ms)", ".2f"),
    "ratio": ("time ratio", ".2f"),
}


def throughput(
    work: subjects.Work,
    chosen: list[subjects.Subject],
    encoders: dict[str, subjects.Encode],
    texts: list[str],
    rounds: int,
) -> tuple[list[dict[str, Any]], dict[str, list[float]], measure.Gemm]:
    """The rows of the table, the raw times, and the GEMM rates for the shares."""
    expected = subjects.SORTED(work, "float32")(texts)
    vectors: dict[str, NDArray[np.float32]] = {}

    def run(name: str) -> None:
        vectors[name] = encoders[name](texts)

    gemm = measure.Gemm(sorted({subject.dtype for subject in chosen}))
    seconds = measure.alternate({name: partial(run, name) for name in encoders}, rounds, gemm)
    flop = measure.flops(work.lengths(texts), work.bert.config)
    standard = statistics.median(seconds.get(STANDARD) or seconds[chosen[0].name])
    rows = []
    for subject in chosen:
        speed = measure.speed(seconds[subject.name], len(texts), flop)
        relative = {"ratio": standard / speed["seconds"], "share": gemm.share(speed["gflops"], subject.dtype)}
        agreement = measure.agreement(vectors[subject.name], expected)
        rows.append({"subject": subject.name, **speed, **relative, **agreement})
    return rows, seconds, gemm


def ratios(chosen: list[subjects.Subject], medians: dict[str, float]) -> list[str]:
    """The speed of minibert relative to each peer in the same dtype, and to sentence-transformers' default."""
    lines = []
    for us in (subject for subject in chosen if subject.package == "minibert"):
        peers = [s.name for s in chosen if s.package != "minibert" and (s.dtype == us.dtype or s.name == STANDARD)]
        parts = [f"{medians[name] / medians[us.name]:.2f} x as fast as {name}" for name in peers]
        if parts:
            lines.append(f"{us.name} is " + "; ".join(parts))
    return lines


def short_texts(texts: list[str]) -> list[str]:
    """The first 32 short questions, or the first short texts if there are fewer."""
    short = [text for text in texts if len(text.split()) <= FEW_WORDS]
    questions = [text for text in short if text.endswith("?")]
    return (questions if len(questions) >= subjects.BATCH else short)[: subjects.BATCH]


def latency(
    encoders: dict[str, subjects.Encode], texts: list[str], rounds: int
) -> tuple[list[dict[str, Any]], dict[str, dict[str, list[float]]]]:
    """The rows of the table and the raw seconds per call, for one sentence and for a few."""
    few = short_texts(texts)
    rows, raw = [], {}
    for title, given in (("1 sentence", [QUESTION]), (f"{len(few)} short texts", few)):

        def block(encode: subjects.Encode, given: list[str] = given) -> None:
            for _ in range(CALLS):
                encode(given)

        blocks = measure.alternate({n: partial(block, encoders[n]) for n in LATENCY if n in encoders}, rounds)
        raw[title] = {name: [seconds / CALLS for seconds in values] for name, values in blocks.items()}
        medians = {name: statistics.median(values) for name, values in raw[title].items()}
        standard = next(iter(medians.values()))
        rows += [
            {"input": title, "subject": name, "milliseconds": 1000 * median, "ratio": median / standard}
            for name, median in medians.items()
        ]
    return rows, raw


def main() -> None:
    """Measure, print, write."""
    parser = subjects.parser(__doc__)
    parser.add_argument("--peers", nargs="*", choices=subjects.PEERS, default=subjects.PEERS)
    parser.add_argument("--dtype", choices=("both", "float32", "bfloat16"), default="both", help="both also runs int8")
    parser.add_argument(
        "--skip", nargs="+", default=[], metavar="SUBJECT", choices=[s.name for s in subjects.SUBJECTS[1:]]
    )
    parser.add_argument("--latency", action="store_true", help="also measure single calls with few texts")
    parser.add_argument("--latency-rounds", type=int, default=20, help=f"rounds of {CALLS} calls each (default: 20)")
    options = parser.parse_args()
    with subjects.opened(options) as (work, texts):
        report(options, work, texts)


def report(options: argparse.Namespace, work: subjects.Work, texts: list[str]) -> None:
    """Print the results, and write the files that the options request."""
    if not subjects.installed(["transformers"]):
        measure.stop("transformers is the reference for the vectors: nothing is measured without it")
    chosen = subjects.choose(options.peers, options.dtype, options.skip)
    encoders = {subject.name: subject.make(work, subject.dtype) for subject in chosen}
    rows, seconds, gemm = throughput(work, chosen, encoders, texts, options.rounds)
    parts: dict[str, Any] = {"gemm_gflops": gemm.rates, "rows": rows, "seconds": seconds}
    title = subjects.title(options, texts, work)
    standard = STANDARD if STANDARD in encoders else chosen[0].name

    print(f"{title}\n{measure.machine_line()}\n{gemm}\n")
    print(measure.table(rows, measure.COLUMNS))
    print(f"\nmedian of {options.rounds} rounds; the speed ratio is that to {standard}")
    print("\n".join(ratios(chosen, {row["subject"]: row["seconds"] for row in rows})))
    if options.latency:
        calls, raw = latency(encoders, texts, options.latency_rounds)
        parts |= {"latency": calls, "latency_seconds": raw}
        print(f"\n{measure.table(calls, LATENCY_COLUMNS)}")
        print(
            f"\nmedian of {options.latency_rounds} blocks of {CALLS} calls; the ratio is that to {calls[0]['subject']}"
        )
    measure.write_json(options, **parts)
    if options.save:
        bars = {row["subject"]: row["texts_per_second"] for row in rows}
        measure.bars(measure.output(options, ".png"), title, {"texts per second": bars}, ",.0f")


if __name__ == "__main__":
    main()
