"""Other people's training loops: what transformers' Trainer, PEFT and accelerate make of our classes and of theirs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate
import peft
import pytest
import torch
import transformers
from oracle import batch, pair_of, with_real_vocabulary
from safetensors.torch import load_file
from torch import Tensor, nn

import minibert
from minibert.pretrained.names import to_checkpoint

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CLASSES = ["BertForSequenceClassification", "BertForMaskedLM"]
KEPT_BY_TRAINER = {"per_device_train_batch_size": 4, "learning_rate": 1e-3, "report_to": "none", "use_cpu": True}


def data(kind: str, count: int = 16) -> list[dict[str, Tensor]]:
    """Texts of one length as ids, the last three tokens of every other one padding, with labels for the class."""
    rows = []
    for number in range(count):
        row = {name: tensor[0] for name, tensor in batch(1, 9).items()}
        row["attention_mask"] = torch.ones(9, dtype=torch.long)
        row["attention_mask"][9 - 3 * (number % 2) :] = 0
        row["labels"] = row["input_ids"].clone() if kind == "BertForMaskedLM" else torch.tensor(number % 2)
        rows.append(row)
    return rows


def trained(model: Any, rows: Any, folder: Path, **arguments: Any) -> transformers.Trainer:
    """transformers' Trainer after four steps."""
    settings = {"max_steps": 4, "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True, "seed": 3}
    made = transformers.TrainingArguments(str(folder), **{**KEPT_BY_TRAINER, **settings, **arguments})
    trainer = transformers.Trainer(model, made, train_dataset=rows, eval_dataset=rows[:6])
    trainer.train()
    return trainer


def losses(trainer: transformers.Trainer) -> list[float]:
    """The loss of each step."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def assert_same_weights(ours: nn.Module, theirs: nn.Module, tolerance: float = 1e-5) -> None:
    """Each of our parameters is theirs."""
    expected = {name.removeprefix("bert."): tensor for name, tensor in theirs.state_dict().items()}
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, expected[to_checkpoint(name)], atol=tolerance, rtol=0, msg=name)


@pytest.fixture(autouse=True)
def _one_accelerator() -> Iterator[None]:
    """accelerate remembers settings for the process."""
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


# PEFT asks transformers' own models by a name that has become old.
old_name = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


# transformers' Trainer


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLASSES)
def test_the_trainer_trains_our_class_as_it_trains_theirs(tmp_path: Path, kind: str) -> None:
    ours, theirs = pair_of(kind, tmp_path / "start", **NO_DROPOUT)
    before = copy.deepcopy(ours)
    rows = data(kind)
    mine, other = trained(ours, rows, tmp_path / "ours"), trained(theirs, rows, tmp_path / "theirs")
    assert len(losses(mine)) == 4
    assert losses(mine) == pytest.approx(losses(other), rel=1e-5)
    assert mine.evaluate()["eval_loss"] == pytest.approx(other.evaluate()["eval_loss"], rel=1e-5)
    torch.testing.assert_close(
        torch.tensor(mine.predict(rows[:6]).predictions),
        torch.tensor(other.predict(rows[:6]).predictions),
        atol=1e-5,
        rtol=0,
    )
    assert_same_weights(ours, theirs)
    with pytest.raises(AssertionError):
        assert_same_weights(before, theirs)  # it did learn something


@pytest.mark.slow
def test_accumulated_batches_train_as_one_batch_of_their_size(tmp_path: Path) -> None:
    one, other = (pair_of("BertForSequenceClassification", tmp_path / "start", **NO_DROPOUT)[0] for _ in range(2))
    other.load_state_dict(one.state_dict())
    rows = data("BertForSequenceClassification")
    whole = trained(one, rows, tmp_path / "whole")
    halves = trained(other, rows, tmp_path / "halves", per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert losses(halves) == pytest.approx(losses(whole), rel=1e-5)


@pytest.mark.slow
def test_what_the_trainer_saves_is_resumed_and_the_best_of_it_loaded(tmp_path: Path) -> None:
    start, _ = pair_of("BertForSequenceClassification", tmp_path / "start", **NO_DROPOUT)
    rows, every_two = data("BertForSequenceClassification"), {"save_strategy": "steps", "save_steps": 2}
    whole = copy.deepcopy(start)
    trained(whole, rows, tmp_path / "ours", **every_two)
    half = tmp_path / "ours" / "checkpoint-2"
    resumed = transformers.Trainer(
        copy.deepcopy(start),
        transformers.TrainingArguments(
            str(tmp_path / "resumed"), max_steps=4, save_strategy="no", disable_tqdm=True, seed=3, **KEPT_BY_TRAINER
        ),
        train_dataset=rows,
    )
    resumed.train(resume_from_checkpoint=str(half))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, msg=name)

    best = copy.deepcopy(start)
    worse = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "learning_rate": 10.0}
    trainer = trained(best, rows, tmp_path / "best", **every_two, **worse)
    assert trainer.state.best_model_checkpoint is not None
    kept = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in best.state_dict().items())


@pytest.mark.slow
def test_a_model_that_the_trainer_trained_is_saved_for_transformers(tmp_path: Path) -> None:
    ours, _ = pair_of("BertForSequenceClassification", tmp_path / "start", **NO_DROPOUT)
    trainer = trained(ours, data("BertForSequenceClassification"), tmp_path / "ours")
    trainer.model.save_pretrained(tmp_path / "saved")
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    inputs = batch()
    torch.testing.assert_close(ours.eval()(**inputs).logits, theirs(**inputs).logits, atol=1e-6, rtol=0)
    trainer.save_model(tmp_path / "state")  # the Trainer's own way: the state, under our names
    fresh = minibert.BertForSequenceClassification(ours.config)
    fresh.load_state_dict(load_file(tmp_path / "state" / "model.safetensors"))
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in fresh.state_dict().items())


@pytest.mark.slow
def test_the_trainer_takes_transformers_tokenizer_beside_our_model(tmp_path: Path, minilm: Path) -> None:
    ours = minibert.BertForSequenceClassification.from_pretrained(
        with_real_vocabulary(tmp_path / "start", minilm, "BertForSequenceClassification"), **NO_DROPOUT
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    rows = [{**tokenizer(f"text {number}" * (1 + number % 3)), "labels": number % 2} for number in range(16)]
    made = transformers.TrainingArguments(
        str(tmp_path / "ours"), max_steps=2, logging_steps=1, disable_tqdm=True, save_strategy="no", **KEPT_BY_TRAINER
    )
    trainer = transformers.Trainer(ours, made, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    assert len(losses(trainer)) == 2


# Activations that are computed again


def gradients(model: nn.Module, inputs: dict[str, Tensor], **asked: Any) -> dict[str, Tensor]:
    """What one batch gives, with the same dropout each time."""
    torch.manual_seed(5)
    model.zero_grad()
    model(**inputs, **asked).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("asked", [{}, {"output_hidden_states": True}, {"output_attentions": True}], ids=str)
@pytest.mark.parametrize("settings", [None, {"use_reentrant": True}, {"preserve_rng_state": True}], ids=str)
def test_checkpointing_changes_no_gradient(tmp_path: Path, settings: Any, asked: Any) -> None:
    ours, _ = pair_of("BertForMaskedLM", tmp_path)
    ours.train()  # with dropout
    inputs = batch()
    inputs["labels"] = inputs["input_ids"].clone()
    plain = gradients(ours, inputs, **asked)
    calls = [0] * 3
    for number, layer in enumerate(ours.bert.encoder.layers):
        layer.register_forward_pre_hook(lambda *_, number=number: calls.__setitem__(number, calls[number] + 1))
    ours.gradient_checkpointing_enable(settings)
    assert ours.is_gradient_checkpointing
    again = gradients(ours, inputs, **asked)
    assert calls == [2, 2, 2]  # each layer is computed twice, which is what it costs
    ours.gradient_checkpointing_disable()
    assert not ours.is_gradient_checkpointing
    off = gradients(ours, inputs, **asked)
    assert calls == [3, 3, 3]
    for got in (again, off):
        assert got.keys() == plain.keys()
        assert all(torch.equal(got[name], plain[name]) for name in plain)


def test_checkpointing_is_for_training_alone(tmp_path: Path) -> None:
    ours, _ = pair_of("BertModel", tmp_path)
    inputs = batch()
    expected = ours(**inputs, output_hidden_states=True)
    ours.gradient_checkpointing_enable()
    assert torch.equal(ours(**inputs).last_hidden_state, expected.last_hidden_state)
    assert ours(**inputs).hidden_states is None
    assert ours.train()(**inputs).hidden_states is None
    assert len(ours(**inputs, output_hidden_states=True).hidden_states) == 4


def test_checkpointing_frees_what_layers_keep(tmp_path: Path) -> None:
    ours, _ = pair_of("BertModel", tmp_path)
    ours.train()

    def kept() -> int:
        """The numbers that the graph holds for the backward pass."""
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            ours(**batch(4, 128))
        return sum(sizes)

    before = kept()
    ours.gradient_checkpointing_enable()
    assert kept() < before / 3


@pytest.mark.slow
def test_the_trainer_checkpoints_our_class_as_it_does_theirs(tmp_path: Path) -> None:
    ours, theirs = pair_of("BertForSequenceClassification", tmp_path / "start", **NO_DROPOUT)
    rows = data("BertForSequenceClassification")
    more = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}}
    mine = trained(ours, rows, tmp_path / "ours", **more)
    assert ours.is_gradient_checkpointing
    assert losses(mine) == pytest.approx(losses(trained(theirs, rows, tmp_path / "theirs", **more)), rel=1e-5)
    with pytest.raises(ValueError, match=r"every_n_layers \(2\) and offload \(False\) must be 1 and False; leave them"):
        ours.activation_checkpointing_enable(every_n_layers=2)


# PEFT


PEFT = {
    "r": 4,
    "lora_alpha": 64,
    "lora_dropout": 0.0,
    "init_lora_weights": False,
}  # not zero: they do something at once


def adapted(model: Any, task: str | None, **more: Any) -> Any:
    """A model with LoRA beside its queries and values, the same for equal seeds."""
    torch.manual_seed(7)
    return peft.get_peft_model(model, peft.LoraConfig(task_type=task, **PEFT, **more))


@pytest.mark.slow
@old_name
@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("BertModel", "FEATURE_EXTRACTION"),
        ("BertForSequenceClassification", "SEQ_CLS"),
        ("BertForTokenClassification", "TOKEN_CLS"),
        ("BertForQuestionAnswering", "QUESTION_ANS"),
        ("BertForMaskedLM", None),
    ],
)
def test_lora_computes_on_ours_what_it_computes_on_theirs(tmp_path: Path, kind: str, task: str | None) -> None:
    ours, theirs = pair_of(kind, tmp_path, **NO_DROPOUT)
    inputs = {"input_ids": batch()["input_ids"]}  # PEFT drops the token types of questions and answers
    plain = ours(**inputs)[0]
    ours_alone = {"modules_to_save": ["span_head"]} if task == "QUESTION_ANS" else {}  # PEFT knows the others' names
    mine, other = adapted(ours, task, **ours_alone).eval(), adapted(theirs, task).eval()
    trained_ones = [[p.shape for p in model.parameters() if p.requires_grad] for model in (mine, other)]
    assert sorted(trained_ones[0]) == sorted(trained_ones[1])
    got, expected = mine(**inputs)[0], other(**inputs)[0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert (got - plain).abs().max() > 1e-3
    torch.testing.assert_close(mine.merge_and_unload()(**inputs)[0], expected, atol=1e-5, rtol=0)


@old_name
@pytest.mark.parametrize("task", ["FEATURE_EXTRACTION", "SEQ_CLS", "TOKEN_CLS"])
@pytest.mark.parametrize("method", ["prompt tuning", "P-tuning"])
def test_vectors_before_a_text_compute_on_ours_what_they_compute_on_theirs(
    tmp_path: Path, task: str, method: str
) -> None:
    kind = {"SEQ_CLS": "BertForSequenceClassification", "TOKEN_CLS": "BertForTokenClassification"}.get(
        task, "BertModel"
    )
    inputs = {"input_ids": batch()["input_ids"], "attention_mask": torch.ones(3, 11, dtype=torch.long)}
    inputs["attention_mask"][1, 7:] = 0
    found = []
    for model in pair_of(kind, tmp_path, **NO_DROPOUT):
        torch.manual_seed(7)
        settings: dict[str, Any] = {"task_type": task, "num_virtual_tokens": 4}
        adapter = (
            peft.PromptTuningConfig(**settings)
            if method == "prompt tuning"
            else peft.PromptEncoderConfig(**settings, encoder_hidden_size=16)
        )
        with_vectors = peft.get_peft_model(model, adapter)
        result = with_vectors(**inputs)[0]
        result.sum().backward()
        gradients = [
            p.grad for name, p in with_vectors.named_parameters() if "prompt_encoder" in name and p.requires_grad
        ]
        found.append((result, *gradients))
    assert len(found[0]) == len(found[1]) > 1
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)


@old_name
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
def test_lora_beside_the_token_table_computes_and_is_saved(tmp_path: Path) -> None:
    inputs, found = batch(), []
    for model, table in zip(
        pair_of("BertForMaskedLM", tmp_path, **NO_DROPOUT), ("token", "word_embeddings"), strict=True
    ):
        torch.manual_seed(7)
        adapted = peft.get_peft_model(model, peft.LoraConfig(**PEFT, target_modules=[table, "query"])).eval()
        found.append(adapted(**inputs)[0])
        adapted.save_pretrained(tmp_path / table)
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)
    again = peft.PeftModel.from_pretrained(
        minibert.BertForMaskedLM.from_pretrained(tmp_path), tmp_path / "token"
    ).eval()
    assert torch.equal(again(**inputs)[0], found[0])


@pytest.mark.slow
@old_name
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_trainer_trains_lora_on_ours_as_on_theirs(tmp_path: Path, checkpointing: bool) -> None:
    ours, theirs = pair_of("BertForSequenceClassification", tmp_path / "start", **NO_DROPOUT)
    rows = data("BertForSequenceClassification")
    mine, other = (
        trained(
            adapted(model, "SEQ_CLS"),
            rows,
            tmp_path / name,
            activation_checkpointing=checkpointing,
            label_names=["labels"],
        )
        for model, name in ((ours, "ours"), (theirs, "theirs"))
    )
    assert losses(mine) == pytest.approx(losses(other), rel=1e-5)
    assert losses(mine)[-1] != losses(mine)[0]
    mine.save_model(tmp_path / "adapter")
    again, _ = pair_of("BertForSequenceClassification", tmp_path / "again", **NO_DROPOUT)
    again.load_state_dict(minibert.BertForSequenceClassification.from_pretrained(tmp_path / "start").state_dict())
    loaded = peft.PeftModel.from_pretrained(again, tmp_path / "adapter").eval()
    inputs = batch()
    torch.testing.assert_close(loaded(**inputs).logits, mine.model.eval()(**inputs).logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("meanwhile", [True, False], ids=["encoded meanwhile", "only before and after"])
def test_encode_sees_adapters_and_what_they_are_merged_into(tmp_path: Path, minilm: Path, meanwhile: bool) -> None:
    bert = minibert.load(with_real_vocabulary(tmp_path / "start", minilm, "BertModel"))
    texts = ["He robbed the bank.", "How do I reset my password?"]
    before = bert.encode(texts)
    wrapped = adapted(bert.encoder, "FEATURE_EXTRACTION")
    with_adapters = bert.encode(texts) if meanwhile else None
    assert wrapped.merge_and_unload() is bert.model
    merged = bert.encode(texts)
    bert.save_pretrained(tmp_path / "merged")
    assert abs(merged - minibert.load(tmp_path / "merged").encode(texts)).max() < 1e-6
    assert abs(merged - before).max() > 0.01
    if with_adapters is not None:
        assert abs(merged - with_adapters).max() < 1e-4


def test_lora_learns_where_the_rest_is_frozen_and_recomputed(tmp_path: Path) -> None:
    ours, _ = pair_of("BertForSequenceClassification", tmp_path, **NO_DROPOUT)
    inputs = {**batch(), "labels": torch.tensor([0, 1, 1])}
    plain = gradients(adapted(copy.deepcopy(ours), "SEQ_CLS").train(), inputs)
    ours.gradient_checkpointing_enable(
        {"use_reentrant": True}  # which needs an input that wants gradients: PEFT's hook
    )
    again = gradients(adapted(ours, "SEQ_CLS").train(), inputs)
    assert len([name for name in again if "lora" in name]) == 12
    assert again.keys() == plain.keys()
    assert all(torch.equal(again[name], plain[name]) for name in plain)


def test_encode_has_no_dropout_in_the_midst_of_training(tmp_path: Path, minilm: Path) -> None:
    bert = minibert.load(with_real_vocabulary(tmp_path, minilm, "BertModel"))
    before = bert.encode("He robbed the bank.")
    bert.model.train()
    bert.model.gradient_checkpointing_enable()
    assert abs(bert.encode("He robbed the bank.") - before).max() < 1e-6
    assert bert.model.training


# accelerate


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_accelerate_trains_our_class_as_it_trains_theirs(tmp_path: Path, precision: str) -> None:
    pair = pair_of("BertForSequenceClassification", tmp_path / "start", **NO_DROPOUT)
    rows, seen = data("BertForSequenceClassification"), []
    for model in pair:
        accelerator = accelerate.Accelerator(mixed_precision=precision, cpu=True)
        loader = torch.utils.data.DataLoader(rows, batch_size=4)
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3)
        prepared, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        seen.append([])
        for inputs in loader:
            loss = prepared(**inputs).loss
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(prepared.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            seen[-1].append(loss.item())
        assert accelerator.unwrap_model(prepared) is model
    assert len(seen[0]) == 4
    assert seen[0] == pytest.approx(seen[1], rel=1e-5 if precision == "no" else 0.01)
    if precision == "no":
        assert_same_weights(*pair)


# Arguments


@pytest.mark.parametrize("kind", ["BertModel", *CLASSES, "BertForPreTraining", "BertForQuestionAnswering"])
def test_arguments_that_ask_for_nothing_are_accepted_and_others_refused(tmp_path: Path, kind: str) -> None:
    ours, theirs = pair_of(kind, tmp_path)
    inputs, nothing = batch(), {"inputs_embeds": None, "return_dict": True, "output_attentions": None}
    got, expected = ours(**inputs, **nothing, use_cache=False)[0], theirs(**inputs, **nothing)[0]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    with pytest.raises(
        ValueError, match=r"^input_ids must be None where inputs_embeds are given; leave out one of them$"
    ):
        ours(**inputs, inputs_embeds=torch.zeros(3, 11, 32))
    with pytest.raises(ValueError, match=r"^input_ids \(NoneType\) must be a tensor"):
        ours()
    with pytest.raises(ValueError, match=r"^return_dict \(False\) must be None or True; call to_tuple\(\) on what"):
        ours(**inputs, return_dict=False)
    with pytest.raises(TypeError, match=r"^forward\(\) got an unexpected keyword argument 'atention_mask'$"):
        ours(**inputs, atention_mask=None)


def test_a_configuration_is_fixed_except_for_what_means_nothing() -> None:
    config = minibert.BertConfig()
    config.use_cache = False
    assert config == minibert.BertConfig()
    assert "use_cache" not in config.to_dict()
    for name in ("hidden_size", "hidden_sise"):
        with pytest.raises(
            AttributeError, match=rf"^{name} \(3\) must not be assigned, a configuration is fixed; make"
        ):
            setattr(config, name, 3)
    assert copy.deepcopy(config).replace(num_labels=3).num_labels == 3
