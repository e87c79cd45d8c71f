"""What a person sees while audio passes: levels of a live pipe, progress of a file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from setk.cli import shell

if TYPE_CHECKING:
    from setk.audio import Info

SECONDS = 0.1  # of audio between two drawings
FLOOR_DB = -60
WIDTH = 24  # characters of a bar


class LevelMeter:
    """Draws levels of input and output and the noise reduction on one line of stderr, while audio passes."""

    def start(self, info: Info) -> None:
        self._samples = max(1, round(SECONDS * info.rate))
        self._clear()

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        self._input += float(np.sum(x * x, dtype=float))
        self._output += float(np.sum(y * y, dtype=float))
        self._seen += x.shape[1]
        if self._seen >= self._samples:
            count = self._seen * len(x)
            print("\r" + line(self._input / count, self._output / count), end="\x1b[K", file=sys.stderr, flush=True)
            self._clear()

    def finish(self) -> None:
        """Remove the line."""
        print(end="\r\x1b[K", file=sys.stderr, flush=True)

    def _clear(self) -> None:
        self._seen, self._input, self._output = 0, 0.0, 0.0


def line(power_in: float, power_out: float) -> str:
    """Bars and numbers of two mean squares, full scale being 1."""
    level_in, level_out = (10 * np.log10(max(power, 1e-10)) for power in (power_in, power_out))
    return f"in {_bar(level_in)}  out {_bar(level_out)}  reduction {max(0, level_in - level_out):3.0f} dB"


def _bar(level: float) -> str:
    filled = round(WIDTH * min(1, max(0, 1 - level / FLOOR_DB)))
    return f"[{'#' * filled}{'.' * (WIDTH - filled)}] {level:4.0f} dBFS"


class FileProgress:
    """Shows how many seconds of a file are enhanced."""

    _shown: shell.Progress | None = None

    def start(self, info: Info) -> None:
        total = round(info.frames / info.rate, 1) if info.frames else None
        self._rate, self._shown = info.rate, shell.Progress(total, "se-enhance", " s")

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        if self._shown and y.shape[1]:
            self._shown.add(y.shape[1] / self._rate)

    def finish(self) -> None:
        if self._shown:
            self._shown.finish()
