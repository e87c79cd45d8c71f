"""Means of weights: over the steps of a training, and over its best checkpoints."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Callable, Mapping, Sequence

import torch
from torch import Tensor

from setk import checkpoint
from setk.core.errors import UserError
from setk.core.files import check_distinct
from setk.models import Model
from setk.training.ranks import joined
from setk.training.settings import check_metrics
from setk.training.validation import check_pairs, validate


class Smoothed:
    """The exponential moving average of a model's weights and statistics, as a model of its own: `model`.

    The decay rises to its value over the first steps, (1 + step) / (10 + step), so that a short training is not
    averaged with its beginning.
    """

    def __init__(self, model: Model, decay: float):
        self.model, self.decay = copy.deepcopy(model).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model: Model, step: int) -> None:
        """Take in the weights after `step` (from 0)."""
        part = 1 - min(self.decay, (1 + step) / (10 + step))
        for mean, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, part)
            else:
                mean.copy_(value)


def mean_weights(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of state dicts of one model; whole numbers, which are counts, of the first."""
    return {
        name: torch.stack([w[name].double() for w in weights]).mean(0).to(first) if first.is_floating_point() else first
        for name, first in weights[0].items()
    }


def average(
    out: Path,
    paths: Sequence[Path],
    pairs: Mapping[str, tuple[str, str]],
    metrics: Sequence[str],
    say: Callable[[str], None],
) -> dict[str, float]:
    """Write the mean of the weights of the checkpoints `paths` as `out`; its scores on `pairs` (utt -> noisy, clean).

    Raises UserError if the checkpoints are not of one model, and if `out` is one of them or another file than a mean.
    """
    check_metrics(metrics, "--metrics")
    check_distinct({"OUT": out}, paths)
    if out.exists() and "mean_of" not in checkpoint.read(out)["provenance"]:
        raise UserError(f"{out}: exists, and is not a mean of checkpoints; OUT comes first, and must be a new file")
    found = [checkpoint.load(path) for path in paths]
    model = found[-1][0]
    for path, (other, _) in zip(paths, found):
        if (other.name, other.config, other.quantization) != (model.name, model.config, model.quantization):
            raise UserError(f"{path}: not the same model, or not the same config, as {paths[-1]}")
    check_pairs(pairs, model.sample_rate)
    model.load_state_dict(mean_weights([source.state_dict() for source, _ in found]))
    with joined("cpu") as ranks:
        scores = validate(model, dict(pairs), metrics, ranks, say)
    checkpoint.save(
        out,
        model,
        {"valid": scores},
        mean_of=[source["sha256"] for _, source in found],
        settings=[source["provenance"].get("settings") for _, source in found],
    )
    return scores
