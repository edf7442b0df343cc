"""`minibert rank`."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

import minibert
from minibert.cli.loading import RERANKER, add_loading, load
from minibert.cli.texts import add_pair_files, check_pair_files, read_texts, without_vectors, write_file
from minibert.corpus import files

SUMMARY = "Sort documents by how well they answer a query."
DETAILS = """\
Prints one line per document, the best first: its score, its number, and the text, separated by tabs. The model must be
a reranker. Documents are the arguments, or the lines of standard input if there are none.

With --files and -o, reads queries and passages from files with these columns, and writes a row per pair, in their
order: the query, the passage and the score. An interrupted run resumes."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("query", metavar="QUERY", nargs="?", help="what is asked")
    parser.add_argument("texts", metavar="DOCUMENT", nargs="*", help="a text (default: the lines of standard input)")
    add_loading(parser, model=RERANKER)
    add_pair_files(parser, "query", "passage")
    parser.add_argument(
        "--truncation",
        choices=("warn", "error"),
        default="warn",
        help="long pairs: truncate with a warning, or reject (default: warn)",
    )
    parser.add_argument("--top-k", type=int, help="number of documents (default: all)")


def run(options: argparse.Namespace) -> None:
    """Print the documents in order, or write the scores of files."""
    settings: dict[str, Any] = {"truncation": options.truncation, "batch_size": options.batch_size}
    if check_pair_files(options, options.query):

        def compute(bert: minibert.Bert, pairs: list[Any], first: int) -> tuple[Any, list[files.Record]]:
            scores: list[float] = np.asarray(bert.score(pairs, show_progress_bar=False, **settings)).tolist()
            rows = zip(pairs, scores, strict=True)
            return without_vectors([{"query": q, "passage": p, "score": score} for (q, p), score in rows])

        columns = (options.query_column, options.passage_column)
        return write_file(options, settings, compute, inputs=options.files, columns=columns, rows_alone=True)
    documents = read_texts(options.texts)
    for one in load(options).rank(options.query, documents, top_k=options.top_k, **settings):
        if options.json:
            print(json.dumps(one._asdict(), ensure_ascii=False))
        else:
            print(f"{one.score:.4f}\t{one.index}\t{' '.join(one.text.split())}")
