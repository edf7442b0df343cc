"""The model made ready to be fast: it computes what the plain layers compute, and notices when they change."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from oracle import assert_same_vectors, with_real_vocabulary
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

import minibert
from minibert.encoder import EncoderLayer
from minibert.engine import device, twin
from minibert.engine import fused as fused_layers
from minibert.engine.device import fastest_dtype
from minibert.engine.engine import MANY_ROWS
from minibert.engine.fused import FusedLayer, Product

Muon = getattr(torch.optim, "Muon", None)  # of new versions of torch; for matrices only
TEXTS = ["How do I reset my password?", "He robbed the bank.", "", "They fished from the bank of the river. " * 9]
HAS_FUSED = torch.backends.mkldnn.enabled and hasattr(torch.ops.mkldnn, "_linear_pointwise")
HAS_FUSED_BFLOAT16 = (
    HAS_FUSED and torch.ops.mkldnn._is_mkldnn_bf16_supported()
)  # AVX-512, or less of it with ISA limits
needs_fused = pytest.mark.skipif(not HAS_FUSED, reason="oneDNN is off, or not in this build of torch")
needs_fused_bfloat16 = pytest.mark.skipif(not HAS_FUSED_BFLOAT16, reason="oneDNN has no bfloat16 on this CPU")
FLOAT32_AND_BFLOAT16 = [
    pytest.param(torch.float32, marks=needs_fused, id="float32"),
    pytest.param(torch.bfloat16, marks=needs_fused_bfloat16, id="bfloat16"),
]


@pytest.fixture
def editable(minilm: Path) -> minibert.Bert:
    """The real model, loaded for one test, which may change it."""
    return minibert.load(minilm)


def plain(bert: minibert.Bert) -> np.ndarray:
    """The vectors of `TEXTS`, computed one by one with the model as it is: the padded path, layer by layer."""
    with torch.no_grad():
        states = [bert.encoder(torch.tensor([bert.tokenizer.encode(text)])).last_hidden_state[0] for text in TEXTS]
    return np.stack([F.normalize(state.float().mean(0), dim=0).numpy() for state in states])


def assert_now(after: np.ndarray, expected: np.ndarray, before: np.ndarray) -> None:
    """The vectors are those expected, which are so far from those before a change that no tolerance hides it."""
    assert_same_vectors(after, expected)
    assert np.abs(expected - before).max() > 1e-4


def fused(bert: minibert.Bert) -> int:
    """How many layers `encode` runs as `FusedLayer`."""
    return bert.engine.twin().fused


@pytest.mark.parametrize("dtype", FLOAT32_AND_BFLOAT16)
def test_every_layer_of_the_real_model_is_fused(minilm: Path, dtype: torch.dtype) -> None:
    bert = minibert.load(minilm, dtype=dtype)
    assert fused(bert) == 6
    assert not any(isinstance(module, FusedLayer) for module in bert.model.modules())  # the model itself is untouched


def without_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fused_layers.Product, "__init__")  # what is left cannot be called with weights: a TypeError


def with_other_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(self: Product, x: Tensor) -> Tensor:
        return F.gelu(self(x), approximate="tanh")  # 5e-4 from the exact form

    monkeypatch.setattr(fused_layers.Product, "gelu", changed)


def with_failing_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: object) -> Tensor:
        raise RuntimeError("mkldnn::_linear_pointwise is not there")

    monkeypatch.setattr(fused_layers.Product, "__call__", failing)


@needs_fused
@pytest.mark.parametrize("how", [without_operators, with_other_operators, with_failing_operators])
def test_without_the_operators_the_plain_layers_give_the_same_vectors(
    minilm: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[[pytest.MonkeyPatch], None]
) -> None:
    expected = minibert.load(minilm).encode(TEXTS)
    how(monkeypatch)
    plain = minibert.load(minilm)
    assert fused(plain) == 0
    assert_same_vectors(plain.encode(TEXTS), expected)


def test_switching_onednn_off_is_seen_by_the_next_call(
    editable: minibert.Bert, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = editable.encode(TEXTS)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert fused(editable) == 0
    assert_same_vectors(editable.encode(TEXTS), before)


@needs_fused_bfloat16
def test_bfloat16_without_the_operators_is_as_near(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = minibert.load(minilm).encode(TEXTS)
    with_failing_operators(monkeypatch)
    plain = minibert.load(minilm, dtype=torch.bfloat16)
    assert fused(plain) == 0
    assert (plain.encode(TEXTS) * exact).sum(1).min() > 0.9998


@pytest.mark.parametrize("act", ["gelu_new", "relu"])
def test_other_activations_run_as_they_are(tmp_path: Path, minilm: Path, act: str) -> None:
    folder = with_real_vocabulary(tmp_path, minilm)
    for dtype in (torch.float32, torch.bfloat16):  # the trial alone could not tell two GELUs apart in bfloat16
        model = minibert.BertModel.from_pretrained(folder, dtype=dtype, hidden_act=act)
        assert fused(minibert.Bert(model, minibert.BertTokenizer.from_pretrained(folder))) == 0


# What is done to a model after a first call is seen by the next


def change_a_weight(bert: minibert.Bert) -> None:
    with torch.no_grad():
        bert.layers[3].feed_forward.up.weight.mul_(1.5)


def change_a_norm(bert: minibert.Bert) -> None:
    with torch.no_grad():
        bert.layers[0].attention_norm.bias.add_(0.5)


def replace_a_parameter(bert: minibert.Bert) -> None:
    query = bert.layers[1].attention.query
    query.weight = nn.Parameter(query.weight.detach() * 2)


def replace_data(bert: minibert.Bert) -> None:
    bert.layers[2].attention.key.weight.data = torch.zeros(384, 384)


def load_a_state(bert: minibert.Bert) -> None:
    bert.encoder.load_state_dict({name: tensor * 1.1 for name, tensor in bert.encoder.state_dict().items()})


def replace_a_module(bert: minibert.Bert) -> None:
    bert.layers[5] = bert.layers[0]


def drop_a_layer(bert: minibert.Bert) -> None:
    del bert.layers[5]


def change_the_activation(bert: minibert.Bert) -> None:
    bert.layers[1].feed_forward.activation = F.relu


def change_a_setting(bert: minibert.Bert) -> None:
    bert.layers[1].attention_norm.eps = 0.5


def replace_forward(bert: minibert.Bert) -> None:
    layer = bert.layers[1]
    layer.forward = lambda x, layout: EncoderLayer.forward(layer, x, layout) * 0.5  # type: ignore[method-assign]


def hook_a_layer(bert: minibert.Bert) -> None:
    bert.layers[2].register_forward_hook(lambda module, inputs, output: output * 0.5)


def hook_a_part(bert: minibert.Bert) -> None:
    bert.layers[2].attention.value.register_forward_pre_hook(lambda module, inputs: inputs[0] * 0.5)


def replace_the_model(bert: minibert.Bert) -> None:
    other = copy.deepcopy(bert.model)
    with torch.no_grad():
        other.get_submodule("encoder.layers.0.feed_forward.down").weight.zero_()
    bert.model = other


# Writes that torch does not count


def multiply_data(bert: minibert.Bert) -> None:
    for parameter in bert.encoder.parameters():
        parameter.data.mul_(1.1)


def write_rows_of_data(bert: minibert.Bert) -> None:
    bert.layers[4].feed_forward.up.weight.data[384:400] = 3.0


def write_columns_of_data(bert: minibert.Bert) -> None:
    bert.layers[4].attention.output.weight.data[:, 352:] = 0.0  # the last head's


def write_a_bias_through_numpy(bert: minibert.Bert) -> None:
    bert.layers[4].attention.output.bias.detach().numpy()[77:93] = 3.0


def average_in_place(bert: minibert.Bert) -> None:
    parameters = [parameter.data for parameter in bert.encoder.parameters()]
    torch._foreach_lerp_(parameters, [torch.randn_like(parameter) for parameter in parameters], 0.02)


def fused_step(bert: minibert.Bert) -> None:
    for parameter in bert.encoder.parameters():
        parameter.grad = torch.randn_like(parameter)
    torch.optim.AdamW(bert.encoder.parameters(), lr=1e-3, fused=True).step()


CHANGES = [
    multiply_data,
    write_rows_of_data,
    write_columns_of_data,
    write_a_bias_through_numpy,
    average_in_place,
    fused_step,
    change_a_weight,
    change_a_norm,
    replace_a_parameter,
    replace_data,
    load_a_state,
    replace_a_module,
    drop_a_layer,
    change_the_activation,
    change_a_setting,
    replace_forward,
    hook_a_layer,
    hook_a_part,
    replace_the_model,
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_after_a_call_is_seen_by_the_next(
    editable: minibert.Bert, change: Callable[[minibert.Bert], None]
) -> None:
    before = editable.encode(TEXTS)
    change(editable)
    assert_now(editable.encode(TEXTS), plain(editable), before)


def optimizers() -> list[Any]:
    """Every optimizer of torch, in each form it has: (class, settings)."""
    cases = []
    for name in torch.optim.__all__:
        kind = getattr(torch.optim, name)
        if not isinstance(kind, type) or kind in (torch.optim.Optimizer, torch.optim.SparseAdam):  # SparseAdam: tables
            continue
        known = inspect.signature(kind).parameters
        for form in ({}, {"foreach": False}, {"foreach": True}, {"fused": True}):
            if set(form) <= set(known):
                cases.append(pytest.param(kind, form, id=f"{name}-{next(iter(form.items()), 'default')}"))
    return cases


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "form"), optimizers())
def test_vectors_after_a_step_are_those_of_the_saved_model(
    tmp_path: Path, minilm: Path, optimizer: Any, form: dict[str, bool]
) -> None:
    bert = minibert.load(with_real_vocabulary(tmp_path / "before", minilm, "BertModel"))
    before = bert.encode(TEXTS)
    parameters = [parameter for parameter in bert.encoder.parameters() if optimizer is not Muon or parameter.ndim == 2]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    rate = 1_000.0 if optimizer is torch.optim.LBFGS else 0.01  # it divides its first step by the sum of all gradients
    optimizer(parameters, lr=rate, **form).step(lambda: torch.tensor(1.0))
    after = bert.encode(TEXTS)
    bert.save_pretrained(tmp_path / "after")
    assert_now(after, minibert.load(tmp_path / "after").encode(TEXTS), before)


@pytest.mark.slow
def test_single_numbers_written_behind_the_counter_are_seen_by_a_call_with_many_texts(editable: minibert.Bert) -> None:
    texts = [str(number) for number in range(MANY_ROWS)]
    before = editable.encode(texts)
    with torch.no_grad():
        editable.layers[3].attention.value.weight.data[17, 5] = 40.0
    after = editable.encode(iter(texts))
    assert np.abs(after - before).max() > 1e-3
    assert_same_vectors(after[:3], minibert.Bert(editable.model, editable.tokenizer, editable.recipe).encode(texts[:3]))


@hypothesis.given(st.integers(1, 12), st.integers(1, 12))
def test_a_sample_has_a_number_of_16_neighbouring_rows_and_columns(rows: int, columns: int) -> None:
    numbers = torch.arange(256 * rows * columns, dtype=torch.int32).view(16 * rows, 16 * columns)
    found = twin.sample(numbers).numpy()
    assert np.diff([-1, *sorted(set(found // (16 * columns))), 16 * rows]).max() <= 16
    assert np.diff([-1, *sorted(set(found % (16 * columns))), 16 * columns]).max() <= 16


def test_a_hook_sees_what_goes_by_and_leaves_no_trace_when_removed(editable: minibert.Bert) -> None:
    before, seen = editable.encode(TEXTS), []
    handle = editable.layers[4].register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert_same_vectors(editable.encode(TEXTS), before)
    assert len(seen) == 1
    assert seen[0].shape[1] == 384
    handle.remove()
    assert np.array_equal(editable.encode(TEXTS), before)
    assert len(seen) == 1


def test_a_class_of_the_users_own_is_run(editable: minibert.Bert) -> None:
    class Halved(EncoderLayer):
        def forward(self, x: Tensor, layout: Any) -> Tensor:
            return super().forward(x, layout) * 0.5

    before = editable.encode(TEXTS)
    layer = Halved(editable.config)
    layer.load_state_dict(editable.layers[3].state_dict())
    editable.layers[3] = layer.eval()
    assert_now(editable.encode(TEXTS), plain(editable), before)


class OwnModel(minibert.BertModel):
    pass


def with_a_model_of_its_own(bert: minibert.Bert) -> None:
    model = OwnModel(bert.config)
    model.load_state_dict(bert.model.state_dict())
    bert.model = model.eval()


def with_layers_in_a_container_of_its_own(bert: minibert.Bert) -> None:
    encoder = bert.encoder.encoder
    encoder.layers = nn.Sequential(*encoder.layers)  # type: ignore[assignment]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("change", [with_a_model_of_its_own, with_layers_in_a_container_of_its_own])
def test_the_users_own_model_stays_what_it_is(
    editable: minibert.Bert, change: Callable[[minibert.Bert], None], training: bool
) -> None:
    expected = editable.encode(TEXTS)
    change(editable)
    editable.model.train(training)
    parts = dict(editable.model.named_modules())
    assert_same_vectors(editable.encode(TEXTS), expected)
    assert dict(editable.model.named_modules()) == parts


def test_the_dropout_of_a_class_of_the_users_own_is_off(editable: minibert.Bert) -> None:
    class Own(EncoderLayer):
        pass

    expected = editable.encode(TEXTS)
    layer = Own(editable.config)
    layer.load_state_dict(editable.layers[3].state_dict())
    editable.layers[3] = layer
    assert layer.dropout.p > 0
    for training in (True, False, True):
        layer.train(training)
        assert_same_vectors(editable.encode(TEXTS), expected)
        assert layer.dropout.training == training


@pytest.mark.parametrize("training", [False, True])
def test_a_parametrized_weight_is_used_in_either_mode(editable: minibert.Bert, training: bool) -> None:
    class Halved(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 0.5

    before = editable.encode(TEXTS)
    parametrize.register_parametrization(editable.layers[2].attention.value, "weight", Halved())
    expected = plain(editable)
    editable.model.train(training)
    assert_now(editable.encode(TEXTS), expected, before)
    assert fused(editable) == (5 if HAS_FUSED else 0)


def test_a_hook_is_given_the_module_that_it_was_put_on(editable: minibert.Bert) -> None:
    names, seen = {module: name for name, module in editable.model.named_modules()}, []
    for part in ("embeddings", "encoder.layers.2", "encoder.layers.3.attention"):
        module = editable.model.get_submodule(part)
        module.register_forward_hook(lambda module, inputs, output: seen.append(names[module]))
    editable.encode("one")
    assert seen == ["embeddings", "encoder.layers.2", "encoder.layers.3.attention"]


def test_values_at_an_address_that_was_used_before_are_seen(minilm: Path) -> None:
    bert = minibert.load(minilm, dtype=torch.bfloat16)
    weight = bert.layers[0].attention.value.weight
    before = bert.encode(TEXTS)
    for _ in range(4):
        weight.data = weight.data * 0.5
        weight.data = weight.data * 0.5
        after = bert.encode(TEXTS)
        assert not np.array_equal(after, before)
        before = after


@pytest.mark.parametrize("dtype", FLOAT32_AND_BFLOAT16)
@pytest.mark.parametrize("settings", [{"bias": False}, {"elementwise_affine": False}], ids=str)
def test_a_norm_without_parameters_runs_plain(minilm: Path, dtype: torch.dtype, settings: dict[str, bool]) -> None:
    bert = minibert.load(minilm, dtype=dtype)
    bert.layers[1].attention_norm = nn.LayerNorm(384, **settings, dtype=dtype)
    assert fused(bert) == 5
    tolerance = 1e-6 if dtype == torch.float32 else 0.03
    assert_same_vectors(bert.encode(TEXTS), plain(bert), tolerance)


@pytest.mark.parametrize("text", ["one", TEXTS])
def test_autocast_changes_nothing(minilm: Path, editable: minibert.Bert, text: Any) -> None:
    expected = editable.encode(text)
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(editable.encode(text), expected)
        fresh = minibert.load(minilm)
        assert np.array_equal(fresh.encode(text), expected)
        assert fused(fresh) == fused(editable)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_torchs_default_dtype_and_device_change_nothing(
    minilm: Path, editable: minibert.Bert, dtype: torch.dtype
) -> None:
    texts = [*TEXTS, "word " * 300]
    expected = editable.encode(texts, truncation="window")
    try:
        torch.set_default_dtype(dtype)
        torch.set_default_device("meta")
        fresh = minibert.load(minilm, device="cpu")
        assert np.array_equal(fresh.encode(texts, truncation="window"), expected)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_layers_are_those_that_are_there(editable: minibert.Bert) -> None:
    fifth = editable.encode(TEXTS, layers=5)
    del editable.layers[5]
    for layers in (None, -1, 5, [5]):
        assert_same_vectors(editable.encode(TEXTS, layers=layers), fifth)
    with pytest.raises(ValueError, match=r"layers \(6\) must be whole numbers between -6 and 5"):
        editable.encode(TEXTS, layers=6)


def test_training_mode_is_neither_used_nor_lost(editable: minibert.Bert) -> None:
    expected = editable.encode(TEXTS)
    editable.model.train()
    assert np.array_equal(editable.encode(TEXTS), expected)  # no dropout
    assert all(module.training for module in editable.model.modules())
    fresh = minibert.Bert(editable.model, editable.tokenizer, editable.recipe)
    assert np.array_equal(fresh.encode(TEXTS), expected)
    assert all(module.training for module in editable.model.modules())


def test_gradients_are_as_they_were(minilm: Path, editable: minibert.Bert) -> None:
    editable.encode(TEXTS)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in editable.model.parameters())
    never_asked = minibert.load(minilm)
    for bert in (editable, never_asked):
        bert.model(torch.tensor([[101, 7592, 102]])).last_hidden_state[0, 0, :9].sum().backward()
    for ours, expected in zip(editable.layers.parameters(), never_asked.layers.parameters(), strict=True):
        assert torch.equal(ours.grad, expected.grad)


def test_copies_and_pickles_give_the_same_vectors(editable: minibert.Bert) -> None:
    expected = editable.encode(TEXTS)
    for other in (copy.deepcopy(editable), pickle.loads(pickle.dumps(editable))):
        assert np.array_equal(other.encode(TEXTS), expected)


# bfloat16


@needs_fused_bfloat16
def test_the_norms_of_bfloat16_are_those_of_the_checkpoint(minilm: Path) -> None:
    """Rounded gains and biases are a good part of the error; the checkpoint has them exact."""
    exact = minibert.load(minilm).encode(TEXTS)
    loaded = minibert.load(minilm, dtype=torch.bfloat16)
    rounded = minibert.Bert(loaded.model, loaded.tokenizer, loaded.recipe)
    worst = [float((bert.encode(TEXTS) * exact).sum(1).min()) for bert in (loaded, rounded)]
    assert worst[0] > worst[1]
    assert worst[0] > 0.9999


def test_norms_changed_under_bfloat16_are_used(minilm: Path) -> None:
    bert = minibert.load(minilm, dtype=torch.bfloat16)
    before = bert.encode(TEXTS)
    change_a_norm(bert)
    assert np.abs(bert.encode(TEXTS) - before).max() > 1e-3


def stsb(evaldata: Path) -> tuple[list[list[str]], list[str]]:
    """The rows of STS-B's test set, and its sentences."""
    rows = [line.split("\t") for line in (evaldata / "stsb" / "sts-test.csv").read_text("utf-8").splitlines()]
    return rows, [row[column] for column in (5, 6) for row in rows]


