"""Engines: a model behind one streaming interface, in setk's own kernels, torch, ONNX Runtime or TorchScript, and the streams that feed it.

`open(MODEL)` is the only place that turns a name or a file into something that runs, `model(MODEL)` the only one that
turns it into a torch model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from setk.engines.base import (
    Engine as Engine,
    first_state as first_state,
    frames_in as frames_in,
    latency_ms as latency_ms,
)
from setk.engines.batch import Batch as Batch
from setk.engines.native import NativeEngine as NativeEngine
from setk.engines.enhancer import Enhancer as Enhancer
from setk.engines.resolve import Loaded as Loaded, every as every, model as model, open as open
from setk.engines.overlap import Overlapped as Overlapped, open_stream as open_stream
from setk.engines.stream import Signal as Signal, Stream as Stream
from setk.engines.torch import TorchEngine as TorchEngine

if TYPE_CHECKING:
    from setk.engines.foreign import ForeignEngine as ForeignEngine
    from setk.engines.onnx import OnnxEngine as OnnxEngine


def __getattr__(name: str) -> Any:
    # Imported when they are needed: they double what the native engine imports.
    if name == "OnnxEngine":
        from setk.engines.onnx import OnnxEngine

        return OnnxEngine
    if name == "ForeignEngine":
        from setk.engines.foreign import ForeignEngine

        return ForeignEngine
    raise AttributeError(name)
