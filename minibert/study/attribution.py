"""Which tokens a result is due to: integrated gradients."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from minibert.base import PretrainedModel
from minibert.engine.device import check_fork, without_autocast
from minibert.errors import MinibertError
from minibert.inputs import check_ids
from minibert.model import (
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)
from minibert.outputs import BertOutput
from minibert.study.reading import Reading, read
from minibert.text import check_text, whole_number
from minibert.tokenizer import BertTokenizer
from minibert.vectors.pooling import pool
from minibert.vectors.recipe import Recipe
from minibert.vectors.sentences import not_pooled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = (50, 100, 200, 400, 800)
TOLERANCE = 1e-3
TOKENS_AT_ONCE = 2_048  # of the steps computed together

Model = TypeVar("Model", bound=nn.Module)
Score = Callable[[BertOutput], Tensor]  # the encoder's output for B inputs -> (B,)


@dataclass(frozen=True)
class Explanation:
    """What each token adds to a result. Printing it prints the words and their scores.

    Attributes:
        tokens: the S tokens.
        words: the words, in order; each special token counts as one.
        word_of: for each token, the number of its word in `words`.
        scores: (S,) float32; they add up to `value - baseline`, but for the gap.
        target: what is explained.
        value: the result for the text: a logit, or a cosine.
        baseline: the result for the baseline.
        steps: points of the integral.
        gap: how far the sum of the scores is from `value - baseline`, as a fraction of it.
        converged: whether the gap is at most 0.001.
    """

    tokens: tuple[str, ...]
    words: tuple[str, ...]
    word_of: tuple[int, ...]
    scores: NDArray[np.float32]
    target: str
    value: float
    baseline: float
    steps: int
    gap: float

    @property
    def converged(self) -> bool:
        """Whether the gap is at most 0.001."""
        return self.gap <= TOLERANCE

    def by_word(self) -> NDArray[np.float32]:
        """The score of each word, (words,): the sum over its tokens."""
        return np.bincount(self.word_of, self.scores, len(self.words)).astype(np.float32)

    def top(self, k: int = 10) -> list[tuple[str, float]]:
        """The `k` words with the largest scores, whatever their sign."""
        whole_number("k", k)
        scores = self.by_word()
        largest = np.argsort(-np.abs(scores), kind="stable")[:k].tolist()
        return [(self.words[word], float(scores[word])) for word in largest]

    def plot(self, title: str = "") -> Figure:
        """Draw the text, each word shaded by its score."""
        from minibert.pictures.attention import plot_shaded

        return plot_shaded(self.words, self.by_word(), title=title or self.target)

    def __str__(self) -> str:
        width = max(map(len, self.words))
        rows = [f"{word:<{width}}  {score:8.4f}" for word, score in zip(self.words, self.by_word(), strict=True)]
        state = "converged" if self.converged else "NOT converged"
        return "\n".join(
            [
                f"{self.target}: {self.value:.4f}, baseline {self.baseline:.4f}",
                *rows,
                f"{state}: the sum is within {self.gap:.2g} of the difference, after {self.steps} steps",
            ]
        )

    __repr__ = __str__


def explain(
    model: PretrainedModel,
    tokenizer: BertTokenizer,
    text: Reading,
    target: str | int | None = None,
    position: int | None = None,
    baseline: str | None = None,
    steps: int | None = None,
) -> Explanation:
    """Explain a logit by `integrated_gradients`.

    Args:
        target: a token, or a label by name or number; None: what has the largest logit.
        position: the number of the token whose logits are read, where each has its own; None: the only [MASK].

    Raises:
        MinibertError: a model without such logits; a target or a position that is not there.
    """
    copied = float32_copy(model)
    logits = logits_of(copied, tokenizer, text, position)
    if target is None:
        with torch.no_grad(), without_autocast():
            encoded = encoder_of(copied)(text.ids, token_type_ids=text.encoding["token_type_ids"])
            number = int(logits(encoded)[0].argmax())
    else:
        number = target_number(copied, tokenizer, target)
    name = target_name(copied, tokenizer, number)
    return integrated_gradients(copied, tokenizer, text, lambda out: logits(out)[:, number], name, baseline, steps)


def explain_cosine(
    model: PretrainedModel,
    tokenizer: BertTokenizer,
    recipe: Recipe,
    limit: int,
    text: str,
    other: Tensor,
    baseline: str | None = None,
    steps: int | None = None,
) -> Explanation:
    """Explain the cosine of a text's vector and another vector by `integrated_gradients`.

    Args:
        recipe: how the text's vector is made; its default prompt is put before the text.
        limit: the most tokens of the text, with special tokens.
        other: (dimension,).

    Raises:
        MinibertError: what is not text; a text that exceeds the limit.
    """
    check_text([text])
    prompt = recipe.prompt
    reading = read(tokenizer, prompt + text, None, limit, model.device)
    skip = not_pooled(tokenizer, recipe, prompt)

    def score(out: BertOutput) -> Tensor:
        x = out.last_hidden_state
        pooled = pool(x.flatten(0, 1), [(0, x.shape[0], x.shape[1])], recipe.pooling, skip)
        return F.cosine_similarity(recipe.finish(pooled)[:, : len(other)], other, dim=-1)

    return integrated_gradients(float32_copy(model), tokenizer, reading, score, "cosine", baseline, steps)


def integrated_gradients(
    model: PretrainedModel,
    tokenizer: BertTokenizer,
    text: Reading,
    score: Score,
    target: str,
    baseline: str | None = None,
    steps: int | None = None,
) -> Explanation:
    """Integrate the gradient of a score along the straight line from a baseline to the text.

    The line is in the output of the token table (`embeddings.token`); token types and positions stay as they are. The
    baseline has [CLS] and [SEP] where the text has them, and one token in all other places. The integral is computed
    by Gauss-Legendre quadrature.

    Args:
        model: of `float32_copy`: its token table is replaced.
        score: what is explained.
        target: its name.
        baseline: the token of the baseline; None: the padding token.
        steps: points of the integral; None: 50, doubled up to 800 until the scores add up to the difference between
            the text and the baseline, within 0.001 of that difference.

    Raises:
        MinibertError: a baseline that is no token of the vocabulary.

    Source: Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks", sec. 3.
    """
    padding = tokenizer.pad_token_id if baseline is None else tokenizer.backend.token_to_id(str(baseline))
    if padding is None:
        raise MinibertError(f"baseline ({baseline!r}) must be a token of the vocabulary, such as '[PAD]' or '[MASK]'")
    plan = STEPS if steps is None else (whole_number("steps", steps),)
    kept = torch.isin(text.ids, torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id], device=text.ids.device))
    check_fork()
    with torch.inference_mode(False), torch.enable_grad(), without_autocast():
        line = Line(encoder_of(model), text, text.ids.masked_fill(~kept, padding), score)
        low, high = line.ends()
        for count in plan:
            scores = line.integral(count)
            gap = abs(float(scores.sum()) - (high - low)) / max(abs(high - low), 1e-12)
            if gap <= TOLERANCE:
                break
    values = scores.cpu().numpy().astype(np.float32)
    return Explanation(text.tokens, text.words, text.word_of, values, target, high, low, count, gap)


def encoder_of(model: PretrainedModel) -> BertModel:
    """The encoder, under whatever head."""
    encoder: Any = getattr(model, "bert", model)
    return cast(BertModel, encoder)


def logits_of(
    model: PretrainedModel, tokenizer: BertTokenizer, text: Reading, position: int | None
) -> Callable[[BertOutput], Tensor]:
    """From the encoder's output to the logits (B, N) of which one is explained."""
    if isinstance(model, (BertForMaskedLM, BertForPreTraining)):
        place = mask_of(tokenizer, text) if position is None else checked(text, position)
        table, head = model.bert.embeddings.token.weight, model.mlm_head
        return lambda out: cast(
            Tensor, head(out.last_hidden_state[:, place], table)
        )  # one position: (B, V), not S of it
    if isinstance(model, BertForTokenClassification):
        if position is None:
            raise MinibertError(
                f"position (None) must be the number of a token, 0 to {len(text.tokens) - 1}: each has its own label"
            )
        place, tagger = checked(text, position), model
        return lambda out: tagger.score(out)[:, place]
    if isinstance(model, (BertForSequenceClassification, BertForNextSentencePrediction)):
        if position is not None:
            raise MinibertError(f"position ({position}) must be left out: the model's logits are of the whole text")
        return model.score
    raise MinibertError(
        f"the model ({type(model).__name__}) must have a masked-LM head or a classifier for a target to be explained; "
        "pass similar_to= to explain a cosine"
    )


