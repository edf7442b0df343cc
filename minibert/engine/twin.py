"""A model made ready for inference, with fused layers in the place of its own, and whether it still is that model."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minibert.attention import SelfAttention
from minibert.embeddings import Embeddings
from minibert.encoder import Encoder, EncoderLayer, FeedForward
from minibert.engine.fused import fused_layer, is_probed
from minibert.heads import Pooler
from minibert.model import BertModel

# Modules of which the twin has copies of its own, the first three even if they are probed. Others, a class of the
# user's for one, it uses as they are, unless they are in training mode.
CONTAINERS = (BertModel, Encoder, nn.ModuleList)
COPIED = (*CONTAINERS, Embeddings, EncoderLayer, SelfAttention, FeedForward, nn.Dropout)
ALIKE = (nn.Embedding, nn.Linear, nn.LayerNorm, Pooler)  # they compute the same in training mode
# Rows and columns of which one number is sampled. Every row and column would take 9 % of the time of one sentence, most
# of it for what the samples push out of the caches; this takes 2 %.
BAND = 16
# Freeing a block of this size once lets glibc keep freed memory, up to twice as much, for the next pass, instead of
# giving it back to the system and fetching it anew, page by page (5 to 10 % of the time under bfloat16).
KEPT_BYTES = 31 * 2**20


class Twin:
    """A model made ready for inference, and whether it still is that model's.

    Args:
        model: the model. The twin shares its parameters, or has copies of them in oneDNN's layout.
        exact: by name, the float32 values of which the parameters of norms are roundings. Under bfloat16, the norms of
            a `FusedLayer` use them: it costs nothing, and a good part of the rounding error of a vector is theirs.

    Attributes:
        model: a `BertModel` to compute with; it is in evaluation mode whatever the other one is in.
        fused: how many of its layers are `FusedLayer`.
    """

    def __init__(self, model: BertModel, exact: Mapping[str, Tensor] | None = None) -> None:
        self._of = model
        self.model: BertModel = _evaluating(model)
        self.fused = 0
        copied: list[nn.Parameter] = []
        # other containers than these are not copied: a layer put there would be put into the user's own model
        parts = (model, model.encoder, model.encoder.layers) if type(model.encoder) is Encoder else ()
        layers = self.model.encoder.layers if tuple(map(type, parts)) == CONTAINERS else []
        for index, layer in enumerate(layers):
            prefix = f"encoder.layers.{index}."
            norms = {name.removeprefix(prefix): t for name, t in (exact or {}).items() if name.startswith(prefix)}
            fused = fused_layer(model.encoder.layers[index], layer, norms)
            if fused is not None:
                copied += model.encoder.layers[index].parameters()
                layers[index] = fused
                self.fused += 1
        self._state = State(model, copied)
        if self.fused:
            torch.empty(KEPT_BYTES, dtype=torch.uint8, device="cpu")

    def fits(self, model: BertModel, every_number: bool = False) -> bool:
        """Whether `model` is the one of the twin, with the modules, parameters, settings and probes that it had.

        New values of a parameter are seen however they were written: torch counts writes, and where it does not (fused
        optimizers, `parameter.data`, arrays of numpy that share the memory), samples of the numbers tell. A write that
        torch does not count and that leaves the samples alone, of a few rows or numbers, is seen with `every_number`.
        """
        return model is self._of and self._state.is_current(every_number)


class State:
    """What a model was when its twin was made: its modules, their parameters, settings and probes.

    Args:
        model: the model.
        copied: those of its parameters, contiguous and on the CPU, of whose numbers the twin has copies.
    """

    def __init__(self, model: nn.Module, copied: Sequence[nn.Parameter]) -> None:
        modules = list(model.modules())
        self._parts = [table for module in modules for table in (module._modules, module._parameters)]
        self._parameters = list(model.parameters())
        self._versioned = [p for p in self._parameters if not p.is_inference()]
        self._hooks = [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        shared = {part for m in modules if not is_copied(m) and type(m) not in ALIKE for part in m.modules()}
        settings = [
            (vars(module), name)
            for module in modules
            for name in ("forward", *vars(module))
            if name[0] != "_" and (name != "training" or module in shared)
        ]
        self._tables, self._names = [table for table, _ in settings], [name for _, name in settings]
        self._numbers = [integers(parameter) for parameter in copied]
        self._samples = [sample(numbers).numpy() for numbers in self._numbers]
        # what an id or an address was asked of must live on, or something else could get it
        self._kept = (
            [list(table.values()) for table in self._parts],
            [table.get(name) for table, name in settings],
            [p.detach() for p in self._parameters],
        )
        self._then, self._sums = self._look(), self._sum() if copied else b""

    def is_current(self, every_number: bool = False) -> bool:
        """Whether it still is that; without `every_number` it takes a hundredth of the time of one sentence."""
        return self._look() == self._then and not (every_number and self._numbers and self._sum() != self._sums)

    def _look(self) -> tuple[Any, ...]:
        return (
            list(map(id, chain.from_iterable([table.values() for table in self._parts]))),
            list(map(attrgetter("_version"), self._versioned)),
            list(map(Tensor.data_ptr, self._parameters)),
            list(map(len, self._hooks)),
            list(map(id, map(dict.get, self._tables, self._names))),
            np.concatenate(self._samples).tobytes() if self._samples else b"",
            torch.backends.mkldnn.enabled,
        )

    def _sum(self) -> bytes:
        """The sums of all rows: 2 ms for the 42 MB of a small model."""
        return torch.cat([numbers.sum(-1).view(-1) for numbers in self._numbers]).numpy().tobytes()


def integers(parameter: nn.Parameter) -> Tensor:
    """The bits of a contiguous parameter as integers, in its own memory: a NaN, too, equals itself then."""
    return parameter.detach().view(torch.int16 if parameter.dtype == torch.bfloat16 else torch.int32)


def sample(numbers: Tensor) -> Tensor:
    """Some of the numbers, in their own memory: every 16th of a vector, one of 16 rows and columns of a matrix."""
    if numbers.ndim == 1:
        return numbers[::BAND]
    rows, columns = numbers.shape
    # a diagonal that goes through each row and, prime to the number of columns, through each column
    step = next(step for step in range(max(1, min(rows, columns) - 1), 0, -1) if math.gcd(step, columns) == 1)
    return numbers.view(-1)[:: step * BAND]


def is_copied(module: nn.Module) -> bool:
    """Whether the twin has a copy of its own, even if it is in evaluation mode already."""
    return type(module) in COPIED and (type(module) in CONTAINERS or not is_probed(module))


def _evaluating(module: Any) -> Any:
    """A copy of the tree of modules, with the same parameters and probes, in evaluation mode; of what is not to be
    copied, the module itself, if it is in that mode."""
    if module is None or type(module) in ALIKE:
        return module
    if not is_copied(module) and not any(part.training for part in module.modules()):
        return module
    twin = copy.copy(module)
    twin.training = False
    twin._modules = {name: _evaluating(child) for name, child in module._modules.items()}
    return twin
