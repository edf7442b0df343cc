"""Rows become hidden states: packed end to end, up to a budget of tokens in each pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minibert.attention import Packed, Padded
from minibert.engine.device import Device, check_fork, without_autocast
from minibert.engine.packing import passes
from minibert.engine.rows import Ids, Rows
from minibert.engine.twin import Twin
from minibert.errors import MinibertError
from minibert.model import BertModel
from minibert.text import check_choice, whole_number

Combine = Literal["mean", "sum", "concat"]
COMBINE = ("mean", "sum", "concat")

MANY_ROWS = 1_000  # from here on, comparing all weights takes less than 1 % of the time
FILLER = 32  # tokens of a filler text; filler texts bring a pass up to its size


@dataclass(frozen=True)
class Plan:
    """Which hidden states to return, and how much to compute in each pass. `Engine.plan` makes and checks one.

    Attributes:
        layers: numbers of hidden states, 0 (the embeddings) to L; empty means the last.
        combine: how several layers are combined: "mean", "sum" or "concat".
        most_tokens: tokens in a pass; a longer text is computed alone. None lets the device decide.
        most_texts: texts in a pass; None means no limit.
    """

    layers: tuple[int, ...] = ()
    combine: Combine = "mean"
    most_tokens: int | None = None
    most_texts: int | None = None


LAST = Plan()  # the last hidden state


class Pass(NamedTuple):
    """The hidden states of one pass through the model.

    Attributes:
        indices: the numbers of its rows.
        groups: (start, count, length) of each run of rows of one length, as in `Packed.groups`, in the order of
            `indices`; groups of filler texts may follow.
        states: the hidden states, packed: (T, H), or (T, n * H) for n concatenated layers.
    """

    indices: list[int]
    groups: list[tuple[int, int, int]]
    states: Tensor


class Engine:
    """Computes the hidden states of many texts.

    The engine always runs in evaluation mode. The first call prepares fast layers; they are prepared again when the
    model has changed. A copy of an engine prepares its own.

    Args:
        model: the encoder.
        exact_norms: as for `Twin`.
    """

    def __init__(self, model: BertModel, exact_norms: Mapping[str, Tensor] | None = None) -> None:
        self.model = model
        self._exact_norms = exact_norms
        self._twin: Twin | None = None
        self._lock = Lock()

    def plan(
        self,
        layers: int | Sequence[int] | None = None,
        combine: Combine = "mean",
        most_tokens: int | None = None,
        most_texts: int | None = None,
    ) -> Plan:
        """A checked `Plan`; negative layers count from the last.

        Raises:
            MinibertError: a layer that the model does not have; no layer; an unknown `combine`; a count below 1.
        """
        check_choice("combine", combine, COMBINE)
        last = len(self.model.encoder.layers)
        numbers = () if layers is None else layer_numbers(layers, last)
        return Plan(
            () if numbers == (last,) else numbers,
            combine,
            None if most_tokens is None else whole_number("batch_tokens", most_tokens),
            None if most_texts is None else whole_number("batch_size", most_texts),
        )

    def width(self, plan: Plan = LAST) -> int:
        """The size of a token's hidden state."""
        several = len(plan.layers) if plan.layers and plan.combine == "concat" else 1
        return self.model.config.hidden_size * several

    @torch.inference_mode()
    def states(
        self, rows: Rows, plan: Plan = LAST, done: Callable[[int, int], object] = lambda texts, tokens: None
    ) -> Iterator[Pass]:
        """Compute the hidden states of rows, one pass after another, the longest rows first.

        Args:
            rows: the rows. Their ids come from the tokenizer and are not checked again.
            plan: which hidden states, and how much to compute in each pass.
            done: called after each pass with the number of texts and of tokens computed.

        Raises:
            RuntimeError: as for `check_fork`.
        """
        model = self.twin(len(rows.ids) >= MANY_ROWS).model
        weight = model.embeddings.token.weight
        device = Device.of(weight.device, weight.dtype, model.config)
        filler = min(FILLER, model.config.max_position_embeddings)
        for indices, size in passes([len(row) for row in rows.ids], plan.most_tokens or device.tokens, plan.most_texts):
            lengths = [len(rows.ids[index]) for index in indices]
            tokens = sum(lengths)
            extra = size - tokens if device.fills_up else 0
            lengths += [filler] * (extra // filler) + [extra % filler] * (extra % filler > 0)
            layout = device.layout(lengths)

            def joined(parts: list[Ids], indices: list[int] = indices, extra: int = extra) -> Tensor:
                ids = np.concatenate([parts[index] for index in indices] + [np.zeros(extra, dtype=np.int32)])
                return torch.from_numpy(ids).to(weight.device)

            ids, types = joined(rows.ids), joined(rows.types) if rows.types else None
            with without_autocast():
                if len(lengths) == 1:  # a single text runs as a batch of one, with less overhead
                    x = model.embeddings(ids[None], None if types is None else types[None])
                    states = chosen_states(model, x, Padded(), plan)[0]
                else:
                    x = model.embeddings(ids, types, torch.from_numpy(positions(lengths)).to(weight.device))
                    states = chosen_states(model, x, layout, plan)
            yield Pass(indices, layout.groups, states)
            done(sum(index == 0 or rows.texts[index] != rows.texts[index - 1] for index in indices), tokens)

    def twin(self, every_number: bool = False) -> Twin:
        """The model with fast layers, prepared once and again whenever it has changed.

        Args:
            every_number: compare all weights to find changes, which pays for many texts.

        Raises:
            RuntimeError: as for `check_fork`.
        """
        check_fork()
        with self._lock:
            if self._twin is None or not self._twin.fits(self.model, every_number):
                self._twin = Twin(self.model, self._exact_norms)
            return self._twin

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave out what can be made again."""
        return {**vars(self), "_twin": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Undo `__getstate__`."""
        vars(self).update(state, _lock=Lock())


def chosen_states(model: BertModel, x: Tensor, layout: Padded | Packed, plan: Plan) -> Tensor:
    """The hidden states of a plan, combined. Layers above the highest one are not computed."""
    last = len(model.encoder.layers)
    if not plan.layers or plan.layers == (last,):
        return model.encoder(x, layout)
    found = {}
    for number, state in enumerate(model.encoder.states(x, layout)):
        if number in plan.layers:
            found[number] = state.float()
        if number == max(plan.layers):
            break
    states = [found[number] for number in plan.layers]
    if plan.combine == "concat":
        return torch.cat(states, dim=-1)
    total = torch.stack(states).sum(0)
    return total / len(states) if plan.combine == "mean" else total


def layer_numbers(layers: int | Sequence[int], last: int) -> tuple[int, ...]:
    """The hidden states that a user names, as numbers from 0 to `last`.

    Raises:
        MinibertError: a layer that the model does not have; no layer.
    """
    chosen = [layers] if isinstance(layers, (int, np.integer)) else list(layers)
    for layer in chosen:
        if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)) or not -last - 1 <= layer <= last:
            raise MinibertError(
                f"layers ({layer!r}) must be whole numbers between {-last - 1} and {last}; 0 is the embeddings, "
                f"{last} or -1 the last layer"
            )
    if not chosen:
        raise MinibertError("layers ([]) must name at least one; leave it out for the last")
    return tuple(int(layer) % (last + 1) for layer in chosen)


def positions(lengths: Sequence[int]) -> NDArray[np.int64]:
    """0, 1, 2, ... for each text, packed: (T,)."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
