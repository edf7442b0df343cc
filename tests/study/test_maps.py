"""Attention maps: against transformers' eager attention, bertviz, and plain numpy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from oracle import HEADS, with_real_vocabulary

import minibert
from minibert.study.maps import AttentionMaps, attention_maps

TEXT = "The animal didn't cross the street because it was too tired."
PAIR = "Unbelievably, the antediluvian tokenizers snored."


def eager(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model of transformers, which keeps attentions in its eager form."""
    return transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=dtype).eval()


def attentions_of(theirs: Any, maps: AttentionMaps) -> torch.Tensor:
    """What transformers' model gives for the same ids, (L, A, S, S)."""
    with torch.no_grad():
        return torch.cat(theirs(**maps.reading.encoding, output_attentions=True).attentions)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    """A random model of the heads and width of bert-base, with fewer layers."""
    torch.manual_seed(0)
    size = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "num_hidden_layers": 3}
    return with_real_vocabulary(tmp_path_factory.mktemp("base"), minilm, initializer_range=0.05, **size)


@pytest.fixture(scope="module")
def maps(bert: minibert.Bert) -> AttentionMaps:
    """The maps of a pair of sentences, some of whose words have several pieces."""
    return bert.attention(TEXT, PAIR)


# Weights


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["minilm", "base"])
def test_the_weights_are_those_of_transformers_to_the_bit(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    ours, theirs = minibert.load(folder), eager(folder)
    longest = "tired " * 510
    for text, pair in [("", None), ("a", None), (TEXT, None), (TEXT, PAIR), ("", ""), (longest, None)]:
        maps = ours.attention(text, pair)
        assert torch.equal(maps.weights, attentions_of(theirs, maps)), text[:20]
    assert maps.weights.shape[-1] == 512


def test_one_token_alone_attends_to_itself(bert: minibert.Bert, minilm: Path) -> None:
    tokenizer = copy.deepcopy(bert.tokenizer)
    tokenizer.backend.post_processor = None  # no [CLS] and [SEP]
    maps = attention_maps(bert.model, tokenizer, "tired")
    assert maps.tokens == ("tired",)
    assert torch.equal(maps.weights, torch.ones(6, 12, 1, 1))
    assert torch.equal(maps.weights, attentions_of(eager(minilm), maps))


def test_bfloat16_gives_the_weights_of_transformers_as_float32(minilm: Path) -> None:
    maps = minibert.load(minilm, dtype="bfloat16").attention(TEXT)
    assert maps.weights.dtype == torch.float32
    assert torch.equal(maps.weights, attentions_of(eager(minilm, torch.bfloat16), maps).float())
    assert torch.equal(maps.scores.bfloat16().softmax(-1).float(), maps.weights)
    assert {getattr(maps, name).dtype for name in ("queries", "keys", "values", "norms")} == {torch.float32}


@pytest.mark.parametrize("kind", HEADS)
def test_every_class_of_model_has_maps(kind: str, tmp_path: Path, minilm: Path) -> None:
    theirs = eager(with_real_vocabulary(tmp_path, minilm, kind))
    ours = getattr(minibert, kind).from_pretrained(tmp_path)
    maps = attention_maps(ours, minibert.BertTokenizer.from_pretrained(tmp_path), TEXT, PAIR)
    assert torch.equal(maps.weights, attentions_of(theirs, maps))


def test_a_model_in_training_mode_has_the_maps_of_evaluation_and_stays_as_it_is(base: Path) -> None:
    bert = minibert.load(base)
    expected = bert.attention(TEXT)
    bert.model.train()
    before = {name: (id(module), module.training) for name, module in bert.model.named_modules()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = bert.attention(TEXT)
    assert torch.equal(again.weights, expected.weights)
    assert not again.weights.requires_grad
    assert {name: (id(module), module.training) for name, module in bert.model.named_modules()} == before


def test_several_texts_give_a_list(bert: minibert.Bert) -> None:
    both = bert.attention([TEXT, PAIR])
    assert [len(maps.tokens) for maps in both] == [16, 21]
    assert torch.equal(both[1].weights, bert.attention(PAIR).weights)
    [pair] = bert.attention([TEXT], [PAIR])
    assert torch.equal(pair.weights, bert.attention(TEXT, PAIR).weights)
    assert bert.attention([]) == []


@pytest.mark.parametrize(("text", "pair"), [(["a", "b"], ["c"]), ("a", ["b"]), (["a"], "b")])
def test_texts_and_pairs_must_match(bert: minibert.Bert, text: Any, pair: Any) -> None:
    with pytest.raises(minibert.MinibertError, match="pair"):
        bert.attention(text, pair)


def test_a_text_of_more_tokens_than_positions_is_refused(bert: minibert.Bert) -> None:
    with pytest.raises(minibert.MinibertError, match="513"):
        bert.attention("tired " * 511)


# What is behind the weights


def test_the_softmax_of_the_scores_is_the_weights(maps: AttentionMaps) -> None:
    assert torch.equal(maps.scores.softmax(-1), maps.weights)
    products = np.einsum("laid,lajd->laij", maps.queries.numpy(), maps.keys.numpy()) / np.sqrt(32)
    assert maps.scores.numpy() == pytest.approx(products, abs=1e-5)


def test_heads_through_their_slices_of_the_output_sum_to_what_transformers_attention_gives(
    maps: AttentionMaps, minilm: Path
) -> None:
    theirs = eager(minilm)
    sums: list[torch.Tensor] = []
    for layer in theirs.encoder.layer:
        layer.attention.output.dense.register_forward_hook(lambda *arguments: sums.append(arguments[-1][0]))
    attentions_of(theirs, maps)
    mixed = (maps.weights @ maps.values).numpy()  # (L, A, S, D)
    for layer, heads, expected in zip(theirs.encoder.layer, mixed, sums, strict=True):
        output = layer.attention.output.dense
        slices = output.weight.detach().numpy().reshape(384, 12, 32)
        ours = np.einsum("asd,had->sh", heads, slices) + output.bias.detach().numpy()
        assert ours == pytest.approx(expected.numpy(), abs=1e-5)


def test_norms_are_those_of_weighted_transformed_values(maps: AttentionMaps, minilm: Path) -> None:
    theirs = eager(minilm)
    with torch.no_grad():
        states = theirs(**maps.reading.encoding, output_hidden_states=True).hidden_states
    for number in (0, 5):
        attention = theirs.encoder.layer[number].attention
        value, output = attention.self.value, attention.output.dense.weight.detach().double().numpy()
        x = states[number][0].double().numpy()
        v = x @ value.weight.detach().double().numpy().T + value.bias.detach().double().numpy()
        for head in range(12):
            part = slice(32 * head, 32 * head + 32)
            moved = v[:, part] @ output[:, part].T  # (S, H)
            weighted = maps.weights[number, head].double().numpy()[:, :, None] * moved
            assert maps.norms[number, head].numpy() == pytest.approx(np.linalg.norm(weighted, axis=-1), abs=1e-6)


def test_the_memory_is_known_beforehand(maps: AttentionMaps) -> None:
    length = len(maps.tokens)
    assert maps.nbytes == 4 * 6 * (12 * length**2 + 3 * length * 384)
    assert maps.scores.nbytes == maps.norms.nbytes == maps.weights.nbytes


@pytest.mark.parametrize("point", ["scores", "probabilities"])
def test_the_maps_of_an_edited_model_show_the_edit(bert: minibert.Bert, point: str) -> None:
    edited = bert.edited({f"encoder.layers.0.attention.{point}": lambda x: x.flip(1)})  # heads in reverse
    maps, whole = edited.attention(TEXT), bert.attention(TEXT)
    assert torch.equal(maps.weights[0], whole.weights[0].flip(0))
    for name in ("queries", "keys", "values", "scores"):
        assert torch.equal(getattr(maps, name)[0], getattr(whole, name)[0])
        assert not torch.allclose(getattr(maps, name)[1], getattr(whole, name)[1], atol=1e-3)
    assert torch.allclose(maps.scores[1:].softmax(-1), maps.weights[1:], atol=1e-6)


@pytest.mark.parametrize("by", ["zero", "mean"])
def test_maps_after_an_ablated_head_differ(bert: minibert.Bert, by: Any) -> None:
    maps, whole = bert.ablated({0: [1]}, by=by).attention(TEXT), bert.attention(TEXT)
    assert torch.equal(maps.weights[0], whole.weights[0])
    assert not torch.allclose(maps.weights[1], whole.weights[1], atol=1e-3)
    assert torch.allclose(maps.scores.softmax(-1), maps.weights, atol=1e-6)


# What is made of the weights


def test_rollout_is_that_of_numpy(maps: AttentionMaps) -> None:
    joint = np.eye(len(maps.tokens))
    for layer, found in zip(maps.weights.double().numpy(), maps.rollout().numpy(), strict=True):
        step = 0.5 * layer.mean(0) + 0.5 * np.eye(len(joint))
        joint = (step / step.sum(-1, keepdims=True)) @ joint
        assert found == pytest.approx(joint, abs=1e-6)
        assert found.sum(-1) == pytest.approx(1, abs=1e-6)


def test_by_word_sums_what_goes_to_a_word_and_averages_what_comes_from_it(
    maps: AttentionMaps,
) -> None:
    words, word_of = maps.words, np.array(maps.reading.word_of)
    assert words[0] == "[CLS]"
    assert "antediluvian" in words
    assert len(words) < len(maps.tokens)
    weights = maps.weights.double().numpy()
    to_words = np.stack([weights[..., word_of == w].sum(-1) for w in range(len(words))], -1)
    expected = np.stack([to_words[..., word_of == w, :].mean(-2) for w in range(len(words))], -2)
    assert maps.by_word().numpy() == pytest.approx(expected, abs=1e-6)
    assert maps.by_word().sum(-1).numpy() == pytest.approx(1, abs=1e-5)


def test_top_finds_the_largest_weights(maps: AttentionMaps) -> None:
    links = maps.top(10)
    largest = np.sort(maps.weights.numpy().ravel())[::-1][:10]
    assert [link.weight for link in links] == pytest.approx(largest.tolist())
    for link in [*links, *maps.top(5, layer=-1), *maps.top(5, layer=3, head=7), *maps.top(5, head=2)]:
        assert maps[link.layer, link.head][link.from_position, link.to_position].item() == link.weight
        assert maps.tokens[link.from_position] == link.from_token
        assert maps.tokens[link.to_position] == link.to_token
    assert {link.layer for link in maps.top(10, layer=-1)} == {5}
    assert {link.head for link in maps.top(10, head=2)} == {2}
    assert len(maps.top(10**6, layer=0, head=0)) == len(maps.tokens) ** 2


def test_top_can_leave_special_tokens_out(maps: AttentionMaps) -> None:
    special = {"[CLS]", "[SEP]"}
    links = maps.top(10**6, layer=0, head=0, skip_special_tokens=True)
    assert len(links) == (len(maps.tokens) - 3) ** 2
    assert not special & {token for link in links for token in (link.from_token, link.to_token)}
    assert special & {link.to_token for link in maps.top(10)}


@pytest.mark.parametrize("where", [{"layer": 6}, {"layer": -7}, {"head": 12}])
def test_a_layer_or_head_that_is_not_there_is_refused(maps: AttentionMaps, where: dict[str, int]) -> None:
    [value] = where.values()
    with pytest.raises(minibert.MinibertError, match=f"\\({value}\\)"):
        maps.top(**where)


def test_the_table_has_a_row_for_each_weight(maps: AttentionMaps) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    table = maps.to_pandas()
    assert len(table) == maps.weights.numel()
    best = maps.top(1)[0]
    assert tuple(table.loc[table.weight.idxmax()]) == best
    assert tuple(table.columns) == best._fields


def test_maps_are_indexed_and_printed(maps: AttentionMaps) -> None:
    assert torch.equal(maps[3, 5], maps.weights[3, 5])
    assert len(maps) == 6
    assert "6 layers, 12 heads, 36 tokens (24 words)" in repr(maps)
    assert "[CLS] the animal didn ' t" in repr(maps)


# bertviz leaves its file open
@pytest.mark.filterwarnings("ignore:Exception ignored in.*head_view:pytest.PytestUnraisableExceptionWarning")
def test_bertviz_takes_the_attentions(maps: AttentionMaps) -> None:
    pytest.importorskip("IPython", reason="bertviz needs IPython, which is not installed")
    bertviz = pytest.importorskip("bertviz", reason="bertviz is not installed")
    page = bertviz.head_view(maps.attentions, list(maps.tokens), html_action="return")
    assert "tired" in page.data
    assert [tuple(layer.shape) for layer in maps.attentions] == [(1, 12, 36, 36)] * 6
