"""The names of the tensors inside, and how they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracle import HEADS, TINY
from torch import nn

import minibert
from minibert.encoder import Encoder
from minibert.errors import MinibertError
from minibert.study.points import INSIDE_ATTENTION, choose, points_of


def tiny(kind: str = "BertForMaskedLM") -> minibert.PretrainedModel:
    return getattr(minibert, kind)(minibert.BertConfig(**TINY)).eval()


@pytest.mark.parametrize("kind", HEADS)
def test_the_points_are_the_modules_own_names_and_the_five_others_of_each_layer(kind: str) -> None:
    model = tiny(kind)
    modules = {
        name.removeprefix("bert.")
        for name, module in model.named_modules()
        if name not in ("", "bert") and not isinstance(module, (nn.Dropout, nn.ModuleList, Encoder))
    }
    others = ["attention.output.input", "feed_forward.down.input", *(f"attention.{name}" for name in INSIDE_ATTENTION)]
    expected = modules | {f"encoder.layers.{layer}.{name}" for layer in range(3) for name in others}
    names = points_of(model).names
    assert len(set(names)) == len(names)
    assert set(names) == expected


@pytest.mark.parametrize("kind", HEADS)
def test_each_point_has_the_shape_that_is_printed(kind: str, tmp_path: Path, minilm: Path) -> None:
    with_vocabulary = minibert.BertConfig(**{**TINY, "vocab_size": 30522})
    model = getattr(minibert, kind)(with_vocabulary)
    bert = minibert.Bert(model, minibert.BertTokenizer.from_pretrained(minilm))
    traced = bert.trace("a b c", bert.points().names)
    letters = {"B": 1, "S": 5, "H": 32, "A": 4, "D": 8, "I": 37, "V": 30522, "labels": 1 if "Choice" in kind else 2}
    for point in bert.points():
        shape = tuple(int(letters.get(letter, letter)) for letter in point.shape.strip("()").split(", "))
        if point.name == "classifier" and "Token" in kind:
            shape = (1, 5, 2)
        assert tuple(traced[point.name].shape) == shape, point.name


def test_printed_the_layers_share_their_lines_and_each_line_is_a_pattern() -> None:
    model = tiny()
    points = points_of(model)
    lines = repr(points).splitlines()
    named = choose(points, [line.split()[0] for line in lines[:-1]])
    assert named == list(points.names)
    assert len(lines) == 5 + 16 + 3 + 1
    assert lines[-1] == "B texts, S tokens, H = 32, A = 4, D = 8, I = 37, V = 99; * is 0 to 2"


def test_a_star_stands_for_one_part_of_a_name() -> None:
    points = points_of(tiny())
    assert choose(points, "encoder.layers.*") == [f"encoder.layers.{layer}" for layer in range(3)]
    assert choose(points, "encoder.layers.1.attention.*")[0] == "encoder.layers.1.attention.query"
    assert len(choose(points, "encoder.layers.1.attention.*")) == 7


def test_points_are_given_in_the_order_in_which_they_are_computed_and_once() -> None:
    chosen = choose(points_of(tiny()), ["encoder.layers.2", "encoder.layers.*", "embeddings"])
    assert chosen == ["embeddings", "encoder.layers.0", "encoder.layers.1", "encoder.layers.2"]


def test_a_wrong_name_is_answered_with_the_nearest_right_ones() -> None:
    points = points_of(tiny())
    with pytest.raises(MinibertError) as caught:
        choose(points, "encoder.layer.3.attention.query")
    assert str(caught.value) == (
        "point ('encoder.layer.3.attention.query') must name a point of the model; the nearest: "
        "encoder.layers.2.attention.query, encoder.layers.1.attention.query, encoder.layers.0.attention.query; "
        "bert.points() lists all"
    )
    for wrong, right in (("bert.encoder.layers.1", "encoder.layers.1"), ("embedings", "embeddings")):
        with pytest.raises(MinibertError, match=rf"the nearest: .*{right}"):
            choose(points, wrong)
    with pytest.raises(MinibertError, match="lists them"):
        choose(points, "xyz")
