"""Plots: a map of vectors, a table of similarities, the senses of a word. They need matplotlib, an optional package.

Each function returns a new `matplotlib.figure.Figure` and does not touch pyplot's global state. A notebook displays the
figure; `save` writes it to a file.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from minibert.errors import MinibertError, optional
from minibert.lexicon.senses import Senses
from minibert.pretrained.files import written_whole
from minibert.vectors.similarity import check_plain, similarity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

Method = Literal["pca", "umap", "tsne"]
METHODS = {"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE"}
# Okabe and Ito's colours, which colour-blind readers can distinguish, without the yellow that is pale on white. Marker
# shapes repeat the information, and their period differs, so that more groups than colours stay distinct.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5D5D5D")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
INK, PALE = "#222222", "#9A9A9A"
LABEL_CHARACTERS = 28
ORDINALS = ("first", "second")
PRINTED_CELLS = 15  # most rows or columns for which the cells show their numbers
MARGIN_INCHES, BAR_GAP_INCHES, BAR_INCHES = 0.1, 0.15, 0.2
SUFFIXES = (".png", ".svg")
# Candidate positions of a label: the offset (right, up) from its point, in points, and the alignment.
PLACES = [
    ((6, 0), "left", "center"), ((-6, 0), "right", "center"), ((0, 6), "center", "bottom"), ((0, -6), "center", "top"),
    ((5, 5), "left", "bottom"), ((-5, 5), "right", "bottom"), ((5, -5), "left", "top"), ((-5, -5), "right", "top"),
]  # fmt: skip


def plot_map(
    vectors: Any,
    labels: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
    method: Method = "pca",
    *,
    title: str | None = None,
    most_labels: int = 60,
    seed: int = 0,
) -> Figure:
    """Plot vectors as points in two dimensions; similar vectors are close together.

    Args:
        vectors: (N, H), an array, tensor or list.
        labels: a text for each point. Long labels are shortened, and labels that do not fit are omitted; the plot says
            how many it shows.
        groups: a value for each point. Each group gets a colour, a marker and an entry in the legend.
        method: "pca" is linear and reproducible; "umap" and "tsne" show neighbourhoods better, but their distances
            between clusters mean nothing.
        title: the title of the plot.
        most_labels: the maximum number of labels.
        seed: the random seed for "umap" and "tsne".

    Raises:
        MinibertError: there are no vectors, the number of labels or groups is wrong, or the method is unknown.
        ImportError: matplotlib, or the package for the method, is not installed.
    """
    points = as_rows(vectors)
    labels = None if labels is None else as_many("labels", labels, points)
    names = [""] * len(points) if groups is None else [str(group) for group in as_many("groups", groups, points)]
    xy, axis_titles = project(points, method, seed)
    with drawing() as new_figure:
        figure: Figure = new_figure(figsize=(8, 6), layout="constrained")
        axes = figure.add_subplot()
        scatter(axes, xy, names)
        plain(axes, axis_titles)
        axes.set_title(title or f"{len(points)} vectors, {METHODS[method]}", loc="left", parse_math=False)
        if groups is not None:
            legend(axes, list(dict.fromkeys(names)))
        if labels is not None:
            shown = place_labels(figure, axes, xy, [shorten(label) for label in labels], most_labels)
            if shown < len(points):
                note = f"{shown} of {len(points)} labels are shown"
                axes.annotate(note, (1, 1), (0, 3), "axes fraction", "offset points", ha="right", color="#5D5D5D")
    return figure


def plot_similarity(
    a: Any,
    b: Any = None,
    labels: Sequence[str] | None = None,
    other_labels: Sequence[str] | None = None,
    *,
    kind: str = "cosine",
    title: str | None = None,
) -> Figure:
    """Plot a matrix of similarities: one row per vector of `a`, one column per vector of `b`.

    Cells show their numbers if there are at most 15 rows and columns.

    Args:
        a: (N, H).
        b: (M, H); None means `a`.
        labels: labels of the rows, and of the columns if `b` is None.
        other_labels: labels of the columns.
        kind: as for `minibert.vectors.similarity.similarity`.
        title: the title of the plot.

    Raises:
        MinibertError: there are no vectors, their dimensions differ, the number of labels is wrong, or the kind is
            unknown.
        ImportError: matplotlib is not installed.
    """
    check_plain(a)
    check_plain(b)
    rows = as_rows(a)
    columns = rows if b is None else as_rows(b)
    labels = None if labels is None else as_many("labels", labels, rows)
    other_labels = labels if b is None and other_labels is None else other_labels
    other_labels = None if other_labels is None else as_many("other_labels", other_labels, columns)
    values = similarity(rows, columns, kind).numpy()  # (N, M)
    small = max(values.shape) <= PRINTED_CELLS
    with drawing() as new_figure:
        cell = 0.62 if small else min(0.62, 9 / max(values.shape))
        figure: Figure = new_figure()
        axes, bar = figure.add_axes((0, 0, 1, 1)), figure.add_axes((0, 0, 1, 1))
        # a fixed scale makes plots of cosines comparable; distances have no natural scale
        low, high = (min(0.0, float(values.min())), 1.0) if kind == "cosine" else (None, None)
        image = axes.imshow(values, cmap="cividis", vmin=low, vmax=high, aspect="equal")
        for axis, names, count in ((axes.yaxis, labels, len(rows)), (axes.xaxis, other_labels, len(columns))):
            ticks = range(0, count, math.ceil(0.17 / cell)) if names else ()  # a line of text needs 0.17 inches
            axis.set_ticks(list(ticks), [shorten(names[i]) for i in ticks] if names else [], parse_math=False)
        for tick in axes.get_xticklabels():
            tick.set(rotation=35 if small else 90, ha="right", va="top" if small else "center", rotation_mode="anchor")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if small:
            shades = np.asarray(image.norm(values), dtype=np.float64)
            for (row, column), value in np.ndenumerate(values):
                ink = "white" if shades[row, column] < 0.55 else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=9)
        figure.colorbar(image, cax=bar).outline.set_visible(False)
        axes.set_title(title or f"{kind.capitalize()} similarity", loc="left", parse_math=False)
        fit(figure, axes, bar, cell * values.shape[1], cell * values.shape[0])
    return figure


def plot_senses(senses: Senses, *, title: str | None = None) -> Figure:
    """Plot the occurrences of a word in two dimensions (PCA), coloured by sense, with example sentences beside them.

    Args:
        senses: the result of `minibert.senses`.
        title: the title of the plot.

    Raises:
        ImportError: matplotlib is not installed.
    """
    xy, axis_titles = project(senses.vectors, "pca", 0)
    names = [f"sense {number}" for number in senses.labels.tolist()]
    known = [f"sense {sense.number}" for sense in senses]
    place = {occurrence: row for row, occurrence in enumerate(senses.occurrences)}
    with drawing() as new_figure:
        figure: Figure = new_figure(figsize=(12, max(6.0, 0.8 + 1.4 * len(senses))), layout="constrained")
        axes, panel = figure.subplots(1, 2, width_ratios=(5, 4))
        scatter(axes, xy, names, known)
        plain(axes, axis_titles)
        count = len(senses.occurrences)
        default = (
            f"{senses.word}: {len(senses)} sense{'s' * (len(senses) != 1)} in {count} occurrence{'s' * (count != 1)}"
        )
        axes.set_title(title or default, loc="left", parse_math=False)
        panel.set_axis_off()
        step = 1 / max(4, len(senses))
        for sense in senses:
            colour, shape = look(sense.number)
            rows = [place[exemplar] for exemplar in sense.exemplars]
            axes.scatter(xy[rows, 0], xy[rows, 1], s=110, facecolors="none", edgecolors=INK, linewidths=1.2, zorder=3)
            top = 1 - sense.number * step
            panel.scatter([0.02], [top - 0.02], color=colour, marker=shape, s=60)
            heading = f"sense {sense.number}: {sense.share:.0%}, {len(sense.occurrences)} times"
            panel.text(0.06, top - 0.02, heading, color=INK, weight="bold", va="center")
            lines = [line for exemplar in sense.exemplars for line in quoted(exemplar.example)]
            panel.text(0.06, top - 0.045, "\n".join(lines), va="top", fontsize=9, color=INK, parse_math=False)
        panel.set(xlim=(0, 1), ylim=(0, 1))
        ringed = "ringed: the examples on the right"
        axes.annotate(ringed, (1, 1), (0, 3), "axes fraction", "offset points", ha="right", color="#5D5D5D")
    return figure


def plot_losses(
    steps: Sequence[float], evaluations: Mapping[int, float] | None = None, *, title: str | None = None
) -> Figure:
    """Plot the losses of a training run: each step in grey, their running mean, and the evaluations as points.

    Args:
        steps: the loss of each step.
        evaluations: losses on other data, by the number of steps done.
        title: the title of the plot.

    Raises:
        MinibertError: there are no steps.
        ImportError: matplotlib is not installed.
    """
    losses = np.asarray(steps, dtype=np.float64)
    if not len(losses):
        raise MinibertError("steps ([]) must hold at least one loss; train first")
    mean = losses.copy()
    for i in range(1, len(losses)):
        weight = max(0.02, 1 / (i + 1))  # at first of all steps so far, then of about the last fifty
        mean[i] = (1 - weight) * mean[i - 1] + weight * losses[i]
    with drawing() as new_figure:
        figure: Figure = new_figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        numbers = np.arange(1, len(losses) + 1)
        point = "o" if len(losses) == 1 else None  # a line of one point cannot be seen
        axes.plot(numbers, losses, marker=point, color="#D5D5D5", linewidth=0.8, label="each step")
        axes.plot(numbers, mean, marker=point, color=COLOURS[0], linewidth=1.8, label="running mean")
        if evaluations:
            axes.plot(list(evaluations), list(evaluations.values()), "o-", color=COLOURS[1], label="held-out texts")
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats)")
        axes.set_title(title or f"{len(losses):,} steps", loc="left", parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def save(figure: Figure, path: str | Path, *, dpi: int = 150) -> None:
    """Write a figure atomically, as PNG or SVG depending on the suffix of the path.

    Raises:
        MinibertError: the suffix is another one.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise MinibertError(f"the suffix of {str(path)!r} ({kind!r}) must be {' or '.join(SUFFIXES)}; change the path")
    rc_context = import_module("matplotlib").rc_context
    with (
        written_whole(path) as temporary,
        rc_context({"svg.hashsalt": "minibert"}),
    ):  # the same figure gives the same bytes
        figure.savefig(temporary, format=kind[1:], dpi=dpi, metadata={"Date": None} if kind == ".svg" else None)


