"""The texts that a command reads and the vectors that it writes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

import minibert
from minibert.cli.loading import load
from minibert.corpus import files
from minibert.errors import MinibertError
from minibert.vectors.fingerprint import facts

Compute = Callable[[minibert.Bert, list[Any], int], tuple[Any, list[files.Record]]]


def add_column(parser: argparse.ArgumentParser) -> None:
    """Declare `--text`."""
    parser.add_argument("--text", metavar="COLUMN", default="text", help="column with the texts (default: text)")


def add_files(parser: argparse.ArgumentParser, output: str) -> None:
    """Declare texts, files and the output."""
    parser.add_argument("inputs", metavar="INPUT", nargs="*", help="texts; with -o, files, or - for standard input")
    parser.add_argument("-o", "--output", metavar="OUT", help=output)
    add_column(parser)
    parser.add_argument("--batch-size", type=int, help="largest number of texts per batch (default: suits the machine)")


def add_pair_files(parser: argparse.ArgumentParser, one: str, other: str) -> None:
    """Declare files of pairs, their two columns, and the output."""
    parser.add_argument("--files", metavar="FILE", nargs="+", help=f"files with the columns {one} and {other}; with -o")
    parser.add_argument("-o", "--output", metavar="OUT", help="write to this file: .jsonl, .csv or .parquet")
    for name in (one, other):
        parser.add_argument(
            f"--{name}-column", metavar="COLUMN", default=name, help=f"column with each {name} (default: {name})"
        )
    parser.add_argument("--batch-size", type=int, help="largest number of pairs per batch (default: suits the machine)")


def check_pair_files(options: argparse.Namespace, given: str | None) -> bool:
    """Whether files are given; the other arguments must fit that.

    Raises:
        MinibertError: files without an output, or an output without files; both files and arguments; neither.
    """
    if bool(options.files) != bool(options.output):
        raise MinibertError("--files and -o must be given together; add the one that is missing")
    if options.files and given is not None:
        raise MinibertError(f"the argument ({given!r:.40}) must not be given beside --files; give one of them")
    if not options.files and given is None:
        name = options.command
        raise MinibertError(f"{name} must be given its arguments, or --files and -o; see minibert {name} --help")
    return bool(options.files)


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


def write_file(
    options: argparse.Namespace,
    settings: dict[str, Any],
    compute: Compute,
    *,
    words: bool = False,
    column: str = "vector",
    inputs: Sequence[str] | None = None,
    columns: files.Columns | None = None,
    rows_alone: bool = False,
) -> None:
    """Read files of texts and write one file of results; an interrupted run resumes.

    Args:
        options: of the command.
        settings: what else decides on the results.
        compute: takes texts and the number of the first one; returns vectors, and a row for each.
        words: whether the rows are words.
        column: the name of the vectors beside other columns.
        inputs, columns: the files and their columns, if they are not `options.inputs` and `options.text`.
        rows_alone: whether the results are rows without vectors; `compute` then returns empty vectors.
    """
    inputs, columns = options.inputs if inputs is None else inputs, columns or options.text
    if not inputs:
        raise MinibertError(
            "the inputs ([]) must be at least one file when -o is given; name files, or - for standard input"
        )
    total = files.count_records(inputs, columns)
    bert = load(options)
    what = {
        "command": options.command,
        "inputs": inputs,
        "column": columns,
        "minibert": minibert.__version__,
        "model": str(bert.source),
        **facts(bert),
        **{name: value for name, value in settings.items() if name != "batch_size"},
    }
    width = 0 if rows_alone else compute(bert, ["a"], 0)[0].shape[1]
    with files.Output(options.output, what, width, words, column) as output:
        if output.texts:
            print(f"minibert: resuming after {output.texts:,} texts", file=sys.stderr)
        keeps_rows = words or rows_alone or output.kind in (".jsonl", ".parquet")

        def computed(texts: list[Any], first: int) -> tuple[Any, list[files.Record]]:
            vectors, rows = compute(bert, texts, first)
            return vectors, rows if keeps_rows else []

        try:
            with tqdm(total=total, initial=output.texts, unit=" texts", disable=None) as bar:
                for done in files.fill(output, inputs, columns, computed):
                    bar.update(done - bar.n)
        except KeyboardInterrupt:
            print(f"minibert: stopped after {output.texts:,} texts; give the same command to resume", file=sys.stderr)
            raise
    results = "rows" if rows_alone else f"vectors of {width} numbers"
    print(f"minibert: {output.rows:,} {results} in {options.output}", file=sys.stderr)


def without_vectors(rows: list[files.Record]) -> tuple[Any, list[files.Record]]:
    """Rows as `compute` of `write_file` returns them if there are no vectors."""
    return np.empty((len(rows), 0), dtype=np.float32), rows
