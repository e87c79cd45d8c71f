"""A TorchScript file of `se-quant export` run by torch. Such a file is a program: run only files that you trust."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from setk.core.errors import UserError
from setk.core.files import check_readable, sha256
from setk.engines import exported


def read_about(path: Path) -> dict[str, Any]:
    """What se-quant export wrote about a TorchScript file. Runs none of its code. Raises UserError on any other file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    check_readable(path)
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/extra/setk"))
            about = json.loads(archive.read(name))
    except (zipfile.BadZipFile, StopIteration, ValueError, RecursionError, NotImplementedError, RuntimeError, EOFError):
        raise UserError(f"{path}: not a TorchScript file of se-quant export, or damaged; export it again") from None
    exported.describe(about, str(path))
    return about


class ScriptEngine:
    """A TorchScript file in torch on one compute thread.

    The file accepts `batch` signals, `frames` frames at a time (None: any number). More channels run in groups of that many.
    """

    def __init__(self, path: Path):
        import torch

        self.about = read_about(path)
        torch.set_num_threads(1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self._forward = torch.jit.load(str(path), "cpu")
            described, self.transform = exported.describe(self.about, str(path))
            self.name, self.sample_rate, self.lookahead = described.model, described.sample_rate, described.lookahead
            self.frames, self.batch = described.frames, described.batch
            self.causal, self.chunk_s = described.causal, described.chunk_s
            self._first = [(state.axis, torch.from_numpy(state.first().copy())) for state in described.state]
        except (RuntimeError, ValueError, KeyError, TypeError) as e:
            raise UserError(f"{path}: is damaged ({' '.join(str(e).split())[:100]}); export it again") from None
        self.sha256 = sha256(path)

    def start(self, channels: int) -> list[list[Any]]:
        """The states of each group of `batch` channels."""
        return [
            [first.repeat_interleave(self.batch, axis) for axis, first in self._first]
            for _ in range(-(-channels // self.batch))
        ]

    def run(
        self, frames: np.ndarray, state: list[list[Any]], active: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[list[Any]]]:
        c, t = frames.shape[:2]
        step = self.frames or max(t, 2)
        groups = -(-c // self.batch)
        padded = np.zeros((groups * self.batch, -(-t // step) * step, *frames.shape[2:]), np.float32)
        padded[:c, :t] = frames
        out = np.empty_like(padded)
        after = []
        for i in range(groups):
            before = state[i] if self.causal else []
            rows = slice(i * self.batch, (i + 1) * self.batch)
            idle = np.array([], int) if active is None else np.flatnonzero(~active[rows])
            out[rows], states = self._run_group(padded[rows], before, step)
            after.append(self._with_idle(before, states, idle))
        return out[:c, :t], after

    def _run_group(self, frames: np.ndarray, state: list[Any], step: int) -> tuple[np.ndarray, list[Any]]:
        """[batch, T, *shape] by pieces of `step` frames."""
        import torch

        outs = []
        with torch.inference_mode():
            for piece in torch.from_numpy(frames).split(step, 1):
                out, *state = self._forward(piece, *state)
                outs.append(out)
        return torch.cat(outs, 1).numpy(), state

    def _with_idle(self, before: list[Any], after: list[Any], idle: np.ndarray) -> list[Any]:
        """`after`, with the rows `idle` as they were `before`."""
        import torch

        if not len(idle):
            return after
        rows = torch.from_numpy(idle)
        return [
            new.index_copy(axis, rows, old.index_select(axis, rows))
            for (axis, _), old, new in zip(self._first, before, after)
        ]

    def restart(self, state: list[list[Any]], channel: int) -> None:
        import torch

        group, row = divmod(channel, self.batch)
        with torch.inference_mode():
            state[group] = [x.clone() for x in state[group]]
            for x, (axis, first) in zip(state[group], self._first):
                x.narrow(axis, row, 1).copy_(first)