# Projection to two dimensions


def project(points: NDArray[np.float32], method: str, seed: int = 0) -> tuple[NDArray[np.float64], tuple[str, str]]:
    """Project vectors to two dimensions. Returns the points (N, 2) and the titles of the axes.

    Raises:
        MinibertError: the method is unknown, or there are too few vectors for it.
        ImportError: the package for the method is not installed.
    """
    if method not in METHODS:
        raise MinibertError(f"method ({method!r}) must be one of {', '.join(map(repr, METHODS))}")
    if method == "pca":
        xy, shares = pca(points)
        first, second = (
            f"{name} component, {share:.0%} of the variance" for name, share in zip(ORDINALS, shares, strict=True)
        )
        return xy, (first, second)
    if len(points) < 4:
        raise MinibertError(
            f"the number of vectors ({len(points)}) must be at least 4 for {METHODS[method]}; pass method='pca'"
        )
    if method == "tsne":
        manifold = optional("sklearn.manifold", "method='tsne'", "scikit-learn")
        perplexity = min(30.0, (len(points) - 1) / 3)
        xy = manifold.TSNE(perplexity=perplexity, random_state=seed, init="pca").fit_transform(points)
    else:
        umap = optional("umap", "method='umap'", "umap-learn")
        neighbours = min(15, len(points) - 1)
        init = (
            "spectral" if len(points) > 10 else "random"
        )  # the spectral initialisation needs more vectors than dimensions
        xy = umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1, init=init).fit_transform(points)
    return np.asarray(xy, dtype=np.float64), ("", "")


