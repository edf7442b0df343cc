"""Fine-tuning end to end: what comes out is what was measured, loads elsewhere with the same outputs, and is better."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import finetune_worker
import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import InferenceClient, ModelCard
from oracle import with_real_vocabulary
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
from sentence_transformers.sentence_transformer.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
)

import minibert
from minibert.errors import MinibertError
from minibert.pretrained.source import Source
from minibert.training.card import card
from minibert.training.data import Data, read_conll
from minibert.training.finetune import INSTEAD, divided, read_rows
from minibert.training.log import RunningMean
from minibert.training.loop import DivergenceError
from minibert.training.order import Epochs
from minibert.training.run import folder_of
from minibert.training.tasks import as_bio

TEXTS = ["Who wrote Hamlet?", "Where is Rome?", "When did he die?", "Who was it?", "Where are they?", "When is it?"]
CLASSIFY = [{"text": text, "label": text.split()[0].lower()} for text in TEXTS]
TOKENS = [{"words": ["Anna", "saw", "New", "York", "."], "labels": ["B-PER", "O", "B-LOC", "I-LOC", "O"]}] * 3
PAIRS = [{"sentence1": a, "sentence2": b, "score": i} for i, (a, b) in enumerate(pairwise(TEXTS))]
POSITIVES = [{"anchor": a, "positive": b + " Yes."} for a, b in zip(TEXTS, TEXTS, strict=True)]
RANK = [{"query": a, "passage": b, "label": float(a == b)} for a in TEXTS for b in TEXTS[:3]]
QA = [
    {"question": "Where?", "context": "Anna lives in Rome.", "answers": [{"text": "Rome", "answer_start": 14}]},
    {"question": "Who?", "context": "Anna lives in Rome.", "answers": [{"text": "Anna", "answer_start": 0}]},
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "classify": CLASSIFY,
    "tokens": TOKENS,
    "similarity": PAIRS,
    "pairs": POSITIVES,
    "rank": RANK,
    "qa": QA,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> minibert.Bert:
    """A small random model with a real vocabulary, without dropout, so that a few rows are learned by heart."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return minibert.load(with_real_vocabulary(tmp_path_factory.mktemp("tiny"), minilm, "BertModel", **still))


@pytest.mark.parametrize("task", ROWS)
def test_a_run_returns_the_model_of_its_folder_and_what_it_was_measured_with(
    task: str, tiny: minibert.Bert, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    rows = ROWS[task]
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "warmup": 0.0}
    run = tiny.finetune(rows, task=task, dev=rows, output=tmp_path / "run", **settings)
    again = minibert.load(tmp_path / "run")
    assert run.metrics == again.evaluate(rows, task=task) == run.model.evaluate(rows, task=task)
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.model.state_dict().items())
    state = again.encoder.state_dict()
    name = "encoder.layers.0.attention.query.weight"
    assert not torch.equal(state[name], tiny.encoder.state_dict()[name])
    assert again.max_seq_length == tiny.max_seq_length


def test_labels_are_named_in_the_answers_of_the_model(tiny: minibert.Bert, tmp_path: Path) -> None:
    run = tiny.finetune(CLASSIFY, task="classify", output=tmp_path / "run", epochs=60, batch_size=6, learning_rate=3e-3)
    assert run.metrics == {}
    assert [labels[0].label for labels in run.model.classify(TEXTS)] == [row["label"] for row in CLASSIFY]


def test_several_labels_and_numbers_are_learned(tiny: minibert.Bert, tmp_path: Path) -> None:
    several = [{"text": text, "label": ["long"] * (len(text) > 14) + ["who"] * ("Who" in text)} for text in TEXTS]
    settings: dict[str, Any] = {"task": "classify", "epochs": 80, "batch_size": 6, "learning_rate": 3e-3}
    run = tiny.finetune(several, output=tmp_path / "several", **settings)
    assert run.model.evaluate(several, task="classify")["accuracy"] == 1
    numbers = [{"text": text, "label": len(text) / 10} for text in TEXTS]
    run = tiny.finetune(numbers, output=tmp_path / "numbers", **settings)
    assert run.model.evaluate(numbers, task="classify")["pearson"] > 0.9
    ((label,),) = run.model.classify([TEXTS[0]])
    assert label.label == "label"
    assert abs(label.score - 1.7) < 0.6


def test_the_best_model_is_kept_and_not_the_last(tiny: minibert.Bert, tmp_path: Path) -> None:
    # the labels of dev are those of train, exchanged: what is learned makes it worse
    other = {"who": "when", "when": "who", "where": "where"}
    dev = [{**row, "label": other[row["label"]]} for row in CLASSIFY]
    settings: dict[str, Any] = {"task": "classify", "batch_size": 2, "learning_rate": 3e-3, "epochs": 20}
    run = tiny.finetune(CLASSIFY, dev=dev, output=tmp_path / "run", **settings)
    seen = [row["accuracy"] for row in run.history.evaluations]
    assert seen[-1] < max(seen)
    assert run.metrics["accuracy"] == max(seen) == run.model.evaluate(dev, task="classify")["accuracy"]
    run = tiny.finetune(CLASSIFY, dev=dev, output=tmp_path / "patient", patience=2, **settings)
    assert len(run.history.evaluations) == int(np.argmax(seen)) + 3 < 20


