"""Validation: whole utterances through the model as it would be used, scored with setk's own metrics."""

from __future__ import annotations

from typing import Callable, Sequence

import torch

from setk import audio, metrics
from setk.models import Model
from setk.training.ranks import Ranks


def validate(
    model: Model,
    pairs: dict[str, tuple[str, str]],
    names: Sequence[str],
    ranks: Ranks,
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Mean of each metric over the utterances (utt -> (noisy, clean) locations) where it could be computed.

    Each rank scores its share; the means are the same on all, to the last bit, whatever their number.
    Utterances for which a metric fails are told, never counted as zero; nan if none is left. None if `stop`
    became true on any rank before its share was done.
    """
    model.eval()
    values = torch.zeros(len(pairs), len(names), dtype=torch.float64)
    stopped = False
    for i, (utt, (noisy, clean)) in enumerate(pairs.items()):
        if i % ranks.world != ranks.rank:
            continue
        stopped = stop()
        if stopped:
            break
        x, rate = audio.read_mono(noisy, model.sample_rate)
        reference, _ = audio.read_mono(clean, model.sample_rate)
        with torch.inference_mode():
            estimate = model.enhance(torch.from_numpy(x)[None].to(ranks.device))[0].cpu().numpy()
        scores, reasons = metrics.compute(reference, estimate, rate, names)
        for name, reason in reasons.items():
            say(f"warning: valid {utt}: {name}: {reason}")
        values[i] = torch.tensor([scores[name] for name in names])
    if ranks.any(stopped):
        return None
    # Every row but one rank's own is zero there.
    return dict(zip(names, ranks.total(values).cpu().nanmean(0).tolist()))
