"""The configuration keeps what it reads, and refuses what it cannot honour, naming the value."""

from __future__ import annotations

import json
import pydoc
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from minibert import BertConfig, BertModel, BertTokenizer, MinibertError


def test_the_defaults_are_those_of_transformers() -> None:
    ours, theirs = BertConfig().to_dict(), transformers.BertConfig().to_dict()
    for name in set(ours) & set(theirs):
        assert ours[name] == theirs[name], name
    assert ours["layer_norm_eps"] == 1e-12


def test_unknown_fields_are_kept_and_written_back(tmp_path: Path, minilm: Path) -> None:
    written = json.loads((minilm / "config.json").read_text())
    written["my_own_field"] = {"a": [1, 2]}
    (tmp_path / "config.json").write_text(json.dumps(written))
    config = BertConfig.from_pretrained(tmp_path)
    config.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {name: again[name] for name in written} == written
    assert config.extra["my_own_field"] == {"a": [1, 2]}


def test_transformers_reads_what_we_write(tmp_path: Path) -> None:
    config = BertConfig(
        hidden_size=48, num_attention_heads=6, classifier_dropout=0.3, id2label={0: "no", 1: "yes", 2: "so-so"}
    )
    config.save_pretrained(tmp_path)
    theirs = transformers.BertConfig.from_pretrained(tmp_path)
    assert theirs.hidden_size == 48
    assert theirs.classifier_dropout == 0.3
    assert theirs.id2label == config.id2label
    assert theirs.label2id == config.label2id == {"no": 0, "yes": 1, "so-so": 2}
    assert BertConfig.from_pretrained(tmp_path) == config.replace(extra=BertConfig.from_pretrained(tmp_path).extra)


@pytest.mark.parametrize("labels", [1, 2, 5])
def test_the_number_of_labels_survives_a_round_trip(tmp_path: Path, labels: int) -> None:
    transformers.BertConfig(num_labels=labels).save_pretrained(tmp_path)
    assert BertConfig.from_pretrained(tmp_path).num_labels == labels
    BertConfig(num_labels=labels).save_pretrained(tmp_path)
    assert transformers.BertConfig.from_pretrained(tmp_path).num_labels == labels
    assert BertConfig.from_pretrained(tmp_path, num_labels=labels + 1).num_labels == labels + 1


def test_labels_may_be_given_in_both_directions() -> None:
    config = BertConfig().replace(id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2})
    assert (config.num_labels, config.label2id) == (3, {"a": 0, "b": 1, "c": 2})
    assert BertConfig().replace(label2id={"x": 0}).id2label == {0: "x"}
    with pytest.raises(ValueError, match="must be the inverse of id2label"):
        BertConfig().replace(id2label={0: "a", 1: "b"}, label2id={"a": 1, "b": 0})


def test_a_head_size_is_derived_and_a_configuration_is_frozen() -> None:
    config = BertConfig()
    assert config.head_size == 64
    with pytest.raises(AttributeError):
        config.hidden_size = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "roberta"}, "model_type ('roberta') must be 'bert'; this library implements BERT alone"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type ('relative_key') must be 'absolute'"),
        ({"is_decoder": True}, "is_decoder (True) must be False"),
        ({"hidden_size": 100}, "hidden_size (100) must be a multiple of num_attention_heads (12)"),
        ({"num_hidden_layers": 0}, "num_hidden_layers (0) must be a whole number of at least 1"),
        ({"vocab_size": "30522"}, "vocab_size ('30522')"),
        ({"num_attention_heads": True}, "num_attention_heads (True)"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob (1.5) must be between 0 and 1"),
        ({"classifier_dropout": "a"}, "classifier_dropout ('a')"),
        ({"num_labels": 0}, "num_labels (0)"),
        ({"pad_token_id": 40000}, "pad_token_id (40000) must be less than vocab_size (30522)"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps (nan) must be a finite number of at least 0; correct the"),
        ({"layer_norm_eps": float("inf")}, "layer_norm_eps (inf)"),
        ({"layer_norm_eps": -1e-5}, "layer_norm_eps (-1e-05)"),
        ({"initializer_range": float("nan")}, "initializer_range (nan)"),
        ({"hidden_dropout_prob": float("nan")}, "hidden_dropout_prob (nan)"),
        ({"attention_probs_dropout_prob": float("nan")}, "attention_probs_dropout_prob (nan)"),
        ({"classifier_dropout": float("nan")}, "classifier_dropout (nan)"),
        ({"hidden_dropout_prob": True}, "hidden_dropout_prob (True)"),
        ({"pad_token_id": float("nan")}, "pad_token_id (nan) must be a whole number, or None; correct the"),
        ({"pad_token_id": "0"}, "pad_token_id ('0')"),
        ({"hidden_size": float("nan")}, "hidden_size (nan)"),
        ({"max_position_embeddings": float("inf")}, "max_position_embeddings (inf)"),
    ],
)
def test_values_that_cannot_be_honoured_are_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(MinibertError, match=re.escape(message)):
        BertConfig(**fields)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **fields}))
    with pytest.raises(MinibertError, match=re.escape(f"config.json of {tmp_path}: {message}")):
        BertConfig.from_pretrained(tmp_path)


