"""What the READMEs say of speed and memory is what the benchmarks' results say, for each CPU."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import measure
import pytest
import tables
import torch

ROOT = Path(__file__).parent.parent
XEON, EPYC = "Intel Xeon (AMX-BF16)", "AMD EPYC Zen 5 (AVX512-BF16)"
OTHER = {"cpu": "AMD EPYC", "family": 26, "capabilities": ["AVX512-BF16", "AVX512", "AVX2"]}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the texts, of the scripts, and of the results of one CPU."""
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("results"))
    results, one = ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results" / "xeon-amx"
    shutil.copytree(results / "xeon-amx", one)
    for path in results.glob("*/*.json"):
        if not (one / path.name).exists():  # not measured on this CPU: the figures of another stand in
            with changed(path, one / path.name) as content:
                content["machine"] = result(one, "work1")["machine"]
    return tmp_path


@pytest.fixture
def second(project: Path) -> Path:
    """The folder of a second CPU, on which everything took twice the time; some of the benchmarks were not run."""
    results = project / "benchmarks" / "results"
    for name in ("work1", "load"):
        with changed(results / "xeon-amx" / f"{name}.json", results / "epyc-zen5" / f"{name}.json") as content:
            content["machine"] |= OTHER
            for row in content.get("rows", []):
                row["seconds"] *= 2
                row["texts_per_second"] /= 2
            for figures in (content.get("load (s)", {}), content.get("import (s)", {})):
                figures |= {library: 2 * seconds for library, seconds in figures.items()}
    return results / "epyc-zen5"


@contextmanager
def changed(source: Path, target: Path | None = None) -> Iterator[Any]:
    """Read a result, let it be changed, write it."""
    content = json.loads(source.read_text(encoding="utf-8"))
    yield content
    target = target or source
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(content), encoding="utf-8")


def written(project: Path) -> dict[str, str]:
    """Both texts as they should be."""
    cpus = tables.read_results(project / "benchmarks" / "results")
    return {name: tables.rewrite((project / name).read_text(encoding="utf-8"), cpus) for name in tables.TEXTS}


