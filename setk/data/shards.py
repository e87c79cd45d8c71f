"""HDF5 shards: many utterances in one file, so that a random segment is one contiguous read.

A set of shards is `<name>.<j>.h5`, j = 1 ... `of`, and the list `<name>.scp` of them, all in one folder. `name`
is `pairs` (streams noisy and clean), or `speech`, `noise` or `rir` (one stream of that name). A file holds

    <stream>   [total, *shape of a row], contiguous and uncompressed: the utterances end to end. With the feature pcm
               a row is an int16 sample; setk/features.py has the others, whose rows are frames
    offset     int64 [n + 1]: utterance i is [offset[i], offset[i + 1]) along the first axis of each stream
    samples    int64 [n], the samples of each utterance (where a row is a frame)
    utt, spk   UTF-8 of fixed length [n] (spk where it is known); likewise kind, of noises
    snr        float32 [n], dB, nan where unknown
    attributes format, version, feature and its settings, sample_rate, number (j), of, inputs, provenance (JSON)

Everything that describes the samples is in HDF5's checksummed format and of fixed length: in its old format,
and in the heap of its variable-length strings, one wrong byte can make libhdf5 loop for ever (found by flipping).
Utterances are in C order of their ids and go into shards of `size` by that order, so that the files are the same
however many jobs write them. The list is written when all shards are whole and from the same inputs: what it
lists is all there is.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import h5py
import numpy as np

from setk import audio
from setk.audio import Location
from setk.core import provenance
from setk.data import features
from setk.data.features import Feature, Pcm
from setk.core.errors import AudioError, UserError
from setk.core.files import atomic_path, make_dir
from setk.data.datadir import DataDir
from setk.data.lists import read_list, take_part, write_list
from setk.core.pool import ordered_map

FORMAT, VERSION = "setk-shard", 1
STREAMS = {"pairs": ("noisy", "clean"), "speech": ("speech",), "noise": ("noise",), "rir": ("rir",)}
# dtype (or what it begins with) and axes of each stream, by feature, and of the tables.
_ROWS = {"pcm": ("<i2", 1), "stft": ("<f2", 3), "logmel": ("<f2", 2)}
_KINDS = {"offset": "<i8", "samples": "<i8", "snr": "<f4", "utt": "|S", "spk": "|S", "kind": "|S"}
_AGAIN = "make it again with se-prep shards"


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
        """Digest of all that decides the content, short of the samples."""
        facts: list[Any] = [VERSION, self.name, self.number, self.of, self.rate, self.utts, self.places, self.snr, self.spk]
        # Said only where it is so: shards of pcm that were made before there was a choice are still current.
        facts += [self.feature.name, self.feature.settings] if self.feature.name != "pcm" else []
        facts += [self.resampler] if self.resampler else []
        facts += [self.kind] if self.kind else []
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass
class ShardDone:
    """What came of one ShardJob: "made", "kept" (whole, from the same inputs), or "failed" with the reasons."""

    path: Path
    state: str = "failed"
    utterances: int = 0
    seconds: float = 0.0
    clipped: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)


def write_shards(data: DataDir, out: str | os.PathLike, size: int = 1000, part: str | None = None, jobs: int = 1,
                 rate: int = 16000, feature: Feature = Pcm(), resampler: str | None = None) -> Iterator[ShardDone]:
    """Write a data directory as shards of `size` utterances into `out`, yielding the outcome of each.

    `part` = "k/n" does every n-th file from the k-th on. Shards that are whole and made from the same inputs
    are kept. Every utterance must be mono, and at `rate` Hz unless a `resampler` (see `audio.resample`) is named
    to convert it; a shard with one that is not fails and names them all. Lists and shards that are out of date
    are taken away first; the lists are written by the job that finds all of them whole.
    """
    if size < 1:
        raise UserError(f"--shard-size {size}: at least 1 utterance is needed")
    plan = plan_shards(data, make_dir(out), size, rate, feature, resampler)
    mine = list(take_part(plan, part))
    for job in mine:
        if not is_current(job):
            # The old shard goes too: if its utterances turn out bad, it must not pass for the new one.
            _list_path(job).unlink(missing_ok=True)
            job.path.unlink(missing_ok=True)
    yield from ordered_map(make_shard, mine, jobs)
    for name in {job.name: None for job in plan}:
        files = {f"{name}.{job.number}": job.path for job in plan if job.name == name}
        if all(_recorded_inputs(job.path) == job.inputs for job in plan if job.name == name):
            write_list(Path(out) / f"{name}.scp", files)


def plan_shards(data: DataDir, out: Path, size: int, rate: int = 16000,
                feature: Feature = Pcm(), resampler: str | None = None) -> list[ShardJob]:
    """The shards that `data` makes. Raises UserError if noisy and clean differ in ids, or nothing is listed."""
    sets = {"pairs": data.pairs()} if data.is_pairs else {
        name: {utt: (place,) for utt, place in data.wavs(name).items()} for name in data.streams}
    speakers, snrs = data.table("utt2spk"), data.table("utt2snr")
    kinds = {} if data.is_pairs else data.noise_kinds()
    plan = []
    for name, table in sets.items():
        if not table:
            raise UserError(f"{data.path}: lists no utterances for {name}; se-prep check names what is wrong")
        utts = sorted(table, key=str.encode)
        described = name in ("pairs", "speech")
        missing = [utt for utt in utts if utt not in speakers] if described and speakers else []
        if missing:
            raise UserError(f"{data.path}/utt2spk: {missing[0]} has no speaker; complete the table or take it away")
        of = -(-len(utts) // size)
        for number in range(1, of + 1):
            ids = tuple(utts[(number - 1) * size:number * size])
            plan.append(ShardJob(name, number, of, out / f"{name}.{number}.h5", rate, ids, tuple(table[u] for u in ids),
                                 tuple(_snr(data, u, snrs.get(u, "nan") if described else "nan") for u in ids),
                                 tuple(speakers[u] for u in ids) if described and speakers else (),
                                 feature, resampler, tuple(kinds[u] for u in ids) if name == "noise" and kinds else ()))
    return plan


def _snr(data: DataDir, utt: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{data.path}/utt2snr: {utt} has {text!r}; a number in dB is wanted") from None


def _list_path(job: ShardJob) -> Path:
    return job.path.with_name(f"{job.name}.scp")


def _recorded_inputs(path: Path) -> str | None:
    """The `inputs` attribute of a whole shard; None for a file that is missing, torn or foreign."""
    try:
        with h5py.File(path, "r", locking=False) as f:
            return _text(f, "inputs")
    except (OSError, RuntimeError, KeyError, ValueError):
        return None


def is_current(job: ShardJob) -> bool:
    """Whether the shard is there, whole, from the same inputs, and no wav is newer than it (wavs may be gone by now)."""
    if _recorded_inputs(job.path) != job.inputs:
        return False
    made = job.path.stat().st_mtime_ns
    return all(place.changed_ns() <= made for places in job.places for place in places)


class _Faulty(Exception):
    """A shard that cannot be written because of its utterances; they are named elsewhere."""


def make_shard(job: ShardJob) -> ShardDone:
    """Write one shard, whole or not at all; one utterance is in memory at a time."""
    done = ShardDone(job.path, utterances=len(job.utts))
    if is_current(job):
        with h5py.File(job.path, "r", locking=False) as f:
            done.state, done.seconds = "kept", int(f["samples"][:].sum() if "samples" in f else f["offset"][-1]) / job.rate
        return done
    try:
        samples = np.array(_each(job, done, _probe_utterance), np.int64)
        offset = np.cumsum([0, *map(job.feature.rows, samples.tolist())], dtype=np.int64)
        with atomic_path(job.path) as tmp, h5py.File(tmp, "w", libver=("v108", "v108")) as f:
            _describe(f, job, samples, offset)
            streams = {stream: f[stream] for stream in STREAMS[job.name]}
            done.clipped = sum(_each(job, done, lambda job, i: _copy_utterance(streams, job, samples[i], offset[i], i)))
    except _Faulty:
        return done
    done.state, done.seconds = "made", int(samples.sum()) / job.rate
    return done


def _each(job: ShardJob, done: ShardDone, work: Callable[[ShardJob, int], int]) -> list[int]:
    """work(job, i) of every utterance; those that cannot be used are put down, all of them, before _Faulty."""
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
    """Samples of utterance i. Raises AudioError unless its streams are mono, at the rate, and equally long."""
    infos = [place.probe() for place in job.places[i]]
    for place, info in zip(job.places[i], infos):
        audio.check_mono(place, info.channels, info.rate, None if job.resampler else job.rate)
        if (info.frames, info.rate) != (infos[0].frames, infos[0].rate):
            raise AudioError(f"{place}: has {info.frames} samples at {info.rate} Hz, {job.places[i][0]} {infos[0].frames} "
                                   f"at {infos[0].rate}; a pair is equally long")
    return audio.resampled_length(infos[0].frames, infos[0].rate, job.rate)


def _describe(f: h5py.File, job: ShardJob, samples: np.ndarray, offset: np.ndarray) -> None:
    """All of a shard but the rows, for which room is made."""
    f.attrs.update({"version": VERSION, "sample_rate": job.rate, "number": job.number, "of": job.of, **job.feature.settings})
    libraries = ("numpy", "h5py", *((job.resampler,) if job.resampler else ()))
    stamp = json.dumps(provenance.stamp(*libraries, **({"resampler": job.resampler} if job.resampler else {})))
    for name, text in (("format", FORMAT), ("feature", job.feature.name), ("inputs", job.inputs), ("provenance", stamp)):
        f.attrs[name] = _fixed([text])[0]
    f["offset"], f["snr"], f["utt"] = offset, np.asarray(job.snr, np.float32), _fixed(job.utts)
    if job.spk:
        f["spk"] = _fixed(job.spk)
    if job.kind:
        f["kind"] = _fixed(job.kind)
    if job.feature.name != "pcm":
        f["samples"] = samples
    for stream in STREAMS[job.name]:
        f.create_dataset(stream, (int(offset[-1]), *job.feature.shape), job.feature.dtype)


def _fixed(texts: Sequence[str]) -> np.ndarray:
    """Strings as UTF-8 of fixed length."""
    data = [text.encode() for text in texts]
    return np.array(data, h5py.string_dtype(length=max(map(len, data))))


def _text(f: h5py.File, name: str) -> str:
    """A text attribute; KeyError if it is missing, ValueError if it is not of fixed length (and so not ours)."""
    attribute = f.attrs.get_id(name)
    if attribute.dtype.kind != "S" or attribute.shape:
        raise ValueError(f"{name} is no text")
    return f.attrs[name].decode()


def _number(f: h5py.File, name: str, kinds: str = "iu") -> int | float:
    """An attribute that is a number, of one of NumPy's `kinds`, with the same errors."""
    attribute = f.attrs.get_id(name)
    if attribute.dtype.kind not in kinds or attribute.shape:
        raise ValueError(f"{name} is no number")
    return f.attrs[name].item()


