"""Spikes, and the surrogate slopes of the step by which a network of spikes learns."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

GAMMA, SIGMA, DIP, SPREAD = 0.5, 0.5, 0.15, 6.0  # of the multi-Gaussian surrogate


def multi_gaussian(u: Tensor) -> Tensor:
    """Surrogate of the step's slope at u (Yin, Corradi, Bohte 2021): a Gaussian with a shallow wider dip on either side."""
    wide = SPREAD * SIGMA
    peak, dips = (
        GAMMA * weight / (sigma * math.sqrt(2 * math.pi)) for weight, sigma in ((1 + DIP, SIGMA), (DIP, wide))
    )
    left, right = ((u + shift).square_().mul_(-0.5 / wide**2).exp_() for shift in (SIGMA, -SIGMA))
    return u.square().mul_(-0.5 / SIGMA**2).exp_().mul_(peak).sub_(left.add_(right).mul_(dips))


def arctan(u: Tensor) -> Tensor:
    """Surrogate of the step's slope at u: derivative of arctan(pi u) / pi (Fang et al. 2021, alpha = 2)."""
    return 1 / (1 + (math.pi * u).square())


class _Above(torch.autograd.Function):
    """1 where u > 0, with the multi-Gaussian for slope."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return multi_gaussian(u).mul_(grad)


class _Reached(torch.autograd.Function):
    """1 where u >= 0, with the arctan for slope."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad * arctan(u)


def above(u: Tensor) -> Tensor:
    return _Above.apply(u) if torch.is_grad_enabled() else (u > 0).to(u.dtype)


def reached(u: Tensor) -> Tensor:
    return _Reached.apply(u) if torch.is_grad_enabled() else (u >= 0).to(u.dtype)
