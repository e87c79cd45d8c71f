"""Wavs converted to another rate, as new files; the originals are never changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator

from setk import audio
from setk.audio import Location
from setk.audio.arrays import check_rate
from setk.audio.location import OnTheFlyMixture
from setk.core.errors import AudioError
from setk.core.pool import ordered_map
from setk.core.provenance import Claim


@dataclass(frozen=True)
class Task:
    """One file to convert; `channel` (1-based) is the one to keep of several, None requires mono."""

    utt: str
    source: Location
    target: Path
    rate: int
    resampler: str = "soxr"
    channel: int | None = None


@dataclass(frozen=True)
class Converted:
    """The mono file at the requested rate: `path`; or, in `error`, why there is none."""

    utt: str
    path: str = ""
    frames: int = 0
    clipped: int = 0
    error: str = ""


def convert(task: Task) -> Converted:
    """Write task.target as 16-bit PCM, unless it exists and is not older than its source.

    A mono source at the rate is used in place, unless it is an on-the-fly mixture.
    """
    try:
        info = task.source.probe()
        if _needs_no_file(task.source, info, task.rate):
            return Converted(task.utt, task.source, info.frames)
        if _is_current(task):
            return Converted(task.utt, str(task.target), audio.probe(str(task.target)).frames)
        x, rate = task.source.read()
        if task.channel is not None and len(x) > 1:
            if task.channel > len(x):
                raise AudioError(f"{task.source}: has {len(x)} channels; --channel {task.channel} is not one of them")
            x = x[task.channel - 1 : task.channel]
        audio.check_mono(task.source, len(x), rate, None)
        y = audio.resample(x, rate, task.rate, task.resampler)
        return Converted(task.utt, str(task.target), y.shape[-1], audio.write(task.target, y, task.rate))
    except AudioError as e:
        return Converted(task.utt, error=str(e))


def _needs_no_file(source: Location, info: audio.Info, rate: int) -> bool:
    """Whether a source can be used in place. A mixture gets a file: who converts a list expects files."""
    return info.rate == rate and info.channels == 1 and not isinstance(source, OnTheFlyMixture)


def _is_current(task: Task) -> bool:
    """Whether the target exists and is not older than its source; a command or a mixture is always made again."""
    return task.source.is_file and task.target.exists() and task.target.stat().st_mtime_ns >= task.source.changed_ns()


def convert_all(
    table: Iterable[tuple[str, Location]],
    folder: str | os.PathLike,
    rate: int,
    resampler: str = "soxr",
    channel: int | None = None,
    jobs: int = 1,
) -> Iterator[Converted]:
    """Convert (utt, location) one by one, in order, to FOLDER/<utt>.wav.

    The folder is made when the first file needs it, and accepts one setting of rate, resampler and channel. Raises UserError
    on a rate beyond the limits.
    """
    folder = Path(folder)

    settings = {"rate": check_rate(rate, "--rate"), "resampler": resampler, "channel": channel}
    claim = Claim(folder, settings, "soundfile", "soxr", "resampy")

    def tasks() -> Iterator[Task]:
        claimed = False
        for utt, place in table:
            if not claimed and not _is_ready(place, rate):
                claim()
                claimed = True
            yield Task(utt, place, folder / f"{utt}.wav", rate, resampler, channel)

    yield from ordered_map(convert, tasks(), jobs)


def _is_ready(place: Location, rate: int) -> bool:
    """Whether no file will be written for this source: it can be used in place, or cannot be read."""
    try:
        info = place.probe()
    except AudioError:
        return True
    return _needs_no_file(place, info, rate)
