"""`minibert encode`."""

from __future__ import annotations

import argparse
import json
from typing import Any

import minibert
from minibert.cli.loading import add_loading, load
from minibert.cli.texts import add_inputs, numbers, print_row, read_texts, write_vectors
from minibert.corpus import files
from minibert.records import Record

DETAILS = """\
Prints one line per text: the text, a tab, and the numbers of its vector separated by spaces. With --json, a line is
{"text": ..., "vector": [...]}. Texts are the arguments, or the lines of standard input if there are none.

With -o, the arguments are files: .txt (one text per line), .csv, .tsv, .jsonl or .parquet. OUT is a .npy, .safetensors,
.jsonl or .parquet file. To resume an interrupted run, give the same command again."""
CHUNK = 1024  # texts between two prints


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_inputs(parser, "write the vectors to this file: .npy, .safetensors, .jsonl or .parquet")
    add_loading(parser)
    parser.add_argument("--normalize", action="store_true", help="divide each vector by its length")
    parser.add_argument("--prompt", metavar="TEXT", help="put this before each text (default: the checkpoint's)")
    parser.add_argument(
        "--prompt-name", metavar="NAME", help="put the checkpoint's prompt of this name before each text"
    )
    parser.add_argument("--truncate-dim", type=int, metavar="N", help="keep the first N numbers of each vector")
    parser.add_argument("--pooling", nargs="+", metavar="MODE", help="mean, cls, max, ... (default: the checkpoint's)")


def run(options: argparse.Namespace) -> None:
    """Print a vector for each text, or write the vectors to a file."""
    names = "batch_size", "layers", "combine", "pooling", "prompt", "prompt_name", "truncate_dim"
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    settings |= {"normalize_embeddings": options.normalize, "truncation": options.truncation}
    if options.output:

        def compute(bert: minibert.Bert, items: list[files.Item], first: int) -> tuple[Any, list[Record]]:
            texts = [text for text, _ in items]
            return bert.encode(texts, show_progress_bar=False, **settings), [{"text": text} for text in texts]

        return write_vectors(options, settings, compute)
    texts = read_texts(options.texts)
    bert = load(options)
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        for text, vector in zip(chunk, bert.encode(chunk, **settings).tolist(), strict=True):
            if options.json:
                print(json.dumps({"text": text, "vector": vector}, ensure_ascii=False))
            else:
                print_row(text, numbers(vector))
