"""Random access to the utterances of a set of shards."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from setk import audio
from setk.core.errors import UserError
from setk.data.lists import read_list
from setk.data.shards.format import REMAKE, STREAMS, ShardFile, open_shard


def names(folder: str | os.PathLike) -> tuple[str, ...]:
    """The complete sets of shards in `folder`: some of pairs, speech, noise, rir."""
    found = []
    for name in STREAMS:
        scp = Path(folder) / f"{name}.scp"
        # A data directory has speech.scp and noise.scp too: of wavs.
        if scp.is_file() and next(iter(read_list(scp).values()), "").endswith(".h5"):
            found.append(name)
    return tuple(found)


class Shards:
    """The utterances of a set of shards, in C order of their ids; of several sets in one list, one set after the other.

        pairs = setk.Shards("shards/vbd/train")
        segment = pairs.read("p226_001", start=16000, count=48000)   # {"noisy": float32 [48000], "clean": ...}

    `path` is a folder (with the set's `name`: pairs, speech, noise or rir) or a list of shards. A shard next to the
    list is preferred to the path in it, so that a folder may be copied to a faster disk. HDF5 checks and describes
    the files once. Rows are then read at their place in the file by pread, which has no state that threads or forked
    workers share.

    Attributes: `ids`; `as_listed` int64 [n], their indices in the order of the list, which has shard 10 before shard 2; `lengths` int64 [n], rows (samples of pcm, else frames); `samples` int64 [n]; `snr` float32 [n]
    in dB, nan where unknown; `spk` and `kind`, a speaker and a kind of noise per utterance, or empty; `rate` in Hz; `streams`; `settings` of the
    feature. Raises UserError on anything but complete shards of one set with the `feature` pcm, stft or logmel.
    """

    def __init__(self, path: str | os.PathLike, name: str | None = None, feature: str = "pcm"):
        path = Path(path)
        if path.is_dir():
            path = path / f"{name or 'pairs'}.scp"
            if not path.exists():
                raise UserError(f"{path}: no such list: the shards are not complete; run se-prep shards (again)")
        files = []
        for key, place in read_list(path).items():
            neighbour = path.parent / Path(place).name
            files.append(
                open_shard(neighbour if neighbour.exists() else Path(place), name or key.partition(".")[0], feature)
            )
        if not files:
            raise UserError(f"{path}: lists no shards; {REMAKE}")
        _check_set(path, files)
        listed, files = _in_order(files)
        self._files, self._descriptors = files, {}
        self.rate, self.streams, self.settings, self._row = (
            files[0].rate,
            tuple(files[0].starts),
            files[0].settings,
            files[0].row,
        )
        self.ids = [utt for f in files for utt in f.utts]
        self.spk = [spk for f in files for spk in f.spk] if all(f.spk for f in files) else []
        self.kind = [kind for f in files for kind in f.kind] if all(f.kind for f in files) else []
        self.lengths = np.concatenate([np.diff(f.offset) for f in files])
        self.samples = np.concatenate([f.samples for f in files])
        self.snr = np.concatenate([f.snr for f in files])
        self._file_of = np.repeat(np.arange(len(files)), [len(f.utts) for f in files])
        self._place = np.concatenate([f.offset[:-1] for f in files])
        self.as_listed = np.argsort(listed[self._file_of], kind="stable")

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptors": {}}

    def __del__(self):
        for descriptor in self.__dict__.get("_descriptors", {}).values():
            os.close(descriptor)

    def read(self, utt: int | str, start: int = 0, count: int | None = None) -> dict[str, np.ndarray]:
        """Rows [start, start + count) of an utterance, given by index or id: stream -> float32 [count, *shape of a row].

        Without `count`, to its end. Raises KeyError on an unknown id, IndexError beyond the utterance, UserError if
        the file has shrunk since it was opened.
        """
        i = self._index[utt] if isinstance(utt, str) else utt
        length = int(self.lengths[i])
        count = length - start if count is None else count
        if start < 0 or count < 0 or start + count > length:
            raise IndexError(f"{self.ids[i]}: [{start}, {start + count}) is not within its {length} rows")
        file, row = self._files[self._file_of[i]], self._row
        place, size = int(self._place[i]) + start, count * row.itemsize
        found = {}
        for stream, begin in file.starts.items():
            data = _pread(self._descriptor(file.path), size, begin + place * row.itemsize)
            if len(data) < size:
                raise UserError(f"{file.path}: is truncated; {REMAKE}")
            rows = np.frombuffer(data, row)
            found[stream] = audio.from_int16(rows) if rows.dtype.kind == "i" else rows.astype(np.float32)
        return found

    @cached_property
    def _index(self) -> dict[str, int]:
        return {utt: i for i, utt in enumerate(self.ids)}

    def _descriptor(self, path: Path) -> int:
        if path not in self._descriptors:
            opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if self._descriptors.setdefault(path, opened) != opened:  # another thread was faster
                os.close(opened)
        return self._descriptors[path]


def _in_order(files: list[ShardFile]) -> tuple[np.ndarray, list[ShardFile]]:
    """Files by number within each folder, folders as they come; and where each was before."""
    folders = list(dict.fromkeys(f.path.parent for f in files))
    order = sorted(range(len(files)), key=lambda i: (folders.index(files[i].path.parent), files[i].number))
    return np.array(order), [files[i] for i in order]


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    """`size` bytes from `offset` on, or those up to the end of the file: one call reads 2 GiB at most."""
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    return data


def _check_set(path: Path, files: list[ShardFile]) -> None:
    """Raise UserError unless the files of each folder are a complete set, at one rate, no id twice."""
    for folder in {f.path.parent for f in files}:
        here = [f for f in files if f.path.parent == folder]
        numbers = [f.number for f in here]
        missing = set(range(1, max(f.of for f in here) + 1)) - set(numbers)
        if missing or len({f.of for f in here}) > 1 or len(set(numbers)) < len(numbers):
            what = f"shard {min(missing)} of {here[0].of} is missing" if missing else "shards of different sets"
            raise UserError(f"{path}: {what}; run se-prep shards again")
    first = files[0]
    for f in files:
        if f.rate != first.rate:
            raise UserError(f"{f.path}: is at {f.rate} Hz, {first.path} at {first.rate} Hz; make both at one --rate")
        if f.settings != first.settings or f.row != first.row:
            raise UserError(
                f"{f.path}: has {f.settings}, {first.path} {first.settings}; make both with the same settings"
            )
    seen: set[str] = set()
    for f in files:
        duplicates = seen.intersection(f.utts)
        if duplicates:
            raise UserError(f"{f.path}: {min(duplicates)} is in another shard too; {REMAKE}")
        seen.update(f.utts)
