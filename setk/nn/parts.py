"""Taking a mechanism out of a trained model, by weights with which it does nothing: what `Model.parts` are made of."""

from __future__ import annotations

from typing import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


@torch.no_grad()
def weight_of(layer: nn.Module) -> Tensor:
    """The weight of a layer that is stored; that of a quantized layer is before rounding."""
    return layer.parametrizations.weight.original if parametrize.is_parametrized(layer, "weight") else layer.weight


@torch.no_grad()
def constant(layers: nn.Module | Iterable[nn.Module], value: float = 0.0) -> None:
    """Have the outputs of layers, or of norms, be one constant."""
    for layer in [layers] if isinstance(layers, nn.Module) and not isinstance(layers, nn.ModuleList) else layers:
        weight_of(layer).zero_()
        if layer.bias is not None:
            layer.bias.fill_(value)


@torch.no_grad()
def central(conv: nn.Module, kept: int = 1) -> None:
    """Have a convolution see its `kept` central taps only, along its last dimension."""
    weight = weight_of(conv)
    side = (weight.shape[-1] - kept) // 2
    if side > 0:
        weight[..., :side] = 0
        weight[..., -side:] = 0
