"""The commands, each of which does what one call from Python does; with files, streamed."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import minibert
from minibert.corpus import files
from minibert.demo import demo
from minibert.fill_mask import Candidate
from minibert.integrations import as_dtype
from minibert.search.index import read_manifest
from minibert.study import plots
from minibert.vectors.fingerprint import facts
from minibert.vectors.words import PIECES, SPLITTERS

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
  minibert parity --model google-bert/bert-base-uncased

--model names a repository of the Hugging Face Hub or a local folder. The default is all-MiniLM-L6-v2; for fill-mask,
which needs a masked-LM head, bert-base-uncased; for search, the model of the index. Results go to stdout, everything
else to stderr; the exit code is 0, 1 if parity does not hold, or 2 for a mistake, which is told in one sentence.
"""
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
BERT_BASE = "google-bert/bert-base-uncased"  # has the masked-LM head that all-MiniLM-L6-v2 lacks
DTYPES = ("auto", "float32", "bfloat16", "float16")


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

    def loading(
        made: argparse.ArgumentParser, dtype: bool = True, model: str | None = MINILM, default: str = "%(default)s"
    ) -> None:
        about = f"repository of the Hub, or folder (default: {default})"
        made.add_argument("--model", metavar="MODEL", default=model, help=about)
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

    def inputs(made: argparse.ArgumentParser, output: str) -> None:
        made.add_argument("inputs", metavar="INPUT", nargs="*", help="texts; with -o files, or - for standard input")
        made.add_argument("-o", "--output", metavar="OUT", help=output)
        made.add_argument("--text", metavar="COLUMN", default="text", help="column of the texts (default: text)")
        made.add_argument("--batch-size", type=int, help="texts computed at once (default: what suits the machine)")
        made.add_argument(
            "--layers", type=int, nargs="+", metavar="N", help="hidden states, 0 to L (default: the last)"
        )
        made.add_argument(
            "--combine", choices=("mean", "sum", "concat"), default="mean", help="several layers (default: mean)"
        )
        made.add_argument(
            "--truncation",
            choices=("warn", "error", "window"),
            default="warn",
            help="of long texts: cut them and warn, refuse them, or compute them in windows (default: warn)",
        )

    made = command(
        "encode",
        "Texts to vectors.",
        "One line a text: the text, a tab, and the numbers of its vector with spaces between them; with --json\n"
        '{"text": ..., "vector": [...]}. Texts are the arguments or, without any, the lines of standard input.\n\n'
        "With -o, the arguments are files, .txt (a text a line), .csv, .jsonl or .parquet, and OUT is one, .npy,\n"
        ".safetensors, .jsonl or .parquet. What is interrupted, goes on when the same command is given again.",
    )
    inputs(made, "write the vectors into this file: .npy, .safetensors, .jsonl or .parquet")
    loading(made)
    made.add_argument("--normalize", action="store_true", help="divide each vector by its length")
    made.add_argument("--pooling", nargs="+", metavar="MODE", help="mean, cls, max, ... (default: the checkpoint's)")

    made = command(
        "words",
        "The words of texts to vectors.",
        "One line a word: the number of its text, where it begins and ends, the word, and the numbers of its vector,\n"
        "with tabs between them. With -o as for encode; .safetensors has the places of the words beside the vectors.",
    )
    inputs(made, "write the words and vectors into this file: .safetensors, .jsonl or .parquet")
    loading(made)
    made.add_argument("--pieces", choices=PIECES, default="mean", help="of a word of several pieces (default: mean)")
    made.add_argument(
        "--split", choices=SPLITTERS, default="pretokenizer", help="what words are (default: pretokenizer)"
    )

    made = command(
        "index",
        "Texts to an index, to be searched by meaning.",
        "Files are .txt (a text a line), .csv, .jsonl or .parquet. Answered questions are indexed by the question;\n"
        "--keep names what is to be found with it.",
    )
    made.add_argument("inputs", metavar="FILE", nargs="+", help="a file of texts, or - for standard input")
    made.add_argument("-o", "--output", metavar="INDEX", required=True, help="folder of the index")
    made.add_argument("--text", metavar="COLUMN", default="text", help="column of the texts (default: text)")
    made.add_argument("--keep", metavar="COLUMN", nargs="+", default=[], help="columns to keep beside the texts")
    loading(made)

    made = command(
        "search",
        "Texts of an index that mean what a query means.",
        "A line for each: its score, the text, and what was kept with it, with tabs between them.",
    )
    made.add_argument("index", metavar="INDEX", help="folder of the index")
    made.add_argument("texts", metavar="QUERY", nargs="*", help="a query (default: the lines of standard input)")
    made.add_argument("--top-k", type=int, default=5, help="how many texts (default: 5)")
    loading(made, model=None, default="the model that made the index")

    made = command(
        "expand",
        "Words that a corpus uses like this one.",
        "A line for each: its score, the word, how often it occurs, and a sentence with it, with tabs between them;\n"
        "then, if the checkpoint has a masked-LM head and there is a context, what the head proposes instead.",
    )
    made.add_argument("word", metavar="WORD", help="a word, or a few that follow one another")
    made.add_argument("--corpus", metavar="FILE", nargs="+", required=True, help="files of texts, or -")
    made.add_argument("--context", metavar="SENTENCE", help="that holds the word in the sense that is meant")
    made.add_argument("--text", metavar="COLUMN", default="text", help="column of the texts (default: text)")
    made.add_argument("--top-k", type=int, default=10, help="how many words (default: 10)")
    loading(made)

    made = command(
        "plot",
        "A picture of texts: those that mean alike are near.",
        "A map in two dimensions; with --kind similarity, a table of cosines; with --word, the senses of that word.",
    )
    made.add_argument("inputs", metavar="FILE", nargs="+", help="a file of texts, or - for standard input")
    made.add_argument("-o", "--output", metavar="PICTURE", required=True, help=".png or .svg")
    made.add_argument("--text", metavar="COLUMN", default="text", help="column of the texts (default: text)")
    made.add_argument("--group", metavar="COLUMN", help="column that says which texts belong together")
    made.add_argument("--kind", choices=("map", "similarity"), default="map", help="what to draw (default: map)")
    made.add_argument("--method", choices=("pca", "umap", "tsne"), default="pca", help="of the map (default: pca)")
    made.add_argument("--word", help="draw the senses of this word instead")
    loading(made)

    made = command(
        "fill-mask",
        "Words that could stand at [MASK].",
        "A line for each candidate: its probability, the token, and the text with it, with tabs between them.\n"
        "The model must have a masked-LM head.",
    )
    loading(made, model=BERT_BASE)
    made.add_argument("texts", metavar="TEXT", nargs="*", help="a text with [MASK] (default: the lines of stdin)")
    made.add_argument("--top-k", type=int, help="how many candidates (default: 5, or all targets)")
    made.add_argument("--targets", metavar="WORD", nargs="+", help="compare these words only; write it after the texts")

    made = command("info", "What a checkpoint is.", "Its shape, heads, pooling, limit, dtype and commit.")
    made.add_argument("texts", nargs="*", help=argparse.SUPPRESS)  # none: an old way to name the model is told
    loading(made)

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
        "--model", metavar="MODEL", default=MINILM, help="repository of the Hub, or folder (default: %(default)s)"
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
    settings: dict[str, Any] = {name: getattr(options, name) for name in ("batch_size", "layers", "combine", "pooling")}
    settings |= {"normalize_embeddings": options.normalize, "truncation": options.truncation}
    if options.output:

        def compute(bert: minibert.Bert, texts: list[str], first: int) -> tuple[Any, list[files.Row]]:
            return bert.encode(texts, show_progress_bar=False, **settings), [{"text": text} for text in texts]

        return _to_file(options, settings, compute)
    texts = _texts(options.inputs)
    bert = _load(options)
    for start in range(0, len(texts), 1024):
        chunk = texts[start : start + 1024]
        for text, vector in zip(chunk, bert.encode(chunk, **settings).tolist(), strict=True):
            if options.json:
                print(json.dumps({"text": text, "vector": vector}, ensure_ascii=False))
            else:
                print(f"{' '.join(text.split())}\t{_numbers(vector)}")


