"""`minibert words`."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

import minibert
from minibert.cli.loading import add_loading, load
from minibert.cli.texts import add_inputs, numbers, print_row, read_texts, write_vectors
from minibert.corpus import files
from minibert.errors import MinibertError
from minibert.records import Record
from minibert.vectors.words import PIECES, SPLITTERS

DETAILS = """\
Prints one line per word: the number of its text, its start and end in characters, the word, and the numbers of its
vector, separated by tabs. -o works as for encode, without .npy; a .safetensors file also stores the positions."""
CHUNK = 256  # texts between two prints


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_inputs(parser, "write the words and vectors to this file: .safetensors, .jsonl or .parquet")
    add_loading(parser)
    parser.add_argument(
        "--pieces", choices=PIECES, default="mean", help="how to combine the pieces of a word (default: mean)"
    )
    parser.add_argument(
        "--split",
        choices=SPLITTERS,
        default="pretokenizer",
        help="how to split texts into words (default: pretokenizer)",
    )


def run(options: argparse.Namespace) -> None:
    """Print a vector for each word, or write the vectors to a file."""
    names = ("batch_size", "layers", "combine", "pieces", "split", "truncation")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}

    def compute(bert: minibert.Bert, items: list[files.Item], first: int) -> tuple[Any, list[Record]]:
        found = bert.words([text for text, _ in items], show_progress_bar=False, **settings)
        rows = [
            {"text": number, "word": word, "start": start, "end": end}
            for number, one in enumerate(found, first)
            for word, (start, end) in zip(one.words, one.spans, strict=True)
        ]
        return np.concatenate([one.vectors for one in found]), rows

    if options.output:
        if options.output.endswith(".npy"):
            raise MinibertError(
                f"the output of words ({options.output}) must end in .safetensors, .jsonl or .parquet; change its name"
            )
        return write_vectors(options, settings, compute, files.WordOutput)
    texts = read_texts(options.texts)
    bert = load(options)
    for start in range(0, len(texts), CHUNK):
        vectors, rows = compute(bert, [(text, {}) for text in texts[start : start + CHUNK]], start)
        for row, vector in zip(rows, vectors.tolist(), strict=True):
            if options.json:
                print(json.dumps({**row, "vector": vector}, ensure_ascii=False))
            else:
                print_row(row["text"], row["start"], row["end"], row["word"], numbers(vector))
