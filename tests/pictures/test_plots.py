"""Pictures: what is computed for them, and that they are there, readable by others, and not blank."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import with_real_vocabulary

import minibert
from minibert.lexicon.senses import senses
from minibert.pictures import plots

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

TEXTS = [
    "He opened an account at the bank.",
    "The bank refused the loan.",
    "The river burst its bank after the rain.",
    "They fished from the grassy bank of the river.",
    "Banks charge $5 a month, and $7 for a card.",
]


def pixels(figure: Any, folder: Path) -> np.ndarray:
    """The picture as matplotlib reads it back, (height, width, 3)."""
    image = pytest.importorskip("matplotlib.image")
    plots.save(figure, folder / "picture.png")
    return image.imread(folder / "picture.png")[..., :3]


def colour_at(figure: Any, picture: np.ndarray, x: float, y: float) -> np.ndarray:
    """The colour of the saved picture, (3,), at a point of the first axes."""
    right, up = figure.axes[0].transData.transform((x, y)) / figure.bbox.size  # parts of the width and height
    height, width, _ = picture.shape
    return picture[int((1 - up) * height), int(right * width)]


def colour_of_points(number: int, points: int = 1) -> np.ndarray:
    """The colour of a group, (3,), where so many of its points, of alpha 0.8, lie on each other on white."""
    colour = np.array([int(plots.COLOURS[number][i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return 0.2**points + (1 - 0.2**points) * colour


def texts_of(figure: Any) -> list[Any]:
    """The labels beside points."""
    return [text for text in figure.axes[0].texts if "labels are shown" not in text.get_text()]


# Maps


def test_pca_is_that_of_numpy_and_scikit_learn() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition", reason="scikit-learn is not installed")
    points = np.random.default_rng(0).normal(size=(50, 12)) @ np.diag(range(1, 13)) + 5
    xy, shares = plots.pca(points)
    theirs = decomposition.PCA(2).fit(points)
    expected = theirs.transform(points)
    signs = np.sign((xy * expected).sum(0))
    assert xy == pytest.approx(expected * signs, abs=1e-8)
    assert shares == pytest.approx(tuple(theirs.explained_variance_ratio_))
    values, _ = np.linalg.eigh(np.cov(points.T))
    assert xy.var(0, ddof=1) == pytest.approx(values[::-1][:2])


@pytest.mark.parametrize("shape", [(1, 5), (2, 5), (3, 1), (4, 2), (6, 300)])
def test_few_points_have_a_map_too(shape: tuple[int, int], tmp_path: Path) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition", reason="scikit-learn is not installed")
    points = np.random.default_rng(0).normal(size=shape)
    xy, shares = plots.pca(points)
    expected = np.zeros((shape[0], 2))
    if shape[0] > 1:  # scikit-learn divides by N - 1
        theirs = decomposition.PCA(min(2, *shape)).fit(points)
        expected[:, : theirs.n_components_] = theirs.transform(points)
        assert sum(shares) == pytest.approx(theirs.explained_variance_ratio_.sum())
    assert xy == pytest.approx(expected * np.sign((xy * expected).sum(0)), abs=1e-8)
    figure = plots.plot_map(np.ones(shape), [f"label {i}" for i in range(shape[0])], groups=["one"] * shape[0])
    picture = pixels(figure, tmp_path)
    assert colour_at(figure, picture, 0, 0) == pytest.approx(colour_of_points(0, shape[0]), abs=0.02)


def test_a_map_shows_points_labels_and_groups(bert: minibert.Bert, tmp_path: Path) -> None:
    figure = plots.plot_map(bert.encode(TEXTS), TEXTS, ["money", "money", "_river", "_river", "money"], title="Banks")
    axes = figure.axes[0]
    xy, shares = plots.pca(bert.encode(TEXTS))
    drawn = np.concatenate([np.asarray(points.get_offsets()) for points in axes.collections])
    assert drawn == pytest.approx(xy[[0, 1, 4, 2, 3]])
    assert axes.get_title(loc="left") == "Banks"
    assert axes.get_xlabel() == f"first component, {shares[0]:.0%} of the variance"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["money", "_river"]
    picture = pixels(figure, tmp_path)
    assert picture.shape == (900, 1200, 3)
    for place, number in zip(xy, (0, 0, 1, 1, 0), strict=True):
        assert colour_at(figure, picture, *place) == pytest.approx(colour_of_points(number), abs=0.02)


def test_labels_do_not_cover_one_another() -> None:
    vectors = np.random.default_rng(0).normal(size=(150, 5))
    figure = plots.plot_map(vectors, [f"the label of point {i}" for i in range(150)])
    labels = texts_of(figure)
    assert 10 < len(labels) <= 60
    canvas = pytest.importorskip("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [label.get_window_extent(canvas.get_renderer()) for label in labels]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert f"{len(labels)} of 150 labels are shown" in [text.get_text() for text in figure.axes[0].texts]


def test_labels_are_shown_as_they_are_written(tmp_path: Path) -> None:
    labels = ["$5 and $7", r"a\b_c^2", "two\nlines", "x" * 100]
    figure = plots.plot_map([[0, 0], [3, 0], [0, 2], [3, 2]], labels, groups=labels, title="$1 or $2")
    picture = pixels(figure, tmp_path)  # nothing of it is taken for mathematics, which could not be drawn
    assert [text.get_text() for text in texts_of(figure)] == ["$5 and $7", r"a\b_c^2", "two lines", "x" * 27 + "…"]
    for number, place in enumerate(((-1.5, -1), (1.5, -1), (-1.5, 1), (1.5, 1))):
        assert colour_at(figure, picture, *place) == pytest.approx(colour_of_points(number), abs=0.02)


def test_tsne_finds_the_clusters(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    truth = np.repeat(range(3), 12)
    points = (np.eye(3)[truth] * 20 + np.random.default_rng(0).normal(size=(36, 3))).astype(np.float32)
    xy, titles = plots.project(points, "tsne")
    assert titles == ("", "")
    middles = np.stack([xy[truth == group].mean(0) for group in range(3)])
    nearest = np.linalg.norm(xy[:, None] - middles, axis=-1).argmin(1)
    assert np.array_equal(nearest, truth)
    assert np.array_equal(plots.project(points, "tsne")[0], xy)  # repeatable
    assert plots.plot_map(points[:4], method="tsne").axes[0].get_title(loc="left") == "4 vectors, t-SNE"


@pytest.mark.parametrize(
    ("module", "package", "call"),
    [
        ("matplotlib", "matplotlib", lambda: plots.plot_map(np.eye(5))),
        ("matplotlib", "matplotlib", lambda: plots.plot_similarity(np.eye(5))),
        ("umap", "umap-learn", lambda: plots.plot_map(np.eye(5), method="umap")),
        ("sklearn.manifold", "scikit-learn", lambda: plots.plot_map(np.eye(5), method="tsne")),
    ],
)
def test_what_is_not_installed_is_told(module: str, package: str, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {package}, which is not installed; pip install {package}$"):
        call()


# Tables


def assert_cells_have_their_colours(
    figure: Any, folder: Path, values: np.ndarray, lowest: float, highest: float
) -> None:
    colormaps = pytest.importorskip("matplotlib").colormaps
    picture = pixels(figure, folder)
    for row, column in ((0, 0), (0, 1), (1, 0), (2, 1), (len(values) - 1, values.shape[1] - 1)):
        colour = colormaps["cividis"]((values[row, column] - lowest) / (highest - lowest))[:3]
        # not in the middle, where the number is
        assert colour_at(figure, picture, column - 0.3, row - 0.3) == pytest.approx(colour, abs=0.02)


def test_a_small_table_has_its_numbers(bert: minibert.Bert, tmp_path: Path) -> None:
    a, b = bert.encode(TEXTS[:3]), torch.from_numpy(bert.encode(TEXTS))
    figure = plots.plot_similarity(a, b, TEXTS[:3], TEXTS)
    axes = figure.axes[0]
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b.numpy())]
    expected = unit[0] @ unit[1].T
    assert np.asarray(axes.images[0].get_array()) == pytest.approx(expected, abs=1e-6)
    assert [text.get_text() for text in axes.texts] == [f"{value:.2f}" for value in expected.ravel()]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [plots.shorten(text) for text in TEXTS[:3]]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [plots.shorten(text) for text in TEXTS]
    assert_cells_have_their_colours(figure, tmp_path, expected, lowest=min(0, expected.min()), highest=1)


def test_a_large_table_has_none(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(130, 6))
    figure = plots.plot_similarity(vectors, labels=[f"text {i}" for i in range(130)], kind="euclidean")
    axes = figure.axes[0]
    assert not axes.texts
    assert len(axes.get_yticklabels()) == len(axes.get_xticklabels()) <= 60
    assert axes.get_title(loc="left") == "Euclidean similarity"
    distances = np.linalg.norm(vectors[:, None] - vectors, axis=-1)
    assert_cells_have_their_colours(figure, tmp_path, -distances, lowest=-distances.max(), highest=0)


@pytest.mark.parametrize(
    "shape",
    [
        *((1, 1), (15, 2)),
        *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((3, 3), (15, 15), (2, 15), (30, 30), (130, 40))),
    ],
    ids=str,
)
def test_no_label_of_a_table_is_cut(shape: tuple[int, int]) -> None:
    vectors = np.random.default_rng(0).normal(size=(130, 6))
    labels = [f"{number} WHERE IS MY PARCEL, PLEASE, and when will it come?" for number in range(130)]
    rows, columns = shape
    figure = plots.plot_similarity(vectors[:rows], vectors[:columns], labels[:rows], labels[:columns], title="A title")
    canvas = pytest.importorskip("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    for dpi in (72, 150):
        figure.set_dpi(dpi)
        canvas.draw()
        renderer = canvas.get_renderer()
        axes, bar = figure.axes
        table = axes.get_window_extent(renderer)
        assert table.width / table.height == pytest.approx(columns / rows)  # cells are squares
        for label in (*axes.get_yticklabels(), *axes.get_xticklabels(), *bar.get_yticklabels(), axes._left_title):
            box = label.get_window_extent(renderer)
            assert box.x0 >= 0, label
            assert box.y0 >= 0, label
            assert box.x1 <= figure.bbox.x1, label
            assert box.y1 <= figure.bbox.y1, label
        assert all(label.get_window_extent(renderer).x1 <= table.x0 for label in axes.get_yticklabels())
        assert all(label.get_window_extent(renderer).y1 <= table.y0 + 1 for label in axes.get_xticklabels())
        assert table.x1 < bar.get_window_extent(renderer).x0
    assert all(label.get_text().endswith("…") for label in axes.get_yticklabels())


# Senses


def test_senses_are_drawn_with_their_exemplars(bert: minibert.Bert, tmp_path: Path) -> None:
    found = senses(bert, "bank", TEXTS[:4], n_senses=2)
    figure = plots.plot_senses(found)
    axes, panel = figure.axes
    xy, _ = plots.pca(found.vectors)
    drawn = [np.asarray(points.get_offsets()) for points in axes.collections]
    assert drawn[0] == pytest.approx(xy[found.labels == 0])
    assert axes.get_title(loc="left") == "bank: 2 senses in 4 occurrences"
    told = " ".join(" ".join(text.get_text() for text in panel.texts).split())
    for sense in found:
        assert f"sense {sense.number}: {sense.share:.0%}, {len(sense.occurrences)} times" in told
        assert f"“{sense.exemplars[0].example}”" in told
    assert pixels(figure, tmp_path).shape == (900, 1800, 3)
    assert plots.plot_senses(senses(bert, "bank", TEXTS[0])).axes[0].get_title(loc="left").endswith("1 occurrence")


# Files


def test_pictures_are_written_whole_and_alike(tmp_path: Path) -> None:
    for name in ("map.png", "deep/er/map.SVG"):
        path = tmp_path / name
        written = []
        for _ in range(2):
            plots.save(plots.plot_map(np.eye(5), list("abcde")), path)
            written.append(path.read_bytes())
        assert written[0] == written[1]
        assert [one.name for one in path.parent.iterdir() if one.is_file()] == [path.name]
    assert ElementTree.parse(tmp_path / "deep/er/map.SVG").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    before = (tmp_path / "map.png").read_bytes()
    with pytest.raises(ValueError, match="dpi"):
        plots.save(plots.plot_map(np.eye(5)), tmp_path / "map.png", dpi=-1)
    assert (tmp_path / "map.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_pictures_leave_matplotlib_as_it_was() -> None:
    code = (
        "import sys, numpy as np, minibert.pictures.plots as plots; assert 'matplotlib' not in sys.modules\n"
        "import matplotlib; before = matplotlib.rcParams.copy(); plots.plot_map(np.eye(3), ['a', 'b', 'c'])\n"
        "assert 'matplotlib.pyplot' not in sys.modules; assert before == matplotlib.rcParams.copy()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.plot_map(np.eye(3), method="lda"), "method ('lda') must be one of 'pca', 'umap', 'tsne'"),
        (lambda: plots.plot_map(np.eye(3), ["a"]), "labels (list of 1) must be a list with one value for each"),
        (lambda: plots.plot_map(np.eye(3), groups="abc"), "groups (str of 3) must be a list with one value"),
        (lambda: plots.plot_map([]), "vectors (0, 0) must be (N, H) with N > 0; pass the result of encode"),
        (lambda: plots.plot_map(np.ones(3)), "vectors (3,)"),
        (lambda: plots.plot_map([[1.0, np.nan], [0, 1]]), "vectors must be finite, but 1 of 2 are not; drop"),
        (lambda: plots.plot_map(np.eye(3), method="tsne"), "vectors (3) must be at least 4 for t-SNE; pass"),
        (lambda: plots.plot_similarity(np.eye(3), np.eye(4)), "the vectors (3 and 4 numbers)"),
        (lambda: plots.plot_similarity(np.eye(3), kind="angle"), "similarity ('angle') must be one of cosine, dot"),
        (lambda: plots.plot_similarity(np.eye(3), other_labels=["a"]), "other_labels (list of 1) must be"),
        (lambda: plots.save(plots.plot_map(np.eye(3)), "map.gif"), "the suffix of 'map.gif' ('.gif') must be .png or"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_sentence(call: Any, message: str) -> None:
    with pytest.raises(minibert.MinibertError, match=re.escape(message)):
        call()


@pytest.mark.slow
def test_the_documentation_runs(minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "plots.md").read_text(encoding="utf-8")
    folder = with_real_vocabulary(tmp_path / "model", minilm)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        code = code.replace("google-bert/bert-base-uncased", str(folder))
        exec(compile(code.replace("sentence-transformers/all-MiniLM-L6-v2", str(minilm)), "plots.md", "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} - {"model"} == set(re.findall(r"\"([\w-]+\.(?:png|svg))\"", page))


def test_losses_are_drawn_with_their_running_mean_and_the_evaluations() -> None:
    losses = [5.0, 4.0, 3.0, 3.5]
    figure = plots.plot_losses(losses, {2: 4.2, 4: 3.3})
    [axes] = figure.axes
    each, mean, held_out = axes.lines
    assert each.get_xydata().tolist() == [[1, 5], [2, 4], [3, 3], [4, 3.5]]
    assert mean.get_ydata().tolist() == pytest.approx([5.0, 4.5, 4.0, 3.875])
    assert held_out.get_xydata().tolist() == [[2, 4.2], [4, 3.3]]
    assert axes.get_ylabel() == "loss (nats)"
    with pytest.raises(minibert.MinibertError, match="at least one loss"):
        plots.plot_losses([])
