"""`minibert demo`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from shutil import which

from minibert.cli.loading import add_model, installed, model_of
from minibert.demo import demo

DETAILS = "Prints the results, where the checkpoint came from, and how long each step took."


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_model(parser)


def run(options: argparse.Namespace) -> None:
    """Print each line of the demo as soon as it is ready, and what to type next."""
    model = model_of(options)
    for line in demo(model):
        print(line, flush=True)
    here = Path(sys.argv[0])
    command = "minibert" if which("minibert") or here.name != "minibert" else shlex.quote(os.path.relpath(here))
    with_model = "" if Path(model) == installed() else f" --model {shlex.quote(model)}"
    print("\nNext, for example:")
    for tried in ('encode "How do I reset my password?"', 'words "They sat on the bank of the river."', "info"):
        print(f"  {command} {tried}{with_model}")
