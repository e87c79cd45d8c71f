"""The parts of an ONNX file that the generator needs, read without the onnx package, whose import takes half a second.

Format: onnx.proto of https://github.com/onnx/onnx, whose field numbers are below.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from setk.native import protobuf

TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}


@dataclass
class Node:
    """An operation: names of its inputs ("" where one is left out) and outputs, and its attributes."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """Nodes in an order in which they can run; `inputs` and `outputs` by name with their shapes (0 where not fixed)."""

    nodes: list[Node]
    constants: dict[str, np.ndarray]
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    metadata: dict[str, str]


CHECKSUM = "setk_crc32"  # of the metadata of a file: that of its graph and of what se-quant export states of it


def read(path: Path) -> Graph:
    """The graph of an ONNX file. Raises ValueError if the file is damaged."""
    try:
        model = _message(path.read_bytes())
        graph = _message(model[7][0])
        _check(model)
    except (protobuf.Damaged, IndexError, KeyError, struct.error) as e:
        raise ValueError(f"not an ONNX file, or damaged ({e})") from None
    tensors = [_tensor(raw) for raw in graph.get(5, [])]
    return Graph(
        [_node(raw) for raw in graph.get(1, [])],
        dict(tensors),
        dict(_value(raw) for raw in graph.get(11, [])),
        dict(_value(raw) for raw in graph.get(12, [])),
        _properties(model),
    )


def metadata(path: Path) -> dict[str, Any]:
    """The facts that se-quant export stores in a file. Raises ValueError if there are none."""
    try:
        return json.loads(_properties(_message(path.read_bytes()))["setk"])
    except (protobuf.Damaged, IndexError, KeyError) as e:
        raise ValueError(f"not a file of se-quant export ({e})") from None


def checksum(data: bytes) -> str:
    """The CRC-32 of the graph of an ONNX file and of the facts of se-quant export, in hexadecimal."""
    return _checksum(_message(data))


def check(data: bytes) -> None:
    """Raise ValueError if an ONNX file is not as se-quant export wrote it. Files of earlier versions state no checksum."""
    try:
        _check(_message(data))
    except (protobuf.Damaged, IndexError, KeyError) as e:
        raise ValueError(f"damaged ({e})") from None


def _checksum(model: dict[int, list[Any]]) -> str:
    return f"{zlib.crc32(_properties(model).get('setk', '').encode(), zlib.crc32(model[7][0])):08x}"


def _check(model: dict[int, list[Any]]) -> None:
    stated = _properties(model).get(CHECKSUM)
    if stated is not None and stated != _checksum(model):
        raise ValueError("its weights are not those that were written")


def _properties(model: dict[int, list[Any]]) -> dict[str, str]:
    messages = [_message(raw) for raw in model.get(14, [])]
    return {_text(p, 1): _text(p, 2) for p in messages}


def _message(data: bytes) -> dict[int, list[Any]]:
    fields: dict[int, list[Any]] = {}
    for number, value in protobuf.fields(data):
        fields.setdefault(number, []).append(value)
    return fields


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _numbers(values: list[Any]) -> list[int]:
    """A repeated int64, packed or not."""
    found = []
    for value in values:
        if isinstance(value, int):
            found.append(_signed(value))
            continue
        at = 0
        while at < len(value):
            number, at = protobuf.varint(value, at)
            found.append(_signed(number))
    return found


def _text(fields: dict[int, list[Any]], number: int) -> str:
    return fields[number][0].decode() if number in fields else ""


def _tensor(raw: bytes) -> tuple[str, np.ndarray]:
    f = _message(raw)
    dtype, shape = TYPES[f[2][0]], _numbers(f.get(1, []))
    if 9 in f:
        data = np.frombuffer(f[9][0], dtype)
    elif 4 in f:
        data = np.frombuffer(b"".join(f[4]), np.float32)
    else:
        data = np.array(_numbers(f.get(7, f.get(5, []))), dtype)
    return _text(f, 8), data.reshape(shape)


def _attribute(raw: bytes) -> tuple[str, Any]:
    f = _message(raw)
    name = _text(f, 1)
    if 5 in f:
        return name, _tensor(f[5][0])[1]
    if 4 in f:
        return name, f[4][0].decode()
    if 8 in f:
        return name, _numbers(f[8])
    if 2 in f and f.get(20, [1])[0] == 1:
        return name, struct.unpack("<f", f[2][0])[0]
    return name, _signed(f[3][0]) if 3 in f else 0


def _node(raw: bytes) -> Node:
    f = _message(raw)
    return Node(
        _text(f, 4),
        [x.decode() for x in f.get(1, [])],
        [x.decode() for x in f.get(2, [])],
        dict(_attribute(x) for x in f.get(5, [])),
    )


def _value(raw: bytes) -> tuple[str, tuple[int, ...]]:
    f = _message(raw)
    tensor = _message(_message(f[2][0])[1][0])
    dims = [_message(d) for d in _message(tensor[2][0]).get(1, [])] if 2 in tensor else []
    return _text(f, 1), tuple(d[1][0] if 1 in d else 0 for d in dims)
