"""The commands: `minibert encode`, `fill-mask`, `info`, `parity`, `demo`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch

import minibert
from minibert.demo import demo
from minibert.fill_mask import Candidate

EPILOG = """\
examples:
  minibert info google-bert/bert-base-uncased
  minibert encode sentence-transformers/all-MiniLM-L6-v2 "How do I reset my password?"
  minibert encode ./my-checkpoint --json < questions.txt > vectors.jsonl
  minibert fill-mask google-bert/bert-base-uncased "Hello I'm a [MASK] model."
  minibert parity google-bert/bert-base-uncased

MODEL is a repository of the Hugging Face Hub or a local folder. Results go to stdout, everything else to stderr; the
exit code is 0, 1 if parity does not hold, or 2 for a mistake, which is told in one sentence.
"""
DTYPES: dict[str, torch.dtype | Literal["auto"]] = {
    "auto": "auto",
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def build_parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="minibert",
        description="BERT: vectors of texts, words for [MASK], and proof that the numbers are right.",
        epilog=EPILOG,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"minibert {minibert.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, summary: str, details: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=f"{summary}\n\n{details}", formatter_class=raw)
        made.set_defaults(run=globals()[f"run_{name.replace('-', '_')}"])
        return made

    def loading(made: argparse.ArgumentParser, dtype: bool = True) -> None:
        made.add_argument("model", metavar="MODEL", help="repository of the Hub, or folder")
        made.add_argument("--revision", help="branch, tag or commit (default: the newest)")
        made.add_argument("--offline", action="store_true", help="use what is in the cache, ask no network")
        if dtype:
            made.add_argument(
                "--dtype",
                choices=DTYPES,
                default="float32",
                help="of the weights (default: float32; auto: bfloat16 where the hardware is fast with it)",
            )
            made.add_argument("--device", default="cpu", help="cpu, cuda, mps, ... (default: cpu)")
        made.add_argument("--json", action="store_true", help="one JSON object a line, for programs")

    made = command(
        "encode",
        "Texts to vectors.",
        "One line a text: the text, a tab, and the numbers of its vector with spaces between them; with --json\n"
        '{"text": ..., "vector": [...]}. Texts are the arguments or, without any, the lines of standard input.',
    )
    loading(made)
    made.add_argument("texts", metavar="TEXT", nargs="*", help="a text (default: the lines of standard input)")
    made.add_argument("--batch-size", type=int, help="texts computed at once (default: what suits the machine)")
    made.add_argument("--normalize", action="store_true", help="divide each vector by its length")
    made.add_argument(
        "--truncation", choices=("warn", "error"), default="warn", help="of texts that are too long (default: warn)"
    )

    made = command(
        "fill-mask",
        "Words that could stand at [MASK].",
        "A line for each candidate: its probability, the token, and the text with it, with tabs between them.",
    )
    loading(made)
    made.add_argument("texts", metavar="TEXT", nargs="*", help="a text with [MASK] (default: the lines of stdin)")
    made.add_argument("--top-k", type=int, help="how many candidates (default: 5, or all targets)")
    made.add_argument("--targets", metavar="WORD", nargs="+", help="compare these words only; write it after the texts")

    loading(command("info", "What a checkpoint is.", "Its shape, heads, pooling, limit, dtype and commit."))

    made = command(
        "parity",
        "Compare with transformers, tensor by tensor.",
        "Runs both on the same texts and prints the largest difference of each tensor: the embeddings, each layer's\n"
        "attention and output, the pooler, the logits. Exit code 1 if one is over the tolerance.",
    )
    loading(made, dtype=False)
    made.add_argument("texts", metavar="TEXT", nargs="*", help="what to run (default: a few texts)")
    made.add_argument("--tolerance", type=float, default=1e-6, help="largest difference allowed (default: 1e-6)")

    made = command(
        "demo",
        "A tour: questions matched with answers, one word in three contexts, filled masks.",
        "Loads a checkpoint and shows what it does, where it came from and how long each step took.",
    )
    made.add_argument(
        "--model",
        metavar="MODEL",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="repository of the Hub, or folder (default: %(default)s)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the value is the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return int(options.run(options) or 0)
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"minibert: {message}", file=sys.stderr)
        return 2
    except Exception as error:  # not foreseen: a person gets a sentence, a developer asks for more
        if "MINIBERT_DEBUG" in os.environ:
            raise
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        print(f"minibert: unforeseen {message}; set MINIBERT_DEBUG=1 to see where", file=sys.stderr)
        return 2


def run_encode(options: argparse.Namespace) -> None:
    """`minibert encode`."""
    texts = _texts(options)
    bert = _load(options)
    for start in range(0, len(texts), 1024):
        chunk = texts[start : start + 1024]
        vectors = bert.encode(
            chunk,
            batch_size=options.batch_size,
            normalize_embeddings=options.normalize,
            truncation=options.truncation,
        )
        for text, vector in zip(chunk, vectors.tolist(), strict=True):
            if options.json:
                print(json.dumps({"text": text, "vector": vector}, ensure_ascii=False))
            else:
                print(f"{' '.join(text.split())}\t{' '.join(f'{x:.9g}' for x in vector)}")


def run_fill_mask(options: argparse.Namespace) -> None:
    """`minibert fill-mask`."""
    texts = _texts(options)
    if not texts:
        raise ValueError("texts ([]) must hold at least one with [MASK]; write them before --targets, or to stdin")
    bert = _load(options)
    for text in texts:
        result = bert.fill_mask(text, top_k=options.top_k, targets=options.targets)
        masks: list[list[Candidate]] = [result] if isinstance(result[0], Candidate) else result
        if options.json:
            found = [[candidate._asdict() for candidate in candidates] for candidates in masks]
            print(json.dumps({"text": text, "masks": found}, ensure_ascii=False))
            continue
        for candidates in masks:
            for candidate in candidates:
                print(f"{candidate.probability:.4f}\t{candidate.token}\t{candidate.text}")


def run_info(options: argparse.Namespace) -> None:
    """`minibert info`."""
    bert = _load(options)
    print(json.dumps(bert.info(), ensure_ascii=False) if options.json else bert)


def run_parity(options: argparse.Namespace) -> int:
    """`minibert parity`."""
    report = minibert.parity(
        options.model,
        options.texts or None,
        tolerance=options.tolerance,
        revision=options.revision,
        local_files_only=options.offline,
    )
    if options.json:
        for row in report.rows:
            print(json.dumps({"tensor": row.tensor, "shape": row.shape, "difference": row.difference, "at": row.place}))
    else:
        print(report)
    return 0 if report.ok else 1


def run_demo(options: argparse.Namespace) -> None:
    """`minibert demo`."""
    for line in demo(options.model):
        print(line, flush=True)


def _load(options: argparse.Namespace) -> minibert.Bert:
    return minibert.load(
        options.model,
        revision=options.revision,
        local_files_only=options.offline,
        dtype=DTYPES[options.dtype],
        device=options.device,
    )


def _texts(options: argparse.Namespace) -> list[str]:
    if options.texts:
        return list(options.texts)
    if sys.stdin.isatty():
        print("minibert: reading texts from standard input, one a line; end with Ctrl-D", file=sys.stderr)
    return [line.rstrip("\r\n") for line in sys.stdin]


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    print(f"minibert: warning: {message}", file=sys.stderr)
