"""`minibert rank`."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

import minibert
from minibert.cli.loading import RERANKER, add_loading, load
from minibert.cli.texts import add_pairs, add_truncation, print_row, read_texts, reject_with_output, write_rows
from minibert.corpus import files
from minibert.records import Record

DETAILS = """\
Prints one line per document, the best first: its score, its number, and the text, separated by tabs. The model must be
a reranker. Documents are the arguments, or the lines of standard input if there are none.

With -o, all arguments are files of pairs, .csv, .tsv, .jsonl or .parquet, or - for JSON lines on standard input. OUT is
a .jsonl, .csv or .parquet file with each query, its passage and their score, in the order of the files. An interrupted
run resumes."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("query", metavar="QUERY", help="what is asked; with -o, a file")
    parser.add_argument(
        "texts", metavar="DOCUMENT", nargs="*", help="a text (default: the lines of standard input); with -o, a file"
    )
    add_pairs(parser, "query", "passage")
    add_loading(parser, model=RERANKER)
    parser.add_argument("--top-k", type=int, help="number of documents (default: all)")
    add_truncation(parser, windows=False)


def run(options: argparse.Namespace) -> None:
    """Print the documents in order, or write the scores of pairs to a file."""
    settings: dict[str, Any] = {"batch_size": options.batch_size, "truncation": options.truncation}
    if options.output:
        return _write(options, settings)
    documents = read_texts(options.texts)
    for one in load(options).rank(options.query, documents, top_k=options.top_k, **settings):
        if options.json:
            print(json.dumps(one._asdict(), ensure_ascii=False))
        else:
            print_row(f"{one.score:.4f}", one.index, one.text)


def _write(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    reject_with_output(options, "a file has all pairs", "top_k")
    text, second = options.columns

    def compute(bert: minibert.Bert, items: list[files.Item], first: int) -> list[Record]:
        pairs = [(query, other[second]) for query, other in items]
        scores = np.asarray(bert.score(pairs, show_progress_bar=False, **settings)).tolist()
        return [
            {"query": query, "passage": passage, "score": score}
            for (query, passage), score in zip(pairs, scores, strict=True)
        ]

    source = files.Source([options.query, *options.texts], text, options.keep, second)
    write_rows(options, source, settings, compute, ("query", "passage", "score"))
