"""A data directory to shards.

Utterances are in C order of their ids and go into shards of `size` by that order, so that the files are the same
however many jobs write them. The list is written when all shards are complete and of the sources as they are: it lists
everything, or does not exist.
"""

from __future__ import annotations

import math
import re
import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

import h5py
import numpy as np

from setk import audio
from setk.audio import Location
from setk.audio.arrays import check_rate
from setk.core import provenance
from setk.core.errors import AudioError, UserError
from setk.core.files import atomic_path, make_dir
from setk.core.pool import ordered_map
from setk.data.datadir import DataDir, described
from setk.data.features import Feature, Pcm
from setk.data.index import ABSENT, IndexedList
from setk.data.lists import take_part, write_list
from setk.data.shards.format import FORMAT, STREAMS, VERSION, check_dataset, fixed, text_of


@dataclass(frozen=True)
class ShardJob:
    """One shard to be written: `places[k]` are the locations of utterance k, one per stream."""

    name: str
    number: int
    of: int
    path: Path
    rate: int
    utts: tuple[str, ...]
    places: tuple[tuple[Location, ...], ...]
    snr: tuple[float, ...]
    spk: tuple[str, ...]
    feature: Feature = field(default_factory=Pcm)
    resampler: str | None = None
    kind: tuple[str, ...] = ()

    @property
    def inputs(self) -> str:
        """Digest of all that decides the content, except the samples."""
        facts: list[Any] = [
            VERSION,
            self.name,
            self.number,
            self.of,
            self.rate,
            self.utts,
            self.places,
            self.snr,
            self.spk,
        ]
        # Only where it applies: shards of pcm that were made before there was a choice stay current.
        facts += [self.feature.name, self.feature.settings] if self.feature.name != "pcm" else []
        facts += [self.resampler] if self.resampler else []
        facts += [self.kind] if self.kind else []
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def changes(self) -> np.ndarray:
        """When each wav was last changed, in ns since the epoch [utterances, streams]; 0 where there is none (any more)."""
        return np.array([[place.changed_ns() for place in places] for places in self.places], np.int64)

    @property
    def list_path(self) -> Path:
        return self.path.with_name(f"{self.name}.scp")


@dataclass
class ShardDone:
    """Result of one ShardJob: "made", "kept" (complete, from the same inputs), or "failed" with the reasons."""

    path: Path
    state: str = "failed"
    utterances: int = 0
    seconds: float = 0.0
    clipped: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)


def write_shards(
    data: DataDir,
    out: str | os.PathLike,
    size: int = 1000,
    part: str | None = None,
    jobs: int = 1,
    rate: int = 16000,
    feature: Feature = Pcm(),
    resampler: str | None = None,
) -> Iterator[ShardDone]:
    """Write a data directory as shards of `size` utterances into `out`, yielding the result of each.

    `part` = "k/n" writes every n-th file from the k-th. Shards that are complete and made from the same inputs
    are kept. Every utterance must be mono, and at `rate` Hz unless a `resampler` (see `audio.resample`) converts it;
    a shard with one that is not fails and names them all. Where a shard is out of date the list is removed; a shard of other
    inputs is replaced when the new one is complete. The lists are written by the job that finds all shards complete.
    """
    if size < 1:
        raise UserError(f"--shard-size {size}: must be at least 1 utterance")
    check_rate(rate, "--rate")
    out, complete = make_dir(out), set()
    plan = partial(plan_shards, data, out, size, rate, feature, resampler)
    for done in ordered_map(make_shard, take_part(plan(), part), jobs):
        if done.state != "failed":
            complete.add(done.path)
        yield done
    _list_complete(plan(), complete, out)


def _list_complete(planned: Iterable[ShardJob], complete: set[Path], out: Path) -> None:
    """Write the list of each set whose shards are all current, and remove what an earlier set had besides. `complete`
    are shards that this process has made or found current: those of other parts are looked at."""
    sets: dict[str, list[Path]] = {}
    stale: set[str] = set()
    for job in planned:
        sets.setdefault(job.name, []).append(job.path)
        if job.name not in stale and job.path not in complete and not is_current(job):
            stale.add(job.name)
    for name in sets.keys() - stale:
        write_list(out / f"{name}.scp", {path.stem: path for path in sets[name]})
        for path in out.glob(f"{name}.*.h5"):
            if path not in sets[name] and re.fullmatch(rf"{name}\.\d+\.h5", path.name):
                path.unlink(missing_ok=True)  # of an earlier set with more of them
    if not stale and "speech" in sets and "rir" not in sets:  # the rooms of an earlier set
        for path in (out / "rir.scp", *out.glob("rir.*.h5")):
            path.unlink(missing_ok=True)


