"""A trace: tensors from inside the model, as one text went through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from minibert.base import PretrainedModel
from minibert.engine.device import check_fork
from minibert.model import BertForMultipleChoice
from minibert.study.edits import Step, owner, with_steps
from minibert.study.points import choose, points_of
from minibert.study.reading import Reading, as_pairs, read
from minibert.tokenizer import BertTokenizer


class Trace(Mapping[str, Tensor]):
    """Tensors by the name of their point, in the order in which they were computed.

    They are the model's own, not copies, in its dtype and on its device, with a batch of one text in front.

    Attributes:
        tokens: the S tokens.
        words: the words; each special token counts as one.
        word_of: for each token, the number of its word in `words`.
    """

    def __init__(self, reading: Reading, tensors: Mapping[str, Tensor]) -> None:
        self.tokens = reading.tokens
        self.words = reading.words
        self.word_of = reading.word_of
        self._tensors = tensors

    def __getitem__(self, point: str) -> Tensor:
        return self._tensors[point]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        width = max(map(len, self._tensors), default=0)
        lines = [f"  {name:<{width}}  {tuple(tensor.shape)}" for name, tensor in self._tensors.items()]
        return "\n".join([f"Trace of {len(self.tokens)} tokens: {' '.join(self.tokens):.80}", *lines])


def trace(
    model: PretrainedModel,
    tokenizer: BertTokenizer,
    text: str | Sequence[str],
    pair: str | Sequence[str] | None,
    points: str | Sequence[str],
) -> Trace | list[Trace]:
    """`trace_one` for a text, or for each of several, which do not see each other and need no padding."""
    traces = [trace_one(model, tokenizer, *both, points) for both in as_pairs(text, pair)]
    return traces[0] if isinstance(text, str) else traces


@torch.no_grad()
def trace_one(
    model: PretrainedModel, tokenizer: BertTokenizer, text: str, pair: str | None, points: str | Sequence[str]
) -> Trace:
    """Run one text, or a pair, in evaluation mode, and keep the tensors at some points.

    Args:
        points: names or patterns, as `points.choose` has them.

    Raises:
        MinibertError: an unknown point; more tokens than the model takes.
    """
    check_fork()
    names = choose(points_of(model), points)
    reading = read(tokenizer, text, pair, model.config.max_position_embeddings, model.device)
    found: dict[str, Tensor] = {}

    def keeper(name: str) -> Step:
        def keep(x: Tensor, mask: Tensor | None) -> Tensor:
            found[name] = x
            return x

        return keep

    training = any(part.training for part in model.modules())
    tree = with_steps(model, {name: keeper(name) for name in names}, whole=training)
    run = tree if any(owner(model, name) is model for name in names) else tree._encoder  # without the head if it can
    if training:
        run.eval()
    inputs = dict(reading.encoding)
    if isinstance(run, BertForMultipleChoice):
        inputs = {name: tensor[:, None] for name, tensor in inputs.items()}  # (B, S) -> (B, choices, S)
    run(**inputs)
    return Trace(reading, {name: found[name] for name in names})
