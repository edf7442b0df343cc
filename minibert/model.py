"""The parts above, joined: BERT, and BERT with each of its heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from typing_extensions import Self, Unpack

from minibert.attention import Packed, Padded
from minibert.config import BertConfig
from minibert.embeddings import Embeddings
from minibert.encoder import Encoder
from minibert.errors import MinibertError
from minibert.heads import Classifier, MaskedLMHead, Pooler
from minibert.outputs import BertOutput, HeadOutput, PreTrainingOutput, QuestionAnsweringOutput
from minibert.pretrained.arguments import FORWARD, in_our_words
from minibert.pretrained.checkpoint import FLOAT_TYPES, Checkpoint, without_storage
from minibert.pretrained.hub import Repository
from minibert.pretrained.mixin import Pretrained
from minibert.pretrained.names import MLM_TENSORS, to_ours


def initialize(module: nn.Module, std: float) -> None:
    """Give every parameter of `module` the random start that BERT gave it.

    Source: google-research/bert `modeling.create_initializer`: normal, standard deviation `initializer_range`.
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
    """What every model here can do: start at random, load a checkpoint, save one, and be trained by anybody's loop."""

    config: BertConfig
    # Parts that a checkpoint of the plain encoder lacks by intent: they are new, to be trained.
    new_heads: ClassVar[tuple[str, ...]] = ()
    # Parts that are left out where the checkpoint has none.
    optional_parts: ClassVar[tuple[str, ...]] = ()
    # For transformers' Trainer: a loss is the mean over its batch, and knows nothing of batches that are accumulated.
    accepts_loss_kwargs: ClassVar[bool] = False
    supports_gradient_checkpointing: ClassVar[bool] = True

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters."""
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
            dtype: of the parameters, `torch.bfloat16` or "bfloat16", say; float32 when None, whatever the file holds.
            device: where the parameters go; the CPU when None.
            arguments: `revision`, `cache_dir`, `token` and `local_files_only`, as for `BertConfig.from_pretrained`;
                fields of `BertConfig` to change (`num_labels=3`, `output_hidden_states=True`); or other names of
                these arguments, `torch_dtype` for one: see `pretrained.arguments.LOADING`.

        Raises:
            FileNotFoundError: no such folder, repository, revision or weights.
            MinibertError: the checkpoint lacks tensors of this model, or has them in another shape; all are named.
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
        """Build the model without storage, and give it the checkpoint's tensors: no copy, no random start."""
        dtype, device = check_dtype(dtype), check_device(device)
        if checkpoint.untied_decoder and config.tie_word_embeddings:
            config = config.replace(tie_word_embeddings=False)
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

    def get_input_embeddings(self) -> nn.Module:
        """The token table, which PEFT asks for."""
        return self._encoder.embeddings.token

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """Train in less memory: keep what goes into each layer, and compute the rest again when gradients need it.

        Args:
            gradient_checkpointing_kwargs: for `torch.utils.checkpoint.checkpoint`; `use_reentrant` is False by default.

        Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
        """
        self._encoder._recompute = {"use_reentrant": False, **(gradient_checkpointing_kwargs or {})}

    def gradient_checkpointing_disable(self) -> None:
        """Keep everything that gradients need, which is the faster way."""
        self._encoder._recompute = None

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """`gradient_checkpointing_enable` under the name that newer versions of transformers call it by.

        Raises:
            MinibertError: `every_n_layers` or `offload` ask for more than that.
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
        """Whether it is enabled."""
        return self._encoder._recompute is not None

    @property
    def _encoder(self) -> BertModel:
        """The encoder, under whatever head."""
        model: Any = self
        return getattr(model, "bert", model)


def check_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """The type for parameters, which may be given by its name; float32 when None. Refuse what cannot be one."""
    if dtype is None:
        return torch.float32
    for known in FLOAT_TYPES:
        if dtype == known or (isinstance(dtype, str) and dtype.removeprefix("torch.") == str(known)[len("torch.") :]):
            return known
    raise MinibertError(
        f"dtype ({dtype!r}) must be a floating-point type of torch, or its name: {', '.join(map(str, FLOAT_TYPES))}"
    )


def check_device(device: torch.device | str | None) -> torch.device:
    """The device for parameters, the CPU when None; refuse one that is not here."""
    try:
        found = torch.device("cpu" if device is None else device)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:  # each build of torch has its own
        reason = (str(error).splitlines() or ["no details"])[0]
        raise MinibertError(f"device ({device}) must be one that this torch can use; it cannot ({reason})") from error
    return found


class Ignored(TypedDict, total=False):
    """What other people's loops pass to any model; accepted where it asks for nothing, as `FORWARD` says."""

    inputs_embeds: None
    return_dict: Literal[True] | None
    use_cache: bool | None
    past_key_values: None
    encoder_hidden_states: None
    encoder_attention_mask: None


