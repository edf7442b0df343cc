"""Pictures of attention: what they show is what they were given, and one can read it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import minibert
from minibert.pictures import attention, plots

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

TEXT = "It costs $5 or $7 in the antediluvian market."
WORDS = ["It", "costs", "$5", "or", "$7"]


def image_of(figure: Any) -> Any:
    """The coloured cells."""
    [image] = figure.axes[0].images
    return image


def labels_of(axis: Any) -> list[str]:
    return [tick.get_text() for tick in axis.get_ticklabels()]


def test_one_head_is_drawn_with_its_tokens(bert: minibert.Bert) -> None:
    maps = bert.attention(TEXT)
    figure = maps.plot(3, 5)
    assert np.array_equal(image_of(figure).get_array(), maps[3, 5].numpy())
    axes = figure.axes[0]
    assert labels_of(axes.yaxis) == labels_of(axes.xaxis) == list(maps.tokens)
    assert axes.get_title(loc="left") == "Attention in layer 3, head 5"
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("from", "to")
    mean = maps.plot(-1)
    assert mean.axes[0].get_title(loc="left") == "Attention in layer 5, mean over heads"
    assert np.array_equal(image_of(mean).get_array(), maps[5].mean(0).numpy())


def test_a_head_without_a_layer_is_refused(bert: minibert.Bert) -> None:
    maps = bert.attention("a")
    with pytest.raises(minibert.MinibertError, match="head \\(3\\)"):
        maps.plot(head=3)
    with pytest.raises(minibert.MinibertError, match="layer \\(6\\)"):
        maps.plot(6, 0)


def test_the_sheet_has_every_head_at_its_place(bert: minibert.Bert) -> None:
    maps = bert.attention(TEXT)
    figure = maps.plot()
    sheet = np.ma.filled(image_of(figure).get_array(), np.nan)
    length = len(maps.tokens)
    ticks = figure.axes[0].get_yticks(), figure.axes[0].get_xticks()
    for layer, head in ((0, 0), (2, 7), (5, 11)):
        top, left = (round(ticks[axis][number] - (length - 1) / 2) for axis, number in enumerate((layer, head)))
        assert np.array_equal(sheet[top : top + length, left : left + length], maps[layer, head].numpy())
    assert labels_of(figure.axes[0].xaxis) == [str(head) for head in range(12)]


def test_a_sheet_of_a_long_text_keeps_the_strongest_weights() -> None:
    weights = torch.zeros(2, 3, 512, 512)
    weights[1, 2, 300, 17] = 0.75
    sheet = np.ma.filled(image_of(attention.plot_attention_sheet(weights)).get_array(), np.nan)
    assert max(sheet.shape) < 1000
    assert np.nanmax(sheet) == 0.75


def test_heads_are_rows_of_layers_with_their_numbers() -> None:
    values = np.linspace(-1, 3, 24).reshape(2, 12)
    axes = attention.plot_heads(values, title="What each head is worth").axes[0]
    assert [text.get_text() for text in axes.texts] == [f"{value:.2f}" for value in values.ravel()]
    assert labels_of(axes.yaxis) == ["0", "1"]
    assert axes.get_title(loc="left") == "What each head is worth"


def test_zero_is_in_the_middle_of_the_colours_where_signs_differ() -> None:
    image = image_of(attention.plot_heads([[-1.0, 0.0, 3.0]]))
    assert image.norm(0.0) == 0.5
    assert image.norm(3.0) == 1
    assert image.cmap.name == "PuOr"
    positive = image_of(attention.plot_heads([[1.0, 3.0]]))
    assert (positive.norm.vmin, positive.norm.vmax, positive.cmap.name) == (0, 3, "cividis")
    assert image_of(attention.plot_heads([[0.0]], limits=(0, 2))).norm.vmax == 2


def test_the_lens_has_the_last_layer_at_the_top() -> None:
    values = np.arange(15.0).reshape(3, 5)
    axes = attention.plot_lens(values, WORDS, [["$a"] * 5, ["b"] * 5, ["c"] * 5]).axes[0]
    assert np.array_equal(axes.images[0].get_array(), values[::-1])
    assert labels_of(axes.yaxis) == ["2", "1", "0"]
    assert [text.get_text() for text in axes.texts][::5] == ["c", "b", "$a"]


def test_each_word_is_shaded_by_its_own_score() -> None:
    scores = [0.5, -1.0, 0.0, 0.25, 1.0]
    figure = attention.plot_shaded(WORDS, scores, title="Why $5?")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["It", "0.50", "costs", "-1.00", "$5", "0.00", "or", "0.25", "$7", "1.00", "Why $5?"]
    colours = [patch.get_facecolor() for patch in figure.axes[0].patches]
    assert colours[4][2] > colours[4][1]  # purple above zero
    assert colours[1][0] > colours[1][2]  # orange below it
    assert min(colours[2][:3]) > 0.9  # white at zero
    boxes = [patch.get_bbox() for patch in figure.axes[0].patches]
    assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))


def test_shaded_text_goes_on_in_the_next_line() -> None:
    figure = attention.plot_shaded(WORDS * 20, np.arange(100.0))
    boxes = [patch.get_bbox() for patch in figure.axes[0].patches]
    assert max(box.x1 for box in boxes) <= figure.get_figwidth()
    assert len({box.y0 for box in boxes}) > 3


def test_labels_must_be_as_many_as_rows_and_columns() -> None:
    with pytest.raises(minibert.MinibertError, match="2, 3"):
        attention.plot_matrix(np.zeros((2, 3)), ["a", "b"], ["c"])
    with pytest.raises(minibert.MinibertError, match="1, 2"):
        attention.plot_shaded(["a"], [1.0, 2.0])


def test_labels_that_do_not_find_room_are_left_out_evenly() -> None:
    names = [f"word{i}" for i in range(300)]
    axes = attention.plot_matrix(np.random.default_rng(0).random((300, 300)), names, names).axes[0]
    shown = labels_of(axes.yaxis)
    assert shown == names[:: names.index(shown[1])]
    assert 30 < len(shown) < 80


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_pictures_are_written_as_png_and_svg(bert: minibert.Bert, tmp_path: Path, suffix: str) -> None:
    maps = bert.attention(TEXT)
    figures = [
        maps.plot(0, 2),
        maps.plot(),
        attention.plot_heads(maps.weights[..., 0].mean(-1)),
        attention.plot_lens(maps.weights[:, 0, 0], maps.tokens),
        attention.plot_matrix([[1.0, float("nan")]], ["a"], ["b", "c"]),
        attention.plot_shaded(maps.tokens, maps[0, 0, 0]),
    ]
    for number, figure in enumerate(figures):
        path = tmp_path / f"{number}{suffix}"
        plots.save(figure, path)
        if suffix == ".png":
            pixels = pytest.importorskip("matplotlib.image").imread(path)[..., :3]
            assert pixels.std() > 0.05
            edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
            assert (edges == 1).all(), f"picture {number} is cut off"
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
