"""`minibert explain-similarity`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from minibert.cli.loading import add_loading, load
from minibert.cli.texts import print_row
from minibert.errors import MinibertError
from minibert.pictures import plots

DETAILS = """\
A line for each pair of words, the largest first: what it adds to the cosine, the word of A, the word of B, with tabs
between them. All pairs add up to the cosine, which is printed first. The model must pool by the mean."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("a", metavar="A", help="a text")
    parser.add_argument("b", metavar="B", help="another text")
    parser.add_argument("--top", type=int, default=10, help="how many pairs (default: 10)")
    parser.add_argument("-o", "--output", metavar="PICTURE", help="draw all pairs: .png or .svg")
    add_loading(parser)


def run(options: argparse.Namespace) -> None:
    """Print the pairs, or draw them."""
    if options.output and Path(options.output).suffix.lower() not in plots.SUFFIXES:  # before anything is computed
        raise MinibertError(f"the output ({options.output}) must end in {' or '.join(plots.SUFFIXES)}")
    if options.top < 1:
        raise MinibertError(f"--top ({options.top}) must be at least 1")
    found = load(options).explain_similarity(options.a, options.b)
    if options.output:
        plots.save(found.plot(), options.output)
    top = found.top(options.top)
    if options.json:
        pairs = [{"a": a, "b": b, "contribution": value} for a, b, value in top]
        print(json.dumps({"cosine": found.cosine, "pairs": pairs}, ensure_ascii=False))
        return
    print(f"{found.cosine:.4f}\tcosine")
    for a, b, value in top:
        print_row(f"{value:.4f}", a, b)
