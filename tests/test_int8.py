"""se-quant ptq, check and export of quantized models: what is in the int8 file, and that it computes what training did."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from conftest import MINI, ROOT
import setk
from setk import audio, checkpoint, engines, models
from setk.cli import quant
from setk.compress import integer, ptq
from setk.export import onnx as setk_onnx
from setk.export import onnx_int8
from setk.engines.torchscript import ScriptEngine
from setk.core.errors import UserError
from setk.data.lists import read_list, write_list

torch.set_num_threads(1)
SMALL = {"filters": 64, "bottleneck": 32, "hidden": 48, "skip": 32, "blocks": 3, "repeats": 2}


def noise(rng, frames, hop=16):
    level = np.interp(np.arange(frames * hop), np.linspace(0, frames * hop, 9), 10 ** rng.uniform(-1.5, -0.7, 9))
    return (rng.standard_normal(frames * hop) * level).astype(np.float32).reshape(1, frames, hop)


def quantized(name="conv_tasnet", preset=None, slopes=(0.25, 0.1, 0.9, 1.5), **config):
    """A model with weights moved off their start, whose PReLUs have these slopes in turn, quantized on noise."""
    torch.manual_seed(5)
    model = models.build(name, models.config_values(name, preset, config)).eval()
    with torch.no_grad():  # norms that are all different, too: equal constants are stored once
        for i, module in enumerate(m for m in model.modules() if isinstance(m, torch.nn.PReLU)):
            module.weight.fill_(slopes[i % len(slopes)])
        for p in model.parameters():
            if p.dim() == 1 and p.numel() > 1:
                p += 0.1 * torch.randn_like(p)
    ptq.calibrate(model, [0.1 * torch.randn(1, 8000)], "minmax")
    return model


def made(model, path) -> tuple[Path, dict[str, int]]:
    return path, setk_onnx.to_onnx(model, path, scores={})


@pytest.fixture(scope="module", params=["split in two, with a residual", "vanilla"])
def small(request, tmp_path_factory) -> tuple[models.Model, Path]:
    """A Conv-TasNet of all parts, and its int8 file."""
    extra = {"splitter": 2, "residual": True} if request.param.startswith("split") else {}
    model = quantized(**SMALL, **extra)
    return model, made(model, tmp_path_factory.mktemp("int8") / "m.onnx")[0]


def with_all_outputs(path) -> tuple[onnxruntime.InferenceSession, list[str]]:
    """A session that tells the codes of every quantizer, as the file has them and the runtime does not change."""
    model = onnx.load(path)
    names = [
        node.output[0] for node in model.graph.node if node.op_type in ("QLinearConv", "QuantizeLinear", "Max", "Min")
    ]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]), names


def snr(expected, found):
    return 10 * np.log10(np.square(expected).sum() / np.square(found - expected).sum())


@pytest.mark.full
def test_every_convolution_runs_in_an_integer_kernel_from_int8_weights(small, tmp_path):
    """Read from the graph that the runtime executes, after its own optimizations."""
    model, path = small
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # as the engine has it
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kernels = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert not {"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "MatMul", "Gemm", "FusedMatMul"} & set(
        kernels
    ), kernels
    convolutions = sum(isinstance(m, torch.nn.Conv1d) for m in model.modules()) - 1  # nothing takes the last residual's
    prelus = sum(isinstance(m, torch.nn.PReLU) for m in model.modules()) - 1  # all but the mask's follow one
    split = model.config.residual
    assert kernels["QLinearConv"] == convolutions - split + prelus
    assert kernels["ConvInteger"] == split and kernels["MatMulInteger"] == 1 + split
    big = [x for x in onnx.load(path).graph.initializer if np.prod(x.dims) > 512]
    assert big and all(x.data_type == TensorProto.INT8 for x in big)


@pytest.mark.full
def test_the_whole_file_gives_what_the_checkpoint_gives_up_to_flipped_roundings(small, rng):
    model, path = small
    engine = engines.OnnxEngine(path)
    assert setk_onnx.parity(model, engine) > 20
    for frames in (1, 2, int(rng.integers(3, 60)), 500):
        x = noise(rng, frames)
        with torch.no_grad():
            expected = model(torch.from_numpy(x), ())[0].numpy()
        found, _ = engine.run(x, ())
        assert found.shape == x.shape and (frames < 100 or snr(expected, found) > 15)
    if model.config.splitter == 2:
        assert not engine.run(np.zeros((1, 50, 16), np.float32), ())[0].any()


def test_each_layer_of_the_file_is_within_one_step_of_the_checkpoint(small, rng):
    """Given the same codes, so that one flip does not make others: where a layer's output is quantized, the codes of the file are
    those of fake quantization in torch, or their neighbours."""
    model, path = small
    x = noise(rng, 200)
    session, names = with_all_outputs(path)
    _, *codes = session.run(None, {"frames": x})
    graph, found_by_scale = onnx.load(path).graph, {}
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    scale_of = {}  # of a tensor of codes; all are different
    for node in graph.node:
        at = {"QuantizeLinear": 1, "QLinearConv": 6}.get(node.op_type)
        if node.output[0] in names:
            scale_of[node.output[0]] = float(constants[node.input[at]]) if at else scale_of[node.input[0]]
    for name, found in zip(names, codes):  # Max comes after the two that it takes
        found_by_scale[scale_of[name]] = found
    differing = compared = 0

    def follow(quantizer, args):
        """Compare what goes into a quantizer, and go on with the file's codes."""
        nonlocal differing, compared
        scale, zero = (t.item() for t in quantizer.grid())
        found = found_by_scale[scale]
        ours = torch.round(args[0] / scale).add(zero).clamp(0, 255).numpy()
        assert np.abs(ours - found).max() <= 1, scale
        differing, compared = differing + (ours != found).sum(), compared + found.size
        return (torch.from_numpy((found.astype(np.float32) - zero) * np.float32(scale)),)

    hooks = [q.register_forward_pre_hook(follow) for q in model.activation_quantizers.values()]
    with torch.no_grad():
        model(torch.from_numpy(x), ())
    for hook in hooks:
        hook.remove()
    assert 0 < differing < 1e-3 * compared


