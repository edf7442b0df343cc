"""The time to import, and to load a checkpoint of bert-base's size, beside transformers.

    python benchmarks/load.py [--rounds 7] [--model FOLDER] [--save NAME]

Each figure is the median over fresh processes, which take turns (A B A B), with the file in the page cache. Without
`--model`, the script creates a checkpoint of bert-base's shape with random weights. Peak memory is the growth of the
resident memory (VmHWM, including pages of the mapped file) since just before loading, divided by the size of the file;
all parameters are read.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure as shared

IMPORT = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
LOAD = """
import json, re, sys, time, torch
{imports}
def resident(field):
    return int(re.search(field + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
open("/proc/self/clear_refs", "w").write("5")  # reset the peak
before = resident("VmRSS")
start = time.perf_counter()
model = {load}
seconds = time.perf_counter() - start
total = sum(float(p.detach().sum()) for p in model.parameters())  # reads every page
print(json.dumps([seconds, resident("VmHWM") - before]))
"""
OURS = {"imports": "from minibert import BertModel", "load": "BertModel.from_pretrained(sys.argv[1])"}
THEIRS = {
    "imports": "from transformers import BertModel; from transformers.utils import logging; "
    "logging.set_verbosity_error(); logging.disable_progress_bar()",
    "load": "BertModel.from_pretrained(sys.argv[1], dtype=torch.float32)",
}


def run(code: str, *arguments: str) -> Any:
    """Run code in a fresh process and return what it prints."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout)


def make_checkpoint(folder: Path) -> None:
    """Save random weights of bert-base's shape under transformers' names."""
    import minibert

    minibert.BertModel(minibert.BertConfig()).save_pretrained(folder)


def measure(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """The medians, by subject and by library."""
    imports = {
        "torch": "import torch",
        "minibert": "import minibert",
        "transformers": "from transformers import BertModel",
    }
    seconds: dict[str, list[float]] = {name: [] for name in imports}
    loads: dict[str, list[tuple[float, float]]] = {"minibert": [], "transformers": []}
    for _ in range(rounds):
        for name, statement in imports.items():
            seconds[name].append(run(IMPORT.format(statement)))
        for name, parts in (("minibert", OURS), ("transformers", THEIRS)):
            loads[name].append(run(LOAD.format(**parts), str(folder)))
    size = (folder / "model.safetensors").stat().st_size
    return {
        "import (s)": {name: statistics.median(values) for name, values in seconds.items()},
        "load (s)": {name: statistics.median(s for s, _ in values) for name, values in loads.items()},
        "peak memory / file": {name: statistics.median(m / size for _, m in values) for name, values in loads.items()},
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="fresh processes of each kind (default: 7)")
    parser.add_argument("--model", type=Path, help="folder of a checkpoint (default: bert-base's shape, random)")
    shared.add_output(parser)
    options = parser.parse_args()
    if options.model and not (options.model / "model.safetensors").is_file():
        shared.stop(f"--model ({options.model}) must be a folder that holds model.safetensors; it does not")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.model or Path(temporary)
        if options.model is None:
            make_checkpoint(folder)
        results = measure(folder, options.rounds)
        megabytes = (folder / "model.safetensors").stat().st_size / 1e6

    title = f"{megabytes:.0f} MB of weights, median of {options.rounds} processes"
    print(f"{shared.machine_line()}\n{title}\n")
    rows = [{"": subject, **values} for subject, values in results.items()]
    print(shared.table(rows, {"": ("", "")} | {name: (name, ".3f") for name in ("torch", "minibert", "transformers")}))
    ratio = results["import (s)"]["minibert"] / results["import (s)"]["torch"]
    speed = results["load (s)"]["transformers"] / results["load (s)"]["minibert"]
    print(f"\nimport minibert / import torch: {ratio:.2f}; loading: {speed:.1f} times as fast as transformers")
    shared.write_json(options, **results)
    if options.save:
        shared.bars(shared.output(options, ".png"), title, results, ".3f")


if __name__ == "__main__":
    main()
