"""`minibert entities`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import minibert
from minibert.cli.loading import add_loading, check_no_model_among_texts, load
from minibert.cli.texts import add_column, read_texts, without_vectors, write_file
from minibert.corpus import files
from minibert.errors import MinibertError
from minibert.tasks.entities import STRATEGIES

BERT_NER = "dslim/bert-base-NER"  # has the head for tokens that all-MiniLM-L6-v2 lacks
SUMMARY = "Find the named entities in texts."
DETAILS = """\
Prints one line per entity: the number of its text, its start and end in characters, its label, its score, and the
entity, separated by tabs. With --json, a line is {"text": ..., "entities": [...]}, one per text. Texts are the
arguments, the texts of --files, or the lines of standard input. The model must have a head for tokens.

With -o, the arguments are files, as for encode. A .jsonl file gets a line per text, as with --json; a .csv or .parquet
file gets a row per entity. An interrupted run resumes."""
CHUNK = 1024  # texts between two prints


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_loading(parser, model=BERT_NER)
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="a text (default: the lines of standard input)")
    parser.add_argument("--files", metavar="FILE", nargs="+", help="files of texts, or - for standard input")
    add_column(parser)
    parser.add_argument("-o", "--output", metavar="OUT", help="write to this file: .jsonl, .csv or .parquet")
    parser.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="simple",
        help="how tokens become entities (default: simple)",
    )
    parser.add_argument("--batch-size", type=int, help="largest number of texts per batch (default: suits the machine)")
    parser.add_argument(
        "--truncation",
        choices=("warn", "error", "window"),
        default="warn",
        help="long texts: truncate with a warning, reject, or split into windows (default: warn)",
    )


def run(options: argparse.Namespace) -> None:
    """Print the entities of each text."""
    check_no_model_among_texts(options)
    settings = {name: getattr(options, name) for name in ("strategy", "batch_size", "truncation")}
    if options.output:
        by_text = options.output.lower().endswith(".jsonl")

        def compute(bert: minibert.Bert, texts: list[str], first: int) -> tuple[Any, list[files.Record]]:
            found = bert.entities(texts, show_progress_bar=False, **settings)
            if by_text:
                pairs = zip(texts, found, strict=True)
                rows: list[files.Record] = [
                    {"text": text, "entities": [one._asdict() for one in some]} for text, some in pairs
                ]
            else:
                rows = [{"number": n, **one._asdict()} for n, some in enumerate(found, first) for one in some]
            return without_vectors(rows)

        inputs = [*options.texts, *(options.files or ())]
        return write_file(options, settings, compute, inputs=inputs, rows_alone=True)
    texts = _texts(options)
    bert = load(options)
    number = 0
    while chunk := list(islice(texts, CHUNK)):
        for text, found in zip(chunk, bert.entities(chunk, **settings), strict=True):
            if options.json:
                entities = [entity._asdict() for entity in found]
                print(json.dumps({"text": text, "entities": entities}, ensure_ascii=False))
            else:
                for entity in found:
                    shown = " ".join(entity.text.split())
                    print(f"{number}\t{entity.start}\t{entity.end}\t{entity.label}\t{entity.score:.4f}\t{shown}")
            number += 1
        sys.stdout.flush()


def _texts(options: argparse.Namespace) -> Iterator[str]:
    """The texts that the arguments name; files are read as they are needed."""
    if not options.files:
        return iter(read_texts(options.texts))
    if options.texts:
        raise MinibertError(f"the texts ({options.texts[0]!r:.40}) must not be given beside --files; give one of them")
    for path in options.files:
        files.check_input(path)
    return (text for path in options.files for text, _ in files.read_records(path, options.text))
