"""Masked-language modelling: which tokens of a row are hidden, and what is shown in their place.

Of the chosen tokens, 80 % become [MASK], 10 % a random token, and 10 % stay as they are, so that the model must also
have an opinion on tokens that it sees. Each time a row is drawn, other tokens are chosen.

Source: Devlin et al. 2018, sec. 3.1, task 1, and appendix C.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from minibert.errors import MinibertError
from minibert.tokenizer import BertTokenizer
from minibert.training.objectives import IGNORED
from minibert.training.packed import Example, Ids


@dataclass(frozen=True, eq=False)
class Masking:
    """How rows are masked.

    Attributes:
        mask: the id of [MASK].
        ordinary: (V,) bool, the tokens that may be chosen and shown at random: all but the special ones.
        continues: (V,) bool, the tokens that continue a word, `##ing`; None chooses tokens, not whole words.
        rate: the part of the ordinary tokens of a row that is chosen.
    """

    mask: int
    ordinary: NDArray[np.bool_]
    continues: NDArray[np.bool_] | None = None
    rate: float = 0.15

    @classmethod
    def of(
        cls, tokenizer: BertTokenizer, rate: float = 0.15, whole_words: bool = False, size: int | None = None
    ) -> Self:
        """The masking for a tokenizer, and for a model with `size` tokens if that is fewer.

        Raises:
            MinibertError: a rate outside (0, 1); whole words of a vocabulary that does not mark them.
        """
        if not 0 < rate < 1:
            raise MinibertError(f"mask_rate ({rate}) must be between 0 and 1; 0.15 is BERT's")
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        ordinary = np.ones(len(tokens), dtype=bool)
        ordinary[tokenizer.all_special_ids] = False
        if size is not None:
            ordinary[size:] = False
        ordinary &= [not token.startswith("[unused") for token in tokens]
        continues = np.array([tokenizer.spelled(token)[1] for token in tokens]) if whole_words else None
        if continues is not None and not continues.any():
            raise MinibertError("whole_words needs a vocabulary that marks the pieces of words; this one does not")
        return cls(tokenizer.mask_token_id, ordinary, continues, rate)

    def __call__(self, ids: Ids, random: np.random.Generator) -> Example:
        """A row with some tokens hidden, and these as labels.

        At least one token is chosen, if there is any ordinary one.

        Args:
            ids: (S,) the row, with special tokens.
            random: decides.
        """
        places = np.flatnonzero(self.ordinary[ids])
        count = min(len(places), max(1, round(self.rate * len(places))))
        if self.continues is None:
            chosen = random.choice(places, count, replace=False) if count else places
        else:
            chosen = _words(ids, places, self.continues, count, random)
        labels = np.full(len(ids), IGNORED)
        labels[chosen] = ids[chosen]
        shown = ids.copy()
        fate = random.random(len(chosen))
        shown[chosen[fate < 0.8]] = self.mask
        swapped = chosen[fate >= 0.9]
        shown[swapped] = random.choice(np.flatnonzero(self.ordinary), len(swapped))
        return Example((shown,), labels)


def _words(
    ids: Ids, places: NDArray[np.int64], continues: NDArray[np.bool_], count: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """The places of whole words, in random order: as many as have `count` pieces together, but at least one."""
    begins = ~continues[ids[places]] | (np.diff(places, prepend=-2) > 1)
    words = np.split(places, np.flatnonzero(begins)[1:])
    taken: list[NDArray[np.int64]] = []
    room = count
    for index in random.permutation(len(words)):
        if len(words[index]) <= room or not taken:
            taken.append(words[index])
            room -= len(words[index])
        if room <= 0:
            break
    return np.concatenate(taken) if taken else places
