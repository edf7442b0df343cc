"""The head that a task needs."""

from __future__ import annotations

from typing import TypeVar

from minibert.base import PretrainedModel
from minibert.errors import MinibertError
from minibert.pretrained.source import Source

M = TypeVar("M", bound=PretrainedModel)


def check_fault(model: PretrainedModel, source: object) -> None:
    """Raise MinibertError if the checkpoint had a head that could not be loaded; `load` has warned of it."""
    if model.head_fault:
        raise MinibertError(f"the head of {source} cannot be used: {model.head_fault}")


def with_head(model: PretrainedModel, kind: type[M], source: Source, purpose: str, example: str) -> M:
    """The model, if it is of the class that a task needs.

    Raises:
        MinibertError: it is of another class; the message names an example of a checkpoint that is.
    """
    if not isinstance(model, kind):
        check_fault(model, source)
        raise MinibertError(
            f"{source} ({type(model).__name__}) must be a {kind.__name__} to {purpose}; load a checkpoint that is one, "
            f"for example {example}"
        )
    return model
