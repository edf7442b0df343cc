"""`minibert answer`."""

from __future__ import annotations

import argparse
import json

from minibert.cli.loading import add_loading, load
from minibert.cli.texts import read_texts

READER = "deepset/bert-base-cased-squad2"
SUMMARY = "Find the answer to a question in a text."
DETAILS = """\
Prints the answer on one line: its score, its start and end in characters, and its text, separated by tabs; the text is
empty for "no answer". With --top-k, prints several, the best first. The model must have a head for answers."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("question", metavar="QUESTION", help="what is asked")
    parser.add_argument(
        "context", metavar="CONTEXT", nargs="?", help="the text with the answer (default: standard input)"
    )
    add_loading(parser, model=READER)
    parser.add_argument("--top-k", type=int, default=1, help="number of answers (default: 1)")
    parser.add_argument(
        "--no-answer", action="store_true", help='let "no answer" compete, which needs a model trained for it'
    )
    parser.add_argument("--max-answer-tokens", type=int, default=30, help="most tokens of an answer (default: 30)")


def run(options: argparse.Namespace) -> None:
    """Print the answers."""
    context = "\n".join(read_texts([])) if options.context is None else options.context
    settings = {name: getattr(options, name) for name in ("top_k", "no_answer", "max_answer_tokens")}
    for one in load(options).answer(options.question, context, **settings):
        if options.json:
            print(json.dumps(one._asdict(), ensure_ascii=False))
        else:
            print(f"{one.score:.4f}\t{one.start}\t{one.end}\t{' '.join(one.text.split())}")
