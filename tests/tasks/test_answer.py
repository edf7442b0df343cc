"""Answers: the spans that an exhaustive search finds in transformers' logits, and exact offsets."""

from __future__ import annotations

import io
import json
import re
import string
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import transformers
from oracle import with_real_vocabulary
from other_tokenizers import KINDS, SCRIPTS, checkpoint_of

import minibert
from minibert import Answer
from minibert.cli import main
from minibert.engine.rows import window_starts
from minibert.errors import MinibertError

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
QUESTION = "Where was Angela Merkel born?"
CONTEXT = "Angela Merkel was born in Hamburg-Eimsbüttel; 北京 is far. She studied in Leipzig."
Spans = dict[tuple[int, int], float]  # the logit of each span of a context, by its first and its last token


def reader(folder: Path, minilm: Path, **shape: Any) -> Path:
    """A random reader with the tokenizer of bert-base-uncased."""
    return with_real_vocabulary(folder, minilm, "BertForQuestionAnswering", **{**TINY, **shape})


def questions(evaldata: Path) -> list[tuple[str, str, list[str]]]:
    """The question, the context and the answers of each entry of a file in SQuAD's format."""
    data = json.loads((evaldata / "qa" / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in data for paragraph in article["paragraphs"]]
    return [
        (entry["question"], paragraph["context"], [answer["text"] for answer in entry["answers"]])
        for paragraph in paragraphs
        for entry in paragraph["qas"]
    ]


def short_enough(asked: list[tuple[str, str, list[str]]]) -> list[tuple[str, str, list[str]]]:
    """The questions whose contexts are certain to fit in one row of 512 tokens."""
    return [one for one in asked if len(one[1]) < 1200]


class Oracle:
    """transformers' model on padded batches, and a search over every span of one text."""

    def __init__(self, folder: Path) -> None:
        self.model = transformers.BertForQuestionAnswering.from_pretrained(folder).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def spans(self, pairs: list[tuple[str, str]], longest: int) -> list[tuple[Spans, float, list[tuple[int, int]]]]:
        """For each pair: its spans, the score of "no answer", and where the tokens of the context are in it."""
        batch = self.tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="pt")
        with torch.no_grad():
            output = self.model(**batch)
        results = []
        for row in range(len(pairs)):
            start, end = output.start_logits[row].tolist(), output.end_logits[row].tolist()
            inside = [i for i, side in enumerate(batch.sequence_ids(row)) if side == 1]
            spans = {
                (i - inside[0], j - inside[0]): start[i] + end[j]
                for i in inside
                for j in inside
                if i <= j < i + longest
            }
            offsets = self.tokenizer(pairs[row][1], add_special_tokens=False, return_offsets_mapping=True)
            results.append((spans, start[0] + end[0], offsets["offset_mapping"]))
        return results


def assert_among_the_best(
    found: list[Answer], spans: Spans, offsets: Any, context: str, others: tuple[float, ...] = ()
) -> None:
    """Each answer has the score of its rank, and is the span of that score."""
    ordered = sorted(spans.values(), reverse=True)[: len(found)]
    scores = np.array([*spans.values(), *others])
    odds = np.exp(scores - scores.max())
    by_place = {(offsets[i][0], offsets[j][1]): score for (i, j), score in spans.items()}
    assert len(found) == len(ordered)
    for answer, score in zip(found, ordered, strict=True):
        assert by_place[answer.start, answer.end] == pytest.approx(score, abs=1e-4)
        assert answer.score == pytest.approx(np.exp(score - scores.max()) / odds.sum(), rel=1e-3, abs=1e-5)
        assert answer.text == context[answer.start : answer.end]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    return reader(tmp_path_factory.mktemp("reader"), minilm)


@pytest.fixture(scope="module")
def loaded(tiny: Path) -> minibert.Bert:
    return minibert.load(tiny)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [TINY, MINILM], ids=["tiny", "minilm"])
def test_answers_are_those_of_an_exhaustive_search(shape: Any, tmp_path: Path, minilm: Path, evaldata: Path) -> None:
    folder = reader(tmp_path, minilm, **shape, initializer_range=0.5 if shape is TINY else 0.04)
    bert, oracle = minibert.load(folder), Oracle(folder)
    pairs = [
        (QUESTION, CONTEXT),
        *((one, two) for one, two, _ in short_enough(questions(evaldata))[:: 25 if shape is TINY else 120]),
    ]
    found = bert.answer([one for one, _ in pairs], [two for _, two in pairs], top_k=5, max_answer_tokens=12)
    for first in range(0, len(pairs), 8):
        part = pairs[first : first + 8]
        for (_, context), ours, (spans, _, offsets) in zip(
            part, found[first : first + 8], oracle.spans(part, 12), strict=True
        ):
            assert len(ours) == 5
            assert_among_the_best(ours, spans, offsets, context)


