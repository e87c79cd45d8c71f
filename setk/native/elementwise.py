"""Operations on each element of their operands, as rows of the program."""

from __future__ import annotations

import struct
from typing import Sequence

import numpy as np

from setk.native.places import Memory, Read, Write, affine, arrange, boxes, materialise, without_zeros

SCATTERED = 8  # boxes from which on a table of indices costs less than a row for each


def immediate(x: float) -> int:
    """The bits of a float32 as an int32."""
    return struct.unpack("<i", struct.pack("<f", x))[0]


def apply(memory: Memory, function: str, operands: Sequence[np.ndarray], parameter: float = 0.0) -> np.ndarray:
    """Addresses of function(operands...), which broadcast as in NumPy; see map() in kernels.h for the functions."""
    shape = np.broadcast_shapes(*(a.shape for a in operands))
    if 0 in shape:
        return np.zeros(shape, np.int64)
    wide = [np.broadcast_to(without_zeros(memory, a), shape) for a in operands]
    out = memory.new(shape, _order(memory, wide))
    _rows(memory, function, out, wide, parameter)
    return out


def _rows(memory: Memory, function: str, out: np.ndarray, operands: list[np.ndarray], parameter: float) -> None:
    pieces = boxes([out, *operands])
    if len(pieces) > SCATTERED:
        gathered = [a if affine(a) else gather(memory, a) for a in operands]
        if any(a is not b for a, b in zip(gathered, operands)):
            return _rows(memory, function, out, gathered, parameter)
    for box in pieces:
        parts = [a[box] for a in operands]
        for n, (to, step), *sources in arrange([out[box], *parts]):
            if any(stride[2] not in (0, 1) for _, stride in sources):
                order = _order(memory, [out[box]])
                dense = [
                    a if stride[2] in (0, 1) else materialise(memory, a, order)
                    for a, (_, stride) in zip(parts, sources)
                ]
                _rows(memory, function, out[box], dense, parameter)
                break
            arguments = [x for source, stride in sources for x in (Read(source), *stride)]
            source, target = memory.of(sources[0][0]), memory.of(to)
            same = sources[0] == (to - target.base + source.base, step)
            shared = (source.number, target.number) if same and len(pieces) == 1 and source.kind == "scratch" else None
            memory.add("MAP", function, immediate(parameter), *n, Write(to), *step[:2], *arguments, in_place=shared)


def _order(memory: Memory, operands: Sequence[np.ndarray]) -> list[int]:
    """Axes from the widest stride to the narrowest, as the operand with the most elements has them, constants last."""
    strides = [_strides(a) for a in operands]

    def rank(i: int) -> tuple[bool, int]:
        elements = np.prod([n for n, stride in zip(operands[i].shape, strides[i]) if stride])
        return memory.of(int(operands[i].flat[0])).kind == "constant", -int(elements)

    main = strides[min(range(len(operands)), key=rank)]
    return sorted(range(len(main)), key=lambda axis: -main[axis])


def _strides(a: np.ndarray) -> list[int]:
    """Distances of each axis' first two elements."""
    return [abs(int(np.take(a, 1, axis).flat[0]) - int(a.flat[0])) if n > 1 else 0 for axis, n in enumerate(a.shape)]


def gather(memory: Memory, x: np.ndarray) -> np.ndarray:
    """Addresses of a copy of what lies anywhere in one buffer, by a table of indices; x itself if it is in several."""
    base, size = memory.of(int(x.flat[0])), int(x.max() - x.min()) + 1
    if any(memory.of(int(edge)) is not base for edge in (x.min(), x.max())) or size > 1 << 24:
        return x
    out = memory.new(x.shape)
    table = memory.constant(x.ravel() - x.min())
    memory.add("TAKE", x.size, size, Read(int(x.min())), 1, Read(int(table[0])), 1, Write(int(out.flat[0])))
    return out
