"""From files to tensors, and from tensors to the parameters of a model, and back."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minibert.errors import MinibertError, warn
from minibert.pretrained.files import check_readable, file_mode
from minibert.pretrained.hub import Repository
from minibert.pretrained.names import BUFFERS, canonical, to_checkpoint, to_ours
from minibert.text import counted

logger = logging.getLogger("minibert")

FLOAT_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# How often tensors of a pickle may use the same numbers: tied tables and, in some models, shared layers do.
MOST_SHARED = 32
TOKEN_TABLE = "embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"
DECODER_BIAS = "cls.predictions.decoder.bias"
BIAS = "cls.predictions.bias"
# Torch shares an operation on more numbers than 2^15 among OpenMP's threads, and a process that has started them cannot
# be forked: the child waits for threads that it does not have. So loading works on parts that one thread does, as fast.
SERIAL = 2**14


class _SkipInit(TorchFunctionMode):
    """Make the functions of `torch.nn.init` leave their tensor as it is."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


@contextmanager
def without_storage() -> Iterator[None]:
    """Build modules whose parameters have shapes but neither memory nor a random start."""
    with torch.device("meta"), _SkipInit():
        yield


class Checkpoint:
    """The tensors of a repository, under canonical names (see `names`).

    The file is mapped into memory, so tensors are not copied (except from files that torch saved before version 1.6).

    Attributes:
        source: the name of the checkpoint, for messages.
        tensors: canonical name -> tensor.
        untied_decoder: whether the masked-LM head has its own table, different from the token table.
    """

    def __init__(self, source: str, tensors: Mapping[str, Tensor]) -> None:
        self.source = source
        self.tensors: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            key = canonical(name)
            if key in BUFFERS:
                continue
            if key in self.tensors:
                raise MinibertError(f"{source} must hold each tensor once; {name} stands there under two names")
            self.tensors[key] = tensor
        self.untied_decoder = self._settle_copies()

    def _settle_copies(self) -> bool:
        """Drop the copies that old versions saved of tied tensors; True if the decoder is not a copy."""
        tensors = self.tensors
        if DECODER_BIAS in tensors:  # what the scores are computed with, where both are there
            tensors[BIAS] = tensors.pop(DECODER_BIAS)
        if DECODER in tensors and TOKEN_TABLE not in tensors:
            tensors[TOKEN_TABLE] = tensors[DECODER]
        return DECODER in tensors and not _same(tensors[DECODER], tensors[TOKEN_TABLE])

    @classmethod
    def open(cls, repository: Repository) -> Checkpoint:
        """Read the weights of a repository: safetensors if there are, otherwise `pytorch_model.bin`.

        Raises:
            FileNotFoundError: the repository has neither.
            MinibertError: a file that is truncated, corrupt, or holds anything but tensors.
        """
        return cls(str(repository), read_tensors(repository))

    def check_size(self, layers: int) -> None:
        """Compare the layers of a configuration with those that are there, before a model is built from it.

        Raises:
            MinibertError: it has more layers than there are, so that building them would be in vain.
        """
        there = len({name.split(".")[2] for name in self.tensors if name.startswith("encoder.layer.")})
        if layers > there:
            raise MinibertError(
                f"num_hidden_layers ({layers:,}) must fit the weights of {self.source}, which have "
                f"{counted(there, 'layer')}; use the config.json that the weights were saved with"
            )

    def of_encoder(self) -> Checkpoint:
        """The tensors of the encoder alone, without those of heads and of the pooler."""
        return Checkpoint(
            self.source, {n: t for n, t in self.tensors.items() if n.startswith(("embeddings.", "encoder."))}
        )

    def drop_absent(self, model: nn.Module, parts: Iterable[str]) -> None:
        """Set the parts of the model to None of which the checkpoint has no tensor."""
        for part in parts:
            if not any(to_checkpoint(f"{part}.{name}") in self.tensors for name, _ in _parameters(model, part)):
                setattr(model, part, None)

    def drop_misshapen(self, model: nn.Module, parts: Iterable[str]) -> list[str]:
        """Leave out the tensors of each part of the model in which one has another shape; their names and shapes."""
        dropped = []
        for part in parts:
            wanted = {to_checkpoint(name): own.shape for name, own in _parameters(model, part, full=True)}
            there = [name for name in wanted if name in self.tensors]
            if any(self.tensors[name].shape != wanted[name] for name in there):
                dropped += [f"{name} {tuple(self.tensors.pop(name).shape)}" for name in there]
        return dropped

    def fill(
        self,
        model: nn.Module,
        new_heads: Iterable[str],
        dtype: torch.dtype,
        device: torch.device,
        misshapen: Sequence[str] = (),
    ) -> list[str]:
        """Give every parameter of the model its tensor.

        Args:
            model: built on the meta device.
            new_heads: parts that the checkpoint may lack as a whole. They get memory, and a warning names them.
            dtype, device: of the parameters.
            misshapen: what `drop_misshapen` left out, for the warning.

        Returns:
            The `new_heads` that the checkpoint lacks; the caller has to initialise them.

        Raises:
            MinibertError: tensors are missing, have another shape, or are not float.
        """
        self._check(model)
        missing = [name for name, _ in model.named_parameters() if to_checkpoint(name) not in self.tensors]
        new = {head: _parameters(model, head, full=True) for head in new_heads}
        new = {head: own for head, own in new.items() if all(name in missing for name, _ in own)}
        random = dict(chain.from_iterable(new.values()))
        lacking = [to_checkpoint(name) for name in missing if name not in random]
        if lacking:
            raise MinibertError(
                f"{self.source} must hold every tensor of {type(model).__name__}; it lacks {', '.join(lacking)}: "
                "load a class that fits the checkpoint, or another checkpoint"
            )
        if random:
            instead = f" of this shape (it has {', '.join(misshapen)})" if misshapen else ""
            warn(
                f"{self.source} has no {', '.join(map(to_checkpoint, random))}{instead}: new, random, to be trained "
                f"before {type(model).__name__} is of use",
            )
        state = {
            name: torch.empty_like(parameter, dtype=dtype, device=device)
            if name in random
            else converted(self.tensors[to_checkpoint(name)], dtype).to(device)
            for name, parameter in model.named_parameters()
        }
        model.load_state_dict(state, assign=True)
        self._report_unused(model)
        self._warn_of_nan({to_checkpoint(name): tensor for name, tensor in state.items() if name not in random})
        return list(new)

    def _check(self, model: nn.Module) -> None:
        """Reject tensors that cannot be parameters of the model."""
        wrong = []
        for ours, parameter in model.named_parameters():
            theirs = to_checkpoint(ours)
            tensor = self.tensors.get(theirs)
            if tensor is None:
                continue
            if tensor.shape != parameter.shape:
                wrong.append(
                    f"{theirs} has shape {tuple(tensor.shape)}, the configuration wants {tuple(parameter.shape)}"
                )
            elif tensor.dtype not in FLOAT_TYPES:
                raise MinibertError(
                    f"{theirs} of {self.source} has dtype {tensor.dtype}, but must be float; quantised weights are not "
                    "implemented: load a checkpoint in float32, bfloat16 or float16"
                )
        if wrong:
            raise MinibertError(
                f"the tensors of {self.source} must fit its configuration; {'; '.join(wrong)}: "
                "use the config.json that the weights were saved with"
            )

    def _report_unused(self, model: nn.Module) -> None:
        """Log the tensors that the model has no parameter for."""
        used = {to_checkpoint(ours) for ours, _ in model.named_parameters()}
        unused = sorted(set(self.tensors) - used - (set() if self.untied_decoder else {DECODER}))
        # the model may lack a head; it lacks a layer only if the configuration has too few
        known = [name for name in unused if to_ours(name) is not None and not name.startswith("encoder.")]
        unknown = [name for name in unused if name not in known]
        if known:
            logger.info("%s has no place for these tensors of %s: %s", type(model).__name__, self.source, known)
        if unknown:
            logger.warning("these tensors of %s are none of this BERT's, and were not loaded: %s", self.source, unknown)

    def _warn_of_nan(self, loaded: Mapping[str, Tensor]) -> None:
        broken = [name for name, tensor in loaded.items() if not is_finite(tensor)]
        if broken:
            warn(
                f"{', '.join(broken)} of {self.source} must hold finite numbers; there is NaN or infinity in it, "
                "and will be in every result: use another copy of the checkpoint",
            )

    @staticmethod
    def save(model: nn.Module, folder: Path) -> None:
        """Write `model.safetensors` under transformers' names into a folder of `folder_written_whole`."""
        tensors = {}
        for ours, parameter in model.named_parameters():
            prefix = "bert." if ours.startswith("bert.") else ""
            tensors[prefix + to_checkpoint(ours)] = parameter.detach().contiguous()
        if DECODER in tensors:
            tensors[DECODER_BIAS] = tensors[BIAS].clone()  # transformers reads an untied decoder's bias here
        save_tensors(tensors, folder / WEIGHTS[0])


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file, which other users may read as the umask says; the library makes it private."""
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(file_mode())


def read_tensors(repository: Repository) -> dict[str, Tensor]:
    """The tensors of a repository, or of a folder in it, under the names they have there.

    Raises:
        FileNotFoundError, MinibertError: as for `Checkpoint.open`.
    """
    for name in WEIGHTS:
        path = repository.file(name)
        if path is not None:
            return _read(path)
        index = repository.object(f"{name}.index.json")
        if index is not None:
            return _read_shards(repository, name, index)
    if repository.unknown.intersection(WEIGHTS):
        raise FileNotFoundError(
            f"the weights of {repository} must be in the cache to be loaded offline; they are not: load them once "
            "with a network"
        )
    raise FileNotFoundError(
        f"{repository} must hold weights as {' or '.join(WEIGHTS)} (or their sharded forms); it has neither: "
        "convert TensorFlow or Flax weights with transformers first"
    )


def _parameters(model: nn.Module, part: str, full: bool = False) -> list[tuple[str, nn.Parameter]]:
    return list(model.get_submodule(part).named_parameters(prefix=part if full else ""))


def converted(tensor: Tensor, dtype: torch.dtype, copy: bool = False) -> Tensor:
    """A tensor in another dtype; without `copy` itself, if it has that one. Starts no threads."""
    if tensor.dtype == dtype and not copy:
        return tensor
    new = torch.empty(tensor.shape, dtype=dtype, device=tensor.device)
    for part, source in zip(_parts(new), _parts(tensor), strict=True):
        part.copy_(source)
    return new


def is_finite(tensor: Tensor) -> bool:
    """Whether there is neither NaN nor infinity in a tensor. Starts no threads."""
    # sums need no temporary; only if one is suspect (it can overflow) is every number looked at
    if tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64):
        with np.errstate(over="ignore", invalid="ignore"):
            finite = bool(np.isfinite(tensor.detach().numpy().sum()))
    else:
        finite = bool(torch.stack([part.sum() for part in _parts(tensor.detach())]).isfinite().all())
    return finite or all(bool(part.isfinite().all()) for part in _parts(tensor.detach()))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() or (a.shape == b.shape and all(map(torch.equal, _parts(a), _parts(b))))


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    return torch.split(tensor.flatten(), SERIAL)


def _read_shards(repository: Repository, name: str, index: Mapping[str, Any]) -> dict[str, Tensor]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise MinibertError(
            f"{name}.index.json of {repository} must hold a weight_map of file names; it does not: correct the file"
        )
    tensors: dict[str, Tensor] = {}
    for shard in dict.fromkeys(weight_map.values()):
        if Path(shard).suffix != Path(name).suffix:  # a pickle is not read where safetensors are expected
            raise MinibertError(
                f"{name}.index.json of {repository} must name {Path(name).suffix} files alone, not {shard!r:.60}; "
                "correct the file"
            )
        path = repository.file(shard)
        if path is None:
            raise FileNotFoundError(f"{repository} must hold {shard}, which its index names; it does not")
        tensors.update(_read(path))
    return tensors


def _read(path: Path) -> dict[str, Tensor]:
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    check_readable(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:  # torch's among them
        raise MinibertError(
            f"{path} must be a whole safetensors file; it is not ({error}): delete it and fetch it again"
        ) from error


def _check_unpacked(path: Path) -> None:
    """Reject an archive whose files become larger when they are unpacked; torch never compresses them."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            packed = [info.filename for info in archive.infolist() if info.file_size > info.compress_size]
        if packed:
            raise MinibertError(
                f"{path} must hold its files without compression, as torch saves them, and {packed[0]!r:.60} is "
                "compressed; use a safetensors file from a source you trust"
            )


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Tensors alone: `weights_only` refuses a pickle that would run code."""
    check_readable(path)
    try:
        _check_unpacked(path)
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except MinibertError:
        raise
    except Exception as error:  # what a forged pickle makes torch raise is of any kind
        raise MinibertError(
            f"{path} must be a whole file of tensors saved by torch; it is not, and nothing in it was run "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}): "
            "use a safetensors file from a source you trust"
        ) from error
    named = isinstance(values, Mapping) and all(isinstance(name, str) for name in values)
    if not named or not all(isinstance(value, Tensor) for value in values.values()):
        raise MinibertError(
            f"{path} must hold tensors by name; it holds {type(values).__name__}: save model.state_dict()"
        )
    _check_numbers(path, values)
    return dict(values)


def _check_numbers(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Reject tensors whose numbers are not in the file: a pickle can repeat one number as often as it likes."""
    total = 0
    for name, tensor in tensors.items():
        usual = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_nested
        if not usual or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise MinibertError(
                f"{path} must hold every number of its tensors; {name!r:.60} is sparse, has no memory or repeats its "
                "numbers: save it with contiguous(), or use a safetensors file from a source you trust"
            )
        total += tensor.nbytes
    if total > MOST_SHARED * path.stat().st_size:
        raise MinibertError(
            f"the tensors of {path} ({total:,} bytes) must be at most {MOST_SHARED} times as large as the file; too "
            "many share their numbers: use a safetensors file from a source you trust"
        )
