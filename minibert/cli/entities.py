"""`minibert entities`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice

from minibert.cli.loading import add_loading, check_no_model_among_texts, load
from minibert.cli.texts import add_column, read_texts
from minibert.corpus import files
from minibert.errors import MinibertError
from minibert.tasks.entities import STRATEGIES

BERT_NER = "dslim/bert-base-NER"  # has the head for tokens that all-MiniLM-L6-v2 lacks
SUMMARY = "Find the named entities in texts."
DETAILS = """\
Prints one line per entity: the number of its text, its start and end in characters, its label, its score, and the
entity, separated by tabs. With --json, a line is {"text": ..., "entities": [...]}, one per text. Texts are the
arguments, the texts of --files, or the lines of standard input. The model must have a head for tokens."""
CHUNK = 1024  # texts between two prints


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_loading(parser, model=BERT_NER)
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="a text (default: the lines of standard input)")
    parser.add_argument("--files", metavar="FILE", nargs="+", help="files of texts, or - for standard input")
    add_column(parser)
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
    texts = _texts(options)
    bert = load(options)
    settings = {name: getattr(options, name) for name in ("strategy", "batch_size", "truncation")}
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
