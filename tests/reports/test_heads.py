"""What heads attend to, against numpy on transformers' eager attentions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from matplotlib.text import Text
from oracle import with_real_vocabulary

import minibert
from minibert.reports import heads
from minibert.reports.heads import STATISTICS, HeadStatistics, head_statistics

TEXTS = ["The cat, it seems, sat down!", "", "He robbed the bank.", "Zürich: 3 cities?", "They fished from the bank."]


def expected(folder: Path, texts: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Everything by its definition: a loop over texts, and one over tokens."""
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    sums: dict[str, dict[str, np.ndarray]] = {"weight": {}, "norm": {}}
    total = 0
    shape = (model.config.num_hidden_layers, model.config.num_attention_heads)
    for by in sums:
        sums[by] = {name: np.zeros(shape) for name in STATISTICS}
    for text in texts:
        encoded = tokenizer(text, return_tensors="pt")
        tokens = tokenizer.convert_ids_to_tokens(encoded.input_ids[0])
        with torch.no_grad():
            out = model(**encoded, output_attentions=True, output_hidden_states=True)
        total += len(tokens)
        for layer in range(shape[0]):
            weights = out.attentions[layer][0].double().numpy()  # (A, S, S)
            block = model.encoder.layer[layer].attention
            values = block.self.value(out.hidden_states[layer][0]).detach().double().numpy()
            matrix = block.output.dense.weight.detach().double().numpy()
            size = values.shape[1] // shape[1]
            for head in range(shape[1]):
                own = slice(head * size, (head + 1) * size)
                lengths = np.linalg.norm(values[:, own] @ matrix[:, own].T, axis=1)
                for i in range(len(tokens)):
                    normed = weights[head, i] * lengths
                    for by, row in (("weight", weights[head, i]), ("norm", normed / normed.sum())):
                        mine = sums[by]
                        mine["entropy"][layer, head] -= (row * np.log(row)).sum()
                        for j, token in enumerate(tokens):
                            mine["distance"][layer, head] += row[j] * abs(i - j)
                            mine["cls"][layer, head] += row[j] * (token == "[CLS]")
                            mine["sep"][layer, head] += row[j] * (token == "[SEP]")
                            mine["punctuation"][layer, head] += row[j] * (token in list(",!.:?"))
                            mine["itself"][layer, head] += row[j] * (i == j)
                            mine["previous"][layer, head] += row[j] * (j == i - 1)
                            mine["next"][layer, head] += row[j] * (j == i + 1)
    return {by: {name: table / total for name, table in tables.items()} for by, tables in sums.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    return with_real_vocabulary(tmp_path_factory.mktemp("heads"), minilm, "BertForMaskedLM", initializer_range=0.3)


@pytest.mark.parametrize("real", [False, True], ids=["random", "MiniLM"])
def test_every_table_equals_its_definition_on_transformers_attentions(folder: Path, minilm: Path, real: bool) -> None:
    chosen = minilm if real else folder
    ours = head_statistics(minibert.load(chosen), TEXTS)
    theirs = expected(chosen, TEXTS)
    for by, tables in (("weight", ours.by_weight), ("norm", ours.by_norm)):
        for name in STATISTICS:
            np.testing.assert_allclose(getattr(tables, name), theirs[by][name], atol=2e-5, err_msg=f"{name}, by {by}")
    assert ours.texts == 5
    assert np.abs(ours.by_weight.sep - ours.by_norm.sep).max() > 0.01


def test_batches_and_order_do_not_matter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bert = minibert.load(folder)
    texts = TEXTS * 4
    whole = head_statistics(bert, texts)
    monkeypatch.setattr(heads, "TEXTS_AT_ONCE", 3)
    monkeypatch.setattr(heads, "WEIGHTS_AT_ONCE", 1)
    parts = head_statistics(bert, iter(texts[::-1]))
    assert (whole.texts, whole.tokens) == (parts.texts, parts.tokens) == (20, 4 * head_statistics(bert, TEXTS).tokens)
    for name in STATISTICS:
        np.testing.assert_allclose(getattr(whole.by_norm, name), getattr(parts.by_norm, name), atol=1e-5)


def test_a_model_in_training_mode_is_measured_without_dropout_and_left_alone(folder: Path) -> None:
    bert = minibert.load(folder)
    expected = head_statistics(bert, TEXTS)
    bert.model.train()
    found = head_statistics(bert, TEXTS)
    np.testing.assert_array_equal(found.by_weight.entropy, expected.by_weight.entropy)
    assert all(module.training for module in bert.model.modules())


def test_a_stream_is_read_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "TEXTS_AT_ONCE", 4)
    behind = []

    class Counting(heads.Measured):
        def begin(self, kinds: torch.Tensor) -> None:
            behind.append(given)
            super().begin(kinds)

    monkeypatch.setattr(heads, "Measured", Counting)
    given = 0

    def stream() -> Iterator[str]:
        nonlocal given
        for text in TEXTS * 4:
            given += 1
            yield text

    head_statistics(minibert.load(folder), stream())
    assert behind[0] == 4
    assert behind[-1] == 20


def test_long_texts_are_truncated_with_a_warning(folder: Path) -> None:
    bert = minibert.load(folder)
    bert.max_seq_length = 8
    with pytest.warns(UserWarning, match="1 of 2 texts exceed 8 tokens"):
        found = head_statistics(bert, ["one two three four five six seven", "one"])
    assert found.tokens == 11


def test_no_text_is_refused(folder: Path) -> None:
    with pytest.raises(minibert.MinibertError, match=r"texts \(\[\]\)"):
        head_statistics(minibert.load(folder), [])


def test_tables_are_printed_and_made_into_a_data_frame(folder: Path) -> None:
    found = head_statistics(minibert.load(folder), TEXTS)
    frame = found.to_pandas()
    assert len(frame) == 2 * 3 * 4
    row = frame[(frame["by"] == "norm") & (frame["layer"] == 2) & (frame["head"] == 1)]
    assert row["sep"].item() == found.by_norm.sep[2, 1]
    lines = str(found).splitlines()
    assert lines[0].startswith("5 texts, ")
    assert f"{found.by_weight.cls[1].mean():.4f}" in lines[5].split()


def test_an_unknown_statistic_cannot_be_drawn(folder: Path) -> None:
    found: HeadStatistics = head_statistics(minibert.load(folder), TEXTS)
    with pytest.raises(minibert.MinibertError, match="entropi"):
        found.plot("entropi")  # type: ignore[arg-type]


def test_a_table_is_drawn(folder: Path) -> None:
    pytest.importorskip("minibert.pictures.attention")
    figure = head_statistics(minibert.load(folder), TEXTS).plot("sep", by="norm")
    assert "sep, by norm" in [text.get_text() for text in figure.findobj(Text)]


def test_the_edited_probabilities_are_measured_in_their_own_layer(bert: minibert.Bert) -> None:
    edited = bert.edited({"encoder.layers.1.attention.probabilities": lambda x: x.flip(1)})  # heads in reverse
    ours, whole = head_statistics(edited, TEXTS).by_weight, head_statistics(bert, TEXTS).by_weight
    np.testing.assert_allclose(ours.entropy[:2], [whole.entropy[0], whole.entropy[1][::-1]], rtol=1e-6)
    assert np.abs(ours.entropy[2:] - whole.entropy[2:]).max() > 1e-3
