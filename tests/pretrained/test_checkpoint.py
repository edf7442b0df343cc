"""Every dialect of checkpoint loads; what is missing or broken is named; what we save, transformers loads."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import math
import os
import pickle
import re
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
import transformers
from oracle import HEADS, assert_identical, batch, pair_of, rewrite, theirs_of, with_real_vocabulary
from safetensors.torch import load_file, save_file

import minibert
from minibert.pretrained.checkpoint import Checkpoint, without_storage
from minibert.pretrained.hub import Repository
from minibert.pretrained.names import TABLE, canonical, to_checkpoint, to_ours

IDS = torch.tensor([[2, 5, 17, 98, 3]])


def old_style(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The dialect of the real bert-base-uncased file: gamma and beta, `cls.predictions.bias`, no decoder at all."""
    renamed = {}
    for name, tensor in tensors.items():
        if ".decoder." in name:
            continue
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        renamed[name] = tensor
    return renamed


# Names


PARAMETER = st.sampled_from(sorted(TABLE)).flatmap(
    lambda row: st.tuples(st.integers(0, 999), st.sampled_from(["weight", "bias"])).map(
        lambda fill: f"{row.format(fill[0])}.{fill[1]}"
    )
)


@hypothesis.given(PARAMETER)
def test_the_name_table_is_read_in_both_directions(ours: str) -> None:
    assert to_ours(to_checkpoint(ours)) == ours
    assert to_ours("bert." + to_checkpoint(ours)) == ours
    assert to_ours("module.bert." + to_checkpoint(ours)) == ours


def test_the_name_table_knows_every_parameter_of_every_class(tmp_path: Path) -> None:
    for kind in HEADS:
        for tie in (True, False):
            config = {"tie_word_embeddings": tie, "num_hidden_layers": 2}
            theirs = theirs_of(kind, tmp_path / kind, **config)
            ours = getattr(minibert, kind)(minibert.BertConfig.from_pretrained(tmp_path / kind))
            names = {to_checkpoint(name) for name, _ in ours.named_parameters()}
            expected = {canonical(name) for name, _ in theirs.named_parameters()}
            assert names == expected - {"cls.predictions.decoder.bias"}


def test_gamma_is_renamed_only_under_a_layer_norm() -> None:
    assert canonical("bert.embeddings.LayerNorm.gamma") == "embeddings.LayerNorm.weight"
    assert canonical("bert.encoder.layer.0.output.LayerNorm.beta") == "encoder.layer.0.output.LayerNorm.bias"
    assert canonical("adapter.gamma") == "adapter.gamma"
    assert to_ours("adapter.gamma") is None


# Dialects


def same_logits(folder: Path, theirs: Any) -> bool:
    """Whether the folder gives the logits of `theirs`, which was loaded from another file."""
    ours = minibert.BertForMaskedLM.from_pretrained(folder)
    # copies lie in memory of their own, aligned alike: last bits may depend on where a file has its tensors
    return torch.equal(copy.deepcopy(ours)(IDS).logits, copy.deepcopy(theirs)(IDS).logits)


@pytest.mark.parametrize(
    "change",
    [
        old_style,
        lambda t: {f"module.{name}": tensor for name, tensor in t.items()},
        lambda t: {name.removeprefix("bert."): tensor for name, tensor in t.items()},
        lambda t: {**t, "bert.embeddings.position_ids": torch.arange(512)[None]},
        lambda t: {**t, "cls.predictions.decoder.weight": t["bert.embeddings.word_embeddings.weight"]},
        lambda t: {**t, "cls.predictions.decoder.bias": t["cls.predictions.bias"]},
        lambda t: {
            ("cls.predictions.decoder.bias" if name == "cls.predictions.bias" else name): tensor
            for name, tensor in t.items()
        },
        lambda t: {
            ("cls.predictions.decoder.weight" if "word_embeddings" in name else name): tensor
            for name, tensor in t.items()
        },
    ],
    ids=[
        "bert-base-uncased: gamma, beta, no decoder",
        "module. prefix",
        "no prefix",
        "position_ids buffer",
        "tied decoder weight present",
        "tied decoder bias present",
        "decoder bias alone",
        "decoder weight alone",
    ],
)
def test_every_dialect_gives_the_same_logits(tmp_path: Path, change: Any) -> None:
    theirs = theirs_of("BertForMaskedLM", tmp_path)
    rewrite(tmp_path, change)
    assert same_logits(tmp_path, theirs)


