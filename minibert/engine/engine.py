"""From rows to hidden states: packed end to end, a budget of tokens at a time."""

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

Combine = Literal["mean", "sum", "concat"]

MANY_ROWS = 1_000  # for so many, comparing every number of the weights takes less than a hundredth of the time
FILLER = 32  # tokens of the texts of no meaning that fill a pass up


@dataclass(frozen=True)
class Plan:
    """Which hidden states are wanted, and how much is computed at once.

    Attributes:
        layers: numbers of hidden states, 0 (the embeddings) to L; empty: the last.
        combine: what becomes of several: their mean, their sum, or all side by side.
        most_tokens: of a pass; a longer text is computed alone. None: what suits the device.
        most_texts: of a pass; None: any number.
    """

    layers: tuple[int, ...] = ()
    combine: Combine = "mean"
    most_tokens: int | None = None
    most_texts: int | None = None


LAST = Plan()  # the last hidden state


def plan_layers(layers: int | Sequence[int] | None, combine: str, last: int) -> tuple[int, ...]:
    """The numbers of hidden states that a user means, of 0 to `last`; negative ones count from the last.

    Raises:
        MinibertError: a layer that is not there; none; an unknown way to combine.
    """
    if combine not in ("mean", "sum", "concat"):
        raise MinibertError(f"combine ({combine!r}) must be 'mean', 'sum' or 'concat'")
    if layers is None:
        return ()
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


class Pass(NamedTuple):
    """What one pass through the model gives.

    Attributes:
        indices: the numbers of the rows in it.
        groups: (start, count, length) of neighbours of one length, as `Packed.groups` has them, in the order of
            `indices`; at the end may be more, of no meaning.
        states: their hidden states end to end, (T, H) or, several side by side, (T, n * H).
    """

    indices: list[int]
    groups: list[tuple[int, int, int]]
    states: Tensor


class Engine:
    """The door to the hidden states of many texts.

    It computes in evaluation mode, whatever mode the model is in. The first call lays out the weights as a CPU likes
    them; a call that finds the model changed does so again. Copies of an engine share neither.

    Args:
        model: the encoder.
        exact_norms: as for `Twin`.
    """

    def __init__(self, model: BertModel, exact_norms: Mapping[str, Tensor] | None = None) -> None:
        self.model = model
        self._exact_norms = exact_norms
        self._twin: Twin | None = None
        self._lock = Lock()

    def width(self, plan: Plan = LAST) -> int:
        """How many numbers the hidden state of a token has."""
        several = len(plan.layers) if plan.layers and plan.combine == "concat" else 1
        return self.model.config.hidden_size * several

    @torch.inference_mode()
    def states(
        self, rows: Rows, plan: Plan = LAST, done: Callable[[int, int], object] = lambda texts, tokens: None
    ) -> Iterator[Pass]:
        """Compute the hidden states of rows, a pass at a time, the longest rows first.

        Args:
            rows: what is computed. Their ids are the tokenizer's, and are not checked again.
            plan: what of it is wanted, and how much is computed at once.
            done: told, after each pass, how many texts and tokens were computed.

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
                if len(lengths) == 1:  # a text alone is a batch of one: there is less to do around the products
                    x = model.embeddings(ids[None], None if types is None else types[None])
                    states = chosen_states(model, x, Padded(), plan)[0]
                else:
                    x = model.embeddings(ids, types, torch.from_numpy(positions(lengths)).to(weight.device))
                    states = chosen_states(model, x, layout, plan)
            yield Pass(indices, layout.groups, states)
            done(sum(index == 0 or rows.texts[index] != rows.texts[index - 1] for index in indices), tokens)

    def twin(self, every_number: bool = False) -> Twin:
        """The model made ready: once, and again if it has changed since.

        Args:
            every_number: compare every number of the weights, which is worth it for many texts.

        Raises:
            RuntimeError: as for `check_fork`.
        """
        check_fork()
        with self._lock:
            if self._twin is None or not self._twin.fits(self.model, every_number):
                self._twin = Twin(self.model, self._exact_norms)
            return self._twin

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but what can be made again."""
        return {**vars(self), "_twin": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Undo `__getstate__`."""
        vars(self).update(state, _lock=Lock())


def chosen_states(model: BertModel, x: Tensor, layout: Padded | Packed, plan: Plan) -> Tensor:
    """The hidden states that a plan names, combined; layers above the last of them are not computed."""
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


def positions(lengths: Sequence[int]) -> NDArray[np.int64]:
    """0, 1, 2, ... for each text, end to end: (T,)."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
