"""What runs a TorchScript file of se-quant export. Such a file is a program: load none from a stranger."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch

from setk.audio import stft
from setk.engines.base import first_state
from setk.core.errors import UserError
from setk.core.files import sha256


class ScriptEngine:
    """An Engine (see setk.engines) of one group of at most `batch` signals, `frames` frames at a time (None: any number)."""

    def __init__(self, path: Path):
        extra = {"setk": ""}
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        torch.set_num_threads(1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self._forward = torch.jit.load(str(path), "cpu", extra)
            self.about = json.loads(extra["setk"])
        except (RuntimeError, ValueError):
            raise UserError(f"{path}: is no TorchScript that se-quant export wrote, or is damaged") from None
        self.name, self.sample_rate, self.lookahead, self.frames, self.batch, self.causal, self.chunk_s = (
            self.about[k] for k in ("model", "sample_rate", "lookahead", "frames", "batch", "causal", "chunk_s"))
        self.transform, self.sha256 = stft.restore(self.about["transform"]), sha256(path)

    def start(self, channels: int) -> list[torch.Tensor]:
        if channels > self.batch:
            raise UserError(f"the TorchScript of {self.name} takes {self.batch} signals at a time, not {channels}")
        return [torch.from_numpy(np.repeat(first_state(x["start"], tuple(x["shape"])), self.batch, x["axis"]))
                for x in self.about["state"]]

    def run(self, frames: np.ndarray, state: list[torch.Tensor]) -> tuple[np.ndarray, list[torch.Tensor]]:
        c, t = frames.shape[:2]
        step, outs = self.frames or max(t, 2), []
        padded = np.zeros((self.batch, -(-t // step) * step, *frames.shape[2:]), np.float32)
        padded[:c, :t] = frames
        with torch.inference_mode():
            for piece in torch.from_numpy(padded).split(step, 1):
                out, *state = self._forward(piece, *state)
                outs.append(out)
        return torch.cat(outs, 1)[:c, :t].numpy(), state
