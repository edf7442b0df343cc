"""The quality of the vectors on four public data sets: ours, sentence-transformers' and the published figures.

    python benchmarks/quality.py --data DIR [--model FOLDER|NAME] [--published NAME] [--dtype float32|bfloat16|auto]
        [--save NAME]

DIR contains stsb/, banking77/, stackfaq/ and coarsewsd20/ as published. Both libraries run in the same process with the
same evaluation, so any difference is due to the vectors. The published figures are for all-MiniLM-L6-v2, and for
bert-base-uncased with mean pooling on STS-B.
"""

from __future__ import annotations

import argparse
import csv
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray

import minibert

Vectors = NDArray[np.float32]
Encode = Callable[[list[str]], Vectors]
WordsOf = Callable[
    [list[list[str]], list[int]], Vectors
]  # sentences as lists of words, and the index of a word in each
PUBLISHED = {
    "all-MiniLM-L6-v2": {  # MTEB for STS-B and Banking77; the others were measured with sentence-transformers
        "STS-B test, Spearman x 100": 82.03,
        "STS-B dev, Spearman x 100": 86.72,
        "Banking77, logistic regression, accuracy": 90.8,
        "Banking77, 1 nearest neighbour, accuracy": 92.05,
        "StackFAQ, hit@1": 94.48,
        "StackFAQ, MRR@10": 96.91,
        "CoarseWSD-20 bank, class centroids, accuracy": 98.7,
        "CoarseWSD-20 seal, class centroids, accuracy": 92.6,
    },
    "bert-base-uncased": {"STS-B test, Spearman x 100": 47.29},  # mean pooling
}
COLUMNS = {
    "task": ("task", ""),
    "ours": ("minibert", ".2f"),
    "theirs": ("sentence-transformers", ".2f"),
    "published": ("published", ".2f"),
}


def stsb(folder: Path, part: str, encode: Encode) -> float:
    """Spearman's correlation of cosines with human scores."""
    from scipy.stats import spearmanr

    rows = [line.split("\t") for line in (folder / f"sts-{part}.csv").read_text(encoding="utf-8").splitlines()]
    vectors = unit(encode([row[column] for column in (5, 6) for row in rows]))
    cosine = (vectors[: len(rows)] * vectors[len(rows) :]).sum(1)
    return 100 * float(spearmanr(cosine, [float(row[4]) for row in rows]).statistic)


def unit(vectors: Vectors) -> Vectors:
    """Vectors of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def banking(folder: Path, encode: Encode) -> Iterator[tuple[str, float]]:
    """Customers' questions with 77 intents: a linear classifier on the vectors, and the nearest neighbour."""
    from sklearn.linear_model import LogisticRegression

    parts = {}
    for name in ("train", "test"):
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        parts[name] = unit(encode([row["text"] for row in rows])), np.array([row["category"] for row in rows])
    (x, y), (test_x, test_y) = parts["train"], parts["test"]
    linear = LogisticRegression(max_iter=100).fit(x, y)  # as in MTEB
    yield "Banking77, logistic regression, accuracy", 100 * float(linear.score(test_x, test_y))
    nearest = y[(test_x @ x.T).argmax(1)]
    yield "Banking77, 1 nearest neighbour, accuracy", 100 * float((nearest == test_y).mean())


def stackfaq(folder: Path, encode: Encode) -> Iterator[tuple[str, float]]:
    """Paraphrased questions, matched to the answered questions."""
    asked, answered, gold = faq_questions(folder)
    scores = unit(encode(asked)) @ unit(encode(answered)).T
    place = (scores > scores[np.arange(len(asked)), gold][:, None]).sum(1)
    yield "StackFAQ, hit@1", 100 * float((place == 0).mean())
    yield "StackFAQ, MRR@10", 100 * float(np.where(place < 10, 1 / (place + 1), 0).mean())


