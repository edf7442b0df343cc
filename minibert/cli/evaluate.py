"""`minibert evaluate`."""

from __future__ import annotations

import argparse

from minibert.cli.finetune import add_task, columns, show
from minibert.cli.loading import add_loading, load

DETAILS = """\
Tasks and columns are those of finetune. Prints one metric per line, separated by a tab from its value. The model must
be one for the task."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_task(parser)
    parser.add_argument("--data", metavar="FILE", required=True, help="rows with what should be predicted")
    add_loading(parser)


def run(options: argparse.Namespace) -> None:
    """Print the metrics."""
    found = load(options).evaluate(options.data, task=options.task, columns=columns(options))
    show(found, options.json)
