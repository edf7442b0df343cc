"""BERT in other libraries: spaCy, scikit-learn, LangChain, Chroma, KeyBERT, BERTopic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minibert.bert import Bert
from minibert.errors import MinibertError
from minibert.loading import load
from minibert.pretrained.arguments import check_dtype


def open_bert(model: Any, *, revision: str | None = None, dtype: Any = None, device: Any = None) -> Bert:
    """Load the model that a setting names, or return the `Bert` that it is.

    Args:
        model: a repository's name, a folder, or a `Bert`.
        revision, dtype, device: as for `minibert.load`; None with a `Bert`.

    Raises:
        MinibertError: a setting that makes no sense. Other errors are those of `minibert.load`.
    """
    check_model(model)
    given = {"revision": revision, "dtype": dtype, "device": device}
    if isinstance(model, Bert):
        for name, value in given.items():
            if value is not None:
                raise MinibertError(f"{name} ({value!r}) must be None where model is a Bert; pass it to minibert.load")
        return model
    return load(model, revision=revision, dtype=dtype, device=device)


def check_model(model: Any) -> None:
    """Raise MinibertError unless the model is a name, a folder or a `Bert`."""
    if not isinstance(model, (str, Path, Bert)) or model == "":
        raise MinibertError(
            f"model ({model!r:.40}) must be the name of a checkpoint, a folder, or a Bert that minibert.load has made; "
            "pass 'sentence-transformers/all-MiniLM-L6-v2', for one"
        )


def check_dtype_name(dtype: Any) -> None:
    """Raise MinibertError unless `minibert.load` takes this dtype."""
    if dtype != "auto":
        check_dtype(dtype)
