"""The Intel Neuromorphic DNS Challenge (Timcheck et al. 2023, arXiv 2303.09503) -> train, valid and test; and such a tree
out of clean speech and noise.

ROOT/{training_set,validation_set,test_set_1}/{noisy,clean,noise}, 16 kHz, clips of 30 s, in each folder

    noisy/<sources of the speech>_<of the noise>_snr<dB>_tl<dBFS>_fileid_<k>.wav
    clean/clean_fileid_<k>.wav
    noise/noise_fileid_<k>.wav

with 60,000 clips to a set. The challenge's synthesizer draws its training and validation clips from one pool of
files with one seed, so they may share sources. Ours splits the source files first, and writes down in
ROOT/sources.tsv which set each belongs to; whatever tree is read, files that two sets share stop it.

Unlike the challenge's, a clip that we make has the SNR that its name says: P.56 active level of the speech against
the RMS of the noise. The challenge gains its noise by levels measured before the last normalisation.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Iterator

import numpy as np

from setk import audio
from setk.data import mixing
from setk.core.errors import AudioError, UserError
from setk.data.datadir import Report
from setk.data.lists import Faults, check_location, find_wavs, take_part
from setk.data.pairs import pair_duration
from setk.core.files import write_text
from setk.core.pool import ordered_map
from setk.core.provenance import claim_dir
from setk.core.rng import rng

RATE, CLIP, COUNT = 16000, 30 * 16000, 60000
SETS = {"train": "training_set", "valid": "validation_set", "test": "test_set_1"}
KINDS = ("clean", "noise")
_NAME = re.compile(r"(?P<sources>.*)_snr(?P<snr>-?\d+)_tl(?P<level>-?\d+)_fileid_(?P<id>\d+)\.wav", re.DOTALL)
_SNRS, _LEVELS = (-5, 20), (-35, -15)  # whole dB, the upper end left out
_PAUSE = RATE // 5  # between two utterances of a clip
_SHARE = 0.1  # of the source files, for each of validation and test
_SILENCE_DB, _DRAWS = -60.0, 20
# Segments of one reader, as the file names of DNS's clean speech tell, are one source.
GROUP = r"reader_\d+"
_SAMPLE = 1 << 16
Watch = Callable[[Iterable, int, str], Iterable]


# --- a tree -> data directories --------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Clip:
    """One noisy file: its parts of the name, its duration and digests of what it was mixed of, or an `error`."""

    utt: str
    noisy: str
    clean: str
    noise: str
    sources: str = ""
    snr: str = ""
    duration: str = ""
    digests: tuple[str, ...] = ()
    error: str = ""


def ndns(root: str | os.PathLike, out: str | os.PathLike, jobs: int = 1,
         watch: Watch = lambda items, total, what: items) -> Report:
    """Write OUT/{train,valid,test} of the sets that are there, wavs in place.

    Raises UserError if there are none, or two sets share a source: a file of sources.tsv, the text before _snr, or
    the content of a clean or a noise file.
    """
    root, out, report = Path(root), Path(out), Report()
    folders = {split: root / name for split, name in SETS.items() if (root / name / "noisy").is_dir()}
    if not folders:
        raise UserError(f"{root}: is no N-DNS tree: it has no {' or '.join(f'{name}/noisy' for name in SETS.values())}; "
                        "--clean and --noise make one there")
    check_sources(root / "sources.tsv")
    sets = {}
    for split, folder in folders.items():
        clips = _clips(folder, report)
        if len(clips) != COUNT:
            report.warnings.append(f"{folder}: has {len(clips)} clips, and the whole set {COUNT:,}: "
                                   "scores will not compare with published ones")
        sets[split] = []
        for clip in watch(ordered_map(_look, clips, jobs), len(clips), split):
            if clip.error:
                report.faults.append((clip.utt, clip.error))
            else:
                sets[split].append(clip)
    _check_overlap(sets)
    for split in SETS:
        clips = sets.get(split, [])
        report.write(out, split, {"noisy.scp": {c.utt: c.noisy for c in clips}, "clean.scp": {c.utt: c.clean for c in clips},
                                  "utt2dur": {c.utt: c.duration for c in clips}, "utt2snr": {c.utt: c.snr for c in clips}})
    if not any(report.counts.values()):
        reasons = f" (first fault: {report.faults[0][1]})" if report.faults else ""
        raise UserError(f"{root}: not one clip can be used{reasons}")
    return report


def _clips(folder: Path, report: Report) -> list[_Clip]:
    """The noisy files of a set by number; what does not keep to the grammar is a fault."""
    found: dict[int, _Clip] = {}
    for name in sorted(os.listdir(folder / "noisy"), key=os.fsencode):
        path = str(folder / "noisy" / name)
        if name.startswith("."):
            continue
        said = _NAME.fullmatch(name)
        try:
            check_location(path)
            if not said:
                raise UserError(f"{path}: is not called …_snr<dB>_tl<dBFS>_fileid_<number>.wav; rename it")
            number = int(said["id"])
            if number in found:
                raise UserError(f"{path}: {found[number].noisy} has that number too; keep one")
        except UserError as e:
            report.faults.append((repr(name), str(e)))
            continue
        clean, noise = (str(folder / kind / f"{kind}_fileid_{said['id']}.wav") for kind in KINDS)
        found[number] = _Clip(f"fileid_{said['id']}", path, clean, noise, said["sources"], said["snr"])
    return [found[number] for number in sorted(found)]


def _look(clip: _Clip) -> _Clip:
    """A clip with what its files tell. The noise alone may be missing."""
    try:
        duration = pair_duration(clip.noisy, clip.clean)
        info = audio.probe(clip.noisy)
        audio.check_mono(clip.noisy, info.channels, info.rate, RATE)
        digests = tuple(_digest(path) for path in (clip.clean, clip.noise) if os.path.exists(path))
    except AudioError as e:
        return _Clip(clip.utt, clip.noisy, clip.clean, clip.noise, error=str(e))
    return _Clip(clip.utt, clip.noisy, clip.clean, clip.noise, clip.sources, clip.snr, duration, digests)


def _digest(path: str) -> str:
    """Of a file's size and three pieces of it: two files that agree in them hold the same recording."""
    size = os.stat(path).st_size
    said = hashlib.sha256(str(size).encode())
    with open(path, "rb") as f:
        for place in (0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)):
            f.seek(place)
            said.update(f.read(_SAMPLE))
    return said.hexdigest()[:32]


