"""Units of a model that can be taken out, as structured pruning does: which entries of which weights each one owns.

A model names its groups of units with their sizes in one table, from which its constructor makes the layers (`sized`)
and its `prunable` the groups; a config's `widths` gives them other sizes, in the table's order. A model with units taken
out is therefore an ordinary one of its class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from setk.nn.gru import GroupedGRU


@dataclass(frozen=True)
class Member:
    """Where the units of a lane lie in one parameter or buffer: unit k owns entries offset + k * each and on, `each` of
    them, along dimension `dim`."""

    name: str
    dim: int
    offset: int = 0
    each: int = 1
    row: int | None = None  # in this entry of dimension 0 only, as of one GRU of a GroupedGRU
    reads: bool = False     # a weight by which something acts on the units; else it makes them

    def of(self, tensor: Tensor, size: int) -> Tensor:
        """What each of `size` units owns of the tensor: a view [size, ...]."""
        if self.row is not None:
            tensor, dim = tensor[self.row], self.dim - 1
        else:
            dim = self.dim
        return tensor.narrow(dim, self.offset, size * self.each).unflatten(dim, (size, self.each)).movedim(dim, 0)


@dataclass(frozen=True)
class Group:
    """`size` units that a width of the config stands for. Units are ranked within a lane; lanes, as the paths of a
    GroupedGRU, keep equally many. `exact`: a unit that nothing reads can go without any change of the output; else it
    shares a norm with others, whose statistics change when it goes."""

    name: str
    size: int
    lanes: tuple[tuple[Member, ...], ...]
    exact: bool = True
    multiple: int = 8  # of units, that the kernels behind it like


def sized(widths: Sequence[int], paper: Mapping[str, int]) -> dict[str, int]:
    """The table of group -> units: the paper's, or `widths` in its order. Raises ValueError on a wrong number."""
    if not widths:
        return dict(paper)
    if len(widths) != len(paper) or min(widths) < 1:
        raise ValueError(f"widths {tuple(widths)}: {len(paper)} numbers above 0 are wanted, for {', '.join(paper)}")
    return dict(zip(paper, widths))


def made(model: nn.Module, *paths: str, offset: int = 0, each: int = 1) -> tuple[Member, ...]:
    """What makes the units that are output channels, from `offset` on, of convolutions, linears and norms, or of all
    those in a Sequential."""
    members = []
    for path in paths:
        for inner, module in model.get_submodule(path).named_modules(prefix=path):
            dim = 1 if isinstance(module, _ConvTransposeNd) else 0
            for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                shared = tensor.dim() == 0 or isinstance(module, nn.PReLU) and tensor.numel() == 1
                if not shared:
                    members.append(Member(f"{inner}.{name}", dim if tensor.dim() > 1 else 0, offset, each))
    return tuple(members)


def read(model: nn.Module, *paths: str, offset: int = 0, each: int = 1) -> tuple[Member, ...]:
    """The weights of layers whose input channels, from `offset` on, are units."""
    members = []
    for path in paths:
        module = model.get_submodule(path)
        if isinstance(module, nn.RNNBase):
            members.append(Member(f"{path}.weight_ih_l0", 1, offset, each, reads=True))
        elif isinstance(module, GroupedGRU):
            members.append(Member(f"{path}.weight_ih", 2, offset, each, reads=True))
        else:
            members.append(Member(f"{path}.weight", 0 if isinstance(module, _ConvTransposeNd) else 1, offset, each, reads=True))
    return tuple(members)


def hidden(model: nn.Module, path: str) -> list[tuple[Member, ...]]:
    """The hidden units of a one-layer nn.GRU or nn.LSTM, a lane, or of a GroupedGRU, a lane for each of its GRUs."""
    module = model.get_submodule(path)
    if isinstance(module, GroupedGRU):
        return [_recurrent(path, "", module.hidden_size, 3, row) for row in range(module.groups)]
    return [_recurrent(path, "_l0", module.hidden_size, 4 if isinstance(module, nn.LSTM) else 3, None)]


def _recurrent(path: str, suffix: str, size: int, gates: int, row: int | None) -> tuple[Member, ...]:
    first = 0 if row is None else 1
    gate = [Member(f"{path}.{name}{suffix}", first, g * size, row=row)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") for g in range(gates)]
    return (*gate, Member(f"{path}.weight_hh{suffix}", first + 1, row=row, reads=True))


def take(weights: Mapping[str, Tensor], groups: Iterable[Group], kept: Iterable[Sequence[Tensor]]) -> dict[str, Tensor]:
    """The weights of the model in which each group has, in each of its lanes, the units `kept`, in that order."""
    picks: dict[tuple[str, int], dict[int | None, list[tuple[int, int, Tensor]]]] = {}
    for group, lanes in zip(groups, kept, strict=True):
        for members, units in zip(group.lanes, lanes, strict=True):
            for m in members:
                entries = m.offset + (units[:, None] * m.each + torch.arange(m.each)).flatten()
                picks.setdefault((m.name, m.dim), {}).setdefault(m.row, []).append((m.offset, group.size * m.each, entries))
    taken = dict(weights)
    for (name, dim), rows in picks.items():
        w = taken[name]
        if None in rows:
            taken[name] = w.index_select(dim, _entries(w.shape[dim], rows[None]))
        else:
            taken[name] = torch.stack([w[row].index_select(dim - 1, _entries(w.shape[dim], rows[row])) for row in range(len(w))])
    return taken


def _entries(length: int, segments: list[tuple[int, int, Tensor]]) -> Tensor:
    """All entries of a dimension, in which each segment (start, length) is replaced by what is left of it."""
    parts, at = [], 0
    for start, size, entries in sorted(segments, key=lambda segment: segment[0]):
        parts += [torch.arange(at, start), entries]
        at = start + size
    return torch.cat([*parts, torch.arange(at, length)])
