"""Fill masks: predict the tokens at each [MASK] of a text, as BERT was trained to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from minibert.base import PretrainedModel
from minibert.engine.device import check_fork
from minibert.errors import MinibertError
from minibert.model import BertForMaskedLM, BertForPreTraining
from minibert.pretrained.source import Source
from minibert.text import as_list, check_text, whole_number
from minibert.tokenizer import BertTokenizer


class Candidate(NamedTuple):
    """A prediction for a [MASK].

    Attributes:
        token: the token, or the target as it was given.
        id: its id; several for a target of several pieces.
        probability: between 0 and 1.
        text: the text with the token in place of this [MASK].
    """

    token: str
    id: int | tuple[int, ...]
    probability: float
    text: str


class MaskSettings(TypedDict, total=False):
    """Keyword arguments of `Bert.fill_mask`."""

    top_k: int | None
    targets: Sequence[str] | None


Filled = list[Candidate] | list[list[Candidate]]  # of a text with one [MASK], or with several


def check_head(model: PretrainedModel, source: Source, missing: Sequence[str]) -> BertForMaskedLM | BertForPreTraining:
    """Return the model, or raise MinibertError if it lacks a masked-LM head, naming the missing tensors."""
    if not isinstance(model, (BertForMaskedLM, BertForPreTraining)):
        raise MinibertError(
            f"{source} must have a masked-LM head to fill masks; it lacks {', '.join(missing)}: "
            "load a checkpoint that has it, google-bert/bert-base-uncased for one"
        )
    return model


def fill_masks(
    model: BertForMaskedLM | BertForPreTraining,
    tokenizer: BertTokenizer,
    texts: str | Iterable[str],
    *,
    top_k: int | None = None,
    targets: Sequence[str] | None = None,
) -> list[Filled]:
    """`fill_mask` of one text or several; a text with one [MASK] gets its candidates without a list around them.

    Raises:
        MinibertError: as for `fill_mask`.
        RuntimeError: as for `check_fork`.
    """
    check_fork()
    results: list[Filled] = []
    for index, text in enumerate(as_list(texts)):
        candidates = fill_mask(model, tokenizer, text, top_k=top_k, targets=targets, index=index)
        results.append(candidates[0] if len(candidates) == 1 else candidates)
    return results


@torch.no_grad()
def fill_mask(
    model: BertForMaskedLM | BertForPreTraining,
    tokenizer: BertTokenizer,
    text: str,
    *,
    top_k: int | None = None,
    targets: Sequence[str] | None = None,
    index: int = 0,
) -> list[list[Candidate]]:
    """The candidates for each [MASK] of a text, the most probable first.

    Args:
        model: a model with a masked-LM head.
        tokenizer: its tokenizer.
        text: the text, with at least one [MASK].
        top_k: how many candidates; None means 5, or all targets.
        targets: compare only these words. A target of several pieces takes as many masks, filled from left to right;
            its probability is the product of the steps.
        index: the number of the text, for messages.

    Raises:
        MinibertError: a text without [MASK], or too long; an impossible target.
    """
    top_k = None if top_k is None else whole_number("top_k", top_k)
    if targets is not None and (isinstance(targets, str) or not isinstance(targets, Sequence) or not targets):
        raise MinibertError(f"targets ({targets!r}) must be a list of at least one word; pass [{targets or 'word'!r}]")
    check_text([text])
    encoding = tokenizer.encode_texts([text])[0]
    ids: list[int] = encoding.ids
    places = [i for i, token in enumerate(ids) if token == tokenizer.mask_token_id]
    if not places:
        raise MinibertError(f"text {index} ({text!r:.60}) must hold {tokenizer.mask_token} at least once; it does not")
    limit = model.config.max_position_embeddings
    if len(ids) > limit:
        raise MinibertError(
            f"text {index} has {len(ids)} tokens, but must have at most {limit} for its masks to be filled; shorten it"
        )

    distributions = _probabilities(model, [ids], [0] * len(places), places)  # (masks, V)
    results = []
    for place, distribution in zip(places, distributions, strict=True):
        start, end = encoding.offsets[place]
        start = end - len(text[start:end].lstrip())  # SentencePiece's masks take the space before them, too
        if targets is None:
            named = distribution[: len(tokenizer)]  # the table may have more rows than the vocabulary
            top = named.topk(min(top_k or 5, len(named)))
            candidates = [
                Candidate(token, i, probability, _filled(tokenizer, text, start, end, token))
                for i, probability in zip(top.indices.tolist(), top.values.tolist(), strict=True)
                if (token := tokenizer.convert_ids_to_tokens(i))
            ]
        else:
            candidates = [
                _weigh(model, tokenizer, target, ids, place, distribution, text, (start, end)) for target in targets
            ]
            candidates.sort(key=lambda candidate: -candidate.probability)
            candidates = candidates[:top_k]
        results.append(candidates)
    return results


def _probabilities(
    model: BertForMaskedLM | BertForPreTraining,
    rows: Sequence[Sequence[int]],
    which: Sequence[int],
    places: Sequence[int],
) -> Tensor:
    """The distributions (N, V) over the vocabulary at N places of rows of one length; the head runs only there."""
    x = model.bert(torch.tensor(rows, device=model.device)).last_hidden_state
    logits = model.mlm_head(x[which, places], model.bert.embeddings.token.weight)
    return logits.float().softmax(-1)


def _weigh(
    model: BertForMaskedLM | BertForPreTraining,
    tokenizer: BertTokenizer,
    target: str,
    ids: Sequence[int],
    place: int,
    distribution: Tensor,
    text: str,
    span: tuple[int, int],
) -> Candidate:
    """The probability of one target: p(first piece) x p(second piece, given the first) x ..."""
    check_text([target])
    space = " " if text[: span[0]][-1:].isspace() else ""
    pieces: list[int] = tokenizer.encode(space + target, add_special_tokens=False)
    whole = tokenizer.backend.token_to_id(target)  # a token as the vocabulary spells it, `##ing` for one
    if whole is not None and len(pieces) != 1:
        pieces = [whole]
    if not pieces or tokenizer.unk_token_id in pieces:
        raise MinibertError(
            f"target ({target!r}) must be made of the vocabulary's pieces; it is not: choose another word"
        )
    first = tokenizer.convert_ids_to_tokens(pieces[0])
    filled = _filled(tokenizer, text, *span, first, None if pieces == [whole] else target)
    if len(pieces) == 1:
        return Candidate(target, pieces[0], float(distribution[pieces[0]]), filled)
    count = len(pieces)
    if len(ids) + count - 1 > model.config.max_position_embeddings:
        raise MinibertError(
            f"target ({target!r}) has {count} pieces, which with the text must not exceed "
            f"{model.config.max_position_embeddings} tokens; shorten the text"
        )
    # Row j has the first j pieces and masks for the others, so one pass computes all steps.
    rows = [
        [*ids[:place], *pieces[:j], *[tokenizer.mask_token_id] * (count - j), *ids[place + 1 :]] for j in range(count)
    ]
    steps = _probabilities(model, rows, range(count), range(place, place + count))
    probability = float(steps[range(count), pieces].log().sum().exp())
    return Candidate(target, tuple(pieces), probability, filled)


def _filled(tokenizer: BertTokenizer, text: str, start: int, end: int, token: str, word: str | None = None) -> str:
    """The text with a token, or the word that begins with it, in place of its mask.

    A `##piece` continues the word before the mask.
    """
    written, continues = tokenizer.spelled(token)
    return (text[:start].rstrip() if continues else text[:start]) + (word or written) + text[end:]
