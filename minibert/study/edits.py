"""Edits: another model with the same parameters, in which some tensors are changed on their way.

The modules of the model are copied, their parameters are not. A copied module that has a point to edit gets a class of
its own, which computes what its class computes and calls the edits on what goes in and out. The user's model is not
changed and gets no hook, so there is nothing to undo.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy, deepcopy
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from minibert.attention import Packed, Padded, attention
from minibert.base import PretrainedModel
from minibert.errors import MinibertError
from minibert.study.points import MIXED, PROBABILITIES, SCORES, choose_edits, module_of, points_of

Edit = Callable[[Tensor], Tensor]
# What an edit is inside: it is also told which tokens are real, (B, 1, 1, S) bool, where attention knows; else None.
Step = Callable[[Tensor, "Tensor | None"], Tensor]
M = TypeVar("M", bound=nn.Module)

BY = ("zero", "mean")


def edited(model: PretrainedModel, edits: Mapping[str, Edit]) -> PretrainedModel:
    """A model with the same parameters, in which the tensors at some points are what functions make of them.

    Args:
        edits: for each point, or pattern of points, a function of the tensor there; it returns one of the same shape,
            dtype and device. Edits of an edited model are called after those that it has.

    Raises:
        MinibertError: an unknown point. When the model runs: a function that returns something else.
    """
    if not isinstance(edits, Mapping):
        raise MinibertError(f"edits ({type(edits).__name__}) must be a dict from points to functions")
    for point, function in edits.items():
        if not callable(function):
            raise MinibertError(f"the edit of {point} ({function!r:.60}) must be a function of the tensor there")
    chosen = choose_edits(points_of(model), edits)
    return with_steps(model, {point: _checked(point, edits[pattern]) for point, pattern in chosen.items()})


def ablated(model: PretrainedModel, heads: Mapping[int, Sequence[int]], by: str = "zero") -> PretrainedModel:
    """A model with the same parameters, in which some heads of attention give nothing of their own.

    Args:
        heads: for each layer the numbers of its heads, from 0 on.
        by: what a head gives instead: "zero", or the "mean" of what it gives to the tokens of the same text.

    Raises:
        MinibertError: a layer or a head that is not there.
    """
    if by not in BY:
        raise MinibertError(f"by ({by!r}) must be 'zero' or 'mean'")
    if not isinstance(heads, Mapping):
        raise MinibertError(f"heads ({heads!r:.60}) must be a dict from layers to lists of heads, {{3: [1, 5]}} say")
    config = model.config
    steps: dict[str, Step] = {}
    for layer, numbers in heads.items():
        chosen = [numbers] if isinstance(numbers, int) else list(numbers)
        _check_number("layer", layer, config.num_hidden_layers)
        for head in chosen:
            _check_number("head", head, config.num_attention_heads)
        if not chosen:
            continue
        attention = f"encoder.layers.{layer}.attention"
        if by == "zero":
            keep = torch.ones(config.num_attention_heads, 1, dtype=torch.bool)
            keep[chosen] = False
            steps[f"{attention}.output.input"] = _without(keep)
        else:
            steps[f"{attention}.{MIXED}"] = _averaged(chosen)
    return with_steps(model, steps)


def patched(
    model: PretrainedModel, values: Mapping[str, Tensor], points: str | Sequence[str], positions: Sequence[int] | None
) -> PretrainedModel:
    """A model with the same parameters, in which tensors are replaced by those of another run.

    Args:
        values: a trace of the other run.
        points: which of its points.
        positions: the tokens at which they are replaced; for scores and probabilities, the queries. None: all.

    Raises:
        MinibertError: a point that is not in the trace; a position beyond its tokens. When the model runs: a text with
            another number of tokens.
    """
    names = [points] if isinstance(points, str) else list(points)
    steps = {}
    for name in names:
        if name not in values:
            raise MinibertError(f"point ({name!r}) must be one that was traced: {', '.join(values) or 'there is none'}")
        value = values[name]
        chosen = None
        if positions is not None:
            if value.ndim < 3:
                raise MinibertError(f"positions ({positions}) must be None for {name}, which is not given by token")
            chosen = [_position(position, value.shape[-2]) for position in positions]
        steps[name] = _replaced(name, value, chosen)
    choose_edits(points_of(model), steps)
    return with_steps(model, steps)


def with_steps(model: PretrainedModel, steps: Mapping[str, Step], whole: bool = True) -> PretrainedModel:
    """A copy of the tree of modules, sharing the parameters, in which each point goes through its step.

    Args:
        steps: by the name of the point.
        whole: copy every module, so that nothing done to one tree, a hook or a mode, is seen in the other. Otherwise
            only those that the edited ones are in, for a copy that is used once.
    """
    inside = {id(model), id(model._encoder)}
    if not whole:
        for point in steps:
            module: nn.Module = owner(model, point)
            for name in module_of(point)[0].split("."):
                module = module.get_submodule(name)
                inside.add(id(module))
    tree = copied(model, None if whole else inside)
    for point, step in steps.items():
        name, what = module_of(point)
        part: Any = owner(tree, point).get_submodule(name)
        if "forward" in vars(part):
            raise MinibertError(f"the module of {point} must run its class's forward; something has put its own there")
        if not isinstance(part, Edited):
            kind: Any = type(part)
            part.__class__ = _edited_class(kind)
            part._steps = {}
        part._steps[what] = (*part._steps.get(what, ()), step)
    return tree


def copied(module: M, inside: Collection[int] | None, seen: dict[int, nn.Module] | None = None) -> M:
    """A copy of a tree of modules that shares its parameters; of `inside`, if given, only modules with these ids."""
    seen = {} if seen is None else seen
    if id(module) not in seen:
        twin = copy(module)
        for name, value in vars(twin).items():
            if isinstance(value, dict):  # hooks, parameters, parts: the tables are the copy's own
                vars(twin)[name] = copy(value)
        seen[id(module)] = twin
        for name, part in module._modules.items():
            if part is not None and (inside is None or id(part) in inside):
                twin._modules[name] = copied(part, inside, seen)
    return seen[id(module)]  # type: ignore[return-value]


def edited_points(model: PretrainedModel) -> list[str]:
    """The names of the points that have edits, in order; none for a model that was loaded."""
    names = []
    for name in points_of(model).names:
        module, what = module_of(name)
        part = owner(model, name).get_submodule(module)
        names += [name] * (isinstance(part, Edited) and what in part._steps)
    return names


class Edited(nn.Module):
    """What the class of an edited module does before and after the module's own `forward`."""

    _steps: dict[str, tuple[Step, ...]]

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        """The module's own, with the edits."""
        steps = self._steps
        if steps.keys() & {SCORES, PROBABILITIES, MIXED}:
            others = (Opened(others[0], steps),)
        x = stepped(steps, "input", x)
        return stepped(steps, "output", super().forward(x, *others))

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self)] = twin = object.__new__(type(self))
        vars(twin).update(deepcopy(vars(self), memo))
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise MinibertError(
            f"a module that is pickled ({type(self).__name__}) must have no edits; pickle the model it was made of, "
            "and edit that again"
        )


