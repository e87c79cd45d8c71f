"""LibriMix (Cosentino et al. 2020, arXiv 2005.11262), Libri2Mix -> train, valid and test.

Either from the tree of wavs that its scripts make, or from LibriSpeech, WHAM and the CSVs that those scripts mix
by. The second way writes no wavs, which would be 430 GB: each entry of the lists is a sum that is made as it is
read (`setk.sums`), as the CSV's row says.

A mixture is called utt1_utt2. Of its rendering, in the order of the scripts: the noise is cut, or repeated, to the
longer of the two utterances; each signal gets its gain; at 8 kHz, every second sample is taken behind a filter;
`min` cuts all to the shorter utterance, of which nothing may be heard, `max` pads with zeros to the longer.
Wavs made by the scripts are what we read within one step of 16 bits: they round down, and clip.
"""

from __future__ import annotations

import csv
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Iterator

from setk import audio
from setk.audio import mixture as onthefly
from setk.audio.mixture import Part
from setk.core.errors import AudioError, UserError
from setk.core.pool import ordered_map
from setk.data.datadir import Report, seconds
from setk.data.lists import check_id, check_location
from setk.data.pairs import pair_duration

SPLITS = {"train": ("train-100", "train-360"), "valid": ("dev",), "test": ("test",)}
# Part: what its generation CSV is called after, and how many mixtures it has.
PARTS = {"train-100": ("train-clean-100", 13900), "train-360": ("train-clean-360", 50800), "dev": ("dev-clean", 3000),
         "test": ("test-clean", 3000)}
# Mixture: the folder of its target. Of mix_clean, the second talker is the noise.
MIXTURES = {"mix_single": "s1", "mix_both": "mix_clean", "mix_clean": "s1"}
_SOURCE_RATE = 16000


@dataclass(frozen=True)
class Wanted:
    """Which of the variants: a mixture of MIXTURES, mode min or max, 16000 or 8000 Hz, and the parts to train on."""

    mixture: str = "mix_single"
    mode: str = "min"
    rate: int = 16000
    train: tuple[str, ...] = SPLITS["train"]

    def __post_init__(self):
        parts = [("--train", part, SPLITS["train"]) for part in self.train]
        for option, value, choices in [("--mixture", self.mixture, MIXTURES), ("--mode", self.mode, ("min", "max")),
                                       ("--rate", self.rate, (16000, 8000)), *parts]:
            if value not in choices:
                raise UserError(f"{option} {value}: choose {' or '.join(map(str, choices))}")

    def splits(self) -> dict[str, tuple[str, ...]]:
        """Split -> parts."""
        return SPLITS | {"train": self.train}


@dataclass(frozen=True)
class Mixture:
    """One line of a CSV. `where` names the line; of the tuples, the one that is not needed is empty."""

    utt: str
    where: str
    rate: int
    pair: tuple[str, str] = ("", "")
    speech: tuple[tuple[str, float], ...] = ()
    noise: tuple[str, float] | None = None
    mode: str = ""
    target: str = ""
    snr: str = ""


@dataclass(frozen=True)
class _Entry:
    """What a Mixture came to: two locations and seconds, or an `error`."""

    mixture: Mixture
    noisy: str = ""
    clean: str = ""
    duration: str = ""
    error: str = ""


Watch = Callable[[Iterable, int, str], Iterable]


def librimix(root: str | os.PathLike, out: str | os.PathLike, wanted: Wanted, moved: str | os.PathLike | None = None,
             jobs: int = 1, watch: Watch = lambda items, total, what: items) -> Report:
    """Write OUT/{train,valid,test} of the tree `root`, which holds wav16k or wav8k, in place.

    The CSVs hold the paths where the tree was made; it is read at `moved`, or else where it is now. Raises
    UserError if nothing of what is wanted is there.
    """
    folder = Path(root) / f"wav{wanted.rate // 1000}k" / wanted.mode / "metadata"
    return _write(folder, out, wanted, jobs, watch, f"mixture_{{}}_{wanted.mixture}.csv", lambda part: part,
                  lambda path, part, report: _tree_rows(path, part, Path(moved or root), wanted, report))


