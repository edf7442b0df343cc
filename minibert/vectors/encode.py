"""From texts to vectors: streamed in chunks, laid end to end, computed a budget of tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from minibert.attention import Packed
from minibert.config import BertConfig
from minibert.model import BertModel
from minibert.tokenizer import BertTokenizer
from minibert.vectors.packing import Windows, filler, passes
from minibert.vectors.pooling import pool

Ids = NDArray[np.int32]

# A chunk is sorted as a whole: large enough for that to pay, small beside what else is in memory (ids: 8 MB).
CHUNK_TEXTS = 16_384
CHUNK_CHARACTERS = 8_000_000
TOKENIZED_AT_ONCE = 1_024  # what the tokenizer returns takes a hundred times the room of the ids
# The widest hidden state of a pass, (T, I), in bytes for each thread: more does not fit the caches, less does not pay
# for the work around the products. That is 4,096 tokens of MiniLM or 2,048 of bert-base on two threads in bfloat16.
BYTES_PER_THREAD = 6 * 2**20
TOKENS_ON_A_GPU = 16_384


def default_batch_tokens(config: BertConfig, dtype: torch.dtype, device: torch.device) -> int:
    """How many tokens to compute at once: what the caches of a CPU's cores hold; on a GPU, enough to keep it busy."""
    if device.type != "cpu":
        return TOKENS_ON_A_GPU
    return max(512, BYTES_PER_THREAD * torch.get_num_threads() // (config.intermediate_size * dtype.itemsize))


def chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Cut a stream of texts into lists."""
    chunk: list[str] = []
    room = CHUNK_CHARACTERS
    for text in texts:
        chunk.append(text)
        room -= len(text) if isinstance(text, str) else 0
        if room <= 0 or len(chunk) == CHUNK_TEXTS:
            yield chunk
            chunk, room = [], CHUNK_CHARACTERS
    if chunk:
        yield chunk


def token_ids(tokenizer: BertTokenizer, texts: Sequence[str], most: int) -> tuple[list[Ids], dict[int, int]]:
    """The ids of each text, [CLS] and [SEP] included, and where texts were cut.

    Args:
        texts: as the tokenizer is to see them.
        most: tokens of a text; what is more is cut off.

    Returns:
        The ids, (S,) each; and, by the index of the text, how many tokens were cut off.
    """
    rows: list[Ids] = []
    excess: dict[int, int] = {}
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    cut_right = tokenizer.truncation_side == "right"
    for start in range(0, len(texts), TOKENIZED_AT_ONCE):
        part = texts[start : start + TOKENIZED_AT_ONCE]
        for encoding in tokenizer.backend.encode_batch_fast(part, add_special_tokens=False):
            if len(encoding) > most - 2:
                excess[len(rows)] = len(encoding) - (most - 2)
            ids = encoding.ids[: most - 2] if cut_right else encoding.ids[max(0, len(encoding) - (most - 2)) :]
            rows.append(np.array([cls, *ids, sep], dtype=np.int32))
    return rows, excess


@torch.inference_mode()
def packed_vectors(
    model: BertModel,
    rows: Sequence[Ids],
    pooling: Sequence[str],
    most_tokens: int | None = None,
    most_texts: int | None = None,
    done: Callable[[int, int], object] = lambda texts, tokens: None,
) -> Tensor:
    """The vectors of texts.

    Args:
        model: in evaluation mode.
        rows: (S,) each; the ids of the texts.
        pooling: modes of `vectors.pooling`.
        most_tokens: computed at once; a longer text is computed alone. None: `default_batch_tokens`.
        most_texts: computed at once, at most; None: any number.
        done: told, after each pass, how many texts and tokens were computed.

    Returns:
        (texts, H * len(pooling)) float32, in the order of `rows`, on the CPU.
    """
    weight = model.embeddings.token.weight
    device = weight.device
    if most_tokens is None:
        most_tokens = default_batch_tokens(model.config, weight.dtype, device)
    layout_of = Windows if device.type == "cpu" else Packed
    vectors = torch.empty(len(rows), model.config.hidden_size * len(pooling))
    for indices in passes([len(row) for row in rows], most_tokens, most_texts):
        lengths = [len(rows[index]) for index in indices]
        tokens = sum(lengths)
        extra = filler(tokens)  # computed as one text more, which is dropped
        ids = np.concatenate([rows[index] for index in indices] + [np.zeros(extra, dtype=np.int32)])
        lengths_of_all = lengths + [extra] * (extra > 0)
        layout = layout_of(lengths_of_all)
        x = model.embeddings(
            torch.from_numpy(ids).to(device), position_ids=torch.from_numpy(positions(lengths_of_all)).to(device)
        )
        x = model.encoder(x, layout)
        vectors[indices] = pool(x, layout.groups, pooling)[: len(indices)].cpu()
        done(len(indices), tokens)
    return vectors


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