def run_words(options: argparse.Namespace) -> None:
    """`minibert words`."""
    names = ("batch_size", "layers", "combine", "pieces", "split", "truncation")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}

    def compute(bert: minibert.Bert, texts: list[str], first: int) -> tuple[Any, list[files.Row]]:
        found = bert.words(texts, show_progress_bar=False, **settings)
        rows = [
            {"text": number, "word": word, "start": start, "end": end}
            for number, one in enumerate(found, first)
            for word, (start, end) in zip(one.words, one.spans, strict=True)
        ]
        return np.concatenate([one.vectors for one in found]), rows

    if options.output:
        if options.output.endswith(".npy"):
            raise ValueError(f"the output ({options.output}) must end in .safetensors, .jsonl or .parquet, for words")
        return _to_file(options, settings, compute, words=True)
    texts = _texts(options.inputs)
    bert = _load(options)
    for start in range(0, len(texts), 256):
        vectors, rows = compute(bert, texts[start : start + 256], start)
        for row, vector in zip(rows, vectors.tolist(), strict=True):
            if options.json:
                print(json.dumps({**row, "vector": vector}, ensure_ascii=False))
            else:
                print(f"{row['text']}\t{row['start']}\t{row['end']}\t{row['word']}\t{_numbers(vector)}")


