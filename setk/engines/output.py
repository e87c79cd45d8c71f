"""What is done to the output of a model before it is written: a limit of the noise reduction, and the band above the model's."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from setk.core.errors import UserError

HIGHBANDS = ("none", "gain")


class Output(NamedTuple):
    """How the output is made from what the model returns.

    `limit_db`: the largest noise reduction in dB. The aligned input is mixed in, y = (1 - g) enhanced + g input with
    g = 10^(-limit_db / 20), so what the model removes completely remains at -limit_db. None: no limit.

    `highband`: what is above the model's band in an input of a higher rate. "none": nothing; "gain": the input's upper band, scaled by
    what the model does to its own top band (see HighBand).
    """

    limit_db: float | None = None
    highband: str = "none"

    def check(self) -> Output:
        """Return self. Raises UserError on a value that is not allowed."""
        if self.limit_db is not None and not (0 <= self.limit_db < math.inf):
            raise UserError(
                f"limit {self.limit_db:g} dB: must be 0 or more, and finite; without a limit the output is the model's"
            )
        if self.highband not in HIGHBANDS:
            raise UserError(f"highband '{self.highband}': unknown; choose {' or '.join(HIGHBANDS)}")
        return self

    def settings(self) -> dict[str, Any]:
        """What differs from the default, for the provenance of an output directory."""
        return {name: value for name, value in self._asdict().items() if value != Output._field_defaults[name]}


class Delay:
    """Samples [C, n] that wait for their turn: put(x), and take(n) returns the next n of them."""

    def __init__(self, channels: int):
        self._waiting = np.zeros((channels, 0), np.float32)

    def put(self, x: np.ndarray) -> None:
        # A copy: the caller may use the array again, as audio callbacks do.
        self._waiting = np.concatenate([self._waiting, x], axis=1, dtype=np.float32)

    def take(self, count: int) -> np.ndarray:
        taken, self._waiting = self._waiting[:, :count], self._waiting[:, count:]
        return taken


class Limiter:
    """Mixes the input into the output: feed(x) accepts the input, mix(y) the enhanced samples that follow the last ones."""

    def __init__(self, limit_db: float, channels: int):
        self._gain = np.float32(10 ** (-limit_db / 20))
        self._input = Delay(channels)

    def feed(self, x: np.ndarray) -> None:
        self._input.put(x)

    def mix(self, y: np.ndarray) -> np.ndarray:
        return (1 - self._gain) * y + self._gain * self._input.take(y.shape[1])