def _copy_utterance(streams: dict[str, h5py.Dataset], job: ShardJob, samples: int, start: int, i: int) -> int:
    """Copy utterance i, of `samples` samples, to the rows from `start` on; how many were beyond 16 bits and clipped."""
    clipped = 0
    for data, place in zip(streams.values(), job.places[i]):
        x, rate = place.read_mono(None if job.resampler else job.rate)
        x = audio.resample(x, rate, job.rate, job.resampler) if job.resampler else x
        if len(x) != samples:
            raise AudioError(f"{place}: changed while it was read; run se-prep shards again")
        at = int(start)
        for rows, beyond in job.feature.encode(x):
            data[at:at + len(rows)] = rows
            at, clipped = at + len(rows), clipped + beyond
    return clipped


def names(folder: str | os.PathLike) -> tuple[str, ...]:
    """The sets of shards that `folder` holds whole: some of pairs, speech, noise, rir."""
    found = []
    for name in STREAMS:
        scp = Path(folder) / f"{name}.scp"
        # A data directory has speech.scp and noise.scp too: of wavs.
        if scp.is_file() and next(iter(read_list(scp).values()), "").endswith(".h5"):
            found.append(name)
    return tuple(found)


@dataclass(frozen=True)
class _File:
    """Where the rows of one shard are: byte position of each stream, what a row is, and its utterances."""

    path: Path
    rate: int
    settings: dict[str, int | float]
    number: int
    of: int
    starts: dict[str, int]
    row: np.dtype
    offset: np.ndarray
    samples: np.ndarray
    utts: list[str]
    spk: list[str]
    kind: list[str]
    snr: np.ndarray


