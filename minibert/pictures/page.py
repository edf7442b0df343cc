"""Attention as a page for the browser: one file, which makes no request."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from minibert.study.maps import AttentionMaps

STEPS = 65535  # weights are written as whole numbers, of two bytes each
FRAME_HEIGHT = 620


def attention_page(maps: AttentionMaps) -> str:
    """The page. It needs no other file, and its Content-Security-Policy allows no request.

    It has two views: the text, shaded by what the selected word attends to; and lines between tokens, a colour for
    each head. Both give the weights as numbers too.

    A text is data in it and nowhere markup, except in the title, where it is escaped.
    """
    layers, heads, length, _ = maps.weights.shape
    numbers = np.rint(maps.weights.numpy() * np.float32(STEPS)).astype("<u2")
    spans = maps.reading.spans
    first = next((number for number, span in enumerate(spans) if span is not None), 0)
    data = {
        "tokens": maps.tokens,
        "words": maps.words,
        "wordOf": maps.reading.word_of,
        "first": first,
        "rightToLeft": is_right_to_left(maps.words[first]),
        "shape": (layers, heads, length),
        "weights": base64.b64encode(numbers.tobytes()).decode(),
    }
    style, script = resource("attention.css"), resource("attention.js")
    text = " ".join(word for word, span in zip(maps.words, spans, strict=True) if span is not None)
    parts = {
        "title": html.escape(f"Attention: {text[:80]}" if text else "Attention"),
        "style": style,
        "style_hash": hash_of(style),
        "script": script,
        "script_hash": hash_of(script),
        # no "<": nothing in it can end the element that it is in
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "note": f"{layers} layers, {heads} heads, {length} tokens. "
        "The weights in this page are rounded by at most 0.000008, and written with four decimals.",
    }
    # in one pass, so that no mark is replaced in a part
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], resource("attention.html"))


def framed(page: str, title: str) -> str:
    """A page inside another one, a notebook for instance: a frame, in which it meets nothing of the other's."""
    return (
        f'<iframe title="{html.escape(title)}" sandbox="allow-scripts" srcdoc="{html.escape(page)}" '
        f'style="width: 100%; height: {FRAME_HEIGHT}px; border: 0"></iframe>'
    )


def is_right_to_left(word: str) -> bool:
    """Whether the first letter of a word belongs to a script that is written from right to left."""
    directions = (unicodedata.bidirectional(character) for character in word)
    return next((direction != "L" for direction in directions if direction in ("L", "R", "AL")), False)


def resource(name: str) -> str:
    """A file of this folder."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def hash_of(source: str) -> str:
    """The name by which a Content-Security-Policy allows a script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
