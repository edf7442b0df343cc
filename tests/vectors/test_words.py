"""Words: where they are in the text, which pieces they have, and what their vectors are made of."""

from __future__ import annotations

import re
import unicodedata
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import transformers
from oracle import assert_same_vectors

import minibert
from minibert.engine.rows import RowMaker, window_starts
from minibert.vectors.words import align, owners, words_to_pandas

TEXT = "He robbed the bank by the river bank: un-American embeddings!"
HARD = [
    "Zürich, cafe\u0301 e\u0301te\u0301",  # composed and decomposed accents
    "北京大学 and 東京",
    "👍🏽 family 👨‍👩‍👧 flag 🇫🇷",
    "שלום עולם, مرحبا بالعالم",
    "ﬁnance ½ ① İstanbul ΟΔΟΣ 가나다",
    "tab\tnew\nline\r\n  spaces  ",
    "\u200bzero\u200bwidth\ufeff \x00nul\x07bell \u00adsoft",
    "a[MASK]b [SEP] [CLS]",
    "x" * 300,
    "",
    " ",
]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.fixture(scope="module")
def theirs(minilm: Path) -> Any:
    model = transformers.BertModel.from_pretrained(minilm, output_hidden_states=True).eval()
    return model, transformers.AutoTokenizer.from_pretrained(minilm)


def states_of(theirs: Any, text: Any, **arguments: Any) -> tuple[Any, list[np.ndarray]]:
    """What transformers gives for a text: its encoding, and the hidden states (S, H) of all layers."""
    model, tokenizer = theirs
    encoded = tokenizer(text, return_tensors="pt", **arguments)
    with torch.no_grad():
        states = model(**{name: encoded[name] for name in ("input_ids", "attention_mask")}).hidden_states
    return encoded, [state[0].numpy() for state in states]


def test_a_word_has_the_vector_of_its_pieces(bert: minibert.Bert, theirs: Any) -> None:
    words = bert.words(TEXT)
    encoded, states = states_of(theirs, TEXT)
    numbers = encoded.word_ids(0)
    tokens = theirs[1].convert_ids_to_tokens(encoded["input_ids"][0])
    for number in range(len(words)):
        own = [place for place, word in enumerate(numbers) if word == number]
        assert words.pieces[number] == [tokens[place] for place in own]
        assert_same_vectors(words.vectors[number], states[-1][own].mean(0))
    assert words.words == re.findall(r"\w+|[^\w\s]", TEXT)
    assert words.find("BANK") == [3, 7]
    assert words.pieces[12] == ["em", "##bed", "##ding", "##s"]


@pytest.mark.parametrize("pieces", ["mean", "first", "last", "max"])
@pytest.mark.parametrize(
    ("layers", "combine"), [(None, "mean"), (-1, "mean"), (0, "mean"), (2, "sum"), ([-4, -3, -2, -1], "sum"),
                            ([1, -1], "mean"), ([-1, 0, 3], "concat")], ids=str
)  # fmt: skip
def test_layers_combinations_and_pieces_are_those_of_the_hidden_states(
    bert: minibert.Bert, theirs: Any, layers: Any, combine: Any, pieces: Any
) -> None:
    encoded, states = states_of(theirs, TEXT)
    chosen = [states[layer] for layer in ([-1] if layers is None else [layers] if isinstance(layers, int) else layers)]
    if combine == "concat":
        x = np.concatenate(chosen, axis=-1)
    else:
        x = np.sum(chosen, axis=0) / (len(chosen) if combine == "mean" else 1)
    numbers = encoded.word_ids(0)
    words = bert.words(TEXT, layers=layers, combine=combine, pieces=pieces)
    pick = {"mean": lambda v: v.mean(0), "first": lambda v: v[0], "last": lambda v: v[-1], "max": lambda v: v.max(0)}
    expected = np.stack(
        [
            pick[pieces](x[[place for place, word in enumerate(numbers) if word == number]])
            for number in range(len(words))
        ]
    )
    assert_same_vectors(words.vectors, expected, 2e-6)


