"""The step beside transformers' losses and torch's optimizer: every head, packed and padded, whole and in parts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers.sentence_transformer.losses as losses_of_vectors
import torch
import transformers
from oracle import pair_of, theirs_of
from sentence_transformers import SentenceTransformer
from torch import nn
from torch.nn import functional as F
from training_cases import CASES, IDS, NO_DROPOUT, Case

import minibert
from minibert.engine import device
from minibert.training.gradients import gradients
from minibert.training.loop import DivergenceError, adamw, train
from minibert.training.objectives import (
    CosineScores,
    Objective,
    Positives,
    Relevance,
    ScoredPairs,
    TextLabels,
)
from minibert.training.packed import Example, parts_of
from minibert.training.processes import Trainee
from minibert.training.settings import Settings
from minibert.vectors.recipe import Recipe


def their_rates(schedule: str, rising: int, steps: int) -> list[float]:
    """The rates of transformers' schedule, of 1 at most; during the warm-up, a step earlier than in Trainer.

    There, the first step has a rate of 0.
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    factor = transformers.get_scheduler(schedule, optimizer, rising, steps).lr_lambdas[0]
    return [factor(number + (number < rising)) for number in range(steps)]


def their_losses(theirs: Any, case: Case, steps: int, settings: Settings) -> list[float]:
    """Those of a plain loop over transformers' model, padded, with torch's AdamW and transformers' rates."""
    plain = [p for name, p in theirs.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    others = [p for p in theirs.parameters() if all(p is not q for q in plain)]
    optimizer = torch.optim.AdamW(
        [{"params": others, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=settings.learning_rate,
    )
    rates = their_rates("linear", round(steps * settings.warmup), steps)
    theirs.train()
    found = []
    for number in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rates[number]
        loss = theirs(**case.padded(case.examples(number))).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), settings.max_grad_norm)
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("case", CASES, ids=IDS)
@pytest.mark.parametrize("part_tokens", [4_096, 40])
def test_twenty_packed_steps_give_the_losses_of_a_padded_loop_over_transformers(
    case: Case, part_tokens: int, tmp_path: Path
) -> None:
    ours, theirs = pair_of(case.kind, tmp_path, **NO_DROPOUT, **case.config)
    settings = Settings(steps=20, learning_rate=3e-3, part_tokens=part_tokens)
    found = [step.loss for step in train(ours, case.examples, case.objective, settings)]
    expected = their_losses(theirs, case, 20, settings)
    assert found == pytest.approx(expected, abs=1e-5)
    assert abs(found[0] - found[-1]) > 1e-3  # it did train


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_our_classes_in_a_padded_loop_draw_the_dropout_of_transformers(case: Case, tmp_path: Path) -> None:
    ours, theirs = pair_of(case.kind, tmp_path, **case.config)
    settings = Settings(steps=20, learning_rate=1e-3)
    torch.manual_seed(5)
    expected = their_losses(theirs, case, 20, settings)
    torch.manual_seed(5)
    optimizer = adamw(ours, settings)
    ours.train()
    found = []
    for number in range(20):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(number)
        loss = ours(**case.padded(case.examples(number))).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(ours.parameters(), settings.max_grad_norm)
        optimizer.step()
        found.append(loss.item())
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_gradients_do_not_depend_on_the_parts_and_equal_those_of_all_positions(case: Case, tmp_path: Path) -> None:
    ours, theirs = pair_of(case.kind, tmp_path, **NO_DROPOUT, **case.config)
    batch = case.examples(1)
    loss = theirs(**case.padded(batch)).loss
    loss.backward()
    # the gradients come back by our names: saved and loaded like weights
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad if parameter.grad is not None else torch.zeros_like(parameter))
    theirs.save_pretrained(tmp_path / "gradients")
    expected = getattr(minibert, case.kind).from_pretrained(tmp_path / "gradients").state_dict()
    for part_tokens in (4_096, 60, 25, 1):
        ours.zero_grad()
        found = gradients(
            Trainee(ours, case.objective), case.objective, batch, Settings(steps=1, part_tokens=part_tokens), 0
        )
        assert found == pytest.approx(loss.item(), abs=1e-6)
        for name, parameter in ours.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("divides", [True, False])
