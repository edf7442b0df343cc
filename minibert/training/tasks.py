"""What models are fine-tuned for: the columns of rows, their examples, the head, the objective and the metrics.

A task is made from the rows of the training data (`learned`) or, to evaluate, from a model that was trained (`of`).
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from typing_extensions import Self

from minibert.base import PretrainedModel
from minibert.bert import Bert
from minibert.config import BertConfig
from minibert.engine.engine import LAST
from minibert.engine.rows import RowMaker, Rows, token_rows
from minibert.errors import MinibertError
from minibert.model import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)
from minibert.records import ReadFile, parsed_json
from minibert.tasks.answer import Reader, reader_of
from minibert.tasks.classify import rows_of
from minibert.tasks.entities import OUTSIDE, Tokens, changes
from minibert.text import check_choice, counted, is_missing, short
from minibert.training.data import Data, Row, as_number, plain, read_conll, read_squad
from minibert.training.metrics import (
    Metrics,
    answer_metrics,
    correlations,
    entity_metrics,
    label_metrics,
    label_set_metrics,
    number_metrics,
    ranking_metrics,
    retrieval_metrics,
)
from minibert.training.objectives import (
    IGNORED,
    CosineScores,
    Objective,
    Positives,
    Relevance,
    ScoredPairs,
    Spans,
    TextLabels,
    TokenLabels,
)
from minibert.training.order import Epochs, SpreadEpochs
from minibert.training.packed import Example
from minibert.vectors.recipe import Recipe

SEVERAL, ONE, NUMBER = "multi_label_classification", "single_label_classification", "regression"  # transformers' words


class Task:
    """What a model is fine-tuned for.

    Attributes:
        columns: the columns of a row; those in `optional` may be absent.
        formats: readers of files for this task, as for `data.read`.
        kind: the class of the model.
        metric: the one that tells the best model.
        order: of the examples.
        labels: the names of the labels, in the order of `id2label`.
    """

    columns: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    formats: ClassVar[Mapping[str, ReadFile]] = {}
    kind: ClassVar[type[PretrainedModel]]
    order: ClassVar[type[Epochs[Example]]] = Epochs
    metric: str

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.labels = list(labels)
        self.numbers = {label: number for number, label in enumerate(self.labels)}

    @classmethod
    def learned(cls, train: Data) -> Self:
        """The task of training data: its labels, for one."""
        return cls()

    @classmethod
    def of(cls, config: BertConfig) -> Self:
        """The task that a trained model has."""
        return cls()

    @classmethod
    def check_row(cls, row: Row) -> None:
        """Raise MinibertError if nothing can be learned from a row, whatever the others are."""
        raise NotImplementedError

    def described(self, data: Data) -> str:
        """What is learned from rows, for people: "3 labels: bad (12), good (40), mixed (3)"."""
        raise NotImplementedError

    def with_labels(self, labels: Sequence[str]) -> Self:
        """The same task with these labels, in this order; all that the rows have must be among them."""
        raise MinibertError(f"labels ({short(labels)}) must be left out for this task; its labels have no names")

    def changes(self) -> dict[str, Any]:
        """The fields of the configuration that the task decides."""
        return {}

    def examples(self, bert: Bert, data: Data) -> tuple[list[Example], dict[int, int]]:
        """The examples of rows, and how many tokens each row lost that is too long, by its number.

        Raises:
            MinibertError: a row that cannot be learned from; a label that is not among `labels`.
        """
        raise NotImplementedError

    def objective(self, recipe: Recipe) -> Objective:
        """What the model learns to predict."""
        raise NotImplementedError

    def check(self, data: Data) -> None:
        """Raise MinibertError if rows have examples, but no metrics."""

    def metrics(self, bert: Bert, data: Data) -> Metrics:
        """How well a model predicts rows."""
        raise NotImplementedError

    def number(self, row: Row, label: str) -> int:
        """The number of a label; MinibertError if there is no such label."""
        if label not in self.numbers:
            raise MinibertError(
                f"{row.place} has the label {label!r}, which must be one of the {len(self.labels)} that are learned "
                f"({short(', '.join(self.labels))}); remove the row, or add such rows to train"
            )
        return self.numbers[label]


class Classify(Task):
    """One label for each text or pair of texts, several, or a number, by what the labels of the training data are.

    Lists are several labels (in a CSV file, JSON: `["a", "b"]`). If all labels are numbers, and one is written with a
    decimal point, they are numbers to predict. Anything else is one label.
    """

    columns = ("text", "text_pair", "label")
    optional = ("text_pair",)
    kind = BertForSequenceClassification

    def __init__(self, labels: Sequence[str], problem: str = ONE) -> None:
        super().__init__(labels)
        self.problem = problem
        self.metric = {ONE: "accuracy", SEVERAL: "micro_f1", NUMBER: "pearson"}[problem]

    @classmethod
    def learned(cls, train: Data) -> Self:
        """The task of training data."""
        given = [label_of(row) for row in train.rows]
        numeric = [not isinstance(label, list) and as_number(label) is not None for label in given]
        fractions = [number and _is_fraction(label) for number, label in zip(numeric, given, strict=True)]
        if all(isinstance(label, list) for label in given):
            problem, found = SEVERAL, {label for labels in given for label in labels}
            _check_names(train, given)
        elif any(fractions):
            other = next((row for row, number in zip(train.rows, numeric, strict=True) if not number), None)
            if other is not None:
                raise MinibertError(
                    f"{other.place} must have a number as its label, like {counted(sum(numeric), 'other row')}, not "
                    f"{short(other.values['label'])} ({numeric.count(False):,} of {counted(len(given), 'row')} have "
                    "none); remove such rows"
                )
            return cls(["label"], NUMBER)
        else:
            problem, found = ONE, {cls._one(row) for row in train.rows}
        if len(found) < 2:
            raise MinibertError(f"the labels of {train.title} ({', '.join(found)}) must be at least two; add rows")
        whole = all(label.removeprefix("-").isdecimal() for label in found)
        return cls(sorted(found, key=int if whole else None), problem)

    @classmethod
    def of(cls, config: BertConfig) -> Self:
        """The task that a trained model has."""
        one = NUMBER if config.num_labels == 1 else ONE
        return cls([label for _, label in sorted((config.id2label or {}).items())], config.problem_type or one)

    def changes(self) -> dict[str, Any]:
        """The labels, and which kind they are."""
        return {"id2label": dict(enumerate(self.labels)), "problem_type": self.problem}

    @classmethod
    def check_row(cls, row: Row) -> None:
        """A text or two, and a label."""
        for name in ("text", "text_pair") if "text_pair" in row.values else ("text",):
            row.text(name)
        label_of(row)

    def with_labels(self, labels: Sequence[str]) -> Self:
        """The same task with these labels."""
        return super().with_labels(labels) if self.problem == NUMBER else type(self)(_named(labels, self), self.problem)

    def described(self, data: Data) -> str:
        """The labels with their counts, or the range of the numbers."""
        if self.problem == NUMBER:
            return _range([row.number("label") for row in data.rows])
        given = [label_of(row) for row in data.rows]
        several = "any of " if self.problem == SEVERAL else ""
        one_by_one = (label for one in given for label in (one if isinstance(one, list) else [str(one)]))
        return several + _counts(self.labels, one_by_one)

    @staticmethod
    def _one(row: Row) -> str:
        label = label_of(row)
        if isinstance(label, list):
            raise MinibertError(f"{row.place} must have one label, like other rows, not {short(label)}; correct it")
        return str(label)

    def target(self, row: Row) -> Any:
        """The label of a row as the model's loss takes it."""
        if self.problem == NUMBER:
            return row.number("label")
        if self.problem == ONE:
            return self.number(row, self._one(row))
        labels = label_of(row)
        if not isinstance(labels, list):
            raise MinibertError(f"{row.place} must have a list of labels, not {short(labels)}; correct it")
        found = np.zeros(len(self.labels))
        found[[self.number(row, label) for label in labels]] = 1.0
        return found

    def examples(self, bert: Bert, data: Data) -> tuple[list[Example], dict[int, int]]:
        """An example for each row."""
        return _labelled(bert, _texts(data), [self.target(row) for row in data.rows])

    def objective(self, recipe: Recipe) -> Objective:
        """The model's own loss."""
        return TextLabels()

    def metrics(self, bert: Bert, data: Data) -> Metrics:
        """By `Bert.label_scores`."""
        targets = [self.target(row) for row in data.rows]
        texts = _texts(data)
        pairs = None if isinstance(texts[0], str) else [second for _, second in texts]
        firsts = texts if pairs is None else [first for first, _ in texts]
        scores = bert.label_scores(firsts, pairs, show_progress_bar=False)
        if self.problem == NUMBER:
            return number_metrics(targets, scores[:, 0])
        if self.problem == SEVERAL:
            return label_set_metrics(np.array(targets) > 0.5, scores > 0.5)
        return label_metrics([self.labels[i] for i in targets], [self.labels[i] for i in scores.argmax(1)])


