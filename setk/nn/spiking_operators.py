"""The layers of setk/nn/spiking.c as operators of torch, with shapes, gradients and autocast.

setk::dense is a product whose order of sums does not depend on the number of rows, setk::leak leaky neurons behind a
depthwise convolution, setk::adaptive adaptive neurons with recurrence.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from setk.nn import kernel
from setk.nn.surrogates import multi_gaussian


def fits(x: Tensor, width: int, *layers: nn.Module) -> bool:
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
def dense(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [..., I], weight [O, I], bias [O] -> [..., O]."""
    x, y = x.contiguous(), x.new_empty(*x.shape[:-1], len(weight))
    kernel.call(
        _kernel.setk_dense, y.numel() // len(weight), x.shape[-1], len(weight), x, weight.t().contiguous(), bias, y
    )
    return y


@dense.register_fake
def _(x, weight, bias):
    return x.new_empty(*x.shape[:-1], len(weight))


def _dense_gradients(ctx, dy):
    x, weight = ctx.saved_tensors
    rows = dy.flatten(0, -2)
    dx = dy @ weight if ctx.needs_input_grad[0] else None
    return dx, rows.t() @ x.flatten(0, -2), rows.sum(0)


dense.register_autograd(_dense_gradients, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:2]))


@torch.library.custom_op("setk::leak", mutates_args=())
def leak(
    x: Tensor, weight: Tensor, bias: Tensor, decay: Tensor, hold: Tensor, v: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """x [B, T + K - 1, H], weight [K, H], bias and decay [H], hold [B, T], v [B, H] -> u [B, T, H], v; p = sigmoid(decay)."""
    x, weight, hold = x.contiguous(), weight.contiguous(), hold.contiguous()
    p, after = torch.sigmoid(decay).contiguous(), v.clone(memory_format=torch.contiguous_format)
    taps, h = weight.shape
    u = x.new_empty(len(x), x.shape[1] - taps + 1, h)
    kernel.call(_kernel.setk_leak_forward, len(x), u.shape[1], taps, h, x, weight, bias, p, threshold, hold, after, u)
    return u, after


@leak.register_fake
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


leak.register_autograd(_leak_gradients, setup_context=_leak_context)


@torch.library.custom_op("setk::adaptive", mutates_args=())
def adaptive(
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


@adaptive.register_fake
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


adaptive.register_autograd(_adaptive_gradients, setup_context=_adaptive_context)
for _op in (dense, leak, adaptive):
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
