"""Pictures of what happens inside a model: attention, and numbers for each head, word or pair of words.

Like those of `plots`, each function returns a matplotlib `Figure` of its own, and `plots.save` writes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_max_pool2d

from minibert.errors import MinibertError
from minibert.pictures.plots import INK, as_array, drawing, fit, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour-blind people can read both. The second has a middle: purple above 0, orange below.
SEQUENTIAL, DIVERGING = "cividis", "PuOr"
CELL_INCHES, NUMBER_CELL_INCHES = 0.24, 0.5
LARGEST_INCHES = 10.0  # of a matrix; cells of larger ones are smaller
LABEL_INCHES = 0.15  # the height of a line of labels
NUMBERED_CELLS = 15  # rows or columns of a matrix whose numbers are written in its cells
SHEET_INCHES = 12.0
SHEET_POINTS = 96  # rows and columns of one head on a sheet, at most
ROOT_TICKS: dict[str, Any] = {"ticks": [0, 0.01, 0.1, 0.25, 0.5, 1], "format": "%g"}
LINE_INCHES, PAGE_INCHES = 0.52, 8.0  # of shaded text


def plot_matrix(
    values: Any,
    rows: Sequence[object],
    columns: Sequence[object],
    *,
    title: str = "",
    row_title: str = "",
    column_title: str = "",
    cells: Sequence[Sequence[str]] | None = None,
    limits: tuple[float, float] | None = None,
    root: bool = False,
) -> Figure:
    """Draw a matrix as coloured cells. Small ones have their numbers written in.

    Colours go from the smallest value to the largest. If both signs occur, 0 is white and they go as far on both
    sides. Values that are not numbers (NaN) stay empty.

    Args:
        values: (rows, columns).
        rows, columns: their labels.
        title, row_title, column_title: above the picture and beside its axes.
        cells: what to write in each cell, instead of numbers.
        limits: the values at the two ends of the colours.
        root: let colours follow the square root, so that small values can be told apart; for values from 0 to 1.

    Raises:
        MinibertError: labels that are not as many as rows and columns.
        ImportError: matplotlib is not installed.
    """
    array = table_of(values, rows, columns)
    if cells is None and max(array.shape) <= NUMBERED_CELLS:
        cells = [[number_of(value) for value in row] for row in array]
    width = height = CELL_INCHES
    if cells is not None:
        longest = max(len(shorten(cell)) for row in cells for cell in row)
        width, height = max(NUMBER_CELL_INCHES, 0.085 * longest + 0.1), max(CELL_INCHES, 0.3)
    else:
        width = height = min(CELL_INCHES, LARGEST_INCHES / max(array.shape))
    with drawing() as new_figure:
        figure: Figure = new_figure()
        axes, bar = figure.add_axes((0, 0, 1, 1)), figure.add_axes((0, 0, 1, 1))
        palette = DIVERGING if has_middle(array, limits) else SEQUENTIAL
        norm = root_norm() if root else norm_of(array, limits)
        image = axes.imshow(array, cmap=palette, norm=norm, aspect="auto", interpolation="nearest")
        label(axes.yaxis, rows, height)
        label(axes.xaxis, columns, width)
        upright = all(len(shorten(name)) * 0.085 < width for name in columns)
        for tick in axes.get_xticklabels():
            tick.set(rotation=0 if upright else 90, ha="center", va="top")
        axes.tick_params(length=0, labelsize=9)
        axes.spines[:].set_visible(False)
        axes.set_ylabel(row_title)
        axes.set_xlabel(column_title)
        axes.set_title(title, loc="left", parse_math=False)
        if cells is not None:
            write(axes, image, array, cells)
        figure.colorbar(image, cax=bar, **(ROOT_TICKS if root else {})).outline.set_visible(False)
        fit(figure, axes, bar, width * array.shape[1], height * array.shape[0])
    return figure


def plot_attention(weights: Any, tokens: Sequence[str], *, title: str = "") -> Figure:
    """Draw the weights of one head: a row for each token that attends, a column for each that it attends to.

    Args:
        weights: (S, S).
        tokens: the S tokens.
        title: above the picture.
    """
    return plot_matrix(weights, tokens, tokens, title=title, row_title="from", column_title="to", root=True)


def plot_attention_sheet(weights: Any, *, title: str = "") -> Figure:
    """Draw all heads of all layers on one sheet: a row for each layer, a column for each head.

    Of a long text, each point shows the largest of several weights that are neighbours.

    Args:
        weights: (L, A, S, S).
        title: above the picture.

    Raises:
        ImportError: matplotlib is not installed.
    """
    array = as_array(weights)
    if array.shape[-1] > SHEET_POINTS:  # more points than the picture has pixels
        array = adaptive_max_pool2d(torch.from_numpy(array), SHEET_POINTS).numpy()
    layers, heads, length, _ = array.shape
    gap = max(1, math.ceil(length / 12))
    step = length + gap
    sheet = np.full((layers * step - gap, heads * step - gap), np.nan, dtype=np.float32)
    for (layer, head), one in ((place, array[place]) for place in np.ndindex(layers, heads)):
        sheet[layer * step : layer * step + length, head * step : head * step + length] = one
    with drawing() as new_figure:
        figure: Figure = new_figure()
        axes, bar = figure.add_axes((0, 0, 1, 1)), figure.add_axes((0, 0, 1, 1))
        image = axes.imshow(sheet, cmap=SEQUENTIAL, norm=root_norm(), aspect="equal")
        middle = (length - 1) / 2
        axes.set_yticks([layer * step + middle for layer in range(layers)], [str(layer) for layer in range(layers)])
        axes.set_xticks([head * step + middle for head in range(heads)], [str(head) for head in range(heads)])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_ylabel("layer")
        axes.set_xlabel("head")
        axes.set_title(title, loc="left", parse_math=False)
        figure.colorbar(image, cax=bar, **ROOT_TICKS).outline.set_visible(False)
        inches = SHEET_INCHES / max(sheet.shape)
        fit(figure, axes, bar, inches * sheet.shape[1], inches * sheet.shape[0])
    return figure


def plot_heads(values: Any, *, title: str = "", limits: tuple[float, float] | None = None) -> Figure:
    """Draw one number for each head: a row for each layer, a column for each head.

    Args:
        values: (L, A).
        title: what the numbers are.
        limits: as for `plot_matrix`.
    """
    layers, heads = as_array(values).shape
    return plot_matrix(
        values, range(layers), range(heads), title=title, row_title="layer", column_title="head", limits=limits
    )


def plot_lens(
    values: Any, words: Sequence[str], predictions: Sequence[Sequence[str]] | None = None, *, title: str = ""
) -> Figure:
    """Draw one number for each layer and word, the last layer at the top.

    Args:
        values: (L, W), or (L + 1, W) where the embeddings are the first row.
        words: the W words or tokens.
        predictions: what to write in the cells, the likeliest token of each for one.
        title: what the numbers are.
    """
    array = as_array(values)[::-1]
    cells = None if predictions is None else list(predictions)[::-1]
    layers = range(len(array) - 1, -1, -1)
    return plot_matrix(array, layers, words, title=title, row_title="layer", cells=cells)


def plot_shaded(words: Sequence[str], scores: Any, *, title: str = "") -> Figure:
    """Draw a text whose words are shaded by a number each, which is written below the word.

    Args:
        words: the words or tokens.
        scores: (W,).
        title: above the picture.

    Raises:
        MinibertError: scores that are not as many as words.
        ImportError: matplotlib is not installed.
    """
    array = table_of(as_array(scores)[None], [""], words)
    with drawing() as new_figure:
        figure: Figure = new_figure(figsize=(PAGE_INCHES, 1))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        renderer = import_module("matplotlib.backends.backend_agg").FigureCanvasAgg(figure).get_renderer()
        mapped = import_module("matplotlib.cm").ScalarMappable(
            norm_of(array, None), DIVERGING if has_middle(array, None) else SEQUENTIAL
        )
        x, line = 0.1, 0
        placed = []
        for word, score in zip(words, array[0].tolist(), strict=True):
            text = axes.text(0, 0, shorten(word), ha="center", va="center", fontsize=11, parse_math=False)
            number = axes.text(0, 0, number_of(score), ha="center", va="center", fontsize=7, color="#5D5D5D")
            width = max(part.get_window_extent(renderer).width for part in (text, number)) / figure.dpi + 0.1
            if x + width > PAGE_INCHES - 0.1 and x > 0.1:
                x, line = 0.1, line + 1
            placed.append((text, number, x, line, width, score))
            x += width + 0.03
        top = 0.5 if title else 0.1
        height = top + (line + 1) * LINE_INCHES + 0.05
        figure.set_size_inches(PAGE_INCHES, height)
        axes.set(xlim=(0, PAGE_INCHES), ylim=(height, 0))
        rectangle = import_module("matplotlib.patches").Rectangle
        for text, number, x, line, width, score in placed:
            y = top + line * LINE_INCHES
            colour = mapped.to_rgba(score)
            axes.add_patch(rectangle((x, y), width, 0.27, facecolor=colour, edgecolor="none", zorder=0))
            text.set(position=(x + width / 2, y + 0.135), color=ink_on(colour))
            number.set_position((x + width / 2, y + 0.36))
        axes.text(0.1, 0.22, title, fontsize=13, va="center", parse_math=False)
    return figure


# What is drawn


def table_of(values: Any, rows: Sequence[object], columns: Sequence[object]) -> NDArray[np.float32]:
    """Values as an array that has a row and a column for each label.

    Raises:
        MinibertError: it has not, or there are none.
    """
    array = as_array(values)
    if array.shape != (len(rows), len(columns)) or array.size == 0:
        raise MinibertError(
            f"values {array.shape} must have a row and a column for each label ({len(rows)}, {len(columns)}), "
            "at least one; pass as many labels"
        )
    return array


def has_middle(array: NDArray[np.float32], limits: tuple[float, float] | None) -> bool:
    """Whether values lie on both sides of 0 or below it, so that 0 must be told from them by its colour."""
    return bool(np.nanmin(array) < 0 if limits is None else limits[0] < 0)


def norm_of(array: NDArray[np.float32], limits: tuple[float, float] | None) -> Any:
    """How values become colours."""
    colours = import_module("matplotlib.colors")
    if limits is None:
        low, high = float(np.nanmin(array)), float(np.nanmax(array))
        limits = (-max(-low, high), max(-low, high)) if low < 0 else (min(0.0, low), high or 1.0)
    return colours.Normalize(*limits)


def root_norm() -> Any:
    """Colours that follow the square root of values from 0 to 1; most attention weights are small."""
    return import_module("matplotlib.colors").PowerNorm(0.5, 0, 1)


def number_of(value: float) -> str:
    """A number with two decimals, or with one digit if it is smaller than that; nothing for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:.2f}" if abs(value) >= 0.005 or value == 0 else f"{value:.1g}"


def label(axis: Any, names: Sequence[object], cell_inches: float) -> None:
    """Name the rows or columns; every second, third, ... where there is no room for all."""
    ticks = range(0, len(names), math.ceil(LABEL_INCHES / cell_inches))
    axis.set_ticks(list(ticks), [shorten(names[i]) for i in ticks], parse_math=False)


def write(axes: Axes, image: Any, array: NDArray[np.float32], cells: Sequence[Sequence[str]]) -> None:
    """Write in the cells, in a colour that can be read on theirs."""
    for (row, column), value in np.ndenumerate(array):
        colour = ink_on(image.cmap(image.norm(value)))
        axes.text(
            column,
            row,
            shorten(cells[row][column]),
            ha="center",
            va="center",
            color=colour,
            fontsize=8,
            parse_math=False,
        )


def ink_on(colour: Sequence[float]) -> str:
    """Black or white, whichever is easier to read on a colour; by its luminance as WCAG 2 defines it."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "white" if luminance < 0.179 else INK
