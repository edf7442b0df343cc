"""`minibert answer`."""

from __future__ import annotations

import argparse
import json
from typing import Any

import minibert
from minibert.cli.loading import add_loading, load
from minibert.cli.texts import add_pairs, add_truncation, print_row, read_texts, write_rows
from minibert.corpus import files
from minibert.errors import MinibertError
from minibert.records import Record
from minibert.tasks.answer import Answer

READER = "deepset/bert-base-cased-squad2"
DETAILS = """\
Prints the answer on one line: its score, its start and end in characters, and its text, separated by tabs; the text is
empty for "no answer". With --top-k, prints several, the best first. The model must have a head for answers.

With -o, all arguments are files of pairs, .csv, .tsv, .jsonl or .parquet, or - for JSON lines on standard input. A
.jsonl file has a line for each question, with its list of answers; a .csv or .parquet file has a row for each answer.
An interrupted run resumes."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("question", metavar="QUESTION", help="what is asked; with -o, a file")
    parser.add_argument(
        "contexts",
        metavar="CONTEXT",
        nargs="*",
        help="the text with the answer (default: standard input); with -o, a file",
    )
    add_pairs(parser, "question", "context")
    add_loading(parser, model=READER)
    parser.add_argument("--top-k", type=int, default=1, help="number of answers (default: 1)")
    parser.add_argument(
        "--no-answer", action="store_true", help='let "no answer" compete, which needs a model trained for it'
    )
    parser.add_argument(
        "--threshold", type=float, default=0.0, help='by how much "no answer" must exceed the best span (default: 0)'
    )
    parser.add_argument("--max-answer-tokens", type=int, default=30, help="most tokens of an answer (default: 30)")
    add_truncation(parser, default="window")


def run(options: argparse.Namespace) -> None:
    """Print the answers, or write those of files of questions to a file."""
    names = ("top_k", "no_answer", "threshold", "max_answer_tokens", "batch_size", "truncation")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    if options.output:
        return _write(options, settings)
    if len(options.contexts) > 1:
        raise MinibertError(
            f"the context ({len(options.contexts)} texts) must be one text; for more, give files of questions and "
            "contexts, with -o"
        )
    context = options.contexts[0] if options.contexts else "\n".join(read_texts([]))
    for one in load(options).answer(options.question, context, **settings):
        if options.json:
            print(json.dumps(one._asdict(), ensure_ascii=False))
        else:
            print_row(f"{one.score:.4f}", one.start, one.end, one.text)


def _write(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    text, second = options.columns

    def compute(bert: minibert.Bert, items: list[files.Item], first: int) -> list[Record]:
        questions, contexts = [text for text, _ in items], [other[second] for _, other in items]
        found = bert.answer(questions, contexts, show_progress_bar=False, **settings)
        return [
            {"question": question, "context": context, "answers": [answer._asdict() for answer in answers]}
            for question, context, answers in zip(questions, contexts, found, strict=True)
        ]

    source = files.Source([options.question, *options.contexts], text, options.keep, second)
    write_rows(options, source, settings, compute, ("question", "context"), "answers", Answer._fields)
