"""`minibert demo`."""

from __future__ import annotations

import argparse

from minibert.cli.loading import add_model
from minibert.demo import demo

SUMMARY = "A tour: questions matched with answers, one word in three contexts, filled masks."
DETAILS = "Loads a checkpoint and shows what it does, where it came from and how long each step took."


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_model(parser)


def run(options: argparse.Namespace) -> None:
    """Print the tour, each line as soon as it is known."""
    for line in demo(options.model):
        print(line, flush=True)
