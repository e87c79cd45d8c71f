"""Engines: what runs a model a chunk at a time, behind one interface, and the stream that feeds it.

A `Stream` takes audio in pieces of any size at any rate and gives enhanced audio, sample-aligned with what it
took. Files, lists and live pipes all go through it: a file is a stream with long chunks.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Protocol, Sequence

import numpy as np

from setk import dsp
from setk.dsp import StreamTransform, Transform
from setk.files import UserError, sha256
from setk.pretrained import find, shipped


class Engine(Protocol):
    """A loaded model: `run(frames float32 [C, T, *shape], state)` gives as many frames and the next state.

    `frames` is the T that the engine is made for, None for any; a last, shorter piece is always taken. A state
    belongs to the engine and may be changed in place. `run` with `active` [C] leaves the state of the others as
    it was, and their output is of no use; `restart` puts one channel back to the start. Files are taken `chunk_s`
    seconds at a time; for one that is not `causal` these are windows that overlap, and a shorter signal is taken whole.
    """

    name: str
    sha256: str
    sample_rate: int
    transform: Transform
    lookahead: int
    frames: int | None
    causal: bool
    chunk_s: float

    def start(self, channels: int) -> Any: ...

    def run(self, frames: np.ndarray, state: Any, active: np.ndarray | None = None) -> tuple[np.ndarray, Any]: ...

    def restart(self, state: Any, channel: int) -> None: ...


class TorchEngine:
    """A checkpoint in torch, one compute thread."""

    frames = None

    def __init__(self, path: Path):
        import torch

        from setk import checkpoint

        torch.set_num_threads(1)
        self.model, about = checkpoint.load(path)
        self.name, self.sha256 = about["model"], about["sha256"]
        self.sample_rate, self.transform, self.lookahead = self.model.sample_rate, self.model.transform, self.model.lookahead
        self.causal, self.chunk_s = self.model.causal, self.model.chunk_s

    def start(self, channels: int) -> Any:
        return self.model.init_state(channels)

    def run(self, frames: np.ndarray, state: Any, active: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
        import torch

        with torch.inference_mode():
            y, after = self.model(torch.from_numpy(frames), state)
            if active is not None and not active.all():
                idle = torch.from_numpy(np.flatnonzero(~active))
                for old, new, axis in zip(state, after, self.model.state_axes):
                    new.index_copy_(axis, idle, old.index_select(axis, idle))
        return y.numpy(), after

    def restart(self, state: Any, channel: int) -> None:
        for x, first, axis in zip(state, self.model.init_state(1), self.model.state_axes):
            x.narrow(axis, channel, 1).copy_(first)


class OnnxEngine:
    """A file that `se-quant export` wrote, in ONNX Runtime, one compute thread; torch is not imported.

    The file takes `batch` signals, `frames` frames at a time (None: any number). More channels are run in groups of that many.
    """

    def __init__(self, path: Path):
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"{path}: needs onnxruntime; pip install onnxruntime, or use a checkpoint") from None
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        if not path.is_file():
            raise UserError(f"{path}: no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # What integer kernels a file has stand in it as such (see setk.compress.int8). Left to itself, the runtime would
        # keep int8 weights of float kernels as they are, and make floats of them in every call.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except (errors.InvalidProtobuf, errors.InvalidGraph, errors.Fail, errors.NotImplemented, errors.InvalidArgument) as e:
            raise UserError(f"{path}: cannot be run ({' '.join(str(e).split())[:150]})") from None
        about = self._session.get_modelmeta().custom_metadata_map.get("setk")
        if about is None:
            raise UserError(f"{path}: was not written by se-quant export, which puts in what is needed to run it")
        try:
            self.about = json.loads(about)
            if self.about["format"] != 1:
                raise UserError(f"{path}: has export format {self.about['format']}; this setk reads 1; update setk")
            self.name, self.sample_rate, self.lookahead, self.frames, self.batch = (
                self.about[k] for k in ("model", "sample_rate", "lookahead", "frames", "batch"))
            self.causal, self.chunk_s = self.about.get("causal", True), self.about.get("chunk_s", 10.0)
            self.transform = dsp.restore(self.about["transform"])
            self._states = [(x["axis"], x["start"]) for x in self.about["state"]]
        except (ValueError, KeyError, TypeError) as e:
            raise UserError(f"{path}: its metadata is damaged ({type(e).__name__}: {e}); export it again") from None
        self.sha256 = sha256(path)

    def start(self, channels: int) -> list[_Bound]:
        return [] if self.frames is None else [_Bound(self._session, self._states) for _ in range(-(-channels // self.batch))]

    def run(self, frames: np.ndarray, state: list[_Bound], active: np.ndarray | None = None) -> tuple[np.ndarray, list[_Bound]]:
        if self.frames is None:
            return self._whole(frames), state
        out = np.empty_like(frames)
        for i, bound in enumerate(state):
            rows = slice(i * self.batch, (i + 1) * self.batch)
            idle = () if active is None else np.flatnonzero(~active[rows])
            for at in range(0, frames.shape[1], self.frames):
                out[rows, at:at + self.frames] = bound.run(frames[rows, at:at + self.frames], idle)
        return out, state

    def _whole(self, frames: np.ndarray) -> np.ndarray:
        """Signals by a file that takes any number of frames, from two on; what is missing is silence."""
        c, t = frames.shape[:2]
        padded = np.zeros((-(-c // self.batch) * self.batch, max(t, 2), *frames.shape[2:]), np.float32)
        padded[:c, :t] = frames
        groups = padded.reshape(-1, self.batch, *padded.shape[1:])
        return np.concatenate([self._session.run(["out"], {"frames": group})[0] for group in groups])[:c, :t]

    def restart(self, state: list[_Bound], channel: int) -> None:
        state[channel // self.batch].restart(channel % self.batch)


class _Bound:
    """Inputs and outputs of one group of signals bound to memory of their own, once: a call would else bind and
    allocate them anew. The states go back and forth between two sets of arrays."""

    def __init__(self, session: Any, states: list[tuple[int, float | str]]):
        ins, outs = session.get_inputs(), session.get_outputs()
        self._session, self._axes = session, [axis for axis, _ in states]
        self._in, self._out = (np.zeros(x[0].shape, np.float32) for x in (ins, outs))
        self._states = [[np.zeros(x.shape, np.float32) for x in ins[1:]] for _ in range(2)]
        self._first = [first_state(start, np.take(x, [0], axis).shape) for (axis, start), x in zip(states, self._states[0], strict=True)]
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
        """[b, t, *shape] with b and t at most the file's; what is missing is silence. A short t must be the last.
        The states of the rows `idle` stay."""
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


def first_state(start: float | str, shape: tuple[int, ...]) -> np.ndarray:
    """The state of one signal before its first frame, as se-quant export put it down."""
    if isinstance(start, str):
        return np.frombuffer(base64.b64decode(start), np.float32).reshape(shape)
    return np.full(shape, start, np.float32)


def open_engine(spec: str) -> OnnxEngine | TorchEngine:
    """The engine for MODEL: a checkpoint, an .onnx of se-quant export, or the name of a model that ships.

    A shipped model that is there in both forms runs as ONNX, which starts seven times as fast. Raises UserError.
    """
    path = find(spec, ".onnx") if spec in shipped(".onnx") else find(spec)
    return OnnxEngine(path) if path.suffix == ".onnx" else TorchEngine(path)


class Signal:
    """One input of C channels on its way through a model: resampled, cut into frames, and back.

    feed(x float32 [C, n]) takes samples and end() the news that there are no more; `waiting` frames can be had
    from take(count), and give(frames) turns what the model made of them into samples, in the same order. Over
    all calls as many samples come out as went in, aligned with them; `done` tells when.
    """

    def __init__(self, engine: Engine, rate: int, channels: int):
        self.lookahead = self._early = engine.lookahead  # outputs that belong to frames before the first
        self._transform = StreamTransform(engine.transform, channels)
        self._waiting = np.zeros((channels, 0, *engine.transform.shape), np.float32)
        self._seen = self._given = 0
        self._down = _resampler(rate, engine.sample_rate, channels)
        self._up = _resampler(engine.sample_rate, rate, channels)
        self.ended = self.done = False

    @property
    def waiting(self) -> int:
        return self._waiting.shape[1]

    def feed(self, x: np.ndarray) -> None:
        self._seen += x.shape[1]
        frames = self._transform.analysis(self._down(x, False))
        self._waiting = np.concatenate([self._waiting, frames], axis=1) if self.waiting else frames

    def end(self) -> None:
        rest = self._down(np.zeros((len(self._waiting), 0), np.float32), True)
        silence = np.zeros((len(self._waiting), self.lookahead, *self._waiting.shape[2:]), np.float32)
        self._waiting = np.concatenate([self._waiting, self._transform.analysis(rest), self._transform.flush(), silence], axis=1)
        self.ended = True

    def take(self, count: int) -> np.ndarray:
        """[C, t, *shape], t at most `count`."""
        taken, self._waiting = self._waiting[:, :count], self._waiting[:, count:]
        return taken

    def give(self, frames: np.ndarray) -> np.ndarray:
        """Samples [C, n] that are final now; after the end and the last frame, all that are left."""
        last = self.ended and not self.waiting
        early = min(self._early, frames.shape[1])
        self._early -= early
        y = self._up(self._transform.synthesis(frames[:, early:]), last)[:, :self._seen - self._given]
        self._given += y.shape[1]
        if last:
            y = np.pad(y, ((0, 0), (0, self._seen - self._given)))  # the two resamplers may round a sample away
            self.done = True
        return y


class Stream:
    """Enhance C channels of audio at `rate` Hz, fed in pieces: push(x float32 [C, n]) and flush() give [C, m].

    The model always runs on `chunk` frames at a time (fewer only at the end), so the output does not depend on
    how the input was cut; `chunk` is rounded up to what the engine takes. `latency_ms`: the algorithmic latency,
    and the wait for a chunk to fill.
    """

    def __init__(self, engine: Engine, rate: int, channels: int, chunk: int = 1):
        self.engine, self.chunk = engine, _whole_chunk(engine, chunk)
        self.latency_ms = 1000 * engine.transform.latency(engine.lookahead + self.chunk - 1) / engine.sample_rate
        self._signal, self._state = Signal(engine, rate, channels), engine.start(channels)
        self._nothing = np.zeros((channels, 0), np.float32)

    def push(self, x: np.ndarray) -> np.ndarray:
        self._signal.feed(x)
        return self._advance()

    def flush(self) -> np.ndarray:
        self._signal.end()
        return self._advance()

    def _advance(self) -> np.ndarray:
        done = []
        while not self._signal.done and self._ready():
            done.append(self._signal.give(self._next()))
        return done[0] if len(done) == 1 else np.concatenate(done, axis=1) if done else self._nothing

    def _ready(self) -> bool:
        return self._signal.waiting >= self.chunk or self._signal.ended

    def _next(self) -> np.ndarray:
        """What the model makes of the next frames."""
        frames = np.ascontiguousarray(self._signal.take(self.chunk))
        if frames.shape[1]:  # nothing went in, nothing is left
            frames, self._state = self.engine.run(frames, self._state)
        return frames


class Overlapped(Stream):
    """The same for a model that is not causal: windows of `chunk` frames, an eighth of which they share, and there the output
    goes over linearly from one to the next. A signal no longer than a window is taken whole; the last window of a longer
    one is as long as the others.
    """

    def __init__(self, engine: Engine, rate: int, channels: int, chunk: int):
        super().__init__(engine, rate, channels, chunk)
        self._overlap = self.chunk // 8
        self._seen = self._tail = None  # the last window's input, and its output that the next one shares

    def _ready(self) -> bool:
        # One frame more than a window: what is left for the last is never nothing.
        return self._signal.waiting > self._new or self._signal.ended

    @property
    def _new(self) -> int:
        """Frames that the next window does not share with the last."""
        return self.chunk if self._seen is None else self.chunk - self._overlap

    def _next(self) -> np.ndarray:
        taken = self._signal.take(self._new)
        if not taken.shape[1]:
            return taken
        if self._seen is None:
            window, shared = taken, 0
        else:
            window, shared = np.concatenate([self._seen[:, taken.shape[1]:], taken], 1), self._overlap
        out, _ = self.engine.run(np.ascontiguousarray(window), ())
        out = out[:, out.shape[1] - taken.shape[1] - shared:]
        if shared:
            part = (np.arange(1, shared + 1, dtype=np.float32) / (shared + 1)).reshape(-1, *(1,) * (out.ndim - 2))
            out = np.concatenate([self._tail + part * (out[:, :shared] - self._tail), out[:, shared:]], 1)
        if self._signal.ended and not self._signal.waiting:
            return out
        self._seen, self._tail = window, out[:, out.shape[1] - self._overlap:]
        return out[:, :out.shape[1] - self._overlap]


def frames_in(engine: Engine, seconds: float) -> int:
    """Frames of so much audio, at the least one."""
    return max(1, round(seconds * engine.sample_rate / engine.transform.hop))


def open_stream(engine: Engine, rate: int, channels: int, seconds: float) -> Stream:
    """The stream for an engine, `seconds` of audio (at the least a frame) at a time."""
    return (Stream if engine.causal else Overlapped)(engine, rate, channels, frames_in(engine, seconds))


class Batch:
    """Up to `size` mono signals that advance in one call of the engine, each at its own place in time.

    `slots` holds Signals or None; put(signal) takes a free slot. advance() runs the signals that have `chunk`
    frames waiting, or are at their end, and gives (signal, samples) of each; finished ones leave their slot.
    """

    def __init__(self, engine: Engine, size: int, chunk: int = 1):
        self.engine, self.chunk = engine, _whole_chunk(engine, chunk)
        self.slots: list[Signal | None] = [None] * size
        self._state = engine.start(size)
        self._frames = np.zeros((size, self.chunk, *engine.transform.shape), np.float32)

    def put(self, signal: Signal) -> None:
        slot = self.slots.index(None)
        self.slots[slot] = signal
        self.engine.restart(self._state, slot)

    def drop(self, signal: Signal) -> None:
        self.slots[self.slots.index(signal)] = None

    def ready(self, signal: Signal) -> bool:
        return signal.waiting >= self.chunk or signal.ended

    def advance(self) -> list[tuple[Signal, np.ndarray]]:
        ready = [s is not None and self.ready(s) for s in self.slots]
        if not any(ready):
            return []
        counts = {}
        for row, signal in enumerate(self.slots):
            if ready[row]:
                taken = signal.take(self.chunk)[0]
                counts[row] = len(taken)
                self._frames[row, :len(taken)], self._frames[row, len(taken):] = taken, 0
        out, self._state = self.engine.run(self._frames, self._state, np.array(ready))
        done = []
        for row, count in counts.items():
            signal = self.slots[row]
            done.append((signal, signal.give(out[row:row + 1, :count])))
            if signal.done:
                self.slots[row] = None
        return done


def _whole_chunk(engine: Engine, chunk: int) -> int:
    """`chunk` frames, rounded up to what the engine takes."""
    least = engine.frames or 1
    return -(-chunk // least) * least


def _resampler(source: int, target: int, channels: int):
    """A stateful resampler (x [C, n], last) -> [C, m] without clicks at the borders of pieces."""
    if source == target:
        return lambda x, last: x
    import soxr

    stream = soxr.ResampleStream(source, target, channels, dtype="float32", quality="VHQ")

    def push(x: np.ndarray, last: bool) -> np.ndarray:
        y = stream.resample_chunk(np.ascontiguousarray(x.T), last=last)
        return np.ascontiguousarray(y.reshape(-1, channels).T)

    return push
