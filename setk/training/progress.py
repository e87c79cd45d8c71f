"""How a training gets on: means of its losses, and its speed."""

from __future__ import annotations

import math
from typing import Any, Mapping

from setk.training.settings import Settings


class Sums:
    """Running sums of the loss terms since the last validation, each with the number of steps that had it; kept in the
    resume state, so that the means of a history row do not depend on where a run was cut."""

    def __init__(self) -> None:
        self.totals: dict[str, tuple[float, int]] = {}

    def add(self, terms: Mapping[str, float]) -> None:
        for name, value in terms.items():
            total, count = self.totals.get(name, (0.0, 0))
            self.totals[name] = total + value, count + 1

    def means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.totals.items()}

    def restore(self, totals: Mapping[str, Any]) -> None:
        """Take the totals of a resume state."""
        # Earlier states have sums alone, and one count of steps with the name "".
        steps = totals.get("")
        self.totals = {name: (total, steps) for name, total in totals.items() if name} if steps else dict(totals)


class Clock:
    """How fast this process gets on: seconds spent in `steps` steps, and in the last validation."""

    def __init__(self) -> None:
        self.steps, self.seconds, self.validation = 0, 0.0, 0.0

    def speed(self) -> float:
        """Steps per second."""
        return self.steps / max(self.seconds, 1e-9)

    def left(self, step: int, s: Settings) -> float:
        """Seconds from `step` to the end of the training, validations included."""
        due = math.ceil((s.steps - step) / s.valid_every)
        return (s.steps - step) / self.speed() + due * self.validation


def show_time(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
