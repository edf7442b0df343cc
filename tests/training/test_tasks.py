"""What each task makes of its rows, and how it measures a model."""

from __future__ import annotations

import re
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest
import torch
import transformers
from oracle import with_real_vocabulary

import minibert
from minibert.errors import MinibertError
from minibert.training.data import Data
from minibert.training.finetune import read_rows
from minibert.training.objectives import Positives
from minibert.training.packed import Example
from minibert.training.tasks import TASKS, Answers, Classify, Compare, Rerank, Retrieve, Tag, as_bio


def classify_rows(*labels: Any) -> Data:
    return read_rows(
        "train", [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)], "classify", None
    )


@pytest.mark.parametrize(
    ("labels", "problem", "names"),
    [
        (["b", "a", "b"], "single_label_classification", ["a", "b"]),
        (["10", "9", "9"], "single_label_classification", ["9", "10"]),
        ([1, 0, 2], "single_label_classification", ["0", "1", "2"]),
        ([True, False], "single_label_classification", ["False", "True"]),
        (["1", "2.5"], "regression", ["label"]),
        ([1, 2.0], "regression", ["label"]),
        ([np.float32(1), np.int64(2)], "regression", ["label"]),
        ([np.int64(1), np.int64(2)], "single_label_classification", ["1", "2"]),
        ([["x", "y"], [], ["x"]], "multi_label_classification", ["x", "y"]),
        (['["x", "y"]', "[]"], "multi_label_classification", ["x", "y"]),
        (["nan", "n/a"], "single_label_classification", ["n/a", "nan"]),
        (["1_0", "2"], "single_label_classification", ["1_0", "2"]),
        (["inf", "1"], "single_label_classification", ["1", "inf"]),
        (["pos ", " pos", "neg"], "single_label_classification", ["neg", "pos"]),
        ([Decimal("1.5"), Decimal(2)], "regression", ["label"]),
        ([Decimal(1), Decimal(2)], "single_label_classification", ["1", "2"]),
        ([torch.tensor(1), torch.tensor(2)], "single_label_classification", ["1", "2"]),
        ([torch.tensor(1.5), np.array(2)], "regression", ["label"]),
        ([{"x", "y"}, frozenset("x")], "multi_label_classification", ["x", "y"]),
        ([("x", "y"), np.array(["x"])], "multi_label_classification", ["x", "y"]),
        ([[3, 17], [3]], "multi_label_classification", ["3", "17"]),
        ([[0], [1]], "multi_label_classification", ["0", "1"]),
        (["['x', 'y']", "['x']"], "multi_label_classification", ["x", "y"]),  # as DataFrame.to_csv writes lists
        (["[sic] one", "two"], "single_label_classification", ["[sic] one", "two"]),
    ],
)
def test_the_labels_decide_what_is_learned(labels: list[Any], problem: str, names: list[str]) -> None:
    task = Classify.learned(classify_rows(*labels))
    assert task.changes() == {"id2label": dict(enumerate(names)), "problem_type": problem}


def test_one_label_for_all_rows_is_too_few() -> None:
    with pytest.raises(MinibertError, match=r"the labels of 2 rows \(a\) must be at least two"):
        Classify.learned(classify_rows("a", "a"))


WRONG: list[tuple[list[Any], str]] = [
    ([1.5, "n/a", 2.5], r"train, row 1, must have a number as its label, like 2 other rows, not 'n/a' \(1 of 3 rows"),
    ([1.5, ["a"]], r"train, row 1, must have a number as its label, like 1 other row, not \['a'\]"),
    ([[1, 0, 1], [0, 0, 1]], r"train, row 0, must have a list of the names of its labels, not of zeros and ones"),
    ([np.array([1, 0]), np.array([0, 1])], "must have a list of the names of its labels"),
    (["[1, 0]", "[0, 1]"], "must have a list of the names of its labels"),
    ([[1.0, 0.5], [0.0, 0.1]], "row 0, must have a text, a number or a list of texts as its label"),
    ([[True, False], [True, True]], "row 0, must have a text, a number or a list of texts as its label"),
    ([[["a"]], ["b"]], "row 0, must have a text, a number or a list of texts as its label"),
    ([{"a": 1}, "b"], r"row 0, must have a text, a number or a list of texts as its label, not \{'a': 1\}"),
    ([b"a", "b"], "row 0, must have a text, a number or a list of texts as its label"),
    (["['a' 'b']", "['a']"], r"row 0, must have a list of labels with commas.* convert arrays with tolist\(\)"),
    (["a", "  ", "b"], "row 1, must have a label, not '  '"),
]


