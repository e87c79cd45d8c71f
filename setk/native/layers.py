"""Layers as rows of the program: convolutions, recurrent layers, norms, softmax, tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

import numpy as np

from setk.native import cells
from setk.native.elementwise import apply, immediate
from setk.native.places import PANEL, ZERO, Memory, Read, Unsupported, Write, affine, materialise
from setk.native.reductions import dense
from setk.native.products import product, strided


def take(memory: Memory, table: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Addresses of table[index], [n] by computed indices of any shape."""
    parts = []
    for x in (table, index.ravel()):
        found = affine(x)
        if found is None:
            found = affine(materialise(memory, x))
        parts.append(found)
    (at, (stride,)), (by, (step,)) = parts
    out = memory.new(index.shape)
    memory.add("TAKE", index.size, table.size, Read(at), stride, Read(by), step, Write(int(out.flat[0])))
    return out


def pad(x: np.ndarray, before: Sequence[int], after: Sequence[int]) -> np.ndarray:
    """Addresses with ZERO around them."""
    return np.pad(x, list(zip(before, after)), constant_values=ZERO)


def _rows(memory: Memory, x: np.ndarray, n: int) -> tuple[int, int, np.ndarray]:
    """(address, stride from row to row, addresses) of x [rows, n], copied if its rows have gaps."""
    found = affine(x)
    if found is None or n > 1 and found[1][1] != 1:
        x = materialise(memory, x)
        found = affine(x)
    return found[0], found[1][0], x


def normalise(
    memory: Memory, x: np.ndarray, gain: np.ndarray, offset: np.ndarray, epsilon: float, residual: np.ndarray | None
) -> np.ndarray:
    """Addresses of the layer norm of x over the axes of `gain`, plus `residual` if there is one."""
    n = gain.size
    at, stride, _ = _rows(memory, x.reshape(-1, n), n)
    added = (-1, 0) if residual is None else _rows(memory, residual.reshape(-1, n), n)[:2]
    out = memory.new((x.size // n, n))
    found = affine(out)
    memory.add(
        "NORMALISE",
        x.size // n,
        n,
        immediate(epsilon),
        Read(at),
        stride,
        Read(_per_channel(memory, gain)),
        Read(_per_channel(memory, offset)),
        -1 if residual is None else Read(added[0]),
        added[1],
        Write(found[0]),
        found[1][0],
    )
    return out.reshape(x.shape)


def _per_channel(memory: Memory, x: np.ndarray) -> int:
    """The address of the gain or offset of a norm in a row. One of several positions [..., channels] counts as weights."""
    buffer = memory.of(x.flat[0])
    if x.ndim < 2 or buffer.kind != "constant" or not np.array_equal(x.ravel(), buffer.base + np.arange(buffer.size)):
        return dense(memory, x)
    return int(memory.constant(buffer.data, (buffer.size, x.shape[-1])).flat[0])


def gates(memory: Memory, operands: Sequence[np.ndarray]) -> np.ndarray:
    """Addresses of h' = n + z (h - n), n = tanh(x + r y), from what goes into the sigmoids of r and z, and x, y and h, [..., H]."""
    shape = operands[0].shape
    arguments: list[Any] = []
    for x in operands:
        at, stride, _ = _rows(memory, x.reshape(-1, shape[-1]), shape[-1])
        arguments += [Read(at), stride]
    out = memory.new((int(np.prod(shape[:-1])), shape[-1]))
    at, (stride, _) = affine(out)
    memory.add("GATES", len(out), shape[-1], *arguments, Write(at), stride)
    cells.join(memory)
    return out.reshape(shape)


def convolve(
    memory: Memory, x: np.ndarray, weights: np.ndarray, bias: np.ndarray, attributes: dict[str, Any], apart: bool = True
) -> np.ndarray:
    """Addresses [1, N, *out] of a convolution of x [1, C, *in] with weights [N, C / group, *kernel]. `apart`: x may be copied to where
    there can be zeros next to it."""
    if len(x) > 1:
        return np.concatenate([convolve(memory, each[None], weights, bias, attributes) for each in x])
    n, group, rank = len(weights), attributes.get("group", 1), weights.ndim - 2
    pads = attributes.get("pads", [0] * 2 * rank)
    stride, dilation = attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank)
    reach = [(k - 1) * d + 1 for k, d in zip(weights.shape[2:], dilation)]
    padded = pad(x[0], [0, *pads[:rank]], [0, *pads[rank:]])
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, tuple(range(1, rank + 1)))
    windows = windows[(slice(None), *(slice(None, None, s) for s in stride), *(slice(None, None, d) for d in dilation))]
    size = windows.shape[1 : 1 + rank]
    if group == 1:
        columns = np.moveaxis(windows, 0, rank).reshape(1, int(np.prod(size)), -1)
        if apart and not strided(memory, columns):
            channels_last = materialise(memory, x[0], [*range(1, rank + 1), 0])[None]
            return convolve(memory, channels_last, weights, bias, attributes, apart=False)
        y = product(memory, columns, np.ascontiguousarray(weights.reshape(n, -1).T)[None], bias)
        return np.moveaxis(y.reshape(*size, n), -1, 0)[None]
    if group != len(padded) or n != group:
        parts = zip(np.split(x, group, 1), np.split(weights, group), np.split(bias, group))
        return np.concatenate([convolve(memory, *part, {**attributes, "group": 1}) for part in parts], 1)
    return _by_taps(memory, windows.reshape(n, *size, -1), weights.reshape(n, -1), bias)[None]