def faq_questions(folder: Path) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """Users' questions, answered questions, and for each of the former the index of its match in the latter."""
    threads = json.loads((folder / "stackExchange-FAQ.json").read_text(encoding="utf-8"))["root"]["qapair"]
    pairs = [
        (wording, number)
        for number, thread in enumerate(threads)
        for wording in thread["rephr"]
        if isinstance(wording, str) and wording.strip(" *")  # some lines have an asterisk instead of a question
    ]
    asked, gold = zip(*pairs, strict=True)
    return list(asked), [thread["question"] for thread in threads], np.array(gold)


def coarse_wsd(folder: Path, words: WordsOf) -> float:
    """Classify by the nearest class centroid: the mean of a sense's word vectors in the training sentences."""
    parts = {}
    for name in ("train", "test"):
        lines = (folder / f"{name}.data.txt").read_text(encoding="utf-8").splitlines()
        gold = np.array((folder / f"{name}.gold.txt").read_text().split(), dtype=int)
        places, sentences = zip(*(line.split("\t") for line in lines), strict=True)
        parts[name] = unit(words([sentence.split(" ") for sentence in sentences], [int(p) for p in places])), gold
    (x, y), (test_x, test_y) = parts["train"], parts["test"]
    centroids = unit(np.stack([x[y == sense].mean(0) for sense in range(y.max() + 1)]))
    return 100 * float(((test_x @ centroids.T).argmax(1) == test_y).mean())


def our_words(bert: minibert.Bert) -> WordsOf:
    """The vectors of one word of each sentence."""

    def of(sentences: list[list[str]], places: list[int]) -> Vectors:
        found = bert.words(sentences, truncation="window")
        return np.stack([one.vectors[place] for one, place in zip(found, places, strict=True)])

    return of


def their_words(model: Any) -> WordsOf:
    """The same with sentence-transformers, which gives token vectors; finding those of the word is up to the user."""

    def of(sentences: list[list[str]], places: list[int]) -> Vectors:
        texts = [" ".join(sentence) for sentence in sentences]
        states = model.encode(texts, output_value="token_embeddings")
        vectors = []
        for sentence, place, text, state in zip(sentences, places, texts, states, strict=True):
            start = len(" ".join(sentence[:place])) + (place > 0)
            offsets = model.tokenizer(text, return_offsets_mapping=True, truncation=True)["offset_mapping"]
            own = [i for i, (a, b) in enumerate(offsets) if start <= a < b <= start + len(sentence[place])]
            vectors.append(state[own].float().mean(0).cpu().numpy())
        return np.stack(vectors)

    return of


def evaluate(folder: Path, encode: Encode, words: WordsOf) -> dict[str, float]:
    """All figures of one library."""
    figures = {f"STS-B {part}, Spearman x 100": stsb(folder / "stsb", part, encode) for part in ("test", "dev")}
    figures |= dict(banking(folder / "banking77", encode))
    figures |= dict(stackfaq(folder / "stackfaq", encode))
    for word in ("bank", "seal"):
        name = f"CoarseWSD-20 {word}, class centroids, accuracy"
        figures[name] = coarse_wsd(folder / "coarsewsd20" / word, words)
    return figures


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="default: %(default)s")
    parser.add_argument("--published", choices=PUBLISHED, help="model of the published figures (default: --model)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "auto"), default="float32", help="dtype of minibert")
    measure.add_output(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # both truncate texts over the limit
    if not options.data.is_dir():
        measure.stop(f"--data ({options.data}) must be a folder; there is none of that name")
    from sentence_transformers import SentenceTransformer

    dtype: Any = "auto" if options.dtype == "auto" else measure.DTYPES[options.dtype]
    with measure.told():
        bert = minibert.load(options.model, dtype=dtype)
    theirs = SentenceTransformer(options.model, device="cpu")
    ours = evaluate(options.data, bert.encode, our_words(bert))
    other = evaluate(options.data, theirs.encode, their_words(theirs))
    published = PUBLISHED.get(options.published or Path(options.model).name, {})
    rows = [
        {"task": task, "ours": figure, "theirs": other[task], "published": published.get(task)}
        for task, figure in ours.items()
    ]
    print(f"{bert}\n{measure.machine_line()}\n")
    print(measure.table(rows, COLUMNS))
    measure.write_json(options, rows=rows)


if __name__ == "__main__":
    main()
