"""A checkpoint as ONNX or TorchScript: the chunk forward of a model, its states being inputs and outputs.

The transform (STFT) is not part of the graph. The file has under "setk", as JSON, all that is needed to run it without
setk's models and to know what it is (metadata of ONNX, an extra file of TorchScript): `format`, `model`,
`config`, `quantization`, `sample_rate`, `transform`, `lookahead`, `causal`, `chunk_s`, `frames` (that one call takes;
null for any number), `batch`, `state` (for each tensor the `axis` of the batch, the `shape` for one signal and its
`start`: a number, or base64 of its float32), `scores`, `provenance`. Inputs: `frames` [batch, frames, *shape],
`state_0` ...; outputs: `out`, of the same shape as `frames`, and `next_0` ....

Shapes are fixed. With a small model, a runtime spends its time between operations, not in them, and known shapes
make fewer of them. Only models that are not causal, which take a whole signal, have a
time axis of any length, from two frames on.

A quantized model becomes integer operators on int8 weights (see setk.export.onnx_int8).
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from setk.audio import stft
from setk.core import config, provenance
from setk.export import onnx_int8
from setk.core.files import atomic_open
from setk.models import Model
from setk.native import reader
from setk.nn.exporting import exporting

FORMAT = 1
OPSET = 17
TRACED = 40  # frames that a model of any number is traced with


class _Step(nn.Module):
    """The forward with its states as single arguments, as a graph has them."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        out, after = self.model(frames, state)
        return (out, *after)


def to_onnx(
    model: Model, path: str | os.PathLike, *, frames: int = 1, batch: int = 1, scores: dict[str, Any], **facts: Any
) -> dict[str, int]:
    """Write `model` as an ONNX graph that takes `batch` signals `frames` frames at a time (any number of them if
    it is not causal). What it is made of: `nodes`, and of a quantized model `products` (convolutions and matrix
    products) and how many of them are `integer`.

    `scores` and `facts` (provenance) are plain values.
    """
    import onnx
    import onnxslim

    step, example = _example(model, frames, batch)
    inputs = ["frames", *(f"state_{i}" for i in range(len(example) - 1))]
    outputs = ["out", *(f"next_{i}" for i in range(len(example) - 1))]
    axes = {} if model.causal else {"frames": {1: "frames"}, "out": {1: "frames"}}
    data = io.BytesIO()
    with _quiet(), exporting(model), contextlib.redirect_stdout(io.StringIO()):
        # The tracing exporter writes graphs half the size of torch.export's for recurrent models.
        torch.onnx.export(
            step,
            example,
            data,
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            dynamic_axes=axes,
            dynamo=False,
        )
    graph = onnxslim.slim(onnx.load_from_string(data.getvalue()))
    made = {} if model.quantization is None else onnx_int8.to_integers(graph.graph)
    about = _about(model, frames, batch, scores, provenance.stamp("torch", "onnx", "onnxslim", **facts))
    facts_text = {"setk": json.dumps(about)}
    onnx.helper.set_model_props(graph, facts_text)
    stated = {reader.CHECKSUM: reader.checksum(graph.SerializeToString())}
    onnx.helper.set_model_props(graph, facts_text | stated)
    with atomic_open(path) as f:
        f.write(graph.SerializeToString())
    return {"nodes": len(graph.graph.node), **made}


def to_torchscript(
    model: Model, path: str | os.PathLike, *, frames: int = 1, batch: int = 1, scores: dict[str, Any], **facts: Any
) -> dict[str, int]:
    """Write `model` as TorchScript that torch.jit.load reads: forward(frames, *state) -> (out, *state); its number of `nodes`.
    The rest is as in `to_onnx`; of a quantized model this computes in float what training did."""
    step, example = _example(model, frames, batch)
    data, about = io.BytesIO(), _about(model, frames, batch, scores, provenance.stamp("torch", **facts))
    with _quiet(), exporting(model):
        traced = torch.jit.freeze(torch.jit.trace(step, example, check_trace=False))
        torch.jit.save(traced, data, _extra_files={"setk": json.dumps(about)})
    with atomic_open(path) as f:
        f.write(data.getbuffer())
    return {"nodes": len(list(traced.inlined_graph.nodes()))}


def _example(model: Model, frames: int, batch: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """What is traced, and with what. Not with silence: some models take a shorter way with it."""
    shape = (batch, frames if model.causal else TRACED, *model.transform.shape)
    return _Step(model).eval(), (
        torch.randn(shape, generator=torch.Generator().manual_seed(0)),
        *model.init_state(batch),
    )


@contextlib.contextmanager
def _quiet():
    """Tracing warns of every Python number that it freezes, which is what fixed shapes mean here, and TorchScript of its age."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _about(model: Model, frames: int, batch: int, scores: dict[str, Any], stamp: dict[str, Any]) -> dict[str, Any]:
    state = [
        {"axis": axis, "shape": list(x.shape), "start": _start(x)}
        for axis, x in zip(model.state_axes, model.init_state(1))
    ]
    return {
        "format": FORMAT,
        "model": model.name,
        "config": config.plain(model.config),
        "quantization": model.quantization and config.plain(model.quantization),
        "sample_rate": model.sample_rate,
        "transform": stft.plain(model.transform),
        "lookahead": model.lookahead,
        "causal": model.causal,
        "chunk_s": model.chunk_s,
        "frames": frames if model.causal else None,
        "batch": batch,
        "state": state,
        "scores": scores,
        "provenance": stamp,
    }


def _start(x: Tensor) -> float | str:
    """A state before the first frame: one number if it is the same all over, as it is for most."""
    value = x.flatten()[0].item()
    return value if bool((x == value).all()) else base64.b64encode(x.contiguous().numpy().tobytes()).decode()


def parity(model: Model, engine: Any, frames: int = 32) -> float:
    """SNR in dB of an engine's output against the model's, on short signals of noise at levels up to 60 dB apart, and, where
    an engine takes any number of frames, of different lengths.

    The median over frames, and short signals: a spike that rounding flips is not a fault of the graph, but changes
    all that a recurrent network of spikes does after it. Signals for a quantized model are loud, where it has signal to
    noise to lose; rounding that flips in one layer and is rounded again in all that follow leaves some 20 to 40 dB.
    """
    generator = torch.Generator().manual_seed(0)
    quietest, signals, ratios = -3.5 if model.quantization is None else -1.5, 16 if model.causal else 6, []
    for i, level in enumerate(torch.logspace(quietest, -0.5, signals)):
        t = frames + 5 * (i % 3) if engine.frames is None else -(-frames // engine.frames) * engine.frames
        wave = level * torch.randn(engine.batch, t * model.transform.hop, generator=generator)
        pieces = model.transform.analysis(wave)[:, :t]
        with torch.no_grad():
            expected, _ = model(pieces, model.init_state(engine.batch))
        found, state = [], engine.start(engine.batch)
        for piece in pieces.split(engine.frames or t, 1):
            out, state = engine.run(piece.numpy(), state)
            found.append(torch.from_numpy(out))
        signal, error = (x.square().flatten(2).sum(-1).flatten() for x in (expected, torch.cat(found, 1) - expected))
        ratios.append((signal / error.clamp_min(1e-30))[signal > 0])
    return float(10 * torch.log10(torch.cat(ratios).median()))
