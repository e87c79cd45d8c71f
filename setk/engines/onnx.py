"""A file of `se-quant export` run by ONNX Runtime, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from setk.core.errors import UserError
from setk.core.files import sha256
from setk.engines import exported, onnx_graph
from setk.native import reader


def is_own(session: Any) -> bool:
    """Whether `se-quant export` wrote the file of a session."""
    return "setk" in session.get_modelmeta().custom_metadata_map


class OnnxEngine:
    """A file that `se-quant export` wrote, in ONNX Runtime on one compute thread; torch is not imported.

    The file accepts `batch` signals, `frames` frames at a time (None: any number). More channels run in groups of that many.
    """

    def __init__(self, path: Path, session: Any = None):
        self._path, self._session = path, session or onnx_graph.open_session(path)
        if not is_own(self._session):
            raise UserError(
                f"{path}: was not written by se-quant export, which adds what is needed to run a file; export the checkpoint"
            )
        try:
            self.about = json.loads(self._session.get_modelmeta().custom_metadata_map["setk"])
        except (ValueError, RecursionError) as e:
            raise UserError(
                f"{path}: its metadata is damaged ({type(e).__name__}: {str(e)[:100]}); export it again"
            ) from None
        try:
            reader.check(path.read_bytes())
        except ValueError as e:
            raise UserError(f"{path}: is damaged: {e}; export it again") from None
        described, self.transform = exported.describe(self.about, str(path))
        self.name, self.sample_rate, self.lookahead = described.model, described.sample_rate, described.lookahead
        self.frames, self.batch = described.frames, described.batch
        self.causal, self.chunk_s = described.causal, described.chunk_s
        self._states = described.state
        onnx_graph.check_run(
            self._session,
            path,
            described.frame_shape(self.transform),
            [(*state.shape[: state.axis], self.batch, *state.shape[state.axis + 1 :]) for state in self._states],
        )
        self.sha256 = sha256(path)

    def start(self, channels: int) -> list[_Bound]:
        return (
            []
            if self.frames is None
            else [_Bound(self._session, self._path, self._states) for _ in range(-(-channels // self.batch))]
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
        first_in, first_out = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        try:
            return np.concatenate([self._session.run([first_out], {first_in: group})[0] for group in groups])[:c, :t]
        except onnx_graph.runtime_errors() as e:
            raise onnx_graph.failure(self._path, e) from None

    def restart(self, state: list[_Bound], channel: int) -> None:
        state[channel // self.batch].restart(channel % self.batch)


class _Bound:
    """Inputs and outputs of one group of signals, bound to their own memory once: without it each call would bind and
    allocate them again. The states alternate between two sets of arrays."""

    def __init__(self, session: Any, path: Path, states: Sequence[exported.State]):
        ins, outs = session.get_inputs(), session.get_outputs()
        self._session, self._path, self._axes = session, path, [state.axis for state in states]
        # onnx_graph.check_run has compared the shapes of outputs with these.
        self._in, self._out = (np.zeros(ins[0].shape, np.float32) for _ in range(2))
        self._states = [[np.zeros(x.shape, np.float32) for x in ins[1:]] for _ in range(2)]
        self._first = [state.first() for state in states]
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
        try:
            self._session.run_with_iobinding(self._bindings[0])
        except RuntimeError as e:
            raise onnx_graph.failure(self._path, e) from None
        if len(idle):
            for old, new, axis in zip(*self._states, self._axes):
                np.moveaxis(new, axis, 0)[idle] = np.moveaxis(old, axis, 0)[idle]
        self._bindings.reverse()
        self._states.reverse()
        return self._out[:b, :t]

    def restart(self, row: int) -> None:
        for state, first, axis in zip(self._states[0], self._first, self._axes):
            np.moveaxis(state, axis, 0)[row] = np.moveaxis(first, axis, 0)[0]
