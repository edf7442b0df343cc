"""The masked-LM head, read at every layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from oracle import with_real_vocabulary

import minibert
from minibert.errors import MinibertError

TEXT = "the cat sat on the [MASK] ."


@pytest.fixture(scope="module", params=["BertForMaskedLM", "BertForPreTraining"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> minibert.Bert:
    folder = with_real_vocabulary(tmp_path_factory.mktemp("random"), minilm, request.param)
    return minibert.load(folder, dtype="float32")


def test_at_the_last_layer_the_lens_is_what_fills_masks(tiny: minibert.Bert) -> None:
    lens = tiny.lens(TEXT)
    with torch.no_grad():
        outputs = tiny.model(**tiny.tokenizer(TEXT, return_tensors="pt"), output_hidden_states=True)
        filled = tiny.model.mlm_head(outputs.hidden_states[-1][0, [6]], tiny.encoder.embeddings.token.weight).softmax(
            -1
        )
    assert torch.equal(lens.layer(-1), outputs[0])
    assert torch.equal(lens.logits[-1], outputs[0][0])
    assert torch.equal(lens.layer(3, [6]).softmax(-1), filled)
    assert torch.equal(lens.at(6)[-1].softmax(-1), filled[0])
    for number, state in enumerate(outputs.hidden_states):
        assert torch.equal(lens.states[number], state)


def test_each_layer_is_the_head_of_its_hidden_state(tiny: minibert.Bert) -> None:
    lens = tiny.lens(TEXT, "so did the dog")
    with torch.no_grad():
        states = tiny.model(
            **tiny.tokenizer(TEXT, "so did the dog", return_tensors="pt"), output_hidden_states=True
        ).hidden_states
        expected = torch.cat([tiny.model.mlm_head(x, tiny.encoder.embeddings.token.weight) for x in states])
    assert tuple(lens.logits.shape) == (4, len(lens.tokens), 30522)
    assert torch.equal(lens.logits, expected)


def test_the_top_tokens_are_those_of_fill_mask(tiny: minibert.Bert) -> None:
    best = tiny.lens(TEXT).top(3)
    assert [len(best), len(best[0]), len(best[0][0])] == [4, 9, 3]
    candidates = tiny.fill_mask(TEXT, top_k=3)
    assert [guess.token for guess in best[-1][6]] == [candidate.token for candidate in candidates]
    for guess, candidate in zip(best[-1][6], candidates, strict=True):
        assert guess.probability == pytest.approx(candidate.probability, rel=1e-4)


def test_printed_it_is_a_table_of_layers_by_tokens(tiny: minibert.Bert) -> None:
    lens = tiny.lens(TEXT)
    lines = repr(lens).splitlines()
    assert lines[0].split() == list(lens.tokens)
    assert [line.split()[0] for line in lines[1:]] == ["0", "1", "2", "3"]
    assert lines[4].split()[7] == tiny.fill_mask(TEXT)[0].token


def test_a_model_without_the_head_is_refused_in_a_sentence(bert: minibert.Bert, tiny: minibert.Bert) -> None:
    with pytest.raises(MinibertError) as caught:
        bert.lens(TEXT)
    assert str(caught.value) == (
        "the model (BertModel) must have a masked-LM head for the lens; load a checkpoint that has it, "
        "google-bert/bert-base-uncased for one"
    )
    with pytest.raises(MinibertError, match=r"layer \(4\)"):
        tiny.lens(TEXT).layer(4)
