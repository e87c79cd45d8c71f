"""Models as C: kernels against NumPy, programs against ONNX Runtime, and generated files from every compiler that is here."""

import base64
import ctypes
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import setk
from setk.engines import OnnxEngine
from setk.engines.compiled import STRICT, CompiledEngine, compiler
from setk.export import rounding
from setk.export.c import boards, build, emit
from setk.export.web import page
from setk.native import int8, layers, products, reductions
from setk.native.arena import assemble
from setk.native.program import Program
from setk.native.elementwise import apply
from setk.native.places import ZERO, Memory, affine, boxes, copy, materialise
from setk.native.translate import translate
from setk.pretrained import included
from setk.core.errors import UserError

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler")

RUN_INT8 = """
#include "native.c"
void run_int8(const int32_t *program, int words, const float *constants, float *state, float *scratch, const int8_t *weights,
              const float *steps);
void run_int8(const int32_t *program, int words, const float *constants, float *state, float *scratch, const int8_t *weights,
              const float *steps)
{
    Memory memory = {constants, state, scratch, NULL, NULL, weights, steps};
    run(program, words, &memory);
}
"""


class Runner:
    """The kernels as a library that runs programs on NumPy arrays."""

    def __init__(self, folder: Path, flags: list[str]):
        out, source = folder / "kernels.so", folder / "kernels.c"
        source.write_text(RUN_INT8)
        subprocess.run(
            [
                *compiler(),
                *STRICT,
                "-O2",
                "-ffp-contract=off",
                "-shared",
                "-fPIC",
                *flags,
                f"-I{Path(products.__file__).parent}",
                str(source),
                "-o",
                str(out),
            ],
            check=True,
        )
        self.library = ctypes.CDLL(str(out))

    def run(
        self, program: Program, memory: Memory, inputs: dict[int, np.ndarray], outputs: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Values at the addresses `outputs`, of state buffers that hold `inputs` by their number. The same bits come from the program
        that keeps its weights as int8 as from the one with the rounded weights as float."""
        kept = assemble(memory, int8=True)
        assert (kept.floats, kept.blocks) == (program.floats, program.blocks)
        small = [np.append(x, np.zeros(1, x.dtype)) for x in int8.packed(program)]
        rounded = self.values(int8.rounded(program), memory, inputs, outputs)
        for expected, found in zip(rounded, self.values(kept, memory, inputs, outputs, small), strict=True):
            np.testing.assert_array_equal(found, expected)
        return self.values(program, memory, inputs, outputs)

    def values(
        self,
        program: Program,
        memory: Memory,
        inputs: dict[int, np.ndarray],
        outputs: list[np.ndarray],
        small: list[np.ndarray] | None = None,
    ) -> list[np.ndarray]:
        offsets = state_offsets(memory)
        constants, state, scratch = (aligned(n) for n in (program.constants.size, program.state, program.scratch))
        constants[:], scratch[:] = program.constants, np.nan
        if small:
            constants[program.floats :] = np.nan
        for number, data in inputs.items():
            state[offsets[number] : offsets[number] + data.size] = data.ravel()
        at = [ctypes.c_void_p(x.ctypes.data) for x in (program.words, constants, state, scratch)]
        if small:
            self.library.run_int8(at[0], len(program.words), *at[1:], *(ctypes.c_void_p(x.ctypes.data) for x in small))
        else:
            self.library.setk_run(at[0], len(program.words), *at[1:], None, None, 1, 0)
        return [state[offsets[memory.of(y.flat[0]).number] + y - memory.of(y.flat[0]).base] for y in outputs]


def aligned(n: int) -> np.ndarray:
    space = np.zeros(n + 16, np.float32)
    first = -space.ctypes.data // 4 % 16
    return space[first : first + n]


def state_offsets(memory: Memory) -> dict[int, int]:
    offsets, at = {}, 0
    for buffer in memory.buffers:
        if buffer.kind == "state":
            offsets[buffer.number] = at
            at += -(-buffer.size // 16) * 16
    return offsets


@pytest.fixture(scope="module", params=["vectors", "scalar"])
def runner(request, tmp_path_factory):
    return Runner(tmp_path_factory.mktemp("kernels"), ["-DSETK_SCALAR"] if request.param == "scalar" else [])


class Case:
    """A few tensors in state memory, an operation on them, and its result copied back to state."""

    def __init__(self, seed: int):
        self.memory, self.random, self.inputs = Memory(), np.random.default_rng(seed), {}

    def tensor(
        self, *shape: int, order: list[int] | None = None, data: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(addresses, values) of an input, its axes in memory in `order`."""
        data = self.random.standard_normal(shape).astype(np.float32) if data is None else data
        buffer = self.memory.buffer("state", int(np.prod(shape)))
        axes = order or list(range(len(shape)))
        addresses = (buffer.base + np.arange(buffer.size)).reshape([shape[a] for a in axes]).transpose(np.argsort(axes))
        self.inputs[buffer.number] = data.transpose(axes)
        return addresses, data

    def result(self, runner: Runner, y: np.ndarray) -> np.ndarray:
        out = self.memory.buffer("state", y.size)
        self.inputs[out.number] = np.full(y.size, np.nan, np.float32)
        target = (out.base + np.arange(y.size)).reshape(y.shape)
        copy(self.memory, y, target)
        return runner.run(assemble(self.memory), self.memory, self.inputs, [target])[0]


def near(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(
        found, expected, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(expected).max()))
    )


