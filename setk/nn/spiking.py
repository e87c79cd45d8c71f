"""Layers of spiking neurons over time: binary features, leaky neurons behind a depthwise convolution, adaptive
neurons with recurrence, leaky integrators. Equations and initial values are those of DPSNN (setk/models/dpsnn.py).

Each layer has two forms, equal except for rounding; `operators.fits` chooses:

  kernel   float32 on the CPU, widths a multiple of 16: the operators setk::dense, setk::leak and setk::adaptive, in which a layer
           and its gradient are one call each of setk/nn/spiking.c. The order of its sums does not depend on the number of
           frames or signals, so the spikes of a stream are those of the complete signal, and products with spikes add
           only what fired.
  loop     everything else (no kernel, float64, GPU, meta) and exports: torch operations, a loop over time.

Gradients do not flow through states: back-propagation ends with the chunk.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from setk.nn import spiking_operators as operators
from setk.nn.surrogates import above, reached

BASE, GAIN = 1.6, 0.184  # threshold of an adaptive neuron: BASE + GAIN * eta
LEAK_THRESHOLD = 1.0
MARGIN = 0.1  # above its threshold, to which a dormant neuron is drawn


def shortfall(membrane: Tensor, threshold: float | Tensor, hold: Tensor) -> Tensor:
    """How far the highest membrane of each neuron, over signals and frames [B, T, H], lies below its threshold: [H], 0 where
    it is reached. Frames of rest, hold [B, T], do not count. A neuron that never fires has next to no gradient through its
    spikes, and one through this."""
    highest = membrane.masked_fill(hold.unsqueeze(-1), -math.inf).amax((0, 1))
    highest = torch.where(highest.isfinite(), highest, 0 * highest.nan_to_num(neginf=0))  # all frames are at rest
    return torch.where(highest > threshold, 0 * highest, threshold + MARGIN - highest)


class SteadyLinear(nn.Linear):
    """A linear layer whose rows do not depend on how many there are, as what decides about spikes needs."""

    def forward(self, x: Tensor) -> Tensor:
        return (
            operators.dense(x, self.weight, self.bias) if operators.fits(x, self.out_features) else super().forward(x)
        )

    def export_forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Binary(nn.Module):
    """Spikes where a linear map exceeds one learned threshold: [..., inputs] -> {0, 1} [..., outputs]."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.dense = SteadyLinear(inputs, outputs)
        self.threshold = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return above(self.dense(x) - self.threshold)

    def constant(self, x: Tensor) -> Tensor:
        """Spikes for one constant x [inputs]; element-wise, because counters count the products of signals."""
        return above((self.dense.weight * x).sum(-1) + self.dense.bias - self.threshold)


def take_dormant(layer: nn.Module) -> Tensor:
    """`layer.dormant` of its last run in training, which the layer then forgets: a model that holds a graph cannot be copied."""
    found, layer.dormant = layer.dormant, None
    return found


