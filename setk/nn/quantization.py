"""Eight-bit arithmetic, simulated in floating point: what quantization-aware training adds to a model.

`quantize(model, scheme)` puts a quantizer on every weight and behind every operation whose result an integer machine would
store: convolutions, linear layers, norms, and the sums and products that a model names by the modules below. A quantizer
rounds to 256 levels; its gradient goes straight through the rounding and stops where it clips. Two methods, after FQSE
(Cohen, Habi, Netzer 2024) and the plain training that it compares with:

  vanilla   ranges stay where they were observed
  fqse      ranges are parameters and learn with the rest (in LSQ's manner, Esser et al. 2020)

Activations: one range [lo, hi] for a tensor, unsigned 8 bits. lo is at most 0 and hi at least 0, and both are moved so that 0
is one of the levels; thus what is trained is what an integer runtime computes. Weights: signed 8 bits and one range for each
output channel, symmetric; the peak of a channel, code 128, saturates at 127. Biases, norms inside, slopes and the states and
gates of recurrent layers stay in floating point.

Nothing is rounded while ranges are observed: in the first `observe` calls in training mode, which count across a resume.
Weights' ranges are those of the weights that a model has when it is quantized.

On the meta device, where tensors have no data, quantizers do nothing. Exported, they become the framework's own fake
quantization, of which exporters make QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from setk.core.errors import UserError
from setk.nn.gru import GroupedGRU
from setk.nn.matrices import NORMS, matrices

METHODS = ("vanilla", "fqse")
MEMORY = 0.9  # of the mean of observed extremes
LEAST = 2.0**-60  # of a scale: all that it divides is zero


@dataclass(frozen=True)
class Scheme:
    method: str = "fqse"  # or vanilla
    observe: int = 50  # calls in which ranges are observed

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"quantization: method '{self.method}' is unknown; known: {', '.join(METHODS)}")
        if self.observe < 1:
            raise UserError(f"quantization: observe {self.observe}: 1 or more")


class Add(nn.Module):
    """a + b as a module, so that the sum is quantized."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Subtract(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


