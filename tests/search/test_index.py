"""The index: exact search, beside sentence-transformers and brute force; files that are whole or not there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import psutil
import pytest
import torch
from oracle import with_real_vocabulary
from sentence_transformers import util

import minibert
from minibert.cli import main
from minibert.search import index as module
from minibert.search.index import Index, fingerprint, read_manifest

TEXTS = ["I forgot my password", "Track a parcel", "Close my account", "Zürich 北京 👍", "", "He sat by the river"]
DATA = ["reset it", {"answer": "see the link", "n": 1}, None, ["a", 1.5], True, "water"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> minibert.Bert:
    return minibert.load(with_real_vocabulary(tmp_path_factory.mktemp("small"), minilm))


def of_vectors(bert: minibert.Bert, vectors: np.ndarray, kind: str = "dot", pieces: int = 1) -> Index:
    from dataclasses import replace

    index = Index(minibert.Bert(bert.model, bert.tokenizer, replace(bert.recipe, similarity=kind), bert.source))
    for part in np.array_split(np.arange(len(vectors)), pieces):
        index.add_vectors(vectors[part], [f"text {number}" for number in part])
    return index


def test_a_question_finds_the_answered_one(bert: minibert.Bert) -> None:
    index = Index(bert)
    index.add(TEXTS, DATA)
    assert len(index) == 6
    hits = index.search("How do I reset my password?", 2)
    assert hits[0][1:] == ("I forgot my password", "reset it", 0)
    expected = bert.encode("How do I reset my password?") @ bert.encode(TEXTS).T
    assert hits[0].score == pytest.approx(expected[0], abs=1e-6)
    several = index.search(["a river", "Where is my package?"])
    assert [found[0].text for found in several] == ["He sat by the river", "Track a parcel"]
    assert [len(found) for found in several] == [6, 6]
    assert repr(index).startswith("Index(6 texts, vectors of 384, ")


@pytest.mark.parametrize("kind", ["cosine", "dot", "euclidean", "manhattan"])
def test_the_hits_are_those_of_sentence_transformers(
    small: minibert.Bert, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 100)
    monkeypatch.setattr(module, "WIDER", 0)
    rng = np.random.default_rng(0)
    vectors, queries = (rng.normal(size=(n, 32)).astype(np.float32) for n in (1234, 17))
    functions = {
        "cosine": util.cos_sim,
        "dot": util.dot_score,
        "euclidean": util.euclidean_sim,
        "manhattan": util.manhattan_sim,
    }
    theirs = util.semantic_search(
        torch.from_numpy(queries), torch.from_numpy(vectors), top_k=9, score_function=functions[kind]
    )
    scores, numbers = of_vectors(small, vectors, kind, pieces=3).search_vectors(queries, 9)
    assert numbers.tolist() == [[hit["corpus_id"] for hit in hits] for hits in theirs]
    np.testing.assert_allclose(scores, [[hit["score"] for hit in hits] for hits in theirs], atol=2e-5)


@hypothesis.settings(
    deadline=None, max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(st.lists(st.integers(-2, 2), min_size=1, max_size=60), st.integers(1, 70), st.integers(1, 9))
def test_of_equals_the_first_added_come_first(
    small: minibert.Bert, monkeypatch: pytest.MonkeyPatch, values: list[int], top_k: int, block: int
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "WIDER", 0)
    vectors = np.zeros((len(values), 32), dtype=np.float32)
    vectors[:, 0] = values
    queries = np.zeros((2, 32), dtype=np.float32)
    queries[:, 0] = 1, -1
    scores, numbers = of_vectors(small, vectors).search_vectors(queries, top_k)
    for query, sign in enumerate((1, -1)):
        expected = sorted(range(len(values)), key=lambda number: (-sign * values[number], number))[:top_k]
        assert numbers[query].tolist() == expected
        assert scores[query].tolist() == [sign * values[number] for number in expected]


def test_an_empty_index_finds_nothing(small: minibert.Bert, tmp_path: Path) -> None:
    index = Index(small)
    assert index.search("one") == []
    assert index.search(["one", "two"]) == [[], []]
    assert index.vectors.shape == (0, 32)
    index.add([])
    index.save(tmp_path)
    assert len(Index.load(tmp_path, small)) == 0


def peak_of(call: Callable[[], object]) -> int:
    """Bytes of memory that a call needs at most while it runs."""
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark starts again
    before = psutil.Process().memory_info().rss
    call()
    high = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert high
    return int(high[1]) * 1024 - before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_search_is_bounded(small: minibert.Bert) -> None:
    vectors = np.random.default_rng(0).normal(size=(400_000, 32)).astype(np.float32)
    index, queries = of_vectors(small, vectors), vectors[:200]
    expected = np.argsort(-(queries[:5] @ vectors.T), axis=1, kind="stable")[:, :10]
    assert index.search_vectors(queries, 10)[1][:5].tolist() == expected.tolist()
    assert peak_of(lambda: queries @ vectors.T) > 250 * 2**20  # all scores at once: 320 MB
    assert peak_of(lambda: index.search_vectors(queries, 10)) < 60 * 2**20


# Files


def test_what_is_saved_is_loaded(bert: minibert.Bert, tmp_path: Path) -> None:
    index = Index(bert)
    index.add(TEXTS[:2], DATA[:2])
    index.add(TEXTS[2:], DATA[2:])
    index.save(tmp_path / "faq.index")
    again = Index.load(tmp_path / "faq.index", bert)
    assert again.search(TEXTS) == index.search(TEXTS)
    assert [again[number] for number in range(6)] == list(zip(TEXTS, DATA, strict=True))
    again.add(["a river bank"], ["new"])
    again.save(tmp_path / "faq.index")  # over the file that its own vectors are mapped from
    third = Index.load(tmp_path / "faq.index", bert)
    assert len(third) == 7
    assert third[6] == ("a river bank", "new")
    assert again.search("river")[0] == third.search("river")[0]
    names = sorted(path.name for path in (tmp_path / "faq.index").iterdir())
    assert len(names) == 3
    manifest = json.loads((tmp_path / "faq.index" / "manifest.json").read_text())
    assert manifest["dimensions"] == 384
    assert manifest["pooling"] == ["mean"]
    assert minibert.Source(**manifest["model"]) == bert.source


@pytest.mark.slow
def test_vectors_are_mapped_and_texts_read_when_found(small: minibert.Bert, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(300_000, 32)).astype(np.float32)
    of_vectors(small, vectors, "cosine").save(tmp_path)
    before = psutil.Process().memory_info().rss
    loaded = Index.load(tmp_path, small)
    assert psutil.Process().memory_info().rss - before < 25 * 2**20  # the file has 38 MB, the texts 13
    assert loaded[299_999] == ("text 299999", None)


def test_another_model_is_refused(bert: minibert.Bert, small: minibert.Bert, minilm: Path, tmp_path: Path) -> None:
    index = Index(bert)
    index.add(TEXTS)
    index.save(tmp_path)
    message = (
        f"the model ({small.source}) must be the one that made the index ({tmp_path}), {bert.source}; they differ in "
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        Index.load(tmp_path, small)
    changed = minibert.load(minilm)
    with torch.no_grad():
        changed.encoder.encoder.layers[0].attention.query.weight.mul_(1.5)
    with pytest.raises(ValueError, match="they differ in fingerprint: load that model, or rebuild the index"):
        Index.load(tmp_path, changed)
    assert fingerprint(minibert.load(minilm, dtype=torch.bfloat16)) == fingerprint(bert)  # the same model, rounded


def test_files_that_are_not_whole_are_told(small: minibert.Bert, tmp_path: Path) -> None:
    index = of_vectors(small, np.ones((20, 32), dtype=np.float32), "cosine")
    index.save(tmp_path)
    for kind in ("vectors", "texts"):
        path = tmp_path / read_manifest(tmp_path)["files"][kind]["name"]
        content = path.read_bytes()
        path.write_bytes(content[:-5])
        with pytest.raises(
            ValueError, match=rf"{kind}-\w+\.\w+ of the index .* bytes\) must have {len(content)} bytes; copy"
        ):
            Index.load(tmp_path, small)
        path.write_bytes(content)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="must be valid; rebuild the index"):
        Index.load(tmp_path, small)
    with pytest.raises(FileNotFoundError, match=r"must be a folder with a manifest\.json; create one with Index\.save"):
        Index.load(tmp_path / "nothing", small)


def test_a_folder_of_something_else_is_left_alone(small: minibert.Bert, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"must be empty or hold an index, but it holds thesis\.txt; choose another"):
        of_vectors(small, np.ones((2, 32), dtype=np.float32)).save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


SAVES = """
import sys, numpy as np, minibert
from minibert.search.index import Index
bert = minibert.load(sys.argv[1])
for count in range(1, 10_000):
    index = Index(bert)
    index.add_vectors(np.full((200 * count, 32), count, dtype=np.float32), [f"{count}"] * 200 * count)
    index.save(sys.argv[2])
    print(count, flush=True)