def _check_overlap(sets: dict[str, list[_Clip]]) -> None:
    """Raise UserError if a clip shares its sources with one of another set."""
    owner: dict[str, tuple[str, _Clip]] = {}
    shared = []
    for split, clips in sets.items():
        for clip in clips:
            for mark in filter(None, (clip.sources, *clip.digests)):
                other, first = owner.setdefault(mark, (split, clip))
                if other != split:
                    shared.append((first, clip))
                    break
    if shared:
        first, clip = shared[0]
        raise UserError(f"{clip.noisy} and {first.noisy} have sources in common, as {len(shared)} clips have with another set: "
                        "scores would be of what was trained on; make the sets again (--clean, --noise), or take the clips out")


# --- clean speech and noise -> a tree --------------------------------------------------------------------------------

@dataclass(frozen=True)
class Source:
    """One line of sources.tsv: a file, the set and kind it is used for, and the digest of its content."""

    set: str
    kind: str
    path: str
    digest: str


_HEADER = "set\tkind\tpath\tdigest\n"


def check_sources(path: Path) -> list[Source]:
    """The lines of sources.tsv; none if there is no such file. Raises UserError if a file, by name or by content,
    is used for two sets, or the file is broken."""
    if not path.exists():
        return []
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")), delimiter="\t", quoting=csv.QUOTE_NONE))
        sources = [Source(*row) for row in rows[1:]]
    except (TypeError, UnicodeDecodeError):
        raise UserError(f"{path}: is no table of sources; remove it, and make the sets again") from None
    owner: dict[str, Source] = {}
    for source in sources:
        for mark in (source.path, source.digest):
            first = owner.setdefault(mark, source)
            if first.set != source.set:
                raise UserError(f"{path}: {source.path} ({source.set}) and {first.path} ({first.set}) are one file: "
                                "scores would be of what was trained on; remove the sets and the table, and make them again")
    return sources


def parse_counts(text: str) -> dict[str, int]:
    """Set -> clips, of `60000,60000,60000`."""
    numbers = text.split(",")
    if len(numbers) != len(SETS) or not all(n.isdecimal() for n in numbers):
        raise UserError(f"--clips {text}: write three numbers, as in 60000,6000,6000, for {', '.join(SETS.values())}")
    return dict(zip(SETS.values(), map(int, numbers)))


