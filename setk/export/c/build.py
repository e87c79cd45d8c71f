"""Writing a model as C: OUT.c and OUT.h, compiled and compared with the exported model before they get their names."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from setk.export.c import emit
from setk.native.translate import Translated, translate
from setk.core.errors import UserError
from setk.core.files import atomic_path

LEAST_PARITY = 110.0  # dB to the exported model
SELF_TEST = 100  # dB, of the file's own test wherever it is compiled
TEST_HOPS, EXPECTED_HOPS = 24, 4
STRICT = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]


class Compiled:
    """A generated .c as a shared library: process(samples [n], n whole hops) from the start of a signal, with a limit in dB."""

    def __init__(self, source: Path, prefix: str, flags: list[str] | None = None):
        header = source.with_suffix(".h").read_text()
        value = {name: int(re.search(rf"_{name} (\d+)", header)[1]) for name in ("HOP", "STATE_BYTES", "SCRATCH_BYTES")}
        with tempfile.TemporaryDirectory(prefix="setk_c_") as folder:
            library = Path(folder) / f"{prefix}.so"
            build(source, library, ["-O2", "-shared", "-fPIC", *(flags or [])])
            self._library = ctypes.CDLL(str(library))
        self.hop = value["HOP"]
        self._process, init = getattr(self._library, f"{prefix}_process"), getattr(self._library, f"{prefix}_init")
        self._set_limit = getattr(self._library, f"{prefix}_set_limit")
        init.restype = ctypes.c_void_p
        self._init = init
        self._memory, self._scratch = (
            ctypes.create_string_buffer(value[f"{name}_BYTES"]) for name in ("STATE", "SCRATCH")
        )

    def process(self, samples: np.ndarray, limit: float | None = None) -> np.ndarray:
        x, y = np.ascontiguousarray(samples, np.float32), np.empty(len(samples), np.float32)
        state = ctypes.c_void_p(self._init(self._memory))
        if limit is not None:
            self._set_limit(state, ctypes.c_float(limit))
        for at in range(0, len(x), self.hop):
            self._process(
                state, self._scratch, ctypes.c_void_p(x.ctypes.data + 4 * at), ctypes.c_void_p(y.ctypes.data + 4 * at)
            )
        return y


def compiler() -> str | None:
    """The C compiler to use: $CC, or cc."""
    return shutil.which(os.environ.get("CC") or "cc")


def build(source: Path, out: Path, flags: list[str]) -> None:
    """Compile a generated file, warnings being errors. Raises UserError with the compiler's first complaint."""
    found = subprocess.run([compiler(), *STRICT, *flags, str(source), "-o", str(out)], capture_output=True, text=True)
    if found.returncode:
        first = next((line for line in found.stderr.splitlines() if "error" in line), found.stderr.strip()[:200])
        raise UserError(f"{source}: does not compile: {first}")


def test_signal(hops: int, hop: int) -> np.ndarray:
    """What test_signal() of template.c computes."""
    random, samples = 1, np.empty((hops, hop), np.float32)
    for h in range(hops):
        for i in range(hop):
            random = (random * 1664525 + 1013904223) & 0xFFFFFFFF
            samples[h, i] = (
                np.float32((random >> 16) - 32768) / np.float32(32768) * np.float32(0.02) * np.float32(1 + h % 8)
            )
    return samples.ravel()


def reference(engine: Any, samples: np.ndarray, delay: int) -> np.ndarray:
    """What an engine makes of n samples, as late as the C is: [n]."""
    from setk.engines import Stream

    stream = Stream(engine, engine.sample_rate, 1)
    y = np.concatenate([stream.push(samples[None]), stream.flush()], 1)[0]
    return np.concatenate([np.zeros(delay, np.float32), y])[: len(samples)]


