"""The commands, one file each: `add` declares the arguments, `run` does the work."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any

import minibert
from minibert.errors import MinibertError, printable

# What each command does, in a sentence. Its module is imported when it is run: the others need not wait for torch.
COMMANDS = {
    "encode": "Turn texts into vectors.",
    "words": "Turn the words of texts into vectors.",
    "index": "Build an index of texts for `minibert search`.",
    "search": "Search an index by meaning.",
    "expand": "Find words that a corpus uses like the given one.",
    "plot": "Draw a map of texts, a table of similarities, or the senses of a word.",
    "fill-mask": "Predict the words at [MASK].",
    "classify": "Label texts with a classifier.",
    "rank": "Sort documents by how well they answer a query.",
    "entities": "Find the named entities in texts.",
    "answer": "Find the answer to a question in a text.",
    "finetune": "Fine-tune a model on rows of a file.",
    "evaluate": "Measure how well a model predicts the rows of a file.",
    "pretrain": "Train a masked-LM model on text files.",
    "attention": "Which token attends to which, in every layer and head.",
    "explain-similarity": "Why two texts are similar: what each pair of words adds to their cosine.",
    "info": "Describe a checkpoint.",
    "parity": "Compare with transformers, tensor by tensor.",
    "study": "Measure what papers published about BERT, and compare.",
    "demo": "Run a demo: match questions to answers, compare a word in three contexts, fill masks.",
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


def module_of(command: str) -> ModuleType:
    """The module of a command."""
    return import_module(f"minibert.cli.{command.replace('-', '_')}")


def build_parser(commands: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of all commands; of those that are not in `commands`, only the names."""
    parser = argparse.ArgumentParser(
        prog="minibert",
        description="BERT: encode texts, fill masks, search by meaning, and check the numbers against transformers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"minibert {minibert.__version__}")
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name not in commands:
            parsers.add_parser(name, help=summary)
            continue
        command = module_of(name)
        made = parsers.add_parser(
            name,
            help=summary,
            description=f"{summary}\n\n{command.DETAILS}",
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
    asked = next((one for one in given if not one.startswith("-")), None)
    if asked is not None and asked not in COMMANDS:
        close = " or ".join(get_close_matches(asked, COMMANDS, n=2)) or "one of those in minibert --help"
        build_parser([]).error(f"the command ({asked[:40]}) must be {close}")
    options = build_parser([asked] if asked else []).parse_args(given)
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
