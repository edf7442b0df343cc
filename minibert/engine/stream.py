"""A stream of texts: read in chunks, with what was truncated counted and progress shown."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from time import perf_counter
from typing import Any

from typing_extensions import Self

from minibert.engine.rows import Truncation
from minibert.errors import MinibertError

# A chunk is sorted as a whole: large enough for that to pay, small beside what else is in memory (ids: 8 MB).
CHUNK_TEXTS = 16_384
CHUNK_CHARACTERS = 8_000_000


def chunks(texts: Iterable[Any], most: int | None = None) -> Iterator[list[Any]]:
    """Cut a stream of texts into lists."""
    chunk: list[Any] = []
    most = most or CHUNK_TEXTS
    room = CHUNK_CHARACTERS
    for text in texts:
        chunk.append(text)
        room -= len(text) if isinstance(text, str) else 0
        if room <= 0 or len(chunk) == most:
            yield chunk
            chunk, room = [], CHUNK_CHARACTERS
    if chunk:
        yield chunk


class Cut:
    """What is done about texts that are too long.

    Raises:
        MinibertError: an unknown `truncation`.
    """

    def __init__(self, limit: int, truncation: Truncation) -> None:
        if truncation not in ("warn", "error", "window"):
            raise MinibertError(f"truncation ({truncation!r}) must be 'warn', 'error' or 'window'")
        self.limit, self.truncation = limit, truncation
        self.texts = self.tokens = 0

    def note(self, lost: Mapping[int, int], first: int) -> None:
        """Count the tokens that texts of a chunk, which begins with text `first`, have lost.

        Raises:
            MinibertError: there are such texts, and `truncation` is "error".
        """
        if lost and self.truncation == "error":
            index, tokens = next(iter(lost.items()))
            raise MinibertError(
                f"text {first + index} has {self.limit + tokens} tokens, but must have at most {self.limit}; split it, "
                "or pass truncation='window' to compute it in parts, or 'warn' to drop the rest"
            )
        self.texts += len(lost)
        self.tokens += sum(lost.values())

    def warn(self, texts: int) -> None:
        """Say, once a call, what was lost."""
        if self.texts:
            warnings.warn(
                f"{self.texts} of {texts} texts exceed {self.limit} tokens: {self.tokens} tokens were dropped; pass "
                "truncation='window' to use all of a text, or 'error' to refuse it",
                stacklevel=3,
            )


class Progress:
    """A bar that counts texts, and says how many tokens are computed in a second."""

    def __init__(self, texts: int | None, shown: bool) -> None:
        self.bar: Any = None
        self.tokens, self.start = 0, perf_counter()
        if shown:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=texts, desc="encode", unit=" texts")

    def add(self, texts: int, tokens: int) -> None:
        """Count what has been computed."""
        if self.bar is not None:
            self.tokens += tokens
            self.bar.set_postfix_str(f"{self.tokens / (perf_counter() - self.start):,.0f} tokens/s", refresh=False)
            self.bar.update(texts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()
