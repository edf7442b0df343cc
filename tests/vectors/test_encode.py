"""`encode` as a machine: streams, budgets, bars, threads; and its speed, guarded without a clock."""

from __future__ import annotations

import gc
import inspect
import logging
import re
import sys
import tracemalloc
from collections import UserDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
import torch
from oracle import assert_same_vectors
from sentence_transformers import SentenceTransformer

import minibert
from minibert.engine import fused, rows, stream, twin
from minibert.engine.device import Device
from minibert.pretrained.arguments import ENCODING, INSTEAD, LOADING, LoadingNames

WORDS = ["bank", "river", "money", "password", "reset", "city", "the", "a", "of", "blue"]
TEXTS = [" ".join(WORDS[: 1 + number % 10] * (1 + number % 7)) for number in range(140)]


@pytest.fixture(scope="module")
def oracle(minilm: Path) -> SentenceTransformer:
    return SentenceTransformer(str(minilm), device="cpu")


@pytest.fixture(scope="module")
def vectors(bert: minibert.Bert) -> Any:
    return bert.encode(TEXTS)


# Streams


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHUNK_TEXTS", 16)
    monkeypatch.setattr(rows, "TOKENIZED_AT_ONCE", 5)


def test_an_iterator_is_read_as_it_is_needed(bert: minibert.Bert, vectors: Any, small_chunks: None) -> None:
    taken, computed = 0, []

    def stream() -> Iterator[str]:
        nonlocal taken
        for text in TEXTS:
            taken += 1
            yield text

    def note(module: object, inputs: object, output: object) -> None:
        computed.append(taken)

    handle = bert.encoder.encoder.register_forward_hook(note)
    try:
        got = bert.encode(stream())
    finally:
        handle.remove()
    assert np.abs(got - vectors).max() < 1e-6
    assert computed[0] == 16
    assert computed[-1] == 140
    assert max(np.diff(computed)) <= 16


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 32, 33])
def test_where_chunks_end_makes_no_difference(
    bert: minibert.Bert, vectors: Any, small_chunks: None, count: int
) -> None:
    got = bert.encode(iter(TEXTS[:count]))
    assert got.shape == (count, 384)
    assert np.abs(got - vectors[:count]).max(initial=0) < 1e-6


def test_long_texts_make_short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHUNK_CHARACTERS", 10)
    assert list(stream.chunks(["12345678", "1234", "1", "", "123456789012", "1"])) == [
        ["12345678", "1234"],
        ["1", "", "123456789012"],
        ["1"],
    ]


def test_what_is_not_text_is_named_by_its_place_in_the_stream(bert: minibert.Bert, small_chunks: None) -> None:
    with pytest.raises(ValueError, match=r"^text 40 \(7\) must be str"):
        bert.encode([*TEXTS[:40], 7])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"^text 40 \(7\) must be str"):
        bert.encode(iter([*TEXTS[:40], 7]))  # type: ignore[list-item]


def test_cut_texts_of_all_chunks_are_told_once(bert: minibert.Bert, small_chunks: None) -> None:
    texts = [*TEXTS[:20], "word " * 300, *TEXTS[:20], "word " * 400]
    with pytest.warns(UserWarning, match="2 of 42 texts exceed 256 tokens: 192 tokens were dropped") as told:
        bert.encode(iter(texts))
    assert len(told) == 1
    assert told[0].filename == __file__
    with pytest.raises(ValueError, match="text 41 has 402 tokens, but must have at most 256"):
        bert.encode([*texts[:20], *texts[:20], "x", texts[-1]], truncation="error")


@pytest.mark.slow
def test_an_array_larger_than_its_parts_is_never_held_twice(bert: minibert.Bert, small_chunks: None) -> None:
    texts = ["the river bank"] * 2000
    bert.encode(texts[:100])
    tracemalloc.start()  # numpy's memory is told to it, that of torch is not
    got = bert.encode(iter(texts))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.flags.owndata
    assert got.flags.c_contiguous
    assert len(got) == 2000
    assert peak < 1.5 * got.nbytes


# Budgets


def test_passes_are_filled_up_within_the_models_positions(bert: minibert.Bert) -> None:
    config = minibert.BertConfig(
        vocab_size=bert.config.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    small = minibert.Bert(minibert.BertModel(config).eval(), bert.tokenizer)
    texts = ["bank " * 11] * 20
    assert_same_vectors(small.encode(texts), np.stack([small.encode(texts[0])] * 20))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"batch_tokens": 200}, {"batch_size": 10}], ids=str)
