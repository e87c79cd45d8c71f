"""se-quant export MODEL OUT.c --integer: the reference in NumPy, the C against it bit by bit, and both against the float model."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from setk import audio  # noqa: E402
from setk.core.errors import UserError  # noqa: E402
from setk.export.c import boards, integer_build, integer_program  # noqa: E402
from setk.engines.compiled import STRICT, CompiledEngine, compiler  # noqa: E402
from setk.export.c.integer_build import Form, calibrate, export_integer, run  # noqa: E402
from setk.export.c.integer_fspen import Lowering  # noqa: E402
from setk.export.c.integer_reference import Reference  # noqa: E402
from setk.models.fspen import FSPEN  # noqa: E402

HOP = 256
needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C compiler (Debian: gcc)")


def speech_like(seconds: float, level: float, seed: int) -> np.ndarray:
    """Harmonics with pauses, in noise, as int16 of whole hops."""
    random, t = np.random.default_rng(seed), np.arange(int(16000 * seconds)) / 16000
    pitch = np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.3 * t)) / 16000
    voice = sum(np.sin(2 * np.pi * h * pitch) / h for h in range(1, 20)) * (np.sin(2 * np.pi * 2.1 * t) > -0.2)
    x = level * (voice + 0.2 * random.standard_normal(len(t)))
    return np.clip(np.rint(32768 * x), -32768, 32767).astype(np.int16)[: len(t) // HOP * HOP]


def hostile(seed: int) -> np.ndarray:
    """Hops of silence, of single steps, of full-scale squares, noise and impulses, one after the other."""
    random = np.random.default_rng(seed)
    parts = [
        np.zeros(2 * HOP),
        random.integers(-1, 2, 2 * HOP),
        np.where(np.arange(3 * HOP) // random.integers(1, 40) % 2, 32767, -32768),
        random.integers(-32768, 32768, 3 * HOP),
        np.where(np.arange(2 * HOP) % 97 == 0, -32768, 0),
        np.full(2 * HOP, 32767),
        np.zeros(HOP),
        random.normal(0, 2000, 3 * HOP).clip(-32768, 32767),
    ]
    return np.concatenate(parts).astype(np.int16)


def calibrated(config: dataclasses.Field | None = None, seed: int = 0) -> tuple[FSPEN, integer_program.Integers]:
    """A model with random weights and statistics, and its program."""
    torch.manual_seed(seed)
    model = FSPEN(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_var.uniform_(0.3, 3)
            module.running_mean.normal_(0, 0.3)
    ranges = calibrate(model, [speech_like(1.0, 0.1, seed).astype(np.float32) / 32768])
    return model, Lowering(model, ranges).program()


CONFIGS = {
    "fspen": {},
    "fspen-79k": dataclasses.asdict(FSPEN.presets["fspen-79k"]),
    "small": {"groups": 1, "dpe_blocks": 1, "level_range": (-42.0, -12.0)},
    "narrow": {"groups": 4, "dpe_blocks": 2, "widths": (4, 12, 20, 28, 12, 8, 16, 4, 12, 20, 12, 4)},
}


@pytest.mark.parametrize("seed", range(5))
def test_packed_weights_are_read_back(seed):
    random = np.random.default_rng(seed)
    segments = [int(n) for n in random.integers(1, 50, random.integers(1, 4))]
    rows = random.integers(-127, 128, (int(random.integers(1, 12)), sum(segments))).astype(np.int8)
    data = integer_program.packed(rows, segments)
    assert data.size == len(rows) * integer_program.padded(segments)
    parts = np.split(rows, np.cumsum(segments)[:-1], 1)
    expected = np.concatenate([np.pad(part, ((0, 0), (0, -part.shape[1] % 8))) for part in parts], 1)
    assert np.array_equal(integer_program.unpacked(data, len(rows)), expected)


@pytest.mark.parametrize("seed", range(5))
def test_quantized_weights_stay_in_their_bounds(seed):
    random = np.random.default_rng(seed)
    n, k = int(random.integers(1, 40)), int(random.integers(1, 600))
    weights = random.standard_normal((n, k)) * np.exp(random.normal(-3, 1.5, (n, 1)))
    bias = random.standard_normal(n)
    before, after = (int(x) for x in random.integers(9, 13, 2))
    found = integer_program.quantize(weights, bias, before, after)
    scale = found.factor * 2.0 ** (before - after - 16 - found.shift)
    assert (np.abs(found.rows).max(1) <= 127).all() and np.abs(found.rows).max() > 30
    assert (np.abs(found.rows * scale[:, None] - weights) <= scale[:, None] / 2 * (1 + 1e-9)).all()
    worst = np.abs(found.rows.astype(np.int64)).sum(1) * 32768 + np.abs(found.bias.astype(np.int64))
    assert worst.max() < 2**31
    x = np.rint(random.uniform(-1, 1, (50, k)) * 2**before)
    sums = (x.astype(np.int64) @ found.rows.T.astype(np.int64) + found.bias) * found.factor >> 16 + found.shift
    expected = (x @ (found.rows * scale[:, None]).T) * 2.0 ** (after - before) + bias * 2.0**after
    assert np.abs(sums - expected).max() < 0.6


@pytest.fixture(scope="module")
def functions():
    return Reference(calibrated(FSPEN.Config(groups=1, dpe_blocks=1))[1], HOP)


def test_the_tables_are_as_exact_as_stated(functions):
    x = np.arange(-32768, 32768)
    sigmoid = functions.sigmoid(x) / 65536
    assert np.abs(sigmoid - 1 / (1 + np.exp(-x / 4096))).max() < 3e-5
    assert functions.sigmoid(np.array([-(2**20), 2**20])) / 65536 == pytest.approx([0, 1], abs=4e-4)
    for fraction in range(6, 16):
        y = functions._elu(x, fraction) / 2.0**fraction
        value = x / 2.0**fraction
        exact = np.where(value > 0, value, np.expm1(np.minimum(value, 0)))
        assert np.abs(y - exact).max() < 4e-4 + 2.0**-fraction
    values = np.unique(np.exp2(np.random.default_rng(0).uniform(0, 61, 10000)).astype(np.int64))
    values = np.concatenate([values, 2 ** np.arange(62), 2 ** np.arange(1, 62) - 1])
    assert np.abs(functions.logarithm(values) / 2**24 - np.log2(values.astype(np.float64))).max() < 4e-6
    exponents = np.random.default_rng(0).integers(-(60 << 24), 60 << 24, 10000)
    mantissa, exponent = functions.power(exponents)
    assert mantissa * np.exp2(exponent - 30.0) == pytest.approx(np.exp2(exponents / 2**24), rel=2e-6)


def test_the_transform_is_that_of_the_model(functions):
    x = speech_like(0.5, 0.3, 1)
    seen = {}

    def spectra(row, op, arguments, reference):
        if op == "ANALYSE":
            seen.setdefault("spectra", []).append(reference.wide(arguments[2], 514).copy())

    stream = Reference(calibrated(FSPEN.Config(groups=1, dpe_blocks=1))[1], HOP)
    stream.seen = spectra
    stream.process(x)
    window = FSPEN(FSPEN.Config(groups=1, dpe_blocks=1)).transform.analysis_window.astype(np.float64)
    padded = np.concatenate([np.zeros(HOP), x / 32768])
    for i, found in enumerate(seen["spectra"]):
        frame = padded[i * HOP : i * HOP + 512] * 2**21
        exact = np.fft.rfft(frame * window)
        rounding = 10 + 2.0**-16 * np.sqrt(np.square(frame).sum())  # of the transform, and of a window of 16 bits
        assert np.abs(found[::2] + 1j * found[1::2] - exact).max() < rounding


MOST_DIFFERENT = [
    name if name in ("fspen-79k", "narrow") else pytest.param(name, marks=pytest.mark.full) for name in CONFIGS
]


@pytest.mark.full
@needs_compiler
@pytest.mark.parametrize("name", MOST_DIFFERENT)
def test_c_returns_the_bits_of_the_reference(name, tmp_path):
    model, program = calibrated(FSPEN.Config(**CONFIGS[name]), seed=len(name))
    signal = np.concatenate([hostile(len(name)), speech_like(0.3, 0.2, 2)])
    expected = Reference(program, HOP).process(signal)
    Form(model, program, "m", expected[-HOP:], {"sha256": ""}).write(tmp_path / "m.c", "", "")
    assert np.abs(expected.astype(int)).max() > 1000
    assert np.array_equal(run(CompiledEngine(tmp_path / "m.c", ["-O3"]), signal), expected)
    checked = tmp_path / "checked"
    subprocess.run(
        ["cc", *STRICT, *"-g -O1 -fsanitize=address,undefined -fno-sanitize-recover -DSETK_MAIN".split()]
        + [str(tmp_path / "m.c"), "-o", str(checked)],
        check=True,
    )
    done = subprocess.run([checked], input=signal.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert np.array_equal(np.frombuffer(done.stdout, "<i2")[:-HOP], expected[HOP:])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_reference_follows_the_float_model(name):
    model, program = calibrated(FSPEN.Config(**CONFIGS[name]), seed=len(name))
    x = speech_like(1.0, 0.1, 5)
    assert integer_build.snr(model, [x], [Reference(program, HOP).process(x)]) > 28


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The integer form of the included model, with the facts of its export."""
    from setk import engines

    path = tmp_path_factory.mktemp("integer") / "fspen.c"
    model, _, about, _ = engines.model("fspen", weights=True)
    return path, export_integer(model, path, None, about), model


