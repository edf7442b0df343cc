"""`minibert entities`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import minibert
from minibert.cli.loading import add_loading, check_no_model_among_texts, load
from minibert.cli.texts import add_files, add_keep, add_truncation, print_row, read_texts, write_rows
from minibert.corpus import files
from minibert.records import Record
from minibert.tasks.entities import STRATEGIES, Entity

BERT_NER = "dslim/bert-base-NER"  # has the head for tokens that all-MiniLM-L6-v2 lacks
DETAILS = """\
Prints one line per entity: the number of its text, its start and end in characters, its label, its score, and the
entity, separated by tabs. With --json, a line is {"text": ..., "entities": [...]}, one per text. Texts are the
arguments, or the lines of standard input if there are none. The model must have a head for tokens.

With -o, the arguments are files, as for encode. A .jsonl file has a line for each text, as with --json; a .csv or
.parquet file has a row for each entity, and one for each text without entities. An interrupted run resumes."""
CHUNK = 1024  # texts between two prints


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_files(parser, "write the entities to this file: .jsonl, .csv or .parquet")
    add_keep(parser)
    add_loading(parser, model=BERT_NER)
    parser.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="simple",
        help="how tokens become entities (default: simple)",
    )
    add_truncation(parser)


def run(options: argparse.Namespace) -> None:
    """Print the entities of each text, or write them to a file."""
    settings = {name: getattr(options, name) for name in ("strategy", "batch_size", "truncation")}
    if options.output:
        return _write(options, settings)
    check_no_model_among_texts(options)
    texts = read_texts(options.texts)
    bert = load(options)
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        for number, (text, found) in enumerate(zip(chunk, bert.entities(chunk, **settings), strict=True), start):
            if options.json:
                entities = [entity._asdict() for entity in found]
                print(json.dumps({"text": text, "entities": entities}, ensure_ascii=False))
            else:
                for entity in found:
                    print_row(number, entity.start, entity.end, entity.label, f"{entity.score:.4f}", entity.text)
        sys.stdout.flush()


def _write(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    def compute(bert: minibert.Bert, items: list[files.Item], first: int) -> list[Record]:
        texts = [text for text, _ in items]
        found = bert.entities(texts, show_progress_bar=False, **settings)
        return [
            {"text": text, "entities": [entity._asdict() for entity in entities]}
            for text, entities in zip(texts, found, strict=True)
        ]

    source = files.Source(options.texts, options.text, options.keep)
    write_rows(options, source, settings, compute, ["text"], "entities", Entity._fields)
