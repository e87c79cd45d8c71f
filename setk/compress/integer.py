"""The int8 file of a Conv-TasNet computed by integers alone: what a machine without floating point would do.

From the quantizer of the input to that of the output every tensor is of integers. What is real-valued in the file (scales,
gains, offsets, slopes) is constant, and becomes integer multipliers and shifts before the first sample. Convolutions add up
in int32, as ONNX Runtime's do, to the last bit. An accumulator becomes 8 bits by a multiplication, an addition and a shift
(Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018, section
2.2); the runtime does that in float32, so that codes may differ by one where rounding decides. gLN is of integer sums and an
integer reciprocal square root.

The splitter before, and the combiner after the network, are what an application has around it, and stay in floating point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping

import numpy as np
import onnx
from onnx import NodeProto

from setk.export.onnx_int8 import Graph, attribute
from setk.engines import OnnxEngine
from setk.core.errors import UserError

MULTIPLIER = 22  # bits of a multiplier, so that its product with 40 bits stays within 63
SUM = 20  # bits below the coarser of two scales that their sum is kept with
NORM = 16  # fractional bits of a normalised value
SLOPE = 14  # of PReLU's slope
LONGEST = 48  # shift; what is smaller rounds to nothing


@dataclass(frozen=True)
class Fixed:
    """Real numbers as integers: codes * scale + offset, with codes of int32 or int64, scale and offset known beforehand."""

    codes: np.ndarray
    scale: np.ndarray | float = 1.0
    offset: np.ndarray | float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    def value(self) -> np.ndarray:
        return (self.codes * np.float64(self.scale) + self.offset).astype(np.float32)

    def __mul__(self, other: Fixed | np.ndarray) -> Fixed:
        if isinstance(other, Fixed):
            return Fixed(self.codes.astype(np.int64) * other.codes, self.scale * other.scale)
        factor = other.astype(np.float64)
        return Fixed(self.codes, self.scale * factor, self.offset * factor)

    def __add__(self, other: Fixed | np.ndarray) -> Fixed:
        if not isinstance(other, Fixed):
            return Fixed(self.codes, self.scale, self.offset + other.astype(np.float64))
        scale = np.maximum(np.abs(self.scale), np.abs(other.scale)) * 2.0**-SUM
        codes = sum(x.codes.astype(np.int64) * np.rint(x.scale / scale).astype(np.int64) for x in (self, other))
        return Fixed(codes, scale, self.offset + other.offset)

    def __sub__(self, other: Fixed) -> Fixed:
        return self + Fixed(-other.codes, other.scale, -other.offset)

    __radd__, __rmul__, __array_ufunc__ = __add__, __mul__, None  # a constant may come first

    def requantized(self, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """uint8 codes of the nearest multiples of `scale`, `zero` being the code of 0."""
        ratio = np.float64(self.scale) / np.float64(scale)
        shift = np.clip(MULTIPLIER - np.frexp(ratio)[1], 1, LONGEST).astype(np.int64)
        multiplier = np.rint(ratio * 2.0**shift).astype(np.int64)
        half = np.rint((np.float64(self.offset) / scale + 0.5) * 2.0**shift).astype(np.int64)
        codes = (self.codes.astype(np.int64) * multiplier + half) >> shift
        return np.clip(codes + int(zero), 0, 255).astype(np.uint8)


class Reference:
    """An int8 ONNX file of se-quant export as a program of integers. Raises UserError if it has operators that are not part
    of a Conv-TasNet."""

    def __init__(self, path: Path):
        graph = Graph(onnx.load(path).graph)
        self.nodes, self.constants = graph.nodes, graph.constants
        unknown = {node.op_type for node in self.nodes} - {*OPERATORS}
        if unknown:
            raise UserError(f"{path}: the integer reference knows Conv-TasNet, but not {', '.join(sorted(unknown))}")

    def run(self, frames: np.ndarray, seen: Callable[[str, np.ndarray], np.ndarray] | None = None) -> np.ndarray:
        """[B, T, *shape] to as many. `seen` is given name and codes of every 8-bit tensor, and returns those to go on with."""
        values: dict[str, Any] = {**self.constants, "frames": frames, "": None}
        for node in self.nodes:
            inputs = [values[name] for name in node.input]
            if any(_is_real(x) and name not in self.constants for x, name in zip(inputs, node.input)):
                inputs = [x.value() if isinstance(x, Fixed) else x for x in inputs]
            outputs = OPERATORS[node.op_type](node, *inputs)
            for name, output in zip(node.output, outputs if isinstance(outputs, list) else [outputs]):
                if seen is not None and isinstance(output, np.ndarray) and output.dtype == np.uint8:
                    output = seen(name, output)
                values[name] = output
        out = values["out"]
        return out.value() if isinstance(out, Fixed) else out


def _is_real(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype == np.float32


class IntegerEngine(OnnxEngine):
    """A file's engine, with the integer reference in the place of ONNX Runtime."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._reference = Reference(path)

    def _whole(self, frames: np.ndarray) -> np.ndarray:
        t = frames.shape[1]
        padded = np.pad(frames, ((0, 0), (0, max(0, 2 - t)), *((0, 0),) * (frames.ndim - 2)))
        return np.concatenate([self._reference.run(one[None]) for one in padded])[:, :t]


