"""The ablation sweep: what each head of attention is worth, measured by leaving out one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minibert.attention import Padded
from minibert.base import PretrainedModel
from minibert.engine.device import check_fork, without_autocast
from minibert.errors import MinibertError
from minibert.model import BertForMaskedLM, BertForPreTraining, BertForSequenceClassification, BertModel
from minibert.outputs import BertOutput
from minibert.study.attribution import check_row, labels_of
from minibert.study.edits import with_steps
from minibert.study.reading import Reading, read
from minibert.text import as_list
from minibert.vectors.pooling import pool

TOKENS_AT_ONCE = 2_048
# From the last hidden states of variants of a text, (N, S, H), the first as the model gives it, to a number for each.
Measure = Callable[[Tensor, Reading], Tensor]


@torch.no_grad()
def ablation(
    bert: Any,
    texts: str | Iterable[str],
    target: str | int | Callable[[BertOutput], Tensor] = "vector",
    pairs: str | Iterable[str] | None = None,
) -> Tensor:
    """How much a target loses when each head alone is set to zero; the mean over the texts.

    All variants of a text go through the model together, one for each head. Those of a layer's heads join after that
    layer, since the layers before it compute the same for all.

    Args:
        bert: a `Bert`.
        target: "vector": 1 - the cosine of the sentence vectors with and without the head; no prompt is put before the
            text. With a masked-LM head, a token: its logit at [MASK], of which each text has one or more. With a
            classifier of texts, the number or the label of a class: its logit. Or a function that takes the output of
            the encoder for a batch of N variants and returns N numbers.
        pairs: for each text, the second one of its pair.

    Returns:
        (L, A) float32. For a logit or a function: its value with all heads less its value without this one, so that it
        is positive where the head helps.

    Raises:
        MinibertError: no texts; a target that the model does not have; a text that is too long.
    """
    check_fork()
    listed = as_list(texts)
    if not listed:
        raise MinibertError("texts ([]) must hold at least one text")
    seconds = [None] * len(listed) if pairs is None else as_list(pairs)
    if len(seconds) != len(listed):
        raise MinibertError(f"pairs ({len(seconds)}) must be as many as texts ({len(listed)})")
    config = bert.config
    model = _variants(bert)
    measure = _measure(bert, model, target)
    total = torch.zeros(config.num_hidden_layers * config.num_attention_heads, dtype=torch.float64)
    for text, pair in zip(listed, seconds, strict=True):
        reading = read(bert.tokenizer, text, pair, config.max_position_embeddings, model.device)
        with without_autocast():
            values = measure(_through(bert, model, reading), reading).cpu().double()
        total += values[0] - values[1:]
    mean: Tensor = (total / len(listed)).float()
    return mean.view(config.num_hidden_layers, config.num_attention_heads)


def _variants(bert: Any) -> PretrainedModel:
    """A copy of the model in evaluation mode, whose layers leave out head a in row a of a batch of A."""
    heads = bert.config.num_attention_heads
    keep = ~torch.eye(heads, dtype=torch.bool, device=bert.model.device)[:, None, :, None]  # (A, 1, A, 1)

    def without_one(x: Tensor, mask: Tensor | None) -> Tensor:
        return (x.view(*x.shape[:-1], heads, -1) * keep).flatten(-2)  # (A, S, H) -> (A, S, A, D)

    points = [f"encoder.layers.{layer}.attention.output.input" for layer in range(len(bert.layers))]
    return with_steps(bert.model, dict.fromkeys(points, without_one)).eval()


def _through(bert: Any, variants: PretrainedModel, reading: Reading) -> Tensor:
    """The last hidden states of a text (1 + L * A, S, H): as it is, then without each head of each layer."""
    model: BertModel = bert.engine.twin().model
    heads = bert.config.num_attention_heads
    x: Tensor = model.embeddings(reading.ids, reading.encoding["token_type_ids"])
    at_once = max(1, TOKENS_AT_ONCE // x.shape[1])
    for layer, variant in zip(model.encoder.layers, variants._encoder.encoder.layers, strict=True):
        new = variant(x[:1].expand(heads, -1, -1), Padded())
        x = torch.cat([*(layer(part, Padded()) for part in torch.split(x, at_once)), new])
    return x


def _measure(bert: Any, model: PretrainedModel, target: str | int | Callable[[BertOutput], Tensor]) -> Measure:
    """What a target means for this model, which is in evaluation mode."""
    if callable(target):
        return lambda x, reading: _numbers(target(_output(model, x)), len(x))
    if target == "vector":
        return _vector(bert)
    if isinstance(model, (BertForMaskedLM, BertForPreTraining)) and isinstance(target, str):
        return _token(bert, model, target)
    if isinstance(model, BertForSequenceClassification):
        labels = labels_of(model) or []
        number = labels.index(target) if target in labels else target
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < model.config.num_labels:
            return lambda x, reading: model.classifier(_output(model, x).pooler_output)[:, number]
        raise MinibertError(f"target ({target!r}) must be 'vector', a class ({', '.join(labels)}) or a function")
    raise MinibertError(
        f"target ({target!r}) must be 'vector' or a function for {type(model).__name__}; a token needs a masked-LM "
        "head, a class a classifier of texts"
    )


def _output(model: PretrainedModel, x: Tensor) -> BertOutput:
    pooler = model._encoder.pooler
    return BertOutput(last_hidden_state=x, pooler_output=None if pooler is None else pooler(x))


def _numbers(values: Tensor, count: int) -> Tensor:
    if not isinstance(values, Tensor) or tuple(values.shape) != (count,):
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise MinibertError(f"the target's result {shape} must be a tensor of {count} numbers, one for each variant")
    return values


def _vector(bert: Any) -> Measure:
    bert.recipe.check()
    recipe, width = bert.recipe, bert.dimension

    def cosine(x: Tensor, reading: Reading) -> Tensor:
        count, length, _ = x.shape
        vectors = recipe.finish(pool(x.flatten(0, 1), [(0, count, length)], recipe.pooling))[:, :width]
        vectors = vectors.cpu().double()  # some devices have no float64
        return F.cosine_similarity(vectors, vectors[:1], dim=-1)

    return cosine


def _token(bert: Any, model: BertForMaskedLM | BertForPreTraining, token: str) -> Measure:
    number = bert.tokenizer.backend.token_to_id(token)
    if number is None:
        raise MinibertError(f"target ({token!r}) must be 'vector' or a token of the vocabulary")
    check_row(token, number, model.config.vocab_size)

    def logit(x: Tensor, reading: Reading) -> Tensor:
        places = (reading.ids[0] == bert.tokenizer.mask_token_id).nonzero()[:, 0]
        if not len(places):
            mask = bert.tokenizer.mask_token
            raise MinibertError(f"text ({' '.join(reading.words)!r:.60}) must hold {mask} at least once; it does not")
        logits: Tensor = model.mlm_head(x[:, places], model.bert.embeddings.token.weight)  # (N, masks, V)
        return logits[..., number].float().mean(1)

    return logit
