"""`from_pretrained` and `save_pretrained`, for the configuration, the tokenizer and the models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import Self

from minibert.errors import MinibertError
from minibert.pretrained.arguments import LOADING, in_our_words
from minibert.pretrained.files import folder_written_whole, write_text
from minibert.pretrained.hub import Repository


class Pretrained:
    """An object that can be loaded from a checkpoint and saved as one."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        **settings: Any,
    ) -> Self:
        """Load it from a checkpoint.

        Args:
            name_or_folder: a repository of the Hugging Face Hub (`google-bert/bert-base-uncased`) or a local folder.
            revision: branch, tag or commit; the default branch when None.
            cache_dir: where downloads are kept; `HF_HOME` decides when None.
            token: for private and gated repositories; `HF_TOKEN` or the stored login when None.
            local_files_only: never use the network.
            settings: arguments of the class, which override the files; or transformers' names of the arguments above
                (all are in `pretrained.arguments.LOADING`).

        Raises:
            FileNotFoundError: no such folder, repository, revision or file.
            MinibertError: a file that is broken, or not that of a BERT.
        """
        theirs = {name: settings.pop(name) for name in LOADING.keys() & settings.keys()}
        dtype, cache_dir, token = in_our_words(
            "from_pretrained", LOADING, theirs, dtype=settings.pop("dtype", None), cache_dir=cache_dir, token=token
        ).values()
        if dtype is not None:
            settings["dtype"] = dtype
        repository = Repository.open(
            name_or_folder, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        return repository.read_whole(lambda: cls.from_repository(repository, **settings))

    @classmethod
    def from_repository(cls, repository: Repository, **settings: Any) -> Self:
        """Load it from an opened checkpoint."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path) -> None:
        """Write its files into `folder`, under transformers' names; the folder is made if need be.

        If it is interrupted, the folder has all the old files or all the new ones, never a mixture. Other files in the
        folder are kept.
        """
        with folder_written_whole(Path(folder)) as new:
            self._save(new)

    def _save(self, folder: Path) -> None:
        """Write the files into a folder of `folder_written_whole`."""
        raise NotImplementedError


class PretrainedConfig(Pretrained):
    """The file half of `BertConfig`, kept apart so that config.py does no I/O."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration in a parsed `config.json`."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` should hold."""
        raise NotImplementedError

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        raise NotImplementedError

    @classmethod
    def from_repository(cls, repository: Repository, **settings: Any) -> Self:
        """The configuration of an opened checkpoint, with some fields changed."""
        values = repository.object("config.json")
        if values is None:
            raise FileNotFoundError(
                f"{repository} must hold config.json; it does not, so it is not a checkpoint that can be loaded"
                f"{repository.instead()}"
            )
        try:
            config = cls.from_dict(values)
        except (ValueError, TypeError) as error:
            raise MinibertError(f"config.json of {repository}: {error}") from None
        return config.replace(**settings)

    def _save(self, folder: Path) -> None:
        write_text(folder / "config.json", json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n")
