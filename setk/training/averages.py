"""Means of weights: over the steps of a training, and over its best checkpoints."""

from __future__ import annotations

import copy
from typing import Mapping, Sequence

import torch
from torch import Tensor

from setk.models import Model


class Smoothed:
    """The exponential moving average of a model's weights and statistics, as a model of its own: `model`.

    The decay rises to its value over the first steps, (1 + step) / (10 + step), so that a short training is not
    averaged with its beginning.
    """

    def __init__(self, model: Model, decay: float):
        self.model, self.decay = copy.deepcopy(model).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model: Model, step: int) -> None:
        """Take in the weights after `step` (from 0)."""
        part = 1 - min(self.decay, (1 + step) / (10 + step))
        for mean, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, part)
            else:
                mean.copy_(value)


def mean_weights(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of state dicts of one model; whole numbers, which are counts, of the first."""
    return {name: torch.stack([w[name].double() for w in weights]).mean(0).to(first) if first.is_floating_point() else first
            for name, first in weights[0].items()}
