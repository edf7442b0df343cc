"""Tensors from inside, compared with those that others find there."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from oracle import theirs_of, with_real_vocabulary
from torch import Tensor

import minibert
from minibert.errors import MinibertError

TEXT = "the cat sat on the [MASK] ."
# Our points, and the modules of transformers that give the same; {} is the number of a layer.
SAME = {
    "embeddings.token": "embeddings.word_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "embeddings": "embeddings",
    "encoder.layers.{}.attention.query": "encoder.layer.{}.attention.self.query",
    "encoder.layers.{}.attention.key": "encoder.layer.{}.attention.self.key",
    "encoder.layers.{}.attention.value": "encoder.layer.{}.attention.self.value",
    "encoder.layers.{}.attention.output.input": "encoder.layer.{}.attention.self",
    "encoder.layers.{}.attention": "encoder.layer.{}.attention.output.dense",
    "encoder.layers.{}.attention.output": "encoder.layer.{}.attention.output.dense",
    "encoder.layers.{}.attention_norm": "encoder.layer.{}.attention.output",
    "encoder.layers.{}.feed_forward.up": "encoder.layer.{}.intermediate.dense",
    "encoder.layers.{}.feed_forward.down.input": "encoder.layer.{}.intermediate",
    "encoder.layers.{}.feed_forward.down": "encoder.layer.{}.output.dense",
    "encoder.layers.{}.feed_forward_norm": "encoder.layer.{}.output",
    "encoder.layers.{}": "encoder.layer.{}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    return with_real_vocabulary(tmp_path_factory.mktemp("random"), minilm)


@pytest.fixture(scope="module")
def tiny(folder: Path) -> minibert.Bert:
    return minibert.load(folder, dtype="float32")


def hooked(model: Any, names: dict[str, str], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What transformers' modules give, by our names."""
    found: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(theirs).register_forward_hook(
            lambda module, given, result, ours=ours: found.update(
                {ours: result[0] if isinstance(result, tuple) else result}
            )
        )
        for ours, theirs in names.items()
    ]
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pair", [None, "so did the dog"], ids=["single", "pair"])
def test_traces_equal_what_hooks_find_in_transformers(folder: Path, dtype: torch.dtype, pair: str | None) -> None:
    bert = minibert.load(folder, dtype=dtype)
    theirs = transformers.BertForMaskedLM.from_pretrained(folder, dtype=dtype).eval()
    names = {ours.format(n): f"bert.{module}".format(n) for n in range(3) for ours, module in SAME.items()}
    names["mlm_head"] = "cls"
    expected = hooked(theirs, names, dict(bert.tokenizer(TEXT, pair, return_tensors="pt")))
    traced = bert.trace(TEXT, list(names), pair)
    assert set(traced) == set(names)
    for name in names:
        assert torch.equal(traced[name], expected[name]), name


def test_scores_and_probabilities_are_the_explicit_attention(folder: Path, tiny: minibert.Bert) -> None:
    theirs = transformers.BertModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False).eval()
    with torch.no_grad():
        expected = theirs(**tiny.tokenizer(TEXT, return_tensors="pt"), output_attentions=True).attentions
    traced = tiny.trace(TEXT, "encoder.layers.*.attention.*")
    for layer in range(3):
        point = f"encoder.layers.{layer}.attention"
        assert torch.equal(traced[f"{point}.probabilities"], expected[layer])
        assert torch.equal(traced[f"{point}.scores"].softmax(-1), expected[layer])
        mixed = expected[layer] @ traced[f"{point}.value"].unflatten(-1, (4, 8)).transpose(1, 2)
        assert torch.equal(traced[f"{point}.mixed"], mixed)


def test_probabilities_equal_hook_pattern_of_transformer_lens(folder: Path, tiny: minibert.Bert) -> None:
    pytest.importorskip("transformer_lens", reason="transformer-lens is not installed")
    from transformer_lens.model_bridge import TransformerBridge

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = TransformerBridge.boot_transformers(str(folder), device="cpu")
        with torch.no_grad():
            _, cache = theirs.run_with_cache(tiny.tokenizer(TEXT, return_tensors="pt")["input_ids"])
    traced = tiny.trace(TEXT, ["encoder.layers.*", "encoder.layers.*.attention.*", "encoder.layers.*.*.down.input"])
    for layer in range(3):
        for ours, hook in (
            (".attention.probabilities", "attn.hook_pattern"),
            (".feed_forward.down.input", "mlp.out.hook_in"),
            ("", "hook_out"),
        ):
            expected = cache[f"blocks.{layer}.{hook}"]
            torch.testing.assert_close(traced[f"encoder.layers.{layer}{ours}"], expected, atol=1e-6, rtol=1e-6)


