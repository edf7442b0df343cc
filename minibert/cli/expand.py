"""`minibert expand`."""

from __future__ import annotations

import argparse
import json
import sys

import minibert
from minibert.cli.loading import add_loading, load
from minibert.cli.texts import add_column, print_row
from minibert.corpus import files

DETAILS = """\
Prints one line per word: its score, the word, its count and an example sentence, separated by tabs. If the
checkpoint has a masked-LM head and --context is given, the head's substitutes follow."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("word", metavar="WORD", help="a word or a phrase")
    parser.add_argument(
        "--corpus", metavar="FILE", nargs="+", required=True, help="files of texts, or - for standard input"
    )
    parser.add_argument("--context", metavar="SENTENCE", help="a sentence that uses the word in the sense you mean")
    add_column(parser)
    parser.add_argument("--top-k", type=int, default=10, help="number of words (default: 10)")
    add_loading(parser)


def run(options: argparse.Namespace) -> None:
    """Print the words, then the substitutes."""
    bert = load(options)
    corpus = (text for path in options.corpus for text, _ in files.read_records(path, options.text))
    shown = sys.stderr.isatty()
    for one in minibert.expand(bert, options.word, corpus, options.context, options.top_k, show_progress_bar=shown):
        if options.json:
            print(json.dumps(one._asdict(), ensure_ascii=False))
        else:
            print_row(f"{one.score:.4f}", one.word, one.count, one.example)
    if options.context and "masked LM" in bert.heads:
        for candidate in minibert.substitutes(bert, options.word, options.context, options.top_k):
            if options.json:
                print(json.dumps({"substitute": candidate.token, "probability": candidate.probability}))
            else:
                print_row(f"{candidate.probability:.4f}", candidate.token, "substitute", candidate.text)
