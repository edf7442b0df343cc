"""The index: exact to the bit whatever lies beside, bounded for any number of queries, whole after any crash."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import psutil
import pytest

from minibert.vectors import index as module
from minibert.vectors.index import Index
from minibert.vectors.recipe import Recipe

KINDS = ("cosine", "dot", "euclidean", "manhattan")


def of_vectors(vectors: np.ndarray, kind: str = "dot") -> Index:
    """An index of vectors that no model made."""
    maker: Any = SimpleNamespace(
        source="numbers", recipe=replace(Recipe(), similarity=kind), dimension=vectors.shape[1]
    )
    index = Index(maker)
    index.add_vectors(vectors, [f"text {number}" for number in range(len(vectors))])
    return index


def brute_force(vectors: np.ndarray, queries: np.ndarray, kind: str, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """All scores in float64, rounded to float32, in a stable order."""
    a, b = queries.astype(np.float64)[:, None], vectors.astype(np.float64)[None]
    if kind == "cosine":
        units = [part / np.maximum(np.linalg.norm(part, axis=-1, keepdims=True), 1e-12) for part in (a, b)]
        scores = (units[0] * units[1]).sum(-1)
    elif kind == "dot":
        scores = (a * b).sum(-1)
    else:
        scores = -np.sqrt(((a - b) ** 2).sum(-1)) if kind == "euclidean" else -np.abs(a - b).sum(-1)
    scores = scores.astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return np.take_along_axis(scores, order, 1), order


@hypothesis.settings(
    deadline=None, max_examples=200, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(
    st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=60),
    st.integers(1, 70),
    st.integers(1, 9),
    st.integers(1, 3),
    st.sampled_from(["dot", "euclidean", "manhattan"]),
)
def test_hits_are_those_of_brute_force_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch, values: list[list[int]], top_k: int, block: int, queries: int, kind: str
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "QUERIES", queries)
    vectors = np.array(values, dtype=np.float32)
    asked = np.array([[1, 0, 0], [0, 0, 0], [-1, 2, 0], [2, 2, -1]], dtype=np.float32)
    scores, numbers = of_vectors(vectors, kind).search_vectors(asked, top_k)
    expected = brute_force(vectors, asked, kind, top_k)
    assert np.array_equal(numbers, expected[1])
    assert np.array_equal(scores, expected[0])


@pytest.mark.parametrize("kind", KINDS)
def test_equal_vectors_score_alike_wherever_they_lie(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 1003)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5000, 77), dtype=np.float32)
    copies = np.sort(rng.choice(5000, 60, replace=False))
    vectors[copies] = vectors[copies[0]]
    query = vectors[copies[:1]] + 0.01 * rng.standard_normal((1, 77), dtype=np.float32)
    scores, numbers = of_vectors(vectors, kind).search_vectors(query, 40)
    assert numbers[0].tolist() == copies[:40].tolist()  # the first ones, in their order
    assert len(set(scores[0].tolist())) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_does_not_depend_on_the_queries_and_blocks_beside(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((count, 45), dtype=np.float32) for count in (3001, 21))
    index = of_vectors(vectors, kind)
    scores, numbers = index.search_vectors(queries, 7)
    for block in (17, 1000):
        monkeypatch.setattr(module, "BLOCK", block)
        alone = [index.search_vectors(query[None], 7) for query in queries]
        assert np.array_equal(np.concatenate([found[0] for found in alone]), scores)
        assert np.array_equal(np.concatenate([found[1] for found in alone]), numbers)


def test_near_duplicates_are_told_apart_by_distance() -> None:
    base = np.ones(384) * 3
    vectors = np.stack([base + step * 1e-5 for step in range(50)]).astype(np.float32)
    scores, numbers = of_vectors(vectors, "euclidean").search_vectors(vectors[20:21], 5)
    expected = brute_force(vectors, vectors[20:21], "euclidean", 5)
    assert numbers.tolist() == expected[1].tolist()
    assert scores.tolist() == expected[0].tolist()


def test_memory_does_not_grow_with_the_queries() -> None:
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((count, 32), dtype=np.float32) for count in (100_000, 20_000))
    index = of_vectors(vectors)
    index.search_vectors(queries[:200])
    process, most = psutil.Process(), 0
    before = process.memory_info().rss
    compared = module.rough_scores if hasattr(module, "rough_scores") else None

    def watched(*arguments: Any) -> Any:
        nonlocal most
        most = max(most, process.memory_info().rss)
        return compared(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "rough_scores", watched)
        index.search_vectors(queries[:4000], 10)
    assert most - before < 60 * 2**20  # all scores would be 1.6 GB, those of a block and all queries 260 MB


def test_no_queries_find_nothing() -> None:
    scores, numbers = of_vectors(np.ones((5, 3), dtype=np.float32)).search_vectors(np.empty((0, 3), np.float32), 2)
    assert scores.shape == numbers.shape == (0, 2)


def test_texts_added_one_by_one_lie_together() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1000, 8), dtype=np.float32)
    index = of_vectors(vectors[:0])
    for number, vector in enumerate(vectors):
        index.add_vectors(vector[None], [str(number)], [number])
    assert len(index._blocks) < 12
    assert np.array_equal(index.vectors, vectors)
    assert index.texts == [str(number) for number in range(1000)]
    assert [index[number][1] for number in range(1000)] == list(range(1000))
    assert index[-1] == ("999", 999)
    for wrong in (1000, -1001):
        with pytest.raises(IndexError, match=re.escape(f"number ({wrong}) must be at least -1000 and less than 1000")):
            index[wrong]
    with pytest.raises(ValueError, match="read-only"):
        index.vectors[0] = 0


def test_one_text_is_not_taken_for_its_letters_nor_an_object_for_its_keys() -> None:
    index = of_vectors(np.ones((1, 3), dtype=np.float32))
    for texts, data, message in (
        ("abc", None, "texts ('abc') must be several values in an order, not str; use a list"),
        (["a", "b"], {"x": 1, "y": 2}, "data ({'x': 1, 'y': 2}) must be several values in an order, not dict"),
        (["a", "b"], "no", "data ('no') must be several values in an order, not str"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            index.add_vectors(np.ones((len(texts), 3)), texts, data)
    with pytest.raises(ValueError, match=re.escape(r"data of text 0 ('\ud800') must be a JSON value; ")):
        index.add_vectors(np.ones((1, 3)), ["a"], ["\ud800"])
    assert len(index) == 1


CRASHES = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from minibert.vectors import index as module
from minibert.vectors.recipe import Recipe

module.fingerprint = lambda bert: "of numbers"
maker = SimpleNamespace(source="numbers", recipe=Recipe(similarity="dot"), dimension=4)
folder = Path(sys.argv[1])
left = None  # file operations before the crash

def dies(event, arguments):
    global left
    if left is not None and event in ("open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "os.scandir",
                                      "os.listdir", "tempfile.mkstemp"):
        if str(folder) in str(arguments[0]):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

sys.addaudithook(dies)

def index_of(count):
    index = module.Index(maker)
    index.add_vectors(np.full((count, 4), count), [str(count)] * count)
    return index

killed = 0
for operation in range(1000):
    index_of(operation + 1).save(folder)
    process = os.fork()
    if process == 0:
        left = operation
        index_of(5000 + operation).save(folder)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    found = module.Index.load(folder, maker)
    assert len(found) in (operation + 1, 5000 + operation), len(found)
    assert found[len(found) - 1] == (str(len(found)), None)
    assert (found.vectors == len(found)).all()
    found.save(folder)
    assert len(list(folder.iterdir())) == 3
    if not os.WIFSIGNALED(status):
        break
    killed += 1
print(killed)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="os.fork")
def test_a_crash_at_any_operation_on_files_leaves_an_index_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, str(tmp_path / "some.index")], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 8  # it died so often, each time one operation later
