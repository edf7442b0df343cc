"""What is read: for each kind of files, small valid ones, and the calls and commands that read them."""

import contextlib
import io
import json
import pkgutil
import signal
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import minibert
from minibert.cli import build_parser
from minibert.vectors.recipe import Dense, Recipe


class Find(BaseException):
    """Something that must not happen."""


class Target(NamedTuple):
    """Files of a kind, and what reads them.

    Attributes:
        build: writes valid ones into a folder.
        read: reads them all, or those that belong to the file that was changed; its results can be compared by repr.
        changed: patterns of the files to change.
        vouched: patterns of those with a digest: with one of them changed, `read` raises an error or returns the same.
        share: cases in a round.
    """

    build: Callable[[Path], Any]
    read: Callable[[Path, str], Any]
    changed: tuple[str, ...]
    vouched: tuple[str, ...] = ()
    share: int = 20


LANGUAGE = "the river bank is open closed he sat by where can i fish ? . ##s 北"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LANGUAGE.split()]
TEXTS = ["The bank  is open.", "He sat by the river banks.", "北 where can I fish?"]
ROWS = [{"text": text, "label": "ab"[i % 2], "id": i} for i, text in enumerate(TEXTS * 2)]
PARSER = build_parser()
SIZES: dict[str, Any] = {
    **{"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    **{"max_position_embeddings": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}


def tiny(folder: Path, kind: str = "BertModel", recipe: Recipe = Recipe(untrained="random")) -> Path:  # noqa: B008
    """A small random checkpoint, by default without sentence-transformers' files."""
    torch.manual_seed(0)
    model = getattr(minibert, kind)(minibert.BertConfig(vocab_size=len(WORDS) + 40, **SIZES))
    tokenizer = minibert.BertTokenizer({word: i for i, word in enumerate(WORDS)}, model_max_length=32)
    minibert.Bert(model, tokenizer, recipe).save_pretrained(folder)
    return folder


def update(path: Path, **values: Any) -> None:
    """Set values of a JSON file."""
    old = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**old, **values}), "utf-8")


def write_rows(path: Path, rows: list[Any]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def command(*arguments: Any) -> str:
    """Run one of minibert's commands; returns what it prints, which must not control a terminal."""
    options = PARSER.parse_args([str(argument) for argument in arguments])
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()):
        options.run(options)
    if any(unicodedata.category(character) == "Cc" and character not in "\n\t" for character in printed.getvalue()):
        raise Find(f"control characters printed by minibert {arguments[0]}")
    return printed.getvalue()


def interrupted(function: str, times: int, run: Callable[[], Any]) -> None:
    """Run something, with a Ctrl-C at a call of a function."""
    real, calls = pkgutil.resolve_name(function), []

    def called(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        if len(calls) == times:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, **named)

    with mock.patch(function, called), contextlib.suppress(KeyboardInterrupt):
        run()
    if len(calls) < times:
        raise RuntimeError(f"{function} must be called {times} times; it was called {len(calls)} times")


def build_config(folder: Path) -> None:
    fields = {
        "BertModel": {"torch_dtype": "float32", "auto_map": {"AutoModel": "a.B"}, "classifier_dropout": 0.1},
        "BertForMaskedLM": {"tie_word_embeddings": True},
        "BertForSequenceClassification": {"id2label": {"0": "good", "1": "bad"}, "problem_type": None},
        "BertForTokenClassification": {"id2label": {"0": "O", "1": "B-PER"}},
        "BertForQuestionAnswering": {"architectures": ["BertForQuestionAnswering"]},
    }
    for kind, more in fields.items():
        update(tiny(folder / kind, kind) / "config.json", **more)


def read_config(folder: Path, changed: str) -> Any:
    uses = {
        "BertForMaskedLM": ("fill-mask", "the [MASK] is open"),
        "BertForSequenceClassification": ("classify", TEXTS[0]),
        "BertForTokenClassification": ("entities", TEXTS[0]),
        "BertForQuestionAnswering": ("answer", "where?", TEXTS[0]),
    }
    kind = changed.split("/")[0]
    return read_one(folder, changed), command(*uses.get(kind, ("info",)), "--model", folder / kind)


def read_one(folder: Path, changed: str) -> Any:
    """Load the checkpoint that was changed, and encode texts with it."""
    return minibert.load(folder / changed.split("/")[0]).encode(TEXTS)


