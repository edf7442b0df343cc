"""`minibert search`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import minibert
from minibert.cli.loading import add_loading, load
from minibert.cli.texts import print_row, read_texts
from minibert.pretrained.source import Source
from minibert.search.index import read_manifest

DETAILS = "Prints one line per hit: its score, the text, and the columns stored with it, separated by tabs."


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("index", metavar="INDEX", help="folder of the index")
    parser.add_argument("texts", metavar="QUERY", nargs="*", help="a query (default: the lines of standard input)")
    parser.add_argument("--top-k", type=int, default=5, help="number of hits (default: 5)")
    add_loading(parser, model=None, default="the model that made the index")


def run(options: argparse.Namespace) -> None:
    """Print the nearest texts for each query."""
    if options.model is None:
        made_with = Source(**read_manifest(Path(options.index))["model"])
        options.model = made_with.folder or made_with.name
        options.revision = options.revision or made_with.commit
    index = minibert.Index.load(options.index, load(options))
    for query in read_texts(options.texts):
        for hit in index.search(query, options.top_k):
            if options.json:
                print(json.dumps({"query": query, **hit._asdict()}, ensure_ascii=False))
                continue
            kept = hit.data.values() if isinstance(hit.data, dict) else [] if hit.data is None else [hit.data]
            print_row(f"{hit.score:.4f}", hit.text, *kept)
