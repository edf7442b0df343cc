"""`minibert info`."""

from __future__ import annotations

import argparse
import json

from minibert.cli.loading import add_loading, check_no_model_among_texts, load
from minibert.errors import MinibertError, printable

DETAILS = "Prints its shape, heads, pooling, length limit, dtype and commit."


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "texts", nargs="*", help=argparse.SUPPRESS
    )  # takes none; parsed so that `info MODEL` gets a helpful error
    add_loading(parser)


def run(options: argparse.Namespace) -> None:
    """Print the description."""
    check_no_model_among_texts(options)
    if options.texts:
        raise MinibertError(f"info takes no texts ({options.texts[0]!r}); name the model with --model")
    bert = load(options)
    lines = [json.dumps(bert.info(), ensure_ascii=False)] if options.json else map(printable, f"{bert}".split("\n"))
    print(*lines, sep="\n")
