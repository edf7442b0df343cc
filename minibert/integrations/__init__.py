"""BERT in other libraries: spaCy, scikit-learn, LangChain, Chroma, KeyBERT, BERTopic. None is needed elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minibert.bert import Bert
from minibert.errors import MinibertError
from minibert.loading import load
from minibert.pretrained.checkpoint import FLOAT_TYPES

DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in FLOAT_TYPES}


def open_bert(model: Any, *, revision: str | None = None, dtype: Any = None, device: Any = None) -> Bert:
    """Load what a setting names; a `Bert` is taken as it is.

    Args:
        model: a repository's name, a folder, or a `Bert`.
        revision, dtype, device: as for `minibert.load`; `dtype` may also be a name, "bfloat16", say. With a `Bert`,
            None.

    Raises:
        MinibertError: a setting that makes no sense; beside those that `minibert.load` raises.
    """
    check_model(model)
    given = {"revision": revision, "dtype": dtype, "device": device}
    if isinstance(model, Bert):
        for name, value in given.items():
            if value is not None:
                raise MinibertError(f"{name} ({value!r}) must be None where model is a Bert; pass it to minibert.load")
        return model
    return load(model, revision=revision, dtype=as_dtype(dtype), device=device)


def check_model(model: Any) -> None:
    """Refuse what names no checkpoint and is none.

    Raises:
        MinibertError: not a name, a folder or a `Bert`.
    """
    if not isinstance(model, (str, Path, Bert)) or model == "":
        raise MinibertError(
            f"model ({model!r:.40}) must be the name of a checkpoint, a folder, or a Bert that minibert.load has made; "
            "pass 'sentence-transformers/all-MiniLM-L6-v2', for one"
        )


def as_dtype(dtype: Any) -> Any:
    """The dtype that a name stands for; "auto", None and torch's own stay what they are.

    Raises:
        MinibertError: none of these.
    """
    if dtype is None or dtype == "auto" or isinstance(dtype, torch.dtype):
        return dtype
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise MinibertError(f"dtype ({dtype!r}) must be 'auto', {', '.join(map(repr, DTYPES))}, or None for float32")
    return DTYPES[dtype]