class Tag(Task):
    """A label for each word: named entities, parts of speech. The first piece of a word is labelled.

    IOB1 becomes BIO: the first word of an entity is always "B-".
    """

    columns = ("words", "labels")
    formats: ClassVar[Mapping[str, ReadFile]] = {".tsv": read_conll, "": read_conll}
    kind = BertForTokenClassification
    metric = "f1"

    @classmethod
    def learned(cls, train: Data) -> Self:
        """The task of training data."""
        if all(INDEX.fullmatch(word) for row in train.rows for word in row.values["words"]):
            raise MinibertError(
                f"the words of {train.title} must be words, not numbers from 1 on; choose the column of words, with "
                "columns={'words': '2'} or --column words=2"
            )
        found = {label for row in train.rows for label in _words(row)[1]}
        if len(found) < 2:
            raise MinibertError(f"the labels of {train.title} ({', '.join(found)}) must be at least two; add rows")
        return cls(sorted(found))

    @classmethod
    def of(cls, config: BertConfig) -> Self:
        """The task that a trained model has."""
        return cls([label for _, label in sorted((config.id2label or {}).items())])

    def changes(self) -> dict[str, Any]:
        """The labels."""
        return {"id2label": dict(enumerate(self.labels)), "problem_type": None}

    @classmethod
    def check_row(cls, row: Row) -> None:
        """Words, and a label for each."""
        _words(row)

    def with_labels(self, labels: Sequence[str]) -> Self:
        """The same task with these labels."""
        return type(self)(_named(labels, self))

    def described(self, data: Data) -> str:
        """The labels with the counts of their words."""
        return _counts(self.labels, (label for row in data.rows for label in _words(row)[1]))

    def examples(self, bert: Bert, data: Data) -> tuple[list[Example], dict[int, int]]:
        """An example for each sentence, or for each window of a long one."""
        sentences = [_words(row) for row in data.rows]
        targets = [
            [self.number(row, label) for label in labels] for row, (_, labels) in zip(data.rows, sentences, strict=True)
        ]
        row_maker = RowMaker(bert.tokenizer, bert.max_seq_length, "window")
        texts = [" ".join(words) for words, _ in sentences]
        encodings, rows = bert.tokenizer.backend.encode_batch(texts, add_special_tokens=False), Rows()
        for number, encoding in enumerate(encodings):
            row_maker.add(rows, number, np.array(encoding.ids, dtype=np.int32))
        tokens = Tokens(rows, encodings)
        begins = [_begins(words) for words, _ in sentences]
        # the word of each token: the last one that begins before the token ends
        words = np.array(
            [
                np.searchsorted(begins[text], end, side="left") - 1
                for text, end in zip(tokens.texts.tolist(), tokens.offsets[:, 1].tolist(), strict=True)
            ],
            dtype=np.int64,
        )
        first = changes(tokens.texts) | changes(words)
        found = []
        place = 0
        for row, ids in enumerate(tokens.rows.ids):
            start, end = tokens.own[row]
            labels = np.full(len(ids), IGNORED, np.int64)
            text, at = tokens.rows.texts[row], start - tokens.rows.starts[row] + 1  # 1: [CLS]
            for i in range(end - start):
                if first[place + i]:
                    labels[at + i] = targets[text][words[place + i]]
            place += end - start
            found.append(Example((ids,), labels))
        return found, {}

    def objective(self, recipe: Recipe) -> Objective:
        """Cross-entropy of the labelled tokens."""
        return TokenLabels()

    def metrics(self, bert: Bert, data: Data) -> Metrics:
        """By `Bert.entities`: a word has the label of its first piece."""
        sentences = [_words(row) for row in data.rows]
        for row, (_, labels) in zip(data.rows, sentences, strict=True):
            for label in labels:
                self.number(row, label)
        texts = (" ".join(words) for words, _ in sentences)
        found = bert.entities(texts, strategy="none", truncation="window", show_progress_bar=False)
        predicted = []
        for (words, _), entities in zip(sentences, found, strict=True):
            own = {entity.start: entity.label for entity in entities}
            starts = _piece_starts(bert, words)
            predicted.append(as_bio([own.get(starts.get(number, -1), OUTSIDE) for number in range(len(words))]))
        return entity_metrics([labels for _, labels in sentences], predicted)


