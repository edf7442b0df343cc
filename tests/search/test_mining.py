"""Pairs and groups beside those of sentence-transformers, and in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import util

import minibert
from minibert.errors import MinibertError
from minibert.search.mining import community_detection, paraphrase_mining

Made = Callable[[Any], minibert.Index]


@pytest.fixture(scope="module")
def index_of(bert: minibert.Bert) -> Made:
    """An index of vectors under numbered texts."""

    def made(vectors: Any) -> minibert.Index:
        index = minibert.Index(bert)
        index.add_vectors(vectors, [f"text {i}" for i in range(len(vectors))], list(range(len(vectors))))
        return index

    return made


@pytest.fixture(scope="module")
def clustered() -> np.ndarray[Any, Any]:
    """700 vectors around 40 centres, some of them equal."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, 384))
    vectors = centres[random.integers(0, 40, 700)] + random.normal(size=(700, 384)) * random.uniform(0.1, 0.9, (700, 1))
    vectors[100:104] = vectors[0]
    return vectors.astype(np.float32)


def same_pairs(ours: list[minibert.Pair], theirs: list[list[Any]]) -> None:
    """The same pairs and scores; where scores are equal but for rounding, their order may differ."""
    assert len(ours) == len(theirs)
    np.testing.assert_allclose([pair.score for pair in ours], [score for score, *_ in theirs], atol=2e-6)
    last = theirs[-1][0]
    sure = {(i, j) for score, i, j in theirs if score > last + 1e-5}
    assert sure <= {pair.numbers for pair in ours}


@pytest.mark.parametrize(("top_k", "max_pairs"), [(100, 500_000), (3, 500_000), (100, 50), (1, 7), (800, 10_000)])
def test_pairs_are_those_of_sentence_transformers(
    top_k: int, max_pairs: int, index_of: Made, clustered: np.ndarray[Any, Any]
) -> None:
    ours = paraphrase_mining(index_of(clustered), top_k=top_k, max_pairs=max_pairs)
    theirs = util.paraphrase_mining_embeddings(torch.from_numpy(clustered), top_k=top_k, max_pairs=max_pairs)
    if top_k == 800:
        same_pairs(ours, theirs)
    else:  # equal vectors tie for the few places
        np.testing.assert_allclose([p.score for p in ours[:100]], [p[0] for p in theirs[:100]], atol=2e-6)
    assert all(first < second for *_, (first, second) in ours)
    assert ours[0].first == f"text {ours[0].numbers[0]}"
    assert len({pair.numbers for pair in ours}) == len(ours)
    scores = [pair.score for pair in ours]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("threshold", [0.5, 0.75, 0.9, 1.0])
@pytest.mark.parametrize("size", [1, 2, 10])
def test_groups_are_those_of_sentence_transformers(
    threshold: float, size: int, index_of: Made, clustered: np.ndarray[Any, Any]
) -> None:
    ours = community_detection(index_of(clustered), threshold, size)
    theirs = util.community_detection(torch.from_numpy(clustered), threshold, size)
    if threshold < 1:  # at 1, rounding decides in theirs
        assert [sorted(hit.number for hit in group) for group in ours] == [sorted(group) for group in theirs]
        assert [group[0].number for group in ours] == [group[0] for group in theirs]
    for group in ours:
        assert group[0].score == pytest.approx(1, abs=1e-6)
        assert all(hit.score >= threshold - 1e-6 for hit in group)
        assert [hit.score for hit in group[1:]] == sorted((hit.score for hit in group[1:]), reverse=True)
        assert all(hit.data == hit.number for hit in group)
    numbers = [hit.number for group in ours for hit in group]
    assert len(numbers) == len(set(numbers))
    if size == 1:
        [equal] = [group for group in ours if 0 in {hit.number for hit in group}]
        assert {100, 101, 102, 103} <= {hit.number for hit in equal}


