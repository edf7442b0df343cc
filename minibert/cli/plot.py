"""`minibert plot`."""

from __future__ import annotations

import argparse
from pathlib import Path

import minibert
from minibert.cli.loading import add_loading, load
from minibert.cli.texts import add_column
from minibert.corpus import files
from minibert.errors import MinibertError
from minibert.pictures import plots

DETAILS = "On the map, texts with similar meanings are close together."


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("inputs", metavar="FILE", nargs="+", help="a file of texts, or - for standard input")
    parser.add_argument("-o", "--output", metavar="PICTURE", required=True, help="the picture to write: .png or .svg")
    add_column(parser)
    parser.add_argument("--group", metavar="COLUMN", help="column with the group of each text")
    parser.add_argument("--kind", choices=("map", "similarity"), default="map", help="what to draw (default: map)")
    parser.add_argument(
        "--method", choices=("pca", "umap", "tsne"), default="pca", help="projection of the map (default: pca)"
    )
    parser.add_argument("--word", help="draw the senses of this word instead of a map")
    add_loading(parser)


def run(options: argparse.Namespace) -> None:
    """Draw the texts and save the picture."""
    if Path(options.output).suffix.lower() not in plots.SUFFIXES:  # before anything is computed
        raise MinibertError(f"the output ({options.output}) must end in {' or '.join(plots.SUFFIXES)}; change its name")
    keep = [options.group] if options.group else []
    rows = [row for path in options.inputs for row in files.read_records(path, options.text, keep)]
    if not rows:
        raise MinibertError(f"the inputs ({', '.join(options.inputs)}) must contain at least one text; add one")
    bert, texts = load(options), [text for text, _ in rows]
    if options.word:
        figure = plots.plot_senses(minibert.senses(bert, options.word, texts))
    elif options.kind == "similarity":
        figure = plots.plot_similarity(bert.encode(texts), labels=texts, kind=bert.recipe.similarity)
    else:
        groups = [data[options.group] for _, data in rows] if options.group else None
        figure = plots.plot_map(bert.encode(texts), texts, groups, options.method)
    plots.save(figure, options.output)