class Compare(Task):
    """Pairs of texts with a score: the vectors of the more similar pair should have the higher cosine.

    Args:
        loss: "cosent" learns the order of the scores, which may be any numbers; "cosine" learns cosines, -1 to 1.
    """

    columns = ("sentence1", "sentence2", "score")
    kind = BertModel
    metric = "spearman"
    loss = "cosent"

    @classmethod
    def check_row(cls, row: Row) -> None:
        """Two texts and a number."""
        _ = row.text("sentence1"), row.text("sentence2"), row.number("score")

    def described(self, data: Data) -> str:
        """The range of the scores."""
        return _range([row.number("score") for row in data.rows])

    def examples(self, bert: Bert, data: Data) -> tuple[list[Example], dict[int, int]]:
        """An example for each pair."""
        lowest = -1.0 if self.loss == "cosine" else -np.inf
        scores = [row.number("score", lowest, -lowest) for row in data.rows]
        columns = [[row.text(name) for row in data.rows] for name in ("sentence1", "sentence2")]
        return _compared(bert, columns, scores)

    def objective(self, recipe: Recipe) -> Objective:
        """CoSENT, or the squared error of cosines."""
        kinds = {"cosent": ScoredPairs, "cosine": CosineScores}
        kind: type[ScoredPairs] = kinds[check_choice("loss", self.loss, tuple(kinds))]
        return kind(recipe)

    def metrics(self, bert: Bert, data: Data) -> Metrics:
        """By `Bert.encode` and `Bert.similarity_pairwise`."""
        one, other = (
            bert.encode([row.text(name) for row in data.rows], show_progress_bar=False)
            for name in ("sentence1", "sentence2")
        )
        return correlations([row.number("score") for row in data.rows], bert.similarity_pairwise(one, other).numpy())