def mask_of(tokenizer: BertTokenizer, text: Reading) -> int:
    """The place of the only [MASK]."""
    places = [place for place, token in enumerate(text.ids[0].tolist()) if token == tokenizer.mask_token_id]
    if len(places) != 1:
        raise MinibertError(
            f"text must hold {tokenizer.mask_token} once, not {len(places)} times; pass position= to choose a token"
        )
    return places[0]


def checked(text: Reading, position: int) -> int:
    """The number of a token of the text."""
    if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position < len(text.tokens):
        raise MinibertError(f"position ({position!r}) must be the number of a token, 0 to {len(text.tokens) - 1}")
    return position


def target_number(model: PretrainedModel, tokenizer: BertTokenizer, target: str | int) -> int:
    """Which of the logits a target is."""
    labels = labels_of(model)
    count = model.config.vocab_size if labels is None else len(labels)
    if isinstance(target, int) and not isinstance(target, bool):
        if not 0 <= target < count:
            raise MinibertError(f"target ({target}) must be at least 0 and less than {count}")
        return target
    if not isinstance(target, str):
        raise MinibertError(f"target ({target!r:.40}) must be a token or a label, or the number of one")
    if labels is not None:
        if target not in labels:
            raise MinibertError(f"target ({target!r}) must be a label of the model: one of {', '.join(labels)}")
        return labels.index(target)
    number = tokenizer.backend.token_to_id(target)
    if number is None:
        pieces = tokenizer.tokenize(target)
        number = tokenizer.backend.token_to_id(pieces[0]) if len(pieces) == 1 else None
        if number is None or number == tokenizer.unk_token_id:
            raise MinibertError(f"target ({target!r}) must be one token; the tokenizer makes {pieces} of it")
    return check_row(target, number, count)