@cache
def _edited_class(kind: Any) -> type[nn.Module]:
    return type(f"Edited{kind.__name__}", (Edited, kind), {"__module__": kind.__module__})


def stepped(steps: Mapping[str, Sequence[Step]], what: str, x: Tensor, real: Tensor | None = None) -> Tensor:
    """A tensor after the steps for `what`, one after the other."""
    for step in steps.get(what, ()):
        x = step(x, real)
    return x


class Watching(Padded):
    """A layout that computes attention in the explicit form and shows it to `watch`, layer by layer."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Mix the values within each text, and watch; all four tensors are (B, S, A, D)."""
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, S, A, D) -> (B, A, S, D)
        mixed, probabilities = attention(q, k, v, self.mask, dropout)
        self.watch(q, k, v, probabilities)
        return mixed.transpose(1, 2).contiguous()  # (B, A, S, D) -> (B, S, A, D)

    def watch(self, q: Tensor, k: Tensor, v: Tensor, probabilities: Tensor) -> None:
        """Look at a layer's queries, keys and values (B, A, S, D), and at its probabilities (B, A, S, S)."""
        raise NotImplementedError


class Opened:
    """A layout that lets steps at what is inside attention, for each group of texts of one length.

    Mixed values are taken from the layout that it stands for. Where scores or probabilities are asked for, attention is
    computed in the explicit form, as `attention.attention` does.

    Args:
        layout: which tokens belong to one text.
        steps: for "scores", "probabilities" (B, A, S, S) and "mixed" (B, A, S, D).
    """

    def __init__(self, layout: Padded | Packed, steps: Mapping[str, Sequence[Step]]) -> None:
        self.layout = layout
        self.steps = steps
        self.explicit = bool(steps.keys() & {SCORES, PROBABILITIES})

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Mix the values within each text; all four tensors are (B, S, A, D) or, packed, (T, A, D)."""
        if not self.explicit:
            mixed = self.layout.attend(q, k, v, dropout)
            return self.by_length(lambda mask, mixed: stepped(self.steps, MIXED, mixed, mask), mixed)

        def mix(mask: Tensor | None, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (B, A, S, D) x (B, A, D, S) -> (B, A, S, S)
            if mask is not None:
                scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
            scores = stepped(self.steps, SCORES, scores, mask)
            probabilities = F.dropout(scores.softmax(dim=-1), dropout)
            probabilities = stepped(self.steps, PROBABILITIES, probabilities, mask)
            if isinstance(self.layout, Padded) and self.layout.probabilities is not None:
                self.layout.probabilities.append(probabilities)
            mixed = probabilities @ v
            if isinstance(self.layout, Watching):
                self.layout.watch(q, k, v, probabilities)
            return stepped(self.steps, MIXED, mixed, mask)

        return self.by_length(mix, q, k, v)

    def by_length(self, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Call a function on texts of one length, with their mask and tensors (B, A, S, D); put the results together.

        The tensors, and the result, are (B, S, A, D) or, packed, (T, A, D).
        """
        if isinstance(self.layout, Padded):
            parts = [x.transpose(1, 2) for x in tensors]  # (B, S, A, D) -> (B, A, S, D)
            return function(self.layout.mask, *parts).transpose(1, 2).contiguous()
        self.layout.check(tensors[0])
        results = []
        for start, count, length in self.layout.groups:
            texts = slice(start, start + count * length)
            # (T, A, D) -> (B, S, A, D) -> (B, A, S, D): B texts of S tokens
            parts = [x[texts].reshape(count, length, *x.shape[1:]).transpose(1, 2) for x in tensors]
            results.append(function(None, *parts).transpose(1, 2).flatten(0, 1))
        return torch.cat(results)