class Retrieve(Task):
    """Texts with their positives, and negatives if there are any: a text should find its positive among all others.

    Rows may share texts: they are spread over the epoch, and another positive of a text is no wrong answer to it, see
    `Positives`.
    """

    columns = ("anchor", "positive", "negative")
    optional = ("negative",)
    kind = BertModel
    order = SpreadEpochs
    metric = "mrr"

    @classmethod
    def check_row(cls, row: Row) -> None:
        """A text, its positive and, if there are any, negatives."""
        _ = row.text("anchor"), row.text("positive"), "negative" in row.values and row.texts("negative")

    def described(self, data: Data) -> str:
        """How many texts there are to find."""
        anchors, positives = (len({row.text(name) for row in data.rows}) for name in ("anchor", "positive"))
        return f"{counted(anchors, 'text')} with {counted(positives, 'positive')}"

    def examples(self, bert: Bert, data: Data) -> tuple[list[Example], dict[int, int]]:
        """An example for each row."""
        negatives = [row.texts("negative") if "negative" in row.values else [] for row in data.rows]
        for row, own in zip(data.rows, negatives, strict=True):
            if len(own) != len(negatives[0]):
                raise MinibertError(
                    f"{row.place} must have {len(negatives[0])} negatives, like the first row, not {len(own)}; correct "
                    "it, or leave the column out"
                )
        columns = [[row.text(name) for row in data.rows] for name in ("anchor", "positive")]
        return _compared(
            bert, [*columns, *(list(column) for column in zip(*negatives, strict=True))], [None] * len(data.rows)
        )

    def objective(self, recipe: Recipe) -> Objective:
        """Multiple negatives."""
        return Positives(recipe)

    def metrics(self, bert: Bert, data: Data) -> Metrics:
        """By `Bert.encode` and `Bert.similarity`, among all positives and negatives of the rows."""
        candidates: dict[str, int] = {}
        right: dict[str, set[int]] = defaultdict(set)
        for row in data.rows:
            positive = candidates.setdefault(row.text("positive"), len(candidates))
            right[row.text("anchor")].add(positive)
            for negative in row.texts("negative") if "negative" in row.values else ():
                candidates.setdefault(negative, len(candidates))
        anchors = bert.encode(list(right), show_progress_bar=False)
        documents = bert.encode(list(candidates), show_progress_bar=False)
        ranks = []
        for (text, own), anchor in zip(right.items(), anchors, strict=True):
            scores = bert.similarity(anchor, documents)[0].numpy()
            best = scores[list(own)].max()
            scores[[*own, *([candidates[text]] if text in candidates else [])]] = -np.inf  # its own text is none
            ranks.append(int((scores >= best).sum()) + 1)  # ties are lost
        return retrieval_metrics(ranks)


