"""What papers published: the parts on small data; the values themselves need the Hub, `pytest -m network`."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from oracle import with_real_vocabulary

import minibert
from minibert.reports import published as module
from minibert.reports.published import (
    agreement_logits,
    attention_to_sep,
    dependency_heads,
    published,
    read_agreement,
    read_conllu,
    read_sts,
    word_geometry,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "study_expected.json").read_text(encoding="utf-8"))
TINY = (3, 4, 32)

AGREEMENT = """\
Better speed can be achieved with apex.
True\t0\trepresents\t-2.5\trepresent\t-3.5\tb'an insight in fifty ***mask*** there " now " .'
skipping is/are
False\t1\tinsist\t-3.5\tinsists\t-3.4\tb"it 's the wines we ***mask*** ; we come ."
"""
CONLLU = """\
# sent_id = 1
# text = Don't see the unprecedented cats.
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVB\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
3\tsee\tsee\tVERB\tVB\t_\t0\troot\t_\t_
3.1\tsee\tsee\tVERB\tVB\t_\t_\t_\t_\t_
4\tthe\tthe\tDET\tDT\t_\t6\tdet\t_\t_
5\tunprecedented\tunprecedented\tADJ\tJJ\t_\t6\tamod\t_\t_
6\tcats\tcat\tNOUN\tNNS\t_\t3\tobj\t_\t_
7\t.\t.\tPUNCT\t.\t_\t3\tpunct\t_\t_

