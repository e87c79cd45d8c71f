"""Validation: whole utterances through the model as it would be used, scored with setk's own metrics."""

from __future__ import annotations

import math
from typing import Callable, Sequence

import torch

from setk import audio, metrics
from setk.models import Model


def validate(model: Model, pairs: dict[str, tuple[str, str]], names: Sequence[str], device: torch.device,
             say: Callable[[str], None]) -> dict[str, float]:
    """Mean of each metric over the utterances (utt -> (noisy, clean) locations) where it could be computed.

    Utterances for which a metric fails are told, never counted as zero; nan if none is left.
    """
    model.eval()
    values: dict[str, list[float]] = {name: [] for name in names}
    for utt, (noisy, clean) in pairs.items():
        x, rate = audio.read_mono(noisy, model.sample_rate)
        reference, _ = audio.read_mono(clean, model.sample_rate)
        with torch.inference_mode():
            estimate = model.enhance(torch.from_numpy(x)[None].to(device))[0].cpu().numpy()
        scores, reasons = metrics.compute(reference, estimate, rate, names)
        for name, reason in reasons.items():
            say(f"warning: valid {utt}: {name}: {reason}")
        for name in names:
            if not math.isnan(scores[name]):
                values[name].append(scores[name])
    return {name: sum(v) / len(v) if v else math.nan for name, v in values.items()}
