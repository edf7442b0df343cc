"""What each head attends to, over texts: entropy, distance, and shares on kinds of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minibert.bert import Bert
from minibert.engine.device import check_fork, without_autocast
from minibert.engine.rows import RowMaker, token_rows
from minibert.engine.stream import Truncated, chunks
from minibert.errors import MinibertError, optional
from minibert.study.attribution import float32_copy
from minibert.study.edits import Watching
from minibert.text import as_stream
from minibert.tokenizer import BertTokenizer
from minibert.wordpiece import is_punctuation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXTS_AT_ONCE = 256  # sorted by length and grouped
WEIGHTS_AT_ONCE = 2_000_000  # of one layer: 8 MB
STATISTICS = ("entropy", "distance", "cls", "sep", "punctuation", "itself", "previous", "next")

Table = NDArray[np.float64]
Statistic = Literal["entropy", "distance", "cls", "sep", "punctuation", "itself", "previous", "next"]


@dataclass(frozen=True)
class HeadTables:
    """One number for each head, (L, A): means over all tokens of all texts, special ones included.

    Attributes:
        entropy: of the distribution over tokens, in nats.
        distance: how many tokens away it looks, on average.
        cls, sep, punctuation, itself, previous, next: the share on [CLS], on [SEP], on punctuation, on the token
            itself, on the one before and on the one after it. Where there is none, the share is 0.
    """

    entropy: Table
    distance: Table
    cls: Table
    sep: Table
    punctuation: Table
    itself: Table
    previous: Table
    next: Table


@dataclass(frozen=True)
class HeadStatistics:
    """What each head attends to, by weight and by norm. Printing it prints the means of the layers.

    By weight, token i looks at token j with a_ij. By norm, it does so with |a_ij f(x_j)|, divided by the sum over j:
    f(x_j) is the value that the head adds to the residual stream for token j. A head that gives [SEP] most of its
    weight often takes hardly anything from there.

    Attributes:
        by_weight, by_norm: the tables.
        texts, tokens: how many there were.

    Source: Clark et al. 2019, sec. 3; Kobayashi et al. 2020, "Attention is Not Only a Weight", sec. 3.
    """

    by_weight: HeadTables
    by_norm: HeadTables
    texts: int
    tokens: int

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each head of each layer, by weight, then by norm.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = optional("pandas", "to_pandas", "pandas")

        parts = []
        for name, tables in (("weight", self.by_weight), ("norm", self.by_norm)):
            layers, heads = np.indices(tables.entropy.shape)
            columns = {statistic: getattr(tables, statistic).ravel() for statistic in STATISTICS}
            parts.append(pandas.DataFrame({"by": name, "layer": layers.ravel(), "head": heads.ravel(), **columns}))
        return pandas.concat(parts, ignore_index=True)

    def plot(self, statistic: Statistic = "entropy", by: Literal["weight", "norm"] = "weight") -> Figure:
        """Draw one table, layer by head.

        Raises:
            MinibertError: a statistic that is not there.
        """
        if statistic not in STATISTICS or by not in ("weight", "norm"):
            raise MinibertError(
                f"statistic ({statistic!r}) must be one of {', '.join(STATISTICS)}, and by ({by!r}) weight or norm"
            )
        from minibert.pictures.attention import plot_heads

        tables = self.by_weight if by == "weight" else self.by_norm
        return plot_heads(getattr(tables, statistic), title=f"{statistic}, by {by}")

    def __str__(self) -> str:
        lines = [f"{self.texts:,} texts, {self.tokens:,} tokens"]
        for name, tables in (("weight", self.by_weight), ("norm", self.by_norm)):
            lines += ["", f"by {name}, mean of the heads", f"{'layer':>5}  " + "".join(f"{s:>12}" for s in STATISTICS)]
            means = np.stack([getattr(tables, statistic).mean(1) for statistic in STATISTICS], axis=1)
            lines += [f"{layer:>5}  " + "".join(f"{x:>12.4f}" for x in row) for layer, row in enumerate(means)]
        return "\n".join(lines)

    __repr__ = __str__


def head_statistics(bert: Bert, texts: str | Iterable[str]) -> HeadStatistics:
    """Measure what each head attends to, over a stream of texts of any length, in bounded memory.

    Texts that exceed `bert.max_seq_length` are truncated with a warning. It is computed in float32.

    Raises:
        MinibertError: what is not text; no text.
    """
    stream, _ = as_stream(texts)
    check_fork()
    encoder = float32_copy(bert.encoder)
    layers: list[Any] = list(encoder.encoder.layers)
    layout = Measured([layer.attention.output for layer in layers], encoder.config.num_attention_heads)
    cut = Truncated(bert.max_seq_length, "warn", "split such texts to measure all of them")
    count = tokens = 0
    with torch.inference_mode(), without_autocast():
        for chunk in chunks(stream, TEXTS_AT_ONCE):
            rows = token_rows(bert.tokenizer, chunk, RowMaker(bert.tokenizer, bert.max_seq_length, "warn"))
            cut.note(rows.lost, count)
            count += len(chunk)
            tokens += sum(map(len, rows.ids))
            for batch in alike([ids.tolist() for ids in rows.ids], encoder.config.num_attention_heads):
                ids = torch.tensor(batch, device=bert.model.device)
                layout.begin(kinds(bert.tokenizer, batch).to(ids.device))
                encoder.encoder(encoder.embeddings(ids), layout)
    if not tokens:
        raise MinibertError("texts ([]) must hold at least one text")
    cut.warn(count)
    by_weight, by_norm = layout.sums.cpu().numpy() / tokens  # (statistics, L, A) each
    return HeadStatistics(
        HeadTables(**dict(zip(STATISTICS, by_weight, strict=True))),
        HeadTables(**dict(zip(STATISTICS, by_norm, strict=True))),
        count,
        tokens,
    )


def alike(ids: list[list[int]], heads: int) -> Iterator[list[list[int]]]:
    """Group texts of one length, as many as have no more weights in a layer than may be in memory."""
    batch: list[list[int]] = []
    for row in sorted(ids, key=len):
        most = max(1, WEIGHTS_AT_ONCE // (heads * len(row) ** 2))
        if batch and (len(row) != len(batch[0]) or len(batch) >= most):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def kinds(tokenizer: BertTokenizer, batch: list[list[int]]) -> Tensor:
    """Which tokens are [CLS], [SEP] and punctuation: (3, B, S) float32."""
    known = {
        number: (
            float(number == tokenizer.cls_token_id),
            float(number == tokenizer.sep_token_id),
            float(all(map(is_punctuation, tokenizer.convert_ids_to_tokens(number).removeprefix("##")))),
        )
        for number in {number for row in batch for number in row}
    }
    return torch.tensor([[known[number] for number in row] for row in batch]).permute(2, 0, 1)


class Measured(Watching):
    """A layout that measures what each layer attends to, and keeps the sums alone.

    Args:
        outputs: each layer's output matrix.
        heads: A.

    Attributes:
        sums: (2, statistics, L, A) float64, by weight and by norm, over all tokens so far.
    """

    def __init__(self, outputs: list[nn.Linear], heads: int) -> None:
        super().__init__()
        self.sums = torch.zeros(2, len(STATISTICS), len(outputs), heads, dtype=torch.float64)
        self.layer = 0
        self.kinds = torch.zeros(0)
        # |W v| for each head's slice W of the output matrix: from W'W, (L, A, D, D)
        slices = [output.weight.view(len(output.weight), heads, -1) for output in outputs]  # (H, A, D)
        self.products = [torch.einsum("had,hae->ade", one, one) for one in slices]

    def begin(self, kinds: Tensor) -> None:
        """Tell which tokens of the next batch are [CLS], [SEP] and punctuation, (3, B, S)."""
        self.kinds, self.layer = kinds, 0

    def watch(self, q: Tensor, k: Tensor, v: Tensor, probabilities: Tensor) -> None:
        """Measure a layer; its probabilities, (B, A, S, S), are overwritten to save memory."""
        weights = probabilities
        self.add(0, weights)
        squares = torch.einsum("basd,ade,base->bas", v, self.products[self.layer], v)
        weights *= squares.clamp(min=0).sqrt()[:, :, None]
        weights /= weights.sum(-1, keepdim=True).clamp(min=1e-30)
        self.add(1, weights)
        self.layer += 1

    def add(self, by: int, weights: Tensor) -> None:
        """Add the statistics of weights (B, A, S, S) whose rows sum to 1."""
        length = weights.shape[-1]
        places = torch.arange(length, device=weights.device)
        apart = (places[:, None] - places).abs().to(weights)  # (S, S)
        received = weights.sum(2)  # (B, A, S)
        sums = [
            torch.special.entr(weights).sum((0, 2, 3)),
            torch.einsum("baqk,qk->a", weights, apart),
            *torch.einsum("bas,nbs->na", received, self.kinds),
            *(weights.diagonal(offset, 2, 3).sum((0, 2)) for offset in (0, -1, 1)),
        ]
        self.sums[by, :, self.layer] += torch.stack(sums).cpu().double()
