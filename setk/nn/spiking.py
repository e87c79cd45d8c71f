"""Layers of spiking neurons over time: binary features, leaky neurons behind a depthwise convolution, adaptive
neurons with recurrence, leaky integrators. Equations and initial values are those of DPSNN (setk/models/dpsnn.py).

Each layer has two forms, equal except for rounding; `_fits` chooses:

  kernel   float32 on the CPU, widths a multiple of 16: the operators setk::dense, setk::leak and setk::adaptive, in which a layer
           and its gradient are one call each of setk/nn/spiking.c. The order of its sums does not depend on the number of
           frames or signals, so the spikes of a stream are those of the complete signal, and products with spikes add
           only what fired.
  loop     everything else (no kernel, float64, GPU, meta) and exports: torch operations, a loop over time.

Gradients do not flow through states: back-propagation ends with the chunk.
"""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor, nn

from setk.nn import kernel
from setk.nn.surrogates import above, multi_gaussian, reached

BASE, GAIN = 1.6, 0.184  # threshold of an adaptive neuron: BASE + GAIN * eta
LEAK_THRESHOLD = 1.0


class SteadyLinear(nn.Linear):
    """A linear layer whose rows do not depend on how many there are, as what decides about spikes needs."""

    def forward(self, x: Tensor) -> Tensor:
        return _dense(x, self.weight, self.bias) if _fits(x, self.out_features) else super().forward(x)

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
        return self._run(x, before, v, hold, _fits(x, self.conv.out_channels, self.conv))

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
            u, v = _leak(taps, self.conv.weight[:, 0].t(), self.conv.bias, decay, hold, v, LEAK_THRESHOLD)
        else:
            u, v = _leak_loop(self.conv(x.transpose(1, 2)).transpose(1, 2), decay, hold, v, LEAK_THRESHOLD)
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
        if _fits(x, len(self.alpha), self.dense, self.recurrent):
            bias = self.dense.bias + self.recurrent.bias
            weights = self.dense.weight, self.recurrent.weight, bias
            spikes, *after, _, _ = _adaptive(x, *weights, self.alpha, self.ro, hold, m, eta, s)
            return spikes, *(a.detach() for a in after)
        return self.export_forward(x, m, eta, s, hold)

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
    is not above one threshold becomes 0. The threshold is used in the comparison only, so its gradient is 0.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)
        self.alpha = nn.Parameter(torch.zeros(outputs))
        self.threshold = nn.Parameter(torch.zeros(()))

    def init_state(self, batch: int) -> Tensor:
        """r [B, outputs]."""
        return self.alpha.new_zeros(batch, len(self.alpha))

    def forward(self, x: Tensor, r: Tensor, hold: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, inputs], state, hold [B, T] -> r [B, T, outputs] where above the threshold, state."""
        return self._run(self.dense(x), r, hold, _fits(x, len(self.alpha)))

    def export_forward(self, x: Tensor, r: Tensor, hold: Tensor) -> tuple[Tensor, Tensor]:
        return self._run(self.dense(x), r, hold, False)

    def _run(self, current: Tensor, r: Tensor, hold: Tensor, by_kernel: bool) -> tuple[Tensor, Tensor]:
        if by_kernel:
            ones = torch.ones_like(self.alpha)
            every, r = _leak(current, ones[None], torch.zeros_like(ones), -self.alpha, hold, r, math.inf)
        else:
            every, r = _leak_loop(current, -self.alpha, hold, r, math.inf)
        return torch.where(every > self.threshold, every, 0 * self.threshold), r.detach()


def _leak_loop(current: Tensor, decay: Tensor, hold: Tensor, v: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Membranes before their reset [B, T, H], and the last one after it; p = sigmoid(decay)."""
    p, membranes = torch.sigmoid(decay), []
    for d, rest in zip(current.unbind(1), hold.unsqueeze(-1).unbind(1), strict=True):
        u = (v + (d - v) * p).masked_fill(rest, 0)
        membranes.append(u)
        v = u if threshold == math.inf else u.masked_fill(u >= threshold, 0)
    return torch.stack(membranes, 1), v


def _fits(x: Tensor, width: int, *layers: nn.Module) -> bool:
    """Whether the kernel can run. A layer that was replaced, as by a quantized one, runs itself."""
    return (
        _kernel is not None
        and all(type(layer) in (nn.Linear, nn.Conv1d) for layer in layers)
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and width % kernel.LANES == 0
    )


