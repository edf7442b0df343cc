"""Prompts that model families were trained with and that their files do not name."""

from __future__ import annotations

import re

BGE_ENGLISH = "Represent this sentence for searching relevant passages: "
BGE_CHINESE = "为这个句子生成表示以用于检索相关文章："
E5 = {"query": "query: ", "passage": "passage: ", "document": "passage: "}

# The name of a repository, as a pattern, and its prompts by name. Source: the model cards.
PROMPTS = {
    r"intfloat/(multilingual-)?e5-(small|base|large)(-v2|-unsupervised)?": E5,
    r"BAAI/bge-(small|base|large)-en(-v1\.5)?|WhereIsAI/UAE-Large-V1": {
        "query": BGE_ENGLISH,
        "passage": "",
        "document": "",
    },
    r"BAAI/bge-(small|base|large)-zh(-v1\.5)?": {"query": BGE_CHINESE, "passage": "", "document": ""},
}


def known_prompts(name: str) -> dict[str, str]:
    """The prompts of a repository by name; none of one that is not in the table."""
    return next((dict(prompts) for family, prompts in PROMPTS.items() if re.fullmatch(family, name)), {})