def accumulate(node: NodeProto, x: np.ndarray, zero: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """int32 sums of a convolution over uint8 x [B, I, T] with int8 weight [O, I / groups, K], without its bias."""
    stride, dilation = attribute(node, "strides", [1])[0], attribute(node, "dilations", [1])[0]
    x = np.pad(x.astype(np.int32) - np.int32(zero), ((0, 0), (0, 0), tuple(attribute(node, "pads", [0, 0]))))
    weight = weight.astype(np.int32)
    kernel = weight.shape[2]
    count = (x.shape[2] - dilation * (kernel - 1) - 1) // stride + 1
    taps = [x[:, :, k * dilation : k * dilation + stride * (count - 1) + 1 : stride] for k in range(kernel)]
    if weight.shape[1] == 1 < len(weight) == attribute(node, "group", 1):
        return sum(tap * weight[:, 0, k, None] for k, tap in enumerate(taps))
    return sum(weight[:, :, k] @ tap for k, tap in enumerate(taps))


def _qlinear_conv(node: NodeProto, x, x_scale, x_zero, weight, w_scale, w_zero, scale, zero, bias=None) -> np.ndarray:
    sums = accumulate(node, x, x_zero, weight)
    if bias is not None:
        sums = sums + bias[:, None]
    return Fixed(sums, np.float64(x_scale) * w_scale.astype(np.float64)[:, None]).requantized(scale, zero)


def matmul(node: NodeProto, x: np.ndarray, zero: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """int32 sums of uint8 x [B, T, I] by int8 weight [I, O]."""
    return (x.astype(np.int32) - np.int32(zero)) @ weight.astype(np.int32)


def normalise(node: NodeProto, x: Fixed, *_: Any) -> Fixed:
    """(x - mean) / deviation over all of each signal [B, 1, n], from the integers n x - sum and n sum(x^2) - sum^2. The gain of 1
    and bias of 0 that the operator has here come after; its own are those of a group norm of one group."""
    n, eps = x.codes[0].size, attribute(node, "epsilon", 1e-5)
    codes = np.empty(x.shape, np.int64)
    for row, c in zip(codes, x.codes.astype(np.int64)):
        total = int(c.sum())
        spread = n * int((c * c).sum()) - total**2 + round(eps * (n / float(x.scale)) ** 2)
        places = 24 + max(spread, 1).bit_length() // 2
        root = math.isqrt((1 << 2 * places) // max(spread, 1))  # 2^places / sqrt(spread), in 24 bits
        row[:] = ((n * c - total) * root) >> (places - NORM)
    return Fixed(codes, 2.0**-NORM)


def _prelu(node: NodeProto, x: Fixed, slope: np.ndarray) -> Fixed:
    codes = x.codes.astype(np.int64)
    below = codes * np.rint(slope.item() * 2.0**SLOPE).astype(np.int64)
    return Fixed(np.where(codes < 0, below, codes << SLOPE), x.scale * 2.0**-SLOPE)


def _quantize(node: NodeProto, x: Fixed | np.ndarray, scale, zero) -> np.ndarray:
    if isinstance(x, Fixed):
        return x.requantized(scale, zero)
    return np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)  # the input of the network


def _structure(operator: Callable) -> Callable:
    """What only moves numbers about."""

    def apply(node: NodeProto, x, *rest):
        return (
            Fixed(operator(node, x.codes, *rest), x.scale, x.offset)
            if isinstance(x, Fixed)
            else operator(node, x, *rest)
        )

    return apply


def _reshape(node: NodeProto, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape)])


def _slice(node: NodeProto, x: np.ndarray, starts, ends, axes, steps) -> np.ndarray:
    cut = dict(zip(axes.tolist(), map(slice, starts.tolist(), ends.tolist(), steps.tolist())))
    return x[tuple(cut.get(d, slice(None)) for d in range(x.ndim))]


def _pad(node: NodeProto, x: np.ndarray, pads: np.ndarray) -> np.ndarray:
    return np.pad(x, pads.reshape(2, -1).T)


OPERATORS: Mapping[str, Callable] = {
    "QLinearConv": _qlinear_conv,
    "ConvInteger": lambda node, x, weight, zero: accumulate(node, x, zero, weight),
    "MatMulInteger": lambda node, x, weight, zero: matmul(node, x, zero, weight),
    "QuantizeLinear": _quantize,
    "DequantizeLinear": lambda node, x, scale, zero: Fixed(x.astype(np.int32) - np.int32(zero), np.float64(scale)),
    "Cast": lambda node, x: Fixed(x),
    "InstanceNormalization": normalise,
    "PRelu": _prelu,
    "Max": lambda node, a, b: np.maximum(a, b),
    "Min": lambda node, a, b: np.minimum(a, b),
    "Add": lambda node, a, b: a + b,
    "Sub": lambda node, a, b: a - b,
    "Mul": lambda node, a, b: a * b,
    "Div": lambda node, a, b: a / b,
    "Abs": lambda node, x: np.abs(x),
    "Floor": lambda node, x: np.floor(x),
    "Clip": lambda node, x, lo, hi: np.clip(x, lo, hi),
    "ReduceMax": lambda node, x: x.max(tuple(attribute(node, "axes", None)), keepdims=True),
    "Shape": lambda node, x: np.array(x.shape),
    "Gather": lambda node, x, at: np.take(x, at, attribute(node, "axis", 0)),
    "Concat": lambda node, *parts: np.concatenate(parts, attribute(node, "axis", 0)),
    "Unsqueeze": lambda node, x, axes: np.expand_dims(x, tuple(axes.reshape(-1).tolist())),
    "Flatten": lambda node, x: x.reshape(len(x), -1),
    "Reshape": _structure(_reshape),
    "Slice": _structure(_slice),
    "Transpose": _structure(lambda node, x: x.transpose(attribute(node, "perm", None))),
    "Pad": _structure(_pad),
    "Split": lambda node, x: np.split(x, len(node.output), attribute(node, "axis", 0)),
}
