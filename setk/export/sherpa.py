"""A checkpoint for sherpa-onnx, whose streaming denoiser runs in C, C++, Python, Java, Kotlin, Swift, C#, Go, Rust, Dart and JavaScript.

The file has the signature of the GTCRN models that sherpa-onnx distributes: inputs `mix` [1, bins, 1, 2] and three states,
outputs `enh` and the next states, with the transform in the metadata. All states of a model are one vector, the first of the
three; the two others hold one zero each. sherpa-onnx starts states with zeros, so each is stored less its start. It multiplies by
the analysis window again after the inverse transform, so the constant by which the dual window differs is part of the graph.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from setk import engines
from setk.audio.stft import STFT
from setk.core.errors import UserError
from setk.core.files import atomic_path
from setk.engines.foreign import SHERPA_POWERS
from setk.export import LEAST_PARITY
from setk.export.onnx import OPSET, _quiet, parity
from setk.models import Model
from setk.nn.exporting import exporting

WINDOWS = {power: name for name, power in SHERPA_POWERS.items()}
STATES = ("conv_cache", "tra_cache", "inter_cache")


class _Step(nn.Module):
    """The forward with the signature above."""

    def __init__(self, model: Model, gain: float):
        super().__init__()
        self.model, self.gain = model, gain
        self.start = model.init_state(1)

    def forward(self, mix: Tensor, packed: Tensor, second: Tensor, third: Tensor) -> tuple[Tensor, ...]:
        state, at = [], 0
        for start in self.start:
            state.append(packed[at : at + start.numel()].reshape(start.shape) + start)
            at += start.numel()
        out, after = self.model(mix.permute(0, 2, 1, 3), tuple(state))
        changed = torch.cat([(x - start).reshape(-1) for x, start in zip(after, self.start)])
        return self.gain * out.permute(0, 2, 1, 3), changed, 0 * second, 0 * third


def transform_of(model: Model) -> tuple[STFT, float]:
    """The STFT of a model, and the constant ratio of its synthesis window to its analysis window. Raises UserError on a model that sherpa-onnx cannot run."""
    transform = model.transform
    reason = None
    if not model.causal:
        reason = "it is not causal"
    elif model.quantization:
        reason = "it is quantized; export the float checkpoint"
    elif not isinstance(transform, STFT) or transform.power not in WINDOWS or transform.points != transform.window:
        reason = "its transform is not an STFT with a Hann window as long as the transform"
    else:
        inner = transform.analysis_window > 1e-3
        ratio = transform.synthesis_window[inner] / transform.analysis_window[inner]
        if np.ptp(ratio) < 1e-4 * ratio.mean():
            return transform, float(ratio.mean())
        reason = f"windows of {transform.window} samples every {transform.hop} do not add up to a constant"
    raise UserError(
        f"{model.name} does not run in sherpa-onnx: {reason}; choose another model, or export without --for"
    )


def to_onnx(model: Model, path: str | os.PathLike) -> dict[str, Any]:
    """Write `model` for sherpa-onnx. Returns the number of `nodes`, and `snr_db` of the file's output to the model's on
    noise (export/onnx.py). Raises UserError as `transform_of` does."""
    import onnx
    import onnxslim

    transform, gain = transform_of(model)
    step = _Step(model, gain).eval()
    size = sum(x.numel() for x in step.start)
    shapes = [(size,), (1,), (1,)]
    mix = torch.randn(1, transform.bins, 1, 2, generator=torch.Generator().manual_seed(0))
    data = io.BytesIO()
    with _quiet(), exporting(model), contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(
            step,
            (mix, *(torch.zeros(shape) for shape in shapes)),
            data,
            input_names=["mix", *STATES],
            output_names=["enh", *(f"{name}_out" for name in STATES)],
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnxslim.slim(onnx.load_from_string(data.getvalue()))
    onnx.helper.set_model_props(graph, _metadata(model, transform, dict(zip(STATES, shapes))))
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(graph.SerializeToString())
        snr = parity(model, engines.open(str(temporary)))
        if not snr >= LEAST_PARITY:
            raise UserError(f"{path}: not written: differs from {model.name} by more than rounding (SNR {snr:.1f} dB)")
    return {"nodes": len(graph.graph.node), "snr_db": snr}


def _metadata(model: Model, transform: STFT, shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    values = {
        "model_type": "gtcrn",  # the signature, which sherpa-onnx checks; the model is in the comment
        "comment": f"{model.name} by setk",
        "version": 1,
        "sample_rate": model.sample_rate,
        "n_fft": transform.points,
        "hop_length": transform.hop,
        "window_length": transform.window,
        "window_type": WINDOWS[transform.power],
        "lookahead": model.lookahead,  # frames; sherpa-onnx does not read it, setk does
    }
    values |= {f"{name}_shape": ",".join(map(str, shape)) for name, shape in shapes.items()}
    return {key: str(value) for key, value in values.items()}
