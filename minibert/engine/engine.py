"""From rows to hidden states: packed end to end, a budget of tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minibert.attention import Packed, Padded
from minibert.config import BertConfig
from minibert.engine.device import without_autocast
from minibert.engine.packing import Windows, passes
from minibert.engine.rows import Rows
from minibert.model import BertModel

Combine = Literal["mean", "sum", "concat"]

# The widest hidden state of a pass, (T, I), in bytes for each thread: more does not fit the caches, less does not pay
# for the work around the products. That is 4,096 tokens of MiniLM or 2,048 of bert-base on two threads in bfloat16.
BYTES_PER_THREAD = 6 * 2**20
TOKENS_ON_A_GPU = 16_384
FILLER = 32  # tokens of the texts of no meaning that fill a pass up


@dataclass(frozen=True)
class Plan:
    """Which hidden states are wanted, and how much is computed at once.

    Attributes:
        layers: numbers of hidden states, 0 (the embeddings) to L; empty: the last.
        combine: what becomes of several: their mean, their sum, or all side by side.
        most_tokens: of a pass; a longer text is computed alone. None: `default_batch_tokens`.
        most_texts: of a pass; None: any number.
    """

    layers: tuple[int, ...] = ()
    combine: Combine = "mean"
    most_tokens: int | None = None
    most_texts: int | None = None

    @property
    def width(self) -> int:
        """How many hidden states are side by side in the result."""
        return len(self.layers) if self.layers and self.combine == "concat" else 1


def plan_layers(layers: int | Sequence[int] | None, combine: str, last: int) -> tuple[int, ...]:
    """The numbers of hidden states that a user means, of 0 to `last`; negative ones count from the last.

    Raises:
        ValueError: a layer that is not there; none; an unknown way to combine.
    """
    if combine not in ("mean", "sum", "concat"):
        raise ValueError(f"combine ({combine!r}) must be 'mean', 'sum' or 'concat'")
    if layers is None:
        return ()
    chosen = [layers] if isinstance(layers, (int, np.integer)) else list(layers)
    for layer in chosen:
        if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)) or not -last - 1 <= layer <= last:
            raise ValueError(
                f"layers ({layer!r}) must be whole numbers between {-last - 1} and {last}; 0 is the embeddings, "
                f"{last} or -1 the last layer"
            )
    if not chosen:
        raise ValueError("layers ([]) must name at least one; leave it out for the last")
    return tuple(int(layer) % (last + 1) for layer in chosen)


def default_batch_tokens(config: BertConfig, dtype: torch.dtype, device: torch.device) -> int:
    """How many tokens to compute at once: what the caches of a CPU's cores hold; on a GPU, enough to keep it busy."""
    if device.type != "cpu":
        return TOKENS_ON_A_GPU
    return max(512, BYTES_PER_THREAD * torch.get_num_threads() // (config.intermediate_size * dtype.itemsize))


@torch.inference_mode()
def packed_states(
    model: BertModel, rows: Rows, plan: Plan, done: Callable[[int, int], object] = lambda texts, tokens: None
) -> Iterator[tuple[list[int], Packed, Tensor]]:
    """Compute the hidden states of rows, a pass at a time.

    Args:
        model: in evaluation mode.
        rows: what is computed.
        plan: what of it is wanted, and how much is computed at once.
        done: told, after each pass, how many texts and tokens were computed.

    Yields:
        Which rows; their layout, which may have more rows, of no meaning, at its end; their hidden states, (T, H) or,
        several side by side, (T, n * H).
    """
    weight = model.embeddings.token.weight
    device = weight.device
    most_tokens = plan.most_tokens or default_batch_tokens(model.config, weight.dtype, device)
    layout_of = Windows if device.type == "cpu" else Packed
    filler = min(FILLER, model.config.max_position_embeddings)
    for indices, size in passes([len(row) for row in rows.ids], most_tokens, plan.most_texts):
        lengths = [len(rows.ids[index]) for index in indices]
        tokens = sum(lengths)
        extra = size - tokens if device.type == "cpu" else 0
        ids = np.concatenate([rows.ids[index] for index in indices] + [np.zeros(extra, dtype=np.int32)])
        lengths += [filler] * (extra // filler) + [extra % filler] * (extra % filler > 0)
        layout = layout_of(lengths)
        input_ids = torch.from_numpy(ids).to(device)
        with without_autocast():
            if len(lengths) == 1:  # a text alone is a batch of one: there is less to do around the products
                states = chosen_states(model, model.embeddings(input_ids[None]), Padded(), plan)[0]
            else:
                x = model.embeddings(input_ids, position_ids=torch.from_numpy(positions(lengths)).to(device))
                states = chosen_states(model, x, layout, plan)
        yield indices, layout, states
        done(sum(index == 0 or rows.texts[index] != rows.texts[index - 1] for index in indices), tokens)


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
