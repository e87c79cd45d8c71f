"""Files, pipes and lists through an engine: what se-enhance does."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple, Protocol, Sequence

import numpy as np

from setk import audio
from setk.audio import Location
from setk.audio.live import LiveSource
from setk.audio.arrays import check_rate
from setk.audio.wav import MAX_CHANNELS
from setk.core import files as core_files, pool, provenance
from setk.core.errors import AudioError, UserError
from setk.engines.base import Engine, frames_in
from setk.engines.output import Delay, Output
from setk.engines.overlap import open_stream
from setk.engines.resolve import open as open_engine
from setk.engines.stream import Stream


# Memory follows both.
LONGEST_CHUNK_S = 3600.0
MOST_TOGETHER = 1024


class Raw(NamedTuple):
    """Headerless s16le on pipes: samples per second (None: the model's) and channels."""

    rate: int | None = None
    channels: int = 1


class Observer(Protocol):
    """What looks on while a signal is enhanced: start(info) once, then add(x, y) with aligned input and output [C, n]."""

    def start(self, info: audio.Info) -> None: ...

    def add(self, x: np.ndarray, y: np.ndarray) -> None: ...


class Enhanced(NamedTuple):
    """A file that was enhanced: seconds of audio, seconds of processor time, samples clipped, latency of the stream in ms, the
    seconds that a live source lost, and the frequency in Hz above which the output has nothing (None: as the input)."""

    seconds: float
    cpu_seconds: float
    clipped: int
    latency_ms: float
    dropped_seconds: float = 0.0
    lost_above_hz: int | None = None


class Entry(NamedTuple):
    """One utterance of a list: where its audio is, the file to write, and whether that is kept from an earlier run."""

    utt: str
    location: Location
    path: str
    kept: bool = False


class Done(NamedTuple):
    """An entry that is finished; `error` is None, or why no file was written. `clipped`: samples. `lost_above_hz`: as in Enhanced;
    None too for a file that was `kept`. `made_of`: the state of the input (see Location.state)."""

    utt: str
    path: str
    error: str | None
    clipped: int = 0
    lost_above_hz: int | None = None
    kept: bool = False
    made_of: str = ""


def lost_above_hz(engine: Engine, rate: int, output: Output) -> int | None:
    """The frequency above which the output for an input of `rate` Hz has nothing; None: as the input."""
    return engine.sample_rate // 2 if engine.sample_rate < rate and output.highband == "none" else None


def seconds_at_a_time(engine: Engine, seconds: float | None, live: bool) -> float:
    """Seconds of audio that the model processes at a time; `seconds`, or what suits files or a live pipe for None."""
    if seconds is not None:
        if not 0 <= seconds <= LONGEST_CHUNK_S:
            raise UserError(f"--chunk {seconds:g}: must be 0 ... {LONGEST_CHUNK_S:g} seconds")
        return seconds
    if live and not engine.causal:
        raise UserError(
            f"{engine.name} is not causal: it needs the complete signal. For a pipe, choose how long to wait with "
            f"--chunk SECONDS (for files it is {engine.chunk_s:g}), or use a causal model"
        )
    return 0.0 if live else engine.chunk_s


def refuse_overwriting(location: Location, path: str, force: bool) -> None:
    """Raise UserError if the file to write is one that is read, under whatever name, unless `force`."""
    if not force and path != "-" and location.reads(path):
        raise UserError(f"{path}: input and output are the same file; choose another output, or overwrite with --force")


def transfer(
    stream: Stream | _Observed,
    info: audio.Info,
    blocks: Iterable[np.ndarray],
    target: str,
    subtype: str,
    raw: bool = False,
    before_end: Callable[[], None] | None = None,
) -> tuple[int, int]:
    """Enhance blocks into `target`. Returns samples per channel, and samples clipped. `before_end` is called when all
    is computed, before the file appears.

    If the input breaks off, audio on standard output stays valid: what came is enhanced, then the AudioError of the
    input is raised. A file is not written.
    """
    broken = None
    samples = 0
    with audio.Writer(target, info.rate, info.channels, subtype, raw, info.frames) as writer:
        try:
            for block in blocks:
                samples += block.shape[1]
                writer.write(stream.push(block))
        except AudioError as e:
            if target != "-":
                raise
            broken = e
        writer.write(stream.flush())
        if before_end:
            before_end()
    if broken:
        raise broken
    return samples, writer.clipped


class _Observed:
    """A stream whose aligned input and output observers see."""

    def __init__(self, stream: Stream, info: audio.Info, observers: Sequence[Observer]):
        self._stream, self._observers, self._input = stream, observers, Delay(info.channels)
        for observer in observers:
            observer.start(info)

    def push(self, x: np.ndarray) -> np.ndarray:
        self._input.put(x)
        return self._show(self._stream.push(x))

    def flush(self) -> np.ndarray:
        return self._show(self._stream.flush())

    def _show(self, y: np.ndarray) -> np.ndarray:
        x = self._input.take(y.shape[1])
        for observer in self._observers:
            observer.add(x, y)
        return y


def enhance_file(
    engine: Engine,
    source: str,
    target: str,
    *,
    chunk: float | None = None,
    subtype: str = "PCM_16",
    raw: Raw | None = None,
    output: Output = Output(),
    observers: Sequence[Observer] = (),
    on_drop: Callable[[float], None] | None = None,
    force: bool = False,
    strict: bool = False,
) -> Enhanced:
    """Enhance the audio at `source` into the file `target`; `-` is standard input or output.

    Length, rate and channels of the output are those of the input. With `on_drop`, standard input is a live source: what
    waits too long is dropped, and on_drop(seconds) is called for each drop (see LiveSource). `force` allows to overwrite
    the input. `strict`: a pipe that ends a little before its stated length is an error. Raises AudioError on input that
    cannot be read.
    """
    live = source == "-"
    seconds = seconds_at_a_time(engine, chunk, live)
    location = Location.parse(source, strict=strict)
    refuse_overwriting(location, target, force)
    if raw:
        _check_raw(raw)
    raw_info = audio.Info(raw.rate or engine.sample_rate, raw.channels, None) if raw else None
    newest = LiveSource(sys.stdin.buffer, raw_info, on_drop) if on_drop else None
    if newest:
        info, blocks = newest.info, newest.blocks()
    elif live and raw:
        info = raw_info
        blocks = audio.raw_blocks(sys.stdin.buffer, raw.channels, 1 << 14)
    else:
        info, blocks = location.open(1 << 14)
    start = time.process_time()
    stream = open_stream(engine, info.rate, info.channels, seconds, output.check())
    observed = _Observed(stream, info, observers) if observers else stream
    samples, clipped = transfer(observed, info, blocks, target, subtype, raw is not None)
    dropped = newest.dropped / info.rate if newest else 0.0
    lost = lost_above_hz(engine, info.rate, output)
    return Enhanced(samples / info.rate, time.process_time() - start, clipped, stream.latency_ms, dropped, lost)


def _check_raw(raw: Raw) -> None:
    if raw.rate is not None:
        check_rate(raw.rate, "--rate")
    if not 1 <= raw.channels <= MAX_CHANNELS:
        raise UserError(f"--channels {raw.channels}: must be 1 ... {MAX_CHANNELS}")


class _Worker:
    """Enhances entries by `engine`, or by that of a process of the pool, which loads the model once."""

    loaded: Engine | None = None

    def __init__(
        self, engine: Engine | None, chunk: float | None, subtype: str, output: Output, claim: provenance.Claim
    ):
        self.engine = engine
        self.chunk, self.subtype, self.output, self.claim = chunk, subtype, output, claim

    def __call__(self, entry: Entry) -> Done:
        if entry.kept:
            return kept(entry)
        engine, made_of = self.engine or _Worker.loaded, entry.location.state()
        try:
            check_name(entry)
            info, blocks = entry.location.open(1 << 16)
            seconds = seconds_at_a_time(engine, self.chunk, False)
            stream = open_stream(engine, info.rate, info.channels, seconds, self.output)
            _, clipped = transfer(stream, info, blocks, entry.path, self.subtype, before_end=self.claim)
        except AudioError as e:
            return Done(entry.utt, entry.path, str(e))
        return finished(entry, made_of, clipped, lost_above_hz(engine, info.rate, self.output))


def _load(spec: str, options: Mapping[str, Any]) -> None:
    _Worker.loaded = open_engine(spec, **options)


def check_name(entry: Entry) -> None:
    """Raise AudioError if the output cannot have its name."""
    try:
        core_files.check_name(entry.path)
    except UserError as e:
        raise AudioError(str(e)) from None


def finished(entry: Entry, made_of: str, clipped: int, lost_above_hz: int | None) -> Done:
    """What is yielded for an entry whose file is written; `made_of` is the input as it was read."""
    if entry.location.reads(entry.path):  # else a rerun would enhance the output
        made_of = entry.location.state()
    return Done(entry.utt, entry.path, None, clipped, lost_above_hz, made_of=made_of)


def kept(entry: Entry) -> Done:
    return Done(entry.utt, entry.path, None, kept=True)


def is_made(entry: Entry, made: provenance.Made, force: bool) -> bool:
    """Whether an earlier run wrote the output of the input as it is now; else its name is taken. Raises UserError if to write it would
    overwrite its input, unless `force`, or a file that is not of setk."""
    if made.has(entry.location.state(), entry.path):
        return True
    refuse_overwriting(entry.location, entry.path, force)
    made.take(entry.path)
    return False


def enhance_list(
    spec: str,
    entries: Iterable[tuple[str, Location]],
    out: str | os.PathLike,
    *,
    chunk: float | None = None,
    subtype: str = "PCM_16",
    suffix: str = ".wav",
    jobs: int = 1,
    batch: int = 1,
    trust: bool = False,
    settings: Sequence[str] = (),
    output: Output = Output(),
    force: bool = False,
    stft: str | None = None,
    part: str | None = None,
) -> Iterator[Done]:
    """Enhance each (utt, location) of `entries` to OUT/utt.wav, and yield a Done for each as it ends.

    `jobs` processes work on one utterance each, in order; or `batch` mono signals, which may be live pipes, advance
    in one call of a causal model, and end in any order. Files that an earlier run of the same model made of the same inputs are
    kept; `part`, as in `lists.take_part`, names the record of them. Raises UserError if OUT holds the output of another model, and,
    unless `force`, if a file would overwrite its input or one that is not of setk.
    """
    if jobs > 1 and batch > 1:
        raise UserError("--jobs and --batch do not go together; --part divides a list among several commands")
    if batch > MOST_TOGETHER:
        raise UserError(f"--batch {batch}: at most {MOST_TOGETHER}")
    output.check()
    audio.check_format(f"name{suffix}", subtype)
    options = {"trust": trust, "settings": tuple(settings), "stft": stft}
    engine = open_engine(spec, **options)
    if batch > 1 and not engine.causal:
        raise UserError(f"{engine.name} is not causal and accepts one signal at a time; --jobs runs several")
    seconds_at_a_time(engine, chunk, batch > 1)
    made_by = {
        "model": engine.name,
        "model sha256": engine.sha256,
        "subtype": subtype,
        "chunk": chunk,
        "suffix": suffix,
        **output.settings(),
        **({"stft": stft} if stft else {}),
    }
    claim = provenance.Claim(out, made_by, "torch", "numpy", "soxr")
    claim.check()
    folder = str(Path(out) / "_")[:-1]
    made = provenance.Made(claim, part, overwrite=force)
    listed = (Entry(utt, location, f"{folder}{utt}{suffix}") for utt, location in entries)
    items = (entry._replace(kept=is_made(entry, made, force)) for entry in listed)
    if batch > 1:
        results = _in_batches(engine, batch, chunk, items, subtype, output, claim)
    else:
        worker = _Worker(engine if jobs == 1 else None, chunk, subtype, output, claim)
        loading = (_load, (spec, options)) if jobs > 1 else ()
        results = pool.ordered_map(worker, items, jobs, *loading)
    for done in results:
        if not (done.error or done.kept):
            made.add(done.made_of, done.path)
        yield done


def _in_batches(
    engine: Engine,
    batch: int,
    chunk: float | None,
    items: Iterator[Entry],
    subtype: str,
    output: Output,
    claim: provenance.Claim,
) -> Iterator[Done]:
    """Enhance what is not made, `batch` at a time; then yield what was."""
    from setk.engines.live import enhance_together

    earlier: list[Entry] = []

    def to_do() -> Iterator[Entry]:
        for entry in items:
            if entry.kept:
                earlier.append(entry)
            else:
                yield entry

    frames = frames_in(engine, seconds_at_a_time(engine, chunk, True))
    yield from enhance_together(engine, batch, frames, to_do(), subtype, output, claim)
    yield from map(kept, earlier)