class BertModel(PretrainedModel):
    """The encoder: embeddings, L layers, and a pooler where there is one.

    Source: Devlin et al. 2018.
    """

    optional_parts = ("pooler",)

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config) if add_pooling_layer else None
        self._recompute: dict[str, Any] | None = None  # see `gradient_checkpointing_enable`
        initialize(self, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **ignored: Unpack[Ignored],
    ) -> BertOutput:
        """Give every token its vector in context.

        On a GPU, nothing here waits for the device: values are not looked at there. An id outside its table is then
        the device's own error, and a mask without padding is used as it is; leave it out for the faster kernel.

        Args:
            input_ids: (B, S) int. The tokenizer's ids.
            attention_mask: (B, S) bool or int, not 0 = a real token; None: all are.
            token_type_ids: (B, S) int. 0 for the first text of a pair, 1 for the second; None: all 0.
            position_ids: (B, S) or (1, S) int; None: 0, 1, 2, ...
            output_hidden_states: return the L + 1 hidden states as well; the configuration decides when None.
            output_attentions: return the L attention probabilities as well; the explicit form of attention is run.
            ignored: accepted where it asks for nothing, as `return_dict=True` does.

        Raises:
            MinibertError: a shape, a dtype or an id that does not fit, named with the rule.
        """
        in_our_words("forward", FORWARD, ignored)
        check_inputs(input_ids, attention_mask, token_type_ids, position_ids)
        for ids, table, name, rule in (
            (input_ids, self.embeddings.token, "input_ids", "vocab_size"),
            (token_type_ids, self.embeddings.token_type, "token_type_ids", "type_vocab_size"),
            (position_ids, self.embeddings.position, "position_ids", "max_position_embeddings"),
        ):
            if ids is not None:
                check_ids(ids, table.num_embeddings, name, rule)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions

        mask = None if attention_mask is None else attention_mask != 0
        if mask is not None and is_at_hand(mask) and mask.all():
            mask = None  # nothing is padding: the kernel without a mask is faster
        attentions: list[Tensor] | None = [] if output_attentions else None
        layout = Padded(mask, attentions)

        x = self.embeddings(input_ids, token_type_ids, position_ids)
        hidden_states = None
        if self.training and self._recompute is not None:
            hidden_states = tuple(recomputed_states(self.encoder, x, layout, self._recompute))
            x = hidden_states[-1]
        elif output_hidden_states:
            hidden_states = tuple(self.encoder.states(x, layout))
            x = hidden_states[-1]
        else:
            x = self.encoder(x, layout)
        return BertOutput(
            last_hidden_state=x,
            pooler_output=None if self.pooler is None else self.pooler(x),
            hidden_states=hidden_states if output_hidden_states else None,
            attentions=None if attentions is None else tuple(attentions),
        )


def recomputed_states(
    encoder: Encoder, x: Tensor, layout: Padded | Packed, settings: Mapping[str, Any]
) -> Iterator[Tensor]:
    """`encoder.states`, but nothing is kept of a layer except its input; for gradients, it is computed again."""
    yield x
    for layer in encoder.layers:
        x = checkpoint(layer, x, layout, **settings)
        yield x