def test_minilm_has_no_prefix_and_a_position_ids_buffer(minilm: Path) -> None:
    names = set(load_file(minilm / "model.safetensors"))
    assert "embeddings.position_ids" in names
    assert not any(name.startswith("bert.") for name in names)
    theirs = transformers.BertModel.from_pretrained(minilm)
    ours = minibert.BertModel.from_pretrained(minilm)
    loaded = {to_checkpoint(name): parameter for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        assert torch.equal(loaded[name], parameter)


def test_a_decoder_that_differs_from_the_token_table_is_loaded_not_dropped(tmp_path: Path) -> None:
    theirs_of("BertForMaskedLM", tmp_path)
    rewrite(tmp_path, lambda t: {**t, "cls.predictions.decoder.weight": torch.randn(99, 32)})
    theirs = transformers.BertForMaskedLM.from_pretrained(tmp_path)
    assert same_logits(tmp_path, theirs)
    ours = minibert.BertForMaskedLM.from_pretrained(tmp_path)
    assert ours.config.tie_word_embeddings is False


def test_an_untied_checkpoint_loads_and_is_saved_untied(tmp_path: Path) -> None:
    ours, theirs = pair_of("BertForPreTraining", tmp_path / "theirs", tie_word_embeddings=False)
    assert_identical(ours(IDS), theirs(IDS))
    ours.save_pretrained(tmp_path / "ours")
    again = transformers.BertForPreTraining.from_pretrained(tmp_path / "ours")
    assert_identical(minibert.BertForPreTraining.from_pretrained(tmp_path / "ours")(IDS), again(IDS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_computed_in_float32_unless_asked(tmp_path: Path, dtype: torch.dtype) -> None:
    theirs_of("BertModel", tmp_path)
    rewrite(tmp_path, lambda t: {name: tensor.to(dtype) for name, tensor in t.items()})
    ours = minibert.BertModel.from_pretrained(tmp_path)
    theirs = transformers.BertModel.from_pretrained(tmp_path, dtype=torch.float32)
    assert ours.dtype == torch.float32
    assert_identical(ours(IDS), theirs(IDS))
    assert minibert.BertModel.from_pretrained(tmp_path, dtype=dtype).dtype == dtype


def test_a_pickled_checkpoint_loads_and_safetensors_are_preferred(tmp_path: Path) -> None:
    theirs = theirs_of("BertForMaskedLM", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for legacy in (False, True):
        torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
        (tmp_path / "model.safetensors").unlink(missing_ok=True)
        assert same_logits(tmp_path, theirs)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    assert not same_logits(tmp_path, theirs)


def test_sharded_checkpoints_load_in_both_forms(tmp_path: Path) -> None:
    theirs = theirs_of("BertForMaskedLM", tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    assert same_logits(tmp_path / "shards", theirs)

    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(tmp_path / "whole" / "config.json", pickled)
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    halves = {
        "pytorch_model-00001-of-00002.bin": list(tensors)[::2],
        "pytorch_model-00002-of-00002.bin": list(tensors)[1::2],
    }
    for file, names in halves.items():
        torch.save({name: tensors[name].clone() for name in names}, pickled / file)
    weight_map = {name: file for file, names in halves.items() for name in names}
    (pickled / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert same_logits(pickled, theirs)

    (pickled / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(FileNotFoundError, match=re.escape("must hold pytorch_model-00002-of-00002.bin")):
        minibert.BertForMaskedLM.from_pretrained(pickled)


# Any class into any class

NEEDED = {
    "BertModel": set(),
    "BertForMaskedLM": {"mlm"},
    "BertForNextSentencePrediction": {"pooler", "nsp"},
    "BertForPreTraining": {"pooler", "mlm", "nsp"},
    "BertForSequenceClassification": set(),
    "BertForTokenClassification": set(),
    "BertForQuestionAnswering": set(),
    "BertForMultipleChoice": set(),
}
HAS = {
    "BertModel": {"pooler"},
    "BertForMaskedLM": {"mlm"},
    "BertForNextSentencePrediction": {"pooler", "nsp"},
    "BertForPreTraining": {"pooler", "mlm", "nsp"},
    "BertForSequenceClassification": {"pooler", "classifier"},
    "BertForTokenClassification": {"classifier"},
    "BertForQuestionAnswering": {"span"},
    "BertForMultipleChoice": {"pooler", "classifier"},
}
TENSORS = {
    "mlm": "cls.predictions.transform.dense.weight",
    "nsp": "cls.seq_relationship.weight",
    "pooler": "pooler.dense.weight",
}


@pytest.mark.parametrize(("saved", "wanted"), list(itertools.product(HEADS, HEADS)))
def test_what_any_class_saved_loads_into_any_class_or_says_what_is_missing(
    tmp_path: Path, saved: str, wanted: str
) -> None:
    # One output, so that all classifiers have one shape: which head it is, is then a question of its name alone.
    labels = {} if "BertForQuestionAnswering" in (saved, wanted) else {"num_labels": 1}
    theirs = theirs_of(saved, tmp_path, num_hidden_layers=1, **labels)
    kind = getattr(minibert, wanted)
    missing = NEEDED[wanted] - HAS[saved]
    if missing:
        with pytest.raises(ValueError, match="it lacks") as caught:
            kind.from_pretrained(tmp_path)
        for part in missing:
            assert TENSORS[part] in str(caught.value)
        return
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ours = kind.from_pretrained(tmp_path)
    new = [str(warning.message) for warning in told]
    needs = {
        "BertForSequenceClassification": {"pooler", "classifier"},
        "BertForMultipleChoice": {"pooler", "classifier"},
    }
    needs |= {"BertForTokenClassification": {"classifier"}, "BertForQuestionAnswering": {"span"}}
    absent = needs.get(wanted, set()) - HAS[saved]
    assert len(new) == bool(absent)
    for part in absent:
        name = {"span": "qa_outputs.weight", "classifier": "classifier.weight", "pooler": "pooler.dense.weight"}[part]
        assert name in new[0]
    for part in absent:
        head = ours.get_submodule(
            {"span": "span_head", "classifier": "classifier", "pooler": "bert.pooler.dense"}[part]
        )
        six_sigma = 6 / math.sqrt(2 * head.weight.numel())
        assert head.weight.std().item() == pytest.approx(ours.config.initializer_range, rel=six_sigma)
        assert not head.bias.any()
    mine = getattr(ours, "bert", ours)(IDS).last_hidden_state
    assert torch.equal(mine, getattr(theirs, "bert", theirs)(IDS).last_hidden_state)


def test_a_new_head_starts_as_bert_starts_it(tmp_path: Path) -> None:
    theirs_of("BertModel", tmp_path, hidden_size=256, num_hidden_layers=1, num_labels=400)
    with pytest.warns(
        UserWarning, match=re.escape("has no classifier.weight, classifier.bias: new, random, to be trained")
    ) as told:
        ours = minibert.BertForTokenClassification.from_pretrained(tmp_path)
    assert told[0].filename == __file__
    assert abs(ours.classifier.weight.std().item() - 0.02) < 1e-3
    assert ours.classifier.bias.abs().max().item() == 0


@pytest.mark.parametrize("kind", ["BertForSequenceClassification", "BertForTokenClassification"])
def test_a_head_of_another_size_is_made_new_if_asked_for(tmp_path: Path, kind: str) -> None:
    theirs = theirs_of(kind, tmp_path, num_labels=3)
    ours_class, their_class = getattr(minibert, kind), getattr(transformers, kind)
    with pytest.raises(ValueError, match=r"classifier.weight has shape \(3, 32\), the configuration wants \(5, 32\)"):
        ours_class.from_pretrained(tmp_path, num_labels=5)
    told = (
        "has no classifier.weight, classifier.bias of this shape (it has classifier.weight (3, 32), classifier.bias "
        f"(3,)): new, random, to be trained before {kind} is of use"
    )
    with pytest.warns(UserWarning, match=re.escape(told)) as warned:
        ours = ours_class.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert len(warned) == 1
    expected = their_class.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True).eval()
    assert ours.config.id2label == expected.config.id2label
    assert ours.classifier.weight.shape == expected.classifier.weight.shape
    assert 0 < ours.classifier.weight.std() < 0.1
    assert not ours.classifier.bias.any()
    assert torch.equal(ours.bert(IDS).last_hidden_state, theirs.bert(IDS).last_hidden_state)
    same = ours_class.from_pretrained(tmp_path, ignore_mismatched_sizes=True)  # the head fits, and is used
    assert torch.equal(same.classifier.weight, theirs.classifier.weight)


@pytest.mark.parametrize("field", ["vocab_size", "max_position_embeddings", "intermediate_size", "hidden_size"])
@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "BertForSequenceClassification"])
def test_an_encoder_of_another_size_is_never_made_new(tmp_path: Path, kind: str, field: str) -> None:
    theirs_of(kind, tmp_path)
    with pytest.raises(minibert.MinibertError, match=r"must fit its configuration; embeddings|encoder"):
        getattr(minibert, kind).from_pretrained(tmp_path, ignore_mismatched_sizes=True, **{field: 128})


def test_a_mismatch_is_ignored_by_classes_alone(minilm: Path) -> None:
    with pytest.raises(
        TypeError, match=r"argument 'ignore_mismatched_sizes'; use BertForSequenceClassification.from_pretrained"
    ):
        minibert.load(minilm, ignore_mismatched_sizes=True)
    with pytest.raises(minibert.MinibertError, match=r"^ignore_mismatched_sizes \('yes'\) must be True or False$"):
        minibert.BertModel.from_pretrained(minilm, ignore_mismatched_sizes="yes")


def test_a_checkpoint_without_a_pooler_has_none(tmp_path: Path) -> None:
    theirs_of("BertForMaskedLM", tmp_path)
    ours = minibert.BertModel.from_pretrained(tmp_path)
    outputs = ours(IDS, output_hidden_states=True)
    assert ours.pooler is None
    assert outputs.pooler_output is None
    assert len(outputs) == 2
    ours.save_pretrained(tmp_path / "again")
    assert minibert.BertModel.from_pretrained(tmp_path / "again").pooler is None


def test_tensors_without_a_place_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    theirs_of("BertForPreTraining", tmp_path)
    rewrite(tmp_path, lambda t: {**t, "crf.transitions": torch.zeros(3, 3)})
    with caplog.at_level(logging.INFO, logger="minibert"):
        minibert.BertModel.from_pretrained(tmp_path)
    levels = {record.levelname: record.getMessage() for record in caplog.records}
    assert "crf.transitions" in levels["WARNING"]
    assert "cls.seq_relationship.weight" in levels["INFO"]


# Saving


@pytest.mark.parametrize("kind", HEADS)
def test_what_we_save_transformers_loads_without_a_word_and_computes_the_same(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair_of(kind, tmp_path / "theirs", **({} if "Question" in kind else {"num_labels": 3}))
    ours.save_pretrained(tmp_path / "ours")
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    transformers.utils.logging.set_verbosity_warning()
    try:
        with caplog.at_level(logging.WARNING):
            again, report = getattr(transformers, kind).from_pretrained(tmp_path / "ours", output_loading_info=True)
    finally:
        transformers.utils.logging.set_verbosity_error()
    assert not caplog.records
    assert not any(report.values()), report
    inputs = {"input_ids": IDS[:, None]} if kind == "BertForMultipleChoice" else {"input_ids": IDS}
    reloaded = getattr(minibert, kind).from_pretrained(tmp_path / "ours")
    assert_identical(reloaded(**inputs), again(**inputs))
    assert_identical(ours(**inputs), theirs(**inputs))
    for (name, saved), loaded in zip(ours.named_parameters(), reloaded.parameters(), strict=True):
        assert torch.equal(saved, loaded), name
    assert set(load_file(tmp_path / "ours" / "model.safetensors")) == set(
        load_file(tmp_path / "theirs" / "model.safetensors")
    )


def test_saving_in_half_precision_says_so_in_the_configuration(tmp_path: Path) -> None:
    ours, _ = pair_of("BertModel", tmp_path / "a", dtype=torch.bfloat16)
    ours.save_pretrained(tmp_path / "b")
    again = transformers.BertModel.from_pretrained(tmp_path / "b")
    assert again.dtype == torch.bfloat16
    reloaded = minibert.BertModel.from_pretrained(tmp_path / "b", dtype=torch.bfloat16)
    assert_identical(reloaded(IDS), again(IDS))
    for (name, saved), loaded in zip(ours.named_parameters(), reloaded.parameters(), strict=True):
        assert torch.equal(saved, loaded), name


def test_saving_over_the_folder_that_is_loaded_keeps_the_loaded_weights(tmp_path: Path) -> None:
    ours, theirs = pair_of("BertModel", tmp_path)
    minibert.BertModel(ours.config).save_pretrained(tmp_path)
    assert_identical(ours(IDS), theirs(IDS))


def test_an_interrupted_save_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair_of("BertModel", tmp_path)

    def fail(tensors: Any, path: Path, metadata: Any) -> None:
        Path(path).write_bytes(b"half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minibert.pretrained.checkpoint.save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        ours.save_pretrained(tmp_path)
    assert_identical(minibert.BertModel.from_pretrained(tmp_path)(IDS), theirs(IDS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


# Broken checkpoints: one sentence each


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    theirs_of("BertForMaskedLM", tmp_path)
    return tmp_path


def test_a_folder_without_config_is_refused(tiny: Path) -> None:
    (tiny / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tiny} must hold config.json; it does not")):
        minibert.BertModel.from_pretrained(tiny)


def test_a_folder_without_weights_is_refused(tiny: Path) -> None:
    (tiny / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold weights as model\.safetensors or pytorch_model\.bin"):
        minibert.BertModel.from_pretrained(tiny)


def test_broken_json_is_refused(tiny: Path) -> None:
    (tiny / "config.json").write_text('{"model_type": "bert", ')
    with pytest.raises(ValueError, match=r"config\.json of .* must be valid JSON \(Expecting property name"):
        minibert.BertModel.from_pretrained(tiny)
    (tiny / "config.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="must be a JSON object, not a list"):
        minibert.BertModel.from_pretrained(tiny)


@pytest.mark.parametrize("keep", [0, 5, 200, -4])
def test_a_truncated_safetensors_file_is_refused(tiny: Path, keep: int) -> None:
    path = tiny / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=re.escape(f"{path} must be a whole safetensors file; it is not (")):
        minibert.BertModel.from_pretrained(tiny)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_code_does_not_run(tiny: Path) -> None:
    (tiny / "model.safetensors").unlink()
    target = tiny / "was-run"
    message = re.escape(
        "pytorch_model.bin must be a whole file of tensors saved by torch; it is not, and nothing in it was run"
    )
    for write in (lambda value, path: path.write_bytes(pickle.dumps(value, 2)), torch.save):
        write({"bert.embeddings.word_embeddings.weight": Evil(target)}, tiny / "pytorch_model.bin")
        with pytest.raises(ValueError, match=message):
            minibert.BertModel.from_pretrained(tiny)
        assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"not tensors at all", b"PK\x03\x04 not a zip"])
def test_a_bin_that_is_not_a_file_of_torch_is_refused(tiny: Path, content: bytes) -> None:
    (tiny / "model.safetensors").unlink()
    (tiny / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ValueError, match="must be a whole file of tensors saved by torch"):
        minibert.BertModel.from_pretrained(tiny)


def test_a_bin_of_other_things_than_tensors_is_refused(tiny: Path) -> None:
    (tiny / "model.safetensors").unlink()
    torch.save({"epoch": 3, "state": {"w": torch.zeros(1)}}, tiny / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"must hold tensors by name; it holds dict: save model\.state_dict\(\)"):
        minibert.BertModel.from_pretrained(tiny)


def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(tiny: Path) -> None:
    rewrite(tiny, lambda t: {**t, "bert.embeddings.word_embeddings.weight": torch.zeros(50, 32)})
    message = re.escape("embeddings.word_embeddings.weight has shape (50, 32), the configuration wants (99, 32)")
    with pytest.raises(ValueError, match=message):
        minibert.BertModel.from_pretrained(tiny)


def test_missing_tensors_are_all_named(tiny: Path) -> None:
    rewrite(tiny, lambda t: {name: tensor for name, tensor in t.items() if "layer.1.attention.self" not in name})
    with pytest.raises(ValueError, match="it lacks") as caught:
        minibert.BertModel.from_pretrained(tiny)
    for part in ("query.weight", "query.bias", "key.weight", "key.bias", "value.weight", "value.bias"):
        assert f"encoder.layer.1.attention.self.{part}" in str(caught.value)


def test_a_part_of_a_head_is_missing_not_new(tmp_path: Path) -> None:
    theirs_of("BertForTokenClassification", tmp_path)
    rewrite(tmp_path, lambda t: {name: tensor for name, tensor in t.items() if name != "classifier.bias"})
    with pytest.raises(ValueError, match=re.escape("it lacks classifier.bias")):
        minibert.BertForTokenClassification.from_pretrained(tmp_path)


def test_quantised_tensors_are_refused(tiny: Path) -> None:
    name = "bert.encoder.layer.0.output.dense.weight"
    rewrite(tiny, lambda t: {**t, name: torch.zeros(t[name].shape, dtype=torch.int8)})
    with pytest.raises(
        ValueError, match=r"has dtype torch\.int8, but must be float; quantised weights are not implemented"
    ):
        minibert.BertModel.from_pretrained(tiny)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_named_in_a_warning(tiny: Path, value: float) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors["bert.encoder.layer.2.output.dense.weight"][3, 4] = value
        return tensors

    rewrite(tiny, spoil)
    with pytest.warns(
        UserWarning, match=r"^encoder\.layer\.2\.output\.dense\.weight of .* must hold finite numbers"
    ) as told:
        minibert.BertModel.from_pretrained(tiny)
    assert told[0].filename == __file__


def test_large_but_finite_weights_are_no_reason_for_a_warning(tiny: Path) -> None:
    rewrite(tiny, lambda t: {**t, "bert.embeddings.LayerNorm.bias": torch.full((32,), 3e38)})
    minibert.BertModel.from_pretrained(tiny)


def test_the_same_tensor_under_two_names_is_refused(tiny: Path) -> None:
    rewrite(tiny, lambda t: {**t, "embeddings.LayerNorm.weight": torch.ones(32)})
    with pytest.raises(ValueError, match="must hold each tensor once"):
        minibert.BertModel.from_pretrained(tiny)


def test_a_file_instead_of_a_folder_is_refused(tiny: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"must be a folder; pass {tiny}")):
        minibert.BertModel.from_pretrained(tiny / "model.safetensors")


@pytest.mark.parametrize("name", ["float32", "float64", "bfloat16", "float16"])
def test_a_dtype_may_be_given_by_its_name_wherever_weights_are_loaded(tiny: Path, name: str) -> None:
    expected = getattr(torch, name)
    for given in (name, f"torch.{name}", expected):
        assert minibert.BertModel.from_pretrained(tiny, dtype=given).dtype == expected
        assert minibert.BertForMaskedLM.from_pretrained(tiny, torch_dtype=given).dtype == expected
    checkpoint = Checkpoint.open(Repository.open(tiny))
    config = minibert.BertConfig.from_pretrained(tiny)
    assert minibert.BertModel.from_checkpoint(checkpoint, config, dtype=name).dtype == expected


@pytest.mark.parametrize(
    "dtype", ["float", "int64", "auto", "torch.float8_e4m3fn", torch.int64, torch.float8_e4m3fn, 3]
)
def test_a_dtype_that_weights_cannot_have_is_refused(tiny: Path, dtype: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"dtype ({dtype!r}) must be a floating-point type of torch")):
        minibert.BertModel.from_pretrained(tiny, dtype=dtype)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_here_is_refused(tiny: Path) -> None:
    for device in ("cuda", 0, "banana", 2.5, "meta"):
        with pytest.raises(ValueError, match=re.escape(f"device ({device}) must be one that this torch can use; it")):
            minibert.BertModel.from_pretrained(tiny, device=device)


def test_layers_that_the_configuration_leaves_out_are_told(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="minibert"):
        minibert.BertModel.from_pretrained(tiny, num_hidden_layers=2)
    assert "encoder.layer.2.output.dense.weight" in caplog.text


@pytest.mark.parametrize("name", ["https://huggingface.co/google-bert/bert-base-uncased", "x" * 300])
def test_addresses_and_endless_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be a folder or a name"):
        minibert.BertModel.from_pretrained(name)


def test_a_revision_of_a_folder_is_refused(tiny: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"revision ('v1') must be left out for a local folder ({tiny})")):
        minibert.BertModel.from_pretrained(tiny, revision="v1")


@pytest.mark.parametrize("name", ["./no-such-folder", "/no/such/folder", "~/no-such-folder", Path("nowhere")])
def test_a_path_that_does_not_exist_is_refused(name: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder \(.*\) must exist; check the path"):
        minibert.BertModel.from_pretrained(name)


@pytest.mark.parametrize("name", [None, 7, b"bert-base-uncased", "two words", ""])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="the checkpoint"):
        minibert.BertModel.from_pretrained(name)


def test_gradients_flow_into_loaded_weights_and_training_changes_them(tmp_path: Path) -> None:
    ours, _ = pair_of("BertForMaskedLM", tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1)
    inputs = batch()
    first = ours(**inputs, labels=inputs["input_ids"]).loss
    first.backward()
    optimizer.step()
    assert ours(**inputs, labels=inputs["input_ids"]).loss < first
    assert (tmp_path / "model.safetensors").read_bytes() == before  # the file is mapped, but never written to


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    theirs_of("BertForPreTraining", tmp_path)
    before = torch.get_rng_state()
    ours = minibert.BertForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(parameter.is_meta for parameter in ours.parameters())


# Files that mean harm


@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "/etc/passwd", "a/../../x.safetensors", "C:\\x.safetensors"]
)
def test_an_index_of_shards_names_no_file_outside_its_folder(tiny: Path, name: str) -> None:
    (tiny.parent / "other").mkdir(exist_ok=True)
    (tiny / "model.safetensors").rename(tiny.parent / "other" / "model.safetensors")
    (tiny / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(
        minibert.MinibertError, match=r"must lead to a file inside it|must name \.safetensors files alone"
    ):
        minibert.BertModel.from_pretrained(tiny)


def test_an_index_of_safetensors_names_no_pickle(tiny: Path) -> None:
    torch.save({}, tiny / "weights.bin")
    (tiny / "model.safetensors").unlink()
    (tiny / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "weights.bin"}}))
    with pytest.raises(minibert.MinibertError, match=r"must name \.safetensors files alone, not 'weights\.bin'"):
        minibert.BertModel.from_pretrained(tiny)


