"""Wavs converted to another rate, as new files; the originals are never changed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterable, Iterator

from setk import audio
from setk.audio import Location
from setk.audio.arrays import check_rate
from setk.audio.location import OnTheFlyMixture
from setk.core.errors import AudioError, UserError
from setk.core.pool import ordered_map
from setk.core.provenance import Claim, Made


@dataclass(frozen=True)
class Task:
    """One file to convert; `channel` (1-based) is the one to keep of several, None requires mono."""

    utt: str
    source: Location
    target: Path
    rate: int
    resampler: str = "soxr"
    channel: int | None = None
    kept: bool = False  # the file of an earlier run


@dataclass(frozen=True)
class Converted:
    """The mono file at the requested rate: `path`; or, in `error`, why there is none. `made_of`: the state of the source (see
    Location.state) if the file was written now."""

    utt: str
    path: str = ""
    frames: int = 0
    clipped: int = 0
    error: str = ""
    made_of: str = ""


def convert(task: Task) -> Converted:
    """Write task.target as 16-bit PCM, unless it is kept.

    A mono source at the rate is used in place, unless it is an on-the-fly mixture or a pipe.
    """
    try:
        if task.source.can_be_read_again():
            info = task.source.probe()
            if _needs_no_file(task.source, info, task.rate):
                return Converted(task.utt, task.source, info.frames)
        if task.kept:
            return Converted(task.utt, str(task.target), audio.probe(str(task.target)).frames)
        made_of = task.source.state()
        x, rate = task.source.read()
        if task.channel is not None and len(x) > 1:
            if task.channel > len(x):
                raise AudioError(f"{task.source}: has {len(x)} channels; --channel {task.channel} is not one of them")
            x = x[task.channel - 1 : task.channel]
        audio.check_mono(task.source, len(x), rate, None)
        y = audio.resample(x, rate, task.rate, task.resampler)
        clipped = audio.write(task.target, y, task.rate)
        return Converted(task.utt, str(task.target), y.shape[-1], clipped, made_of=made_of)
    except AudioError as e:
        return Converted(task.utt, error=str(e))


def _needs_no_file(source: Location, info: audio.Info, rate: int) -> bool:
    """Whether a source can be used in place. A mixture gets a file: who converts a list expects files."""
    return info.rate == rate and info.channels == 1 and not isinstance(source, OnTheFlyMixture)


def convert_all(
    table: Iterable[tuple[str, Location]],
    folder: str | os.PathLike,
    rate: int,
    resampler: str = "soxr",
    channel: int | None = None,
    jobs: int = 1,
    part: str | None = None,
) -> Iterator[Converted]:
    """Convert (utt, location) one by one, in order, to FOLDER/<utt>.wav.

    The folder is made when the first file needs it, and accepts one setting of rate, resampler and channel. Files that an earlier run
    made of the same sources are kept; `part`, as in `lists.take_part`, names the record of them. Raises UserError on a rate beyond the
    limits, and if a file would overwrite its source or one that is not of setk.
    """
    folder = Path(folder)
    settings = {"rate": check_rate(rate, "--rate"), "resampler": resampler, "channel": channel}
    claim = Claim(folder, settings, "soundfile", "soxr", "resampy")
    made = Made(claim, part)

    def tasks() -> Iterator[Task]:
        for utt, place in table:
            task = Task(utt, place, folder / f"{utt}.wav", rate, resampler, channel)
            if _writes_nothing(place, rate, channel):
                yield task
                continue
            claim.check()
            kept = made.has(place.state(), task.target)
            if not kept:
                _refuse_overwriting(task)
                made.take(task.target)
            claim()
            yield replace(task, kept=kept)

    for done in ordered_map(convert, tasks(), jobs):
        made.add(done.made_of, done.path)
        yield done


def _refuse_overwriting(task: Task) -> None:
    if task.source.reads(task.target):
        raise UserError(f"{task.target}: is the wav to convert; choose another output folder")


def _writes_nothing(place: Location, rate: int, channel: int | None) -> bool:
    """Whether no file will be written for this source: it can be used in place, cannot be read, or has another number of channels."""
    if not (place.is_file and place.can_be_read_again()):
        return False  # to probe it is to run or to drain it
    try:
        info = place.probe()
    except AudioError:
        return True
    without_choice = info.channels > 1 and (channel is None or channel > info.channels)
    return without_choice or _needs_no_file(place, info, rate)