@pytest.mark.parametrize(("labels", "message"), WRONG, ids=range(len(WRONG)))
def test_labels_that_are_not_clear_are_refused_with_the_row(labels: list[Any], message: str) -> None:
    with pytest.raises(MinibertError, match=message):
        Classify.learned(classify_rows(*labels))


@pytest.mark.parametrize(
    ("task", "rows", "expected"),
    [
        (
            "classify",
            [{"text": "t", "label": label} for label in ("good", "bad", "good ")],
            "2 labels: bad (1), good (2)",
        ),
        ("classify", [{"text": "t", "label": label} for label in (0.5, 2.75)], "a number from 0.5 to 2.75"),
        (
            "classify",
            [{"text": "t", "label": label} for label in (["a"], ["a", "b"], [])],
            "any of 2 labels: a (2), b (1)",
        ),
        (
            "classify",
            [{"text": "t", "label": n} for n in range(12)],
            "12 labels: 0 (1), 1 (1), 2 (1), 3 (1), 4 (1), 5 (1), 6 (1), 7 (1), 8 (1), 9 (1), ...",
        ),
        ("tokens", [{"words": ["a", "b"], "labels": ["I-X", "O"]}], "2 labels: B-X (1), O (1)"),
        (
            "similarity",
            [{"sentence1": "a", "sentence2": "b", "score": s} for s in (0, 5)],
            "a number from 0 to 5",
        ),
        ("pairs", [{"anchor": f"{n}", "positive": "same"} for n in range(3)], "3 texts with 1 positive"),
        (
            "rank",
            [{"query": "q", "passage": f"{n}", "label": n} for n in range(2)],
            "1 query text, a number from 0 to 1",
        ),
        (
            "qa",
            [{"question": "q", "context": "c", "answers": own} for own in ([], [{"text": "c", "answer_start": 0}])],
            "2 questions, 1 of them with an answer",
        ),
    ],
)
def test_what_is_learned_is_told(task: str, rows: list[dict[str, Any]], expected: str) -> None:
    data = read_rows("train", rows, task, None)
    assert TASKS[task].learned(data).described(data) == expected


@pytest.mark.parametrize("label", [None, "", ["a"]])
def test_a_row_without_the_label_of_other_rows_is_named(label: Any) -> None:
    with pytest.raises(MinibertError, match="train, row 2, must have"):
        Classify.learned(classify_rows("a", "b", label))


MISSING = [None, "", float("nan"), np.nan, pandas.NA, pandas.NaT, ["a", float("nan")], ["a", None]]


@pytest.mark.parametrize("missing", MISSING, ids=range(len(MISSING)))
def test_rows_without_a_label_are_counted_and_the_first_ones_named(missing: Any) -> None:
    labels = "a", missing, "b", *[missing] * 6
    with pytest.raises(MinibertError) as told:
        classify_rows(*labels)
    assert re.match("train, row 1, must have a (label|text, a number or a list)", str(told.value))
    assert str(told.value).endswith(
        "; 7 of 9 rows (train, row 1; train, row 3; train, row 4; train, row 5; train, row 6; ...) cannot be learned "
        "from: skip_bad_rows=True leaves them out"
    )
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    with pytest.warns(UserWarning, match=r"7 of 9 rows \(.*\) were left out; the first one: train, row 1, must have a"):
        data = read_rows("train", rows, "classify", None, skip_bad_rows=True)
    assert [row.values["text"] for row in data.rows] == ["text 0", "text 2"]
    with pytest.raises(MinibertError, match="nothing is left to learn from"):
        read_rows("train", rows[1:2], "classify", None, skip_bad_rows=True)


