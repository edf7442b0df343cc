"""`load`: a checkpoint becomes a `Bert`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import Unpack

from minibert.base import PretrainedModel
from minibert.bert import Bert
from minibert.config import BertConfig
from minibert.engine.device import fastest_dtype
from minibert.errors import MinibertError, warn
from minibert.model import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    fullest_class,
)
from minibert.pretrained.arguments import LOADING, LoadingNames, check_device, in_our_words
from minibert.pretrained.checkpoint import Checkpoint
from minibert.pretrained.hub import Repository
from minibert.pretrained.names import MLM_TENSORS, to_checkpoint
from minibert.pretrained.prompts import known_prompts
from minibert.text import check_choice, counted
from minibert.tokenizer import BertTokenizer
from minibert.vectors.recipe import Recipe, tokenizer_settings, transformer_folder


def load(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    do_lower_case: bool | None = None,
    truncate_dim: int | None = None,
    **theirs: Unpack[LoadingNames],
) -> Bert:
    """Load a BERT checkpoint: tokenizer, encoder, the masked-LM head if there is one, and how to pool.

    The arguments are those of `BertModel.from_pretrained`. In addition, `dtype="auto"` chooses bfloat16 where the
    hardware is fast with it, and float32 elsewhere; printing the result shows the choice and the reason. With
    `do_lower_case`, the tokenizer ignores what the files say of lower case, as for `BertTokenizer`. With
    `truncate_dim`, sentence vectors have only so many numbers. transformers' names of arguments, such as
    `torch_dtype`, are also accepted: see `pretrained.arguments.LOADING`.

    Raises:
        FileNotFoundError: no such folder, repository, revision or file.
        PermissionError: a gated repository, and no token that opens it.
        ConnectionError: the Hub cannot be reached, and the files are not in the cache.
        MinibertError: the checkpoint is not one of BERT, is broken, or its parts do not fit together.
        TypeError: an unknown argument; the message names ours if there is one.
    """
    dtype, cache_dir, token = in_our_words(
        "load", LOADING, theirs, dtype=dtype, cache_dir=cache_dir, token=token
    ).values()
    repository = Repository.open(
        name_or_folder, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
    )
    bert = repository.read_whole(partial(from_repository, repository, dtype, device, do_lower_case))
    if truncate_dim is not None:
        pooled = bert.config.hidden_size * len(bert.recipe.pooling)
        bert.recipe = replace(bert.recipe, truncate_dim=bert.recipe.width(pooled, truncate_dim))
    return bert


def from_repository(
    repository: Repository,
    dtype: torch.dtype | str | None,
    device: torch.device | str | None,
    do_lower_case: bool | None,
) -> Bert:
    """Load an opened checkpoint."""
    repository.file("config.json")  # fixes the commit, of which all else is asked
    try:
        recipe = Recipe.read(repository)
        settings = tokenizer_settings(repository, recipe)
    except (
        MinibertError,
        FileNotFoundError,
    ) as error:  # of sentence-transformers' files, which the rest can do without
        refusal = f"the files of {repository} for sentence vectors must be right to encode texts: {error}"
        warn(refusal)
        recipe, settings = Recipe(refusal=refusal, folder=transformer_folder(repository)), {}
    recipe = replace(recipe, family_prompts=known_prompts(repository.source.name))
    if do_lower_case is not None:
        check_choice("do_lower_case", do_lower_case, (True, False))
        settings["do_lower_case"] = do_lower_case
        recipe = replace(recipe, lower_case=recipe.lower_case and do_lower_case)
    inner = repository.inside(recipe.folder)
    config = BertConfig.from_repository(inner)
    tokenizer = BertTokenizer.from_repository(inner, **settings)
    check_vocabulary(tokenizer, config, repository)
    checkpoint = Checkpoint.open(inner)
    reason = ""
    if dtype == "auto":
        dtype, reason = fastest_dtype(check_device(device))

    model = with_head_if_possible(checkpoint, config, dtype, device)
    if recipe.source == Recipe.source:  # the checkpoint says nothing about vectors
        recipe = replace(recipe, untrained=untrained(checkpoint, model, inner.source))
    missing = [name for name in MLM_TENSORS if name not in checkpoint.tensors]
    exact = exact_norms(checkpoint, model) if model.dtype == torch.bfloat16 else None
    return Bert(model, tokenizer, recipe, inner.source, missing, exact, reason)


def with_head_if_possible(
    checkpoint: Checkpoint, config: BertConfig, dtype: torch.dtype | str | None, device: torch.device | str | None
) -> PretrainedModel:
    """The model of a checkpoint. If only a head or the pooler is at fault, its encoder, with a warning.

    Raises:
        MinibertError: the encoder is at fault.
    """
    kind = fullest_class(checkpoint, config)
    try:
        return kind.from_checkpoint(checkpoint, config, dtype=dtype, device=device)
    except MinibertError as error:
        for part in (checkpoint, checkpoint.of_encoder()):  # the pooler may be sound
            with suppress(MinibertError):
                encoder = BertModel.from_checkpoint(part, config, dtype=dtype, device=device)
                encoder.head_fault = str(error)
                warn(f"the head of {checkpoint.source} cannot be used, and its encoder was loaded alone: {error}")
                return encoder
        raise


def untrained(checkpoint: Checkpoint, model: PretrainedModel, source: object) -> str:
    """Why the mean of the token vectors of a checkpoint means little; empty for encoders and masked-LM models.

    A SPLADE model is a masked-LM model in its files: only its name, or that of its class, tells.
    """
    names = f"{source} {' '.join(model.config.architectures)}".lower()
    if "linear.weight" in checkpoint.tensors or "colbert" in names:
        what, instead = "a ColBERT, which compares the vectors of tokens", "a checkpoint for sentence vectors"
    elif "splade" in names:
        what, instead = (
            "a SPLADE model, with a weight for each token of the vocabulary",
            "a checkpoint for sentence vectors",
        )
    elif isinstance(model, BertForSequenceClassification):
        what, instead = "a classifier or a reranker", "bert.classify, bert.score or bert.rank"
    elif isinstance(model, BertForTokenClassification):
        what, instead = "a tagger of tokens", "bert.entities"
    elif isinstance(model, BertForQuestionAnswering):
        what, instead = "a reader that finds answers", "bert.answer"
    elif isinstance(model, BertForMultipleChoice):
        what, instead = "a model for multiple choice", "its class, minibert.BertForMultipleChoice"
    else:
        return ""
    return (
        f"{source} is {what}, without modules.json: its sentence vectors are the mean of its token vectors, which "
        f"nobody trained; use {instead}, or pass pooling='mean' if you mean it"
    )


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


def check_vocabulary(tokenizer: BertTokenizer, config: BertConfig, source: object) -> None:
    """Warn of token ids without a row in the token table; rows without a token are usual padding.

    Such a token may never occur. If it does, the model raises an error.
    """
    without = sum(number >= config.vocab_size for number in tokenizer.vocab.values())
    if without:
        warn(
            f"the vocabulary of {source} has {counted(without, 'token')} without a row in the token table (vocab_size "
            f"{config.vocab_size}); a text with one of them is rejected: use the tokenizer that belongs to the weights"
        )
