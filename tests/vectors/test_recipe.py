"""The maps of a recipe: weights that cannot give a vector are refused when they are read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from minibert.errors import MinibertError
from minibert.pretrained.hub import Repository
from minibert.text import short
from minibert.vectors.recipe import Dense, Recipe, tokenizer_settings


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


# What a file can get wrong

DEEP: Any = 1
for _ in range(200):
    DEEP = [DEEP]
WRONG: list[Any] = [None, True, 0, -1, 1.5, float("inf"), 10**400, "", "\ud800", "x" * 10_000, [], {}, [None], [[]]]
WRONG += [{"a": None}, {"": {}}, [1, "mean"], DEEP, {"type": "m.Pooling", "path": 3}]
FIELDS = {
    "modules.json": ["", "type", "path"],
    "1_Pooling/config.json": ["", "pooling_mode", "pooling_mode_cls_token", "include_prompt", "embedding_dimension"],
    "2_Dense/config.json": ["", "activation_function", "module_input_name", "module_output_name", "use_residual"],
    "sentence_bert_config.json": [
        *("", "max_seq_length", "do_lower_case", "tokenizer_args", "processor_kwargs", "model_args", "config_kwargs"),
        *("tokenizer_args.model_max_length", "tokenizer_args.do_lower_case", "tokenizer_args.truncation_side"),
    ],
    "config_sentence_transformers.json": [
        *("", "prompts", "prompts.query", "default_prompt_name", "similarity_fn_name", "truncate_dim", "activation_fn"),
    ],
}


@pytest.mark.filterwarnings("ignore:sentence_bert_config.json of .* has arguments")
@pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in FIELDS.items() for field in fields])
def test_whatever_a_file_holds_is_read_or_refused_in_a_sentence(tmp_path: Path, name: str, field: str) -> None:
    folder = recipe_folder(tmp_path / "model", dense=1, prompts={"query": "q: "})
    write_dense(folder / "2_Dense", torch.ones(3, 4))
    path = folder / name
    good = json.loads(path.read_text()) if path.exists() else {}
    messages = []
    for value in WRONG:
        content = json.loads(json.dumps(good))
        if name == "modules.json":
            content = [*content[:1], {**content[1], field: value}, *content[2:]] if field else value
        elif "." in field:
            outer, inner = field.split(".")
            content = {**content, outer: {inner: value}}
        else:
            content = {**content, field: value} if field else value
        path.write_text(json.dumps(content))
        repository = Repository.open(folder)
        try:
            recipe = Recipe.read(repository)
            tokenizer_settings(repository, recipe)
            repr(recipe)
            if not recipe.refusal:
                recipe.finish(torch.ones(1, 4))
                recipe.save(tmp_path / "again", 4)
        except (MinibertError, FileNotFoundError) as error:
            messages.append(str(error))
    assert all(len(message) < 500 + len(str(folder)) and "\n" not in message for message in messages)
    assert messages or field in ("pooling_mode_cls_token", "embedding_dimension", "activation_fn")


def test_a_map_without_numbers_is_refused(tmp_path: Path) -> None:
    write_dense(tmp_path / "a", torch.ones(0, 4))
    with pytest.raises(MinibertError, match=re.escape(f"of {tmp_path / 'a'} must hold linear.weight, a matrix; fetch")):
        read(tmp_path / "a")


@pytest.mark.parametrize("value", [DEEP, 10**400, 10**5000, -(10**5000)], ids=["deep", "large", "larger", "negative"])
def test_a_value_is_named_in_a_few_characters(value: Any) -> None:
    for _ in range(2_000):
        value = [value]
    assert len(short(value)) <= 40