class Shards:
    """The utterances of a set of shards, in C order of ids within each file, files in the order of their list.

    `path` is a folder (with the set's `name`) or a list. A shard is sought beside the list first, so that a
    folder may be copied to a faster disk. HDF5 checks and describes the files once; rows are then read at
    their place in the file by pread, which knows no state to be torn between threads or forked workers.

    Attributes: `ids`, `lengths` int64 [n] (rows: samples of pcm, else frames), `samples` int64 [n], `snr` float32 [n],
    `spk` and `kind` (a name per utterance, or empty), `rate` in Hz, `streams`, `settings` of the feature. Raises UserError,
    naming file and mend, on anything but whole shards of one set with the `feature` that is wanted.
    """

    def __init__(self, path: str | os.PathLike, name: str | None = None, feature: str = "pcm"):
        path = Path(path)
        if path.is_dir():
            path = path / f"{name or 'pairs'}.scp"
            if not path.exists():
                raise UserError(f"{path}: no such list: the shards are not complete; run se-prep shards (again)")
        files = []
        for key, place in read_list(path).items():
            beside = path.parent / Path(place).name
            files.append(_open_shard(beside if beside.exists() else Path(place), name or key.partition(".")[0], feature))
        if not files:
            raise UserError(f"{path}: lists no shards; {_AGAIN}")
        _check_set(path, files)
        self._files, self._descriptors = files, {}
        self.rate, self.streams, self.settings, self._row = files[0].rate, tuple(files[0].starts), files[0].settings, files[0].row
        self.ids = [utt for f in files for utt in f.utts]
        self.spk = [spk for f in files for spk in f.spk] if all(f.spk for f in files) else []
        self.kind = [kind for f in files for kind in f.kind] if all(f.kind for f in files) else []
        self.lengths = np.concatenate([np.diff(f.offset) for f in files])
        self.samples = np.concatenate([f.samples for f in files])
        self.snr = np.concatenate([f.snr for f in files])
        counts = [len(f.utts) for f in files]
        self._file_of = np.repeat(np.arange(len(files)), counts)
        self._place = np.concatenate([f.offset[:-1] for f in files])

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptors": {}}

    def __del__(self):
        for descriptor in self.__dict__.get("_descriptors", {}).values():
            os.close(descriptor)

    def read(self, i: int, start: int = 0, count: int | None = None) -> dict[str, np.ndarray]:
        """Rows [start, start + count) of utterance i, to its end without `count`: stream -> float32 [count, *shape].

        Raises IndexError beyond the utterance, UserError if the file has shrunk since it was opened.
        """
        length = int(self.lengths[i])
        count = length - start if count is None else count
        if start < 0 or count < 0 or start + count > length:
            raise IndexError(f"{self.ids[i]}: [{start}, {start + count}) is not within its {length} rows")
        file, row = self._files[self._file_of[i]], self._row
        place, size = int(self._place[i]) + start, count * row.itemsize
        found = {}
        for stream, begin in file.starts.items():
            data = os.pread(self._descriptor(file.path), size, begin + place * row.itemsize)
            if len(data) < size:
                raise UserError(f"{file.path}: is truncated; {_AGAIN}")
            rows = np.frombuffer(data, row)
            found[stream] = audio.from_int16(rows) if rows.dtype.kind == "i" else rows.astype(np.float32)
        return found

    def _descriptor(self, path: Path) -> int:
        if path not in self._descriptors:
            self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptors[path]


