"""`minibert.load`: vectors, filled masks, and what is said of the checkpoint."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from oracle import assert_same_vectors, rewrite, theirs_of, with_real_vocabulary
from sentence_transformers import SentenceTransformer

import minibert

GOLDEN = json.loads((Path(__file__).parent / "golden" / "model_expected.json").read_text(encoding="utf-8"))
TEXTS = [
    "How do I reset my password?",
    "They fished from the bank of the river until the sun went down. " * 5,
    "",
    "Zürich, 北京 and São Paulo: 3 cities! 👍",
    "ok",
    "He robbed the bank.",
]


@pytest.fixture(scope="module")
def oracle(minilm: Path) -> SentenceTransformer:
    return SentenceTransformer(str(minilm), device="cpu")


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> minibert.Bert:
    """A random masked-LM checkpoint with the real vocabulary."""
    return minibert.load(with_real_vocabulary(tmp_path_factory.mktemp("masked"), minilm))


# Vectors


def test_a_source_may_be_a_name(bert: minibert.Bert) -> None:
    made = minibert.Bert(bert.model, bert.tokenizer, source="my model")
    assert made.source == minibert.Source("my model")
    assert minibert.Bert(bert.model, bert.tokenizer).source == minibert.Source("memory")
    assert "my model" in repr(made)


def test_minilm_gives_the_vectors_of_sentence_transformers(bert: minibert.Bert, oracle: SentenceTransformer) -> None:
    ours = bert.encode(TEXTS)
    assert ours.shape == (len(TEXTS), 384)
    assert ours.dtype == np.float32
    assert np.abs(ours - oracle.encode(TEXTS)).max() < 1e-6


@pytest.mark.slow
def test_stsb_has_the_vectors_of_sentence_transformers(
    bert: minibert.Bert, oracle: SentenceTransformer, evaldata: Path
) -> None:
    lines = (evaldata / "stsb" / "sts-dev.csv").read_text(encoding="utf-8").splitlines()
    texts = [text for line in lines[::3] for text in line.split("\t")[5:7]]
    assert len(texts) == 1000
    assert np.abs(bert.encode(texts) - oracle.encode(texts)).max() < 1e-6


def test_texts_over_the_limit_are_cut_as_sentence_transformers_cuts_them(
    bert: minibert.Bert, oracle: SentenceTransformer
) -> None:
    long = "one two three four five " * 100
    with pytest.warns(UserWarning, match=r"^1 of 2 texts exceed 256 tokens: 246 tokens were dropped; pass truncation"):
        ours = bert.encode([long, "short"])
    assert np.abs(ours - oracle.encode([long, "short"])).max() < 1e-6


def test_a_text_over_the_limit_is_refused_when_asked(bert: minibert.Bert) -> None:
    with pytest.raises(ValueError, match="text 1 has 502 tokens, but must have at most 256; split it"):
        bert.encode(["short", "word " * 500], truncation="error")


@pytest.mark.parametrize("key", ["similarity", "manhattan_docs"])
def test_the_published_similarities_are_ours(bert: minibert.Bert, key: str) -> None:
    published = GOLDEN["all-MiniLM-L6-v2"]
    x = bert.encode(published["similarity"]["sentences"])
    if key == "similarity":
        np.testing.assert_allclose(x @ x.T, published[key]["cosine"], atol=6e-5)  # printed with four digits
    else:
        distance = -np.abs(x[:, None] - x[None]).sum(-1)
        np.testing.assert_allclose(distance, published[key]["values"], atol=6e-5)


def test_the_published_bfloat16_similarities_are_ours(minilm: Path) -> None:
    published = GOLDEN["all-MiniLM-L6-v2"]["query_docs_bf16"]
    bert = minibert.load(minilm, dtype=torch.bfloat16)
    cosine = bert.encode(published["documents"]) @ bert.encode(published["query"])
    np.testing.assert_allclose(cosine, published["cosine"], rtol=0.01)


def test_the_shape_follows_the_input(bert: minibert.Bert) -> None:
    one = bert.encode("He robbed the bank.")
    assert one.shape == (384,)
    assert one.dtype == np.float32
    assert np.array_equal(one, bert.encode(["He robbed the bank."])[0])
    assert bert.encode([]).shape == (0, 384)
    assert bert.encode(text for text in TEXTS).shape == (6, 384)
    assert bert.encode(np.array(TEXTS)).shape == (6, 384)
    tensor = bert.encode(TEXTS, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert not tensor.requires_grad
    assert np.array_equal(tensor.numpy(), bert.encode(TEXTS))


def test_the_empty_text_has_the_vector_of_cls_and_sep(bert: minibert.Bert) -> None:
    hidden = bert.encoder(torch.tensor([[101, 102]])).last_hidden_state[0].mean(0).detach()
    expected = torch.nn.functional.normalize(hidden, dim=0).numpy()
    for blank in ("", " ", "\n\t\u200b", " " * 100_000):
        assert_same_vectors(bert.encode(blank), expected)


def test_one_word_of_a_megabyte_is_one_unknown_token(bert: minibert.Bert) -> None:
    np.testing.assert_allclose(bert.encode("x" * 1_000_000), bert.encode("[UNK]"), atol=1e-7)


def base_shape(folder: Path, minilm: Path) -> minibert.Bert:
    """bert-base's shape with random weights; its vectors are not normalized, but some 27 long."""
    size = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    theirs_of("BertModel", folder, vocab_size=30522, **size)
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(minilm / name, folder)
    return minibert.load(folder)


