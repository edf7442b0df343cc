"""Digests of what vectors are computed with. They identify a model by its content, not by its path or name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from minibert.errors import MinibertError

SLICE = 1 << 24  # numbers rounded at once


def fingerprint(bert: Any) -> str:
    """A digest of all weights, rounded to bfloat16, and of the vocabulary.

    It is the same for a model in float32 and in bfloat16, so an index made with one can be searched with the other.

    Raises:
        MinibertError: an edited `Bert`, since an edit is a function and has no digest.
    """
    digest = _new()
    for name, tensor in _weights(bert):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        numbers = tensor.flatten()
        for start in range(0, len(numbers), SLICE):
            digest.update(_bytes(numbers[start : start + SLICE].to(torch.bfloat16)))
    digest.update(_vocabulary(bert))
    return str(digest.hexdigest())


# Fields of a configuration that change no result: names, versions, and the type that `facts` has apart.
NO_RESULT = ("architectures", "output_attentions", "output_hidden_states")
NO_RESULT_EXTRA = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


def facts(bert: Any) -> dict[str, str]:
    """Everything that determines a vector, a label or an answer, as digests, and the dtype.

    Returns:
        "weights" (the exact ones of the encoder), "head" (the class of the model, and the weights of its pooler and
        heads), "config" (with the labels), "tokenizer", "recipe" and "dtype".

    Raises:
        MinibertError: an edited `Bert`.
    """
    weights, head = _new(), _new(type(bert.model).__name__.encode())
    for name, tensor in _weights(bert):
        _add_exactly(weights, name, tensor)
    for name, parameter in bert.model.named_parameters():
        inner = name.removeprefix("bert.")
        if inner.startswith("pooler.") or not (name.startswith("bert.") or bert.model is bert.encoder):
            _add_exactly(head, inner, parameter.detach().cpu())
    config = {name: value for name, value in vars(bert.config).items() if name not in NO_RESULT}
    config["extra"] = {name: value for name, value in bert.config.extra.items() if name not in NO_RESULT_EXTRA}
    settings = {**vars(bert.recipe), "dense": [dense.activation for dense in bert.recipe.dense]}
    settings |= {
        "max_seq_length": bert.max_seq_length,
        "source": "",
        "folder": "",
        "untrained": "",
        "family_prompts": "",
    }  # names and paths do not change a vector
    return {
        "dtype": str(bert.model.dtype).removeprefix("torch."),
        "weights": weights.hexdigest(),
        "head": head.hexdigest(),
        "config": _new(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest(),
        "tokenizer": _new(_vocabulary(bert) + bert.tokenizer.backend.to_str().encode()).hexdigest(),
        "recipe": _new(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest(),
    }


def _new(data: bytes = b"") -> Any:
    return hashlib.blake2b(data, digest_size=16)


def _add_exactly(digest: Any, name: str, tensor: Tensor) -> None:
    digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(_bytes(tensor))


def _weights(bert: Any) -> Iterator[tuple[str, Tensor]]:
    """The parameters that vectors depend on; the pooler is not one of them."""
    if bert.edits:
        raise MinibertError(
            f"the Bert (edited at {', '.join(bert.edits)}) must have no edits, since files do not hold them; "
            "use the one it was made of"
        )
    found = [(name, tensor) for name, tensor in bert.encoder.named_parameters() if not name.startswith("pooler.")]
    for number, dense in enumerate(bert.recipe.dense):
        found.append((f"dense.{number}.weight", dense.weight))
        found += [] if dense.bias is None else [(f"dense.{number}.bias", dense.bias)]
    return ((name, tensor.detach().cpu()) for name, tensor in found)


def _bytes(tensor: Tensor) -> Any:
    return tensor.contiguous().flatten().view(torch.uint8).numpy()


def _vocabulary(bert: Any) -> bytes:
    tokens = sorted(bert.tokenizer.vocab.items(), key=lambda token: token[1])
    return json.dumps([tokens, bert.tokenizer.do_lower_case, bert.tokenizer.special_tokens]).encode()
