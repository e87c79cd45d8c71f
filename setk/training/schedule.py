"""The learning rate of a step."""

from __future__ import annotations

import math

from setk.training.settings import Settings


def learning_rate(step: int, s: Settings) -> float:
    """Linear warm-up; then half a cosine, which would be at lr_end one step after the last, or a fall by 0.9999 a step, slower
    where that would end below lr_end (the published schedule of DPSNN, which has no warm-up)."""
    if step < s.warmup:
        return s.lr * (step + 1) / s.warmup
    if s.schedule == "exponential":
        return s.lr * max(0.9999, (s.lr_end / s.lr) ** (1 / s.steps)) ** step
    part = (step - s.warmup) / max(1, s.steps - s.warmup)
    return s.lr_end + (s.lr - s.lr_end) * 0.5 * (1 + math.cos(math.pi * part))
