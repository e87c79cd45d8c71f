"""Writing a model as C: OUT.c and OUT.h, compiled and compared with the exported model before they get their names."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from setk.audio import from_int16
from setk.core.errors import UserError
from setk.core.files import atomic_path
from setk.engines.compiled import CompiledEngine, compiler
from setk.export.c import emit
from setk.export.rounding import parity, reference, require, rounding_snr
from setk.native import int8
from setk.native.program import Program
from setk.native.translate import Translated, translate

SELF_TEST = 100  # dB, of the file's own test wherever it is compiled
TEST_HOPS, EXPECTED_HOPS = 24, 4
SAME_BITS, KEPT = "-ffp-contract=off", "-DSETK_WEIGHTS_INT8"


def test_signal(hops: int, hop: int) -> np.ndarray:
    """What test_signal() of template.c computes."""
    noise, loudness = emit.loud_noise(hops, hop)
    return (from_int16(noise) * np.float32(0.02) * loudness.astype(np.float32)).ravel()


@dataclass
class _Writer:
    """The text of OUT.c and OUT.h in a folder. `kept`: see emit.source."""

    folder: Path
    prefix: str
    translated: Translated
    kept: Program | None = None

    def write(self, facts: dict[str, Any], expected: np.ndarray) -> Path:
        self.folder.mkdir(exist_ok=True)
        source = self.folder / f"{self.prefix}.c"
        head = comment(self.translated, facts)
        text = emit.source(self.translated, self.prefix, head, expected, TEST_HOPS, SELF_TEST, kept=self.kept)
        source.write_text(emit.sealed(text))
        source.with_suffix(".h").write_text(
            emit.header(self.translated, self.prefix, _title(self.translated), self.kept)
        )
        return source


def prefix_of(path: Path) -> str:
    """What the names in a generated file begin with."""
    prefix = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    return prefix if re.match(r"[A-Za-z]", prefix) else f"model_{prefix}"


def export_c(onnx: Path, out: Path, engine: Any = None, weights: str = "float") -> dict[str, Any]:
    """Write the model of an exported file as `out`, a .c, and the .h beside it. `engine` is what the C is compared with, the file's own
    by default. `weights`: "float", or "int8" with a step for each output channel (see setk/native/int8.py).

    Returns `parity` and `snr_db` in dB, None without a compiler; `multiply_adds` of a hop; `bytes` of constants, state and scratch.
    `snr_db` is the output's to the engine's. `parity` is the same for float; of int8 weights it is to the program with the same
    weights as float. Raises UserError if the model has no form in C, the C differs by more than rounding of sums, or there is no
    compiler to make the expected output of int8 weights.
    """
    from setk.engines import OnnxEngine

    translated = translate(onnx)
    engine = engine or OnnxEngine(onnx)
    with tempfile.TemporaryDirectory(prefix="setk_c_") as name:
        folder = Path(name)
        if weights == "int8":
            source, facts = _int8(translated, translate(onnx, int8=True).program, folder, out, engine)
        else:
            source, facts = _float(translated, folder, out, engine)
        place(source, out)
    return facts


def place(source: Path, out: Path) -> None:
    """Copy a .c and its .h to OUT.c and OUT.h, whose name need not be one of C. Neither gets its name before both are complete."""
    with atomic_path(out.with_suffix(".h")) as header, atomic_path(out) as code:
        shutil.copyfile(source.with_suffix(".h"), header)
        code.write_text(source.read_text().replace(f'#include "{source.stem}.h"', f'#include "{out.stem}.h"', 1))


def draft(onnx: Path, out: Path, weights: str = "float") -> Path:
    """Write the C of an exported file without a comparison with the model, for its size and its instructions: the expected output of its
    self-test is silence. Returns `out`."""
    translated = translate(onnx)
    kept = translate(onnx, int8=True).program if weights == "int8" else None
    writer = _Writer(out.parent, prefix_of(out), translated, kept)
    return writer.write(_facts(translated, kept), np.zeros(EXPECTED_HOPS * translated.transform.hop, np.float32))


def _float(translated: Translated, folder: Path, out: Path, engine: Any) -> tuple[Path, dict[str, Any]]:
    writer = _Writer(folder, prefix_of(out), translated)
    facts = _facts(translated)
    signal = test_signal(TEST_HOPS, translated.transform.hop)

    def model(x: np.ndarray) -> np.ndarray:
        return reference(engine, x, translated.delay)

    expected = model(signal)[-EXPECTED_HOPS * translated.transform.hop :]
    source = writer.write(facts, expected)
    if compiler():
        facts["sha256"] = _hash(source, signal)
        facts["parity"] = facts["snr_db"] = parity(model, CompiledEngine(source, ["-O2"]).process, translated)
        require(facts["parity"], f"{out}: not written: differs from the model")
        writer.write(facts, expected)
    return source, facts


def _int8(translated: Translated, kept: Program, folder: Path, out: Path, engine: Any) -> tuple[Path, dict[str, Any]]:
    """The program with float weights is compared with the engine, and both forms of int8 weights with the program that has the same
    weights as float."""
    if compiler() is None:
        raise UserError(
            f"{out}: int8 weights need a C compiler, which computes the expected output; install one (Debian: apt-get install gcc)"
        )
    prefix, hop = prefix_of(out), translated.transform.hop
    same = replace(translated, program=int8.rounded(translated.program))
    facts = _facts(translated, kept)
    none, signal = np.zeros(EXPECTED_HOPS * hop, np.float32), test_signal(TEST_HOPS, hop)

    def model(x: np.ndarray) -> np.ndarray:
        return reference(engine, x, translated.delay)

    exact = CompiledEngine(_Writer(folder / "float", prefix, translated).write(facts, none), ["-O2"])
    facts["float_parity"] = parity(model, exact.process, translated)
    require(facts["float_parity"], f"{out}: not written: the program with float weights differs from the model")
    as_float = CompiledEngine(_Writer(folder / "rounded", prefix, same).write(facts, none), ["-O2"])
    expected = as_float.process(signal)[-EXPECTED_HOPS * hop :]
    writer = _Writer(folder, prefix, translated, kept)
    source = writer.write(facts, expected)
    forms = [CompiledEngine(source, flags) for flags in (["-O2"], ["-O2", KEPT])]
    facts["parity"] = min(parity(as_float.process, form.process, translated) for form in forms)
    require(facts["parity"], f"{out}: not written: differs from the program with the same weights as float")
    facts["snr_db"] = rounding_snr(model, forms[0].process, translated)
    facts["sha256"] = _hash(source, signal)
    return writer.write(facts, expected), facts


def _facts(translated: Translated, kept: Program | None = None) -> dict[str, Any]:
    return {
        "multiply_adds": emit.multiply_adds(translated.program.words),
        "parity": None,
        "snr_db": None,
        "float_parity": None,  # of int8 weights: the parity of the program with float weights to the model
        "sha256": None,
        "bytes": emit.memory(translated, kept),
    }


def _hash(source: Path, signal: np.ndarray) -> str:
    return hashlib.sha256(CompiledEngine(source, ["-O2", SAME_BITS]).process(signal).tobytes()).hexdigest()


def _title(translated: Translated) -> str:
    about = translated.about
    return f"speech enhancement by {about['model']}, {about['sample_rate']} Hz, as C from setk."


def comment(translated: Translated, facts: dict[str, Any]) -> str:
    """The comment at the top of the .c."""
    about = translated.about
    latency_ms = 1000 * translated.transform.latency(about["lookahead"]) / about["sample_rate"]
    hops = about["sample_rate"] / translated.transform.hop
    return emit.comment(
        _title(translated),
        about["provenance"].get("sha256"),
        emit.Cost(facts["multiply_adds"], hops, facts["bytes"], latency_ms),
        *_compared(facts),
        f"Output of the self-test's {TEST_HOPS} hops as float, with -ffp-contract=off on any processor: SHA-256 {facts['sha256'] or 'not known'}",
        "",
        "Compile with -O2 or -O3 and -march=native or what the device has; -DSETK_SELFTEST: a test; -DSETK_MAIN: a filter for raw",
        "16-bit samples; -DSETK_SCALAR: no vectors. Do not use -ffast-math.",
    )


def _compared(facts: dict[str, Any]) -> list[str]:
    if facts["parity"] is None:
        return ["Parity: not compared with the model: no compiler was there"]
    if facts["float_parity"] is None:
        return [f"Parity: {facts['parity']:.1f} dB to the model"]
    return [
        "Weights: int8, a step for each output channel; made float when the program starts, or with -DSETK_WEIGHTS_INT8 as it runs",
        f"Parity: {facts['parity']:.1f} dB to this program with the same rounded weights as float (the reference of the self-test)",
        f"    {facts['float_parity']:.1f} dB of this program with the weights before rounding to the model",
        f"SNR: {facts['snr_db']:.1f} dB to the model, on noise whose level moves; this is the effect of rounding the weights",
    ]