def _numbers(vector: Sequence[float]) -> str:
    return " ".join(f"{x:.9g}" for x in vector)


def _to_file(
    options: argparse.Namespace,
    settings: dict[str, Any],
    compute: Callable[[minibert.Bert, list[str], int], tuple[Any, list[files.Row]]],
    words: bool = False,
) -> None:
    """Files in, a file out."""
    if not options.inputs:
        raise ValueError("the inputs must be files, or - for standard input, where there is an output; name them")
    total = files.count_rows(options.inputs, options.text)
    bert = _load(options)
    what = {
        "command": options.command,
        "inputs": options.inputs,
        "column": options.text,
        "minibert": minibert.__version__,
        "model": bert.source,
        **facts(bert),
        **{name: value for name, value in settings.items() if name != "batch_size"},
    }
    width = compute(bert, ["a"], 0)[0].shape[1]
    with files.Output(options.output, what, width, words) as output:
        if output.texts:
            print(f"minibert: resuming after {output.texts:,} texts", file=sys.stderr)
        keeps_rows = words or output.kind in (".jsonl", ".parquet")

        def computed(texts: list[str], first: int) -> tuple[Any, list[files.Row]]:
            vectors, rows = compute(bert, texts, first)
            return vectors, rows if keeps_rows else []

        try:
            with tqdm(total=total, initial=output.texts, unit=" texts", disable=None) as bar:
                for done in files.fill(output, options.inputs, options.text, computed):
                    bar.update(done - bar.n)
        except KeyboardInterrupt:
            print(f"minibert: stopped after {output.texts:,} texts; give the same command to resume", file=sys.stderr)
            raise
    print(f"minibert: {output.rows:,} vectors of {width} numbers in {options.output}", file=sys.stderr)


def run_fill_mask(options: argparse.Namespace) -> None:
    """`minibert fill-mask`."""
    _refuse_model_among_texts(options)
    texts = _texts(options.texts)
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


def run_index(options: argparse.Namespace) -> None:
    """`minibert index`."""
    for path in options.inputs:  # before the model is loaded
        files.check_input(path)
    index = minibert.Index(_load(options))
    for path in options.inputs:
        rows = files.read_rows(path, options.text, options.keep)
        while block := list(islice(rows, files.BLOCK)):
            index.add([text for text, _ in block], [data or None for _, data in block])
            print(f"minibert: {len(index):,} texts", file=sys.stderr)
    index.save(options.output)


