"""Prompts: whichever the files have, each side gets what sentence-transformers gives it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import TINY, assert_same_vectors, with_real_vocabulary
from sentence_transformers import CrossEncoder, SentenceTransformer

import minibert
from minibert.cli import main
from minibert.integrations.adapters import LangChainEmbeddings
from minibert.vectors.recipe import Recipe
from minibert.vectors.sentences import not_pooled

TEXTS = ["How do I reset my password?", "the bank of the river " * 4, "", "ok"]
PAIRS = [("Where can I fish?", text) for text in TEXTS]
SETTINGS = "config_sentence_transformers.json"
QUERY, PASSAGE = "Represent this question: ", "passage: "


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    """A small random model with the files of sentence-transformers."""
    folder = with_real_vocabulary(tmp_path_factory.mktemp("prompts") / "tiny", minilm, "BertModel")
    for name in ("modules.json", "sentence_bert_config.json"):
        shutil.copy(minilm / name, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 32, "pooling_mode": "mean"}')
    return folder


@pytest.fixture
def make(tiny: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the small model with other files."""

    def made(settings: object, **files: object) -> Path:
        folder = Path(shutil.copytree(tiny, tmp_path / "model"))
        (folder / SETTINGS).write_text(json.dumps(settings))
        for name, values in files.items():
            path = folder / {"pooling": "1_Pooling/config.json", "transformer": "sentence_bert_config.json"}[name]
            path.write_text(json.dumps({**json.loads(path.read_text()), **dict(values)}))  # type: ignore[call-overload]
        return folder

    return made


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "a query's alone": {"prompts": {"query": QUERY}},
    "a query's, the default": {"prompts": {"query": QUERY}, "default_prompt_name": "query"},
    "a document's, the default": {"prompts": {"document": PASSAGE}, "default_prompt_name": "document"},
    "both, the query's the default": {
        "prompts": {"query": QUERY, "document": PASSAGE},
        "default_prompt_name": "query",
    },
    "another, the default": {"prompts": {"other": "classify "}, "default_prompt_name": "other"},
    "null": {"prompts": {"query": None, "document": PASSAGE, "other": None}, "default_prompt_name": "other"},
    "a default without a prompt": {"prompts": {"other": "classify "}, "default_prompt_name": "query"},
    "an empty document's beside a passage's": {"prompts": {"query": QUERY, "document": "", "passage": PASSAGE}},
}


@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=list(CONFIGURATIONS))
def test_each_side_has_the_prompt_of_sentence_transformers(make: Any, settings: dict[str, Any]) -> None:
    folder = make(settings)
    theirs, ours = SentenceTransformer(str(folder), device="cpu"), minibert.load(folder)
    documents, query = theirs.encode_document(TEXTS), theirs.encode_query(TEXTS[0])
    assert_same_vectors(ours.encode(TEXTS), theirs.encode(TEXTS))
    assert_same_vectors(ours.encode_query(TEXTS), theirs.encode_query(TEXTS))
    assert_same_vectors(ours.encode_document(TEXTS), documents)
    for name in settings.get("prompts", ()):
        assert_same_vectors(ours.encode(TEXTS, prompt_name=name), theirs.encode(TEXTS, prompt_name=name))
    for_langchain = LangChainEmbeddings(ours)
    assert_same_vectors(np.array(for_langchain.embed_documents(TEXTS)), documents)
    assert_same_vectors(np.array(for_langchain.embed_query(TEXTS[0])), query)
    index = minibert.Index(ours)
    index.add(TEXTS)
    scores = theirs.similarity(query, documents)[0]
    hits = index.search(TEXTS[0], top_k=len(TEXTS))
    np.testing.assert_allclose([hit.score for hit in hits], scores.sort(descending=True).values, atol=1e-5)
    ours.save_pretrained(folder.parent / "again")
    again = SentenceTransformer(str(folder.parent / "again"), device="cpu")
    assert_same_vectors(again.encode_document(TEXTS), documents)
    assert_same_vectors(again.encode(TEXTS), theirs.encode(TEXTS))


