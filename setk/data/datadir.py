"""Data directories: the wav lists and tables of one set of utterances.

A data directory has `noisy.scp` and `clean.scp` (pairs), or `speech.scp` and `noise.scp` (and `rir.scp`) that are
mixed during training, and the tables `utt2dur` (seconds), `utt2spk` (speaker) and `utt2snr` (dB) where they are known.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable, Mapping

from setk.audio import Location
from setk.core.errors import UserError
from setk.core.files import finish_replacement, replace_together
from setk.data.lists import Faults, format_list, merge_wavs, read_list, read_wavs

PAIR = ("noisy", "clean")
MIXED = ("speech", "noise")
LISTS = ("noisy.scp", "clean.scp", "speech.scp", "noise.scp", "rir.scp")
TABLES = ("utt2dur", "utt2spk", "utt2snr")


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
            raise UserError(
                f"{path}: is not a data directory: it needs noisy.scp and clean.scp, or speech.scp and noise.scp"
            )
        self.streams: tuple[str, ...] = kinds[0]
        if self.streams == MIXED and (self.path / "rir.scp").is_file():
            self.streams += ("rir",)

    @classmethod
    def write(cls, path: str | os.PathLike, tables: Mapping[str, Mapping[str, object]]) -> DataDir:
        """Write a data directory and return it; `tables` is name -> (utterance id -> value).

            setk.DataDir.write("data/mine", {"noisy.scp": {"a": "noisy/a.wav"}, "clean.scp": {"a": "clean/a.wav"}})

        The directory is replaced as a unit: if the process is killed, the directory has either all old or all new
        lists. Lists and tables of an earlier run that are not in `tables` are removed, since they may be of other
        utterances. Raises UserError on an id that cannot be one.
        """
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
        """utt -> value of "utt2dur", "utt2spk" or "utt2snr" (empty if missing), or of a list such as "noisy.scp"."""
        if name in LISTS:
            return self.wavs(name.removesuffix(".scp"))
        return read_list(self.path / name) if (self.path / name).exists() else {}

    def pairs(self) -> dict[str, tuple[Location, Location]]:
        """utt -> (noisy, clean), in list order. Raises UserError if the two lists differ in ids."""
        if not self.is_pairs:
            raise UserError(f"{self.path}: has speech and noise, not pairs; make pairs with se-prep mix")
        noisy, clean = self.wavs("noisy"), self.wavs("clean")
        unpaired = sorted(noisy.keys() ^ clean.keys())
        if unpaired:
            where = "clean.scp" if unpaired[0] in noisy else "noisy.scp"
            raise UserError(
                f"{self.path}/{where}: {unpaired[0]} is missing ({len(unpaired)} ids are in one list only); "
                "run se-prep fix"
            )
        return {utt: (noisy[utt], clean[utt]) for utt in noisy}


def write_sources(
    path: str | os.PathLike,
    speech: Iterable[str | os.PathLike],
    noise: Iterable[str | os.PathLike],
    rir: Iterable[str | os.PathLike] = (),
    utt2spk: str | os.PathLike | None = None,
) -> dict[str, Mapping[str, str]]:
    """Write a data directory of lists (or folders) of speech, noise and room impulse responses, to be mixed during training.

    Returns its tables by name. Raises UserError if one is empty, or two lists of a kind have the same id.
    """
    tables: dict[str, Mapping[str, str]] = {"speech.scp": merge_wavs(speech), "noise.scp": merge_wavs(noise)}
    if rir:
        tables["rir.scp"] = merge_wavs(rir)
    if utt2spk:
        tables["utt2spk"] = read_list(utt2spk)
    for name, table in tables.items():
        if not table:
            raise UserError(f"{name}: no utterances; give lists that have some")
    DataDir.write(path, tables)
    return tables


def seconds(frames: int, rate: int) -> str:
    """A duration as utt2dur has it."""
    return f"{frames / rate:.4f}"


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
