"""Many small GRUs side by side: the hot spot of FSPEN, and of any model whose paths or directions are many.

A cell of 16 units is so small that 27 calls of nn.GRU, each of them a loop over time of ten small operations,
spend most of a training step on starting operations. `GroupedGRU` runs G of them at once, in one of three
forms, equal but for rounding; forward() chooses:

  kernel          float32 on the CPU: setk/nn/gru.c, in which the whole recurrence and its gradient are
                  one call each. Built by setup.py where there is a C compiler.
  block-diagonal  CUDA: one GRU of G * H units whose weights between groups are zero. It multiplies G times as
                  much, which a GPU has to spare, but is one call of cuDNN in place of T * 10 launches. (Checked
                  for equality on a CPU; its speed has not been measured on a GPU.)
  loop            everything else (no kernel, float64, autocast, meta, tracing and export): a loop over time of
                  products batched over groups. Being plain operations, it exports to ONNX, and counters of
                  multiply-accumulates see those of G separate GRUs.

At FSPEN's sizes, on one core with AVX-512, the kernel trains 3 times as fast as one bidirectional nn.GRU over
bands and 10 to 15 times as fast as 8 over time (tests/bench/gru.py).
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from setk.nn import kernel


class GroupedGRU(nn.Module):
    """G independent single-layer GRUs of equal size; the arithmetic and initialisation of torch.nn.GRU.

    `reverse` tells whether the groups run over time backwards: one bool for all, or G of them. A bidirectional
    GRU is groups=2, reverse=(False, True) and an input of leading size 1.

    weight_ih [G, 3H, I], weight_hh [G, 3H, H], bias_ih and bias_hh [G, 3H]: rows are the gates r, z, n, as in
    torch.nn.GRU, so group g is an nn.GRU with weight_ih_l0 = weight_ih[g] and so on.
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

    def extra_repr(self) -> str:
        return f"{self.groups}, {self.input_size}, {self.hidden_size}, reverse={self.reverse}"

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [G, B, T, K, I], h [G, B, K, H] (default zeros) -> y [G, B, T, K, H], last state [G, B, K, H].

        B and K both count sequences that share weights; K is inside time, as bands of a spectrum are. The last
        state of a reversed group is the one after time 0. An input that all groups read has leading size 1;
        y then lies in memory as [B, T, K, G, H], so that joining the groups' outputs copies nothing.
        """
        if x.dim() != 5 or x.shape[0] not in (1, self.groups) or x.shape[4] != self.input_size:
            raise ValueError(f"input {tuple(x.shape)} is not [{self.groups} or 1, B, T, K, {self.input_size}]")
        state = (self.groups, x.shape[1], x.shape[3], self.hidden_size)
        if h is None:
            h = x.new_zeros(state)
        elif h.shape != state:
            raise ValueError(f"state {tuple(h.shape)} is not {state}, [G, B, K, H]")
        if x.stride(0) == 0:
            x = x[:1]
        if x.is_cuda:
            return self._block_diagonal(x, h)
        if torch.jit.is_tracing():
            return self._exported(x, h)
        if (
            _kernel is not None
            and x.device.type == "cpu"
            and x.dtype == h.dtype == self.weight_hh.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        ):
            return self._by_kernel(x, h)
        return self._loop(x, h)

    def _by_kernel(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        n, i_pad, h_pad = self.hidden_size, -self.input_size % _LANES, -self.hidden_size % _LANES
        weights = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        if i_pad or h_pad:  # a unit with zero weights and state stays at zero, and nothing reads it
            pads = (0, i_pad, 0, h_pad), (0, h_pad, 0, h_pad), (0, h_pad), (0, h_pad)
            weights = [F.pad(p.unflatten(1, (3, n)), pad).flatten(1, 2) for p, pad in zip(weights, pads)]
            x, h = F.pad(x, (0, i_pad)), F.pad(h, (0, h_pad))
        x, h, weights = _dense_rows(x), h.contiguous(), [p.contiguous() for p in weights]
        reverse = bytes(self.reverse)
        if torch.is_grad_enabled():
            y, last = _Kernel.apply(x, h, reverse, *weights)
        else:  # a frame of a stream takes less time than apply() does
            y, last = _run(x, h, weights, reverse)
        return (y[..., :n], last[..., :n]) if h_pad else (y, last)

    def _block_diagonal(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        g, n = self.groups, self.hidden_size
        _, b, t, k, _ = x.shape
        eye = torch.eye(g, dtype=h.dtype, device=h.device)

        def spread(w):  # [G, 3H, J] -> [3 G H, G J], row and column blocks by group
            gates = w.unflatten(1, (3, n)).transpose(0, 1)
            return (gates.unsqueeze(3) * eye[:, None, :, None]).reshape(3 * g * n, -1)

        biases = [p.unflatten(1, (3, n)).transpose(0, 1).reshape(-1) for p in (self.bias_ih, self.bias_hh)]
        weights = [spread(self.weight_ih), spread(self.weight_hh), *biases]
        x = self._turn(x.expand(g, -1, -1, -1, -1)).permute(2, 1, 3, 0, 4).reshape(t, b * k, -1)
        h = h.permute(1, 2, 0, 3).reshape(1, b * k, g * n)
        y, last = torch.gru(x, h, weights, True, 1, 0.0, torch.is_grad_enabled(), False, False)
        y, last = y.view(t, b, k, g, n).permute(3, 1, 0, 2, 4), last.view(b, k, g, n).permute(2, 0, 1, 3)
        return self._turn(y), last

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

    def _exported(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """As few nodes as can be: at this size a runtime spends its time between them, not in them."""
        g, n = self.groups, self.hidden_size
        _, b, t, k, i = x.shape
        if t == 1:
            return self._step(x.expand(g, -1, -1, -1, -1), h)
        if len(x) == 1 and self.reverse == (False, True):  # the GRU operator of ONNX
            weights = [p[d] for d in (0, 1) for p in (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)]
            x = x.permute(0, 2, 1, 3, 4).reshape(t, b * k, i)
            y, last = torch.gru(x, h.reshape(g, b * k, n), weights, True, 1, 0.0, False, True, False)
            return y.view(t, b, k, g, n).permute(3, 1, 0, 2, 4), last.view(g, b, k, n)
        x = self._turn(x.expand(g, -1, -1, -1, -1))
        each = [torch.gru(x[j].transpose(0, 1).reshape(t, b * k, i), h[j].reshape(1, b * k, n),
                          [self.weight_ih[j], self.weight_hh[j], self.bias_ih[j], self.bias_hh[j]],
                          True, 1, 0.0, False, False, False) for j in range(g)]
        y = torch.stack([y.view(t, b, k, n).transpose(0, 1) for y, _ in each])
        return self._turn(y), torch.stack([h.view(b, k, n) for _, h in each])

    def _step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """One frame: [x, h] by one matrix whose columns are r, z and the two halves of n."""
        g, n = self.groups, self.hidden_size
        _, b, _, k, i = x.shape
        (ir, iz, inn), (hr, hz, hn) = self.weight_ih.split(n, 1), self.weight_hh.split(n, 1)
        (bir, biz, bin_), (bhr, bhz, bhn) = self.bias_ih.split(n, 1), self.bias_hh.split(n, 1)
        weight = torch.cat([torch.cat([ir, iz, inn, torch.zeros_like(inn)], 1),
                            torch.cat([hr, hz, torch.zeros_like(hn), hn], 1)], 2).transpose(1, 2)
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


_LANES = 16  # gru.c takes sizes in multiples of its widest vector


class _Frames(ctypes.Structure):  # this and the two below: as in gru.c
    _fields_ = [("data", ctypes.c_void_p)] + [(axis, ctypes.c_int64) for axis in "gbtk"]


class _Weights(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


class _Shape(ctypes.Structure):
    _fields_ = [(size, ctypes.c_int64) for size in "GBTKIH"]
    _fields_ += [("reverse", ctypes.c_char_p), ("h0", ctypes.c_void_p)]


def _run(x: Tensor, h: Tensor, weights: list[Tensor], reverse: bytes) -> tuple[Tensor, Tensor]:
    """y and the last state by gru.c, from dense operands."""
    _, b, t, k, _ = x.shape
    g, n = len(reverse), h.shape[-1]
    shared = x.shape[0] != g
    y = x.new_empty(b, t, k, g, n).permute(3, 0, 1, 2, 4) if shared else x.new_empty(g, b, t, k, n)
    last = torch.empty_like(h)
    _call(_kernel.setk_gru_forward, _shape(x, h, reverse), _weights(weights), _frames(x, g), _frames(y, g),
          last.data_ptr())
    return y, last


class _Kernel(torch.autograd.Function):
    """gru.c with its gradient. Only inputs and outputs are kept for it; the gates are computed again."""

    @staticmethod
    def forward(ctx, x, h, reverse, *weights):
        y, last = _run(x, h, weights, reverse)
        ctx.save_for_backward(x, h, y, *weights)
        ctx.reverse = reverse
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dlast):
        x, h, y, *weights = ctx.saved_tensors
        g = len(ctx.reverse)
        dy, dx = _dense_rows(dy), x.new_empty(x.shape)
        dh = dlast.clone(memory_format=torch.contiguous_format)
        dw = [torch.zeros_like(p) for p in weights]
        _call(_kernel.setk_gru_backward, _shape(x, h, ctx.reverse), _weights(weights), _frames(x, g),
              _frames(y, g), _frames(dy, g), _frames(dx, g), dh.data_ptr(), _weights(dw))
        return dx, dh, None, *dw


def _dense_rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _shape(x: Tensor, h: Tensor, reverse: bytes):
    return ctypes.byref(_Shape(len(reverse), *x.shape[1:], h.shape[-1], reverse, h.data_ptr()))


def _frames(x: Tensor, groups: int):
    """Where the frames of [groups or 1, B, T, K, ...] lie; a single group is read by all."""
    strides = x.stride()
    return ctypes.byref(_Frames(x.data_ptr(), strides[0] if x.shape[0] == groups else 0, *strides[1:4]))


def _weights(weights: list[Tensor]):
    return ctypes.byref(_Weights(*(p.data_ptr() for p in weights)))


def _call(function, *arguments) -> None:
    if function(*arguments) != 0:
        raise MemoryError("no memory for the buffers of the GRU kernel")


def _load():
    """gru.c, or None where it was not built."""
    library = kernel.load("gru")
    if library is None:
        return None
    pointer = ctypes.c_void_p
    library.setk_gru_forward.argtypes = [pointer] * 5
    library.setk_gru_backward.argtypes = [pointer] * 8
    return library


_kernel = _load()


def kernel_available() -> bool:
    """Whether the compiled CPU kernel was built and loaded."""
    return _kernel is not None
