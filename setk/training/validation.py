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


def check_pairs(pairs: Mapping[str, tuple[str, str]], rate: int) -> dict[str, int | tuple[str, str]]:
    """What each pair (utt -> noisy, clean) is known by wherever it lies: the samples of its files, or its commands as they are. Raises
    UserError, with the first faults, if files are not mono at `rate` Hz and of one length, and without any pair."""
    if not pairs:
        raise UserError("--valid: lists no utterances; se-prep check reports what is wrong")
    known_by: dict[str, int | tuple[str, str]] = {}
    faults = []
    for utt, pair in pairs.items():
        try:
            # To probe a command is to run it.
            known_by[utt] = _samples(pair, rate) if all(Location.parse(text).is_file for text in pair) else pair
        except AudioError as e:
            faults.append(str(e))
    if faults:
        more = f"; and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise UserError(
            f"--valid: {'; '.join(faults[:MOST_FAULTS])}{more}; se-prep check names all faults, se-prep fix removes them"
        )
    return known_by


def _samples(pair: tuple[str, str], rate: int) -> int:
    locations = [Location.parse(text) for text in pair]
    infos = [location.probe() for location in locations]
    for location, info in zip(locations, infos):
        audio.check_mono(location, info.channels, info.rate, rate)
    noisy, clean = (info.frames for info in infos)
    if noisy != clean:
        raise AudioError(f"{pair[0]}: has {noisy} samples, and {pair[1]} {clean}")
    return noisy


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
