"""How often integrated gradients converge, and which heads of a model follow dependencies.

    python benchmarks/explanations.py --model FOLDER|NAME --data DIR

DIR holds stsb/ and ud_pud/ as they were published. The result, which does not depend on the CPU, is kept in
`findings/heads-minilm.json`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import minibert
from minibert.reports.published import BEATING_OFFSETS, DIRECTIONS, PUD_FILE, dependency_heads, read_conllu


def convergence(bert: minibert.Bert, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """The share of texts whose explanation converged, and how many steps that took."""
    found = [bert.explain(text, similar_to=other) for text, other in pairs]
    steps = Counter(one.steps for one in found)
    return {
        "texts": len(found),
        "converged": sum(one.converged for one in found),
        "largest gap": max(one.gap for one in found),
        "texts by steps": {str(count): steps[count] for count in sorted(steps)},
    }


def dependencies(bert: minibert.Bert, data: Path) -> dict[str, Any]:
    """For each relation, the best head and the best fixed offset on ud_pud."""
    with (data / PUD_FILE).open(encoding="utf-8") as lines:
        found = dependency_heads(bert, read_conllu(lines), BEATING_OFFSETS)
    rows = {}
    for relation, one in found.items():
        direction, layer, head = one.best
        rows[relation] = {
            "words": one.count,
            "layer": layer,
            "head": head,
            "direction": DIRECTIONS[direction],
            "accuracy": round(one.best_accuracy, 4),
            "offset": one.offset,
            "accuracy of the offset": round(one.offset_accuracy, 4),
        }
    return rows


def pairs_of(data: Path, count: int = 100) -> list[tuple[str, str]]:
    """Pairs of STS-B's development set, evenly spread over it."""
    lines = (data / "stsb" / "sts-dev.csv").read_text(encoding="utf-8").splitlines()
    chosen = lines[:: len(lines) // count][:count]
    return [(fields[5], fields[6]) for fields in (line.split("\t") for line in chosen)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="repository of the Hub, or folder")
    parser.add_argument("--data", type=Path, required=True, help="folder with stsb/ and ud_pud/")
    options = parser.parse_args()
    bert = minibert.load(options.model)
    result = {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "integrated gradients of the cosine, STS-B dev": convergence(bert, pairs_of(options.data)),
        "heads that follow dependencies, ud_pud": dependencies(bert, options.data),
    }
    folder = Path(__file__).parent / "findings"
    folder.mkdir(exist_ok=True)
    (folder / "heads-minilm.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
