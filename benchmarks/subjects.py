"""minibert and its alternatives, each as a function from texts to vectors.

All get the same texts and length limit, and tokenize inside the function. Libraries without batching of their own get
the usual batches: 32 texts, padded to the longest. The vector is the mean of the real tokens.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

import minibert

Encode = Callable[[list[str]], NDArray[np.float32]]
Hidden = Callable[[Tensor, Tensor], Tensor]  # ids and mask, (B, S) -> hidden states, (B, S, H)

BATCH = 32


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries while they load and convert a model."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


class Work:
    """What all subjects share.

    Args:
        model: folder, or name on the Hub.
        max_length: tokens of a text that are looked at; None: as many as the checkpoint says.
        scratch: an empty folder, for converted models.
    """

    def __init__(self, model: str, max_length: int | None, threads: int, scratch: Path) -> None:
        self.model, self.threads, self.scratch = model, threads, scratch
        self.bert = minibert.load(model)
        recipe = self.bert.recipe
        if recipe.pooling != ("mean",) or recipe.prompt or recipe.lower_case or recipe.refusal:
            measure.stop(f"{model} must pool by the mean alone, without a prompt: the peers are run that way")
        self.max_length = max_length or self.bert.max_seq_length
        self.bert.recipe = replace(recipe, max_seq_length=self.max_length)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, special ones included."""
        rows = self.bert.tokenizer(list(texts), truncation=True, max_length=self.max_length)
        return [len(row) for row in rows["input_ids"]]

    @cached_property
    def onnx(self) -> Path:
        """The model as an ONNX file. Explicit attention: ONNX Runtime is 20 % slower with exported sdpa."""
        path = self.scratch / "model.onnx"
        model = transformers_model(self, "float32", "eager")
        # two tensors, because the exporter merges one tensor passed twice into one input
        example = {name: torch.ones(2, 8, dtype=torch.long) for name in ("input_ids", "attention_mask")}
        axes = {0: torch.export.Dim("texts", min=1, max=4096), 1: torch.export.Dim("tokens", min=2, max=512)}
        with quiet():
            torch.onnx.export(
                model,
                kwargs=example,
                f=path,
                dynamo=True,
                dynamic_shapes=dict.fromkeys(example, axes),
                external_data=False,
                verbose=False,
            )
        return path


@dataclass(frozen=True)
class Subject:
    """A way to compute vectors.

    Attributes:
        package: what does the work.
        dtype: float32, bfloat16 or int8.
        make: loads the model; takes what time it takes.
        note: what tells it from another way with the same package.
    """

    package: str
    dtype: str
    make: Callable[[Work, str], Encode]
    note: str = ""

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.package} {self.dtype}{self.note}"


def ours(work: Work, dtype: str) -> Encode:
    """minibert, with its defaults."""
    bert = minibert.load(work.model, dtype=measure.DTYPES[dtype])
    bert.recipe = work.bert.recipe
    return bert.encode


def sentence_transformers(work: Work, dtype: str) -> Encode:
    """sentence-transformers, with its defaults."""
    from sentence_transformers import SentenceTransformer

    measure.hush_transformers()
    with quiet():
        model = SentenceTransformer(work.model, device="cpu", model_kwargs={"dtype": measure.DTYPES[dtype]})
    model.max_seq_length = work.max_length
    return partial(model.encode, show_progress_bar=False)


def transformers_model(work: Work, dtype: str, attention: str = "sdpa") -> Any:
    """transformers' BertModel, without a pooler, which is not needed here."""
    from transformers import BertModel

    measure.hush_transformers()
    return BertModel.from_pretrained(
        work.model, dtype=measure.DTYPES[dtype], attn_implementation=attention, add_pooling_layer=False
    ).eval()


def transformers(work: Work, dtype: str, ordered: bool) -> Encode:
    """transformers, with batches in the given order or sorted by number of tokens."""
    model = transformers_model(work, dtype)
    return in_batches(work, lambda ids, mask: model(input_ids=ids, attention_mask=mask).last_hidden_state, ordered)


def onnxruntime(work: Work, dtype: str) -> Encode:
    """ONNX Runtime; int8 is its dynamic quantisation."""
    import onnxruntime as ort

    path = work.onnx
    if dtype == "int8":
        from onnxruntime.quantization import quantize_dynamic

        path = work.scratch / "int8.onnx"
        with quiet():
            quantize_dynamic(work.onnx, path)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = work.threads
    session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def hidden(ids: Tensor, mask: Tensor) -> Tensor:
        feed = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        return torch.from_numpy(session.run(None, feed)[0])

    return in_batches(work, hidden)