def test_budgets_change_the_passes_and_not_the_vectors(
    bert: minibert.Bert, vectors: Any, settings: dict[str, Any]
) -> None:
    passes = count_passes(bert, settings)
    assert np.abs(bert.encode(TEXTS, **settings) - vectors).max() < 1e-6
    for texts, tokens in passes:
        assert texts <= settings.get("batch_size", 140)
        assert tokens <= settings.get("batch_tokens", 10**9) or texts == 1


def count_passes(bert: minibert.Bert, settings: dict[str, Any]) -> list[tuple[int, int]]:
    """Texts and tokens of each pass; the filler is neither."""
    found: list[tuple[int, int]] = []

    def note(module: object, inputs: tuple[torch.Tensor], kwargs: dict[str, Any]) -> None:
        found.append((int((inputs[0] == bert.tokenizer.cls_token_id).sum()), int((inputs[0] != 0).sum())))

    handle = bert.encoder.embeddings.register_forward_pre_hook(note, with_kwargs=True)
    try:
        bert.encode(TEXTS, **settings)
    finally:
        handle.remove()
    return found


def test_the_default_budget_follows_threads_and_sizes(bert: minibert.Bert) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)

        def budget(config: minibert.BertConfig, dtype: torch.dtype, device: torch.device) -> int:
            return Device.of(device, dtype, config).tokens

        cpu = torch.device("cpu")
        assert budget(bert.config, torch.float32, cpu) == 2048
        assert budget(bert.config, torch.bfloat16, cpu) == 4096
        assert budget(bert.config.replace(intermediate_size=3072), torch.bfloat16, cpu) == 2048
        torch.set_num_threads(1)
        assert budget(bert.config, torch.float32, cpu) == 1024
        assert budget(bert.config, torch.float32, torch.device("cuda")) == 16_384
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["batch_size", "batch_tokens", "truncate_dim"])
def test_numbers_that_make_no_sense_are_refused(bert: minibert.Bert, name: str) -> None:
    for wrong in (0, -1, 2.5, "8"):
        with pytest.raises(ValueError, match=re.escape(f"{name} ({wrong!r}) must be a whole number of at least 1")):
            bert.encode("x", **{name: wrong})
    if name == "truncate_dim":
        with pytest.raises(ValueError, match=re.escape("truncate_dim (385) must not exceed 384, the length of a")):
            bert.encode("x", truncate_dim=385)


# The arguments that people type


@pytest.mark.slow
def test_truncated_vectors_are_those_of_sentence_transformers(
    bert: minibert.Bert, minilm: Path, tmp_path: Path
) -> None:
    theirs = SentenceTransformer(str(minilm), device="cpu")
    for normalize in (False, True):
        settings: dict[str, Any] = {"truncate_dim": 64, "normalize_embeddings": normalize}
        ours = bert.encode(TEXTS[:20], **settings)
        assert ours.shape == (20, 64)
        assert np.abs(ours - theirs.encode(TEXTS[:20], **settings)).max() < 1e-6
    theirs = SentenceTransformer(str(minilm), device="cpu", truncate_dim=32)
    theirs.save(str(tmp_path))
    saved = minibert.load(tmp_path)
    assert saved.dimension == theirs.get_embedding_dimension() == 32
    assert np.abs(saved.encode(TEXTS[:20]) - theirs.encode(TEXTS[:20])).max() < 1e-6
    assert "vectors of 32" in repr(saved)


def test_a_tensor_when_asked(bert: minibert.Bert, vectors: Any) -> None:
    tensor = bert.encode(TEXTS, convert_to_tensor=True)
    assert torch.equal(tensor, torch.from_numpy(vectors))
    assert not tensor.is_inference()  # it can go into a training of one's own
    assert bert.encode("one", convert_to_tensor=True).shape == (384,)


