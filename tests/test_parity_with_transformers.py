"""Where both run the same operations on the same padded batch, every output is identical, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from oracle import HEADS, assert_identical, batch, pair_of, place_tensors, theirs_of

import minibert

BOTH_KERNELS = pytest.mark.parametrize("attention", ["sdpa", "eager"])
BOTH_DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


def run_both(ours: Any, theirs: Any, attention: str = "sdpa", **inputs: Any) -> tuple[Any, Any]:
    """The same call of both; the explicit attention, ours and theirs, gives its probabilities too."""
    explicit = attention == "eager"
    with torch.no_grad():
        mine = ours(**inputs, output_hidden_states=True, output_attentions=explicit)
        other = theirs(**inputs, output_hidden_states=True, output_attentions=explicit)
    if explicit:
        assert len(other.attentions) == theirs.config.num_hidden_layers
    assert len(other.hidden_states) == theirs.config.num_hidden_layers + 1
    return mine, other


def mask_of(kind: str, size: int, length: int) -> torch.Tensor | None:
    mask = torch.ones(size, length, dtype=torch.long)
    for row in range(size):
        padding = min(length - 1, 2 * row)
        if padding and kind == "right":
            mask[row, -padding:] = 0
        if padding and kind == "left":
            mask[row, :padding] = 0
    if kind == "none masked":
        return mask
    if kind == "a row fully masked":
        mask[-1] = 0
    return None if kind == "no mask" else mask


@BOTH_DTYPES
@BOTH_KERNELS
@pytest.mark.parametrize("padding", ["no mask", "none masked", "right", "left", "a row fully masked"])
def test_every_hidden_state_is_identical_whatever_the_mask(
    tmp_path: Path, padding: str, attention: str, dtype: torch.dtype
) -> None:
    ours, theirs = pair_of("BertModel", tmp_path, attention, dtype)
    inputs = batch(4, 11)
    assert_identical(*run_both(ours, theirs, attention, **inputs, attention_mask=mask_of(padding, 4, 11)))


@BOTH_KERNELS
@pytest.mark.parametrize("act", ["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh"])
def test_every_activation_is_identical(tmp_path: Path, act: str, attention: str) -> None:
    ours, theirs = pair_of("BertForMaskedLM", tmp_path, attention, hidden_act=act)
    assert_identical(*run_both(ours, theirs, attention, **batch()))


def test_the_tanh_form_of_gelu_is_not_the_exact_one(tmp_path: Path) -> None:
    ours, _ = pair_of("BertModel", tmp_path, hidden_act="gelu")
    other = minibert.BertModel.from_pretrained(tmp_path, hidden_act="gelu_new")
    inputs = batch()
    assert not torch.equal(ours(**inputs)[0], other(**inputs)[0])


@BOTH_DTYPES
@pytest.mark.parametrize("heads", [1, 2, 8, 32])
def test_every_number_of_heads_is_identical(tmp_path: Path, heads: int, dtype: torch.dtype) -> None:
    ours, theirs = pair_of("BertModel", tmp_path, "sdpa", dtype, num_attention_heads=heads)
    inputs = {**batch(4, 9), "attention_mask": mask_of("right", 4, 9)}
    assert_identical(*run_both(ours, theirs, "sdpa", **inputs))
    theirs.set_attn_implementation("eager")
    assert_identical(*run_both(ours, theirs, "eager", **inputs))


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 1e-2])
def test_the_epsilon_of_the_configuration_is_used(tmp_path: Path, eps: float) -> None:
    ours, theirs = pair_of("BertForMaskedLM", tmp_path, layer_norm_eps=eps)
    assert_identical(*run_both(ours, theirs, **batch()))


@BOTH_DTYPES
@BOTH_KERNELS
@pytest.mark.parametrize(("size", "length"), [(1, 1), (1, 2), (8, 3), (5, 17), (2, 64), (1, 127), (2, 255), (1, 512)])
def test_every_length_and_batch_is_identical(
    tmp_path: Path, size: int, length: int, attention: str, dtype: torch.dtype
) -> None:
    ours, theirs = pair_of("BertModel", tmp_path, attention, dtype)
    inputs = {**batch(size, length), "attention_mask": mask_of("right", size, length)}
    assert_identical(*run_both(ours, theirs, attention, **inputs))


@BOTH_DTYPES
@pytest.mark.parametrize("offset", range(0, 64, 8))
def test_every_place_of_the_tensors_in_a_file_is_identical(tmp_path: Path, offset: int, dtype: torch.dtype) -> None:
    theirs_of("BertForPreTraining", tmp_path)
    place_tensors(tmp_path, offset)
    ours = minibert.BertForPreTraining.from_pretrained(tmp_path, dtype=dtype)
    theirs = transformers.BertForPreTraining.from_pretrained(tmp_path, dtype=dtype).eval()
    if dtype == torch.float32:  # mapped, not copied: else this would try one place only
        addresses = {parameter.data_ptr() % 64 for parameter in ours.bert.embeddings.parameters()}
        assert any((address - offset) % 64 == 0 for address in addresses)
    for size, length in ((1, 1), (1, 40), (3, 17)):
        inputs = {**batch(size, length), "attention_mask": mask_of("right", size, length)}
        assert_identical(*run_both(ours, theirs, **inputs))


def test_given_positions_are_used(tmp_path: Path) -> None:
    ours, theirs = pair_of("BertModel", tmp_path)
    positions = torch.arange(20, 31)[None]
    inputs = batch(3, 11)
    assert_identical(*run_both(ours, theirs, **inputs, position_ids=positions))
    assert not torch.equal(ours(**inputs)[0], ours(**inputs, position_ids=positions)[0])


def labels_of(kind: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    size, length = inputs["input_ids"].shape[0], inputs["input_ids"].shape[-1]
    words = torch.randint(1, 99, (size, length))
    words[:, ::2] = -100
    return {
        "BertModel": {},
        "BertForMaskedLM": {"labels": words},
        "BertForNextSentencePrediction": {"labels": torch.randint(2, (size,))},
        "BertForPreTraining": {"labels": words, "next_sentence_label": torch.randint(2, (size,))},
        "BertForSequenceClassification": {"labels": torch.randint(3, (size,))},
        "BertForTokenClassification": {"labels": words.clamp(-100, 2)},
        "BertForQuestionAnswering": {
            "start_positions": torch.tensor([0, 3, length + 5])[:size],
            "end_positions": torch.tensor([1, length, 4])[:size],
        },
        "BertForMultipleChoice": {"labels": torch.randint(4, (size,))},
    }[kind]


def inputs_of(kind: str) -> dict[str, torch.Tensor]:
    inputs = {**batch(3, 9), "attention_mask": mask_of("right", 3, 9)}
    if kind == "BertForMultipleChoice":
        inputs = {
            name: torch.stack([value, value.roll(1, -1), value, value.roll(2, -1)], 1) for name, value in inputs.items()
        }
    return inputs


@BOTH_DTYPES
@BOTH_KERNELS
@pytest.mark.parametrize("kind", HEADS)
def test_every_head_and_loss_is_identical(tmp_path: Path, kind: str, attention: str, dtype: torch.dtype) -> None:
    config = {} if kind == "BertForQuestionAnswering" else {"num_labels": 3}
    ours, theirs = pair_of(kind, tmp_path, attention, dtype, **config)
    inputs = inputs_of(kind)
    assert_identical(*run_both(ours, theirs, attention, **inputs))
    assert_identical(*run_both(ours, theirs, attention, **inputs, **labels_of(kind, inputs)))


@BOTH_DTYPES
@pytest.mark.parametrize("kind", HEADS)
def test_vectors_in_place_of_ids_are_identical(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    ours, theirs = pair_of(kind, tmp_path, "sdpa", dtype)
    inputs = inputs_of(kind)
    by_ids = ours(**inputs)[0]
    vectors = ours.get_input_embeddings()(inputs.pop("input_ids")).detach()
    assert torch.equal(ours(inputs_embeds=vectors, **inputs)[0], by_ids)
    vectors = (vectors + 0.1 * torch.randn_like(vectors)).requires_grad_()
    assert_identical(*run_both(ours, theirs, inputs_embeds=vectors, **inputs))
    ours(inputs_embeds=vectors, **inputs)[0].sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.abs().sum() > 0


def test_vectors_that_cannot_stand_for_tokens_are_refused(tmp_path: Path) -> None:
    ours, _ = pair_of("BertModel", tmp_path)
    vectors = torch.zeros(3, 5, 32)
    for wrong, message in (
        ([[1.0]], r"^inputs_embeds \(list\) must be a tensor; or pass input_ids$"),
        (
            vectors[0],
            r"^inputs_embeds shape \(5, 32\) must be \(batch, sequence, 32\), a vector for each token; to pass",
        ),
        (vectors[..., :8], r"^inputs_embeds shape \(3, 5, 8\) must be"),
        (vectors.long(), r"^inputs_embeds dtype \(torch.int64\) must be that of the model \(torch.float32\); pass"),
        (vectors.double(), r"^inputs_embeds dtype \(torch.float64\) must be"),
        (vectors[:, :0], r"^inputs_embeds shape \(3, 0\) must hold at least one token"),
        (torch.zeros(1, 513, 32), r"^sequence length \(513\) must not exceed max_position_embeddings \(512\)"),
    ):
        with pytest.raises(minibert.MinibertError, match=message):
            ours(inputs_embeds=wrong)
    with pytest.raises(
        minibert.MinibertError, match=r"^attention_mask shape \(3, 4\) must equal that of inputs_embeds \(3, 5"
    ):
        ours(inputs_embeds=vectors, attention_mask=torch.ones(3, 4).long())
    with pytest.raises(
        minibert.MinibertError, match=r"^attention_mask dtype \(torch.float32\) must be bool or integer"
    ):
        ours(inputs_embeds=vectors, attention_mask=torch.full((3, 5), -1e4))
    choices = minibert.BertForMultipleChoice(ours.config)
    with pytest.raises(
        minibert.MinibertError, match=r"^inputs_embeds shape \(3, 5, 32\) must be \(batch, choices, sequence, H"
    ):
        choices(inputs_embeds=vectors)


@pytest.mark.parametrize(
    ("num_labels", "problem", "labels"),
    [
        (1, None, torch.tensor([0.5, -1.0, 2.0])),
        (3, "regression", torch.randn(3, 3)),
        (3, None, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])),
        (3, "multi_label_classification", torch.ones(3, 3)),
        (3, "single_label_classification", torch.tensor([0, 2, 1])),
    ],
)
def test_every_loss_of_a_classifier_is_identical(
    tmp_path: Path, num_labels: int, problem: str | None, labels: torch.Tensor
) -> None:
    ours, theirs = pair_of("BertForSequenceClassification", tmp_path, num_labels=num_labels, problem_type=problem)
    assert_identical(*run_both(ours, theirs, **batch(), labels=labels))


def test_labels_may_be_slices_but_must_be_as_many_as_scores(tmp_path: Path) -> None:
    ours, _ = pair_of("BertForMaskedLM", tmp_path)
    inputs = batch(3, 11)
    wide = torch.randint(1, 99, (3, 22))
    assert torch.equal(ours(**inputs, labels=wide[:, ::2]).loss, ours(**inputs, labels=wide[:, ::2].contiguous()).loss)
    with pytest.raises(ValueError, match=r"labels shape \(3, 22\) must be \(3, 11\), one for each score"):
        ours(**inputs, labels=wide)


def test_pretraining_has_no_loss_without_both_labels(tmp_path: Path) -> None:
    ours, theirs = pair_of("BertForPreTraining", tmp_path)
    inputs = batch()
    labels = labels_of("BertForPreTraining", inputs)["labels"]
    assert ours(**inputs, labels=labels).loss is None
    assert theirs(**inputs, labels=labels).loss is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "attention", "dtype"),
    [
        *(("base", attention, dtype) for attention in ("sdpa", "eager") for dtype in (torch.float32, torch.bfloat16)),
        ("large", "sdpa", torch.float32),
        ("large", "eager", torch.bfloat16),
    ],
)
def test_bert_base_and_large_shapes_are_identical(
    tmp_path: Path, shape: str, attention: str, dtype: torch.dtype
) -> None:
    config = {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    if shape == "large":
        config = {"vocab_size": 30522, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    ours, theirs = pair_of(
        "BertForPreTraining", tmp_path, attention, dtype, **config, intermediate_size=4 * config["hidden_size"]
    )
    for size, length in ((1, 512), (8, 40)):
        inputs = {**batch(size, length, 30522), "attention_mask": mask_of("right", size, length)}
        assert_identical(*run_both(ours, theirs, attention, **inputs))


@pytest.mark.slow
@BOTH_DTYPES
@BOTH_KERNELS
def test_the_real_minilm_is_identical(minilm: Path, attention: str, dtype: torch.dtype) -> None:
    theirs = transformers.BertModel.from_pretrained(minilm, attn_implementation=attention, dtype=dtype).eval()
    ours = minibert.BertModel.from_pretrained(minilm, dtype=dtype)
    tokenizer = minibert.BertTokenizer.from_pretrained(minilm)
    texts = ["He robbed the bank.", "They fished from the bank of the river. " * 12, "", "word " * 600]
    for side, some in (("right", texts), ("left", texts[:3])):
        inputs = tokenizer(some, padding=True, padding_side=side, truncation=True, return_tensors="pt")
        assert_identical(*run_both(ours, theirs, attention, **inputs))


@BOTH_KERNELS
def test_gradients_of_the_masked_lm_loss_are_those_of_transformers(tmp_path: Path, attention: str) -> None:
    ours, theirs = pair_of("BertForMaskedLM", tmp_path, attention)
    inputs = {**batch(4, 11), "attention_mask": mask_of("right", 4, 11)}
    inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 0)  # real padding ids
    labels = labels_of("BertForMaskedLM", inputs)["labels"]
    ours(**inputs, labels=labels, output_attentions=attention == "eager").loss.backward()
    theirs(**inputs, labels=labels).loss.backward()
    expected = {minibert.pretrained.names.to_ours(name): p.grad for name, p in theirs.named_parameters()}
    compared = 0
    for name, parameter in ours.named_parameters():
        want = expected[name.removeprefix("bert.")]
        scale = max(float(want.norm()), 1e-7)  # a key's bias has no influence: its gradient is rounding alone
        assert float((parameter.grad - want).norm()) <= 1e-6 * scale or float(want.abs().max()) < 1e-8, name
        compared += 1
    assert compared == len(expected)


def test_training_draws_the_same_dropout_as_transformers(tmp_path: Path) -> None:
    ours, theirs = pair_of("BertForMaskedLM", tmp_path, "eager")
    inputs = batch()
    torch.manual_seed(1)
    mine = ours.train()(**inputs, output_attentions=True)
    torch.manual_seed(1)
    other = theirs.train()(**inputs, output_attentions=True)
    assert_identical(mine, other)


def test_attentions_are_given_where_transformers_gives_none(tmp_path: Path) -> None:
    ours, _ = pair_of("BertModel", tmp_path)
    probabilities = ours(**batch(2, 7), output_attentions=True).attentions
    assert [tuple(p.shape) for p in probabilities] == [(2, 4, 7, 7)] * 3
    for p in probabilities:
        torch.testing.assert_close(p.sum(-1), torch.ones(2, 4, 7))


def test_outputs_are_read_by_name_and_by_index(tmp_path: Path) -> None:
    ours, theirs = pair_of("BertModel", tmp_path)
    inputs = batch()
    mine = ours(inputs["input_ids"], None, inputs["token_type_ids"], output_hidden_states=True)
    other = theirs(inputs["input_ids"], None, inputs["token_type_ids"], output_hidden_states=True)
    assert len(mine) == len(other.to_tuple()) == 3
    assert len(mine[2]) == len(other[2]) == 4
    for got, want in zip(mine[2], other[2], strict=True):
        assert torch.equal(got, want)
    last, pooled = ours(**inputs)
    assert torch.equal(last, mine["last_hidden_state"])
    assert torch.equal(pooled, mine.pooler_output)
    with pytest.raises(IndexError):
        mine[3]
    assert list(mine.keys()) == list(other.keys())
    assert "pooler_output" in mine
    assert "attentions" not in mine
    with pytest.raises(KeyError):
        mine["no such thing"]


def test_the_configuration_can_ask_for_hidden_states(tmp_path: Path) -> None:
    theirs_of("BertModel", tmp_path)
    ours = minibert.BertModel.from_pretrained(tmp_path, output_hidden_states=True, output_attentions=True)
    outputs = ours(**batch())
    assert len(outputs.hidden_states) == 4
    assert len(outputs.attentions) == 3
    assert ours(**batch(), output_attentions=False).attentions is None
