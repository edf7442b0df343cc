"""The index: exact to the bit whatever lies beside, bounded for any number of queries, whole after any crash."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import psutil
import pytest
import torch
from safetensors.numpy import save_file

import minibert
from minibert.search import index as module
from minibert.search.index import Index, read_manifest
from minibert.vectors.recipe import Recipe

TOKENIZER = SimpleNamespace(vocab={}, do_lower_case=True, special_tokens=[])
KINDS = ("cosine", "dot", "euclidean", "manhattan")


def of_vectors(vectors: np.ndarray, kind: str = "dot") -> Index:
    """An index of vectors that no model made."""
    maker: Any = SimpleNamespace(
        edits=[],
        source=minibert.Source("numbers"),
        recipe=Recipe(similarity=kind),
        dimension=vectors.shape[1],
        encoder=torch.nn.Identity(),
        tokenizer=TOKENIZER,
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
    monkeypatch.setattr(module, "WIDER", 0)
    monkeypatch.setattr(module, "QUERIES", queries)
    vectors = np.array(values, dtype=np.float32)
    asked = np.array([[1, 0, 0], [0, 0, 0], [-1, 2, 0], [2, 2, -1]], dtype=np.float32)
    scores, numbers = of_vectors(vectors, kind).search_vectors(asked, top_k)
    expected = brute_force(vectors, asked, kind, top_k)
    assert np.array_equal(numbers, expected[1])
    assert np.array_equal(scores, expected[0])


def test_changed_texts_are_refused_and_older_indexes_load(tmp_path: Path) -> None:
    index = of_vectors(np.eye(3, dtype=np.float32))
    index.save(tmp_path)
    texts, manifest = next(tmp_path.glob("texts-*")), tmp_path / "manifest.json"
    whole = texts.read_bytes()
    for change in (whole.replace(b"text 1", b"text 7"), whole.replace(b"text 1", b"t\xffxt 1"), b"[" * len(whole)):
        texts.write_bytes(change)
        with pytest.raises(minibert.MinibertError, match="must be as it was saved; it has changed"):
            Index.load(tmp_path, index.bert)
    older = {name: value for name, value in json.loads(manifest.read_text()).items() if name != "texts_sha256"}
    manifest.write_text(json.dumps(older))
    texts.write_bytes(whole)
    assert Index.load(tmp_path, index.bert).texts == index.texts
    for change in (whole.replace(b"text 1", b"t\xffxt 1"), whole.replace(b'"text"', b'"next"'), b"[1]\n[2]\n[3]\n"):
        texts.write_bytes(change)
        older["files"]["texts"]["bytes"] = len(change)
        manifest.write_text(json.dumps(older))
        with pytest.raises(minibert.MinibertError, match="of the index must be"):
            _ = Index.load(tmp_path, index.bert)[1]


def test_a_manifest_names_no_files_outside_its_folder(tmp_path: Path) -> None:
    index = of_vectors(np.eye(3, dtype=np.float32))
    index.save(tmp_path / "index")
    path = tmp_path / "index" / "manifest.json"
    manifest = json.loads(path.read_text())
    (tmp_path / "texts-12345678.jsonl").write_text("")
    for name in ("../texts-12345678.jsonl", "/etc/passwd", manifest["files"]["texts"]["name"] + "\n"):
        for kind in ("texts", "vectors", "more"):
            part = {kind: {"name": name, "bytes": 0}}
            path.write_text(json.dumps({**manifest, "files": {**manifest["files"], **part}}))
            with pytest.raises(minibert.MinibertError, match="the manifest of the index"):
                Index.load(tmp_path / "index", index.bert)
    path.write_text("[" * 100_000)
    with pytest.raises(minibert.MinibertError, match="the manifest of the index"):
        Index.load(tmp_path / "index", index.bert)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_vectors_score_alike_wherever_they_lie(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 1003)
    monkeypatch.setattr(module, "WIDER", 0)
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
        monkeypatch.setattr(module, "WIDER", 0)
        alone = [index.search_vectors(query[None], 7) for query in queries]
        assert np.array_equal(np.concatenate([found[0] for found in alone]), scores)
        assert np.array_equal(np.concatenate([found[1] for found in alone]), numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_most_of_all_vectors_are_scored_as_exactly_as_a_few(kind: str) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((count, 45), dtype=np.float32) for count in (3001, 21))
    vectors[::7] = vectors[0]
    index = of_vectors(vectors, kind)
    scores, numbers = index.search_vectors(queries, 2000)
    few, first = index.search_vectors(queries, 9)
    assert np.array_equal(scores[:, :9], few)
    assert np.array_equal(numbers[:, :9], first)
    if kind != "cosine":  # of which an index has the normalized vectors, rounded to float32
        expected = brute_force(vectors, queries, kind, 2000)
        assert np.array_equal(numbers, expected[1])
        assert np.array_equal(scores, expected[0])


def test_products_that_are_in_doubt_are_summed_as_elsewhere() -> None:
    rng = np.random.default_rng(0)
    queries, part = (rng.standard_normal((count, 384)).astype(np.float32) for count in (9, 3000))
    queries[:, 0], part[:, 0] = 1, 0
    part[:, 0] = -(queries[0, 1:].astype(np.float64) @ part[:, 1:].T.astype(np.float64))  # nearly nothing is left
    expected = (queries[:, None].astype(np.float64) * part.astype(np.float64)).sum(-1).astype(np.float32)
    assert np.array_equal(module.exact_products(queries, part), expected)


def test_near_duplicates_are_told_apart_by_distance() -> None:
    base = np.ones(384) * 3
    vectors = np.stack([base + step * 1e-5 for step in range(50)]).astype(np.float32)
    scores, numbers = of_vectors(vectors, "euclidean").search_vectors(vectors[20:21], 5)
    expected = brute_force(vectors, vectors[20:21], "euclidean", 5)
    assert numbers.tolist() == expected[1].tolist()
    assert scores.tolist() == expected[0].tolist()


@pytest.mark.slow
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
    assert most - before < 120 * 2**20  # all scores would be 1.6 GB, those of a block and all queries 260 MB


def test_no_queries_find_nothing() -> None:
    scores, numbers = of_vectors(np.ones((5, 3), dtype=np.float32)).search_vectors(np.empty((0, 3), np.float32), 2)
    assert scores.shape == numbers.shape == (0, 2)


def test_texts_added_one_by_one_lie_together() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1000, 8), dtype=np.float32)
    index = of_vectors(vectors[:0])
    for number, vector in enumerate(vectors):
        index.add_vectors(vector[None], [str(number)], [number])
    assert len(index._contents.blocks) < 12
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
        ("abc", None, "texts ('abc') must be a list of values, not str; pass a list"),
        (["a", "b"], {"x": 1, "y": 2}, "data ({'x': 1, 'y': 2})"),
        (["a", "b"], "no", "data ('no')"),
    ):
        with pytest.raises(minibert.MinibertError, match=re.escape(message)):
            index.add_vectors(np.ones((len(texts), 3)), texts, data)
    with pytest.raises(minibert.MinibertError, match=re.escape(r"data of text 0 ('\ud800')")):
        index.add_vectors(np.ones((1, 3)), ["a"], ["\ud800"])
    assert len(index) == 1


CRASHES = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from minibert.pretrained.source import Source
from minibert.search import index as module
from minibert.vectors.recipe import Recipe

module.fingerprint = lambda bert: "of numbers"
maker = SimpleNamespace(edits=[], source=Source("numbers"), recipe=Recipe(similarity="dot"), dimension=4)
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="os.fork")
def test_a_crash_at_any_operation_on_files_leaves_an_index_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, str(tmp_path / "some.index")], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 8  # it died so often, each time one operation later


# Numbers


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1.0, float("nan"), 0.0], "vectors (nan at [0, 1])"),
        ([1.0, 0.0, float("inf")], "vectors (inf at [0, 2])"),
        ([1e300, 0.0, 0.0], "vectors (1e+300 at [0, 0])"),
        ([1j, 0.0, 0.0], "vectors (complex128)"),
        (["a", "b", "c"], "vectors (<U1)"),
        ([None, {}, 1], "vectors (object)"),
        ([1.0, 2.0], "vectors (1, 2) must be ("),
        (1.0, "vectors (1,) must be ("),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_only_finite_vectors_are_added_and_searched(kind: str, vector: Any, message: str) -> None:
    index = of_vectors(np.ones((2, 3), dtype=np.float32), kind)
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        index.add_vectors([vector], ["a"])
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        index.search_vectors([vector])
    assert len(index) == 2


def test_vectors_of_different_lengths_are_refused() -> None:
    index = of_vectors(np.ones((2, 3), dtype=np.float32))
    for ragged in ([[1.0, 2.0, 3.0], [1.0]], [torch.ones(3), torch.ones(2)]):
        with pytest.raises(ValueError, match="vectors must be of one length; they are not: pass an array"):
            index.add_vectors(ragged, ["a", "b"])


@pytest.mark.parametrize("scale", [1e-45, 1e-30, 1e-13, 1e19, 3e38])
def test_cosine_takes_numbers_of_any_size(scale: float) -> None:
    rng = np.random.default_rng(0)
    directions = rng.integers(-1, 2, (50, 16))
    vectors = (directions * np.float64(scale)).astype(np.float32)
    expected = brute_force(directions, directions[:7], "cosine", 5)
    index = of_vectors(vectors, "cosine")
    for queries in (vectors[:7], directions[:7]):
        scores, numbers = index.search_vectors(queries, 5)
        assert (numbers[:, 0] == np.arange(7)).all()
        np.testing.assert_allclose(scores, expected[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("kind", ["dot", "euclidean", "manhattan"])
def test_vectors_too_long_to_compare_are_refused(kind: str) -> None:
    index = of_vectors(np.ones((2, 3), dtype=np.float32), kind)
    message = f"the length of a vector (3e+38) must be less than 4.61e+18 where the similarity is {kind!r}; divide"
    with pytest.raises(ValueError, match=re.escape(message)):
        index.add_vectors([[3e38, 0, 0]], ["a"])
    with pytest.raises(ValueError, match=re.escape(message)):
        index.search_vectors([[3e38, 0, 0]])
    vectors = np.array([[2e18, 0, 0], [-2e18, 3e18, 0], [1, 2, 3]], dtype=np.float32)
    for one in (1.0, vectors[0, 0]):  # the longest that are taken still give finite scores in the right order
        scores, numbers = of_vectors(vectors, kind).search_vectors(vectors[:1] * one / vectors[0, 0], 3)
        expected = brute_force(vectors, vectors[:1] * one / vectors[0, 0], kind, 3)
        np.testing.assert_allclose(scores, expected[0], rtol=1e-6)
        assert np.array_equal(numbers, expected[1])


def test_vectors_of_zeros_score_zero_by_cosine() -> None:
    index = of_vectors(np.array([[0, 0, 0], [1, 2, 2]], dtype=np.float32), "cosine")
    scores, numbers = index.search_vectors([[1, 2, 2], [0, 0, 0]])
    assert numbers.tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(scores, [[1, 0], [0, 0]], atol=1e-6)


def test_any_real_array_is_taken() -> None:
    vectors = np.random.default_rng(0).standard_normal((9, 4), dtype=np.float32)
    index = of_vectors(vectors)
    expected = index.search_vectors(vectors, 3)
    assert np.array_equal(of_vectors(index.vectors).vectors, vectors)  # read-only
    for same in (vectors[::-1][::-1], vectors.astype(">f8"), torch.tensor(vectors, requires_grad=True), list(vectors)):
        found = index.search_vectors(same, 3)
        assert np.array_equal(found[0], expected[0])
        assert np.array_equal(found[1], expected[1])
    index = of_vectors(vectors[:0])
    block = vectors.copy()
    index.add_vectors(block, ["a"] * 9)
    block[:] = 0  # the caller's array stays the caller's
    assert np.array_equal(index.vectors, vectors)


# Files with wrong numbers


def saved(folder: Path, kind: str = "cosine") -> tuple[Any, Path]:
    """What makes vectors, and the file of 50 of them."""
    index = of_vectors(np.random.default_rng(0).standard_normal((50, 4), dtype=np.float32), kind)
    index.save(folder)
    return index.bert, folder / read_manifest(folder)["files"]["vectors"]["name"]


@pytest.mark.parametrize(
    ("kind", "value", "rule"),
    [
        ("cosine", np.nan, "(length nan) must be of length 1 or 0; rebuild the index"),
        ("cosine", np.inf, "(length inf) must be of length 1 or 0"),
        ("cosine", 7.0, "must be of length 1 or 0"),
        ("dot", np.nan, "(length nan) must be finite and shorter than 4.61e+18; rebuild the index"),
        ("euclidean", -np.inf, "(length inf) must be finite and shorter than 4.61e+18"),
        ("manhattan", 3e38, "(length inf) must be finite and shorter than 4.61e+18"),
    ],
)
@pytest.mark.parametrize("place", [0, 33, 49])
def test_wrong_numbers_in_a_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, value: float, rule: str, place: int
) -> None:
    monkeypatch.setattr(module, "BLOCK", 20)
    monkeypatch.setattr(module, "WIDER", 0)
    bert, path = saved(tmp_path, kind)
    numbers = np.memmap(path, "<f4", "r+", offset=path.stat().st_size - 50 * 4 * 4, shape=(50, 4))
    numbers[place, 2] = value
    numbers.flush()
    with pytest.raises(minibert.MinibertError, match=re.escape(f"vector {place} of {path} ") + ".*" + re.escape(rule)):
        Index.load(tmp_path, bert)


def test_zeros_in_a_file_are_taken(tmp_path: Path) -> None:
    index = of_vectors(np.zeros((3, 4), dtype=np.float32), "cosine")
    index.save(tmp_path)
    assert len(Index.load(tmp_path, index.bert)) == 3


@pytest.mark.parametrize(
    "tensors",
    [
        {"vectors": np.zeros((25, 8), np.float32)},
        {"vectors": np.zeros((200,), np.float32)},
        {"vectors": np.zeros((25, 4), np.float64)},
        {"vectors": np.zeros((50, 4), np.int32)},
        {"others": np.zeros((50, 4), np.float32)},
    ],
)
def test_misshapen_vectors_in_a_file_are_refused(tmp_path: Path, tensors: dict[str, Any]) -> None:
    bert, path = saved(tmp_path)
    save_file(tensors, path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["files"]["vectors"]["bytes"] = path.stat().st_size
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    message = (
        f"the vectors of the index ({tmp_path}, ["
        if "vectors" in tensors
        else f"{path} must be a safetensors file with"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        Index.load(tmp_path, bert)
    path.write_bytes(b"\xff" * manifest["files"]["vectors"]["bytes"])
    with pytest.raises(ValueError, match=re.escape(f"{path} must be a safetensors file with vectors (")):
        Index.load(tmp_path, bert)


@pytest.mark.parametrize(
    "change",
    [
        {"texts": float("nan")},
        {"texts": "50"},
        {"files": {"texts": {"name": "texts-01234567.jsonl", "bytes": 3}}},
        {"files": {kind: {"name": "../secret", "bytes": 3} for kind in ("vectors", "texts")}},
        {"files": {kind: {"name": "texts-01234567.jsonl", "bytes": float("nan")} for kind in ("vectors", "texts")}},
    ],
)
def test_a_manifest_with_wrong_values_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    bert, _ = saved(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(ValueError, match="must be valid; rebuild the index"):
        Index.load(tmp_path, bert)


# Several threads


class Counting:
    """Makes vectors of the numbers in texts, at once, so that threads meet in the index and not in a model."""

    edits = ()
    source, recipe, dimension, encoder, tokenizer = (
        minibert.Source("numbers"),
        Recipe(),
        8,
        torch.nn.Identity(),
        TOKENIZER,
    )

    def encode_document(self, texts: list[str], **settings: Any) -> np.ndarray:
        return np.stack([np.random.default_rng(int(text.split()[-1])).standard_normal(8) for text in texts])

    encode_query = encode_document


@pytest.fixture
def _threads_switch_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def added_by_threads(index: Index, look: Callable[[], None], threads: int = 8, calls: int = 24) -> list[str]:
    """Have threads add 5 texts a call while two more look at the index; all texts, in the order of their numbers."""
    numbers = np.arange(threads * calls * 5).reshape(threads, calls, 5)
    done = Event()

    def add(mine: np.ndarray) -> None:
        for few in mine.tolist():
            index.add([f"text {number}" for number in few], [{"number": number} for number in few])

    def read() -> None:
        while not done.is_set():
            look()
        look()

    with ThreadPoolExecutor(threads + 2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        adders = [pool.submit(add, mine) for mine in numbers]
        wait(adders)
        done.set()
        for future in (*adders, *readers):
            future.result()
    return [f"text {number}" for number in numbers.ravel()]


@pytest.mark.usefixtures("_threads_switch_often")
def test_threads_that_add_lose_nothing(tmp_path: Path) -> None:
    maker: Any = Counting()
    index = Index(maker)

    def look() -> None:
        length, texts, vectors = len(index), index.texts, index.vectors
        assert length <= len(texts) <= len(vectors)
        assert len(vectors) % 5 == 0  # what is added in one call is there or not
        for hit in index.search("query 3", 4):
            assert hit.text == f"text {hit.data['number']}"
            assert index[hit.number] == (hit.text, hit.data)
            alone = minibert.similarity(maker.encode_query(["query 3"]), maker.encode_document([hit.text]))
            assert hit.score == pytest.approx(float(alone), abs=1e-6)  # the text is the one that was scored

    texts = added_by_threads(index, look)
    assert len(index) == len(texts) == 960
    assert sorted(index.texts) == sorted(texts)
    for start in range(0, 960, 5):  # the texts of one call lie together, in their order
        first = int(index[start][0].split()[1])
        assert [index[start + n] for n in range(5)] == [(f"text {first + n}", {"number": first + n}) for n in range(5)]
    expected = of_vectors(maker.encode_document(index.texts), "cosine").vectors
    assert np.array_equal(index.vectors, expected)
    for text, hits in zip(texts, index.search(texts, 2), strict=True):
        assert (hits[0].text, hits[0].score) == (text, pytest.approx(1, abs=1e-6))
        assert hits[1].score < 0.999999
    index.save(tmp_path)
    assert Index.load(tmp_path, maker).texts == index.texts


@pytest.mark.usefixtures("_threads_switch_often")
def test_threads_may_save_while_others_add(tmp_path: Path) -> None:
    maker: Any = Counting()
    index = Index(maker)

    def look() -> None:
        index.save(tmp_path)
        found = Index.load(tmp_path, maker)
        assert len(found) % 5 == 0
        assert np.array_equal(found.vectors, of_vectors(np.empty((0, 8)), "cosine").vectors) or np.array_equal(
            found.vectors, of_vectors(maker.encode_document(found.texts), "cosine").vectors
        )

    texts = added_by_threads(index, look, threads=4, calls=10)
    assert sorted(Index.load(tmp_path, maker).texts) == sorted(texts)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("_threads_switch_often")
def test_threads_add_with_a_real_model(minilm: Path) -> None:
    bert = minibert.load(minilm)
    index = Index(bert)
    texts = added_by_threads(index, lambda: index.search("text 7", 3) and None)
    assert sorted(index.texts) == sorted(texts)
    for text, hits in zip(texts, index.search(texts, 1), strict=True):
        assert (hits[0].text, hits[0].data) == (text, {"number": int(text.split()[1])})
        assert hits[0].score == pytest.approx(1, abs=1e-5)


def test_approximate_search_is_of_the_moment_when_it_was_made() -> None:
    pytest.importorskip("usearch", reason="usearch is not installed")
    maker: Any = Counting()
    index = Index(maker)
    empty = index.approximate()
    index.add([f"text {number}" for number in range(40)])
    approximate = index.approximate()
    added_by_threads(index, lambda: approximate.search("query 3", 5) and None)
    assert empty.search("query 3") == []
    exact = Index(maker)
    exact.add([f"text {number}" for number in range(40)])
    found = approximate.search("query 3", 40)
    assert sorted(hit.number for hit in found) == list(range(40))
    assert [hit[1:] for hit in found[:5]] == [hit[1:] for hit in exact.search("query 3", 5)]


def test_an_index_can_be_copied_and_pickled(tmp_path: Path) -> None:
    maker: Any = Counting()
    index = Index(maker)
    index.add(["text 1", "text 2"])
    index.save(tmp_path)
    for one in (index, Index.load(tmp_path, maker)):
        for again in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
            again.add(["text 3"])
            assert again.texts == ["text 1", "text 2", "text 3"]
            assert one.texts == ["text 1", "text 2"]
            assert again.search("query 3", 1)[0].text == "text 3"


# Several processes


SHARED = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np, torch
from minibert.pretrained.source import Source
from minibert.search.index import Index
from minibert.vectors.recipe import Recipe

tokenizer = SimpleNamespace(vocab={}, do_lower_case=True, special_tokens=[])
maker = SimpleNamespace(
    edits=[],
    source=Source("numbers"), recipe=Recipe(similarity="dot"), dimension=4, encoder=torch.nn.Identity(),
    tokenizer=tokenizer,
)
folder, done = Path(sys.argv[1]), Path(sys.argv[2])

def save(first):
    for count in range(first, first + 40, 2):
        index = Index(maker)
        index.add_vectors(np.full((count, 4), count), [str(count)] * count)
        index.save(folder)

def whole():
    found = Index.load(folder, maker)
    assert found.texts == [str(len(found))] * len(found)
    assert (found.vectors == len(found)).all()
    return len(found)

def read():
    seen = set()
    while not done.exists():
        seen.add(whole())
    assert len(seen) > 1, seen

def started(work, *arguments):
    process = os.fork()
    if process == 0:
        try:
            work(*arguments)
        except BaseException as error:
            print(work.__name__, repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return process

save(1)
readers = [started(read), started(read)]
savers = [started(save, 100), started(save, 201)]
failed = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in savers]
done.touch()
failed += [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in readers]
assert whole() in (138, 239)
assert len(list(folder.iterdir())) == 3, list(folder.iterdir())
print(failed)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="os.fork")
def test_processes_that_save_to_one_folder_take_turns_and_readers_see_whole_states(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "some.index"), str(tmp_path / "done")]
    done = subprocess.run([sys.executable, "-c", SHARED, *arguments], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[0, 0, 0, 0]", done.stderr


def test_a_reader_whose_files_are_gone_reads_the_new_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bert, _ = saved(tmp_path, "dot")
    saves = iter([60, 70, 80])

    def then_saved(folder: Path) -> dict[str, Any]:
        manifest = read_manifest(folder)
        for count in islice(saves, 1):
            index = Index(bert)
            index.add_vectors(np.ones((count, 4)), ["a"] * count)
            index.save(folder)
        return manifest

    monkeypatch.setattr(module, "read_manifest", then_saved)
    assert len(Index.load(tmp_path, bert)) == 80


def test_files_that_are_gone_for_good_are_told(tmp_path: Path) -> None:
    bert, path = saved(tmp_path)
    path.unlink()
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("{", '{"note": NaN,', 1))  # unequal to itself, but no other
    with pytest.raises(ValueError, match=r"vectors-\w{8}\.safetensors of the index .*, 0 bytes\) must have"):
        Index.load(tmp_path, bert)


def test_a_lock_left_behind_does_not_stop_a_save(tmp_path: Path) -> None:
    (tmp_path / module.LOCK).touch()
    saved(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


FORKS = """
import os, sys
import numpy as np, torch
from types import SimpleNamespace
from minibert.pretrained.source import Source
from minibert.search.index import Index
from minibert.vectors.recipe import Recipe

