"""`minibert attention`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from minibert.cli.loading import add_loading, check_no_model_among_texts, load
from minibert.cli.texts import print_row
from minibert.errors import MinibertError
from minibert.pictures import plots

DETAILS = """\
Without -o, a line for each of the largest weights: layer, head, weight, and the two tokens, with tabs between them.
With -o, a picture of one head, of a layer's mean, or of all heads; or a page for the browser."""
PAGES = (".html",)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_loading(parser)
    parser.add_argument("texts", metavar="TEXT", nargs=1, help="what to read")
    parser.add_argument("--pair", metavar="TEXT", help="the second text of a pair")
    parser.add_argument("--layer", metavar="L", type=int, help="one layer, from 0 (default: all)")
    parser.add_argument("--head", metavar="H", type=int, help="one head, from 0 (default: all)")
    parser.add_argument("--top", metavar="N", type=int, default=10, help="how many weights are printed (default: 10)")
    parser.add_argument("--skip-special-tokens", action="store_true", help="print none from or to [CLS], [SEP], ...")
    parser.add_argument("-o", "--output", metavar="FILE", help=".png, .svg or .html")


def run(options: argparse.Namespace) -> None:
    """Print the largest weights, or write the picture or the page."""
    check_no_model_among_texts(options)
    kinds = (*plots.SUFFIXES, *PAGES)
    kind = Path(options.output).suffix.lower() if options.output else ""
    if options.output and kind not in kinds:  # before anything is computed
        raise MinibertError(f"the output ({options.output}) must end in {', '.join(kinds)}; change it")
    if kind in PAGES and (options.layer, options.head) != (None, None):
        raise MinibertError(
            f"the output ({options.output}) must be a picture for --layer and --head; leave them out, a page has all"
        )
    maps = load(options).attention(options.texts[0], options.pair)
    if kind in PAGES:
        maps.to_html(options.output)
    elif kind:
        plots.save(maps.plot(options.layer, options.head), options.output)
    else:
        for link in maps.top(
            options.top, layer=options.layer, head=options.head, skip_special_tokens=options.skip_special_tokens
        ):
            if options.json:
                print(json.dumps(link._asdict(), ensure_ascii=False))
                continue
            ends = f"{link.from_position} {link.from_token}", f"{link.to_position} {link.to_token}"
            print_row(link.layer, link.head, f"{link.weight:.4f}", *ends)
