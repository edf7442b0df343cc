"""What each task makes of its rows, and the order of batches in which no text is twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest
import transformers
from oracle import with_real_vocabulary

import minibert
from minibert.errors import MinibertError
from minibert.training.data import Data
from minibert.training.finetune import read_rows
from minibert.training.order import DistinctEpochs, _distinct
from minibert.training.packed import Example
from minibert.training.tasks import Answers, Classify, Compare, Rerank, Retrieve, Tag, as_bio


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
        (["nan", "1.5"], "single_label_classification", ["1.5", "nan"]),
    ],
)
def test_the_labels_decide_what_is_learned(labels: list[Any], problem: str, names: list[str]) -> None:
    task = Classify.learned(classify_rows(*labels))
    assert task.changes() == {"id2label": dict(enumerate(names)), "problem_type": problem}


def test_one_label_for_all_rows_is_too_few() -> None:
    with pytest.raises(MinibertError, match=r"the labels of 2 rows \(a\) must be at least two"):
        Classify.learned(classify_rows("a", "a"))


@pytest.mark.parametrize("label", [None, "", ["a"]])
def test_a_row_without_the_label_of_other_rows_is_named(label: Any) -> None:
    with pytest.raises(MinibertError, match="train, row 2, must have"):
        Classify.learned(classify_rows("a", "b", label))


MISSING = [None, "", float("nan"), np.nan, pandas.NA, pandas.NaT, ["a", float("nan")], ["a", None]]


@pytest.mark.parametrize("missing", MISSING, ids=range(len(MISSING)))
def test_rows_without_a_label_are_counted_and_the_first_ones_named(missing: Any, tiny: minibert.Bert) -> None:
    data = classify_rows("a", missing, "b", *[missing] * 6)
    for refuses in (lambda: Classify.learned(data), lambda: Classify(["a", "b"]).examples(tiny, data)):
        with pytest.raises(MinibertError) as told:
            refuses()
        assert str(told.value).startswith(
            "train, row 1; train, row 3; train, row 4; train, row 5; train, row 6, and 2 others, must have a label"
        )
        assert str(told.value).endswith("; 7 of 9 rows have none: remove such rows")


def test_numbers_of_a_data_frame_with_a_gap_are_not_classes() -> None:
    frame = pandas.DataFrame({"text": ["a", "b", "c"], "label": [1, 0, None]})
    with pytest.raises(MinibertError, match="train, row 2, must have a label, not nan; 1 of 3 rows have none"):
        Classify.learned(read_rows("train", frame.to_dict("records"), "classify", None))


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
        Classify.learned(read_rows("train", unknown, "classify", None))


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


@pytest.mark.parametrize("start", [-10, -1, 0.9, True, "here", float("nan"), 10**400, None])
def test_an_answer_begins_at_a_whole_number_of_at_least_0(start: Any, reader: minibert.Bert) -> None:
    answers = [{"text": "Rome", "answer_start": start}]
    rows = [{"question": "Where?", "context": "I am in Rome, now.", "answers": answers}]  # at 8, which is -10, too
    with pytest.raises(
        MinibertError, match="train, row 0, must have an answer_start that is a whole number of at least"
    ):
        Answers().examples(reader, read_rows("train", rows, "qa", None))


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
def test_a_blank_text_or_label_is_named(tiny: minibert.Bert, name: str) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}, {"text": "c", "label": "y", name: ""}]
    data = read_rows("dev", rows, "classify", None)
    with pytest.raises(MinibertError, match="dev, row 2, must have"):
        Classify(["x", "y"]).examples(tiny, data)


def test_no_text_is_twice_in_a_batch_and_each_example_once_in_an_epoch() -> None:
    random = np.random.default_rng(0)
    examples = [Example((np.array([i]), np.array([1000 + random.integers(30)])), i) for i in range(200)]
    order = DistinctEpochs(examples, 16, epochs=3, seed=1)
    batches = [order(number) for number in range(order.steps)]
    for batch in batches:
        texts = [row.tobytes() for example in batch for row in example.rows]
        assert len(texts) == len(set(texts))
        assert len(batch) <= 16
    taken = [example.labels for batch in batches for example in batch]
    epochs = [taken[i : i + 200] for i in (0, 200, 400)]
    assert all(sorted(epoch) == list(range(200)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert len(batches) <= 3 * (200 // 16 + 3)
    again = DistinctEpochs(examples, 16, epochs=2, seed=1)
    assert again.batches == order.batches[: again.steps]
    assert DistinctEpochs(examples, 16, epochs=2, seed=2).batches != again.batches


def first_fit(order: list[int], texts: list[set[bytes]], batch_size: int) -> list[list[int]]:
    """The rule of the batches, in the plainest form: a batch is looked for from the first one on."""
    batches: list[list[int]] = []
    for i in order:
        for batch in batches:
            if len(batch) < batch_size and all(texts[i].isdisjoint(texts[other]) for other in batch):
                batch.append(i)
                break
        else:
            batches.append([i])
    return batches


@pytest.mark.parametrize("seed", range(60))
def test_batches_are_those_of_the_plainest_search(seed: int) -> None:
    random = np.random.default_rng(seed)
    count, kinds, per_row = random.integers(1, 150), random.integers(1, 60, 3), random.integers(1, 4)
    texts = [{bytes([n, random.integers(kinds[n])]) for n in range(per_row)} for _ in range(count)]
    order = random.permutation(count).tolist()
    size = int(random.integers(1, 20))
    assert _distinct(order, texts, size) == first_fit(order, texts, size)


def test_batches_of_rows_that_share_a_text_take_linear_time() -> None:
    class Counted(bytes):
        asked = 0

        def __hash__(self) -> int:
            Counted.asked += 1
            return super().__hash__()

        __eq__ = bytes.__eq__

    asked = []
    for count in (2_000, 4_000):
        shared, Counted.asked = Counted(b"answer"), 0
        _distinct(range(count), [{Counted(str(i).encode()), shared} for i in range(count)], 32)
        asked.append(Counted.asked)
    assert asked[1] < 2.2 * asked[0]


def test_texts_that_are_never_equal_fill_every_batch() -> None:
    examples = [Example((np.array([i]),), i) for i in range(50)]
    order = DistinctEpochs(examples, 16, epochs=2)
    assert [len(order(number)) for number in range(order.steps)] == [16, 16, 16, 2] * 2
