"""The source files of an N-DNS tree: which set each is used for."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

from setk import audio
from setk.core.errors import AudioError, UserError
from setk.core.files import write_text
from setk.core.pool import ordered_map
from setk.core.provenance import Claim
from setk.core.rng import rng
from setk.data.lists import Faults, walk_wavs

RATE = 16000
SETS = {"train": "training_set", "valid": "validation_set", "test": "test_set_1"}
KINDS = ("clean", "noise")
NAME = re.compile(r"(?P<sources>.*)_snr(?P<snr>-?\d+)_tl(?P<level>-?\d+)_fileid_(?P<id>\d+)\.wav", re.DOTALL)
# Segments of one reader, according to the file names of DNS's clean speech, are one source.
GROUP = r"reader_\d+"
_SHARE = 0.1  # of the source files, for each of validation and test
_SAMPLE = 1 << 16
_HEADER = "set\tkind\tpath\tdigest\n"


def digest(path: str) -> str:
    """Digest of a file's size and three pieces of it: two files with the same digest have the same recording."""
    size = os.stat(path).st_size
    found = hashlib.sha256(str(size).encode())
    with open(path, "rb") as f:
        for place in (0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)):
            f.seek(place)
            found.update(f.read(_SAMPLE))
    return found.hexdigest()[:32]


@dataclass(frozen=True)
class Source:
    """One line of sources.tsv: a file, the set and kind that it is used for, and the digest of its content."""

    set: str
    kind: str
    path: str
    digest: str


def check_sources(path: Path) -> list[Source]:
    """The lines of sources.tsv; none if there is no such file. Raises UserError if a file, by name or by content,
    is used for two sets, or the file is broken."""
    if not path.exists():
        return []
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")), delimiter="\t", quoting=csv.QUOTE_NONE))
        sources = [Source(*row) for row in rows[1:]]
    except (TypeError, UnicodeDecodeError):
        raise UserError(f"{path}: is not a table of sources; remove it and make the sets again") from None
    owner: dict[str, Source] = {}
    for source in sources:
        for mark in (source.path, source.digest):
            first = owner.setdefault(mark, source)
            if first.set != source.set:
                raise UserError(
                    f"{path}: {source.path} ({source.set}) and {first.path} ({first.set}) are one file, so "
                    "scores would be of training data; remove the sets and the table, and make them again"
                )
    return sources


def split_sources(
    root: str | os.PathLike,
    clean: str | os.PathLike,
    noise: str | os.PathLike,
    group: str = GROUP,
    seed: int = 0,
    jobs: int = 1,
) -> Faults:
    """Write ROOT/sources.tsv, unless it is there: which set each file of the two folders is for.

    A tenth of the sources, at least one, is drawn for validation and as many for the test set. Files of equal content,
    and those in whose paths within the folder the regular expression `group` matches the same text, are one source.
    Returns the files that cannot be used. Raises UserError if there are fewer than three sources of a kind, or the
    tree was made of others.
    """
    try:
        pattern = re.compile(group)
    except re.error as e:
        raise UserError(f"--group {group}: is not a regular expression ({e})") from None
    places = [os.path.abspath(place) for place in (clean, noise)]
    for option, place in (("--clean", clean), ("--noise", noise)):
        if not os.path.isdir(place):
            raise UserError(f"{option} {place}: no such folder")
    mine = Path(root) / "sources.tsv"
    if any((Path(root) / name).exists() for name in SETS.values()) and not mine.exists():
        raise UserError(
            f"{root}: has sets that were not made by setk; choose another folder for those of --clean and --noise"
        )
    settings = {"clean": places[0], "noise": places[1], "group": group, "seed": seed}
    Claim(root, settings, "numpy", "soundfile", "soxr")()
    if check_sources(mine):
        return []
    rows: list[Source] = []
    faults: Faults = []
    for kind, place in zip(KINDS, places):
        found = dict(walk_wavs(place, faults))
        groups = _Groups()
        for (utt, path), (digest, error) in zip(found.items(), ordered_map(_inspect, found.values(), jobs)):
            if error:
                faults.append((utt, error))
                continue
            named = pattern.search(os.path.relpath(path, place))
            groups.add(
                Source("", kind, path, digest), [f"group {named[0]}" if named else f"file {path}", f"content {digest}"]
            )
        rows += _assign(groups.members(), kind, place, seed)
    lines = sorted(f"{row.set}\t{row.kind}\t{row.path}\t{row.digest}\n" for row in rows)
    write_text(mine, _HEADER + "".join(lines))
    return faults


def _inspect(path: str) -> tuple[str, str]:
    """Digest of a source, or why it cannot be used."""
    try:
        if "\t" in path:
            raise AudioError(f"{path!r}: a table cannot have a name with a tab; rename it")
        if not audio.probe(path).frames:
            raise AudioError(f"{path}: has no samples")
        return digest(path), ""
    except AudioError as e:
        return "", str(e)


class _Groups:
    """Groups of sources that share a mark, directly or through other sources."""

    def __init__(self):
        self._of: dict[str, list[tuple[Source, list[str]]]] = {}

    def add(self, source: Source, marks: list[str]) -> None:
        merged = [(source, marks)]
        for known in _distinct(self._of[mark] for mark in marks if mark in self._of):
            merged += known
        for _, own in merged:
            for mark in own:
                self._of[mark] = merged

    def members(self) -> list[list[Source]]:
        return [[source for source, _ in group] for group in _distinct(self._of.values())]


def _distinct(groups: Iterable[list]) -> list[list]:
    """Each group object once."""
    return list({id(group): group for group in groups}.values())


def _assign(groups: list[list[Source]], kind: str, place: str, seed: int) -> list[Source]:
    """The sources with their set, a group never in two."""
    if len(groups) < len(SETS):
        raise UserError(
            f"{place}: has {len(groups)} usable sources of {kind} (a reader or a recording is one); "
            f"{len(SETS)} sets that share none need at least {len(SETS)}"
        )
    held = max(1, round(_SHARE * len(groups)))
    order = rng(seed, kind).permutation(len(groups))
    groups.sort(key=lambda group: min(source.path for source in group))
    names = [SETS["valid"]] * held + [SETS["test"]] * held + [SETS["train"]] * (len(groups) - 2 * held)
    return [Source(name, kind, source.path, source.digest) for name, i in zip(names, order) for source in groups[i]]
