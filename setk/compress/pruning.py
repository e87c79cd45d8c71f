"""Pruning: set the smallest weights of a model to zero (magnitude), or remove its least important units (structured).

Zeros make a file that compresses well, and no product cheaper: the kernels here are dense. Structured pruning rewrites the
model as a smaller one of its class, whose config has the new widths (setk.compress.units). Both rank with `survivors`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import cache
from typing import Any, Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from setk import models
from setk.compress.units import Group, Member, take
from setk.core import config
from setk.core.errors import UserError
from setk.models import Model
from setk.nn.matrices import matrices


def survivors(scores: Sequence[Tensor], amount: float, floor: float) -> list[Tensor]:
    """Which entries stay, as bools: the part `amount` of all entries, those with the lowest scores, goes, and at least the part
    `floor` of each tensor stays. Raises UserError where both are impossible."""
    if not (0 <= amount < 1 and 0 <= floor <= 1):
        raise UserError(f"amount {amount:g} and floor {floor:g} must be parts: 0 to below 1, and 0 to 1")
    flat = [s.flatten().clone() for s in scores]
    for s in flat:
        s[s.topk(math.ceil(floor * len(s))).indices] = math.inf
    flat = torch.cat(flat)
    removed = round(amount * len(flat))
    if removed > int(torch.isfinite(flat).sum()):
        raise UserError(f"amount {amount:g} is too much with floor {floor:g} of each layer; lower one of them")
    stays = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
    stays[flat.argsort(stable=True)[:removed]] = False
    return [part.view_as(s) for part, s in zip(stays.split([s.numel() for s in scores]), scores)]


def prunable_weights(model: nn.Module, layers: str = "all") -> dict[str, nn.Parameter]:
    """The weights of convolutional, linear and recurrent layers by their names, or of convolutions alone (`conv`); no
    biases, no norms."""
    return {
        f"{path}.{matrix.name}": matrix.parameter
        for path, module in model.named_modules()
        for matrix in matrices(module)
        if layers == "all" or isinstance(module, _ConvNd)
    }


@torch.no_grad()
def masks(weights: Mapping[str, Tensor], amount: float, floor: float) -> dict[str, Tensor]:
    """Which weights stay, as bools: the part `amount` of all, the smallest in magnitude, goes, and at least the part `floor` of
    each layer stays."""
    return dict(zip(weights, survivors([w.abs() for w in weights.values()], amount, floor)))


@torch.no_grad()
def prune_magnitude(model: Model, amount: float, floor: float) -> None:
    """Set the smallest weights of the model to zero, in place."""
    weights = prunable_weights(model)
    for name, mask in masks(weights, amount, floor).items():
        weights[name].mul_(mask)


@torch.no_grad()
def norm_importance(model: Model, groups: Sequence[Group], power: int) -> list[Tensor]:
    """Scores [lanes, size] of each group: the norm of what makes a unit times that of what reads it, over the group's mean."""
    parameters = dict(model.named_parameters())

    def norm(members: list[Member], size: int) -> Tensor:
        parts = [m.of(parameters[m.name]) for m in members if m.name in parameters]
        return torch.linalg.vector_norm(torch.cat(parts, 1), power, dim=1) if parts else torch.zeros(size)

    scores = []
    for group in groups:
        lanes = [
            norm([m for m in lane if not m.reads], group.size) * norm([m for m in lane if m.reads], group.size)
            for lane in group.lanes
        ]
        scores.append(torch.stack(lanes))
    return [s / s.mean().clamp_min(1e-30) for s in scores]


def taylor_importance(model: Model, groups: Sequence[Group], pairs: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Scores [lanes, size] of each group: how much the loss would change to first order without a unit, as a root mean square
    over pairs of noisy and clean [n] (Molchanov et al. 2019). The loss is the logarithm of the error's energy, so that loud
    pairs count as much as others. The scores of all groups have the same unit and need no norm."""
    model.eval()
    parameters = dict(model.named_parameters())
    sums = [torch.zeros(len(g.lanes), g.size) for g in groups]
    for noisy, clean in pairs:
        model.zero_grad()
        (model.enhance(noisy[None])[0] - clean).square().sum().clamp_min(1e-12).log().backward()
        for g, total in zip(groups, sums):
            for i, lane in enumerate(g.lanes):
                # What acts on a unit: its weights times their gradient sum to the unit's output times its gradient.
                change = sum(m.of((w := parameters[m.name]).detach() * w.grad).sum(1) for m in lane if m.reads)
                total[i] += torch.as_tensor(change).square()
    if not any(total.any() for total in sums):
        raise UserError("taylor: the signals of --list and --ref give no gradient: there are none, or they are silent")
    return [s.sqrt() for s in sums]


def choose(
    groups: Sequence[Group], scores: Sequence[Tensor], amount: float, floor: float, multiple: int | None
) -> list[list[Tensor]]:
    """The units of each lane that stay, in their order, when the part `amount` of all units goes. Widths are rounded to a
    multiple, by default the one that suits the group's kernels."""
    kept = []
    for group, score, stays in zip(groups, scores, survivors(scores, amount, floor)):
        size, step = group.size, multiple or group.multiple
        count, least = int(stays.sum()) / len(group.lanes), math.ceil(floor * size)
        width = size if count == size else min(size, step * max(1, round(count / step), math.ceil(least / step)))
        kept.append([lane.topk(width).indices.sort().values for lane in score])
    return kept


def resized(model: Model, widths: Sequence[int]) -> Model:
    """A new model of the same class and config except for its widths, untrained."""
    return models.build(model.name, {**config.plain(model.config), "widths": list(widths)})


def without(model: Model, groups: Sequence[Group], kept: Sequence[Sequence[Tensor]]) -> Model:
    """The model with the units `kept` alone, in that order, in evaluation mode."""
    smaller = resized(model, _widths(kept)).to(next(model.parameters()).dtype)
    smaller.load_state_dict(take(model.state_dict(), groups, kept, smaller.state_dict()))
    return smaller.eval()


def prune_structured(
    model: Model,
    groups: Sequence[Group],
    scores: Sequence[Tensor],
    floor: float,
    multiple: int | None,
    *,
    amount: float | None = None,
    cost: Callable[[Model], float] | None = None,
    target: float = 0.0,
) -> tuple[Model, dict[str, Any]]:
    """The model without its least important units, and what was done: either the part `amount` of them goes, or as few as bring
    `cost` to `target` at most. Raises UserError where the floor does not allow it."""

    def chosen(part: float) -> list[list[Tensor]]:
        return choose(groups, scores, part, floor, multiple)

    if amount is None:
        units = sum(s.numel() for s in scores)
        most = units - sum(len(s) * math.ceil(floor * s.shape[1]) for s in scores)

        @cache
        def cost_of(widths: tuple[int, ...]) -> float:
            return cost(resized(model, widths))

        # The least number of units to remove that meets the target; if none does, all that may go.
        removed = bisect_left(range(most), True, key=lambda n: cost_of(_widths(chosen(n / units))) <= target)
        amount = removed / units
        if cost_of(_widths(chosen(amount))) > target:
            raise UserError(
                f"target {target:g} cannot be met with floor {floor:g} of each group; lower --floor or "
                "--multiple, or raise the target"
            )
    kept = chosen(amount)
    widths = {g.name: [g.size, width] for g, width in zip(groups, _widths(kept))}
    return without(model, groups, kept), {"amount": amount, "widths": widths}


def _widths(kept: Sequence[Sequence[Tensor]]) -> tuple[int, ...]:
    return tuple(len(lanes[0]) for lanes in kept)