@pytest.mark.slow
def test_auto_keeps_the_promise_of_bfloat16(minilm: Path, evaldata: Path) -> None:
    texts = stsb(evaldata)[1][:300]
    exact, auto = minibert.load(minilm).encode(texts), minibert.load(minilm, dtype="auto")
    assert auto.model.dtype in (torch.float32, torch.bfloat16)
    assert (auto.encode(texts) * exact).sum(1).min() >= 0.9999
    if auto.model.dtype == torch.bfloat16:
        assert fused(auto) == 6  # where the layers run plain, bfloat16 is no choice


@pytest.mark.slow
def test_bfloat16_is_within_the_promise_on_stsb(minilm: Path, evaldata: Path) -> None:
    rows, texts = stsb(evaldata)
    scores = np.array([float(row[4]) for row in rows])
    float32, bfloat16 = (minibert.load(minilm, dtype=dtype).encode(texts) for dtype in (None, torch.bfloat16))
    native = fastest_dtype(torch.device("cpu"))[0] == torch.bfloat16
    assert (float32 * bfloat16).sum(1).min() >= (0.9999 if native else 0.9998)  # emulated: a digit less is promised

    def spearman(vectors: np.ndarray) -> float:
        return 100 * float(spearmanr((vectors[: len(rows)] * vectors[len(rows) :]).sum(1), scores).statistic)

    assert spearman(float32) == pytest.approx(82.0325, abs=0.01)  # published: MTEB, STSBenchmark
    assert abs(spearman(bfloat16) - spearman(float32)) < 0.05


