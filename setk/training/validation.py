"""Validation: whole utterances through the model as it would be used, scored with setk's own metrics."""

from __future__ import annotations

from typing import Callable, Mapping, Sequence

import torch

from setk import audio, metrics
from setk.audio import Location
from setk.core.errors import AudioError, UserError
from setk.models import Model
from setk.training.ranks import Ranks


MOST_FAULTS = 5  # that are named


def check_pairs(pairs: Mapping[str, tuple[str, str]], rate: int) -> None:
    """Raise UserError, with the first faults, if a pair of files (utt -> noisy, clean) is not mono at `rate` Hz and of one length."""
    faults = [fault for utt, pair in pairs.items() if (fault := _fault(pair, rate))]
    if faults:
        more = f"; and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise UserError(
            f"--valid: {'; '.join(faults[:MOST_FAULTS])}{more}; se-prep check names all faults, se-prep fix removes them"
        )


def _fault(pair: tuple[str, str], rate: int) -> str:
    locations = [Location.parse(text) for text in pair]
    if not all(location.is_file for location in locations):
        return ""  # to probe a command is to run it
    try:
        infos = [location.probe() for location in locations]
        for location, info in zip(locations, infos):
            audio.check_mono(location, info.channels, info.rate, rate)
    except AudioError as e:
        return str(e)
    noisy, clean = (info.frames for info in infos)
    return "" if noisy == clean else f"{pair[0]}: has {noisy} samples, and {pair[1]} {clean}"


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
    Utterances for which a metric fails are reported, never counted as zero; nan if none is left. None if `stop`
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
