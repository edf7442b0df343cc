"""An encoder layer in the few operations that are fastest on a CPU.

oneDNN, which computes torch's matrix products on CPUs, is fastest with weights in its own layout. It adds a bias, a
GELU or a residual to a product at no cost. `FusedLayer` is `encoder.EncoderLayer` in these operations. Each fused layer
is checked against the plain one before it is used. Without oneDNN, or if torch has changed the operators (they are
private), the layers of encoder.py run instead. Layers with hooks also run plain.
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

# The types that a layer may consist of to be fused.
FUSED = (EncoderLayer, SelfAttention, FeedForward, nn.Linear, nn.LayerNorm, nn.Dropout)
# The largest difference allowed between a fused layer and the plain one, relative to the largest number. Measured:
# 1e-6, and 0.01 (1.3 units in the last place) in bfloat16. A wrong bias, residual or activation differs by more.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.06}


class Product:
    """x W^T + b by oneDNN, with W in its layout; followed by a GELU or a residual.

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
        """The exact GELU of the product."""
        return self.run(x, self.weight, self.bias, "gelu", [], "none")

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """The product plus a residual, rounded once."""
        return self.run_plus(x, residual, self.weight, self.bias, "add")


class FusedLayer(nn.Module):
    """What `EncoderLayer` computes in evaluation mode: four products, an attention, two norms.

    Args:
        layer: the layer.
        norms: float32 gains and biases to use in its two norms instead of the layer's.
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

    __call__ = forward  # it has no hooks, and not looking for any saves 3 % of the time of one sentence


def is_probed(module: nn.Module) -> bool:
    """Whether a module has forward hooks or a `forward` of its own."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def fused_layer(layer: nn.Module, evaluating: nn.Module, norms: Mapping[str, Tensor]) -> FusedLayer | None:
    """A layer as a `FusedLayer`; None where that is impossible or gives other numbers.

    Args:
        layer: the layer of the model.
        evaluating: the same layer in evaluation mode, to compare with.
        norms: as for `FusedLayer`. Each is used only if the layer's own parameter is that value, rounded.
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
