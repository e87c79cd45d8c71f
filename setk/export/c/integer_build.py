"""Writing FSPEN as C of integers alone: ranges from speech, OUT.c and OUT.h, and how far the output is from the float model's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterable

import numpy as np
import torch

from setk.export.c import emit
from setk.export.c.integer_fspen import Lowering, layers
from setk.export.c.integer_program import OPERATIONS, Integers
from setk.export.c.integer_tables import tables
from setk.models.fspen import FSPEN

KERNELS = ("integer.h", "integer_layers.h", "integer_transform.h")
TYPES = {
    "bytes": "int8_t",
    "shorts": "int16_t",
    "longs": "int32_t",
    "sigmoid_table": "uint16_t",
    "exponential_table": "uint16_t",
}


def calibrate(model: FSPEN, waves: Iterable[np.ndarray]) -> dict[str, float]:
    """The greatest magnitude of each activation over some signals [n] at the model's rate."""
    most: dict[str, float] = {}
    handles = []
    for name, (module, activation) in layers(model).items():

        def seen(_: Any, inputs: Any, output: Any, name: str = name, activation: Any = activation) -> None:
            most[name] = max(most.get(name, 0.0), activation(inputs, output).abs().max().item())

        handles.append(module.register_forward_hook(seen))
    with torch.inference_mode():
        for wave in waves:
            frames = model.transform.analysis(torch.from_numpy(wave)[None])
            model(frames, model.init_state(1))
    for handle in handles:
        handle.remove()
    return most


def numbers(name: str, values: np.ndarray, kind: str) -> str:
    """A constant array of C."""
    lines = [", ".join(str(int(x)) for x in values[i : i + 24]) for i in range(0, len(values), 24)]
    aligned = "ALIGNED " if kind == "int8_t" else ""
    return f"{aligned}static const {kind} {name}[{len(values)}] = {{\n" + ",\n".join(lines) + "\n};"


def constants(program: Integers, points: int) -> str:
    """The tables, the weights and the rows of a program as C."""
    arrays = {**tables(points), **program.constants}
    texts = [numbers(name, values, TYPES.get(name, "int32_t")) for name, values in arrays.items()]
    rows = []
    for op, count, *arguments in program.words:
        signed = np.array(arguments, np.int64).astype(np.int32)
        rows.append(", ".join([OPERATIONS[op], str(count), *map(str, signed)]))
    texts.append("static const int32_t program[] = {\n" + ",\n".join(f"    {row}" for row in rows) + "\n};")
    return "\n\n".join(texts)
