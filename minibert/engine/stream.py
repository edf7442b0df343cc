"""A stream of texts is read in chunks; truncated texts are counted, and progress is shown."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from time import perf_counter
from typing import Any

from typing_extensions import Self

from minibert.engine.rows import Truncation
from minibert.errors import MinibertError, warn
from minibert.text import check_choice

logger = logging.getLogger("minibert")

# A chunk is sorted by length: large enough for that to pay, small in memory (8 MB of ids).
CHUNK_TEXTS = 16_384
CHUNK_CHARACTERS = 8_000_000


def chunks(texts: Iterable[Any], most: int | None = None) -> Iterator[list[Any]]:
    """Split a stream of texts into lists."""
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


class Truncated:
    """Counts the texts that exceed the limit, and the tokens that they lose.

    Args:
        limit: the most tokens of a text, with special tokens.
        truncation: as for `Bert.encode`; with "error", a text that lost tokens is rejected.
        remedy: what the warning advises.

    Raises:
        MinibertError: an unknown `truncation`.
    """

    def __init__(
        self,
        limit: int,
        truncation: Truncation,
        remedy: str = "pass truncation='window' to use all of a text, or 'error' to refuse it",
    ) -> None:
        self.limit = limit
        self.truncation = check_choice("truncation", truncation, ("warn", "error", "window"))
        self.remedy = remedy
        self.texts = self.tokens = 0

    def note(self, lost: Mapping[int, int], first: int) -> None:
        """Add the tokens lost by the texts of a chunk; `first` is the number of the chunk's first text.

        Raises:
            MinibertError: a text lost tokens, and `truncation` is "error".
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
        """Warn once per call if any of `texts` texts was truncated."""
        if self.texts:
            warn(
                f"{self.texts} of {texts} texts exceed {self.limit} tokens: {self.tokens} tokens were dropped; "
                f"{self.remedy}"
            )


class Progress:
    """A progress bar of texts, with tokens per second.

    Args:
        texts: how many there are, if known.
        shown: None shows the bar if the logger "minibert" is at INFO or DEBUG.
        what: the name of the method that computes, which the bar shows.
    """

    def __init__(self, texts: int | None, shown: bool | None, what: str) -> None:
        self.bar: Any = None
        self.tokens, self.start = 0, perf_counter()
        if logger.isEnabledFor(logging.INFO) if shown is None else shown:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=texts, desc=what, unit=" texts")

    def add(self, texts: int, tokens: int) -> None:
        """Count texts and tokens that were computed."""
        if self.bar is not None:
            self.tokens += tokens
            self.bar.set_postfix_str(f"{self.tokens / (perf_counter() - self.start):,.0f} tokens/s", refresh=False)
            self.bar.update(texts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()
