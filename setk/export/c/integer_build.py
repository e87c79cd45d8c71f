"""Writing FSPEN as C of integers alone: ranges from speech, OUT.c and OUT.h, and how far the output is from the float model's."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

import numpy as np
import torch

from setk.audio import Location, from_int16, to_int16
from setk.core.errors import UserError
from setk.engines import TorchEngine
from setk.export.c import emit
from setk.engines.compiled import CompiledEngine, compiler
from setk.export.c.build import EXPECTED_HOPS, TEST_HOPS, place, prefix_of
from setk.export.c.integer_fspen import Lowering, layers
from setk.export.c.integer_program import OPERATIONS, POINTS, Integers
from setk.export.c.integer_reference import Reference
from setk.export.c.integer_tables import tables
from setk.export.rounding import reference
from setk.metrics import sdr
from setk.models.fspen import FSPEN

LEAST_SNR = 20.0  # dB to the float model; int8 weights leave about 40 of FSPEN
COMPARED_S = 2.0  # seconds of each of these signals, at most, are compared with the model
COMPARED = 2
EXAMPLES = Path(__file__).parents[3] / "data" / "mini" / "valid" / "noisy.scp"  # in a checkout
KERNELS = ("integer.h", "integer_layers.h", "integer_transform.h")
INTEGER_FORM = {
    "MEMORY_TYPE": "int32_t",
    "PROCESS_NAME": "PREFIX_process_s16",
    "ALIGNMENT_NOTE": "",
    "LIMIT_TYPE": "int",
    "PROCESS_TEXT": """/* Read one hop of 16-bit samples, and write one, by integer arithmetic alone. `in` and `out` may be the same. `scratch` need
 * not be cleared. */""",
}
# C++ has no tentative definitions, so the tables come before the functions that read them.
TABLES_NOTE = """/* Tables of 2^(i / 256) in Q30, log2(1 + i / 256) in Q24, sigmoid(i / 32 - 8) in Q16, e^(-i / 64) in Q15, and
 * cos(2 pi i / POINTS) in Q30. */"""
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


def arrays(named: Mapping[str, np.ndarray]) -> str:
    """Constant arrays of C, each of its type of TYPES."""
    return "\n\n".join(numbers(name, values, TYPES.get(name, "int32_t")) for name, values in named.items())


def constants(program: Integers) -> str:
    """The weights and the rows of a program as C."""
    texts = [arrays(program.constants)]
    rows = []
    for op, count, *arguments in program.words:
        signed = np.array(arguments, np.int64).astype(np.int32)
        rows.append(", ".join([OPERATIONS[op], str(count), *map(str, signed)]))
    texts.append("static const int32_t program[] = {\n" + ",\n".join(f"    {row}" for row in rows) + "\n};")
    return "\n\n".join(texts)


@dataclass
class Form:
    """One model as integers, with what its text states."""

    model: FSPEN
    program: Integers
    prefix: str
    expected: np.ndarray
    about: dict[str, Any]

    def _filled(self, template: str) -> str:
        transform, program = self.model.transform, self.program
        size = memory(program, transform.hop)
        values = {
            "RATE_VALUE": self.model.sample_rate,
            "HOP_VALUE": transform.hop,
            "DELAY_VALUE": transform.overlap,
            "LATENCY_VALUE": transform.latency(0),
            "STATE_VALUE": size["state"],
            "SCRATCH_VALUE": size["scratch"],
            "STATE_NUMBERS": program.state,
            "SCRATCH_NUMBERS": program.scratch,
            "EXPECTED_HOPS": EXPECTED_HOPS,
            "TEST_HOPS": TEST_HOPS,
            "FACTS": self._title(),
            "CONSTANTS_TEXT": constants(program),
            "ABOUT_TEXT": self._about(size),
            "EXPECTED_TEXT": numbers("expected", self.expected, "int16_t"),
        }
        for name, value in values.items():
            template = re.sub(rf"\b{name}\b", lambda _, text=str(value): text, template)
        return template.replace("PREFIX_UPPER", self.prefix.upper()).replace("PREFIX", self.prefix)

    def _title(self) -> str:
        return f"speech enhancement by {self.model.name}, {self.model.sample_rate} Hz, as C of integers from setk."

    def _about(self, size: dict[str, int]) -> str:
        hop, delay = self.model.transform.hop, self.model.transform.overlap
        facts = (self.prefix, self.model.name, self.about["sha256"], self.model.sample_rate)
        return emit.about_text(*facts, hop, delay, size, "int16")

    def write(self, source: Path, compared: str, hashed: str) -> None:
        """Write the .c and the .h."""
        program, transform, rate = self.program, self.model.transform, self.model.sample_rate
        size, latency_ms = memory(program, transform.hop), 1000 * transform.latency(0) / rate
        head = emit.comment(
            self._title(),
            self.about["sha256"],
            emit.Cost(program.multiply_adds, rate / transform.hop, size, latency_ms),
            "Weights: int8, a step for each output channel; activations and states: int16; no floating point",
            f"SNR: {compared}",
            f"Output of the self-test's {TEST_HOPS} hops as int16, on any processor: SHA-256 {hashed}",
            "",
            "Compile with -O2 and -mcpu=... of the device; -DSETK_SELFTEST: a test; -DSETK_MAIN: a filter for raw 16-bit samples;",
            "-DSETK_SCALAR: without the DSP instructions of Cortex-M.",
        )
        kernels = [emit.text(name, "setk.export.c") for name in KERNELS]
        points = f"#define POINTS {POINTS}"
        body = self._filled(emit.text("integer_template.c", "setk.export.c"))
        parts = [
            head,
            f'#include "{self.prefix}.h"',
            "#include <stddef.h>",
            "",
            points,
            TABLES_NOTE,
            arrays(tables()),
            *kernels,
            body,
        ]
        source.write_text(emit.sealed("\n".join(parts)))
        source.with_suffix(".h").write_text(self._filled(emit.interface(INTEGER_FORM).replace("UNPACK_NOTE", "")))


def memory(program: Integers, hop: int) -> dict[str, int]:
    """Bytes of constants, of the state of a stream, and of scratch memory (see integer_template.c)."""
    named = {**tables(), **program.constants}
    constants_ = sum(
        len(values) * int(re.sub(r"\D", "", TYPES.get(name, "int32_t"))) // 8 for name, values in named.items()
    )
    return {
        "constants": constants_ + 4 * sum(map(len, program.words)),
        "state": 2 * (program.state + hop) + 4 + 12,
        "scratch": 2 * (program.scratch + hop) + 8,
    }


def test_signal(hops: int, hop: int) -> np.ndarray:
    """What test_signal() of integer_template.c computes."""
    noise, loudness = emit.loud_noise(hops, hop)
    return np.trunc(noise * loudness / 50).astype(np.int16).ravel()


def export_integer(
    model: Any, out: Path, signals: Iterable[Any] | None, about: dict[str, Any], min_snr: float = LEAST_SNR
) -> dict[str, Any]:
    """Write a float FSPEN as `out`, a .c, and the .h beside it, with int8 weights, int16 activations and no floating point.

    `signals`: locations of noisy speech, from which the ranges of activations come; None: the examples of a checkout. `about`: of
    the checkpoint. Returns `snr_db` of the output to the model's on the first signals, `multiply_adds` of a hop, `nodes` (rows of
    the program), and `bytes` of constants, state and scratch. Raises UserError, and writes nothing, if the model is another, the SNR is
    below `min_snr`, or a compiler is there and the C does not return the bits of the reference.
    """
    if not isinstance(model, FSPEN):
        raise UserError(f"{model.name} has no integer form: only fspen has one; remove --integer")
    if signals is None:
        signals = _examples()
    read = (Location.parse(signal).read_mono(model.sample_rate)[0] for signal in signals)
    hop, limit = model.transform.hop, int(COMPARED_S * model.sample_rate)
    waves = [wave for wave in read if len(wave) >= 2 * hop and wave.any()]
    if not waves:
        raise UserError("the list for the ranges of activations has no sound; give noisy speech with --list LIST")
    model.eval()
    try:
        program = Lowering(model, calibrate(model, waves)).program()
    except ValueError as e:
        raise UserError(f"{out}: {model.name} does not become integers: {e}") from None
    tested = test_signal(TEST_HOPS, hop)
    made = Reference(program, hop).process(tested)
    speech = [_samples(wave[:limit], hop) for wave in waves[:COMPARED]]
    outputs = [Reference(program, hop).process(x) for x in speech]
    ratio = snr(model, speech, outputs)
    if not ratio >= min_snr:
        raise UserError(f"{out}: not written: its SNR to the float model is {ratio:.1f} dB, below {min_snr:g}")
    prefix = prefix_of(out)
    form = Form(model, program, prefix, made[-EXPECTED_HOPS * hop :], about)
    with tempfile.TemporaryDirectory(prefix="setk_c_") as folder:
        source = Path(folder) / f"{prefix}.c"
        hashed = hashlib.sha256(made.astype("<i2").tobytes()).hexdigest()
        form.write(source, f"{ratio:.1f} dB to the float model, on speech", hashed)
        if compiler():
            compiled = CompiledEngine(source, ["-O2"])
            same = all(np.array_equal(run(compiled, x), y) for x, y in zip([tested, *speech], [made, *outputs]))
            if not same:
                raise UserError(f"{out}: not written: the compiled program does not return the bits of the reference")
        place(source, out)
    size = memory(program, hop)
    return {"snr_db": ratio, "multiply_adds": program.multiply_adds, "nodes": len(program.words), "bytes": size}


def run(compiled: CompiledEngine, samples: np.ndarray, limit: int | None = None) -> np.ndarray:
    """What a compiled form makes of int16 samples [n], n whole hops."""
    return to_int16(compiled.process(from_int16(samples), limit))[0]


def snr(model: FSPEN, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> float:
    """SNR in dB of integer outputs to the float model's, both of int16 signals, the delay left out."""
    delay = model.transform.overlap
    expected = [32768 * reference(TorchEngine(model), from_int16(x), delay)[delay:].astype(np.float64) for x in inputs]
    return sdr.snr(np.concatenate(expected), np.concatenate([y[delay:] for y in outputs]))


def _samples(wave: np.ndarray, hop: int) -> np.ndarray:
    """int16 of whole hops."""
    return to_int16(wave[: len(wave) // hop * hop])[0]


def _examples() -> Iterable[Any]:
    from setk.data import lists

    if not EXAMPLES.is_file():
        raise UserError("integers need the ranges of activations: give noisy speech with --list LIST")
    # Its paths are relative to the checkout, which need not be the current directory.
    return [Location.parse(EXAMPLES.parents[3] / path) for path in lists.read_list(EXAMPLES).values()]