def test_no_answer_is_compared_with_the_best_span_only_when_asked(tiny: Path, loaded: minibert.Bert) -> None:
    ((spans, null, offsets),) = Oracle(tiny).spans([(QUESTION, CONTEXT)], 30)
    second, best = sorted(spans.values())[-2:]
    for threshold, empty in ((null - (best + second) / 2, False), (null - best - 0.01, True)):
        found = loaded.answer(QUESTION, CONTEXT, top_k=2, no_answer=True, threshold=threshold)
        assert [answer.text == "" for answer in found] == [empty, not empty]
        no_answer = found[not empty]
        assert (no_answer.start, no_answer.end) == (0, 0)
        assert_among_the_best([found[empty]], spans, offsets, CONTEXT, (null - threshold,))
    assert loaded.answer(QUESTION, CONTEXT, no_answer=True, threshold=-1e3).text == ""
    assert loaded.answer(QUESTION, CONTEXT, threshold=-1e3).text != ""


def test_a_long_context_is_searched_in_windows(tiny: Path, loaded: minibert.Bert) -> None:
    bert, oracle = minibert.load(tiny), Oracle(tiny)
    bert.max_seq_length = 40
    words = ["the", "river", "met", "a", "bank", "of", "mud"]
    context = " ".join(f"{word} {number}" for number, word in enumerate(words * 9))
    offsets = oracle.tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    room = 40 - 3 - len(oracle.tokenizer(QUESTION, add_special_tokens=False)["input_ids"])
    spans: Spans = {}
    nulls: list[float] = []
    for longest in (6, 14):  # less and more than a quarter of a window
        spans.clear()
        nulls.clear()
        for start in window_starts(len(offsets), room, longest):
            part = context[offsets[start][0] : offsets[start + room - 1][1]]
            ((own, null, own_offsets),) = oracle.spans([(QUESTION, part)], longest)
            assert len(own_offsets) == room
            nulls.append(null)
            for (i, j), score in own.items():
                spans[i + start, j + start] = max(score, spans.get((i + start, j + start), -np.inf))
        assert {(i, j) for i in range(len(offsets)) for j in range(i, min(i + longest, len(offsets)))} == set(spans)
        found = bert.answer(QUESTION, context, top_k=9, max_answer_tokens=longest)
        assert_among_the_best(found, spans, offsets, context)
        some = bert.answer(QUESTION, context, top_k=len(spans) + 1, max_answer_tokens=longest, no_answer=True)
        assert sum(answer.score for answer in some) == pytest.approx(1)
        expected = np.exp(min(nulls)) / (np.exp(list(spans.values())).sum() + np.exp(min(nulls)))
        assert [answer.score for answer in some if not answer.text] == [pytest.approx(expected, rel=1e-3)]


def test_a_long_context_is_truncated_with_a_warning_or_rejected(tiny: Path) -> None:
    bert = minibert.load(tiny)
    tokens = len(bert.tokenizer(QUESTION, CONTEXT)["input_ids"])
    whole = bert.answer(QUESTION, CONTEXT, truncation="error")
    bert.max_seq_length = tokens
    assert bert.answer(QUESTION, CONTEXT, truncation="error") == whole
    bert.max_seq_length = tokens - 1
    with pytest.warns(UserWarning, match="1 of 2 texts exceed"):
        cut = bert.answer([QUESTION] * 2, ["A bank.", CONTEXT], truncation="warn")[1]
    assert cut == pytest.approx(bert.answer(QUESTION, CONTEXT.removesuffix(".")))
    with pytest.raises(MinibertError, match=f"text 1 has {tokens} tokens"):
        bert.answer([QUESTION] * 2, ["A bank.", CONTEXT], truncation="error")
    bert.tokenizer.truncation_side = "left"
    with pytest.warns(UserWarning, match="1 of 1 texts exceed"):
        left = bert.answer(QUESTION, CONTEXT, truncation="warn")
    shifted = bert.answer(QUESTION, CONTEXT.removeprefix("Angela "))
    assert (left.text, left.start, left.end) == (shifted.text, shifted.start + 7, shifted.end + 7)


def normalized(text: str) -> list[str]:
    """Words as SQuAD's script compares them: lower-case, without punctuation and articles."""
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def exact_match(given: str, answers: list[str]) -> float:
    return max(float(normalized(given) == normalized(answer)) for answer in answers)


def f1(given: str, answers: list[str]) -> float:
    def one(ours: list[str], gold: list[str]) -> float:
        same = sum((Counter(ours) & Counter(gold)).values())
        return 2 * same / (len(ours) + len(gold)) if same else 0.0  # the harmonic mean of precision and recall

    return max(one(normalized(given), normalized(answer)) for answer in answers)


