"""Sentence vectors: texts in, one vector for each out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from minibert.engine.engine import LAST, Combine, Engine, Pass, Plan
from minibert.engine.rows import RowMaker, Rows, Truncation, token_rows
from minibert.engine.stream import Progress, Truncated, chunks
from minibert.errors import MinibertError, warn
from minibert.pretrained.arguments import check_device
from minibert.text import as_stream, unwrapped
from minibert.tokenizer import BertTokenizer
from minibert.vectors.pooling import pool, pooling_modes
from minibert.vectors.recipe import Recipe
from minibert.vectors.similarity import Precision, check_precision, quantize_embeddings

Encode = TypeVar("Encode", bound=Callable[..., Any])


class EncodeSettings(TypedDict, total=False):
    """Keyword arguments of `Bert.encode`, without `convert_to_tensor`, which decides the return type."""

    layers: int | Sequence[int] | None
    combine: Combine
    pooling: str | Sequence[str] | None
    batch_tokens: int | None
    normalize_embeddings: bool
    truncate_dim: int | None
    precision: Precision
    calibration_embeddings: Any
    convert_to_numpy: bool
    device: torch.device | str | None
    truncation: Truncation


class SentenceEncoder:
    """Turns texts into vectors with the recipe of a checkpoint and the settings of one call.

    Args:
        engine: computes the hidden states.
        tokenizer, recipe: those of the checkpoint.
        limit: the most tokens of a text, with special tokens.
        plan: which hidden states are pooled, and how much to compute in each pass.
        pooling: modes of `vectors.pooling`; None means the recipe's.
        prompt: put before each text.
        truncate_dim, normalize, truncation: as for `Bert.encode`.

    Raises:
        MinibertError: the recipe cannot be followed; a setting that makes no sense; a prompt that leaves no room.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: BertTokenizer,
        recipe: Recipe,
        limit: int,
        *,
        plan: Plan = LAST,
        pooling: str | Sequence[str] | None = None,
        prompt: str = "",
        truncate_dim: int | None = None,
        normalize: bool = False,
        truncation: Truncation = "warn",
    ) -> None:
        recipe.check()
        self.engine, self.tokenizer, self.recipe, self.plan, self.prompt = engine, tokenizer, recipe, plan, prompt
        self.modes = recipe.pooling if pooling is None else pooling_modes(pooling)
        self.width = recipe.width(engine.width(plan) * len(self.modes), truncate_dim)
        self.normalize = normalize
        self.truncated = Truncated(limit, truncation)
        tokens = len(tokenizer.tokenize(prompt)) if prompt and truncation == "window" else 0
        self.row_maker = RowMaker(tokenizer, limit, truncation, tokens)
        self.skip = not_pooled(tokenizer, recipe, prompt)

    def __call__(
        self,
        texts: str | Iterable[str] | None,
        shown: bool | None = None,
        as_tensor: bool = False,
        precision: Precision = "float32",
        calibration_embeddings: Any = None,
    ) -> NDArray[Any] | Tensor:
        """The vectors of texts, (N, width); of one text, (width,).

        Args:
            texts: one text, or several.
            shown: as for `Progress`.
            as_tensor: return a tensor on the model's device instead of an array.
            precision, calibration_embeddings: as for `quantize_embeddings`.

        Raises:
            MinibertError: what is not text; a long text with `truncation="error"`; an unknown precision.
        """
        check_precision(precision)
        texts = unwrapped(texts)
        single = isinstance(texts, str)
        device = self.engine.model.device
        if as_tensor and precision == "float32":  # these vectors never leave the device
            empty = torch.empty(0, self.width, dtype=torch.float32, device=device)
            found = torch.cat([empty, *self._chunks(texts, device, shown)])
            return found[0] if single else found
        whole = np.empty((0, self.width), dtype=np.float32)
        for new in self._chunks(texts, torch.device("cpu"), shown):
            count = len(whole)
            whole.resize((count + len(new), self.width), refcheck=False)  # in place: there are never two copies
            whole[count:] = new.numpy()
        vectors: NDArray[Any] = whole[0] if single else whole
        if precision != "float32":
            vectors = quantized(vectors, precision, calibration_embeddings)
        return torch.from_numpy(vectors).to(device) if as_tensor else vectors

    def finish(self, pooled: Tensor) -> Tensor:
        """Turn pooled vectors into sentence vectors: the recipe's maps, the length, the norm."""
        vectors = self.recipe.finish(pooled)[:, : self.width]
        return F.normalize(vectors, dim=-1) if self.normalize else vectors

    def _chunks(self, texts: str | Iterable[str] | None, device: torch.device, shown: bool | None) -> Iterator[Tensor]:
        stream, total = as_stream(texts)
        count = 0
        with Progress(total, shown, "encode") as progress:
            for chunk in chunks(stream):
                prompted = [self.prompt + text for text in chunk] if self.prompt else chunk
                rows = token_rows(self.tokenizer, prompted, self.row_maker)
                self.truncated.note(rows.lost, count)
                count += len(chunk)
                pooled = pooled_texts(self.engine, rows, self.plan, self.modes, self.skip, device, progress.add)
                yield self.finish(pooled)
        self.truncated.warn(count)


