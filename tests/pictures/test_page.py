"""Attention as a page: in a real browser, what it shows is what was computed, and it asks nobody for anything."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import minibert
from minibert.pictures.page import attention_page
from minibert.study.maps import AttentionMaps, Recording
from minibert.study.reading import read

TEXT = "The antediluvian animal didn't cross the street because it was tired."
HOSTILE = "שלום \"quotes\" 'single' </script><img src=x onerror=alert(1)> <!-- <script> {{data}} &amp; 😀 ${1}"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A real browser, without the network."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install playwright)"
    )
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A page that remembers its requests and complaints, in `tab.requests` and `tab.complaints`."""
    tab = chromium.new_page(viewport={"width": 1000, "height": 700})
    tab.requests, tab.complaints = [], []
    tab.on("request", lambda request: tab.requests.append(request.url))
    tab.on("console", lambda message: tab.complaints.append(message.text))
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.on("dialog", lambda dialog: (tab.complaints.append(dialog.message), dialog.dismiss()))
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def maps(bert: minibert.Bert) -> AttentionMaps:
    return bert.attention(TEXT)


def open_page(tab: Any, maps: AttentionMaps, folder: Path) -> None:
    """Write the page and open it; nothing but the file itself may be asked for."""
    path = folder / "page.html"
    maps.to_html(path)
    tab.goto(path.as_uri())
    assert tab.requests == [path.as_uri()]
    assert tab.complaints == []


def numbers_of(tab: Any) -> list[float]:
    """What is written below the words."""
    return [float(number) for number in tab.locator("#words .number").all_text_contents()]


def test_the_first_view_is_the_text_shaded_by_what_the_selected_word_attends_to(
    tab: Any, maps: AttentionMaps, tmp_path: Path
) -> None:
    open_page(tab, maps, tmp_path)
    assert tab.locator("#heads").is_hidden()
    assert tab.locator("#words .word").all_text_contents() == list(maps.words)
    by_word = maps.by_word()
    assert numbers_of(tab) == pytest.approx(by_word[-1].mean(0)[1].tolist(), abs=6e-5)  # the first word, not [CLS]
    for word in ("antediluvian", "it"):
        number = maps.words.index(word)
        tab.locator("#words button").nth(number).click()
        tab.select_option("#layer", "2")
        tab.select_option("#head", "3")
        expected = by_word[2, 3, number].tolist()
        assert numbers_of(tab) == pytest.approx(expected, abs=6e-5)
        colours = tab.locator("#words .word").evaluate_all("all => all.map(one => one.style.backgroundColor)")
        shades = [float(re.findall(r"[\d.]+", colour)[-1]) if "rgba" in colour else 1.0 for colour in colours]
        assert shades == pytest.approx([weight**0.5 for weight in expected], abs=0.01)
        tab.select_option("#layer", "-1")
        tab.select_option("#head", "-1")
        assert numbers_of(tab) == pytest.approx(by_word.mean((0, 1))[number].tolist(), abs=6e-5)
    assert tab.complaints == []


def test_the_strongest_line_is_the_largest_weight(tab: Any, maps: AttentionMaps, tmp_path: Path) -> None:
    open_page(tab, maps, tmp_path)
    tab.get_by_role("button", name="Heads").click()
    tab.select_option("#layer", "3")
    token = maps.tokens.index("it")
    tab.locator("#from button").nth(token).click()
    strongest = """lines => {
        const line = lines.reduce((a, b) => +a.getAttribute("stroke-width") >= +b.getAttribute("stroke-width") ? a : b);
        return [line.textContent, line.getAttribute("stroke")];
    }"""
    lines = tab.locator("#lines line")
    assert lines.count() == int((maps[3, :, token] >= 0.01).sum())
    title, colour = lines.evaluate_all(strongest)
    head, to = divmod(int(maps[3, :, token].argmax()), len(maps.tokens))
    assert title == f"head {head}: it → {maps.tokens[to]}: {maps[3, head, token, to]:.4f}"
    legend = tab.locator("#toggles button").nth(head).evaluate("element => element.style.borderBottomColor")
    assert legend == "rgb({}, {}, {})".format(*bytes.fromhex(colour[1:]))

    tab.get_by_role("button", name="All tokens").click()
    best = maps.top(1, layer=3)[0]
    expected = f"head {best.head}: {best.from_token} → {best.to_token}: {best.weight:.4f}"
    assert lines.evaluate_all(strongest)[0] == expected
    assert lines.count() == min(600, int((maps[3] >= 0.01).sum()))
    tab.get_by_role("button", name=f"head {best.head}", exact=True).click()
    assert not [title for title in lines.all_text_contents() if title.startswith(f"head {best.head}:")]
    assert tab.complaints == []


