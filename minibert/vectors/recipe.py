"""What a checkpoint says about making sentence vectors: the files of sentence-transformers, read and obeyed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minibert.pretrained.files import write_text
from minibert.pretrained.hub import Repository
from minibert.vectors.pooling import POOLING

# Before version 5.4 of sentence-transformers, one switch for each mode.
OLD_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Recipe:
    """How token vectors become a sentence vector.

    Attributes:
        pooling: modes of `vectors.pooling`, side by side.
        normalize: whether the vector is divided by its length.
        max_seq_length: tokens, special ones included; None: as many as the model has positions.
        lower_case: whether the text is lower-cased before the tokenizer sees it.
        prompt: text put before every text.
        truncate_dim: numbers of a vector that are kept, the first ones; None: all.
        folder: where in the repository the transformer is.
        source: who says so, for people.
        settings: `config_sentence_transformers.json`, to be written back.
        refusal: why no sentence vectors can be made as the checkpoint wants them; empty where they can.
    """

    pooling: tuple[str, ...] = ("mean",)
    normalize: bool = False
    max_seq_length: int | None = None
    lower_case: bool = False
    prompt: str = ""
    truncate_dim: int | None = None
    folder: str = ""
    source: str = "minibert's default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    refusal: str = ""

    @classmethod
    def read(cls, repository: Repository) -> Recipe:
        """The recipe in `modules.json` and what it names; the default, mean pooling, where there is none.

        A module or a setting that would change the vectors, and that is not known here, is a `refusal`: the rest of
        the checkpoint can be used all the same.

        Raises:
            ValueError: a broken file.
        """
        modules = repository.json("modules.json")
        if "modules.json" in repository.unknown:
            warnings.warn(
                f"the cache of {repository} does not say whether it has modules.json; mean pooling is used: "
                "load it once with a network to be sure",
                stacklevel=3,
            )
        if modules is None:
            return cls()
        if not isinstance(modules, list) or not modules or not all(isinstance(module, dict) for module in modules):
            raise ValueError(f"modules.json of {repository} must be a list of modules; it is not: correct the file")
        kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
        folder = str(modules[0].get("path", ""))
        elsewhere = "use sentence-transformers for the vectors of this checkpoint"
        if kinds[0] != "Transformer" or kinds[1:] not in (["Pooling"], ["Pooling", "Normalize"]):
            refusal = (
                f"the modules of {repository} ({', '.join(kinds)}) must be Transformer, Pooling and, optionally, "
                f"Normalize; others would change the vectors: {elsewhere}"
            )
            return cls(folder=folder, refusal=refusal)
        transformer = repository.inside(folder).object("sentence_bert_config.json") or {}
        pooling_folder = str(modules[1].get("path", ""))
        pooling = repository.inside(pooling_folder).object("config.json")
        if pooling is None:
            raise FileNotFoundError(f"{repository} must hold {pooling_folder}/config.json, which modules.json names")
        limit = transformer.get("max_seq_length")
        if limit is not None and (not isinstance(limit, int) or limit < 3):
            raise ValueError(f"max_seq_length of {repository} ({limit!r}) must be a whole number of at least 3")
        settings = repository.object("config_sentence_transformers.json") or {}
        prompt_name = settings.get("default_prompt_name")
        prompt = "" if prompt_name is None else settings.get("prompts", {}).get(prompt_name, "")
        refusal = ""
        if prompt and not pooling.get("include_prompt", True):
            refusal = (
                f"include_prompt (False) of {repository} must be True where a default prompt ({prompt_name!r}) is set: "
                f"{elsewhere}"
            )
        truncate_dim = settings.get("truncate_dim")
        if truncate_dim is not None and (not isinstance(truncate_dim, int) or truncate_dim < 1):
            raise ValueError(f"truncate_dim of {repository} ({truncate_dim!r}) must be a whole number of at least 1")
        return cls(
            pooling=_modes(pooling, repository),
            normalize="Normalize" in kinds,
            max_seq_length=limit,
            lower_case=bool(transformer.get("do_lower_case", False)),
            prompt=prompt,
            truncate_dim=truncate_dim,
            folder=folder,
            source="sentence-transformers files",
            settings=settings,
            refusal=refusal,
        )

    def save(self, folder: Path, hidden_size: int) -> None:
        """Write the files of sentence-transformers into a folder, in the form that all its versions read."""
        modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling")]
        if self.normalize:
            modules.append(("2", "2_Normalize", "Normalize"))
        pooling: dict[str, Any] = {"word_embedding_dimension": hidden_size}
        in_order = [mode for mode in OLD_SWITCHES.values() if mode in self.pooling]
        if in_order == list(self.pooling):
            pooling |= {switch: mode in self.pooling for switch, mode in OLD_SWITCHES.items()}
        else:  # switches have one order; new versions alone know another
            pooling = {"embedding_dimension": hidden_size, "pooling_mode": list(self.pooling)}
        limits = {"max_seq_length": self.max_seq_length, "do_lower_case": self.lower_case}
        settings = dict(self.settings)
        if self.prompt and settings.get("default_prompt_name") is None:
            settings |= {"prompts": {"default": self.prompt}, "default_prompt_name": "default"}
        if self.truncate_dim is not None:
            settings["truncate_dim"] = self.truncate_dim
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


def _modes(config: dict[str, Any], repository: Repository) -> tuple[str, ...]:
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for switch, mode in OLD_SWITCHES.items() if config.get(switch)] or ["mean"]
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    for mode in modes:
        if mode not in POOLING:
            raise ValueError(f"the pooling mode of {repository} ({mode!r}) must be one of {', '.join(POOLING)}")
    return modes