def split_sources(root: str | os.PathLike, clean: str | os.PathLike, noise: str | os.PathLike, group: str = GROUP,
                  seed: int = 0, jobs: int = 1) -> Faults:
    """Write ROOT/sources.tsv, unless it is there: which set each file of the two folders is for.

    A tenth of the sources go to validation, a tenth to the test set, at least one each, by chance. Files of equal
    content, and those in whose paths within the folder the regular expression `group` matches the same text, are one
    source.
    Returns the files that cannot be used. Raises UserError if there are fewer than three sources of a kind, or the
    tree was begun with others.
    """
    try:
        pattern = re.compile(group)
    except re.error as e:
        raise UserError(f"--group {group}: is no regular expression ({e})") from None
    places = [os.path.abspath(place) for place in (clean, noise)]
    for option, place in (("--clean", clean), ("--noise", noise)):
        if not os.path.isdir(place):
            raise UserError(f"{option} {place}: no such folder")
    mine = Path(root) / "sources.tsv"
    if any((Path(root) / name).exists() for name in SETS.values()) and not mine.exists():
        raise UserError(f"{root}: holds sets that were not made here; name another folder for those of --clean and --noise")
    root = claim_dir(root, {"clean": places[0], "noise": places[1], "group": group, "seed": seed}, "numpy", "soundfile", "soxr")
    if check_sources(mine):
        return []
    rows, faults = [], []
    for kind, place in zip(KINDS, places):
        found, bad = find_wavs(place)
        groups = _Groups()
        faults += bad
        for (utt, path), (digest, error) in zip(found.items(), ordered_map(_inspect, found.values(), jobs)):
            if error:
                faults.append((utt, error))
                continue
            named = pattern.search(os.path.relpath(path, place))
            groups.add(Source("", kind, path, digest), [f"group {named[0]}" if named else f"file {path}", f"content {digest}"])
        rows += _assign(groups.members(), kind, place, seed)
    lines = sorted(f"{row.set}\t{row.kind}\t{row.path}\t{row.digest}\n" for row in rows)
    write_text(mine, _HEADER + "".join(lines))
    return faults


def _inspect(path: str) -> tuple[str, str]:
    """Digest of a source, or why it cannot be used."""
    try:
        if "\t" in path:
            raise AudioError(f"{path!r}: a table cannot hold a name with a tab; rename it")
        if not audio.probe(path).frames:
            raise AudioError(f"{path}: holds no samples")
        return _digest(path), ""
    except AudioError as e:
        return "", str(e)


class _Groups:
    """Sources that share a mark, directly or over others, brought together."""

    def __init__(self):
        self._of: dict[str, list[tuple[Source, list[str]]]] = {}

    def add(self, source: Source, marks: list[str]) -> None:
        merged = [(source, marks)]
        for known in {id(g): g for mark in marks if (g := self._of.get(mark))}.values():
            merged += known
        for _, own in merged:
            for mark in own:
                self._of[mark] = merged

    def members(self) -> list[list[Source]]:
        return [[source for source, _ in group] for group in {id(g): g for g in self._of.values()}.values()]


def _assign(groups: list[list[Source]], kind: str, place: str, seed: int) -> list[Source]:
    """The sources with their set, a group never in two."""
    if len(groups) < len(SETS):
        raise UserError(f"{place}: has {len(groups)} usable sources of {kind} (a reader or a recording is one); "
                        f"{len(SETS)} sets that share none want at least {len(SETS)}")
    held = max(1, round(_SHARE * len(groups)))
    order = rng(seed, kind).permutation(len(groups))
    groups.sort(key=lambda group: min(source.path for source in group))
    names = [SETS["valid"]] * held + [SETS["test"]] * held + [SETS["train"]] * (len(groups) - 2 * held)
    return [Source(name, kind, source.path, source.digest) for name, i in zip(names, order) for source in groups[i]]


@dataclass(frozen=True)
class Made:
    """What came of one clip: its set and number, sources that could not be used, why there is none."""

    name: str
    faults: tuple[tuple[str, str], ...] = ()
    error: str = ""


@dataclass(frozen=True)
class _Pool:
    """What a worker needs to make clips."""

    root: Path
    sources: dict[tuple[str, str], list[str]]
    seed: int


