"""Edits: another model with the same parameters, and nothing left behind in the first."""

from __future__ import annotations

import pickle
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from oracle import TINY, batch, with_real_vocabulary
from torch import Tensor, nn

import minibert
from minibert.attention import Packed, Padded
from minibert.errors import MinibertError
from minibert.study.edits import Edited, ablated, edited
from minibert.study.points import points_of

TEXT = "the cat sat on the [MASK] ."
OTHER = "a dog ran to my [MASK] !"  # as many tokens
TEXTS = ["one two", "three", "four five six seven", "eight", "nine ten"]
EXPLICIT = ("scores", "probabilities")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    return with_real_vocabulary(tmp_path_factory.mktemp("random"), minilm, "BertForPreTraining")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> minibert.Bert:
    return minibert.load(folder, dtype="float32")


def same(x: Tensor) -> Tensor:
    return x


def logits(bert: minibert.Bert, text: str | list[str] = TEXT, **asked: Any) -> Tensor:
    with torch.no_grad():
        return bert.model(**bert.tokenizer(text, return_tensors="pt", padding=True), **asked).prediction_logits


def padded_and_packed() -> Iterator[tuple[Tensor, Padded | Packed]]:
    yield torch.randn(2, 5, 32), Padded()
    yield torch.randn(2, 5, 32), Padded(torch.tensor([[True] * 5, [True] * 3 + [False] * 2]))
    yield torch.randn(8, 32), Packed([3, 3, 2])


def test_an_edit_that_returns_its_input_changes_nothing(tiny: minibert.Bert) -> None:
    names = [name for name in tiny.points().names if not name.endswith(EXPLICIT)]
    for text in (TEXT, ["the cat", "a longer text"]):
        assert torch.equal(logits(tiny.edited(dict.fromkeys(names, same)), text), logits(tiny, text))


def test_with_scores_or_probabilities_it_is_the_explicit_attention(tiny: minibert.Bert) -> None:
    edits = dict.fromkeys([name for name in tiny.points().names if name.endswith(EXPLICIT)], same)
    for text in (TEXT, ["the cat", "a longer text"]):
        explicit = logits(tiny, text, output_attentions=True)
        assert torch.equal(logits(tiny.edited(edits), text), explicit)
        assert torch.equal(logits(tiny.edited(edits), text, output_attentions=True), explicit)


