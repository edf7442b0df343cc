"""The door to the engine: rows go in, hidden states come out, pass by pass."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import theirs_of
from torch import Tensor

import minibert
from minibert.engine.engine import Engine, Plan
from minibert.engine.rows import Rows

LENGTHS = [7, 3, 40, 9, 9, 33, 2, 18, 9, 64]


def by_row(engine: Engine, rows: Rows, plan: Plan) -> dict[int, Tensor]:
    """The hidden states of each row."""
    found = {}
    for indices, groups, states in engine.states(rows, plan):
        lengths = [length for _, count, length in groups for _ in range(count)]
        found.update(zip(indices, states.split(lengths), strict=False))
    return found


@pytest.mark.parametrize("most_texts", [None, 1])
def test_hidden_states_of_pairs_on_any_layer_are_those_of_transformers(tmp_path: Path, most_texts: int | None) -> None:
    theirs = theirs_of("BertModel", tmp_path)
    engine = Engine(minibert.BertModel.from_pretrained(tmp_path))
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(99, (length,), generator=generator).tolist() for length in LENGTHS]
    types = [[0] * (length // 2) + [1] * (length - length // 2) for length in LENGTHS]
    plan = Plan((1, 3), "concat", most_tokens=64, most_texts=most_texts)
    ours = by_row(engine, Rows.of(ids, types), plan)
    untyped = by_row(engine, Rows.of(ids), plan)
    assert sorted(ours) == list(range(len(ids)))
    for number, (row, kinds) in enumerate(zip(ids, types, strict=True)):
        with torch.no_grad():
            states = theirs(
                torch.tensor([row]), token_type_ids=torch.tensor([kinds]), output_hidden_states=True
            ).hidden_states
        expected = torch.cat([states[1], states[3]], dim=-1)[0]
        assert ours[number].shape == (len(row), engine.width(plan))
        torch.testing.assert_close(ours[number], expected, rtol=0, atol=1e-6)
        assert (untyped[number] - expected).abs().max() > 1e-3


def test_types_must_fit_their_ids() -> None:
    with pytest.raises(minibert.errors.MinibertError, match="types"):
        Rows.of([[1, 2, 3]], [[0, 0]])


def test_copies_of_a_bert_have_engines_of_their_own_models(minilm: Path) -> None:
    bert = minibert.load(minilm)
    before = bert.encode("one")
    for other in (copy.deepcopy(bert), pickle.loads(pickle.dumps(bert))):
        assert other.engine.model is other.encoder
        with torch.no_grad():
            other.layers[0].attention_norm.bias.add_(0.5)
        assert np.abs(other.encode("one") - before).max() > 1e-3
    assert np.array_equal(bert.encode("one"), before)


def test_vectors_asked_for_as_tensors_do_not_visit_numpy(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bert = minibert.load(minilm)
    texts = ["one", "", "two words"]
    expected = bert.encode(texts)

    def refused(array: object) -> Tensor:
        raise AssertionError("vectors came from numpy")

    def only_ids(array: np.ndarray, original: object = torch.from_numpy) -> Tensor:
        return refused(array) if array.dtype.kind == "f" else original(array)  # type: ignore[operator,no-any-return]

    monkeypatch.setattr(torch, "from_numpy", only_ids)
    tensor = bert.encode(texts, convert_to_tensor=True)
    assert np.array_equal(tensor.numpy(), expected)
    assert not tensor.is_inference()  # it can be put into a graph that is trained
    assert bert.encode([], convert_to_tensor=True).shape == (0, 384)


class NoValues(torch.utils._python_dispatch.TorchDispatchMode):
    """Fails where a tensor's value is brought to Python, as `int(x)` and `if x:` do, which would wait for a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_pass_of_the_engine_looks_at_no_values(minilm: Path) -> None:
    bert = minibert.load(minilm)
    bert.encode("one")  # the weights are laid out and compared, which looks at them
    rows = Rows.of(bert.tokenizer(["one", "two words", "three"])["input_ids"])
    expected = by_row(bert.engine, rows, Plan())
    with NoValues():
        found = by_row(bert.engine, rows, Plan())
    assert all(torch.equal(found[number], expected[number]) for number in expected)


def test_a_forward_pass_on_another_device_looks_at_no_values(minilm: Path) -> None:
    """On "meta", a device without values, whoever looks at one gets an error."""
    model = minibert.BertModel.from_pretrained(minilm).to("meta")
    ids = torch.full((2, 5), 10**9, device="meta")
    assert model(ids, torch.ones_like(ids), torch.zeros_like(ids)).last_hidden_state.shape == (2, 5, 384)


def test_a_plan_counts_layers_from_either_end_and_knows_the_last_one(bert: minibert.Bert) -> None:
    plan = bert.engine.plan
    assert plan([0, -2]) == Plan((0, 5))
    assert plan(-1) == plan(6) == plan([6]) == plan() == Plan()
    with pytest.raises(minibert.MinibertError, match=r"batch_tokens \(0\)"):
        plan(most_tokens=0)