def sets_of(data: DataDir) -> dict[str, tuple[str, ...]]:
    """The sets of shards that a data directory makes, and the streams of each."""
    return {"pairs": data.streams} if data.is_pairs else {stream: (stream,) for stream in data.streams}


def plan_shards(
    data: DataDir, out: Path, size: int, rate: int = 16000, feature: Feature = Pcm(), resampler: str | None = None
) -> Iterator[ShardJob]:
    """The shards that `data` makes, one after the other. Raises UserError if noisy and clean differ in ids, or a list is empty."""
    sets = sets_of(data)
    lists = data.indexed()
    speakers, snrs, kinds = (lists.get(name) for name in ("utt2spk", "utt2snr", "noise2kind"))

    def describes(table: str, streams: tuple[str, ...]) -> bool:
        return described(table, data.streams) == streams[0]

    for name, streams in sets.items():
        first = lists[streams[0]]
        if not len(first):
            raise UserError(f"{data.path}: lists no utterances for {name}; se-prep check reports what is wrong")
        if speakers and describes("utt2spk", streams):
            _require(data, first, speakers, "utt2spk", "speaker")
        if kinds and describes("noise2kind", streams):
            _require(data, first, kinds, "noise2kind", "kind")
    for name, streams in sets.items():
        first, *others = (lists[stream] for stream in streams)
        spoken, noise = (describes(table, streams) for table in ("utt2spk", "noise2kind"))
        lines, of = first.sorted(), -(-len(first) // size)
        for number in range(1, of + 1):
            own = list(islice(lines, size))
            ids = tuple(utt for utt, _ in own)
            places = []
            for utt, value in own:
                rest = (other.location(other.get(utt), data.allow_commands) for other in others)
                places.append((first.location(value, data.allow_commands), *rest))
            snr = tuple(_snr_of(data, u, snrs) if spoken else float("nan") for u in ids)
            spk = tuple(speakers.get(u) for u in ids) if speakers and spoken else ()
            kind = tuple(kinds.get(u) for u in ids) if kinds and noise else ()
            path = out / f"{name}.{number}.h5"
            yield ShardJob(name, number, of, path, rate, ids, tuple(places), snr, spk, feature, resampler, kind)


def _require(data: DataDir, listed: IndexedList, table: IndexedList, name: str, what: str) -> None:
    """Raise UserError if a table lacks an utterance of the list that it describes."""
    for line in np.flatnonzero(listed.lines_in(table) == ABSENT):
        raise UserError(f"{data.path}/{name}: {listed.read(line)[0]} has no {what}; complete the table or remove it")


def _snr_of(data: DataDir, utt: str, snrs: IndexedList | None) -> float:
    text = (snrs.get(utt) if snrs else None) or "nan"
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{data.path}/utt2snr: {utt} has {text!r}; expected a number in dB") from None


def _made_of(path: Path) -> tuple[str, np.ndarray | None]:
    """The `inputs` of a complete shard and the `changes` of its wavs as it was made, None in one of an earlier setk; "" for a file that is
    missing, damaged or foreign."""
    try:
        with h5py.File(path, "r", locking=False) as f:
            if "changed" not in f:
                return text_of(f, "inputs"), None
            check_dataset(f, path, "changed", "<i8", 2)
            return text_of(f, "inputs"), f["changed"][:]
    except (OSError, RuntimeError, KeyError, ValueError, UserError):
        return "", None


def is_current(job: ShardJob) -> bool:
    """Whether the shard is complete, and of the same inputs as they are now; wavs may have been removed."""
    inputs, changes = _made_of(job.path)
    if inputs != job.inputs:
        return False
    now = job.changes()
    if changes is None:
        return bool((now <= job.path.stat().st_mtime_ns).all())
    return changes.shape == now.shape and bool(((now == changes) | (now == 0)).all())


class _Faulty(Exception):
    """A shard that cannot be written because of its utterances, which ShardDone names."""


def make_shard(job: ShardJob) -> ShardDone:
    """Write one shard atomically; one utterance is in memory at a time."""
    done = ShardDone(job.path, utterances=len(job.utts))
    if is_current(job):
        with h5py.File(job.path, "r", locking=False) as f:
            done.state, done.seconds = (
                "kept",
                int(f["samples"][:].sum() if "samples" in f else f["offset"][-1]) / job.rate,
            )
        return done
    # Without the list the set is not complete. A shard of other inputs stays until the new one is there, since a mistyped option must not
    # cost a set; one of the same, whose wavs have changed since, would be taken for the new one if these turn out bad.
    job.list_path.unlink(missing_ok=True)
    if _made_of(job.path)[0] == job.inputs:
        job.path.unlink()
    try:
        samples = np.array(_each(job, done, _probe_utterance), np.int64)
        offset = np.cumsum([0, *map(job.feature.rows, samples.tolist())], dtype=np.int64)
        with atomic_path(job.path) as tmp:
            _require_space(tmp, job, int(offset[-1]))
            with h5py.File(tmp, "w", libver=("v108", "v108")) as f:
                _describe(f, job, samples, offset)
                streams = {stream: f[stream] for stream in STREAMS[job.name]}
                done.clipped = sum(
                    _each(job, done, lambda job, i: _copy_utterance(streams, job, samples[i], offset[i], i))
                )
    except _Faulty:
        return done
    except (OSError, RuntimeError) as e:
        raise _reason(e, job.path) from None
    done.state, done.seconds = "made", int(samples.sum()) / job.rate
    return done


def _require_space(path: Path, job: ShardJob, rows: int) -> None:
    """Raise OSError if the file system has no space for the shard: HDF5 crashes at the end of a process whose write failed."""
    values = len(STREAMS[job.name]) * math.prod((rows, *job.feature.shape))
    size = values * np.dtype(job.feature.dtype).itemsize + 256 * len(job.utts) + (1 << 17)
    with open(path, "wb") as f:
        try:
            os.posix_fallocate(f.fileno(), 0, size)
        except OSError as e:
            raise OSError(e.errno, os.strerror(e.errno), str(job.path)) from None


def _reason(error: BaseException, path: Path) -> BaseException:
    """The operating system's reason for an error of HDF5, which hides it in messages, and fails again when it closes the file."""
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        if number is None and (found := re.search(r"errno = (\d+)", str(cause))):
            number = int(found[1])
        if number:
            return OSError(number, os.strerror(number), str(path))
        cause = cause.__context__
    return error


def _each(job: ShardJob, done: ShardDone, work: Callable[[ShardJob, int], int]) -> list[int]:
    """work(job, i) of every utterance. Records all that cannot be used, then raises _Faulty."""
    results = []
    for i, utt in enumerate(job.utts):
        try:
            results.append(work(job, i))
        except AudioError as e:
            done.faults.append((utt, str(e)))
    if done.faults:
        raise _Faulty
    return results


def _probe_utterance(job: ShardJob, i: int) -> int:
    """Samples of utterance i. Raises AudioError unless its streams are mono, at the rate, and of equal length."""
    places = job.places[i]
    infos = [place.probe() for place in places]
    first = infos[0]
    for place, info in zip(places, infos):
        audio.check_mono(place, info.channels, info.rate, None if job.resampler else job.rate)
        if (info.frames, info.rate) != (first.frames, first.rate):
            raise AudioError(
                f"{place}: has {info.frames} samples at {info.rate} Hz, {places[0]} {first.frames} "
                f"at {first.rate}; a pair must have equal lengths"
            )
    if not first.frames:
        raise AudioError(f"{places[0]}: has no samples; se-prep fix removes such files")
    return audio.resampled_length(first.frames, first.rate, job.rate)


def _describe(f: h5py.File, job: ShardJob, samples: np.ndarray, offset: np.ndarray) -> None:
    """Write all of a shard but the rows, for which space is reserved."""
    f.attrs.update(
        {"version": VERSION, "sample_rate": job.rate, "number": job.number, "of": job.of, **job.feature.settings}
    )
    libraries = ("numpy", "h5py", *((job.resampler,) if job.resampler else ()))
    stamp = json.dumps(provenance.stamp(*libraries, **({"resampler": job.resampler} if job.resampler else {})))
    for name, text in (
        ("format", FORMAT),
        ("feature", job.feature.name),
        ("inputs", job.inputs),
        ("provenance", stamp),
    ):
        f.attrs[name] = fixed([text])[0]
    f["changed"] = job.changes()
    f["offset"], f["snr"], f["utt"] = offset, np.asarray(job.snr, np.float32), fixed(job.utts)
    if job.spk:
        f["spk"] = fixed(job.spk)
    if job.kind:
        f["kind"] = fixed(job.kind)
    if job.feature.name != "pcm":
        f["samples"] = samples
    for stream in STREAMS[job.name]:
        f.create_dataset(stream, (int(offset[-1]), *job.feature.shape), job.feature.dtype)


def _copy_utterance(streams: dict[str, h5py.Dataset], job: ShardJob, samples: int, start: int, i: int) -> int:
    """Copy utterance i, of `samples` samples, to the rows from `start`; returns the number of samples clipped to 16 bits."""
    clipped = 0
    for data, place in zip(streams.values(), job.places[i]):
        x, rate = place.read_mono(None if job.resampler else job.rate)
        x = audio.resample(x, rate, job.rate, job.resampler) if job.resampler else x
        if len(x) != samples:
            raise AudioError(f"{place}: changed while it was read; run se-prep shards again")
        at = int(start)
        for rows, beyond in job.feature.encode(x):
            data[at : at + len(rows)] = rows
            at, clipped = at + len(rows), clipped + beyond
    return clipped