def test_traces_equal_those_of_nnsight(folder: Path, tiny: minibert.Bert) -> None:
    nnsight = pytest.importorskip("nnsight", reason="nnsight is not installed")
    theirs = transformers.BertForMaskedLM.from_pretrained(folder).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nnsight.NNsight(theirs)
        with torch.no_grad(), model.trace(tiny.tokenizer(TEXT, return_tensors="pt")["input_ids"]):
            query = model.bert.encoder.layer[0].attention.self.query.output.save()
            neurons = model.bert.encoder.layer[1].intermediate.output.save()
            last = model.bert.encoder.layer[2].output.save()
    points = ("encoder.layers.0.attention.query", "encoder.layers.1.feed_forward.down.input", "encoder.layers.2")
    for ours, expected in zip(tiny.trace(TEXT, points).values(), (query, neurons, last), strict=True):
        assert torch.equal(ours, expected)


def test_a_trace_gives_names_tokens_and_words(tiny: minibert.Bert) -> None:
    traced = tiny.trace("unaffable cats", ["encoder.layers.*", "embeddings"])
    assert list(traced) == ["embeddings", "encoder.layers.0", "encoder.layers.1", "encoder.layers.2"]
    assert traced.tokens == ("[CLS]", "una", "##ffa", "##ble", "cats", "[SEP]")
    assert traced.words == ("[CLS]", "unaffable", "cats", "[SEP]")
    assert traced.word_of == (0, 1, 1, 1, 2, 3)
    assert repr(traced).splitlines()[:2] == [
        "Trace of 6 tokens: [CLS] una ##ffa ##ble cats [SEP]",
        "  embeddings        (1, 6, 32)",
    ]


def test_several_texts_give_the_trace_of_each(tiny: minibert.Bert) -> None:
    both = tiny.trace(["a", "b c d"], "encoder.layers.2", ["x", "y"])
    for traced, (text, pair) in zip(both, [("a", "x"), ("b c d", "y")], strict=True):
        alone = tiny.trace(text, "encoder.layers.2", pair)
        assert traced.tokens == alone.tokens
        assert torch.equal(traced["encoder.layers.2"], alone["encoder.layers.2"])
    with pytest.raises(MinibertError, match=r"pair \(1 text\)"):
        tiny.trace(["a", "b"], "embeddings", ["x"])
    with pytest.raises(MinibertError, match="pair"):
        tiny.trace("a", "embeddings", ["x"])  # type: ignore[call-overload]


def test_a_model_in_training_mode_is_traced_in_evaluation_mode_and_left_in_its_own(folder: Path) -> None:
    bert = minibert.load(folder, dtype="float32")
    expected = bert.trace(TEXT, "mlm_head")["mlm_head"]
    bert.model.train()
    assert torch.equal(bert.trace(TEXT, "mlm_head")["mlm_head"], expected)
    assert all(module.training for module in bert.model.modules())


def test_a_trace_leaves_the_model_as_it_was(folder: Path) -> None:
    bert = minibert.load(folder, dtype="float32")
    before = [(name, id(module), type(module)) for name, module in bert.model.named_modules()]
    bert.trace(TEXT, bert.points().names)
    assert [(name, id(module), type(module)) for name, module in bert.model.named_modules()] == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in bert.model.modules())


@pytest.mark.parametrize(
    ("kind", "head", "logits"),
    [
        ("BertForSequenceClassification", "classifier", "logits"),
        ("BertForTokenClassification", "classifier", "logits"),
        ("BertForNextSentencePrediction", "nsp_head", "logits"),
        ("BertForMultipleChoice", "classifier", "logits"),
    ],
)
def test_the_heads_of_each_class_are_traced(tmp_path: Path, minilm: Path, kind: str, head: str, logits: str) -> None:
    bert = minibert.load(with_real_vocabulary(tmp_path, minilm, kind), dtype="float32")
    assert type(bert.model).__name__ == kind
    encoded = bert.tokenizer("a b", "c", return_tensors="pt")
    given = {name: t[:, None] for name, t in encoded.items()} if "Choice" in kind else encoded
    with torch.no_grad():
        expected = bert.model(**given)[logits]
    assert torch.equal(bert.trace("a b", head, "c")[head], expected)


def test_a_text_of_more_tokens_than_positions_is_refused(tiny: minibert.Bert) -> None:
    with pytest.raises(MinibertError, match="602 tokens"):
        tiny.trace("a " * 600, "embeddings")


@pytest.mark.slow
def test_the_points_of_random_base_shape_are_transformers_too(tmp_path: Path, minilm: Path) -> None:
    shape = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "num_hidden_layers": 2}
    theirs = theirs_of("BertModel", tmp_path, vocab_size=30522, **shape)
    ours = minibert.Bert(minibert.BertModel.from_pretrained(tmp_path), minibert.BertTokenizer.from_pretrained(minilm))
    names = {o.format(n): m.format(n) for n in range(2) for o, m in SAME.items()} | {"pooler": "pooler"}
    expected = hooked(theirs, names, dict(ours.tokenizer(TEXT, return_tensors="pt")))
    traced = ours.trace(TEXT, list(names))
    for name in names:
        assert torch.equal(traced[name], expected[name]), name
