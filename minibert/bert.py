"""One object that does the job: a tokenizer, a model, and what the checkpoint says about using them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
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
)
from minibert.pretrained.checkpoint import Checkpoint
from minibert.pretrained.hub import Repository
from minibert.pretrained.names import to_checkpoint, to_ours
from minibert.tokenizer import BertTokenizer, check_text, whole_number
from minibert.vectors.pooling import pool
from minibert.vectors.recipe import Recipe

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

    batch_size: int
    normalize_embeddings: bool
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
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.recipe = recipe or Recipe()
        self.source = source
        self._missing_mlm = tuple(missing_mlm)

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
        return self.config.hidden_size * len(self.recipe.pooling)

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
        batch_size: int = 32,
        normalize_embeddings: bool = False,
        convert_to_tensor: bool = False,
        truncation: Literal["warn", "error"] = "warn",
    ) -> NDArray[np.float32] | Tensor:
        """Give each text its vector.

        A text's vector does not depend on the texts beside it, on their order, or on padding. The empty text has one
        too: that of [CLS] [SEP].

        Args:
            texts: one text, or several.
            batch_size: texts computed at once.
            normalize_embeddings: divide each vector by its length, if the checkpoint does not do so already.
            convert_to_tensor: return a tensor, on the model's device, instead of an array.
            truncation: what to do with tokens past `max_seq_length`: drop them and say so, or refuse.

        Returns:
            (H,) for one text, (N, H) for N, (0, H) for none; float32.

        Raises:
            ValueError: what is not text; with `truncation="error"`, a text that is too long.
        """
        if truncation not in ("warn", "error"):
            raise ValueError(f"truncation ({truncation!r}) must be 'warn' or 'error'")
        if self.recipe.refusal:
            raise ValueError(self.recipe.refusal)
        batch_size = whole_number("batch_size", batch_size)
        single = isinstance(texts, str)
        rows = self._token_ids(listed(texts), truncation)

        vectors = torch.empty(len(rows), self.dimension, device=self.model.device)
        longest_first = sorted(range(len(rows)), key=lambda i: -len(rows[i]))  # so that little is padding
        for start in range(0, len(rows), batch_size):
            indices = longest_first[start : start + batch_size]
            vectors[indices] = self._vectors([rows[i] for i in indices])
        if normalize_embeddings or self.recipe.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        if single:
            vectors = vectors[0]
        return vectors if convert_to_tensor else vectors.cpu().numpy()

    def _token_ids(self, texts: Sequence[str], truncation: str) -> list[list[int]]:
        """The ids of each text, cut to `max_seq_length`."""
        check_text(texts)
        recipe = self.recipe
        texts = [recipe.prompt + (text.lower() if recipe.lower_case else text) for text in texts]
        encodings = self.tokenizer.encode_texts(texts, add_special_tokens=False)
        limit = self.max_seq_length - 2  # [CLS] and [SEP]
        excess = {i: len(e) - limit for i, e in enumerate(encodings) if len(e) > limit}
        if excess and truncation == "error":
            index, tokens = next(iter(excess.items()))
            raise ValueError(
                f"text {index} has {limit + tokens + 2} tokens, but must have at most {self.max_seq_length}; "
                "split it, or pass truncation='warn' to drop the rest"
            )
        if excess:
            warnings.warn(
                f"{len(excess)} of {len(encodings)} texts exceed {self.max_seq_length} tokens: "
                f"{sum(excess.values())} tokens were dropped; split long texts, or pass truncation='error'",
                stacklevel=3,
            )
        cls, sep = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        return [[cls, *encoding.ids[:limit], sep] for encoding in encodings]

    @torch.no_grad()
    def _vectors(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The pooled vectors (B, H) of rows of ids."""
        input_ids, mask = padded(rows, self.tokenizer.pad_token_id, self.model.device)
        x = self.encoder(input_ids, mask).last_hidden_state
        return pool(x, mask, self.recipe.pooling)

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
            "device": str(self.model.device),
        }

    def __repr__(self) -> str:
        info = self.info()
        pooling = " + ".join(info["pooling"]) + (", normalized" if info["normalize"] else "")
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
            "dtype": f"{info['dtype']} on {info['device']}",
        }
        return "\n".join(["Bert", *(f"  {name:<11} {value}" for name, value in rows.items())])


def load(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Bert:
    """Load a BERT checkpoint: tokenizer, encoder, the masked-LM head if there is one, and how to pool.

    The arguments are those of `BertModel.from_pretrained`.

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

    model = fullest_class(checkpoint, config).from_checkpoint(checkpoint, config, dtype=dtype, device=device)
    missing = [name for name in MLM_TENSORS if name not in checkpoint.tensors]
    return Bert(model, tokenizer, recipe, str(inner), missing)


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
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, (bytes, dict, set, frozenset)) or not isinstance(texts, Iterable):
        raise ValueError(f"texts ({texts!r:.40}) must be str or several str in an order, not {type(texts).__name__}")
    return list(texts)


def padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids, padded on the right: ids and mask (True = a real token), both (B, S)."""
    length = max(map(len, rows))
    ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), length), dtype=bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = True
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)