def _check_set(path: Path, files: list[_File]) -> None:
    """Raise UserError unless the files of each folder are a whole set, at one rate, no id twice."""
    for folder in {f.path.parent for f in files}:
        here = [f for f in files if f.path.parent == folder]
        numbers = [f.number for f in here]
        missing = set(range(1, max(f.of for f in here) + 1)) - set(numbers)
        if missing or len({f.of for f in here}) > 1 or len(set(numbers)) < len(numbers):
            what = f"shard {min(missing)} of {here[0].of} is missing" if missing else "shards of different sets"
            raise UserError(f"{path}: {what}; run se-prep shards again")
    for f in files:
        if f.rate != files[0].rate:
            raise UserError(f"{f.path}: is at {f.rate} Hz, {files[0].path} at {files[0].rate} Hz; make both at one --rate")
        if f.settings != files[0].settings or f.row != files[0].row:
            raise UserError(f"{f.path}: has {f.settings}, {files[0].path} {files[0].settings}; make both alike")
    seen: set[str] = set()
    for f in files:
        again = seen.intersection(f.utts)
        if again:
            raise UserError(f"{f.path}: {min(again)} is in another shard too; {_AGAIN}")
        seen.update(f.utts)


def _open_shard(path: Path, name: str, feature: str = "pcm") -> _File:
    """Check one shard and find its rows. Raises UserError on what is missing, foreign, torn or hostile."""
    if name not in STREAMS:
        raise UserError(f"{path}: a set of shards is called {', '.join(STREAMS)}; {name!r} is none")
    if not path.is_file():
        raise UserError(f"{path}: no such file; {_AGAIN}")
    if not h5py.is_hdf5(path):
        raise UserError(f"{path}: is not HDF5; {_AGAIN}")
    try:
        with h5py.File(path, "r", locking=False) as f:
            return _inspect(f, path, STREAMS[name], feature)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as e:
        # What libhdf5 says of damage comes as any of these.
        raise UserError(f"{path}: is truncated or damaged ({str(e).splitlines()[0]}); {_AGAIN}") from None