def _checked(point: str, function: Edit) -> Step:
    """A step that calls a user's function, and refuses what does not fit in the place of what it was given."""

    def step(x: Tensor, mask: Tensor | None) -> Tensor:
        was = (x.shape, x.dtype, x.device)
        result = function(x)
        if not isinstance(result, Tensor):
            raise MinibertError(f"the edit of {point} ({type(result).__name__}) must return a tensor")
        if (result.shape, result.dtype, result.device) != was:
            got, wanted = (
                f"{tuple(shape)} {dtype} {device}"
                for shape, dtype, device in ((result.shape, result.dtype, result.device), was)
            )
            raise MinibertError(
                f"the edit of {point} ({got}) must return a tensor like the one it was given ({wanted})"
            )
        return result

    return step


def _without(keep: Tensor) -> Step:
    """A step that sets heads, side by side in (..., H), to zero; `keep` is (A, 1)."""

    def step(x: Tensor, mask: Tensor | None) -> Tensor:
        heads = x.view(*x.shape[:-1], len(keep), -1)  # (..., H) -> (..., A, D)
        return (heads * keep.to(x.device)).flatten(-2)

    return step


def _averaged(heads: Sequence[int]) -> Step:
    """A step that gives each token of a text the mean of what these heads gave to all of its tokens, (B, A, S, D)."""

    def step(x: Tensor, mask: Tensor | None) -> Tensor:
        real = x.new_ones(1, 1, x.shape[2], 1) if mask is None else mask.transpose(-2, -1).to(x.dtype)  # (B, 1, S, 1)
        own = x[:, heads]
        mean = (own * real).sum(2, keepdim=True) / real.sum(2, keepdim=True)
        return x.index_copy(1, torch.tensor(heads, device=x.device), mean.expand_as(own))

    return step


def _replaced(point: str, value: Tensor, positions: Sequence[int] | None) -> Step:
    """A step that puts a tensor of another run in the place of the one there, at some positions or at all."""

    def step(x: Tensor, mask: Tensor | None) -> Tensor:
        if x.ndim != value.ndim or x.shape[1:] != value.shape[1:]:
            raise MinibertError(
                f"{point} {tuple(x.shape)} must have the shape that was traced {tuple(value.shape)}; use a text of as "
                "many tokens, and in encode pass batch_tokens=1"
            )
        new = value.to(x).expand_as(x)
        if positions is None:
            return new.clone()  # an edit after this one may write into it
        at = torch.tensor(positions, device=x.device)
        return x.index_copy(-2, at, new.index_select(-2, at))

    return step


def _check_number(what: str, number: Any, count: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < count:
        raise MinibertError(f"{what} ({number!r}) must be a whole number from 0 to {count - 1}")


def _position(position: int, length: int) -> int:
    if not isinstance(position, int) or not -length <= position < length:
        raise MinibertError(f"position ({position!r}) must be a whole number from {-length} to {length - 1}")
    return position % length


def owner(model: PretrainedModel, point: str) -> nn.Module:
    """The module in which the name of a point is to be looked up: the encoder, or the model with its head."""
    return model._encoder if hasattr(model._encoder, point.split(".")[0]) else model
