"""The weight matrices of layers: what Muon orthogonalises, quantization rounds and magnitude pruning sets to zero.

A matrix is a parameter of two or more dimensions whose name begins with "weight". Norms have none. A layer with weights of
another form has a method `matrices()` that yields its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

NORMS = (nn.LayerNorm, nn.GroupNorm, _NormBase)


@dataclass(frozen=True)
class Matrix:
    """A parameter as a stack of matrices [n, rows, columns], as its product with an input takes it. `name` is its path in
    the layer, `attribute` that of the weight, which differs if the weight is computed from it (as quantized ones are).
    `channels` are the dimensions of the parameter that count output channels, groups of them included."""

    name: str
    attribute: str
    parameter: nn.Parameter
    stack: tuple[int, int, int]
    channels: tuple[int, ...]


def matrices(layer: nn.Module) -> Iterator[Matrix]:
    """The matrices of a layer itself, without those of its children."""
    if hasattr(layer, "matrices"):
        yield from layer.matrices()
        return
    if isinstance(layer, NORMS):
        return
    own = {name: (name, p) for name, p in layer.named_parameters(recurse=False)}
    if parametrize.is_parametrized(layer):
        own |= {
            name: (f"parametrizations.{name}.original", found.original)
            for name, found in layer.parametrizations.items()
        }
    for attribute, (name, p) in own.items():
        if p.ndim > 1 and attribute.startswith("weight"):
            yield Matrix(name, attribute, p, _stack(layer, attribute, p), _channels(layer, p))


def _stack(layer: nn.Module, name: str, p: nn.Parameter) -> tuple[int, int, int]:
    if isinstance(layer, _ConvNd):
        return layer.groups, p.shape[0] // layer.groups, p[0].numel()
    if name.startswith(("weight_ih", "weight_hh")):  # of recurrent layers: a matrix for each gate
        return p.numel() // p.shape[-1] // layer.hidden_size, layer.hidden_size, p.shape[-1]
    return p.shape[:-2].numel(), p.shape[-2], p.shape[-1]


def _channels(layer: nn.Module, p: nn.Parameter) -> tuple[int, ...]:
    if isinstance(layer, _ConvNd):
        return (1,) if isinstance(layer, _ConvTransposeNd) else (0,)
    return tuple(range(p.ndim - 1))