class LeakyConv(nn.Module):
    """Each channel's own convolution over `taps` frames into leaky neurons (PLIF, Fang et al. 2021).

    d is the convolution, v <- v + p (d - v) with one learned p = sigmoid(w); a spike where v >= 1, and then v <- 0. No gradient
    flows through the reset.
    """

    def __init__(self, inputs: int, outputs: int, taps: int):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, taps, groups=inputs)
        self.w = nn.Parameter(torch.zeros(()))

    def init_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """The last taps - 1 input frames [B, taps - 1, inputs], v [B, outputs]."""
        weight = self.conv.weight
        return (
            weight.new_zeros(batch, self.conv.kernel_size[0] - 1, self.conv.in_channels),
            weight.new_zeros(batch, self.conv.out_channels),
        )

    def forward(self, x: Tensor, before: Tensor, v: Tensor, hold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes x [B, T, inputs], state, hold [B, T] -> spikes [B, T, outputs], state."""
        return self._run(x, before, v, hold, operators.fits(x, self.conv.out_channels, self.conv))

    def export_forward(self, x: Tensor, before: Tensor, v: Tensor, hold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._run(x, before, v, hold, False)

    def _run(
        self, x: Tensor, before: Tensor, v: Tensor, hold: Tensor, by_kernel: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.cat([before, x], 1)
        fan, width = self.conv.out_channels // self.conv.in_channels, self.conv.out_channels
        decay = self.w.expand(width)
        if by_kernel:
            taps = x.repeat_interleave(fan, -1) if fan > 1 else x
            u, v = operators.leak(taps, self.conv.weight[:, 0].t(), self.conv.bias, decay, hold, v, LEAK_THRESHOLD)
        else:
            u, v = _leak_loop(self.conv(x.transpose(1, 2)).transpose(1, 2), decay, hold, v, LEAK_THRESHOLD)
        if self.training:
            self.dormant = shortfall(u, LEAK_THRESHOLD, hold)
        return reached(u - LEAK_THRESHOLD), x[:, x.shape[1] - before.shape[1] :].detach(), v.detach()


class AdaptiveRecurrent(nn.Module):
    """Recurrent neurons whose threshold rises with their own spikes (ALIF, Yin, Corradi, Bohte 2021).

    With s the spikes of the frame before and alpha, ro the sigmoids of a parameter for each neuron:
      eta <- ro eta + (1 - ro) s;  theta = 1.6 + 0.184 eta
      m <- alpha m + (1 - alpha) (dense(x) + recurrent(s)) - theta s;  a spike where m > theta
    At rest eta = 1.6 and m = s = 0.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.dense, self.recurrent = nn.Linear(inputs, width), nn.Linear(width, width)
        self.alpha, self.ro = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def init_state(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """m, eta, s, each [B, width]."""
        zeros = self.alpha.new_zeros(batch, len(self.alpha))
        return zeros, zeros.clone(), zeros.clone()

    def forward(
        self, x: Tensor, m: Tensor, eta: Tensor, s: Tensor, hold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Spikes x [B, T, inputs], state, hold [B, T] -> spikes [B, T, width], state."""
        if operators.fits(x, len(self.alpha), self.dense, self.recurrent):
            bias = self.dense.bias + self.recurrent.bias
            weights = self.dense.weight, self.recurrent.weight, bias
            spikes, *after, _, _ = operators.adaptive(x, *weights, self.alpha, self.ro, hold, m, eta, s)
            after = [a.detach() for a in after]
        else:
            spikes, *after = self.export_forward(x, m, eta, s, hold)
        if self.training:
            self.dormant = self._shortfall(x.detach(), m, s, spikes.detach(), hold)
        return spikes, *after

    def _shortfall(self, x: Tensor, m: Tensor, s: Tensor, spikes: Tensor, hold: Tensor) -> Tensor:
        """The `shortfall` of neurons that do not fire, whose membrane is that of a leaky integrator; 0 for all others."""
        earlier = torch.cat([s[:, None], spikes[:, :-1]], 1)
        current = self.dense(x) + self.recurrent(earlier)
        if operators.fits(x, len(self.alpha)):
            ones = torch.ones_like(self.alpha)
            membrane, _ = operators.leak(current, ones[None], torch.zeros_like(ones), -self.alpha, hold, m, math.inf)
        else:
            membrane, _ = _leak_loop(current, -self.alpha, hold, m, math.inf)
        return shortfall(membrane, BASE, hold).masked_fill(spikes.amax((0, 1)) > 0, 0)

    def export_forward(
        self, x: Tensor, m: Tensor, eta: Tensor, s: Tensor, hold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        alpha, ro, spikes = torch.sigmoid(self.alpha), torch.sigmoid(self.ro), []
        gain, rise = 1 - alpha, 1 - ro
        for current, rest in zip(self.dense(x).unbind(1), hold.unsqueeze(-1).unbind(1), strict=True):
            eta = torch.where(rest, BASE, ro * eta + rise * s)
            theta = BASE + GAIN * eta
            m = (alpha * m + gain * (current + self.recurrent(s)) - theta * s).masked_fill(rest, 0)
            s = above(m - theta)
            spikes.append(s)
        return torch.stack(spikes, 1), m.detach(), eta.detach(), s.detach()


class Readout(nn.Module):
    """A linear map into leaky integrators that never spike, r <- a r + (1 - a) dense(x), a = sigmoid(alpha) for each; what
    is not above one threshold becomes 0. The threshold is used in the comparison only, so its gradient is 0; `suppression`
    is added to it.
    """

    def __init__(self, inputs: int, outputs: int, suppression: float = 0.0):
        super().__init__()
        self.suppression = suppression
        self.dense = nn.Linear(inputs, outputs)
        self.alpha = nn.Parameter(torch.zeros(outputs))
        self.threshold = nn.Parameter(torch.zeros(()))

    def init_state(self, batch: int) -> Tensor:
        """r [B, outputs]."""
        return self.alpha.new_zeros(batch, len(self.alpha))

    def forward(self, x: Tensor, r: Tensor, hold: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, inputs], state, hold [B, T] -> r [B, T, outputs] where above the threshold, state."""
        return self._run(self.dense(x), r, hold, operators.fits(x, len(self.alpha)))

    def export_forward(self, x: Tensor, r: Tensor, hold: Tensor) -> tuple[Tensor, Tensor]:
        return self._run(self.dense(x), r, hold, False)

    def _run(self, current: Tensor, r: Tensor, hold: Tensor, by_kernel: bool) -> tuple[Tensor, Tensor]:
        if by_kernel:
            ones = torch.ones_like(self.alpha)
            every, r = operators.leak(current, ones[None], torch.zeros_like(ones), -self.alpha, hold, r, math.inf)
        else:
            every, r = _leak_loop(current, -self.alpha, hold, r, math.inf)
        if self.training:
            self.dormant = shortfall(every, self.threshold.detach() + self.suppression, hold)
        return torch.where(every > self.threshold + self.suppression, every, 0 * self.threshold), r.detach()


def _leak_loop(current: Tensor, decay: Tensor, hold: Tensor, v: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Membranes before their reset [B, T, H], and the last one after it; p = sigmoid(decay)."""
    p, membranes = torch.sigmoid(decay), []
    for d, rest in zip(current.unbind(1), hold.unsqueeze(-1).unbind(1), strict=True):
        u = (v + (d - v) * p).masked_fill(rest, 0)
        membranes.append(u)
        v = u if threshold == math.inf else u.masked_fill(u >= threshold, 0)
    return torch.stack(membranes, 1), v