def _inspect(f: h5py.File, path: Path, streams: tuple[str, ...], feature: str) -> _File:
    if "format" not in f.attrs or _text(f, "format") != FORMAT:
        raise UserError(f"{path}: is HDF5, but no shard of setk; {_AGAIN}")
    version, has = _number(f, "version"), _text(f, "feature")
    if version != VERSION or has not in features.FEATURES:
        raise UserError(f"{path}: is a shard of version {version} with {has}; this setk reads version {VERSION} with "
                        f"{', '.join(features.FEATURES)}")
    if has != feature:
        raise UserError(f"{path}: holds {has}, and {feature} is wanted here; {_AGAIN} --feature {feature}")
    framed = ("samples",) if feature != "pcm" else ()
    for dataset in ("offset", "utt", "snr", *framed, *(name for name in ("spk", "kind") if name in f)):
        _check_dataset(f, path, dataset, _KINDS[dataset], 1)
    for dataset in streams:
        _check_dataset(f, path, dataset, *_ROWS[feature])
    offset, snr = f["offset"][:], f["snr"][:]
    samples = f["samples"][:] if framed else np.diff(offset)
    utts, spk, kind = ([t.decode() for t in f[name][:].tolist()] if name in f else [] for name in ("utt", "spk", "kind"))
    if len(offset) != len(utts) + 1 or len(snr) != len(utts) or len(samples) != len(utts) or not {len(spk), len(kind)} <= {0, len(utts)} \
            or offset[0] != 0 or (np.diff(offset) < 0).any():
        raise UserError(f"{path}: its tables do not fit each other; {_AGAIN}")
    size = os.stat(path).st_size
    starts = {}
    shape = f[streams[0]].shape[1:]
    for stream in streams:
        data = f[stream]
        # HDF5 gives no place to a dataset without rows.
        starts[stream] = data.id.get_offset() or 0
        if data.shape != (offset[-1], *shape) or 0 in shape or starts[stream] + data.nbytes > size:
            raise UserError(f"{path}: {stream} does not hold {offset[-1]} rows; {_AGAIN}")
    settings = {key: _number(f, key, "iuf") for key in ("window", "hop", "power", "bands") if key in f.attrs}
    return _File(path, _number(f, "sample_rate"), settings, _number(f, "number"), _number(f, "of"), starts,
                 np.dtype((_ROWS[feature][0], shape)), offset, samples, utts, spk, kind, snr)


def _check_dataset(f: h5py.File, path: Path, name: str, kind: str, axes: int) -> None:
    """Refuse what would make HDF5 look into another file, or through a filter or its heap, for the data; `kind`
    is the dtype that is wanted, or begins it."""
    if not isinstance(f.get(name, getlink=True), h5py.HardLink):
        raise UserError(f"{path}: {name} is a link or missing, and a shard holds its own data; {_AGAIN}")
    data = f[name]
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external or data.chunks or data.ndim != axes:
        raise UserError(f"{path}: {name} is not stored in one piece in the file itself; {_AGAIN}")
    if not data.dtype.str.startswith(kind):
        raise UserError(f"{path}: {name} is {data.dtype}, not {kind}; {_AGAIN}")