def rendered(csvs: str | os.PathLike, librispeech: str | os.PathLike, wham: str | os.PathLike, out: str | os.PathLike,
             wanted: Wanted, jobs: int = 1, watch: Watch = lambda items, total, what: items) -> Report:
    """Write OUT/{train,valid,test} of the generation CSVs libri2mix_*.csv in a folder; entries are sums.

    `librispeech` holds train-clean-360 and the others, `wham` tr, cv and tt. Of noises played at another speed
    (…sp08.wav, …sp12.wav) that are not there, the original is, played so (the scripts use SoX: last bits differ).
    """
    for option, place in (("--librispeech", librispeech), ("--wham", wham)):
        if not os.path.isdir(place):
            raise UserError(f"{option} {place}: no such folder")
    return _write(Path(csvs), out, wanted, jobs, watch, "libri2mix_{}.csv", lambda part: PARTS[part][0],
                  lambda path, part, report: _generation_rows(path, Path(librispeech), Path(wham), wanted, report))


def _write(folder: Path, out: str | os.PathLike, wanted: Wanted, jobs: int, watch: Watch, pattern: str,
           name: Callable[[str], str], rows: Callable[[Path, str, Report], Iterator[Mixture]]) -> Report:
    report = Report()
    paths = {part: folder / pattern.format(name(part)) for parts in wanted.splits().values() for part in parts}
    absent = [part for part, path in paths.items() if not path.is_file()]
    if len(absent) == len(paths):
        raise UserError(f"{folder}: holds no {pattern.format('*')}; --mixture, --mode and --rate say which variant is sought")
    report.warnings += [f"{paths[part]}: no such file; nothing is made of {part}" for part in absent]
    for split, parts in wanted.splits().items():
        found = {}
        for part in parts:
            if part in absent:
                continue
            mixtures = _unique(list(rows(paths[part], part, report)), found, report)
            if len(mixtures) != PARTS[part][1]:
                report.warnings.append(f"{paths[part]}: has {len(mixtures)} mixtures, and the whole {part} {PARTS[part][1]:,}: "
                                       "scores will not compare with published ones")
            for entry in watch(ordered_map(_look, mixtures, jobs), len(mixtures), part):
                if entry.error:
                    report.faults.append((entry.mixture.utt, f"{entry.mixture.where}: {entry.error}"))
                else:
                    found[entry.mixture.utt] = entry
        report.write(Path(out), split, {
            "noisy.scp": {utt: e.noisy for utt, e in found.items()}, "clean.scp": {utt: e.clean for utt, e in found.items()},
            "utt2dur": {utt: e.duration for utt, e in found.items()},
            "utt2spk": {utt: utt.partition("-")[0] for utt in found},
            "utt2snr": {utt: e.mixture.snr for utt, e in found.items() if e.mixture.snr}})
    if not any(report.counts.values()):
        reasons = f" (first fault: {report.faults[0][1]})" if report.faults else ""
        raise UserError(f"{folder}: not one mixture can be used{reasons}")
    return report


def _unique(mixtures: list[Mixture], found: dict[str, _Entry], report: Report) -> list[Mixture]:
    """The first mixture of each id that is not in `found` yet; the others are put down as faults."""
    kept: dict[str, Mixture] = {}
    for mixture in mixtures:
        if mixture.utt in kept or mixture.utt in found:
            report.faults.append((mixture.utt, f"{mixture.where}: this mixture stands in the CSVs twice; keep one line"))
        else:
            kept[mixture.utt] = mixture
    return list(kept.values())


