"""The table of checkpoints in docs/checkpoints.md: its lines of code do what transformers does with these names."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
from oracle import with_real_vocabulary
from sentence_transformers import CrossEncoder, SentenceTransformer

import minibert

PAGE = (Path(__file__).parent.parent / "docs" / "checkpoints.md").read_text(encoding="utf-8")
LINES = re.findall(r"^\| (\S+/\S+) \| ([^|]+) \| `(.+)` \|$", PAGE, re.MULTILINE)


class Row(NamedTuple):
    """A row of the table: a checkpoint, and the call that its line of code makes."""

    name: str
    loaded: str  # the name in the line of code
    method: str
    arguments: list[Any]
    keywords: dict[str, Any]

    @classmethod
    def of(cls, name: str, code: str) -> Row:
        """Read `minibert.load(name).method(...)`, with literal arguments."""
        call = ast.parse(code, mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Attribute)
        load = call.func.value
        assert isinstance(load, ast.Call)
        assert ast.unparse(load.func) == "minibert.load"
        return cls(
            name,
            ast.literal_eval(load.args[0]),
            call.func.attr,
            [ast.literal_eval(argument) for argument in call.args],
            {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords},
        )


ROWS = [Row.of(name, code) for name, _, code in LINES]


def test_the_table_has_forty_checkpoints_or_more_each_once() -> None:
    assert len(ROWS) >= 40
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert [row.loaded for row in ROWS] == [row.name for row in ROWS]
    assert len(LINES) == len(re.findall(r"^\|.*minibert\.load\(", PAGE, re.MULTILINE))  # none was overlooked


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_line_calls_a_public_method_with_arguments_that_it_takes(row: Row) -> None:
    assert not row.method.startswith("_")
    bound = inspect.signature(getattr(minibert.Bert, row.method)).bind(None, *row.arguments, **row.keywords)
    settings = {"prompt_name", "no_answer", "self", "sentences", "texts", "query", "documents", "question", "context"}
    assert set(bound.arguments) - {"settings"} <= settings


def test_each_family_names_a_page_or_a_method_and_the_readme_leads_to_all_pages() -> None:
    families = re.findall(r"^### .+\n\nSee (.+)\.$", PAGE, re.MULTILINE)
    assert len(families) == len(re.findall(r"^\| :-- \| :-- \| :-- \|$", PAGE, re.MULTILINE)) == len(CHECKS)
    assert all(re.search(r"\]\(\S+\.md\)", family) for family in families)
    docs = Path(__file__).parent.parent / "docs"
    readme = (docs.parent / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in docs.glob("*.md") if f"(docs/{page.name})" not in readme] == []


def check(row: Row, where: str | Path) -> None:
    """Run the line of a row on the checkpoint and compare the result with sentence-transformers' or transformers'."""
    bert = minibert.load(where)
    ours: Any = getattr(bert, row.method)(*row.arguments, **row.keywords)
    CHECKS[row.method](bert, str(where), ours, *row.arguments, **row.keywords)


def check_encode(bert: minibert.Bert, where: str, ours: Any, texts: Any, prompt_name: str | None = None) -> None:
    theirs = SentenceTransformer(where, device="cpu")
    prompt = None if prompt_name is None else bert.recipe.prompt_for(prompt_name, None)
    if prompt_name is not None and theirs.prompts.get(prompt_name):  # it is empty where the files have none
        assert theirs.prompts[prompt_name] == prompt
    expected = theirs.encode(texts, prompt=prompt)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.linalg.norm(expected, axis=-1).max())


def check_rank(bert: minibert.Bert, where: str, ours: Any, query: str, documents: list[str]) -> None:
    expected = CrossEncoder(where, device="cpu").rank(query, documents)
    assert [one.index for one in ours] == [one["corpus_id"] for one in expected]
    np.testing.assert_allclose([one.score for one in ours], [one["score"] for one in expected], atol=1e-5)


def check_classify(bert: minibert.Bert, where: str, ours: Any, text: str) -> None:
    expected = transformers.pipeline("text-classification", where, device="cpu")(text, top_k=None)
    assert [one.label for one in ours] == [one["label"] for one in expected]
    np.testing.assert_allclose([one.score for one in ours], [one["score"] for one in expected], atol=1e-5)


def check_entities(bert: minibert.Bert, where: str, ours: Any, text: str) -> None:
    expected = transformers.pipeline("token-classification", where, device="cpu", aggregation_strategy="simple")(text)
    places = [(one["entity_group"], one["start"], one["end"]) for one in expected]
    assert [(one.label, one.start, one.end) for one in ours] == places
    assert places, "the text has no entity"
    np.testing.assert_allclose([one.score for one in ours], [one["score"] for one in expected], atol=1e-5)


def check_answer(
    bert: minibert.Bert, where: str, ours: Any, question: str, context: str, no_answer: bool = False
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    batch = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        output = transformers.BertForQuestionAnswering.from_pretrained(where).eval()(**batch)
    start, end = output.start_logits[0].double(), output.end_logits[0].double()
    inside = [i for i, side in enumerate(batch.sequence_ids(0)) if side == 1]
    spans = {(offsets[i][0], offsets[j][1]): (start[i] + end[j]).item() for i in inside for j in inside if i <= j}
    if no_answer:
        spans[0, 0] = (start[0] + end[0]).item()
    best = max(spans, key=lambda place: spans[place])
    assert (ours.start, ours.end) == best
    assert ours.text == context[slice(*best)]
    odds = np.exp(np.array(list(spans.values())) - spans[best])
    assert ours.score == pytest.approx(1 / odds.sum(), abs=1e-5)


def check_fill_mask(bert: minibert.Bert, where: str, ours: Any, text: str) -> None:
    expected = transformers.pipeline("fill-mask", where, device="cpu")(text, top_k=5)
    assert [one.id for one in ours[:5]] == [one["token"] for one in expected]
    np.testing.assert_allclose([one.probability for one in ours[:5]], [one["score"] for one in expected], atol=1e-5)


CHECKS = {
    "encode": check_encode,
    "rank": check_rank,
    "classify": check_classify,
    "entities": check_entities,
    "answer": check_answer,
    "fill_mask": check_fill_mask,
}
KINDS = {  # a head of this kind stands for the checkpoints of a method where there is no Hub
    "rank": ("BertForSequenceClassification", {"num_labels": 1}),
    "classify": ("BertForSequenceClassification", {"num_labels": 3}),
    "entities": ("BertForTokenClassification", {"id2label": {0: "B-PER", 1: "I-PER", 2: "B-LOC"}}),
    "answer": ("BertForQuestionAnswering", {}),
    "fill_mask": ("BertForPreTraining", {}),
}


@pytest.mark.parametrize("method", CHECKS)
def test_each_line_gives_on_a_small_checkpoint_what_transformers_gives(
    method: str, tmp_path: Path, minilm: Path
) -> None:
    rows = [row for row in ROWS if row.method == method]
    assert rows
    if method == "encode":
        folder = Path(shutil.copytree(minilm, tmp_path / "encoder"))
        prompts = {"prompts": {"query": "query: ", "passage": "passage: "}}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    else:
        kind, settings = KINDS[method]
        folder = with_real_vocabulary(tmp_path, minilm, kind, **settings)
    for row in rows:
        check(row, folder)


@pytest.mark.network
@pytest.mark.filterwarnings("ignore:::(transformers|huggingface_hub|sentence_transformers)")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_line_gives_what_transformers_gives(row: Row) -> None:
    check(row, row.name)


@pytest.mark.network
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_checkpoint_says_that_it_is_a_bert(row: Row) -> None:
    assert transformers.AutoConfig.from_pretrained(row.name).model_type == "bert"
