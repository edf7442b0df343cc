"""Write the figures of `results/CPU/*.json` into README.md, docs/ and benchmarks/README.md.

    python benchmarks/tables.py [--check]

The text between `<!-- table: NAME -->` and `<!-- end -->` is replaced. Each CPU gets columns headed by its name; a CPU
without a result for a table is left out of that table. `--check` writes nothing and exits with code 2 if a text differs
from the files.
"""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure

ROOT = Path(__file__).parent.parent
TEXTS = ("README.md", "docs/speed.md", "docs/checkpoints.md", "docs/training.md", "benchmarks/README.md")
BLOCK = re.compile(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
OURS, THEIRS = "minibert", "sentence-transformers"
TRAINED = {  # the works of training.py
    "trec": "short questions (TREC)",
    "banking77": "longer ones (Banking77)",
    "wnut17": "entities (WNUT-17)",
    "mlm": "masked words",
    "stsb": "sentence vectors (STS-B)",
}

# Settings that must agree on all CPUs. The number of rounds and the peers may differ.
WORK = ("texts", "limit", "max_length", "count", "dimension", "queries", "top_k", "total", "call")

Row = Mapping[str, Any]
Columns = Mapping[str, tuple[str, str]]  # key of a row: title and format, as `measure.table` takes them


@dataclass(frozen=True)
class Cpu:
    """The results of one CPU.

    Attributes:
        path: their folder.
        title: the CPU's name, what it computes with, and its cores.
        results: what each file holds, by its name without the suffix.
    """

    path: Path
    title: str
    results: dict[str, dict[str, Any]]

    @property
    def folder(self) -> str:
        """The name of the folder."""
        return self.path.name

    @property
    def capabilities(self) -> list[str]:
        """Its instruction sets."""
        return list(next(iter(self.results.values()))["machine"]["capabilities"])

    @property
    def label(self) -> str:
        """The title without the cores."""
        return self.title.rpartition(", ")[0]


def read_results(folder: Path = measure.RESULTS) -> list[Cpu]:
    """All CPUs with results, those with the fastest arithmetic first."""
    cpus = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        results = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(path.glob("*.json"))}
        for name, result in results.items():
            if (measured_on := measure.cpu_folder(result["machine"])) != path.name:
                raise ValueError(f"{path.name}/{name}.json ({measured_on}) must be a result of {path.name}")
        if results:
            facts = next(iter(results.values()))["machine"]
            cpus.append(Cpu(path, measure.cpu_title(facts), results))
    best = [*measure.CAPABILITIES.values()]
    return sorted(cpus, key=lambda cpu: min((best.index(c) for c in cpu.capabilities), default=len(best)))


def beside(
    cpus: Sequence[Cpu],
    rows_of: Callable[[Cpu], Sequence[Row]],
    keys: Columns,
    values: Columns,
    last: Columns | None = None,
) -> str:
    """A table with one row per subject: `keys` name it, `values` get one column per CPU, `last` cover all CPUs."""
    columns: dict[Any, tuple[str, str]] = dict(keys)
    for cpu in cpus:
        for key, (title, form) in values.items():
            columns[cpu.folder, key] = (f"{cpu.label}<br>{title}" if title else cpu.label, form)
    columns |= last or {}
    merged: dict[tuple[str, ...], dict[Any, Any]] = {}
    for cpu in cpus:
        for row in rows_of(cpu):
            place = tuple(format(row[key], form) for key, (_, form) in keys.items())
            entry = merged.setdefault(place, {key: row[key] for key in (*keys, *(last or ()))})
            entry |= {(cpu.folder, key): row.get(key) for key in values}
    return measure.table(list(merged.values()), columns)