class Rerank(Task):
    """Queries with passages, and how relevant each is, 0 to 1: what a cross-encoder learns."""

    columns = ("query", "passage", "label")
    kind = BertForSequenceClassification
    metric = "ndcg@10"

    @classmethod
    def check_row(cls, row: Row) -> None:
        """Two texts, and a number from 0 to 1."""
        _ = row.text("query"), row.text("passage"), row.number("label", 0, 1)

    def described(self, data: Data) -> str:
        """How many queries there are, and the range of the relevance."""
        queries = counted(len({row.text("query") for row in data.rows}), "query text")
        return f"{queries}, {_range([row.number('label') for row in data.rows])}"

    def changes(self) -> dict[str, Any]:
        """One output."""
        return {"id2label": {0: "LABEL_0"}, "problem_type": None}

    def examples(self, bert: Bert, data: Data) -> tuple[list[Example], dict[int, int]]:
        """An example for each row."""
        pairs = [(row.text("query"), row.text("passage")) for row in data.rows]
        return _labelled(bert, pairs, [row.number("label", 0, 1) for row in data.rows])

    def objective(self, recipe: Recipe) -> Objective:
        """The binary cross-entropy of the relevance."""
        return Relevance()

    def check(self, data: Data) -> None:
        """There must be a query that can be answered well or badly."""
        if not self._queries(data):
            raise MinibertError(
                f"{data.name} ({data.title}) must have a query with passages that differ in relevance; add rows"
            )

    def metrics(self, bert: Bert, data: Data) -> Metrics:
        """By `Bert.score`, for the queries whose passages differ in relevance."""
        self.check(data)
        queries = self._queries(data)
        scores = np.asarray(
            bert.score([(row.text("query"), row.text("passage")) for row in data.rows], show_progress_bar=False)
        )
        gains = np.array([row.number("label", 0, 1) for row in data.rows])
        return ranking_metrics([(gains[own], scores[own]) for own in queries])

    def _queries(self, data: Data) -> list[list[int]]:
        """The numbers of the rows of each query whose passages differ in relevance."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, row in enumerate(data.rows):
            found[row.text("query")].append(number)
        return [own for own in found.values() if len({data.rows[i].number("label", 0, 1) for i in own}) > 1]


class Answers(Task):
    """Questions whose answers are spans of their contexts, in SQuAD's format; a question may have no answer."""

    columns = ("question", "context", "answers")
    formats: ClassVar[Mapping[str, ReadFile]] = {".json": read_squad}
    kind = BertForQuestionAnswering
    metric = "f1"

    @classmethod
    def check_row(cls, row: Row) -> None:
        """A question, and its answers in a text."""
        _ = row.text("question"), _answers(row)

    def described(self, data: Data) -> str:
        """How many questions have an answer."""
        with_answer = sum(bool(_answers(row)) for row in data.rows)
        return f"{counted(len(data.rows), 'question')}, {with_answer:,} of them with an answer"

    def examples(self, bert: Bert, data: Data) -> tuple[list[Example], dict[int, int]]:
        """An example for each window of a context, as `Bert.answer` makes them."""
        model = reader_of(bert.model, bert.source)
        reader = Reader(bert.engine, bert.tokenizer, model, bert.max_seq_length, LAST, 30, True, 0.0, "window")
        asked = [(row.text("question"), row.text("context")) for row in data.rows]
        rows, prefixes, offsets = reader.rows(asked, 0)
        spans = [_token_span(row, places) for row, places in zip(data.rows, offsets, strict=True)]
        found = []
        for i, text in enumerate(rows.texts):
            first, last = spans[text]
            start, count = rows.starts[i], rows.weights[i]
            inside = start <= first and last < start + count and last >= 0
            moved = prefixes[i] - start
            label = (first + moved, last + moved) if inside else (0, 0)
            found.append(Example((rows.ids[i],), label, (rows.types[i],)))
        return found, {}

    def objective(self, recipe: Recipe) -> Objective:
        """The cross-entropies of both ends."""
        return Spans()

    def metrics(self, bert: Bert, data: Data) -> Metrics:
        """By `Bert.answer`; "no answer" competes if a question of the rows has none."""
        gold = [[text for text, _ in _answers(row)] for row in data.rows]
        questions, contexts = ([row.text(name) for row in data.rows] for name in ("question", "context"))
        found = bert.answer(questions, contexts, no_answer=not all(gold), show_progress_bar=False)
        return answer_metrics(gold, [answer.text for answer in found])


