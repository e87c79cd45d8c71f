"""An exported model run by setk's own C kernels: no torch, no ONNX Runtime, no compiler."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from setk.audio.stft import Frames
from setk.core.errors import UserError
from setk.core.files import sha256
from setk.native import kernels, stored


class NativeEngine:
    """A causal model of an .onnx file of `se-quant export`, a hop at a time from samples to samples.

    The Fourier transform is part of the program. A frame is therefore a hop of samples, [C, T, hop], and what a transform
    outside would hold back counts as look-ahead. `keep` stores the translated program in the user's cache, for faster starts.
    Raises UserError where the kernels were not built, or the model cannot run live.
    """

    frames = None
    causal = True

    def __init__(self, path: Path, keep: bool = False):
        library = kernels.library()
        if library is None:
            raise UserError(
                f"{path}: needs setk's compiled kernels; install a C compiler and run 'pip install .' again"
            )
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        self.sha256 = sha256(path)
        found = stored.load(path, self.sha256) if keep else stored.translated(path)
        self.about = found.about
        self.name, self.sample_rate, self.chunk_s = (self.about[k] for k in ("model", "sample_rate", "chunk_s"))
        self.transform, self.lookahead = Frames(found.hop, found.hop), found.delay // found.hop
        self._machine = kernels.Machine(found.program, found.hop, library)

    def start(self, channels: int) -> list[np.ndarray]:
        return [self._machine.start() for _ in range(channels)]

    def run(
        self, frames: np.ndarray, state: list[np.ndarray], active: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        out = np.empty_like(frames)
        for channel, samples in enumerate(frames):
            if active is None or active[channel]:
                flat = np.ascontiguousarray(samples, np.float32).reshape(-1)
                out[channel] = self._machine.run(flat, state[channel]).reshape(samples.shape)
        return out, state

    def restart(self, state: list[np.ndarray], channel: int) -> None:
        self._machine.restart(state[channel])


def available(path: Path) -> bool:
    """Whether an exported file can run here by the kernels: they were built, and the model is causal with one frame per call."""
    if kernels.library() is None:
        return False
    from setk.native import reader

    about = reader.metadata(path)
    return about["causal"] and about["frames"] == about["batch"] == 1 and about["quantization"] is None
