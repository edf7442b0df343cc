"""`minibert demo`."""

from __future__ import annotations

import argparse

from minibert.cli.loading import add_model
from minibert.demo import demo

DETAILS = "Prints the results, where the checkpoint came from, and how long each step took."


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_model(parser)


def run(options: argparse.Namespace) -> None:
    """Print each line of the demo as soon as it is ready."""
    for line in demo(options.model):
        print(line, flush=True)
