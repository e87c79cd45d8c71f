"""ONNX files of other projects: streaming denoisers of one spectrum and their states.

The signature is that of GTCRN and of models after it: the first input `mix` and the first output `enh` are the spectrum of one frame,
float [1, F, 1, 2] or [1, 1, F, 2] (real and imaginary part); the other inputs are states, which are zeros before the first frame, and
the other outputs are the next states in the same order. The transform is in the metadata that sherpa-onnx reads (`n_fft`,
`hop_length`, `window_length`, `window_type`, `sample_rate`), or is stated by the user. `lookahead` there, which exports of setk
have, is by how many frames the output is late.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import numpy as np

from setk.audio.stft import STFT
from setk.audio.wav import MAX_RATE, MIN_RATE
from setk.core.errors import UserError
from setk.core.files import sha256
from setk.engines import onnx_graph
from setk.engines.exported import MAX_FRAMES, MAX_STATE, MAX_WINDOW

POWERS = {"sqrt-hann": 0.5, "hann": 1.0}  # name of a window -> power of the Hann window
SHERPA_POWERS = {"hann_sqrt": 0.5, "hann": 1.0}  # the same for the names in sherpa-onnx's metadata
METADATA = ("window_length", "hop_length", "window_type", "sample_rate", "n_fft")
RATE = 16000


def parse_stft(text: str) -> tuple[STFT, int]:
    """The transform and the rate in Hz that `WINDOW,HOP,TYPE[,RATE]` states, as in 512,256,sqrt-hann. Raises UserError."""
    window, hop, kind, rate = (*text.split(","), str(RATE))[:4] if text.count(",") in (2, 3) else ("", "", "", "")
    if not (window.isdecimal() and hop.isdecimal() and rate.isdecimal() and kind in POWERS):
        raise UserError(f"--stft {text}: write WINDOW,HOP,{'|'.join(POWERS)}[,RATE], as in 512,256,sqrt-hann")
    return _stft(f"--stft {text}", int(window), int(hop), POWERS[kind], int(rate), int(window))


def _stft(where: str, window: int, hop: int, power: float, rate: int, points: int) -> tuple[STFT, int]:
    if not (1 <= hop <= window <= points <= MAX_WINDOW and MIN_RATE <= rate <= MAX_RATE):
        raise UserError(f"{where}: window {window}, hop {hop}, {points} points and {rate} Hz are not possible together")
    try:
        return STFT(window, hop, points, power), rate
    except ValueError as e:
        raise UserError(f"{where}: {e}") from None


def _stated(metadata: Mapping[str, str], path: Path) -> tuple[STFT, int] | None:
    """The transform that the metadata of a file states; None without it. Raises UserError if it is incomplete or wrong."""
    if not {"n_fft", "hop_length"} <= metadata.keys():
        return None
    values = {key: metadata.get(key, "") for key in METADATA}
    power = SHERPA_POWERS.get(values.pop("window_type"))
    if power is None or not all(value.isdecimal() for value in values.values()):
        raise UserError(
            f"{path}: its metadata states the transform {metadata.get('window_type')}, {', '.join(map(str, values.values()))}, "
            "which setk cannot use; state it with --stft (in Python: stft=) WINDOW,HOP,TYPE"
        )
    numbers = {key: int(value) for key, value in values.items()}
    return _stft(
        f"{path}: its metadata",
        numbers["window_length"],
        numbers["hop_length"],
        power,
        numbers["sample_rate"],
        numbers["n_fft"],
    )


def _lookahead(metadata: Mapping[str, str], path: Path) -> int:
    """By how many frames the output is late, as the metadata states; 0 without it. Raises UserError if that is not possible."""
    frames = metadata.get("lookahead", "0")
    if not frames.isdecimal() or int(frames) > MAX_FRAMES:
        raise UserError(f"{path}: its metadata states a look-ahead of {frames} frames; expected 0 to {MAX_FRAMES}")
    return int(frames)


class ForeignEngine:
    """A streaming denoiser that setk did not write, in ONNX Runtime on one thread, one frame and one channel at a time.

    `stft`: the transform as `parse_stft` reads it; None: that of the metadata. Raises UserError on another signature.
    """

    frames, batch, causal, chunk_s = 1, 1, True, 10.0

    def __init__(self, path: Path, session: Any, stft: str | None = None):
        self.name, self.sha256 = path.stem, sha256(path)
        self._path, self._session = path, session
        self._names = [x.name for x in session.get_inputs()]
        metadata = session.get_modelmeta().custom_metadata_map
        stated = parse_stft(stft) if stft else _stated(metadata, path)
        if stated is None:
            raise UserError(
                f"{path}: was not written by se-quant export, and its metadata has no transform; "
                "state it with --stft (in Python: stft=) WINDOW,HOP,TYPE, as in 512,256,sqrt-hann"
            )
        self.transform, self.sample_rate = stated
        self.lookahead = _lookahead(metadata, path)
        self._gain = 1.0 if stft else _sherpa_gain(self.transform)
        self._frame, self._states = self._signature()
        self._check_run()

    def _refuse(self, reason: str) -> UserError:
        return UserError(
            f"{self._path}: was not written by se-quant export, and is not a streaming denoiser of one spectrum and its states: {reason}"
        )

    def _signature(self) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
        """Shapes of the spectrum and of the states."""
        ins, outs = self._session.get_inputs(), self._session.get_outputs()
        if len(ins) != len(outs) or len(ins) < 2:
            raise self._refuse(f"it has {len(ins)} inputs and {len(outs)} outputs")
        wrong = [x.name for x in (*ins, *outs) if x.type != "tensor(float)"]
        if wrong:
            raise self._refuse(f"{wrong[0]} is not a tensor(float)")
        # A size that is not fixed is that of the batch or of time.
        frame = tuple(n if isinstance(n, int) and n > 0 else 1 for n in ins[0].shape)
        bins = self.transform.bins
        if frame not in ((1, bins, 1, 2), (1, 1, bins, 2)):
            raise self._refuse(
                f"{ins[0].name} has shape {ins[0].shape}; expected [1, {bins}, 1, 2] or [1, 1, {bins}, 2] for {bins} bins"
            )
        states = []
        for x in ins[1:]:
            if not all(isinstance(n, int) and n > 0 for n in x.shape) or np.prod(x.shape, dtype=float) > MAX_STATE:
                raise self._refuse(f"the state {x.name} has shape {x.shape}, which is not fixed")
            states.append(tuple(x.shape))
        return frame, states

    def _check_run(self) -> None:
        """Run one frame of silence, and compare what comes out with the signature."""
        outs = self._session.get_outputs()
        found = self._call(np.zeros(self._frame, np.float32), [np.zeros(shape, np.float32) for shape in self._states])
        for x, shape, y in zip(outs, (self._frame, *self._states), found):
            if not isinstance(y, np.ndarray) or y.dtype != np.float32 or y.shape != shape:
                raise self._refuse(f"{x.name} is computed with shape {list(np.shape(y))}, not {list(shape)}")

    def _call(self, mix: np.ndarray, states: list[np.ndarray]) -> list[np.ndarray]:
        try:
            return self._session.run(None, dict(zip(self._names, (mix, *states))))
        except onnx_graph.runtime_errors() as e:
            raise onnx_graph.failure(self._path, e) from None

    def start(self, channels: int) -> list[list[np.ndarray]]:
        return [[np.zeros(shape, np.float32) for shape in self._states] for _ in range(channels)]

    def restart(self, state: list[list[np.ndarray]], channel: int) -> None:
        state[channel] = [np.zeros(shape, np.float32) for shape in self._states]

    def run(
        self, frames: np.ndarray, state: list[list[np.ndarray]], active: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[list[np.ndarray]]]:
        out = np.empty_like(frames)
        for channel, own in enumerate(state):
            if active is not None and not active[channel]:
                continue
            for t in range(frames.shape[1]):
                mix = np.ascontiguousarray(frames[channel, t]).reshape(self._frame)
                enh, *after = self._call(mix, own)
                # Nothing but the first run has been checked: shapes may depend on values.
                if enh.shape != self._frame or [x.shape for x in after] != self._states:
                    raise self._refuse("the shapes of its outputs change")
                out[channel, t] = self._gain * enh.reshape(self.transform.shape)
                own = after
            state[channel] = own
        return out, state


def _sherpa_gain(transform: STFT) -> float:
    """What the synthesis of sherpa-onnx, which multiplies by the analysis window and does not divide, changes in level.

    A file for it compensates this. Where the windows do not add up to a constant there is no such factor, and 1 is returned.
    """
    power = (transform.analysis_window.astype(float) ** 2).reshape(-1, transform.hop).sum(0)
    return float(power.mean()) if np.ptp(power) < 1e-4 * power.mean() else 1.0