def build_tokenizer(folder: Path) -> None:
    for name in ("fast", "slow"):
        one = tiny(folder / name)
        special = {"additional_special_tokens": ["[X]"], "sep_token": {"content": "[SEP]"}, "unk_token": "[UNK]"}
        update(one / "special_tokens_map.json", **special)
        update(one / "added_tokens.json", **{"[X]": len(WORDS), "[Z]": len(WORDS) + 1})
    decoder = {"0": {"content": "[PAD]", "special": True}, "5": {"content": "the", "lstrip": False, "rstrip": False}}
    update(folder / "fast" / "tokenizer_config.json", added_tokens_decoder=decoder, extra_special_tokens=["[Y]"])
    (folder / "slow" / "tokenizer.json").unlink()
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁the", "▁", "b", "a", "n", "k", "s", "▁bank"]
    unigram = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], 3, False))
    replace, prepend = normalizers.Replace(Regex(" {2,}"), " "), normalizers.Prepend("▁")
    unigram.normalizer = normalizers.Sequence([normalizers.NFKC(), replace, prepend])
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    table = {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", "th", "the", *"thebanksĠ"])}
    bpe = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(table)}, [("t", "h"), ("th", "e")], unk_token="<unk>")
    )
    bpe.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Strip()])
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    for name, backend in {"unigram": unigram, "bpe": bpe}.items():
        ends = [("<s>", 0), ("</s>", 2)]
        backend.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B </s>", ends)
        one = tiny(folder / name)
        (one / "vocab.txt").unlink()
        (one / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        (one / "tokenizer.json").write_text(backend.to_str(), "utf-8")


def build_weights(folder: Path) -> None:
    tensors = load_file(tiny(folder / "one", "BertForMaskedLM") / "model.safetensors")
    halves = [dict(list(tensors.items())[i::2]) for i in range(2)]
    for name, stem, suffix, parts in (
        ("two", "model", "safetensors", halves),
        ("old", "pytorch_model", "bin", [tensors]),
        ("old-two", "pytorch_model", "bin", halves),
    ):
        (tiny(folder / name, "BertForMaskedLM") / "model.safetensors").unlink()
        where = {}
        for i, part in enumerate(parts):
            file = f"{stem}-{i}.{suffix}" if len(parts) > 1 else f"{stem}.{suffix}"
            (save_file if suffix == "safetensors" else torch.save)(part, folder / name / file)
            where |= dict.fromkeys(part, file)
        if len(parts) > 1:
            update(folder / name / f"{stem}.{suffix}.index.json", metadata={"total_size": 1}, weight_map=where)


def build_sentence(folder: Path) -> None:
    recipe = Recipe(
        pooling=("cls", "mean"),
        dense=(Dense(torch.ones(4, 16), torch.zeros(4), "Tanh"),),
        normalize=True,
        max_seq_length=16,
        prompt="the ",
        prompts={"query": "where ", "document": ""},
        truncate_dim=3,
        similarity="dot",
    )
    tiny(folder / "model", recipe=recipe)


def read_sentence(folder: Path, changed: str) -> Any:
    bert = minibert.load(folder / "model")
    similar = bert.similarity(bert.encode_query(TEXTS), bert.encode_document(TEXTS))
    return bert.encode(TEXTS), similar, command("info", "--model", folder / "model")


def build_index(folder: Path) -> None:
    index = minibert.Index(minibert.load(tiny(folder / "model", recipe=Recipe())))
    index.add(TEXTS, [{"answer": "yes"}, ["no", 1.5], None])
    index.save(folder / "index")


def read_index(folder: Path, changed: str) -> Any:
    index = minibert.Index.load(folder / "index", minibert.load(folder / "model"))
    found = index.search(TEXTS[:1], 3), index.texts, index[0]
    return found, command("search", folder / "index", "bank", "--model", folder / "model")


def build_finetune(folder: Path) -> None:
    write_rows(folder / "rows.jsonl", ROWS)
    tiny(folder / "model")
    interrupted("minibert.training.log.Log.add", 3, lambda: read_finetune(folder, "run/"))
    read_finetune(folder, "whole/")


def read_finetune(folder: Path, changed: str) -> Any:
    """Resume an interrupted run, or ask for a finished one again."""
    bert, rows, output = minibert.load(folder / "model"), folder / "rows.jsonl", folder / changed.split("/")[0]
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 2, "save_every": 1, "show_progress_bar": False}
    done = bert.finetune(rows, task="classify", dev=rows, output=output, **settings)
    return [tuple(step) for step in done.history.steps], done.metrics, done.model.classify(TEXTS, top_k=2)