def pca(points: NDArray[Any]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """The first two principal components: coordinates (N, 2), and each component's share of the variance.

    The sign of a component is chosen to make its largest entry positive.
    """
    centred = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    left, scales, directions = np.linalg.svd(centred, full_matrices=False)
    xy, shares = np.zeros((len(points), 2)), np.zeros(2)
    found = min(2, len(scales))
    signs = np.sign(directions[range(found), np.abs(directions[:found]).argmax(1)])
    xy[:, :found] = left[:, :found] * scales[:found] * np.where(signs == 0, 1, signs)
    total = float((scales**2).sum())
    if total > 0:
        shares[:found] = scales[:found] ** 2 / total
    return xy, (float(shares[0]), float(shares[1]))


# Drawing


@contextmanager
def drawing() -> Iterator[Any]:
    """Yield matplotlib's `Figure` class, with fixed font settings, whatever the user's are.

    Raises:
        ImportError: matplotlib is not installed.
    """
    matplotlib = optional("matplotlib", "a plot", "matplotlib")
    figure = import_module("matplotlib.figure").Figure
    installed = {font.name for font in import_module("matplotlib.font_manager").fontManager.ttflist}
    style = {
        "font.family": ["DejaVu Sans", *(font for font in OTHER_SCRIPTS if font in installed)],
        "font.size": 10,
        "axes.titlesize": 13,
        "axes.titlepad": 18,
        "axes.labelcolor": INK,
        "text.color": INK,
    }
    with matplotlib.rc_context(style):
        yield figure


# DejaVu covers Latin, Greek, Cyrillic, Arabic and Hebrew; these fonts, if installed, cover Chinese and other scripts
OTHER_SCRIPTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC",
    "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic", "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS",
)  # fmt: skip