def run_search(options: argparse.Namespace) -> None:
    """`minibert search`."""
    options.model = options.model or read_manifest(Path(options.index))["model"].partition(" at ")[0]
    index = minibert.Index.load(options.index, _load(options))
    for query in _texts(options.texts):
        for hit in index.search(query, options.top_k):
            if options.json:
                print(json.dumps({"query": query, **hit._asdict()}, ensure_ascii=False))
                continue
            kept = hit.data.values() if isinstance(hit.data, dict) else [] if hit.data is None else [hit.data]
            print("\t".join([f"{hit.score:.4f}", *(" ".join(str(value).split()) for value in (hit.text, *kept))]))


def run_expand(options: argparse.Namespace) -> None:
    """`minibert expand`."""
    bert = _load(options)
    corpus = (text for path in options.corpus for text, _ in files.read_rows(path, options.text))
    shown = sys.stderr.isatty()
    for one in bert.expand(options.word, corpus, options.context, options.top_k, show_progress_bar=shown):
        if options.json:
            print(json.dumps(one._asdict(), ensure_ascii=False))
        else:
            print(f"{one.score:.4f}\t{one.word}\t{one.count}\t{one.example}")
    if options.context and "masked LM" in bert.heads:
        for candidate in bert.substitutes(options.word, options.context, options.top_k):
            if options.json:
                print(json.dumps({"substitute": candidate.token, "probability": candidate.probability}))
            else:
                print(f"{candidate.probability:.4f}\t{candidate.token}\tsubstitute\t{candidate.text}")


def run_plot(options: argparse.Namespace) -> None:
    """`minibert plot`."""
    if Path(options.output).suffix.lower() not in plots.SUFFIXES:  # before anything is computed
        raise ValueError(f"the output ({options.output}) must end in {' or '.join(plots.SUFFIXES)}")
    keep = [options.group] if options.group else []
    rows = [row for path in options.inputs for row in files.read_rows(path, options.text, keep)]
    if not rows:
        raise ValueError(f"the inputs ({', '.join(options.inputs)}) must hold at least one text; they hold none")
    bert, texts = _load(options), [text for text, _ in rows]
    if options.word:
        figure = plots.plot_senses(bert.senses(options.word, texts))
    elif options.kind == "similarity":
        figure = plots.plot_similarity(bert.encode(texts), labels=texts, kind=bert.recipe.similarity)
    else:
        groups = [data[options.group] for _, data in rows] if options.group else None
        figure = plots.plot_map(bert.encode(texts), texts, groups, options.method)
    plots.save(figure, options.output)


def run_info(options: argparse.Namespace) -> None:
    """`minibert info`."""
    _refuse_model_among_texts(options)
    if options.texts:
        raise ValueError(f"info takes no texts ({options.texts[0]!r}); name the model with --model")
    bert = _load(options)
    print(json.dumps(bert.info(), ensure_ascii=False) if options.json else bert)


def run_parity(options: argparse.Namespace) -> int:
    """`minibert parity`."""
    _refuse_model_among_texts(options)
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
        dtype=as_dtype(options.dtype),
        device=options.device,
    )


def _refuse_model_among_texts(options: argparse.Namespace) -> None:
    """Tell who writes `minibert info MODEL` how the model is named."""
    first = options.texts[0] if options.texts else ""
    repository = re.fullmatch(r"[\w.-]+/[\w.-]+", first)
    if repository or (first and len(os.fsencode(first)) < 256 and Path(first).is_dir()):
        raise ValueError(
            f"the model ({first}) must be named with --model; write minibert {options.command} --model {first}"
        )


def _texts(given: list[str]) -> list[str]:
    if given:
        return given
    if sys.stdin.isatty():
        print("minibert: reading texts from standard input, one a line; end with Ctrl-D", file=sys.stderr)
    return [line.rstrip("\r\n") for line in sys.stdin]


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    print(f"minibert: warning: {message}", file=sys.stderr)