def test_a_vector_does_not_depend_on_neighbours_order_or_padding(bert: minibert.Bert) -> None:
    alone = np.stack([bert.encode(text) for text in TEXTS])
    for size in (1, 2, 5, 32):
        assert np.abs(bert.encode(TEXTS, batch_size=size) - alone).max() < 1e-6
        assert np.abs(bert.encode(TEXTS[::-1], batch_size=size)[::-1] - alone).max() < 1e-6
    crowd = bert.encode([*TEXTS, "a much longer neighbour " * 50])
    assert np.abs(crowd[:-1] - alone).max() < 1e-6


@pytest.mark.slow
def test_neighbours_do_not_matter_in_the_shape_of_bert_base(tmp_path: Path, minilm: Path) -> None:
    base = base_shape(tmp_path, minilm)
    alone = np.stack([base.encode(text) for text in TEXTS])
    together = base.encode([*TEXTS, "a much longer neighbour " * 100])[:-1]
    assert_same_vectors(together, alone)


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=80), min_size=1, max_size=8))
def test_any_texts_are_encoded_as_each_of_them_alone(bert: minibert.Bert, texts: list[str]) -> None:
    together = bert.encode(texts)
    for text, vector in zip(texts, together, strict=True):
        assert np.abs(bert.encode(text) - vector).max() < 1e-6


def test_without_sentence_transformers_files_the_pooling_is_the_mean(minilm: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"):
        shutil.copy(minilm / name, tmp_path)
    plain = minibert.load(tmp_path)
    assert plain.max_seq_length == 512
    theirs = transformers.BertModel.from_pretrained(tmp_path)
    ids = torch.tensor([plain.tokenizer.encode(TEXTS[0])])
    expected = theirs(ids).last_hidden_state[0].mean(0).detach().numpy()
    np.testing.assert_allclose(plain.encode(TEXTS[0]), expected, atol=1e-6)
    unit = plain.encode(TEXTS[0], normalize_embeddings=True)
    np.testing.assert_allclose(unit, expected / np.linalg.norm(expected), atol=1e-6)


MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("cls", "mean")]