def test_the_commands_have_each_side_s_prompt(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(CONFIGURATIONS["a query's, the default"])
    theirs = SentenceTransformer(str(folder), device="cpu")
    (tmp_path / "texts.txt").write_text("\n".join(text for text in TEXTS if text) + "\n")
    main(["index", str(tmp_path / "texts.txt"), "-o", str(tmp_path / "index"), "--model", str(folder)])
    capsys.readouterr()
    main(["search", str(tmp_path / "index"), TEXTS[0], "--json", "--top-k", "3"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    documents = theirs.encode_document([hit["text"] for hit in found])
    expected = theirs.similarity(theirs.encode_query(TEXTS[0]), documents)[0]
    np.testing.assert_allclose([hit["score"] for hit in found], expected, atol=1e-4)


def test_chroma_has_each_side_s_prompt(make: Any) -> None:
    pytest.importorskip("chromadb")
    from minibert.integrations.chroma import ChromaEmbeddingFunction

    folder = make(CONFIGURATIONS["a query's, the default"])
    theirs, function = SentenceTransformer(str(folder), device="cpu"), ChromaEmbeddingFunction(folder)
    assert_same_vectors(np.array(function(TEXTS)), theirs.encode_document(TEXTS))
    assert_same_vectors(np.array(function.embed_query(TEXTS)), theirs.encode_query(TEXTS))


@pytest.mark.parametrize("name", ["passage", "corpus"])
def test_a_passage_prompt_is_used_for_documents_and_that_is_said(make: Any, name: str) -> None:
    folder = make({"prompts": {"query": QUERY, name: PASSAGE}})
    theirs, ours = SentenceTransformer(str(folder), device="cpu"), minibert.load(folder)
    assert_same_vectors(ours.encode_document(TEXTS), theirs.encode(TEXTS, prompt_name=name))
    assert_same_vectors(ours.encode_document(TEXTS, prompt=""), theirs.encode_document(TEXTS))
    assert f"{name}, query; encode_document uses {name!r}, sentence-transformers none" in repr(ours)
    assert ours.info()["document_prompt"] == name


LEFT_OUT = ["", " ", "\t\n", "q", "query: ", "embed", "un", "[SEP]", "é\u0301 ", "北京", "zürich-", "q " * 9, "q " * 30]


@pytest.mark.parametrize("mode", ["mean", "cls", "weightedmean"])
def test_what_is_left_out_with_a_prompt_is_what_sentence_transformers_leaves_out(make: Any, mode: str) -> None:
    folder = make({}, pooling={"include_prompt": False, "pooling_mode": mode}, transformer={"max_seq_length": 16})
    theirs, ours = SentenceTransformer(str(folder), device="cpu"), minibert.load(folder)
    texts = ["ding of words", "s", "river bank"]
    for prompt in LEFT_OUT:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("minibert.engine.stream.warn", lambda message: None)  # of texts that are truncated
            vectors = ours.encode(texts, prompt=prompt)
        assert_same_vectors(vectors, theirs.encode(texts, prompt=prompt))
        explained = dict(vars(ours.recipe), prompt=prompt)
        with_default = minibert.Bert(ours.model, ours.tokenizer, Recipe(**explained))
        if len(prompt) < 20:  # not truncated
            assert_same_vectors(np.stack([one.vector for one in with_default.annotate(texts)]), vectors)
            if mode == "mean":
                found = with_default.explain_similarity(texts[0], texts[1])
                expected = minibert.similarity(vectors[0], vectors[1]).item()
                assert found.cosine == pytest.approx(expected, abs=1e-5)
            value = with_default.explain(texts[0], similar_to=texts[1], steps=1).value
            assert value == pytest.approx(minibert.similarity(vectors[0], vectors[1]).item(), abs=1e-5)


def test_a_prompt_without_tokens_leaves_out_the_first_token(bert: minibert.Bert) -> None:
    assert not_pooled(bert.tokenizer, Recipe(include_prompt=False), " ") == 1
    assert not_pooled(bert.tokenizer, Recipe(include_prompt=False), "") == 0
    assert not_pooled(bert.tokenizer, Recipe(), "query: ") == 0


# Rerankers


@pytest.mark.parametrize(
    "prompts",
    [
        {"prompts": {"query": "Judge this question: "}, "default_prompt_name": "query"},
        {"prompts": {"query": "Judge this question: ", "other": None}},
    ],
    ids=["a default", "none is the default"],
)
def test_a_rerankers_prompts_are_the_cross_encoders(tmp_path: Path, minilm: Path, prompts: dict[str, Any]) -> None:
    size = {**TINY, "vocab_size": 30522, "num_labels": 1, "initializer_range": 0.2}
    folder = with_real_vocabulary(tmp_path / "old", minilm, "BertForSequenceClassification", **size)
    CrossEncoder(str(folder), device="cpu").save_pretrained(str(tmp_path / "new"))
    settings = tmp_path / "new" / SETTINGS
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **prompts}))
    theirs, ours = CrossEncoder(str(tmp_path / "new"), device="cpu"), minibert.load(tmp_path / "new")
    asked: list[dict[str, Any]] = [{}, {"prompt_name": "query"}, {"prompt": "Say: "}, {"prompt": ""}]
    for one in asked:
        expected = theirs.predict(PAIRS, **one)
        np.testing.assert_allclose(ours.score(PAIRS, **one), expected, rtol=0, atol=1e-5)
        ranked = ours.rank(PAIRS[0][0], TEXTS, **one)
        np.testing.assert_allclose([hit.score for hit in ranked], np.sort(expected)[::-1], rtol=0, atol=1e-5)
    assert np.ptp([ours.score(PAIRS[0], prompt=prompt) for prompt in ("", "Judge this question: ")]) > 1e-4
    with pytest.raises(minibert.MinibertError, match=r"prompt_name \('none'\) must be a prompt of the checkpoint"):
        ours.score(PAIRS, prompt_name="none")