class _Layer(ctypes.Structure):  # as in spiking.c
    _fields_ = [(size, ctypes.c_int64) for size in "BTIH"]
    _fields_ += [(name, ctypes.c_void_p) for name in ("w", "recurrent", "bias", "alpha", "ro", "hold")]


def _layer(x: Tensor, *arrays: Tensor):
    """x [B, T, I]; the arrays, which must outlive it, in the order of spiking.c. The third has H elements."""
    return ctypes.byref(_Layer(*x.shape, len(arrays[2]), *(a.data_ptr() for a in arrays)))


@torch.library.custom_op("setk::dense", mutates_args=())
def _dense(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [..., I], weight [O, I], bias [O] -> [..., O]."""
    x, y = x.contiguous(), x.new_empty(*x.shape[:-1], len(weight))
    kernel.call(
        _kernel.setk_dense, y.numel() // len(weight), x.shape[-1], len(weight), x, weight.t().contiguous(), bias, y
    )
    return y


@_dense.register_fake
def _(x, weight, bias):
    return x.new_empty(*x.shape[:-1], len(weight))


def _dense_gradients(ctx, dy):
    x, weight = ctx.saved_tensors
    rows = dy.flatten(0, -2)
    dx = dy @ weight if ctx.needs_input_grad[0] else None
    return dx, rows.t() @ x.flatten(0, -2), rows.sum(0)


_dense.register_autograd(_dense_gradients, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:2]))


@torch.library.custom_op("setk::leak", mutates_args=())
def _leak(
    x: Tensor, weight: Tensor, bias: Tensor, decay: Tensor, hold: Tensor, v: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """x [B, T + K - 1, H], weight [K, H], bias and decay [H], hold [B, T], v [B, H] -> u [B, T, H], v; p = sigmoid(decay)."""
    x, weight, hold = x.contiguous(), weight.contiguous(), hold.contiguous()
    p, after = torch.sigmoid(decay).contiguous(), v.clone(memory_format=torch.contiguous_format)
    taps, h = weight.shape
    u = x.new_empty(len(x), x.shape[1] - taps + 1, h)
    kernel.call(_kernel.setk_leak_forward, len(x), u.shape[1], taps, h, x, weight, bias, p, threshold, hold, after, u)
    return u, after


@_leak.register_fake
def _(x, weight, bias, decay, hold, v, threshold):
    return x.new_empty(len(x), x.shape[1] - len(weight) + 1, weight.shape[1]), v.new_empty(v.shape)


@torch.library.custom_op("setk::leak_backward", mutates_args=())
def _leak_backward(
    du: Tensor, x: Tensor, weight: Tensor, decay: Tensor, hold: Tensor, v: Tensor, u: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, weight, p, hold = x.contiguous(), weight.contiguous(), torch.sigmoid(decay).contiguous(), hold.contiguous()
    taps, h = weight.shape
    dx, dw = torch.zeros_like(x), torch.zeros_like(weight)
    dbias, ddecay = torch.zeros_like(p), torch.zeros_like(p)
    kernel.call(
        _kernel.setk_leak_backward,
        len(x),
        u.shape[1],
        taps,
        h,
        x,
        weight,
        p,
        threshold,
        hold,
        v.contiguous(),
        u,
        du.contiguous(),
        dx,
        dw,
        dbias,
        ddecay,
    )
    return dx, dw, dbias, ddecay


@_leak_backward.register_fake
def _(du, x, weight, decay, hold, v, u, threshold):
    return x.new_empty(x.shape), weight.new_empty(weight.shape), *(x.new_empty(weight.shape[1]) for _ in range(2))


def _leak_context(ctx, inputs, output):
    x, weight, _, decay, hold, v, ctx.threshold = inputs
    ctx.save_for_backward(x, weight, decay, hold, v, output[0])


def _leak_gradients(ctx, du, _):
    return *_leak_backward(du, *ctx.saved_tensors, ctx.threshold), None, None, None


_leak.register_autograd(_leak_gradients, setup_context=_leak_context)


@torch.library.custom_op("setk::adaptive", mutates_args=())
def _adaptive(
    x: Tensor,
    dense: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    alpha: Tensor,
    ro: Tensor,
    hold: Tensor,
    m: Tensor,
    eta: Tensor,
    s: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x [B, T, I], dense [H, I], recurrent [H, H], bias, alpha and ro [H], hold [B, T], m, eta, s [B, H] -> spikes
    [B, T, H], m, eta, s; and for the gradient m - theta and eta at every frame, [B, T, H]."""
    x, hold, alpha, ro = x.contiguous(), hold.contiguous(), torch.sigmoid(alpha), torch.sigmoid(ro)
    after = [a.clone(memory_format=torch.contiguous_format) for a in (m, eta, s)]
    us, etas, spikes = (x.new_empty(*x.shape[:2], len(bias)) for _ in range(3))
    weights = dense.t().contiguous(), recurrent.t().contiguous(), bias
    kernel.check(*weights)
    kernel.call(_kernel.setk_adaptive_forward, _layer(x, *weights, alpha, ro, hold), x, *after, us, etas, spikes)
    return spikes, *after, us, etas


@_adaptive.register_fake
def _(x, dense, recurrent, bias, alpha, ro, hold, m, eta, s):
    spikes, us, etas = (x.new_empty(*x.shape[:2], len(bias)) for _ in range(3))
    return spikes, *(a.new_empty(a.shape) for a in (m, eta, s)), us, etas


@torch.library.custom_op("setk::adaptive_backward", mutates_args=())
def _adaptive_backward(
    ds: Tensor,
    recurrent: Tensor,
    alpha: Tensor,
    ro: Tensor,
    hold: Tensor,
    m: Tensor,
    eta: Tensor,
    s: Tensor,
    us: Tensor,
    etas: Tensor,
    spikes: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the currents [B, T, H], of alpha and of ro [H]."""
    recurrent, hold, alpha, ro = recurrent.contiguous(), hold.contiguous(), torch.sigmoid(alpha), torch.sigmoid(ro)
    before, slope = [a.contiguous() for a in (m, eta, s)], multi_gaussian(us)
    dj, dalpha, dro = torch.empty_like(us), torch.zeros_like(alpha), torch.zeros_like(ro)
    layer = _layer(us, recurrent, recurrent, alpha, alpha, ro, hold)  # the first three are not read here
    kernel.call(
        _kernel.setk_adaptive_backward,
        layer,
        recurrent,
        *before,
        us,
        etas,
        spikes,
        slope,
        ds.contiguous(),
        dj,
        dalpha,
        dro,
    )
    return dj, dalpha, dro


@_adaptive_backward.register_fake
def _(ds, recurrent, alpha, ro, hold, m, eta, s, us, etas, spikes):
    return us.new_empty(us.shape), alpha.new_empty(alpha.shape), ro.new_empty(ro.shape)


def _adaptive_context(ctx, inputs, output):
    x, dense, recurrent, _, alpha, ro, hold, m, eta, s = inputs
    spikes, *_, us, etas = output
    ctx.save_for_backward(x, dense, recurrent, alpha, ro, hold, m, eta, s, us, etas, spikes)


def _adaptive_gradients(ctx, ds, *_):
    x, dense, *saved = ctx.saved_tensors
    dj, dalpha, dro = _adaptive_backward(ds, *saved)
    spikes, s, rows = saved[-1], saved[6], dj.flatten(0, 1)
    earlier = torch.cat([s[:, None], spikes[:, :-1]], 1).flatten(0, 1)
    return (
        dj @ dense,
        rows.t() @ x.flatten(0, 1),
        rows.t() @ earlier,
        rows.sum(0),
        dalpha,
        dro,
        None,
        None,
        None,
        None,
    )


_adaptive.register_autograd(_adaptive_gradients, setup_context=_adaptive_context)
for _op in (_dense, _leak, _adaptive):
    _op.register_autocast("cpu", torch.float32)


def _load() -> ctypes.CDLL | None:
    library = kernel.load("spiking")
    if library is not None:
        size, pointer = ctypes.c_int64, ctypes.c_void_p
        library.setk_dense.argtypes = [size] * 3 + [pointer] * 4
        library.setk_leak_forward.argtypes = [size] * 4 + [pointer] * 4 + [ctypes.c_float] + [pointer] * 3
        library.setk_leak_backward.argtypes = [size] * 4 + [pointer] * 3 + [ctypes.c_float] + [pointer] * 8
        library.setk_adaptive_forward.argtypes = [pointer] * 8
        library.setk_adaptive_backward.argtypes = [pointer] * 13
    return library


_kernel = _load()


def kernel_available() -> bool:
    """Whether the compiled CPU kernel was built and loaded."""
    return _kernel is not None