def as_rows(vectors: Any) -> NDArray[np.float32]:
    """Vectors of any kind as an array (N, H).

    Raises:
        MinibertError: there are none, the shape is another one, or a number is not finite.
    """
    if isinstance(vectors, (list, tuple)):
        vectors = np.stack([as_array(vector) for vector in vectors]) if vectors else np.empty((0, 0))
    array = as_array(vectors)
    if array.ndim != 2 or 0 in array.shape:
        raise MinibertError(
            f"vectors {array.shape} must be (N, H) with N > 0; pass the result of encode for a list of texts"
        )
    if not np.isfinite(array).all():
        raise MinibertError(
            f"vectors must be finite, but {int((~np.isfinite(array)).any(1).sum())} of {len(array)} are not; drop those"
        )
    return array


def as_array(vectors: Any) -> NDArray[np.float32]:
    """An array, or a tensor on any device, as a float32 array."""
    if isinstance(vectors, Tensor):
        return vectors.detach().float().cpu().numpy()
    return np.asarray(vectors, dtype=np.float32)


def as_many(name: str, values: Sequence[Any], points: NDArray[Any]) -> list[Any]:
    """A list with one value per point.

    Raises:
        MinibertError: the number of values is another one.
    """
    listed = list(values)
    if isinstance(values, str) or len(listed) != len(points):
        raise MinibertError(
            f"{name} ({type(values).__name__} of {len(listed)}) must be a list with one value for each of the "
            f"{len(points)} vectors; pass as many"
        )
    return listed


def look(number: int) -> tuple[str, str]:
    """The colour and marker of a group."""
    return COLOURS[number % len(COLOURS)], SHAPES[number % len(SHAPES)]


def scatter(axes: Axes, xy: NDArray[np.float64], names: Sequence[str], known: Sequence[str] = ()) -> None:
    """Draw points in the colour and marker of their group. `known` is the order of groups (default: as they occur)."""
    size = float(np.clip(3000 / len(xy), 12, 60))
    for number, name in enumerate(known or dict.fromkeys(names)):
        own = [row for row, other in enumerate(names) if other == name]
        colour, shape = look(number)
        axes.scatter(xy[own, 0], xy[own, 1], s=size, color=colour, marker=shape, alpha=0.8, linewidths=0)


