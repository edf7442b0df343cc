"""Named entities: the groups, scores and places that transformers' pipeline gives, and exact offsets."""

from __future__ import annotations

import unicodedata
import warnings
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
from minibert.errors import MinibertError
from minibert.tasks.entities import STRATEGIES, Entity, Scheme

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
TEXTS = [
    "Angela Merkel met François Hollande in Straßburg-Neudorf.",
    "北京大学 and 東京, Zürich: cafés!",
    "👍🏽 family 👨‍👩‍👧 flag 🇫🇷 embeddings",
    "שלום עולם, مرحبا بالعالم",
    "Donaudampfschifffahrtsgesellschaft antidisestablishmentarianism " + "x" * 120,
    "tab\tnew\nline\r\n  spaces  ...",
    "a[MASK]b [SEP] [CLS]",
    "",
    " ",
    "He robbed the bank by the river bank. " * 20,
]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def conll(path: Path) -> list[tuple[list[str], list[str]]]:
    """The words and labels of each sentence of a file with a word and its label per line."""
    sentences: list[tuple[list[str], list[str]]] = [([], [])]
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, label = line.partition("\t")
        if word.strip():
            sentences[-1][0].append(word)
            sentences[-1][1].append(label)
        elif sentences[-1][0]:
            sentences.append(([], []))
    return [sentence for sentence in sentences if sentence[0]]


