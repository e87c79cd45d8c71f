"""ONNX files from anywhere: opened without reading other files, and compared with their description before they are used."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np

from setk.core.errors import UserError
from setk.native import protobuf

# Fields of the messages of onnx.proto that are read here, by number.
_TENSOR, _CONTROL, _FUNCTION = "tensor", "control flow", "function"
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: _FUNCTION},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: _CONTROL, 10: _TENSOR, 11: _CONTROL, 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
# Bytes of all tensors of the sessions of a process. A node of a few bytes may state any size; no model comes near.
MAX_MEMORY = 1 << 32
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of a tensor
# A graph in an attribute is the body of a Loop, which may never end. Functions that call others twice grow exponentially.
_REFUSED: Mapping[str, str] = {
    _TENSOR: "has weights in other files, which setk does not read; save it as one file",
    _CONTROL: "has control flow (Loop, If, Scan), which setk does not run; export it without",
    _FUNCTION: "has local functions, which setk does not run; inline them (onnx.inliner)",
}


def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file or an input that it cannot use; its exceptions have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    found = (getattr(errors, name) for name in dir(errors))
    return (RuntimeError, ValueError, *(e for e in found if isinstance(e, type) and issubclass(e, Exception)))


def failure(path: Path, error: Exception) -> UserError:
    """What to raise for an exception of ONNX Runtime."""
    text = " ".join(str(error).split())
    if "bfc_arena" in text or "bad allocation" in text:
        return UserError(
            f"{path}: cannot be run: its tensors need more than {MAX_MEMORY >> 30} GiB; use shorter pieces (--chunk)"
        )
    return UserError(f"{path}: cannot be run ({text[:150]}); export it again")


def open_session(path: Path) -> Any:
    """An onnxruntime.InferenceSession on one thread, whose tensors have at most MAX_MEMORY. Raises UserError on what is not ONNX,
    has weights in other files, control flow or local functions, or operators that ONNX Runtime does not include."""
    import onnxruntime

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None
    try:
        # A tensor in another file has an entry "location": most files need no look at each tensor.
        found = _refused(memoryview(data), "model", tensors=b"location" in data)
    except protobuf.Damaged:
        raise UserError(f"{path}: cannot be run (its messages are damaged); export it again") from None
    if found:
        raise UserError(f"{path}: {_REFUSED[found]}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Never ONNX Runtime's own format, which it does not check.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    _bound_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # A quantized file names its integer kernels itself (see setk.export.onnx_int8). By default the runtime would keep
    # the int8 weights of float kernels, and convert them to float in every call.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except runtime_errors() as e:
        raise failure(path, e) from None


@functools.cache
def _bound_memory() -> None:
    """Limit the memory that sessions of this process share. A run that needs more raises one of `runtime_errors`."""
    import onnxruntime as ort

    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(place, ort.OrtArenaCfg({"max_mem": MAX_MEMORY}))


def _refused(data: memoryview, kind: str, tensors: bool) -> str | None:
    """The key of _REFUSED of what a message of `kind` holds; None if nothing. `tensors`: look at those too. Raises Damaged."""
    for number, value in protobuf.fields(data):
        if kind == _TENSOR:
            if number == _EXTERNAL_DATA or number == _DATA_LOCATION and value != 0:
                return _TENSOR
            continue
        below = _FIELDS[kind].get(number)
        if below in (_CONTROL, _FUNCTION):
            return below
        if below and (tensors or below != _TENSOR) and isinstance(value, memoryview):
            if found := _refused(value, below, tensors):
                return found
    return None


def check_run(session: Any, path: Path, frames: Sequence[int | None], states: Sequence[tuple[int, ...]]) -> None:
    """Run the file once, on silence, and compare the types and shapes of all inputs and outputs with its description.

    `frames`: shape of the first input and output; None is any number of frames. `states`: shapes of the others. ONNX Runtime
    writes outputs into arrays of the declared shapes, so that a file must not be run that way before it has kept to them.
    Raises UserError.
    """
    ins, outs = session.get_inputs(), session.get_outputs()
    expected = [tuple(frames), *states]

    def refuse(reason: str) -> UserError:
        return UserError(f"{path}: {reason}, which differs from its metadata; export it again")

    if len(ins) != len(expected) or len(outs) != len(expected):
        raise refuse(f"has {len(ins)} inputs and {len(outs)} outputs, not {len(expected)}")
    for x, shape in (*zip(ins, expected), *zip(outs, expected)):
        if x.type != "tensor(float)":
            raise refuse(f"{x.name} is a {x.type}, not a tensor(float)")
        if len(x.shape) != len(shape) or any(
            isinstance(a, int) and b is not None and a != b for a, b in zip(x.shape, shape)
        ):
            raise refuse(f"{x.name} has shape {x.shape}, not {list(shape)}")
    if frames[1] is not None and any(not isinstance(n, int) for x in ins for n in x.shape):
        raise refuse("an input has no fixed shape")
    shapes = [tuple(2 if n is None else n for n in shape) for shape in expected]
    try:
        found = session.run(None, {x.name: np.zeros(shape, np.float32) for x, shape in zip(ins, shapes)})
    except runtime_errors() as e:
        raise failure(path, e) from None
    for x, shape, y in zip(outs, shapes, found):
        if not isinstance(y, np.ndarray) or y.dtype != np.float32 or y.shape != shape:
            raise refuse(
                f"{x.name} is computed as {getattr(y, 'dtype', type(y).__name__)} {list(np.shape(y))}, not float32 {list(shape)}"
            )