@pytest.mark.full
def test_export_states_what_it_measured(exported):
    path, facts, _ = exported
    text = path.read_text()
    assert facts["snr_db"] > 35
    assert f"{facts['snr_db']:.1f} dB" in text and f"{facts['multiply_adds']} multiply-adds" in text
    assert facts["bytes"]["constants"] < 130_000 and facts["bytes"]["state"] + facts["bytes"]["scratch"] < 30_000
    header = path.with_suffix(".h").read_text()
    assert "fspen_process_s16(" in header and "float" not in header
    code = text.split("*/", 1)[1]
    assert "float " not in code.replace("floating", "") and "double " not in code


@pytest.mark.full
@needs_compiler
def test_speech_at_any_level_is_that_of_the_float_model(exported):
    path, _, model = exported
    compiled = CompiledEngine(path)
    for level, least in ((0.001, 15), (0.01, 33), (0.1, 36), (0.6, 30)):
        x = speech_like(2.0, level, 3)
        assert integer_build.snr(model, [x], [run(compiled, x)]) > least, level


@pytest.mark.full
@needs_compiler
def test_the_limit_leaves_a_part_of_the_input(exported):
    compiled = CompiledEngine(exported[0])
    x = speech_like(1.0, 0.1, 4)
    late, y = np.concatenate([np.zeros(HOP, np.int16), x[:-HOP]]).astype(int), run(compiled, x).astype(int)
    assert np.array_equal(run(compiled, x, 0), late)
    assert np.array_equal(run(compiled, x, 200), y)
    for limit in (6, 20, 60):
        gain = 10 ** (-limit / 20)
        assert np.abs(run(compiled, x, limit) - ((1 - gain) * y + gain * late)).max() < 2.5