def test_sentence_vectors_of_layers_and_poolings_are_those_of_the_hidden_states(
    bert: minibert.Bert, theirs: Any
) -> None:
    _, states = states_of(theirs, TEXT)
    unit = lambda v: v / np.linalg.norm(v)  # noqa: E731
    first_last = (states[1] + states[-1]) / 2
    assert_same_vectors(bert.encode(TEXT, layers=[1, -1]), unit(first_last.mean(0)))
    assert_same_vectors(bert.encode(TEXT, layers=0, pooling="cls"), unit(states[0][0]))
    expected = np.concatenate([states[-2].max(0), states[-2].sum(0) / len(states[0]) ** 0.5])
    assert_same_vectors(bert.encode(TEXT, layers=-2, pooling=("max", "mean_sqrt_len")), unit(expected))
    both = np.concatenate([states[2], states[5]], axis=-1).mean(0)
    assert_same_vectors(bert.encode(TEXT, layers=[2, 5], combine="concat"), unit(both))


def test_layers_above_the_last_wanted_one_are_not_computed(bert: minibert.Bert) -> None:
    seen = []
    handles = [
        layer.register_forward_hook(lambda *_, number=number: seen.append(number))
        for number, layer in enumerate(bert.encoder.encoder.layers)
    ]
    bert.words(TEXT, layers=[1, 2])
    for handle in handles:
        handle.remove()
    assert seen == [0, 1]


def test_one_text_or_several_or_words(bert: minibert.Bert) -> None:
    one = bert.words(TEXT)
    several = bert.words([TEXT, "", "one"])
    assert [len(words) for words in several] == [14, 0, 1]
    assert_same_vectors(several[0].vectors, one.vectors)
    assert several[1].vectors.shape == (0, 384)
    assert bert.words([]) == []
    assert len(bert.words(iter([TEXT] * 3))) == 3
    assert repr(several[2]) == "Words('one'; vectors 1 x 384)"


@pytest.mark.slow
def test_words_that_came_split_are_those_of_the_tokenizer(bert: minibert.Bert, theirs: Any, evaldata: Path) -> None:
    sentences: list[list[str]] = [[]]
    for line in (evaldata / "wnut17" / "emerging.dev.conll").read_text("utf-8").splitlines()[:3000]:
        word = line.split("\t")[0].strip()
        if word:
            sentences[-1].append(word)
        elif sentences[-1]:
            sentences.append([])
    sentences = [sentence for sentence in sentences if sentence]
    assert len(sentences) > 100
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* without tokens got a vector of zeros")
        found = bert.words(sentences)
    for sentence, words in zip(sentences[:100], found, strict=False):
        assert words.words == sentence
        encoded, states = states_of(theirs, sentence, is_split_into_words=True)
        tokens = theirs[1].convert_ids_to_tokens(encoded["input_ids"][0])
        for number in range(len(sentence)):
            own = [place for place, word in enumerate(encoded.word_ids(0)) if word == number]
            assert words.pieces[number] == [tokens[place] for place in own]
            if own:
                assert_same_vectors(words.vectors[number], states[-1][own].mean(0))


def test_a_word_without_pieces_keeps_its_row_and_says_so(bert: minibert.Bert) -> None:
    with pytest.warns(UserWarning, match=r"^1 word without tokens got a vector of zeros: .* the first is '\\x07' of"):
        words = bert.words([["one"], ["He", "\x07", "robbed"]])[1]
    assert words.words == ["He", "\x07", "robbed"]
    assert words.pieces == [["he"], [], ["robbed"]]
    assert not words.vectors[1].any()
    assert words.vectors[[0, 2]].any(1).all()


@pytest.mark.parametrize("split", ["pretokenizer", "whitespace"])
@pytest.mark.parametrize("text", HARD)
def test_hard_texts_lose_nothing(bert: minibert.Bert, text: str, split: Any) -> None:
    check_alignment(bert, text, split)


@pytest.mark.slow
@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(ANY_TEXT, st.sampled_from(["pretokenizer", "whitespace"]))
def test_any_text_loses_nothing_but_what_the_tokenizer_drops(bert: minibert.Bert, text: str, split: Any) -> None:
    check_alignment(bert, text, split)


