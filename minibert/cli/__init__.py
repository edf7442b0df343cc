"""The commands, one file each: `add` declares the arguments, `run` does the work."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import minibert
from minibert.cli import (
    answer,
    attention,
    classify,
    demo,
    encode,
    entities,
    evaluate,
    expand,
    explain_similarity,
    fill_mask,
    finetune,
    index,
    info,
    parity,
    plot,
    pretrain,
    rank,
    search,
    study,
    words,
)
from minibert.errors import MinibertError, printable

COMMANDS: dict[str, ModuleType] = {
    "encode": encode,
    "words": words,
    "index": index,
    "search": search,
    "expand": expand,
    "plot": plot,
    "fill-mask": fill_mask,
    "classify": classify,
    "rank": rank,
    "entities": entities,
    "answer": answer,
    "finetune": finetune,
    "evaluate": evaluate,
    "pretrain": pretrain,
    "attention": attention,
    "explain-similarity": explain_similarity,
    "info": info,
    "parity": parity,
    "study": study,
    "demo": demo,
}
EPILOG = """\
examples:
  minibert info --model google-bert/bert-base-uncased
  minibert encode "How do I reset my password?"
  minibert encode questions.csv --text question -o vectors.npy
  minibert words "He robbed the bank by the river bank."
  minibert index faq.csv --text question --keep answer -o faq.index
  minibert search faq.index "I forgot my password"
  minibert expand bank --corpus news.txt --context "He sat on the bank of the river."
  minibert plot questions.txt -o map.png
  minibert fill-mask "Hello I'm a [MASK] model."
  minibert classify "The staff was friendly." --top-k 3
  minibert rank "Where can I fish?" "The lake is open." "The bank is closed."
  minibert entities "Angela Merkel was born in Hamburg."
  minibert answer "Where was she born?" "She was born in Hamburg."
  minibert finetune --task classify --train train.csv --dev dev.csv -o runs/questions
  minibert evaluate --task classify --data dev.csv --model runs/questions
  minibert pretrain emma.txt dracula.txt --config tiny -o novels
  minibert attention "The animal was tired." -o page.html
  minibert explain-similarity "He robbed the bank." "The robber went to the bank."
  minibert parity --model google-bert/bert-base-uncased
  minibert study published --data evaldata

--model names a repository of the Hugging Face Hub or a local folder. The default is all-MiniLM-L6-v2; for fill-mask
and study, which need a masked-LM head, bert-base-uncased; for classify, nlptown's classifier of reviews; for rank, the
reranker ms-marco-MiniLM-L6-v2; for entities, dslim/bert-base-NER; for answer, deepset/bert-base-cased-squad2; for
search, the model of the index. Results go to stdout, everything else to stderr. The exit code is 0; 1 if parity or a
published value does not hold; 2 for a mistake, with a one-sentence error on stderr. A bug shows a traceback and exits
with 1.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="minibert",
        description="BERT: encode texts, fill masks, search by meaning, and check the numbers against transformers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"minibert {minibert.__version__}")
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        made = parsers.add_parser(
            name,
            help=command.SUMMARY,
            description=f"{command.SUMMARY}\n\n{command.DETAILS}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add(made)
        made.set_defaults(run=command.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0; 1 if parity does not hold, or for a bug; 2 for a mistake; 130 after Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = build_parser().parse_args(given)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = int(options.run(options) or 0)
            sys.stdout.flush()  # flush here, so that a closed pipe is caught below
            return code
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as interruption:
        if interruption.args:  # a training run says how to resume it
            print(f"minibert: {interruption}", file=sys.stderr)
        return 130
    except Exception as error:
        mistake = _mistake(error)
        if mistake is not None:
            print(f"minibert: {mistake}", file=sys.stderr)
            return 2
        traceback.print_exc()
        command = " ".join(shlex.join(["minibert", *given]).split())
        what = f"the traceback, the command ({command}) and the version ({minibert.__version__})"
        print(f"minibert: this is a bug; please report it with {what}", file=sys.stderr)
        return 1


def _mistake(error: Exception) -> str | None:
    """The message for the user, in one sentence; None if the error is a bug."""
    if isinstance(error, UnicodeEncodeError) and error.encoding != "utf-8":  # from `print`
        character = error.object[error.start]
        return f"the encoding of the output ({error.encoding}) must include {character!r}; set PYTHONIOENCODING=utf-8"
    absent = (
        isinstance(error, ImportError) and error.name is None
    )  # ours have no name and say what to install; Python's have one
    if absent or isinstance(error, (MinibertError, OSError)):
        return printable(" ".join(str(error).split())) or type(error).__name__
    return None


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    print(f"minibert: warning: {printable(str(message))}", file=sys.stderr)
