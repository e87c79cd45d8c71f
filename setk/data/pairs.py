"""Two folders or two lists, noisy and clean, to a data directory."""

from __future__ import annotations

import os

from setk import audio
from setk.audio import Location
from setk.core.errors import AudioError, UserError
from setk.data.datadir import DataDir, seconds
from setk.data.lists import Faults, find_wavs


def pairs(
    noisy: str | os.PathLike, clean: str | os.PathLike, out: str | os.PathLike, allow_commands: bool = False
) -> tuple[int, Faults]:
    """Write the data directory `out` of the files that `noisy` and `clean` share, by relative path or by id.

    Returns the number of pairs, and what was left out and why: files without a partner, files that cannot be
    read, pairs that differ in length, rate or channels. Raises UserError if no pair is left.
    """
    common, faults = match(noisy, clean, allow_commands)
    durations = {}
    for utt, places in common.items():
        try:
            durations[utt] = pair_duration(*places)
        except AudioError as e:
            faults.append((utt, str(e)))
    if not durations:
        reasons = f" (first fault: {faults[0][0]}: {faults[0][1]})" if faults else ""
        raise UserError(f"{noisy} and {clean}: no usable pair among them{reasons}")
    DataDir.write(
        out,
        {
            "noisy.scp": {utt: common[utt][0] for utt in durations},
            "clean.scp": {utt: common[utt][1] for utt in durations},
            "utt2dur": durations,
        },
    )
    return len(durations), faults


def match(
    noisy: str | os.PathLike, clean: str | os.PathLike, allow_commands: bool = False
) -> tuple[dict[str, tuple[Location, Location]], Faults]:
    """utt -> (noisy, clean) of the ids in both, and the files that have no partner."""
    (left, faults), (right, more) = find_wavs(noisy, allow_commands), find_wavs(clean, allow_commands)
    faults = faults + more
    for utt in sorted(left.keys() ^ right.keys(), key=str.encode):
        here, other = (left, clean) if utt in left else (right, noisy)
        faults.append((utt, f"{here[utt]}: has no partner in {other}"))
    return {utt: (left[utt], right[utt]) for utt in left if utt in right}, faults


def pair_duration(noisy: str, clean: str) -> str:
    """The duration of a pair by its headers. Raises AudioError if one cannot be read or the two differ."""
    a, b = (audio.probe(place) for place in (noisy, clean))
    if a != b:
        raise AudioError(
            f"{noisy} ({a.frames} samples, {a.rate} Hz, {a.channels} channels) and "
            f"{clean} ({b.frames}, {b.rate}, {b.channels}) do not match; replace one of them"
        )
    if not a.frames:
        raise AudioError(f"{noisy}: has no samples")
    return seconds(a.frames, a.rate)
