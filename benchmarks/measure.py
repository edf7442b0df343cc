"""Shared by the benchmarks: facts about the machine, its peak rate, fair timing, tables, files and figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from minibert import BertConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CAPABILITIES = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16", "avx512_f": "AVX512", "avx2": "AVX2"}
ZEN = {25: "Zen 4", 26: "Zen 5"}  # AMD's families with bfloat16 arithmetic
PACKAGES = ("torch", "transformers", "sentence-transformers", "onnxruntime", "openvino")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
RESULTS = Path(__file__).parent / "results"
OURS, THEIRS = "#d9622b", "#9db0c4"


def machine(cpu: str | None = None) -> dict[str, Any]:
    """What the figures depend on besides the code. `cpu` overrides the name of the CPU."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    versions = {"minibert": version_of("readable-bert") or "source"}
    versions |= {package: found for package in PACKAGES if (found := version_of(package))}
    family = cpu_fact("cpu family")
    facts = {
        "cpu": cpu or cpu_fact("model name") or platform.processor() or platform.machine(),
        "family": int(family) if family else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capabilities": [title for key, title in CAPABILITIES.items() if capabilities.get(key)],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }
    return {"title": cpu_title(facts), "date": date.today().isoformat(), **facts}


def machine_line() -> str:
    """`machine()` as one line of text."""
    facts = machine()
    parts = [facts["cpu"], f"{facts['cores']} cores", f"{facts['threads']} threads", *facts["capabilities"]]
    versions = [f"{package} {number}" for package, number in facts["versions"].items()]
    return ", ".join([*parts, facts["system"], f"Python {facts['python']}", *versions])


def cpu_fact(name: str) -> str | None:
    """A value from /proc/cpuinfo, since platform.processor() only says x86_64 on Linux."""
    with suppress(OSError):
        found = re.search(rf"^{name}\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1]
    return None


def cpu_model(facts: Mapping[str, Any]) -> tuple[str, str]:
    """The model name of the CPU, and its generation, empty if unknown or if the name has a model number."""
    name = re.sub(r"\((R|TM)\)|\b(CPU|Processor|\d+-Core)\b|@.*", " ", facts["cpu"], flags=re.IGNORECASE)
    name = " ".join(name.split())
    numbered = any(character.isdigit() for character in name)
    amd = "AMD" in name and "AVX512-BF16" in facts["capabilities"]
    return name, ZEN.get(facts.get("family"), "") if amd and not numbered else ""


def cpu_title(facts: Mapping[str, Any]) -> str:
    """The CPU's title: its name, its best instruction set, and its cores.

    The names that virtual machines give their CPUs often lack the model's number: the generation stands for it.
    """
    name, generation = cpu_model(facts)
    best = [f"({facts['capabilities'][0]})"] if facts["capabilities"] else []
    return " ".join(part for part in (name, generation, *best) if part) + f", {facts['cores']} cores"


def cpu_folder(facts: Mapping[str, Any]) -> str:
    """The folder name for a CPU's results: `xeon-platinum-8481c`, or without a model number `xeon-amx`."""
    name, generation = cpu_model(facts)
    parts = [re.sub(r"\b(Intel|AMD)\b", "", name)]
    if not any(character.isdigit() for character in name):
        parts += [generation.replace(" ", "") or " ".join(facts["capabilities"][:1]).replace("AMX-BF16", "AMX")]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


def version_of(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def gemm_rate(dtype: torch.dtype, repetitions: int = 20) -> float:
    """The sustained GFLOP/s of large products: the median over repetitions, for the faster of two ways."""
    rates = []
    for width in (768, 3072):
        x, weight = torch.randn(4096, width, dtype=dtype), torch.randn(3072, width, dtype=dtype)
        with torch.inference_mode():
            seconds = alternate({"product": lambda x=x, weight=weight: F.linear(x, weight)}, repetitions)["product"]
        rates.append(2 * 4096 * width * 3072 / statistics.median(seconds) / 1e9)
    return max(rates)


class Gemm:
    """The median of `gemm_rate` over the rounds of a run, per dtype, because machines drift."""

    def __init__(self, dtypes: Sequence[str]) -> None:
        self.measured: dict[str, list[float]] = {name: [] for name in dtypes if name in DTYPES}

    def __call__(self) -> None:
        for name, rates in self.measured.items():
            rates.append(gemm_rate(DTYPES[name]))

    @property
    def rates(self) -> dict[str, float]:
        """GFLOP/s by dtype."""
        return {name: statistics.median(rates) for name, rates in self.measured.items()}

    def share(self, gflops: float, dtype: str) -> float | None:
        """The fraction of the rate; None for a dtype that was not measured, such as int8."""
        return gflops / self.rates[dtype] if dtype in self.measured else None

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:,.0f} GFLOP/s in {name}" for name, rate in self.rates.items())
        return f"large matrix products between the rounds, median: {rates}"


def flops(lengths: Sequence[int], config: BertConfig) -> float:
    """The encoder's multiplications and additions for texts of these lengths, without padding."""
    h, i, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    products = sum(lengths) * 2 * (4 * h * h + 2 * h * i)
    attention = 4 * h * sum(length**2 for length in lengths)
    return float(layers * (products + attention))


def alternate(
    subjects: Mapping[str, Callable[[], object]],
    rounds: int,
    between: Callable[[], object] | None = None,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Seconds of each subject. They take turns (A B C A B C), so that a slow phase of the machine affects all."""
    if warm_up:
        for run in subjects.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        if between:
            between()
        for name, run in subjects.items():
            start = perf_counter()
            run()
            seconds[name].append(perf_counter() - start)
    return seconds


def speed(seconds: Sequence[float], texts: int, flop: float) -> dict[str, float]:
    """The figures of a table row."""
    median = statistics.median(seconds)
    return {
        "seconds": median,
        "fastest": min(seconds),
        "texts_per_second": texts / median,
        "gflops": flop / median / 1e9,
    }


def agreement(vectors: NDArray[np.float32], expected: NDArray[np.float32]) -> dict[str, float]:
    """The lowest cosine between the two vectors of a text, and the largest absolute difference."""
    a, b = vectors.astype(np.float64), expected.astype(np.float64)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return {"cosine": float(cosines.min()), "difference": float(np.abs(a - b).max())}


def resident(field: str = "VmRSS") -> int | None:
    """Resident memory in bytes, current (VmRSS) or peak (VmHWM); None if the system has no /proc."""
    try:
        found = re.search(field + r":\s+(\d+)", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def growth(run: Callable[[], object]) -> int | None:
    """The peak growth of the resident memory while something ran, in bytes."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident()
    run()
    after = resident("VmHWM")
    return None if before is None or after is None else after - before


COLUMNS = {
    "subject": ("subject", ""),
    "seconds": ("median (s)", ".3f"),
    "fastest": ("fastest (s)", ".3f"),
    "texts_per_second": ("texts/s", ",.0f"),
    "ratio": ("speed ratio", ".2f"),
    "gflops": ("GFLOP/s", ",.0f"),
    "share": ("of GEMM", ".0%"),
    "cosine": ("worst cosine", ".6f"),
    "difference": ("largest difference", ".1e"),
}


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]) -> str:
    """A Markdown table; `columns` maps keys of the rows to a title and a format."""
    lines = [[title for title, _ in columns.values()], [":--" if form == "" else "--:" for _, form in columns.values()]]
    for row in rows:
        values = [(row.get(key), form) for key, (_, form) in columns.items()]
        lines.append(["" if value is None else format(value, form) for value, form in values])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Declare the options for where results are written."""
    parser.add_argument("--save", metavar="NAME", help="write NAME.json, and a figure if there is one")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="write to DIR/CPU/ (default: benchmarks/results)"
    )
    parser.add_argument("--cpu", metavar="CPU", help="name of the CPU (default: from the system)")


def output(options: argparse.Namespace, suffix: str) -> Path:
    """The path of a result file; requires `--save`."""
    path: Path = options.results / cpu_folder(machine(options.cpu)) / f"{options.save}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_json(options: argparse.Namespace, **parts: Any) -> None:
    """With `--save`, write the machine, the settings and the figures. Paths are reduced to file names."""
    if options.save:
        settings = {key: value for key, value in vars(options).items() if key not in ("save", "results", "cpu")}
        for key, value in settings.items():
            if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_dir()):
                settings[key] = Path(value).name
        content = {"machine": machine(options.cpu), "settings": settings, **parts}
        output(options, ".json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_texts(path: Path, limit: int | None = None) -> list[str]:
    """One text per line, without blank lines; for STS-B's .csv and .tsv, both sentences of each line."""
    if not path.is_file():
        stop(f"--texts ({path}) must be a file that exists; check the name")
    lines = path.read_text(encoding="utf-8").split("\n")
    if path.suffix in (".csv", ".tsv"):
        lines = [sentence for line in lines for sentence in line.split("\t")[5:7]]
    texts = [line.strip() for line in lines if line.strip()][:limit]
    return texts or stop(f"{path} must hold at least one text")


def hush_transformers() -> None:
    """Silence transformers' progress bars and reports."""
    from transformers.utils import logging as its_logging

    its_logging.set_verbosity_error()
    its_logging.disable_progress_bar()


def base_model(folder: Path, tokenizer: Path) -> str:
    """Write a checkpoint of bert-base's shape: fixed random weights, and the tokenizer of another checkpoint."""
    from transformers import BertConfig, BertModel

    hush_transformers()
    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder)
    return str(folder)