def test_the_bar_counts_texts_and_tokens(
    bert: minibert.Bert, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    texts = TEXTS[:20]
    bert.encode(texts)
    assert capsys.readouterr().err == ""
    bert.encode(texts, show_progress_bar=True)
    shown = capsys.readouterr().err
    assert "20/20" in shown
    assert "tokens/s" in shown
    bert.encode(iter(texts), show_progress_bar=True)
    assert "20 texts" in capsys.readouterr().err  # how many there will be is not known
    with caplog.at_level(logging.INFO, logger="minibert"):  # the default of sentence-transformers
        bert.encode(texts)
        assert "20/20" in capsys.readouterr().err
        bert.encode(texts, show_progress_bar=False)
        assert capsys.readouterr().err == ""


def test_the_bar_is_left_tidy_by_an_error(bert: minibert.Bert, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="text 1"):
        bert.encode(iter(["one", None]), show_progress_bar=True)  # type: ignore[list-item]
    assert capsys.readouterr().err.endswith("\n")


# Threads


@pytest.mark.slow
def test_four_threads_get_the_vectors_of_one(bert: minibert.Bert, vectors: Any) -> None:
    fresh = minibert.Bert(bert.model, bert.tokenizer, bert.recipe)  # made ready by whoever comes first
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(fresh.encode, [TEXTS] * 4):
            assert np.array_equal(got, vectors)


# Speed, without a clock


@pytest.mark.slow
def test_each_token_is_computed_once_and_nothing_else(bert: minibert.Bert) -> None:
    texts = TEXTS * 2
    real = sum(map(len, bert.tokenizer(texts)["input_ids"]))
    computed: list[int] = []
    handle = bert.encoder.encoder.register_forward_hook(lambda module, inputs, output: computed.append(len(output)))
    try:
        bert.encode(texts)
    finally:
        handle.remove()
    budget = Device.of(torch.device("cpu"), torch.float32, bert.config).tokens
    assert 1 <= sum(computed) / real < 1.1  # few texts: the last of few passes is filled up to one of few sizes
    assert len(computed) == -(-real // budget)  # no more passes than the tokens need
    counted = count_passes(bert, {})
    assert sum(texts for texts, _ in counted) == len(TEXTS)
    assert 2 * sum(tokens for _, tokens in counted) == real  # 1.00: all else is filler


def test_weights_are_laid_out_once(bert: minibert.Bert, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for name, of in (("Twin", twin.Twin), ("Product", fused.Product)):
        start = of.__init__

        def counting(self: Any, *arguments: Any, name: str = name, start: Any = start) -> None:
            start(self, *arguments)
            made.append(name)

        monkeypatch.setattr(of, "__init__", counting)
    fresh = minibert.Bert(bert.model, bert.tokenizer, bert.recipe)
    fresh.encode(TEXTS[:40])
    assert made.count("Twin") == 1
    assert made.count("Product") == (24 if torch.backends.mkldnn.is_available() else 0)
    made.clear()
    for _ in range(3):
        fresh.encode(TEXTS[:40])
        fresh.encode("one")
    fresh.model.train().eval()
    fresh.encode("one")
    assert made == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is not comparable elsewhere")
def test_memory_does_not_grow_from_call_to_call(bert: minibert.Bert) -> None:
    process, memory = psutil.Process(), []
    for _ in range(16):
        bert.encode(TEXTS)
        memory.append(process.memory_info().rss)
    late = memory[7:]  # a heap that other tests have left in pieces takes a few calls to come to rest
    assert late[-1] - late[0] < 8 * 2**20
    assert median(after - before for before, after in pairwise(late)) < 2**18  # of a leak, each call has its part


@pytest.mark.slow
def test_a_call_makes_no_references_that_outlive_it(bert: minibert.Bert) -> None:
    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    bert.encode(TEXTS[:40])
    before = tensors()
    for _ in range(3):
        bert.encode(TEXTS[:40])
    assert tensors() <= before


# What comes from other libraries: tables, and their names of arguments


def tables(frame: Any) -> Iterator[Any]:
    """A table of pandas, as pandas, Arrow and Python have it."""
    yield frame
    yield pa.Table.from_pandas(frame)
    yield UserDict(frame)
    yield frame.to_dict("list")


def test_a_table_is_refused_and_its_column_taken(bert: minibert.Bert) -> None:
    frame = pd.DataFrame({"text": TEXTS[:3], "answer": TEXTS[3:6]})
    for table in tables(frame):
        kind = type(table).__name__
        message = f"texts ({kind}) must be a str or a list of str, not a table; pass a column, table['column']"
        for refuse in (bert.encode, bert.encode_query, bert.words):
            with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
                refuse(table)
        with pytest.raises(ValueError, match=r"(?s)^texts .* must be a list of values"):
            minibert.Index(bert).add(table)
    with pytest.raises(ValueError, match=r"^text 0 \(\{.*\) must be str, not dict; pass the text in it: row\['text'\]"):
        bert.encode(frame.to_dict("records"))
    expected = bert.encode(TEXTS[:3])
    for column in (frame["text"], frame["text"].to_numpy(), np.array(TEXTS[:3]), pd.Series(TEXTS[:3], dtype=object)):
        assert np.array_equal(bert.encode(column), expected)
        assert len(bert.words(column)) == 3
    for one in (np.str_(TEXTS[0]), np.array(TEXTS[0]), np.array(TEXTS[0], dtype=object)):  # a text of NumPy
        assert np.array_equal(bert.encode(one), bert.encode(TEXTS[0]))
        assert np.array_equal(bert.encode_query(one), bert.encode(TEXTS[0]))
        assert bert.words(one).words == bert.words(TEXTS[0]).words
        assert np.array_equal(bert.annotate(one).vector, bert.encode(TEXTS[0]))
    named = pd.Series(TEXTS[:3], index=["columns", "b", "c"])  # whose .columns is a text
    assert np.array_equal(bert.encode(named), expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"convert_to_numpy": True},
        {"convert_to_numpy": True, "convert_to_tensor": False, "output_value": "sentence_embedding"},
        {"device": None, "pool": None, "chunk_size": None},
        {"device": "cpu"},
        {"batch_size": 2, "show_progress_bar": False, "precision": "float32", "normalize_embeddings": True},
    ],
    ids=str,
)
def test_a_call_for_sentence_transformers_gives_its_vectors(
    bert: minibert.Bert, oracle: SentenceTransformer, arguments: dict[str, Any]
) -> None:
    assert_same_vectors(bert.encode(TEXTS[:5], **arguments), oracle.encode(TEXTS[:5], **arguments))


def test_their_order_and_their_names_of_the_texts_are_understood(
    bert: minibert.Bert, oracle: SentenceTransformer
) -> None:
    for call in ("encode", "encode_query", "encode_document"):
        ours, theirs = getattr(bert, call), getattr(oracle, call)
        positions = (TEXTS[:5], None, "query: ", 2, False)
        assert_same_vectors(ours(*positions), theirs(*positions))
        assert_same_vectors(ours(inputs=TEXTS[:5]), theirs(inputs=TEXTS[:5]))
        assert_same_vectors(ours(sentences=TEXTS[:5], batch_size=2), theirs(TEXTS[:5]))
    tensor = bert.encode(TEXTS[:5], convert_to_numpy=False, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    # a name or a position that they add is to be thought of here
    names = list(inspect.signature(oracle.encode).parameters)
    assert names[1:5] == list(inspect.signature(bert.encode).parameters)[1:5]
    assert set(names[1:]) - {"kwargs"} <= {*inspect.signature(bert.encode).parameters, *ENCODING}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"convert_to_numpy": False}, "convert_to_numpy (False) must be True, or convert_to_tensor True; pass"),
        (
            {"output_value": "token_embeddings"},
            "output_value ('token_embeddings') must be 'sentence_embedding'; call bert",
        ),
        ({"output_value": None}, "output_value (None) must be 'sentence_embedding'; call bert.words(texts) for"),
        ({"device": "meta"}, "device (meta) must be "),
        ({"device": ["cpu", "cpu"]}, "device (['cpu', 'cpu']) must be one that this torch can use"),
        ({"pool": {}}, "pool ({}) must be None; leave it out, encode uses all of torch's threads"),
        ({"prompt_name": 32}, "prompt_name (32) must be str; pass batch_size= for the number of texts at once"),
    ],
    ids=str,
)
def test_what_would_mean_something_else_is_refused(bert: minibert.Bert, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        bert.encode("a", **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sentence": "a"}, "encode() got an unexpected keyword argument 'sentence'; use texts"),
        ({"normalize": True}, "encode() got an unexpected keyword argument 'normalize'; use normalize_embeddings"),
        ({"max_length": 3}, "encode() got an unexpected keyword argument 'max_length'; use bert.max_seq_length = ..."),
        ({"colour": 3}, "encode() got an unexpected keyword argument 'colour'"),
        ({"texts": "a", "sentences": "a"}, "encode() got texts twice, as 'texts' and as 'sentences'"),
    ],
    ids=str,
)
def test_a_name_that_is_not_known_is_refused_with_ours(bert: minibert.Bert, arguments: Any, message: str) -> None:
    for call in (bert.encode, bert.encode_query):
        with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
            call(**arguments)