def test_an_unknown_activation_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"hidden_act \('mish'\) must be one of gelu, gelu_new, "):
        BertModel(BertConfig(hidden_act="mish"))


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": 2**20, "num_attention_heads": 1},
        {"vocab_size": 2**24, "num_hidden_layers": 999, "hidden_size": 12288},
    ],
)
def test_a_model_larger_than_the_memory_is_refused_before_it_is_made(sizes: dict[str, int]) -> None:
    config = BertConfig(**sizes)
    with pytest.raises(
        MinibertError, match=r"an encoder of this configuration \([\d,]+ GB\) must fit into this machine's"
    ):
        BertModel(config)
    with torch.device("meta"):
        BertModel(config.replace(num_hidden_layers=1))


def test_a_json_that_is_no_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"name": "something else"}')
    with pytest.raises(ValueError, match=r"\(fields: name\) must have model_type or hidden_size"):
        BertConfig.from_pretrained(tmp_path)


def test_null_is_the_default_and_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    values = {"model_type": "bert", "position_embedding_type": None, "architectures": None, "pad_token_id": None}
    (tmp_path / "config.json").write_text("\ufeff" + json.dumps(values), encoding="utf-8")
    config = BertConfig.from_pretrained(tmp_path)
    assert config == BertConfig(pad_token_id=None)
    assert config.to_dict()["pad_token_id"] is None


def test_help_shows_where_a_checkpoint_may_come_from() -> None:
    for kind in (BertConfig, BertTokenizer):
        shown = pydoc.render_doc(kind.from_pretrained, renderer=pydoc.plaintext)
        for argument in ("revision: 'str | None' = None", "cache_dir: ", "token: ", "local_files_only: 'bool' = False"):
            assert argument in shown


def test_other_libraries_names_of_the_loading_arguments_are_understood(tmp_path: Path, minilm: Path) -> None:
    for kind in (BertConfig, BertTokenizer, BertModel):
        kind.from_pretrained(minilm, cache_folder=tmp_path, use_auth_token=False, trust_remote_code=False)
        with pytest.raises(MinibertError, match=re.escape("trust_remote_code (True)")):
            kind.from_pretrained(minilm, trust_remote_code=True)
        with pytest.raises(TypeError, match="got cache_dir twice"):
            kind.from_pretrained(minilm, cache_dir=tmp_path, cache_folder=tmp_path)
    for kind in (BertConfig, BertTokenizer):
        with pytest.raises(TypeError, match=f"dtype must be .* {kind.__name__}"):
            kind.from_pretrained(minilm, torch_dtype="float32")


def test_an_unknown_argument_is_refused(minilm: Path) -> None:
    with pytest.raises(TypeError, match="num_label must be a field of BertConfig"):
        BertConfig.from_pretrained(minilm, num_label=3)
