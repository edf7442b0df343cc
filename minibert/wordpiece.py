"""BERT's rules for text in a page of plain Python: what `tokenizer.py` has the `tokenizers` library do, fast.

Nothing calls this file; it is here to be read. The tests compare its tokens with those of the fast tokenizer. They
differ only in characters that Unicode has added or reclassified since the library's tables were made.

Source: Devlin et al. 2018, sec. 3; google-research/bert `tokenization.py`; Wu et al. 2016, sec. 4.1 (WordPiece).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator

LONGEST_WORD = 100  # characters; a longer word is [UNK]
# The blocks of Unicode with Chinese characters, as first and last; Japanese kana and Korean Hangul are not among them.
CHINESE = re.compile(
    r"([\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f"
    r"\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f])"
)


def tokenize(text: str, vocab: Collection[str], lower_case: bool = True, special: Collection[str] = ()) -> list[str]:
    """The tokens of a text, without [CLS] and [SEP]; the `special` tokens stay whole where they are written in it."""
    tokens: list[str] = []
    for part in re.split(f"({'|'.join(map(re.escape, special))})", text) if special else [text]:
        if part in special:
            tokens.append(part)
        else:
            tokens += (piece for word in split(normalize(part, lower_case)) for piece in pieces(word, vocab))
    return tokens


def normalize(text: str, lower_case: bool = True) -> str:
    """Clean the text, set Chinese characters apart and, for an uncased model, remove accents and capitals."""
    text = "".join(" " if c.isspace() else c for c in text if c in "\t\n\r" or not is_control(c))
    text = CHINESE.sub(r" \1 ", text)  # Chinese is written without spaces: each character becomes a word
    if lower_case:
        decomposed = unicodedata.normalize("NFD", text)  # é becomes e and a combining accent
        text = "".join(c.lower() for c in decomposed if unicodedata.category(c) != "Mn")
    return text


def split(text: str) -> Iterator[str]:
    """Words, and each punctuation mark as a word of its own."""
    for word in text.split():
        start = 0
        for i, c in enumerate(word):
            if is_punctuation(c):
                yield from filter(None, (word[start:i], c))
                start = i + 1
        if start < len(word):
            yield word[start:]


def pieces(word: str, vocab: Collection[str], unknown: str = "[UNK]") -> list[str]:
    """The longest piece that the word begins with, then the longest that the rest begins with; all or nothing."""
    found: list[str] = []
    start = 0
    while start < len(word) <= LONGEST_WORD:
        prefix = "##" if start else ""
        for end in range(len(word), start, -1):
            if prefix + word[start:end] in vocab:
                break
        else:
            return [unknown]
        found.append(prefix + word[start:end])
        start = end
    return found or [unknown]


def is_control(c: str) -> bool:
    """Characters that show nothing: control, format and private-use ones, and the replacement character."""
    return unicodedata.category(c) in ("Cc", "Cf", "Co") or c == "\ufffd"


def is_punctuation(c: str) -> bool:
    """What Unicode calls punctuation, and every ASCII symbol: `$` splits a word, `€` does not."""
    return unicodedata.category(c).startswith("P") or c in "$+<=>^`|~"