def test_training_on_the_rows_that_occur_decays_the_others_as_training_on_all_would(
    tiny: minibert.Bert, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"learning_rate": 1e-2, "weight_decay": 0.5, "warmup": 0.0, "epochs": 3, "batch_size": 2}
    run = tiny.finetune(CLASSIFY, task="classify", output=tmp_path / "run", **settings)
    unused = tiny.tokenizer.convert_tokens_to_ids("zebra")
    left = 1.0
    for number in range(9):
        left *= 1 - 1e-2 * (9 - number) / 9 * 0.5
    expected = tiny.encoder.embeddings.token.weight[unused] * left
    torch.testing.assert_close(run.model.encoder.embeddings.token.weight[unused], expected)


def test_a_head_for_the_same_labels_is_trained_on(tiny: minibert.Bert, tmp_path: Path) -> None:
    run = tiny.finetune(CLASSIFY, task="classify", output=tmp_path / "one", epochs=60, batch_size=6, learning_rate=3e-3)
    again = run.model.finetune(CLASSIFY, task="classify", output=tmp_path / "two", epochs=1, learning_rate=1e-9)
    np.testing.assert_allclose(again.model.label_scores(TEXTS), run.model.label_scores(TEXTS), atol=1e-4)
    fewer = run.model.finetune(CLASSIFY[:2], task="classify", output=tmp_path / "three", epochs=1)
    assert fewer.model.config.id2label == {0: "where", 1: "who"}


def test_the_seed_decides_everything(tiny: minibert.Bert, tmp_path: Path) -> None:
    def losses(name: str, seed: int) -> list[float]:
        torch.manual_seed(len(name))
        run = tiny.finetune(CLASSIFY, task="classify", output=tmp_path / name, epochs=2, batch_size=2, seed=seed)
        return [step.loss for step in run.history.steps]

    assert losses("a", 1) == losses("bb", 1) != losses("c", 2)


def test_rows_that_share_texts_make_no_more_steps(tiny: minibert.Bert, tmp_path: Path) -> None:
    rows = [{"anchor": f"question {i}", "positive": "shared" if i % 5 == 0 else f"answer {i}"} for i in range(200)]
    run = tiny.finetune(rows, task="pairs", output=tmp_path, epochs=2, batch_size=32)
    assert len(run.history.steps) == 2 * 7
    assert all(step.loss > 0 for step in run.history.steps)


def test_a_run_says_what_it_learns_and_measures_each_epoch(
    tiny: minibert.Bert, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {"task": "classify", "epochs": 2, "batch_size": 4, "show_progress_bar": True}
    run = tiny.finetune(CLASSIFY, dev=CLASSIFY, output=tmp_path / "run", **settings)
    told = capsys.readouterr().err
    assert f"{len(CLASSIFY)} rows, 3 labels: " in told
    assert f"; {len(run.history.steps)} steps\n" in told
    first, second = run.history.evaluations
    assert f"epoch 1 of 2: accuracy {first['accuracy']:.4f}, macro_f1 {first['macro_f1']:.4f} (the best so far)" in told
    assert f"epoch 2 of 2: accuracy {second['accuracy']:.4f}" in told
    assert "seconds a step, loss" in told
    assert (tmp_path / "run" / "training" / "curve.png").stat().st_size > 1000
    tiny.finetune(CLASSIFY, output=tmp_path / "quiet", **{**settings, "show_progress_bar": False})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [*INSTEAD, "no_such_thing"])
def test_the_names_of_other_libraries_are_answered_with_ours(name: str, tiny: minibert.Bert, tmp_path: Path) -> None:
    with pytest.raises(TypeError) as told:
        tiny.finetune(CLASSIFY, task="classify", output=tmp_path / "run", **{name: 1})  # type: ignore[misc]
    hint = f"; use {INSTEAD[name]}" if name in INSTEAD else ""
    assert str(told.value) == f"finetune() got an unexpected keyword argument {name!r}{hint}"
    assert not (tmp_path / "run").exists()


def test_the_running_mean_of_few_losses_is_their_weighted_mean() -> None:
    mean = RunningMean()
    found = [mean.add(loss) for loss in (10.0, 6.0, 2.0)]
    expected = [np.average(range(10, 0, -4)[:n], weights=0.95 ** np.arange(n)[::-1]) for n in (1, 2, 3)]
    assert found == pytest.approx(expected)