def test_numbers_of_a_data_frame_with_a_gap_are_not_classes() -> None:
    frame = pandas.DataFrame({"text": ["a", "b", "c"], "label": [1, 0, None]})
    for rows in (frame, frame.to_dict("records")):
        with pytest.raises(
            MinibertError, match=r"train, row 2, must have a label, not nan; .* 1 of 3 rows \(train, row 2"
        ):
            read_rows("train", rows, "classify", None)


def test_numbers_of_the_library_datasets_keep_their_names() -> None:
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=datasets.Features(features))
    assert [row.values["label"] for row in read_rows("train", rows, "classify", None).rows] == ["good", "bad"]
    features = {
        "words": datasets.Sequence(datasets.Value("string")),
        "labels": datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"])),
    }
    tagged = datasets.Dataset.from_dict(
        {"words": [["Anna", "sat"]], "labels": [[1, 0]]}, features=datasets.Features(features)
    )
    assert [row.values["labels"] for row in read_rows("train", tagged, "tokens", None).rows] == [["B-PER", "O"]]
    unknown = rows.map(lambda row: {"label": -1 if row["text"] == "b" else row["label"]})
    with pytest.raises(MinibertError, match="train, row 1, must have a label, not None"):
        read_rows("train", unknown, "classify", None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> minibert.Bert:
    """A small random model with a real vocabulary."""
    return minibert.load(with_real_vocabulary(tmp_path_factory.mktemp("tiny"), minilm, "BertModel"))


@pytest.fixture
def reader(tmp_path: Path, minilm: Path) -> minibert.Bert:
    """A small random reader."""
    return minibert.load(with_real_vocabulary(tmp_path, minilm, "BertForQuestionAnswering"))


WORDS = ["@paulwalk", "It", "'s", "the", "Queensland", "!"]
LABELS = ["I-person", "O", "O", "O", "I-loc", "O"]


def test_the_first_piece_of_each_word_is_labelled_as_in_transformers_example(tiny: minibert.Bert, minilm: Path) -> None:
    rows = read_rows("train", [{"words": WORDS, "labels": LABELS}] * 2, "tokens", None)
    task = Tag.learned(rows)
    assert task.labels == ["B-loc", "B-person", "O"]
    (example, _), lost = task.examples(tiny, rows)
    assert lost == {}
    theirs = transformers.AutoTokenizer.from_pretrained(minilm)(WORDS, is_split_into_words=True)
    words = theirs.word_ids()
    expected = [
        -100 if word is None or word == words[i - 1] else task.numbers[as_bio(LABELS)[word]]
        for i, word in enumerate(words)
    ]
    assert example.rows[0].tolist() == theirs["input_ids"]
    assert example.labels.tolist() == expected


def test_every_word_of_a_long_sentence_is_labelled_in_one_window(tiny: minibert.Bert) -> None:
    many = 70
    rows = read_rows("train", [{"words": WORDS * many, "labels": LABELS * many}], "tokens", None)
    task = Tag.learned(rows)
    examples, _ = task.examples(tiny, rows)
    assert len(examples) > 1
    assert max(map(len, (e.rows[0] for e in examples))) <= tiny.max_seq_length
    found = Counter(int(label) for e in examples for label in e.labels if label != -100)
    assert found == {task.numbers[label]: count * many for label, count in Counter(as_bio(LABELS)).items()}


def test_sentences_are_lists_and_csv_files_have_none(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("words,labels\nAnna saw,B-PER O\n")
    with pytest.raises(MinibertError, match="line 2, must have a list in 'words', not 'Anna saw'; use a CoNLL file"):
        Tag.learned(read_rows("train", path, "tokens", None))
    for words, labels in ((["a"], ["O", "O"]), ([], []), (["a", " "], ["O", "O"]), (["a"], [""])):
        with pytest.raises(MinibertError, match="train, row 0, must have"):
            Tag.learned(read_rows("train", [{"words": words, "labels": labels}], "tokens", None))


@pytest.mark.parametrize("mark", ["\u200e", "\u00ad", "\ufeff", "\u202b"])
def test_a_word_that_begins_with_a_dropped_character_has_the_label_of_its_first_piece(
    mark: str, tmp_path: Path, minilm: Path
) -> None:
    names = {0: "O", 1: "B-X", 2: "B-Y"}
    with_real_vocabulary(tmp_path, minilm, "BertForTokenClassification", id2label=names, label2id=None)
    bert = minibert.load(tmp_path)
    rows = []
    for words in (["Anna", "sat", "down"], ["word2vec", "sat"]):
        (found,) = bert.entities([" ".join(words)], strategy="none")
        own = {entity.start: entity.label for entity in found}
        begins = np.cumsum([0, *(len(word) + 1 for word in words[:-1])]).tolist()
        labels = [own.get(begin, "O") for begin in begins]
        rows += [{"words": words, "labels": labels}, {"words": [mark + word for word in words], "labels": labels}]
    for row in rows:
        data = read_rows("dev", [row], "tokens", None)
        assert Tag(list(names.values())).metrics(bert, data)["accuracy"] == 1


def test_iob1_becomes_bio_and_other_schemes_stay() -> None:
    assert as_bio(["I-A", "I-A", "B-A", "I-B", "O", "I-B"]) == ["B-A", "I-A", "B-A", "B-B", "O", "B-B"]
    for labels in (["B-A", "I-A", "O"], ["B-A", "E-A", "S-B"], ["B-A", "L-A", "U-B"], ["NOUN", "NOUN"]):
        assert as_bio(labels) == labels


def test_the_labels_of_answers_point_at_them_in_every_window(reader: minibert.Bert, evaldata: Path) -> None:
    rows = read_rows("train", str(evaldata / "qa" / "xquad.en.json"), "qa", None)
    rows = Data(rows.name, rows.title, rows.digest, rows.rows[:300])
    reader.max_seq_length = 128
    examples, _ = Answers().examples(reader, rows)
    assert len(examples) > len(rows.rows)
    found = []
    for example in examples:
        first, last = example.labels
        if first:
            found.append(reader.tokenizer.decode(example.rows[0][first : last + 1].tolist()))
        else:
            assert last == 0
    texts = {
        reader.tokenizer.decode(reader.tokenizer.encode(row.values["answers"][0]["text"])[1:-1]) for row in rows.rows
    }
    assert len(found) >= len(rows.rows)  # each answer is in one window at least
    assert sum(text in texts for text in found) > 0.98 * len(found)  # but for "20", which is a part of the word "20th"


def test_questions_may_be_those_of_the_library_datasets(reader: minibert.Bert) -> None:
    row = {"question": "Where?", "context": "In Rome.", "answers": {"text": ["Rome"], "answer_start": [3]}}
    none = {"question": "Where?", "context": "In Rome.", "answers": []}
    examples, _ = Answers().examples(reader, read_rows("train", [row, none], "qa", None))
    assert [example.labels for example in examples] == [(5, 5), (0, 0)]  # [CLS] where ? [SEP] in rome


def test_an_answer_that_is_not_where_it_should_be_is_named(reader: minibert.Bert) -> None:
    row = {"question": "Where?", "context": "In Rome.", "answers": [{"text": "Rome", "answer_start": 4}]}
    with pytest.raises(MinibertError, match=r"train, row 0, must have its answer \('Rome'\) at 4"):
        Answers().examples(reader, read_rows("train", [row], "qa", None))


@pytest.mark.parametrize("start", [-10, 0.9, True, "here", float("nan"), 10**400, None])
def test_an_answer_begins_at_a_whole_number_of_at_least_0(start: Any, reader: minibert.Bert) -> None:
    answers = [{"text": "Rome", "answer_start": start}]
    rows = [{"question": "Where?", "context": "I am in Rome, now.", "answers": answers}]  # at 8, which is -10, too
    with pytest.raises(
        MinibertError, match="train, row 0, must have an answer_start that is a whole number of at least"
    ):
        Answers().examples(reader, read_rows("train", rows, "qa", None))


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [{"text": "", "answer_start": 0}],
        {"text": [""], "answer_start": [0]},
        [{"text": "Rome", "answer_start": -1}],
    ],
)
def test_answers_that_stand_for_none_are_none(answers: Any, reader: minibert.Bert) -> None:
    rows = read_rows("train", [{"question": "Where?", "context": "In Rome.", "answers": answers}], "qa", None)
    assert [example.labels for example in Answers().examples(reader, rows)[0]] == [(0, 0)]