def _read_csv(path: Path, columns: tuple[str, ...], report: Report) -> Iterator[tuple[str, dict[str, str]]]:
    """(file:line, row) of a CSV. A row with a cell missing or an id that cannot be one is put down as a fault.

    Raises UserError if it is no text, or lacks one of `columns`."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as f:
            reader = csv.DictReader(f)
            absent = [name for name in columns if name not in (reader.fieldnames or ())]
            if absent:
                raise UserError(f"{path}:1: has no column {absent[0]}; a CSV of LibriMix has {', '.join(columns)}")
            for row in reader:
                where = f"{path}:{reader.line_num}"
                try:
                    if any(not row[name] for name in columns):
                        raise UserError("the line has fewer cells than the header; fetch the CSV again")
                    check_id(row["mixture_ID"])
                except UserError as e:
                    report.faults.append((row["mixture_ID"], f"{where}: {e}"))
                    continue
                yield where, row
    except (UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{path}: is no CSV ({e}); fetch it again") from None


def _tree_rows(path: Path, part: str, root: Path, wanted: Wanted, report: Report) -> Iterator[Mixture]:
    """Of mixture_<part>_<mixture>.csv."""
    snrs = _snrs(path.with_name(path.name.replace("mixture_", "metrics_", 1)), wanted.mixture, report)
    mark = f"/wav{wanted.rate // 1000}k/"
    for where, row in _read_csv(path, ("mixture_ID", "mixture_path"), report):
        # The target of mix_both has no column; all lie beside each other.
        tail = row["mixture_path"].rpartition(mark)[2].split("/")
        if mark not in row["mixture_path"] or wanted.mixture not in tail:
            report.faults.append((row["mixture_ID"], f"{where}: {row['mixture_path']}: is no path of a LibriMix tree, "
                                  f"…{mark}{wanted.mode}/{part}/{wanted.mixture}/*.wav"))
            continue
        target = [MIXTURES[wanted.mixture] if name == wanted.mixture else name for name in tail]
        pair = tuple(str(root.joinpath(mark.strip("/"), *names)) for names in (tail, target))
        yield Mixture(row["mixture_ID"], where, wanted.rate, pair, snr=snrs.get(row["mixture_ID"], ""))


def _snrs(path: Path, mixture: str, report: Report) -> dict[str, str]:
    """utt -> SNR of the pair in dB, where the metrics CSV is there; it has each source against all others."""
    if not path.is_file():
        return {}
    column, sign = ("noise_SNR", -1) if mixture == "mix_both" else ("source_1_SNR", 1)
    found = {}
    for where, row in _read_csv(path, ("mixture_ID", column), report):
        found[row["mixture_ID"]] = f"{sign * _number(row[column], where, column):.4f}"
    return found


def _number(text: str, where: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {column} is {text!r}, not a number; fetch the CSV again")
    return value


def _generation_rows(path: Path, librispeech: Path, wham: Path, wanted: Wanted, report: Report) -> Iterator[Mixture]:
    """Of libri2mix_*.csv, whose paths are relative to the two corpora."""
    sources = ("source_1", "source_2", "noise")
    columns = ("mixture_ID", *(f"{s}_{what}" for s in sources for what in ("path", "gain")))
    for where, row in _read_csv(path, columns, report):
        *speech, noise = ((str(folder / row[f"{s}_path"]), _number(row[f"{s}_gain"], where, f"{s}_gain"))
                          for s, folder in zip(sources, (librispeech, librispeech, wham)))
        yield Mixture(row["mixture_ID"], where, wanted.rate, speech=tuple(speech), noise=noise, mode=wanted.mode,
                      target=wanted.mixture)


def _look(mixture: Mixture) -> _Entry:
    """The entry of a mixture, by the headers of its files."""
    try:
        if mixture.speech:
            return _sums(mixture)
        noisy, clean = map(check_location, mixture.pair)
        duration = pair_duration(noisy, clean)
        audio.check_mono(noisy, (info := audio.probe(noisy)).channels, info.rate, mixture.rate)
        return _Entry(mixture, noisy, clean, duration)
    except UserError as e:
        return _Entry(mixture, error=str(e))


def _sums(mixture: Mixture) -> _Entry:
    lengths = []
    for path, _ in mixture.speech:
        info = audio.probe(check_location(path))
        audio.check_mono(path, info.channels, info.rate, _SOURCE_RATE)
        lengths.append(info.frames)
    s1, s2 = (Part(path, gain) for path, gain in mixture.speech)
    noise = _noise(*mixture.noise, max(lengths))  # type: ignore[call-arg]
    noisy, clean = {"mix_single": ((s1, noise), (s1,)), "mix_both": ((s1, s2, noise), (s1, s2)),
                    "mix_clean": ((s1, s2), (s1,))}[mixture.target]
    length = -(-(min if mixture.mode == "min" else max)(lengths) * mixture.rate // _SOURCE_RATE)
    noisy, clean = (onthefly.Mixture(length, mixture.rate, parts).text() for parts in (noisy, clean))
    return _Entry(mixture, noisy, clean, seconds(length, mixture.rate))


def _noise(path: str, gain: float, reach: int) -> Part:
    """The noise of a mixture, which may be another one played faster or slower."""
    speed = re.fullmatch(r"(.*)sp(08|12)(\.\w+)", path, re.DOTALL)
    if speed and not os.path.exists(path):
        part = Part(speed[1] + speed[3], gain, reach, int(speed[2]) / 10)
    else:
        part = Part(path, gain, reach)
    info = audio.probe(check_location(part.path))
    if info.rate != _SOURCE_RATE:
        raise AudioError(f"{path}: is at {info.rate} Hz; {_SOURCE_RATE} Hz is wanted, as WHAM's wham_noise has")
    return part