@pytest.mark.parametrize(
    "path", ["./half.safetensors", "parts//half.safetensors", "parts/./half.safetensors"], ids=["dot", "slash", "both"]
)
def test_a_name_that_stays_in_the_folder_may_be_written_in_any_way(tiny: Path, path: str) -> None:
    expected = minibert.BertModel.from_pretrained(tiny)(IDS).last_hidden_state
    (tiny / path).parent.mkdir(exist_ok=True)
    (tiny / "model.safetensors").rename(tiny / path)
    (tiny / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": path}}))
    assert torch.equal(minibert.BertModel.from_pretrained(tiny)(IDS).last_hidden_state, expected)


def test_links_that_a_user_made_are_followed(tiny: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in tiny.iterdir():
        (linked / file.name).symlink_to(file)
    ours, same = (minibert.BertModel.from_pretrained(folder)(IDS).last_hidden_state for folder in (linked, tiny))
    assert torch.equal(ours, same)


def huge(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros(1).expand(tensor.shape)


FORGED = {
    "repeated": huge,
    "sparse": torch.Tensor.to_sparse,
    "compressed": torch.Tensor.to_sparse_csr,
    "without memory": lambda tensor: torch.empty_like(tensor, device="meta"),
    "nested": lambda tensor: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta", "ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_a_pickle_whose_tensors_are_not_in_it_is_refused(tiny: Path, change: Any) -> None:
    name = "bert.encoder.layer.2.output.dense.weight"
    tensors = load_file(tiny / "model.safetensors")
    (tiny / "model.safetensors").unlink()
    torch.save({**tensors, name: change(tensors[name])}, tiny / "pytorch_model.bin")
    with pytest.raises(minibert.MinibertError, match=f"must hold every number of its tensors; '{re.escape(name)}' is"):
        minibert.BertModel.from_pretrained(tiny)


def test_a_small_pickle_of_a_huge_model_is_refused_before_work(tiny: Path) -> None:
    path = tiny / "config.json"
    sizes = {"vocab_size": 2**24, "hidden_size": 2**16, "num_attention_heads": 1, "num_hidden_layers": 1}
    path.write_text(json.dumps({**json.loads(path.read_text()), **sizes}))
    with without_storage():
        model = minibert.BertModel(minibert.BertConfig.from_pretrained(tiny))
    tensors = {to_checkpoint(name): huge(parameter) for name, parameter in model.named_parameters()}
    (tiny / "model.safetensors").unlink()
    torch.save(tensors, tiny / "pytorch_model.bin")
    with pytest.raises(minibert.MinibertError, match="repeats its numbers"):
        minibert.BertModel.from_pretrained(tiny)


def test_tensors_of_a_pickle_share_their_numbers_only_a_few_times(tiny: Path) -> None:
    shared = torch.zeros(10_000)
    (tiny / "model.safetensors").unlink()
    torch.save({f"a.{number}": shared for number in range(100)}, tiny / "pytorch_model.bin")
    with pytest.raises(
        minibert.MinibertError, match=r"\(4,000,000 bytes\) must be at most 32 times as large as the file"
    ):
        minibert.BertModel.from_pretrained(tiny)


def test_layers_that_share_their_weights_load_from_a_pickle(tiny: Path) -> None:
    tensors = load_file(tiny / "model.safetensors")
    tied = {name: tensors[re.sub(r"layer\.\d", "layer.0", name)] for name in tensors}
    (tiny / "model.safetensors").unlink()
    torch.save(tied, tiny / "pytorch_model.bin")
    layers = minibert.BertModel.from_pretrained(tiny).encoder.layers
    assert torch.equal(layers[0].feed_forward.up.weight, layers[2].feed_forward.up.weight)


def test_layers_are_counted_before_they_are_built(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(tiny, lambda t: {**t, **{f"x.{number}": torch.zeros(0) for number in range(1_000)}})
    path = tiny / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 1_000}))
    monkeypatch.setattr("minibert.model.Encoder", lambda config: pytest.fail("it is built"))
    with pytest.raises(minibert.MinibertError, match=r"num_hidden_layers \(1,000\) must fit .* which have 3 layers;"):
        minibert.BertModel.from_pretrained(tiny)


def test_a_compressed_pickle_is_not_unpacked(tiny: Path) -> None:
    (tiny / "model.safetensors").unlink()
    with zipfile.ZipFile(tiny / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 10_000_000)
    with pytest.raises(minibert.MinibertError, match="must hold its files without compression"):
        minibert.BertModel.from_pretrained(tiny)


def test_deeply_nested_json_is_refused(tiny: Path) -> None:
    (tiny / "config.json").write_text('{"a": ' * 100_000)
    with pytest.raises(
        minibert.MinibertError, match=r"config\.json of .* must be valid JSON \(it is nested too deeply\)"
    ):
        minibert.BertModel.from_pretrained(tiny)


def test_weights_have_the_rights_of_the_files_beside_them(tiny: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        minibert.BertModel.from_pretrained(tiny).save_pretrained(tmp_path / "saved")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "saved").iterdir()} == {0o640}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_what_may_not_be_read_is_not_called_broken(tiny: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.endswith(".bin"):
        (tiny / "model.safetensors").rename(tiny / name)
    opened = Path.open

    def refused(path: Path, *arguments: Any, **settings: Any) -> Any:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **settings)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(PermissionError, match="Permission denied"):
        minibert.BertModel.from_pretrained(tiny)


# Faults of heads


def classifier_with(folder: Path, minilm: Path, **config: Any) -> Path:
    """A small classifier with a tokenizer, and a changed configuration."""
    with_real_vocabulary(folder, minilm, "BertForSequenceClassification", num_labels=3)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


@pytest.mark.parametrize("labels", [{"0": "a", "1": "b"}, {"0": "a", "1": "b", "2": "c", "3": "d"}, ["a", "b", "c"]])
def test_labels_that_do_not_fit_their_number_are_named_as_in_transformers(
    labels: Any, tmp_path: Path, minilm: Path
) -> None:
    folder = classifier_with(tmp_path, minilm, num_labels=3, id2label=labels)
    with pytest.warns(UserWarning, match="the labels are called LABEL_0"):
        bert = minibert.load(folder)
    assert [label.label for label in sorted(bert.classify("a"))] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    if isinstance(labels, dict):
        assert transformers.AutoConfig.from_pretrained(folder).id2label == bert.config.id2label


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ({"1": "a", "2": "b", "3": "c"}, "1, 2, 3"),
        ({"a": "a", "b": "b", "c": "c"}, "a, b, c"),
        ({"9" * 5000: "a", "0": "", "1": ""}, "9999"),
    ],
    ids=["from 1", "names", "digits"],
)  # fmt: skip
def test_a_fault_of_the_head_leaves_the_encoder(labels: Any, shown: str, tmp_path: Path, minilm: Path) -> None:
    folder = classifier_with(tmp_path, minilm, id2label=labels)
    with pytest.warns(UserWarning, match="and its encoder was loaded alone"):
        bert = minibert.load(folder)
    assert bert.words("a bank").vectors.shape == (2, 32)
    for used in (lambda: bert.classify("a"), lambda: bert.score(("a", "b"))):
        with pytest.raises(minibert.MinibertError, match=f"the numbers of id2label \\({shown}.* must be 0 to 2"):
            used()
    with pytest.raises(minibert.MinibertError, match="the numbers of id2label"):
        minibert.BertForSequenceClassification.from_pretrained(folder)


