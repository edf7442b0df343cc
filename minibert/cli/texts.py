"""The texts that a command reads and the vectors that it writes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

import minibert
from minibert.cli.loading import load
from minibert.corpus import files
from minibert.errors import MinibertError
from minibert.vectors.fingerprint import facts

Compute = Callable[[minibert.Bert, list[str], int], tuple[Any, list[files.Record]]]


def add_column(parser: argparse.ArgumentParser) -> None:
    """Declare `--text`."""
    parser.add_argument("--text", metavar="COLUMN", default="text", help="column with the texts (default: text)")


def add_files(parser: argparse.ArgumentParser, output: str) -> None:
    """Declare texts, files and the output."""
    parser.add_argument("inputs", metavar="INPUT", nargs="*", help="texts; with -o, files, or - for standard input")
    parser.add_argument("-o", "--output", metavar="OUT", help=output)
    add_column(parser)
    parser.add_argument("--batch-size", type=int, help="largest number of texts per batch (default: suits the machine)")


def add_inputs(parser: argparse.ArgumentParser, output: str) -> None:
    """Declare the arguments shared by `encode` and `words`."""
    add_files(parser, output)
    parser.add_argument(
        "--layers", type=int, nargs="+", metavar="N", help="hidden states to use, 0 to L (default: the last)"
    )
    parser.add_argument(
        "--combine",
        choices=("mean", "sum", "concat"),
        default="mean",
        help="how to combine several layers (default: mean)",
    )
    parser.add_argument(
        "--truncation",
        choices=("warn", "error", "window"),
        default="warn",
        help="long texts: truncate with a warning, reject, or split into windows (default: warn)",
    )


def read_texts(given: list[str]) -> list[str]:
    """The arguments, or the lines of standard input if there are none."""
    if given:
        return given
    if sys.stdin.isatty():
        print("minibert: reading texts from standard input, one per line; end with Ctrl-D", file=sys.stderr)
    try:
        return [line.rstrip("\r\n") for line in sys.stdin]
    except UnicodeDecodeError as error:
        raise MinibertError(
            f"standard input ({error.reason}) must be {error.encoding}; convert it, for example with iconv"
        ) from None


def numbers(vector: Sequence[float]) -> str:
    """A vector as printed text. Nine digits restore the same float32."""
    return " ".join(f"{x:.9g}" for x in vector)


def write_file(options: argparse.Namespace, settings: dict[str, Any], compute: Compute, words: bool = False) -> None:
    """Read files of texts and write one file of vectors; an interrupted run resumes."""
    if not options.inputs:
        raise MinibertError(
            "the inputs ([]) must be at least one file when -o is given; name files, or - for standard input"
        )
    total = files.count_records(options.inputs, options.text)
    bert = load(options)
    what = {
        "command": options.command,
        "inputs": options.inputs,
        "column": options.text,
        "minibert": minibert.__version__,
        "model": str(bert.source),
        **facts(bert),
        **{name: value for name, value in settings.items() if name != "batch_size"},
    }
    width = compute(bert, ["a"], 0)[0].shape[1]
    with files.Output(options.output, what, width, words) as output:
        if output.texts:
            print(f"minibert: resuming after {output.texts:,} texts", file=sys.stderr)
        keeps_rows = words or output.kind in (".jsonl", ".parquet")

        def computed(texts: list[str], first: int) -> tuple[Any, list[files.Record]]:
            vectors, rows = compute(bert, texts, first)
            return vectors, rows if keeps_rows else []

        try:
            with tqdm(total=total, initial=output.texts, unit=" texts", disable=None) as bar:
                for done in files.fill(output, options.inputs, options.text, computed):
                    bar.update(done - bar.n)
        except KeyboardInterrupt:
            print(f"minibert: stopped after {output.texts:,} texts; give the same command to resume", file=sys.stderr)
            raise
    print(f"minibert: {output.rows:,} vectors of {width} numbers in {options.output}", file=sys.stderr)
