"""`minibert finetune`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import minibert
from minibert.cli.loading import LOWER_CASE, add_checkpoint, add_lower_case, model_of
from minibert.errors import MinibertError
from minibert.records import decoded
from minibert.training.data import as_number
from minibert.training.processes import is_first, join
from minibert.training.tasks import TASKS

DETAILS = """\
Tasks and their columns: classify (text, label, text_pair), tokens (a CoNLL file), similarity (sentence1, sentence2,
score), pairs (anchor, positive, negative), rank (query, passage, label), qa (a JSON file in SQuAD's format). Files are
.csv, .tsv, .jsonl or .parquet. Prints the metrics on the rows of --dev, one per line, separated by tabs. The folder
then holds the model and its card. The same command again resumes an interrupted run."""


def add_task(parser: argparse.ArgumentParser) -> None:
    """Declare `--task` and `--column`."""
    parser.add_argument("--task", choices=tuple(TASKS), required=True, help="what the model is for")
    parser.add_argument(
        "--column",
        metavar="NAME=COLUMN",
        action="append",
        default=[],
        help="the name of a column in the file, where it differs (can be given several times)",
    )


def columns(options: argparse.Namespace) -> dict[str, str]:
    """The names of columns, by the task's names."""
    pairs = [given.partition("=") for given in options.column]
    for name, _, column in pairs:
        if not column:
            raise MinibertError(f"--column ({name}) must be NAME=COLUMN; write --column label=category, for example")
    return {name: column for name, _, column in pairs}


def part(dev: str | None) -> str | float | None:
    """A file, or a part of the rows, if it is written as a number below 1."""
    number = None if dev is None else as_number(dev)
    return number if number is not None and 0 < number < 1 else dev


def lines_in(path: str | None) -> list[str] | None:
    """The lines of a file with a label on each."""
    if path is None:
        return None
    if not Path(path).is_file():
        raise FileNotFoundError(f"--labels ({path}) must be a file that exists; check the name")
    return [line.strip() for _, line in decoded(path) if line.strip()]


@contextmanager
def saying() -> Iterator[None]:
    """A context in which what a run says of itself is printed, also where no progress bar is shown, as in a file."""
    logger, handler = logging.getLogger("minibert.training"), logging.StreamHandler(sys.stderr)
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def show(metrics: dict[str, float], as_json: bool) -> None:
    """Print metrics."""
    if as_json:
        print(json.dumps(metrics))
        return
    for name, value in metrics.items():
        print(f"{name}\t{value:.4f}")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_task(parser)
    parser.add_argument("--train", metavar="FILE", required=True, help="rows to learn from")
    parser.add_argument(
        "--dev",
        metavar="FILE",
        help="rows to evaluate on after each epoch; the best model is kept. 0.1 takes a tenth of the rows of --train",
    )
    parser.add_argument("--labels", metavar="FILE", help="all labels, one per line (default: those of --train)")
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave out rows that cannot be learned from")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder for the run and the model")
    add_checkpoint(parser)
    parser.add_argument("--epochs", type=int, default=3, help="how often each row is taken (default: 3)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows per step (default: 32)")
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="the highest learning rate (default: 5e-05)")
    parser.add_argument("--warmup", type=float, default=0.1, help="part of the steps in which it rises (default: 0.1)")
    parser.add_argument(
        "--schedule",
        choices=("linear", "cosine", "constant"),
        default="linear",
        help="how it falls after that (default: linear)",
    )
    parser.add_argument("--weight-decay", type=float, default=0.01, help="of weights, as in BERT (default: 0.01)")
    parser.add_argument("--save-every", type=int, default=500, help="steps between two saved states (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="of the head, the order and dropout (default: 0)")
    parser.add_argument("--patience", type=int, help="stop after so many evaluations without a gain (default: never)")
    parser.add_argument("--max-length", type=int, help="most tokens of a row (default: the model's limit)")
    parser.add_argument(
        "--loss", choices=("cosent", "cosine"), default="cosent", help="of similarity (default: cosent)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="dtype of the products; weights are float32 (default: float32)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, ... (default: cpu)")
    add_lower_case(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")


def run(options: argparse.Namespace) -> None:
    """Fine-tune a model, and print its metrics."""
    join()  # before the model is loaded, since each process may have a device of its own
    bert = minibert.load(
        model_of(options),
        revision=options.revision,
        local_files_only=options.offline,
        device=options.device,
        do_lower_case=LOWER_CASE.get(options.lower_case),
    )
    with saying():
        made = bert.finetune(
            options.train,
            task=options.task,
            dev=part(options.dev),
            output=options.output,
            columns=columns(options),
            labels=lines_in(options.labels),
            skip_bad_rows=options.skip_bad_rows,
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            warmup=options.warmup,
            schedule=options.schedule,
            weight_decay=options.weight_decay,
            save_every=options.save_every,
            seed=options.seed,
            patience=options.patience,
            max_length=options.max_length,
            loss=options.loss,
            dtype=options.dtype,
        )
    if not is_first():  # only one of several processes prints
        return
    if made.metrics:
        show(made.metrics, options.json)
    print(f"minibert: the model is in {options.output}", file=sys.stderr)