@pytest.mark.parametrize(
    "answers", ["Rome", None, ["Rome"], [{"text": "Rome"}], {"text": ["Rome"], "answer_start": []}]
)
def test_answers_without_a_place_are_named(answers: Any, reader: minibert.Bert) -> None:
    row = {"question": "Where?", "context": "In Rome.", "answers": answers}
    with pytest.raises(
        MinibertError, match="train, row 0, must have a list of answers, each with text and answer_start"
    ):
        Answers().examples(reader, read_rows("train", [row], "qa", None))


def test_all_rows_have_as_many_negatives(tiny: minibert.Bert) -> None:
    rows = [{"anchor": "a", "positive": "b", "negative": ["c", "d"]}, {"anchor": "e", "positive": "f", "negative": "g"}]
    with pytest.raises(MinibertError, match="row 1, must have 2 negatives, like the first row, not 1"):
        Retrieve().examples(tiny, read_rows("train", rows, "pairs", None))
    (example,), _ = Retrieve().examples(tiny, read_rows("train", rows[:1], "pairs", None))
    assert [tiny.tokenizer.decode(row[1:-1]) for row in example.rows] == ["a", "b", "c", "d"]


def test_all_rows_are_pairs_or_none(tiny: minibert.Bert) -> None:
    rows = [{"text": "a", "text_pair": "b", "label": "x"}, {"text": "c", "label": "y"}]
    with pytest.raises(MinibertError, match="row 1, must have a second text"):
        Classify(["x", "y"]).examples(tiny, read_rows("train", rows, "classify", None))