def test_gradients_in_bfloat16_are_those_of_the_weights_as_they_are_whatever_the_parts(
    divides: bool, tmp_path: Path
) -> None:
    case = CASES[3]
    ours, _ = pair_of(case.kind, tmp_path, **NO_DROPOUT, **case.config)
    objective = case.objective if divides else Positives(minibert.Recipe())
    batch = case.examples(1)
    if not divides:
        batch = [Example(one.rows + two.rows) for one, two in zip(batch, case.examples(2), strict=True)]

    def found(**settings: Any) -> list[torch.Tensor]:
        ours.zero_grad()
        gradients(Trainee(ours, objective), objective, batch, Settings(steps=1, **settings), 0)
        return [p.grad.clone() for p in ours.parameters() if p.grad is not None]

    with torch.autocast("cpu", torch.bfloat16):  # the caller's own; it keeps casts of weights until its end
        for _ in range(2):
            exact = found()
            for part_tokens in (4_096, 25):
                for gradient, expected in zip(found(dtype="bfloat16", part_tokens=part_tokens), exact, strict=True):
                    if expected.norm() > 1e-4:
                        assert torch.cosine_similarity(gradient.flatten(), expected.flatten(), dim=0) > 0.99
            with torch.no_grad():
                for parameter in ours.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.05)


@pytest.mark.parametrize("name", ["CoSENTLoss", "CosineSimilarityLoss", "MultipleNegativesRankingLoss"])
@pytest.mark.parametrize("part_tokens", [4_096, 60])
def test_losses_of_sentence_vectors_equal_those_of_sentence_transformers(
    name: str, part_tokens: int, minilm: Path
) -> None:
    theirs = SentenceTransformer(str(minilm), device="cpu")
    ours = minibert.BertModel.from_pretrained(minilm, **NO_DROPOUT)
    theirs[0].auto_model.eval()
    texts = [("A man eats.", "A man has lunch.", 0.8), ("A dog runs away.", "It rains.", 0.1), ("Go.", "Stop!", 0.4)]
    sides = [[a for a, _, _ in texts], [b for _, b, _ in texts]]
    labels = torch.tensor([score for *_, score in texts])
    loss = getattr(losses_of_vectors, name)(theirs)([theirs.preprocess(side) for side in sides], labels)
    loss.backward()
    tokenizer = minibert.BertTokenizer.from_pretrained(minilm)
    batch = [Example(tuple(np.array(tokenizer.encode(text)) for text in (a, b)), score) for a, b, score in texts]
    kinds: dict[str, type[Objective]] = {
        "CoSENTLoss": ScoredPairs, "CosineSimilarityLoss": CosineScores, "MultipleNegativesRankingLoss": Positives,
    }  # fmt: skip
    objective = kinds[name](Recipe(pooling=("mean",)))  # type: ignore[call-arg]
    found = gradients(Trainee(ours, objective), objective, batch, Settings(steps=1, part_tokens=part_tokens), 0)
    assert found == pytest.approx(loss.item(), abs=1e-5)
    expected = theirs[0].auto_model.encoder.layer[2].output.dense.weight.grad
    got = ours.encoder.layers[2].feed_forward.down.weight.grad
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_a_reranker_learns_with_the_loss_of_cross_encoders(tmp_path: Path) -> None:
    ours, theirs = pair_of("BertForSequenceClassification", tmp_path, num_labels=1, **NO_DROPOUT)
    case = Case("BertForSequenceClassification", Relevance(), lambda random, _: random.random())
    batch = case.examples(2)
    padded = case.padded(batch)
    expected = F.binary_cross_entropy_with_logits(
        theirs(**{k: v for k, v in padded.items() if k != "labels"}).logits[:, 0], padded["labels"]
    )
    assert gradients(Trainee(ours, Relevance()), Relevance(), batch, Settings(steps=1), 0) == pytest.approx(
        expected.item(), abs=1e-6
    )