@pytest.mark.parametrize("form", ["new", pytest.param("old", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "mode", [*(pytest.param(mode, marks=pytest.mark.slow) for mode in MODES[:-1]), MODES[-1]], ids=str
)
def test_every_pooling_is_obeyed_in_its_old_and_new_spelling(
    tmp_path: Path, minilm: Path, oracle: SentenceTransformer, mode: Any, form: str
) -> None:
    shutil.copytree(minilm, tmp_path, dirs_exist_ok=True)
    (tmp_path / "modules.json").write_text(json.dumps(json.loads((minilm / "modules.json").read_text())[:2]))
    modes = (mode,) if isinstance(mode, str) else mode
    switches = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "weightedmean": "weightedmean_tokens"}
    if form == "new":
        config: dict[str, Any] = {"embedding_dimension": 384, "pooling_mode": mode}
    else:
        config = {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": False}
        config |= {f"pooling_mode_{switches.get(one, one)}": True for one in modes}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config))
    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
    ours = minibert.load(tmp_path)
    assert ours.recipe.pooling == modes
    assert ours.dimension == 384 * len(modes)
    assert_same_vectors(ours.encode(TEXTS), theirs)


def test_a_folder_that_sentence_transformers_saves_today_gives_its_vectors(
    tmp_path: Path, oracle: SentenceTransformer
) -> None:
    oracle.save(str(tmp_path))
    ours = minibert.load(tmp_path)
    assert ours.max_seq_length == oracle.max_seq_length == 256
    assert np.abs(ours.encode(TEXTS) - oracle.encode(TEXTS)).max() < 1e-6


def test_a_default_prompt_and_lower_casing_are_obeyed(tmp_path: Path, minilm: Path) -> None:
    shutil.copytree(minilm, tmp_path, dirs_exist_ok=True)
    prompts = {"prompts": {"query": "Represent: "}, "default_prompt_name": "query"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 16, "do_lower_case": true}')
    theirs = SentenceTransformer(str(tmp_path), device="cpu")
    ours = minibert.load(tmp_path)
    texts = ["WHO robbed the BANK?", "x"]
    np.testing.assert_allclose(ours.encode(texts), theirs.encode(texts), atol=1e-6)
    assert ours.max_seq_length == 16


def test_a_transformer_in_a_folder_of_its_own_is_found(tmp_path: Path, minilm: Path, bert: minibert.Bert) -> None:
    inner = tmp_path / "0_Transformer"
    shutil.copytree(minilm, inner)
    shutil.move(inner / "1_Pooling", tmp_path / "1_Pooling")
    modules = json.loads((inner / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (inner / "modules.json").unlink()
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert np.array_equal(minibert.load(tmp_path).encode(TEXTS), bert.encode(TEXTS))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "modules.json",
            [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}, {"type": "x.CNN"}],
            "(Transformer, Pooling, CNN) must be Transformer, Pooling and, optionally, Dense and Normalize, in this",
        ),
        ("modules.json", [{"path": "", "type": "x.Transformer"}], "(Transformer) must be Transformer, Pooling and"),
    ],
)
def test_vectors_that_cannot_be_made_as_asked_are_refused_but_the_rest_works(
    bert: minibert.Bert, tmp_path: Path, minilm: Path, file: str, content: Any, message: str
) -> None:
    shutil.copytree(minilm, tmp_path, dirs_exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    loaded = minibert.load(tmp_path)
    assert message in repr(loaded)
    for refused in (lambda: loaded.encode("a"), lambda: loaded.save_pretrained(tmp_path / "again")):
        with pytest.raises(ValueError, match=re.escape(message)):
            refused()
    ids = torch.tensor([[101, 7592, 102]])
    assert torch.equal(loaded.encoder(ids).last_hidden_state, bert.encoder(ids).last_hidden_state)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "('median') must be one of cls, max, mean"),
        ("1_Pooling/config.json", [1], "1_Pooling/config.json of"),
        ("modules.json", {"a": 1}, "must be a list of modules; it is not"),
        ("modules.json", [["a"]], "must be a list of modules; it is not"),
        ("modules.json", [{"type": "x.Transformer", "path": "../../etc"}], "must lead to a file inside it"),
        ("modules.json", [{"type": "x.Transformer", "path": "/etc"}], "must lead to a file inside it"),
        ("sentence_bert_config.json", {"max_seq_length": 1}, "(1) must be a whole number of at least 3"),
        ("sentence_bert_config.json", {"max_seq_length": "16"}, "('16')"),
    ],
)
def test_faults_of_files_for_sentence_vectors_leave_the_rest(
    bert: minibert.Bert, tmp_path: Path, minilm: Path, file: str, content: Any, message: str
) -> None:
    shutil.copytree(minilm, tmp_path, dirs_exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=re.escape(message)):
        loaded = minibert.load(tmp_path)
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        loaded.encode("a")
    assert np.array_equal(loaded.words("a bank").vectors, bert.words("a bank").vectors)


