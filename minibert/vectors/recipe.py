"""The recipe for sentence vectors, read from a checkpoint's sentence-transformers files and written to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from minibert.errors import MinibertError, warn
from minibert.pretrained.checkpoint import converted, is_finite, read_tensors, save_tensors
from minibert.pretrained.files import write_text, written_whole
from minibert.pretrained.hub import Repository
from minibert.pretrained.vocabulary import SIDES, SWITCHES
from minibert.text import check_choice, check_text, short, whole_number
from minibert.vectors.pooling import POOLING

# Before version 5.4, sentence-transformers had one switch for each mode.
OLD_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


QUERY = ("query",)  # the prompts of `encode_query` and `encode_document`, of which the first that is there is used
DOCUMENT = ("document", "passage", "corpus")
# What sentence-transformers' files call the arguments of the tokenizer, and those of others; old names and new ones.
TOKENIZER_ARGUMENTS = ("tokenizer_args", "processor_kwargs")
OTHER_ARGUMENTS = ("model_args", "model_kwargs", "config_args", "config_kwargs", "processing_kwargs")
FOLLOWED = ("model_max_length", *SIDES, *SWITCHES)
# Arguments that do not change a vector, or are for loading.
HARMLESS = (
    *("add_pooling_layer", "attn_implementation", "cache_dir", "clean_up_tokenization_spaces", "code_revision"),
    *("device_map", "dtype", "local_files_only", "low_cpu_mem_usage", "output_attentions", "output_hidden_states"),
    *("revision", "subfolder", "token", "torch_dtype", "trust_remote_code", "use_auth_token", "use_cache", "use_fast"),
    "use_safetensors",
)
LONGEST_NAME = 200  # of a module's folder or class; file systems take no more than 255 bytes
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
# The activations of sentence-transformers' Dense module, by the last part of their class's name.
DENSE_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Identity": lambda x: x,
    "Tanh": torch.tanh,
    "ReLU": torch.relu,
    "GELU": F.gelu,
    "SiLU": F.silu,
    "Sigmoid": torch.sigmoid,
}


@dataclass(frozen=True, eq=False)
class Dense:
    """A linear map of the pooled vector with an activation. LaBSE has one, and whitening is saved as one.

    Attributes:
        weight: (out, in) float32.
        bias: (out,) float32, or None.
        activation: a key of `DENSE_ACTIVATIONS`.
    """

    weight: Tensor
    bias: Tensor | None = None
    activation: str = "Identity"

    def __call__(self, vectors: Tensor) -> Tensor:
        """Map (N, in) to (N, out)."""
        bias = None if self.bias is None else self.bias.to(vectors.device)
        return DENSE_ACTIVATIONS[self.activation](F.linear(vectors, self.weight.to(vectors.device), bias))

    @classmethod
    def read(cls, repository: Repository) -> Dense:
        """Read the module from its folder.

        Raises:
            FileNotFoundError: its files are missing.
            MinibertError: an unsupported setting; weights that do not fit together or are not finite.
        """
        config = repository.object("config.json")
        if config is None:
            raise FileNotFoundError(f"the Dense module of {repository} must have a config.json; fetch it again")
        activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
        if activation not in DENSE_ACTIVATIONS:
            raise MinibertError(
                f"activation_function ({short(activation)}) of {repository} must be one of "
                f"{', '.join(DENSE_ACTIVATIONS)}"
            )
        name = config.get("module_input_name") or "sentence_embedding"
        if name != "sentence_embedding" or (config.get("module_output_name") or name) != name:
            raise MinibertError(
                f"the Dense module of {repository} must map sentence_embedding to itself, not {short(name)}"
            )
        if config.get("use_residual"):
            raise MinibertError(
                f"use_residual of the Dense module of {repository} must be false; it is not implemented"
            )
        tensors = read_tensors(repository)
        weight, bias = tensors.get("linear.weight"), tensors.get("linear.bias")
        if weight is None or weight.ndim != 2 or not weight.numel():
            raise MinibertError(f"the Dense module of {repository} must hold linear.weight, a matrix; fetch it again")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise MinibertError(
                f"linear.bias {tuple(bias.shape)} of {repository} must be ({len(weight)},), a number for each row of "
                "linear.weight; fetch it again"
            )
        # copies, which do not depend on a mapped file
        weight = converted(weight, torch.float32, copy=True)
        bias = None if bias is None else converted(bias, torch.float32, copy=True)
        dense = cls(weight, bias, activation)
        for name, tensor in (("linear.weight", dense.weight), ("linear.bias", dense.bias)):
            if tensor is not None and not is_finite(tensor):
                raise MinibertError(
                    f"{name} of {repository} must be finite; there is NaN or infinity in it: fetch it again"
                )
        return dense

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors` in sentence-transformers' format."""
        tensors = {"linear.weight": self.weight} | ({} if self.bias is None else {"linear.bias": self.bias})
        with written_whole(folder / "model.safetensors") as path:
            save_tensors(tensors, path)
        module = "linear" if self.activation == "Identity" else "activation"
        config = {
            "in_features": self.weight.shape[1],
            "out_features": self.weight.shape[0],
            "bias": self.bias is not None,
            "activation_function": f"torch.nn.modules.{module}.{self.activation}",
        }
        write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")


