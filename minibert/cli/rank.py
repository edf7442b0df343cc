"""`minibert rank`."""

from __future__ import annotations

import argparse
import json

from minibert.cli.loading import RERANKER, add_loading, load
from minibert.cli.texts import read_texts

SUMMARY = "Sort documents by how well they answer a query."
DETAILS = """\
Prints one line per document, the best first: its score, its number, and the text, separated by tabs. The model must be
a reranker. Documents are the arguments, or the lines of standard input if there are none."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("query", metavar="QUERY", help="what is asked")
    parser.add_argument("texts", metavar="DOCUMENT", nargs="*", help="a text (default: the lines of standard input)")
    add_loading(parser, model=RERANKER)
    parser.add_argument("--top-k", type=int, help="number of documents (default: all)")


def run(options: argparse.Namespace) -> None:
    """Print the documents in order."""
    documents = read_texts(options.texts)
    for one in load(options).rank(options.query, documents, top_k=options.top_k):
        if options.json:
            print(json.dumps(one._asdict(), ensure_ascii=False))
        else:
            print(f"{one.score:.4f}\t{one.index}\t{' '.join(one.text.split())}")
