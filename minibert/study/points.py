"""Points: the tensors inside the model that can be read and edited, by name.

A point is the output of a module and has the module's name, as in `model.named_modules()`, without the `bert.` in front
that models with a head have. Five more for each layer are not the output of a module: the scores, probabilities and
mixed values of attention, and two inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

from minibert.base import PretrainedModel
from minibert.config import BertConfig
from minibert.errors import MinibertError

# What follows the name of a module in a point that is not its output.
INPUT = "input"
SCORES, PROBABILITIES, MIXED = INSIDE_ATTENTION = ("scores", "probabilities", "mixed")

# In the order in which they are computed: name, shape, what it is.
EMBEDDINGS = (
    ("token", "(B, S, H)", "what the token is"),
    ("token_type", "(B, S, H)", "which text of a pair it belongs to"),
    ("position", "(S, H)", "where it stands"),
    ("norm", "(B, S, H)", "their sum, normalised"),
    ("", "(B, S, H)", "the same: what the first layer is given"),
)
LAYER = (
    ("attention.query", "(B, S, H)", "queries, heads side by side"),
    ("attention.key", "(B, S, H)", "keys"),
    ("attention.value", "(B, S, H)", "values"),
    ("attention.scores", "(B, A, S, S)", "how well each key fits each query; padding masked"),
    ("attention.probabilities", "(B, A, S, S)", "their softmax; each row sums to 1"),
    ("attention.mixed", "(B, A, S, D)", "the values that each head mixed"),
    ("attention.output.input", "(B, S, H)", "the same, heads side by side"),
    ("attention.output", "(B, S, H)", "what attention adds"),
    ("attention", "(B, S, H)", "the same"),
    ("attention_norm", "(B, S, H)", "the hidden states in the middle of the layer"),
    ("feed_forward.up", "(B, S, I)", "neurons before their activation"),
    ("feed_forward.down.input", "(B, S, I)", "neurons after it"),
    ("feed_forward.down", "(B, S, H)", "what the neurons add"),
    ("feed_forward", "(B, S, H)", "the same"),
    ("feed_forward_norm", "(B, S, H)", "the hidden states after the layer"),
    ("", "(B, S, H)", "the same: what the next layer is given"),
)
HEADS = (
    ("pooler.dense", "(B, H)", "the first token's vector, transformed"),
    ("pooler", "(B, H)", "its tanh"),
    ("mlm_head.dense", "(B, S, H)", "the last hidden states, transformed"),
    ("mlm_head.norm", "(B, S, H)", "activated and normalised"),
    ("mlm_head", "(B, S, V)", "logits of the masked-LM head"),
    ("nsp_head", "(B, 2)", "logits of next-sentence prediction"),
    ("classifier", "(B, labels)", "logits of the classes; (B, S, labels) of a tagger"),
    ("span_head", "(B, S, 2)", "logits of where an answer starts and ends"),
)


class Point(NamedTuple):
    """A tensor that can be read and edited.

    Attributes:
        name: what to call it.
        shape: in the letters of the legend in `config.py`.
        meaning: what it is.
    """

    name: str
    shape: str
    meaning: str


class Points(Sequence[Point]):
    """The points of a model, in the order in which they are computed. Printed, the layers share one block of lines."""

    def __init__(self, points: Sequence[Point], config: BertConfig) -> None:
        self._points = tuple(points)
        self._config = config

    @property
    def names(self) -> tuple[str, ...]:
        """The names."""
        return tuple(point.name for point in self._points)

    def __getitem__(self, index: int | slice) -> Point | tuple[Point, ...]:  # type: ignore[override]
        return self._points[index]

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)

    def __repr__(self) -> str:
        config = self._config
        rows = [
            point._replace(name=point.name.replace("layers.0", "layers.*"))
            for point in self._points
            if not point.name.startswith("encoder.layers.") or point.name.startswith("encoder.layers.0")
        ]
        name, shape = (max(map(len, column)) for column in list(zip(*rows, strict=True))[:2])
        lines = [f"{row.name:<{name}}  {row.shape:<{shape}}  {row.meaning}" for row in rows]
        letters = (
            f"B texts, S tokens, H = {config.hidden_size}, A = {config.num_attention_heads}, D = {config.head_size}, "
            f"I = {config.intermediate_size}, V = {config.vocab_size}; * is 0 to {config.num_hidden_layers - 1}"
        )
        return "\n".join([*lines, letters])


def points_of(model: PretrainedModel) -> Points:
    """Every point of a model."""
    encoder = model._encoder
    modules = dict(encoder.named_modules()) | dict(model.named_modules())
    found = [Point(_joined("embeddings", name), shape, meaning) for name, shape, meaning in EMBEDDINGS]
    for layer in range(len(encoder.encoder.layers)):
        found += [Point(_joined(f"encoder.layers.{layer}", name), shape, meaning) for name, shape, meaning in LAYER]
    found += [Point(*head) for head in HEADS if modules.get(head[0]) is not None]
    return Points(found, model.config)


def module_of(point: str) -> tuple[str, str]:
    """The name of the module in which a point is, and what of it: "input", a part of attention, or "output"."""
    module, _, last = point.rpartition(".")
    return (module, last) if last in (INPUT, *INSIDE_ATTENTION) else (point, "output")


def choose(points: Points, patterns: str | Sequence[str]) -> list[str]:
    """The names that patterns mean, in the order of the points.

    Args:
        patterns: names, or names in which `*` stands for one part, or a piece of one, between dots.

    Raises:
        MinibertError: a pattern that names no point; the nearest names are in the message.
    """
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    chosen = set()
    for pattern in wanted:
        found = [name for name in points.names if _fits(name, pattern)]
        if not found:
            raise MinibertError(f"point ({pattern!r}) must name a point of the model; {_nearest(points, pattern)}")
        chosen.update(found)
    return [name for name in points.names if name in chosen]


def choose_edits(points: Points, edits: Mapping[str, object]) -> dict[str, str]:
    """For each point that the keys of `edits` mean, the key; refuse a point that two of them mean."""
    found: dict[str, str] = {}
    for pattern in edits:
        for name in choose(points, pattern):
            if name in found:
                raise MinibertError(f"points ({found[name]!r} and {pattern!r}) must not both name {name}; keep one")
            found[name] = pattern
    return found


def _joined(module: str, name: str) -> str:
    return f"{module}.{name}" if name else module


def _fits(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), str(pattern).split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _nearest(points: Points, pattern: str) -> str:
    close = get_close_matches(str(pattern), points.names, n=3, cutoff=0.5)
    if not close:
        return "bert.points() lists them"
    return f"the nearest: {', '.join(close)}; bert.points() lists all"