def check_row(target: str, number: int, count: int) -> int:
    """The id of a token, if the model has a logit for it."""
    if number >= count:
        raise MinibertError(
            f"target ({target!r}) must be a token with a row in the token table (vocab_size {count}); choose another"
        )
    return number


def target_name(model: PretrainedModel, tokenizer: BertTokenizer, number: int) -> str:
    """What people call a logit."""
    labels = labels_of(model)
    name: str = tokenizer.convert_ids_to_tokens(number) if labels is None else labels[number]
    return name


def labels_of(model: PretrainedModel) -> list[str] | None:
    """The labels in the order of the logits; None: the logits are of the vocabulary."""
    if isinstance(model, BertForNextSentencePrediction):
        return ["follows", "does not follow"]
    if isinstance(model, (BertForSequenceClassification, BertForTokenClassification)):
        names = model.config.id2label or {}
        return [names[number] for number in range(model.config.num_labels)]
    return None


class Line:
    """The straight line from the baseline's token embeddings to the text's, and a score along it."""

    def __init__(self, encoder: BertModel, text: Reading, baseline: Tensor, score: Score) -> None:
        self.encoder, self.score, self.text = encoder, score, text
        for ids in (baseline, text.ids):
            check_ids(ids, encoder.embeddings.token, "a token id", "vocab_size")
        with torch.no_grad():
            self.start: Tensor = encoder.embeddings.token(baseline)  # (1, S, H)
            self.way: Tensor = encoder.embeddings.token(text.ids) - self.start
        self.x = self.start
        # from here on the token table of this copy returns `x`
        encoder.embeddings.token.register_forward_hook(lambda module, arguments, output: self.x)

    def at(self, x: Tensor) -> Tensor:
        """The scores (B,) of B inputs, given as token embeddings (B, S, H)."""
        self.x = x
        ids, types = (one.expand(len(x), -1) for one in (self.text.ids, self.text.encoding["token_type_ids"]))
        return self.score(self.encoder(ids, token_type_ids=types))

    @torch.no_grad()
    def ends(self) -> tuple[float, float]:
        """The scores of the baseline and of the text."""
        low, high = self.at(torch.cat([self.start, self.start + self.way])).tolist()
        return low, high

    def integral(self, steps: int) -> Tensor:
        """The score of each token, (S,) float64, by Gauss-Legendre quadrature with so many points."""
        points, weights = np.polynomial.legendre.leggauss(steps)
        alphas = torch.from_numpy((1 + points) / 2).to(self.way)
        shares = torch.from_numpy(weights / 2).to(self.way)
        mean = torch.zeros_like(self.way[0], dtype=torch.float64 if self.way.device.type != "mps" else None)
        size = max(1, TOKENS_AT_ONCE // self.way.shape[1])
        for first in range(0, steps, size):
            some = slice(first, first + size)
            x = (self.start + alphas[some, None, None] * self.way).requires_grad_()
            [gradients] = torch.autograd.grad(self.at(x).sum(), x)
            mean += torch.einsum("b,bsh->sh", shares[some], gradients)
        return (mean * self.way[0]).sum(-1)


def float32_copy(module: Model) -> Model:
    """A copy of a module tree in evaluation mode; float32 parameters are shared, and none has a gradient."""
    shared = {id(one): nn.Parameter(one.detach().float(), requires_grad=False) for one in module.parameters()}
    return deepcopy(module, dict(shared)).eval()