TASKS: dict[str, type[Task]] = {
    "classify": Classify,
    "tokens": Tag,
    "similarity": Compare,
    "pairs": Retrieve,
    "rank": Rerank,
    "qa": Answers,
}


INDEX = re.compile(r"\d+([-.]\d+)?")  # of a word in its sentence, in CoNLL-U


def label_of(row: Row) -> Any:
    """The label of a row: a text or a number, or a list of them as texts.

    Raises:
        MinibertError: it has none, or something else.
    """
    given = row.values.get("label")
    label = plain(given)
    if isinstance(label, str) and label.startswith("["):
        label = _list_in(row, label)
    if isinstance(label, list):
        if all(isinstance(one, (str, int)) and not isinstance(one, bool) and one != "" for one in label):
            return [str(one) for one in label]
    elif isinstance(label, (str, bool, Integral, Real)) and not is_missing(label) and label != "":
        return label
    one = "a label" if is_missing(label) or label == "" else "a text, a number or a list of texts as its label"
    raise MinibertError(f"{row.place} must have {one}, not {short(given)}; correct or remove it")


def _list_in(row: Row, text: str) -> Any:
    """The list that a text is, in JSON or as Python writes it, as `DataFrame.to_csv` does; or the text."""
    with suppress(MinibertError):
        return parsed_json(text, row.place)
    if re.search(r"""['"]\s+['"]""", text):  # as numpy writes it, which Python would read as one text
        raise MinibertError(
            f"{row.place} must have a list of labels with commas, not {short(text)}; convert arrays with tolist()"
        )
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text  # a text that begins with a bracket
    return plain(found) if isinstance(found, list) else text