def test_every_weight_of_the_selected_token_is_in_the_table(tab: Any, maps: AttentionMaps, tmp_path: Path) -> None:
    open_page(tab, maps, tmp_path)
    tab.get_by_role("button", name="Heads").click()
    for layer, token in ((0, 0), (4, len(maps.tokens) - 1)):
        tab.select_option("#layer", str(layer))
        tab.locator("#from button").nth(token).click()
        written = [float(number) for number in tab.locator("#numbers td").all_text_contents()]
        assert written == pytest.approx(maps[layer, :, token].T.flatten().tolist(), abs=6e-5)
        assert tab.locator("#numbers tbody th").all_text_contents() == list(maps.tokens)


def test_a_text_injects_nothing(tab: Any, bert: minibert.Bert, tmp_path: Path) -> None:
    maps = bert.attention(HOSTILE, HOSTILE)
    open_page(tab, maps, tmp_path)
    assert tab.locator("#words .word").all_text_contents() == list(maps.words)
    assert tab.locator("img").count() == 0
    assert tab.locator("script").count() == 2
    assert tab.locator("#words").get_attribute("dir") == "rtl"
    assert tab.title().startswith('Attention: שלום " quotes " \'')
    tab.get_by_role("button", name="Heads").click()
    assert tab.locator("#to li").all_text_contents() == list(maps.tokens)
    assert tab.complaints == []


def test_a_word_of_any_vocabulary_injects_nothing(tab: Any, maps: AttentionMaps, tmp_path: Path) -> None:
    # BERT's rules split words at "<", but another tokenizer may leave them whole
    hostile = tuple(f"</title>{HOSTILE}<!--<script>{word}" for word in maps.words)
    recording = Recording()
    recording.kept += maps.attentions
    reading = replace(maps.reading, words=hostile, tokens=tuple(hostile[word] for word in maps.reading.word_of))
    changed = AttentionMaps(reading, recording, [])
    open_page(tab, changed, tmp_path)
    assert tab.locator("#words .word").all_text_contents() == list(hostile)
    assert tab.title() == f"Attention: {' '.join(hostile[1:-1])[:80]}"
    tab.get_by_role("button", name="Heads").click()
    assert tab.locator("#to li").all_text_contents() == list(changed.tokens)
    assert tab.locator("img").count() == 0
    assert tab.complaints == []


def test_the_policy_forbids_every_request_and_every_other_script(tab: Any, maps: AttentionMaps, tmp_path: Path) -> None:
    open_page(tab, maps, tmp_path)
    policy = tab.locator("meta[http-equiv]").get_attribute("content")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    tab.evaluate("document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:9/'}))")
    tab.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    tab.wait_for_timeout(100)
    assert tab.evaluate("window.ran") is None
    assert len(tab.complaints) == 2
    assert all("Content Security Policy" in complaint for complaint in tab.complaints)


def test_two_pages_in_one_notebook_do_not_collide(tab: Any, bert: minibert.Bert, maps: AttentionMaps) -> None:
    other = bert.attention(HOSTILE)
    tab.set_content(f"<!DOCTYPE html><h1>notebook</h1>{maps._repr_html_()}{other._repr_html_()}")
    frames = tab.frames[1:]
    for frame, shown in zip(frames, (maps, other), strict=True):
        frame.wait_for_selector("#words .word")
        assert frame.locator("#words .word").all_text_contents() == list(shown.words)
    frames[1].get_by_role("button", name="Heads").click()
    assert frames[0].locator("#heads").is_hidden()
    assert frames[1].locator("#heads").is_visible()
    assert tab.requests == []
    assert tab.complaints == []


def test_the_keyboard_is_enough(tab: Any, maps: AttentionMaps, tmp_path: Path) -> None:
    open_page(tab, maps, tmp_path)
    assert tab.locator("html").get_attribute("lang") == "en"
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert tab.locator("#heads").is_visible()
    assert tab.get_by_role("button", name="Heads").get_attribute("aria-pressed") == "true"
    assert tab.get_by_label("Layer").input_value() == "5"
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Space")
    assert tab.locator("#heads").is_hidden()


def large(bert: minibert.Bert, layers: int, heads: int, tokens: int) -> AttentionMaps:
    """Maps of a larger model, of random numbers."""
    recording = Recording()
    recording.kept += torch.randn(layers, 1, heads, tokens, tokens).softmax(-1)
    text = "tired " * (tokens - 2)
    return AttentionMaps(read(bert.tokenizer, text, None, tokens, torch.device("cpu")), recording, [])


def test_twelve_layers_and_heads_of_128_tokens_fit_in_6_5_megabytes(
    tab: Any, bert: minibert.Bert, tmp_path: Path
) -> None:
    maps = large(bert, 12, 12, 128)
    assert len(attention_page(maps).encode()) < 6_500_000
    open_page(tab, maps, tmp_path)
    assert numbers_of(tab) == pytest.approx(maps[11].mean(0)[1].tolist(), abs=6e-5)


def test_a_notebook_shows_no_page_that_is_larger_than_that(bert: minibert.Bert) -> None:
    assert large(bert, 12, 12, 128)._repr_html_() is not None
    maps = large(bert, 12, 12, 129)
    assert maps._repr_html_() is None
    assert "to_html" in repr(maps)
