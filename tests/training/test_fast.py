"""Products and dropout beside torch's own."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chi2
from torch import nn
from torch.nn import functional as F

from minibert.training import fast
from minibert.training.fast import FastOperations, dropout, fast_operations


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (390, 384, 1536), (64, 32, 30522)])
def test_products_and_their_gradients_equal_those_of_torch(shape: tuple[int, int, int], bias: bool) -> None:
    n, into, out = shape
    torch.manual_seed(0)
    layer, x, above = nn.Linear(into, out, bias=bias), torch.randn(n, into, requires_grad=True), torch.randn(n, out)
    layer(x).backward(above)
    expected = [layer(x).detach(), x.grad, *(p.grad for p in layer.parameters())]
    x.grad = None
    layer.zero_grad()
    with FastOperations():
        y = layer(x)
    assert ("LinearBackward" in type(y.grad_fn).__name__) == torch.backends.mkldnn.enabled
    y.backward(above)
    for got, wanted in zip([y.detach(), x.grad, *(p.grad for p in layer.parameters())], expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def test_only_gradients_that_are_needed_are_computed() -> None:
    x, w = torch.randn(4, 3), torch.randn(5, 3, requires_grad=True)
    with FastOperations():
        F.linear(x, w).sum().backward()
    assert x.grad is None
    torch.testing.assert_close(w.grad, x.sum(0).expand(5, 3))


@pytest.mark.parametrize("x", [torch.randn(4, 3).double(), torch.randn(4, 3).bfloat16(), torch.randn(2, 4, 3)])
def test_other_products_stay_torchs(x: torch.Tensor) -> None:
    w = torch.randn(5, 3, dtype=x.dtype)
    with FastOperations():
        assert torch.equal(F.linear(x, w), x @ w.T if x.ndim == 2 and x.dtype != torch.bfloat16 else F.linear(x, w))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_without_bias_and_without_pattern(p: float) -> None:
    torch.manual_seed(1)
    n = 1_000_000
    y = dropout(torch.ones(n), p)
    kept = y != 0
    rate = 1 - kept.float().mean().item()
    assert abs(rate - p) < 5 * (p * (1 - p) / n) ** 0.5
    assert y[kept].unique().numel() == 1
    assert y.mean().item() == pytest.approx(1, abs=5 * (p / (1 - p) / n) ** 0.5)
    # four bits in a row, and places that share a 64-bit number, are independent
    for step in (1, 2, 3, 4, 5):
        both = kept[:-step].double() * kept[step:].double()
        assert both.mean().item() == pytest.approx((1 - p) ** 2, abs=6 * (p * (1 - p)) ** 0.5 / n**0.5)
    patterns = kept[: n // 4 * 4].view(-1, 4).long() @ torch.tensor([1, 2, 4, 8])
    found = torch.bincount(patterns, minlength=16).double()
    ones = torch.tensor([bin(i).count("1") for i in range(16)])
    expected = (1 - p) ** ones * p ** (4 - ones) * len(patterns)
    assert ((found - expected) ** 2 / expected).sum().item() < chi2.ppf(0.9999, 15)


def test_dropout_scales_the_gradient_like_the_value() -> None:
    x = torch.randn(100, 7, requires_grad=True)
    y = dropout(x, 0.3)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False), (1.0, True)])
def test_dropout_of_nothing_and_of_everything_is_torchs(p: float, training: bool) -> None:
    x = torch.randn(5, 5)
    assert torch.equal(dropout(x, p, training), F.dropout(x, p, training))


def test_dropout_is_decided_by_the_seed() -> None:
    x = torch.randn(30, 30)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(dropout(x, 0.5))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_context_replaces_the_dropout_of_modules() -> None:
    x = torch.randn(1000)
    torch.manual_seed(0)
    with fast_operations(torch.device("cpu")):
        inside = nn.Dropout(0.5)(x)
    torch.manual_seed(0)
    assert torch.equal(inside, dropout(x, 0.5))


@pytest.mark.parametrize("how", ["missing", "wrong"])
def test_without_the_operator_products_are_torchs(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> torch.Tensor:
        if how == "missing":
            raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")
        return torch.zeros(1)

    layer, x = nn.Linear(3, 5), torch.randn(4, 3)
    assert fast.onednn_multiplies()
    monkeypatch.setattr(fast, "product", wrong)
    fast.onednn_multiplies.cache_clear()
    try:
        with FastOperations():
            y = layer(x)
        assert "LinearBackward" not in type(y.grad_fn).__name__
        assert torch.equal(y, layer(x))
    finally:
        fast.onednn_multiplies.cache_clear()