def test_a_part_of_train_is_held_out(tiny: minibert.Bert, tmp_path: Path) -> None:
    rows = [{"text": f"{kind} {n}", "label": kind} for n in range(10) for kind in ("good", "bad")]
    data = read_rows("train", rows, "classify", None)
    train, dev = divided(data, 0.2, seed=1)
    assert (len(train.rows), len(dev.rows)) == (16, 4)
    assert sorted(row.place for row in (*train.rows, *dev.rows)) == sorted(row.place for row in data.rows)
    assert divided(data, 0.2, seed=1)[1] == dev != divided(data, 0.2, seed=2)[1]
    run = tiny.finetune(rows, task="classify", dev=0.2, output=tmp_path, epochs=1, batch_size=4)
    assert len(run.history.steps) == 4
    assert list(run.metrics) == ["accuracy", "macro_f1"]
    with pytest.raises(MinibertError, match="other settings"):
        tiny.finetune(rows, task="classify", dev=0.3, output=tmp_path, epochs=1, batch_size=4)
    for part in (0.0, 1.0, 1e-9, -0.5, math.nan):
        with pytest.raises(MinibertError, match=r"dev \(.*\) must be rows, or a part of the 20 rows of train"):
            tiny.finetune(rows, task="classify", dev=part, output=tmp_path / "other")


def test_labels_may_be_those_of_dev_alone_and_in_any_order(tiny: minibert.Bert, tmp_path: Path) -> None:
    train = [row for row in CLASSIFY if row["label"] != CLASSIFY[0]["label"]]
    labels = sorted({row["label"] for row in CLASSIFY}, reverse=True)
    settings: dict[str, Any] = {"task": "classify", "epochs": 1}
    with pytest.raises(MinibertError, match="must be one of the 2 that are learned"):
        tiny.finetune(train, dev=CLASSIFY, output=tmp_path / "run", **settings)
    run = tiny.finetune(train, dev=CLASSIFY, labels=labels, output=tmp_path / "run", **settings)
    assert run.model.config.id2label == dict(enumerate(labels))
    for wrong in (labels[:1], [*labels, labels[0]], [*labels, ""]):
        with pytest.raises(MinibertError, match=r"must be all labels, each once; they (lack|have an empty one)"):
            tiny.finetune(CLASSIFY, labels=wrong, output=tmp_path / "wrong", **settings)
    with pytest.raises(MinibertError, match="must be left out for this task; its labels have no names"):
        tiny.finetune(PAIRS, task="similarity", labels=labels, output=tmp_path / "wrong")


def test_other_data_are_told_without_digests(tiny: minibert.Bert, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"task": "classify", "output": tmp_path, "epochs": 1}
    tiny.finetune(CLASSIFY, **settings)
    with pytest.raises(MinibertError, match=r"other settings \(train: another one\); use the same"):
        tiny.finetune(CLASSIFY[::-1], **settings)


def test_one_step_trains(tiny: minibert.Bert, tmp_path: Path) -> None:
    run = tiny.finetune(CLASSIFY, task="classify", output=tmp_path, epochs=1, batch_size=1000)
    assert len(run.history.steps) == 1
    before, after = (bert.layers[0].feed_forward.up.weight for bert in (tiny, run.model))
    assert not torch.equal(before, after)


class Killed(BaseException):
    """What stands for the death of the process: nothing catches it."""