@pytest.fixture
def classifier(tmp_path: Path) -> minibert.BertForSequenceClassification:
    """A small classifier with dropout."""
    theirs_of("BertForSequenceClassification", tmp_path, num_labels=3)
    return minibert.BertForSequenceClassification.from_pretrained(tmp_path)


CLASSIFY = CASES[3]


@pytest.mark.parametrize("stop", [1, 7])
def test_a_run_that_goes_on_gives_the_bits_of_one_that_never_stopped(
    stop: int, classifier: minibert.BertForSequenceClassification, tmp_path: Path
) -> None:
    settings = Settings(steps=10, learning_rate=1e-3, seed=3)
    begun = minibert.BertForSequenceClassification.from_pretrained(tmp_path)
    whole = [step.loss for step in train(classifier, CLASSIFY.examples, TextLabels(), settings)]
    optimizer = adamw(begun, settings)
    first = []
    for step in train(begun, CLASSIFY.examples, TextLabels(), settings, optimizer=optimizer):
        first.append(step.loss)
        if step.number == stop - 1:
            break
    torch.rand(17)  # what else the process draws changes nothing
    resumed = minibert.BertForSequenceClassification.from_pretrained(tmp_path)
    resumed.load_state_dict(begun.state_dict())
    again = adamw(resumed, settings)
    again.load_state_dict(optimizer.state_dict())
    rest = [
        step.loss for step in train(resumed, CLASSIFY.examples, TextLabels(), settings, optimizer=again, start=stop)
    ]
    assert first + rest == whole
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), classifier.parameters(), strict=True))


def test_training_draws_from_a_generator_of_its_own(classifier: minibert.BertForSequenceClassification) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    next(iter(train(classifier, CLASSIFY.examples, TextLabels(), Settings(steps=1))))
    assert torch.equal(torch.rand(3), expected)


def test_other_seeds_give_other_dropout(classifier: minibert.BertForSequenceClassification) -> None:
    classifier.train()
    batch = CLASSIFY.examples(0)
    found = {
        gradients(Trainee(classifier, TextLabels()), TextLabels(), batch, Settings(steps=1, seed=seed), 0)
        for seed in (0, 0, 1, 2)
    }
    assert len(found) == 3