@dataclass(frozen=True)
class Recipe:
    """How token vectors become a sentence vector.

    Attributes:
        pooling: modes of `vectors.pooling`; the results of several are concatenated.
        dense: maps applied to the pooled vector.
        normalize: whether the vector is divided by its length at the end.
        max_seq_length: tokens, with special tokens; None means as many as the model has positions.
        lower_case: whether text is lower-cased before the tokenizer sees it.
        prompt: the default prompt.
        prompts: prompts by name. Where sentence vectors have a `refusal`, the prompts are a reranker's.
        include_prompt: whether the prompt's tokens are pooled too.
        similarity: how vectors are compared: one of `SIMILARITIES`.
        truncate_dim: how many numbers of a vector to keep, the first ones; None keeps all.
        folder: the transformer's folder in the repository.
        source: where the recipe comes from, for people.
        settings: the contents of `config_sentence_transformers.json`, which are saved again.
        family_prompts: prompts of the model's family by name, which its files do not have; used only where a call names
            them.
        untrained: why nobody trained these vectors, for a warning; empty where that is not known.
        refusal: why the checkpoint's sentence vectors cannot be computed; empty if they can.
    """

    pooling: tuple[str, ...] = ("mean",)
    dense: tuple[Dense, ...] = ()
    normalize: bool = False
    max_seq_length: int | None = None
    lower_case: bool = False
    prompt: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)
    include_prompt: bool = True
    similarity: str = "cosine"
    truncate_dim: int | None = None
    folder: str = ""
    source: str = "minibert's default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    family_prompts: Mapping[str, str] = field(default_factory=dict)
    untrained: str = ""
    refusal: str = ""

    @classmethod
    def read(cls, repository: Repository) -> Recipe:
        """Read `modules.json` and the modules that it names; without one, the recipe is mean pooling.

        Unsupported modules or settings that would change the vectors become a `refusal`; the rest of the checkpoint
        can still be used.

        Raises:
            MinibertError: a broken file.
        """
        modules = _modules(repository)
        if not modules:
            return cls()
        kinds = [module["type"].rpartition(".")[2] for module in modules]
        folder, *others = [module["path"] for module in modules]
        transformer = repository.inside(folder).object("sentence_bert_config.json") or {}
        settings = repository.object("config_sentence_transformers.json") or {}
        _warn_of_ignored(transformer, repository)
        limit = _max_seq_length({**transformer, **tokenizer_arguments(transformer, repository)}, repository)
        prompts, prompt = _prompts(settings, repository)
        refusal = _refusal(kinds, repository)
        if refusal:  # it may be a reranker, which has a limit, prompts and an activation
            return cls(
                max_seq_length=limit,
                prompt=prompt,
                prompts=prompts,
                folder=folder,
                settings=settings,
                refusal=refusal,
            )
        pooling = repository.inside(others[0]).object("config.json")
        if pooling is None:
            raise FileNotFoundError(f"{repository} must hold {others[0]}/config.json, which modules.json names")
        return cls(
            pooling=_modes(pooling, repository),
            dense=_maps([repository.inside(path) for path in others[1 : 1 + kinds.count("Dense")]], repository),
            normalize=kinds[-1] == "Normalize",
            max_seq_length=limit,
            lower_case=_switch(transformer, "do_lower_case", False, repository),
            prompt=prompt,
            prompts=prompts,
            include_prompt=_switch(pooling, "include_prompt", True, repository),
            similarity=_similarity(settings, repository),
            truncate_dim=_truncate_dim(settings, repository),
            folder=folder,
            source="sentence-transformers files",
            settings=settings,
        )

    def check(self) -> None:
        """Raise MinibertError if the checkpoint's sentence vectors cannot be computed."""
        if self.refusal:
            raise MinibertError(self.refusal)

    def width(self, pooled: int, truncate_dim: int | None = None) -> int:
        """The length of a sentence vector.

        Args:
            pooled: the length of a pooled vector.
            truncate_dim: None means the recipe's own, if it has one.

        Raises:
            MinibertError: `truncate_dim` exceeds the length.
        """
        whole = self.dense[-1].weight.shape[0] if self.dense else pooled
        if truncate_dim is None:
            return min(whole, self.truncate_dim or whole)
        if whole_number("truncate_dim", truncate_dim) > whole:
            raise MinibertError(f"truncate_dim ({truncate_dim}) must not exceed {whole}, the length of a vector")
        return truncate_dim

    def prompt_for(self, name: str | None, prompt: str | None) -> str:
        """The prompt of a call: `prompt` itself, the prompt called `name`, or the recipe's default.

        Raises:
            MinibertError: the prompt is not text; the recipe has no prompt of this name.
        """
        if prompt is not None:
            check_text([prompt])
            return prompt
        if name is None:
            return self.prompt
        if not isinstance(name, str):
            raise MinibertError(
                f"prompt_name ({name!r:.40}) must be str; pass batch_size= for the number of texts at once"
            )
        prompts = {"query": "", "document": "", **self.family_prompts, **self.prompts}  # as in sentence-transformers
        if name not in prompts:
            known = ", ".join(map(repr, prompts))
            raise MinibertError(
                f"prompt_name ({name!r}) must be a prompt of the checkpoint ({known}); pass prompt= to use another text"
            )
        return prompts[name]

    def reranker_prompt(self, name: str | None, prompt: str | None) -> str:
        """The prompt of a call, as `prompt_for` has it; the prompts of sentence vectors are not a reranker's.

        Source: sentence-transformers `BaseModel._load_converted_modules`.
        """
        recipe = self if self.refusal else replace(self, prompt="", prompts={})
        return recipe.prompt_for(name, prompt)

    def first_prompt(self, names: Iterable[str]) -> str | None:
        """The first of `names` that the checkpoint's files have a prompt for; None if there is none."""
        return next((name for name in names if name in self.prompts), None)

    def finish(self, pooled: Tensor) -> Tensor:
        """Apply the maps to pooled vectors (N, ...), and normalize them if the recipe says so.

        Raises:
            MinibertError: the pooled vectors do not have the length that the first map expects.
        """
        if self.dense and pooled.shape[-1] != self.dense[0].weight.shape[1]:
            raise MinibertError(
                f"the pooled vector ({pooled.shape[-1]} numbers) must have {self.dense[0].weight.shape[1]}, since the "
                "checkpoint maps it on; leave out layers=, combine= and pooling="
            )
        for dense in self.dense:
            pooled = dense(pooled)
        return F.normalize(pooled, dim=-1) if self.normalize else pooled

    def in_words(self, dimension: int) -> str:
        """How a sentence becomes a vector, in a sentence."""
        steps = [f"{' + '.join(self.pooling)} pooling", *["a linear map"] * len(self.dense)]
        steps += ["normalization"] if self.normalize else []
        return f"Sentence vectors have {dimension} numbers, by {', then '.join(steps)}."

    def save(self, folder: Path, hidden_size: int) -> None:
        """Write sentence-transformers' files into a folder, in a form that all its versions read.

        There are none for vectors that nobody trained: with them, a reranker would load as a model of sentence vectors.
        """
        if self.untrained and not self.dense:
            return
        parts = ["Transformer", "Pooling", *["Dense"] * len(self.dense), *["Normalize"] * self.normalize]
        modules = [(str(number), f"{number}_{kind}" if number else "", kind) for number, kind in enumerate(parts)]
        for number, dense in enumerate(self.dense, 2):
            dense.save(folder / f"{number}_Dense")
        pooling: dict[str, Any] = {"word_embedding_dimension": hidden_size}
        in_order = [mode for mode in OLD_SWITCHES.values() if mode in self.pooling]
        if in_order == list(self.pooling):
            pooling |= {switch: mode in self.pooling for switch, mode in OLD_SWITCHES.items()}
        else:  # switches have a fixed order; only new versions read another
            pooling = {"embedding_dimension": hidden_size, "pooling_mode": list(self.pooling)}
        if not self.include_prompt:
            pooling["include_prompt"] = False
        limits = {"max_seq_length": self.max_seq_length, "do_lower_case": self.lower_case}
        settings = dict(self.settings)
        if self.prompt and settings.get("default_prompt_name") is None:
            settings |= {"prompts": {"default": self.prompt}, "default_prompt_name": "default"}
        if self.truncate_dim is not None:
            settings["truncate_dim"] = self.truncate_dim
        settings = {"prompts": dict(self.prompts)} | settings if self.prompts else settings
        if self.similarity != "cosine" or "similarity_fn_name" in settings:
            settings["similarity_fn_name"] = self.similarity
        contents: dict[str, Any] = {
            "modules.json": [
                {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
                for name, path, kind in modules
            ],
            "1_Pooling/config.json": pooling,
            "sentence_bert_config.json": limits,
            "config_sentence_transformers.json": settings,
        }
        for name, content in contents.items():
            write_text(folder / name, json.dumps(content, indent=2) + "\n")


def whitening(vectors: NDArray[np.float32], dimensions: int | None, rotate: bool) -> Dense:
    """A map that centres vectors (N, H) and, with `rotate`, gives all directions equal variance, the largest first.

    Raises:
        MinibertError: as for `Bert.whiten`.
    """
    width = vectors.shape[1]
    kept = width if dimensions is None else whole_number("dimensions", dimensions)
    if kept > width or (not rotate and kept != width):
        raise MinibertError(
            f"dimensions ({kept}) must not exceed {width}, and must be all of them where rotate is False"
        )
    if len(vectors) < (kept if rotate else 1):
        raise MinibertError(
            f"texts ({len(vectors)}) must be at least as many as dimensions ({kept}); thousands are good"
        )
    mean = vectors.mean(0, dtype=np.float64)
    turn = np.eye(width)
    if rotate:
        directions, variances, _ = np.linalg.svd(np.cov(vectors.T.astype(np.float64)))
        turn = directions[:, :kept] / np.sqrt(variances[:kept].clip(min=1e-12 * variances[0]))
    return Dense(torch.from_numpy(turn.T).float().contiguous(), torch.from_numpy(-mean @ turn).float())


def _modules(repository: Repository) -> list[dict[str, Any]]:
    """The modules that `modules.json` lists; none without the file."""
    modules = repository.json("modules.json")
    if "modules.json" in repository.unknown:
        warn(
            f"the cache of {repository} does not say whether it has modules.json; mean pooling is used: "
            "load it once with a network to be sure"
        )
    if modules is None:
        return []
    if not isinstance(modules, list) or not modules or not all(isinstance(module, dict) for module in modules):
        raise MinibertError(f"modules.json of {repository} must be a list of modules; it is not: correct the file")
    for module in modules:
        for key in ("type", "path"):
            value = module.setdefault(key, "")
            if not isinstance(value, str) or len(value) > LONGEST_NAME or not value.isprintable():
                raise MinibertError(
                    f"the {key} of a module in modules.json of {repository} ({short(value)}) must be a text of at most "
                    f"{LONGEST_NAME} characters that can be printed; correct the file"
                )
    return modules


def transformer_folder(repository: Repository) -> str:
    """The folder of the transformer, as far as `modules.json` can be read; "" is the repository itself."""
    try:
        modules = _modules(repository)
        folder = str(modules[0]["path"]) if modules else ""
        return folder if repository.inside(folder).file("config.json") else ""
    except MinibertError:
        return ""


def _refusal(kinds: list[str], repository: Repository) -> str:
    """Why this list of modules is not supported; empty if it is."""
    maps = ["Dense"] * kinds.count("Dense")
    if kinds == ["Transformer", "Pooling", *maps, *["Normalize"] * (kinds[-1] == "Normalize")]:
        return ""
    return (
        f"the modules of {repository} ({short_list(kinds)}) must be Transformer, Pooling and, optionally, Dense "
        "and Normalize, in this order; others would change the vectors: use sentence-transformers for the vectors of "
        "this checkpoint"
    )


def _maps(folders: list[Repository], repository: Repository) -> tuple[Dense, ...]:
    """Read the Dense modules in these folders; the output of each must fit the input of the next."""
    dense = tuple(Dense.read(folder) for folder in folders)
    for first, second in pairwise(dense):
        if len(first.weight) != second.weight.shape[1]:
            raise MinibertError(
                f"the output of a Dense module of {repository} ({len(first.weight)} numbers) must be as long as the "
                f"input of the next one ({second.weight.shape[1]}); fetch it again"
            )
    return dense


def tokenizer_settings(repository: Repository, recipe: Recipe) -> dict[str, Any]:
    """What the files of a recipe say of the tokenizer, as arguments of `BertTokenizer`.

    Raises:
        MinibertError: a value that makes no sense.
    """
    if recipe.source == Recipe.source and not recipe.refusal:
        return {}
    transformer = repository.inside(recipe.folder).object("sentence_bert_config.json") or {}
    given = tokenizer_arguments(transformer, repository)
    return {name: given[name] for name in (*SIDES, *SWITCHES) if name in given}


def tokenizer_arguments(transformer: dict[str, Any], repository: Repository) -> dict[str, Any]:
    """The arguments of the tokenizer that `sentence_bert_config.json` has, those that are followed here.

    Raises:
        MinibertError: a value that makes no sense.
    """
    given = _arguments(transformer, TOKENIZER_ARGUMENTS, repository)
    followed = {name: value for name, value in given.items() if name in FOLLOWED and value is not None}
    for name in followed.keys() & SWITCHES.keys():
        _switch(followed, name, False, repository)
    for name in followed.keys() & SIDES:
        check_choice(f"{name} of {repository}", followed[name], ("right", "left"))
    return followed


def _arguments(transformer: dict[str, Any], names: Iterable[str], repository: Repository) -> dict[str, Any]:
    """The arguments under these names of `sentence_bert_config.json`, in one dictionary."""
    given: dict[str, Any] = {}
    for name in names:
        values = transformer.get(name) or {}
        if not isinstance(values, dict):
            raise MinibertError(
                f"{name} of {repository} ({short(values)}) must be an object; correct sentence_bert_config.json"
            )
        given |= values
    return given


def _warn_of_ignored(transformer: dict[str, Any], repository: Repository) -> None:
    """Name the arguments of `sentence_bert_config.json` that are not followed here and may change a vector."""
    given = {*_arguments(transformer, TOKENIZER_ARGUMENTS, repository)} - {*FOLLOWED}
    given |= {*_arguments(transformer, OTHER_ARGUMENTS, repository)}
    if ignored := sorted(given - {*HARMLESS}):
        warn(
            f"sentence_bert_config.json of {repository} has arguments ({short_list(ignored)}) that are not followed "
            "here and may change the vectors; compare them with those of sentence-transformers"
        )


def _max_seq_length(transformer: dict[str, Any], repository: Repository) -> int | None:
    """The limit of a text; like there, one among the arguments of the tokenizer wins."""
    name = "model_max_length" if transformer.get("model_max_length") is not None else "max_seq_length"
    limit = transformer.get(name)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 3):
        raise MinibertError(f"{name} of {repository} ({short(limit)}) must be a whole number of at least 3")
    return limit