@pytest.mark.full
@pytest.mark.parametrize("seed", range(12))
def test_product_of_any_size_and_layout(runner, seed, monkeypatch):
    case = Case(seed)
    monkeypatch.setattr(int8, "MOST", int(case.random.integers(16, 2000)))
    batch, m, k, n = (int(case.random.integers(1, high)) for high in (4, 40, 50, 70))
    order = [[0, 1, 2], [0, 2, 1], [2, 0, 1]][seed % 3]
    x, data = case.tensor(batch, m, k, order=order)
    weights = case.random.standard_normal((batch, k, n)).astype(np.float32)
    bias = case.random.standard_normal((batch, n)).astype(np.float32)
    near(case.result(runner, products.product(case.memory, x, weights, bias)), data @ weights + bias[:, None])


@pytest.mark.full
@pytest.mark.parametrize("seed", range(6))
def test_product_of_what_was_concatenated_with_zero_weights_left_out(runner, seed, monkeypatch):
    case = Case(seed)
    monkeypatch.setattr(int8, "MOST", int(case.random.integers(16, 500)))
    m, a, b, n = (int(case.random.integers(2, 40)) for _ in range(4))
    (x, first), (y, second) = case.tensor(m, a), case.tensor(m, b, order=[1, 0])
    weights = case.random.standard_normal((a + b, n)).astype(np.float32)
    weights[:a, n // 2 :] = 0
    weights[a:, : n // 3] = 0
    found = case.result(runner, products.product(case.memory, np.concatenate([x, y], 1)[None], weights[None], None))
    near(found[0], np.concatenate([first, second], 1) @ weights)


@pytest.mark.parametrize("seed", range(4))
def test_product_of_spikes(runner, seed):
    case = Case(seed)
    k, n = (int(case.random.integers(1, 300)) for _ in range(2))
    x, spikes = case.tensor(1, 1, k, data=(case.random.random((1, 1, k)) < 0.2).astype(np.float32))
    weights, bias = (
        case.random.standard_normal((1, k, n)).astype(np.float32),
        case.random.standard_normal(n).astype(np.float32),
    )
    near(case.result(runner, products.product(case.memory, x, weights, bias, sparse=True)), spikes @ weights + bias)


@pytest.mark.parametrize("seed", range(10))
def test_convolutions_agree_with_torch(runner, seed):
    torch = pytest.importorskip("torch")
    case = Case(seed)
    c, n, length = (int(case.random.integers(1, high)) for high in (9, 20, 80))
    kernel, stride = int(case.random.integers(1, 8)), int(case.random.integers(1, 4))
    length += kernel
    before, after = (int(case.random.integers(0, kernel)) for _ in range(2))
    x, data = case.tensor(1, c, length, order=[0, 1, 2] if seed % 2 else [0, 2, 1])
    scratch = apply(case.memory, "COPY", [x])  # in scratch memory there can be zeros around it
    bias = case.random.standard_normal(n).astype(np.float32)
    weights = case.random.standard_normal((n, c, kernel)).astype(np.float32)
    attributes = {"pads": [before, after], "strides": [stride]}
    padded = torch.from_numpy(np.pad(data, ((0, 0), (0, 0), (before, after))))
    expected = torch.nn.functional.conv1d(padded, torch.from_numpy(weights), torch.from_numpy(bias), stride)
    near(case.result(runner, layers.convolve(case.memory, scratch, weights, bias, attributes)), expected.numpy())

    case = Case(seed)
    x, data = case.tensor(1, c, length, order=[0, 2, 1])
    weights = case.random.standard_normal((c, n, kernel)).astype(np.float32)
    pad, extra = min(before, after), int(case.random.integers(0, stride))
    attributes = {"pads": [pad, pad], "strides": [stride], "output_padding": [extra]}
    expected = torch.nn.functional.conv_transpose1d(*map(torch.from_numpy, (data, weights, bias)), stride, pad, extra)
    scratch = apply(case.memory, "COPY", [x])
    near(
        case.result(runner, layers.convolve_transposed(case.memory, scratch, weights, bias, attributes)),
        expected.numpy(),
    )


FUNCTIONS = {
    "RELU": lambda a: np.maximum(a, 0),
    "ELU": lambda a: np.where(a > 0, a, np.expm1(np.minimum(a, 0))),
    "TANH": np.tanh,
    "SIGMOID": lambda a: 1 / (1 + np.exp(-a)),
    "EXP": np.exp,
    "ABS": np.abs,
    "NEG": np.negative,
}
POSITIVE = {"LOG": np.log, "SQRT": np.sqrt, "POW": lambda a: a**3.3}
OF_TWO = {
    "ADD": np.add,
    "SUB": np.subtract,
    "MUL": np.multiply,
    "DIV": np.divide,
    "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum,
    "GREATER": np.greater,
    "GREATER_EQUAL": np.greater_equal,
    "EQUAL": np.equal,
}


@pytest.mark.parametrize("name", [*FUNCTIONS, *POSITIVE])
def test_functions_of_one_operand(runner, name):
    case = Case(len(name))
    n = int(case.random.integers(1, 500))
    data = (4 * case.random.standard_normal((3, n))).astype(np.float32)
    data = np.exp(data) if name in POSITIVE else data
    x, _ = case.tensor(3, n, data=data)
    function = {**FUNCTIONS, **POSITIVE}[name]
    near(case.result(runner, apply(case.memory, name, [x], 3.3)), function(data.astype(np.float64)), 3e-6)


@pytest.mark.parametrize("name", OF_TWO)
def test_functions_of_two_operands_broadcast(runner, name):
    for seed in range(4):
        case = Case(seed)
        shape = [int(n) for n in case.random.integers(1, 9, 4)]
        a, first = case.tensor(*shape, order=[int(i) for i in case.random.permutation(4)])
        b, second = case.tensor(*(n if case.random.random() < 0.6 else 1 for n in shape))
        near(case.result(runner, apply(case.memory, name, [a, b])), OF_TWO[name](first, second).astype(np.float32))


def test_where_softmax_and_the_greatest(runner):
    case = Case(1)
    a, first = case.tensor(5, 37)
    b, second = case.tensor(1, 37)
    near(
        case.result(runner, apply(case.memory, "WHERE", [apply(case.memory, "GREATER", [a, b]), a, b])),
        np.where(first > second, first, second),
    )
    case = Case(2)
    a, first = case.tensor(1, 226)
    e = np.exp(first - first.max())
    near(case.result(runner, reductions.along_last(case.memory, "SOFTMAX", a, None)), e / e.sum())
    case = Case(2)
    a, first = case.tensor(3, 226)
    assert (
        case.result(runner, reductions.along_last(case.memory, "GREATEST_INDEX", a, 1))[:, 0] == first.argmax(1)
    ).all()


@pytest.mark.parametrize("seed", range(4))
def test_layer_norm_with_a_residual(runner, seed):
    case = Case(seed)
    rows, n = int(case.random.integers(1, 9)), int(case.random.integers(2, 600))
    (x, data), (r, residual), (g, gain), (o, offset) = (
        case.tensor(rows, n),
        case.tensor(rows, n),
        case.tensor(n),
        case.tensor(n),
    )
    expected = (
        (data - data.mean(1, keepdims=True)) / np.sqrt(data.var(1, keepdims=True) + 1e-5) * gain + offset + residual
    )
    near(case.result(runner, layers.normalise(case.memory, x, g, o, 1e-5, r)), expected)


@pytest.mark.parametrize(
    ("steps", "units", "bidirectional"), [(9, 16, True), (5, 7, True), (12, 32, False), (1, 20, False), (32, 12, True)]
)
def test_gru_agrees_with_torch(runner, steps, units, bidirectional):
    torch = pytest.importorskip("torch")
    torch.manual_seed(units)
    case = Case(units)
    reference = torch.nn.GRU(11, units, bidirectional=bidirectional)
    parts = {
        name: [p.detach().numpy() for key, p in reference.named_parameters() if key.startswith(name)]
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }

    def gates_as_onnx(p):  # z, r, n for r, z, n
        return np.concatenate([np.split(p, 3)[i] for i in (1, 0, 2)])

    w, r = (np.stack([gates_as_onnx(p) for p in parts[name]]) for name in ("weight_ih", "weight_hh"))
    b = np.stack(
        [np.concatenate([gates_as_onnx(i), gates_as_onnx(h)]) for i, h in zip(parts["bias_ih"], parts["bias_hh"])]
    )
    x, data = case.tensor(steps, 1, 11, order=[2, 1, 0] if steps > 30 else None)
    h, start = case.tensor(1, 1, units) if steps == 1 else (None, None)
    first = None if start is None else torch.from_numpy(start)
    expected, last = reference(torch.from_numpy(data), first)
    y, after = layers.gru(case.memory, x, w, r, b, h, "bidirectional" if bidirectional else "forward")
    near(case.result(runner, y)[:, :, 0].reshape(steps, -1), expected.detach().numpy()[:, 0])
    near(case.result(runner, after), last.detach().numpy())


@pytest.mark.parametrize(
    ("batch", "rows", "inputs", "units"), [(8, 4, 16, 16), (1, 11, 5, 32), (3, 2, 20, 48), (2, 7, 32, 16)]
)
def test_the_products_of_a_gru_step_are_part_of_its_gates(runner, batch, rows, inputs, units):
    case = Case(units + rows)
    h, old = case.tensor(batch, rows, units)
    x, new = case.tensor(batch, rows, inputs)
    w = case.random.standard_normal((batch, inputs, 3, units)).astype(np.float32)
    r = case.random.standard_normal((batch, units, 3, units)).astype(np.float32)
    bias = case.random.standard_normal((batch, 4, units)).astype(np.float32)
    both = np.zeros((batch, inputs + units, 4, units), np.float32)
    both[:, :inputs, :3], both[:, inputs:, :2], both[:, inputs:, 3] = w, r[:, :, :2], r[:, :, 2]
    y = products.product(
        case.memory, np.concatenate([x, h], 2), both.reshape(batch, -1, 4 * units), bias.reshape(batch, -1)
    ).reshape(batch, rows, 4, units)
    after = layers.gates(case.memory, [*np.moveaxis(y, 2, 0), h])
    assert [row.op for row in case.memory.rows] == ["CELL"]
    sums = np.einsum("bmk,bkgn->bmgn", np.concatenate([new, old], 2), both) + bias[:, None]
    reset, update = 1 / (1 + np.exp(-np.moveaxis(sums[:, :, :2], 2, 0)))
    candidate = np.tanh(sums[:, :, 2] + reset * sums[:, :, 3])
    near(case.result(runner, after), candidate + update * (old - candidate))


def test_boxes_cover_everything_once_and_are_affine():
    random = np.random.default_rng(0)
    for _ in range(20):
        memory = Memory()
        parts = [memory.new((3, int(n), 4), order=list(random.permutation(3))) for n in random.integers(1, 5, 3)]
        joined = np.pad(np.concatenate(parts, 1), ((0, 0), (1, 0), (0, 0)), constant_values=ZERO)
        seen = np.zeros(joined.shape, int)
        for box in boxes([joined]):
            seen[box] += 1
            assert affine(joined[box]) is not None
        assert (seen == 1).all()


def test_scratch_is_shared_by_what_is_not_used_at_the_same_time():
    memory = Memory()
    x = memory.buffer("state", 1000)
    y = x.base + np.arange(1000)
    for _ in range(10):
        y = materialise(memory, apply(memory, "ADD", [y, y]))
    assert assemble(memory).scratch < 2200


MODELS = ["fspen", "dpsnn", "dpcrn_cf"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Path of the .c of each model, with the facts of its export."""
    folder, made = tmp_path_factory.mktemp("exported"), {}

    def export(name: str):
        if name not in made:
            made[name] = (folder / f"{name}.c", build.export_c(included(".onnx")[name], folder / f"{name}.c"))
        return made[name]

    return export


@pytest.mark.full
@pytest.mark.parametrize("name", MODELS)
def test_export_agrees_with_onnx(exported, name):
    path, facts = exported(name)
    assert facts["parity"] >= rounding.LEAST_PROGRAM_PARITY
    text = path.read_text()
    assert (
        facts["sha256"] in text and "Checkpoint: SHA-256" in text and f"{facts['multiply_adds']} multiply-adds" in text
    )
    header = path.with_suffix(".h").read_text()
    assert f"#define {name.upper()}_RATE 16000" in header and f"{name}_process_s16(" in header


def test_one_flipped_frame_is_rounding_and_a_small_error_all_over_is_not(rng):
    rate, hop = 16000, 256

    def exact(x):
        return 0.5 * x

    def flipped(x):
        y, at = exact(x), 1024 * int(rng.integers(15))
        y[at : at + 1024] *= -1
        return y

    assert rounding.median_snr(exact, flipped, rate, hop) > rounding.LEAST_PROGRAM_PARITY
    assert rounding.median_snr(exact, lambda x: 1.001 * exact(x), rate, hop) == pytest.approx(60, abs=0.1)
    late = rounding.median_snr(exact, lambda x: np.r_[np.zeros(1, x.dtype), exact(x)[:-1]], rate, hop)
    assert -4 < late < -2  # of noise against itself a sample later: twice the power


def test_speech_through_c_is_speech_through_onnx(exported, wave_of_speech):
    path, _ = exported("fspen")
    engine = OnnxEngine(included(".onnx")["fspen"])
    delay = translate(included(".onnx")["fspen"]).delay
    x = wave_of_speech[: len(wave_of_speech) // 256 * 256]
    expected, found = (y[delay:] for y in (rounding.reference(engine, x, delay), CompiledEngine(path).process(x)))
    assert 10 * np.log10(np.square(expected).sum() / np.square(found - expected).sum()) > 110


@pytest.fixture
def wave_of_speech():
    """Three seconds of a voice's harmonics with pauses, in noise."""
    random, t = np.random.default_rng(3), np.arange(48000) / 16000
    pitch = np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.3 * t)) / 16000
    voice = sum(np.sin(2 * np.pi * h * pitch) / h for h in range(1, 20)) * (np.sin(2 * np.pi * 2.1 * t) > -0.2)
    return (0.1 * voice + 0.02 * random.standard_normal(len(t))).astype(np.float32)


@pytest.mark.full
@pytest.mark.parametrize("name", ["fspen", "dpsnn"])
def test_a_limit_leaves_the_input_as_se_enhance_does(exported, wave_of_speech, name):
    path, _ = exported(name)
    compiled, delay = CompiledEngine(path), translate(included(".onnx")[name]).delay
    x = wave_of_speech[: len(wave_of_speech) // compiled.hop * compiled.hop]
    expected = setk.load(name).enhance(x, 16000, limit_db=12.0)[: len(x) - delay]
    error = compiled.process(x, 12.0)[delay:] - expected
    # The median of 64 ms, for a spike that rounding flips; see build.parity.
    power, wrong = (np.square(y[: len(y) // 1024 * 1024]).reshape(-1, 1024).sum(1) for y in (expected, error))
    assert 10 * np.log10(np.median(power / np.maximum(wrong, 1e-30))) > 100
    assert np.array_equal(compiled.process(x, 200.0), compiled.process(x))
    assert np.array_equal(compiled.process(x, 0.0)[delay:], x[: len(x) - delay])
    broken = x.copy()
    broken[1000] = np.nan
    assert np.isfinite(compiled.process(broken, 12.0)).all()


@pytest.mark.full
@pytest.mark.parametrize("name", MODELS)
def test_every_build_returns_the_same_bits(exported, tmp_path, name):
    path, facts = exported(name)
    signal = build.test_signal(build.TEST_HOPS, translate(included(".onnx")[name]).transform.hop)
    features = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    builds = [[], ["-DSETK_SCALAR"]]
    builds += [["-mavx2", "-mfma"]] * (" avx2 " in features) + [["-mavx512f", "-mavx512dq"]] * (
        " avx512dq " in features
    )
    for flags in builds:
        found = CompiledEngine(path, [*flags, "-ffp-contract=off"]).process(signal)
        assert hashlib.sha256(found.tobytes()).hexdigest() == facts["sha256"], flags


# Runs the test signal through the program by engine.js of pages, and prints the hash of the output.
NODE = """
const fs = require("fs"), crypto = require("crypto");
const [engine, kernels, data] = process.argv.slice(1), { numbers, arrays } = JSON.parse(fs.readFileSync(data));
const array = (type, name) => new type(Uint8Array.from(Buffer.from(arrays[name], "base64")).buffer);
const model = { ...numbers, program: array(Int32Array, "program"), reset: array(Int32Array, "reset"), constants: array(Float32Array, "constants") };
const Denoiser = new Function(fs.readFileSync(engine, "utf8") + "; return Denoiser;")();
const denoiser = new Denoiser(new WebAssembly.Module(fs.readFileSync(kernels)), model), x = array(Float32Array, "signal");
for (let at = 0; at < x.length; at += model.hop) denoiser.process(x.slice(at, at + model.hop), x.subarray(at, at + model.hop));
console.log(crypto.createHash("sha256").update(Buffer.from(x.buffer)).digest("hex"));
"""


@pytest.mark.full
@pytest.mark.parametrize("name", MODELS)
def test_wasm_returns_the_same_bits(exported, tmp_path, name):
    if not shutil.which("node"):
        pytest.skip("no node (Debian: nodejs)")
    translated = translate(included(".onnx")[name])
    program, hop = translated.program, translated.transform.hop
    arrays = {"program": program.words, "reset": program.reset, "constants": program.constants}
    arrays["signal"] = build.test_signal(build.TEST_HOPS, hop)
    numbers = {"hop": hop, "stateFloats": program.state, "scratch": program.scratch}
    numbers["pages"] = 8 + 4 * (program.constants.size + program.state + program.scratch) // (1 << 16)
    encoded = {key: base64.b64encode(x.tobytes()).decode() for key, x in arrays.items()}
    (tmp_path / "model.json").write_text(json.dumps({"numbers": numbers, "arrays": encoded}))
    web = Path(page.__file__).parent
    done = subprocess.run(
        ["node", "-e", NODE, web / "engine.js", web / "kernels.wasm", tmp_path / "model.json"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == exported(name)[1]["sha256"], done.stderr


@pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
def test_a_program_compiles_as_cpp_without_a_warning(exported, tmp_path):
    for name in ("fspen", "dpsnn", "dpcrn_cf"):
        path, _ = exported(name)
        build = ["g++", "-x", "c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-O1", "-c", str(path)]
        done = subprocess.run([*build, "-o", str(tmp_path / "a.o")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def run_self_test(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.full
@pytest.mark.parametrize(
    ("compiler", "emulator"),
    [
        ("gcc", ""),
        ("clang", ""),
        ("gcc -fsanitize=address,undefined -fno-sanitize-recover", ""),
        ("aarch64-linux-gnu-gcc -static", "qemu-aarch64"),
    ],
)
def test_the_self_test_passes_with_the_same_hash(exported, tmp_path, compiler, emulator):
    if not shutil.which(compiler.split()[0]) or emulator and not shutil.which(emulator):
        pytest.skip(f"no {compiler.split()[0]} {emulator} (Debian: clang, gcc-aarch64-linux-gnu, qemu-user)")
    path, _ = exported("fspen")
    lines = []
    for each, run in (("cc", ""), (compiler, emulator)):
        out = tmp_path / f"test{len(lines)}"
        subprocess.run(
            [
                *each.split(),
                *STRICT,
                "-Wshadow",
                "-O1",
                "-ffp-contract=off",
                "-DSETK_SELFTEST",
                str(path),
                "-o",
                str(out),
            ],
            check=True,
        )
        lines.append(run_self_test([*run.split(), str(out)]))
    assert "passed" in lines[0] and lines[0] == lines[1]


def test_the_filter_keeps_the_length_and_takes_out_the_delay(exported, tmp_path, wave_of_speech):
    path, _ = exported("fspen")
    binary = tmp_path / "fspen"
    subprocess.run(["cc", *STRICT, "-O2", "-DSETK_MAIN", str(path), "-o", str(binary)], check=True)
    engine = OnnxEngine(included(".onnx")["fspen"])
    for n in (0, 1, 255, 256, 48000 - 17):
        x = wave_of_speech[:n]
        wide = subprocess.run([binary, "f32"], input=x.tobytes(), capture_output=True, check=True).stdout
        assert len(wide) == 4 * n
        narrow = subprocess.run(
            [binary], input=np.round(x * 32768).astype("<i2").tobytes(), capture_output=True, check=True
        ).stdout
        assert len(narrow) == 2 * n
    expected = rounding.reference(engine, np.concatenate([x, np.zeros(256, np.float32)]), 0)[:n]
    found = np.frombuffer(wide, np.float32)
    assert 10 * np.log10(np.square(expected).sum() / np.square(found - expected).sum()) > 100
    assert (
        10 * np.log10(np.square(expected).sum() / np.square(np.frombuffer(narrow, "<i2") / 32768 - expected).sum()) > 45
    )
    assert subprocess.run([binary, "s24"], capture_output=True).returncode == 2
    with open("/dev/full", "wb") as full, open(tmp_path / "a.raw", "w+b") as samples:
        samples.write(bytes(2 * 48000))
        samples.seek(0)
        done = subprocess.run([binary], stdin=samples, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and "standard output: No space left" in done.stderr
    folder = os.open(tmp_path, os.O_RDONLY)  # reading it is an error
    done = subprocess.run([binary], stdin=folder, capture_output=True, text=True)
    os.close(folder)
    assert done.returncode == 1 and "standard input: Is a directory" in done.stderr


@pytest.mark.full
def test_the_stream_recovers_from_samples_that_are_no_numbers(exported, wave_of_speech):
    path, _ = exported("fspen")
    compiled = CompiledEngine(path)
    x = wave_of_speech[:40960].copy()
    silent = x.copy()
    silent[20000:20004] = 0  # what such samples count as
    expected = compiled.process(silent)
    for value in (np.nan, np.inf, -np.inf, 1e-40, 3e38):
        spoiled = x.copy()
        spoiled[20000:20004] = value
        assert np.array_equal(compiled.process(spoiled), expected), value
    hop, kept = compiled.hop, compiled.process(x)
    assert np.isfinite(expected).all() and np.abs(expected).max() < 2
    assert np.array_equal(expected[: 20000 // hop * hop], kept[: 20000 // hop * hop])
    after = slice((20000 // hop + 5) * hop, None)
    assert 10 * np.log10(np.square(kept[after]).sum() / np.square(kept[after] - expected[after]).sum()) > 20


def test_fast_math_is_refused(exported):
    path, _ = exported("fspen")
    done = subprocess.run(["cc", "-Ofast", "-c", str(path), "-o", "/dev/null"], capture_output=True, text=True)
    assert done.returncode and "fast-math" in done.stderr


def test_models_that_have_no_live_form_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="non-causal"):
        build.export_c(included(".onnx")["conv_tasnet-small"], tmp_path / "x.c")
    with pytest.raises(UserError, match="not a file of se-quant export"):
        (tmp_path / "no.onnx").write_bytes(b"\x3a\x80")
        build.export_c(tmp_path / "no.onnx", tmp_path / "x.c")
    assert not list(tmp_path.glob("x.*"))


def test_only_the_kernels_in_use_are_printed(exported):
    fspen, dpsnn = (exported(name)[0].read_text() for name in ("fspen", "dpsnn"))
    assert "static void synthesise(" in fspen and "static void synthesise(" not in dpsnn
    assert "sparse_product(" in dpsnn and "sparse_product(" not in fspen
    assert emit.multiply_adds(translate(included(".onnx")["fspen"]).program.words) < 1_300_000


@pytest.mark.full
@pytest.mark.parametrize("target", ["m7", "m33", "m55"])
def test_the_example_for_a_bare_board_returns_the_same_bits(exported, tmp_path, target):
    board = boards.BOARDS[target]
    if boards.missing():
        pytest.skip(f"no {boards.missing()}")
    if not boards.has_machine(board):
        pytest.skip(f"this qemu-system-arm has no {board.machine}")
    path, _ = exported("fspen")
    # The linker script of the example is for the board of m7.
    found = boards.measure(board, path, "float", emit.text("board.ld", "setk.export.c") if target == "m7" else None)
    host = tmp_path / "host"
    subprocess.run(
        ["cc", *STRICT, "-O1", "-ffp-contract=off", "-DSETK_SELFTEST", str(path), "-o", str(host)], check=True
    )
    assert f"output {found.hash}" in run_self_test([str(host)])
    assert found.instructions_per_hop < (3_000_000 if target == "m55" else 8_000_000)  # of the vectors of the M55
    assert found.ram_bytes < found.state_bytes + found.scratch_bytes + 8 * 256 + 1000
    assert 256 < found.stack_bytes < 8192