@pytest.mark.slow
def test_ten_thousand_sentences_give_what_sentence_transformers_gives(bert: minibert.Bert, evaldata: Path) -> None:
    texts: dict[str, None] = {}
    for name in ("sts-train.csv", "sts-dev.csv", "sts-test.csv"):
        for line in (evaldata / "stsb" / name).read_text(encoding="utf-8").splitlines():
            texts |= dict.fromkeys(line.split("\t")[5:7])
    sentences = list(texts)[:10_000]
    assert len(sentences) == 10_000
    index = minibert.Index(bert)
    index.add(sentences)
    vectors = torch.from_numpy(index.vectors.copy())
    ours = paraphrase_mining(index, top_k=20, max_pairs=20_000)
    same_pairs(ours, util.paraphrase_mining_embeddings(vectors, top_k=20, max_pairs=20_000))
    groups = community_detection(index, 0.8, 5)
    theirs = util.community_detection(vectors, 0.8, 5)
    assert [group[0].number for group in groups] == [group[0] for group in theirs]
    assert [sorted(hit.number for hit in group) for group in groups] == [sorted(group) for group in theirs]
    assert groups[0][0].text == sentences[groups[0][0].number]


GROWTH = """
import sys
import numpy as np
import torch
import minibert
from pathlib import Path

torch.set_num_threads(1)
bert = minibert.load(sys.argv[1])
vectors = np.random.default_rng(0).normal(size=(7_000, 384)).astype(np.float32)
vectors[3_000:] = vectors[:1]  # 4,000 equal ones, all of them at the threshold
index = minibert.Index(bert)
index.add_vectors(vectors, [""] * len(vectors))
minibert.community_detection(index, 0.999, 8_000)  # what torch sets up
before = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])
Path("/proc/self/clear_refs").write_text("5")
if sys.argv[2] == "pairs":
    minibert.paraphrase_mining(index, top_k=10, max_pairs=1_000)
else:
    assert len(minibert.community_detection(index, 1.0, 2)[0]) == 4_001
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print((peak - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("what", ["pairs", "groups"])
def test_memory_does_not_grow_with_the_square_of_the_texts(what: str, minilm: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(minilm), what], capture_output=True, text=True, check=True, timeout=300
    )
    assert float(done.stdout) < 7_000 * 7_000 * 4 / 2**20 / 2  # MB: half of one matrix of all scores


def test_equal_vectors_are_a_group_at_a_threshold_of_one(index_of: Made) -> None:
    vectors = np.random.default_rng(1).normal(size=(300, 384)).astype(np.float32)
    groups = community_detection(index_of(np.concatenate([vectors, vectors])), 1.0, 2)
    assert sorted(sorted(hit.number for hit in group) for group in groups) == [[i, i + 300] for i in range(300)]


def test_small_indexes_have_few_pairs_and_groups(index_of: Made) -> None:
    assert paraphrase_mining(index_of(np.empty((0, 384), np.float32))) == []
    assert community_detection(index_of(np.empty((0, 384), np.float32))) == []
    one = index_of(np.ones((1, 384), np.float32))
    assert paraphrase_mining(one) == []
    [[hit]] = community_detection(one, 0.5, 1)
    assert hit.number == 0
    pair = paraphrase_mining(index_of(np.ones((2, 384), np.float32)))
    assert [(p.numbers, p.first, p.second) for p in pair] == [((0, 1), "text 0", "text 1")]


def test_wrong_settings_get_one_sentence(index_of: Made, bert: minibert.Bert) -> None:
    index = index_of(np.eye(3, 384, dtype=np.float32))
    for wrong in ({"top_k": 0}, {"max_pairs": 0}):
        with pytest.raises(MinibertError, match=f"{next(iter(wrong))} .* must be"):
            paraphrase_mining(index, **wrong)
    with pytest.raises(MinibertError, match=r"threshold \(0\) must be above 0"):
        community_detection(index, 0)
    with pytest.raises(MinibertError, match="min_community_size"):
        community_detection(index, 0.5, 0)
