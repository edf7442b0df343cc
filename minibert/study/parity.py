"""Compare this library with transformers on the same input, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import minibert.model as ours_module
from minibert.config import BertConfig
from minibert.errors import MinibertError
from minibert.model import fullest_class
from minibert.pretrained.checkpoint import Checkpoint
from minibert.pretrained.hub import Repository
from minibert.text import as_list
from minibert.tokenizer import BertTokenizer
from minibert.vectors.recipe import Recipe

TEXTS = (
    "He robbed the bank.",
    "They fished from the bank of the river until the sun went down behind the hills, and then they walked home.",
    "How do I reset my password?",
    "Zürich, 北京 and São Paulo: 3 cities!",
    "",
)


@dataclass(frozen=True)
class Row:
    """The comparison of one tensor.

    Attributes:
        tensor: its name.
        shape: its shape.
        difference: the largest absolute difference.
        place: the index of that difference; None if the tensors are equal.
    """

    tensor: str
    shape: tuple[int, ...]
    difference: float
    place: tuple[int, ...] | None


@dataclass(frozen=True)
class ParityReport:
    """The result of `parity`; printing it shows the table.

    Attributes:
        source: the checkpoint.
        model: the name of the model class.
        rows: one per tensor, in the order of computation.
        tolerance: the largest difference allowed.
        versions: the versions of torch and transformers.
    """

    source: str
    model: str
    rows: tuple[Row, ...]
    tolerance: float
    versions: str

    @property
    def largest(self) -> float:
        """The largest difference of all tensors."""
        return max(row.difference for row in self.rows)

    @property
    def first_over(self) -> Row | None:
        """The first tensor whose difference exceeds the tolerance or is NaN; None if there is none."""
        return next((row for row in self.rows if not row.difference <= self.tolerance), None)

    @property
    def ok(self) -> bool:
        """Whether every tensor is within the tolerance."""
        return self.first_over is None

    def __str__(self) -> str:
        lines = [f"{self.model} of {self.source}, {self.versions}", ""]
        lines.append(f"{'tensor':<28} {'shape':<20} {'largest difference':>18}  at")
        for row in self.rows:
            shape = " x ".join(map(str, row.shape))
            place = "identical" if row.place is None else str(list(row.place))
            lines.append(f"{row.tensor:<28} {shape:<20} {row.difference:>18.3g}  {place}")
        over = self.first_over
        if over is None:
            verdict = f"parity: the largest difference is {self.largest:.3g}, within {self.tolerance:g}"
        else:
            verdict = (
                f"NO parity: {over.tensor} is the first over {self.tolerance:g}: {over.difference:.3g} at "
                f"{list(over.place or ())}"
            )
        return "\n".join([*lines, "", verdict])

    __repr__ = __str__


def parity(
    name_or_folder: str | Path,
    texts: str | Sequence[str] | None = None,
    *,
    tolerance: float = 1e-6,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> ParityReport:
    """Run this library and transformers on the same texts, in float32 on the CPU, and compare ids and every tensor.

    The model class is the one that uses most tensors of the checkpoint. The texts form one padded batch; padding
    positions are not compared.

    Args:
        name_or_folder: a repository on the Hub or a local folder.
        texts: the texts to run; None runs five texts of various lengths.
        tolerance: the largest absolute difference for which `ok` is true.

    Raises:
        ImportError: transformers is not installed.
        MinibertError, FileNotFoundError: as for `load`.
    """
    try:
        import transformers
    except ImportError:
        raise ImportError("parity needs transformers, which is not installed; pip install transformers") from None

    if not tolerance >= 0:
        raise MinibertError(f"tolerance ({tolerance}) must be a number of at least 0; 1e-6 is the default")
    repository = Repository.open(
        name_or_folder, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
    )
    repository.file("config.json")  # pins the commit for all other files
    repository = repository.inside(Recipe.read(repository).folder)
    config = BertConfig.from_repository(repository)
    checkpoint = Checkpoint.open(repository)
    tokenizer = BertTokenizer.from_repository(repository)
    kind = fullest_class(checkpoint, config)
    ours = kind.from_checkpoint(checkpoint, config)
    folder = _folder(repository)
    with _quiet(transformers):
        their_tokenizer = _their_tokenizer(transformers, folder)
        arguments: dict[str, Any] = {}
        if isinstance(ours, ours_module.BertModel) and ours.pooler is None:
            arguments["add_pooling_layer"] = False
        theirs = getattr(transformers, kind.__name__).from_pretrained(folder, dtype=torch.float32, **arguments).eval()

    chosen = as_list(TEXTS if texts is None else texts)
    if not chosen:
        raise MinibertError("texts ([]) must hold at least one text; omit it to use the default texts")
    limit = config.max_position_embeddings
    inputs: dict[str, Any] = dict(
        tokenizer(chosen, padding=True, truncation=True, max_length=limit, return_tensors="pt")
    )
    mask = inputs["attention_mask"].bool()
    if kind is ours_module.BertForMultipleChoice:
        inputs = {name: value[None] for name, value in inputs.items()}
    with torch.no_grad():
        asked = {"output_attentions": False, "output_hidden_states": False}  # overrides the configuration
        inputs.update(asked)
        mine = _tensors(ours, inputs, "embeddings", "encoder.layers.{}.attention_norm", "encoder.layers.{}")
        other = _tensors(theirs, inputs, "embeddings", "encoder.layer.{}.attention", "encoder.layer.{}")
    ids = _compare_ids(tokenizer(chosen).input_ids, their_tokenizer(chosen)["input_ids"])
    rows = (ids, *(_compare(name, mine[name], other[name], mask) for name in mine))
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return ParityReport(str(repository), kind.__name__, rows, tolerance, versions)


def _folder(repository: Repository) -> Path:
    path = repository.file("config.json")
    if path is None:
        raise FileNotFoundError(f"{repository} must have a config.json; choose another")
    return path.parent


def _tensors(model: Any, inputs: dict[str, Any], embeddings: str, attention: str, layer: str) -> dict[str, Tensor]:
    """Run a model and capture the outputs of its modules with hooks."""
    encoder = getattr(model, "bert", model)
    places = {"embeddings": encoder.get_submodule(embeddings)}
    for i in range(model.config.num_hidden_layers):
        places[f"layer {i} attention"] = encoder.get_submodule(attention.format(i))
        places[f"layer {i} output"] = encoder.get_submodule(layer.format(i))
    if encoder.pooler is not None:
        places["pooler"] = encoder.pooler
    caught: dict[str, Tensor] = {}

    def catch(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            caught[name] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [module.register_forward_hook(catch(name)) for name, module in places.items()]
    try:
        outputs = model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    for name in ("logits", "prediction_logits", "seq_relationship_logits", "start_logits", "end_logits"):
        if getattr(outputs, name, None) is not None:
            caught[name.replace("_", " ")] = getattr(outputs, name)
    return caught


def _their_tokenizer(transformers: Any, folder: Path) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(folder)
    except (ValueError, OSError, KeyError):  # old configurations do not name the tokenizer class
        return transformers.BertTokenizer.from_pretrained(folder)


def _compare_ids(ours: list[list[int]], theirs: list[list[int]]) -> Row:
    """Compare the token ids of whole texts; the difference is the number of ids that differ."""
    different = [
        (i, j)
        for i, (mine, other) in enumerate(zip(ours, theirs, strict=True))
        for j, (a, b) in enumerate(zip_longest(mine, other))
        if a != b
    ]
    return Row("input ids", (sum(map(len, ours)),), float(len(different)), different[0] if different else None)


def _compare(name: str, ours: Tensor, theirs: Tensor, mask: Tensor) -> Row:
    if ours.shape != theirs.shape:
        raise RuntimeError(f"{name} has shape {tuple(ours.shape)} here and {tuple(theirs.shape)} in transformers")
    difference = (ours - theirs).abs()
    if difference.shape[:2] == mask.shape:
        difference = difference * mask.view(*mask.shape, *[1] * (difference.ndim - 2))
    largest = difference.max()  # NaN, if there is one
    if largest == 0:
        return Row(name, tuple(ours.shape), 0.0, None)
    index = (difference == largest).nonzero() if largest == largest else difference.isnan().nonzero()
    return Row(name, tuple(ours.shape), float(largest), tuple(index[0].tolist()))


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silence transformers' progress bars and load report, and restore its settings afterwards."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
