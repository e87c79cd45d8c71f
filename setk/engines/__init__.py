"""Engines: what runs a model some frames at a time, behind one interface, and the streams that feed it."""

from __future__ import annotations

from setk.engines.base import Engine as Engine, first_state as first_state, frames_in as frames_in
from setk.engines.batch import Batch as Batch
from setk.engines.onnx import OnnxEngine as OnnxEngine
from setk.engines.overlap import Overlapped as Overlapped
from setk.engines.stream import Signal as Signal, Stream as Stream
from setk.engines.torch import TorchEngine as TorchEngine
from setk.pretrained import find, shipped


def open_engine(spec: str) -> OnnxEngine | TorchEngine:
    """The engine for MODEL: a checkpoint, an .onnx of se-quant export, or the name of an included model.

    An included model that exists in both forms runs as ONNX, which starts seven times as fast. Raises UserError.
    """
    path = find(spec, ".onnx") if spec in shipped(".onnx") else find(spec)
    return OnnxEngine(path) if path.suffix == ".onnx" else TorchEngine(path)


def open_stream(engine: Engine, rate: int, channels: int, seconds: float) -> Stream:
    """The stream for an engine, `seconds` of audio (at least one frame) at a time."""
    return (Stream if engine.causal else Overlapped)(engine, rate, channels, frames_in(engine, seconds))
