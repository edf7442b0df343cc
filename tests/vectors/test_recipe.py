"""The maps of a recipe: weights that cannot give a vector are refused when they are read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from minibert.errors import MinibertError
from minibert.pretrained.hub import Repository
from minibert.vectors.recipe import Dense, Recipe


def write_dense(folder: Path, weight: Tensor, bias: Tensor | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    tensors = {"linear.weight": weight} | ({} if bias is None else {"linear.bias": bias})
    save_file(tensors, folder / "model.safetensors")


def read(folder: Path) -> Dense:
    return Dense.read(Repository.open(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_not_finite_in_float32_are_refused(tmp_path: Path, value: float) -> None:
    good, wrong = torch.ones(3, 4, dtype=torch.float64), torch.ones(3, 4, dtype=torch.float64)
    wrong[1, 2] = value
    write_dense(tmp_path / "weight", wrong)
    write_dense(tmp_path / "bias", good, wrong[:, 2].clone())
    write_dense(tmp_path / "good", good, good[:, 0].clone())
    for name in ("weight", "bias"):
        message = f"linear.{name} of {tmp_path / name} must be finite; there is NaN or infinity in it: fetch it again"
        with pytest.raises(ValueError, match=re.escape(message)):
            read(tmp_path / name)
    assert torch.equal(read(tmp_path / "good")(torch.ones(1, 4)), torch.tanh(torch.full((1, 3), 5.0)))


def test_weights_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write_dense(tmp_path / "a", torch.ones(3, 4), torch.ones(4))
    message = f"linear.bias (4,) of {tmp_path / 'a'} must be (3,), a number for each row of linear.weight; fetch it"
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path / "a")


def recipe_folder(folder: Path, dense: int, **settings: object) -> Path:
    kinds = ["Transformer", "Pooling", *["Dense"] * dense]
    modules = [{"path": f"{number}_{kind}" if number else "", "type": f"m.{kind}"} for number, kind in enumerate(kinds)]
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def test_maps_that_do_not_follow_one_another_are_refused(tmp_path: Path) -> None:
    folder = recipe_folder(tmp_path / "model", dense=2)
    write_dense(folder / "2_Dense", torch.ones(3, 4))
    write_dense(folder / "3_Dense", torch.ones(2, 5))
    message = f"of a Dense module of {folder} (3 numbers) must be as long as the input of the next one (5); fetch"
    with pytest.raises(ValueError, match=re.escape(message)):
        Recipe.read(Repository.open(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, 0, "8"])
def test_a_length_that_is_no_whole_number_is_refused(tmp_path: Path, value: object) -> None:
    folder = recipe_folder(tmp_path / "model", dense=0, truncate_dim=value)
    message = f"truncate_dim of {folder} ({value!r}) must be a whole number of at least 1"
    with pytest.raises(ValueError, match=re.escape(message)):
        Recipe.read(Repository.open(folder))


@pytest.mark.parametrize(("prompts", "shown"), [({}, "there are none"), ({"a": "A: ", "b": "B: "}, "a, b")])
def test_a_default_prompt_that_is_not_among_the_prompts_is_refused(
    tmp_path: Path, prompts: dict[str, str], shown: str
) -> None:
    folder = recipe_folder(tmp_path / "model", dense=0, prompts=prompts, default_prompt_name="c")
    message = f"default_prompt_name of {folder} ('c') must be the name of one of its prompts ({shown}); correct"
    with pytest.raises(MinibertError, match=re.escape(message)):
        Recipe.read(Repository.open(folder))