@pytest.mark.parametrize("task", ["classify", "pairs"])
def test_the_same_call_again_resumes_and_ends_with_the_same_bytes(
    task: str, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert = minibert.load(with_real_vocabulary(tmp_path / "model", minilm, "BertModel"))  # with dropout
    rows = ROWS[task]
    settings: dict[str, Any] = {"dev": rows, "epochs": 4, "batch_size": 2, "learning_rate": 1e-3, "save_every": 2}
    whole = bert.finetune(rows, task=task, output=tmp_path / "whole", **settings)
    original = Epochs.__call__

    def dying(self: Any, number: int) -> Any:
        if number == 7:
            raise Killed
        return original(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(Epochs, "__call__", dying)
        with pytest.raises(Killed):
            bert.finetune(rows, task=task, output=tmp_path / "killed", **settings)
    assert not (tmp_path / "killed" / "config.json").exists()
    resumed = bert.finetune(rows, task=task, output=tmp_path / "killed", **settings)
    names = ("model.safetensors", "training/losses.csv", "training/metrics.csv")
    expected = [(tmp_path / "whole" / name).read_bytes() for name in names]
    assert [(tmp_path / "killed" / name).read_bytes() for name in names] == expected
    with monkeypatch.context() as patched:
        patched.setattr(Epochs, "__call__", dying)
        patched.setattr("minibert.training.loop.gradients", dying)  # of a finished run, no step is repeated
        again = bert.finetune(rows, task=task, output=tmp_path / "killed", **settings)
    assert again.metrics == resumed.metrics == whole.metrics
    assert again.history == resumed.history
    assert [(tmp_path / "killed" / name).read_bytes() for name in names] == expected


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """What the files of a folder hold, and when they were written."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("name", ["README.md", "config.json", "training/losses.csv", "notes.txt"])
def test_a_folder_with_something_else_is_left_alone(name: str, tiny: minibert.Bert, tmp_path: Path) -> None:
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(MinibertError) as told:
        tiny.finetune(CLASSIFY, task="classify", output=tmp_path / "run", epochs=1)
    assert str(told.value) == (
        f"the output ({tmp_path / 'run'}) must be empty or hold a run of its own, but it holds {name}; choose another "
        "folder"
    )
    assert contents(tmp_path / "run").keys() == {name}
    assert path.read_text() == "mine"


def test_of_several_processes_the_first_one_checks_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "losses.csv").write_text("of the first process, which is further")
    monkeypatch.setattr("minibert.training.run.is_first", lambda: False)
    assert folder_of(tmp_path) == tmp_path
    monkeypatch.undo()
    with pytest.raises(MinibertError, match=r"must be empty or hold a run of its own"):
        folder_of(tmp_path)


def test_the_folder_of_the_base_model_is_left_alone(tiny: minibert.Bert, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "base")
    run = tiny.finetune(CLASSIFY, task="classify", output=tmp_path / "run", epochs=1)
    for folder, bert in ((tmp_path / "base", minibert.load(tmp_path / "base")), (tmp_path / "run", run.model)):
        before = contents(folder)
        with pytest.raises(MinibertError, match=r"must be empty or hold|has a run with other settings \(model"):
            bert.finetune(CLASSIFY, task="classify", output=folder, epochs=1)
        assert contents(folder) == before


def test_a_base_model_with_another_head_or_other_labels_is_another_run(tiny: minibert.Bert, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"task": "classify", "output": tmp_path / "run", "epochs": 1}
    base = tiny.finetune(CLASSIFY, task="classify", output=tmp_path / "base", epochs=1).model
    base.finetune(CLASSIFY, **settings)
    other = minibert.load(tmp_path / "base")
    head: Any = other.model
    with torch.no_grad():
        head.classifier.weight += 1
    with pytest.raises(MinibertError, match=r"other settings \(model\.head: "):
        other.finetune(CLASSIFY, **settings)
    other = minibert.load(tmp_path / "base")
    other.model.config = other.config.replace(id2label={0: "a", 1: "b", 2: "c"})
    with pytest.raises(MinibertError, match=r"other settings \(model\.config: "):
        other.finetune(CLASSIFY, **settings)


def test_of_a_finished_run_nothing_is_written_again(tiny: minibert.Bert, tmp_path: Path) -> None:
    folder, settings = tmp_path / "run", {"task": "classify", "dev": CLASSIFY, "epochs": 2}
    run = tiny.finetune(CLASSIFY, output=folder, **settings)
    (folder / "README.md").write_text("my own card")
    before = contents(folder)
    again = tiny.finetune(CLASSIFY, output=folder, **settings)
    assert (again.metrics, again.history) == (run.metrics, run.history)
    assert contents(folder) == before
    state = again.model.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in run.model.model.state_dict().items())

    changed = minibert.load(folder)
    with torch.no_grad():
        next(changed.model.parameters()).add_(1)
    changed.save_pretrained(folder)
    before = contents(folder)
    with pytest.warns(UserWarning, match=r"model\.safetensors was changed after the run had ended"):
        tiny.finetune(CLASSIFY, output=folder, **settings)
    assert contents(folder) == before

    (folder / "model.safetensors").unlink()
    again = tiny.finetune(CLASSIFY, output=folder, **settings)
    state = again.model.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in run.model.model.state_dict().items())
    assert (folder / "README.md").read_text() == "my own card"


@pytest.mark.parametrize("at", ["minibert.training.finetune.card", "minibert.training.finetune.finish"])
def test_a_run_killed_while_its_model_is_saved_is_completed(
    at: str, tiny: minibert.Bert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(at, dies)
        with pytest.raises(Killed):
            tiny.finetune(CLASSIFY, task="classify", output=tmp_path / "run", epochs=1)
    inner = tmp_path / "run" / "training"
    leftovers = [inner / name for name in (".metrics.csv.abcd_123", ".losses.csv.00000000", ".output.json.zzzzzzzz")]
    for path in leftovers:
        path.write_text("")
    (inner / ".mine.csv.abcd_123").write_text("")
    tiny.finetune(CLASSIFY, task="classify", output=tmp_path / "run", epochs=1)
    assert (tmp_path / "run" / "README.md").exists()
    assert not any(path.exists() for path in leftovers)
    assert (inner / ".mine.csv.abcd_123").exists()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classify", "pairs"])
def test_two_processes_fine_tune_like_one(task: str, tiny: minibert.Bert, tmp_path: Path) -> None:
    alone = tiny.finetune(ROWS[task], task=task, dev=ROWS[task], output=tmp_path / "one", **finetune_worker.SETTINGS)
    (tmp_path / "rows.json").write_text(json.dumps(ROWS[task]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    given = [str(tiny.source), task, str(tmp_path / "rows.json"), str(tmp_path / "two")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, finetune_worker.__file__, *given], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for process in ("0", "1"):
        assert json.loads((tmp_path / "two" / f"{process}.json").read_text()) == pytest.approx(alone.metrics, abs=1e-5)
    with (tmp_path / "two" / "training" / "losses.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses == pytest.approx([step.loss for step in alone.history.steps], abs=1e-5)


def test_a_folder_is_not_given_to_a_run_with_other_rows(tiny: minibert.Bert, tmp_path: Path) -> None:
    tiny.finetune(CLASSIFY, task="classify", output=tmp_path, epochs=1)
    with pytest.raises(MinibertError, match=r"has a run with other settings .*train: "):
        tiny.finetune(CLASSIFY[1:], task="classify", output=tmp_path, epochs=1)


def test_texts_of_a_step_that_diverges_are_named(tiny: minibert.Bert, tmp_path: Path) -> None:
    rows = [{"text": "short text", "label": 1.0}, {"text": "immeasurable depth", "label": 3e38}]
    with pytest.raises(DivergenceError, match=r"step 0 must be finite.*immeasurable depth"):
        tiny.finetune(rows, task="classify", output=tmp_path, epochs=1)


def theirs_scores(folder: Path, kind: str, *texts: Any, **settings: Any) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, kind).from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(*texts, return_tensors="pt", padding=True, **settings)), tokenizer


def finetuned(bert: minibert.Bert, task: str, folder: Path) -> minibert.Bert:
    made: minibert.Bert = bert.finetune(ROWS[task], task=task, output=folder, epochs=3, learning_rate=1e-3).model
    return made


def test_transformers_loads_a_classifier_with_the_same_outputs(tiny: minibert.Bert, tmp_path: Path) -> None:
    ours = finetuned(tiny, "classify", tmp_path)
    theirs, _ = theirs_scores(tmp_path, "AutoModelForSequenceClassification", TEXTS)
    np.testing.assert_allclose(ours.label_scores(TEXTS), theirs.logits.softmax(-1), atol=1e-5)
    labels = transformers.pipeline("text-classification", str(tmp_path), device="cpu")(TEXTS)
    assert [label["label"] for label in labels] == [labels[0].label for labels in ours.classify(TEXTS)]


def test_transformers_loads_a_tagger_with_the_same_outputs(tiny: minibert.Bert, tmp_path: Path) -> None:
    ours = finetuned(tiny, "tokens", tmp_path)
    text = "Anna saw New York ."
    theirs = transformers.pipeline("token-classification", str(tmp_path), device="cpu")(text)
    found = ours.entities(text, strategy="none")
    assert [(one["entity"], one["start"], one["end"]) for one in theirs] == [(e.label, e.start, e.end) for e in found]
    assert [e.score for e in found] == pytest.approx([float(one["score"]) for one in theirs], abs=1e-5)


@pytest.mark.parametrize("task", ["similarity", "pairs"])
def test_sentence_transformers_loads_vectors_with_the_same_numbers(
    task: str, tiny: minibert.Bert, tmp_path: Path
) -> None:
    ours = finetuned(tiny, task, tmp_path)
    theirs = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)
    assert theirs.max_seq_length == ours.max_seq_length


def test_cross_encoders_load_a_reranker_with_the_same_scores(tiny: minibert.Bert, tmp_path: Path) -> None:
    ours = finetuned(tiny, "rank", tmp_path)
    pairs = [(row["query"], row["passage"]) for row in RANK]
    theirs = CrossEncoder(str(tmp_path), device="cpu").predict(pairs)
    np.testing.assert_allclose(ours.score(pairs), theirs, atol=1e-5)


def test_transformers_loads_a_reader_with_the_same_outputs(tiny: minibert.Bert, tmp_path: Path) -> None:
    ours = finetuned(tiny, "qa", tmp_path)
    theirs, _ = theirs_scores(tmp_path, "AutoModelForQuestionAnswering", "Where?", QA[0]["context"])
    inputs = ours.tokenizer("Where?", QA[0]["context"])
    with torch.no_grad():
        found = ours.model(torch.tensor([inputs["input_ids"]]), None, torch.tensor([inputs["token_type_ids"]]))
    torch.testing.assert_close(found.start_logits, theirs.start_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.end_logits, theirs.end_logits, rtol=0, atol=1e-5)


def test_tags_are_measured_at_the_first_pieces_of_words(tiny: minibert.Bert, tmp_path: Path) -> None:
    ours = finetuned(tiny, "tokens", tmp_path)
    random = np.random.default_rng(0)
    sentences = [random.choice(["@paulwalk", "York", "'s", "Queensland", "unseen"], 9).tolist() for _ in range(20)]
    labels = [as_bio(random.choice(["B-PER", "O", "B-LOC", "I-LOC"], 9).tolist()) for _ in sentences]
    settings = {"is_split_into_words": True}
    theirs, tokenizer = theirs_scores(tmp_path, "AutoModelForTokenClassification", sentences, **settings)
    encoded = tokenizer(sentences, **settings)
    right = []
    for number, own in enumerate(labels):
        firsts = [encoded.word_ids(number).index(i) for i in range(9)]
        predicted = [ours.config.id2label[i] for i in theirs.logits[number, firsts].argmax(-1).tolist()]
        right += [one == other for one, other in zip(as_bio(predicted), own, strict=True)]
    rows = [{"words": words, "labels": own} for words, own in zip(sentences, labels, strict=True)]
    assert 0.1 < np.mean(right) < 0.9
    assert ours.evaluate(rows, task="tokens")["accuracy"] == pytest.approx(np.mean(right))


def test_metrics_are_those_of_sentence_transformers(tiny: minibert.Bert, tmp_path: Path) -> None:
    ours = finetuned(tiny, "similarity", tmp_path / "vectors")
    theirs = SentenceTransformer(str(tmp_path / "vectors"), device="cpu")
    columns = [[row[name] for row in PAIRS] for name in ("sentence1", "sentence2", "score")]
    expected = EmbeddingSimilarityEvaluator(*columns)(theirs)
    found = ours.evaluate(PAIRS, task="similarity")
    assert found == pytest.approx({name: expected[f"{name}_cosine"] for name in found}, abs=1e-5)

    texts = [f"Text {i} of {i * i}" for i in range(30)]
    rows = [{"anchor": f"{i % 20}?", "positive": texts[i]} for i in range(30)]
    queries = {f"q{i}": f"{i}?" for i in range(20)}
    right = {f"q{i}": {str(j) for j in (i, i + 20) if j < 30} for i in range(20)}
    corpus = {str(i): text for i, text in enumerate(texts)}
    asked = InformationRetrievalEvaluator(queries, corpus, right, mrr_at_k=[30], accuracy_at_k=[1, 10])(theirs)
    found = ours.evaluate(rows, task="pairs")
    assert 0.05 < found["mrr"] < 0.95
    for name, other in {"mrr": "mrr@30", "recall@1": "accuracy@1", "recall@10": "accuracy@10"}.items():
        assert found[name] == pytest.approx(asked[f"cosine_{other}"], abs=1e-6)

    ours = finetuned(tiny, "rank", tmp_path / "reranker")
    samples = [
        {"query": text, "positive": [text], "negative": [other for other in TEXTS[:3] if other != text]}
        for text in TEXTS[:3]
    ]
    reranked = CrossEncoderRerankingEvaluator(samples)(CrossEncoder(str(tmp_path / "reranker"), device="cpu"))
    found = ours.evaluate(RANK, task="rank")
    assert found == pytest.approx({"mrr": reranked["mrr@10"], "ndcg@10": reranked["ndcg@10"]}, abs=1e-6)


def test_a_limit_of_tokens_is_kept_by_all_who_load_the_model(tiny: minibert.Bert, tmp_path: Path) -> None:
    for task in ("classify", "similarity"):
        run = tiny.finetune(ROWS[task], task=task, output=tmp_path / task, epochs=1, max_length=10)
        assert run.model.max_seq_length == minibert.load(tmp_path / task).max_seq_length == 10
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "classify").model_max_length == 10
    assert tiny.max_seq_length == 512
    with pytest.raises(MinibertError, match=r"max_length \(600\) must be at most 512"):
        tiny.finetune(CLASSIFY, task="classify", output=tmp_path / "more", max_length=600)


def test_the_card_names_data_settings_and_metrics(tiny: minibert.Bert, tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in CLASSIFY))
    run = tiny.finetune(str(train), task="classify", dev=CLASSIFY[:4], output=tmp_path / "run", epochs=1, seed=7)
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.base_model is None  # a folder of this machine is none on the Hub
    for line in (
        f"| train | train.jsonl | 6 | {hashlib.sha256(train.read_bytes()).hexdigest()} |",
        "| dev | 4 rows | 4 |",
        "| seed | 7 |",
        f"| accuracy | {run.metrics['accuracy']:.4f} |",
        f"torch {torch.__version__}",
    ):
        assert line in card.content


@pytest.mark.parametrize("task", ROWS)
def test_cards_are_as_the_hub_reads_them(task: str) -> None:
    source = Source("google-bert/bert-base-uncased", "main", "f" * 40)
    written = ModelCard(card(source, task, [Data("train", "a|b.csv", "0", [])], {"epochs": 3}, {}))
    assert written.data.base_model == "google-bert/bert-base-uncased"
    assert written.data.tags == ["bert", "minibert"]
    tag = written.data.pipeline_tag
    assert tag == "text-ranking" or hasattr(InferenceClient, tag.replace("-", "_"))
    assert "| train | a\\|b.csv | 0 | 0 |" in written.content


def test_rows_that_are_too_long_are_told_once(tiny: minibert.Bert, tmp_path: Path) -> None:
    rows = [*CLASSIFY, {"text": "word " * 600, "label": "who"}]
    with pytest.warns(UserWarning, match="rows of .* exceed") as told:
        tiny.finetune(rows, task="classify", dev=rows, output=tmp_path, epochs=3)  # three evaluations
    assert [str(warning.message).partition(";")[0] for warning in told] == [
        f"1 of 7 rows of {name} exceed 512 tokens: 90 tokens were dropped" for name in ("train", "dev")
    ]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"dev": [{"text": "a", "label": "why"}]}, "dev, row 0, has the label 'why', which must be one of the 3"),
    ({"dev": [{"text": " ", "label": "who"}]}, "dev, row 0, must have a text"),
    ({"dev": []}, r"dev \(0 rows\) must have at least one row"),
    ({"task": "dance"}, r"task \('dance'\) must be 'classify', 'tokens', 'similarity', 'pairs', 'rank' or 'qa'"),
    ({"learning_rate": "5e-5"}, r"learning_rate \('5e-5'\) must be a number above 0"),
    ({"learning_rate": 10**400}, r"learning_rate \(1000"),
    ({"warmup": None}, r"warmup \(None\) must be a fraction"),
    ({"weight_decay": [0.1]}, r"weight_decay \(\[0.1\]\) must be a number"),
    ({"seed": 2**64}, r"seed \(18446744073709551616\) must be a whole number of at least 0, and less than"),
    ({"max_length": "many"}, r"max_length \('many'\) must be a whole number"),
    ({"columns": {"txt": "a"}}, r"column \('txt'\) must be 'text', 'text_pair' or 'label'"),
    ({"columns": {"label": "y"}}, "train, row 0, must have the column 'y'; it has 'text', 'label'"),
    ({"dtype": "float16"}, r"dtype \('float16'\) must be 'float32' or 'bfloat16'"),
    ({"learning_rate": -1}, r"learning_rate \(-1\) must be a number above 0"),
    ({"patience": 0, "dev": CLASSIFY}, r"patience \(0\) must be a whole number"),
    ({"patience": 2}, r"patience \(2\) must be given with dev"),
    ({"epochs": 0}, r"epochs \(0\) must be a whole number"),
    ({"batch_size": 1.5}, r"batch_size \(1.5\) must be a whole number"),
    ({"task": "similarity", "train": PAIRS, "loss": "l2"}, r"loss \('l2'\) must be 'cosent' or 'cosine'"),
    ({"task": "rank", "train": RANK, "dev": RANK[:1]}, "must have a query with passages that differ in relevance"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=range(len(WRONG)))
def test_what_cannot_be_trained_is_one_sentence(
    settings: dict[str, Any], message: str, tiny: minibert.Bert, tmp_path: Path
) -> None:
    given = {"train": CLASSIFY, "task": "classify", "output": tmp_path / "run", **settings}
    with pytest.raises(MinibertError, match=message):
        tiny.finetune(given.pop("train"), **given)
    assert not (tmp_path / "run").exists()  # before the first step


def test_evaluating_needs_a_model_for_the_task(tiny: minibert.Bert) -> None:
    with pytest.raises(
        MinibertError, match=r"\(BertModel\) must be a BertForTokenClassification for the task 'tokens'"
    ):
        tiny.evaluate(TOKENS, task="tokens")


# On real data, with the real model: a few steps, and the metric is far above what it was, or what guessing gives


def trec(folder: Path, name: str) -> Iterator[dict[str, str]]:
    for line in (folder / "trec" / name).read_text("latin-1").splitlines():
        label, text = line.split(" ", 1)
        yield {"text": text, "label": label.partition(":")[0]}


def sts(folder: Path, name: str) -> Iterator[dict[str, str]]:
    for line in (folder / "stsb" / name).read_text("utf-8").splitlines():
        columns = line.split("\t")
        yield {"sentence1": columns[5], "sentence2": columns[6], "score": columns[4]}


def questions(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each question, and how else it is asked."""
    content = json.loads((folder / "stackfaq" / "stackExchange-FAQ.json").read_text("utf-8"))
    for pair in content["root"]["qapair"]:
        yield pair["question"], [text for text in pair["rephr"] if isinstance(text, str) and text.strip(" *")]


@pytest.mark.slow
def test_types_of_questions_are_learned(bert: minibert.Bert, evaldata: Path, tmp_path: Path) -> None:
    train, dev = list(trec(evaldata, "train_5500.label"))[::6], list(trec(evaldata, "TREC_10.label"))[::2]
    run = bert.finetune(train, task="classify", dev=dev, output=tmp_path, epochs=1, learning_rate=2e-4)
    assert run.metrics["accuracy"] > 0.7  # the most frequent type is 0.28 of the rows


@pytest.mark.slow
def test_intents_are_learned_from_files_as_they_are_published(
    bert: minibert.Bert, evaldata: Path, tmp_path: Path
) -> None:
    kept = ("card_arrival", "exchange_rate", "age_limit", "top_up_failed")
    for name in ("train", "test"):
        lines = (evaldata / "banking77" / f"{name}.csv").read_text("utf-8").splitlines(keepends=True)
        own = [line for line in lines if line.strip().endswith((*kept, "category"))]
        (tmp_path / f"{name}.csv").write_text("".join(own))
    run = bert.finetune(
        tmp_path / "train.csv",
        task="classify",
        dev=tmp_path / "test.csv",
        columns={"label": "category"},
        output=tmp_path / "run",
        epochs=2,
        learning_rate=2e-4,
    )
    assert run.metrics["accuracy"] > 0.9


@pytest.mark.slow
def test_another_pooling_learns_similarity(bert: minibert.Bert, evaldata: Path, tmp_path: Path) -> None:
    train, dev = list(sts(evaldata, "sts-train.csv"))[::10], list(sts(evaldata, "sts-dev.csv"))[::8]
    other = minibert.Bert(bert.model, bert.tokenizer, replace(bert.recipe, pooling=("cls",)))
    run = other.finetune(train, task="similarity", dev=dev, output=tmp_path, epochs=1, learning_rate=1e-4)
    assert run.metrics["spearman"] > other.evaluate(dev, task="similarity")["spearman"] + 0.02


@pytest.mark.slow
def test_questions_find_those_that_mean_the_same(bert: minibert.Bert, evaldata: Path, tmp_path: Path) -> None:
    asked = list(questions(evaldata))
    train = [{"anchor": text, "positive": question} for question, others in asked for text in others[::3]]
    dev = [{"anchor": text, "positive": question} for question, others in asked for text in others[1::4]]
    run = bert.finetune(train, task="pairs", dev=dev, output=tmp_path, epochs=1)
    assert run.metrics["mrr"] > bert.evaluate(dev, task="pairs")["mrr"] + 0.01


@pytest.mark.slow
def test_relevance_is_learned(bert: minibert.Bert, evaldata: Path, tmp_path: Path) -> None:
    asked = list(questions(evaldata))

    def rows(which: slice) -> list[dict[str, Any]]:
        return [
            {"query": text, "passage": asked[(i + 37 * j) % len(asked)][0], "label": int(j == 0)}
            for i, (_, others) in enumerate(asked[:90])
            for text in others[which][:2]
            for j in range(3)
        ]

    train, dev = rows(slice(0, None, 2)), rows(slice(1, None, 2))[:360]
    run = bert.finetune(train, task="rank", dev=dev, output=tmp_path, epochs=1, learning_rate=3e-4)
    assert run.metrics["mrr"] > 0.75  # guessing gives 0.61


@pytest.mark.slow
def test_entities_of_tweets_are_learned(bert: minibert.Bert, evaldata: Path, tmp_path: Path) -> None:
    names = ("wnut17train.conll", "emerging.dev.conll")
    train, dev = ([row for _, row in read_conll(str(evaldata / "wnut17" / name))] for name in names)
    train, dev = ([row for row in rows if set(row["labels"]) != {"O"}] for rows in (train, dev))
    run = bert.finetune(train[:800], task="tokens", dev=dev[:120], output=tmp_path, epochs=1, learning_rate=5e-4)
    assert run.metrics["f1"] > 0.15  # guessing gives almost 0


@pytest.mark.slow
def test_answers_are_learned_by_heart(bert: minibert.Bert, evaldata: Path, tmp_path: Path) -> None:
    content = json.loads((evaldata / "qa" / "xquad.en.json").read_text("utf-8"))
    short = [part for article in content["data"] for part in article["paragraphs"] if len(part["context"]) < 350]
    file = tmp_path / "train.json"
    file.write_text(json.dumps({"data": [{"paragraphs": short}]}))
    settings: dict[str, Any] = {"epochs": 5, "batch_size": 8, "learning_rate": 5e-4}
    run = bert.finetune(file, task="qa", dev=file, output=tmp_path / "run", **settings)
    assert run.metrics["f1"] > 0.4  # a random head gives 0.1
