"""`minibert study`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from minibert.cli.loading import BERT_BASE, add_checkpoint, add_json, load
from minibert.reports.published import published

DETAILS = """\
`minibert study published` prints a line for each published value: the paper, the value, ours, and whether it is
within the tolerance. A row that the model or the data cannot give says why. Exit code 1 if a value is not within."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("what", choices=("published",), help="what to measure")
    add_checkpoint(parser, BERT_BASE)
    parser.add_argument(
        "--data", metavar="DIR", help="folder with agreement/, ud_pud/ and stsb/ as they were published"
    )
    add_json(parser)
    parser.set_defaults(dtype="float32", device="cpu")


def run(options: argparse.Namespace) -> int:
    """Print the table; the value is 1 if a value is outside its tolerance."""
    report = published(load(options), options.data)
    if options.json:
        for row in report.rows:
            print(json.dumps(asdict(row), ensure_ascii=False))
    else:
        print(report)
    return 0 if report.ok else 1
