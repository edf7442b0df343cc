"""Fill masks: predict the tokens at each [MASK] of a text, as BERT was trained to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import torch
from tokenizers import Encoding
from torch import Tensor

from minibert.base import PretrainedModel
from minibert.engine.device import without_autocast
from minibert.engine.engine import Engine, Plan
from minibert.engine.rows import TOKENIZED_AT_ONCE, Rows
from minibert.engine.stream import Progress, chunks
from minibert.engine.twin import evaluating
from minibert.errors import MinibertError
from minibert.model import BertForMaskedLM, BertForPreTraining
from minibert.pretrained.source import Source
from minibert.tasks.heads import check_fault
from minibert.text import check_text, whole_number
from minibert.tokenizer import BertTokenizer

MASKS_AT_ONCE = 512  # each has a logit for every token of the vocabulary


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
    batch_size: int | None
    batch_tokens: int | None
    show_progress_bar: bool | None


Filled = list[Candidate] | list[list[Candidate]]  # of a text with one [MASK], or with several


def check_head(model: PretrainedModel, source: Source, missing: Sequence[str]) -> BertForMaskedLM | BertForPreTraining:
    """Return the model, or raise MinibertError if it lacks a masked-LM head, naming the missing tensors."""
    if not isinstance(model, (BertForMaskedLM, BertForPreTraining)):
        check_fault(model, source)
        raise MinibertError(
            f"{source} must have a masked-LM head to fill masks; it lacks {', '.join(missing)}: "
            "load a checkpoint that has it, google-bert/bert-base-uncased for one"
        )
    return model


class Mask(NamedTuple):
    """A mask of a text.

    Attributes:
        text: as it was given.
        ids: of its tokens.
        place: which of them is the mask.
        start, end: where the mask is in the text, in characters.
    """

    text: str
    ids: list[int]
    place: int
    start: int
    end: int


class Query(NamedTuple):
    """What to predict at one mask.

    Attributes:
        row: the number of the row.
        place: of the mask in the row.
        token: the id whose probability is wanted; None: the most probable ones.
    """

    row: int
    place: int
    token: int | None = None


class Prediction(NamedTuple):
    """The answer to a query: ids and their probabilities, the most probable first."""

    ids: list[int]
    probabilities: list[float]


@dataclass(frozen=True)
class MaskFiller:
    """Fills the masks of texts, with the settings of one call.

    Attributes:
        engine: computes the hidden states.
        model, tokenizer: those of the checkpoint.
        plan: how much to compute in each pass.
        top_k: how many candidates; None means 5, or all targets.
        targets: compare only these words. A target of several pieces takes as many masks, filled from left to right;
            its probability is the product of the steps.

    Raises:
        MinibertError: `top_k` below 1; targets that are no list.
    """

    engine: Engine
    model: BertForMaskedLM | BertForPreTraining
    tokenizer: BertTokenizer
    plan: Plan
    top_k: int | None = None
    targets: Sequence[str] | None = None

    def __post_init__(self) -> None:
        targets = self.targets
        if self.top_k is not None:
            whole_number("top_k", self.top_k)
        if targets is not None and (isinstance(targets, str) or not isinstance(targets, Sequence) or not targets):
            raise MinibertError(
                f"targets ({targets!r}) must be a list of at least one word; pass [{targets or 'word'!r}]"
            )
        check_text(targets or [])

    def __call__(self, texts: Iterable[Any], total: int | None, shown: bool | None) -> Iterator[Filled]:
        """Fill the masks of a stream of texts; a text with one [MASK] gets its candidates without a list around them.

        Args:
            texts: they are checked already.
            total: how many there are, if known.
            shown: whether to show a progress bar.

        Raises:
            MinibertError: a text without [MASK], or too long; an impossible target.
        """
        count = 0
        with Progress(total, shown, "fill_mask") as progress:
            for chunk in chunks(texts, TOKENIZED_AT_ONCE):
                pairs = zip(chunk, self.tokenizer.encode_texts(chunk), strict=True)
                masks = [self._masks(text, encoding, number) for number, (text, encoding) in enumerate(pairs, count)]
                for candidates in self._fill(masks, progress):
                    yield candidates[0] if len(candidates) == 1 else candidates
                count += len(chunk)

    def _masks(self, text: str, encoding: Encoding, number: int) -> list[Mask]:
        """The masks of a text, which must have some and not be too long."""
        ids: list[int] = encoding.ids
        places = [i for i, token in enumerate(ids) if token == self.tokenizer.mask_token_id]
        limit = self.model.config.max_position_embeddings
        if not places:
            mask = self.tokenizer.mask_token
            raise MinibertError(f"text {number} ({text!r:.60}) must hold {mask} at least once; it does not")
        if len(ids) > limit:
            raise MinibertError(
                f"text {number} has {len(ids)} tokens, but must have at most {limit} for its masks to be filled; "
                "shorten it"
            )
        spans = [encoding.offsets[place] for place in places]
        # SentencePiece's masks take the space before them, too
        starts = [end - len(text[start:end].lstrip()) for start, end in spans]
        return [
            Mask(text, ids, place, start, end) for place, start, (_, end) in zip(places, starts, spans, strict=True)
        ]

    def _fill(self, texts: Sequence[list[Mask]], progress: Progress) -> Iterator[list[list[Candidate]]]:
        """The candidates for each mask of each text, the most probable first."""
        rows, queries = Rows(), list[Query]()
        spelled: list[list[list[int]]] = []  # for each mask, the pieces of each target
        for number, masks in enumerate(texts):
            own = rows.append(masks[0].ids, number)
            for mask in masks:
                place = mask.place
                spelled.append([self._pieces(target, mask) for target in self.targets or ()])
                if self.targets is None:
                    queries.append(Query(own, place))
                for pieces in spelled[-1]:
                    if len(pieces) == 1:
                        queries.append(Query(own, place, pieces[0]))
                        continue
                    # row j has the first j pieces and masks for the others, so that all steps are computed at once
                    for j, piece in enumerate(pieces):
                        hidden = [self.tokenizer.mask_token_id] * (len(pieces) - j)
                        row = rows.append([*mask.ids[:place], *pieces[:j], *hidden, *mask.ids[place + 1 :]], number)
                        queries.append(Query(row, place + j, piece))
        predictions, of_masks = iter(self._predict(rows, queries, progress)), iter(spelled)
        for masks in texts:
            yield [
                self._likeliest(mask, next(predictions))
                if self.targets is None
                else self._compared(mask, self.targets, next(of_masks), predictions)
                for mask in masks
            ]

    def _predict(self, rows: Rows, queries: Sequence[Query], progress: Progress) -> list[Prediction]:
        """The answer to each query. The head runs at the masks alone."""
        at: dict[int, list[int]] = {}
        for number, query in enumerate(queries):
            at.setdefault(query.row, []).append(number)
        found = [Prediction([], [])] * len(queries)
        head, table = evaluating(self.model.mlm_head, {}), self.model.bert.embeddings.token.weight
        named = min(len(self.tokenizer), len(table))  # either may have more
        for one in self.engine.states(rows, self.plan, progress.add):
            begins = [start + i * length for start, count, length in one.groups for i in range(count)]
            here = [
                (begin, number) for row, begin in zip(one.indices, begins, strict=False) for number in at.get(row, ())
            ]
            for start in range(0, len(here), MASKS_AT_ONCE):
                part = here[start : start + MASKS_AT_ONCE]
                places = [begin + queries[number].place for begin, number in part]
                with torch.inference_mode(), without_autocast():
                    probabilities: Tensor = head(one.states[places], table).float().softmax(-1)  # (masks, V)
                if self.targets is None:
                    top = probabilities[:, :named].topk(min(self.top_k or 5, named))
                    ids, chances = top.indices, top.values
                else:
                    ids = torch.tensor([[queries[number].token] for _, number in part], device=probabilities.device)
                    chances = probabilities.gather(1, ids)
                for (_, number), *answer in zip(part, ids.tolist(), chances.tolist(), strict=True):
                    found[number] = Prediction(*answer)
        return found

    def _likeliest(self, mask: Mask, prediction: Prediction) -> list[Candidate]:
        """The most probable tokens as candidates."""
        tokens = self.tokenizer.convert_ids_to_tokens(prediction.ids)
        return [
            Candidate(token, i, probability, self._filled(mask, token))
            for token, i, probability in zip(tokens, *prediction, strict=True)
            if token
        ]

    def _compared(
        self, mask: Mask, targets: Sequence[str], spelled: Sequence[list[int]], predictions: Iterator[Prediction]
    ) -> list[Candidate]:
        """The targets as candidates, the most probable first."""
        candidates = []
        for target, pieces in zip(targets, spelled, strict=True):
            steps = [next(predictions).probabilities[0] for _ in pieces]
            whole = len(pieces) == 1 and self.tokenizer.backend.id_to_token(pieces[0]) == target
            filled = self._filled(mask, self.tokenizer.convert_ids_to_tokens(pieces[0]), None if whole else target)
            token = pieces[0] if len(pieces) == 1 else tuple(pieces)
            candidates.append(Candidate(target, token, math.prod(steps), filled))
        candidates.sort(key=lambda candidate: -candidate.probability)
        return candidates[: self.top_k]

    def _pieces(self, target: str, mask: Mask) -> list[int]:
        """The ids of a target at a mask.

        Raises:
            MinibertError: the vocabulary cannot spell it, the model has no row for it, or it makes the text too long.
        """
        space = " " if mask.text[: mask.start][-1:].isspace() else ""
        pieces: list[int] = self.tokenizer.encode(space + target, add_special_tokens=False)
        whole = self.tokenizer.backend.token_to_id(target)  # a token as the vocabulary spells it, `##ing` for one
        if whole is not None and len(pieces) != 1:
            pieces = [whole]
        if not pieces or self.tokenizer.unk_token_id in pieces:
            raise MinibertError(
                f"target ({target!r}) must be made of the vocabulary's pieces; it is not: choose another word"
            )
        size = self.model.config.vocab_size
        if max(pieces) >= size:
            raise MinibertError(
                f"target ({target!r}) must be made of tokens with a row in the token table (vocab_size {size}); choose "
                "another word"
            )
        limit = self.model.config.max_position_embeddings
        if len(mask.ids) + len(pieces) - 1 > limit:
            raise MinibertError(
                f"target ({target!r}) has {len(pieces)} pieces, which with the text must not exceed {limit} tokens; "
                "shorten the text"
            )
        return pieces

    def _filled(self, mask: Mask, token: str, word: str | None = None) -> str:
        """The text with a token, or the word that begins with it, in place of the mask.

        A `##piece` continues the word before the mask.
        """
        written, continues = self.tokenizer.spelled(token)
        before = mask.text[: mask.start]
        return (before.rstrip() if continues else before) + (word or written) + mask.text[mask.end :]
