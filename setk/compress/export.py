"""A checkpoint as ONNX: the chunk forward of a model, its states being inputs and outputs of the graph.

The transform (STFT) stays outside; all that is needed to run the file without setk's models, and to know what
it is, stands in its metadata under "setk" as JSON: `format`, `model`, `config`, `sample_rate`, `transform`,
`lookahead`, `frames` (that one call takes), `batch`, `state` (for each tensor the `axis` of the batch and the
`start` of one signal: a number, or base64 of its float32), `scores`, `provenance`. Inputs: `frames` [batch, frames,
*shape], `state_0` ...; outputs: `out`, of the same shape as `frames`, and `next_0` ....

Shapes are fixed. A runtime spends the time of a model as small as ours between operations, not in them, and
with shapes known there are fewer of them.
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

from setk import config, dsp, provenance
from setk.files import atomic_open
from setk.models import Model

FORMAT = 1
OPSET = 17


class _Step(nn.Module):
    """The forward with its states as single arguments, as a graph has them."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        out, after = self.model(frames, state)
        return (out, *after)


def to_onnx(model: Model, path: str | os.PathLike, *, frames: int = 1, batch: int = 1, scores: dict[str, Any],
            **facts: Any) -> int:
    """Write `model` as an ONNX graph that takes `batch` signals `frames` frames at a time; its number of nodes.

    `scores` and `facts` (provenance) are plain values.
    """
    import onnx
    import onnxslim

    step = _Step(model).eval()
    state = model.init_state(batch)
    inputs = ["frames", *(f"state_{i}" for i in range(len(state)))]
    outputs = ["out", *(f"next_{i}" for i in range(len(state)))]
    data = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # The tracing exporter: it warns of every Python number it freezes, which is what fixed shapes mean here,
        # and writes graphs half the size of torch.export's for recurrent models.
        warnings.simplefilter("ignore")
        torch.onnx.export(step, (torch.zeros(batch, frames, *model.transform.shape), *state), data,
                          input_names=inputs, output_names=outputs, opset_version=OPSET, dynamo=False)
    graph = onnxslim.slim(onnx.load_from_string(data.getvalue()))
    about = {"format": FORMAT, "model": model.name, "config": config.plain(model.config), "sample_rate": model.sample_rate,
             "transform": dsp.plain(model.transform), "lookahead": model.lookahead, "frames": frames, "batch": batch,
             "state": [{"axis": axis, "start": _start(x)} for axis, x in zip(model.state_axes, model.init_state(1))],
             "scores": scores, "provenance": provenance.stamp("torch", "onnx", "onnxslim", **facts)}
    onnx.helper.set_model_props(graph, {"setk": json.dumps(about)})
    with atomic_open(path) as f:
        f.write(graph.SerializeToString())
    return len(graph.graph.node)


def _start(x: Tensor) -> float | str:
    """A state before the first frame: one number if it is the same all over, as it is for most."""
    value = x.flatten()[0].item()
    return value if bool((x == value).all()) else base64.b64encode(x.contiguous().numpy().tobytes()).decode()


def parity(model: Model, engine: Any, signals: int = 16, frames: int = 32) -> float:
    """SNR in dB of an engine's output against the model's, on short signals of noise at levels 60 dB apart.

    The median over frames, and short signals: a spike that rounding flips is no fault of the graph, but changes
    all that a recurrent network of spikes does after it.
    """
    generator = torch.Generator().manual_seed(0)
    frames = -(-frames // engine.frames) * engine.frames
    ratios = []
    for level in torch.logspace(-3.5, -0.5, signals):
        wave = level * torch.randn(engine.batch, frames * model.transform.hop, generator=generator)
        pieces = model.transform.analysis(wave)[:, :frames]
        with torch.no_grad():
            expected, _ = model(pieces, model.init_state(engine.batch))
        found, state = [], engine.start(engine.batch)
        for piece in pieces.split(engine.frames, 1):
            out, state = engine.run(piece.numpy(), state)
            found.append(torch.from_numpy(out))
        signal, error = (x.square().flatten(2).sum(-1).flatten() for x in (expected, torch.cat(found, 1) - expected))
        ratios.append((signal / error.clamp_min(1e-30))[signal > 0])
    return float(10 * torch.log10(torch.cat(ratios).median()))
