"""transformers' data collators take our tokenizer, and make the batches that they make with theirs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from minibert import BertConfig, BertForSequenceClassification, BertTokenizer
from minibert.errors import MinibertError

TEXTS = ["Anna saw the river.", "No.", "The old bank stood by the river, and nobody remembered it."]


@pytest.fixture(scope="module")
def both(minilm: Path) -> tuple[BertTokenizer, Any]:
    return BertTokenizer.from_pretrained(minilm), transformers.AutoTokenizer.from_pretrained(minilm)


def assert_same(ours: Any, theirs: Any) -> None:
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert np.array_equal(np.asarray(ours[name]), np.asarray(value)), name


SETTINGS: list[dict[str, Any]] = [
    {},
    {"padding": "max_length", "max_length": 30},
    {"pad_to_multiple_of": 8},
    {"padding_side": "left"},
]
CASES = [(settings, kind) for settings in SETTINGS for kind in (None, "pt", "np")]


@pytest.mark.parametrize(("settings", "kind"), [*CASES, ({"padding": False}, None)], ids=str)
def test_padding_is_that_of_transformers(both: tuple[Any, Any], settings: dict[str, Any], kind: Any) -> None:
    rows = [dict(both[0](text, return_special_tokens_mask=True)) for text in TEXTS]
    for given in (rows, {name: [row[name] for row in rows] for name in rows[0]}, both[0](TEXTS)):
        ours, theirs = (tokenizer.pad(given, return_tensors=kind, **settings) for tokenizer in both)
        if kind:
            assert_same(ours, theirs)
        else:
            assert dict(ours) == dict(theirs)


@pytest.mark.parametrize("settings", [*SETTINGS, {"padding": False}, {"return_tensors": "pt"}], ids=str)
def test_one_text_is_padded_as_one(both: tuple[Any, Any], settings: dict[str, Any]) -> None:
    for given in (both[0](TEXTS[0]), dict(both[1](TEXTS[0])), {"input_ids": [101, 102]}):
        assert_same(*(tokenizer.pad(dict(given), **settings) for tokenizer in both))


@pytest.mark.parametrize("convert", [torch.tensor, np.array])
def test_tensors_and_arrays_stay_what_they_are(both: tuple[Any, Any], convert: Any) -> None:
    rows = [{name: convert(values) for name, values in both[0](text).items()} for text in TEXTS]
    ours, theirs = (tokenizer.pad([dict(row) for row in rows]) for tokenizer in both)
    assert_same(ours, theirs)
    assert isinstance(ours["input_ids"], type(rows[0]["input_ids"]))


def test_collators_make_the_same_batches(both: tuple[Any, Any]) -> None:
    rows = [{**both[0](text), "label": number} for number, text in enumerate(TEXTS)]
    found = [transformers.DataCollatorWithPadding(tokenizer)([dict(row) for row in rows]) for tokenizer in both]
    assert_same(*found)
    tagged = [{**both[0](text), "labels": [1] * len(both[0](text).input_ids)} for text in TEXTS]
    found = [
        transformers.DataCollatorForTokenClassification(tokenizer)([dict(row) for row in tagged]) for tokenizer in both
    ]
    assert_same(*found)
    found = []
    for tokenizer in both:
        torch.manual_seed(0)
        collator = transformers.DataCollatorForLanguageModeling(tokenizer)
        found.append(collator([dict(both[0](text)) for text in TEXTS]))
    assert_same(*found)
    assert (found[0]["labels"] >= 0).any()


def test_a_batch_is_made_again_of_its_columns_as_the_trainer_does(both: tuple[Any, Any]) -> None:
    batch = transformers.DataCollatorWithPadding(both[0])([both[0](text) for text in TEXTS])
    again = type(batch)({name: tensor + 0 for name, tensor in batch.items()})
    assert_same(again, batch)
    assert again.input_ids is again["input_ids"]
    assert_same(pickle.loads(pickle.dumps(batch)), batch)  # as workers of a DataLoader send it


@pytest.mark.slow
def test_the_trainer_groups_texts_by_length(both: tuple[Any, Any], tmp_path: Path) -> None:
    tokenizer = both[0]
    model = BertForSequenceClassification(BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2))
    settings = transformers.TrainingArguments(
        str(tmp_path),
        max_steps=1,
        train_sampling_strategy="group_by_length",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = transformers.Trainer(
        model,
        settings,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        train_dataset=[{**tokenizer(text), "labels": number % 2} for number, text in enumerate(TEXTS)],
    )
    assert trainer.train().global_step == 1


def test_what_cannot_be_padded_is_one_sentence(both: tuple[Any, Any]) -> None:
    tokenizer = both[0]
    for wrong, message in (
        ([], r"must be a list of dicts"),
        ({"a": [[1]]}, r"\(keys: a\) must have input_ids"),
        ([{"input_ids": [1]}, {"input_ids": [1], "labels": 3}], "must have the same keys"),
        ({"input_ids": [[1, 2], 3]}, "a list for each"),
    ):
        with pytest.raises(MinibertError, match=message):
            tokenizer.pad(wrong)
    with pytest.raises(MinibertError, match="the rows of labels must have the same length"):
        tokenizer.pad([{"input_ids": [1], "labels": [1]}, {"input_ids": [1], "labels": [1, 2]}], return_tensors="pt")
    with pytest.raises(MinibertError, match="already_has_special_tokens"):
        tokenizer.get_special_tokens_mask([101])