def test_every_name_that_an_error_gives_is_an_argument() -> None:
    calls = (minibert.Bert.encode, minibert.load, minibert.BertModel.from_pretrained)
    known = {name for call in calls for name in inspect.signature(call).parameters}
    for theirs, ours in INSTEAD.items():
        assert ours in {*known, "bert.max_seq_length = ...", "BertForSequenceClassification.from_pretrained"}, theirs
        assert theirs not in {*ENCODING, *LOADING}
    assert LoadingNames.__annotations__.keys() == LOADING.keys()


def test_loading_understands_the_names_of_others(minilm: Path, tmp_path: Path) -> None:
    theirs = {"torch_dtype": torch.bfloat16, "cache_folder": tmp_path, "trust_remote_code": False}
    assert minibert.load(minilm, **theirs).model.dtype == torch.bfloat16  # type: ignore[arg-type]
    assert minibert.BertModel.from_pretrained(minilm, **theirs, num_labels=3).dtype == torch.bfloat16
    for load in (minibert.load, minibert.BertModel.from_pretrained):
        call = load.__name__
        with pytest.raises(TypeError, match=rf"^{call}\(\) got dtype twice, as 'dtype' and as 'torch_dtype'$"):
            load(minilm, dtype=torch.float32, torch_dtype=torch.float32)
        with pytest.raises(
            ValueError, match=r"^trust_remote_code \(True\) must be None or False; leave it out, the code "
        ):
            load(minilm, trust_remote_code=True)
    with pytest.raises(TypeError, match=r"^load\(\) got an unexpected keyword argument 'device_map'; use device$"):
        minibert.load(minilm, device_map="cpu")  # type: ignore[call-arg]


