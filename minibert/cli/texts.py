"""The texts that a command reads, and the files that it writes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

import minibert
from minibert.cli.loading import load
from minibert.corpus import files
from minibert.errors import MinibertError, printable
from minibert.records import Record
from minibert.vectors.fingerprint import facts

Compute = Callable[[minibert.Bert, list[files.Item], int], Any]  # the number of the first item
Make = Callable[[minibert.Bert, Record], files.Output]  # what determines the content
ONE_OF = {"entities": "entity", "answers": "answer"}


def add_column(parser: argparse.ArgumentParser) -> None:
    """Declare `--text`."""
    parser.add_argument("--text", metavar="COLUMN", default="text", help="column with the texts (default: text)")


def add_files(parser: argparse.ArgumentParser, output: str) -> None:
    """Declare texts, files and the output."""
    parser.add_argument("texts", metavar="INPUT", nargs="*", help="texts; with -o, files, or - for standard input")
    parser.add_argument("-o", "--output", metavar="OUT", help=output)
    add_column(parser)
    add_batch_size(parser)


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """Declare `--batch-size`."""
    parser.add_argument("--batch-size", type=int, help="largest number of texts per batch (default: suits the machine)")


def add_keep(parser: argparse.ArgumentParser) -> None:
    """Declare `--keep`."""
    parser.add_argument(
        "--keep", metavar="COLUMN", nargs="+", default=[], help="with -o, columns to copy from the files"
    )


def add_pairs(parser: argparse.ArgumentParser, first: str, second: str) -> None:
    """Declare the output of a command that reads pairs of texts from files, and the columns of these texts."""
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="write the results to this file: .jsonl, .csv or .parquet"
    )
    parser.add_argument(
        "--columns",
        metavar="COLUMN",
        nargs=2,
        default=[first, second],
        help=f"with -o, the columns with each {first} and its {second} (default: {first} {second})",
    )
    add_keep(parser)
    add_batch_size(parser)


def add_truncation(parser: argparse.ArgumentParser, *, windows: bool = True, default: str = "warn") -> None:
    """Declare `--truncation`."""
    choices = ("warn", "error", "window") if windows else ("warn", "error")
    what = "truncate with a warning, reject, or split into windows" if windows else "truncate with a warning, or reject"
    parser.add_argument(
        "--truncation", choices=choices, default=default, help=f"long texts: {what} (default: {default})"
    )


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
    add_truncation(parser)


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


def print_row(*cells: object) -> None:
    """Print cells with tabs between them. White space in them becomes one space, and control characters are escaped."""
    print("\t".join(printable(" ".join(str(cell).split())) for cell in cells))


def numbers(vector: Sequence[float]) -> str:
    """A vector as printed text. Nine digits restore the same float32."""
    return " ".join(f"{x:.9g}" for x in vector)


def reject_with_output(options: argparse.Namespace, reason: str, *names: str) -> None:
    """Reject options that only change what is printed.

    Raises:
        MinibertError: one of them is given.
    """
    for name in names:
        if getattr(options, name) is not None:
            option = "--" + name.replace("_", "-")
            raise MinibertError(f"{option} ({getattr(options, name)}) must not be given with -o; {reason}")


def check_keep(keep: Sequence[str], own: Sequence[str]) -> None:
    """Reject columns to keep that have the names of the output's own.

    Raises:
        MinibertError: one has.
    """
    for name in keep:
        if name in own:
            raise MinibertError(f"the column to keep ({name}) must not have a name that the output uses; rename it")


def write_file(
    options: argparse.Namespace, source: files.Source, settings: dict[str, Any], compute: Compute, make: Make
) -> None:
    """Read files of texts and write one file of results; an interrupted run resumes."""
    if not source.paths:
        raise MinibertError(
            "the inputs ([]) must be at least one file when -o is given; name files, or - for standard input"
        )
    total = source.count()
    bert = load(options)
    what = {
        "command": options.command,
        "inputs": source.paths,
        "column": source.text,
        "second column": source.second,
        "kept columns": source.keep,
        "minibert": minibert.__version__,
        "model": str(bert.source),
        **facts(bert),
        **{name: value for name, value in settings.items() if name != "batch_size"},
    }
    with make(bert, what) as output:
        if output.texts:
            print(f"minibert: resuming after {output.texts:,} texts", file=sys.stderr)
        try:
            with tqdm(total=total, initial=output.texts, unit=" texts", disable=None) as bar:
                for done in files.fill(output, source, lambda items, first: compute(bert, items, first)):
                    bar.update(done - bar.n)
        except KeyboardInterrupt:
            print(f"minibert: stopped after {output.texts:,} texts; give the same command to resume", file=sys.stderr)
            raise
    print(f"minibert: {output.content} in {options.output}", file=sys.stderr)


def write_vectors(
    options: argparse.Namespace,
    settings: dict[str, Any],
    compute: Compute,
    kind: type[files.VectorOutput] = files.VectorOutput,
    keep: Sequence[str] = (),
) -> None:
    """Write a file of vectors: `compute` returns them, and a row for each."""

    def make(bert: minibert.Bert, what: Record) -> files.Output:
        width = compute(bert, [("a", dict.fromkeys(keep))], 0)[0].shape[1]
        return kind(options.output, what, width)

    write_file(options, files.Source(options.texts, options.text, keep), settings, compute, make)


def write_rows(
    options: argparse.Namespace,
    source: files.Source,
    settings: dict[str, Any],
    compute: Compute,
    columns: Sequence[str],
    results: str = "",
    fields: Sequence[str] = (),
) -> None:
    """Write a file of rows.

    Args:
        options, source, settings: as for `write_file`.
        compute: returns a row for each item: its `columns`, and its list of `results`.
        columns: the columns of a row, besides those that are kept.
        results: the column with the list, if there is one. A table, .csv or .parquet, has a row for each of its items.
        fields: the fields of these items.
    """
    flat = [*columns, *(ONE_OF[results] if name == "text" else name for name in fields)]
    check_keep(source.keep, [*flat, results])

    def computed(bert: minibert.Bert, items: list[files.Item], first: int) -> list[Record]:
        rows = [
            {**row, **{name: other[name] for name in source.keep}}
            for row, (_, other) in zip(compute(bert, items, first), items, strict=True)
        ]
        return [one for row in rows for one in _flat(row, results)] if results and flattened else rows

    flattened = not options.output.lower().endswith(".jsonl")
    write_file(
        options,
        source,
        settings,
        computed,
        lambda bert, what: files.Output(options.output, what, [*flat, *source.keep]),
    )


def _flat(row: Record, results: str) -> list[Record]:
    """A row for each of the results in a row; one without results if there are none."""
    rest = {name: value for name, value in row.items() if name != results}
    return [
        {**rest, **{ONE_OF[results] if name == "text" else name: value for name, value in one.items()}}
        for one in row[results] or [{}]
    ]
