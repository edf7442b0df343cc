"""The loaded model made ready to be fast: the same layers, each written as the few operations a CPU is quickest with.

oneDNN, the library under torch's CPU products, likes weights in a layout of its own, and adds a bias, a GELU or a
residual to a product at no cost. `FusedLayer` is `encoder.EncoderLayer` in those terms. It takes the place of a layer
only where it computes what that layer computes, which is tried; where oneDNN is not there, or torch has changed the
operators (they are private), the layers of encoder.py run as they are. So does a layer that somebody looks into.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minibert.attention import Packed, Padded, SelfAttention
from minibert.embeddings import Embeddings
from minibert.encoder import Encoder, EncoderLayer, FeedForward
from minibert.heads import Pooler
from minibert.model import BertModel

logger = logging.getLogger("minibert")

# Modules of which the twin has copies of its own, the first three even if they are probed. Others, a class of the
# user's for one, it uses as they are, unless they are in training mode.
CONTAINERS = (BertModel, Encoder, nn.ModuleList)
COPIED = (*CONTAINERS, Embeddings, EncoderLayer, SelfAttention, FeedForward, nn.Dropout)
ALIKE = (nn.Embedding, nn.Linear, nn.LayerNorm, Pooler)  # they compute the same in training mode
# What a layer is made of if `FusedLayer` can stand for it.
FUSED = (EncoderLayer, SelfAttention, FeedForward, nn.Linear, nn.LayerNorm, nn.Dropout)
# Rows and columns of which one number is sampled. Every row and column would take 9 % of the time of one sentence, most
# of it for what the samples push out of the caches; this takes 2 %.
BAND = 16
# The values of ONEDNN_MAX_CPU_ISA under which oneDNN emulates products of bfloat16.
ISAS_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
# Freeing a block of this size once lets glibc keep freed memory, up to twice as much, for the next pass, instead of
# giving it back to the system and fetching it anew, page by page (5 to 10 % of the time under bfloat16).
KEPT_BYTES = 31 * 2**20
# How far a fused layer's numbers may be from the layer's own, as a part of the largest. Seen: 1e-6, and 0.01 (1.3
# units of the last place) in bfloat16; a bias, a residual or an activation gone wrong is more than that.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.06}


def fastest_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype that a device is fastest with at next to no loss, and why it is that one.

    Where bfloat16 is emulated, it is slower than float32.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            if torch.cuda.is_bf16_supported(including_emulation=False):
                return torch.bfloat16, "this GPU computes in it"
    if device.type == "cpu":
        if not torch.backends.mkldnn.enabled:
            return torch.float32, "oneDNN, which would multiply bfloat16, is off"
        limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
        if limit.upper() in ISAS_WITHOUT_BFLOAT16:
            return torch.float32, f"ONEDNN_MAX_CPU_ISA={limit} keeps oneDNN from multiplying bfloat16"
        for capability, title in (("amx_bf16", "AMX-BF16"), ("avx512_bf16", "AVX512-BF16")):
            if _cpu_capabilities().get(capability):
                return torch.bfloat16, f"this CPU has {title}"
        return torch.float32, "this CPU has neither AMX-BF16 nor AVX512-BF16"
    return torch.float32, f"no gain from bfloat16 is known on {device.type}"


def check_fork() -> None:
    """Refuse to compute where it would wait forever: with threads of torch that a fork has left behind.

    OpenMP keeps threads for each thread that computes, from its first large operation on. A forked child has the
    thread that forked, but none of those that were kept for it.

    Raises:
        RuntimeError: this thread has computed in a process of which this one is a fork.
    """
    if not hasattr(_computed, "process"):
        _computed.process = os.getpid()
    if _computed.process != os.getpid() and torch.get_num_threads() > 1:
        raise RuntimeError(
            f"this process ({os.getpid()}) must not be a fork of one that has computed already "
            f"({_computed.process}): torch's threads do not survive a fork; fork after `load` and before the first "
            "`encode`, or start processes by 'spawn', or call torch.set_num_threads(1) here"
        )


_computed = threading.local()  # by thread: in which process it first computed


def without_autocast() -> AbstractContextManager[object]:
    """A context in which CPU operations compute in the dtype of their inputs; oneDNN's know nothing else."""
    return torch.autocast("cpu", enabled=False) if torch.is_autocast_enabled("cpu") else nullcontext()


def _cpu_capabilities() -> dict[str, bool]:
    if hasattr(torch.cpu, "get_capabilities"):
        return dict(torch.cpu.get_capabilities())
    return {"avx512_bf16": getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()}  # older versions of torch


