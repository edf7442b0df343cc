"""Search among a million vectors, beside sentence-transformers.

    python benchmarks/search.py [--count 1000000] [--queries 100] [--top-k 10] [--rounds 5] [--save NAME]

All subjects get the same array of random unit vectors and take turns (A B A B). `semantic_search` runs with its
defaults, which normalize the vectors each time, and with `dot_score`, which does not, since an index already stores
unit vectors. Memory is the peak growth of the resident memory (VmHWM) while a subject runs. The hits are compared: a
rank with different texts counts as the same only if the scores agree to 1e-6.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import measure as shared
import numpy as np
import torch
from numpy.typing import NDArray

from minibert.search.index import Index
from minibert.vectors.recipe import Recipe

OURS = "minibert Index.search_vectors"


def unit_vectors(count: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """(count, dimension) float32 unit vectors, uniformly distributed over all directions."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def index_of(vectors: NDArray[np.float32]) -> Index:
    """An index of given vectors, without a model."""
    maker: Any = SimpleNamespace(source="random numbers", recipe=Recipe(), dimension=vectors.shape[1])
    index = Index(maker)
    index.add_vectors(vectors, map(str, range(len(vectors))))
    return index


def subjects(vectors: NDArray[np.float32], queries: NDArray[np.float32], top_k: int) -> dict[str, Callable[[], Any]]:
    """The subjects by name; each returns scores and numbers, (Q, k)."""
    from sentence_transformers.util import cos_sim, dot_score, semantic_search

    index = index_of(vectors)
    corpus, asked = torch.from_numpy(vectors), torch.from_numpy(queries)

    def theirs(compare: Callable[..., Any]) -> Any:
        found = semantic_search(asked, corpus, top_k=top_k, score_function=compare)
        rows = [[(hit["score"], hit["corpus_id"]) for hit in hits] for hits in found]
        return tuple(np.array(part) for part in zip(*(zip(*row, strict=True) for row in rows), strict=True))

    return {
        OURS: lambda: index.search_vectors(queries, top_k),
        "semantic_search": lambda: theirs(cos_sim),
        "semantic_search, dot_score": lambda: theirs(dot_score),
    }


def same_hits(found: Any, expected: Any) -> float:
    """The fraction of ranks with the same text, or with an equal score."""
    scores = np.abs(found[0] - expected[0]) < 1e-6
    return float(((found[1] == expected[1]) | scores).mean())


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="vectors (default: 1,000,000)")
    parser.add_argument("--dimension", type=int, default=384, help="numbers of a vector (default: 384)")
    parser.add_argument("--queries", type=int, default=100, help="queries (default: 100)")
    parser.add_argument("--top-k", type=int, default=10, help="hits of a query (default: 10)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each subject (default: 5)")
    shared.add_output(parser)
    options = parser.parse_args()
    for name in ("count", "dimension", "queries", "top_k", "rounds"):
        if getattr(options, name) < 1:
            shared.stop(f"--{name.replace('_', '-')} ({getattr(options, name)}) must be at least 1")

    runs = subjects(
        unit_vectors(options.count, options.dimension, seed=0),
        unit_vectors(options.queries, options.dimension, seed=1),
        options.top_k,
    )
    expected = runs["semantic_search"]()
    same = {name: same_hits(run(), expected) for name, run in runs.items()}
    memory = {name: shared.growth(run) for name, run in runs.items()}
    seconds = shared.alternate(runs, options.rounds, warm_up=False)  # each has already run twice
    ours = statistics.median(seconds[OURS])
    rows = [
        {
            "subject": name,
            "seconds": statistics.median(measured),
            "fastest": min(measured),
            "times": statistics.median(measured) / ours,
            "megabytes": None if memory[name] is None else memory[name] / 1e6,  # type: ignore[operator]
            "same": same[name],
        }
        for name, measured in seconds.items()
    ]
    print(f"{shared.machine_line()}\n")
    print(
        f"{options.count:,} x {options.dimension} float32, {options.queries} queries, top {options.top_k}, "
        f"median of {options.rounds}\n"
    )
    columns = {
        "subject": ("", ""),
        "seconds": ("seconds", ".3f"),
        "fastest": ("fastest", ".3f"),
        "times": ("of minibert's time", ".2f"),
        "megabytes": ("memory at most (MB)", ",.0f"),
        "same": ("same hits", ".2%"),
    }
    print(shared.table(rows, columns))
    shared.write_json(options, subjects=rows)


if __name__ == "__main__":
    main()
