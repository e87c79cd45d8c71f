"""Operators of ONNX that only move elements, as NumPy's on arrays of numbers or of addresses."""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np

from setk.native.reader import Node

OPERATORS = {
    "Reshape",
    "Transpose",
    "Slice",
    "Split",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Identity",
    "Cast",
    "Gather",
    "Expand",
}


def apply(node: Node, x: np.ndarray, constants: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What an operator that only moves elements makes of x, numbers or addresses: an array for each output."""
    at = node.attributes

    def ints(index: int, default: Any = None) -> Any:
        name = node.inputs[index] if index < len(node.inputs) else ""
        return constants[name].ravel().tolist() if name else default

    if node.op in ("Identity", "Cast"):
        return [x]
    if node.op == "Reshape":
        shape = [x.shape[i] if n == 0 and not at.get("allowzero") else n for i, n in enumerate(ints(1))]
        return [x.reshape(shape)]
    if node.op == "Flatten":
        return [x.reshape(int(np.prod(x.shape[: at.get("axis", 1)])), -1)]
    if node.op == "Transpose":
        return [x.transpose(at.get("perm"))]
    if node.op == "Squeeze":
        axes = ints(1)
        return [x.squeeze(None if axes is None else tuple(axes))]
    if node.op == "Unsqueeze":
        return [np.expand_dims(x, tuple(ints(1)))]
    if node.op == "Expand":
        return [np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(ints(1))))]
    if node.op == "Slice":
        starts, ends = ints(1), ints(2)
        axes, steps = ints(3, range(len(starts))), ints(4, [1] * len(starts))
        cut = [slice(None)] * x.ndim
        for axis, start, end, step in zip(axes, starts, ends, steps):
            cut[axis] = slice(start, end, step)
        return [x[tuple(cut)]]
    if node.op == "Split":
        axis = at.get("axis", 0)
        sizes = ints(1, [x.shape[axis] // len(node.outputs)] * len(node.outputs))
        return np.split(x, np.cumsum(sizes)[:-1], axis)
    if node.op == "Gather":
        return [np.take(x, constants[node.inputs[1]], at.get("axis", 0))]
    raise ValueError(f"{node.op} does not only move elements")
