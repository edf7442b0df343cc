"""`minibert explain-similarity` and `minibert study`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import minibert
from minibert.cli import main

A, B = "He robbed the bank.", "The robber went to the bank."


def test_pairs_of_words_are_printed_below_the_cosine(
    minilm: Path, bert: minibert.Bert, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain-similarity", A, B, "--model", str(minilm), "--top", "3"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    found = bert.explain_similarity(A, B)
    assert lines[0] == [f"{found.cosine:.4f}", "cosine"]
    assert lines[1:] == [[f"{value:.4f}", a, b] for a, b, value in found.top(3)]


def test_pairs_of_words_are_written_as_json(
    minilm: Path, bert: minibert.Bert, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain-similarity", A, B, "--model", str(minilm), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cosine"] == pytest.approx(bert.explain_similarity(A, B).cosine, abs=1e-6)
    assert len(found["pairs"]) == 10
    assert found["pairs"][0]["a"] == bert.explain_similarity(A, B).top(1)[0][0]


def test_another_kind_of_picture_and_no_pair_are_refused(minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain-similarity", A, B, "--model", str(minilm), "-o", "x.gif"]) == 2
    assert "x.gif" in capsys.readouterr().err
    assert main(["explain-similarity", A, B, "--model", str(minilm), "--top", "0"]) == 2
    assert "--top (0)" in capsys.readouterr().err


def test_a_picture_of_the_pairs_is_drawn(minilm: Path, tmp_path: Path) -> None:
    pytest.importorskip("minibert.pictures.attention")
    assert main(["explain-similarity", A, B, "--model", str(minilm), "-o", str(tmp_path / "pairs.png")]) == 0
    assert (tmp_path / "pairs.png").read_bytes()[:4] == b"\x89PNG"


def test_study_published_prints_the_table_and_the_reasons(minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "published", "--model", str(minilm)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(minilm)
    assert sum("this model has another shape" in line for line in lines) > 20
    assert main(["study", "published", "--model", str(minilm), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["published"] == "319/383"
    assert rows[0]["within"] is None


def test_study_published_fails_where_a_value_is_outside(
    minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ud_pud").mkdir()
    never = "# text = x\n1\tx\tx\tX\tX\t_\t0\troot\t_\t_\n"  # no relation at all, so that no head beats anything
    (tmp_path / "ud_pud" / "en_pud-ud-test.conllu").write_text(never, encoding="utf-8")
    assert main(["study", "published", "--model", str(minilm), "--data", str(tmp_path)]) == 1
    assert " NO " in capsys.readouterr().out
