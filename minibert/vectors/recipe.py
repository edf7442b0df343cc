"""What a checkpoint says about making sentence vectors: the files of sentence-transformers, read and obeyed."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
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
        folder: where in the repository the transformer is.
        source: who says so, for people.
    """

    pooling: tuple[str, ...] = ("mean",)
    normalize: bool = False
    max_seq_length: int | None = None
    lower_case: bool = False
    prompt: str = ""
    folder: str = ""
    source: str = "minibert's default"

    @classmethod
    def read(cls, repository: Repository) -> Recipe:
        """The recipe in `modules.json` and what it names; the default, mean pooling, where there is none.

        Raises:
            ValueError: a module or a setting that would change the vectors, and that is not known here.
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
        kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
        if not kinds or kinds[0] != "Transformer" or kinds[1:] not in (["Pooling"], ["Pooling", "Normalize"]):
            raise ValueError(
                f"the modules of {repository} ({', '.join(kinds)}) must be Transformer, Pooling and, optionally, "
                "Normalize; another module would change the vectors: use sentence-transformers for this checkpoint"
            )
        folder = str(modules[0].get("path", ""))
        transformer = repository.inside(folder).json("sentence_bert_config.json") or {}
        pooling = repository.inside(str(modules[1]["path"])).json("config.json")
        if pooling is None:
            raise FileNotFoundError(
                f"{repository} must hold {modules[1]['path']}/config.json, which modules.json names"
            )
        settings = repository.json("config_sentence_transformers.json") or {}
        prompt_name = settings.get("default_prompt_name")
        prompt = "" if prompt_name is None else settings.get("prompts", {}).get(prompt_name, "")
        if prompt and not pooling.get("include_prompt", True):
            raise ValueError(
                f"include_prompt (False) of {repository} must be True where a default prompt ({prompt_name!r}) is set; "
                "use sentence-transformers for this checkpoint"
            )
        return cls(
            pooling=_modes(pooling, repository),
            normalize="Normalize" in kinds,
            max_seq_length=transformer.get("max_seq_length"),
            lower_case=bool(transformer.get("do_lower_case", False)),
            prompt=prompt,
            folder=folder,
            source="sentence-transformers files",
        )

    def save(self, folder: Path, hidden_size: int) -> None:
        """Write the files of sentence-transformers into a folder, in the form that all its versions read."""
        modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling")]
        if self.normalize:
            modules.append(("2", "2_Normalize", "Normalize"))
        pooling = {switch: mode in self.pooling for switch, mode in OLD_SWITCHES.items()}
        limits = {"max_seq_length": self.max_seq_length, "do_lower_case": self.lower_case}
        prompts = {"prompts": {"default": self.prompt}, "default_prompt_name": "default"} if self.prompt else {}
        contents: dict[str, Any] = {
            "modules.json": [
                {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
                for name, path, kind in modules
            ],
            "1_Pooling/config.json": {"word_embedding_dimension": hidden_size, **pooling},
            "sentence_bert_config.json": limits,
            "config_sentence_transformers.json": prompts,
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
