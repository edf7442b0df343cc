"""transformers as the oracle: its random weights, saved by it, loaded by us."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

import minibert
from minibert.attention import Padded
from minibert.encoder import Encoder

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TINY: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 512,
}
HEADS = (
    "BertModel",
    "BertForMaskedLM",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
    "BertForMultipleChoice",
)


def theirs_of(
    kind: str, folder: Path, attention: str = "sdpa", dtype: torch.dtype = torch.float32, **config: Any
) -> Any:
    """A model of transformers, random but not trivially so, saved in `folder` and loaded from there.

    Ours reads the same file. Small products of MKL can differ in the last bit where their operands are aligned in
    another way, so both models must have their parameters at the same places of a mapped file.
    """
    made = transformers.BertConfig(**{**TINY, **config})
    model = getattr(transformers, kind)(made)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # transformers starts biases at 0 and norms at 1, which would hide a mix-up of them
            parameter.add_(torch.randn_like(parameter) * (0.1 if "LayerNorm" in name or "bias" in name else 0.0))
    model.save_pretrained(folder)
    return getattr(transformers, kind).from_pretrained(folder, attn_implementation=attention, dtype=dtype).eval()


def pair_of(
    kind: str, folder: Path, attention: str = "sdpa", dtype: torch.dtype = torch.float32, **config: Any
) -> tuple[Any, Any]:
    """Ours and theirs, the same weights."""
    theirs = theirs_of(kind, folder, attention, dtype, **config)
    ours = getattr(minibert, kind).from_pretrained(folder, dtype=dtype)
    return ours, theirs


def with_real_vocabulary(folder: Path, minilm: Path, kind: str = "BertForMaskedLM", **config: Any) -> Path:
    """A small random checkpoint with the tokenizer of bert-base-uncased, saved in `folder`."""
    theirs_of(kind, folder, **{"vocab_size": 30522, "initializer_range": 0.5, **config})
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(minilm / name, folder)
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Replace the tensors of a saved checkpoint by what `change` makes of them."""
    path = folder / "model.safetensors"
    tensors = change({name: tensor.clone() for name, tensor in load_file(path).items()})
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def place_tensors(folder: Path, offset: int) -> None:
    """Move the tensors of a saved checkpoint to an address of that remainder modulo 64, when the file is mapped."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end].rstrip(b" ")
    header += b" " * ((offset - 8 - len(header)) % 64)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])


def batch(size: int = 3, length: int = 11, vocabulary: int = 99) -> dict[str, Tensor]:
    """Pairs of texts as ids, without padding."""
    token_type_ids = torch.zeros(size, length, dtype=torch.long)
    token_type_ids[:, length // 2 :] = 1
    return {"input_ids": torch.randint(1, vocabulary, (size, length)), "token_type_ids": token_type_ids}


def packed_and_padded(lengths: Sequence[int]) -> tuple[Encoder, Tensor, Tensor]:
    """A random encoder, texts end to end (T, H), and what it makes of them when they are padded, (T, H)."""
    torch.manual_seed(len(lengths))
    encoder = Encoder(minibert.BertConfig(**TINY)).eval()
    texts = [torch.randn(length, 32) for length in lengths]
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)  # (B, S, H)
    mask = torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        return encoder, torch.cat(texts), encoder(padded, Padded(mask))[mask]  # of the real tokens


def assert_same_vectors(ours: Any, theirs: Any, tolerance: float = 1e-6) -> None:
    """No number differs by more than this part of its vector's length: float32 has seven digits, not decimals."""
    assert ours.shape == theirs.shape
    length = np.linalg.norm(theirs, axis=-1, keepdims=True)
    difference = (np.abs(ours - theirs) / length).max(initial=0.0)
    assert difference < tolerance, f"the largest difference is {difference:.2g} of the vector's length"


def assert_identical(ours: Any, theirs: Any) -> None:
    """Every tensor that transformers returns is ours, to the bit."""
    names = [name for name in theirs if name not in ("past_key_values", "cross_attentions")]  # a decoder's
    assert names, "transformers returned nothing to compare"
    for name in names:
        expected, got = theirs[name], getattr(ours, name)
        pairs = zip(got, expected, strict=True) if isinstance(expected, tuple) else [(got, expected)]
        for index, (mine, other) in enumerate(pairs):
            assert mine.dtype == other.dtype
            difference = (mine.float() - other.float()).abs().max() if mine.shape == other.shape else "shape"
            assert torch.equal(mine, other), f"{name}[{index}] differs by {difference}"