"""


@pytest.mark.slow
def test_a_crash_while_saving_leaves_an_index_whole(small: minibert.Bert, tmp_path: Path) -> None:
    for trial in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVES, str(small.source), str(tmp_path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.03 * trial)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        index = Index.load(tmp_path, small)
        count = int(index[0][0])
        assert len(index) == 200 * count  # one state, whole, not two mixed
        assert index[len(index) - 1] == (str(count), None)
    index.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3  # and what was left over is cleared away


# Mistakes


def test_nothing_is_added_by_a_mistake(small: minibert.Bert) -> None:
    index = Index(small)
    for texts, data, message in (
        (["a", "b"], [1], "data (1 values) must have one value per text (2); use None"),
        (["a", "b"], [1, {2}], "data of text 1 ({2}) must be a JSON value ("),
        (["a"], [float("nan")], "data of text 0 (nan)"),
        (["a", 7], None, "text 1 (7) must be str"),
    ):
        with pytest.raises(minibert.MinibertError, match=re.escape(message)):
            index.add(texts, data)  # type: ignore[arg-type]
    for vectors, message in (
        (np.ones((2, 32)), "vectors (2, 32) must be (1, 32), one for each text"),
        (np.ones((1, 8)), "vectors (1, 8)"),
        (np.full((1, 32), np.nan), "vectors (nan at [0, 0])"),
    ):
        with pytest.raises(minibert.MinibertError, match=re.escape(message)):
            index.add_vectors(vectors, ["a"])
    assert len(index) == 0
    with pytest.raises(minibert.MinibertError, match=r"top_k \(0\)"):
        index.search("a", 0)


# Approximate, and from the shell


def test_approximate_search_finds_nearly_all(small: minibert.Bert) -> None:
    pytest.importorskip("usearch", reason="usearch is not installed")
    index = Index(small)
    index.add([f"text {number} of {word}" for number in range(100) for word in ("banks", "rivers", "cats")])
    approximate = index.approximate()
    queries = ["text 7 of cats", "a river"]
    for exact, found in zip(index.search(queries), approximate.search(queries), strict=True):
        assert len({hit.number for hit in exact} & {hit.number for hit in found}) >= 8
        scores = {hit.number: hit.score for hit in exact}
        assert all(scores.get(hit.number, hit.score) == hit.score <= 1 for hit in found)
    itself = [approximate.search(text, 1)[0].score for text in index.texts]
    assert max(itself) <= 1
    assert itself == [index.search(text, 1)[0].score for text in index.texts]
    assert Index(small).approximate().search("one") == []


@pytest.mark.slow
def test_questions_are_matched_from_the_shell(minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "faq.csv").write_text(
        "question,answer,topic\nI forgot my password,Reset it,login\nWhere is my parcel,Track it,post\n"
    )
    folder = str(tmp_path / "faq.index")
    command = ["index", str(tmp_path / "faq.csv"), "--text", "question", "--keep", "answer", "topic", "-o", folder]
    assert main([*command, "--model", str(minilm)]) == 0
    capsys.readouterr()
    assert main(["search", folder, "How do I reset my password?", "--top-k", "1"]) == 0
    score, *rest = capsys.readouterr().out.strip().split("\t")
    assert rest == ["I forgot my password", "Reset it", "login"]
    assert 0.5 < float(score) < 1
    assert main(["search", folder, "a package", "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["data"] == {"answer": "Track it", "topic": "post"}
    assert main(["search", str(tmp_path), "x"]) == 2
    assert "must be a folder with a manifest.json" in capsys.readouterr().err