def check_inputs(
    input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None, position_ids: Tensor | None
) -> None:
    """Refuse shapes and dtypes that do not fit, before they fail deep inside or, worse, broadcast."""
    if not isinstance(input_ids, Tensor):
        raise MinibertError(
            f"input_ids ({type(input_ids).__name__}) must be a tensor; pass return_tensors='pt' to the tokenizer"
        )
    shape = tuple(input_ids.shape)
    if input_ids.ndim != 2:
        raise MinibertError(f"input_ids shape {shape} must be (batch, sequence); add the batch with input_ids[None]")
    if input_ids.shape[1] == 0:
        raise MinibertError(
            f"input_ids shape {shape} must hold at least one token; even an empty text has [CLS] and [SEP]"
        )
    others = {"attention_mask": attention_mask, "token_type_ids": token_type_ids, "position_ids": position_ids}
    for name, tensor in others.items():
        if tensor is not None and not isinstance(tensor, Tensor):
            raise MinibertError(f"{name} ({type(tensor).__name__}) must be a tensor; pass torch.tensor({name})")
    for name, tensor in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise MinibertError(
                f"{name} shape {tuple(tensor.shape)} must equal that of input_ids {shape}; pad both alike"
            )
    if position_ids is not None and tuple(position_ids.shape) not in (shape, (1, shape[1])):
        raise MinibertError(f"position_ids shape {tuple(position_ids.shape)} must equal that of input_ids {shape}")
    if attention_mask is not None and (attention_mask.is_floating_point() or attention_mask.is_complex()):
        raise MinibertError(
            f"attention_mask dtype ({attention_mask.dtype}) must be bool or integer, 1 = a real token; "
            "pass attention_mask.bool() if it holds zeros and ones"
        )


def check_ids(ids: Tensor, size: int, name: str, rule: str) -> None:
    """Refuse ids that are not whole numbers or, where they are at hand, not in [0, size)."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise MinibertError(f"{name} dtype ({ids.dtype}) must be torch.int64 or torch.int32; pass {name}.long()")
    if ids.numel() and is_at_hand(ids):
        low, high = (int(bound) for bound in ids.aminmax())
        if low < 0 or high >= size:
            wrong = low if low < 0 else high
            raise MinibertError(
                f"{name} ({wrong}) must be at least 0 and less than {rule} ({size}); "
                "use the tokenizer and the model of the same checkpoint"
            )


def is_at_hand(tensor: Tensor) -> bool:
    """Whether values can be looked at without waiting for a device that is still computing."""
    return tensor.device.type == "cpu"


class Asked(Ignored, total=False):
    """What can be asked of a forward pass besides its result; the configuration decides what is left out."""

    output_hidden_states: bool | None
    output_attentions: bool | None


class BertWithHead(PretrainedModel):
    """BERT and one head: encode, score, and, given labels, measure the loss."""

    bert: BertModel

    def score(self, outputs: BertOutput) -> Tensor:
        """The head: what the encoder returns -> logits."""
        raise NotImplementedError

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy over the last dimension; a label of -100 is not counted."""
        if labels.numel() != logits[..., 0].numel():
            raise MinibertError(
                f"labels shape {tuple(labels.shape)} must be {tuple(logits.shape[:-1])}, one for each score"
            )
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **asked: Unpack[Asked],
    ) -> HeadOutput:
        """Score the texts. The arguments are `BertModel`'s, and the `labels` that the class describes."""
        outputs = self.bert(input_ids, attention_mask, token_type_ids, position_ids, **asked)
        logits = self.score(outputs)
        loss = None if labels is None else self.loss(logits, labels)
        return HeadOutput(loss, logits, outputs.hidden_states, outputs.attentions)


class BertForMaskedLM(BertWithHead):
    """Which token stands here? `logits` (B, S, V); `labels` (B, S) int, -100 where the loss does not look."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.mlm_head = MaskedLMHead(config)
        initialize(self.mlm_head, config.initializer_range)

    def score(self, outputs: BertOutput) -> Tensor:
        """The product of each hidden state with each row of the token table."""
        return self.mlm_head(outputs.last_hidden_state, self.bert.embeddings.token.weight)


class BertForNextSentencePrediction(BertWithHead):
    """Does the second text follow the first? `logits` (B, 2): it does (0), it does not (1); `labels` (B,) int."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.nsp_head = nn.Linear(config.hidden_size, 2)
        initialize(self.nsp_head, config.initializer_range)

    def score(self, outputs: BertOutput) -> Tensor:
        """Two numbers from the pooler."""
        return self.nsp_head(outputs.pooler_output)


