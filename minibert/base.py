"""What every model can do: start at random, load a checkpoint, save one, and train in other libraries' loops."""

from __future__ import annotations

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
        **arguments: Any,
    ) -> Self:
        """Load a checkpoint, in evaluation mode.

        Args:
            name_or_folder: a repository of the Hugging Face Hub (`google-bert/bert-base-uncased`) or a local folder.
            dtype: of the parameters, such as `torch.bfloat16` or "bfloat16"; float32 when None, whatever the file has.
            device: of the parameters; the CPU when None.
            arguments: `revision`, `cache_dir`, `token` and `local_files_only`, as for `BertConfig.from_pretrained`;
                fields of `BertConfig` to change, such as `num_labels=3`; or transformers' names of these arguments,
                such as `torch_dtype` (all are in `pretrained.arguments.LOADING`).

        Raises:
            FileNotFoundError: no such folder, repository, revision or weights.
            MinibertError: tensors are missing or have another shape; the message names them all.
        """
        return super().from_pretrained(name_or_folder, dtype=dtype, device=device, **arguments)

    @classmethod
    def from_repository(
        cls,
        repository: Repository,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        **config_changes: Any,
    ) -> Self:
        """Load an opened checkpoint, in evaluation mode."""
        config = BertConfig.from_repository(repository, **config_changes)
        return cls.from_checkpoint(Checkpoint.open(repository), config, dtype=dtype, device=device)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        config: BertConfig,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
    ) -> Self:
        """Build the model and give it the checkpoint's tensors, without a random start and without a copy."""
        dtype, device = check_dtype(dtype), check_device(device)
        if checkpoint.untied_decoder and config.tie_word_embeddings:
            config = config.replace(tie_word_embeddings=False)
        checkpoint.check_size(config.num_hidden_layers)
        with without_storage():
            model = cls(config)
        checkpoint.drop_absent(model, cls.optional_parts)
        new = checkpoint.fill(model, cls.new_heads, dtype, device)
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