def openvino(work: Work, dtype: str) -> Encode:
    """OpenVINO, which converts the ONNX file."""
    from openvino import Core

    settings = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],
        "INFERENCE_NUM_THREADS": work.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = Core()
    model = core.compile_model(core.read_model(work.onnx), "CPU", settings)

    def hidden(ids: Tensor, mask: Tensor) -> Tensor:
        return torch.from_numpy(model({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0])

    return in_batches(work, hidden)


def in_batches(work: Work, hidden: Hidden, ordered: bool = True) -> Encode:
    """Tokenization, batching and pooling around a model that takes only ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work.model)

    @torch.inference_mode()
    def encode(texts: list[str]) -> NDArray[np.float32]:
        rows = tokenizer(texts, truncation=True, max_length=work.max_length)["input_ids"]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index])) if ordered else list(range(len(rows)))
        vectors = torch.empty(len(rows), work.bert.config.hidden_size)
        for start in range(0, len(order), BATCH):
            indices = order[start : start + BATCH]
            batch = [torch.tensor(rows[index]) for index in indices]
            ids = pad_sequence(batch, batch_first=True, padding_value=tokenizer.pad_token_id)
            mask = pad_sequence([torch.ones_like(row) for row in batch], batch_first=True)
            real = mask[..., None].float()
            vectors[indices] = (hidden(ids, mask).float() * real).sum(1) / real.sum(1)
        return (F.normalize(vectors, dim=-1) if work.bert.recipe.normalize else vectors).numpy()

    return encode


AS_THEY_COME, SORTED = partial(transformers, ordered=False), partial(transformers, ordered=True)
SUBJECTS = (
    Subject("minibert", "float32", ours),
    Subject("minibert", "bfloat16", ours),
    Subject("sentence-transformers", "float32", sentence_transformers),
    Subject("sentence-transformers", "bfloat16", sentence_transformers),
    Subject("transformers", "float32", AS_THEY_COME, ", as they come"),
    Subject("transformers", "float32", SORTED, ", sorted"),
    Subject("transformers", "bfloat16", AS_THEY_COME, ", as they come"),
    Subject("transformers", "bfloat16", SORTED, ", sorted"),
    Subject("onnxruntime", "float32", onnxruntime),
    Subject("onnxruntime", "int8", onnxruntime),
    Subject("openvino", "float32", openvino),
    Subject("openvino", "bfloat16", openvino),
)
# Module names, and their names on PyPI.
NEEDS = {
    "sentence-transformers": {"sentence_transformers": "sentence-transformers"},
    "transformers": {"transformers": "transformers"},
    "onnxruntime": {name: name for name in ("onnxruntime", "onnx", "onnxscript", "transformers")},
    "openvino": {name: name for name in ("openvino", "onnx", "onnxscript", "transformers")},
}
PEERS = tuple(NEEDS)


def installed(peers: Sequence[str]) -> list[str]:
    """The peers that are installed; the others are reported."""
    found = []
    for peer in peers:
        missing = [package for module, package in NEEDS[peer].items() if find_spec(module) is None]
        if missing:
            names = " ".join(missing)
            verb = "are" if len(missing) > 1 else "is"
            print(f"skipped: {peer}, since {names} {verb} not installed (pip install {names})", file=sys.stderr)
        else:
            found.append(peer)
    return found


def choose(peers: Sequence[str], dtype: str = "both", skip: Sequence[str] = ()) -> list[Subject]:
    """The subjects of these packages in this dtype (both: int8 too); minibert in float32 always."""
    packages = ["minibert", *installed(peers)]
    return [
        subject
        for subject in SUBJECTS
        if subject.name == "minibert float32"
        or (subject.package in packages and dtype in ("both", subject.dtype) and subject.name not in skip)
    ]


def parser(description: str | None, rounds: int | None = 5) -> argparse.ArgumentParser:
    """The options shared by the benchmarks; `rounds` is None for a benchmark without rounds."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--model", required=True, help="folder, name on the Hub, or base: bert-base's shape, random")
    result.add_argument("--tokenizer", type=Path, help="with --model base: folder of a tokenizer with bert-base's ids")
    result.add_argument("--texts", type=Path, required=True, help="one text per line; .csv and .tsv: a file of STS-B")
    result.add_argument("--limit", type=int, help="use only the first N texts")
    result.add_argument("--max-length", type=int, help="token limit per text (default: the checkpoint's)")
    if rounds:
        result.add_argument(
            "--rounds", type=int, default=rounds, help=f"rounds, whose median is reported (default: {rounds})"
        )
    result.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    measure.add_output(result)
    return result


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[tuple[Work, list[str]]]:
    """The work and the texts that the options name."""
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message=".* texts exceed")  # truncation is part of the work, and the same for all
    texts = measure.read_texts(options.texts, options.limit)
    with tempfile.TemporaryDirectory() as temporary:
        model = options.model
        if model == "base":
            if options.tokenizer is None:
                measure.stop("--model base needs --tokenizer FOLDER, the folder of a checkpoint with bert-base's ids")
            model = measure.base_model(Path(temporary) / "base", options.tokenizer)
        with measure.told():
            work = Work(model, options.max_length, options.threads, Path(temporary))
        yield work, texts


def model_title(options: argparse.Namespace, work: Work) -> str:
    """The model's size, since a folder may have any name, and its name on the Hub."""
    config = work.bert.config
    name = "" if options.model == "base" or Path(options.model).is_dir() else f"{options.model}, "
    return f"{name}BERT of {config.num_hidden_layers} layers, H = {config.hidden_size}"


def title(options: argparse.Namespace, texts: Sequence[str], work: Work) -> str:
    """What was computed, for tables and figures."""
    return (
        f"{model_title(options, work)}: {len(texts):,} texts of {options.texts.name}, cut at {work.max_length} tokens"
    )