def test_a_warning_names_the_line_of_the_caller(bert: minibert.Bert) -> None:
    long = "word " * 500
    calls: list[Callable[[], object]] = [
        lambda: bert.encode(long),
        lambda: bert.encode_query([long]),
        lambda: bert.encode(["a", "b"], precision="int8"),
        lambda: bert.words(long),
        lambda: bert.words("a b", spans=[(0, 1), (1, 2)]),
    ]
    for call in calls:
        with pytest.warns(UserWarning, match="truncation=|calibration_embeddings=|without tokens") as told:
            call()
        assert {one.filename for one in told} == {__file__}


def test_encode_query_and_encode_document_have_the_signature_of_encode(bert: minibert.Bert) -> None:
    for method in (bert.encode_query, bert.encode_document):
        assert inspect.signature(method) == inspect.signature(bert.encode)
        assert "prompt" in (method.__doc__ or "")
        assert method.__name__ in dir(bert)
        assert isinstance(method("one", None, None, 8, False, convert_to_tensor=True), torch.Tensor)


def test_tokens_have_the_vectors_of_token_embeddings(bert: minibert.Bert, oracle: SentenceTransformer) -> None:
    texts = ["He robbed the bank.", "A river.", "an unbelievably long text about embeddings " * 40]
    expected = oracle.encode(texts, output_value="token_embeddings")
    inputs = bert.tokenize(texts)
    with torch.no_grad():
        states = bert.encoder(**inputs).last_hidden_state
    for x, mask, wanted in zip(states, inputs["attention_mask"], expected, strict=True):
        torch.testing.assert_close(x[mask.bool()], wanted, rtol=0, atol=1e-5)


def test_names_that_users_of_sentence_transformers_type(bert: minibert.Bert, oracle: SentenceTransformer) -> None:
    assert bert.get_sentence_embedding_dimension() == oracle.get_embedding_dimension() == 384
    for inputs in (["one", "two words"], [("a question", "its answer"), ("b", "c d")]):
        ours, wanted = bert.tokenize(inputs), oracle.preprocess(inputs)
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            assert torch.equal(ours[name], wanted[name]), name
    assert torch.equal(bert.tokenize("two words")["input_ids"], bert.tokenize(["two words"])["input_ids"])
