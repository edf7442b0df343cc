"""Text becomes rows: nothing lost, nothing across documents; vocabularies that transformers reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import minibert
from minibert.training import sequences
from minibert.training.sequences import Sequences, digest_of, lines_of, new_vocabulary, pieces, tokenized

BOOKS = ("gutenberg/pg1661_sherlock_holmes.txt", "books/pg345_dracula.txt")


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(3, 12))
def test_rows_hold_each_token_once_and_never_two_documents(sizes: list[int], length: int) -> None:
    tokens = np.arange(sum(sizes)) + 1000
    ends = np.cumsum(sizes).tolist()
    rows = Sequences(tokens, ends, length, 1, 2)
    document = np.repeat(np.arange(len(sizes)), sizes)
    assert all(row[0] == 1 and row[-1] == 2 and len(row) <= length for row in rows)
    inside = [row[1:-1] for row in rows]
    assert np.array_equal(np.concatenate([*inside, []]), tokens)
    assert all(len(set(document[row - 1000].tolist())) == 1 for row in inside)
    full = sum(size // (length - 2) for size in sizes)
    assert sum(len(row) == length for row in rows) == full


def test_a_slice_is_the_list_of_its_rows() -> None:
    rows = Sequences(np.arange(30), [30], 7, 1, 2)
    assert [row.tolist() for row in rows[1:3]] == [rows[1].tolist(), rows[2].tolist()]


def test_a_book_in_pieces_has_the_ids_of_the_whole_book(minilm: Path, evaldata: Path, tmp_path: Path) -> None:
    tokenizer = minibert.BertTokenizer.from_pretrained(minilm)
    paths = [evaldata / book for book in BOOKS]
    tokens, ends = tokenized((lines_of(path) for path in paths), "x", tokenizer, tmp_path / "tokens.bin")
    theirs = transformers.AutoTokenizer.from_pretrained(minilm)
    start = 0
    for path, end in zip(paths, ends, strict=True):
        text = path.read_text(encoding="utf-8-sig")
        assert np.array_equal(tokens[start:end], theirs(text, add_special_tokens=False, verbose=False).input_ids)
        start = end
    assert start == len(tokens)
    assert tokens.dtype == np.uint16


def test_the_file_is_used_again_unless_the_texts_or_the_tokenizer_are_others(minilm: Path, tmp_path: Path) -> None:
    tokenizer = minibert.BertTokenizer.from_pretrained(minilm)
    path = tmp_path / "tokens.bin"
    read = []

    def documents(text: str) -> list[list[str]]:
        read.append(text)
        return [[text]]

    def lazily(text: str):  # type: ignore[no-untyped-def]
        yield from documents(text)

    first, _ = tokenized(lazily("a dog"), "1", tokenizer, path)
    again, _ = tokenized(lazily("a cat"), "1", tokenizer, path)
    assert read == ["a dog"]
    assert first.tolist() == again.tolist()
    changed, _ = tokenized(lazily("a cat"), "2", tokenizer, path)
    assert changed.tolist() != first.tolist()
    cased = minibert.BertTokenizer(tokenizer.vocab, do_lower_case=False)
    tokenized(lazily("A Cat"), "2", cased, path)
    assert read == ["a dog", "a cat", "A Cat"]


def test_tokens_of_a_run_that_was_killed_are_not_taken_for_those_of_another(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = minibert.BertTokenizer.from_pretrained(minilm)
    path = tmp_path / "tokens.bin"
    first, _ = tokenized([["a dog"]], "1", tokenizer, path)
    expected = first.tolist()

    def dying(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sequences, "write_text", dying)
        with pytest.raises(KeyboardInterrupt):
            tokenized([["a cat"]], "2", tokenizer, path)
    again, _ = tokenized([["a dog"]], "1", tokenizer, path)
    assert again.tolist() == expected


def test_texts_without_words_are_refused(minilm: Path, tmp_path: Path) -> None:
    tokenizer = minibert.BertTokenizer.from_pretrained(minilm)
    with pytest.raises(minibert.MinibertError, match="no tokens"):
        tokenized([[" ", ""]], "x", tokenizer, tmp_path / "tokens.bin")


def test_files_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("café".encode("latin-1"))
    with pytest.raises(minibert.MinibertError, match=r"latin\.txt, line 1, must be UTF-8"):
        list(lines_of(path))


def test_the_digest_changes_with_any_byte_and_with_the_order(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("one"), b.write_text("two")
    digests = {digest_of([a, b]), digest_of([b, a]), digest_of([a])}
    b.write_text("twO")
    assert len(digests | {digest_of([a, b])}) == 4


def test_pieces_keep_all_lines() -> None:
    lines = ["x" * n for n in (10, 65_536, 3, 0, 65_530, 9)]
    found = list(pieces(lines))
    assert "\n".join(found).split("\n") == lines
    assert len(found) == 2


@pytest.mark.parametrize("space", [" ", "\r", "\t", "\u00a0"])
def test_a_line_as_long_as_a_book_is_cut_between_words(space: str, minilm: Path) -> None:
    line = space.join(f"word{n} naïve" for n in range(30_000))
    found = list(pieces([line, "end"]))
    assert len(found) > 4
    assert max(map(len, found)) <= 2**16 + 4
    assert "".join(found) == line + "\nend"
    tokenizer = minibert.BertTokenizer.from_pretrained(minilm)
    ids = [number for piece in found for number in tokenizer.encode(piece, add_special_tokens=False)]
    assert ids == tokenizer.encode(f"{line}\nend", add_special_tokens=False)


LANGUAGES = {
    "Hindi": "हिन्दी भाषा में कि की कु कू के कै को",
    "Thai": "ภาษาไทย กิน กี กุ กู แก โก",
    "German": "schön schon Bär Bar",
    "Vietnamese": "ma má mà mả mã mạ",
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("lower_case", [True, False])
def test_words_that_differ_in_marks_stay_different(language: str, lower_case: bool, tmp_path: Path) -> None:
    text = LANGUAGES[language]
    tokenizer = new_vocabulary(lambda: [text], 500, lower_case=lower_case)
    words = text.split()
    ids = [tuple(tokenizer.encode(word, add_special_tokens=False)) for word in words]
    assert len(set(ids)) == len(words)
    assert not any(tokenizer.unk_token_id in own for own in ids)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [tuple(own) for own in theirs(words, add_special_tokens=False).input_ids] == ids


def test_a_vocabulary_has_as_many_characters_as_the_text_asks_for() -> None:
    random = np.random.default_rng(0)
    characters = [chr(0x4E00 + n) for n in range(3_500)]
    weights = 1 / np.arange(1, 3_501)  # Zipf's law
    text = "".join(random.choice(characters, 200_000, p=weights / weights.sum()))
    tokenizer = new_vocabulary(lambda: [text], 5_000)
    ids = np.array(tokenizer.encode(text, add_special_tokens=False))
    assert (ids == tokenizer.unk_token_id).mean() < 2e-4
    assert len(tokenizer) < 3_600  # a Chinese character is a word: it needs no second piece


def test_capitals_are_kept_by_a_cased_vocabulary_alone() -> None:
    text = ["Bill paid the bill. BILL!"] * 3
    cased, uncased = (new_vocabulary(lambda: text, 200, lower_case=lower) for lower in (False, True))
    assert cased.encode("Bill") != cased.encode("bill")
    assert uncased.encode("Bill") == uncased.encode("bill")


def test_a_new_vocabulary_encodes_without_unknown_words_and_as_transformers_does(
    evaldata: Path, tmp_path: Path
) -> None:
    text = (evaldata / BOOKS[0]).read_text(encoding="utf-8-sig")
    tokenizer = new_vocabulary(text.splitlines, 3_000)
    assert len(tokenizer) == 3_000
    assert new_vocabulary(text.splitlines, 3_000).vocab == tokenizer.vocab
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    sample = text[20_000:40_000]
    ids = tokenizer.encode(sample, add_special_tokens=False)
    assert ids == theirs(sample, add_special_tokens=False, verbose=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert len(ids) < len(sample) / 2.5


def test_a_vocabulary_too_small_for_the_characters_is_refused() -> None:
    with pytest.raises(minibert.MinibertError, match=r"vocab_size \(6\) must have room for each character"):
        new_vocabulary(lambda: ["abcdefghij klmnop"], 6)
