"""Many small GRUs next to each other: the hot spot of FSPEN, and of any model with many paths or directions.

A cell of 16 units is so small that 27 calls of nn.GRU, each of them a loop over time of ten small operations, spend most of a
training step on starting operations. `GroupedGRU` runs G of them at once. It has three forms, equal except for rounding:

  kernel    float32 on the CPU: the operator setk::gru, in which the complete recurrence and its gradient are one call each of
            setk/nn/gru.c. setup.py builds it where there is a C compiler.
  separate  CUDA, and exports of several frames: one torch.gru for each group, or for a pair of directions, which is one call of
            cuDNN and one operator of ONNX.
  loop      everything else (no kernel, float64, tensors without data): a loop over time of products batched over groups. As
            plain operations these are counted as the multiply-accumulates of G separate GRUs.

At FSPEN's sizes, on one core with AVX-512, the kernel trains 3 times as fast as one bidirectional nn.GRU over
bands and 10 to 15 times as fast as 8 over time (tests/bench/gru.py).
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from setk.nn import kernel


class GroupedGRU(nn.Module):
    """G independent single-layer GRUs of equal size; the arithmetic and initialisation of torch.nn.GRU.

    `reverse` is whether the groups run over time backwards: one bool for all, or G of them. A bidirectional
    GRU is groups=2, reverse=(False, True) and an input of leading size 1.

    weight_ih [G, 3H, I], weight_hh [G, 3H, H], bias_ih and bias_hh [G, 3H]: rows are the gates r, z, n, as in
    torch.nn.GRU, so group g is an nn.GRU with weight_ih_l0 = weight_ih[g] and so on.
    """

    def __init__(self, groups: int, input_size: int, hidden_size: int, reverse: bool | tuple[bool, ...] = False):
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

    def extra_repr(self) -> str:
        return f"{self.groups}, {self.input_size}, {self.hidden_size}, reverse={self.reverse}"

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [G, B, T, K, I], h [G, B, K, H] (default zeros) -> y [G, B, T, K, H], last state [G, B, K, H].

        B and K both count sequences that share weights; K is inside time, as bands of a spectrum are. The last
        state of a reversed group is the one after time 0. An input that all groups read has leading size 1;
        y then lies in memory as [B, T, K, G, H], so that joining the groups' outputs copies nothing.
        """
        x, h = self._checked(x, h)
        if x.is_cuda:
            return self._separate(x, h)
        return self._by_kernel(x, h) if self._fits() else self._loop(x, h)

    def export_forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`forward` with few nodes for a graph: at this size a runtime spends its time between them, not in them."""
        x, h = self._checked(x, h)
        return self._step(x, h) if x.shape[2] == 1 else self._separate(x, h)

    def ptflops(self, args: tuple, output: tuple[Tensor, Tensor]) -> int:
        """What ptflops counts for G nn.GRU: products, two biases, and 7 operations for each hidden unit."""
        hidden = self.hidden_size
        return self.groups * args[0].shape[1:4].numel() * (3 * hidden * (self.input_size + hidden + 2) + 7 * hidden)

    def _checked(self, x: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """The input, with one group where all are the same, and the state. Raises ValueError on a wrong shape."""
        if x.dim() != 5 or x.shape[0] not in (1, self.groups) or x.shape[4] != self.input_size:
            raise ValueError(f"input {tuple(x.shape)} is not [{self.groups} or 1, B, T, K, {self.input_size}]")
        state = (self.groups, x.shape[1], x.shape[3], self.hidden_size)
        if h is None:
            h = x.new_zeros(state)
        elif h.shape != state:
            raise ValueError(f"state {tuple(h.shape)} is not {state}, [G, B, K, H]")
        if x.stride(0) == 0:
            x = x[:1]
        return x, h

    def _fits(self) -> bool:
        weight = self.weight_hh
        return _kernel is not None and weight.device.type == "cpu" and weight.dtype == torch.float32

    def _by_kernel(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        n, i_pad, h_pad = self.hidden_size, -self.input_size % kernel.LANES, -self.hidden_size % kernel.LANES
        weights = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        if i_pad or h_pad:  # a unit with zero weights and state stays at zero, and nothing reads it
            pads = (0, i_pad, 0, h_pad), (0, h_pad, 0, h_pad), (0, h_pad), (0, h_pad)
            weights = [F.pad(p.unflatten(1, (3, n)), pad).flatten(1, 2) for p, pad in zip(weights, pads)]
            x, h = F.pad(x, (0, i_pad)), F.pad(h, (0, h_pad))
        y, last = _gru(x, h, *weights, list(self.reverse))
        return (y[..., :n], last[..., :n]) if h_pad else (y, last)

    def _loop(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        g, n = self.groups, self.hidden_size
        _, b, t, k, i = x.shape
        x = x.expand(g, -1, -1, -1, -1).reshape(g, b * t * k, i)
        xs = torch.baddbmm(self.bias_ih.unsqueeze(1), x, self.weight_ih.transpose(1, 2)).view(g, b, t, k, 3 * n)
        weight_hh, h, y = self.weight_hh.transpose(1, 2), h.reshape(g, b * k, n), []
        for x_t in self._turn(xs).unbind(2):
            xr, xz, xn = x_t.reshape(g, b * k, 3 * n).split(n, -1)
            hr, hz, hn = torch.baddbmm(self.bias_hh.unsqueeze(1), h, weight_hh).split(n, -1)
            z, new = torch.sigmoid(xz + hz), torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
            h = new + z * (h - new)
            y.append(h.view(g, b, k, n))
        return self._turn(torch.stack(y, 2)), y[-1]

    def _separate(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        g, n, train = self.groups, self.hidden_size, torch.is_grad_enabled()
        _, b, t, k, i = x.shape
        if len(x) == 1 and self.reverse == (False, True):
            weights = [p[d] for d in (0, 1) for p in (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)]
            x = x.permute(0, 2, 1, 3, 4).reshape(t, b * k, i)
            y, last = torch.gru(x, h.reshape(g, b * k, n), weights, True, 1, 0.0, train, True, False)
            return y.view(t, b, k, g, n).permute(3, 1, 0, 2, 4), last.view(g, b, k, n)
        x, ys, lasts = self._turn(x.expand(g, -1, -1, -1, -1)), [], []
        for j in range(g):
            weights = [self.weight_ih[j], self.weight_hh[j], self.bias_ih[j], self.bias_hh[j]]
            steps = x[j].transpose(0, 1).reshape(t, b * k, i)
            y, last = torch.gru(steps, h[j].reshape(1, b * k, n), weights, True, 1, 0.0, train, False, False)
            ys.append(y.view(t, b, k, n).transpose(0, 1))
            lasts.append(last.view(b, k, n))
        return self._turn(torch.stack(ys)), torch.stack(lasts)

    def _step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """One frame: [x, h] by one matrix whose columns are r, z and the two halves of n."""
        g, n = self.groups, self.hidden_size
        x = x.expand(g, -1, -1, -1, -1)
        _, b, _, k, i = x.shape
        (ir, iz, inn), (hr, hz, hn) = self.weight_ih.split(n, 1), self.weight_hh.split(n, 1)
        (bir, biz, bin_), (bhr, bhz, bhn) = self.bias_ih.split(n, 1), self.bias_hh.split(n, 1)
        weight = torch.cat(
            [torch.cat([ir, iz, inn, torch.zeros_like(inn)], 1), torch.cat([hr, hz, torch.zeros_like(hn), hn], 1)], 2
        ).transpose(1, 2)
        bias = torch.cat([bir + bhr, biz + bhz, bin_, bhn], 1).unsqueeze(1)
        h = h.reshape(g, b * k, n)
        gates, new, old = (torch.cat([x.reshape(g, b * k, i), h], 2) @ weight + bias).split([2 * n, n, n], 2)
        r, z = torch.sigmoid(gates).split(n, 2)
        new = torch.tanh(new + r * old)
        h = new + z * (h - new)
        return h.view(g, b, 1, k, n), h.view(g, b, k, n)

    def _turn(self, x: Tensor) -> Tensor:
        """[G, B, T, ...] with the time of the reversed groups turned round."""
        if x.shape[2] == 1 or not any(self.reverse):
            return x
        if all(self.reverse):
            return x.flip(2)
        return torch.stack([a.flip(1) if r else a for a, r in zip(x, self.reverse)])


class PathLinear(nn.Module):
    """P linear layers next to each other: [P, ..., I] -> [P, ..., O]. weight [P, O, I], bias [P, O]."""

    def __init__(self, paths: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(paths, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(paths, outputs))
        for p in self.parameters():
            nn.init.uniform_(p, -(inputs**-0.5), inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1, -2)
        return torch.baddbmm(self.bias.unsqueeze(1), flat, self.weight.transpose(-1, -2)).view(*x.shape[:-1], -1)

    def ptflops(self, args: tuple, output: Tensor) -> int:
        """What ptflops counts for P nn.Linear."""
        return output.numel() * (args[0].shape[-1] + 1)


@torch.library.custom_op("setk::gru", mutates_args=())
def _gru(
    x: Tensor, h: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor, reverse: list[bool]
) -> tuple[Tensor, Tensor]:
    """y and the last state of `GroupedGRU`, for sizes that are multiples of kernel.LANES."""
    x, h, weights = _dense_rows(x), h.contiguous(), [p.contiguous() for p in (weight_ih, weight_hh, bias_ih, bias_hh)]
    kernel.check(x, h, *weights)
    y, last = _gru_outputs(x, h, *weights, reverse)
    kernel.call(
        _kernel.setk_gru_forward,
        _shape(x, h, reverse),
        _weights(weights),
        _frames(x, reverse),
        _frames(y, reverse),
        last,
    )
    return y, last


@_gru.register_fake
def _gru_outputs(x, h, weight_ih, weight_hh, bias_ih, bias_hh, reverse):
    _, b, t, k, _ = x.shape
    g, n = len(reverse), h.shape[-1]
    shared = x.shape[0] != g
    y = x.new_empty(b, t, k, g, n).permute(3, 0, 1, 2, 4) if shared else x.new_empty(g, b, t, k, n)
    return y, h.new_empty(h.shape)


@torch.library.custom_op("setk::gru_backward", mutates_args=())
def _gru_backward(
    dy: Tensor,
    dlast: Tensor,
    x: Tensor,
    h: Tensor,
    y: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    reverse: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `_gru`. Only inputs and outputs are kept for it; the gates are computed again."""
    dy, x, h, weights = (
        _dense_rows(dy),
        _dense_rows(x),
        h.contiguous(),
        [p.contiguous() for p in (weight_ih, weight_hh, bias_ih, bias_hh)],
    )
    dx, dh = x.new_empty(x.shape), dlast.clone(memory_format=torch.contiguous_format)
    dw = [torch.zeros_like(p) for p in weights]
    kernel.check(dy, dh)
    kernel.call(
        _kernel.setk_gru_backward,
        _shape(x, h, reverse),
        _weights(weights),
        _frames(x, reverse),
        _frames(y, reverse),
        _frames(dy, reverse),
        _frames(dx, reverse),
        dh,
        _weights(dw),
    )
    return dx, dh, *dw