def test_gradient_checkpointing_changes_no_bit(classifier: minibert.BertForSequenceClassification) -> None:
    classifier.train()
    batch = CLASSIFY.examples(0)
    plain = gradients(Trainee(classifier, TextLabels()), TextLabels(), batch, Settings(steps=1), 0)
    expected = [p.grad.clone() for p in classifier.parameters() if p.grad is not None]
    classifier.zero_grad()
    classifier.gradient_checkpointing_enable()
    assert gradients(Trainee(classifier, TextLabels()), TextLabels(), batch, Settings(steps=1), 0) == plain
    found = [p.grad for p in classifier.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(
    classifier: minibert.BertForSequenceClassification,
) -> None:
    settings = Settings(steps=3, learning_rate=1e-3)
    steps = train(classifier, CLASSIFY.examples, TextLabels(), settings)
    next(steps)
    after = [p.clone() for p in classifier.parameters()]
    with torch.no_grad():
        classifier.classifier.bias[0] = torch.nan
    with pytest.raises(DivergenceError, match="step 1 must be finite") as raised:
        next(steps)
    assert raised.value.number == 1
    assert len(raised.value.examples) == 8
    pairs = [(a, b) for a, b in zip(classifier.parameters(), after, strict=True) if a.isfinite().all()]
    assert len(pairs) == len(after) - 1
    assert all(torch.equal(a, b) for a, b in pairs)


def test_losses_of_bfloat16_steps_are_float32(classifier: minibert.BertForSequenceClassification) -> None:
    settings = Settings(steps=4, dtype="bfloat16")
    losses = torch.tensor([step.loss for step in train(classifier, CLASSIFY.examples, TextLabels(), settings)])
    assert not torch.equal(losses, losses.bfloat16().float())


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_rates_are_those_of_transformers(schedule: str) -> None:
    settings = Settings(steps=37, learning_rate=2e-4, warmup=5 / 37, schedule=schedule)  # type: ignore[arg-type]
    expected = [2e-4 * rate for rate in their_rates(schedule, 5, 37)]
    assert [settings.rate(number) for number in range(37)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_every_step_has_a_rate(steps: int, warmup: float) -> None:
    settings = Settings(steps=steps, learning_rate=2e-4, warmup=warmup)
    rates = [settings.rate(number) for number in range(steps)]
    assert min(rates) > 0
    assert max(rates) == 2e-4


def test_parts_keep_every_example_in_order_and_within_the_budget() -> None:
    batch = [Example((np.zeros(n, np.int64),), n) for n in (5, 3, 9, 30, 2, 2, 2)]
    parts = list(parts_of(batch, 10))
    assert [[e.labels for e in part] for part in parts] == [[5, 3], [9], [30], [2, 2, 2]]
    assert list(parts_of([], 10)) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_encode_uses_the_weights_of_the_step_before(dtype: str, minilm: Path) -> None:
    bert = minibert.load(minilm)
    texts = ["A man eats.", "It rains."]
    batch = [Example((np.array(bert.tokenizer.encode(text)),) * 2, 0.0) for text in texts]
    settings = Settings(steps=3, learning_rate=1e-4, dtype=dtype)  # type: ignore[arg-type]
    seen = [bert.encode(texts)]
    for _ in train(bert.encoder, lambda _: batch, CosineScores(bert.recipe), settings):
        seen.append(bert.encode(texts))
        again = minibert.Bert(bert.model, bert.tokenizer, bert.recipe)
        np.testing.assert_allclose(seen[-1], again.encode(texts), atol=1e-6)
    assert np.abs(seen[2] - seen[1]).max() > 1e-4
    assert np.abs(seen[3] - seen[2]).max() > 1e-4


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"steps": 0}, r"steps \(0\) must be a whole number"),
    ({"steps": 2, "part_tokens": 0}, r"part_tokens \(0\) must be a whole number"),
    ({"steps": 2, "schedule": "step"}, r"schedule \('step'\) must be 'linear', 'cosine' or 'constant'"),
    ({"steps": 2, "dtype": "int8"}, r"dtype \('int8'\) must be 'float32' or 'bfloat16'"),
    ({"steps": 2, "learning_rate": -1.0}, r"learning_rate \(-1\.0\) must be a number above 0"),
    ({"steps": 2, "learning_rate": float("nan")}, r"learning_rate \(nan\) must be a number above 0"),
    ({"steps": 2, "warmup": 5}, r"warmup \(5\) must be a fraction of the steps"),
    ({"steps": 2, "weight_decay": -0.1}, r"weight_decay \(-0\.1\) must be a number of at least 0"),
    ({"steps": 2, "max_grad_norm": 0.0}, r"max_grad_norm \(0\.0\) must be above 0"),
    ({"steps": 2, "seed": -1}, r"seed \(-1\) must be a whole number of at least 0"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=range(len(WRONG)))
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(minibert.MinibertError, match=message):
        Settings(**settings)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_of_a_process_that_has_computed_is_refused(
    classifier: minibert.BertForSequenceClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device._computed, "process", os.getpid() + 1, raising=False)  # as after a fork
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(RuntimeError, match="must not be a fork of one that has computed"):
        next(train(classifier, CLASSIFY.examples, TextLabels(), Settings(steps=1)))