class Multiply(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class Signal(nn.Module):
    """A tensor that is quantized, though no operation of this list makes it; `range`, if given, is the one it has."""

    def __init__(self, range: tuple[float, float] | None = None):
        super().__init__()
        self.range = range

    def forward(self, x: Tensor) -> Tensor:
        return x


class ActivationQuantizer(nn.Module):
    """One range for a tensor of any shape, unsigned 8 bits. `seen` counts the calls that were observed."""

    def __init__(self, scheme: Scheme, range: tuple[float, float] | None = None):
        super().__init__()
        self.observe = 0 if range else scheme.observe
        lo, hi = (torch.tensor(x) for x in range or (0.0, 0.0))
        if scheme.method == "fqse" and not range:
            self.lo, self.hi = nn.Parameter(lo), nn.Parameter(hi)
        else:
            self.register_buffer("lo", lo)
            self.register_buffer("hi", hi)
        self.register_buffer("seen", torch.tensor(0))

    def extra_repr(self) -> str:
        return f"lo={float(self.lo):.4g}, hi={float(self.hi):.4g}, seen={int(self.seen)} of {self.observe}"

    def grid(self) -> tuple[Tensor, Tensor]:
        """The scale, float32, and the code of 0, int32 in 0 ... 255."""
        lo, hi = self.lo.detach().clamp(max=0), self.hi.detach().clamp(min=0)
        scale = ((hi - lo) / 255).clamp(min=LEAST)
        return scale, torch.round(-lo / scale).clamp(0, 255).int()

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta:
            return x
        if self.seen < self.observe:
            if not self.training:
                return x
            self._follow(x)
            return _Untouched.apply(x, self.lo, self.hi)
        scale, zero = (t.item() for t in self.grid())
        return _RoundActivation.apply(x, self.lo, self.hi, scale, zero)

    def export_forward(self, x: Tensor) -> Tensor:
        if self.seen < self.observe:
            return x
        scale, zero = (t.item() for t in self.grid())
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        """Take the extremes of x into the range; those of all ranks, so that their ranges are one."""
        found = torch.stack([-x.amin(), x.amax()]).float()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        if found.isfinite().all():  # a batch that is skipped must leave nothing behind
            part = 1 - MEMORY if self.seen else 1.0
            self.lo.lerp_(-found[0], part)
            self.hi.lerp_(found[1], part)
            self.seen += 1

    def after(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        """The forward hook of the module whose output is quantized."""
        return self(output)


class WeightQuantizer(nn.Module):
    """A range -peak ... peak for each output channel of a weight, signed 8 bits; a parametrization of it.

    `dims` are those of the channels: one, or the first few, where channels are of groups. `shape` is the weight's with ones
    for the others; peaks lie flat, [C].
    """

    def __init__(self, weight: Tensor, dims: tuple[int, ...], scheme: Scheme):
        super().__init__()
        self.dims, self.shape = dims, tuple(n if d in dims else 1 for d, n in enumerate(weight.shape))
        peak = weight.detach().abs().amax([d for d in range(weight.dim()) if d not in dims]).flatten()
        if scheme.method == "fqse":
            self.peak = nn.Parameter(peak)
        else:
            self.register_buffer("peak", peak)

    def grid(self) -> Tensor:
        """The scale of each channel [C]; its 0 is code 0."""
        return (self.peak.abs() / 128).clamp(min=LEAST)

    def codes(self, weight: Tensor) -> Tensor:
        """The integers -128 ... 127 that represent `weight`, int8 of its shape."""
        return torch.round(weight / self.grid().view(self.shape)).clamp(-128, 127).to(torch.int8)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.is_meta:
            return weight
        return _RoundWeight.apply(weight, self.grid().view(self.shape))

    def export_forward(self, weight: Tensor) -> Tensor:
        scale = self.grid().detach()
        zero = torch.zeros_like(scale, dtype=torch.int32)
        flat = weight.flatten(0, self.dims[-1]) if len(self.dims) > 1 else weight
        axis = 0 if len(self.dims) > 1 else self.dims[0]
        return torch.fake_quantize_per_channel_affine(flat, scale, zero, axis, -128, 127).view(weight.shape)


class _Untouched(torch.autograd.Function):
    """x as it is. The range gets a gradient of zero: distributed training waits for one of every parameter."""

    @staticmethod
    def forward(ctx, x: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        zero = dy.new_zeros(())
        return dy, *(zero if needed else None for needed in ctx.needs_input_grad[1:])


class _RoundActivation(torch.autograd.Function):
    """x to the nearest of 256 levels, `zero` being the code of 0.

    Gradients, with u = x / scale + zero and c the code of the result: inside the range 1 to x, (c - u) / 255 to hi and
    (u - c) / 255 to lo; outside it 1 to the limit that was passed. They come by way of the scale and of what is outside.
    """

    @staticmethod
    def forward(ctx, x: Tensor, lo: Tensor, hi: Tensor, scale: float, zero: int) -> Tensor:
        y = (x / scale).round_().clamp_(-zero, 255 - zero).mul_(scale)
        ctx.save_for_backward(x, y if ctx.needs_input_grad[1] else None)
        ctx.grid = scale, zero
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x, y), (scale, zero) = ctx.saved_tensors, ctx.grid
        dx = torch.ops.aten.hardtanh_backward(dy, x, (-zero - 0.5) * scale, (255.5 - zero) * scale)
        if y is None:
            return dx, None, None, None, None
        outside = dy.sum() - dx.sum()
        dscale = (dy * y).addcmul_(dx, x, value=-1).sum() / scale
        dhi = (dscale + zero * outside) / 255
        return dx, outside - dhi, dhi, None, None


class _RoundWeight(torch.autograd.Function):
    """A weight to the nearest of its channel's levels; the scale broadcasts. With u = weight / scale and c the code, the
    gradient is 1 to the weight and c - u to the scale inside -128 ... 127, and 0 and c where it is clipped."""

    @staticmethod
    def forward(ctx, weight: Tensor, scale: Tensor) -> Tensor:
        u = weight / scale
        c = u.round().clamp_(-128, 127)
        ctx.save_for_backward(u, c, scale)
        return c * scale

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor | None]:
        u, c, scale = ctx.saved_tensors
        dw = torch.ops.aten.hardtanh_backward(dy, u, -128.5, 127.5)
        return dw, (dy * c - dw * u).sum_to_size(scale.shape) if ctx.needs_input_grad[1] else None


_ACTIVATIONS = nn.PReLU, nn.ReLU, nn.ELU, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh
_NAMED = Add, Subtract, Multiply, Signal
_RECURRENT = nn.RNNBase, nn.RNNCellBase, GroupedGRU


def quantize(model: nn.Module, scheme: Scheme) -> nn.Module:
    """Insert quantizers into a setk Model, in place, and say so in its `quantization`.

    A convolution or linear layer that an nn.Sequential continues by BatchNorm or an activation is quantized after that, once.
    `model.bare` names the modules whose outputs stay as they are. The activations' quantizers lie in
    `model.activation_quantizers` by the path of the module behind which they stand, "/" for ".".
    """
    weighted = [(path, module, found) for path, module in model.named_modules() if (found := list(matrices(module)))]
    behind = _outputs(model, {path for path, _, _ in weighted})
    for _, module, found in weighted:
        for matrix in found:
            quantizer = WeightQuantizer(matrix.parameter, matrix.channels, scheme)
            parametrize.register_parametrization(module, matrix.attribute, quantizer)
        if isinstance(module, nn.RNNBase):
            module.register_forward_pre_hook(_use_weights)
    quantizers = nn.ModuleDict()
    for path in behind:
        module = model.get_submodule(path)
        quantizers[path.replace(".", "/")] = quantizer = ActivationQuantizer(scheme, getattr(module, "range", None))
        module.register_forward_hook(quantizer.after)
    model.activation_quantizers, model.quantization = quantizers.to(next(model.parameters()).device), scheme
    return model


def unquantized(model: nn.Module) -> nn.Module:
    """A setk Model in floating point with the rounded weights of a quantized one; one that is not quantized is given back."""
    if model.quantization is None:
        return model
    plain = type(model)(model.config)
    plain.load_state_dict({name: reduce(getattr, name.split("."), model) for name in plain.state_dict()})
    return plain.train(model.training)


def _outputs(model: nn.Module, weighted: set[str]) -> list[str]:
    """Paths of the modules whose outputs are quantized, in the model's order."""
    fused = set(model.bare)
    for path, module in model.named_modules():
        if isinstance(module, nn.Sequential):
            steps = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
            for (first, a), (_, b) in zip(steps, steps[1:]):
                if isinstance(b, (_BatchNorm, *_ACTIVATIONS)) and (first in weighted or isinstance(a, _BatchNorm)):
                    fused.add(first)
    kinds = (*NORMS, *_ACTIVATIONS, *_NAMED)
    return [
        path
        for path, module in model.named_modules()
        if path not in fused and not isinstance(module, _RECURRENT) and (path in weighted or isinstance(module, kinds))
    ]


def _use_weights(module: nn.RNNBase, args: tuple) -> None:
    """torch's recurrent layers keep a list of their weights, which would be the unquantized ones."""
    module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