def tagger(folder: Path, minilm: Path, labels: list[str] = BIO, **shape: Any) -> Path:
    """A random tagger with the tokenizer of bert-base-uncased."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    return with_real_vocabulary(folder, minilm, "BertForTokenClassification", **{**TINY, **names, **shape})


def pipeline(folder: Path, strategy: str) -> Any:
    return transformers.pipeline("token-classification", model=str(folder), device="cpu", aggregation_strategy=strategy)


def assert_same(ours: list[Entity], theirs: list[dict[str, Any]], text: str) -> None:
    labels = [one.get("entity_group", one.get("entity")) for one in theirs]
    assert [entity.label for entity in ours] == labels
    assert [(entity.start, entity.end) for entity in ours] == [(one["start"], one["end"]) for one in theirs]
    np.testing.assert_allclose([entity.score for entity in ours], [one["score"] for one in theirs], atol=1e-5)
    assert [entity.text for entity in ours] == [text[entity.start : entity.end] for entity in ours]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    return tagger(tmp_path_factory.mktemp("tagger"), minilm)


@pytest.fixture(scope="module")
def loaded(tiny: Path) -> minibert.Bert:
    return minibert.load(tiny)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [TINY, MINILM], ids=["tiny", "minilm"])
def test_groups_scores_and_places_are_those_of_the_pipeline(shape: Any, tmp_path: Path, minilm: Path) -> None:
    std = {"initializer_range": 0.5 if shape is TINY else 0.04}
    folder = tagger(tmp_path, minilm, **shape, **std)
    bert, theirs = minibert.load(folder), pipeline(folder, "simple")
    kinds = set()
    for strategy in STRATEGIES:
        found = bert.entities(TEXTS, strategy=strategy)
        expected = theirs(TEXTS, aggregation_strategy=strategy)
        for text, ours, other in zip(TEXTS, found, expected, strict=True):
            assert_same(ours, other, text)
            kinds |= {entity.label for entity in ours}
    assert {"PER", "LOC", "B-PER", "I-PER", "B-LOC", "I-LOC"} <= kinds


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_text_alone_gets_what_it_gets_among_others(loaded: minibert.Bert, strategy: Any) -> None:
    for text, among in zip(TEXTS, loaded.entities(iter(TEXTS), strategy=strategy, batch_size=3), strict=True):
        alone = loaded.entities(text, strategy=strategy)
        assert [entity._replace(score=0.0) for entity in alone] == [entity._replace(score=0.0) for entity in among]
        assert [entity.score for entity in alone] == pytest.approx([entity.score for entity in among], abs=1e-5)
    assert loaded.entities([]) == []


def test_dropout_is_off_whatever_mode_the_model_is_in(tiny: Path, loaded: minibert.Bert) -> None:
    training = minibert.load(tiny)
    training.model.train()
    training.model.classifier.dropout.p = 0.5
    assert training.entities(TEXTS) == loaded.entities(TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["simple", "average"])
def test_places_are_exact_on_every_sentence_of_wnut(loaded: minibert.Bert, evaldata: Path, strategy: Any) -> None:
    names = ["wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"]
    texts = [" ".join(words) for name in names for words, _ in conll(evaldata / "wnut17" / name)]
    assert len(texts) > 5000
    total = 0
    for text, found in zip(texts, loaded.entities(texts, strategy=strategy), strict=True):
        check_places(loaded, text, found)
        total += len(found)
    assert total > 10_000


def is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M") or character in "\u200c\u200d"


def check_places(bert: minibert.Bert, text: str, found: list[Entity]) -> None:
    """Each entity is a slice of the text, from the start of a token to the end of one and its marks."""
    offsets = bert.tokenizer.backend.encode(text, add_special_tokens=False).offsets
    starts, ends = {start for start, _ in offsets}, {end for _, end in offsets}
    before = 0
    for entity in found:
        assert entity.text == text[entity.start : entity.end]
        assert entity.start in starts
        letters = entity.end
        while letters not in ends and is_mark(text[letters - 1]):
            letters -= 1
        assert letters in ends
        assert entity.end == len(text) or entity.end in starts or not is_mark(text[entity.end])
        assert before <= entity.start < entity.end
        before = entity.end


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_entity_has_the_marks_that_it_ends_in(tmp_path: Path, minilm: Path, strategy: Any) -> None:
    model = OneHot(tmp_path, minilm, BIO, cafe="B-LOC", noir="B-PER")
    label = {"none": ("B-LOC", "B-PER")}.get(strategy, ("LOC", "PER"))
    found = [(label[0], "cafe\u0301"), (label[1], "noir\u0308\u200d")]
    assert model("the cafe\u0301 noir\u0308\u200d", strategy=strategy) == found


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(text=ANY_TEXT, strategy=st.sampled_from(STRATEGIES[:1] + STRATEGIES[2:]))
def test_places_are_exact_on_any_unicode(loaded: minibert.Bert, text: str, strategy: Any) -> None:
    check_places(loaded, text, loaded.entities(text, strategy=strategy))


class OneHot:
    """A model whose label depends on the token alone: context and position have no influence on it."""

    def __init__(self, folder: Path, minilm: Path, labels: list[str], **of_tokens: str) -> None:
        tagger(folder, minilm, labels)
        self.bert = bert = minibert.load(folder)
        embeddings = bert.encoder.embeddings
        with torch.no_grad():
            for layer in bert.layers:
                for part in (layer.attention.output, layer.feed_forward.down):
                    part.weight.zero_()
                    part.bias.zero_()
            for table in (embeddings.token, embeddings.position, embeddings.token_type):
                table.weight.zero_()
            embeddings.token.weight[:, 0] = 1.0
            for token, label in of_tokens.items():
                row = embeddings.token.weight[bert.tokenizer.convert_tokens_to_ids(token)]
                row.zero_()
                row[labels.index(label)] = 1.0
            for norm in (
                embeddings.norm,
                *(n for la in bert.layers for n in (la.attention_norm, la.feed_forward_norm)),
            ):
                norm.weight.fill_(1.0)
                norm.bias.zero_()
            bert.model.classifier.weight.zero_()
            bert.model.classifier.weight[range(len(labels)), range(len(labels))] = 1.0
            bert.model.classifier.bias.zero_()

    def __call__(self, text: str, **settings: Any) -> list[tuple[str, str]]:
        return [(entity.label, entity.text) for entity in self.bert.entities(text, **settings)]


def test_windows_give_on_a_long_text_what_they_give_on_its_paragraphs(tmp_path: Path, minilm: Path) -> None:
    tags = {"angela": "B-PER", "smith": "I-PER", "paris": "B-LOC", "em": "B-LOC"}
    bert = OneHot(tmp_path, minilm, BIO, **tags).bert
    bert.max_seq_length = 16
    paragraphs = [f"{'so ' * (n % 11)}Angela Smith, in Paris; {'then ' * (n % 7)}Zürich embeddings." for n in range(60)]
    text, expected = "", []
    for paragraph in paragraphs:
        found = bert.entities(paragraph, truncation="window")
        assert [entity.text for entity in found] == ["Angela Smith", "Paris", "em"]
        expected += [one._replace(start=one.start + len(text), end=one.end + len(text)) for one in found]
        text += paragraph + "\n\n"
    whole = bert.entities(text, truncation="window")
    assert [one._replace(score=0.0) for one in whole] == [one._replace(score=0.0) for one in expected]
    assert [one.score for one in whole] == pytest.approx([one.score for one in expected], abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(bert.entities(text)) < len(whole)


def test_a_token_has_the_label_of_the_window_with_more_context(loaded: minibert.Bert, tiny: Path) -> None:
    short = minibert.load(tiny)
    short.max_seq_length = 10
    text = "one two three four five six seven eight nine ten eleven twelve"
    ids = short.tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) == 12
    # windows of 8 tokens from 0 and from 4: the border is in the middle of what they share, at 6
    rows = torch.tensor([[101, *ids[:8], 102], [101, *ids[4:], 102]])
    with torch.no_grad():
        first, second = short.model(rows).logits.softmax(-1)[:, 1:-1]
    best = torch.cat([first[:6], second[2:]]).max(-1)
    expected = [(BIO[label], score) for score, label in zip(*map(torch.Tensor.tolist, best), strict=True) if label]
    found = short.entities(text, truncation="window", strategy="none")
    assert [entity.label for entity in found] == [label for label, _ in expected]
    assert [entity.score for entity in found] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_texts_that_are_too_long_are_truncated_with_a_warning_or_rejected(tiny: Path) -> None:
    bert = minibert.load(tiny)
    bert.max_seq_length = 10
    text = "one two three four five six seven eight nine"
    with pytest.warns(UserWarning, match="1 of 2 texts exceed 10 tokens: 1 tokens were dropped"):
        cut = bert.entities([text, "short"], strategy="none")[0]
    assert cut == bert.entities(text.removesuffix(" nine"), strategy="none")
    with pytest.raises(MinibertError, match="text 1 has 11 tokens"):
        bert.entities(["short", text], truncation="error")
    bert.tokenizer.truncation_side = "left"
    with pytest.warns(UserWarning, match="1 tokens were dropped"):
        left = bert.entities(text, strategy="none")
    shifted = bert.entities(text.removeprefix("one "), strategy="none")
    assert left == [one._replace(start=one.start + 4, end=one.end + 4) for one in shifted]


@pytest.mark.parametrize(
    ("labels", "tags", "expected"),
    [
        pytest.param(BIO, "B-PER I-PER B-PER I-LOC O I-LOC I-LOC", "PER:2 PER:1 LOC:1 LOC:2", id="BIO"),
        pytest.param(BIO, "I-PER I-PER B-PER I-LOC O I-LOC B-LOC", "PER:2 PER:1 LOC:1 LOC:1 LOC:1", id="IOB1"),
        pytest.param(
            ["O", "B-X", "I-X", "L-X", "U-X"], "B-X I-X L-X I-X L-X U-X U-X O L-X I-X", "X:3 X:2 X:1 X:1 X:1 X:1",
            id="BILOU",
        ),
        pytest.param(
            ["B-X", "E-X", "I-X", "O", "S-X", "S-Y"], "B-X E-X E-X S-X I-X O S-Y S-X", "X:2 X:1 X:1 X:1 Y:1 X:1",
            id="BIOES",
        ),
        pytest.param(["NOUN", "VERB", "S-X"], "NOUN NOUN VERB S-X S-X", "NOUN:2 VERB:1 S-X:2", id="no prefixes"),
    ],
)  # fmt: skip
def test_the_scheme_is_decided_by_the_labels(
    tmp_path: Path, minilm: Path, labels: list[str], tags: str, expected: str
) -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"][: len(tags.split())]
    model = OneHot(tmp_path, minilm, labels, **dict(zip(words, tags.split(), strict=True)))
    found = [f"{label}:{len(text.split())}" for label, text in model(" ".join(words))]
    assert found == expected.split()


def test_labels_of_bio_have_two_kinds_and_outside() -> None:
    scheme = Scheme(dict(enumerate(BIO)))
    assert [scheme.kinds[kind] for kind in scheme.kind] == ["O", "PER", "PER", "LOC", "LOC"]


def test_a_word_with_decomposed_accents_is_a_word_of_its_own(tmp_path: Path, minilm: Path) -> None:
    # the pipeline joins it to the word before, since the token is shorter than what it stands for
    model = OneHot(tmp_path, minilm, BIO, resume="B-LOC")
    for strategy in ("first", "average", "max"):
        assert model("the re\u0301sume there", strategy=strategy) == [("LOC", "re\u0301sume")]


def test_a_checkpoint_without_the_head_and_an_unknown_strategy_are_rejected(
    bert: minibert.Bert, loaded: minibert.Bert
) -> None:
    with pytest.raises(MinibertError, match=r"\(BertModel\) must be a BertForTokenClassification to find entities; lo"):
        bert.entities("Angela")
    with pytest.raises(MinibertError, match=r"strategy \('last'\) must be one of simple, none, first, average, max"):
        loaded.entities("Angela", strategy="last")  # type: ignore[call-overload]
    with pytest.raises(MinibertError, match="text 1"):
        loaded.entities(["Angela", None])  # type: ignore[list-item]


@pytest.fixture(scope="module", params=KINDS)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tagger whose tokenizer is not WordPiece: its tokens may begin with the space before a word."""
    labels = {"id2label": dict(enumerate(BIO[1:])), "initializer_range": 0.2}  # without "O", all are entities
    return checkpoint_of(request.param, tmp_path_factory.mktemp("other"), "BertForTokenClassification", **labels)


