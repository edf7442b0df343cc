"""The sceptic's command: what it compares, and that it finds a difference where there is one."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from oracle import HEADS, rewrite, theirs_of

import minibert


def with_tokenizer(folder: Path, kind: str, **config: Any) -> Path:
    theirs_of(kind, folder, **config)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(97 + i) for i in range(26)), "##e", "##o", "the"]
    minibert.BertTokenizer({word: i for i, word in enumerate(words)}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", HEADS)
def test_the_fullest_class_of_a_checkpoint_is_compared(tmp_path: Path, kind: str) -> None:
    report = minibert.parity(with_tokenizer(tmp_path, kind))
    assert report.model == kind
    assert report.ok
    assert report.largest == 0
    tensors = [row.tensor for row in report.rows]
    assert tensors[:4] == ["input ids", "embeddings", "layer 0 attention", "layer 0 output"]
    without_pooler = {"BertForMaskedLM", "BertForTokenClassification", "BertForQuestionAnswering"}
    assert ("pooler" in tensors) == (kind not in without_pooler)
    if kind != "BertModel":
        assert "logits" in tensors[-1]


def test_the_real_minilm_has_parity(minilm: Path) -> None:
    report = minibert.parity(minilm, ["He robbed the bank.", "ok"])
    assert report.largest == 0
    assert [row.tensor for row in report.rows][-1] == "pooler"
    assert len(report.rows) == 2 + 2 * 6 + 1
    assert "within 1e-06" in str(report)
    assert repr(report) == str(report)


def test_a_difference_is_found_and_its_place_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tokenizer(tmp_path, "BertForMaskedLM")
    load = transformers.BertForMaskedLM.from_pretrained

    def spoiled(*arguments: Any, **keywords: Any) -> Any:
        model = load(*arguments, **keywords)
        with torch.no_grad():
            model.bert.encoder.layer[1].attention.output.dense.bias[7] += 0.01
        return model

    monkeypatch.setattr(transformers.BertForMaskedLM, "from_pretrained", spoiled)
    report = minibert.parity(tmp_path)
    first = report.first_over
    assert not report.ok
    assert first is not None
    assert first.tensor == "layer 1 attention"
    assert first.difference > 1e-3
    assert first.place is not None
    assert first.place[-1] == 7
    assert "NO parity: layer 1 attention is the first over 1e-06" in str(report)
    assert minibert.parity(tmp_path, tolerance=10.0).ok


def test_numbers_that_are_none_are_no_parity(tmp_path: Path) -> None:
    with_tokenizer(tmp_path, "BertModel")
    rewrite(tmp_path, lambda t: {**t, "encoder.layer.2.output.LayerNorm.bias": torch.full((32,), float("nan"))})
    with pytest.warns(UserWarning, match="must hold finite numbers"):
        report = minibert.parity(tmp_path)
    assert not report.ok
    assert report.first_over is not None
    assert report.first_over.tensor == "layer 2 output"


def test_a_tokenizer_that_gives_other_ids_is_no_parity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tokenizer(tmp_path, "BertModel")
    ours = minibert.BertTokenizer.from_pretrained(tmp_path, do_lower_case=False)
    monkeypatch.setattr(minibert.BertTokenizer, "from_repository", lambda repository: ours)
    first = minibert.parity(tmp_path, ["a B a", "a"]).first_over
    assert first is not None
    assert (first.tensor, first.difference, first.place) == ("input ids", 1.0, (0, 2))


def test_the_settings_of_transformers_are_left_as_they_were(tmp_path: Path) -> None:
    with_tokenizer(tmp_path, "BertModel")
    transformers.utils.logging.set_verbosity_info()
    try:
        minibert.parity(tmp_path)
        assert transformers.utils.logging.get_verbosity() == transformers.logging.INFO
    finally:
        transformers.utils.logging.set_verbosity_error()


def test_without_transformers_the_command_that_installs_it_is_told(
    minilm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *arguments: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match="not installed; pip install transformers"):
        minibert.parity(minilm)


def test_texts_are_one_or_several_but_not_none_of_them(minilm: Path) -> None:
    assert minibert.parity(minilm, "one text").rows[1].shape == (1, 4, 384)
    with pytest.raises(minibert.MinibertError, match=r"tolerance \(nan\) must be a number of at least 0"):
        minibert.parity(minilm, tolerance=float("nan"))
    with pytest.raises(minibert.MinibertError, match=r"texts \(\[\]\) must hold at least one text"):
        minibert.parity(minilm, [])
    with pytest.raises(minibert.MinibertError, match="texts \\(7\\)"):
        minibert.parity(minilm, 7)  # type: ignore[arg-type]


def test_a_report_is_data(minilm: Path) -> None:
    rows = minibert.parity(minilm).rows
    assert json.dumps([row.__dict__ for row in rows])