def _check_names(train: Data, given: Sequence[list[str]]) -> None:
    """Reject lists that say for each label whether it is there: the names of the labels are not in them."""
    lengths = set(map(len, given))
    if len(lengths) == 1 and max(lengths) > 1 and {label for labels in given for label in labels} <= {"0", "1"}:
        row = train.rows[0]
        raise MinibertError(
            f"{row.place} must have a list of the names of its labels, not of zeros and ones, "
            f"{short(row.values['label'])}; pass [name for name, there in zip(names, row) if there]"
        )


def _named(labels: Sequence[str], task: Task) -> list[str]:
    """Labels for a task, checked."""
    given = [labels] if isinstance(labels, str) else list(labels)
    missing = sorted(set(task.labels) - set(given))
    if missing or len(set(given)) < len(given) or not all(isinstance(label, str) and label for label in given):
        what = f"lack {short(missing[0])}, which rows have" if missing else "have an empty one or one twice"
        raise MinibertError(f"labels ({short(given)}) must be all labels, each once; they {what}")
    return given


def _counts(names: Sequence[str], labels: Iterable[str]) -> str:
    """Labels with their counts, the first ten of them."""
    counts = Counter(labels)
    shown = ", ".join(f"{name[:40]} ({counts[name]:,})" for name in names[:10])
    return f"{counted(len(names), 'label')}: {shown}{', ...' if len(names) > 10 else ''}"


def _range(numbers: Sequence[float]) -> str:
    return f"a number from {min(numbers):g} to {max(numbers):g}"


def _is_fraction(label: str | float) -> bool:
    """Whether a number is written with a decimal point."""
    return not label.lstrip("+-").isdecimal() if isinstance(label, str) else not isinstance(label, Integral)


def as_bio(labels: Sequence[str]) -> list[str]:
    """Labels in which the first word of every entity is "B-"; other schemes stay what they are."""
    found = list(labels)
    for i, label in enumerate(labels):
        if label.startswith("I-") and (i == 0 or labels[i - 1] not in ("B" + label[1:], label)):
            found[i] = "B" + label[1:]
    return found


def _words(row: Row) -> tuple[list[str], list[str]]:
    """The words of a sentence and their labels."""
    for name in ("words", "labels"):
        if not isinstance(row.values[name], (list, tuple)):
            raise MinibertError(
                f"{row.place} must have a list in {name!r}, not {short(row.values[name])}; use a CoNLL file, .jsonl or "
                ".parquet"
            )
    words, labels = (list(row.values[name]) for name in ("words", "labels"))
    if not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise MinibertError(f"{row.place} must have words, each a text, not {short(words)}; remove such rows")
    if len(labels) != len(words) or not all(isinstance(label, str) and label for label in labels):
        raise MinibertError(
            f"{row.place} must have a label for each of {len(words)} words, each a text, not {short(labels)}; fix it"
        )
    return words, as_bio(labels)


def _piece_starts(bert: Bert, words: Sequence[str]) -> dict[int, int]:
    """Where the first piece of each word begins, by the word's number; words without a piece have none."""
    text, begins = " ".join(words), _begins(words)
    found: dict[int, int] = {}
    for start, end in bert.tokenizer.backend.encode(text, add_special_tokens=False).offsets:
        while start < end and text[start].isspace():  # of tokenizers whose pieces begin with the space
            start += 1
        found.setdefault(int(np.searchsorted(begins, end, side="left")) - 1, start)
    return found