def test_a_missing_module_leaves_the_rest(tmp_path: Path, minilm: Path) -> None:
    shutil.copytree(minilm, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "1_Pooling")
    with pytest.warns(UserWarning, match=r"must hold 1_Pooling/config\.json"):
        loaded = minibert.load(tmp_path)
    with pytest.raises(minibert.MinibertError, match=r"must hold 1_Pooling/config\.json"):
        loaded.encode("a")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer_config.json", [1], "tokenizer_config.json of"),
        ("tokenizer_config.json", {"model_max_length": "512"}, "('512')"),
        ("tokenizer_config.json", {"model_max_length": -1}, "(-1) must be a whole number of at least 3"),
        (
            "tokenizer_config.json",
            {"unk_token": {"foo": 1}, "added_tokens_decoder": {}},
            "({'foo': 1}) must be a token",
        ),
        (
            "config.json",
            {"model_type": "bert", "layer_norm_eps": "1e-12"},
            "layer_norm_eps ('1e-12')",
        ),
        ("config.json", {"model_type": "bert", "quantization_config": {"bits": 4}}, "quantised weights are not"),
        ("config.json", {"model_type": "bert", "add_cross_attention": True}, "add_cross_attention (True) must be"),
        ("config.json", {"model_type": "bert", "architectures": "BertModel"}, "architectures ('BertModel') must be"),
        ("config.json", {"model_type": "bert", "hidden_act": ["gelu"]}, "hidden_act (['gelu']) must be one of"),
        ("config.json", {"model_type": "bert", "num_labels": 10**9}, "num_labels (1,000,000,000) must be at most"),
        ("config.json", {"model_type": "bert", "num_labels": 10**400}, "num_labels (a number of more than 30 digits)"),
        (
            "config.json",
            {"model_type": "bert", "hidden_size": 2**40},
            "hidden_size (1,099,511,627,776) must be at most",
        ),
        ("config.json", {"model_type": "bert", "num_hidden_layers": 10**5}, "num_hidden_layers (100,000) must be at"),
        ("config.json", {"model_type": "bert", "num_hidden_layers": 9000}, "num_hidden_layers (9,000) must fit the"),
    ],
)
def test_broken_settings_are_refused_with_file_and_value(
    tmp_path: Path, minilm: Path, file: str, content: Any, message: str
) -> None:
    shutil.copytree(minilm, tmp_path, dirs_exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        minibert.load(tmp_path)


def test_lower_case_can_be_chosen_at_load(minilm: Path, bert: minibert.Bert) -> None:
    assert minibert.load(minilm, do_lower_case=False).tokenizer.tokenize("Bank") == ["[UNK]"]
    assert minibert.load(minilm, do_lower_case=True).tokenizer.tokenize("Bank") == ["bank"]
    with pytest.raises(minibert.MinibertError, match=r"do_lower_case \('no'\) must be True or False"):
        minibert.load(minilm, do_lower_case="no")  # type: ignore[arg-type]


# Bad input


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, "texts (None) must be a str or a list of str, not NoneType"),
        (12, "texts (12)"),
        (b"bytes", "texts (b'bytes')"),
        ({"a": 1}, "texts (dict) must be a str or a list of str, not a table; pass a column, table['column']"),
        ({"a"}, "texts ({'a'})"),
        (["a", None, "b"], "text 1 (None) must be str, not NoneType; leave missing texts out, or pass ''"),
        (["a", 3], "text 1 (3) must be str, not int; convert it with str()"),
        (["a", float("nan")], "text 1 (nan) must be str, not float; drop missing texts, with dropna() in pandas, or"),
        (["a", np.float32("nan")], "must be str, not float32; drop missing texts, with dropna() in pandas, or pass ''"),
        (["a", pd.NA], "text 1 (<NA>) must be str, not NAType; drop missing texts, with dropna() in pandas, or pass"),
        (["a", pd.NaT], "text 1 (NaT) must be str, not NaTType; drop missing texts, with dropna() in pandas, or"),
        (pd.Series(["a", None, "b"], dtype="string"), "; drop missing texts, with dropna() in pandas, or pass ''"),
        (np.array(3), "texts (3) must be a str or a list of str, not int"),
        ([b"a"], "text 0 (b'a') must be str, not bytes; decode it: text.decode('utf-8')"),
        ("\udc80", "text 0 holds a lone surrogate ('\\udc80' at 0), but must be valid Unicode"),
    ],
)
def test_what_is_not_text_is_refused(bert: minibert.Bert, masked: minibert.Bert, texts: Any, message: str) -> None:
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        bert.encode(texts)
    if not isinstance(texts, list):
        with pytest.raises(minibert.MinibertError, match="must be"):
            masked.fill_mask(texts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truncation": "cut"}, "truncation ('cut') must be 'warn', 'error' or 'window'"),
        ({"batch_size": 0}, "batch_size (0)"),
        ({"batch_size": 2.0}, "batch_size (2.0)"),
    ],
)
def test_impossible_arguments_are_refused(bert: minibert.Bert, arguments: Any, message: str) -> None:
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        bert.encode("a", **arguments)


