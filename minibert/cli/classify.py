"""`minibert classify`."""

from __future__ import annotations

import argparse
import json
from typing import Any

import minibert
from minibert.cli.loading import CLASSIFIER, add_loading, load
from minibert.cli.texts import (
    add_files,
    add_keep,
    add_truncation,
    check_keep,
    print_row,
    read_texts,
    reject_with_output,
    write_vectors,
)
from minibert.corpus import files
from minibert.records import Record

DETAILS = """\
Prints one line per label: its score, the label, and the text, separated by tabs. The model must be a classifier.

With -o, the arguments are files, as for encode, and OUT has the scores of all labels of each text, in the order of the
checkpoint's id2label; .jsonl and .parquet files also have the text and its best label. An interrupted run resumes."""
CHUNK = 1024  # texts between two prints


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_files(parser, "write the scores to this file: .npy, .safetensors, .jsonl or .parquet")
    add_keep(parser)
    add_loading(parser, model=CLASSIFIER)
    parser.add_argument("--top-k", type=int, help="number of labels per text (default: 1)")
    parser.add_argument("--threshold", type=float, help="leave out labels with a lower score")
    add_truncation(parser, windows=False)


def run(options: argparse.Namespace) -> None:
    """Print the labels of each text, or write the scores to a file."""
    settings: dict[str, Any] = {"batch_size": options.batch_size, "truncation": options.truncation}
    if options.output:
        return _write(options, settings)
    texts = read_texts(options.texts)
    bert = load(options)
    settings |= {"top_k": 1 if options.top_k is None else options.top_k, "threshold": options.threshold}
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        for text, labels in zip(chunk, bert.classify(chunk, **settings), strict=True):
            if options.json:
                found = [label._asdict() for label in labels]
                print(json.dumps({"text": text, "labels": found}, ensure_ascii=False))
                continue
            for label in labels:
                print_row(f"{label.score:.4f}", label.label, text)


def _write(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    reject_with_output(options, "a file has the scores of all labels", "top_k", "threshold")
    check_keep(options.keep, ("text", "label", "scores"))

    def compute(bert: minibert.Bert, items: list[files.Item], first: int) -> tuple[Any, list[Record]]:
        scores = bert.label_scores([text for text, _ in items], show_progress_bar=False, **settings)
        names = bert.config.id2label or {}
        best = [names[number] for number in scores.argmax(1).tolist()]
        return scores, [{"text": text, **kept, "label": label} for (text, kept), label in zip(items, best, strict=True)]

    write_vectors(options, settings, compute, files.ScoreOutput, options.keep)