_pool: _Pool


def _start_worker(pool: _Pool) -> None:
    global _pool
    _pool = pool


def synthesize(root: str | os.PathLike, counts: dict[str, int], seed: int = 0, part: str | None = None,
               jobs: int = 1) -> Iterator[Made]:
    """Make the clips 0 ... counts[set] - 1 of each set from ROOT/sources.tsv, those of a part; complete ones are kept.

    A clip is drawn from (seed, set, number): the same for any number of jobs, and more can be made later. Its three
    files are the speech and the noise as they are in it, and their sum.
    """
    root = Path(root)
    pool: dict[tuple[str, str], list[str]] = {}
    for source in check_sources(root / "sources.tsv"):
        pool.setdefault((source.set, source.kind), []).append(source.path)
    made = {name: _numbers(root / name) for name in counts}
    clips = ((name, k) for name, count in counts.items() for k in range(count))
    wanted = [clip for clip in take_part(clips, part) if clip[1] not in made[clip[0]]]
    yield from ordered_map(_make, wanted, jobs, _start_worker, (_Pool(root, pool, seed),))


def _numbers(folder: Path) -> set[int]:
    """Numbers of the clips of a set; the noisy file is written last."""
    noisy = folder / "noisy"
    return {int(said["id"]) for name in (os.listdir(noisy) if noisy.is_dir() else ()) if (said := _NAME.fullmatch(name))}


def _make(clip: tuple[str, int]) -> Made:
    name, k = clip
    generator = rng(_pool.seed, f"{name}/{k}")
    snr, level = int(generator.integers(*_SNRS)), int(generator.integers(*_LEVELS))
    faults: list[tuple[str, str]] = []
    try:
        (speech, said), (noise, heard) = (_assemble(_pool.sources[name, kind], generator, pause, faults)
                                          for kind, pause in zip(KINDS, (_PAUSE, 0)))
    except AudioError as e:
        return Made(f"{name}/{k}", tuple(faults), str(e))
    mixed = mixing.mix(speech, noise, snr, level, RATE, active=True)
    # As in the challenge, a clip that would not fit is lowered, and the name tells the level that it has.
    level = round(mixed.level_db)
    folder = _pool.root / name
    for kind, x in zip(KINDS, (mixed.clean, mixed.noise)):
        audio.write(folder / kind / f"{kind}_fileid_{k}.wav", x, RATE)
    name_said = f"{_stems(said)}_{_stems(heard)}_snr{snr}_tl{level}_fileid_{k}.wav"
    audio.write(folder / "noisy" / name_said, mixed.noisy, RATE)
    return Made(f"{name}/{k}", tuple(faults))


def _stems(paths: list[str]) -> str:
    """Names of the sources, at most 100 bytes, so that the whole stays a file name."""
    text = "_".join("_".join(Path(path).stem.split()) for path in paths)
    return text.encode()[:100].decode(errors="ignore")


def _assemble(paths: list[str], generator: np.random.Generator, pause: int,
              faults: Faults) -> tuple[np.ndarray, list[str]]:
    """CLIP samples out of sources drawn one after the other, `pause` samples between; and which they are.

    Of one that is too long a piece is taken, from anywhere; of several channels, the first. Each has its peak at full
    scale, so that a faint recording counts like a loud one. What cannot be read is added to `faults`; what is silent
    is passed over. Raises AudioError if _DRAWS in a row come to nothing.
    """
    parts, used, left, failed = [], [], CLIP, 0
    while left > 0:
        path, place = paths[generator.integers(len(paths))], generator.random()
        try:
            x, rate = audio.read(path)
        except AudioError as e:
            faults.append((path, str(e)))
            x, rate = np.zeros((1, 0), np.float32), RATE
        x = audio.resample(x[0], rate, RATE)
        start = mixing.noise_start(len(x), min(len(x), left), place)
        x = x[start:start + left]
        if mixing.rms_level(x) < _SILENCE_DB:
            failed += 1
            if failed == _DRAWS:
                raise AudioError(f"{path}: is silent or cannot be read, as were {_DRAWS - 1} drawn before; mend them")
            continue
        failed = 0
        parts += [x / np.abs(x).max(), np.zeros(min(pause, max(left - len(x), 0)), np.float32)]
        used.append(path)
        left -= len(x) + pause
    return np.concatenate(parts)[:CLIP], used