def test_rows_that_are_too_long_are_counted(tiny: minibert.Bert) -> None:
    long, limit = "word " * 600, tiny.max_seq_length
    rows = [{"query": "q", "passage": long, "label": 1}, {"query": "q", "passage": "p", "label": 0}]
    assert Rerank().examples(tiny, read_rows("train", rows, "rank", None))[1] == {0: 600 + 4 - limit}
    pairs = [{"sentence1": long, "sentence2": long, "score": 1}]
    assert Compare().examples(tiny, read_rows("train", pairs, "similarity", None))[1] == {0: 2 * (600 + 2 - limit)}


def test_cosines_must_be_cosines(tiny: minibert.Bert) -> None:
    rows = read_rows("train", [{"sentence1": "a", "sentence2": "b", "score": 4}], "similarity", None)
    task = Compare()
    assert task.examples(tiny, rows)[0][0].labels == 4
    task.loss = "cosine"
    with pytest.raises(MinibertError, match="a number from -1 to 1 in 'score', not 4"):
        task.examples(tiny, rows)


def test_the_default_prompt_is_put_before_texts(prompted: Path) -> None:
    bert = minibert.load(prompted)
    bert.recipe = bert.recipe.__class__(prompt="query: ")
    (example,), _ = Compare().examples(
        bert, read_rows("train", [{"sentence1": "a", "sentence2": "b", "score": 1}], "similarity", None)
    )
    assert bert.tokenizer.decode(example.rows[0][1:-1]) == "query : a"


