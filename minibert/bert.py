"""One object that does the job: a tokenizer, a model, and what the checkpoint says about using them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypedDict, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Unpack

from minibert.config import BertConfig
from minibert.fill_mask import Candidate, fill_mask
from minibert.model import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    PretrainedModel,
    check_device,
)
from minibert.pretrained.checkpoint import Checkpoint
from minibert.pretrained.hub import Repository
from minibert.pretrained.names import to_checkpoint, to_ours
from minibert.tokenizer import BertTokenizer, check_text, whole_number
from minibert.vectors.encode import Progress, chunks, packed_vectors, token_ids
from minibert.vectors.inference import Twin, fastest_dtype
from minibert.vectors.recipe import Recipe

logger = logging.getLogger("minibert")

MLM_TENSORS = [
    to_checkpoint(f"mlm_head.{name}") for name in ("dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias")
]
HEADS = {
    "mlm_head": "masked LM",
    "nsp_head": "next sentence",
    "pooler": "pooler",
    "classifier": "classifier",
    "span_head": "question answering",
}


class EncodeSettings(TypedDict, total=False):
    """Settings of `Bert.encode` that do not change what kind of thing it returns."""

    batch_tokens: int | None
    batch_size: int | None
    show_progress_bar: bool | None
    normalize_embeddings: bool
    truncate_dim: int | None
    truncation: Literal["warn", "error"]


class Bert:
    """A loaded checkpoint, ready for text. Made by `load`.

    Attributes:
        model: of the class that uses most of what the checkpoint holds; in evaluation mode.
        tokenizer: its tokenizer.
        recipe: how sentence vectors are made.
        source: the repository and commit, or the folder.
    """

    def __init__(
        self,
        model: PretrainedModel,
        tokenizer: BertTokenizer,
        recipe: Recipe | None = None,
        source: str = "memory",
        missing_mlm: Sequence[str] = (),
        exact_norms: Mapping[str, Tensor] | None = None,
        dtype_reason: str = "",
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.recipe = recipe or Recipe()
        self.source = source
        self._missing_mlm = tuple(missing_mlm)
        self._exact_norms = exact_norms
        self._dtype_reason = dtype_reason
        self._twin: Twin | None = None
        self._lock = Lock()

    @property
    def encoder(self) -> BertModel:
        """The encoder, under whatever head."""
        encoder = getattr(self.model, "bert", self.model)
        if not isinstance(encoder, BertModel):
            raise ValueError(f"the model ({type(self.model).__name__}) must be a BertModel, or hold one as `bert`")
        return encoder

    @property
    def heads(self) -> tuple[str, ...]:
        """What stands on top of the encoder."""
        parts = {name for module in (self.model, self.encoder) for name, _ in module.named_children()}
        return tuple(title for name, title in HEADS.items() if name in parts)

    @property
    def config(self) -> BertConfig:
        """The configuration of the model."""
        return self.model.config

    @property
    def dimension(self) -> int:
        """How long a sentence vector is."""
        whole = self.config.hidden_size * len(self.recipe.pooling)
        return min(whole, self.recipe.truncate_dim or whole)

    @property
    def max_seq_length(self) -> int:
        """The most tokens of a text that are looked at, special ones included."""
        positions = self.config.max_position_embeddings
        return min(self.recipe.max_seq_length or self.tokenizer.model_max_length or positions, positions)

    @overload
    def encode(
        self, texts: str | Iterable[str], *, convert_to_tensor: Literal[True], **settings: Unpack[EncodeSettings]
    ) -> Tensor: ...

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        *,
        convert_to_tensor: Literal[False] = False,
        **settings: Unpack[EncodeSettings],
    ) -> NDArray[np.float32]: ...

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        convert_to_tensor: bool = False,
        truncation: Literal["warn", "error"] = "warn",
    ) -> NDArray[np.float32] | Tensor:
        """Give each text its vector.

        A text's vector does not depend on the texts beside it, or on their order. The empty text has one too: that of
        [CLS] [SEP]. Texts are read as they are needed, so that an iterator of any length can be given.

        Args:
            texts: one text, or several.
            batch_tokens: tokens computed at once, whole texts of them; None: what suits the CPU's caches, or a GPU.
            batch_size: texts computed at once, at most; None: as many as `batch_tokens` has room for.
            show_progress_bar: None: where the logger "minibert" is at INFO or DEBUG.
            normalize_embeddings: divide each vector by its length, if the checkpoint does not do so already.
            truncate_dim: keep so many of each vector's numbers, the first ones; None: as the checkpoint says, or all.
            convert_to_tensor: return a tensor, on the model's device, instead of an array.
            truncation: what to do with tokens past `max_seq_length`: drop them and say so, or refuse.

        Returns:
            (dimension,) for one text, (N, dimension) for N, (0, dimension) for none; float32.

        Raises:
            ValueError: what is not text; with `truncation="error"`, a text that is too long.
        """
        if truncation not in ("warn", "error"):
            raise ValueError(f"truncation ({truncation!r}) must be 'warn' or 'error'")
        if self.recipe.refusal:
            raise ValueError(self.recipe.refusal)
        width = self._width(truncate_dim)
        most_texts = None if batch_size is None else whole_number("batch_size", batch_size)
        most_tokens = None if batch_tokens is None else whole_number("batch_tokens", batch_tokens)
        if show_progress_bar is None:
            show_progress_bar = logger.isEnabledFor(logging.INFO)

        stream, total = text_stream(texts)
        model, recipe, limit = self._ready(), self.recipe, self.max_seq_length
        vectors = np.empty((0, width), dtype=np.float32)
        cut: list[int] = []
        with Progress(total, show_progress_bar) as progress:
            for chunk in chunks(stream):
                first = len(vectors)
                check_text(chunk, first=first)
                chunk = [recipe.prompt + (text.lower() if recipe.lower_case else text) for text in chunk]
                rows, excess = token_ids(self.tokenizer, chunk, limit)
                if excess and truncation == "error":
                    index, tokens = next(iter(excess.items()))
                    raise ValueError(
                        f"text {first + index} has {limit + tokens} tokens, but must have at most {limit}; "
                        "split it, or pass truncation='warn' to drop the rest"
                    )
                cut += excess.values()
                new = packed_vectors(model, rows, recipe.pooling, most_tokens, most_texts, progress.add)
                if recipe.normalize:
                    new = F.normalize(new, dim=-1)
                new = new[:, :width]
                if normalize_embeddings:
                    new = F.normalize(new, dim=-1)
                vectors.resize((first + len(new), width), refcheck=False)  # in place: never two copies of all
                vectors[first:] = new.numpy()
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(vectors)} texts exceed {limit} tokens: {sum(cut)} tokens were dropped; "
                "split long texts, or pass truncation='error'",
                stacklevel=2,
            )
        result = vectors[0] if isinstance(texts, str) else vectors
        return torch.from_numpy(result).to(self.model.device) if convert_to_tensor else result

    def _width(self, truncate_dim: int | None) -> int:
        """How many numbers of a vector are kept."""
        if truncate_dim is None:
            return self.dimension
        whole = self.config.hidden_size * len(self.recipe.pooling)
        if whole_number("truncate_dim", truncate_dim) > whole:
            raise ValueError(f"truncate_dim ({truncate_dim}) must not exceed {whole}, the length of a vector")
        return truncate_dim

    def _ready(self) -> BertModel:
        """The encoder made ready for inference: once, and again if its parameters or modules have changed."""
        with self._lock:
            if self._twin is None or not self._twin.fits(self.encoder):
                self._twin = Twin(self.encoder, self._exact_norms)
            return self._twin.model

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but what can be made again."""
        return {**vars(self), "_twin": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Undo `__getstate__`."""
        vars(self).update(state, _lock=Lock())

    def fill_mask(
        self,
        texts: str | Iterable[str],
        *,
        top_k: int | None = None,
        targets: Sequence[str] | None = None,
    ) -> Any:
        """Say what could stand at each [MASK].

        Args:
            texts: one text, or several, each with at least one [MASK].
            top_k, targets: as in `minibert.fill_mask.fill_mask`.

        Returns:
            Candidates, the most probable first, for one text with one [MASK]; a list of such lists for several masks;
            a list of either for several texts.

        Raises:
            ValueError: the checkpoint has no masked-LM head; a text without [MASK], or too long; an impossible target.
        """
        if not isinstance(self.model, (BertForMaskedLM, BertForPreTraining)):
            raise ValueError(
                f"{self.source} must have a masked-LM head to fill masks; it lacks {', '.join(self._missing_mlm)}: "
                "load a checkpoint that has it, google-bert/bert-base-uncased for one"
            )
        results: list[list[Candidate] | list[list[Candidate]]] = []
        for index, text in enumerate(listed(texts)):
            candidates = fill_mask(self.model, self.tokenizer, text, top_k=top_k, targets=targets, index=index)
            results.append(candidates[0] if len(candidates) == 1 else candidates)
        return results[0] if isinstance(texts, str) else results

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model, tokenizer and recipe into `folder`, for `load`, transformers and sentence-transformers alike.

        Raises:
            ValueError: the recipe is one that cannot be honoured here, so neither can it be written.
        """
        if self.recipe.refusal:
            raise ValueError(self.recipe.refusal)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.recipe.save(Path(folder), self.config.hidden_size)

    def info(self) -> dict[str, Any]:
        """What was loaded, as plain values."""
        config, recipe = self.config, self.recipe
        return {
            "source": self.source,
            "layers": config.num_hidden_layers,
            "hidden_size": config.hidden_size,
            "attention_heads": config.num_attention_heads,
            "intermediate_size": config.intermediate_size,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "vocabulary": len(self.tokenizer),
            "lower_case": self.tokenizer.do_lower_case or recipe.lower_case,
            "max_seq_length": self.max_seq_length,
            "heads": list(self.heads),
            "fill_mask": isinstance(self.model, (BertForMaskedLM, BertForPreTraining)),
            "pooling": list(recipe.pooling),
            "normalize": recipe.normalize,
            "pooling_source": recipe.refusal or recipe.source,
            "dimension": self.dimension,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "dtype_reason": self._dtype_reason,
            "device": str(self.model.device),
        }

    def __repr__(self) -> str:
        info = self.info()
        pooling = " + ".join(info["pooling"]) + (", normalized" if info["normalize"] else "")
        reason = f", chosen since {info['dtype_reason']}" if info["dtype_reason"] else ""
        headless = "no: the checkpoint has no masked-LM head"
        if 0 < len(self._missing_mlm) < len(MLM_TENSORS):
            headless = f"no: of the masked-LM head, the checkpoint lacks {', '.join(self._missing_mlm)}"
        rows = {
            "source": info["source"],
            "shape": f"{info['layers']} layers, hidden size {info['hidden_size']}, {info['attention_heads']} heads, "
            f"{info['parameters'] / 1e6:.1f} million parameters",
            "vocabulary": f"{info['vocabulary']:,} tokens, {'lower-cased' if info['lower_case'] else 'cased'}",
            "heads": ", ".join(info["heads"]) or "none",
            "fill_mask": "yes" if info["fill_mask"] else headless,
            "pooling": f"{pooling} ({info['pooling_source']}), vectors of {info['dimension']}",
            "longest": f"{info['max_seq_length']} tokens",
            "dtype": f"{info['dtype']} on {info['device']}{reason}",
        }
        return "\n".join(["Bert", *(f"  {name:<11} {value}" for name, value in rows.items())])


def load(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    dtype: torch.dtype | Literal["auto"] | None = None,
    device: torch.device | str | None = None,
) -> Bert:
    """Load a BERT checkpoint: tokenizer, encoder, the masked-LM head if there is one, and how to pool.

    The arguments are those of `BertModel.from_pretrained`, but for `dtype="auto"`: bfloat16 where the hardware is fast
    with it, float32 elsewhere; `print` says what was chosen, and why.

    Raises:
        FileNotFoundError: no such folder, repository, revision or file.
        PermissionError: a gated repository, and no token that opens it.
        ConnectionError: the Hub cannot be reached, and the files are not in the cache.
        ValueError: the checkpoint is not one of BERT, is broken, or its parts do not fit together.
    """
    repository = Repository.open(name_or_folder, revision, cache_dir, token, local_files_only)
    repository.file("config.json")  # fixes the commit, of which all else is asked
    recipe = Recipe.read(repository)
    inner = repository.inside(recipe.folder)
    config = BertConfig.from_repository(inner)
    tokenizer = BertTokenizer.from_repository(inner)
    check_vocabulary(tokenizer, config, repository)
    checkpoint = Checkpoint.open(inner)
    reason = ""
    if dtype == "auto":
        dtype, reason = fastest_dtype(check_device(device))

    model = fullest_class(checkpoint, config).from_checkpoint(checkpoint, config, dtype=dtype, device=device)
    missing = [name for name in MLM_TENSORS if name not in checkpoint.tensors]
    exact = exact_norms(checkpoint, model) if model.dtype == torch.bfloat16 else None
    return Bert(model, tokenizer, recipe, str(inner), missing, exact, reason)


def exact_norms(checkpoint: Checkpoint, model: PretrainedModel) -> dict[str, Tensor]:
    """The gains and biases of the encoder's norms as the checkpoint has them, by the encoder's names for them."""
    prefix = "bert." if hasattr(model, "bert") else ""
    return {
        name.removeprefix(prefix): checkpoint.tensors[to_checkpoint(name)].float()
        for name, _ in model.named_parameters()
        if name.startswith(prefix)
        and name.rpartition(".")[0].endswith("norm")
        and to_checkpoint(name) in checkpoint.tensors
    }


def fullest_class(checkpoint: Checkpoint, config: BertConfig) -> type[PretrainedModel]:
    """The class that uses most of the tensors of a checkpoint."""
    parts = {(to_ours(name) or "").split(".")[0] for name in checkpoint.tensors}
    mlm = all(name in checkpoint.tensors for name in MLM_TENSORS)
    if mlm and {"nsp_head", "pooler"} <= parts:
        return BertForPreTraining
    if mlm:
        return BertForMaskedLM
    if {"nsp_head", "pooler"} <= parts:
        return BertForNextSentencePrediction
    if "span_head" in parts:
        return BertForQuestionAnswering
    if "classifier" not in parts:
        return BertModel
    if "BertForMultipleChoice" in config.architectures:
        return BertForMultipleChoice
    of_texts = "BertForSequenceClassification" in config.architectures or (
        "pooler" in parts and "BertForTokenClassification" not in config.architectures
    )
    return BertForSequenceClassification if of_texts else BertForTokenClassification


def check_vocabulary(tokenizer: BertTokenizer, config: BertConfig, source: object) -> None:
    """Compare the tokenizer with the token table: an id without a row is an error, a row without a token is told."""
    if max(tokenizer.vocab.values()) >= config.vocab_size:
        raise ValueError(
            f"the vocabulary of {source} ({len(tokenizer)} tokens) must not exceed vocab_size ({config.vocab_size}), "
            "the rows of the token table; use the tokenizer that belongs to the weights"
        )
    if len(tokenizer) < config.vocab_size:
        warnings.warn(
            f"the vocabulary of {source} ({len(tokenizer)} tokens) is smaller than vocab_size ({config.vocab_size}); "
            "harmless if the table was padded, otherwise the tokenizer belongs to other weights",
            stacklevel=3,
        )


def listed(texts: object) -> list[str]:
    """One text or several, as a list.

    Raises:
        ValueError: neither.
    """
    return list(text_stream(texts)[0])


def text_stream(texts: object) -> tuple[Iterable[str], int | None]:
    """One text or several, and how many they are, if that can be known; what is there to be looked at is checked.

    Raises:
        ValueError: neither.
    """
    if isinstance(texts, str):
        return [texts], 1
    if isinstance(texts, (bytes, dict, set, frozenset)) or not isinstance(texts, Iterable):
        raise ValueError(f"texts ({texts!r:.40}) must be str or several str in an order, not {type(texts).__name__}")
    if isinstance(texts, (list, tuple)):
        check_text(texts)  # before hours of work, not after them
    return texts, len(texts) if isinstance(texts, Sized) else None
