"""Units of a model that structured pruning may remove: the channels that a width of its config counts.

A model keeps a table of widths (`Model.units`) and makes its layers from it; that is all it declares. Which entries of which
weights a unit owns follows from two observations. A tensor that is longer in a dimension when the model is built with one unit
more holds units of that width there. And a run on traced tensors (setk.compress.trace) distinguishes its channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from setk.compress import trace
from setk.core.errors import UserError
from setk.models import Model


@dataclass(frozen=True)
class Member:
    """What the units of a lane own in a weight or buffer: unit k owns the elements entries[k] of it, flattened."""

    name: str
    entries: Tensor  # [size, n], indices
    reads: bool = False  # elements that act on the units; else they make them

    def of(self, tensor: Tensor) -> Tensor:
        """What each unit owns of the tensor, [size, n]."""
        return tensor.flatten()[self.entries]


@dataclass(frozen=True)
class Group:
    """`size` units that a width of the config counts. Units are ranked within a lane; lanes, as the paths of a
    GroupedGRU or the heads of attention, keep equally many. `exact`: a unit that nothing reads can be removed without any change of
    the output; else it shares a norm with others, whose statistics change without it."""

    name: str
    size: int
    lanes: tuple[tuple[Member, ...], ...]
    exact: bool
    multiple: int  # widths to round to


def groups(model: Model) -> list[Group]:
    """The groups of units of a model, in the order of the widths in its config; none if it has no table of widths.

    Raises UserError if a unit cannot be followed through the model.
    """
    if not model.units:
        return []
    with torch.device("meta"):
        bare = type(model)(model.config)  # type: ignore[call-arg]
    owners, mixed = trace.channels(bare)
    grown = {name: _grown(bare, name) for name in model.units}
    found = _Channels(owners, set().union(*grown.values()))
    return [_group(model, name, found, grown, set(mixed.tolist())) for name in model.units]


def take(
    weights: Mapping[str, Tensor],
    groups: Iterable[Group],
    kept: Iterable[Sequence[Tensor]],
    shapes: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The weights of the model in which each group has, in each of its lanes, the units `kept`, in that order; `shapes` are
    the tensors of that model."""
    order = {name: torch.arange(w.numel()) for name, w in weights.items()}
    removed = {name: torch.zeros(w.numel(), dtype=torch.bool) for name, w in weights.items()}
    for group, lanes in zip(groups, kept, strict=True):
        for members, units in zip(group.lanes, lanes, strict=True):
            for m in members:
                order[m.name][m.entries[: len(units)]] = order[m.name][m.entries[units]]
                removed[m.name][m.entries[len(units) :]] = True
    return {name: w.flatten()[order[name][~removed[name]]].view(shapes[name].shape) for name, w in weights.items()}


def _grown(model: Model, name: str) -> set[tuple[str, int]]:
    """The dimensions (tensor, dimension) that are longer with one unit more of a width."""
    with torch.device("meta"):
        wider = type(model)(
            replace(model.config, widths=tuple(n + (other == name) for other, n in model.units.items()))
        )  # type: ignore[call-arg]
    after = wider.state_dict()
    return {
        (path, d)
        for path, tensor in model.state_dict().items()
        for d in range(tensor.dim())
        if tensor.shape[d] != after[path].shape[d]
    }


class _Channels:
    """The channels of a model by the dimensions that they divide."""

    def __init__(self, owners: Mapping[str, tuple[np.ndarray, np.ndarray]], dims: set[tuple[str, int]]):
        self.elements: dict[int, dict[tuple[str, bool], np.ndarray]] = {}  # channel -> (tensor, reads) -> elements
        self.first: dict[int, int] = {}
        divided: dict[int, set[tuple[str, int]]] = {}
        for place, name in enumerate(owners):
            changing = [d for path, d in dims if path == name]
            for reads, channel in enumerate(owners[name]):
                parts = {d: _dividing(channel, d) for d in changing}
                for d, names in parts.items():
                    for one in names:
                        divided.setdefault(one, set()).add((name, d))
                for one, elements in _where(channel, set().union(*parts.values())):
                    self.elements.setdefault(one, {})[name, bool(reads)] = elements
                    self.first.setdefault(one, (place, int(elements[0])))
        self.by_dims: dict[frozenset[tuple[str, int]], list[int]] = {}
        for one in sorted(divided, key=self.first.__getitem__):
            self.by_dims.setdefault(frozenset(divided[one]), []).append(one)

    def of(self, name: str, grown: Mapping[str, set[tuple[str, int]]]) -> list[list[int]]:
        """The channels of a width, by kind. Those of one kind divide the same dimensions, and all kinds together those that grow
        with the width; queries with their keys, and values, are kinds of the width of an attention head."""
        kinds = {
            dims: found
            for dims, found in self.by_dims.items()
            if dims <= grown[name] and not any(dims == other for other in grown.values() if other != grown[name])
        }
        if set().union(*kinds) != grown[name] or list(grown.values()).count(grown[name]) > 1:
            missing = ", ".join(f"{path} ({d})" for path, d in sorted(grown[name].difference(*kinds)))
            raise UserError(
                f"pruning: the units of '{name}' cannot be followed through {missing or 'the model'}; "
                "see setk/compress/trace.py for the operations that are known"
            )
        return list(kinds.values())


def _dividing(channel: np.ndarray, dim: int) -> set[int]:
    """The channels that own some slices of a tensor along a dimension, and not all of them."""
    slices = np.moveaxis(channel, dim, 0).reshape(channel.shape[dim], -1)
    if (slices == slices[:1]).all():
        return set()
    length = len(slices)
    pairs = np.unique(slices.astype(np.int64) * length + np.arange(length)[:, None])
    names, counts = np.unique(pairs // length, return_counts=True)
    return set(names[(counts < length) & (names > 0)].tolist())


def _where(channel: np.ndarray, names: set[int]) -> Iterable[tuple[int, np.ndarray]]:
    """The elements of a tensor, flattened, that each of the channels `names` owns."""
    if not names:
        return
    flat = channel.ravel()
    order = np.argsort(flat, kind="stable")
    found, starts = np.unique(flat[order], return_index=True)
    for one, elements in zip(found.tolist(), np.split(order, starts[1:])):
        if one in names:
            yield one, elements


def _group(
    model: Model, name: str, found: _Channels, grown: Mapping[str, set[tuple[str, int]]], mixed: set[int]
) -> Group:
    size = model.units[name]
    if size == 1:  # nothing can be removed
        return Group(name, size, ((),), True, model.width_multiple)
    kinds = found.of(name, grown)
    if any(len(kind) % size or len(kind) != len(kinds[0]) for kind in kinds):
        raise UserError(
            f"pruning: the {size} units of '{name}' are found as {' + '.join(str(len(kind)) for kind in kinds)} channels; "
            "see setk/compress/trace.py for the operations that are known"
        )
    lanes = tuple(
        tuple(_members(found, [kind[at : at + size] for kind in kinds])) for at in range(0, len(kinds[0]), size)
    )
    exact = not any(channel in mixed for kind in kinds for channel in kind)
    return Group(name, size, lanes, exact, model.width_multiple)


def _members(found: _Channels, kinds: list[list[int]]) -> Iterable[Member]:
    """What the units of a lane own; unit k is the k-th channel of each kind."""
    for key in dict.fromkeys(key for kind in kinds for key in found.elements[kind[0]]):
        parts = [[found.elements[one][key] for one in kind] for kind in kinds if key in found.elements[kind[0]]]
        yield Member(
            key[0], torch.from_numpy(np.sort(np.concatenate([np.stack(part) for part in parts], 1), 1)), key[1]
        )
