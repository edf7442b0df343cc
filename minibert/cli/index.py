"""`minibert index`."""

from __future__ import annotations

import argparse
import sys
from itertools import islice

import minibert
from minibert.cli.loading import add_loading, load
from minibert.cli.texts import add_column
from minibert.corpus import files

DETAILS = """\
Files are .txt (one text per line), .csv, .tsv, .jsonl or .parquet. To index answered questions, name the column of the
questions with --text and that of the answers with --keep."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("inputs", metavar="FILE", nargs="+", help="a file of texts, or - for standard input")
    parser.add_argument("-o", "--output", metavar="INDEX", required=True, help="folder to write the index to")
    add_column(parser)
    parser.add_argument("--keep", metavar="COLUMN", nargs="+", default=[], help="columns to store with each text")
    add_loading(parser)


def run(options: argparse.Namespace) -> None:
    """Index the texts of files and save the index."""
    for path in options.inputs:  # before the model is loaded
        files.check_input(path)
    index = minibert.Index(load(options))
    for path in options.inputs:
        rows = files.read_records(path, options.text, options.keep)
        while block := list(islice(rows, files.BLOCK)):
            index.add([text for text, _ in block], [data or None for _, data in block])
            print(f"minibert: {len(index):,} texts", file=sys.stderr)
    index.save(options.output)
