"""Operations of training in the form that is fastest on a CPU, in place of torch's own.

A step runs under `fast_operations`. The models do not change: torch hands each call of a function to the context.

- Products: torch multiplies float32 by MKL, which took twice the time of oneDNN on an AMD EPYC (Zen 5), but 15 % less
  on an Intel Xeon, where it stays. The operator is private, so it is checked before it is used; where it is missing or
  wrong, torch's own products run.
- Dropout: 16 random bits decide on an element, instead of a floating-point number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from minibert.engine.device import cpu_capabilities

logger = logging.getLogger("minibert")


def fast_operations(device: torch.device) -> AbstractContextManager[object]:
    """A context in which products and dropout are fast; on other devices than a CPU, torch's own are."""
    return FastOperations(onednn=not made_for_mkl()) if device.type == "cpu" else nullcontext()


@cache
def made_for_mkl() -> bool:
    """Whether torch has MKL and runs on an Intel CPU. A timing could decide otherwise in the next run; this cannot."""
    has_mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return has_mkl and str(cpu_capabilities().get("cpu_name")).startswith("Intel")


class FastOperations(TorchFunctionMode):
    """Replaces `F.linear` and `F.dropout` where ours are faster.

    Args:
        onednn: oneDNN's products replace `F.linear`.
    """

    def __init__(self, onednn: bool = True) -> None:
        super().__init__()
        self.onednn = onednn

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch in place of `function`."""
        kwargs = kwargs or {}
        if function is F.linear and self.onednn and not kwargs and _by_onednn(*args):
            return Linear.apply(*args)  # type: ignore[no-untyped-call]
        if function is F.dropout:
            return dropout(*args, **kwargs)
        return function(*args, **kwargs)


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    return bool(
        x.dtype == weight.dtype == torch.float32
        and x.ndim == 2
        and x.numel() > 0
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and onednn_multiplies()
    )


@cache
def onednn_multiplies() -> bool:
    """Whether this build of torch has oneDNN's products, in the three forms that training takes them in."""
    x, weight, bias = (torch.arange(n, dtype=torch.float32, device="cpu").sin() for n in (21, 35, 5))
    x, weight = x.view(3, 7), weight.view(5, 7)
    try:
        y = product(x, weight, bias)
        pairs = [(y, x @ weight.T + bias), (product(y, weight.t()), y @ weight), (product(y.t(), x.t()), y.T @ x)]
    except (RuntimeError, AttributeError, TypeError) as error:
        logger.info("training multiplies by torch's own products: %s", error)
        return False
    return all(torch.allclose(got, expected, atol=1e-5) for got, expected in pairs)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b by oneDNN: (N, in) x (out, in) -> (N, out)."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return result


class Linear(torch.autograd.Function):
    """`F.linear` and its gradients, with all three products by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x W^T + b."""
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of x, W and b."""
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = (*ctx.needs_input_grad, False)[:3]
        return (
            product(gradient, weight.t()) if of_x else None,
            product(gradient.t(), x.t()) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout`: each element is zero with probability `p` (in steps of 1 / 65,536); the others are scaled up."""
    levels = round(p * 2**16)
    if not training or levels in (0, 2**16):
        return F.dropout(x, p, training, inplace)
    count = x.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64, device=x.device)
    bits.random_(-(2**63), None)
    drawn = bits.view(torch.int16)[:count].view(x.shape)
    kept = drawn >= levels - 2**15
    return x * kept * (2**16 / (2**16 - levels))