def _begins(words: Sequence[str]) -> list[int]:
    """Where words begin in the text in which a space joins them."""
    ends = np.cumsum([len(word) + 1 for word in words])
    return [0, *ends[:-1].tolist()]


def _texts(data: Data) -> list[Any]:
    """Texts, or pairs of texts; all rows are one or the other."""
    paired = "text_pair" in data.rows[0].values
    for row in data.rows:
        if ("text_pair" in row.values) != paired:
            raise MinibertError(f"{row.place} must have a second text if, and only if, the first row has one; fix it")
    return [(row.text("text"), row.text("text_pair")) if paired else row.text("text") for row in data.rows]


def _labelled(bert: Bert, texts: list[Any], labels: Sequence[Any]) -> tuple[list[Example], dict[int, int]]:
    rows = rows_of(bert.tokenizer, texts, bert.max_seq_length)
    if rows.types and bert.config.type_vocab_size < 2 and any(own.any() for own in rows.types):
        raise MinibertError(
            f"type_vocab_size ({bert.config.type_vocab_size}) must be at least 2 for pairs of texts; choose another "
            "model"
        )
    types: Sequence[Any] = rows.types or [None] * len(rows.ids)
    made = zip(rows.ids, labels, types, strict=True)
    return [Example((ids,), label, () if own is None else (own,)) for ids, label, own in made], rows.lost


def _compared(bert: Bert, columns: Sequence[list[str]], labels: Sequence[Any]) -> tuple[list[Example], dict[int, int]]:
    """An example for each row of columns of texts."""
    row_maker = RowMaker(bert.tokenizer, bert.max_seq_length, "warn")
    lost: dict[int, int] = {}
    ids = []
    for column in columns:
        rows: Rows = token_rows(bert.tokenizer, [bert.recipe.prompt + text for text in column], row_maker)
        for number, tokens in rows.lost.items():
            lost[number] = lost.get(number, 0) + tokens
        ids.append(rows.ids)
    return [Example(tuple(own), label) for own, label in zip(zip(*ids, strict=True), labels, strict=True)], lost


def _answers(row: Row) -> list[tuple[str, int]]:
    """The right answers to a question, each with the place in its context where it begins."""
    given, context = row.values["answers"], row.text("context")
    try:
        if isinstance(given, Mapping):  # as the library `datasets` has them
            given = [dict(zip(given, own, strict=True)) for own in zip(*given.values(), strict=True)]
        found = [(answer["text"], as_number(answer["answer_start"])) for answer in given]
    except (KeyError, TypeError, ValueError):
        raise MinibertError(
            f"{row.place} must have a list of answers, each with text and answer_start, not {short(given)}; correct it"
        ) from None
    pairs = zip(given, found, strict=True)
    kept = [(asked, text, start) for asked, (text, start) in pairs if text not in ("", None) and start != -1]
    for asked, text, start in kept:  # without those that stand for "no answer"
        if start is None or start < 0 or start != int(start):
            raise MinibertError(
                f"{row.place} must have an answer_start that is a whole number of at least 0, not "
                f"{short(asked['answer_start'])}; correct it"
            )
        if not isinstance(text, str) or not context.startswith(text, int(start)):
            raise MinibertError(
                f"{row.place} must have its answer ({short(text)}) at {int(start)} of its context; correct answer_start"
            )
    return [(text, int(start)) for _, text, start in kept if start is not None]


def _token_span(row: Row, offsets: Any) -> tuple[int, int]:
    """The first and the last token of a question's first answer; (0, -1) if there is none."""
    answers = _answers(row)
    if not answers:
        return 0, -1
    text, start = answers[0]
    inside = np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < start + len(text)))
    return (int(inside[0]), int(inside[-1])) if len(inside) else (0, -1)
