"""Means that a test set is expected to have, such as the published ones of its noisy signals.

A wrong resampler, swapped pairs or an incomplete set show here, before a model is blamed for them.
"""

from __future__ import annotations

import math
from typing import Mapping, Sequence

from setk.core.errors import UserError


def parse(text: str) -> dict[str, tuple[float, float]]:
    """METRIC=LOW:HIGH with commas between -> metric -> range. Raises UserError on anything else."""
    found = {}
    for part in text.split(","):
        metric, _, limits = part.partition("=")
        low, _, high = limits.partition(":")
        if metric in found:
            raise UserError(f"--expect {part}: {metric} has two ranges; keep one of them")
        try:
            found[metric] = float(low), float(high)
        except ValueError:
            raise UserError(f"--expect {part}: write METRIC=LOW:HIGH, as in pesq_wb=1.965:1.975") from None
        if not found[metric][0] <= found[metric][1]:
            raise UserError(f"--expect {part}: the range is empty; write the lower limit first")
    return found


def check_names(expected: Mapping[str, tuple[float, float]], names: Sequence[str]) -> None:
    """UserError if a metric of `expected` is not computed."""
    for metric in expected:
        if metric not in names:
            raise UserError(f"--expect {metric}: not among the metrics {', '.join(names)}")


def unmet(expected: Mapping[str, tuple[float, float]], means: Mapping[str, Mapping]) -> list[str]:
    """A line for each mean (as of `summary.summarise`) that is outside its range or missing."""
    found = []
    for metric, (low, high) in expected.items():
        mean = means[metric]["mean"]
        if mean is None or math.isnan(mean) or not low <= mean <= high:
            found.append(f"{metric} {'has no score' if mean is None else f'{mean:.4f}'}, expected {low:g} to {high:g}")
    return found
