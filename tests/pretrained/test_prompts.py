"""The prompts of model families whose files do not name them."""

from __future__ import annotations

import pytest

from minibert.pretrained.prompts import known_prompts


@pytest.mark.parametrize(
    ("name", "query", "passage"),
    [
        ("intfloat/e5-small-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-small", "query: ", "passage: "),
        ("BAAI/bge-small-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("WhereIsAI/UAE-Large-V1", "Represent this sentence for searching relevant passages: ", ""),
        ("BAAI/bge-base-zh", "为这个句子生成表示以用于检索相关文章：", ""),
    ],
)
def test_a_family_has_the_prompts_of_its_model_card(name: str, query: str, passage: str) -> None:
    prompts = known_prompts(name)
    assert prompts == {"query": query, "passage": passage, "document": passage}


@pytest.mark.parametrize("name", ["BAAI/bge-m3", "intfloat/multilingual-e5-large-instruct", "/models/e5-small-v2", ""])
def test_other_models_have_none(name: str) -> None:
    assert known_prompts(name) == {}
