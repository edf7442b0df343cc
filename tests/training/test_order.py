"""The order of examples, and the compact token table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import theirs_of

import minibert
from minibert.training.loop import train
from minibert.training.objectives import TextLabels
from minibert.training.order import Epochs, SpreadEpochs
from minibert.training.packed import Example
from minibert.training.settings import Settings
from minibert.training.vocabulary import CompactTable


@pytest.mark.parametrize(("count", "size"), [(10, 3), (9, 3), (1, 4), (7, 7)])
def test_each_epoch_takes_each_example_once_in_another_order(count: int, size: int) -> None:
    epochs = Epochs([Example((np.zeros(1, np.int64),), i) for i in range(count)], size, seed=5)
    orders = []
    for epoch in range(4):
        batches = [epochs.indices(epoch * epochs.steps + step) for step in range(epochs.steps)]
        order = [index for batch in batches for index in batch]
        assert sorted(order) == list(range(count))
        assert all(len(batch) == size for batch in batches[:-1])
        orders.append(tuple(order))
    assert count < 3 or len(set(orders)) == 4


def test_a_batch_depends_on_its_number_alone() -> None:
    examples = [Example((np.zeros(1, np.int64),), i) for i in range(20)]
    expected = [Epochs(examples, 6, seed=1).indices(number) for number in range(12)]
    epochs = Epochs(examples, 6, seed=1)
    for number in (11, 0, 7, 3, 4):
        assert epochs.indices(number) == expected[number]
    assert Epochs(examples, 6, seed=2).indices(0) != expected[0]


def test_examples_that_share_a_text_are_spread_over_the_epoch() -> None:
    random = np.random.default_rng(0)
    kinds = random.integers(0, 77, 2000)
    examples = [Example((np.array([1000 + n]), np.array([kind])), n) for n, kind in enumerate(kinds)]
    epochs, plain = SpreadEpochs(examples, 64, seed=3), Epochs(examples, 64, seed=3)
    assert epochs.steps == plain.steps == 32
    taken = []
    distinct: dict[str, list[int]] = {"spread": [], "plain": []}
    for number in range(32):
        batch = epochs.indices(number)
        assert len(batch) == (64 if number < 31 else 16)
        taken += batch
        if number < 31:
            distinct["spread"].append(len(set(kinds[batch].tolist())))
            distinct["plain"].append(len(set(kinds[plain.indices(number)].tolist())))
    assert sorted(taken) == list(range(2000))
    assert np.mean(distinct["spread"]) > 1.15 * np.mean(distinct["plain"])
    assert epochs.indices(40) != epochs.indices(8)
    assert SpreadEpochs(examples, 64, seed=3).indices(40) == epochs.indices(40)
    assert SpreadEpochs(examples, 64, seed=4).indices(0) != epochs.indices(0)
    alone = [Example((np.array([n]), np.array([n + 50])), n) for n in range(50)]
    assert sorted(i for number in range(4) for i in SpreadEpochs(alone, 16).indices(number)) == list(range(50))
    assert SpreadEpochs(alone, 50).indices(0) != list(range(50))


@pytest.fixture
def examples() -> list[Example]:
    """Forty texts of ids below 60, with three labels."""
    random = np.random.default_rng(0)
    return [Example((random.integers(1, 60, random.integers(3, 12)),), int(random.integers(3))) for _ in range(40)]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_training_with_the_compact_table_gives_the_weights_of_the_whole_one(
    decay: float, examples: list[Example], tmp_path: Path
) -> None:
    nothing = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    theirs_of("BertForSequenceClassification", tmp_path, num_labels=3, **nothing)
    whole, compact = (minibert.BertForSequenceClassification.from_pretrained(tmp_path) for _ in range(2))
    settings = Settings(steps=15, learning_rate=1e-2, weight_decay=decay)
    expected = [step.loss for step in train(whole, Epochs(examples, 8), TextLabels(), settings)]
    table = CompactTable(compact.bert, examples)
    assert len(table.used) == len(compact.bert.embeddings.token.weight) < 60
    found = [step.loss for step in train(compact, Epochs(table.examples, 8), TextLabels(), settings)]
    table.restore(float(np.prod([1 - settings.rate(number) * decay for number in range(15)])))
    assert found == pytest.approx(expected, abs=1e-5)
    weights = whole.bert.embeddings.token.weight
    torch.testing.assert_close(compact.bert.embeddings.token.weight, weights, rtol=1e-4, atol=1e-5)
    unused = np.setdiff1d(np.arange(99), table.used)
    torch.testing.assert_close(compact.bert.embeddings.token.weight[unused], weights[unused], rtol=1e-6, atol=0)
