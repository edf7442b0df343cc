"""From texts to hidden states: streamed in chunks, laid end to end, computed a budget of tokens at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from minibert.attention import Packed, Padded
from minibert.config import BertConfig
from minibert.model import BertModel
from minibert.tokenizer import BertTokenizer
from minibert.vectors.inference import without_autocast
from minibert.vectors.packing import Windows, passes
from minibert.vectors.pooling import pool

Ids = NDArray[np.int32]
Truncation = Literal["warn", "error", "window"]
Combine = Literal["mean", "sum", "concat"]

# A chunk is sorted as a whole: large enough for that to pay, small beside what else is in memory (ids: 8 MB).
CHUNK_TEXTS = 16_384
CHUNK_CHARACTERS = 8_000_000
TOKENIZED_AT_ONCE = 1_024  # what the tokenizer returns takes a hundred times the room of the ids
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


@dataclass
class Rows:
    """Texts as the model gets them: a row is a text, or a window of one that is too long.

    Attributes:
        ids: (S,) each, with [CLS] and [SEP].
        texts: the number of the text of each row.
        starts: which of the text's tokens (without special ones) is the first of the row.
        weights: how many tokens of the text are the row's own; those that windows share belong to the one in which
            they have more context on both sides.
        lost: by the number of the text, how many tokens were cut off.
    """

    ids: list[Ids] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    lost: dict[int, int] = field(default_factory=dict)


class Layout:
    """How the tokens of a text become rows.

    Args:
        tokenizer: whose special tokens, and whose side to cut off.
        limit: tokens of a row, special ones included.
        truncation: what is done with more of them: "window" makes several rows, the rest cuts.
        prompt: tokens at the beginning of each text that all of its windows are to have.

    Raises:
        ValueError: the limit leaves no room for the text.
    """

    def __init__(self, tokenizer: BertTokenizer, limit: int, truncation: Truncation, prompt: int = 0) -> None:
        self.ends = np.array([tokenizer.cls_token_id], np.int32), np.array([tokenizer.sep_token_id], np.int32)
        self.room = limit - 2
        self.windows = truncation == "window"
        self.prompt = prompt if self.windows else 0
        self.cut_left = tokenizer.truncation_side == "left"
        if self.room <= self.prompt:
            raise ValueError(
                f"the prompt ({prompt} tokens) must leave room for text within {limit} tokens; choose a shorter one"
            )

    def add(self, rows: Rows, number: int, ids: Ids, longest_word: int = 1) -> None:
        """Append what a text's ids, without special ones, become; no word is divided between windows."""
        cls, sep = self.ends
        excess = len(ids) - self.room
        if excess <= 0 or not self.windows:
            start = max(0, excess) if self.cut_left else 0
            ids = ids[start : start + self.room]
            rows.ids.append(np.concatenate([cls, ids, sep]))
            rows.texts.append(number)
            rows.starts.append(start)
            rows.weights.append(len(ids))
            if excess > 0:
                rows.lost[number] = excess
            return
        size = self.room - self.prompt
        starts = window_starts(len(ids) - self.prompt, size, longest_word)
        borders = [0, *((one + size + other) // 2 for one, other in pairwise(starts)), len(ids) - self.prompt]
        for start, (left, right) in zip(starts, pairwise(borders), strict=True):
            start += self.prompt
            rows.ids.append(np.concatenate([cls, ids[: self.prompt], ids[start : start + size], sep]))
            rows.texts.append(number)
            rows.starts.append(start - self.prompt)
            rows.weights.append(right - left)


def window_starts(tokens: int, size: int, longest_word: int = 1) -> list[int]:
    """Where windows of `size` begin that cover `tokens` evenly; neighbours share a quarter, or the longest word."""
    if tokens <= size:
        return [0]
    shared = min(size - 1, max(size // 4, longest_word))
    gaps = -(-(tokens - size) // (size - shared))
    return [gap * (tokens - size) // gaps for gap in range(gaps + 1)]


def token_rows(tokenizer: BertTokenizer, texts: Sequence[str], layout: Layout) -> Rows:
    """The rows of texts."""
    rows = Rows()
    for start in range(0, len(texts), TOKENIZED_AT_ONCE):
        part = texts[start : start + TOKENIZED_AT_ONCE]
        encodings = tokenizer.backend.encode_batch_fast(part, add_special_tokens=False)
        for number, encoding in enumerate(encodings, start):
            layout.add(rows, number, np.array(encoding.ids, dtype=np.int32))
    return rows


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
        return model.encoder(x, layout)  # type: ignore[no-any-return]
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


@torch.inference_mode()
def packed_vectors(
    model: BertModel,
    rows: Rows,
    pooling: Sequence[str],
    plan: Plan = Plan(),
    skip: int = 0,
    done: Callable[[int, int], object] = lambda texts, tokens: None,
) -> Tensor:
    """The pooled vectors of texts; of one with several windows, their mean, each weighted by the tokens of its own.

    Args:
        model: in evaluation mode.
        rows: the texts.
        pooling: modes of `vectors.pooling`.
        plan, done: as for `packed_states`.
        skip: how many tokens at the beginning of each row are not pooled.

    Returns:
        (texts, n * H) float32, in the order of the texts, on the CPU.
    """
    width = model.config.hidden_size * plan.width * len(pooling)
    vectors = torch.empty(len(rows.ids), width, dtype=torch.float32, device="cpu")
    for indices, layout, x in packed_states(model, rows, plan, done):
        vectors[indices] = pool(x, layout.groups, pooling, skip)[: len(indices)].cpu()
    if not rows.texts or len(rows.texts) == rows.texts[-1] + 1:
        return vectors
    texts = torch.tensor(rows.texts, device="cpu")
    weights = torch.tensor(rows.weights, dtype=torch.float32, device="cpu")
    whole = weights.new_zeros(rows.texts[-1] + 1).index_add_(0, texts, weights)
    several = torch.bincount(texts) > 1
    mean = vectors.new_zeros(len(whole), width).index_add_(0, texts, vectors * weights[:, None]) / whole[:, None]
    mean[~several] = vectors[~several[texts]]  # to the bit what it is without windows; [CLS] [SEP] weighs nothing
    return mean


class Cut:
    """What is done about texts that are too long.

    Raises:
        ValueError: an unknown `truncation`.
    """

    def __init__(self, limit: int, truncation: Truncation) -> None:
        if truncation not in ("warn", "error", "window"):
            raise ValueError(f"truncation ({truncation!r}) must be 'warn', 'error' or 'window'")
        self.limit, self.truncation = limit, truncation
        self.texts = self.tokens = 0

    def note(self, lost: Mapping[int, int], first: int) -> None:
        """Count the tokens that texts of a chunk, which begins with text `first`, have lost.

        Raises:
            ValueError: there are such texts, and `truncation` is "error".
        """
        if lost and self.truncation == "error":
            index, tokens = next(iter(lost.items()))
            raise ValueError(
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


def positions(lengths: Sequence[int]) -> NDArray[np.int64]:
    """0, 1, 2, ... for each text, end to end: (T,)."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
