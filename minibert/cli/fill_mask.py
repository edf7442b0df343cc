"""`minibert fill-mask`."""

from __future__ import annotations

import argparse
import json

from minibert.cli.loading import BERT_BASE, add_loading, check_no_model_among_texts, load
from minibert.cli.texts import print_row, read_texts
from minibert.errors import MinibertError
from minibert.tasks.fill_mask import Candidate

DETAILS = """\
Prints one line per candidate: its probability, the token, and the filled text, separated by tabs.
The model must have a masked-LM head."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_loading(parser, model=BERT_BASE)
    parser.add_argument(
        "texts", metavar="TEXT", nargs="*", help="a text with [MASK] (default: the lines of standard input)"
    )
    parser.add_argument("--top-k", type=int, help="number of candidates (default: 5, or all targets)")
    parser.add_argument(
        "--targets", metavar="WORD", nargs="+", help="score only these words; write this option after the texts"
    )


def run(options: argparse.Namespace) -> None:
    """Print the candidates for each mask."""
    check_no_model_among_texts(options)
    texts = read_texts(options.texts)
    if not texts:
        raise MinibertError(
            "texts ([]) must contain at least one with [MASK]; write texts before --targets, or to standard input"
        )
    bert = load(options)
    for text, result in zip(texts, bert.fill_mask(texts, top_k=options.top_k, targets=options.targets), strict=True):
        masks: list[list[Candidate]] = [result] if isinstance(result[0], Candidate) else result
        if options.json:
            found = [[candidate._asdict() for candidate in candidates] for candidates in masks]
            print(json.dumps({"text": text, "masks": found}, ensure_ascii=False))
            continue
        for candidates in masks:
            for candidate in candidates:
                print_row(f"{candidate.probability:.4f}", candidate.token, candidate.text)
