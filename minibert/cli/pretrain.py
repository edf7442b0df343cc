"""`minibert pretrain`."""

from __future__ import annotations

import argparse

from minibert.cli.finetune import saying
from minibert.errors import printable
from minibert.training.pretrain import SIZES, pretrain
from minibert.training.processes import is_first

DETAILS = """\
Trains a new model, or continues from a checkpoint (--from), by predicting masked words of UTF-8 text files. Each file
is a document. OUT gets the model; OUT/training has losses.csv, metrics.csv, curve.png and the state. The same command
again resumes an interrupted run. At the end it prints the words that the model puts at the masks of held-out sentences,
before and after."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="text to learn from")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="folder of the trained model")
    parser.add_argument(
        "--config", metavar="SIZE", help=f"{', '.join(SIZES)}, or a config.json (default: tiny, without --from)"
    )
    parser.add_argument("--from", dest="model", metavar="MODEL", help="checkpoint to continue from")
    parser.add_argument("--held-out", metavar="FILE", nargs="+", default=[], help="text to evaluate on")
    parser.add_argument("--vocabulary", metavar="MODEL", help="checkpoint whose tokenizer a new model gets")
    parser.add_argument("--vocab-size", type=int, default=30_522, help="size of a learned vocabulary (default: 30522)")
    parser.add_argument("--cased", action="store_true", help="let a learned vocabulary keep capitals")
    parser.add_argument("--length", type=int, default=128, help="tokens per row (default: 128)")
    parser.add_argument("--mask-rate", type=float, default=0.15, help="part of the tokens to mask (default: 0.15)")
    parser.add_argument("--whole-words", action="store_true", help="mask all pieces of a word")
    parser.add_argument("--epochs", type=float, default=1.0, help="passes over the text (default: 1)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows per step (default: 32)")
    parser.add_argument(
        "--learning-rate", type=float, help="the highest (default: 1e-3 for a new model, 5e-5 with --from)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of products (default: float32)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, ... (default: cpu)")
    parser.add_argument("--save-every", type=int, default=500, metavar="STEPS", help="default: 500")
    parser.add_argument("--evaluate-every", type=int, default=500, metavar="STEPS", help="default: 500")


def run(options: argparse.Namespace) -> None:
    """Train, and print what the model has learned."""
    settings = {name: value for name, value in vars(options).items() if name not in ("command", "run", "config")}
    with saying():
        found = pretrain(settings.pop("files"), settings.pop("output"), size=options.config, **settings)
    if not is_first():  # only one of several processes prints
        return
    for sentence, before, after in found.filled:
        print(f"{printable(sentence)}\n  before: {', '.join(before)}\n  after:  {', '.join(after)}")
    print(f"held-out loss {found.metrics['loss']:.3f} nats, accuracy {found.metrics['accuracy']:.1%}")
