"""C with int8 weights, and the engine that runs a .c or .so."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from setk import engines
from setk.core.errors import UserError
from setk.engines import OnnxEngine, Stream, compiled
from setk.engines.compiled import STRICT, CompiledEngine, compiler
from setk.export import rounding
from setk.export.c import build
from setk.metrics import sdr
from setk.native.translate import translate
from setk.pretrained import included

pytestmark = [pytest.mark.full, pytest.mark.skipif(compiler() is None, reason="no C compiler (Debian: gcc)")]
KEPT, SAME_BITS = "-DSETK_WEIGHTS_INT8", "-ffp-contract=off"
LEAST_FLASH = 160_000  # bytes of fspen


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Path of fspen.c with int8 weights, and the facts of its export."""
    path = tmp_path_factory.mktemp("int8") / "fspen.c"
    return path, build.export_c(included(".onnx")["fspen"], path, weights="int8")


def hashes(path: Path, flags: list[list[str]]) -> set[str]:
    signal = build.test_signal(build.TEST_HOPS, translate(included(".onnx")[path.stem]).transform.hop)
    outputs = [CompiledEngine(path, [*each, "-O1", SAME_BITS]).process(signal) for each in flags]
    return {hashlib.sha256(y.tobytes()).hexdigest() for y in outputs}


def test_both_forms_return_the_bits_of_the_same_weights_as_float(small):
    path, facts = small
    assert facts["parity"] > rounding.LEAST_PROGRAM_PARITY and facts["float_parity"] > rounding.LEAST_PROGRAM_PARITY
    assert 25 < facts["snr_db"] < 60
    text = path.read_text()
    assert f"SNR: {facts['snr_db']:.1f} dB" in text and f"Parity: {facts['parity']:.1f} dB" in text
    assert hashes(path, [[], [KEPT], ["-DSETK_SCALAR"], ["-DSETK_SCALAR", KEPT]]) == {facts["sha256"]}


@pytest.mark.parametrize("name", ["dpsnn", "dpcrn_cf"])
def test_other_models_keep_their_bits(tmp_path, name):
    path = tmp_path / f"{name}.c"
    facts = build.export_c(included(".onnx")[name], path, weights="int8")
    assert facts["parity"] > rounding.LEAST_PROGRAM_PARITY and facts["snr_db"] > 15
    assert hashes(path, [[KEPT]]) == {facts["sha256"]}


@pytest.mark.parametrize("kept", [[], [KEPT]])
@pytest.mark.parametrize("program", ["gcc", "clang", "gcc -fsanitize=address,undefined -fno-sanitize-recover"])
def test_the_self_test_passes(small, tmp_path, program, kept):
    path, _ = small
    if not shutil.which(program.split()[0]):
        pytest.skip(f"no {program.split()[0]} (Debian: gcc, clang)")
    out = tmp_path / "selftest"
    subprocess.run(
        [*program.split(), *STRICT, "-Wshadow", "-O1", "-DSETK_SELFTEST", *kept, path, "-o", out], check=True
    )
    done = subprocess.run([out], capture_output=True, text=True)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout + done.stderr


def test_flash_and_memory_of_a_microcontroller(small, tmp_path):
    path, facts = small
    assert facts["bytes"]["scratch"] + facts["bytes"]["state"] < 56_000
    if not shutil.which("arm-none-eabi-gcc"):
        pytest.skip("no arm-none-eabi-gcc (Debian: gcc-arm-none-eabi)")
    target = "-mcpu=cortex-m7 -mfpu=fpv5-sp-d16 -mfloat-abi=hard -O2 -ffreestanding".split()
    binary = tmp_path / "fspen.o"
    subprocess.run(["arm-none-eabi-gcc", *target, KEPT, "-c", path, "-o", binary], check=True)
    sizes = subprocess.run(["arm-none-eabi-size", binary], capture_output=True, text=True, check=True).stdout
    code, data, zeros = (int(n) for n in sizes.splitlines()[1].split()[:3])
    assert code <= LEAST_FLASH and data == zeros == 0


def test_memory_of_a_stream_and_of_a_further_one():
    program = translate(included(".onnx")["fspen"]).program
    assert 4 * program.state <= 8.5 * 1024 and 4 * (program.state + program.scratch) <= 50 * 1024


