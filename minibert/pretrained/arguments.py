"""The names that sentence-transformers and transformers have for arguments, and ours.

Names with the same meaning are accepted. A value that asks for something else, and an unknown name, raise an error that
says what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor

from minibert.errors import MinibertError
from minibert.pretrained.checkpoint import FLOAT_TYPES


class Only(NamedTuple):
    """The values of an argument that change nothing, and what to do instead of passing another one."""

    values: tuple[Any, ...]
    remedy: str


# Their name, then ours; or the values that are accepted.
Table = Mapping[str, str | Only]

ENCODING: Table = {
    "inputs": "texts",
    "sentences": "texts",
    "output_value": Only(("sentence_embedding",), "call bert.words(texts) for the vectors of words"),
    "pool": Only((None,), "leave it out, encode uses all of torch's threads"),
    "chunk_size": Only((None,), "leave it out, texts are read as they are needed"),
}
LOADING: Table = {
    "torch_dtype": "dtype",
    "cache_folder": "cache_dir",
    "use_auth_token": "token",
    "backend": Only((None, "torch"), "leave it out, there is one"),
    "similarity_fn_name": Only((None,), "leave it out, the checkpoint decides; index and similarity follow it"),
    "trust_remote_code": Only((None, False), "leave it out, the code of a repository is never run"),
    "attn_implementation": Only((None, "sdpa"), "pass output_attentions=True to a model for explicit attention"),
}


class LoadingNames(TypedDict, total=False):
    """The names of `LOADING`, for type checkers."""

    torch_dtype: Any
    cache_folder: Any
    use_auth_token: Any
    backend: Literal["torch"] | None
    similarity_fn_name: None
    trust_remote_code: Literal[False] | None
    attn_implementation: Literal["sdpa"] | None


FORWARD: Table = {
    "return_dict": Only((None, True), "call to_tuple() on what the model returns"),
    "use_cache": Only((None, False, True), ""),  # an encoder has nothing to cache
    "past_key_values": Only((None,), "leave it out, BERT is not a decoder"),
    "encoder_hidden_states": Only((None,), "leave it out, BERT is not a decoder"),
    "encoder_attention_mask": Only((None,), "leave it out, BERT is not a decoder"),
}

# Names that are not accepted, and the one to use instead.
INSTEAD = {
    "sentence": "texts",
    "text": "texts",
    "documents": "texts",
    "queries": "texts",
    "normalize": "normalize_embeddings",
    "dimensions": "truncate_dim",
    "return_tensors": "convert_to_tensor",
    "pooling_mode": "pooling",
    "output_hidden_states": "layers",
    "instruction": "prompt",
    "prompts": "prompt",
    "truncate": "truncation",
    "max_length": "bert.max_seq_length = ...",
    "max_seq_length": "bert.max_seq_length = ...",
    "device_map": "device",
    "ignore_mismatched_sizes": "BertForSequenceClassification.from_pretrained",
    "model_kwargs": "dtype",
    "model_name_or_path": "name_or_folder",
    "pretrained_model_name_or_path": "name_or_folder",
}


def in_our_words(call: str, table: Table, theirs: Mapping[str, Any], **ours: Any) -> dict[str, Any]:
    """The arguments `ours`, completed with those that were given under another name.

    Args:
        call: what was called, for messages.
        table: the names that it accepts besides its own.
        theirs: what was given under names that are not its own.
        ours: what was given under its own names; None where nothing was.

    Raises:
        TypeError: a name that is not known, or an argument given twice.
        MinibertError: a value that asks for something else.
    """
    for name, value in theirs.items():
        row = table.get(name)
        if row is None:
            remedy = f"; use {INSTEAD[name]}" if name in INSTEAD else ""
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}{remedy}")
        if isinstance(row, Only):
            if not any(value is one or (isinstance(value, str) and value == one) for one in row.values):
                shown = type(value).__name__ if isinstance(value, Tensor) else repr(value)
                known = " or ".join(map(repr, row.values))
                raise MinibertError(f"{name} ({shown:.40}) must be {known}; {row.remedy}")
        elif ours[row] is None:
            ours[row] = value
        else:
            raise TypeError(f"{call}() got {row} twice, as {row!r} and as {name!r}")
    return ours


def check_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """The dtype for parameters, also by its name; float32 when None.

    Raises:
        MinibertError: not a floating-point dtype.
    """
    if dtype is None:
        return torch.float32
    for known in FLOAT_TYPES:
        if dtype == known or (isinstance(dtype, str) and dtype.removeprefix("torch.") == str(known)[len("torch.") :]):
            return known
    raise MinibertError(
        f"dtype ({dtype!r}) must be a floating-point type of torch, or its name: {', '.join(map(str, FLOAT_TYPES))}"
    )


def check_device(device: torch.device | str | None) -> torch.device:
    """The device for parameters; the CPU when None.

    Raises:
        MinibertError: torch cannot use the device.
    """
    try:
        found = torch.device("cpu" if device is None else device)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:  # each build of torch has its own
        reason = (str(error).splitlines() or ["no details"])[0]
        raise MinibertError(f"device ({device}) must be one that this torch can use; it cannot ({reason})") from error
    return found
