"""An .onnx file of se-quant export as a program for the kernels, samples in and samples out."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from setk.audio.stft import Transform, restore
from setk.core.errors import UserError
from setk.native import layers, reader, transforms
from setk.native.arena import assemble
from setk.native.program import Program
from setk.native.graph import Translator
from setk.native.places import Memory, Read, Row, Unsupported, Write, copy, materialise, owner


@dataclass(frozen=True)
class Translated:
    """A program with the facts that its users need; `about` is the file's metadata."""

    program: Program
    about: dict[str, Any]
    transform: Transform

    @property
    def delay(self) -> int:
        """Samples by which the output is later than the input."""
        return self.transform.overlap + self.about["lookahead"] * self.transform.hop


def translate(path: Path, int8: bool = False) -> Translated:
    """The program of an exported model; with `int8`, one that keeps weights in int8 and unpacks them as it runs.

    Raises UserError where the file is not one, or is of a model that cannot run live.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        graph = reader.read(path)
        about = json.loads(graph.metadata["setk"])
    except (ValueError, KeyError) as e:
        raise UserError(f"{path}: not a file of se-quant export ({e})") from None
    if not about["causal"]:
        raise UserError(
            f"{path}: {about['model']} is non-causal: it needs the complete signal, so it cannot run a hop at a time; "
            "export it as .onnx"
        )
    if about["frames"] != 1 or about["batch"] != 1:
        raise UserError(
            f"{path}: made for {about['frames']} frames and {about['batch']} signals per call; export it with 1 of each"
        )
    transform = restore(about["transform"])
    try:
        return Translated(_program(graph, about, transform, int8), about, transform)
    except Unsupported as e:
        raise UserError(f"{about['model']}: cannot become C: {e}") from None


def _program(graph: reader.Graph, about: dict[str, Any], transform: Transform, int8: bool) -> Program:
    memory = Memory()
    translator = Translator(graph, memory)
    names = list(graph.inputs)
    translator.places[names[0]] = transforms.frames(memory, transform)
    outputs = list(graph.outputs)
    pairs = list(zip(names[1:], outputs[1:], strict=True))
    for (name, following), state in zip(pairs, about["state"], strict=True):
        size = int(np.prod(state["shape"]))
        buffer = memory.buffer("state", size, _start(state["start"], size))
        translator.add_state(name, following, buffer.base + np.arange(size).reshape(state["shape"]))
    states = {name: translator.places[name] for name in names[1:]}
    translator.run()
    transforms.samples(memory, transform, translator.places[outputs[0]])
    computed = len(memory.rows)
    _update(memory, [(states[name], translator.places[out]) for name, out in pairs if name not in translator.rings])
    _update_early(memory, computed)
    for name, past in translator.rings.items():
        layers.push(memory, past, translator.newest(name))
    return assemble(memory, int8)


def _start(start: float | str, size: int) -> np.ndarray:
    return (
        np.frombuffer(base64.b64decode(start), np.float32)
        if isinstance(start, str)
        else np.full(size, start, np.float32)
    )


def _update(memory: Memory, pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Rows that copy each new state over the old. One that is made of states is copied first, unless it only moves forward."""
    ready = []
    for old, new in pairs:
        inside = np.isin(owner(new), [owner(x.ravel()[:1])[0] for x, _ in pairs])
        forward = (owner(new) == owner(old)) & (new >= old)
        ready.append((old, new if not (inside & ~forward).any() else materialise(memory, new)))
    for old, new in ready:
        if not np.array_equal(old, new):
            copy(memory, new, old)


def _update_early(memory: Memory, computed: int) -> None:
    """Move the rows that copy new states, those from `computed` on, to where the old states were read for the last time, so that
    the memory of the new ones becomes free."""
    rows, copies = memory.rows[:computed], memory.rows[computed:]
    read_again = {memory.of(x.address).number for row in copies for x in row.arguments if isinstance(x, Read)}
    last: dict[int, int] = {}  # the last row that uses a state or writes a buffer
    for i, row in enumerate(rows):
        for x in row.arguments:
            if isinstance(x, Write) or isinstance(x, Read) and memory.of(x.address).kind == "state":
                last[memory.of(x.address).number] = i
    after: dict[int, list[Row]] = {}
    for row in copies:
        used = [memory.of(x.address) for x in row.arguments if isinstance(x, (Read, Write))]
        stays = any(buffer.kind == "state" and buffer.number in read_again for buffer in used)
        at = len(rows) if stays else max(last.get(buffer.number, -1) for buffer in used)
        after.setdefault(at, []).append(row)
    memory.rows = after.pop(-1, [])
    for i, row in enumerate(rows):
        memory.rows += [row, *after.pop(i, [])]
    memory.rows += after.pop(len(rows), [])