def build_pretrain(folder: Path) -> None:
    text = "The river bank is open.\nHe sat by a river bank, where he can fish.\n" * 8
    (folder / "text.txt").write_text(text, "utf-8")
    update(folder / "size.json", model_type="bert", **SIZES)
    interrupted("minibert.training.log.Log.add", 2, lambda: read_pretrain(folder, ""))


def read_pretrain(folder: Path, changed: str) -> Any:
    """Resume an interrupted run."""
    options = ["--vocab-size", "60", "--length", "16", "--batch-size", "4", "--epochs", "1", "--save-every", "1"]
    command("pretrain", folder / "text.txt", "--config", folder / "size.json", "-o", folder / "run", *options)
    return (folder / "run" / "training" / "losses.csv").read_text("utf-8"), read_one(folder, "run/")


def build_rows(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    tiny(folder / "model", "BertForQuestionAnswering", Recipe())
    lines = [f'{row["text"]},"{row["label"]}",{row["id"]}\n' for row in ROWS]
    asked = {"id": "1", "question": "who?", "answers": [{"text": "bank", "answer_start": 4}]}
    articles = [{"title": "a", "paragraphs": [{"context": TEXTS[0], "qas": [asked]}]}]
    files = {
        "rows.txt": "".join(text + "\n" for text in TEXTS),
        "rows.csv": "text,label,id\n" + "".join(lines),
        "rows.tsv": "text\tlabel\tid\n" + "".join(lines).replace(",", "\t").replace('"', ""),
        "rows.conll": "# a comment\nthe O\nriver B-LOC\n\nbank\tB-ORG\n-DOCSTART- O\nopen O\n",
        "squad.json": json.dumps({"version": "2", "data": articles}),
    }
    for name, content in files.items():
        (folder / name).write_text(content, "utf-8")
    write_rows(folder / "rows.jsonl", ROWS)
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "rows.parquet")


def read_rows(folder: Path, changed: str) -> None:
    """Encode the rows, find them in an index, learn from them."""
    path, model = folder / changed, ("--model", folder / "model")
    if path.suffix in (".txt", ".csv", ".jsonl", ".parquet"):
        keep = () if path.suffix == ".txt" else ("--keep", "id")
        output = folder / f"out.{'jsonl' if path.suffix == '.parquet' else 'parquet'}"
        command("encode", path, "-o", output, *model)
        command("index", path, *keep, "-o", folder / "out.index", *model)
        command("search", folder / "out.index", "bank", *model)
    if path.suffix != ".txt":
        task = {".conll": "tokens", ".json": "qa"}.get(path.suffix, "classify")
        bert = minibert.load(folder / "model")
        bert.finetune(path, task=task, output=folder / "out", epochs=1, show_progress_bar=False)


def build_partial(folder: Path) -> None:
    write_rows(folder / "rows.jsonl", ROWS * 200)
    tiny(folder / "model", "BertForTokenClassification")
    interrupted("minibert.corpus.files.VectorOutput.add", 2, lambda: read_partial(folder, "encode"))
    interrupted("minibert.corpus.files.Output.add", 2, lambda: read_partial(folder, "entities"))


def read_partial(folder: Path, changed: str) -> Any:
    """Resume an unfinished output."""
    name = changed.split(".")[0]
    output, keep = folder / f"{name}.jsonl", ("--keep", "id") if name == "entities" else ()
    command(name, folder / "rows.jsonl", "-o", output, *keep, "--model", folder / "model")
    return hash(output.read_bytes())


SENTENCE = ("model/modules.json", "model/*sentence*.json", "model/1_*/*", "model/2_*/*")
STATES = ("run/training/states/*", "whole/training/states/*", "run/training/losses.csv")
TARGETS = {
    "config": Target(build_config, read_config, ("*/config.json",), share=30),
    "tokenizer": Target(build_tokenizer, read_one, ("*/*token*.json", "*/vocab.txt"), share=60),
    "weights": Target(build_weights, read_one, ("*/*model*",), share=40),
    "sentence": Target(build_sentence, read_sentence, SENTENCE, share=40),
    "index": Target(build_index, read_index, ("index/*",), ("index/texts*",), share=30),
    "finetune": Target(build_finetune, read_finetune, ("run/*.*", "whole/*"), STATES, share=10),
    "pretrain": Target(build_pretrain, read_pretrain, ("run/*",), (*STATES, "run/training/tokens.bin"), share=6),
    "rows": Target(build_rows, read_rows, ("rows.*", "squad.json")),
    "partial": Target(build_partial, read_partial, ("*.partial/*",), ("*.partial/*",), share=15),
}
