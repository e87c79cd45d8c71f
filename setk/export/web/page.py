"""One HTML file that runs a model in the browser, from disk and without a network.

The kernels are a WebAssembly module that was built once (kernels.wasm, see Makefile). The model is data: its program, and its
constants, weights as int8 (see setk/native/int8.py) and the rest as float32.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from setk.export.rounding import parity, reference, require, rounding_snr
from setk.native import int8
from setk.native.program import Program
from setk.native.kernels import Machine, library as kernels_library
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
    scratch: int
    program: Program


def web_model(translated: Translated, facts: str) -> WebModel:
    """What the page needs of a translated model."""
    return WebModel(
        name=translated.about["model"],
        facts=facts,
        rate=translated.about["sample_rate"],
        hop=translated.transform.hop,
        delay=translated.delay,
        scratch=translated.program.scratch + translated.transform.hop,
        program=translated.program,
    )


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
    program = model.program
    weights, steps = int8.packed(program)
    used = program.words.nbytes + program.reset.nbytes
    used += 4 * (len(program.constants) + program.state + model.scratch + 2 * model.hop)
    return {
        "name": model.name,
        "rate": model.rate,
        "hop": model.hop,
        "delay": model.delay,
        "stateFloats": program.state,
        "scratch": model.scratch,
        "constantFloats": len(program.constants),
        "pages": KERNEL_PAGES + 1 + -(-used // WASM_PAGE),
        "program": encoded(program.words),
        "reset": encoded(program.reset),
        "floats": encoded(program.constants[: program.floats]),
        "weights": encoded(weights),
        "steps": encoded(steps),
        "blocks": program.blocks,
        "wasm": base64.b64encode(kernels()).decode(),
    }


def encoded(data: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(data).tobytes()).decode()


def snr_to_model(translated: Translated, engine: Any) -> float | None:
    """SNR in dB of the page's output, which has int8 weights, to that of float weights; None without kernels. Raises UserError if the
    program with float weights differs from `engine` by more than rounding."""
    library = kernels_library()
    if library is None:
        return None
    machines = [
        Machine(each, translated.transform.hop, library)
        for each in (translated.program, int8.rounded(translated.program))
    ]
    exact, rounded = (lambda x, m=machine: m.run(x, m.start()) for machine in machines)
    found = parity(lambda x: reference(engine, x, translated.delay), exact, translated)
    require(found, f"{translated.about['model']}: not written: the program of the page differs from the model")
    return rounding_snr(exact, rounded, translated)