@_gru_backward.register_fake
def _(dy, dlast, x, h, y, weight_ih, weight_hh, bias_ih, bias_hh, reverse):
    return tuple(p.new_empty(p.shape) for p in (x, h, weight_ih, weight_hh, bias_ih, bias_hh))


def _gru_context(ctx, inputs, output):
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors[:2], output[0], *tensors[2:])


def _gru_gradients(ctx, dy, dlast):
    return *_gru_backward(dy, dlast, *ctx.saved_tensors, ctx.reverse), None


_gru.register_autograd(_gru_gradients, setup_context=_gru_context)
_gru.register_autocast("cpu", torch.float32)


class _Frames(ctypes.Structure):  # this and the two below: as in gru.c
    _fields_ = [("data", ctypes.c_void_p)] + [(axis, ctypes.c_int64) for axis in "gbtk"]


class _Weights(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


class _Shape(ctypes.Structure):
    _fields_ = [(size, ctypes.c_int64) for size in "GBTKIH"]
    _fields_ += [("reverse", ctypes.c_char_p), ("h0", ctypes.c_void_p)]


def _dense_rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _shape(x: Tensor, h: Tensor, reverse: list[bool]):
    return ctypes.byref(_Shape(len(reverse), *x.shape[1:], h.shape[-1], bytes(reverse), h.data_ptr()))


def _frames(x: Tensor, reverse: list[bool]):
    """Where the frames of [groups or 1, B, T, K, ...] are; a single group is read by all."""
    strides = x.stride()
    return ctypes.byref(_Frames(x.data_ptr(), strides[0] if x.shape[0] == len(reverse) else 0, *strides[1:4]))


def _weights(weights: list[Tensor]):
    return ctypes.byref(_Weights(*(p.data_ptr() for p in weights)))


def _load() -> ctypes.CDLL | None:
    library = kernel.load("gru")
    if library is not None:
        pointer = ctypes.c_void_p
        library.setk_gru_forward.argtypes = [pointer] * 5
        library.setk_gru_backward.argtypes = [pointer] * 8
    return library


_kernel = _load()


def kernel_available() -> bool:
    """Whether the compiled CPU kernel was built and loaded."""
    return _kernel is not None
