"""Fine-tuning: a model with a new head learns a task from rows, and is saved for `load` and other libraries."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from typing_extensions import Never

from minibert.base import PretrainedModel
from minibert.bert import Bert
from minibert.errors import MinibertError, warn
from minibert.loading import load
from minibert.model import BertModel
from minibert.pretrained.files import write_text
from minibert.text import check_choice, counted, whole_number
from minibert.training.card import card
from minibert.training.data import Data, Rows, read, without_bad_rows
from minibert.training.metrics import Metrics, check_installed
from minibert.training.packed import Example
from minibert.training.processes import is_first, join, wait
from minibert.training.run import History, claim, draw_curve, finish, folder_of, is_finished, run_in_folder
from minibert.training.settings import Settings
from minibert.training.tasks import TASKS, Compare, Task
from minibert.training.vocabulary import CompactTable
from minibert.vectors.fingerprint import facts
from minibert.vectors.recipe import Recipe

# What other libraries call our arguments, for error messages.
INSTEAD = {
    "lr": "learning_rate",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "gradient_accumulation_steps": "batch_size, which may be large: a batch is computed in parts of part_tokens tokens",
    "eval_dataset": "dev",
    "validation_data": "dev",
    "output_dir": "output",
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup, a part of the steps",
    "lr_scheduler_type": "schedule",
    "early_stopping_patience": "patience",
    "max_seq_length": "max_length",
    "bf16": "dtype='bfloat16'",
    "save_steps": "save_every",
    "callbacks": "minibert.training.loop.train, which yields after every step",
}


class FinetuneSettings(TypedDict, total=False):
    """Keyword arguments of `Bert.finetune`, besides `task` and `output`."""

    dev: Rows | float | None
    columns: Mapping[str, str] | None
    labels: Sequence[str] | None
    skip_bad_rows: bool
    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    schedule: Literal["linear", "cosine", "constant"]
    weight_decay: float
    seed: int
    patience: int | None
    max_length: int | None
    loss: Literal["cosent", "cosine"]
    dtype: Literal["float32", "bfloat16"]
    part_tokens: int | None
    save_every: int
    show_progress_bar: bool | None


@dataclass(frozen=True)
class Run:
    """A model that was fine-tuned.

    Attributes:
        metrics: of the best model, by the rows of `dev`; empty without them.
        history: the losses of all steps, and the metrics of all evaluations.
        model: the best model, or without `dev` the last, as `load` reads it from the folder.
        folder: where everything is.
    """

    metrics: Metrics
    history: History
    model: Bert
    folder: Path

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items()) or "not evaluated"
        return f"Run({str(self.folder)!r}: {found})"


def finetune(
    bert: Bert,
    train: Rows,
    *,
    task: str,
    output: str | Path,
    dev: Rows | float | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    skip_bad_rows: bool = False,
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float = 5e-5,
    warmup: float = 0.1,
    schedule: Literal["linear", "cosine", "constant"] = "linear",
    weight_decay: float = 0.01,
    seed: int = 0,
    patience: int | None = None,
    max_length: int | None = None,
    loss: Literal["cosent", "cosine"] = "cosent",
    dtype: Literal["float32", "bfloat16"] = "float32",
    part_tokens: int | None = None,
    save_every: int = 500,
    show_progress_bar: bool | None = None,
    **theirs: Never,
) -> Run:
    """Fine-tune a copy of a model on rows, and save it.

    The same call again resumes an interrupted run. Of a finished one it returns what it returned, and writes nothing.
    Tasks and their columns:

    - "classify": text, label, and if there are pairs text_pair. The labels decide whether one label is learned, several
      or a number: see `tasks.Classify`.
    - "tokens": words, labels; or a CoNLL file.
    - "similarity": sentence1, sentence2, score.
    - "pairs": anchor, positive and, if there are any, negative.
    - "rank": query, passage, label (0 to 1).
    - "qa": question, context, answers; or a JSON file in SQuAD's format.

    Args:
        bert: the model; it does not change.
        train: a .csv, .tsv, .jsonl or .parquet file, a table of pandas, Polars or Arrow, or an iterable of dicts.
        task: what is learned.
        output: a folder, new or empty. The model goes into it; the run's states, `losses.csv` and `metrics.csv` into
            its subfolder `training`.
        dev: rows to evaluate on after each epoch. The model with the best metric is kept; without, the last. A number
            such as 0.1 takes this part of the rows of `train`, at random, which are then not learned from.
        columns: the names of columns in the rows, by the names above, where they differ; those of a CoNLL file are
            numbered from "1" on.
        labels: of "classify" and "tokens", in the order that the model is to have. None: those of `train`, sorted.
        skip_bad_rows: leave out rows that cannot be learned from, with a warning, instead of raising.
        epochs, batch_size: how often each row is taken, and how many rows in a step.
        learning_rate, warmup, schedule, weight_decay, seed, dtype, part_tokens: as for `Settings`.
        patience: stop after so many evaluations without a better metric.
        max_length: the most tokens of a row, with special tokens; None means the model's limit.
        loss: for "similarity": "cosent" learns the order of scores, "cosine" learns cosines.
        save_every: steps between two saved states.
        show_progress_bar: None shows it if standard error is a terminal.

    Raises:
        MinibertError: rows that cannot be learned from; the folder holds another run or anything else; a setting that
            makes no sense.
        FileNotFoundError: a file does not exist.
        ImportError: `dev` is given, and scikit-learn is not installed.
        DivergenceError: a loss is not finite; the last saved state is in the folder.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
        TypeError: an unknown argument; the message names ours if there is one.
    """
    for name in theirs:
        remedy = f"; use {INSTEAD[name]}" if name in INSTEAD else ""
        raise TypeError(f"finetune() got an unexpected keyword argument {name!r}{remedy}")
    join()
    folder = folder_of(output)
    if dev is not None:
        check_installed()
    if patience is not None and dev is None:
        raise MinibertError(f"patience ({patience}) must be given with dev, whose metric it waits for; pass dev=")
    for name, count in (
        ("epochs", epochs),
        ("batch_size", batch_size),
        ("patience", patience),
        ("max_length", max_length),
    ):
        if count is not None or name in ("epochs", "batch_size"):
            whole_number(name, count)
    settings = Settings(
        steps=1,  # until the rows are known
        learning_rate=learning_rate,
        warmup=warmup,
        schedule=schedule,
        weight_decay=weight_decay,
        part_tokens=part_tokens,
        seed=seed,
        dtype=dtype,
    )
    rows = read_rows("train", train, task, columns, skip_bad_rows)
    learned = TASKS[task].learned(rows)
    if labels is not None:
        learned = learned.with_labels(labels)
    held_out = None
    if isinstance(dev, float):
        rows, held_out = divided(rows, dev, seed)
    elif dev is not None:
        held_out = read_rows("dev", dev, task, columns, skip_bad_rows)
    if isinstance(learned, Compare):
        learned.loss = check_choice("loss", loss, ("cosent", "cosine"))
    tuned = to_be_tuned(bert, learned, folder, max_length, seed)

    examples = _examples(learned, tuned, rows)
    others = [] if held_out is None else _examples(learned, tuned, held_out)
    if held_out is not None:
        learned.check(held_out)
    table = CompactTable(tuned.encoder, [*examples, *others])
    batches = learned.order(table.examples[: len(examples)], batch_size, seed)
    settings = replace(settings, steps=batches.steps * epochs)
    choices = {
        "epochs": epochs,
        "batch_size": batch_size,
        "max_length": tuned.max_seq_length,
        "patience": patience,
        **({"skip_bad_rows": True} if skip_bad_rows else {}),
        **({"dev": dev} if isinstance(dev, float) else {}),
        **({"loss": loss} if task == "similarity" else {}),
    }

    claim(folder)
    history = run_in_folder(
        tuned.model,
        batches,
        learned.objective(tuned.recipe),
        settings,
        folder / "training",
        identity={
            "task": task,
            "train": rows.digest,
            "dev": held_out and held_out.digest,
            "columns": dict(columns or {}),
            **({} if labels is None else {"labels": learned.labels}),
            "model": facts(bert),
            **choices,
        },
        save_every=save_every,
        evaluate=None if held_out is None else lambda _: _measured(learned, tuned, table, held_out),
        evaluate_every=batches.steps,
        steps_of_epoch=batches.steps,
        said=f"{counted(len(rows.rows), 'row')}, {learned.described(rows)}",
        best=None if held_out is None else learned.metric,
        patience=patience,
        describe=lambda example: " | ".join(tuned.tokenizer.decode(table.used[row].tolist()) for row in example.rows),
        show_progress_bar=show_progress_bar,
    )
    best = history.best or {"step": len(history.steps)}
    metrics = {name: value for name, value in best.items() if name != "step"}
    if not is_finished(folder) and is_first():  # of several processes, one writes
        # rows of the table that do not occur were only decayed: see `CompactTable`
        table.restore(math.prod(1 - settings.rate(number) * weight_decay for number in range(int(best["step"]))))
        tuned.save_pretrained(folder)
        data = [rows] if held_out is None else [rows, held_out]
        if not (folder / "README.md").exists():  # of this run, which was killed here, or somebody's own
            write_text(folder / "README.md", card(bert.source, task, data, {**choices, **vars(settings)}, metrics))
        with suppress(ImportError):  # without matplotlib, there is no picture
            draw_curve(folder / "training")
        finish(folder)
    wait()
    return Run(metrics, history, load(folder, device=bert.model.device), folder)


def divided(rows: Data, part: float, seed: int) -> tuple[Data, Data]:
    """Rows to learn from, and the part to evaluate on, drawn at random; each keeps the order of the rows.

    Raises:
        MinibertError: the part is not between 0 and 1, or leaves one side without rows.
    """
    count = round(len(rows.rows) * part) if 0 < part < 1 else 0
    if not 0 < count < len(rows.rows):
        raise MinibertError(
            f"dev ({part!r}) must be rows, or a part of the {counted(len(rows.rows), 'row')} of train between 0 and 1 "
            "that leaves some on both sides; 0.1 is usual"
        )
    chosen = set(np.random.default_rng([seed, 2]).permutation(len(rows.rows))[:count].tolist())
    sides = [[row for i, row in enumerate(rows.rows) if (i in chosen) == held_out] for held_out in (False, True)]
    title = f"{part:g} of {rows.title}"
    return replace(rows, rows=sides[0]), replace(rows, name="dev", title=title, rows=sides[1])


def evaluate(bert: Bert, data: Rows, *, task: str, columns: Mapping[str, str] | None = None) -> Metrics:
    """Measure how well a model predicts rows, by its own methods, such as `Bert.classify`.

    Args:
        bert: the model.
        data, task, columns: as for `finetune`.

    Raises:
        MinibertError: the model has no head for the task; rows that cannot be measured.
    """
    rows = read_rows("data", data, task, columns)
    kind = TASKS[task]
    if kind.kind is not BertModel and not isinstance(bert.model, kind.kind):
        raise MinibertError(
            f"{bert.source} ({type(bert.model).__name__}) must be a {kind.kind.__name__} for the task {task!r}; "
            "fine-tune one, or choose another task"
        )
    return kind.of(bert.config).metrics(bert, rows)


def read_rows(
    name: str, source: Rows, task: str, columns: Mapping[str, str] | None, skip_bad_rows: bool = False
) -> Data:
    """Read the rows of a task; the arguments are as for `finetune`."""
    kind = TASKS[check_choice("task", task, tuple(TASKS))]
    for column in columns or {}:
        check_choice("column", column, kind.columns)
    data = read(name, source, {c: (columns or {}).get(c, c) for c in kind.columns}, kind.optional, kind.formats)
    return without_bad_rows(data, kind.check_row, skip_bad_rows)


def to_be_tuned(bert: Bert, task: Task, folder: Path, max_length: int | None, seed: int) -> Bert:
    """A copy of a model with the head that a task needs; new heads start at random."""
    if bert.edits:
        raise MinibertError(
            f"an edited Bert (at {', '.join(bert.edits)}) must not be trained; train the one it was made of"
        )
    tuned = Bert(_model(bert, task, seed), copy(bert.tokenizer), bert.recipe, str(folder))
    if max_length is not None:
        if max_length > bert.max_seq_length:
            raise MinibertError(f"max_length ({max_length}) must be at most {bert.max_seq_length}, the model's limit")
        tuned.max_seq_length = max_length
    limit = tuned.max_seq_length
    if task.kind is BertModel:
        bert.recipe.check()
        if bert.recipe.prompt and not bert.recipe.include_prompt:
            raise MinibertError(f"the prompt ({bert.recipe.prompt!r}) must be pooled to train with it; it is not")
        tuned.recipe = replace(bert.recipe, untrained="", max_seq_length=limit)
    else:
        why = "its vectors were not trained, since it was fine-tuned for a task; use the model that it was made of"
        tuned.recipe = Recipe(lower_case=bert.recipe.lower_case, settings=_reranker(bert, task), untrained=why)
        tuned.tokenizer.model_max_length = limit
    return tuned


def _reranker(bert: Bert, task: Task) -> dict[str, Any]:
    """What the files of a reranker say of its activation, if it stays one."""
    settings = bert.recipe.settings if isinstance(bert.model, task.kind) else {}
    return {name: value for name, value in settings.items() if name == "activation_fn"}


def _model(bert: Bert, task: Task, seed: int) -> PretrainedModel:
    """The model of a task, with the weights of another one; a head is kept if it is for the same labels."""
    config = bert.config.replace(**task.changes())
    there = bert.encoder
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        if task.kind is BertModel:
            model: Any = BertModel(config, add_pooling_layer=there.pooler is not None)
        else:
            model = task.kind(config)
    getattr(model, "bert", model).load_state_dict(there.state_dict(), strict=False)
    if type(bert.model) is task.kind and bert.config.id2label == config.id2label:
        model.load_state_dict(bert.model.state_dict())
    moved: PretrainedModel = model.to(there.device).eval()
    return moved


def _examples(task: Task, bert: Bert, data: Data) -> list[Example]:
    examples, lost = task.examples(bert, data)
    if lost:
        warn(
            f"{len(lost)} of {counted(len(data.rows), 'row')} of {data.name} exceed {bert.max_seq_length} tokens: "
            f"{counted(sum(lost.values()), 'token')} were dropped; shorten them, or choose a model with a higher limit"
        )
    return examples


def _measured(task: Task, bert: Bert, table: CompactTable, data: Data) -> Metrics:
    """The metrics of a model in training."""
    with whole_table(bert, table), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows that are too long were counted before
        return task.metrics(bert, data)


@contextmanager
def whole_table(bert: Bert, table: CompactTable) -> Iterator[None]:
    """Put the whole token table in place, with the rows as they are trained so far, so that any text can be encoded."""
    embeddings = bert.encoder.embeddings
    compact = embeddings.token
    with torch.no_grad():
        table.whole.weight[torch.from_numpy(table.used)] = compact.weight
    embeddings.token = table.whole
    try:
        yield
    finally:
        embeddings.token = compact
