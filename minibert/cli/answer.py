"""`minibert answer`."""

from __future__ import annotations

import argparse
import json
from typing import Any

import minibert
from minibert.cli.loading import add_loading, load
from minibert.cli.texts import add_pair_files, check_pair_files, read_texts, without_vectors, write_file
from minibert.corpus import files

READER = "deepset/bert-base-cased-squad2"
SUMMARY = "Find the answer to a question in a text."
DETAILS = """\
Prints the answer on one line: its score, its start and end in characters, and its text, separated by tabs; the text is
empty for "no answer". With --top-k, prints several, the best first. The model must have a head for answers.

With --files and -o, reads questions and contexts from files with these columns, and writes a row per question: the
question, the answer, its score, its start and its end. An interrupted run resumes."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("question", metavar="QUESTION", nargs="?", help="what is asked")
    parser.add_argument(
        "context", metavar="CONTEXT", nargs="?", help="the text with the answer (default: standard input)"
    )
    add_loading(parser, model=READER)
    add_pair_files(parser, "question", "context")
    parser.add_argument("--top-k", type=int, default=1, help="number of answers (default: 1)")
    parser.add_argument(
        "--no-answer", action="store_true", help='let "no answer" compete, which needs a model trained for it'
    )
    parser.add_argument("--max-answer-tokens", type=int, default=30, help="most tokens of an answer (default: 30)")
    parser.add_argument(
        "--threshold", type=float, default=0.0, help='"no answer" must be this much better than the best (default: 0)'
    )
    parser.add_argument(
        "--truncation",
        choices=("warn", "error", "window"),
        default="window",
        help="long contexts: truncate with a warning, reject, or split into windows (default: window)",
    )


def run(options: argparse.Namespace) -> None:
    """Print the answers, or write those of files."""
    names = ("no_answer", "max_answer_tokens", "threshold", "truncation", "batch_size")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    if check_pair_files(options, options.question):

        def compute(bert: minibert.Bert, pairs: list[Any], first: int) -> tuple[Any, list[files.Record]]:
            questions, contexts = map(list, zip(*pairs, strict=True))
            found = bert.answer(questions, contexts, show_progress_bar=False, **settings)
            rows = [
                {"question": question, "answer": one.text, "score": one.score, "start": one.start, "end": one.end}
                for question, one in zip(questions, found, strict=True)
            ]
            return without_vectors(rows)

        columns = (options.question_column, options.context_column)
        return write_file(options, settings, compute, inputs=options.files, columns=columns, rows_alone=True)
    context = "\n".join(read_texts([])) if options.context is None else options.context
    for one in load(options).answer(options.question, context, top_k=options.top_k, **settings):
        if options.json:
            print(json.dumps(one._asdict(), ensure_ascii=False))
        else:
            print(f"{one.score:.4f}\t{one.start}\t{one.end}\t{' '.join(one.text.split())}")
