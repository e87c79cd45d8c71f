"""One HTML file that runs a model in the browser, from disk and without a network.

The kernels are a WebAssembly module that was built once (kernels.wasm, see Makefile). The model is data: its program, and its
constants, weights as int8 with a scale per block and the rest as float32.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

WASM_PAGE = 1 << 16  # bytes
KERNEL_PAGES = 4  # of the kernels' own data and stack


@dataclass(frozen=True)
class WebModel:
    """What the page needs to know of a model. Sizes are in floats, times in samples at `rate`."""

    name: str
    facts: str  # a sentence for the head of the page
    rate: int
    hop: int
    delay: int  # by which the output is later than the input
    program: np.ndarray  # int32, of one hop
    reset: np.ndarray  # int32, before the first
    constants: np.ndarray  # float32
    quantized: list[
        tuple[int, int, int]
    ]  # first, count and width of blocks of constants that may be int8: a scale for each column
    state: int
    scratch: int


def render(model: WebModel, version: str) -> str:
    """The text of the page."""
    texts = {name: text(name) for name in ("page.html", "page.css", "page.js", "engine.js", "worklet.js")}
    data = json.dumps(packed(model), separators=(",", ":"))
    return Template(texts["page.html"]).substitute(
        TITLE=model.name,
        FACTS=model.facts,
        MODEL=model.name,
        VERSION=version,
        MODEL_JSON=data,
        STYLE=texts["page.css"],
        ENGINE=texts["engine.js"],
        WORKLET=texts["worklet.js"],
        SCRIPT=texts["page.js"],
    )


def text(name: str) -> str:
    """A file of this package."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def kernels() -> bytes:
    """The WebAssembly module."""
    return (files(__package__) / "kernels.wasm").read_bytes()


def packed(model: WebModel) -> dict[str, Any]:
    """A model as JSON: numbers and base64. page.js (decodeModel) reads it."""
    floats, small, scales, segments = [], [], [], []
    at = 0
    for first, count, width in sorted(model.quantized):
        if at < first:
            segments.append(["float", at, first - at, 0, 0])
            floats.append(model.constants[at:first])
        values, steps = to_int8(model.constants[first : first + count], width)
        segments.append(["int8", first, count, sum(map(len, scales)), width])
        small.append(values)
        scales.append(steps)
        at = first + count
    if at < len(model.constants):
        segments.append(["float", at, len(model.constants) - at, 0, 0])
        floats.append(model.constants[at:])
    used = (
        model.program.nbytes
        + model.reset.nbytes
        + 4 * (len(model.constants) + model.state + model.scratch + 2 * model.hop)
    )
    return {
        "name": model.name,
        "rate": model.rate,
        "hop": model.hop,
        "delay": model.delay,
        "stateFloats": model.state,
        "scratch": model.scratch,
        "constantFloats": len(model.constants),
        "pages": KERNEL_PAGES + 1 + -(-used // WASM_PAGE),
        "program": encoded(model.program),
        "reset": encoded(model.reset),
        "segments": segments,
        "floats": encoded(joined(floats, np.float32)),
        "bytes": encoded(joined(small, np.int8)),
        "scales": encoded(joined(scales, np.float32)),
        "wasm": base64.b64encode(kernels()).decode(),
    }


def to_int8(values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `width` columns as int8, and the step of each column: values = int8 * step, within half a step."""
    rows = values.reshape(-1, width)
    steps = np.maximum(np.abs(rows).max(0), 1e-30).astype(np.float32) / np.float32(127)
    return np.rint(rows / steps).astype(np.int8).ravel(), steps


def joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)


def encoded(data: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(data).tobytes()).decode()