def bullet(text: str) -> str:
    """A list item, wrapped at 120 columns."""
    return textwrap.fill(f"- {text}", 120, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def captions(cpus: Sequence[Cpu], name: str, more: Callable[[dict[str, Any]], str] = lambda _: "") -> str:
    """A list with one item per CPU: the rounds, the rate of large products, and other facts."""
    lines = []
    for cpu in cpus:
        result = cpu.results[name]
        parts = []
        if rounds := result["settings"].get("rounds"):
            parts.append(f"median of {rounds} rounds")
        if rates := result.get("gemm_gflops"):
            reached = " and ".join(
                f"{rates[dtype]:,.0f} GFLOP/s in {dtype}" for dtype in measure.DTYPES if dtype in rates
            )
            parts.append(f"large matrix products reach {reached}")
        lines.append(bullet(f"{cpu.title}: {'; '.join(part for part in (*parts, more(result)) if part)}."))
    return "\n".join(lines)


def pictures(cpus: Sequence[Cpu], name: str) -> str:
    """The figures of a run, one per CPU."""
    return "\n".join(
        f"![{name} on {cpu.label}](results/{cpu.folder}/{name}.png)"
        for cpu in cpus
        if (cpu.path / f"{name}.png").exists()
    )


def medians(result: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each subject."""
    return {row["subject"]: row["seconds"] for row in result["rows"]}


def like_for_like(result: Mapping[str, Any]) -> str:
    """The speed of minibert relative to each peer in the same dtype."""
    seconds = medians(result)
    parts = []
    for dtype in measure.DTYPES:
        times = []
        for row in result["rows"]:
            package, _, note = row["subject"].partition(f" {dtype}")
            if package not in (OURS, row["subject"]):
                peer = package + (f" ({note.removeprefix(', ')})" if note else "")
                times.append(f"{row['seconds'] / seconds[f'{OURS} {dtype}']:.2f} x as fast as {peer}")
        if times:
            parts.append(f"in {dtype} minibert is {', '.join(times)}")
    return "; ".join(parts)


def ratio(cpus: Sequence[Cpu], name: str) -> tuple[str, str]:
    """The column of speed ratios. Its title names the reference, which must be the same on all CPUs."""
    subjects = {row["subject"] for cpu in cpus for row in cpu.results[name]["rows"] if row["ratio"] == 1}
    if len(subjects) > 1:
        raise ValueError(f"the speed ratios of {name} ({', '.join(sorted(subjects))}) must refer to one subject")
    return f"x {subjects.pop()}", ".2f"


def headline(cpus: Sequence[Cpu], name: str) -> str:
    """README: the speed on each CPU, and the worst cosine on any."""
    lines = []
    for cpu in cpus:
        seconds = medians(cpu.results[name])
        times = f"{seconds[f'{THEIRS} float32'] / seconds[f'{OURS} float32']:.2f}"
        text = f"{cpu.title}: minibert in float32 is {times} x as fast as sentence-transformers in float32."
        if f"{OURS} bfloat16" in seconds:
            same, default = (
                seconds[f"{THEIRS} {dtype}"] / seconds[f"{OURS} bfloat16"] for dtype in ("bfloat16", "float32")
            )
            text += (
                f" In bfloat16 it is {same:.2f} x as fast as sentence-transformers in bfloat16, "
                f"and {default:.2f} x as fast as its default, float32."
            )
        lines.append(bullet(text))
    worst: dict[str, float] = {}
    for cpu in cpus:
        for row in cpu.results[name]["rows"]:
            worst[row["subject"]] = min(row["cosine"], worst.get(row["subject"], 1.0))

    def rows_of(cpu: Cpu) -> list[Row]:
        rows = sorted(cpu.results[name]["rows"], key=lambda row: row["seconds"])
        return [{**row, "subject": bold(row["subject"]), "worst": worst[row["subject"]]} for row in rows]

    values = {"texts_per_second": ("texts/s", ",.0f"), "ratio": ratio(cpus, name)}
    table = beside(cpus, rows_of, {"subject": ("", "")}, values, {"worst": ("worst cosine to float32", ".5f")})
    return "\n".join(lines) + "\n\n" + table


def bold(subject: str) -> str:
    """A subject, in bold if it is minibert."""
    return f"**{subject}**" if subject.startswith(OURS) else subject


def machines(cpus: Sequence[Cpu], name: str) -> str:
    """The CPUs, and everything else the figures depend on."""
    lines = []
    for cpu in cpus:
        facts = cpu.results[name]["machine"]
        versions = ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
        date = f", {facts['date']}" if "date" in facts else ""
        text = (
            f"**{cpu.title}** (`results/{cpu.folder}/`): {facts['cpu']}, {', '.join(facts['capabilities'])}, "
            f"{facts['threads']} threads, {facts['system']}, Python {facts['python']}, {versions}{date}"
        )
        lines.append(bullet(text))
    return "\n".join(lines)


def encode(cpus: Sequence[Cpu], name: str) -> str:
    """A run of encode.py."""
    values = {
        "texts_per_second": ("texts/s", ",.0f"),
        "ratio": ratio(cpus, name),
        "share": ("of GEMM", ".0%"),
        "cosine": ("worst cosine", ".6f"),
    }
    parts = [
        captions(cpus, name, like_for_like),
        beside(cpus, lambda cpu: cpu.results[name]["rows"], {"subject": ("subject", "")}, values),
    ]
    if timed := [cpu for cpu in cpus if "latency" in cpu.results[name]]:
        keys = {"input": ("input", ""), "subject": ("subject", "")}
        first = timed[0].results[name]["latency"][0]["subject"]
        calls = {"milliseconds": ("ms", ".2f"), "ratio": (f"of the time of {first}", ".2f")}
        parts.append(beside(timed, lambda cpu: cpu.results[name]["latency"], keys, calls))
    return join(*parts, pictures(cpus, name))


def scaling(cpus: Sequence[Cpu], name: str) -> str:
    """A run of scaling.py: by the number of texts, and by their length."""
    keys = {"subject": ("subject", ""), "texts": ("texts", ",d"), "length": ("tokens of a text", ".1f")}
    counts = {
        "texts_per_second": ("texts/s", ",.0f"),
        "share": ("of GEMM", ".0%"),
        "megabytes": ("memory (MB)", ",.0f"),
    }
    lengths = {"tokens_per_second": ("tokens/s", ",.0f"), "share": ("of GEMM", ".0%")}
    return join(
        captions(cpus, name),
        beside(cpus, lambda cpu: cpu.results[name]["counts"], keys, counts),
        beside(cpus, lambda cpu: cpu.results[name]["lengths"], keys, lengths),
        pictures(cpus, name),
    )


def load(cpus: Sequence[Cpu], name: str) -> str:
    """A run of load.py, without figures: docs/checkpoints.md shows the same table."""

    def rows_of(cpu: Cpu) -> list[Row]:
        quantities = ("import (s)", "load (s)", "peak memory / file")
        return [
            {"quantity": quantity, "library": library, "value": value}
            for quantity in quantities
            for library, value in cpu.results[name][quantity].items()
        ]

    keys = {"quantity": ("", ""), "library": ("", "")}
    return join(captions(cpus, name), beside(cpus, rows_of, keys, {"value": ("", ".3f")}))


def soak(cpus: Sequence[Cpu], name: str) -> str:
    """A run of soak.py: memory over time."""
    values = {
        "megabytes": ("resident memory (MB)", ",.1f"),
        "texts_per_second": ("texts/s since the row before", ",.0f"),
    }
    return beside(cpus, lambda cpu: cpu.results[name]["rows"], {"texts": ("texts", ",d")}, values)


def memory(cpus: Sequence[Cpu], name: str) -> str:
    """For docs/speed.md: the soak in one sentence."""
    lines = []
    for cpu in cpus:
        rows = cpu.results[name]["rows"]
        first, tenth, last = rows[0], rows[1], rows[-1]
        half = next(row for row in rows if 2 * row["texts"] >= last["texts"])
        text = (
            f"{cpu.title}: {first['megabytes']:,.0f} MB after the first call, {tenth['megabytes']:,.0f} MB after "
            f"{tenth['texts']:,} texts, {last['megabytes']:,.0f} MB after {last['texts']:,}; "
            f"the second half added {last['megabytes'] - half['megabytes']:,.0f} MB."
        )
        lines.append(bullet(text))
    return "\n".join(lines)


def eight_bits(cpus: Sequence[Cpu], name: str) -> str:
    """A run of int8.py."""
    values = {
        "texts_per_second": ("texts/s", ",.0f"),
        "ratio": ratio(cpus, name),
        "cosine": ("worst cosine", ".6f"),
    }
    rows = beside(cpus, lambda cpu: cpu.results[name]["rows"], {"subject": ("subject", "")}, values)
    return join(captions(cpus, name), rows)


def search(cpus: Sequence[Cpu], name: str) -> str:
    """A run of search.py."""
    values = {
        "seconds": ("seconds", ".3f"),
        "times": ("of minibert's time", ".2f"),
        "megabytes": ("peak memory (MB)", ",.0f"),
        "same": ("same hits", ".2%"),
    }
    rows = beside(cpus, lambda cpu: cpu.results[name]["subjects"], {"subject": ("subject", "")}, values)
    return join(captions(cpus, name), rows)


def words(cpus: Sequence[Cpu], name: str) -> str:
    """A run of words.py."""
    values = {"texts_per_second": ("texts/s", ",.0f"), "ratio": ("of encode's speed", ".0%")}
    rows = beside(cpus, lambda cpu: cpu.results[name]["rows"], {"subject": ("subject", "")}, values)
    return join(captions(cpus, name), rows)


def quality(cpus: Sequence[Cpu], name: str) -> str:
    """A run of quality.py."""
    values = {"ours": ("minibert", ".2f"), "theirs": ("sentence-transformers", ".2f")}
    last = {"published": ("published", ".2f")}
    return beside(cpus, lambda cpu: cpu.results[name]["rows"], {"task": ("task", "")}, values, last)


def study(cpus: Sequence[Cpu], name: str) -> str:
    """A run of study.py."""
    values = {"milliseconds": ("median (ms)", ",.1f"), "ratio": ("time ratio", ".2f")}
    keys = {"work": ("work", ""), "subject": ("subject", "")}
    return join(captions(cpus, name), beside(cpus, lambda cpu: cpu.results[name]["rows"], keys, values))


def tasks(cpus: Sequence[Cpu], name: str) -> str:
    """A run of tasks.py."""
    values = {"milliseconds": ("median (ms)", ",.0f"), "ratio": ("speed ratio", ".2f")}
    keys = {"work": ("work", ""), "subject": ("subject", "")}
    return join(captions(cpus, name), beside(cpus, lambda cpu: cpu.results[name]["rows"], keys, values))


def training(cpus: Sequence[Cpu], name: str) -> str:
    """A run of training.py."""
    values = {
        "seconds": ("median (s)", ".2f"),
        "ratio": ("speed ratio", ".2f"),
        "megabytes": ("peak memory (MB)", ",.0f"),
    }
    keys = {"work": ("work", ""), "subject": ("subject", "")}
    return join(captions(cpus, name), beside(cpus, lambda cpu: cpu.results[name]["rows"], keys, values))


def training_headline(cpus: Sequence[Cpu], name: str) -> str:
    """How much faster training is than with the peer, on each CPU."""
    peers = {"stsb": "sentence-transformers' trainer"}
    lines = []
    for cpu in cpus:
        rows = {(row["work"], row["subject"]): row for row in cpu.results[name]["rows"]}
        times = [
            f"{rows[work, OURS]['ratio']:.1f} x as fast as {peers.get(work, 'Trainer')} for {title}"
            for work, title in TRAINED.items()
        ]
        lines.append(bullet(f"{cpu.title}: minibert trains {', '.join(times)}."))
    return "\n".join(lines)


def step(cpus: Sequence[Cpu], name: str) -> str:
    """A run of step.py."""
    keys = {"work": ("work", ""), "dropout": ("dropout", ""), "form": ("form", "")}
    values = {"milliseconds": ("ms", ".1f")}
    parts = [
        beside(cpus, lambda cpu, part=part: cpu.results[name][part], keys, values)
        for part in ("forms", "shares", "attention")
    ]
    return join(captions(cpus, name), *parts)


def finetuning(cpus: Sequence[Cpu], name: str) -> str:
    """A run of finetuning.py."""
    values = {
        "ours": ("minibert", ".4f"),
        "theirs": ("peer", ".4f"),
        "difference": ("mean difference", "+.4f"),
        "error": ("standard error", ".4f"),
    }
    keys = {"work": ("work", ""), "metric": ("metric", "")}
    return beside(cpus, lambda cpu: cpu.results[name]["rows"], keys, values)


def pretraining(cpus: Sequence[Cpu], name: str) -> str:
    """A run of pretraining.py."""
    start = "all-MiniLM-L6-v2's encoder, new head" if name.endswith("minilm") else "tiny, from a random start"

    def rows(cpu: Cpu) -> list[Row]:
        figures = cpu.results[name]["figures"]
        subjects = {"frequencies": "unigram", "pairs of tokens": "bigram", f"minibert: {start}": "loss"}
        return [{"subject": subject, "loss": figures[key]} for subject, key in subjects.items()]

    def run(result: dict[str, Any]) -> str:
        figures, threads = result["figures"], result["machine"]["threads"]
        size = f"{figures['steps']:,} steps, {figures['tokens'] / 1e6:.1f} million tokens"
        return f"{size}, {figures['minutes']:.0f} minutes with {threads} thread{'s' if threads > 1 else ''}"

    table = beside(cpus, rows, {"subject": ("model", "")}, {"loss": ("nats per token", ".2f")})
    return join(captions(cpus, name, run), table, pictures(cpus, name))


def join(*parts: str) -> str:
    """Join the non-empty parts with blank lines."""
    return "\n\n".join(part for part in parts if part)


# Table names: the file with the figures, and the function that renders them.
BLOCKS: dict[str, tuple[str, Callable[[Sequence[Cpu], str], str]]] = {
    "headline": ("work1", headline),
    "machines": ("work1", machines),
    "memory": ("soak", memory),
    "int8": ("int8", eight_bits),
    "load-pictures": ("load", pictures),
    "training-headline": ("training", training_headline),
    **{name: (name, pretraining) for name in ("pretraining", "pretraining-minilm")},
    **{name: (name, encode) for name in ("work1", "work2", "stsb")},
    **{
        maker.__name__: (maker.__name__, maker)
        for maker in (scaling, load, soak, search, words, quality, study, tasks, training, step, finetuning)
    },
}


def rewrite(text: str, cpus: Sequence[Cpu]) -> str:
    """The text with all blocks regenerated."""

    def block(found: re.Match[str]) -> str:
        start, name, _, end = found.groups()
        if name not in BLOCKS:
            raise ValueError(f"table ({name}) must be one of {', '.join(sorted(BLOCKS))}")
        file, maker = BLOCKS[name]
        measured = [cpu for cpu in cpus if file in cpu.results]
        if not measured:
            raise ValueError(f"table ({name}) must have a result; no folder of results holds {file}.json")
        for setting in WORK:
            values = {str(cpu.results[file]["settings"].get(setting)) for cpu in measured}
            if len(values) > 1:
                raise ValueError(f"{setting} of {file}.json ({', '.join(sorted(values))}) must be the same on all CPUs")
        return f"{start}{maker(measured, file)}\n{end}"

    return BLOCK.sub(block, text)


def outdated(root: Path = ROOT, results: Path = measure.RESULTS) -> Iterator[tuple[Path, str]]:
    """The files that differ from the results, and their new content."""
    cpus = read_results(results)
    for name in TEXTS:
        path = root / name
        text = path.read_text(encoding="utf-8")
        if (expected := rewrite(text, cpus)) != text:
            yield path, expected


def main() -> None:
    """Write or check the texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a text differs from the results")
    options = parser.parse_args()
    with measure.told():
        found = list(outdated())
    if options.check and found:
        names = ", ".join(path.relative_to(ROOT).as_posix() for path, _ in found)
        measure.stop(f"{names} must show the figures of benchmarks/results; run python benchmarks/tables.py")
    for path, expected in found:
        path.write_text(expected, encoding="utf-8")


if __name__ == "__main__":
    main()