class BertForSequenceClassification(BertWithHead):
    """What kind of text is this, or how much of something is in it? `logits` (B, num_labels).

    `labels`: (B,) int for one label each; (B, num_labels) float for several each; (B,) float, with one output, for a
    regression. `config.problem_type`, where set, decides which of the three it is.
    """

    new_heads = ("classifier", "bert.pooler")

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.classifier = Classifier(config, config.num_labels)
        initialize(self.classifier, config.initializer_range)

    def score(self, outputs: BertOutput) -> Tensor:
        """One number for each label, from the pooler."""
        return self.classifier(outputs.pooler_output)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean squared error, binary cross-entropy of each label, or cross-entropy."""
        problem = self.config.problem_type
        if problem == "regression" or (problem is None and self.config.num_labels == 1):
            return F.mse_loss(logits.squeeze(), labels.squeeze())
        if problem == "multi_label_classification" or (problem is None and labels.is_floating_point()):
            return F.binary_cross_entropy_with_logits(logits, labels)
        return super().loss(logits, labels)


class BertForTokenClassification(BertWithHead):
    """What kind of token is this? `logits` (B, S, num_labels); `labels` (B, S) int, -100 = not counted."""

    new_heads = ("classifier",)

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.classifier = Classifier(config, config.num_labels)
        initialize(self.classifier, config.initializer_range)

    def score(self, outputs: BertOutput) -> Tensor:
        """One number for each label, from each token."""
        return self.classifier(outputs.last_hidden_state)


class BertForMultipleChoice(BertWithHead):
    """Which of several continuations is right? All inputs are (B, choices, S), each choice a pair of texts.

    `logits` (B, choices); `labels` (B,) int.
    """

    new_heads = ("classifier", "bert.pooler")

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.classifier = Classifier(config, 1)
        initialize(self.classifier, config.initializer_range)

    def score(self, outputs: BertOutput) -> Tensor:
        """One number for each choice, from the pooler."""
        return self.classifier(outputs.pooler_output)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **asked: Unpack[Asked],
    ) -> HeadOutput:
        """Score each choice alone, then side by side."""
        if input_ids.ndim != 3:
            raise MinibertError(
                f"input_ids shape {tuple(input_ids.shape)} must be (batch, choices, sequence); "
                "add the batch with input_ids[None]"
            )
        others = (attention_mask, token_type_ids, position_ids)
        flat = [None if tensor is None else tensor.flatten(0, 1) for tensor in others]
        outputs = self.bert(input_ids.flatten(0, 1), *flat, **asked)  # (B, choices, S) -> (B * choices, S)
        logits = self.score(outputs).view(input_ids.shape[:2])  # (B * choices, 1) -> (B, choices)
        loss = None if labels is None else self.loss(logits, labels)
        return HeadOutput(loss, logits, outputs.hidden_states, outputs.attentions)


class BertForPreTraining(PretrainedModel):
    """BERT with both heads that it was pretrained with.

    Source: Devlin et al. 2018, sec. 3.1.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.mlm_head = MaskedLMHead(config)
        self.nsp_head = nn.Linear(config.hidden_size, 2)
        initialize(self.mlm_head, config.initializer_range)
        initialize(self.nsp_head, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        **asked: Unpack[Asked],
    ) -> PreTrainingOutput:
        """Both scores, (B, S, V) and (B, 2); the loss is their sum, given both labels, (B, S) and (B,) int."""
        outputs = self.bert(input_ids, attention_mask, token_type_ids, position_ids, **asked)
        words = self.mlm_head(outputs.last_hidden_state, self.bert.embeddings.token.weight)
        follows = self.nsp_head(outputs.pooler_output)
        loss = None
        if labels is not None and next_sentence_label is not None:
            loss = F.cross_entropy(words.flatten(0, 1), labels.flatten())
            loss = loss + F.cross_entropy(follows, next_sentence_label.flatten())
        return PreTrainingOutput(loss, words, follows, outputs.hidden_states, outputs.attentions)


class BertForQuestionAnswering(PretrainedModel):
    """Where in a text does the answer start and end?

    Source: Devlin et al. 2018, sec. 4.2.
    """

    new_heads = ("span_head",)

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.span_head = nn.Linear(config.hidden_size, 2)
        initialize(self.span_head, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **asked: Unpack[Asked],
    ) -> QuestionAnsweringOutput:
        """Score each token as start and as end: two (B, S) logits.

        The loss is the mean of both, given both positions, (B,) int; a position past the text is not counted.
        """
        outputs = self.bert(input_ids, attention_mask, token_type_ids, position_ids, **asked)
        start, end = (scores.contiguous() for scores in self.span_head(outputs.last_hidden_state).unbind(-1))
        loss = None
        if start_positions is not None and end_positions is not None:
            past = start.shape[1]
            loss = F.cross_entropy(start, start_positions.flatten().clamp(0, past), ignore_index=past)
            loss = (loss + F.cross_entropy(end, end_positions.flatten().clamp(0, past), ignore_index=past)) / 2
        return QuestionAnsweringOutput(loss, start, end, outputs.hidden_states, outputs.attentions)


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
