"""The MACs of a forward pass by layer, which all conventions enter here."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, Callable

import torch
from torch import nn

from setk.models import Model

Inputs = Callable[[nn.Module], tuple]  # a model on the meta device -> what to call it with
Rule = Callable[[nn.Module, tuple, Any], int]  # a module, its inputs, its output -> MACs


@dataclass(frozen=True)
class Layer:
    """A module's own share of the cost; its children have their own rows."""

    layer: str  # path inside the model, "." is the model itself
    type: str
    output: str  # shape of its (first) output, over all frames of the count
    params: int  # learnable
    macs_per_second: int | float


class Ledger:
    """MACs by the innermost running module, over a copy of `model` on the meta device.

    `rule`, if given, computes the MACs of every module as it returns.
    """

    def __init__(self, model: nn.Module, rule: Rule | None = None):
        self.model, self.rule = meta_copy(model).eval(), rule
        self.macs: Counter[str] = Counter()
        self._running: list[tuple[str, nn.Module]] = []
        self._outputs: dict[str, str] = {}
        for path, module in self.model.named_modules():
            module.register_forward_pre_hook(partial(self._enter, path or "."))
            module.register_forward_hook(self._leave)

    def run(self, inputs: Inputs, **options: Any) -> Ledger:
        """Call the model once, without gradients."""
        with torch.no_grad():
            self.model(*inputs(self.model), **options)
        return self

    def add(self, macs: int) -> None:
        self.macs[self.here] += macs

    @property
    def here(self) -> str:
        """Path of the innermost running module."""
        return self._running[-1][0]

    @property
    def module(self) -> nn.Module:
        """The innermost running module."""
        return self._running[-1][1]

    @property
    def total(self) -> int:
        return self.macs.total()

    def layers(self, scale: Fraction = Fraction(1)) -> list[Layer]:
        """A row for each module with its own parameters or MACs; MACs times `scale`. Shared parameters count once."""
        params: Counter[str] = Counter()
        for name, p in self.model.named_parameters():
            params[name.rpartition(".")[0] or "."] += p.numel() if p.requires_grad else 0
        modules = {path or ".": module for path, module in self.model.named_modules()}
        return [
            Layer(
                path, type(module).__name__, self._outputs.get(path, "-"), params[path], number(self.macs[path] * scale)
            )
            for path, module in modules.items()
            if params[path] or self.macs[path]
        ]

    def _enter(self, path: str, module: nn.Module, args: tuple) -> None:
        self._running.append((path, module))

    def _leave(self, module: nn.Module, args: tuple, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        self._outputs[self.here] = "x".join(map(str, first.shape))
        if self.rule:
            self.add(self.rule(module, args, output))
        self._running.pop()


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers have shapes but no storage; the weights are never duplicated."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in model.parameters()}
    memo |= {id(b): b.to("meta") for b in model.buffers()}
    return copy.deepcopy(model, memo)


def frame_inputs(frames: int) -> Inputs:
    """One signal of `frames` frames, from the initial state on."""

    def inputs(model: Model) -> tuple:
        return torch.zeros(1, frames, *model.transform.shape, device="meta"), model.init_state(1)

    return inputs


def frame_rate(model: Model) -> Fraction:
    """Frames per second, exactly."""
    return Fraction(model.sample_rate, model.transform.hop)


def number(x: Fraction) -> int | float:
    """An integer where `x` is one: half a MAC per second exists, at 62.5 frames per second."""
    return x.numerator if x.denominator == 1 else float(x)
