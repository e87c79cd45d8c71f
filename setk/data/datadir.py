"""Data directories: the wav lists and tables of one set of utterances.

A data directory has `noisy.scp` and `clean.scp` (pairs), or `speech.scp` and `noise.scp` (and `rir.scp`) that are
mixed during training, and the tables `utt2dur` (seconds), `utt2spk` (speaker) and `utt2snr` (dB), and of noises `noise2kind`, where
they are known.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterable, Mapping, Sequence

import numpy as np

from setk.audio import Location
from setk.core.errors import UserError, nearest
from setk.core.files import finish_replacement, replace_together
from setk.data.index import ABSENT, IndexedList
from setk.data.lists import Faults, Table, format_list, read_list, read_wavs

PAIR = ("noisy", "clean")
MIXED = ("speech", "noise")
LISTS = ("noisy.scp", "clean.scp", "speech.scp", "noise.scp", "rir.scp")
_NEEDS = "it needs noisy.scp and clean.scp, or speech.scp and noise.scp"
TABLES = ("utt2dur", "utt2spk", "utt2snr", "noise2kind")
TEXTS = ("utt2spk", "noise2kind")  # the other tables hold numbers


def described(table: str, streams: Sequence[str]) -> str:
    """The stream, one of `streams` of a data directory, that a table describes: noise for noise2kind, else the first."""
    return "noise" if table.startswith("noise2") else streams[0]


class DataDir:
    """A data directory on disk.

        data = setk.DataDir("data/vbd/test")
        for utt, (noisy, clean) in data.pairs().items():
            x, rate = noisy.read()                       # float32 [channels, n], Hz

    `streams` names the wav lists: ("noisy", "clean"), or ("speech", "noise") and "rir" if there is one. With
    `allow_commands`, entries that end in `|` may run as shell commands. Raises UserError if neither kind is complete.
    """

    def __init__(self, path: str | os.PathLike, allow_commands: bool = False):
        self.path, self.allow_commands = Path(path), allow_commands
        if not self.path.is_dir():
            raise UserError(f"{path}: no such data directory; make one with se-prep")
        finish_replacement(self.path)
        kinds = [kind for kind in (PAIR, MIXED) if all((self.path / f"{s}.scp").is_file() for s in kind)]
        if not kinds:
            raise UserError(f"{path}: is not a data directory: {_NEEDS}")
        self.streams: tuple[str, ...] = kinds[0]
        if self.streams == MIXED and (self.path / "rir.scp").is_file():
            self.streams += ("rir",)

    @classmethod
    def write(cls, path: str | os.PathLike, tables: Mapping[str, Table]) -> DataDir:
        """Write a data directory and return it; `tables` is name -> (utterance id -> value), or pairs of them in C order of the ids.

            setk.DataDir.write("data/mine", {"noisy.scp": {"a": "noisy/a.wav"}, "clean.scp": {"a": "clean/a.wav"}})

        The directory is replaced as a unit: if the process is killed, the directory has either all old or all new
        lists. Lists and tables of an earlier run that are not in `tables` are removed, since they may be of other
        utterances. Raises UserError, and writes nothing, on an id that cannot be one, on a name that is none of these, and
        without the lists of either kind.
        """
        if unknown := tables.keys() - {*LISTS, *TABLES}:
            raise UserError(
                f"{path}: '{min(unknown)}' is not a list or table of a data directory; {nearest(min(unknown), [*LISTS, *TABLES])}"
            )
        if not any(tables.keys() >= {f"{stream}.scp" for stream in kind} for kind in (PAIR, MIXED)):
            raise UserError(
                f"{path}: {', '.join(tables)}: not a complete data directory, which replaces the lists there; {_NEEDS}"
            )
        replace_together(
            path, {name: format_list(table) for name, table in tables.items()}, {*LISTS, *TABLES} - tables.keys()
        )
        return cls(path)

    @property
    def is_pairs(self) -> bool:
        """Whether the directory has noisy and clean speech, not speech and noise to be mixed."""
        return self.streams == PAIR

    def wavs(self, stream: str) -> dict[str, Location]:
        """utt -> Location of one of `streams`, in the order of its list."""
        return read_wavs(self.path / f"{stream}.scp", self.allow_commands)

    def table(self, name: str) -> Mapping[str, str]:
        """Id -> value of "utt2dur", "utt2spk", "utt2snr" or "noise2kind" (empty if missing), or of a list such as "noisy.scp"."""
        if name in LISTS:
            return self.wavs(name.removesuffix(".scp"))
        return read_list(self.path / name) if (self.path / name).exists() else {}

    def noise_kinds(self) -> dict[str, str]:
        """Noise -> kind, from the table noise2kind; empty without one. Raises UserError if it lacks a noise of the list."""
        kinds = dict(self.table("noise2kind"))
        missing = [noise for noise in self.wavs("noise") if kinds and noise not in kinds]
        if missing:
            raise UserError(f"{self.path}/noise2kind: {missing[0]} has no kind; complete the table or remove it")
        return kinds

    def pairs(self) -> dict[str, tuple[Location, Location]]:
        """utt -> (noisy, clean), in list order. Raises UserError if the two lists differ in ids."""
        if not self.is_pairs:
            raise UserError(f"{self.path}: has speech and noise, not pairs; make pairs with se-prep mix")
        self.indexed()
        noisy, clean = self.wavs("noisy"), self.wavs("clean")
        return {utt: (noisy[utt], clean[utt]) for utt in noisy}

    def indexed(self) -> dict[str, IndexedList]:
        """The wav lists by stream, and the tables that are there by name, without their lines in memory. Raises UserError if those of
        pairs differ in ids."""
        names = {stream: f"{stream}.scp" for stream in self.streams} | {table: table for table in TABLES}
        found = {key: IndexedList(self.path / name) for key, name in names.items() if (self.path / name).exists()}
        if self.is_pairs:
            self._require_partners(found["noisy"], found["clean"])
        return found

    def _require_partners(self, noisy: IndexedList, clean: IndexedList) -> None:
        count, first, where = 0, "", ""
        for table, other, name in ((noisy, clean, "clean.scp"), (clean, noisy, "noisy.scp")):
            for line in np.flatnonzero(table.lines_in(other) == ABSENT):
                utt, _ = table.read(line)
                count += 1
                if not first or utt < first:
                    first, where = utt, name
        if count:
            raise UserError(
                f"{self.path}/{where}: {first} is missing ({count} ids are in one list only); run se-prep fix"
            )


def write_sources(
    path: str | os.PathLike,
    speech: Sequence[str | os.PathLike],
    noise: Sequence[str | os.PathLike],
    rir: Sequence[str | os.PathLike] = (),
    utt2spk: str | os.PathLike | None = None,
    noise2kind: str | os.PathLike | None = None,
) -> dict[str, int]:
    """Write a data directory of lists (or folders) of speech, noise and room impulse responses, to be mixed during training.

    Returns the number of lines of its tables by name. Raises UserError if one is empty, two lists have the same id, or a noise has no
    kind in `noise2kind`.
    """
    lists = {"speech.scp": speech, "noise.scp": noise, "rir.scp": rir, "utt2spk": utt2spk, "noise2kind": noise2kind}
    tables: dict[str, IndexedList] = {}
    for name, places in lists.items():
        if places:
            tables[name] = IndexedList.merged(places) if name in LISTS else IndexedList(places)
            if not len(tables[name]):
                raise UserError(f"{name}: no utterances; give lists that have some")
    if kinds := tables.get("noise2kind"):
        missing = np.flatnonzero(tables["noise.scp"].lines_in(kinds) == ABSENT)
        if len(missing):
            first = min(tables["noise.scp"].read(line)[0] for line in missing)
            raise UserError(
                f"{noise2kind}: {first} has no kind ({len(missing)} of {len(tables['noise.scp'])} noises have none); complete the table"
            )
    DataDir.write(
        path, {name: table.locations() if name in LISTS else table.sorted() for name, table in tables.items()}
    )
    return {name: len(table) for name, table in tables.items()}


def seconds(duration: float) -> str:
    """A duration as utt2dur has it."""
    return f"{duration:.4f}"


# Shows progress: (items, how many or None, what they are) -> the items.
Watch = Callable[[Iterable, "int | None", str], Iterable]


@dataclass
class Report:
    """Result of preparing a corpus: number of utterances per split, warnings, utterances left out and why, samples clipped."""

    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=list)
    clipped: int = 0

    def write(self, out: Path, split: str, tables: Mapping[str, Mapping[str, object]]) -> None:
        """Write the data directory OUT/SPLIT, without empty tables; add a warning if it has no utterances."""
        self.counts[split] = len(tables["noisy.scp"])
        if self.counts[split]:
            DataDir.write(out / split, {name: table for name, table in tables.items() if table})
        else:
            self.warnings.append(f"no utterances for {split}; {out / split} is not written")
