"""The scikit-learn transformer: the vectors are those of sentence-transformers, the manners those of scikit-learn."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from oracle import assert_same_vectors, with_real_vocabulary
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

import minibert

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MultiLabelBinarizer
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.validation import check_is_fitted, validate_data

from minibert.integrations.sklearn import BertClassifier, BertRegressor, BertVectorizer

TEXTS = ["How do I reset my password?", "Where is my parcel?", "", "un-American embeddings — café", "one"]
LETTERS = [f"{what} {thing}" for what in ("I lost my", "please replace the", "someone stole my") for thing in (
    "card", "key", "phone", "parcel", "letter", "delivery")]  # fmt: skip
LABELS = [int(text.split()[-1] in ("parcel", "letter", "delivery")) for text in LETTERS]
ROOT = Path(minibert.__file__).parent.parent


@pytest.fixture(scope="module")
def theirs(minilm: Path) -> np.ndarray:
    return SentenceTransformer(str(minilm)).encode(TEXTS)


# Vectors


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda texts: np.array(texts, dtype=object), iter])
def test_the_vectors_are_those_of_sentence_transformers(minilm: Path, theirs: np.ndarray, kind: Any) -> None:
    vectors = BertVectorizer(str(minilm)).fit_transform(kind(TEXTS))
    assert vectors.dtype == np.float32
    assert_same_vectors(vectors, theirs)


@pytest.mark.slow
def test_settings_are_those_of_encode(minilm: Path, theirs: np.ndarray) -> None:
    short = BertVectorizer(minilm, truncate_dim=64, normalize=True, batch_tokens=32).fit_transform(TEXTS)
    expected = theirs[:, :64] / np.linalg.norm(theirs[:, :64], axis=1, keepdims=True)
    assert_same_vectors(short, expected)
    body = modules.Transformer(str(minilm))
    pooled = SentenceTransformer(modules=[body, modules.Pooling(384, "cls"), modules.Normalize()], device="cpu")
    assert_same_vectors(BertVectorizer(minilm, pooling="cls").fit_transform(TEXTS), pooled.encode(TEXTS))
    asked = BertVectorizer(minilm, prompt="query: ").fit_transform(TEXTS)
    assert_same_vectors(asked, SentenceTransformer(str(minilm)).encode(TEXTS, prompt="query: "))
    assert BertVectorizer(minilm, layers=[-1, -2], combine="concat").fit_transform(TEXTS).shape == (5, 768)
    with pytest.raises(ValueError, match=r"^text 0 has \d+ tokens, but must have at most 256; split it, or"):
        BertVectorizer(minilm, truncation="error").fit_transform(["word " * 300])


def test_a_bert_is_taken_as_it_is(minilm: Path, theirs: np.ndarray) -> None:
    bert = minibert.load(minilm)
    vectorizer = BertVectorizer(bert).fit()
    assert vectorizer.bert_ is bert
    assert clone(vectorizer).model is bert
    assert_same_vectors(vectorizer.transform(TEXTS), theirs)
    with pytest.raises(ValueError, match=r"^dtype \('bfloat16'\) must be None where model is a Bert; pass it to"):
        BertVectorizer(bert, dtype="bfloat16").fit(TEXTS)


def test_a_dtype_may_be_a_name(minilm: Path) -> None:
    assert str(BertVectorizer(minilm, dtype="bfloat16").fit().bert_.model.dtype) == "torch.bfloat16"


def test_no_texts_give_no_rows(minilm: Path) -> None:
    assert BertVectorizer(minilm).fit_transform([]).shape == (0, 384)


# The manners of scikit-learn

IN_FLOAT32 = "equal to 1e-7 is more than float32 holds after layers of it; vectors are equal to 1e-6 of their length"
MAY_FAIL = {"check_methods_sample_order_invariance": IN_FLOAT32, "check_methods_subset_invariance": IN_FLOAT32}


class OfNumbers(BertVectorizer):
    """Rows of numbers written out as texts: most of scikit-learn's checks make up numbers, and run for nothing else."""

    def fit(self, X: Any = None, y: Any = None) -> Any:  # noqa: N803
        return super().fit(self._written(X, reset=True), y)

    def transform(self, X: Any) -> Any:  # noqa: N803
        check_is_fitted(self)
        return super().transform(self._written(X, reset=False))

    def _written(self, numbers: Any, reset: bool) -> list[str]:
        return [" ".join(f"{number:.2f}" for number in row) for row in validate_data(self, numbers, reset=reset)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True
        return tags


def failures(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {result["check_name"]: result["exception"] for result in results if result["status"] == "failed"}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_checks_an_estimator_of_texts_and_finds_no_fault(minilm: Path) -> None:
    assert failures(estimator_checks.check_estimator(BertVectorizer(str(minilm)), on_fail=None)) == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_all_checks_of_scikit_learn_pass_on_numbers_written_as_texts(minilm: Path, tmp_path: Path) -> None:
    vectorizer = OfNumbers(str(with_real_vocabulary(tmp_path, minilm)))
    results = estimator_checks.check_estimator(vectorizer, expected_failed_checks=MAY_FAIL, on_fail=None)
    assert failures(results) == {}
    assert {result["check_name"] for result in results if result["status"] == "xfail"} <= set(MAY_FAIL)
    assert sum(result["status"] == "passed" for result in results) >= 40


@pytest.mark.parametrize("check", [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
    estimator_checks.check_mixin_order,
    estimator_checks.check_transformer_get_feature_names_out,
], ids=lambda check: check.__name__)  # fmt: skip
def test_the_checks_that_need_no_table_of_numbers_pass_one_by_one(minilm: Path, check: Any) -> None:
    check("BertVectorizer", BertVectorizer(str(minilm)))


def test_tags_say_that_texts_are_wanted(minilm: Path) -> None:
    tags = get_tags(BertVectorizer(minilm))
    assert tags.input_tags.string
    assert tags.input_tags.one_d_array
    assert not tags.input_tags.two_d_array
    assert tags.transformer_tags.preserves_dtype == []  # float32, whatever comes in
    assert tags.estimator_type is None  # neither a classifier nor a regressor
    assert not tags.target_tags.required


def test_fit_learns_nothing_and_changes_no_parameter(minilm: Path) -> None:
    vectorizer = BertVectorizer(minilm, layers=[-1], pooling=("mean", "max"))
    before = dict(vectorizer.get_params())
    one = vectorizer.fit(TEXTS).transform(LETTERS)
    assert vectorizer.get_params() == before
    assert np.array_equal(vectorizer.fit(LETTERS).transform(LETTERS), one)
    assert vectorizer.fit(TEXTS) is vectorizer


def test_before_fit_there_is_nothing_to_use(minilm: Path) -> None:
    for use in ("transform", "get_feature_names_out"):
        with pytest.raises(NotFittedError):
            getattr(BertVectorizer(minilm), use)(TEXTS)
    assert not hasattr(BertVectorizer(minilm), "bert_")


def test_names_of_the_numbers(minilm: Path) -> None:
    names = BertVectorizer(minilm, truncate_dim=3).fit(TEXTS).get_feature_names_out()
    assert names.tolist() == ["bertvectorizer0", "bertvectorizer1", "bertvectorizer2"]


def test_a_table_comes_out_where_one_is_wanted(minilm: Path, theirs: np.ndarray) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    column = pandas.Series(TEXTS, index=list("abcde"), name="question")
    vectorizer = BertVectorizer(minilm, truncate_dim=8).set_output(transform="pandas")
    for table in (vectorizer.fit_transform(column), clone(vectorizer).fit(column).transform(column)):
        assert isinstance(table, pandas.DataFrame)
        assert list(table.index) == list("abcde")
        assert table.columns[0] == "bertvectorizer0"
        assert_same_vectors(table.to_numpy(), theirs[:, :8], 1e-5)
    frame = pandas.DataFrame({"question": column, "words": [5, 4, 0, 3, 1]})
    both = ColumnTransformer([("text", BertVectorizer(minilm), "question")], remainder="passthrough")
    assert both.fit_transform(frame).shape == (5, 385)
    with pytest.raises(ValueError, match=r"^X \(DataFrame, 5 x 1\) must have one dimension, a text each; pass one col"):
        ColumnTransformer([("text", BertVectorizer(minilm), ["question"])]).fit_transform(frame)
    with pytest.raises(ValueError, match=r"^X\[1\] \(None\) must be str, not NoneType; fill in what is missing, X.fil"):
        BertVectorizer(minilm).fit(pandas.Series(["one", None], dtype=object))


def test_a_column_of_texts_beside_others(minilm: Path, theirs: np.ndarray) -> None:
    table = np.array([[text, len(text)] for text in TEXTS], dtype=object)
    both = ColumnTransformer([("text", BertVectorizer(minilm), 0), ("length", "passthrough", [1])])
    made = both.fit_transform(table)
    assert made.shape == (5, 385)
    assert_same_vectors(made[:, :384].astype(np.float32), theirs)
    with pytest.raises(minibert.MinibertError, match=r"^X \(ndarray, 5 x 1\)"):
        ColumnTransformer([("text", BertVectorizer(minilm), [0])]).fit_transform(table)


def test_a_classifier_learns_from_vectors(minilm: Path) -> None:
    pipeline = make_pipeline(BertVectorizer(minilm), LogisticRegression(C=100.0))
    assert cross_val_score(pipeline, LETTERS, LABELS, cv=3).mean() > 0.8
    assert pipeline.fit(LETTERS, LABELS).predict(["they lost a package", "they lost a credit card"]).tolist() == [1, 0]


@pytest.mark.slow
def test_pooling_is_searched_for(minilm: Path) -> None:
    pipeline = make_pipeline(BertVectorizer(minilm), LogisticRegression())
    grid = {"bertvectorizer__pooling": ["mean", "cls", ("mean", "max")], "bertvectorizer__layers": [None, -2]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(LETTERS, LABELS)
    assert len(search.cv_results_["params"]) == 6
    assert search.predict(LETTERS).shape == (18,)
    shared = GridSearchCV(make_pipeline(BertVectorizer(minibert.load(minilm)), LogisticRegression()), grid, cv=2)
    assert shared.fit(LETTERS, LABELS).best_params_ == search.best_params_


@pytest.mark.slow
def test_a_pickle_holds_the_name_or_the_model(minilm: Path, theirs: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(minilm, folder)
    named, whole = BertVectorizer(str(folder)).fit(), BertVectorizer(minibert.load(folder)).fit()
    small, large = pickle.dumps(named), pickle.dumps(whole)
    assert len(small) < 2_000
    assert len(large) > 80_000_000
    assert_same_vectors(pickle.loads(small).transform(TEXTS), theirs)
    shutil.rmtree(folder)
    assert_same_vectors(pickle.loads(large).transform(TEXTS), theirs)
    with pytest.raises(FileNotFoundError):
        pickle.loads(small).transform(TEXTS)


# The checkpoint's own head

NAMES = {0: "travel", 1: "bank", 2: "post"}  # not sorted


def classifier(folder: Path, minilm: Path, **config: Any) -> Path:
    labels = {} if "num_labels" in config else {"id2label": NAMES}
    torch.manual_seed(12)  # each label is predicted for some texts
    return with_real_vocabulary(folder, minilm, "BertForSequenceClassification", **labels, **config)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    return classifier(tmp_path_factory.mktemp("classifier"), minilm)


def pipeline_scores(folder: Path, texts: list[str]) -> list[dict[str, float]]:
    """The score of each label, as transformers' pipeline gives it."""
    pipeline = transformers.pipeline("text-classification", str(folder), device="cpu", top_k=None)
    return [{label["label"]: label["score"] for label in labels} for labels in pipeline(texts)]


@pytest.mark.parametrize("kind", [list, np.array, iter])
def test_predictions_are_those_of_transformers_pipeline(head: Path, kind: Any) -> None:
    estimator = BertClassifier(str(head), batch_tokens=64).fit(LETTERS)
    assert estimator.classes_.tolist() == ["bank", "post", "travel"]
    expected = pipeline_scores(head, LETTERS)
    probabilities = estimator.predict_proba(kind(LETTERS))
    np.testing.assert_allclose(
        probabilities, [[one[name] for name in estimator.classes_] for one in expected], atol=1e-5
    )
    best = [max(one, key=one.__getitem__) for one in expected]
    assert estimator.predict(kind(LETTERS)).tolist() == best
    assert set(best) == set(NAMES.values())
    assert estimator.score(LETTERS, best) == 1.0
    assert estimator.predict([]).shape == (0,)


def test_metrics_read_the_columns_of_probabilities_right(head: Path) -> None:
    estimator = BertClassifier(head).fit()
    best = estimator.predict(LETTERS)
    losses = cross_val_score(estimator, LETTERS, best, cv=2, scoring="neg_log_loss")
    expected = pipeline_scores(head, LETTERS)
    loss = -np.mean([np.log(one[name]) for one, name in zip(expected, best, strict=True)])
    assert log_loss(best, estimator.predict_proba(LETTERS), labels=estimator.classes_) == pytest.approx(loss, rel=1e-4)
    assert -losses.mean() == pytest.approx(loss, rel=1e-4)  # two folds of nine texts


def test_a_classifier_goes_where_scikit_learns_go(head: Path) -> None:
    assert is_classifier(BertClassifier(head))
    best = BertClassifier(head).fit().predict(LETTERS)
    assert cross_val_score(BertClassifier(head), LETTERS, best, cv=2).tolist() == [1.0, 1.0]
    guessed = cross_val_predict(BertClassifier(minibert.load(head)), LETTERS, best, cv=2, method="predict_proba")
    np.testing.assert_allclose(guessed, BertClassifier(head).fit().predict_proba(LETTERS), atol=1e-5)
    upper = FunctionTransformer(lambda texts: [text.upper() for text in texts])
    pipeline = make_pipeline(upper, BertClassifier(head)).fit(LETTERS, best)
    assert pipeline.predict(LETTERS).tolist() == best.tolist()  # an uncased vocabulary
    assert pipeline.classes_.tolist() == ["bank", "post", "travel"]
    search = GridSearchCV(BertClassifier(head), {"batch_tokens": [64, None]}, cv=2, error_score="raise")
    assert search.fit(LETTERS, best).best_score_ == 1.0


def test_fit_trains_nothing(head: Path) -> None:
    bert = minibert.load(head)
    before = {name: value.clone() for name, value in bert.model.state_dict().items()}
    estimator = BertClassifier(bert)
    with pytest.raises(NotFittedError):
        estimator.predict(LETTERS)
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)
    assert estimator.fit(LETTERS, ["bank"] * len(LETTERS)) is estimator
    check_is_fitted(estimator)
    assert all(value.equal(before[name]) for name, value in bert.model.state_dict().items())
    assert not hasattr(clone(estimator), "classes_")
    assert clone(estimator).model is bert


@pytest.mark.parametrize("kind", [BertClassifier, BertRegressor])
def test_a_pickled_estimator_predicts_the_same(tmp_path: Path, minilm: Path, head: Path, kind: Any) -> None:
    if kind is BertRegressor:
        head = classifier(tmp_path, minilm, num_labels=1, problem_type="regression")
    named = kind(str(head)).fit()
    content = pickle.dumps(named)
    assert len(content) < 2_000
    for again in (pickle.loads(content), pickle.loads(pickle.dumps(kind(minibert.load(head)).fit()))):
        method = "predict" if kind is BertRegressor else "predict_proba"
        np.testing.assert_allclose(getattr(again, method)(LETTERS), getattr(named, method)(LETTERS), atol=1e-5)


def test_several_labels_are_in_scikit_learns_multilabel_format(tmp_path: Path, minilm: Path) -> None:
    folder = classifier(tmp_path, minilm, problem_type="multi_label_classification")
    estimator = BertClassifier(folder).fit()
    assert estimator.multilabel_
    expected = pipeline_scores(folder, LETTERS)
    binarizer = MultiLabelBinarizer()
    truth = binarizer.fit_transform([[name for name, score in one.items() if score > 0.5] for one in expected])
    assert binarizer.classes_.tolist() == estimator.classes_.tolist()
    assert 0 < truth.sum() < truth.size
    assert estimator.predict(LETTERS).tolist() == truth.tolist()
    scores = [[one[name] for name in binarizer.classes_] for one in expected]
    np.testing.assert_allclose(estimator.predict_proba(LETTERS), scores, atol=1e-5)
    assert cross_val_score(BertClassifier(folder), LETTERS, truth, cv=2, scoring="f1_micro").tolist() == [1.0, 1.0]


def test_one_probability_is_a_single_label_that_applies_or_not(tmp_path: Path, minilm: Path) -> None:
    folder = classifier(tmp_path, minilm, num_labels=1)
    estimator = BertClassifier(folder).fit()
    expected = np.array([[one["LABEL_0"]] for one in pipeline_scores(folder, LETTERS)])
    np.testing.assert_allclose(estimator.predict_proba(LETTERS), expected, atol=1e-5)
    assert estimator.predict(LETTERS).tolist() == (expected > 0.5).astype(int).tolist()


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regression_predicts_numbers(tmp_path: Path, minilm: Path, outputs: int) -> None:
    folder = classifier(tmp_path, minilm, num_labels=outputs, problem_type="regression")
    estimator = BertRegressor(folder).fit(LETTERS)
    expected = np.array([[one[f"LABEL_{i}"] for i in range(outputs)] for one in pipeline_scores(folder, LETTERS)])
    expected = expected[:, 0] if outputs == 1 else expected
    np.testing.assert_allclose(estimator.predict(LETTERS), expected, atol=1e-4)
    noisy = expected + np.random.default_rng(0).normal(size=expected.shape)
    assert estimator.score(LETTERS, noisy) == pytest.approx(r2_score(noisy, expected), abs=1e-4)
    assert cross_val_score(BertRegressor(folder), LETTERS, expected, cv=2).tolist() == pytest.approx([1.0, 1.0])
    assert is_regressor(estimator)


@pytest.mark.parametrize("kind", [BertClassifier, BertRegressor])
@pytest.mark.parametrize("check", [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
    estimator_checks.check_mixin_order,
], ids=lambda check: check.__name__)  # fmt: skip
def test_the_checks_of_scikit_learn_pass_for_heads(head: Path, kind: Any, check: Any) -> None:
    check(kind.__name__, kind(str(head)))


def test_heads_that_do_not_fit_are_refused(tmp_path: Path, minilm: Path, head: Path) -> None:
    regression = classifier(tmp_path, minilm, num_labels=1, problem_type="regression")
    with pytest.raises(
        minibert.MinibertError, match=r"\(regression\) must not be 'regression' for BertClassifier; use B"
    ):
        BertClassifier(regression).fit()
    with pytest.raises(minibert.MinibertError, match="must be 'regression' for BertRegressor; use BertClassifier"):
        BertRegressor(head).fit()
    with pytest.raises(minibert.MinibertError, match="must be a BertForSequenceClassification"):
        BertClassifier(minilm).fit()
    with pytest.raises(minibert.MinibertError, match="truncation"):
        BertClassifier(head, truncation="window").fit()
    with pytest.raises(minibert.MinibertError, match=re.escape("X ('one text') must be several texts")):
        BertClassifier(head).fit().predict("one text")


# What cannot be


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "X ('one text') must be several texts, not str; pass a list of them"),
        (7, "X (7)"),
        ({"a": 1}, "X ({'a': 1})"),
        (["one", None], "X[1] (None) must be str, not NoneType; fill in what is missing"),
        (["one", float("nan")], "X[1] (nan) must be str, not float; fill in what is missing"),
        (np.zeros(3), "X[0] (0.0)"),
        (np.array([["one"], ["two"]]), "X (ndarray, 2 x 1)"),
        (np.array("one"), "X (ndarray, a single value)"),
    ],
    ids=str,
)
def test_what_is_no_list_of_texts_is_refused(minilm: Path, texts: Any, message: str) -> None:
    vectorizer = BertVectorizer(minilm).fit(TEXTS)
    for method in (vectorizer.fit, vectorizer.transform):
        with pytest.raises(minibert.MinibertError, match=re.escape(message)):
            method(texts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": ""}, "model ('')"),
        ({"model": None}, "model (None)"),
        ({"pooling": "best"}, "pooling mode ('best') must be one of"),
        ({"layers": 9}, "layers (9)"),
        ({"combine": "x"}, "combine ('x')"),
        ({"truncate_dim": 999}, "truncate_dim (999)"),
        ({"truncation": "cut"}, "truncation ('cut')"),
        ({"prompt_name": "passage"}, "prompt_name ('passage')"),
        ({"batch_tokens": -1}, "batch_tokens (-1)"),
        ({"dtype": "int3"}, "dtype ('int3')"),
        ({"device": "moon"}, "device (moon)"),
    ],
    ids=str,
)
def test_fit_refuses_settings_that_make_no_sense(minilm: Path, settings: dict[str, Any], message: str) -> None:
    vectorizer = BertVectorizer(**{"model": minilm, **settings})  # no sooner: scikit-learn wants it so
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        vectorizer.fit(TEXTS)


@pytest.mark.slow
def test_a_missing_scikit_learn_is_one_sentence() -> None:
    code = (
        "import sys; sys.modules['sklearn.base'] = sys.modules['sklearn'] = None; import minibert.integrations.sklearn"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: minibert.integrations.sklearn needs scikit-learn, which is not installed; "
        "pip install scikit-learn"
    )
