"""An encoder layer written as the few operations that a CPU is quickest with.

oneDNN, the library under torch's CPU products, likes weights in a layout of its own, and adds a bias, a GELU or a
residual to a product at no cost. `FusedLayer` is `encoder.EncoderLayer` in those terms. It takes the place of a layer
only where it computes what that layer computes, which is tried; where oneDNN is not there, or torch has changed the
operators (they are private), the layers of encoder.py run as they are. So does a layer that somebody looks into.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minibert.attention import Packed, Padded, SelfAttention
from minibert.encoder import EncoderLayer, FeedForward
from minibert.engine.device import without_autocast

logger = logging.getLogger("minibert")

# What a layer is made of if `FusedLayer` can stand for it.
FUSED = (EncoderLayer, SelfAttention, FeedForward, nn.Linear, nn.LayerNorm, nn.Dropout)
# How far a fused layer's numbers may be from the layer's own, as a part of the largest. Seen: 1e-6, and 0.01 (1.3
# units of the last place) in bfloat16; a bias, a residual or an activation gone wrong is more than that.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.06}


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


def is_probed(module: nn.Module) -> bool:
    """Whether somebody looks at what goes in and out, or has put something else in the place of `forward`."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


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