def test_auto_is_bfloat16_where_the_cpu_is_made_for_it(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", True)
    for capabilities, dtype, reason in (
        ({"amx_bf16": True, "avx512_bf16": True}, torch.bfloat16, "chosen since this CPU has AMX-BF16"),
        ({"avx512_bf16": True}, torch.bfloat16, "chosen since this CPU has AVX512-BF16"),
        ({"avx2": True}, torch.float32, "chosen since this CPU has neither AMX-BF16 nor AVX512-BF16"),
    ):
        monkeypatch.setattr(device, "cpu_capabilities", lambda found=capabilities: found)
        bert = minibert.load(minilm, dtype="auto")
        assert bert.model.dtype == dtype
        assert reason in repr(bert)
        assert bert.encode("one").dtype == np.float32
    monkeypatch.setattr(device, "cpu_capabilities", lambda: {"amx_bf16": True, "avx512_bf16": True})
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert fastest_dtype(torch.device("cpu")) == (
        torch.float32,
        "ATEN_CPU_CAPABILITY=avx2 keeps torch from its fast kernels for bfloat16",
    )
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx512_core")
    assert fastest_dtype(torch.device("cpu")) == (
        torch.float32,
        "ONEDNN_MAX_CPU_ISA=avx512_core keeps oneDNN from multiplying bfloat16",
    )
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert fastest_dtype(torch.device("cpu")) == (torch.float32, "oneDNN, which would multiply bfloat16, is off")
    assert fastest_dtype(torch.device("mps")) == (torch.float32, "no gain from bfloat16 is known on mps")


def test_the_default_is_float32_and_auto_belongs_to_load(minilm: Path) -> None:
    bert = minibert.load(minilm)
    assert bert.model.dtype == torch.float32
    assert "float32 on cpu\n" in repr(bert) + "\n"
    with pytest.raises(ValueError, match=r"dtype \('auto'\) must be a floating-point type of torch"):
        minibert.BertModel.from_pretrained(minilm, dtype="auto")  # type: ignore[arg-type]