def test_an_edit_is_given_what_the_trace_shows_and_what_it_returns_goes_on(tiny: minibert.Bert) -> None:
    for point in tiny.points():
        seen = []

        def double(x: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(x.clone())
            return x * 2

        after = tiny.edited({point.name: double}).trace(TEXT, point.name)[point.name]
        assert torch.equal(seen[0], tiny.trace(TEXT, point.name)[point.name]), point.name
        assert torch.equal(after, seen[0] * 2), point.name


def test_every_edit_reaches_the_result(tiny: minibert.Bert) -> None:
    plain = tiny.trace(TEXT, ["mlm_head", "nsp_head"])
    for name in tiny.points().names:
        noise = torch.randn(64)  # scores and probabilities of one row must not change alike

        def edit(x: Tensor, noise: Tensor = noise) -> Tensor:
            return x + noise.repeat(x.shape[-1] // 64 + 1)[: x.shape[-1]]

        changed = tiny.edited({name: edit}).trace(TEXT, ["mlm_head", "nsp_head"])
        kept = [head for head in plain if torch.equal(changed[head], plain[head])]
        untouched = ["mlm_head"] if name.startswith(("pooler", "nsp")) else ["nsp_head"] * name.startswith("mlm")
        assert kept == untouched, name


def test_an_edit_may_write_into_the_tensor_that_it_is_given(tiny: minibert.Bert) -> None:
    other = tiny.trace(OTHER, tiny.points().names)
    before = {name: tensor.clone() for name, tensor in other.items()}

    def write(x: Tensor) -> Tensor:
        x[..., 0] = 0
        return x

    def build(x: Tensor) -> Tensor:
        return write(x.clone())

    for name in tiny.points().names:
        assert torch.equal(logits(tiny.edited({name: write})), logits(tiny.edited({name: build}))), name
        logits(tiny.patched(other, name).edited({name: write}))
        assert torch.equal(other[name], before[name]), name


def test_a_module_with_a_forward_of_its_own_is_not_edited_in_vain(folder: Path) -> None:
    bert = minibert.load(folder, dtype="float32")
    layer = bert.layers[1]
    layer.forward = layer.forward  # as libraries do that move a module's inputs between devices
    with pytest.raises(MinibertError, match=r"encoder\.layers\.1 "):
        bert.edited({"encoder.layers.1": same})


def test_a_patch_of_every_position_of_a_layer_gives_the_other_run(tiny: minibert.Bert) -> None:
    other = tiny.trace(OTHER, "encoder.layers.*")
    for layer in range(3):
        patched = tiny.patched(other, [f"encoder.layers.{layer}"])
        assert torch.equal(logits(patched), logits(tiny, OTHER))
        everywhere = tiny.patched(other, f"encoder.layers.{layer}", positions=range(9))
        assert torch.equal(logits(everywhere), logits(tiny, OTHER))
        assert not torch.equal(logits(tiny), logits(tiny, OTHER))


def test_a_patch_at_some_positions_leaves_the_others(tiny: minibert.Bert) -> None:
    for name in tiny.points().names:
        if name.startswith(("pooler", "nsp", "embeddings.position")):
            continue
        other, own = tiny.trace(OTHER, name), tiny.trace(TEXT, name)[name]
        got = tiny.patched(other, name, positions=[4, -1]).trace(TEXT, name)[name]
        expected = own.clone()
        expected[..., [4, 8], :] = other[name][..., [4, 8], :]
        assert torch.equal(got, expected), name


def test_a_patch_holds_in_encode_for_one_text_at_a_time(tiny: minibert.Bert) -> None:
    patched = tiny.patched(tiny.trace(OTHER, "encoder.layers.2"), "encoder.layers.2")
    np.testing.assert_allclose(patched.encode(TEXT), tiny.encode(OTHER), atol=1e-6)
    np.testing.assert_allclose(patched.encode([TEXT, TEXT], batch_tokens=1), tiny.encode([OTHER] * 2), atol=1e-6)
    with pytest.raises(MinibertError, match="batch_tokens=1"):
        patched.encode([TEXT, TEXT])
    with pytest.raises(MinibertError, match=r"\(1, 3, 32\).*\(1, 9, 32\)"):
        patched.trace("a", "encoder.layers.2")


@pytest.mark.parametrize("heads", [{0: [0]}, {1: [1, 3], 2: [2]}, {0: [0, 1, 2, 3]}])
def test_ablation_equals_transformers_with_the_heads_columns_at_zero(
    folder: Path, tiny: minibert.Bert, heads: dict[int, list[int]]
) -> None:
    theirs = transformers.BertForPreTraining.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        for layer, numbers in heads.items():
            weight = theirs.bert.encoder.layer[layer].attention.output.dense.weight
            for head in numbers:
                weight[:, head * 8 : (head + 1) * 8] = 0
        inputs = tiny.tokenizer([TEXT, "a b"], return_tensors="pt", padding=True)
        expected = theirs(**inputs, output_hidden_states=True).hidden_states
        explicit = {"output_hidden_states": True, "output_attentions": True}
        ours = tiny.ablated(heads).model(**inputs, **explicit).hidden_states
    real = inputs["attention_mask"].bool()
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine[real], other[real], atol=1e-6, rtol=1e-6)


def test_the_mean_of_a_head_is_that_of_the_texts_own_tokens_padded_or_packed() -> None:
    model = minibert.BertModel(minibert.BertConfig(**TINY)).eval()
    attention = model.encoder.layers[1].attention
    changed = ablated(model, {1: [2]}, by="mean").encoder.layers[1].attention
    point = {"encoder.layers.1.attention.output.input": lambda x: inputs.append(x) or x}
    for x, layout in padded_and_packed():
        inputs: list[Tensor] = []
        with torch.no_grad():
            edited(model, point).encoder.layers[1].attention(x, layout)  # what goes into the output matrix
            expected = inputs[0].clone()
            rows = [slice(0, 3), slice(3, 6), slice(6, 8)] if x.ndim == 2 else [(0, slice(0, 5)), (1, slice(0, 5))]
            if isinstance(layout, Padded) and layout.mask is not None:
                rows[1] = (1, slice(0, 3))  # padding counts for nothing, and gets the mean, too
            for row in rows:
                mean = expected[row][:, 16:24].mean(0)
                expected[row[0] if isinstance(row, tuple) else row][..., 16:24] = mean
            torch.testing.assert_close(changed(x, layout), attention.output(expected), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("by", ["zero", "mean"])
def test_ablated_heads_are_left_out_of_vectors_too(tiny: minibert.Bert, by: str) -> None:
    changed = tiny.ablated({0: [1], 2: [0, 3]}, by=by)
    vectors = changed.encode(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        alone = changed.trace(text, "encoder.layers.2")["encoder.layers.2"][0].mean(0)
        np.testing.assert_allclose(vector, alone, atol=1e-5)
    assert np.abs(vectors - tiny.encode(TEXTS)).max() > 1e-3


def test_inside_encode_attention_is_given_by_text_and_the_rest_end_to_end(tiny: minibert.Bert) -> None:
    shapes: dict[str, list[tuple[int, ...]]] = {}
    points = ("encoder.layers.1", "encoder.layers.1.attention.probabilities", "encoder.layers.1.attention.mixed")

    def noting(name: str) -> Callable[[Tensor], Tensor]:
        def note(x: Tensor) -> Tensor:
            shapes.setdefault(name, []).append(tuple(x.shape))
            return x

        return note

    watched = tiny.edited({name: noting(name) for name in points})
    vectors = watched.encode(TEXTS)
    assert shapes[points[0]] == [(20, 32)]
    assert shapes[points[1]] == [(1, 4, 6, 6), (2, 4, 4, 4), (2, 4, 3, 3)]
    assert shapes[points[2]] == [(1, 4, 6, 8), (2, 4, 4, 8), (2, 4, 3, 8)]
    np.testing.assert_allclose(vectors, tiny.encode(TEXTS), atol=1e-5)
    shapes.clear()
    watched.encode(TEXTS[:2], batch_tokens=1)
    assert shapes[points[0]] == [(1, 4, 32), (1, 3, 32)]


def test_only_the_layers_that_are_edited_run_plain(bert: minibert.Bert) -> None:
    if not bert.engine.twin().fused:
        pytest.skip("oneDNN is not used here")
    assert bert.ablated({3: [1]}).engine.twin().fused == len(bert.layers) - 1


def test_edits_add_up(tiny: minibert.Bert) -> None:
    double, both = {"embeddings": lambda x: 2 * x}, tiny
    for _ in range(2):
        both = both.edited(double)
    assert torch.equal(logits(both), logits(tiny.edited({"embeddings": lambda x: 4 * x})))
    apart = tiny.ablated({1: [0]}).ablated({1: [2]}).ablated({2: 3})
    assert torch.equal(logits(apart), logits(tiny.ablated({1: [0, 2], 2: [3]})))


def test_an_edited_bert_shares_the_parameters_and_nothing_else(folder: Path) -> None:
    bert = minibert.load(folder, dtype="float32")
    plain = logits(bert)
    other = bert.edited({"encoder.layers.1": lambda x: x + 1})
    for (name, ours), (same_name, theirs) in zip(
        bert.model.named_parameters(), other.model.named_parameters(), strict=True
    ):
        assert name == same_name
        assert ours is theirs
    assert not {id(module) for module in bert.model.modules()} & {id(module) for module in other.model.modules()}
    other.model.train()
    other.layers[0].register_forward_hook(lambda *_: None)
    other.model.bert.encoder.layers[0] = nn.Identity()
    assert not any(module.training or module._forward_hooks for module in bert.model.modules())
    assert torch.equal(logits(bert), plain)


def test_gradients_go_through_edits(tiny: minibert.Bert) -> None:
    found = []

    def watch(x: Tensor) -> Tensor:
        x.retain_grad()
        found.append(x)
        return x

    watched = tiny.edited({"encoder.layers.0.attention.probabilities": watch})
    watched.model(**watched.tokenizer(TEXT, return_tensors="pt")).prediction_logits[0, 6, 7].backward()
    assert found[0].grad.abs().sum() > 0
    tiny.model.zero_grad()


def test_an_edit_that_raises_leaves_nothing_behind(folder: Path) -> None:
    bert = minibert.load(folder, dtype="float32")
    before, vectors = logits(bert), bert.encode(TEXTS)

    def fail(x: Tensor) -> Tensor:
        raise RuntimeError("as it was told")

    broken = bert.edited({"encoder.layers.1.attention.mixed": fail})
    for call in (lambda: logits(broken), lambda: broken.encode(TEXTS), lambda: broken.trace(TEXT, "mlm_head")):
        with pytest.raises(RuntimeError, match="as it was told"):
            call()
    assert torch.equal(logits(bert), before)
    assert np.array_equal(bert.encode(TEXTS), vectors)
    assert not any(isinstance(module, Edited) for module in bert.model.modules())


@pytest.mark.slow
def test_hundreds_of_ablated_copies_leak_nothing_into_threads_that_encode(bert: minibert.Bert) -> None:
    texts = ["the cat sat on the mat", "so did the dog", "it rained all day"]
    expected, wrong, stop = bert.encode(texts), [], threading.Event()

    def encode() -> None:
        while not stop.is_set():
            wrong.extend([1] * (not np.array_equal(bert.encode(texts), expected)))

    threads = [threading.Thread(target=encode) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(400):
            copied = bert.ablated({number % 6: [number % 12]})
            if number % 100 == 0:
                assert np.abs(copied.encode(texts) - expected).max() > 1e-4
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    for model in (bert.model, copied.model):
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_copy_of_bert_base_takes_less_than_a_megabyte() -> None:
    with torch.device("meta"):
        model = minibert.BertForPreTraining(minibert.BertConfig())
    ablated(model, {0: [0]})
    tracemalloc.start()
    kept = [ablated(model, {3: [1, 5]}) for _ in range(10)]
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    assert size < 1e6


def test_batches_of_random_ids_are_edited_alike_for_each_class() -> None:
    for kind in ("BertModel", "BertForTokenClassification", "BertForQuestionAnswering"):
        model = getattr(minibert, kind)(minibert.BertConfig(**TINY)).eval()
        inputs = batch()
        names = [name for name in points_of(model).names if not name.endswith(EXPLICIT)]
        with torch.no_grad():
            assert torch.equal(edited(model, dict.fromkeys(names, same))(**inputs)[0], model(**inputs)[0])


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda x: x[:, :1], "(1, 1, 32)"),
        (lambda x: x.double(), "torch.float64"),
        (lambda x: None, "NoneType"),
    ],
)
def test_an_edit_must_return_a_tensor_like_its_own(tiny: minibert.Bert, result: Any, said: str) -> None:
    with pytest.raises(MinibertError) as caught:
        logits(tiny.edited({"encoder.layers.1": result}))
    assert said in str(caught.value)
    assert "encoder.layers.1 " in str(caught.value)


def test_what_makes_no_sense_is_refused(tiny: minibert.Bert) -> None:
    traced = tiny.trace(TEXT, ["embeddings", "pooler"])
    for call, said in (
        (lambda: tiny.edited({"encoder.layer.1": same}), "encoder.layers.1"),
        (lambda: tiny.edited({"embeddings": 3}), "embeddings"),
        (lambda: tiny.edited([same]), "list"),
        (lambda: tiny.edited({"encoder.layers.*": same, "encoder.layers.1": same}), "encoder.layers.1"),
        (lambda: tiny.ablated({3: [0]}), "from 0 to 2"),
        (lambda: tiny.ablated({0: [4]}), "from 0 to 3"),
        (lambda: tiny.ablated({0: [True]}), "True"),
        (lambda: tiny.ablated([0]), r"\{3: \[1, 5\]\}"),
        (lambda: tiny.ablated({0: [0]}, by="nothing"), "nothing"),
        (lambda: tiny.patched(traced, "encoder.layers.1"), "embeddings, pooler"),
        (lambda: tiny.patched(traced, "embeddings", [9]), "from -9 to 8"),
        (lambda: tiny.patched(traced, "pooler", [0]), "pooler"),
        (lambda: tiny.edited({"embeddings": same}).save_pretrained("x"), "embeddings"),
    ):
        with pytest.raises(MinibertError, match=said):
            call()


def test_an_edited_bert_says_where(tiny: minibert.Bert) -> None:
    point = "encoder.layers.1.feed_forward"
    edited = tiny.edited({point: same})
    assert f"edited at   {point}" in repr(edited)
    assert (edited.info()["edits"], tiny.info()["edits"]) == ([point], [])
    assert "edited" not in repr(tiny)


def test_a_deep_copy_of_an_edited_model_is_edited_and_has_parameters_of_its_own(tiny: minibert.Bert) -> None:
    edited = tiny.edited({"encoder.layers.1.feed_forward": lambda x: 2 * x})
    twin = deepcopy(edited.model)
    other = copy(edited)
    other.model = twin
    assert other.edits == edited.edits
    assert torch.equal(logits(other), logits(edited))
    assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in edited.model.parameters()}


def test_an_edited_model_cannot_be_pickled(tiny: minibert.Bert) -> None:
    with pytest.raises(MinibertError) as caught:
        pickle.dumps(tiny.ablated({0: [0]}))
    assert str(caught.value) == (
        "a module that is pickled (EditedLinear) must have no edits; pickle the model it was made of, and edit that "
        "again"
    )


@pytest.mark.parametrize("by", ["zero", "mean"])
def test_ablating_no_head_of_a_layer_edits_nothing(tiny: minibert.Bert, by: Any) -> None:
    assert tiny.ablated({0: [], 1: [0]}, by=by).edits == tiny.ablated({1: [0]}, by=by).edits
