"""BERT, and BERT with each of its heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from typing_extensions import Unpack

from minibert.attention import Packed, Padded
from minibert.base import PretrainedModel, check_memory, initialize
from minibert.config import BertConfig
from minibert.embeddings import Embeddings
from minibert.encoder import Encoder
from minibert.errors import MinibertError
from minibert.heads import Classifier, MaskedLMHead, Pooler
from minibert.inputs import Asked, Ignored, check_inputs, to_mask
from minibert.outputs import BertOutput, HeadOutput, PreTrainingOutput, QuestionAnsweringOutput
from minibert.pretrained.arguments import FORWARD, in_our_words
from minibert.pretrained.checkpoint import Checkpoint
from minibert.pretrained.names import MLM_TENSORS, to_ours


class BertModel(PretrainedModel):
    """Embeddings, L layers and, unless the checkpoint lacks it, the pooler.

    Source: Devlin et al. 2018.
    """

    optional_parts = ("pooler",)

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        check_memory(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config) if add_pooling_layer else None
        self._recompute: dict[str, Any] | None = None  # see `gradient_checkpointing_enable`
        initialize(self, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **ignored: Unpack[Ignored],
    ) -> BertOutput:
        """Compute the hidden states of texts.

        The values of inputs are only checked on the CPU; on a GPU, that would wait for the device. There, an id outside
        its table is the device's own error. If a batch has no padding, leave out its mask: the kernel without a mask
        is faster.

        Args:
            input_ids: (B, S) int. The tokenizer's ids.
            attention_mask: (B, S) bool or int, not 0 = a real token; None: all are.
            token_type_ids: (B, S) int. 0 for the first text of a pair, 1 for the second; None: all 0.
            position_ids: (B, S) or (1, S) int; None: 0, 1, 2, ...
            inputs_embeds: (B, S, H) float. Vectors of tokens, given in place of `input_ids`; token types and positions
                are added to them.
            output_hidden_states: also return the L + 1 hidden states; `config.output_hidden_states` when None.
            output_attentions: also return the attention probabilities of the L layers, which takes the explicit form
                of attention; `config.output_attentions` when None.
            ignored: arguments of transformers, with values that change nothing, such as `return_dict=True`.

        Raises:
            MinibertError: a shape, a dtype or an id that does not fit.
        """
        in_our_words("forward", FORWARD, ignored)
        tokens = check_inputs(self.embeddings, input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions

        attentions: list[Tensor] | None = [] if output_attentions else None
        layout = Padded(to_mask(attention_mask), attentions)

        x = self.embeddings(tokens, token_type_ids, position_ids)
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
    """`encoder.states`, keeping only the input of each layer; the rest is computed again for the gradients."""
    yield x
    for layer in encoder.layers:
        x = checkpoint(layer, x, layout, **settings)
        yield x


class BertWithHead(PretrainedModel):
    """BERT and one head: logits and, given labels, the loss."""

    bert: BertModel

    def score(self, outputs: BertOutput) -> Tensor:
        """The logits of the head."""
        raise NotImplementedError

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy over the last dimension; labels of -100 are ignored."""
        if labels.numel() != logits[..., 0].numel():
            raise MinibertError(
                f"labels shape {tuple(labels.shape)} must be {tuple(logits.shape[:-1])}, one for each score"
            )
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **asked: Unpack[Asked],
    ) -> HeadOutput:
        """Compute the logits and, given `labels`, the loss. The other arguments are those of `BertModel`."""
        outputs = self.bert(input_ids, attention_mask, token_type_ids, position_ids, **asked)
        logits = self.score(outputs)
        loss = None if labels is None else self.loss(logits, labels)
        return HeadOutput(loss, logits, outputs.hidden_states, outputs.attentions)


class BertForMaskedLM(BertWithHead):
    """Predicts the token at each position. `logits` (B, S, V); `labels` (B, S) int, -100 is ignored."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.mlm_head = MaskedLMHead(config)
        initialize(self.mlm_head, config.initializer_range)

    def score(self, outputs: BertOutput) -> Tensor:
        """The product of each transformed hidden state with each row of the token table."""
        return self.mlm_head(outputs.last_hidden_state, self.bert.embeddings.token.weight)


class BertForNextSentencePrediction(BertWithHead):
    """Predicts whether the second text follows the first (0) or not (1). `logits` (B, 2); `labels` (B,) int."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.nsp_head = nn.Linear(config.hidden_size, 2)
        initialize(self.nsp_head, config.initializer_range)

    def score(self, outputs: BertOutput) -> Tensor:
        """Two logits for each pair, from the pooler."""
        return self.nsp_head(outputs.pooler_output)


