"""Labels are those of transformers' pipeline, on random weights in real shapes and on a head that is trained here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from oracle import TINY, rewrite, with_real_vocabulary

import minibert
from minibert import Label, MinibertError

TEXTS = [
    "How do I reset my password?",
    "They fished from the bank of the river until the sun went down. " * 60,
    "",
    "Zürich, 北京 and São Paulo: 3 cities! 👍",
    "ok",
]
PAIRS = [
    "Use the link in the mail.",
    "The water was cold. " * 100,
    "An answer.",
    "3.",
    "no",
]  # an empty second text is none to the pipeline
MINILM_SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
KIND = "BertForSequenceClassification"
HEADS: dict[str, dict[str, Any]] = {
    "several": {"num_labels": 5},
    "said to be one of several": {"num_labels": 3, "problem_type": "single_label_classification"},
    "multi label": {"num_labels": 4, "problem_type": "multi_label_classification"},
    "one output": {"num_labels": 1},
    "regression": {"num_labels": 1, "problem_type": "regression"},
    "several regressions": {"num_labels": 2, "problem_type": "regression"},
}


def classifier(folder: Path, minilm: Path, **config: Any) -> minibert.Bert:
    return minibert.load(with_real_vocabulary(folder, minilm, KIND, **config))


def theirs_of(folder: Path) -> Any:
    return transformers.pipeline("text-classification", str(folder), device="cpu")


def assert_same_labels(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs)
    for labels, expected in zip(ours, theirs, strict=True):
        assert [label.label for label in labels] == [label["label"] for label in expected]
        np.testing.assert_allclose([x.score for x in labels], [x["score"] for x in expected], rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*exceed 512 tokens")
@pytest.mark.parametrize("head", HEADS.values(), ids=list(HEADS))
@pytest.mark.parametrize("shape", [TINY, pytest.param(MINILM_SHAPE, marks=pytest.mark.slow)], ids=["tiny", "minilm"])
def test_labels_and_scores_are_those_of_the_pipeline(
    tmp_path: Path, minilm: Path, head: dict[str, Any], shape: dict[str, Any]
) -> None:
    names = {i: f"name {i}" for i in range(head["num_labels"])}
    size = {**shape, "vocab_size": 30522, "initializer_range": 0.2 if shape is TINY else 0.05}
    bert = classifier(tmp_path, minilm, **size, **head, id2label=names)
    theirs = theirs_of(tmp_path)
    for pair in (None, PAIRS):
        given = TEXTS if pair is None else [{"text": a, "text_pair": b} for a, b in zip(TEXTS, PAIRS, strict=True)]
        expected = theirs(given, top_k=None, truncation=True, max_length=512)
        assert_same_labels(bert.classify(TEXTS, pair), expected)
        assert_same_labels(bert.classify(TEXTS, pair, batch_size=1), expected)
        assert_same_labels(
            bert.classify(TEXTS, pair, top_k=2), theirs(given, top_k=2, truncation=True, max_length=512, batch_size=5)
        )


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> minibert.Bert:
    """A random classifier of three labels."""
    torch.manual_seed(1)
    return classifier(tmp_path_factory.mktemp("classifier"), minilm, id2label={0: "good", 1: "bad", 2: "so so"})


def test_one_text_has_its_labels_and_several_texts_a_list_of_them(bert: minibert.Bert) -> None:
    one = bert.classify(TEXTS[0])
    assert {label.label for label in one} == {"good", "bad", "so so"}
    assert bert.classify([TEXTS[0]]) == [one]
    assert bert.classify([]) == []
    np.testing.assert_allclose(
        [label.score for label in bert.classify(text for text in TEXTS[2:])[0]],
        [label.score for label in bert.classify("")],
        atol=1e-6,
    )
    assert bert.classify(TEXTS[0], PAIRS[0]) == bert.classify([TEXTS[0]], [PAIRS[0]])[0]


def test_a_stream_is_read_as_it_is_needed(bert: minibert.Bert, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minibert.engine.stream.CHUNK_TEXTS", 2)
    read = []

    def stream() -> Any:
        for text in ["a", "b", "c", 4]:
            read.append(text)
            yield text

    with pytest.raises(MinibertError, match="text 3 "):
        bert.classify(stream())
    assert read == ["a", "b", "c", 4]
    assert len(bert.classify(iter("abcde"))) == 5


def test_a_threshold_leaves_out_lower_scores(bert: minibert.Bert) -> None:
    labels = bert.classify("ok")
    middle = labels[1].score
    assert bert.classify("ok", threshold=middle) == labels[:2]
    assert bert.classify("ok", threshold=middle, top_k=1) == labels[:1]
    assert bert.classify("ok", threshold=1.1) == ()


def test_scores_of_all_labels_are_an_array_in_the_order_of_the_configuration(bert: minibert.Bert) -> None:
    scores = bert.label_scores(TEXTS[2:])
    assert scores.shape == (3, 3)
    assert scores.dtype == np.float32
    for row, labels in zip(scores, bert.classify(TEXTS[2:]), strict=True):
        assert {label.label: label.score for label in labels} == dict(
            zip(["good", "bad", "so so"], row.tolist(), strict=True)
        )
    assert bert.label_scores("ok").shape == (3,)
    assert bert.label_scores([]).shape == (0, 3)


def test_a_label_prints_short_and_is_a_row_of_a_table() -> None:
    assert repr((Label("good", 0.98765432),)) == "(Label('good', 0.9877),)"
    assert Label("good", 0.5)._asdict() == {"label": "good", "score": 0.5}


def test_a_long_text_is_truncated_with_a_warning_or_rejected(bert: minibert.Bert) -> None:
    long = "river " * 600
    with pytest.warns(UserWarning, match=re.escape("1 of 2 texts exceed 512 tokens: 90 tokens were dropped")):
        bert.classify(["ok", long])
    with pytest.warns(UserWarning, match=re.escape("1 of 1 text exceed 512 tokens: 92 tokens were dropped")):
        bert.classify(long, "a")
    with pytest.raises(MinibertError, match="text 1 has 602 tokens, but must have at most 512"):
        bert.classify(["ok", long], truncation="error")
    with pytest.raises(MinibertError, match="truncation"):
        bert.classify("ok", truncation="window")  # type: ignore[call-overload]


def test_texts_and_pairs_must_match(bert: minibert.Bert) -> None:
    for texts, pair in (["ok", ["a"]], [["ok"], "a"], [["ok"], ["a", "b"]], [["a", "b"], ["a"]]):
        with pytest.raises(MinibertError, match=r"pair|texts"):
            bert.classify(texts, pair)  # type: ignore[call-overload]


@pytest.mark.parametrize("settings", [{"top_k": 0}, {"threshold": "high"}, {"threshold": True}, {"batch_size": 0}])
def test_settings_that_make_no_sense_are_rejected(bert: minibert.Bert, settings: dict[str, Any]) -> None:
    with pytest.raises(MinibertError, match=next(iter(settings))):
        bert.classify("ok", **settings)


def test_a_model_in_training_mode_classifies_without_dropout(tmp_path: Path, minilm: Path) -> None:
    bert = classifier(tmp_path, minilm, classifier_dropout=0.9)
    expected = bert.classify("ok")
    bert.model.train()
    assert bert.classify("ok") == expected
    assert bert.model.training
    assert bert.model.get_submodule("classifier.dropout").training


def test_another_head_on_the_same_model_is_seen(tmp_path: Path, minilm: Path) -> None:
    bert = classifier(tmp_path, minilm, num_labels=2)
    with torch.no_grad():
        bert.model.get_submodule("classifier").weight.zero_()  # type: ignore[operator, union-attr]
        bert.model.get_submodule("classifier").bias.copy_(torch.tensor([0.0, np.log(3)]))  # type: ignore[operator, union-attr]
    assert [round(label.score, 6) for label in bert.classify("ok")] == [0.75, 0.25]


def test_a_pair_needs_a_second_token_type(tmp_path: Path, minilm: Path) -> None:
    bert = classifier(tmp_path, minilm, type_vocab_size=1)
    bert.classify("ok")
    with pytest.raises(MinibertError, match=re.escape("type_vocab_size (1)")):
        bert.classify("ok", "no")


@pytest.mark.parametrize(
    ("kind", "can"),
    [
        ("BertModel", "encode, words"),
        ("BertForMaskedLM", "encode, words, fill_mask"),
        ("BertForTokenClassification", "encode, words, entities"),
        ("BertForQuestionAnswering", "encode, words, answer"),
    ],
)
def test_a_checkpoint_without_a_classifier_says_what_it_is_and_what_it_can_do(
    tmp_path: Path, minilm: Path, kind: str, can: str
) -> None:
    bert = minibert.load(with_real_vocabulary(tmp_path, minilm, kind))
    for call in (bert.classify, bert.label_scores, lambda text: bert.score([(text, text)])):
        with pytest.raises(MinibertError, match=rf"\({kind}\) must be .*; it can {can}: load"):
            call("ok")


@pytest.mark.slow
def test_a_head_trained_on_real_vectors_predicts_what_the_pipeline_predicts(
    tmp_path: Path, minilm: Path, evaldata: Path
) -> None:
    """TREC's questions: a head on the pooler of all-MiniLM-L6-v2, trained here, saved by transformers."""

    def questions(name: str) -> tuple[list[str], list[str]]:
        lines = (evaldata / "trec" / name).read_text(encoding="latin-1").splitlines()
        kinds, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
        return [kind.partition(":")[0] for kind in kinds], list(texts)

    kinds, texts = (half[::3] for half in questions("train_5500.label"))
    names = sorted(set(kinds))
    theirs = transformers.BertForSequenceClassification.from_pretrained(
        minilm, num_labels=len(names), id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}
    ).eval()
    plain = minibert.load(minilm)
    plain.recipe = minibert.Recipe()  # the first tokens as they are, not divided by their lengths
    vectors = torch.from_numpy(plain.encode(texts, pooling="cls"))
    labels = torch.tensor([names.index(kind) for kind in kinds])
    head = torch.nn.Sequential(theirs.bert.pooler.dense, torch.nn.Tanh(), theirs.classifier)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(vectors), labels).backward()
        optimizer.step()
    theirs.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(minilm).save_pretrained(tmp_path)

    kinds, texts = questions("TREC_10.label")
    ours = minibert.load(tmp_path).classify(texts)
    expected = theirs_of(tmp_path)(texts, top_k=1)
    assert [labels[0].label for labels in ours] == [label["label"] for [label] in expected]
    scores = [label["score"] for [label] in expected]  # logits of a trained head are tens, so 1e-6 of them is 1e-5
    np.testing.assert_allclose([labels[0].score for labels in ours], scores, rtol=0, atol=1e-4)
    # always the most frequent label would be right for 28 %
    right = np.mean([labels[0].label == kind for labels, kind in zip(ours, kinds, strict=True)])
    assert right > 0.6, f"{right:.1%} of the questions have their label"


