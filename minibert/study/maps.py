"""Attention maps: who attends to whom, in every layer and head, and the queries, keys and values behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from minibert.base import PretrainedModel
from minibert.engine.device import check_fork, without_autocast
from minibert.engine.twin import evaluating
from minibert.errors import MinibertError, optional
from minibert.pretrained.files import written_whole
from minibert.study.edits import Watching
from minibert.study.reading import Reading, read
from minibert.text import whole_number
from minibert.tokenizer import BertTokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


NOTEBOOK_WEIGHTS = 12 * 12 * 128 * 128  # a notebook shows no larger page by itself; it would store it, too


class Link(NamedTuple):
    """One attention weight and where it is.

    Attributes:
        layer, head: which map it is in.
        from_position, from_token: the token that attends; the query.
        to_position, to_token: the token that it attends to; the key.
        weight: how much, from 0 to 1.
    """

    layer: int
    head: int
    from_position: int
    from_token: str
    to_position: int
    to_token: str
    weight: float


class Recording(Watching):
    """The layout of one text that keeps the queries, keys, values and probabilities of each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []
        self.projected: list[tuple[Tensor, Tensor, Tensor]] = []

    def watch(self, q: Tensor, k: Tensor, v: Tensor, probabilities: Tensor) -> None:
        """Keep (1, A, S, D), and (1, A, S, S), of a layer."""
        self.projected.append((q, k, v))
        self.kept.append(probabilities)


