"""Cards show the names they are given, and do nothing else, to parsers of Markdown and YAML that we did not write."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

import minibert
from minibert.errors import printable
from minibert.pretrained.card import card, in_markdown, in_yaml
from minibert.pretrained.source import Source
from minibert.training.card import card as card_of_training
from minibert.training.data import Data

markdown_it = pytest.importorskip("markdown_it")

HOSTILE = [
    "a\n---\n# title",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "![x](https://example.com/x.png)",
    "<javascript:alert(1)>",
    "a|b",
    "a\\|b",
    "a\\",
    "`code`",
    "``` x",
    "*a* _b_ __c__ ~~d~~ $e$ $$f$$",
    "&lt;b&gt; &#60;",
    "[x]: javascript:alert(1)",
    "# #",
    "@someone :smile: https://example.com www.example.com",
    "\u202egnp.exe",
    "\udc80 no UTF-8",
    "a\r\nb\u2028c\0d\x7f",
]


def reader() -> Any:
    """CommonMark with HTML, and GitHub's tables and strikethrough."""
    return markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


class Tags(HTMLParser):
    """The tags and the attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [tag, *(f"{name}={value}" for name, value in attrs)]


def tags_of(text: str) -> list[str]:
    _, _, body = text.removeprefix("---\n").partition("\n---\n")
    tags = Tags()
    tags.feed(reader().render(body))
    return tags.found


def shown(markdown: str) -> list[str]:
    """The texts of the inline parts of Markdown, none of which is anything else than text."""
    texts = []
    for token in reader().parse(markdown):
        for child in token.children or ():
            assert child.type in ("text", "text_special"), child
        if token.type == "inline":
            texts.append("".join(child.content for child in token.children))
    return texts


def seen(text: str) -> str:
    return printable(text).strip()


@given(st.text() | st.sampled_from(HOSTILE) | st.text("\\|`*_[]()<>!#&;:$~-a1 \n"))
def test_any_text_is_shown_as_it_is_in_a_heading_and_in_a_table(text: str) -> None:
    assert [part.strip() for part in shown(f"# x{in_markdown(text)}x")] == [seen(f"x{text}x")]
    cells = shown(f"| head | head |\n| --- | --- |\n| x{in_markdown(text)}x | y |\n")
    assert [cell.strip() for cell in cells] == ["head", "head", seen(f"x{text}x"), "y"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_from_yaml(text: str) -> None:
    assert yaml.safe_load(f"a: {in_yaml(text)}\nb: {in_yaml([text])}\n") == {"a": text, "b": [text]}


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_others_in_a_card_add_nothing_to_it(name: str) -> None:
    def made(name: str) -> str:
        kind = ("BertForSequenceClassification",)
        config = minibert.BertConfig(architectures=kind, id2label={0: name, 1: "b"})
        return card("me/x", config, base_model="them/base")

    assert tags_of(made(name)) == tags_of(made("plain"))
    assert f"Labels: {in_markdown(name)}, b." in made(name)
    assert ModelCard(made(name)).data.to_dict() == ModelCard(made("plain")).data.to_dict()


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_files_in_the_card_of_a_training_add_nothing_to_it(name: str) -> None:
    def made(name: str) -> str:
        data = [Data("train", name, "0", [])]
        return card_of_training(Source(name, folder=f"/models/{name}"), "classify", data, {name: name}, {name: 0.5})

    assert tags_of(made(name)) == tags_of(made("plain"))
    assert ModelCard(made(name)).data.to_dict() == ModelCard(made("plain")).data.to_dict()
    base = card_of_training(Source(name, "main", "f" * 40), "classify", [], {}, {})
    assert yaml.safe_load(base.split("\n---\n")[0])["base_model"] == name
