"""Many masks at once: packed, sorted, and the head at the masks alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from oracle import with_real_vocabulary

import minibert
from minibert.errors import MinibertError
from minibert.heads import MaskedLMHead


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    """A small random masked-LM model."""
    return with_real_vocabulary(tmp_path_factory.mktemp("mlm"), minilm, initializer_range=0.1)


@pytest.fixture(scope="module")
def tiny(folder: Path) -> minibert.Bert:
    return minibert.load(folder, dtype="float32")


@pytest.fixture(scope="module")
def sentences(evaldata: Path) -> list[str]:
    """Sentences of STS-B of all lengths, one word of each masked, and some with two masks."""
    lines = (evaldata / "stsb" / "sts-test.csv").read_text(encoding="utf-8").splitlines()[:120]
    found = []
    for number, line in enumerate(lines):
        words = line.split("\t")[5].split()
        words[number % len(words)] = "[MASK]"
        if number % 10 == 0:
            words.insert(0, "[MASK]")
        found.append(" ".join(words))
    return found


def flat(results: Any) -> list[minibert.Candidate]:
    """All candidates of all masks of all texts."""
    masks = [mask for result in results for mask in (result if isinstance(result[0], list) else [result])]
    return [candidate for mask in masks for candidate in mask]


def test_many_texts_get_what_the_pipeline_gives(folder: Path, tiny: minibert.Bert, sentences: list[str]) -> None:
    pipe = transformers.pipeline("fill-mask", model=str(folder), device="cpu")
    expected = [pipe(text, top_k=5) for text in sentences]
    theirs = [c for e in expected for mask in (e if isinstance(e[0], list) else [e]) for c in mask]
    ours = flat(tiny.fill_mask(sentences))
    assert len(ours) == len(theirs)
    np.testing.assert_allclose([c.probability for c in ours], [c["score"] for c in theirs], atol=1e-5)
    assert [c.id for c in ours] == [c["token"] for c in theirs]


@pytest.mark.parametrize("targets", [None, ["man", "embeddings", "unbelievable"]])
def test_neighbours_change_nothing(tiny: minibert.Bert, sentences: list[str], targets: list[str] | None) -> None:
    together = tiny.fill_mask(sentences[:30], targets=targets)
    alone = [tiny.fill_mask(text, targets=targets) for text in sentences[:30]]
    ours, theirs = flat(together), flat(alone)
    assert [c[:2] for c in ours] == [c[:2] for c in theirs]
    assert [c.text for c in ours] == [c.text for c in theirs]
    np.testing.assert_allclose([c.probability for c in ours], [c.probability for c in theirs], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [{"batch_size": 3}, {"batch_tokens": 64}])
def test_batches_change_nothing(tiny: minibert.Bert, sentences: list[str], settings: dict[str, Any]) -> None:
    ours, theirs = flat(tiny.fill_mask(sentences, **settings)), flat(tiny.fill_mask(sentences))
    assert [c.id for c in ours] == [c.id for c in theirs]
    np.testing.assert_allclose([c.probability for c in ours], [c.probability for c in theirs], atol=1e-6)


def test_the_head_runs_at_the_masks_alone(
    tiny: minibert.Bert, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = MaskedLMHead.forward

    def counted(head: MaskedLMHead, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return original(head, x, table)

    monkeypatch.setattr(MaskedLMHead, "forward", counted)
    monkeypatch.setattr("minibert.tasks.fill_mask.MASKS_AT_ONCE", 50)
    tiny.fill_mask(sentences)
    assert sum(seen) == sum(text.count("[MASK]") for text in sentences)
    assert max(seen) <= 50


def test_an_iterator_is_read_as_needed_and_a_bad_text_is_named_by_its_number(
    tiny: minibert.Bert, sentences: list[str]
) -> None:
    def stream() -> Iterator[str]:
        yield from sentences[:7]
        yield "There is none."
        raise AssertionError

    with pytest.raises(AssertionError):
        tiny.fill_mask(stream())
    with pytest.raises(MinibertError, match=r"text 7 \('There is none\.'\) must hold \[MASK\]"):
        tiny.fill_mask([*sentences[:7], "There is none."])
    assert tiny.fill_mask([]) == []
    assert flat(tiny.fill_mask(iter(sentences[:4]))) == flat(tiny.fill_mask(sentences[:4]))


def test_bfloat16_gives_nearly_the_same_probabilities(folder: Path, tiny: minibert.Bert, sentences: list[str]) -> None:
    rounded = minibert.load(folder, dtype="bfloat16")
    ours = flat(rounded.fill_mask(sentences, targets=["man", "dog"]))
    exact = {(c.text, c.token): c.probability for c in flat(tiny.fill_mask(sentences, targets=["man", "dog"]))}
    for candidate in ours:
        assert candidate.probability == pytest.approx(exact[candidate.text, candidate.token], rel=0.15)