def test_the_rules_of_squad_are_these() -> None:
    assert exact_match("The Rhine!", ["rhine"]) == 1
    assert exact_match("Rhine river", ["rhine", "the  Rhine, river"]) == 1
    assert exact_match("Rhine river", ["rhine"]) == 0
    assert f1("Rhine river", ["rhine"]) == pytest.approx(2 / 3)
    assert f1("an apple", ["the pear"]) == 0


@pytest.mark.slow
def test_every_question_of_squad_is_answered_with_exact_offsets(loaded: minibert.Bert, evaldata: Path) -> None:
    asked = questions(evaldata)
    assert len(asked) == 1190
    found = loaded.answer((one for one, _, _ in asked), (two for _, two, _ in asked))
    assert len({answer.text for answer in found}) > 100
    for answer, (_, context, _) in zip(found, asked, strict=True):
        assert answer.text
        assert context[answer.start : answer.end] == answer.text


@pytest.mark.slow
def test_a_trained_reader_gets_the_scores_of_the_exhaustive_search(
    tmp_path: Path, minilm: Path, evaldata: Path
) -> None:
    asked = short_enough(questions(evaldata))
    torch.manual_seed(0)
    model = transformers.BertForQuestionAnswering.from_pretrained(minilm).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    optimizer = torch.optim.Adam(model.qa_outputs.parameters(), lr=0.01)
    for first in range(0, 200, 8):  # the head alone, on the questions that it is asked afterwards: it must know some
        part = asked[first : first + 8]
        texts = [one for one, _, _ in part], [two for _, two, _ in part]
        batch = tokenizer(*texts, padding=True, truncation="only_second", max_length=256, return_tensors="pt")
        places = [(two.index(gold[0]), two.index(gold[0]) + len(gold[0]) - 1) for _, two, gold in part]
        ends = [[batch.char_to_token(row, place[side], 1) or 0 for row, place in enumerate(places)] for side in (0, 1)]
        with torch.no_grad():
            states = model.bert(**batch).last_hidden_state
        for _ in range(10):
            optimizer.zero_grad()
            logits = model.qa_outputs(states).masked_fill(~batch["attention_mask"].bool()[..., None], -1e4)
            losses = [torch.nn.functional.cross_entropy(logits[..., k], torch.tensor(ends[k])) for k in (0, 1)]
            torch.stack(losses).sum().backward()
            optimizer.step()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    bert, oracle = minibert.load(tmp_path), Oracle(tmp_path)
    bert.max_seq_length = 512
    ours, theirs = [], []
    for first in range(152, 200, 8):
        pairs = [(one, two) for one, two, _ in asked[first : first + 8]]
        ours += [answer.text for answer in bert.answer([one for one, _ in pairs], [two for _, two in pairs])]
        for (spans, _, offsets), (_, context) in zip(oracle.spans(pairs, 30), pairs, strict=True):
            i, j = max(spans, key=spans.__getitem__)
            theirs.append(context[offsets[i][0] : offsets[j][1]])
    gold = [answers for _, _, answers in asked[152:200]]
    for rule in (exact_match, f1):
        scores = [np.mean([rule(*one) for one in zip(found, gold, strict=True)]) for found in (ours, theirs)]
        assert scores[0] == pytest.approx(scores[1])
    assert ours == theirs
    middles = [context[len(context) // 2 :][:20] for _, context, _ in asked[152:200]]
    assert scores[0] > 2 * np.mean([f1(*one) for one in zip(middles, gold, strict=True)])


def test_one_question_gets_what_it_gets_among_others(loaded: minibert.Bert) -> None:
    contexts = [CONTEXT, "A bank.", CONTEXT * 3]
    among = loaded.answer([QUESTION] * 3, contexts, batch_size=2)
    for context, one in zip(contexts, among, strict=True):
        alone = loaded.answer(QUESTION, context)
        assert alone._replace(score=0) == one._replace(score=0)
        assert alone.score == pytest.approx(one.score, abs=1e-5)
        assert loaded.answer(QUESTION, context, top_k=1) == [alone]
    assert loaded.answer([], []) == []


def test_a_context_without_tokens_has_no_answer(loaded: minibert.Bert) -> None:
    assert loaded.answer(QUESTION, " ") == Answer("", 1.0, 0, 0)
    assert loaded.answer(QUESTION, "Bank", top_k=3) == [Answer("Bank", 1.0, 0, 4)]


@pytest.mark.parametrize("word", ["cafe\u0301", "मे\u0902", "ש\u05b8\u05c1", "❤\ufe0f"])
def test_an_answer_has_the_marks_that_it_ends_in(loaded: minibert.Bert, word: str) -> None:
    assert loaded.answer(QUESTION, f" {word} ") == Answer(word, 1.0, 1, 1 + len(word))
    found = loaded.answer(QUESTION, f"{word} {word}", top_k=10)
    assert {one.text for one in found} == {word, f"{word} {word}"}


def test_wrong_uses_are_rejected(bert: minibert.Bert, loaded: minibert.Bert, tmp_path: Path, minilm: Path) -> None:
    with pytest.raises(MinibertError, match=r"\(BertModel\) must be a BertForQuestionAnswering to answer questions; l"):
        bert.answer(QUESTION, CONTEXT)
    with pytest.raises(MinibertError, match="must be both one text or both several"):
        loaded.answer(QUESTION, [CONTEXT])  # type: ignore[call-overload]
    with pytest.raises(MinibertError, match=r"context \(1 text\) must be as many as the others"):
        loaded.answer([QUESTION] * 2, [CONTEXT])
    with pytest.raises(MinibertError, match=r"question 1 \(600 tokens\) must leave room"):
        loaded.answer([QUESTION, "so " * 600], [CONTEXT] * 2)
    with pytest.raises(MinibertError, match=r"top_k \(0\)"):
        loaded.answer(QUESTION, CONTEXT, top_k=0)
    with pytest.raises(MinibertError, match=r"max_answer_tokens \(0\)"):
        loaded.answer(QUESTION, CONTEXT, max_answer_tokens=0)
    with pytest.raises(MinibertError, match="text 1"):
        loaded.answer([QUESTION] * 2, [CONTEXT, None])  # type: ignore[list-item]
    single = minibert.load(reader(tmp_path, minilm, type_vocab_size=1))
    with pytest.raises(MinibertError, match=r"type_vocab_size \(1\) must be at least 2"):
        single.answer(QUESTION, CONTEXT)


def test_the_command_prints_answers(
    tiny: Path, loaded: minibert.Bert, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = loaded.answer(QUESTION, CONTEXT, top_k=3, max_answer_tokens=4)
    given = ["--model", str(tiny), "--top-k", "3", "--max-answer-tokens", "4"]
    assert main(["answer", QUESTION, CONTEXT, *given]) == 0
    expected = [f"{one.score:.4f}\t{one.start}\t{one.end}\t{one.text}" for one in found]
    assert capsys.readouterr().out.splitlines() == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO(CONTEXT))
    assert main(["answer", QUESTION, *given, "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == [one._asdict() for one in found]


@pytest.fixture(scope="module", params=KINDS)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random reader whose tokenizer is not WordPiece: its tokens may begin with the space before a word."""
    return checkpoint_of(request.param, tmp_path_factory.mktemp("other"), "BertForQuestionAnswering")


@pytest.fixture(scope="module")
def other_loaded(other: Path) -> minibert.Bert:
    return minibert.load(other)


def test_answers_of_other_tokenizers_are_the_best_places_without_their_spaces(
    other: Path, other_loaded: minibert.Bert
) -> None:
    oracle, trimmed = Oracle(other), 0
    for script, context in SCRIPTS.items():
        ((spans, _, offsets),) = oracle.spans([(QUESTION, context)], 8)
        best: Spans = {}
        total = 0.0
        for (i, j), score in spans.items():
            start, end = offsets[i][0], offsets[j][1]
            written = context[start:end].strip()
            trimmed += written != context[start:end]
            if written:
                total += np.exp(score)
                start = context.index(written, start)
                place = (start, start + len(written))
                best[place] = max(best.get(place, -np.inf), score)
        found = other_loaded.answer(QUESTION, context, top_k=10, max_answer_tokens=8)
        ordered = sorted(best.values(), reverse=True)[:10]
        assert [best[answer.start, answer.end] for answer in found] == pytest.approx(ordered, abs=1e-4), script
        assert len({(answer.start, answer.end) for answer in found}) == 10
        assert [answer.score for answer in found] == pytest.approx(np.exp(ordered) / total, rel=1e-3)
        assert [answer.text for answer in found] == [context[answer.start : answer.end] for answer in found]
    assert trimmed or "WhitespaceSplit" in str(other_loaded.tokenizer.backend.pre_tokenizer)


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(
    context=st.text(st.sampled_from(" \u3000\u00a0\t\n") | st.characters(exclude_categories=["Cs"]), max_size=40)
)
def test_answers_of_other_tokenizers_have_no_space_around_them(other_loaded: minibert.Bert, context: str) -> None:
    found = other_loaded.answer(QUESTION, context, top_k=5)
    assert found
    for answer in found:
        assert answer.text == context[answer.start : answer.end] == answer.text.strip()
        assert answer.text or len(found) == 1