def parity(engine: Any, compiled: Compiled, delay: int) -> float:
    """SNR in dB of the compiled program's output to an engine's, on noise at levels 50 dB apart: the median of frames of 64 ms, for
    a spike that rounding flips is no fault of the program but changes what a spiking network does for a while."""
    generator, ratios = np.random.default_rng(0), []
    size = -(-engine.sample_rate // compiled.hop) * compiled.hop
    for level in np.logspace(-3, -0.5, 6):
        x = (level * generator.standard_normal(size)).astype(np.float32)
        expected, found = reference(engine, x, delay)[delay:], compiled.process(x)[delay:]
        frame = engine.sample_rate * 64 // 1000
        signal, error = (
            np.square(y[: len(y) // frame * frame], dtype=np.float64).reshape(-1, frame).sum(1)
            for y in (expected, found - expected)
        )
        ratios.append((signal / np.maximum(error, 1e-30))[signal > 0])
    return float(10 * np.log10(np.median(np.concatenate(ratios))))


def export_c(onnx: Path, out: Path, engine: Any = None) -> dict[str, Any]:
    """Write the model of an exported file as `out`, a .c, and the .h beside it. `engine` is what the C is compared with, the file's own
    by default. Returns `parity` in dB, None without a compiler, `multiply_adds` of a hop, and `bytes` of constants, state and scratch.

    Raises UserError if the model has no form in C, or the C differs from the engine by more than rounding.
    """
    from setk.engines import OnnxEngine

    translated = translate(onnx)
    engine = engine or OnnxEngine(onnx)
    prefix = re.sub(r"\W", "_", out.stem)
    prefix = prefix if re.match(r"[A-Za-z]", prefix) else f"model_{prefix}"
    hop = translated.transform.hop
    facts = {
        "multiply_adds": emit.multiply_adds(translated.program.words),
        "parity": None,
        "sha256": None,
        "bytes": emit.memory(translated),
    }
    signal = test_signal(TEST_HOPS, hop)
    expected = reference(engine, signal, translated.delay)[-EXPECTED_HOPS * hop :]
    with tempfile.TemporaryDirectory(prefix="setk_c_") as folder:
        source = Path(folder) / f"{prefix}.c"

        def write() -> None:
            source.write_text(
                emit.source(translated, prefix, comment(translated, facts), expected, TEST_HOPS, SELF_TEST)
            )
            source.with_suffix(".h").write_text(emit.header(translated, prefix, _title(translated)))

        write()
        if compiler():
            facts["sha256"] = hashlib.sha256(
                Compiled(source, prefix, ["-ffp-contract=off"]).process(signal).tobytes()
            ).hexdigest()
            facts["parity"] = parity(engine, Compiled(source, prefix), translated.delay)
            if not facts["parity"] >= LEAST_PARITY:
                raise UserError(
                    f"{out}: not written: differs from the model by more than rounding (SNR {facts['parity']:.1f} dB)"
                )
            write()
        for suffix in (".h", ".c"):
            with atomic_path(out.with_suffix(suffix)) as whole:
                shutil.copyfile(source.with_suffix(suffix), whole)
    return facts


def _title(translated: Translated) -> str:
    about = translated.about
    return f"speech enhancement by {about['model']}, {about['sample_rate']} Hz, as C from setk."


def comment(translated: Translated, facts: dict[str, Any]) -> str:
    """The comment at the top of the .c."""
    about, size = translated.about, facts["bytes"]
    latency = 1000 * translated.transform.latency(about["lookahead"]) / about["sample_rate"]
    source = about["provenance"].get("sha256") or "not known"
    hops = about["sample_rate"] / translated.transform.hop
    checked = (
        "not compared with the model: no compiler was there"
        if facts["parity"] is None
        else f"{facts['parity']:.1f} dB to the model"
    )
    lines = [
        _title(translated),
        "",
        f"Checkpoint: SHA-256 {source}",
        f"Cost: {facts['multiply_adds']} multiply-adds per hop, {facts['multiply_adds'] * hops / 1e6:.1f} M per second",
        f"Memory: {size['constants']} bytes of constants, {size['state']} of state for each stream, {size['scratch']} of scratch",
        f"Algorithmic latency: {latency:.1f} ms",
        f"Parity: {checked}",
        f"Output of the self-test's {TEST_HOPS} hops as float, with -ffp-contract=off on any processor: SHA-256 {facts['sha256'] or 'not known'}",
        "",
        "Compile with -O2 or -O3 and -march=native or what the device has; -DSETK_SELFTEST: a test; -DSETK_MAIN: a filter for raw",
        "16-bit samples; -DSETK_SCALAR: no vectors. Do not use -ffast-math.",
    ]
    return "/* " + "\n * ".join(lines).replace(" * \n", " *\n") + "\n */"
