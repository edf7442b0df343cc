"""Results of tasks become tables that pandas groups and sorts as the results themselves are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from oracle import with_real_vocabulary

import minibert
from minibert import MinibertError, to_pandas

pytest.importorskip("pandas", reason="pandas is not installed")
TEXTS = ["She works for Apple in Paris.", "", "Angela Merkel met François Hollande."]


def load(folder: Path, minilm: Path, head: str, **config: Any) -> minibert.Bert:
    return minibert.load(with_real_vocabulary(folder, minilm, head, **config))


def test_labels_have_a_row_each(tmp_path: Path, minilm: Path) -> None:
    bert = load(tmp_path, minilm, "BertForSequenceClassification", num_labels=3)
    results = bert.classify(TEXTS)
    table = to_pandas(results)
    assert list(table.columns) == ["number", "label", "score"]
    assert table.number.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert list(table[["label", "score"]].itertuples(index=False, name=None)) == [tuple(x) for y in results for x in y]
    assert to_pandas(results[1]).equals(to_pandas([results[1]]))  # of one text
    assert to_pandas(results[1]).number.tolist() == [0, 0, 0]
    assert to_pandas(iter(results)).equals(table)
    assert table.groupby("number").score.sum().tolist() == pytest.approx([1.0] * 3)


def test_entities_have_the_number_of_their_text(tmp_path: Path, minilm: Path) -> None:
    bert = load(tmp_path, minilm, "BertForTokenClassification", id2label=dict(enumerate(["B-PER", "I-PER", "I-LOC"])))
    results = bert.entities(TEXTS)
    table = to_pandas(results)
    assert list(table.columns) == ["number", "label", "score", "text", "start", "end"]
    assert set(table.number) == {number for number, found in enumerate(results) if found} == {0, 2}
    assert [TEXTS[row.number][row.start : row.end] for row in table.itertuples()] == table.text.tolist()
    assert to_pandas(results[2]).number.tolist() == [0] * len(results[2])
    assert to_pandas([[], []]).shape == (0, 1)
    assert to_pandas([]).columns.tolist() == ["number"]


def test_documents_keep_their_order(tmp_path: Path, minilm: Path) -> None:
    results = load(tmp_path, minilm, "BertForSequenceClassification", num_labels=1).rank("Who met whom?", TEXTS)
    table = to_pandas(results)
    assert list(table.columns) == ["number", "index", "score", "text"]
    assert table.number.tolist() == [0, 0, 0]  # one query
    assert [TEXTS[index] for index in table["index"]] == table.text.tolist()
    assert table.score.is_monotonic_decreasing


def test_answers_have_the_number_of_their_question(tmp_path: Path, minilm: Path) -> None:
    bert = load(tmp_path, minilm, "BertForQuestionAnswering")
    questions, contexts = ["Who met whom?", "Where?"], [TEXTS[2], TEXTS[0]]
    best, three = bert.answer(questions, contexts), bert.answer(questions, contexts, top_k=3)
    assert to_pandas(best).number.tolist() == [0, 1]
    assert to_pandas(best).text.tolist() == [answer.text for answer in best]
    assert to_pandas(three).number.tolist() == [0, 0, 0, 1, 1, 1]
    assert to_pandas(best[0]).shape == (1, 5)
    assert to_pandas([three[0]]).number.tolist() == [0, 0, 0]


def test_candidates_have_the_numbers_of_their_text_and_mask(tmp_path: Path, minilm: Path) -> None:
    bert = load(tmp_path, minilm, "BertForMaskedLM")
    results = bert.fill_mask(["One [MASK].", "[MASK] and [MASK]."], top_k=2)
    table = to_pandas(results)
    assert list(table.columns)[:2] == ["number", "mask"]
    assert list(zip(table.number, table["mask"], strict=True)) == [(0, 0)] * 2 + [(1, 0)] * 2 + [(1, 1)] * 2
    assert table.token.tolist() == [one.token for one in [*results[0], *results[1][0], *results[1][1]]]
    assert to_pandas(results[0]).number.tolist() == [0, 0]
    assert to_pandas([results[1]])["mask"].tolist() == [0, 0, 1, 1]


def test_other_things_are_refused() -> None:
    with pytest.raises(
        MinibertError, match=r"^results \(0.5\) must be made of Answer, Candidate, Entity, Label, Ranked;"
    ):
        to_pandas([[0.5]])


@pytest.mark.slow
def test_a_missing_pandas_is_one_sentence() -> None:
    code = "import sys; sys.modules['pandas'] = None; import minibert; minibert.to_pandas([])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert (
        done.stderr.splitlines()[-1]
        == "ImportError: to_pandas needs pandas, which is not installed; pip install pandas"
    )
