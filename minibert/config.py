"""The configuration of BERT, and the letters for its dimensions that every other file uses.

The dimension legend (BERT's own letters, as in `uncased_L-12_H-768_A-12`):

    B  batch: number of texts               H  hidden size
    S  sequence: tokens of a padded text    A  attention heads
    T  tokens of all texts, packed          D  head size, H / A
    L  layers                               I  intermediate size
    V  vocabulary size

Masks are bool everywhere past the public boundary, True = may be attended to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import Any

from typing_extensions import Self

from minibert.errors import MinibertError, warn
from minibert.pretrained.mixin import PretrainedConfig

# Fields that are written only if they are set.
# Larger ones than any model has: a file that claims more would take all memory or time before it is found wrong.
LARGEST_SIZE, MOST_LAYERS, MOST_LABELS = 2**24, 10_000, 1_000_000
_WRITE_ONLY_IF_SET = ("output_hidden_states", "output_attentions", "problem_type", "architectures")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _place(key: Any) -> Any:
    """The number of a label, which JSON has as text; heads refuse what is none."""
    return int(key) if isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 10 else key


@dataclass
class BertConfig(PretrainedConfig):
    """The fields of BERT's `config.json`, under their own names; the defaults are bert-base-uncased.

    Fields that BERT does not know are kept in `extra` and written back on save. `id2label`, when given, decides
    `num_labels`; `label2id` is its inverse.

    Raises:
        MinibertError: a value that this encoder does not support.

    Source: Devlin et al. 2018, sec. 3 and A.2; google-research/bert `modeling.BertConfig`.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12  # BERT's epsilon; torch's default is 1e-5
    pad_token_id: int | None = 0
    position_embedding_type: str = "absolute"
    classifier_dropout: float | None = None
    is_decoder: bool = False
    tie_word_embeddings: bool = True
    model_type: str = "bert"
    num_labels: int = 2
    id2label: Mapping[int, str] | None = None
    problem_type: str | None = None
    architectures: tuple[str, ...] = ()
    output_hidden_states: bool = False
    output_attentions: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.id2label is not None:
            if not isinstance(self.id2label, Mapping):
                raise MinibertError(f"id2label ({self.id2label!r}) must be an object of labels by number")
            if self.num_labels not in (2, len(self.id2label)):  # 2 is what is assumed when nothing is said
                raise MinibertError(
                    f"num_labels ({self.num_labels}) must be the number of labels in id2label ({len(self.id2label)}); "
                    "leave one of them out"
                )
            object.__setattr__(self, "id2label", {_place(i): str(label) for i, label in self.id2label.items()})
            object.__setattr__(self, "num_labels", len(self.id2label))
        names = self.architectures or ()
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise MinibertError(f"architectures ({names!r:.40}) must be a list of names; correct the configuration")
        object.__setattr__(self, "architectures", tuple(names))
        self._check_kind()
        self._check_numbers()
        if self.id2label is None:
            object.__setattr__(self, "id2label", {i: f"LABEL_{i}" for i in range(self.num_labels)})

    def __setattr__(self, name: str, value: Any) -> None:
        """Fields cannot be reassigned, except `use_cache`: training loops set it, and it is ignored."""
        if name in vars(self) or name not in self.__dataclass_fields__:
            if name == "use_cache":
                return
            raise FrozenInstanceError(
                f"{name} ({value!r:.40}) must not be assigned, a configuration is fixed; make another one with "
                f"config.replace({name}=...)"
            )
        object.__setattr__(self, name, value)

    def _check_kind(self) -> None:
        if self.model_type != "bert":
            raise MinibertError(
                f"model_type ({self.model_type!r}) must be 'bert'; this library implements BERT alone, "
                "load other architectures with transformers"
            )
        if self.position_embedding_type != "absolute":
            raise MinibertError(
                f"position_embedding_type ({self.position_embedding_type!r}) must be 'absolute'; "
                "relative positions are not implemented, and ignoring them would give wrong numbers"
            )
        if self.is_decoder:
            raise MinibertError(
                "is_decoder (True) must be False; BERT here is the bidirectional encoder, without a causal mask"
            )
        if self.extra.get("add_cross_attention"):
            raise MinibertError(
                "add_cross_attention (True) must be False; BERT here is the encoder, without a decoder's attention"
            )
        if self.extra.get("quantization_config"):
            raise MinibertError(
                f"quantization_config ({self.extra['quantization_config']!r:.60}) must be absent; quantised weights "
                "are not implemented: load a checkpoint in float32, bfloat16 or float16"
            )

    def _check_numbers(self) -> None:
        for name in ("layer_norm_eps", "initializer_range"):
            value = getattr(self, name)
            if not _number(value) or not 0 <= value < math.inf:  # so NaN is none
                raise MinibertError(
                    f"{name} ({value!r}) must be a finite number of at least 0; correct the configuration"
                )
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        for name in (*sizes, "max_position_embeddings", "type_vocab_size", "num_labels"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise MinibertError(
                    f"{name} ({value!r:.40}) must be a whole number of at least 1; correct the configuration"
                )
            largest = {"num_hidden_layers": MOST_LAYERS, "num_labels": MOST_LABELS}.get(name, LARGEST_SIZE)
            if value > largest:
                shown = f"{value:,}" if value < 10**30 else "a number of more than 30 digits"
                raise MinibertError(f"{name} ({shown}) must be at most {largest:,}; correct the configuration")
        if self.hidden_size % self.num_attention_heads:
            raise MinibertError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads}); choose another number of heads"
            )
        pad = self.pad_token_id
        if pad is not None and (not isinstance(pad, int) or isinstance(pad, bool)):
            raise MinibertError(f"pad_token_id ({pad!r}) must be a whole number, or None; correct the configuration")
        if pad is not None and pad >= self.vocab_size:
            raise MinibertError(
                f"pad_token_id ({self.pad_token_id}) must be less than vocab_size ({self.vocab_size}); correct one"
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            value = getattr(self, name)
            if value is not None and not (_number(value) and 0 <= value <= 1):
                raise MinibertError(f"{name} ({value!r}) must be between 0 and 1; correct the configuration")

    @property
    def head_size(self) -> int:
        """D = H / A."""
        return self.hidden_size // self.num_attention_heads

    def get_text_config(self) -> Self:
        """Itself: transformers asks this of models that may have other parts than text."""
        return self

    def check_labels(self) -> None:
        """Reject labels whose numbers are not 0, 1, 2, ...; a head that names them needs one for each output.

        Raises:
            MinibertError: the numbers are others.
        """
        if self.id2label is not None and set(self.id2label) != set(range(self.num_labels)):
            raise MinibertError(
                f"the numbers of id2label ({', '.join(map(str, list(self.id2label)[:5]))}, ...) must be 0 to "
                f"{self.num_labels - 1}; correct the configuration"
            )

    @property
    def label2id(self) -> dict[str, int]:
        """The inverse of `id2label`."""
        return {label: i for i, label in (self.id2label or {}).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration in a parsed `config.json`; fields BERT does not know go to `extra`."""
        if "model_type" not in values and "hidden_size" not in values:
            raise MinibertError(
                f"the configuration (fields: {', '.join(values) or 'none'}) must have model_type or hidden_size; "
                "it is not that of a BERT"
            )
        known = {f.name for f in fields(cls)} - {"extra"}
        extra = {name: value for name, value in values.items() if name not in known and name != "label2id"}
        # null is the default, but for the one field that can do without a number where the default is one
        given = {n: v for n, v in values.items() if n in known and (v is not None or n == "pad_token_id")}
        labels, count = given.get("id2label"), given.get("num_labels")
        if labels is not None and (not isinstance(labels, Mapping) or count not in (None, len(labels))):
            warn(
                f"id2label ({labels!r:.60}) must be an object with num_labels ({count!r:.20}) labels by number; it is "
                "not, so the labels are called LABEL_0, LABEL_1, ..."
            )
            del given["id2label"]
        return cls(**given, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` should hold: the fields of BERT and, unchanged, the unknown ones it came with."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        for name in _WRITE_ONLY_IF_SET:
            if not values[name]:
                del values[name]
        if "architectures" in values:
            values["architectures"] = list(self.architectures)
        labels = values.pop("id2label")
        del values["num_labels"]  # the number of id2label
        if labels != {0: "LABEL_0", 1: "LABEL_1"}:
            values["id2label"] = {str(i): label for i, label in labels.items()}
            values["label2id"] = self.label2id
        return {**self.extra, **values}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; `label2id`, the inverse of `id2label`, may be given beside it.

        Raises:
            TypeError: a name that is not a field.
            MinibertError: a value that is not supported.
        """
        label2id = changes.pop("label2id", None)
        if label2id is not None:
            inverse = {i: label for label, i in label2id.items()}
            if changes.setdefault("id2label", inverse) != inverse:
                raise MinibertError(f"label2id ({label2id}) must be the inverse of id2label ({changes['id2label']})")
        unknown = sorted(set(changes) - {f.name for f in fields(self)})
        if unknown:
            raise TypeError(f"{', '.join(unknown)} must be a field of BertConfig; see help(minibert.BertConfig)")
        if "num_labels" in changes and "id2label" not in changes and changes["num_labels"] != self.num_labels:
            changes["id2label"] = None
        if "id2label" in changes and "num_labels" not in changes and changes["id2label"] is not None:
            changes["num_labels"] = len(changes["id2label"])
        return replace(self, **changes)