class Product:
    """x W^T + b by oneDNN, with W in its layout; a GELU or a residual comes with it.

    Source: the operators that `torch.compile` itself emits for frozen weights on a CPU.
    """

    def __init__(self, *linears: nn.Linear) -> None:
        weight = torch.cat([linear.weight.detach() for linear in linears])
        self.bias = torch.cat([linear.bias.detach() for linear in linears])
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, 4096)  # the layout is that of any larger number
        self.run = torch.ops.mkldnn._linear_pointwise.default
        self.run_plus = torch.ops.mkldnn._linear_pointwise.binary

    def __call__(self, x: Tensor) -> Tensor:
        return self.run(x, self.weight, self.bias, "none", [], "")

    def gelu(self, x: Tensor) -> Tensor:
        """The exact GELU of it."""
        return self.run(x, self.weight, self.bias, "gelu", [], "none")

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """The sum of it and a residual, which is rounded once."""
        return self.run_plus(x, residual, self.weight, self.bias, "add")


class FusedLayer(nn.Module):
    """What `EncoderLayer` computes in evaluation mode: four products, an attention, two norms.

    Args:
        layer: the layer.
        norms: float32 gains and biases for its two norms, if they are to have others than the layer's.
    """

    def __init__(self, layer: EncoderLayer, norms: Mapping[str, Tensor]) -> None:
        super().__init__()
        attention, feed_forward = layer.attention, layer.feed_forward
        self.heads = (3, *attention.heads)
        self.query_key_value = Product(attention.query, attention.key, attention.value)
        self.output = Product(attention.output)
        self.up, self.down = Product(feed_forward.up), Product(feed_forward.down)
        self.attention_norm = _norm_arguments(layer.attention_norm, "attention_norm", norms)
        self.feed_forward_norm = _norm_arguments(layer.feed_forward_norm, "feed_forward_norm", norms)

    def forward(self, x: Tensor, layout: Padded | Packed) -> Tensor:
        """Transform (..., H) to (..., H); `layout` says which tokens belong to one text."""
        q, k, v = self.query_key_value(x).view(*x.shape[:-1], *self.heads).unbind(-3)  # (..., 3H) -> (..., A, D)
        mixed = layout.attend(q, k, v, 0.0).flatten(-2)
        x = F.layer_norm(self.output.plus(mixed, x), *self.attention_norm)
        return F.layer_norm(self.down.plus(self.up.gelu(x), x), *self.feed_forward_norm)

    __call__ = forward  # it has no hooks to look for, and one sentence takes 3 % less time


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


def is_probed(module: nn.Module) -> bool:
    """Whether somebody looks at what goes in and out, or has put something else in the place of `forward`."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def is_copied(module: nn.Module) -> bool:
    """Whether the twin has a copy of its own, even if it is in evaluation mode already."""
    return type(module) in COPIED and (type(module) in CONTAINERS or not is_probed(module))


def fused_layer(layer: nn.Module, evaluating: nn.Module, norms: Mapping[str, Tensor]) -> FusedLayer | None:
    """A layer as a `FusedLayer`; None where that is not possible, or does not compute the same.

    Args:
        layer: the layer of the model.
        evaluating: the same in evaluation mode; it is what the other is compared with.
        norms: as for `FusedLayer`; used as far as the layer's own parameters are their roundings.
    """
    if type(layer) is not EncoderLayer or any(type(part) not in FUSED or is_probed(part) for part in layer.modules()):
        return None
    if layer.feed_forward.activation is not F.gelu or not torch.backends.mkldnn.enabled:
        return None
    own = dict(layer.named_parameters())
    weight = layer.feed_forward.up.weight
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    if not all(parameter.is_contiguous() for parameter in own.values()):
        return None
    exact = {}
    if weight.dtype == torch.bfloat16:
        exact = {n: t for n, t in norms.items() if n in own and torch.equal(t.to(own[n].dtype), own[n])}
    layout = Packed([5, 11])
    x = torch.arange(16 * weight.shape[1], dtype=torch.float32, device="cpu").sin().view(16, -1).to(weight.dtype)
    try:
        with torch.no_grad(), without_autocast():
            fused = FusedLayer(layer, exact)
            expected, got = evaluating(x, layout).float(), fused(x, layout).float()
    except (RuntimeError, AttributeError, TypeError) as error:
        logger.info("oneDNN's layout of the weights cannot be used: %s", error)
        return None
    same = (got - expected).abs().max() <= TOLERANCE[x.dtype] * expected.abs().max()
    return fused if same else None


def _norm_arguments(norm: nn.LayerNorm, name: str, exact: Mapping[str, Tensor]) -> tuple[Any, ...]:
    parameters = (exact.get(f"{name}.weight", norm.weight), exact.get(f"{name}.bias", norm.bias))
    return norm.normalized_shape, *(parameter.detach() for parameter in parameters), norm.eps


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
