"""The model card of a fine-tuned model: data, settings, metrics, versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from minibert.pretrained.card import in_markdown, in_yaml
from minibert.pretrained.source import Source
from minibert.training.data import Data

# What the Hub calls the tasks. Source: huggingface.js `packages/tasks/src/pipelines.ts`.
PIPELINES = {
    "classify": "text-classification",
    "tokens": "token-classification",
    "similarity": "sentence-similarity",
    "pairs": "sentence-similarity",
    "rank": "text-ranking",
    "qa": "question-answering",
}


def card(
    source: Source, task: str, data: Sequence[Data], settings: Mapping[str, Any], metrics: Mapping[str, float]
) -> str:
    """The text of a `README.md` as the Hub reads it.

    Args:
        source: of the model that was fine-tuned.
        task: what for.
        data: the rows of each use.
        settings: of the run.
        metrics: on the rows of `dev`; empty if there are none.
    """
    packages = ", ".join(f"{name} {_version(name)}" for name in ("readable-bert", "torch", "tokenizers", "numpy"))
    parts = [
        "---",
        *([f"base_model: {in_yaml(source.name)}"] if source.revision else []),  # must be on the Hub
        f"pipeline_tag: {PIPELINES[task]}",
        "tags: [bert, minibert]",
        "---",
        f"# {in_markdown(source if source.revision else Path(source.name).name)}, fine-tuned: {task}",
        "",
        *_table(("data", "file or rows", "rows", "sha256"), [(d.name, d.title, len(d.rows), d.digest) for d in data]),
        *(_table(("metric", "dev"), [(name, f"{value:.4f}") for name, value in metrics.items()]) if metrics else ()),
        *_table(("setting", "value"), list(settings.items())),
        f"{packages}, Python {platform.python_version()}",
        "",
    ]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A table in Markdown, and an empty line."""
    lines = [head, ["---"] * len(head), *rows]
    return [*("| " + " | ".join(map(in_markdown, line)) + " |" for line in lines), ""]


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:  # PackageNotFoundError is one: run from the source tree, not installed
        return "(source tree)"