def not_pooled(tokenizer: BertTokenizer, recipe: Recipe, prompt: str) -> int:
    """How many tokens at the beginning of each text are not pooled: with a prompt that is left out, [CLS] and its own.

    Source: sentence-transformers `Transformer._get_prompt_length`; a prompt without tokens, such as " ", leaves out
    [CLS] there too.
    """
    return 0 if recipe.include_prompt or not prompt else 1 + len(tokenizer.tokenize(prompt))


class PooledTexts:
    """Collects the pooled vectors of texts, pass by pass.

    Args:
        rows: the texts.
        width: the size of a token's hidden state.
        modes: modes of `vectors.pooling`.
        skip: how many tokens at the beginning of each row are not pooled.
        device: where the vectors are collected.
    """

    def __init__(
        self, rows: Rows, width: int, modes: Sequence[str], skip: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.rows, self.modes, self.skip = rows, modes, skip
        self.vectors = torch.empty(len(rows.ids), width * len(modes), dtype=torch.float32, device=device)

    def add(self, found: Pass) -> None:
        """Pool the rows of a pass."""
        new = pool(found.states, found.groups, self.modes, self.skip)[: len(found.indices)]
        self.vectors[found.indices] = new.to(self.vectors.device)

    def whole(self) -> Tensor:
        """The vectors of the texts, (texts, n * H) float32, once all passes were added.

        A text with several windows gets their mean, each weighted by the tokens that it owns.
        """
        vectors, rows = self.vectors, self.rows
        if not rows.texts or len(rows.texts) == rows.texts[-1] + 1:
            return vectors
        texts = torch.tensor(rows.texts, device=vectors.device)
        weights = torch.tensor(rows.weights, dtype=torch.float32, device=vectors.device)
        total = weights.new_zeros(rows.texts[-1] + 1).index_add_(0, texts, weights)
        several = torch.bincount(texts) > 1
        mean = vectors.new_zeros(len(total), vectors.shape[1]).index_add_(0, texts, vectors * weights[:, None])
        mean /= total[:, None]
        mean[~several] = vectors[~several[texts]]  # one row: the same bits, and the weight of [CLS] [SEP] is 0
        return mean


@torch.inference_mode()
def pooled_texts(
    engine: Engine,
    rows: Rows,
    plan: Plan,
    modes: Sequence[str],
    skip: int,
    device: torch.device,
    done: Callable[[int, int], object],
) -> Tensor:
    """The pooled vectors of texts; the arguments are those of `Engine.states` and `PooledTexts`."""
    pooled = PooledTexts(rows, engine.width(plan), modes, skip, device)
    for found in engine.states(rows, plan, done):
        pooled.add(found)
    return pooled.whole()


def with_prompt(encode: Encode, *names: str) -> Encode:
    """`Bert.encode` with another default: the first of the prompts `names` that the checkpoint has, or no prompt.

    The checkpoint's default prompt is one for `encode`: it may be the other side's.
    """

    @wraps(encode)
    def method(
        bert: Any, texts: Any = None, prompt_name: Any = None, prompt: Any = None, *more: Any, **settings: Any
    ) -> Any:
        if prompt_name is None and prompt is None:
            prompt_name = bert.recipe.first_prompt(names)
            prompt = "" if prompt_name is None else None
        return bert.encode(texts, prompt_name, prompt, *more, **settings)

    method.__doc__ = (
        f"`encode`, by default with the checkpoint's prompt {' or '.join(map(repr, names))}, or with none if it has "
        "no such prompt."
    )
    return method  # type: ignore[return-value]


def check_output(one_array: bool, device: torch.device | str | None, here: torch.device) -> None:
    """Reject what sentence-transformers offers and `Bert.encode` does not: a list of tensors, another device."""
    if not one_array:
        raise MinibertError(
            "convert_to_numpy (False) must be True, or convert_to_tensor True; pass convert_to_tensor=True, and "
            "list(vectors) is a list of tensors"
        )
    if device is not None:
        asked = check_device(device)
        if asked.type != here.type or asked.index not in (None, here.index):
            raise MinibertError(f"device ({device}) must be the model's ({here}); pass device= to minibert.load")


def quantized(vectors: NDArray[Any], precision: Precision, calibration_embeddings: Any) -> NDArray[Any]:
    """`quantize_embeddings`, with a warning if the ranges come from the vectors themselves."""
    if precision in ("int8", "uint8") and calibration_embeddings is None and vectors.ndim == 2 and len(vectors) > 1:
        warn(
            f"the ranges of precision={precision!r} are those of these {len(vectors)} texts alone; pass "
            "calibration_embeddings=, vectors of typical texts, lest a text's numbers depend on the others"
        )
    return quantize_embeddings(vectors, precision, calibration_embeddings=calibration_embeddings)