# text = The harmonicas play.
1\tThe\tthe\tDET\tDT\t_\t2\tdet\t_\t_
2\tharmonicas\tharmonica\tNOUN\tNNS\t_\t3\tnsubj\t_\t_
3\tplay\tplay\tVERB\tVBP\t_\t0\troot\t_\t_
4\t.\t.\tPUNCT\t.\t_\t3\tpunct\t_\t_
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    return with_real_vocabulary(tmp_path_factory.mktemp("masked"), minilm, "BertForMaskedLM", initializer_range=0.3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data folder."""
    root = tmp_path_factory.mktemp("data")
    sts = "".join(f"x\tx\tx\t{n}\t0\tA cat sits {word}.\tThe cat runs.\n" for n, word in enumerate("abcdefgh"))
    for name, text in (
        (module.AGREEMENT_FILE, AGREEMENT),
        (module.PUD_FILE, CONLLU * 3),
        (module.STS_FILES[0], sts),
        (module.STS_FILES[1], "x\tx\tx\t9\t0\tA dog.\n"),
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_the_values_are_those_that_were_published() -> None:
    right = GOLDEN["verb_agreement"]["right"]
    assert {
        "all": (right["all"], GOLDEN["verb_agreement"]["sentences"]),
        **{str(n): tuple(right[f"{n} attractor{'s' * (n != 1)}"]) for n in range(3)},
    } == module.RIGHT
    assert GOLDEN["masked_pronoun"]["text"] == module.PRONOUN_TEXT
    assert GOLDEN["masked_pronoun"]["probabilities"] == module.PRONOUNS
    for name, values in (
        ("cosine_of_random_words_by_layer", module.RANDOM_COSINE),
        ("self_similarity_by_layer", module.SELF_SIMILARITY),
        ("mean_norm_of_words_by_layer", module.NORM),
    ):
        assert list(values) == GOLDEN[name]["layers_0_to_12"]
    heads = GOLDEN["heads_and_dependencies"]["heads_counted_from_0"]
    ours = {name: [f"{layer}-{head}", value] for name, (_, layer, head, value) in module.PUBLISHED_HEADS.items()}
    assert ours == heads


def test_sentences_with_masked_verbs_are_read_and_remarks_are_not(data: Path) -> None:
    first, second = read_agreement(data / module.AGREEMENT_FILE)
    assert first == ('an insight in fifty [MASK] there " now " .', 0, "represents", "represent", (-2.5, -3.5))
    assert (second.text, second.attractors) == ("it 's the wines we [MASK] ; we come .", 1)


def test_the_published_logits_give_the_published_counts(evaldata: Path) -> None:
    sentences = read_agreement(evaldata / module.AGREEMENT_FILE)
    for key, expected in module.RIGHT.items():
        own = [one.logits for one in sentences if key in ("all", str(one.attractors))]
        assert (sum(right > wrong for right, wrong in own), len(own)) == expected


def test_logits_of_verbs_equal_transformers(folder: Path, data: Path) -> None:
    sentences = read_agreement(data / module.AGREEMENT_FILE)
    model = transformers.BertForMaskedLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    expected = []
    for one in sentences:
        encoded = tokenizer(one.text, return_tensors="pt")
        place = encoded.input_ids[0].tolist().index(tokenizer.mask_token_id)
        with torch.no_grad():
            logits = model(**encoded).logits[0, place]
        expected.append([float(logits[tokenizer.convert_tokens_to_ids(verb)]) for verb in (one.right, one.wrong)])
    np.testing.assert_allclose(agreement_logits(minibert.load(folder), sentences), expected, atol=1e-4)


def test_ranges_and_empty_nodes_of_conllu_are_left_out() -> None:
    first, second = read_conllu(CONLLU.splitlines(keepends=True))
    assert first.text == "Don't see the unprecedented cats."
    assert first.words == ("Do", "n't", "see", "the", "unprecedented", "cats", ".")
    assert first.heads == (2, 2, -1, 5, 5, 2, 2)
    assert first.relations == ("aux", "advmod", "root", "det", "amod", "obj", "punct")
    assert second.words == ("The", "harmonicas", "play", ".")


def test_all_sentences_of_pud_are_read(evaldata: Path) -> None:
    sentences = read_conllu((evaldata / module.PUD_FILE).read_text(encoding="utf-8").splitlines())
    assert len(sentences) == 1000
    assert all(one.heads.count(-1) == 1 and max(one.heads) < len(one.words) for one in sentences)


def test_word_geometry_equals_its_definition(folder: Path) -> None:
    bert = minibert.load(folder)
    texts = ["bank", "river", "bank bank", "", "the bank", "the", "bank"]
    found = word_geometry(bert, texts, least=5)
    states = [
        (word, vector.reshape(4, 32))
        for words in bert.words([text for text in texts if text], layers=[0, 1, 2, 3], combine="concat")
        for word, vector in zip(words.words, words.vectors, strict=True)
    ]
    for layer in range(4):
        own = [vector[layer] for word, vector in states if word == "bank"]
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(own, 2)]
        assert found.self_similarity[layer] == pytest.approx(np.mean(cosines), abs=1e-5)
        assert found.norm[layer] == pytest.approx(
            np.mean([np.linalg.norm(vector[layer]) for _, vector in states]), rel=1e-5
        )
    assert found.words == 1  # "the" is there only twice
    single = word_geometry(bert, ["bank", "river", "bank"], least=2)
    vectors = [vector / np.linalg.norm(vector) for vector in (states[0][1][2], states[1][1][2], states[0][1][2])]
    cosines = [a @ b for a, b in itertools.combinations(vectors, 2)]
    assert single.random_cosine[2] == pytest.approx(np.mean(cosines), abs=1e-5)
    with pytest.raises(minibert.MinibertError, match="5 times"):
        word_geometry(bert, ["one", "two"])


def test_sentences_of_sts_are_read_once_each(data: Path) -> None:
    assert read_sts(data)[:3] == ["A cat sits a.", "The cat runs.", "A cat sits b."]
    assert len(read_sts(data)) == 10


def test_attention_on_sep_equals_transformers(minilm: Path, bert: minibert.Bert) -> None:
    model = transformers.AutoModel.from_pretrained(minilm, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    pairs = [("He robbed the bank.", "They fished."), ("One.", "The river bank is long.")]
    shares, own = [], []
    for pair in pairs:
        encoded = tokenizer(*pair, return_tensors="pt")
        sep = encoded.input_ids[0] == tokenizer.sep_token_id
        with torch.no_grad():
            weights = torch.cat(model(**encoded, output_attentions=True).attentions)
        shares.append(weights[..., sep].sum(-1).mean((1, 2)))
        own.append(weights[:, :, sep][..., sep].sum(-1).mean((1, 2)))
    found = attention_to_sep(bert, pairs)
    torch.testing.assert_close(found[0], torch.stack(shares).mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], torch.stack(own).mean(0), atol=1e-5, rtol=0)


def test_heads_that_follow_dependencies_equal_the_definition(minilm: Path, bert: minibert.Bert) -> None:
    sentences = read_conllu(CONLLU.splitlines())
    model = transformers.AutoModel.from_pretrained(minilm, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    right = np.zeros((2, 6, 12))
    for one in sentences:
        encoded = tokenizer(list(one.words), is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            weights = torch.cat(model(**encoded, output_attentions=True).attentions).numpy()
        tokens = {word: [i for i, w in enumerate(encoded.word_ids()) if w == word] for word in range(len(one.words))}
        assert max(map(len, tokens.values())) > 1
        for layer, head in np.ndindex(6, 12):
            between = np.array(
                [
                    [
                        0 if a == b else np.mean([sum(weights[layer, head, i, tokens[b]]) for i in tokens[a]])
                        for b in tokens
                    ]
                    for a in tokens
                ]
            )
            for word, relation in enumerate(one.relations):
                if relation == "det":
                    right[0, layer, head] += between[word].argmax() == one.heads[word]
                    right[1, layer, head] += between[:, word].argmax() == one.heads[word]
    found = dependency_heads(bert, sentences, ["det", "aux", "iobj"])
    np.testing.assert_array_equal(found["det"].accuracy, right / 2)
    assert 0 < right.mean() < 1
    direction, layer, head = found["det"].best
    assert found["det"].best_accuracy == right[direction, layer, head] / 2 == right.max() / 2
    assert (found["det"].count, found["det"].offset_accuracy) == (2, 0.5)
    assert (found["aux"].offset, found["aux"].offset_accuracy) == (2, 1)
    assert (found["iobj"].count, found["iobj"].best_accuracy) == (0, 0)


@pytest.mark.slow
def test_the_best_heads_of_minilm_beat_the_best_fixed_offset(bert: minibert.Bert, evaldata: Path) -> None:
    sentences = read_conllu((evaldata / module.PUD_FILE).read_text(encoding="utf-8").splitlines())
    for one in dependency_heads(bert, sentences, module.BEATING_OFFSETS).values():
        assert one.count > 300, one.relation
        assert one.best_accuracy > one.offset_accuracy + 0.05, one.relation


def test_a_model_of_another_shape_and_absent_data_are_said_in_the_table(bert: minibert.Bert) -> None:
    report = published(bert)
    assert len(report.rows) == 5 + 4 + 3 * 13 + 2 + 5 + 4
    assert all(row.ours == "" and row.within is None for row in report.rows)
    assert {row.remark for row in report.rows} == {
        "published for bert-base-uncased; this model has another shape",
        "published for bert-base-cased; this model has another shape",
        f"needs {module.PUD_FILE} in the data folder",
    }
    assert report.ok


def test_an_uncased_model_gets_its_rows_and_the_cased_ones_say_why_not(
    folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BASE_SHAPE", TINY)
    monkeypatch.setattr(module, "PUBLISHED_HEADS", {"det": ("det", 2, 3, 94.3)})
    monkeypatch.setattr(module, "SEP_LAYERS", slice(0, 3))
    report = published(minibert.load(folder), data)
    assert not report.ok  # it is random
    rows = {row.quantity: row for row in report.rows}
    assert rows["subject and verb agree, all"].ours.endswith("/2")
    assert rows["subject and verb agree, logits"].within is False
    assert rows['"his" at [MASK], probability'].within is False
    assert float(rows["attention on [SEP], least of layers 6 to 10"].ours) < 1
    assert rows["det, head 2-3, accuracy"].within is None
    assert 0 <= float(rows["det, head 2-3, accuracy"].ours) <= 100
    assert rows["norm of words, layer 3"].remark == "published for bert-base-cased; this model is uncased"
    line = next(line for line in str(report).splitlines() if "agree, logits" in line)
    assert " NO " in line
    assert str(report).splitlines()[2].split() == ["paper", "quantity", "published", "ours", "within", "remark"]


def test_a_value_within_its_tolerance_says_yes() -> None:
    assert module.verdict("paper", "what", 0.5, 0.52, 0.03, ".3f").within
    assert not module.verdict("paper", "what", 0.5, 0.54, 0.03, ".3f").within


def test_a_cased_model_is_measured_word_by_word_and_layer_by_layer(
    tmp_path: Path, minilm: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minibert.tokenizer import BertTokenizer

    folder = with_real_vocabulary(tmp_path, minilm, "BertModel")
    monkeypatch.setattr(module, "BASE_SHAPE", TINY)
    for name in ("RANDOM_COSINE", "SELF_SIMILARITY", "NORM"):
        monkeypatch.setattr(module, name, getattr(module, name)[:4])
    loaded = minibert.load(folder)
    cased = minibert.Bert(loaded.model, BertTokenizer(folder / "vocab.txt", do_lower_case=False), loaded.recipe)
    assert not cased.tokenizer.do_lower_case
    rows = {row.quantity: row for row in published(cased, data).rows}
    expected = word_geometry(cased, read_sts(data))
    assert rows["norm of words, layer 2"].ours == f"{expected.norm[2]:.3f}"
    assert rows["self-similarity of words, layer 3"].ours == f"{expected.self_similarity[3]:.3f}"
    assert rows["cosine of random words, layer 1"].ours == f"{expected.random_cosine[1]:.3f}"
    assert rows["subject and verb agree, all"].remark == "published for bert-base-uncased; this model is cased"


def test_a_base_model_without_a_masked_lm_head_says_so(bert: minibert.Bert, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BASE_SHAPE", (6, 12, 384))
    remarks = {row.quantity: row.remark for row in published(bert).rows}
    assert remarks["subject and verb agree, all"] == "the model has no masked-LM head"
    assert remarks["attention on [SEP], least of layers 6 to 10"] == f"needs {module.PUD_FILE} in the data folder"


@pytest.mark.network
@pytest.mark.parametrize("name", ["google-bert/bert-base-uncased", "google-bert/bert-base-cased"])
def test_the_published_values_of_bert_base_are_ours(name: str, evaldata: Path) -> None:
    report = published(minibert.load(name), evaldata)
    assert sum(row.within is not None for row in report.rows) > 10
    assert report.ok, report