@pytest.mark.parametrize(
    ("kind", "config", "what"),
    [
        ("BertForSequenceClassification", {}, "a classifier or a reranker"),
        ("BertForTokenClassification", {}, "a tagger"),
        ("BertForQuestionAnswering", {}, "a reader"),
        ("BertModel", {"architectures": ["HF_ColBERT"]}, "a ColBERT"),
        ("BertForMaskedLM", {"architectures": ["SpladeModel"]}, "a SPLADE"),
    ],
)
def test_sentence_vectors_that_nobody_trained_are_told_once(
    tmp_path: Path, minilm: Path, kind: str, config: dict[str, Any], what: str
) -> None:
    with_real_vocabulary(tmp_path / "old", minilm, kind)
    fields = json.loads((tmp_path / "old" / "config.json").read_text())
    (tmp_path / "old" / "config.json").write_text(json.dumps({**fields, **config}))
    bert = minibert.load(tmp_path / "old")
    bert.words("ok")
    bert.encode("ok", pooling="mean")
    with pytest.warns(UserWarning, match=f"old is {what}.* nobody trained"):
        bert.encode("ok")
    bert.encode("ok")
    bert.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new" / "modules.json").exists()


def test_a_lone_projection_is_that_of_a_colbert(tmp_path: Path, minilm: Path) -> None:
    with_real_vocabulary(tmp_path, minilm, "BertModel")
    rewrite(tmp_path, lambda tensors: {**tensors, "linear.weight": torch.ones(8, 32)})
    with pytest.warns(UserWarning, match="is a ColBERT"):
        minibert.load(tmp_path).encode("ok")


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "BertForPreTraining"])
def test_plain_checkpoints_are_encoded_by_their_mean_without_a_word(tmp_path: Path, minilm: Path, kind: str) -> None:
    minibert.load(with_real_vocabulary(tmp_path, minilm, kind)).encode("ok")
