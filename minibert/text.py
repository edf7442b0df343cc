"""Checks of arguments: one text, several or a stream of texts; counts."""

from __future__ import annotations

import numbers
import operator
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import zip_longest
from typing import Any

from minibert.errors import MinibertError

JOINERS = "\u200c\u200d"  # ZERO WIDTH NON-JOINER and JOINER


def as_stream(texts: object, words: bool = False, name: str = "texts") -> tuple[Iterable[Any], int | None]:
    """One text or several as an iterable, and their number if it is known.

    The texts of a list are checked immediately, those of a stream as they are read.

    Args:
        texts: one text, or an ordered iterable of texts.
        words: whether items may be lists of words; the caller checks them.
        name: the argument's name, for messages.

    Raises:
        MinibertError: it is neither.
    """
    texts = unwrapped(texts)
    given = [texts] if isinstance(texts, str) else texts
    kind = type(texts).__name__
    if is_table(given):
        raise MinibertError(
            f"{name} ({kind}) must be a str or a list of str, not a table; pass a column, table['column']"
        )
    if isinstance(given, (bytes, set, frozenset)) or not isinstance(given, Iterable):
        raise MinibertError(f"{name} ({texts!r:.40}) must be a str or a list of str, not {kind}")
    total = len(given) if isinstance(given, Sized) else None
    if words:
        return given, total
    if isinstance(given, (list, tuple)):
        check_text(given)  # fail before hours of work, not after
        return given, total
    return _checked(given), total


def zip_texts(names: tuple[str, str], firsts: Iterable[str], seconds: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The first of both, the second of both, and so on; `names` are those of the arguments, for messages.

    Raises:
        MinibertError: when the shorter one ends.
    """
    for number, both in enumerate(zip_longest(firsts, seconds)):
        if None in both:
            name = names[both.index(None)]
            raise MinibertError(f"{name} ({counted(number, 'text')}) must be as many as the others; pass one for each")
        yield both


def as_list(texts: object) -> list[str]:
    """One text or several, as a list.

    Raises:
        MinibertError: it is neither.
    """
    return list(as_stream(texts)[0])


def _checked(texts: Iterable[Any]) -> Iterator[str]:
    for number, text in enumerate(texts):
        check_text([text], first=number)
        yield text


def several(name: str, values: Any) -> list[Any]:
    """Several values as a list. A string is not split into characters, nor a dict into keys.

    Raises:
        MinibertError: it is a single value, a table, or unordered.
    """
    values = unwrapped(values)
    if isinstance(values, (str, bytes, dict, set, frozenset)) or not isinstance(values, Iterable):
        raise MinibertError(
            f"{name} ({values!r:.40}) must be a list of values, not {type(values).__name__}; pass a list"
        )
    if is_table(values):
        kind = type(values).__name__
        raise MinibertError(f"{name} ({kind}) must be a list of values, not a table; pass a column, table['column']")
    return list(values)


def whole_number(name: str, value: Any) -> int:
    """A count of at least 1, of any integer type.

    Raises:
        MinibertError: it is something else.
    """
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise MinibertError(f"{name} ({short(value)}) must be a whole number of at least 1")
    return number


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """The value, if it is one of the choices.

    Raises:
        MinibertError: it is not.
    """
    if value not in choices:
        *most, last = map(repr, choices)
        raise MinibertError(f"{name} ({short(value)}) must be {', '.join(most)} or {last}")
    return value


def check_text(texts: Sequence[Any], is_split_into_words: bool = False, first: int = 0) -> None:
    """Reject anything that is not text. Errors give the position, counted from `first`.

    Raises:
        MinibertError: a value is not a string (or a list of strings), or contains a lone surrogate.
    """
    for index, text in enumerate(texts, first):
        if is_split_into_words and not isinstance(text, (list, tuple)):
            raise MinibertError(f"text {index} ({short(text)}) must be a list of words with is_split_into_words=True")
        for value in text if is_split_into_words else (text,):
            if not isinstance(value, str):
                raise MinibertError(
                    f"text {index} ({short(value)}) must be str, not {type(value).__name__}; {remedy_for(value)}"
                )
            if not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError as error:
                    raise MinibertError(
                        f"text {index} holds a lone surrogate ({value[error.start]!r} at {error.start}), but must be "
                        "valid Unicode; pass text.encode('utf-8', 'replace').decode(), or read the file with its real "
                        "encoding"
                    ) from None


def unwrapped(value: Any) -> Any:
    """The only value of an array without dimensions, `np.array("a")` for one, over which nobody can iterate."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def is_table(values: object) -> bool:
    """Whether it has named columns, like tables of pandas, Polars and Arrow; iterating over it may give the names."""
    return isinstance(values, Mapping) or hasattr(type(values), "columns")


def short(value: object) -> str:
    """The repr of a value, shortened for error messages."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, or an integer of thousands of digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 40 else text[:37] + "..."


def is_missing(value: object) -> bool:
    """Whether a value stands for one that is missing: None, NaN, or pandas' NA and NaT."""
    kind = type(value).__name__
    return value is None or kind in ("NAType", "NaTType") or (isinstance(value, numbers.Number) and value != value)


def remedy_for(value: object) -> str:
    """The remedy for a value that is not text, for error messages."""
    if value is None:
        return "leave missing texts out, or pass ''"
    if is_missing(value):  # str() would make it the text "nan"
        return "drop missing texts, with dropna() in pandas, or pass ''"
    if isinstance(value, bytes):
        return "decode it: text.decode('utf-8')"
    if isinstance(value, (list, tuple)):
        return (
            "pass one str for each text (a tokenizer takes pairs as text and text_pair, words as is_split_into_words)"
        )
    if isinstance(value, Mapping):
        return "pass the text in it: row['text']"
    if isinstance(value, Iterable):
        return "pass list(texts)"
    return "convert it with str()"


def counted(number: int, noun: str) -> str:
    """A number and what it counts: "1 token", "2 tokens"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def without_spaces(text: str, start: int, end: int) -> tuple[int, int]:
    """Where the part from `start` to `end` is without white space around it; `start` is not before `end` if all is."""
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), start + len(part.rstrip())


def end_with_marks(text: str, end: int, limit: int) -> int:
    """Where a part of a text that ends at `end` ends with the marks and joiners that follow it, `limit` at most.

    Tokenizers drop accents, vowel points and joiners, and the place of a token does not cover what was dropped after
    it. A variation selector is a mark, too.
    """
    while end < limit and (text[end] in JOINERS or unicodedata.category(text[end])[0] == "M"):
        end += 1
    return end
