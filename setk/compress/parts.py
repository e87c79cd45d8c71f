"""What each mechanism of a trained model contributes: scores of the model complete, and with one of its parts taken out."""

from __future__ import annotations

import copy
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
import torch

from setk import metrics
from setk.models import Model

JUDGES = ("pesq_wb", "stoi", "si_sdr")
LEAST = {"pesq_wb": 0.005, "stoi": 0.0005, "si_sdr": 0.02}  # differences below these count as none

Pair = tuple[np.ndarray, np.ndarray]  # noisy, clean [n] at the model's rate


def part_out(model: Model, pairs: Sequence[Pair]) -> Iterator[dict[str, Any]]:
    """Rows of mean scores over `pairs`: `without` is "" for the complete model, then each of `model.parts`.

    The rows of parts also have `lost`, the metrics by which the model is worse without the part.
    """
    complete = mean_scores(model, pairs)
    yield {"without": "", **complete}
    for part in model.parts:
        scores = mean_scores(copy.deepcopy(model).without(part), pairs)
        yield {"without": part, **scores, "lost": worse(scores, complete)}


def mean_scores(model: Model | None, pairs: Sequence[Pair]) -> dict[str, float]:
    """Mean scores of a model over `pairs`; of the noisy signals without a model. An utterance without a score is left out."""
    rows = []
    for noisy, clean in pairs:
        estimate = noisy
        if model is not None:
            with torch.inference_mode():
                estimate = model.enhance(torch.from_numpy(noisy)[None])[0].numpy()
        scores, _ = metrics.compute(clean, estimate, 16000 if model is None else model.sample_rate, JUDGES)
        rows.append([scores[name] for name in JUDGES])
    return dict(zip(JUDGES, np.nanmean(rows, 0).tolist()))


def worse(scores: Mapping[str, float], reference: Mapping[str, float]) -> list[str]:
    """The metrics by which `scores` are worse than the reference, by more than LEAST."""
    sign = {name: -1 if metrics.METRICS[name].lower_is_better else 1 for name in reference}
    return [name for name, value in reference.items() if sign[name] * (scores[name] - value) < -LEAST.get(name, 0)]


def contributes(lost: Sequence[str]) -> bool:
    """Whether a part does its work: without it, most metrics are worse. One alone may be what the loss is a model of."""
    return len(lost) > len(JUDGES) / 2