IDS = torch.tensor([[101, 2924, 102]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"input_ids": torch.tensor([[101, 30522]])},
            "input_ids (30522) must be at least 0 and less than vocab_size (30522)",
        ),
        (
            {"input_ids": torch.tensor([[101, -1]])},
            "input_ids (-1)",
        ),
        ({"input_ids": IDS[0]}, "input_ids shape (3,) must be (batch, sequence); add the batch with input_ids[None]"),
        ({"input_ids": IDS.float()}, "input_ids dtype (torch.float32) must be torch.int64 or torch.int32"),
        ({"input_ids": IDS[:, :0]}, "input_ids shape (1, 0) must hold at least one token"),
        (
            {"input_ids": IDS, "attention_mask": [[1, 1, 1]]},
            "attention_mask (list) must be a tensor; pass torch.tensor(",
        ),
        ({"input_ids": [[1, 2]]}, "input_ids (list) must be a tensor; pass return_tensors='pt' to the tokenizer"),
        (
            {"input_ids": IDS, "attention_mask": torch.ones(1, 2).long()},
            "attention_mask shape (1, 2) must equal that of input_ids (1, 3); pad both alike",
        ),
        (
            {"input_ids": IDS, "attention_mask": torch.ones(1, 3)},
            "attention_mask dtype (torch.float32) must be bool or integer, 1 = a real token",
        ),
        (
            {"input_ids": IDS, "attention_mask": torch.ones(1, 1, 3, 3).bool()},
            "attention_mask shape (1, 1, 3, 3)",
        ),
        (
            {"input_ids": IDS, "token_type_ids": IDS * 0 + 2},
            "token_type_ids (2) must be at least 0 and less than type_vocab_size (2)",
        ),
        (
            {"input_ids": IDS, "position_ids": IDS},
            "position_ids (2924) must be at least 0 and less than max_position_embeddings",
        ),
        ({"input_ids": IDS, "position_ids": IDS[0]}, "position_ids shape (3,)"),
        (
            {"input_ids": torch.ones(1, 600).long()},
            "sequence length (600) must not exceed max_position_embeddings (512); pass truncation=True",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(bert: minibert.Bert, arguments: Any, message: str) -> None:
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        bert.encoder(**arguments)


def test_a_token_without_a_row_in_the_table_is_rejected_when_it_occurs(
    tmp_path: Path, minilm: Path, bert: minibert.Bert
) -> None:
    shutil.copytree(minilm, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").unlink()
    lines = (minilm / "vocab.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*lines, "zyxwvut"]) + "\n", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"has 1 token without a row in the token table \(vocab_size 30522\)"):
        loaded = minibert.load(tmp_path)
    assert np.array_equal(loaded.encode(TEXTS), bert.encode(TEXTS))
    for used in (lambda: loaded.encode("a zyxwvut"), lambda: loaded.encode([*TEXTS, "zyxwvut"])):
        with pytest.raises(
            minibert.MinibertError, match=r"a token id \(30522\) must be less than vocab_size \(30522\)"
        ):
            used()
    (tmp_path / "vocab.txt").write_text("\n".join(lines[:-2]) + "\n", encoding="utf-8")
    with warnings.catch_warnings():  # tables are often padded to a round number of rows
        warnings.simplefilter("error")
        assert len(minibert.load(tmp_path).tokenizer) == 30520


def test_a_dtype_may_be_given_by_its_name(minilm: Path) -> None:
    for dtype in ("bfloat16", "torch.bfloat16"):
        assert minibert.load(minilm, dtype=dtype).model.dtype == torch.bfloat16
    with pytest.raises(minibert.errors.MinibertError, match=r"dtype \('int8'\)"):
        minibert.load(minilm, dtype="int8")


# Filled masks


def pipeline_of(folder: Path) -> Any:
    return transformers.pipeline("fill-mask", model=str(folder), device="cpu")


def test_candidates_are_those_of_the_pipeline_of_transformers(tmp_path: Path, minilm: Path) -> None:
    folder = with_real_vocabulary(tmp_path, minilm)
    ours, theirs = minibert.load(folder), pipeline_of(folder)
    for text in ("Hello I'm a [MASK] model.", "[MASK]", "The [MASK] of France is [MASK]."):
        got, expected = ours.fill_mask(text, top_k=7), theirs(text, top_k=7)
        if isinstance(expected[0], dict):
            got, expected = [got], [expected]
        for candidates, wanted in zip(got, expected, strict=True):
            assert [c.id for c in candidates] == [w["token"] for w in wanted]
            assert [c.token for c in candidates] == [ours.tokenizer.convert_ids_to_tokens(w["token"]) for w in wanted]
            np.testing.assert_allclose([c.probability for c in candidates], [w["score"] for w in wanted], rtol=1e-5)


def test_the_shape_of_the_answer_follows_the_question(masked: minibert.Bert) -> None:
    one = masked.fill_mask("a [MASK] b")
    assert len(one) == 5
    assert isinstance(one[0], minibert.Candidate)
    two = masked.fill_mask("a [MASK] b [MASK]", top_k=2)
    assert [len(candidates) for candidates in two] == [2, 2]
    first, second = masked.fill_mask(["a [MASK] b", "a [MASK] b [MASK]"], top_k=2)
    assert [c.text for c in first] == [c.text for c in one[:2]]
    assert [[c.text for c in mask] for mask in second] == [[c.text for c in mask] for mask in two]
    assert masked.fill_mask([]) == []


def test_the_filled_text_keeps_the_rest_as_it_was(masked: minibert.Bert) -> None:
    text = "Hello I'm   a [MASK] MODEL, [MASK]ing é."
    first, second = masked.fill_mask(text, targets=["fashion"])
    assert first[0].text == "Hello I'm   a fashion MODEL, [MASK]ing é."
    assert second[0].text == "Hello I'm   a [MASK] MODEL, fashioning é."
    piece = masked.tokenizer.convert_tokens_to_ids("##ing")
    with torch.no_grad():
        masked.model.mlm_head.bias[piece] += 1000
    try:
        assert masked.fill_mask("He is go [MASK] home.", top_k=1)[0].text == "He is going home."
    finally:
        with torch.no_grad():
            masked.model.mlm_head.bias[piece] -= 1000


def test_targets_of_several_pieces_are_the_product_of_their_steps(tmp_path: Path, minilm: Path) -> None:
    folder = with_real_vocabulary(tmp_path, minilm)
    ours = minibert.load(folder)
    theirs = transformers.BertForMaskedLM.from_pretrained(folder)
    pieces = ours.tokenizer.encode("embeddings", add_special_tokens=False)
    assert len(pieces) == 4
    ids = ours.tokenizer.encode("The [MASK] are good")
    place = ids.index(103)
    probability = 1.0
    for step in range(4):
        row = [*ids[:place], *pieces[:step], *[103] * (4 - step), *ids[place + 1 :]]
        probability *= theirs(torch.tensor([row])).logits[0, place + step].softmax(-1)[pieces[step]].item()
    results = {c.token: c for c in ours.fill_mask("The [MASK] are good", targets=["embeddings", "Bank"])}
    assert results["embeddings"].id == tuple(pieces)
    assert results["embeddings"].text == "The embeddings are good"
    np.testing.assert_allclose(results["embeddings"].probability, probability, rtol=1e-4)
    alone = theirs(torch.tensor([ids])).logits[0, place].softmax(-1)[2924].item()
    np.testing.assert_allclose(results["Bank"].probability, alone, rtol=1e-4)
    assert results["Bank"].id == 2924
    piece = ours.fill_mask("He is go [MASK] home.", targets=["##ing"])[0]
    assert piece.id == ours.tokenizer.convert_tokens_to_ids("##ing")
    assert piece.text == "He is going home."
    assert ours.fill_mask("a [MASK]", targets=["##ing"], top_k=np.int64(1))


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("no mask", {}, "text 0 ('no mask') must hold [MASK] at least once; it does not"),
        ("", {}, "text 0 ('')"),
        ("[MASK] " + "word " * 600, {}, "text 0 has 603 tokens, but must have at most 512"),
        ("a [MASK]", {"top_k": 0}, "top_k (0)"),
        ("a [MASK]", {"targets": ["生活"]}, "target ('生活') must be made of the vocabulary's pieces"),
        ("a [MASK]", {"targets": "bank"}, "targets ('bank') must be a list of at least one word; pass ['bank']"),
        ("a [MASK]", {"targets": []}, "targets ([])"),
        ("a [MASK]", {"targets": [""]}, "target ('')"),
        ("a [MASK]", {"targets": [None]}, "text 0 (None) must be str, not NoneType"),
        (
            "[MASK] " + "word " * 508,
            {"targets": ["embeddings"]},
            "target ('embeddings') has 4 pieces, which with the text",
        ),
    ],
)
def test_masks_that_cannot_be_filled_are_refused(
    masked: minibert.Bert, text: str, arguments: Any, message: str
) -> None:
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        masked.fill_mask(text, **arguments)


def test_a_checkpoint_without_the_head_says_what_is_missing_and_what_has_it(bert: minibert.Bert) -> None:
    with pytest.raises(ValueError, match="must have a masked-LM head to fill masks; it lacks") as caught:
        bert.fill_mask("a [MASK]")
    assert "cls.predictions.transform.dense.weight" in str(caught.value)
    assert "google-bert/bert-base-uncased" in str(caught.value)


# What is said of the checkpoint


def test_printing_tells_what_was_loaded(bert: minibert.Bert, minilm: Path, masked: minibert.Bert) -> None:
    told = repr(bert)
    assert str(minilm) in told
    for part in (
        "6 layers, hidden size 384, 12 heads, 22.7 million parameters",
        "30,522 tokens, lower-cased",
        "mean, normalized (sentence-transformers files), vectors of 384",
        "no: the checkpoint has no masked-LM head",
        "256 tokens",
        "float32 on cpu",
    ):
        assert part in told
    assert "mean (minibert's default), vectors of 32" in repr(masked)
    assert re.search(r"fill_mask +yes", repr(masked))
    json.dumps(bert.info())


def test_a_head_that_is_there_in_part_is_told(tmp_path: Path, minilm: Path) -> None:
    folder = with_real_vocabulary(tmp_path, minilm)
    rewrite(folder, lambda t: {name: tensor for name, tensor in t.items() if name != "cls.predictions.bias"})
    loaded = minibert.load(folder)
    assert "no: of the masked-LM head, the checkpoint lacks cls.predictions.bias" in repr(loaded)
    with pytest.raises(ValueError, match=r"it lacks cls\.predictions\.bias: load a checkpoint that has it"):
        loaded.fill_mask("a [MASK]")


def test_loading_is_in_evaluation_mode_and_keeps_no_graph(bert: minibert.Bert) -> None:
    assert not bert.model.training
    assert not bert.encode(TEXTS, convert_to_tensor=True).requires_grad


def test_saving_and_loading_again_gives_the_same(tmp_path: Path, masked: minibert.Bert) -> None:
    masked.save_pretrained(tmp_path)
    again = minibert.load(tmp_path)
    assert np.array_equal(again.encode(TEXTS), masked.encode(TEXTS))
    assert again.fill_mask("a [MASK]") == masked.fill_mask("a [MASK]")


@pytest.mark.slow
def test_saving_keeps_the_recipe_here_and_for_sentence_transformers(
    tmp_path: Path, bert: minibert.Bert, oracle: SentenceTransformer
) -> None:
    recipes = [
        bert.recipe,
        replace(bert.recipe, normalize=False, pooling=("cls", "mean"), prompt="say: ", lower_case=True, settings={}),
        replace(bert.recipe, normalize=False, pooling=("mean", "max", "cls")),
    ]
    for number, recipe in enumerate(recipes):
        folder = tmp_path / str(number)
        changed = minibert.Bert(bert.model, bert.tokenizer, recipe)
        changed.save_pretrained(folder)
        again = minibert.load(folder)
        assert again.recipe == replace(
            recipe, source=again.recipe.source, settings=again.recipe.settings, prompts=again.recipe.prompts
        )
        assert not recipe.prompt or again.recipe.prompts == {"default": recipe.prompt}
        assert dict(again.recipe.settings).items() >= dict(recipe.settings).items()
        assert np.array_equal(again.encode(TEXTS), changed.encode(TEXTS))
        theirs = SentenceTransformer(str(folder), device="cpu")
        assert_same_vectors(changed.encode(TEXTS), theirs.encode(TEXTS))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["BertForPreTraining", "BertForSequenceClassification", "BertForQuestionAnswering"])
def test_saving_keeps_every_head(tmp_path: Path, minilm: Path, kind: str) -> None:
    folder = with_real_vocabulary(tmp_path / "first", minilm, kind)
    loaded = minibert.load(folder)
    loaded.save_pretrained(tmp_path / "again")
    assert type(loaded.model).__name__ == kind
    assert minibert.load(tmp_path / "again").heads == loaded.heads
    theirs = getattr(transformers, kind).from_pretrained(tmp_path / "again")
    ids = torch.tensor([[101, 2924, 102]])
    for mine, other in zip(loaded.model(ids), theirs(ids).to_tuple(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.slow
def test_candidates_are_tokens_even_where_the_table_has_more_rows(tmp_path: Path, minilm: Path) -> None:
    theirs_of("BertForMaskedLM", tmp_path, vocab_size=30592)
    shutil.copy(minilm / "vocab.txt", tmp_path)
    loaded = minibert.load(tmp_path)
    assert len(loaded.fill_mask("a [MASK]", top_k=10**6)) == 30522


def test_loading_warns_of_nothing(minilm: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        minibert.load(minilm)
