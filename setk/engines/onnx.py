"""A file of `se-quant export` run by ONNX Runtime, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from setk.audio import stft
from setk.core.errors import UserError
from setk.core.files import sha256
from setk.engines.base import first_state


class OnnxEngine:
    """A file that `se-quant export` wrote, in ONNX Runtime on one compute thread; torch is not imported.

    The file accepts `batch` signals, `frames` frames at a time (None: any number). More channels run in groups of that many.
    """

    def __init__(self, path: Path):
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        if not path.is_file():
            raise UserError(f"{path}: no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # A quantized file names its integer kernels itself (see setk.export.onnx_int8). By default the runtime would keep
        # the int8 weights of float kernels, and convert them to float in every call.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except (
            errors.InvalidProtobuf,
            errors.InvalidGraph,
            errors.Fail,
            errors.NotImplemented,
            errors.InvalidArgument,
        ) as e:
            raise UserError(f"{path}: cannot be run ({' '.join(str(e).split())[:150]})") from None
        about = self._session.get_modelmeta().custom_metadata_map.get("setk")
        if about is None:
            raise UserError(
                f"{path}: was not written by se-quant export, which adds what is needed to run a file; export the checkpoint"
            )
        try:
            self.about = json.loads(about)
            if self.about["format"] != 1:
                raise UserError(f"{path}: has export format {self.about['format']}; this setk reads 1; update setk")
            self.name, self.sample_rate, self.lookahead, self.frames, self.batch = (
                self.about[k] for k in ("model", "sample_rate", "lookahead", "frames", "batch")
            )
            self.causal, self.chunk_s = self.about.get("causal", True), self.about.get("chunk_s", 10.0)
            self.transform = stft.restore(self.about["transform"])
            self._states = [(x["axis"], x["start"]) for x in self.about["state"]]
        except (ValueError, KeyError, TypeError) as e:
            raise UserError(f"{path}: its metadata is damaged ({type(e).__name__}: {e}); export it again") from None
        self.sha256 = sha256(path)

    def start(self, channels: int) -> list[_Bound]:
        return (
            []
            if self.frames is None
            else [_Bound(self._session, self._states) for _ in range(-(-channels // self.batch))]
        )

    def run(
        self, frames: np.ndarray, state: list[_Bound], active: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[_Bound]]:
        if self.frames is None:
            return self._whole(frames), state
        out = np.empty_like(frames)
        for i, bound in enumerate(state):
            rows = slice(i * self.batch, (i + 1) * self.batch)
            idle = () if active is None else np.flatnonzero(~active[rows])
            for at in range(0, frames.shape[1], self.frames):
                out[rows, at : at + self.frames] = bound.run(frames[rows, at : at + self.frames], idle)
        return out, state

    def _whole(self, frames: np.ndarray) -> np.ndarray:
        """Signals by a file that accepts any number of frames, at least two; missing frames are silence."""
        c, t = frames.shape[:2]
        padded = np.zeros((-(-c // self.batch) * self.batch, max(t, 2), *frames.shape[2:]), np.float32)
        padded[:c, :t] = frames
        groups = padded.reshape(-1, self.batch, *padded.shape[1:])
        return np.concatenate([self._session.run(["out"], {"frames": group})[0] for group in groups])[:c, :t]

    def restart(self, state: list[_Bound], channel: int) -> None:
        state[channel // self.batch].restart(channel % self.batch)


class _Bound:
    """Inputs and outputs of one group of signals, bound to their own memory once: without it each call would bind and
    allocate them again. The states alternate between two sets of arrays."""

    def __init__(self, session: Any, states: list[tuple[int, float | str]]):
        ins, outs = session.get_inputs(), session.get_outputs()
        self._session, self._axes = session, [axis for axis, _ in states]
        self._in, self._out = (np.zeros(x[0].shape, np.float32) for x in (ins, outs))
        self._states = [[np.zeros(x.shape, np.float32) for x in ins[1:]] for _ in range(2)]
        self._first = [
            first_state(start, np.take(x, [0], axis).shape)
            for (axis, start), x in zip(states, self._states[0], strict=True)
        ]
        self._bindings = []
        for before, after in (self._states, self._states[::-1]):
            binding = session.io_binding()
            for x, array in zip(ins, (self._in, *before), strict=True):
                binding.bind_input(x.name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            for x, array in zip(outs, (self._out, *after), strict=True):
                binding.bind_output(x.name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            self._bindings.append(binding)
        for row in range(len(self._in)):
            self.restart(row)

    def run(self, frames: np.ndarray, idle: Sequence[int]) -> np.ndarray:
        """[b, t, *shape] with b and t at most the file's; missing frames are silence. A short t must be the last.
        The states of the rows `idle` are kept."""
        b, t = frames.shape[:2]
        if frames.shape != self._in.shape:
            self._in[:] = 0
        self._in[:b, :t] = frames
        self._session.run_with_iobinding(self._bindings[0])
        if len(idle):
            for old, new, axis in zip(*self._states, self._axes):
                np.moveaxis(new, axis, 0)[idle] = np.moveaxis(old, axis, 0)[idle]
        self._bindings.reverse()
        self._states.reverse()
        return self._out[:b, :t]

    def restart(self, row: int) -> None:
        for state, first, axis in zip(self._states[0], self._first, self._axes):
            np.moveaxis(state, axis, 0)[row] = np.moveaxis(first, axis, 0)[0]