def test_a_head_of_another_shape_leaves_the_encoder(tmp_path: Path, minilm: Path) -> None:
    folder = classifier_with(tmp_path, minilm, id2label={str(i): "x" + str(i) for i in range(7)})
    with pytest.warns(UserWarning, match="and its encoder was loaded alone"):
        bert = minibert.load(folder)
    with pytest.raises(minibert.MinibertError, match=r"classifier\.weight has shape \(3, 32\)"):
        bert.classify("a")


@pytest.mark.parametrize("change", [lambda t: t[:, :3].contiguous(), lambda t: t.to(torch.int8), None])
def test_a_fault_of_the_pooler_leaves_the_encoder(change: Any, tmp_path: Path, minilm: Path) -> None:
    with_real_vocabulary(tmp_path, minilm, "BertModel")
    expected = minibert.load(tmp_path).encode("a bank")
    name = "pooler.dense.weight"

    def spoil(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weight = tensors.pop(name)
        return tensors if change is None else {**tensors, name: change(weight)}

    rewrite(tmp_path, spoil)
    with pytest.warns(UserWarning, match=rf"its encoder was loaded alone: .*{re.escape(name)}"):
        bert = minibert.load(tmp_path)
    assert bert.encoder.pooler is None
    assert (bert.encode("a bank") == expected).all()
    with pytest.raises(minibert.MinibertError, match=re.escape(name)):
        bert.classify("a")
    with pytest.raises(minibert.MinibertError, match=re.escape(name)):
        minibert.BertModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("problem", ["banana", ["regression"], 3])
def test_an_unknown_problem_type_leaves_the_encoder(problem: Any, tmp_path: Path, minilm: Path) -> None:
    folder = classifier_with(tmp_path, minilm, problem_type=problem)
    message = re.escape(f"problem_type ({problem!r}) must be regression, single_label_classification, ")
    with pytest.warns(UserWarning, match=message):
        bert = minibert.load(folder)
    assert "pooler" in bert.heads
    assert bert.words("a bank").vectors.shape == (2, 32)
    with pytest.raises(minibert.MinibertError, match=message):
        bert.classify("a")


def test_no_labels_are_labels_without_names(tmp_path: Path, minilm: Path) -> None:
    folder = with_real_vocabulary(tmp_path, minilm, "BertModel")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "id2label": {}}))
    with pytest.warns(UserWarning, match="the labels are called LABEL_0"):
        assert minibert.load(folder).words("a bank").vectors.shape == (2, 32)
