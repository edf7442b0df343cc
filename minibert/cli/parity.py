"""`minibert parity`."""

from __future__ import annotations

import argparse
import json

import minibert
from minibert.cli.loading import add_checkpoint, add_json, check_no_model_among_texts, model_of

DETAILS = """\
Runs both libraries on the same texts and prints the largest difference of each tensor: the embeddings, each
layer's attention and output, the pooler, the logits. The exit code is 1 if a difference exceeds the tolerance."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_checkpoint(parser)
    add_json(parser)
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="a text to run (default: five built-in texts)")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="largest difference allowed (default: 1e-6)")


def run(options: argparse.Namespace) -> int:
    """Print the table. Returns 1 if parity does not hold."""
    check_no_model_among_texts(options)
    report = minibert.parity(
        model_of(options),
        options.texts or None,
        tolerance=options.tolerance,
        revision=options.revision,
        local_files_only=options.offline,
    )
    if options.json:
        for row in report.rows:
            print(json.dumps({"tensor": row.tensor, "shape": row.shape, "difference": row.difference, "at": row.place}))
    else:
        print(report)
    return 0 if report.ok else 1
