"""Where a checkpoint came from, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Where a checkpoint came from. `str` gives a short form for people.

    Attributes:
        name: a repository of the Hub, a folder, or what the maker of the model calls it.
        revision: the branch, tag or commit that was asked for; None for a folder.
        commit: 40 hex digits; None for a folder.
        folder: the absolute path, for a folder.
    """

    name: str
    revision: str | None = None
    commit: str | None = None
    folder: str | None = None

    def __str__(self) -> str:
        return f"{self.name} at {(self.commit or self.revision or '')[:12]}" if self.revision else self.name
