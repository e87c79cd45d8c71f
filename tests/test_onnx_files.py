"""ONNX files that are not what their metadata states: one line before anything is written, in memory or on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from setk import engines
from setk.core.errors import UserError

WINDOW = 256
ABOUT = {
    "format": 1,
    "model": "forged",
    "sample_rate": 16000,
    "lookahead": 0,
    "frames": 1,
    "batch": 1,
    "causal": True,
    "chunk_s": 10.0,
    "transform": {"kind": "Frames", "window": WINDOW, "hop": WINDOW},
    "state": [{"axis": 0, "shape": [1, 4], "start": 0.0}],
}


def tensor(name: str, values, kind: int = TensorProto.INT64) -> onnx.TensorProto:
    values = np.asarray(values)
    return helper.make_tensor(name, kind, values.shape, values.reshape(-1))


def forged(path: Path, nodes, initializers=(), kind: int = TensorProto.FLOAT, about=ABOUT, domains=("",)) -> Path:
    """An ONNX file of `nodes` from frames and state_0 to out and next_0, declared with the shapes of ABOUT."""
    shapes = {"frames": [1, 1, WINDOW], "state_0": [1, 4], "out": [1, 1, WINDOW], "next_0": [1, 4]}
    infos = {
        name: helper.make_tensor_value_info(name, kind if name == "out" else TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    graph = helper.make_graph(
        nodes, "forged", [infos["frames"], infos["state_0"]], [infos["out"], infos["next_0"]], list(initializers)
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(domain, 17) for domain in domains], ir_version=8
    )
    helper.set_model_props(model, {"setk": json.dumps(about)})
    path.write_bytes(model.SerializeToString())
    return path


KEEP = helper.make_node("Identity", ["state_0"], ["next_0"])
PASS = helper.make_node("Relu", ["frames"], ["out"])


def test_a_file_that_keeps_to_its_metadata_is_run(tmp_path):
    engine = engines.OnnxEngine(forged(tmp_path / "a.onnx", [PASS, KEEP]))
    x = np.linspace(-1, 1, 3 * WINDOW, dtype=np.float32).reshape(1, 3, WINDOW)
    y, _ = engine.run(x, engine.start(1))
    assert np.array_equal(y, np.maximum(x, 0))


def larger(factor: int):
    """Nodes that compute an output of `factor` times the declared size."""
    return [helper.make_node("Tile", ["frames", "times"], ["out"]), KEEP], [tensor("times", [1, 1, factor])]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: larger(1000), "out"),
        (
            lambda: (
                [helper.make_node("Reshape", ["frames", "shape"], ["out"]), KEEP],
                [tensor("shape", [1, WINDOW, 1])],
            ),
            "out",
        ),
        (lambda: ([PASS, helper.make_node("Concat", ["state_0", "state_0"], ["next_0"], axis=0)], []), "next_0"),
    ],
)
def test_outputs_of_another_shape_are_refused_before_they_are_written(tmp_path, make, words):
    with pytest.raises(UserError) as e:
        engines.OnnxEngine(forged(tmp_path / "a.onnx", *make()))
    assert words in str(e.value) and "\n" not in str(e.value)


def test_an_output_that_grows_with_the_input_writes_no_memory(tmp_path):
    # On silence it has the declared shape.
    nodes = [
        helper.make_node("ReduceMax", ["frames"], ["peak"], keepdims=0),
        helper.make_node("Ceil", ["peak"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["count"], to=TensorProto.INT64),
        helper.make_node("Mul", ["count", "thousand"], ["many"]),
        helper.make_node("Max", ["many", "one"], ["times"]),
        helper.make_node("Concat", ["one", "one", "times"], ["repeats"], axis=0),
        helper.make_node("Tile", ["frames", "repeats"], ["out"]),
        KEEP,
    ]
    engine = engines.OnnxEngine(forged(tmp_path / "a.onnx", nodes, [tensor("thousand", [1000]), tensor("one", [1])]))
    with pytest.raises(UserError, match="cannot be run"):
        engine.run(np.ones((1, 1, WINDOW), np.float32), engine.start(1))


@pytest.mark.parametrize("kind", ["DOUBLE", "INT64", "BOOL", "FLOAT16", "STRING"])
def test_outputs_of_another_type(se, tmp_path, kind):
    code = getattr(TensorProto, kind)
    path = forged(tmp_path / "a.onnx", [helper.make_node("Cast", ["frames"], ["out"], to=code), KEEP], kind=code)
    done = se("enhance", path, "data/mini/test/noisy/mona_0001.flac", tmp_path / "o.wav")
    assert done.returncode == 2 and "not a tensor(float)" in done.err and len(done.err.splitlines()) == 1
    assert not (tmp_path / "o.wav").exists()


def test_weights_in_other_files_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(4 * WINDOW))
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[WINDOW], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "secret"), ("length", str(4 * WINDOW))):
        entry = outside.external_data.add()
        entry.key, entry.value = key, value
    nodes = [helper.make_node("Add", ["frames", "w"], ["out"]), KEEP]
    with pytest.raises(UserError, match="weights in other files"):
        engines.OnnxEngine(forged(tmp_path / "a.onnx", nodes, [outside]))
    constant = helper.make_node("Constant", [], ["w"], value=outside)
    with pytest.raises(UserError, match="weights in other files"):
        engines.OnnxEngine(forged(tmp_path / "b.onnx", [constant, *nodes]))


def body(nodes, inputs, outputs) -> onnx.GraphProto:
    """A graph of an attribute: the count i, the conditions c and d, and frames."""
    kinds = {"i": TensorProto.INT64, "c": TensorProto.BOOL, "d": TensorProto.BOOL}

    def info(name):
        shape = [] if name in kinds else [1, 1, WINDOW]
        return helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)

    return helper.make_graph(nodes, "body", [info(x) for x in inputs], [info(x) for x in outputs])


def endless() -> onnx.NodeProto:
    """A Loop whose condition stays true."""
    nodes = [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Relu", ["frames"], ["o"])]
    return helper.make_node("Loop", ["", "yes", "frames"], ["out"], body=body(nodes, ["i", "c", "v"], ["d", "o"]))


@pytest.mark.parametrize("kind", ["loop", "loop in a branch", "branch"])
def test_control_flow_is_refused_before_it_runs(se, tmp_path, kind):
    if kind == "loop":
        node = endless()
    else:
        inner = [endless()] if "loop" in kind else [helper.make_node("Relu", ["frames"], ["o"])]
        inner[0].output[:] = ["o"]
        branch = body(inner, [], ["o"])
        node = helper.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch)
    path = forged(tmp_path / "a.onnx", [node, KEEP], [tensor("yes", True, TensorProto.BOOL)])
    done = se("enhance", path, "data/mini/test/noisy/mona_0001.flac", tmp_path / "o.wav")
    assert done.returncode == 2 and "control flow" in done.err and len(done.err.splitlines()) == 1, done.err


def test_functions_that_grow_exponentially_are_refused(tmp_path):
    depth = 40
    functions = [
        helper.make_function(
            "own", f"f{i}", ["x"], ["z"],
            [helper.make_node(f"f{i + 1}" if i < depth else "Relu", [a], [b], domain="own" if i < depth else "") for a, b in ("xy", "yz")],
            [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
        )
        for i in range(depth + 1)
    ]  # fmt: skip
    path = forged(
        tmp_path / "a.onnx", [helper.make_node("f0", ["frames"], ["out"], domain="own"), KEEP], domains=("", "own")
    )
    model = onnx.load(path)
    model.functions.extend(functions)
    onnx.save(model, path)
    with pytest.raises(UserError, match="local functions"):
        engines.OnnxEngine(path)


def test_the_word_location_alone_is_harmless(tmp_path):
    node = helper.make_node("Relu", ["frames"], ["out"], name="allocation")
    assert engines.OnnxEngine(forged(tmp_path / "a.onnx", [node, KEEP])).name == "forged"


def test_custom_operators_are_refused(tmp_path):
    nodes = [helper.make_node("Anything", ["frames"], ["out"], domain="my.operators"), KEEP]
    with pytest.raises(UserError, match="cannot be run"):
        engines.OnnxEngine(forged(tmp_path / "a.onnx", nodes, domains=("", "my.operators")))


@pytest.mark.parametrize(
    "change",
    [
        {"sample_rate": 0},
        {"sample_rate": 10**12},
        {"sample_rate": "16000"},
        {"sample_rate": True},
        {"lookahead": -1},
        {"lookahead": 10**9},
        {"frames": 0},
        {"frames": 1.5},
        {"frames": 10**9},
        {"batch": 0},
        {"batch": 10**9},
        {"chunk_s": float("nan")},
        {"chunk_s": -1.0},
        {"transform": None},
        {"transform": {"kind": "Frames", "window": 0, "hop": 0}},
        {"transform": {"kind": "STFT", "window": 256, "hop": -1}},
        {"transform": {"kind": "os.system"}},
        {"transform": {"kind": []}},
        {"state": None},
        {"state": [{"axis": 5, "shape": [1, 4], "start": 0.0}]},
        {"state": [{"axis": 0, "shape": [1, 10**12], "start": 0.0}]},
        {"state": [{"axis": 0, "shape": [1, 4], "start": "AAAA"}]},
        {"state": [{"axis": 0, "shape": [1, 4], "start": []}]},
        {"state": []},
        {"causal": False},
        {"format": 2},
        {"format": [1]},
    ],
)
def test_metadata_out_of_range(tmp_path, change):
    path = forged(tmp_path / "a.onnx", [PASS, KEEP], about={**ABOUT, **change})
    with pytest.raises(UserError) as e:
        engines.OnnxEngine(path)
    assert str(e.value).startswith(f"{path}: ") and "\n" not in str(e.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100000])
def test_metadata_that_is_not_a_description(tmp_path, text):
    path = forged(tmp_path / "a.onnx", [PASS, KEEP])
    model = onnx.load(path)
    helper.set_model_props(model, {"setk": text})
    onnx.save(model, path)
    with pytest.raises(UserError, match="metadata is damaged"):
        engines.OnnxEngine(path)


@pytest.mark.parametrize("operator", ["ConstantOfShape", "Expand"])
def test_an_enormous_tensor_is_one_line_in_bounded_memory(se, tmp_path, operator):
    """A node of a few bytes that makes 20 GB, more than setk allows, of two numbers."""
    size = tensor("size", [70000, 70000])
    large = {
        "ConstantOfShape": [helper.make_node("ConstantOfShape", ["size"], ["large"])],
        "Expand": [
            helper.make_node("ReduceSum", ["frames"], ["one"], keepdims=0),
            helper.make_node("Expand", ["one", "size"], ["large"]),
        ],
    }[operator]
    nodes = [
        *large,
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("Add", ["frames", "sum"], ["out"]),
        KEEP,
    ]
    path = forged(tmp_path / "large.onnx", nodes, [size])
    done = se.process("enhance", path, "data/mini/test/noisy/mona_0001.flac", tmp_path / "out.wav", timeout=120)
    assert done.returncode == 2 and len(done.err.splitlines()) == 1
    assert "its tensors need more than 4 GiB" in done.err
    assert not (tmp_path / "out.wav").exists()