def test_int8_needs_c_and_a_compiler(se, tmp_path, monkeypatch):
    done = se("quant", "export", "fspen", tmp_path / "x.onnx", "--weights", "int8")
    assert done.returncode == 2 and "--weights is for C" in done.err
    monkeypatch.setattr(build, "compiler", lambda: None)
    with pytest.raises(UserError, match="need a C compiler"):
        build.export_c(included(".onnx")["fspen"], tmp_path / "x.c", weights="int8")
    assert not list(tmp_path.iterdir())


# ---- MODEL is a .c or a .so


@pytest.fixture(scope="module")
def library(small, tmp_path_factory):
    """What a user builds of the .c, under another name."""
    path = tmp_path_factory.mktemp("so") / "denoiser.so"
    compiled.build(small[0], path, ["-O2", "-shared", "-fPIC"])
    return path


def noise(channels: int, n: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(1).standard_normal((channels, n))).astype(np.float32)


def through(engine, x: np.ndarray, size: int) -> np.ndarray:
    stream = Stream(engine, engine.sample_rate, len(x))
    return np.concatenate([*(stream.push(x[:, i : i + size]) for i in range(0, x.shape[1], size)), stream.flush()], 1)


def test_the_engine_of_a_library(small, library):
    engine, reference = engines.open(library, trust=True), OnnxEngine(included(".onnx")["fspen"])
    assert (engine.name, engine.sample_rate) == ("fspen", 16000)
    assert engines.latency_ms(engine) == engines.latency_ms(reference)
    x = noise(2, 16001)
    found = through(engine, x, 777)
    assert sdr.snr(through(reference, x, 1600), found) > 25
    assert np.array_equal(found, through(engine, x, 16001))
    frames, state = x[:, : 20 * 256].reshape(2, 20, 256), engine.start(2)
    first, state = engine.run(frames, state)
    engine.restart(state, 1)
    again, _ = engine.run(frames, state, np.array([False, True]))
    assert np.array_equal(again[1], first[1])


def test_enhance_by_a_c_file_and_by_a_library(se, small, library, tmp_path):
    soundfile.write(tmp_path / "noisy.wav", noise(1, 16000)[0], 16000)
    for model in (small[0], library):
        done = se("enhance", model, tmp_path / "noisy.wav", tmp_path / "out.wav")
        assert done.returncode == 2 and done.err.count("\n") == 1 and "--trust" in done.err
        done = se("enhance", model, tmp_path / "noisy.wav", tmp_path / f"{model.suffix}.wav", "--trust")
        assert done.returncode == 0 and "by fspen" in done.err
    a, b = (soundfile.read(tmp_path / f"{suffix}.wav")[0] for suffix in (".c", ".so"))
    assert len(a) == 16000 and sdr.snr(a, b) > 60


def test_programs_of_others_are_refused_in_one_line(se, small, tmp_path):
    (tmp_path / "other.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "other.c", "-o", tmp_path / "other.so"], check=True)
    text = small[0].read_text()
    (tmp_path / "damaged.c").write_text(text.replace('\\"hop\\": 256', '\\"hop\\": -1'))
    (tmp_path / "alone.c").write_text(text)  # without its header
    for name, complaint in {
        "other.c": "not a .c of se-quant export",
        "other.so": "not a .c of se-quant export",
        "damaged.c": "not a .c of se-quant export",
        "alone.c": "does not compile",
        "missing.so": "no such file",
    }.items():
        done = se("enhance", tmp_path / name, tmp_path / "in.wav", tmp_path / "out.wav", "--trust")
        assert done.returncode == 2 and done.err.count("\n") == 1 and complaint in done.err, name
    stub = tmp_path / "stub.so"
    stub.write_bytes(re.search(rb'\{"setk_c": 1.*?\}\0', library_bytes(small[0], tmp_path))[0])
    done = se("enhance", stub, tmp_path / "in.wav", tmp_path / "out.wav", "--trust")
    assert done.returncode == 2 and "cannot be loaded" in done.err
    assert "no model of torch" in se("count", stub).err


def library_bytes(source: Path, folder: Path) -> bytes:
    out = folder / "model.o"
    subprocess.run(["cc", "-O0", "-c", source, "-o", out], check=True)
    return out.read_bytes()
