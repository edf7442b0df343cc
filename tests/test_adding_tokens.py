"""Tokens are added to a vocabulary, and rows to a token table, as transformers adds them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from oracle import assert_identical, batch, pair_of, with_real_vocabulary
from tokenizers import AddedToken

import minibert
from minibert import BertTokenizer
from minibert.errors import MinibertError
from minibert.lexicon.senses import static_neighbours, static_vectors
from minibert.training.masking import Masking

TEXT = "The Newtok at the NEW TOK of newtokens [A][E1] [E2], a bank  and  <x>bankers"


def both(folder: Path) -> tuple[BertTokenizer, Any]:
    return BertTokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)


def assert_same_tokenizers(ours: BertTokenizer, theirs: Any) -> None:
    assert len(ours) == len(theirs)
    ids = theirs(TEXT)["input_ids"]
    assert ours(TEXT)["input_ids"] == ids
    assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)


# The tokenizer


def test_added_tokens_are_those_of_transformers(minilm: Path, tmp_path: Path) -> None:
    ours, theirs = both(minilm)
    steps: list[tuple[Any, dict[str, Any]]] = [
        (["newtok", "bank", "New Tok"], {}),
        ("[A]", {"special_tokens": True}),
        (["newtok"], {}),
        ([], {}),
        (["x1", "x1", ""], {}),
        (AddedToken("<x>", single_word=True), {}),
        ([AddedToken("of", lstrip=True, rstrip=True, normalized=False)], {"special_tokens": True}),
    ]
    for tokens, settings in steps:
        assert ours.add_tokens(tokens, **settings) == theirs.add_tokens(tokens, **settings)
        assert_same_tokenizers(ours, theirs)
    for named in ({"additional_special_tokens": ["[E1]", "[E2]"]}, {"pad_token": "[PAD]"}, {}):
        assert ours.add_special_tokens(named) == theirs.add_special_tokens(named)
        assert_same_tokenizers(ours, theirs)
    assert ours.convert_tokens_to_ids(["newtok", "[E2]"]) == theirs.convert_tokens_to_ids(["newtok", "[E2]"])

    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        for again in both(folder):
            assert_same_tokenizers(ours, again)


def test_added_special_tokens_are_special_for_collators(minilm: Path) -> None:
    rows, found = [], []
    for tokenizer in both(minilm):
        tokenizer.add_special_tokens({"additional_special_tokens": ["[E1]", "[E2]"]})
        assert tokenizer.convert_tokens_to_ids("[E2]") in tokenizer.all_special_ids
        rows = [{"input_ids": tokenizer("[E1] Anna [E2] saw [E1] the [E2] river")["input_ids"]} for _ in range(20)]
        torch.manual_seed(0)
        found.append(transformers.DataCollatorForLanguageModeling(tokenizer)(rows)["labels"])
    assert torch.equal(*found)
    assert not torch.isin(found[0], torch.tensor([30522, 30523])).any()


def test_a_backend_in_use_is_never_changed(minilm: Path) -> None:
    tokenizer = BertTokenizer.from_pretrained(minilm)
    old, before = tokenizer.backend, tokenizer(TEXT)["input_ids"]
    seen, stop = set(), threading.Event()

    def encode() -> None:
        while not stop.is_set():
            seen.add(tuple(tokenizer(TEXT)["input_ids"]))

    thread = threading.Thread(target=encode)
    thread.start()
    tokenizer.add_tokens(["newtok", "[A]"])
    stop.set()
    thread.join()
    assert seen <= {tuple(before), tuple(tokenizer(TEXT)["input_ids"])}
    assert old.get_vocab_size() == 30522
    assert len(tokenizer) == 30524


def test_what_is_no_token_is_refused(minilm: Path) -> None:
    tokenizer = BertTokenizer.from_pretrained(minilm)
    for wrong in (3, [3], ["a", None], "\ud800"):
        with pytest.raises(
            MinibertError, match=r"^new_tokens \(.*\) must be a str without lone surrogates or an AddedTo"
        ):
            tokenizer.add_tokens(wrong)
    with pytest.raises(MinibertError, match=r"^pad_token \('<pad>'\) must be '\[PAD\]' here; pass pad_token= when you"):
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert len(tokenizer) == 30522


# The model

LM_KINDS: list[tuple[str, dict[str, Any]]] = [
    ("BertModel", {}),
    ("BertForSequenceClassification", {}),
    ("BertForMaskedLM", {}),
    ("BertForPreTraining", {}),
    ("BertForMaskedLM", {"tie_word_embeddings": False}),
]


@pytest.mark.parametrize(("kind", "config"), LM_KINDS, ids=str)
@pytest.mark.parametrize("size", [{"new_num_tokens": 105}, {"new_num_tokens": 50}, {"pad_to_multiple_of": 64}], ids=str)
def test_a_resized_model_is_that_of_transformers(
    tmp_path: Path, kind: str, config: dict[str, Any], size: dict[str, int]
) -> None:
    ours, theirs = pair_of(kind, tmp_path / "start", **config)
    old = {name: parameter.detach().clone() for name, parameter in ours.named_parameters()}
    table = ours.resize_token_embeddings(**size)
    theirs.resize_token_embeddings(**size)
    count = theirs.config.vocab_size
    assert table is ours.get_input_embeddings()
    assert (ours.config.vocab_size, table.num_embeddings, len(table.weight)) == (count,) * 3
    for name, parameter in ours.named_parameters():
        kept = min(len(parameter), len(old[name]))
        assert torch.equal(parameter[:kept], old[name][:kept]), name
        assert parameter.requires_grad
    mine, other = ours.get_input_embeddings().weight[99:], theirs.get_input_embeddings().weight[99:]
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)  # new rows lie close to the mean of the old ones

    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    inputs = batch(vocabulary=min(count, 99))
    again, expected = type(ours).from_pretrained(tmp_path / "ours"), theirs(**inputs)
    read_by_theirs = getattr(transformers, kind).from_pretrained(tmp_path / "ours").eval()
    assert_identical(again(**inputs), read_by_theirs(**inputs))
    for model in (ours, type(ours).from_pretrained(tmp_path / "theirs")):
        torch.testing.assert_close(model(**inputs)[0], expected[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("mean_resizing", [True, False])
def test_new_rows_are_distributed_as_those_of_transformers(tmp_path: Path, mean_resizing: bool) -> None:
    found = []
    for model in pair_of("BertForMaskedLM", tmp_path, tie_word_embeddings=False):
        old = model.get_input_embeddings().weight.detach().double()
        model.resize_token_embeddings(20_099, mean_resizing=mean_resizing)
        bias = (
            model.mlm_head.bias if isinstance(model, minibert.BertForMaskedLM) else model.cls.predictions.decoder.bias
        )
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            new = table.weight.detach()[99:].double()
            found.append((new.mean(0), new.T.cov(), bias.detach()[99:]))
        assert old.shape == (99, 32)
    for mine, other in ((found[0], found[2]), (found[1], found[3])):
        largest = other[1].diagonal().max()
        torch.testing.assert_close(mine[0], other[0], atol=6 * float(largest / 20_000) ** 0.5, rtol=0)
        torch.testing.assert_close(mine[1], other[1], atol=0.06 * float(largest), rtol=0)
        torch.testing.assert_close(mine[2], other[2], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_bert_sees_new_rows(minilm: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    bert = minibert.load(with_real_vocabulary(tmp_path / "start", minilm), dtype=dtype)
    texts = ["Anna saw the river.", "An old bank stood by the river.", "No."]
    before = bert.encode(texts)
    bert.tokenizer.add_tokens(["newtok"])
    with pytest.raises(MinibertError, match=r"a token id \(30522\) must be less than vocab_size \(30522\)"):
        bert.encode(["the newtok is here", *texts])
    bert.model.resize_token_embeddings(len(bert.tokenizer))
    assert bert.config.vocab_size == bert.encoder.config.vocab_size == 30523
    assert (bert.encode(texts) == before).all()
    with torch.no_grad():
        bert.encoder.embeddings.token.weight[30522] = bert.encoder.embeddings.token.weight[2314]
    found = bert.encode("the newtok is here")
    assert (found == bert.encode(f"the {bert.tokenizer.convert_ids_to_tokens(2314)} is here")).all()
    assert bert.fill_mask("the [MASK] is here", targets=["newtok"])[0].token == "newtok"
    bert.save_pretrained(tmp_path / "saved")
    if dtype == torch.float32:  # a bfloat16 model computes with more exact norms than it saves
        assert (minibert.load(tmp_path / "saved").encode("the newtok is here") == found).all()


def test_what_cannot_be_resized_is_refused(tmp_path: Path) -> None:
    ours, _ = pair_of("BertForMaskedLM", tmp_path, pad_token_id=9)
    bits = ours.mlm_head.bias.clone()
    for size, message in (
        ({"new_num_tokens": 0}, r"^new_num_tokens \(0\) must be a whole number of at least 1"),
        ({"new_num_tokens": 8.5}, r"^new_num_tokens \(8.5\) must be a whole number"),
        ({"pad_to_multiple_of": -8}, r"^pad_to_multiple_of \(-8\) must be a whole number"),
        ({"new_num_tokens": 9}, r"^pad_token_id \(9\) must be less than vocab_size \(9\)"),
    ):
        with pytest.raises(MinibertError, match=message):
            ours.resize_token_embeddings(**size)
    assert ours.resize_token_embeddings() is ours.resize_token_embeddings(99) is ours.get_input_embeddings()
    assert torch.equal(ours.mlm_head.bias, bits)
    ours.bert.embeddings.token = torch.nn.Sequential(ours.bert.embeddings.token)
    with pytest.raises(MinibertError, match=r"^the token table \(Sequential\) must be a nn.Embedding to be resized"):
        ours.resize_token_embeddings(120)


# Tokens without a row


def test_a_token_without_a_row_is_one_sentence_wherever_it_occurs(minilm: Path, tmp_path: Path) -> None:
    bert = minibert.load(with_real_vocabulary(tmp_path / "start", minilm))
    bert.tokenizer.add_tokens(["newtok"])
    rows = [{"text": f"the newtok {number}", "label": "ab"[number % 2]} for number in range(4)]
    text = "the newtok is [MASK]"
    for use in (
        lambda: bert.encode(text),
        lambda: bert.words([text, "a"]),
        lambda: bert.model(**bert.tokenizer(text, return_tensors="pt")),
        lambda: bert.fill_mask(text),
        lambda: bert.lens(text),
        lambda: bert.attention(text),
        lambda: bert.explain(text, target="good"),
        lambda: bert.explain_similarity(text, "a"),
        lambda: bert.finetune(rows, task="classify", output=tmp_path / "run", epochs=1),
        lambda: static_vectors(bert, "newtok"),
        lambda: bert.explain("this is [MASK]", target="newtok"),
        lambda: bert.ablation("this is [MASK]", target="newtok"),
        lambda: bert.fill_mask("this is [MASK]", targets=["newtok"]),
    ):
        with pytest.raises(MinibertError, match=r"30522|newtok"):
            use()
    assert len(static_neighbours(bert, "river", top_k=5)) == 5  # which could only look for it
    assert bert.fill_mask("this is [MASK]", top_k=100_000)


def test_masking_never_shows_a_token_without_a_row(minilm: Path) -> None:
    tokenizer = BertTokenizer.from_pretrained(minilm)
    tokenizer.add_tokens(["newtok"])
    assert Masking.of(tokenizer).ordinary[-1]
    ordinary = Masking.of(tokenizer, size=30522).ordinary
    assert ordinary.sum() == Masking.of(tokenizer).ordinary.sum() - 1
    assert not ordinary[30522]
