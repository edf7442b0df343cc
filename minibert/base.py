"""What every model can do: start at random, load a checkpoint, save one, and train in other libraries' loops."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self, Unpack

from minibert.config import BertConfig
from minibert.errors import MinibertError
from minibert.pretrained.arguments import check_device, check_dtype
from minibert.pretrained.card import card
from minibert.pretrained.checkpoint import Checkpoint, without_storage
from minibert.pretrained.hub import Repository
from minibert.pretrained.mixin import Pretrained
from minibert.pretrained.upload import PushSettings, push
from minibert.text import check_choice, whole_number


def initialize(module: nn.Module, std: float) -> None:
    """Initialise every parameter as BERT does: weights normal, biases and the padding token's row zero, gains one.

    Args:
        module: whose parameters.
        std: standard deviation of the weights; `config.initializer_range`.

    Source: google-research/bert `modeling.create_initializer`.
    """
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            nn.init.zeros_(part.weight[part.padding_idx])
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
        bias = getattr(part, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)


def check_memory(config: BertConfig) -> None:
    """Compare the parameters of an encoder with this machine's memory, before any is taken for them.

    Raises:
        MinibertError: they are larger.
    """
    if torch.empty(0).device.type != "cpu" or not hasattr(os, "sysconf"):  # Windows has no sysconf
        return
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    layer = 4 * config.hidden_size + 2 * config.intermediate_size  # H times this is the size of its six matrices
    size = config.hidden_size * (rows + config.num_hidden_layers * layer) * torch.get_default_dtype().itemsize
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise MinibertError(
            f"an encoder of this configuration ({size / 1e9:,.0f} GB) must fit into this machine's memory "
            f"({memory / 1e9:,.0f} GB); choose a smaller vocab_size, hidden_size, intermediate_size or "
            "num_hidden_layers"
        )


def resized(old: Tensor, size: int, std: float | None) -> nn.Parameter:
    """A parameter with a row, or a number, for each token, made for another number of tokens.

    Args:
        old: (V, H) or (V,) float. Its rows are kept to the bit; those past `size` are dropped.
        size: the new V.
        std: of the new rows, which are normal around zero; new numbers of a (V,) are zero. None: new rows are normal
            around the mean of the old ones, with 1e-9 of their covariance, and new numbers are the mean.

    Source: transformers `PreTrainedModel.resize_token_embeddings`; Hewitt 2021, "Initializing New Word Embeddings for
    Pretrained Language Models".
    """
    kept = old.detach()[:size]
    new = torch.zeros((size - len(kept), *old.shape[1:]), dtype=torch.float32, device=old.device)
    if std is not None:
        new = torch.randn_like(new) * std if old.ndim == 2 else new
    elif len(new):
        mean = kept.float().mean(0)
        new += mean
        if old.ndim == 2:
            root = torch.linalg.qr((kept.float() - mean) / len(kept) ** 0.5, mode="r").R  # root.T @ root: covariance
            new += 1e-9**0.5 * torch.randn(len(new), len(root), device=old.device) @ root
    return nn.Parameter(torch.cat([kept, new.to(old.dtype)]), requires_grad=old.requires_grad)


class PretrainedModel(Pretrained, nn.Module):
    """A model that loads and saves checkpoints, and that transformers' Trainer and PEFT can train."""

    config: BertConfig
    # Parts that a checkpoint may lack: they are initialised at random, with a warning, to be trained.
    new_heads: ClassVar[tuple[str, ...]] = ()
    # Parts that the model does without if the checkpoint lacks them.
    optional_parts: ClassVar[tuple[str, ...]] = ()
    # For transformers' Trainer: a loss is the mean over one batch; the Trainer has to scale it to accumulate gradients.
    accepts_loss_kwargs: ClassVar[bool] = False
    supports_gradient_checkpointing: ClassVar[bool] = True
    # Why the head of the checkpoint is not part of this encoder; empty if it has none.
    head_fault: str = ""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return next(self.parameters()).dtype

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        ignore_mismatched_sizes: bool = False,
        **arguments: Any,
    ) -> Self:
        """Load a checkpoint, in evaluation mode.

        Args:
            name_or_folder: a repository of the Hugging Face Hub (`google-bert/bert-base-uncased`) or a local folder.
            dtype: of the parameters, such as `torch.bfloat16` or "bfloat16"; float32 when None, whatever the file has.
            device: of the parameters; the CPU when None.
            ignore_mismatched_sizes: where a head's tensors have another shape than the configuration says, such as for
                another number of labels, make the head new and random, with a warning. Tensors of the encoder, the
                pooler and the masked-LM head must always fit.
            arguments: `revision`, `cache_dir`, `token` and `local_files_only`, as for `BertConfig.from_pretrained`;
                fields of `BertConfig` to change, such as `num_labels=3`; or transformers' names of these arguments,
                such as `torch_dtype` (all are in `pretrained.arguments.LOADING`).

        Raises:
            FileNotFoundError: no such folder, repository, revision or weights.
            MinibertError: tensors are missing or have another shape; the message names them all.
        """
        return super().from_pretrained(
            name_or_folder, dtype=dtype, device=device, ignore_mismatched_sizes=ignore_mismatched_sizes, **arguments
        )

    @classmethod
    def from_repository(
        cls,
        repository: Repository,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        ignore_mismatched_sizes: bool = False,
        **config_changes: Any,
    ) -> Self:
        """Load an opened checkpoint, in evaluation mode."""
        check_choice("ignore_mismatched_sizes", ignore_mismatched_sizes, (True, False))
        config = BertConfig.from_repository(repository, **config_changes)
        return cls.from_checkpoint(
            Checkpoint.open(repository),
            config,
            dtype=dtype,
            device=device,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
        )

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        config: BertConfig,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        ignore_mismatched_sizes: bool = False,
    ) -> Self:
        """Build the model and give it the checkpoint's tensors, without a random start and without a copy."""
        dtype, device = check_dtype(dtype), check_device(device)
        if checkpoint.untied_decoder and config.tie_word_embeddings:
            config = config.replace(tie_word_embeddings=False)
        checkpoint.check_size(config.num_hidden_layers)
        with without_storage():
            model = cls(config)
        checkpoint.drop_absent(model, cls.optional_parts)
        replaceable = [head for head in cls.new_heads if ignore_mismatched_sizes and head != "bert.pooler"]
        misshapen = checkpoint.drop_misshapen(model, replaceable)
        new = checkpoint.fill(model, cls.new_heads, dtype, device, misshapen)
        for name in new:
            initialize(model.get_submodule(name), config.initializer_range)
        return model.eval()

    def _save(self, folder: Path) -> None:
        dtype = str(self.dtype).removeprefix("torch.")
        extra = {name: value for name, value in self.config.extra.items() if name != "torch_dtype"}
        Checkpoint.save(self, folder)
        self.config.replace(architectures=(type(self).__name__,), extra={**extra, "dtype": dtype})._save(folder)

    def push_to_hub(self, repo_id: str, **settings: Unpack[PushSettings]) -> str:
        """Save the model, without a tokenizer, as one commit of a repository of the Hugging Face Hub.

        Args:
            repo_id: the repository, created if need be.
            settings: as for `minibert.pretrained.upload.push`.

        Returns:
            The address of the commit.

        Raises:
            MinibertError, OSError: as for `push`.
        """
        config = self.config.replace(architectures=(type(self).__name__,))
        return push(self.save_pretrained, repo_id, lambda: card(repo_id, config), **settings)

    def get_input_embeddings(self) -> nn.Module:
        """The token table. PEFT calls this."""
        table: nn.Module = self._encoder.embeddings.token
        return table

    def get_output_embeddings(self) -> nn.Module | None:
        """The masked-LM head's own table; None if it is the token table, or there is no such head. PEFT calls this."""
        decoder: nn.Module | None = getattr(getattr(self, "mlm_head", None), "decoder", None)
        return decoder

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Module:
        """Give the token table another number of rows; `config.vocab_size` and the masked-LM head follow.

        Do this after `BertTokenizer.add_tokens`, to the whole model rather than to the encoder under its head, and
        before an optimizer is made, since the parameters are new ones.

        Args:
            new_num_tokens: rows, such as `len(tokenizer)`. Rows are added, or dropped, at the end. None: as many as
                there are.
            pad_to_multiple_of: round their number up to a multiple of this.
            mean_resizing: new rows are close to the mean of the old ones; otherwise random, as BERT starts. Both are
                transformers' distributions. New biases are zero or, with `mean_resizing` in a masked-LM head that has a
                table of its own, the mean of the old ones, as there.

        Returns:
            The token table. The rows that stay have the same bits.

        Raises:
            MinibertError: a number below 1, or one that drops the padding token; a table that is no `nn.Embedding`.
        """
        table = self.get_input_embeddings()
        if not isinstance(table, nn.Embedding):
            raise MinibertError(
                f"the token table ({type(table).__name__}) must be a nn.Embedding to be resized; resize it before you "
                "wrap it"
            )
        size = table.num_embeddings if new_num_tokens is None else whole_number("new_num_tokens", new_num_tokens)
        if pad_to_multiple_of is not None:
            size += -size % whole_number("pad_to_multiple_of", pad_to_multiple_of)
        if size == table.num_embeddings:
            return table
        config = self.config.replace(vocab_size=size)  # rejects what cannot be, before anything is changed
        std = None if mean_resizing else config.initializer_range
        head, decoder = getattr(self, "mlm_head", None), self.get_output_embeddings()
        table.weight, table.num_embeddings = resized(table.weight, size, std), size
        if head is not None:
            head.bias = resized(head.bias, size, std if isinstance(decoder, nn.Linear) else 0.0)
        if isinstance(decoder, nn.Linear):
            decoder.weight, decoder.out_features = resized(decoder.weight, size, std), size
        self.config = self._encoder.config = config
        return table

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """Train in less memory: keep only the input of each layer, and compute the rest again for the gradients.

        Args:
            gradient_checkpointing_kwargs: for `torch.utils.checkpoint.checkpoint`; `use_reentrant` is False by default.

        Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
        """
        self._encoder._recompute = {"use_reentrant": False, **(gradient_checkpointing_kwargs or {})}

    def gradient_checkpointing_disable(self) -> None:
        """Keep everything that the gradients need, which is faster."""
        self._encoder._recompute = None

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """`gradient_checkpointing_enable` under its name in newer versions of transformers.

        Raises:
            MinibertError: `every_n_layers` or `offload` has another value than its default.
        """
        if every_n_layers != 1 or offload:
            raise MinibertError(
                f"every_n_layers ({every_n_layers}) and offload ({offload}) must be 1 and False; leave them out, "
                "every layer is checkpointed and nothing is moved"
            )
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs)

    activation_checkpointing_disable = gradient_checkpointing_disable

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether gradient checkpointing is enabled."""
        return self._encoder._recompute is not None

    @property
    def _encoder(self) -> Any:
        """The `BertModel`: this one, or the one under the head."""
        return getattr(self, "bert", self)