@pytest.fixture(scope="module")
def other_loaded(other: Path) -> minibert.Bert:
    return minibert.load(other)


def test_entities_of_other_tokenizers_are_those_of_the_pipeline_without_their_spaces(
    other: Path, other_loaded: minibert.Bert
) -> None:
    texts = list(SCRIPTS.values())
    for strategy, least in (("simple", 27), ("none", 400)):
        found = other_loaded.entities(texts, strategy=strategy)  # type: ignore[call-overload]
        trimmed = total = 0
        for text, ours, theirs in zip(texts, found, pipeline(other, strategy)(texts), strict=True):
            expected = []
            for one in theirs:
                written = text[one["start"] : one["end"]]
                start = text.index(written.strip(), one["start"])
                if written.strip():
                    expected.append({**one, "start": start, "end": start + len(written.strip())})
                trimmed += written != written.strip()
            assert_same(ours, expected, text)
            total += len(ours)
        assert total > least
        assert trimmed or "WhitespaceSplit" in str(other_loaded.tokenizer.backend.pre_tokenizer)


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(
    text=st.text(st.sampled_from(" \u3000\u00a0\t\n") | st.characters(exclude_categories=["Cs"]), max_size=40),
    strategy=st.sampled_from(STRATEGIES),
)
def test_entities_of_other_tokenizers_have_no_space_around_them(
    other_loaded: minibert.Bert, text: str, strategy: Any
) -> None:
    before = 0
    for entity in other_loaded.entities(text, strategy=strategy):
        assert entity.text == text[entity.start : entity.end] == entity.text.strip() != ""
        assert before <= entity.start
        before = entity.start