def _switch(values: Mapping[str, Any], name: str, default: bool, repository: Repository) -> bool:
    value = values.get(name)
    if value not in (None, True, False):
        raise MinibertError(f"{name} of {repository} ({short(value)}) must be true or false; correct the file")
    return default if value is None else bool(value)


def _prompts(settings: dict[str, Any], repository: Repository) -> tuple[dict[str, str], str]:
    """The prompts by name, and the default prompt. Like there, null is the empty prompt, and so is a side without one.

    Source: sentence-transformers `SentenceTransformer._default_prompts` and `_validate_prompts`.
    """
    given, name = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if not isinstance(given, dict) or not all(isinstance(text, str | None) for text in given.values()):
        raise MinibertError(f"prompts of {repository} ({short(given)}) must be texts by name; correct the file")
    prompts = {key: text or "" for key, text in given.items()}
    check_text(list(prompts.values()))
    if name is None:
        return prompts, ""
    if not isinstance(name, str) or name not in {*prompts, QUERY[0], DOCUMENT[0]}:
        raise MinibertError(
            f"default_prompt_name of {repository} ({short(name)}) must be the name of one of its prompts "
            f"({short_list(prompts) or 'there are none'}); correct the file"
        )
    return prompts, prompts.get(name, "")


def _similarity(settings: dict[str, Any], repository: Repository) -> str:
    name = str(settings.get("similarity_fn_name") or "cosine")
    if name not in SIMILARITIES:
        raise MinibertError(
            f"similarity_fn_name of {repository} ({short(name)}) must be one of {', '.join(SIMILARITIES)}"
        )
    return name


def _truncate_dim(settings: dict[str, Any], repository: Repository) -> int | None:
    value = settings.get("truncate_dim")
    return None if value is None else whole_number(f"truncate_dim of {repository}", value)


def _modes(config: dict[str, Any], repository: Repository) -> tuple[str, ...]:
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for switch, mode in OLD_SWITCHES.items() if config.get(switch)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes:
        raise MinibertError(f"the pooling mode of {repository} ({short(modes)}) must be a text or a list of texts")
    for mode in modes:
        if not isinstance(mode, str) or mode not in POOLING:
            raise MinibertError(f"the pooling mode of {repository} ({short(mode)}) must be one of {', '.join(POOLING)}")
    return tuple(modes)


def short_list(names: Iterable[str]) -> str:
    """Names with commas, shortened for error messages."""
    text = ", ".join(names)
    return text if len(text) <= 200 else text[:197] + "..."