class AttentionMaps:
    """The attention of one text or pair in every layer and head.

    Every tensor is float32 and on the CPU, whatever the model is. The object keeps the weights, queries, keys and
    values: A S S + 3 S H numbers a layer, see `nbytes`. The rest is computed each time it is asked for; `scores` and
    `norms` are as large as `weights`.

    Attributes:
        reading: the text as the model reads it.
        weights: (L, A, S, S). Row i of a head says how much token i takes from each token; it sums to 1.
    """

    def __init__(self, reading: Reading, recording: Recording, outputs: list[nn.Linear]) -> None:
        self.reading = reading
        self.weights = torch.cat(recording.kept).float().cpu()
        self._projected = recording.projected
        self._outputs = outputs

    @property
    def tokens(self) -> tuple[str, ...]:
        """The S tokens, special ones included."""
        return self.reading.tokens

    @property
    def words(self) -> tuple[str, ...]:
        """The W words; each special token counts as one."""
        return self.reading.words

    @property
    def attentions(self) -> tuple[Tensor, ...]:
        """A (1, A, S, S) tensor for each layer, as transformers returns them and bertviz and circuitsvis take them."""
        return torch.split(self.weights, 1)

    @property
    def queries(self) -> Tensor:
        """What each token asks for, (L, A, S, D)."""
        return self._stacked(0)

    @property
    def keys(self) -> Tensor:
        """What each token is found by, (L, A, S, D)."""
        return self._stacked(1)

    @property
    def values(self) -> Tensor:
        """What each token gives, (L, A, S, D)."""
        return self._stacked(2)

    @property
    def scores(self) -> Tensor:
        """The scaled products of queries and keys, (L, A, S, S); their softmax is `weights`.

        An edit of scores or probabilities changes `weights`, not these.
        """
        layers = []
        for q, k, _ in self._projected:
            layers.append(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5)  # the operations of `attention`, to the bit
        return torch.cat(layers).float().cpu()

    @property
    def norms(self) -> Tensor:
        """How much each token really takes from each, (L, A, S, S): the length of the weighted, transformed value.

        A large weight on a short value moves little. The value goes through the head's slice of the output matrix
        first, as it is now in the model; biases of the output belong to no token and are left out.

        Source: Kobayashi et al. 2020, "Attention is Not Only a Weight", eq. 7.
        """
        lengths = []
        for (_, _, v), output in zip(self._projected, self._outputs, strict=True):
            heads = output.weight.detach().float()
            heads = heads.reshape(len(heads), v.shape[1], -1)  # (H, H) -> (H, A, D)
            moved = torch.einsum("asd,had->ash", v[0].float(), heads)  # (A, S, H)
            lengths.append(moved.norm(dim=-1))
        return self.weights * torch.stack(lengths).cpu()[:, :, None, :]  # weights are not negative

    @property
    def nbytes(self) -> int:
        """The memory that the tensors of this object take."""
        tensors = [self.weights, *(tensor for layer in self._projected for tensor in layer)]
        return sum(tensor.nbytes for tensor in tensors)

    def __getitem__(self, index: Any) -> Tensor:
        return self.weights[index]

    def __len__(self) -> int:
        return len(self.weights)

    def by_word(self) -> Tensor:
        """The weights between words, (L, A, W, W); rows sum to 1.

        The weight to a word is the sum over its pieces, the weight from a word the mean over its pieces.

        Source: Clark et al. 2019, "What Does BERT Look At?", sec. 4.1.
        """
        return between_words(self.weights, self.reading.word_of)

    def rollout(self) -> Tensor:
        """How much of each input token is in each token after each layer, (L, S, S), if attention alone moved it.

        Heads are averaged, and half of each token stays where it is, for the residual connection. Rows sum to 1.

        Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", sec. 3.
        """
        mean = self.weights.double().mean(1)  # (L, S, S)
        stays = 0.5 * mean + 0.5 * torch.eye(mean.shape[-1], dtype=mean.dtype)
        steps = stays / stays.sum(-1, keepdim=True)
        through = [steps[0]]
        for step in steps[1:]:
            through.append(step @ through[-1])
        return torch.stack(through).float()

    def top(
        self, count: int = 10, *, layer: int | None = None, head: int | None = None, skip_special_tokens: bool = False
    ) -> list[Link]:
        """The largest weights, the largest first.

        Args:
            count: how many.
            layer, head: of one layer or head only.
            skip_special_tokens: leave out weights from or to [CLS], [SEP] and the like.

        Raises:
            MinibertError: a layer or head that the model does not have.
        """
        whole_number("count", count)
        weights, (first_layer, first_head) = self.chosen(layer, head)
        if skip_special_tokens:
            ordinary = torch.tensor([self.reading.spans[word] is not None for word in self.reading.word_of])
            weights = weights.where(ordinary[:, None] & ordinary, -1.0)  # below every weight
        found = weights.flatten().topk(min(count, weights.numel()))
        places = torch.stack(torch.unravel_index(found.indices, weights.shape), 1)
        return [
            Link(first_layer + number, first_head + a, i, self.tokens[i], j, self.tokens[j], weight)
            for (number, a, i, j), weight in zip(places.tolist(), found.values.tolist(), strict=True)
            if weight >= 0
        ]

    def to_pandas(self) -> Any:
        """A DataFrame with a row for each weight and the columns of `Link`.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = optional("pandas", "to_pandas", "pandas")
        layers, heads, queries, keys = torch.meshgrid(*map(torch.arange, self.weights.shape), indexing="ij")
        tokens = pandas.Series(self.tokens)
        columns = {
            "layer": layers.flatten().numpy(),
            "head": heads.flatten().numpy(),
            "from_position": (source := queries.flatten().numpy()),
            "from_token": tokens.take(source).to_numpy(),
            "to_position": (target := keys.flatten().numpy()),
            "to_token": tokens.take(target).to_numpy(),
            "weight": self.weights.flatten().numpy(),
        }
        return pandas.DataFrame(columns)

    def plot(self, layer: int | None = None, head: int | None = None) -> Figure:
        """Draw one head as a heat map; without a layer and head, all heads of all layers on one sheet.

        Write the picture with `minibert.pictures.plots.save`.

        Args:
            layer, head: which one. With a layer alone, the mean over its heads.

        Raises:
            MinibertError: a layer or head that the model does not have; a head without a layer.
            ImportError: matplotlib is not installed.
        """
        from minibert.pictures.attention import plot_attention, plot_attention_sheet

        weights, (first_layer, first_head) = self.chosen(layer, head)
        if layer is None and head is None:
            return plot_attention_sheet(weights, title="Attention of every head")
        if layer is None:
            raise MinibertError(f"layer (None) must be given with a head ({head}); pass layer=")
        which = "mean over heads" if head is None else f"head {first_head}"
        return plot_attention(weights[0].mean(0), self.tokens, title=f"Attention in layer {first_layer}, {which}")

    def to_html(self, path: str | Path) -> None:
        """Write a page for the browser: the text, shaded by attention, and lines between tokens for each head.

        It is one file that makes no request. With 12 layers, 12 heads and 128 tokens it has 6.3 MB; the size grows with
        the square of the tokens.
        """
        from minibert.pictures.page import attention_page

        with written_whole(Path(path)) as temporary:
            temporary.write_bytes(attention_page(self).encode())

    def _repr_html_(self) -> str | None:
        from minibert.pictures.page import attention_page, framed

        if self.weights.numel() > NOTEBOOK_WEIGHTS:
            return None  # a notebook shows `repr` then, which names `to_html`
        return framed(attention_page(self), "Attention")

    def __repr__(self) -> str:
        layers, heads, length, _ = self.weights.shape
        text = " ".join(self.tokens)
        large = "\n  too large for a notebook; write a page with to_html(path)" * (
            self.weights.numel() > NOTEBOOK_WEIGHTS
        )
        return (
            f"AttentionMaps: {layers} layers, {heads} heads, {length} tokens ({len(self.words)} words), "
            f"{self.nbytes / 1e6:.1f} MB\n  {text if len(text) <= 100 else text[:97] + '...'}{large}"
        )

    def _stacked(self, which: int) -> Tensor:
        """One of queries, keys and values of all layers, (L, A, S, D)."""
        return torch.cat([layer[which] for layer in self._projected]).float().cpu()

    def chosen(self, layer: int | None, head: int | None) -> tuple[Tensor, tuple[int, int]]:
        """The maps of a layer, a head, or all, (L or 1, A or 1, S, S), and the numbers of the first of them.

        Raises:
            MinibertError: a layer or head that the model does not have.
        """
        weights, first = self.weights, [0, 0]
        for dimension, (name, number) in enumerate((("layer", layer), ("head", head))):
            size = self.weights.shape[dimension]
            if number is None:
                continue
            if number not in range(-size, size):
                raise MinibertError(f"{name} ({number}) must be one of the model's {size}; pass 0 to {size - 1}")
            first[dimension] = number % size
            weights = weights.narrow(dimension, number % size, 1)
        return weights, (first[0], first[1])


def attention_maps(
    model: PretrainedModel, tokenizer: BertTokenizer, text: str, pair: str | None = None
) -> AttentionMaps:
    """Run a model on one text or pair and keep its attention.

    The model computes as in evaluation mode, whatever mode it is in, and is not changed.

    Args:
        model: of any class; its encoder is run.
        tokenizer: the model's.
        text, pair: what to read.

    Raises:
        MinibertError: what is not text; more tokens than the model has positions.
    """
    encoder = evaluating(getattr(model, "bert", model), {})
    longest = encoder.embeddings.position.num_embeddings
    reading = read(tokenizer, text, pair, longest, model.device)
    recording = Recording()
    check_fork()
    with torch.no_grad(), without_autocast():
        encoder.encoder(encoder.embeddings(reading.ids, reading.encoding["token_type_ids"]), recording)
    return AttentionMaps(reading, recording, [layer.attention.output for layer in encoder.encoder.layers])


def between_words(weights: Tensor, word_of: tuple[int, ...]) -> Tensor:
    """Weights between tokens (..., S, S) as weights between words (..., W, W): sums of columns, means of rows."""
    words = torch.tensor(word_of)
    member = torch.nn.functional.one_hot(words).to(weights.dtype)  # (S, W)
    return (member / member.sum(0)).T @ weights @ member