def cells(text: str, name: str) -> Iterator[list[str]]:
    """The rows of the tables of a block, their headers first."""
    block = text.partition(f"<!-- table: {name} -->")[2].partition("<!-- end -->")[0]
    assert block, name
    for line in block.splitlines():
        if line.startswith("|") and not line.startswith(("| :--", "| --:")):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def result(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_the_texts_show_the_figures_of_the_results() -> None:
    assert [path.name for path, _ in tables.outdated()] == []


def test_one_figure_of_a_result_that_changes_is_seen_in_every_text_that_shows_it(project: Path) -> None:
    results = project / "benchmarks" / "results"
    for path, text in tables.outdated(project, results):  # this CPU alone
        path.write_text(text, encoding="utf-8")
    assert list(tables.outdated(project, results)) == []
    with changed(results / "xeon-amx" / "load.json") as content:
        content["load (s)"]["minibert"] += 0.01
    outdated = [path.relative_to(project).as_posix() for path, _ in tables.outdated(project, results)]
    assert outdated == ["docs/checkpoints.md", "benchmarks/README.md"]


@pytest.mark.slow
def test_the_command_writes_and_checks_both_texts(project: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(project / "benchmarks" / "tables.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    (project / "README.md").write_text("<!-- table: load -->\n0.048 s\n<!-- end -->\n", encoding="utf-8")
    checked = run("--check")
    assert checked.returncode == 2
    assert checked.stderr.startswith("README.md")
    assert "0.048" in (project / "README.md").read_text(encoding="utf-8")
    assert run().returncode == 0
    assert "0.048" not in (project / "README.md").read_text(encoding="utf-8")
    assert run("--check").returncode == 0


def test_each_cpu_has_columns_of_its_own(project: Path, second: Path) -> None:
    texts = written(project)
    xeon, epyc = (result(second.parent / name, "work1")["rows"] for name in ("xeon-amx", "epyc-zen5"))
    ratio = "x sentence-transformers float32"
    header, *rows = cells(texts["README.md"], "headline")
    assert header[1:5] == [f"{cpu}<br>{title}" for cpu in (XEON, EPYC) for title in ("texts/s", ratio)]
    expected = {
        a["subject"]: [
            f"{row[key]:.{digits}f}" for row in (a, b) for key, digits in (("texts_per_second", 0), ("ratio", 2))
        ]
        for a, b in zip(xeon, epyc, strict=True)
    }
    assert {row[0].strip("*"): row[1:5] for row in rows} == expected
    header, *rows = cells(texts["benchmarks/README.md"], "load")
    assert header[2:] == [XEON, EPYC]
    load = {(row[0], row[1]): row[2:] for row in rows}
    seconds = result(second.parent / "xeon-amx", "load")["load (s)"]["minibert"]
    assert load["load (s)", "minibert"] == [f"{seconds:.3f}", f"{2 * seconds:.3f}"]


def test_a_cpu_without_a_result_is_left_out_of_that_table_alone(project: Path, second: Path) -> None:
    text = written(project)["benchmarks/README.md"]
    for name in ("work2", "stsb", "scaling", "soak", "int8", "search", "words", "quality"):
        assert not any(EPYC in cell for row in cells(text, name) for cell in row), name
    assert all(any(EPYC in cell for cell in next(cells(text, name))) for name in ("work1", "load"))


def test_a_subject_of_one_cpu_alone_has_empty_cells_for_the_other(project: Path, second: Path) -> None:
    with changed(second / "work1.json") as content:
        content["rows"] = [row for row in content["rows"] if "openvino" not in row["subject"]]
    rows = {row[0]: row for row in cells(written(project)["README.md"], "headline")}
    assert rows["openvino bfloat16"][1] != ""
    assert rows["openvino bfloat16"][3:5] == ["", ""]


def test_a_cpu_that_does_not_compute_in_bfloat16_is_compared_in_float32(project: Path, second: Path) -> None:
    with changed(second / "work1.json") as content:
        content["machine"]["capabilities"] = ["AVX2"]
        content["rows"] = [row for row in content["rows"] if "float32" in row["subject"]]
        del content["gemm_gflops"]["bfloat16"]
    second.rename(second.with_name("epyc-avx2"))
    (second.with_name("epyc-avx2") / "load.json").unlink()
    text = " ".join(written(project)["README.md"].split())
    said = text.partition("- AMD EPYC (AVX2), 2 cores: ")[2].partition("|")[0].strip()
    assert said == "minibert in float32 is 1.53 x as fast as sentence-transformers in float32."
    rows = {row[0]: row for row in cells(written(project)["README.md"], "headline")}
    assert rows["**minibert bfloat16**"][3:5] == ["", ""]


def test_the_worst_cosine_is_that_of_any_cpu(project: Path, second: Path) -> None:
    with changed(second / "work1.json") as content:
        next(row for row in content["rows"] if row["subject"] == "minibert bfloat16")["cosine"] = 0.98765
    rows = {row[0]: row for row in cells(written(project)["README.md"], "headline")}
    assert rows["**minibert bfloat16**"][-1] == "0.98765"


def test_speeds_are_compared_in_one_dtype_or_both_dtypes_are_named(project: Path) -> None:
    rows = {row["subject"]: row["seconds"] for row in result(project / "benchmarks/results/xeon-amx", "work1")["rows"]}
    texts = {name: " ".join(text.split()) for name, text in written(project).items()}
    for dtype in ("float32", "bfloat16"):
        times = f"{rows[f'sentence-transformers {dtype}'] / rows[f'minibert {dtype}']:.2f} x as fast as"
        assert f"in {dtype} minibert is {times} sentence-transformers," in texts["benchmarks/README.md"]
        assert f"{times} sentence-transformers in {dtype}" in texts["README.md"]
    default = rows["sentence-transformers float32"] / rows["minibert bfloat16"]
    assert f"{default:.2f} x as fast as its default, float32." in texts["README.md"]
    assert not any("times faster" in text for text in texts.values())


def test_a_result_in_the_folder_of_another_cpu_is_refused(project: Path, second: Path) -> None:
    (second / "load.json").rename(second.parent / "xeon-amx" / "load.json")
    with pytest.raises(ValueError, match=r"xeon-amx/load\.json \(epyc-zen5\) must be a result of xeon-amx"):
        tables.read_results(second.parent)


def test_a_table_that_nobody_writes_is_refused(project: Path) -> None:
    cpus = tables.read_results(project / "benchmarks" / "results")
    with pytest.raises(ValueError, match=r"table \(lod\) must be one of .*headline, .*load"):
        tables.rewrite("<!-- table: lod -->\n<!-- end -->", cpus)
    with pytest.raises(ValueError, match=r"table \(load\) must have a result; .* load\.json"):
        tables.rewrite("<!-- table: load -->\n<!-- end -->", [])


def test_results_of_other_texts_are_not_put_side_by_side(project: Path, second: Path) -> None:
    with changed(second / "work1.json") as content:
        content["settings"]["limit"] = 24
    with pytest.raises(ValueError, match=r"limit of work1\.json \(24, None\) must be the same on all CPUs"):
        written(project)


def test_ratios_to_different_subjects_are_not_put_side_by_side(project: Path, second: Path) -> None:
    with changed(second / "work1.json") as content:
        for row in content["rows"]:
            row["ratio"] = float(row["subject"] == "minibert float32")
    with pytest.raises(ValueError, match="must refer to one subject"):
        written(project)


@pytest.mark.parametrize(
    ("cpu", "family", "capabilities", "title", "folder"),
    [
        ("Intel(R) Xeon(R) Processor", None, ["AMX-BF16", "AVX512-BF16"], XEON, "xeon-amx"),
        ("AMD EPYC", 26, ["AVX512-BF16", "AVX512"], EPYC, "epyc-zen5"),
        ("AMD EPYC", 25, ["AVX512-BF16", "AVX512"], "AMD EPYC Zen 4 (AVX512-BF16)", "epyc-zen4"),
        ("AMD EPYC", 25, ["AVX2"], "AMD EPYC (AVX2)", "epyc-avx2"),
        ("AMD EPYC 9654 96-Core Processor", 25, ["AVX512-BF16"], "AMD EPYC 9654 (AVX512-BF16)", "epyc-9654"),
        (
            "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            6,
            ["AMX-BF16"],
            "Intel Xeon Platinum 8481C (AMX-BF16)",
            "xeon-platinum-8481c",
        ),
        ("arm", None, [], "arm", "arm"),
    ],
)
def test_a_cpu_is_known_by_its_name_and_by_what_it_computes_with(
    cpu: str, family: int | None, capabilities: list[str], title: str, folder: str
) -> None:
    facts = {"cpu": cpu, "family": family, "capabilities": capabilities, "cores": 2}
    assert measure.cpu_title(facts) == f"{title}, 2 cores"
    assert measure.cpu_folder(facts) == folder


def test_a_saved_result_says_where_and_when_it_was_measured(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    measure.add_output(parser)
    today = date.today()
    for more, folder in (([], measure.cpu_folder(measure.machine())), (["--cpu", "AMD EPYC 9654"], "epyc-9654")):
        measure.write_json(parser.parse_args(["--save", "name", "--results", str(tmp_path), *more]), figure=1)
        content = result(tmp_path / folder, "name")
        facts = content["machine"]
        assert facts["title"] == measure.cpu_title(facts)
        assert facts["title"].endswith(f"{facts['cores']} cores")
        assert facts["versions"]["torch"] == torch.__version__
        assert today <= date.fromisoformat(facts["date"]) <= date.today()
        assert (content["settings"], content["figure"]) == ({}, 1)


def test_nothing_is_written_unless_a_name_is_given(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    measure.add_output(parser)
    measure.write_json(parser.parse_args(["--results", str(tmp_path)]), figure=1)
    assert list(tmp_path.iterdir()) == []
