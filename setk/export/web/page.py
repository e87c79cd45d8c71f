"""One HTML file that runs a model in the browser, from disk and without a network.

The kernels are a WebAssembly module that was built once (kernels.wasm, see Makefile). The model is data: its program, and its
constants, weights as int8 with a scale per block and the rest as float32.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass, replace
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from setk.metrics import sdr
from setk.native.arena import OPERATIONS
from setk.native.kernels import Machine, library as kernels_library
from setk.native.places import PANEL
from setk.native.translate import Translated

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


def web_model(translated: Translated, facts: str, small: bool = True) -> WebModel:
    """What the page needs of a translated model; with `small`, the weights of products and recurrent layers are int8."""
    program = translated.program
    return WebModel(
        name=translated.about["model"],
        facts=facts,
        rate=translated.about["sample_rate"],
        hop=translated.transform.hop,
        delay=translated.delay,
        program=program.words,
        reset=program.reset,
        constants=program.constants,
        quantized=weight_blocks(program.words) if small else [],
        state=program.state,
        scratch=program.scratch + translated.transform.hop,
    )


def weight_blocks(words: np.ndarray) -> list[tuple[int, int, int]]:
    """Blocks of the constants that are weights of products: first float, count and columns, each once and in order.

    A panel of a product has 16 columns; where the weights are the left operand, each of their rows is a block.
    """
    found: dict[int, tuple[int, int]] = {}
    at = 0
    while at < len(words):
        operation, length = OPERATIONS[words[at]], int(words[at + 1])
        row = [int(x) for x in words[at + 2 : at + 2 + length]]
        at += 2 + length
        if operation == "PRODUCT":
            for segment in range(row[10]):
                for first, count, columns in _segment_blocks(row, row[11 + 9 * segment : 20 + 9 * segment]):
                    found[first] = max(found.get(first, (0, columns)), (count, columns))
    blocks, end = [], 0
    for first, (count, columns) in sorted(found.items()):
        if first >= end:
            blocks.append((first, count, columns))
            end = first + count
    return blocks


def _segment_blocks(row: list[int], segment: list[int]) -> list[tuple[int, int, int]]:
    """The blocks of one segment of a PRODUCT row (see setk/native/products.h)."""
    batches, rows, columns = row[:3]
    a, a_batch, a_row, _, b, b_batch, line, panel, length = segment
    constant = 0  # the number of the constants' memory, above 28 bits of offset
    if b >> 28 == constant and line == PANEL:
        panels = -(-columns // PANEL)
        return [
            (b + batch * b_batch + p * panel, length * PANEL, PANEL)
            for batch in range(batches if b_batch else 1)
            for p in range(panels)
        ]
    if a >> 28 == constant:
        return [
            (a + batch * a_batch + r * a_row, length, 1)
            for batch in range(batches if a_batch else 1)
            for r in range(rows)
        ]
    return []


def render(model: WebModel, version: str) -> str:
    """The text of the page."""
    texts = {name: text(name) for name in ("page.html", "page.css", "page.js", "engine.js", "worklet.js")}
    data = gzip.compress(json.dumps(packed(model), separators=(",", ":")).encode(), 9, mtime=0)
    return Template(texts["page.html"]).substitute(
        TITLE=model.name,
        FACTS=model.facts,
        MODEL=model.name,
        VERSION=version,
        MODEL_DATA=base64.b64encode(data).decode(),
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


def decoded(model: WebModel) -> np.ndarray:
    """The constants as the page computes with them: int8 blocks rounded."""
    constants = model.constants.copy()
    for first, count, width in model.quantized:
        values, steps = to_int8(constants[first : first + count], width)
        constants[first : first + count] = (values.reshape(-1, width).astype(np.float32) * steps).ravel()
    return constants


def joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)


def encoded(data: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(data).tobytes()).decode()


def parity(model: WebModel, translated: Translated) -> float | None:
    """SNR in dB of the page's output to that of float weights, on two seconds of noise whose level moves; None without kernels."""
    library = kernels_library()
    if library is None:
        return None
    rng = np.random.default_rng(0)
    samples = model.hop * (2 * model.rate // model.hop)
    level = np.interp(np.arange(samples), np.linspace(0, samples, 20), 10 ** rng.uniform(-2, -0.7, 20))
    noise = (rng.standard_normal(samples) * level).astype(np.float32)
    outputs = []
    for constants in (translated.program.constants, decoded(model)):
        machine = Machine(replace(translated.program, constants=constants), model.hop, library)
        outputs.append(machine.run(noise, machine.start()).astype(np.float64))
    return sdr.snr(*outputs)