def fit(figure: Figure, axes: Axes, bar: Axes, width: float, height: float) -> None:
    """Resize the figure to fit a table of this size in inches, its colour bar, and all labels.

    The size of the labels depends on the fonts, so it is measured.
    """
    renderer = import_module("matplotlib.backends.backend_agg").FigureCanvasAgg(figure).get_renderer()
    figure.set_size_inches(width + 2, height)
    axes.set_position((0, 0, width / (width + 2), 1))
    bar.set_position((1 - BAR_INCHES / (width + 2), 0, BAR_INCHES / (width + 2), 1))
    boxes: list[Any] = [axes.get_tightbbox(renderer), bar.get_tightbbox(renderer)]
    table, scale = (box.transformed(figure.dpi_scale_trans.inverted()) for box in boxes)
    left, bottom = MARGIN_INCHES - table.x0, MARGIN_INCHES - min(table.y0, scale.y0)
    bar_left = left + width + BAR_GAP_INCHES
    right = max(left + table.x1, bar_left + BAR_INCHES + scale.x1 - (width + 2)) + MARGIN_INCHES
    top = bottom + max(table.y1, scale.y1) + MARGIN_INCHES
    figure.set_size_inches(right, top)
    axes.set_position((left / right, bottom / top, width / right, height / top))
    bar.set_position((bar_left / right, bottom / top, BAR_INCHES / right, height / top))


def plain(axes: Axes, titles: tuple[str, str]) -> None:
    """Remove the ticks and part of the frame, which carry no information here."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.set_xlabel(titles[0])
    axes.set_ylabel(titles[1])
    axes.margins(0.1)


def legend(axes: Axes, names: Sequence[str]) -> None:
    """Add a legend of the groups outside the axes."""
    lines = import_module("matplotlib.lines")
    handles = []
    for number in range(len(names)):
        colour, shape = look(number)
        handles.append(lines.Line2D([], [], linestyle="", marker=shape, color=colour))
    shown = axes.legend(
        handles,
        [str(number) for number in range(len(names))],
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        frameon=False,
    )
    for text, name in zip(shown.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(shorten(name))  # set afterwards, because matplotlib skips names that begin with "_"


def place_labels(figure: Figure, axes: Axes, xy: NDArray[np.float64], labels: Sequence[str], most: int) -> int:
    """Place labels next to their points without covering labels or other points. Returns the number placed."""
    canvas = import_module("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    canvas.draw()  # computes the layout
    renderer = canvas.get_renderer()
    points = axes.transData.transform(xy)  # (N, 2), in pixels
    frame = axes.get_window_extent(renderer)
    taken: list[Any] = []
    # try an evenly spaced subset: placing a label takes milliseconds
    for row in np.unique(np.linspace(0, len(labels) - 1, min(len(labels), 3 * most)).astype(int)).tolist():
        label = labels[row]
        if not label or len(taken) >= most:
            continue
        text = axes.annotate(
            label,
            tuple(xy[row]),
            (0, 0),
            textcoords="offset points",
            fontsize=9,
            parse_math=False,
            annotation_clip=False,
        )
        text.set_in_layout(False)  # keep the layout as it is
        others = np.delete(points, row, axis=0)
        if not any(fits(text, place, renderer, others, taken, frame) for place in PLACES):
            text.remove()
            continue
        taken.append(text.get_window_extent(renderer))
    return len(taken)


def fits(
    text: Annotation, place: Any, renderer: Any, others: NDArray[np.float64], taken: list[Any], frame: Any
) -> bool:
    """Move a label to a candidate position. Returns whether it is inside the axes and covers nothing."""
    offset, horizontal, vertical = place
    text.set(position=offset, horizontalalignment=horizontal, verticalalignment=vertical)
    box = text.get_window_extent(renderer)
    if not (frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1):
        return False
    inside = (others > (box.x0, box.y0)) & (others < (box.x1, box.y1))
    return not inside.all(1).any() and not any(box.overlaps(other) for other in taken)


def shorten(label: object) -> str:
    """A label on one line, truncated to `LABEL_CHARACTERS`."""
    line = " ".join(str(label).split())
    return line if len(line) <= LABEL_CHARACTERS else line[: LABEL_CHARACTERS - 1].rstrip() + "…"


def quoted(example: str) -> list[str]:
    """An example sentence, wrapped to the width of the panel."""
    return textwrap.wrap(f"“{example}”", 62, max_lines=2, placeholder=" …”")