def _by_taps(memory: Memory, windows: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Depthwise: windows [N, *out, taps], a sum of taps. For few positions: each tap is a row of the program."""
    ones = (-1, *(1,) * (windows.ndim - 2))
    y = memory.constant(bias).reshape(ones)
    for tap in range(windows.shape[-1]):
        y = apply(memory, "MULADD", [windows[..., tap], memory.constant(weights[:, tap]).reshape(ones), y])
    return y


@dataclass(frozen=True)
class Ring:
    """A state [1, C, T, F] of the last T rows that a depthwise convolution reads: `slots` are addresses
    [T, C / 16, F, 16], the oldest at the number that lies at `counter`."""

    slots: np.ndarray
    counter: int


def ring(memory: Memory, shape: Sequence[int]) -> Ring:
    """A new ring, of zeros, for a state of this shape."""
    slots = memory.new((shape[2], -(-shape[1] // PANEL), shape[3], PANEL), kind="state")
    return Ring(slots, memory.buffer("state", 1).base)


def depthwise(
    memory: Memory, past: Ring, newest: np.ndarray, weights: np.ndarray, bias: np.ndarray, attributes: dict[str, Any]
) -> np.ndarray:
    """Addresses [1, C, 1, F] of a depthwise convolution with weights [C, 1, T + 1, K] of the past and the newest row [1, C, 1, F],
    which becomes part of the past."""
    channels, _, rows, taps = weights.shape
    columns, pads = newest.shape[3], attributes.get("pads", [0] * 4)
    if (
        {*attributes.get("strides", [1]), *attributes.get("dilations", [1])} != {1}
        or pads[0]
        or pads[2]
        or pads[1] + pads[3] != taps - 1
    ):
        raise Unsupported("depthwise Conv with strides, dilation or a change of length")
    at, step, _ = _rows(memory, newest[0, :, 0].T, channels)
    padded = np.zeros((rows, taps, -(-channels // PANEL) * PANEL), np.float32)
    padded[..., :channels] = weights[:, 0].transpose(1, 2, 0)
    first, (slot, panel, *_) = affine(past.slots)
    out = memory.new((columns, channels))
    found = affine(out)
    memory.add(
        "DEPTHWISE",
        channels,
        columns,
        rows,
        taps,
        pads[1],
        Read(int(memory.constant(padded).flat[0])),
        Read(dense(memory, memory.constant(bias))),
        padded.shape[2],
        Write(found[0]),
        found[1][0],
        Read(past.counter),
        Read(first),
        slot,
        panel,
        Read(at),
        step,
    )
    return out.T[None, :, None]


def push(memory: Memory, past: Ring, newest: np.ndarray) -> None:
    """The row that makes the newest [1, C, 1, F] part of the past."""
    _, channels, _, columns = newest.shape
    at, step, _ = _rows(memory, newest[0, :, 0].T, channels)
    first, (slot, panel, *_) = affine(past.slots)
    memory.add(
        "PUSH", columns, channels, len(past.slots), Write(past.counter), Write(first), slot, panel, Read(at), step
    )


def convolve_transposed(
    memory: Memory, x: np.ndarray, weights: np.ndarray, bias: np.ndarray, attributes: dict[str, Any], apart: bool = True
) -> np.ndarray:
    """Addresses [1, N, out] of a transposed convolution of x [1, C, L] with weights [C, N, k]. With stride s, a row of the product
    computes s positions that follow each other, from the same inputs."""
    stride, (before, after) = attributes.get("strides", [1])[0], attributes.get("pads", [0, 0])
    c, n, k = weights.shape
    length = x.shape[2]
    total = (length - 1) * stride + k - before - after + attributes.get("output_padding", [0])[0]
    first, last = -((k - 1 - before) // stride), (stride - 1 + before) // stride
    rows = -(-total // stride)
    left, right = max(0, -first), max(0, rows + last - length)
    padded = pad(x[0].T, [left, 0], [right, 0])  # [left + L + right, C]
    at = np.arange(rows)[:, None] + np.arange(first, last + 1) + left
    kernel = np.zeros((last - first + 1, c, stride, n), np.float32)
    for d in range(first, last + 1):
        for phase in range(stride):
            tap = phase + before - stride * d
            if 0 <= tap < k:
                kernel[d - first, :, phase] = weights[:, :, tap]
    columns = padded[at].reshape(1, rows, -1)
    if apart and not strided(memory, columns):
        return convolve_transposed(
            memory, materialise(memory, x[0], [1, 0])[None], weights, bias, attributes, apart=False
        )
    y = product(memory, columns, kernel.reshape(1, -1, stride * n), np.tile(bias, stride))
    return y.reshape(rows * stride, n)[:total].T[None]


def convolve_transposed_rows(
    memory: Memory, x: np.ndarray, weights: np.ndarray, bias: np.ndarray, attributes: dict[str, Any]
) -> np.ndarray:
    """The same in two dimensions, x [B, C, T, L] and weights [C, N, R, k], where T has stride 1: each row of the output is one
    transposed convolution of the rows of x that reach it, side by side."""
    if len(x) > 1:
        return np.concatenate([convolve_transposed_rows(memory, each[None], weights, bias, attributes) for each in x])
    pads, rows, taps = attributes.get("pads", [0] * 4), x.shape[2], weights.shape[2]
    if attributes.get("strides", [1, 1])[0] != 1 or pads[0] or pads[2] or set(attributes.get("dilations", [1])) != {1}:
        raise Unsupported("ConvTranspose with strides, padding or dilation along its first axis")
    along = {
        "strides": attributes.get("strides", [1, 1])[1:],
        "pads": [pads[1], pads[3]],
        "output_padding": attributes.get("output_padding", [0, 0])[1:],
    }
    found = []
    for t in range(rows + taps - 1):
        pairs = [(t - tap, tap) for tap in range(taps) if 0 <= t - tap < rows]
        inputs = np.concatenate([x[:, :, row] for row, _ in pairs], 1)
        found.append(
            convolve_transposed(memory, inputs, np.concatenate([weights[:, :, tap] for _, tap in pairs]), bias, along)
        )
    return np.stack(found, 2)


def gru(
    memory: Memory, x: np.ndarray, w: np.ndarray, r: np.ndarray, b: np.ndarray, start: np.ndarray | None, direction: str
) -> tuple[np.ndarray, np.ndarray]:
    """Addresses of Y [T, D, 1, H] and of the last states [D, 1, H] of ONNX's GRU (linear_before_reset), x [T, 1, I]. Gates are
    ordered z, r, n in the file and r, z, n here."""
    directions, steps, units = len(w), len(x), r.shape[2]
    padded = -(-units // PANEL) * PANEL
    w, r = (m.reshape(directions, 3, units, -1)[:, [1, 0, 2]] for m in (w, r))
    wb, rb = b.reshape(directions, 2, 3, units)[:, :, [1, 0, 2]].swapaxes(0, 1)
    if start is not None and steps == directions == 1:
        columns = np.zeros((x.shape[2] + units, 4, padded), np.float32)
        columns[: x.shape[2], :3, :units] = w[0].transpose(2, 0, 1)
        columns[x.shape[2] :, :2, :units] = r[0, :2].transpose(2, 0, 1)
        columns[x.shape[2] :, 3, :units] = r[0, 2].T
        bias = np.zeros((4, padded), np.float32)
        bias[:2, :units], bias[2, :units], bias[3, :units] = wb[0, :2] + rb[0, :2], wb[0, 2], rb[0, 2]
        both = np.concatenate([x[0], start[0]], 1)[None]
        y = product(memory, both, columns.reshape(1, -1, 4 * padded), bias.ravel()).reshape(4, padded)[:, :units]
        h = gates(memory, [*y, start.ravel()])
        return h.reshape(1, 1, 1, units), h.reshape(1, 1, units)
    if start is not None:
        raise Unsupported("GRU over several steps that starts from a state")
    columns, bias = (
        np.zeros((x.shape[2], directions, 3, padded), np.float32),
        np.zeros((directions, 3, padded), np.float32),
    )
    columns[..., :units] = w.transpose(3, 0, 1, 2)
    bias[:, :, :units] = wb
    bias[:, :2, :units] += rb[:, :2]
    inputs = product(memory, x.swapaxes(0, 1), columns.reshape(1, x.shape[2], -1), bias.ravel(), rows=True)
    at, (_, x_step, _) = affine(inputs)
    recurrent, offset = (
        np.zeros((directions, -(-units // 4) * 4, 3, padded), np.float32),
        np.zeros((directions, padded), np.float32),
    )
    recurrent[:, :units, :, :units] = r.transpose(0, 3, 1, 2)
    offset[:, :units] = rb[:, 2]
    out, h = memory.new((steps, directions * units)), memory.new((2 * directions * padded,))
    reverse = {"forward": 0, "reverse": 1, "bidirectional": 2}[direction]
    memory.add(
        "SCAN",
        steps,
        directions,
        units,
        padded,
        reverse,
        Read(at),
        x_step,
        3 * padded,
        Read(int(memory.constant(recurrent, (recurrent[0].size, 3 * padded)).flat[0])),
        recurrent[0].size,
        Read(int(memory.constant(offset).flat[0])),
        Write(int(out.flat[0])),
        affine(out)[1][0],
        units,
        Write(int(h[0])),
    )
    y = out.reshape(steps, directions, 1, units)
    ends = [y[0 if direction == "reverse" or d else -1, d] for d in range(directions)]
    return y, np.stack(ends)


def lstm(
    memory: Memory, x: np.ndarray, w: np.ndarray, r: np.ndarray, b: np.ndarray, h: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Addresses of Y [1, 1, B, H] and of both states [1, B, H] after one step of ONNX's LSTM, x [1, B, I], gates i, o, f, c."""
    if len(x) != 1:
        raise Unsupported("LSTM over several steps")
    units = r.shape[2]
    padded = -(-units // PANEL) * PANEL
    columns, bias = np.zeros((x.shape[2] + units, 4, padded), np.float32), np.zeros((4, padded), np.float32)
    columns[:, :, :units] = np.concatenate([w, r], 2)[0].reshape(4, units, -1).transpose(2, 0, 1)
    bias[:, :units] = b.reshape(2, 4, units).sum(0)
    both = np.concatenate([x[0], h[0]], 1)[None]
    y = product(memory, both, columns.reshape(1, -1, 4 * padded), bias.ravel())[0].reshape(-1, 4, padded)
    i, o, f = np.moveaxis(apply(memory, "SIGMOID", [y[:, :3]])[..., :units], 1, 0)
    g = apply(memory, "TANH", [y[:, 3, :units]])
    kept = apply(memory, "MUL", [f, c[0]])
    c = apply(memory, "MULADD", [i, g, kept])
    h = apply(memory, "MUL", [o, apply(memory, "TANH", [c])])
    return h[None, None], h[None], c[None]