def saturates() -> bool:
    """Whether this processor's kernel clips sums of two products to 16 bits: x86 without VNNI."""
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [4, 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
        [numpy_helper.from_array(np.full((64, 16), 127, np.int8), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return bool((session.run(None, {"x": np.full((4, 64), 255, np.uint8)})[0] != 64 * 255 * 127).any())


def accumulators(node, x, zero, weight) -> np.ndarray:
    """Of ONNX Runtime's ConvInteger (MatMulInteger) on the same integers."""
    kind = "MatMulInteger" if node.op_type == "MatMulInteger" else "ConvInteger"
    alone = helper.make_node(
        kind, ["x", "w", "z"], ["y"], **{a.name: helper.get_attribute_value(a) for a in node.attribute}
    )
    graph = helper.make_graph(
        [alone],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(zero, "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]


def test_the_integer_reference_adds_up_as_the_runtime_does_and_rounds_within_a_step(small, rng):
    """Layer by layer, on the runtime's own codes."""
    if saturates():
        pytest.skip("this processor's int8 kernels clip sums of two products to 16 bits")
    _, path = small
    x = noise(rng, 150)
    session, names = with_all_outputs(path)
    _, *codes = session.run(None, {"frames": x})
    theirs = dict(zip(names, codes))
    reference = integer.Reference(path)
    differing = {}

    def seen(name, ours):
        if name not in theirs:
            return ours
        assert np.abs(ours.astype(int) - theirs[name]).max() <= 1
        differing[name] = np.mean(ours != theirs[name])
        return theirs[name]

    values = dict(theirs)
    reference.run(x, lambda name, ours: values.setdefault(name, seen(name, ours)))
    assert len(differing) == len(names) and np.mean(list(differing.values())) < 1e-3 and max(differing.values()) < 1e-2
    for node in reference.nodes:
        at = {"QLinearConv": (0, 2, 3), "ConvInteger": (0, 2, 1), "MatMulInteger": (0, 2, 1)}.get(node.op_type)
        if at:
            x, zero, weight = (values.get(node.input[i], reference.constants.get(node.input[i])) for i in at)
            sums = integer.matmul if node.op_type == "MatMulInteger" else integer.accumulate
            ours = sums(node, x, zero, weight)
            assert ours.dtype == np.int32 and np.array_equal(ours, accumulators(node, x, zero, weight))


def test_the_network_in_integers_alone_is_as_near_to_the_checkpoint_as_the_runtime_is(small, rng):
    model, path = small
    x = noise(rng, 400)
    with torch.no_grad():
        expected = model(torch.from_numpy(x), ())[0].numpy()
    runtime, alone = (engine(path).run(x, ())[0] for engine in (engines.OnnxEngine, integer.IntegerEngine))
    assert snr(expected, alone) > 15 and snr(expected, alone) > snr(expected, runtime) - 4


def test_integers_hold_products_sums_and_rounding_of_real_numbers(rng):
    a, b = (integer.Fixed(rng.integers(-255, 256, (1, 8, 100)), 10 ** rng.uniform(-4, 0)) for _ in range(2))
    gain, offset = rng.normal(size=(8, 1)).astype(np.float32), rng.normal(size=(8, 1)).astype(np.float32)
    gain[0] = 0
    for result, expected in [
        (a + b, a.value() + b.value()),
        (a - b, a.value() - b.value()),
        (a * b, a.value() * b.value()),
        (gain * a + offset, gain * a.value() + offset),
    ]:
        scale, zero = (
            np.float32(np.ptp(expected) / 255),
            np.uint8(np.clip(-expected.min() / (np.ptp(expected) / 255), 0, 255)),
        )
        exact = np.clip(np.rint(expected.astype(np.float64) / scale) + zero, 0, 255)
        assert np.abs(result.requantized(scale, zero) - exact).max() <= 1
        assert np.mean(result.requantized(scale, zero) != exact) < 0.03  # those that lie halfway
    x = integer.Fixed(rng.integers(0, 256, (2, 1, 5000)) - 100, 0.03)
    node = helper.make_node("InstanceNormalization", [], [], epsilon=1e-8)
    one = integer.normalise(node, x).value()
    assert np.abs(one.mean(-1)).max() < 1e-4 and np.abs(one.std(-1) - 1).max() < 1e-4
    silent = integer.normalise(node, integer.Fixed(np.zeros((1, 1, 9), int), 1.0))
    assert not silent.codes.any()


@pytest.mark.full
def test_the_int8_file_of_fqse_is_at_most_5_4_mb(tmp_path):
    path, kinds = made(quantized(preset="fqse"), tmp_path / "fqse.onnx")
    assert kinds["integer"] == kinds["products"] == 101
    assert path.stat().st_size < 5.4e6
    assert sum(np.prod(x.dims) for x in onnx.load(path).graph.initializer if x.data_type == TensorProto.INT8) > 4.88e6


@pytest.mark.full
@pytest.mark.parametrize("slope, two", [(-0.3, True), (-1.7, True), (0.0, False)])
def test_two_convolutions_make_negative_slopes_too_and_no_slope_is_computed_all_the_same(slope, two, tmp_path):
    model = quantized(slopes=(slope,), **SMALL)
    path, kinds = made(model, tmp_path / "m.onnx")
    assert kinds["integer"] == kinds["products"] and setk_onnx.parity(model, engines.OnnxEngine(path)) > 20
    kernels = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert (kernels["ConvInteger"] == model.config.residual) == two, kernels


@pytest.mark.parametrize("slope", [0.5, -0.5, -1.5])
def test_weights_of_minus_128_without_a_bias_keep_their_sign(slope, tmp_path):
    """Conv, PReLU and their quantizers, with the one code that int8 has no negative of."""
    constants = {
        "w": np.array([[[-128]], [[127]]], np.int8),
        "ws": np.array(0.01, np.float32),
        "wz": np.array(0, np.int8),
        "s": np.array(0.02, np.float32),
        "z": np.array(100, np.uint8),
        "slope": np.array([slope], np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"], "conv"),
        helper.make_node("PRelu", ["c", "slope"], ["p"]),
        helper.make_node("QuantizeLinear", ["p", "s", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 50])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 50])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.linspace(-1, 1, 50, dtype=np.float32).reshape(1, 1, -1)

    def output():
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})[0]

    expected = output()
    assert onnx_int8.to_integers(model.graph) == {"products": 1, "integer": 1}
    assert Counter(node.op_type for node in model.graph.node)["QLinearConv"] == 2
    assert np.abs(output() - expected).max() < 1.01 * 2 * constants["s"]


def test_a_channel_without_weights_keeps_its_bias(tmp_path):
    """Its scale is next to nothing, and int32 would not hold the bias in steps of it."""
    torch.manual_seed(1)
    model = models.build("conv_tasnet", SMALL).eval()
    with torch.no_grad():
        model.masker.bottleneck[1].weight[3] = 0
        model.masker.bottleneck[1].weight[4] *= 1e-9
        model.masker.bottleneck[1].bias[3:5] = 0.5
    ptq.calibrate(model, [0.1 * torch.randn(1, 8000)], "minmax")
    assert setk_onnx.parity(model, engines.OnnxEngine(made(model, tmp_path / "m.onnx")[0])) > 20


@pytest.mark.full
@pytest.mark.parametrize("name", ["fspen", "lite_rtse"])
def test_recurrent_models_hold_int8_weights_and_compute_what_the_checkpoint_does(name, tmp_path):
    model = quantized(name)
    path, kinds = made(model, tmp_path / "i.onnx")
    assert 0 < kinds["integer"] < kinds["products"] and setk_onnx.parity(model, engines.OnnxEngine(path)) > 30
    params = models.count_parameters(models.build(name, {}))["params"]
    assert path.stat().st_size < {"fspen": 0.6, "lite_rtse": 0.3}[name] * 4 * params  # FSPEN is half nodes


def test_ranges_by_percentile_and_mse_are_those_of_the_values_themselves(rng):
    parts = [
        torch.from_numpy(10 ** rng.uniform(-2, 1) * rng.standard_normal(int(rng.integers(1, 40000)))).float()
        for _ in range(8)
    ]
    x = torch.cat(parts)
    seen = ptq.Histogram()
    for part in [torch.zeros(7), *parts]:
        seen.add(part)
    assert seen.counts.sum() == len(x) and seen.counts.size == ptq.BINS
    assert ptq.minmax(seen) == (min(0, x.min().item()), max(0, x.max().item()))
    lo, hi = ptq.percentile(seen)
    exact = np.quantile(x.numpy(), [ptq.TAIL, 1 - ptq.TAIL])
    assert np.abs(np.array([lo, hi]) - exact).max() < 3 * seen.width + 0.1 * np.ptp(exact)

    def error(lo, hi):
        scale = (hi - lo) / 255
        zero = round(-lo / scale)
        return float(((torch.round(x / scale).clamp(-zero, 255 - zero) * scale - x) ** 2).sum())

    best = error(*ptq.mse(seen))
    assert best <= 1.02 * min(error(*ptq.minmax(seen)), error(lo, hi), error(0.8 * lo, 0.8 * hi))


@pytest.fixture(scope="module")
def mini(tmp_path_factory) -> tuple[Path, Path]:
    """A few seconds of data/mini: noisy.scp and clean.scp."""
    folder = tmp_path_factory.mktemp("mini")
    for name in ("noisy", "clean"):
        write_list(
            folder / f"{name}.scp", {u: ROOT / p for u, p in list(read_list(MINI / f"valid/{name}.scp").items())[:3]}
        )
    return folder / "noisy.scp", folder / "clean.scp"


@pytest.mark.full
def test_export_is_judged_on_a_list_and_on_noise_is_a_warning_for_a_quantized_model(se, mini, tmp_path, monkeypatch):
    noisy, _ = mini
    checkpoint.save(tmp_path / "q.pt", quantized(**SMALL), {})
    out = tmp_path / "q.onnx"
    heard = se("quant", "export", tmp_path / "q.pt", out, "--list", noisy)
    assert heard.returncode == 0 and out.exists(), heard.err
    checked = se("quant", "check", tmp_path / "q.pt", out, "--list", noisy, "--min-snr", 0)
    snrs = [float(line.split("\t")[1]) for line in checked.out.splitlines()[1:]]
    assert f"SNR {np.mean(snrs):.1f} dB to the checkpoint" in heard.err

    # What a QAT of a few steps does is here what every model does.
    monkeypatch.setattr(setk.export, "LEAST_ROUNDED", 100.0)
    for options, code, words in (
        ([], 0, "below 100) on white noise; compare them on speech"),
        (["--list", noisy], 2, "not written: differs"),
        (["--min-snr", 90], 2, "below 90)"),
        (["--list", noisy, "--min-snr", 1], 0, "to the checkpoint"),
    ):
        out.unlink(missing_ok=True)
        done = se("quant", "export", tmp_path / "q.pt", out, *options)
        assert (done.returncode, out.exists()) == (code, code == 0) and words in done.err, (options, done.err)
    done = se("quant", "export", tmp_path / "q.pt", tmp_path / "q.c", "--min-snr", 1)
    assert done.returncode == 2 and "are for .onnx and .ts" in done.err
    (tmp_path / "lost.scp").write_text("a no.wav\n")
    done = se("quant", "export", tmp_path / "q.pt", out, "--list", tmp_path / "lost.scp")
    assert done.returncode == 2 and "no signals to compare" in done.err and "no.wav" in done.err


@pytest.mark.full
def test_from_a_float_checkpoint_to_an_int8_file_by_commands(se, mini, tmp_path):
    noisy, clean = mini
    torch.manual_seed(2)
    checkpoint.save(tmp_path / "f.pt", models.build("conv_tasnet", SMALL), {})
    done = se("quant", "ptq", tmp_path / "f.pt", tmp_path / "q.pt", "--list", noisy)
    assert done.returncode == 0 and "ranges from 3 signals" in done.err and not done.out, done.err
    about = checkpoint.load(tmp_path / "q.pt")[1]
    assert about["quantization"]["method"] == "vanilla" and about["provenance"]["calibration"] == "mse"
    done = se("quant", "export", tmp_path / "q.pt", tmp_path / "q.onnx")
    assert done.returncode == 0 and "of 27 convolutions and matrix products are of integers" in done.err, done.err

    done = se(
        "quant",
        "check",
        tmp_path / "q.pt",
        tmp_path / "q.onnx",
        "--list",
        noisy,
        "--ref",
        clean,
        "--min-snr",
        10,
        "--metrics",
        "si_sdr",
    )
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert done.returncode == 0 and rows[0] == ["utt", "snr", "d_si_sdr"] and len(rows) == 4, done.err
    assert all(10 < float(row[1]) < 80 for row in rows[1:]) and "snr" in done.err and "3 done, 0 failed" in done.err
    done = se(
        "quant",
        "check",
        tmp_path / "q.onnx",
        tmp_path / "q.onnx",
        "--integer",
        "--list",
        noisy,
        "--shard",
        "1/3",
        "--min-snr",
        10,
    )
    assert done.returncode == 0 and len(done.out.splitlines()) == 2, done.err

    listed = se("enhance", tmp_path / "q.onnx", "--list", noisy, "--out", tmp_path / "out")
    assert listed.returncode == 0 and len(listed.out.splitlines()) == 3


def test_check_fails_below_the_threshold_and_names_what_failed(se, mini, untrained, tmp_path):
    noisy, _ = mini
    with open(tmp_path / "n.scp", "w") as f:
        f.write(noisy.read_text() + f"gone {tmp_path}/gone.wav\n")
    done = se("quant", "check", untrained, "fspen", "--list", tmp_path / "n.scp")
    assert done.returncode == 1 and "0 done, 4 failed" in done.err and "below 20" in done.err and "gone.wav" in done.err
    assert len(done.out.splitlines()) == 4


@pytest.mark.full
def test_torchscript_runs_wherever_torch_does(se, untrained, mini, tmp_path):
    setk.export(str(untrained), tmp_path / "m.ts", frames=4, batch=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward = torch.jit.load(str(tmp_path / "m.ts"))
    model, _ = checkpoint.load(untrained)
    x = torch.randn(2, 4, *model.transform.shape)
    with torch.no_grad():
        expected, after = model(x, model.init_state(2))
        out, *state = forward(x, *model.init_state(2))
    assert (out - expected).abs().max() < 1e-5 and all((a - b).abs().max() < 1e-5 for a, b in zip(state, after))
    done = se(
        "quant", "check", untrained, tmp_path / "m.ts", "--list", mini[0], "--part", "1/3", "--min-snr", 80, "--trust"
    )
    assert done.returncode == 0 and len(done.out.splitlines()) == 2, done.err
    (tmp_path / "text.ts").write_text("hello")
    for name, words in (("text", "not a TorchScript file"), ("gone", "no such file")):
        with pytest.raises(UserError, match=words):
            ScriptEngine(tmp_path / f"{name}.ts")


def test_a_torchscript_of_a_model_that_is_not_causal_takes_any_length(tmp_path, rng):
    torch.manual_seed(0)
    model = models.build("conv_tasnet", SMALL).eval()
    setk_onnx.to_torchscript(model, tmp_path / "m.ts", scores={})
    engine = ScriptEngine(tmp_path / "m.ts")
    for frames in (1, 2, int(rng.integers(3, 300))):
        x = noise(rng, frames)
        with torch.no_grad():
            assert np.abs(engine.run(x, [])[0] - model(torch.from_numpy(x), ())[0].numpy()).max() < 1e-5


def test_mistakes_are_named(mini, tmp_path):
    checkpoint.save(tmp_path / "q.pt", quantized(**SMALL), {})
    audio.write(tmp_path / "silent.wav", np.zeros((1, 3200), np.float32), 16000)
    write_list(tmp_path / "silent.scp", {"s": tmp_path / "silent.wav"})
    for words, model, list_ in [
        ("is quantized already", tmp_path / "q.pt", mini[0]),
        ("nothing to calibrate with", "fspen", tmp_path / "silent.scp"),
    ]:
        with pytest.raises(UserError, match=words):
            quant.ptq(str(model), tmp_path / "o.pt", str(list_), quant.Calibration.mse)
        assert not (tmp_path / "o.pt").exists()
    setk_onnx.to_onnx(models.build("fspen", {}).eval(), tmp_path / "fspen.onnx", scores={})
    with pytest.raises(UserError, match="knows Conv-TasNet, but not"):
        integer.Reference(tmp_path / "fspen.onnx")


def test_a_float_graph_has_nothing_to_make_integers_of(tmp_path):
    setk_onnx.to_onnx(models.build("conv_tasnet", SMALL).eval(), tmp_path / "f.onnx", scores={})
    graph = onnx.load(tmp_path / "f.onnx").graph
    assert onnx_int8.to_integers(graph) == {"products": 0, "integer": 0}


def test_check_scores_gains_and_names_the_scores_that_are_missing(se, mini, untrained, tmp_path):
    noisy, clean = mini
    done = se("quant", "check", "fspen", "fspen", "--list", noisy, "--ref", clean, "--metrics", "si_sdri", "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert done.returncode == 0 and [(row["snr"], row["d_si_sdri"]) for row in rows] == [(None, 0.0)] * 3, done.err
    (utt, place), *_ = read_list(clean).items()
    wave, rate = audio.read(str(place))
    audio.write(tmp_path / "short.wav", wave[:, :-100], rate)
    (tmp_path / "clean.scp").write_text(clean.read_text().replace(str(place), f"{tmp_path}/short.wav"))
    done = se("quant", "check", "fspen", "fspen", "--list", noisy, "--ref", tmp_path / "clean.scp", "--metrics", "stoi")
    assert done.returncode == 1 and "2 done, 1 failed" in done.err, done.err
    assert f"{utt}: stoi: lengths differ" in done.err and f"{utt}\tinf\tnan" in done.out