def check_alignment(bert: minibert.Bert, text: str, split: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* without tokens got a vector of zeros")
        words = bert.words(text, split=split)
    assert words.words == [text[start:end] for start, end in words.spans]
    ends = [0, *(place for span in words.spans for place in span)]
    assert ends == sorted(ends)
    tokens = bert.tokenizer.tokenize(text)
    assert [piece for pieces in words.pieces for piece in pieces] == tokens  # each piece in one word, in order
    outside = "".join(text[end:start] for (_, end), (start, _) in zip(
        [(0, 0), *words.spans], [*words.spans, (len(text), len(text))], strict=True))  # fmt: skip
    assert bert.tokenizer.tokenize(outside) == []  # what is between words becomes no token


# Marks at the end of words

# Letters, and the marks that words of their script end in.
SCRIPTS = {
    "Latin": ("aecnz", "\u0301\u0308\u0327\u0303"),
    "Devanagari": ("कमहन", "\u0947\u0902\u093f\u094d\u200d\u200c"),
    "Thai": ("กทมน", "\u0e35\u0e48\u0e31\u0e4c"),
    "Arabic": ("قلمب", "\u064e\u0651\u064b\u0652"),
    "Hebrew": ("שלםע", "\u05c1\u05b8\u05b6\u05bc"),
    "emoji": ("❤☀👩", "\ufe0f\u200d\u20e3"),
}
MARKED = st.sampled_from(sorted(SCRIPTS)).flatmap(
    lambda script: st.lists(
        st.tuples(
            st.text(SCRIPTS[script][0], min_size=1, max_size=3),
            st.text(SCRIPTS[script][1], max_size=3),
            st.sampled_from([" ", ", ", " - ", "\n"]),
        ),
        min_size=1,
        max_size=5,
    )
)


@pytest.fixture(scope="module", params=[True, False], ids=["without accents", "with accents"])
def marking(request: pytest.FixtureRequest, bert: minibert.Bert) -> minibert.Bert:
    """The real model, and with its vocabulary a tokenizer that keeps accents."""
    lower = minibert.BertTokenizer(bert.tokenizer.vocab, do_lower_case=request.param)
    return minibert.Bert(bert.model, lower, bert.recipe)


def is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M") or character in "\u200c\u200d"


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(parts=MARKED)
def test_a_word_has_the_marks_that_it_ends_in(marking: minibert.Bert, parts: list[tuple[str, str, str]]) -> None:
    text = "".join(map("".join, parts))
    words = marking.words(text)
    letters = [word + marks for word, marks, _ in parts]
    assert [word for word in words.words if word.strip("-,")] == letters
    for (_, end), after in zip(words.spans, [*words.spans[1:], (len(text), len(text))], strict=True):
        assert end == after[0] or not is_mark(text[end])


@pytest.mark.parametrize("text", ["cafe\u0301 noir", "CAFE\u0301, noir", "caf\u00e9 noir"])
def test_a_word_is_found_with_its_accents(bert: minibert.Bert, text: str) -> None:
    words = bert.words(text)
    assert words.spans[0] == (0, text.lower().index("f") + (3 if "\u0301" in text else 2))
    assert words.find("cafe\u0301") == words.find("café") == words.find("CAFÉ") == [0]
    assert words.find("cafe") == []


def test_a_mark_after_punctuation_is_in_one_word_alone(bert: minibert.Bert) -> None:
    cased = minibert.Bert(bert.model, minibert.BertTokenizer(bert.tokenizer.vocab, do_lower_case=False), bert.recipe)
    assert bert.words("a !\u0301b").words == ["a", "!\u0301", "b"]
    assert cased.words("a !\u0301b").words == ["a", "!", "\u0301b"]  # there it is a token of the next word


@hypothesis.given(
    st.lists(st.integers(1, 5), min_size=1, max_size=12), st.lists(st.integers(1, 5), min_size=1, max_size=12)
)
def test_a_piece_belongs_to_the_word_it_overlaps_most(word_lengths: list[int], piece_lengths: list[int]) -> None:
    def spans_of(lengths: list[int]) -> np.ndarray:
        ends = np.cumsum(lengths)
        return np.stack([ends - lengths, ends], axis=1)

    words, pieces = spans_of(word_lengths), spans_of(piece_lengths)
    for piece, owner in zip(pieces, owners(words, pieces), strict=True):
        overlap = [max(0, min(piece[1], end) - max(piece[0], start)) for start, end in words]
        assert owner == (int(np.argmax(overlap)) if max(overlap) else -1)


def test_spans_of_ones_own(bert: minibert.Bert) -> None:
    words = bert.words("I cannot don't go.", spans=[(0, 1), (2, 5), (5, 8), (9, 11), (11, 14), (15, 17)])
    assert words.words == ["I", "can", "not", "do", "n't", "go"]
    assert words.pieces == [["i"], ["cannot"], ["cannot"], ["don"], ["'", "t"], ["go"]]
    assert_same_vectors(words.vectors[1], words.vectors[2])
    several = bert.words(["one two", "three"], spans=[[(0, 3), (4, 7)], [(0, 5)]])
    assert [words.words for words in several] == [["one", "two"], ["three"]]
    for wrong in ([(0, 99)], [(3, 1)], [(0, 3), (2, 5)]):
        with pytest.raises(ValueError, match=re.escape("spans of text 0 (")):
            bert.words("one two", spans=wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pieces": "middle"}, "pieces ('middle') must be one of mean, first, last, max"),
        ({"split": "spacy"}, "split ('spacy') must be one of pretokenizer, whitespace"),
        ({"combine": "product"}, "combine ('product') must be 'mean', 'sum' or 'concat'"),
        (
            {"layers": 7},
            "layers (7) must be whole numbers between -7 and 6; 0 is the embeddings, 6 or -1 the last layer",
        ),
        ({"layers": [-8]}, "layers (-8) must be whole numbers between -7 and 6"),
        ({"layers": []}, "layers ([]) must name at least one"),
        ({"layers": True}, "layers (True) must be whole numbers"),
        ({"truncation": "cut"}, "truncation ('cut') must be 'warn', 'error' or 'window'"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(bert: minibert.Bert, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        bert.words(TEXT, **arguments)


def test_what_is_no_text_is_refused(bert: minibert.Bert) -> None:
    for wrong, message in (
        (7, "texts (7) must be a str or a list of str"),
        ([TEXT, 7], "text 1 (7) must be str"),
        ([["a", 7]], "text 0 (7) must be str"),
        ([["a", None]], "text 0 (None) must be str"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            bert.words(wrong)  # type: ignore[call-overload]


# Long texts

LONG = "The bank of the river was steep. " * 60 + "The bank lent him money. " * 40  # 660 tokens


@pytest.fixture(scope="module")
def short(minilm: Path) -> minibert.Bert:
    bert = minibert.load(minilm)
    bert.max_seq_length = 66
    return bert


def test_cut_words_are_told(short: minibert.Bert) -> None:
    with pytest.warns(
        UserWarning, match=r"^1 of 2 texts exceed 66 tokens: \d+ tokens were dropped; pass truncation='wi"
    ):
        words, one = short.words([LONG, "one"])
    assert len(words) == 64
    assert len(one) == 1
    with (
        pytest.warns(UserWarning, match="without tokens got a vector of zeros"),
        pytest.warns(UserWarning, match="tokens were dropped"),
    ):
        own = short.words([LONG.split()])[0]
    assert len(own) == len(LONG.split())  # rows and words go together
    assert own.vectors[:50].any(1).all()
    assert not own.vectors[80:].any()
    with pytest.raises(ValueError, match=r"text 1 has \d+ tokens, but must have at most 66; split it, or pass trunc"):
        short.words(["one", LONG], truncation="error")


def test_windows_change_nothing_in_a_text_that_fits(short: minibert.Bert) -> None:
    for text in (TEXT, "", "word " * 64):
        assert np.array_equal(short.encode(text, truncation="window"), short.encode(text, truncation="error"))
        assert np.array_equal(
            short.words(text, truncation="window").vectors, short.words(text, truncation="error").vectors
        )


def test_a_windowed_text_has_the_mean_of_its_windows_weighted_by_tokens(short: minibert.Bert) -> None:
    ids = short.tokenizer.encode(LONG, add_special_tokens=False)
    starts = window_starts(len(ids), 64)
    assert starts[-1] + 64 == len(ids)
    assert max(np.diff(starts)) <= 48
    own = [(one + 64 + other) // 2 for one, other in pairwise(starts)]
    weights = np.diff([0, *own, len(ids)])
    with torch.no_grad():
        pooled = np.stack([
            short.encoder(torch.tensor([[101, *ids[start : start + 64], 102]])).last_hidden_state[0].mean(0).numpy()
            for start in starts
        ])  # fmt: skip
    expected = (pooled * weights[:, None]).sum(0) / weights.sum()
    vector = short.encode([TEXT, LONG, "one"], truncation="window")[1]
    assert_same_vectors(vector, expected / np.linalg.norm(expected))


def test_a_words_vector_is_from_the_window_with_most_context(short: minibert.Bert) -> None:
    words = short.words([TEXT, LONG], truncation="window")[1]
    assert words.words == re.findall(r"\w+|[^\w\s]", LONG)  # none lost: here each word is one token
    ids = short.tokenizer.encode(LONG, add_special_tokens=False)
    assert len(ids) == len(words)
    starts = window_starts(len(ids), 64)
    with torch.no_grad():
        states = [
            short.encoder(torch.tensor([[101, *ids[start : start + 64], 102]])).last_hidden_state[0].numpy()
            for start in starts
        ]
    for place in range(len(ids)):
        context = [min(place - start, start + 63 - place) for start in starts]
        best = [
            state[place - start + 1]
            for start, state, amount in zip(starts, states, context, strict=True)
            if amount >= max(context) - 1  # the two sides of a border differ by one
        ]
        assert min(np.abs(words.vectors[place] - vector).max() for vector in best) < 1e-5


@hypothesis.given(st.integers(1, 2000), st.integers(1, 200), st.integers(1, 50))
def test_windows_cover_a_text_and_share_enough(tokens: int, size: int, longest_word: int) -> None:
    starts = window_starts(tokens, size, longest_word)
    if tokens <= size:
        assert starts == [0]
        return
    assert starts[0] == 0
    assert starts[-1] == tokens - size
    assert all(0 < step <= size - min(size - 1, max(size // 4, longest_word)) for step in np.diff(starts))


def test_no_word_is_divided_between_windows(short: minibert.Bert) -> None:
    text = " ".join(["a bank", "antidisestablishmentarianism" * 3] * 20)
    words = short.words(text, truncation="window")
    counts = [len(pieces) for pieces in words.pieces]
    ends = np.cumsum(counts).tolist()
    assert counts[:3] == [1, 1, 24]  # more than the quarter that windows share otherwise
    otherwise = window_starts(ends[-1], 64)
    assert any(  # windows that took no care would divide some
        not any(start <= end - count and end <= start + 64 for start in otherwise)
        for end, count in zip(ends, counts, strict=True)
    )
    windows: list[tuple[int, np.ndarray]] = []
    rows = align(short.tokenizer, [text], [None], RowMaker(short.tokenizer, 66, "window"))[1]
    with torch.no_grad():
        for start, ids in zip(rows.starts, rows.ids, strict=True):
            windows.append((start, short.encoder(torch.tensor(ids[None]).long()).last_hidden_state[0, 1:-1].numpy()))
    for vector, end, count in zip(words.vectors, ends, counts, strict=True):
        whole = [
            states[end - count - start : end - start].mean(0)
            for start, states in windows
            if start <= end - count and end <= start + len(states)
        ]
        assert whole
        assert min(np.abs(vector - one).max() for one in whole) < 1e-5


def test_a_word_longer_than_a_window_has_a_vector(minilm: Path) -> None:
    tiny = minibert.load(minilm)
    tiny.max_seq_length = 8
    words = tiny.words("bank " + "antidisestablishmentarianism" * 3 + " bank", truncation="window")
    assert len(words) == 3
    assert words.vectors.any(1).all()


# Tables, speed


def test_a_table_of_words(bert: minibert.Bert) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = words_to_pandas(bert.words([TEXT, "", "one embedding"]))
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns[:6]) == ["text", "word", "start", "end", "pieces", "v0"]
    assert table.shape == (16, 5 + 384)
    assert table.iloc[-1][["text", "word", "start", "end", "pieces"]].tolist() == [
        2,
        "embedding",
        4,
        13,
        "em ##bed ##ding",
    ]
    assert words_to_pandas(bert.words("one")).shape == (1, 389)
    assert words_to_pandas([]).shape[0] == 0


def test_words_run_on_the_fast_engine(bert: minibert.Bert) -> None:
    texts = [TEXT, "one", "two words"] * 40
    computed = []
    handle = bert.encoder.encoder.register_forward_hook(lambda module, inputs, output: computed.append(len(output)))
    bert.words(texts, batch_tokens=4096)
    handle.remove()
    real = sum(map(len, bert.tokenizer(texts)["input_ids"]))
    assert sum(computed) / real == pytest.approx(1.0, abs=0.13)
    assert len(computed) == 1