@pytest.mark.slow
def test_a_trained_tagger_finds_what_the_pipeline_finds(
    tmp_path: Path, minilm: Path, bert: minibert.Bert, evaldata: Path
) -> None:
    train = conll(evaldata / "wnut17" / "wnut17train.conll")[:1000]
    labels = sorted({label for _, tags in train for label in tags}, key=lambda label: (label != "O", label))
    words = bert.words([words for words, _ in train], pieces="first", truncation="window", show_progress_bar=False)
    x = torch.from_numpy(np.concatenate([one.vectors for one in words]))
    y = torch.tensor([labels.index(label) for _, tags in train for label in tags])
    head = torch.nn.Linear(384, len(labels))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(3):
        for part in torch.randperm(len(x)).split(2048):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(x[part]), y[part]).backward()
            optimizer.step()
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    model = transformers.BertForTokenClassification.from_pretrained(minilm, **names)
    model.classifier.load_state_dict(head.state_dict())
    model.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(minilm).save_pretrained(tmp_path)

    loaded, theirs = minibert.load(tmp_path), pipeline(tmp_path, "simple")
    texts = [" ".join(words) for words, _ in conll(evaldata / "wnut17" / "emerging.test.annotated")[::4]]
    total = 0
    for strategy in ("simple", "first"):
        found = loaded.entities(texts, strategy=strategy)
        for text, ours, other in zip(
            texts, found, theirs(texts, aggregation_strategy=strategy, batch_size=16), strict=True
        ):
            assert_same(ours, other, text)
            total += len(ours)
    assert total > 100
