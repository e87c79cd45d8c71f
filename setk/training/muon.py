"""Muon: orthogonalised momentum for the weight matrices of layers, AdamW for all other parameters.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. The scale with which AdamW's learning rate and
decay suit it is that of Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, section 2.2.

A matrix moves along U V^T, where U S V^T is its momentum: by the same amount in each direction of its gradients, strong
or weak. torch.optim.Muon accepts single matrices only. Here a layer has the stack of them that setk.nn.matrices describes (a
matrix for each gate and group of a GRU, for example), and all of one shape are orthogonalised at once.
"""

from __future__ import annotations

from typing import Iterator

import torch
from torch import Tensor, nn

from setk.nn.matrices import matrices

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # a, b, c of x (a + b x^2 + c x^4), which brings singular values near 1
ITERATIONS = 5
RMS = 0.2  # of a step at learning rate 1, which is about that of AdamW's


class Muon(torch.optim.AdamW):
    """AdamW in which the matrices of `module` move by Muon."""

    def __init__(self, module: nn.Module, lr: float, betas: tuple[float, float], weight_decay: float):
        self._stacks = dict(_matrices(module))
        rest = [p for p in module.parameters() if p.requires_grad and p not in self._stacks]
        super().__init__(
            [
                {"params": list(self._stacks), "weight_decay": weight_decay},
                {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay},
                {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=lr,
            betas=betas,
        )

    @torch.no_grad()
    def step(self) -> None:
        """Make one step, which removes the gradients of matrices."""
        group, by_shape = self.param_groups[0], {}
        for p in group["params"]:
            if p.grad is not None:
                by_shape.setdefault(self._stacks[p][1:], []).append(p)
        for parameters in by_shape.values():
            self._move(parameters, group["lr"], group["weight_decay"])
        super().step()  # skips parameters without a gradient

    def _move(self, parameters: list[Tensor], lr: float, decay: float) -> None:
        """A step of parameters whose matrices are of one shape."""
        ahead = []
        for p in parameters:
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros(())  # AdamW needs one in every state that it reads
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
            ahead.append(p.grad.lerp(state["momentum"], MOMENTUM).reshape(self._stacks[p]))
            p.grad = None
        moves = orthogonalised(torch.cat(ahead)).split([len(x) for x in ahead])
        for p, move in zip(parameters, moves):
            p.mul_(1 - lr * decay).sub_(move.reshape(p.shape), alpha=lr * RMS * max(move.shape[1:]) ** 0.5)


def orthogonalised(x: Tensor) -> Tensor:
    """About U V^T for each U S V^T of x [n, rows, columns]: singular values of 0.7 to 1.2, except for very small ones."""
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def _matrices(module: nn.Module) -> Iterator[tuple[nn.Parameter, tuple[int, int, int]]]:
    """The parameters of layers that are matrices of more than one row and column, each with its stack [n, rows, columns]."""
    for layer in module.modules():
        for matrix in matrices(layer):
            if matrix.parameter.requires_grad and min(matrix.stack[1:]) > 1:
                yield matrix.parameter, matrix.stack
