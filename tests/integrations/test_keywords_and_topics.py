"""KeyBERT and BERTopic: with our backends they give what they give with sentence-transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from oracle import assert_same_vectors
from sentence_transformers import SentenceTransformer

import minibert

TEXTS = [
    f"{text} {end}"
    for text in (
        "The delivery is late", "My parcel has not come", "Where is my order", "The tracking link is broken",
        "I forgot my password", "I cannot log in", "My account is locked", "The login page fails",
    )
    for end in ("again.", "today!", "I think.")
]  # fmt: skip


@pytest.fixture(scope="module")
def theirs(minilm: Path) -> Any:
    return SentenceTransformer(str(minilm))


@pytest.fixture(autouse=True)
def no_other_model(minilm: Path, theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default model, which both libraries load in place of what they do not know, must not be asked for."""

    def refuse(*arguments: Any, **settings: Any) -> None:
        raise AssertionError(f"another model was loaded: {arguments}")

    monkeypatch.setattr(SentenceTransformer, "__init__", refuse)


def test_keybert_finds_the_keywords_it_finds_with_sentence_transformers(minilm: Path, theirs: Any) -> None:
    keybert = pytest.importorskip("keybert", reason="KeyBERT is not installed")
    from minibert.integrations.keybert import KeyBERTBackend

    backend = KeyBERTBackend(minilm)
    ours = keybert.KeyBERT(model=backend)
    assert ours.model is backend
    for settings in ({}, {"use_mmr": True, "keyphrase_ngram_range": (1, 2)}):
        found = ours.extract_keywords(TEXTS[::3], top_n=3, **settings)
        expected = keybert.KeyBERT(model=theirs).extract_keywords(TEXTS[::3], top_n=3, **settings)
        assert [[word for word, _ in some] for some in found] == [[word for word, _ in some] for some in expected]
        for some, others in zip(found, expected, strict=True):  # KeyBERT rounds scores to four places
            assert [score for _, score in some] == pytest.approx([score for _, score in others], abs=2e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")  # umap's, when BERTopic imports it
def test_bertopic_finds_the_topics_it_finds_with_sentence_transformers(minilm: Path, theirs: Any) -> None:
    bertopic = pytest.importorskip("bertopic", reason="BERTopic is not installed")
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    from minibert.integrations.bertopic import BERTopicBackend

    def fitted(model: Any) -> Any:
        # the usual steps compile for half a minute
        groups = KMeans(2, random_state=0, n_init=1)
        found = bertopic.BERTopic(embedding_model=model, umap_model=PCA(2), hdbscan_model=groups)
        topics, _ = found.fit_transform(TEXTS)
        return found, topics

    backend = BERTopicBackend(minilm)
    (ours, topics), (expected, theirs_topics) = fitted(backend), fitted(theirs)
    assert ours.embedding_model is backend
    assert topics == theirs_topics
    assert len(set(topics)) == 2
    assert ours.get_topics() == expected.get_topics()
    assert ours.find_topics("parcel")[0] == expected.find_topics("parcel")[0]
    assert_same_vectors(backend.embed_words(["parcel"]), theirs.encode(["parcel"]))


@pytest.mark.slow
@pytest.mark.parametrize(("module", "library"), [("keybert", "KeyBERT"), ("bertopic", "BERTopic")])
def test_what_is_not_installed_is_one_sentence(module: str, library: str) -> None:
    code = f"import sys; sys.modules['{module}'] = None; import minibert.integrations.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: minibert.integrations.{module} needs {library}, which is not installed; pip install {module}"
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")
@pytest.mark.parametrize(
    ("module", "name"),
    [("keybert", "KeyBERTBackend"), pytest.param("bertopic", "BERTopicBackend", marks=pytest.mark.slow)],
)
def test_a_backend_takes_a_bert_and_settings_of_encode(minilm: Path, theirs: Any, module: str, name: str) -> None:
    pytest.importorskip(module, reason=f"{module} is not installed")
    backend_of = getattr(__import__(f"minibert.integrations.{module}", fromlist=[name]), name)
    bert = minibert.load(minilm)
    backend = backend_of(bert, truncate_dim=64)
    assert backend.bert is bert
    assert_same_vectors(backend.embed(TEXTS[:3]), theirs.encode(TEXTS[:3], truncate_dim=64))
    with pytest.raises(minibert.MinibertError, match=r"^truncate_dim \(999\)"):
        backend_of(minilm, truncate_dim=999)
