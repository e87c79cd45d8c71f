"""Operators of ONNX as the kernels run them, against ONNX Runtime, and those that have no program."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from test_onnx_files import KEEP, WINDOW, forged, tensor

from setk.core.errors import UserError
from setk.engines import NativeEngine, OnnxEngine
from setk.native import kernels

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="the kernels were not built")
SIDE = 16  # the frame as a square, which any reduction of it broadcasts to


def node(op: str, *inputs: str, **attributes):
    return helper.make_node(op, ["x", *inputs], ["y"], **attributes)


def numbers(name: str, values) -> object:
    return tensor(name, np.asarray(values, np.float32), TensorProto.FLOAT)


def frame_of(path, nodes, initializers):
    """A file that adds y to the samples x as [SIDE, SIDE]; `nodes` make y of x."""
    shapes = [tensor("square", [SIDE, SIDE]), tensor("frame", [1, 1, WINDOW])]
    begin = helper.make_node("Reshape", ["frames", "square"], ["x"])
    end = [helper.make_node("Add", ["x", "y"], ["sum"]), helper.make_node("Reshape", ["sum", "frame"], ["out"])]
    return forged(path, [begin, *nodes, *end, KEEP], [*shapes, *initializers])


CASES = {
    **{f"power {n}": ([node("Pow", "n")], [numbers("n", n)]) for n in (1, 2, 3, 4)},
    **{f"softmax {axis}": ([node("Softmax", axis=axis)], []) for axis in (0, 1, -1)},
    **{
        f"argmax {axis} {keep}": (
            [
                helper.make_node("ArgMax", ["x"], ["index"], axis=axis, keepdims=keep),
                helper.make_node("Cast", ["index"], ["y"], to=TensorProto.FLOAT),
            ],
            [],
        )
        for axis in (0, 1)
        for keep in (0, 1)
    },
    **{
        f"{op} of {n}": (
            [node(op, *"abc"[: n - 1])],
            [numbers(name, size) for name, size in zip("abc", (0.1, 0.3, 0.2))],
        )
        for op in ("Max", "Min")
        for n in (1, 2, 4)
    },
    **{f"{op} of all": ([node(op)], []) for op in ("ReduceMean", "ReduceSum")},
    "mean of rows": ([node("ReduceMean", axes=[0])], []),
    "sum of columns": ([node("ReduceSum", "axes", keepdims=0)], [tensor("axes", [-1])]),
    "cast of a constant": (
        [
            helper.make_node("Cast", ["parts"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Cast", ["whole"], ["steps"], to=TensorProto.FLOAT),
            node("Mul", "steps"),
        ],
        [numbers("parts", np.linspace(-3, 3, SIDE))],
    ),
    "cast of a comparison": (
        [
            helper.make_node("Greater", ["x", "limit"], ["above"]),
            helper.make_node("Cast", ["above"], ["y"], to=TensorProto.FLOAT),
        ],
        [numbers("limit", 0.1)],
    ),
    "norm of both axes": (
        [node("LayerNormalization", "gain", "offset", axis=0)],
        [numbers("gain", np.linspace(0, 1, SIDE**2).reshape(SIDE, SIDE)), numbers("offset", np.ones((SIDE, SIDE)))],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_onnx_runtime_does(name, tmp_path, rng):
    path = frame_of(tmp_path / "a.onnx", *CASES[name])
    frames = rng.standard_normal((1, 3, WINDOW)).astype(np.float32)
    found, expected = (engine.run(frames, engine.start(1))[0] for engine in (NativeEngine(path), OnnxEngine(path)))
    assert np.abs(expected - frames).max() > 0.01
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)


WITHOUT = {
    "Pow with the exponent 5": ([node("Pow", "n")], [numbers("n", 5)]),
    "Pow with the exponent -1": ([node("Pow", "n")], [numbers("n", -1)]),
    "Pow with a tensor": ([node("Pow", "n")], [numbers("n", np.ones(SIDE))]),
    "Pow with weights or sizes that are computed": ([node("Pow", "x")], []),
    "Cast of computed numbers": (
        [
            helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Cast", ["whole"], ["y"], to=TensorProto.FLOAT),
        ],
        [],
    ),
    "LayerNormalization": (
        [node("LayerNormalization", "gain", axis=0)],
        [numbers("gain", np.linspace(0, 1, SIDE))],
    ),
    "auto_pad": (
        [
            helper.make_node("Unsqueeze", ["x", "first"], ["image"]),
            helper.make_node("Conv", ["image", "w"], ["same"], auto_pad="SAME_UPPER"),
            helper.make_node("Squeeze", ["same", "first"], ["y"]),
        ],
        [tensor("first", [0]), numbers("w", np.ones((SIDE, SIDE, 3)))],
    ),
}


@pytest.mark.parametrize("reason", WITHOUT)
def test_what_has_no_program_is_refused_with_its_reason(reason, tmp_path):
    path = frame_of(tmp_path / "a.onnx", *WITHOUT[reason])
    OnnxEngine(path)
    with pytest.raises(UserError, match=f"cannot become C: .*{reason}"):
        NativeEngine(path)
