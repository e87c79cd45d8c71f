"""Pruning while a model learns: its forward uses the weights that masks keep, its optimizer all of them.

The gradient goes straight through to the masked weights, so that one may return when the masks are chosen again (dynamic
pruning). What is validated and saved is the masked model.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator, Mapping

import torch
from torch import Tensor

from setk.compress.pruning import masks, prunable_weights
from setk.core.errors import UserError
from setk.models import Model
from setk.training.settings import Pruning


class Masks:
    """Which weights of a model are used (`kept`, by name), by `settings`, in a training of `steps` steps."""

    def __init__(self, model: Model, settings: Pruning, steps: int):
        self.weights, self.settings = prunable_weights(model, settings.layers), settings
        if not self.weights:
            raise UserError(f"pruning: layers: {model.name} has none of kind '{settings.layers}'; use all")
        if not settings.keep:
            self._check_amount()
        self.last = -1 if settings.keep else min(round(settings.end * steps), steps - 1)
        self.first = min(round(settings.start * steps), self.last)
        self.kept: dict[str, Tensor] = {}

    def _check_amount(self) -> None:
        """Raise UserError now, not at the end of the ramp: what is left of each layer is a whole number of weights, at least `floor`."""
        try:
            masks(self.weights, self.settings.amount, self.settings.floor)
        except UserError as e:
            raise UserError(f"pruning: {e}") from None

    def refresh(self, step: int) -> None:
        """Choose again before `step`, if it is due: every `every` steps of the ramp, whose part that is zero rises with
        1 - (1 - t)^3 (Zhu & Gupta 2018), and at its end. With `keep`, the zeros of the beginning stay."""
        s = self.settings
        if s.keep:
            self.kept = self.kept or {name: w.detach() != 0 for name, w in self.weights.items()}
        elif self.first <= step <= self.last and ((step - self.first) % s.every == 0 or step == self.last):
            left = (self.last - step) / max(1, self.last - self.first)
            self.kept = masks(self.weights, s.amount * (1 - left**3), s.floor)

    @contextmanager
    def on(self, model: Model) -> Iterator[None]:
        """In this block the masked weights of the model, or of one of its class, are zero."""
        parameters = dict(model.named_parameters())
        dense = {name: parameters[name].detach().clone() for name in self.kept}
        with torch.no_grad():
            for name, mask in self.kept.items():
                parameters[name].mul_(mask)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, before in dense.items():
                    parameters[name].copy_(before)

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        self.kept = {name: mask.to(self.weights[name].device) for name, mask in kept.items()}
