"""The native engine: programs of exported models run by setk's kernels, against ONNX Runtime and torch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from setk import engines
from setk.core.errors import UserError
from setk.engines import NativeEngine, OnnxEngine, Stream, native
from setk.native import kernels, reader
from setk.pretrained import included

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="the kernels were not built")
MODELS = ["fspen", "dpsnn", "dpcrn_cf"]


def noise(seed: int, channels: int, n: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((channels, n))).astype(np.float32)


def decibels(expected: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected, dtype=float).sum() / np.square(found - expected, dtype=float).sum()))


def through(engine, x: np.ndarray, sizes: list[int]) -> np.ndarray:
    """All of x by a stream, in blocks of these sizes over and over."""
    stream, parts, at, i = Stream(engine, engine.sample_rate, len(x)), [], 0, 0
    while at < x.shape[1]:
        size = sizes[i % len(sizes)]
        parts.append(stream.push(x[:, at : at + size]))
        at, i = at + size, i + 1
    return np.concatenate([*parts, stream.flush()], 1)


@pytest.mark.parametrize("name", MODELS)
def test_it_agrees_with_onnx_runtime(name):
    engine, reference = engines.open(name), OnnxEngine(included(".onnx")[name])
    assert isinstance(engine, NativeEngine)
    x = noise(0, 2, 16000)
    expected, found = through(reference, x, [1600]), through(engine, x, [777, 1, 3000])
    assert found.shape == expected.shape == x.shape
    assert decibels(expected, found) > 100
    assert engines.latency_ms(engine) == engines.latency_ms(reference)


@pytest.mark.parametrize("name", MODELS)
def test_blocks_do_not_change_the_output(name):
    engine, x = engines.open(name), noise(1, 1, 9001)
    assert np.array_equal(through(engine, x, [9001]), through(engine, x, [1, 300, 17]))


def test_channels_are_apart_and_restart_alone():
    engine, x = engines.open("fspen"), noise(2, 3, 40 * 256).reshape(3, 40, 256)
    alone, _ = engine.run(x[1:2], engine.start(1))
    together, state = engine.run(x, engine.start(3))
    assert np.array_equal(together[1:2], alone)
    engine.restart(state, 1)
    after, _ = engine.run(x, state)
    assert np.array_equal(after[1], together[1]) and not np.array_equal(after[0], together[0])


def test_idle_channels_keep_their_state():
    engine, x = engines.open("fspen"), noise(3, 2, 30 * 256).reshape(2, 30, 256)
    expected, _ = engine.run(x, engine.start(2))
    state = engine.start(2)
    first, state = engine.run(x[:, :10], state)
    _, state = engine.run(noise(4, 2, 5 * 256).reshape(2, 5, 256), state, np.array([False, False]))
    rest, _ = engine.run(x[:, 10:], state)
    assert np.array_equal(np.concatenate([first, rest], 1), expected)


def test_bad_samples_are_forgotten():
    engine, x = engines.open("fspen"), noise(5, 1, 100 * 256)
    x[0, 5000], x[0, 5001], x[0, 5002] = np.nan, np.inf, 1e-42
    y = through(engine, x, [256])
    assert np.isfinite(y).all() and np.abs(y).max() < 2


@pytest.mark.parametrize(
    "preset", ["fspen-79k", "lite_rtse", "dpcrn_cf-causal", "gtcrn", "fastenhancer-t", "dccrn-causal"]
)
def test_every_causal_preset_has_a_program(preset, tmp_path):
    torch = pytest.importorskip("torch")
    from setk import models
    from setk.engines import TorchEngine
    from setk.export import onnx

    torch.manual_seed(1)
    model = models.build_preset(preset).eval()
    path = tmp_path / "model.onnx"
    onnx.to_onnx(model, path, scores={}, source={})
    engine = NativeEngine(path)
    x = noise(6, 1, engine.sample_rate // 2)
    assert decibels(through(TorchEngine(model), x, [4000]), through(engine, x, [4000])) > 100


@pytest.mark.full
@pytest.mark.parametrize("seed", range(4))
def test_pruned_and_other_sizes_of_fspen_have_programs(seed, tmp_path):
    torch = pytest.importorskip("torch")
    from setk import models
    from setk.engines import TorchEngine
    from setk.export import onnx

    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    blocks, groups = int(random.integers(1, 4)), int(2 ** random.integers(0, 5))
    size = models.build("fspen", {"dpe_blocks": blocks, "groups": groups}).units
    widths = tuple(int(4 * random.integers(1, n // 4 + 1)) for n in size.values())
    model = models.build("fspen", {"dpe_blocks": blocks, "groups": groups, "widths": widths}).eval()
    onnx.to_onnx(model, tmp_path / "model.onnx", scores={}, source={})
    x = noise(seed, 1, 8000)
    expected = through(TorchEngine(model), x, [4000])
    assert decibels(expected, through(NativeEngine(tmp_path / "model.onnx"), x, [4000])) > 100, widths


def test_onnx_runtime_runs_what_the_kernels_cannot(monkeypatch):
    assert isinstance(engines.open("conv_tasnet-small"), OnnxEngine)
    assert isinstance(engines.open(included(".onnx")["fspen"]), OnnxEngine)
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert isinstance(engines.open("fspen"), OnnxEngine)
    with pytest.raises(UserError, match="compiled kernels"):
        NativeEngine(included(".onnx")["fspen"])


def test_metadata_and_graph_are_those_of_the_onnx_package():
    onnx = pytest.importorskip("onnx")
    for path in included(".onnx").values():
        expected = onnx.load(path)
        found = reader.read(path)
        assert [n.op for n in found.nodes] == [n.op_type for n in expected.graph.node]
        assert reader.metadata(path)["model"] in found.metadata["setk"]
        for tensor in expected.graph.initializer:
            assert np.array_equal(found.constants[tensor.name], onnx.numpy_helper.to_array(tensor))
        for node, reference in zip(found.nodes, expected.graph.node):
            assert node.inputs == list(reference.input) and node.outputs == list(reference.output)
            assert set(node.attributes) == {a.name for a in reference.attribute}


def test_a_file_that_is_not_onnx_is_one_line(tmp_path):
    for data in (b"", b"not a model at all", b"\x08\x08\x12\xff\xff"):
        path = tmp_path / "x.onnx"
        path.write_bytes(data)
        with pytest.raises(UserError, match="not a file of se-quant export"):
            NativeEngine(path)
    assert native.available(included(".onnx")["fspen"])


def test_programs_are_kept_in_the_cache(monkeypatch, tmp_path):
    from setk.core.files import sha256
    from setk.native import stored, translate

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = included(".onnx")["fspen"]
    expected, digest = stored.translated(path), sha256(path)
    x = noise(7, 1, 8000)
    output = through(NativeEngine(path), x, [4000])
    assert not list(tmp_path.iterdir())
    assert np.array_equal(through(NativeEngine(path, keep=True), x, [4000]), output)
    file = tmp_path / "setk" / "fspen.program"
    data, translations = file.read_bytes(), []
    original = translate.translate
    monkeypatch.setattr(translate, "translate", lambda path: translations.append(path) or original(path))
    found = stored.load(path, digest)
    assert not translations and found.about == expected.about and found.program.blocks == expected.program.blocks
    for name in ("words", "reset", "constants"):
        assert np.array_equal(getattr(found.program, name), getattr(expected.program, name))
    assert np.array_equal(through(NativeEngine(path, keep=True), x, [4000]), output)
    damaged = bytearray(data)
    damaged[-100] ^= 1
    for other in (b"", b"{}\n", b"[]\n", data[:-1], bytes(damaged), data[: len(data) // 2]):
        file.write_bytes(other)
        stored.load(path, digest)
        assert translations.pop() == path and file.read_bytes() == data
    stored.load(path, "another model")
    assert translations.pop() == path
    monkeypatch.setattr(stored, "_code", lambda: "other code")
    stored.load(path, digest)
    assert translations.pop() == path


def test_no_cache_is_needed(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a directory cannot be made here
    assert NativeEngine(included(".onnx")["fspen"], keep=True).name == "fspen"


@pytest.mark.parametrize("name", MODELS)
def test_threads_share_a_model_and_not_its_memory(name):
    engine, x = engines.open(name), noise(3, 1, 32000)
    expected = through(engine, x, [1600])
    with ThreadPoolExecutor(4) as threads:
        outputs = list(threads.map(lambda size: through(engine, x, [size]), [1600, 800, 333, 5000] * 2))
    assert all(np.array_equal(output, expected) for output in outputs)
