"""Digests that tell models apart by what they compute with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from saved_models import made

import minibert
from minibert.vectors.fingerprint import facts, fingerprint


def test_each_number_of_the_weights_counts(minilm: Path) -> None:
    bert = minibert.load(minilm)
    rounded, exact = fingerprint(bert), facts(bert)["weights"]
    weight = bert.encoder.encoder.layers[4].feed_forward.down.weight
    with torch.no_grad():
        before = weight[17, 1001].item()
        weight[17, 1001] = torch.nextafter(weight[17, 1001], torch.tensor(9.0))
        assert facts(bert)["weights"] != exact
        assert fingerprint(bert) == rounded  # a model in bfloat16 cannot know it
        weight[17, 1001] = before * 1.01
        assert fingerprint(bert) != rounded
        weight[17, 1001] = before
    assert (fingerprint(bert), facts(bert)["weights"]) == (rounded, exact)


def test_the_dtype_counts_where_numbers_must_not_change(minilm: Path) -> None:
    full, half = minibert.load(minilm), minibert.load(minilm, dtype=torch.bfloat16)
    assert fingerprint(full) == fingerprint(half)
    assert facts(full)["weights"] != facts(half)["weights"]


@pytest.mark.slow
def test_a_copy_is_the_same_model(tmp_path: Path, minilm: Path) -> None:
    bert = minibert.load(minilm)
    bert.save_pretrained(tmp_path)
    again = minibert.load(tmp_path)
    assert fingerprint(again) == fingerprint(bert)
    assert facts(again)["weights"] == facts(bert)["weights"]


@pytest.mark.parametrize("change", ["pooling", "prompt", "max_seq_length"])
def test_the_recipe_counts(change: str) -> None:
    bert = made(1)
    values = {"pooling": ("max",), "prompt": "query: ", "max_seq_length": 7}
    other = minibert.Bert(bert.model, bert.tokenizer, replace(bert.recipe, **{change: values[change]}))
    assert [name for name in facts(bert) if facts(bert)[name] != facts(other)[name]] == ["recipe"]


def test_the_vocabulary_counts() -> None:
    bert = made(1)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "shore"]
    other = minibert.Bert(bert.model, minibert.BertTokenizer({word: i for i, word in enumerate(words)}), bert.recipe)
    assert fingerprint(other) != fingerprint(bert)
    assert facts(other)["tokenizer"] != facts(bert)["tokenizer"]


@pytest.mark.parametrize("digest", [fingerprint, facts])
def test_an_edited_bert_is_not_taken_for_the_one_it_was_made_of(digest: Callable[[minibert.Bert], object]) -> None:
    with pytest.raises(minibert.MinibertError) as caught:
        digest(made(1).ablated({0: [0]}))
    assert str(caught.value) == (
        "the Bert (edited at encoder.layers.0.attention.output.input) must have no edits, since files do not hold "
        "them; use the one it was made of"
    )


def test_an_index_of_an_edited_bert_searches_but_has_no_files(tmp_path: Path) -> None:
    bert = made(1)
    index = minibert.Index(bert.ablated({0: [0]}))
    index.add(["one", "two"])
    assert len(index.search("one")) == 2
    with pytest.raises(minibert.MinibertError, match="edited at"):
        index.save(tmp_path / "index")
    whole = minibert.Index(bert)
    whole.add(["one", "two"])
    whole.save(tmp_path / "index")
    with pytest.raises(minibert.MinibertError, match="edited at"):
        minibert.Index.load(tmp_path / "index", bert.ablated({0: [0]}))