class BertForSequenceClassification(BertWithHead):
    """Classifies texts, or predicts numbers for them. `logits` (B, num_labels).

    `labels`: (B,) int for one label per text; (B, num_labels) float for several labels per text; (B,) float for a
    regression with one output. `config.problem_type`, if set, decides which of these it is.
    """

    new_heads = ("classifier", "bert.pooler")

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        config.check_labels()
        self.bert = BertModel(config)
        self.classifier = Classifier(config, config.num_labels)
        initialize(self.classifier, config.initializer_range)

    def score(self, outputs: BertOutput) -> Tensor:
        """One logit for each label, from the pooler."""
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
    """Classifies tokens. `logits` (B, S, num_labels); `labels` (B, S) int, -100 is ignored."""

    new_heads = ("classifier",)

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        config.check_labels()
        self.bert = BertModel(config, add_pooling_layer=False)
        self.classifier = Classifier(config, config.num_labels)
        initialize(self.classifier, config.initializer_range)

    def score(self, outputs: BertOutput) -> Tensor:
        """One logit for each label, from each token."""
        return self.classifier(outputs.last_hidden_state)


class BertForMultipleChoice(BertWithHead):
    """Chooses between continuations of a text. All inputs are (B, choices, S), each choice a pair of texts.

    `logits` (B, choices); `labels` (B,) int.
    """

    new_heads = ("classifier", "bert.pooler")

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.classifier = Classifier(config, 1)
        initialize(self.classifier, config.initializer_range)

    def score(self, outputs: BertOutput) -> Tensor:
        """One logit for each choice, from the pooler."""
        return self.classifier(outputs.pooler_output)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **asked: Unpack[Asked],
    ) -> HeadOutput:
        """Compute the logit of each choice, and the loss over the choices of each text."""
        vectors = asked.get("inputs_embeds")
        given, name = (input_ids, "input_ids") if vectors is None else (vectors, "inputs_embeds")
        if not isinstance(given, Tensor) or given.ndim != 3 + (vectors is not None):
            shown = tuple(given.shape) if isinstance(given, Tensor) else given
            raise MinibertError(
                f"{name} shape {shown} must be (batch, choices, sequence{', H' * (vectors is not None)}); "
                f"add the batch with {name}[None]"
            )
        tensors = (input_ids, attention_mask, token_type_ids, position_ids)
        flat = [None if tensor is None else tensor.flatten(0, 1) for tensor in tensors]  # (B, choices, S) -> (B * c, S)
        if vectors is not None:
            asked["inputs_embeds"] = vectors.flatten(0, 1)
        outputs = super().forward(*flat, **asked)
        logits = outputs["logits"].view(given.shape[:2])  # (B * choices, 1) -> (B, choices)
        loss = None if labels is None else self.loss(logits, labels)
        return HeadOutput(loss, logits, outputs.hidden_states, outputs.attentions)


class BertForPreTraining(PretrainedModel):
    """BERT with the two heads that it was pretrained with.

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
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        **asked: Unpack[Asked],
    ) -> PreTrainingOutput:
        """Compute both logits, (B, S, V) and (B, 2); given both labels, (B, S) and (B,) int, the sum of both losses."""
        outputs = self.bert(input_ids, attention_mask, token_type_ids, position_ids, **asked)
        words = self.mlm_head(outputs.last_hidden_state, self.bert.embeddings.token.weight)
        follows = self.nsp_head(outputs.pooler_output)
        loss = None
        if labels is not None and next_sentence_label is not None:
            loss = F.cross_entropy(words.flatten(0, 1), labels.flatten())
            loss = loss + F.cross_entropy(follows, next_sentence_label.flatten())
        return PreTrainingOutput(loss, words, follows, outputs.hidden_states, outputs.attentions)


class BertForQuestionAnswering(PretrainedModel):
    """Predicts where in a text the answer to a question starts and ends.

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
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **asked: Unpack[Asked],
    ) -> QuestionAnsweringOutput:
        """Compute the logits of each token as start and as end, (B, S) each.

        The loss, given both positions, (B,) int, is the mean of two cross-entropies.
        Positions past the end are ignored.
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
    """The class that uses the most tensors of a checkpoint."""
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