def stop(message: str) -> Any:
    """Exit with code 2 and a one-sentence error."""
    print(message, file=sys.stderr)
    raise SystemExit(2)


@contextmanager
def told() -> Iterator[None]:
    """Report errors of values and files in one sentence."""
    try:
        yield
    except (OSError, ValueError) as error:
        stop(str(error))


def pyplot() -> Any:
    """matplotlib's pyplot, drawing to files only."""
    try:
        import matplotlib
    except ImportError:
        stop("a picture needs matplotlib (pip install matplotlib); the figures are saved without it")
    matplotlib.use("Agg")
    import matplotlib.pyplot

    matplotlib.pyplot.rcParams.update(
        {"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "minibert"}
    )
    return matplotlib.pyplot


def save_figure(figure: Any, path: Path, title: str) -> None:
    """Add the title and a caption with the machine; write PNG or SVG, depending on the suffix."""
    inches = figure.get_figwidth()
    figure.suptitle(title, fontsize=12)
    caption = textwrap.fill(machine_line(), int(inches * 16), break_on_hyphens=False)
    figure.supxlabel(caption, fontsize=7, color="#666666")
    figure.get_layout_engine().set(wspace=0.06)
    figure.savefig(path, dpi=150)
    pyplot().close(figure)


def bars(path: Path, title: str, panels: Mapping[str, Mapping[str, float]], form: str) -> None:
    """Horizontal bars with their values, one panel per quantity; minibert's bars have their own colour."""
    height = 1.3 + 0.36 * max(len(values) for values in panels.values())
    figure, axes = pyplot().subplots(
        1, len(panels), figsize=(max(9.0, 3.8 * len(panels)), height), squeeze=False, layout="constrained"
    )
    for axis, (quantity, values) in zip(axes[0], panels.items(), strict=True):
        colours = [OURS if name.startswith("minibert") else THEIRS for name in values]
        drawn = axis.barh(list(values), list(values.values()), color=colours)
        axis.bar_label(drawn, [format(value, form) for value in values.values()], padding=4, fontsize=9)
        axis.invert_yaxis()
        axis.margins(x=0.15)
        axis.set_xlabel(quantity)
        axis.tick_params(axis="y", length=0)
    save_figure(figure, path, title)
