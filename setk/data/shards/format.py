"""The format of a shard, and the checks that a file must pass before its rows are read.

A set of shards is `<name>.<j>.h5`, j = 1 ... `of`, and the list `<name>.scp` of them, all in one folder. `name`
is `pairs` (streams noisy and clean), or `speech`, `noise` or `rir` (one stream of that name). A file has

    <stream>   [total, *shape of a row], contiguous and uncompressed: the utterances one after the other. With the
               feature pcm a row is an int16 sample; setk/data/features.py has the others, whose rows are frames
    offset     int64 [n + 1]: utterance i is [offset[i], offset[i + 1]) along the first axis of each stream
    samples    int64 [n], the samples of each utterance (where a row is a frame)
    utt, spk   UTF-8 of fixed length [n] (spk where it is known), and kind, of noises
    snr        float32 [n], dB, nan where unknown
    attributes format, version, feature and its settings, sample_rate, number (j), of, inputs, provenance (JSON)

Everything that describes the samples is in HDF5's checksummed format and of fixed length: in its old format,
and in the heap of its variable-length strings, one wrong byte can make libhdf5 loop forever (found by flipping bytes).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import h5py
import numpy as np

from setk.core.errors import UserError
from setk.core.files import check_readable
from setk.data import features

FORMAT, VERSION = "setk-shard", 1
STREAMS = {"pairs": ("noisy", "clean"), "speech": ("speech",), "noise": ("noise",), "rir": ("rir",)}
REMAKE = "make it again with se-prep shards"
# dtype (or its beginning) and axes of each stream, by feature, and of the tables.
_ROWS = {"pcm": ("<i2", 1), "stft": ("<f2", 3), "logmel": ("<f2", 2)}
_TABLES = {"offset": "<i8", "samples": "<i8", "snr": "<f4", "utt": "|S", "spk": "|S", "kind": "|S"}
_SETTINGS = ("window", "hop", "power", "bands")


@dataclass(frozen=True)
class ShardFile:
    """Where the rows of one shard are: byte position of each stream, dtype of a row, and its utterances."""

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


def fixed(texts: Sequence[str]) -> np.ndarray:
    """Strings as UTF-8 of fixed length, for HDF5."""
    data = [text.encode() for text in texts]
    return np.array(data, h5py.string_dtype(length=max(map(len, data))))


def text_of(f: h5py.File, name: str) -> str:
    """A text attribute. Raises KeyError if it is missing, ValueError if it is not text of fixed length."""
    attribute = f.attrs.get_id(name)
    if attribute.dtype.kind != "S" or attribute.shape:
        raise ValueError(f"{name} is not a text")
    return f.attrs[name].decode()


def number_of(f: h5py.File, name: str, kinds: str = "iu") -> int | float:
    """A number attribute of one of NumPy's `kinds`. Raises KeyError if it is missing, ValueError if it is not a number."""
    attribute = f.attrs.get_id(name)
    if attribute.dtype.kind not in kinds or attribute.shape:
        raise ValueError(f"{name} is not a number")
    return f.attrs[name].item()


def open_shard(path: Path, name: str, feature: str = "pcm") -> ShardFile:
    """Check one shard of the set `name` and find its rows. Raises UserError on what is missing, foreign, damaged or hostile."""
    if name not in STREAMS:
        raise UserError(f"{path}: {name!r} is not a set of shards; the sets are {', '.join(STREAMS)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file; {REMAKE}")
    check_readable(path)
    if not h5py.is_hdf5(path):
        raise UserError(f"{path}: is not an HDF5 file; {REMAKE}")
    try:
        with h5py.File(path, "r", locking=False) as f:
            return _inspect(f, path, STREAMS[name], feature)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as e:
        # libhdf5 reports damage as any of these.
        raise UserError(f"{path}: is truncated or damaged ({str(e).splitlines()[0]}); {REMAKE}") from None


def _inspect(f: h5py.File, path: Path, streams: tuple[str, ...], feature: str) -> ShardFile:
    _check_header(f, path, feature)
    framed = ("samples",) if feature != "pcm" else ()
    known = [name for name in ("spk", "kind") if name in f]
    for dataset in ("offset", "utt", "snr", *framed, *known):
        check_dataset(f, path, dataset, _TABLES[dataset], 1)
    for dataset in streams:
        check_dataset(f, path, dataset, *_ROWS[feature])
    offset, snr = f["offset"][:], f["snr"][:]
    samples = f["samples"][:] if framed else np.diff(offset)
    utts = _strings(f, "utt")
    names = {name: _strings(f, name) for name in known}
    lengths = {len(offset) - 1, len(snr), len(samples), *map(len, names.values())}
    if lengths != {len(utts)} or offset[0] != 0 or (np.diff(offset) < 0).any():
        raise UserError(f"{path}: its tables do not match each other; {REMAKE}")
    starts = _find_rows(f, path, streams, int(offset[-1]))
    settings = {key: number_of(f, key, "iuf") for key in _SETTINGS if key in f.attrs}
    return ShardFile(
        path,
        number_of(f, "sample_rate"),
        settings,
        number_of(f, "number"),
        number_of(f, "of"),
        starts,
        np.dtype((_ROWS[feature][0], f[streams[0]].shape[1:])),
        offset,
        samples,
        utts,
        names.get("spk", []),
        names.get("kind", []),
        snr,
    )


def _check_header(f: h5py.File, path: Path, feature: str) -> None:
    if "format" not in f.attrs or text_of(f, "format") != FORMAT:
        raise UserError(f"{path}: is an HDF5 file, but not a shard of setk; {REMAKE}")
    version, has = number_of(f, "version"), text_of(f, "feature")
    if version != VERSION or has not in features.FEATURES:
        raise UserError(
            f"{path}: is a shard of version {version} with {has}; this setk reads version {VERSION} with "
            f"{', '.join(features.FEATURES)}"
        )
    if has != feature:
        raise UserError(f"{path}: has {has}; expected {feature}; {REMAKE} --feature {feature}")


def check_dataset(f: h5py.File, path: Path, name: str, kind: str, axes: int) -> None:
    """Refuse what would make HDF5 read the data from another file, or through a filter or its heap; `kind` is the
    expected dtype, or its beginning."""
    if not isinstance(f.get(name, getlink=True), h5py.HardLink):
        raise UserError(f"{path}: {name} is a link or missing, but a shard has its own data; {REMAKE}")
    data = f[name]
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external or data.chunks or data.ndim != axes:
        raise UserError(f"{path}: {name} is not stored in one piece in the file itself; {REMAKE}")
    if not data.dtype.str.startswith(kind):
        raise UserError(f"{path}: {name} is {data.dtype}, not {kind}; {REMAKE}")


def _strings(f: h5py.File, name: str) -> list[str]:
    return [text.decode() for text in f[name][:].tolist()]


def _find_rows(f: h5py.File, path: Path, streams: tuple[str, ...], rows: int) -> dict[str, int]:
    """Byte position of the rows of each stream."""
    size = os.stat(path).st_size
    shape = f[streams[0]].shape[1:]
    starts = {}
    for stream in streams:
        data = f[stream]
        # HDF5 has no position for a dataset without rows.
        starts[stream] = data.id.get_offset() or 0
        if data.shape != (rows, *shape) or 0 in shape or starts[stream] + data.nbytes > size:
            raise UserError(f"{path}: {stream} does not have {rows} rows; {REMAKE}")
    return starts