tokenizer = SimpleNamespace(vocab={}, do_lower_case=True, special_tokens=[])
maker = SimpleNamespace(
    edits=[],
    source=Source("numbers"), recipe=Recipe(), dimension=64, encoder=torch.nn.Identity(), tokenizer=tokenizer
)
if sys.argv[2] == "save":
    index = Index(maker)
    index.add_vectors(np.random.default_rng(0).standard_normal((30_000, 64)), map(str, range(30_000)))
    index.save(sys.argv[1])
else:
    threads = len(os.listdir("/proc/self/task"))
    Index.load(sys.argv[1], maker)
    print(len(os.listdir("/proc/self/task")) - threads)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_loading_an_index_starts_no_threads(tmp_path: Path) -> None:
    def run(what: str) -> str:
        environment = {**os.environ, "OMP_NUM_THREADS": "4"}
        command = [sys.executable, "-c", FORKS, str(tmp_path / "some.index"), what]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()

    run("save")
    assert run("load") == "0"  # a process can be forked after that


def test_a_file_that_cannot_be_deleted_yet_is_deleted_later(tmp_path: Path) -> None:
    bert, old = saved(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        unlink = Path.unlink

        def refuses(path: Path, missing_ok: bool = False) -> None:
            if path == old:  # as Windows does while somebody has the file mapped
                raise PermissionError(path)
            unlink(path, missing_ok)

        patch.setattr(Path, "unlink", refuses)
        Index.load(tmp_path, bert).save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    again = Index.load(tmp_path, bert)
    again.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    assert not old.exists()
