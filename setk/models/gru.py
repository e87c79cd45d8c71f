"""G small GRUs side by side, the hot spot of FSPEN-like models."""

import torch
from torch import Tensor, nn


def kernel_available() -> bool:
    """Whether the compiled CPU kernel (setk/models/gru.c) is there to be used."""
    return False


class GroupedGRU(nn.Module):
    """G independent single-layer GRUs, each with its own weights.

    reverse: whether the groups run over time backwards, one bool for all or G of them.
    A bidirectional GRU is groups=2, reverse=(False, True) and an input of leading size 1.
    """

    def __init__(
        self, groups: int, input_size: int, hidden_size: int, reverse: bool | tuple[bool, ...] = False
    ):
        super().__init__()
        self.groups, self.input_size, self.hidden_size = groups, input_size, hidden_size
        self.reverse = (reverse,) * groups if isinstance(reverse, bool) else tuple(reverse)
        if len(self.reverse) != groups:
            raise ValueError(f"reverse has {len(self.reverse)} entries for {groups} groups")
        self.weight_ih = nn.Parameter(torch.empty(groups, 3 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(groups, 3 * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(groups, 3 * hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(groups, 3 * hidden_size))
        for p in self.parameters():
            nn.init.uniform_(p, -(hidden_size**-0.5), hidden_size**-0.5)

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [G or 1, B, T, K, I], h [G, B, K, H] -> y [G, B, T, K, H], last h [G, B, K, H]."""
        if h is None:
            h = x.new_zeros(self.groups, x.shape[1], x.shape[3], self.hidden_size)
        return self._loop(x, h)

    def _loop(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        _, b, t, k, i = x.shape
        g, n = self.groups, self.hidden_size
        x = x.expand(g, -1, -1, -1, -1).reshape(g, b * t * k, i)
        xs = torch.baddbmm(self.bias_ih.unsqueeze(1), x, self.weight_ih.mT)
        h, y = h.reshape(g, b * k, n), []
        for x_t in self._turn(xs.view(g, b, t, k, 3 * n)).unbind(2):
            xr, xz, xn = x_t.reshape(g, b * k, 3 * n).chunk(3, -1)
            hr, hz, hn = torch.baddbmm(self.bias_hh.unsqueeze(1), h, self.weight_hh.mT).chunk(3, -1)
            z, new = torch.sigmoid(xz + hz), torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
            h = new + z * (h - new)
            y.append(h.view(g, b, k, n))
        return self._turn(torch.stack(y, 2)), y[-1]

    def _turn(self, x: Tensor) -> Tensor:
        """Reverse the time of the reversed groups of [G, B, T, ...]."""
        if x.shape[2] == 1 or not any(self.reverse):
            return x
        if all(self.reverse):
            return x.flip(2)
        return torch.stack([a.flip(1) if r else a for a, r in zip(x, self.reverse)])
