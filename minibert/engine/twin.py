"""A model for inference beside the user's own: fused layers in place of stock ones, everything else plain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import attrgetter, is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minibert.encoder import Encoder
from minibert.engine.fused import FusedLayer, fused_layer
from minibert.model import BertModel

# A sample has one number of each 16 rows and columns, and takes 2 % of the time of one sentence. A number of every row
# and column would take 9 %, mostly because the samples then push other data out of the caches.
BAND = 16
# After a block of this size has been freed once, glibc keeps up to twice as much freed memory for the next pass,
# instead of returning it to the system and getting it back page by page (5 to 10 % of the time in bfloat16).
KEPT_BYTES = 31 * 2**20


class Twin:
    """A model made ready for inference, and a record of the model that it was made from.

    A fused layer has a copy of its weights in oneDNN's layout. Every other module is the user's own or, if that is in
    training mode, a shallow copy in evaluation mode with the same parameters. The user's model is not changed.

    Args:
        model: the user's model.
        exact: by name, the float32 values that the parameters of norms were rounded from. Under bfloat16, fused layers
            use them for their norms: this costs no time and removes a good part of the rounding error.

    Attributes:
        model: the model to compute with.
        fused: how many of its layers are fused.
    """

    def __init__(self, model: BertModel, exact: Mapping[str, Tensor] | None = None) -> None:
        fused = fused_layers(model, exact or {})
        self.model: BertModel = evaluating(model, fused)
        self.fused = len(fused)
        self._original = model
        self._tables: list[dict[Any, Any]] = [
            table
            for m in model.modules()
            for table in (vars(m), m._modules, m._parameters, m._forward_hooks, m._forward_pre_hooks)
        ]
        # private names are left out, which makes it several times faster; an added `forward` is one name more
        places = [(table, name) for table in self._tables for name in table if not str(name).startswith("_")]
        self._places = [table for table, _ in places], [name for _, name in places]
        self._objects, self._lengths = self._look_at_objects(), list(map(len, self._tables))
        self._copied = [parameter for layer in fused for parameter in layer.parameters()]
        self._counted = [parameter for parameter in self._copied if not parameter.is_inference()]
        self._numbers = [integers(parameter) for parameter in self._copied]
        self._samples = [sample(numbers).numpy() for numbers in self._numbers]
        self._values, self._sums = self._look_at_values(), self._sum()
        if fused:
            torch.empty(KEPT_BYTES, dtype=torch.uint8, device="cpu")

    def fits(self, model: BertModel, every_number: bool = False) -> bool:
        """Whether `model` is the original, and nothing about it has changed.

        Changes are other modules, parameters, hooks, settings or modes, and new values of the weights. torch counts
        most writes to a tensor. Writes that it does not count (by fused optimizers, through `parameter.data`, through
        numpy arrays that share the memory) show in the samples, unless they are confined to a few rows or numbers.

        Args:
            every_number: compare all numbers of the weights, not only samples.
        """
        return (
            model is self._original
            and all(map(is_, self._look_at_objects(), self._objects))
            and list(map(len, self._tables)) == self._lengths
            and self._look_at_values() == self._values
            and not (every_number and self._sum() != self._sums)
        )

    def _look_at_objects(self) -> list[Any]:
        """Everything that the modules have. The objects themselves are kept: an `id` can be used again."""
        return list(map(dict.get, *self._places))

    def _look_at_values(self) -> tuple[Any, ...]:
        """What changes if a parameter has other values. The samples keep its memory: an address can be used again."""
        return (
            torch.backends.mkldnn.enabled,
            list(map(attrgetter("_version"), self._counted)),
            list(map(Tensor.data_ptr, self._copied)),
            np.concatenate(self._samples).tobytes() if self._samples else b"",
        )

    def _sum(self) -> bytes:
        """The sums of all rows: 2 ms for the 42 MB of a small model."""
        return b"".join(numbers.sum(-1).numpy().tobytes() for numbers in self._numbers)


def fused_layers(model: BertModel, exact: Mapping[str, Tensor]) -> dict[nn.Module, FusedLayer]:
    """The layers of a model that can be fused, with what takes their place."""
    # code of the user's own may look into the layers, where a fused one has no parts
    if (type(model), type(model.encoder), type(model.encoder.layers)) != (BertModel, Encoder, nn.ModuleList):
        return {}
    found = {}
    for index, layer in enumerate(model.encoder.layers):
        prefix = f"encoder.layers.{index}."
        norms = {name.removeprefix(prefix): tensor for name, tensor in exact.items() if name.startswith(prefix)}
        fused = fused_layer(layer, evaluating(layer, {}), norms)
        if fused is not None:
            found[layer] = fused
    return found


def evaluating(module: Any, fused: Mapping[nn.Module, FusedLayer]) -> Any:
    """A module in evaluation mode and with fused layers: itself where it is so already, otherwise a shallow copy."""
    if module in fused:
        return fused[module]
    if module is None or not any(part.training or part in fused for part in module.modules()):
        return module
    copy = object.__new__(type(module))
    children = {name: evaluating(child, fused) for name, child in module._modules.items()}
    vars(copy).update(vars(module), training=False, _modules=children)
    return copy


def integers(parameter: nn.Parameter) -> Tensor:
    """The bits of a contiguous parameter as integers, in its own memory: as integers, a NaN equals itself."""
    return parameter.detach().view(torch.int16 if parameter.dtype == torch.bfloat16 else torch.int32)


def sample(numbers: Tensor) -> Tensor:
    """Some of the numbers, in their own memory: every 16th of a vector, one of each 16 rows and columns of a matrix."""
    if numbers.ndim == 1:
        return numbers[::BAND]
    rows, columns = numbers.shape
    # a diagonal that goes through each row and, prime to the number of columns, through each column
    step = next(step for step in range(max(1, min(rows, columns) - 1), 0, -1) if math.gcd(step, columns) == 1)
    return numbers.view(-1)[:: step * BAND]