@pytest.mark.parametrize("name", ["text", "label"])
def test_a_blank_text_or_label_is_named(name: str) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}, {"text": "c", "label": "y", name: ""}]
    with pytest.raises(MinibertError, match="dev, row 2, must have"):
        read_rows("dev", rows, "classify", None)


def named(texts: list[list[str]], words: dict[str, int]) -> list[Example]:
    """Examples with a row of one token for each text."""
    return [Example(tuple(np.array([words.setdefault(text, len(words))]) for text in row), None) for row in texts]


@pytest.mark.parametrize("negatives", [0, 2])
def test_what_is_known_to_be_right_is_no_wrong_answer(negatives: int) -> None:
    """The loss is that of plain loops over the texts themselves."""
    random = np.random.default_rng(0)
    texts = [[f"text {n}" for n in random.integers(0, 15, 2 + negatives)] for _ in range(24)]
    texts = [row for row in texts if row[0] != row[1]]
    words: dict[str, int] = {}
    examples = named(texts, words)
    table = torch.nn.functional.normalize(torch.randn(len(words), 8), dim=-1)
    vectors = table[torch.tensor([[words[text] for text in row] for row in texts])].requires_grad_()
    right = {first: {row[1] for row in texts if row[0] == first} | {first} for first, *_ in texts}
    losses = []
    for number, (first, *_) in enumerate(texts):
        chosen = [vectors[number, 1]]
        for column in range(1, 2 + negatives):
            chosen += [vectors[i, column] for i, row in enumerate(texts) if row[column] not in right[first]]
        scores = torch.stack(chosen) @ vectors[number, 0] * 20
        losses.append(scores.logsumexp(0) - scores[0])
    expected = torch.stack(losses).mean()
    found = Positives(minibert.Recipe()).loss(None, vectors, examples, (len(examples),))
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        *(torch.autograd.grad(loss, vectors, retain_graph=True) for loss in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_where_no_texts_are_equal_all_others_are_wrong_answers() -> None:
    examples = named([[f"a{i}", f"b{i}", f"c{i}"] for i in range(7)], {})
    vectors = torch.nn.functional.normalize(torch.randn(7, 3, 16), dim=-1)
    scores = vectors[:, 0] @ vectors[:, 1:].transpose(0, 1).flatten(0, 1).T * 20
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(7))
    assert torch.equal(Positives(minibert.Recipe()).loss(None, vectors, examples, (7,)), expected)


class Ranker:
    """What `Retrieve.metrics` asks of a model: the vectors of texts are given."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self.vectors = vectors

    def encode(self, texts: list[str], **settings: Any) -> np.ndarray[Any, Any]:
        return np.array([self.vectors[text] for text in texts], np.float32)

    def similarity(self, one: Any, others: Any) -> torch.Tensor:
        return torch.from_numpy(np.atleast_2d(one) @ np.asarray(others).T)


def test_a_text_is_no_candidate_for_itself() -> None:
    rows = [{"anchor": "a", "positive": "b"}, {"anchor": "b", "positive": "a"}]
    model: Any = Ranker({"a": [1.0, 0.0], "b": [0.8, 0.6]})
    assert Retrieve().metrics(model, read_rows("dev", rows, "pairs", None))["mrr"] == 1


def test_a_model_for_which_all_texts_are_equal_finds_none() -> None:
    rows = [{"anchor": f"a{n}", "positive": f"b{n}"} for n in range(10)]
    model: Any = Ranker({text: [1.0] for row in rows for text in row.values()})
    assert Retrieve().metrics(model, read_rows("dev", rows, "pairs", None))["mrr"] == pytest.approx(0.1)
