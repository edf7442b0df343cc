"""Rows from every kind of file and from dicts, and what is said of those that cannot be learned from."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from minibert.errors import MinibertError
from minibert.training.data import read, read_conll, read_squad
from minibert.training.finetune import read_rows
from minibert.training.tasks import Tag

ROWS = [{"text": 'He said "no".', "label": "a"}, {"text": "Straße, one", "label": "b"}]
COLUMNS = {"text": "text", "label": "label"}


def as_csv(path: Path, delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting, quotechar=None if delimiter == "\t" else '"')
        writer.writerow(ROWS[0])
        writer.writerows(row.values() for row in ROWS)


WRITERS: dict[str, Callable[[Path], Any]] = {
    ".csv": as_csv,
    ".tsv": lambda path: as_csv(path, "\t"),
    ".jsonl": lambda path: path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8"),
    ".parquet": lambda path: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_the_same_rows_come_from_every_kind_of_file_and_from_dicts(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"train{suffix}"
    WRITERS[suffix](path)
    found = read("train", path, COLUMNS)
    assert [row.values for row in found.rows] == ROWS
    assert [row.values for row in read("train", iter(ROWS), COLUMNS).rows] == ROWS
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.title == path.name


def test_columns_may_have_other_names_and_optional_ones_may_be_absent() -> None:
    rows = [{"question": "q", "answer": "a", "no": None}, {"question": "r", "answer": "b", "no": "x"}]
    columns = {"anchor": "question", "positive": "answer", "negative": "no"}
    found = read("train", rows, columns, ["negative"])
    assert [row.values for row in found.rows] == [
        {"anchor": "q", "positive": "a"},
        {"anchor": "r", "positive": "b", "negative": "x"},
    ]


@pytest.mark.parametrize("table", [pandas.DataFrame(ROWS), pyarrow.Table.from_pylist(ROWS)], ids=["pandas", "arrow"])
def test_tables_are_rows(table: Any) -> None:
    assert [row.values for row in read("train", table, COLUMNS).rows] == ROWS


def test_digests_of_dicts_tell_other_rows() -> None:
    digests = {read("train", rows, COLUMNS).digest for rows in (ROWS, ROWS[::-1], ROWS[:1], list(map(dict, ROWS)))}
    assert len(digests) == 3


def test_conll_files_are_read_as_published(tmp_path: Path) -> None:
    path = tmp_path / "train.conll"
    path.write_text(
        "-DOCSTART- -X- O O\n\nU.N. NNP I-NP I-ORG\nofficial NN I-NP O\n\t\n\n#tag NN I-NP O\n", encoding="utf-8"
    )
    expected = [
        (3, {"words": ["U.N.", "official"], "labels": ["I-ORG", "O"]}),
        (7, {"words": ["#tag"], "labels": ["O"]}),
    ]
    found = [(place, {name: own[name] for name in ("words", "labels")}) for place, own in read_conll(str(path))]
    assert found == [(f"{path}, line {line},", values) for line, values in expected]


CONLL: list[tuple[str, str, dict[str, list[str]]]] = [
    (
        "comments",
        "# id a1\n#\thttp://x.org [2005]\nAnna\tB-X\nsat\tO\n",
        {"words": ["Anna", "sat"], "labels": ["B-X", "O"]},
    ),
    ("hash", "# O\nAnna B-X\nsat O\n", {"words": ["#", "Anna", "sat"], "labels": ["O", "B-X", "O"]}),
    ("inner hash", "Anna B-X\n# O\nsat O\n", {"words": ["Anna", "#", "sat"], "labels": ["B-X", "O", "O"]}),
    ("tabs", "New York\tB-X\nsat\tO\n", {"words": ["New York", "sat"], "labels": ["B-X", "O"]}),
]


@pytest.mark.parametrize(("name", "content", "expected"), CONLL, ids=[name for name, *_ in CONLL])
def test_comments_and_tabs_of_conll_files(
    name: str, content: str, expected: dict[str, list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "train.conll"
    path.write_text(content, encoding="utf-8")
    ((_, found),) = read_conll(str(path))
    assert {name: found[name] for name in expected} == expected


GERMEVAL = "#\tn-tv.de vom 26.02.2005\n1\tAnna\tB-PER\tO\n2\tsat\tO\tO\n\n1\tRom\tB-LOC\tO\n2\tist\tO\tO\n"


def test_columns_of_a_conll_file_are_chosen_by_number(tmp_path: Path) -> None:
    path = tmp_path / "train.conll"
    path.write_text(GERMEVAL, encoding="utf-8")
    rows = read_rows("train", path, "tokens", {"words": "2", "labels": "3"})
    assert [row.values for row in rows.rows] == [
        {"words": ["Anna", "sat"], "labels": ["B-PER", "O"]},
        {"words": ["Rom", "ist"], "labels": ["B-LOC", "O"]},
    ]
    with pytest.raises(MinibertError, match="must be words, not numbers from 1 on; choose the column of words"):
        Tag.learned(read_rows("train", path, "tokens", None))
    with pytest.raises(MinibertError, match="must have the column '7'"):
        read_rows("train", path, "tokens", {"words": "7"})


def test_a_readme_is_no_conll_file() -> None:
    with pytest.raises(MinibertError, match=r"README.md, line \d+, must have (a word and a label|\d+ columns)"):
        read_rows("train", Path(__file__).parents[2] / "README.md", "tokens", None)


def test_pandas_reads_and_writes_the_same_tsv(tmp_path: Path) -> None:
    texts = ['say "hi"', "plain", '"', '"quoted"', '""', 'a "" b']
    frame = pandas.DataFrame({"text": texts, "label": ["a"] * len(texts)})
    frame.to_csv(tmp_path / "train.tsv", sep="\t", index=False)
    assert [row.values["text"] for row in read("train", tmp_path / "train.tsv", COLUMNS).rows] == texts


def test_every_sentence_of_wnut17_is_read(evaldata: Path) -> None:
    found = [record for _, record in read_conll(str(evaldata / "wnut17" / "wnut17train.conll"))]
    assert len(found) == 3394  # as the README of the data set says
    assert sum(len(record["words"]) for record in found) == 62730


def test_every_question_of_a_file_in_squads_format_is_read(evaldata: Path, tmp_path: Path) -> None:
    found = [record for _, record in read_squad(str(evaldata / "qa" / "xquad.en.json"))]
    assert len(found) == 1190
    for record in found:
        for answer in record["answers"]:
            start = answer["answer_start"]
            assert record["context"][start : start + len(answer["text"])] == answer["text"]
    path = tmp_path / "train.json"
    asked = {"question": "q", "id": "7", "answers": [{"text": "c", "answer_start": 0}], "is_impossible": True}
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "c", "qas": [asked]}]}]}))
    assert [record["answers"] for _, record in read_squad(str(path))] == [[]]


WRONG: list[tuple[Any, str]] = [
    ([], "must have at least one row"),
    ([{"text": "a"}], r"train, row 0, must have the column 'label'; it has 'text'"),
    (["a"], "must be a dict of columns"),
    (3, "must be a file or dicts"),
    ({"text": "a", "label": "b"}, r"train \(dict\) must be a file, a table or dicts, one for each row"),
    ("absent.csv", "must be a file that exists"),
]


@pytest.mark.parametrize(("rows", "message"), WRONG, ids=[message[:20] for _, message in WRONG])
def test_what_holds_no_rows_is_one_sentence(rows: Any, message: str) -> None:
    with pytest.raises((MinibertError, FileNotFoundError), match=message):
        read("train", rows, COLUMNS)


BROKEN: list[tuple[str, bytes, str]] = [
    ("a.csv", b"text,label\na,b\nc\n", "a.csv, line 3, must have 2 values, like the header, but it has 1"),
    ("a.csv", b'text,label\n"a,b\n', "a.csv, line 2, must be valid CSV"),
    ("a.csv", b"text,label\n\xff,b\n", "a.csv, line 2, must be UTF-8"),
    ("a.csv", b"text\na\n", "a.csv, line 2, must have the column 'label'; it has 'text'"),
    ("a.csv", b"text,label,text\na,b,c\n", "a.csv, line 1, must name each column once, but names 'text' twice"),
    ("a.conll", b"word\tlabel\nAnna\tO\n", r"a.conll, line 1, must be a word and its label, not the names of columns"),
    ("a.conll", b"Anna\tO\nsat\tX\tO\ndown\tO\n", "a.conll, line 2, must have 2 columns, like most lines, not 3"),
    ("a.csv", b"", r"train \(a.csv\) must have at least one row"),
    ("a.jsonl", b'{"text": "a", "label": "b"}\n\n{"text": \n', "a.jsonl, line 3, must be valid JSON"),
    ("a.jsonl", b'["a"]\n', r"a.jsonl, line 1, must be a JSON object, not \['a'\]"),
    ("a.parquet", b"PAR", "a.parquet must be valid Parquet"),
    ("a.conll", b"a b\nword\n", "a.conll, line 2, must have a word and a label, not 'word'"),
    ("a.json", b"{", "a.json must be valid JSON"),
    ("b.json", b'{"data": [{}]}', r"b.json must be JSON in SQuAD's format \(KeyError\('paragraphs'\)\)"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_one_sentence_with_the_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MinibertError, match=message) as told:
        read("train", path, COLUMNS, formats={".conll": read_conll, ".json": read_squad})
    assert "\n" not in str(told.value)


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbftext,label\r\n\r\n"two\nlines",b\r\n')
    assert [row.values for row in read("train", path, COLUMNS).rows] == [{"text": "two\nlines", "label": "b"}]


def test_an_unknown_kind_of_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.xlsx"
    path.touch()
    with pytest.raises(MinibertError, match=r"must end in one of \.csv, \.tsv, \.jsonl, \.parquet"):
        read("train", path, COLUMNS)


@pytest.mark.parametrize("value", ["", "  ", None, 3, ["a"]])
def test_a_row_without_text_is_named(value: Any) -> None:
    row = read("dev", [*ROWS, {"text": value, "label": "a"}], COLUMNS).rows[2]
    with pytest.raises(MinibertError, match="dev, row 2, must have a text in 'text'"):
        row.text("text")


@pytest.mark.parametrize(("value", "number"), [("0.5", 0.5), (1, 1.0), ("-1e-1", -0.1)])
def test_numbers_may_be_written(value: Any, number: float) -> None:
    assert read("train", [{"text": "a", "label": value}], COLUMNS).rows[0].number("label") == number


@pytest.mark.parametrize("value", ["", "two", "nan", "inf", True, 1.5, None])
def test_what_is_no_number_within_the_limits_is_named(value: Any) -> None:
    row = read("train", [{"text": "a", "label": value}], COLUMNS).rows[0]
    with pytest.raises(MinibertError, match="must have a number from 0 to 1 in 'label'"):
        row.number("label", 0, 1)