@pytest.mark.full
@needs_compiler
def test_the_filter_keeps_the_length_and_takes_out_the_delay(exported, tmp_path):
    path, _, _ = exported
    binary = tmp_path / "fspen"
    subprocess.run(["cc", *STRICT, "-O2", "-DSETK_MAIN", str(path), "-o", str(binary)], check=True)
    x = speech_like(1.0, 0.1, 6)
    expected = run(CompiledEngine(path), np.concatenate([x, np.zeros(HOP, np.int16)]))[HOP:]
    for n in (0, 1, 255, 256, len(x)):
        found = subprocess.run([binary], input=x[:n].tobytes(), capture_output=True, check=True).stdout
        assert len(found) == 2 * n
    assert np.array_equal(np.frombuffer(found, "<i2"), expected)
    done = subprocess.run([binary, "f32"], input=b"", capture_output=True, text=False)
    assert done.returncode == 2 and b"16-bit" in done.stderr


def self_test(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.full
@needs_compiler
@pytest.mark.parametrize(
    ("command", "emulator"),
    [("gcc -m32", ""), ("clang", ""), ("g++ -x c++ -std=c++11", ""), ("aarch64-linux-gnu-gcc -static", "qemu-aarch64")],
)
def test_the_self_test_passes_on_other_compilers(exported, tmp_path, command, emulator):
    if not shutil.which(command.split()[0]) or emulator and not shutil.which(emulator):
        pytest.skip(f"no {command} {emulator} (Debian: clang, gcc-aarch64-linux-gnu, qemu-user)")
    lines = []
    for each, emulation in (("cc", ""), (command, emulator)):
        out = tmp_path / f"test{len(lines)}"
        strict = [option for option in STRICT if "++" not in each or not option.startswith("-std")]
        build = [*each.split(), *strict, "-Wshadow", "-O2", "-DSETK_SELFTEST", str(exported[0]), "-o", str(out)]
        done = subprocess.run(build, capture_output=True, text=True)
        if "-m32" in build and done.returncode:
            pytest.skip("gcc cannot compile for 32 bits (Debian: gcc-multilib)")
        assert done.returncode == 0, done.stderr
        lines.append(self_test([*emulation.split(), str(out)]))
    assert "passed" in lines[0] and lines[0] == lines[1]


def test_the_self_test_fails_where_a_weight_is_wrong(exported, tmp_path):
    text = exported[0].read_text()
    at = text.index("int8_t bytes[")
    first = text.index("\n", at) + 1
    wrong = text[:first] + "99, " + text[first:].split(", ", 1)[1]
    (tmp_path / "fspen.c").write_text(wrong)
    shutil.copy(exported[0].with_suffix(".h"), tmp_path)
    subprocess.run(["cc", "-O1", "-DSETK_SELFTEST", str(tmp_path / "fspen.c"), "-o", str(tmp_path / "t")], check=True)
    done = subprocess.run([tmp_path / "t"], capture_output=True, text=True)
    assert done.returncode == 1 and "FAILED" in done.stdout


@pytest.mark.full
@needs_compiler
@pytest.mark.parametrize("target", ["m3", "m4", "m33"])
def test_a_processor_without_floating_point_returns_the_same_bits(exported, tmp_path, target):
    board, elf = boards.BOARDS[target], tmp_path / "board.elf"
    if boards.missing():
        pytest.skip(f"no {boards.missing()}")
    boards.build(board, exported[0], "integer", elf)
    soft = [line.split()[-1] for line in boards.symbols(elf) if "aeabi_" in line or "float" in line.lower()]
    assert not [
        name for name in soft if name[8:9] in "fd" or "2f" in name or "2d" in name or "float" in name.lower()
    ], soft
    found = boards.measure(board, exported[0], "integer")
    host = tmp_path / "host"
    subprocess.run(["cc", *STRICT, "-O1", "-DSETK_SELFTEST", str(exported[0]), "-o", str(host)], check=True)
    assert f"output {found.hash}" in self_test([str(host)])
    assert found.instructions_per_hop < (8_000_000 if target == "m3" else 3_200_000)


@pytest.mark.full
@needs_compiler
def test_check_compares_the_integer_form_with_the_model(se, exported, tmp_path):
    mini = Path(__file__).parents[1] / "data" / "mini" / "valid" / "noisy" / "kate_0001.flac"
    (tmp_path / "noisy.scp").write_text(f"kate {mini}\n")
    options = ["--list", tmp_path / "noisy.scp", "--min-snr", "30"]
    assert "--trust" in se("quant", "check", "fspen", exported[0], *options).err
    done = se("quant", "check", "fspen", exported[0], *options, "--trust")
    assert done.returncode == 0 and float(done.out.splitlines()[1].split("\t")[1]) > 30, done.err
    assert se("enhance", exported[0], mini, tmp_path / "clean.wav", "--trust").returncode == 0


@pytest.mark.parametrize("spec", ["dpcrn_cf", "fqse-small"])
def test_other_models_are_refused_in_one_line(se, tmp_path, spec):
    done = se("quant", "export", spec, tmp_path / "x.c", "--integer")
    assert done.returncode == 2 and "integer" in done.err and len(done.err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("x*"))


def test_options_that_do_not_apply_are_refused(se, tmp_path):
    for arguments, complaint in (
        (["x.onnx"], "end in .c"),
        (["x.c", "--frames", "2"], "remove --frames"),
        (["x.onnx", "--for", "sherpa-onnx"], "remove --integer"),
    ):
        done = se("quant", "export", "fspen", tmp_path / arguments[0], "--integer", *arguments[1:])
        assert done.returncode == 2 and complaint in done.err
    assert not list(tmp_path.glob("x*"))


@pytest.mark.full
def test_a_list_without_sound_and_a_high_least_snr_write_nothing(tmp_path, exported):
    audio.write(tmp_path / "silence.wav", np.zeros((1, 16000), np.float32), 16000)
    audio.write(tmp_path / "short.wav", np.full((1, 300), 0.1, np.float32), 16000)
    for names in ([], ["silence.wav"], ["short.wav", "silence.wav"]):
        signals = [os.fspath(tmp_path / name) for name in names]
        with pytest.raises(UserError, match="has no sound"):
            export_integer(exported[2], tmp_path / "x.c", signals, {"sha256": ""})
    mini = Path(__file__).parents[1] / "data" / "mini" / "valid" / "noisy" / "kate_0001.flac"
    with pytest.raises(UserError, match="below 90"):
        export_integer(exported[2], tmp_path / "x.c", [os.fspath(mini)], {"sha256": ""}, min_snr=90)
    assert not list(tmp_path.glob("x*"))


def test_the_embedded_examples_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert all(location.probe().rate == 16000 for location in integer_build._examples())