def test_a_reranker_does_not_take_the_prompts_of_sentence_vectors(tmp_path: Path, minilm: Path, tiny: Path) -> None:
    size = {**TINY, "vocab_size": 30522, "num_labels": 1, "initializer_range": 0.2}
    folder = with_real_vocabulary(tmp_path, minilm, "BertForSequenceClassification", **size)
    shutil.copytree(tiny / "1_Pooling", folder / "1_Pooling")
    shutil.copy(tiny / "modules.json", folder)
    (folder / SETTINGS).write_text(json.dumps({"prompts": {"query": QUERY}, "default_prompt_name": "query"}))
    ours = minibert.load(folder)
    expected = CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(ours.score(PAIRS), expected, rtol=0, atol=1e-5)


# The arguments of the tokenizer


@pytest.mark.parametrize("name", ["tokenizer_args", "processor_kwargs"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"model_max_length": 12},
        {"do_lower_case": False},
        {"strip_accents": False},
        {"truncation_side": "left", "model_max_length": 12},
        {"use_fast": True, "trust_remote_code": True, "padding_side": "right"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.* exceed 12 tokens")
def test_arguments_of_the_tokenizer_are_followed(make: Any, name: str, arguments: dict[str, Any]) -> None:
    folder = make({}, transformer={name: arguments, "max_seq_length": 64})
    theirs, ours = SentenceTransformer(str(folder), device="cpu"), minibert.load(folder)
    assert ours.max_seq_length == theirs.max_seq_length == arguments.get("model_max_length", 64)
    texts = [*TEXTS, "ZÜRICH São Paulo cafe\u0301 World"]
    assert_same_vectors(ours.encode(texts), theirs.encode(texts))


def test_arguments_that_are_not_followed_are_named(make: Any) -> None:
    folder = make(
        {},
        transformer={
            "config_args": {"hidden_act": "relu"},
            "model_args": {"torch_dtype": "float32"},
            "tokenizer_args": {"added": 1},
        },
    )
    message = f"sentence_bert_config.json of {folder} has arguments (added, hidden_act) that are not followed here"
    with pytest.warns(UserWarning, match=re.escape(message)):
        minibert.load(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([1], "tokenizer_args of {} ([1]) must be an object; correct sentence_bert_config.json"),
        ({"model_max_length": True}, "model_max_length of {} (True) must be a whole number of at least 3"),
        ({"truncation_side": "up"}, "truncation_side of {} ('up') must be 'right' or 'left'"),
        ({"do_lower_case": "no"}, "do_lower_case of {} ('no') must be true or false; correct the file"),
    ],
    ids=str,
)
def test_arguments_that_make_no_sense_are_refused(make: Any, arguments: object, message: str) -> None:
    folder = make({}, transformer={"tokenizer_args": arguments})
    with pytest.warns(UserWarning, match=re.escape(message.format(folder))):
        loaded = minibert.load(folder)
    with pytest.raises(minibert.MinibertError, match=re.escape(message.format(folder))):
        loaded.encode("a")
