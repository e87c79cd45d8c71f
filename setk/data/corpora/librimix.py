"""LibriMix (Cosentino et al. 2020, arXiv 2005.11262), Libri2Mix to train, valid and test.

Either from the tree of wavs that its scripts make, or from LibriSpeech, WHAM and the CSVs of those scripts. The
second way writes no wavs, which would be 430 GB: each entry of the lists is an on-the-fly mixture
(setk.audio.mixture) with the numbers of the CSV's row.

The id of a mixture is utt1_utt2. It is rendered in the order of the scripts: the noise is cut, or repeated, to the
longer of the two utterances; each signal gets its gain; at 8 kHz, it is filtered and every second sample is kept;
`min` cuts all to the shorter utterance, `max` pads with zeros to the longer. Wavs made by the scripts differ by at
most one step of 16 bits: the scripts round down, and clip.
"""

from __future__ import annotations

import csv
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

from setk import audio
from setk.audio import mixture as onthefly
from setk.audio.mixture import Part
from setk.core.errors import AudioError, UserError
from setk.core.pool import ordered_map
from setk.data.datadir import Report, Watch, seconds
from setk.data.lists import check_id, check_location
from setk.data.pairs import pair_duration

SPLITS = {"train": ("train-100", "train-360"), "valid": ("dev",), "test": ("test",)}
# Part: the name in its generation CSV, and how many mixtures it has.
PARTS = {
    "train-100": ("train-clean-100", 13900),
    "train-360": ("train-clean-360", 50800),
    "dev": ("dev-clean", 3000),
    "test": ("test-clean", 3000),
}
# Mixture: the folder of its target. Of mix_clean, the second talker is the noise.
MIXTURES = {"mix_single": "s1", "mix_both": "mix_clean", "mix_clean": "s1"}
_SOURCE_RATE = 16000


@dataclass(frozen=True)
class Variant:
    """A variant of the corpus: a mixture of MIXTURES, mode min or max, 16000 or 8000 Hz, and the parts to train on."""

    mixture: str = "mix_single"
    mode: str = "min"
    rate: int = 16000
    train: tuple[str, ...] = SPLITS["train"]

    def __post_init__(self):
        parts = [("--train", part, SPLITS["train"]) for part in self.train]
        for option, value, choices in [
            ("--mixture", self.mixture, MIXTURES),
            ("--mode", self.mode, ("min", "max")),
            ("--rate", self.rate, (16000, 8000)),
            *parts,
        ]:
            if value not in choices:
                raise UserError(f"{option} {value}: choose {' or '.join(map(str, choices))}")

    def splits(self) -> dict[str, tuple[str, ...]]:
        """Split -> parts."""
        return SPLITS | {"train": self.train}


@dataclass(frozen=True)
class Mixture:
    """One line of a CSV. `where` is file and line. Either `pair` (a tree), or `speech` and `noise` (a generation CSV) are set."""

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
    """The result for a Mixture: two locations and seconds, or an `error`."""

    mixture: Mixture
    noisy: str = ""
    clean: str = ""
    duration: str = ""
    error: str = ""


def librimix(
    root: str | os.PathLike,
    out: str | os.PathLike,
    variant: Variant,
    moved: str | os.PathLike | None = None,
    jobs: int = 1,
    watch: Watch = lambda items, total, what: items,
) -> Report:
    """Write OUT/{train,valid,test} of the tree `root`, which has wav16k or wav8k, in place.

    The CSVs have the paths of the machine where the tree was made; it is read at `moved`, or else at `root`. Raises
    UserError if nothing of the variant exists.
    """
    folder = Path(root) / f"wav{variant.rate // 1000}k" / variant.mode / "metadata"
    return _write(
        folder,
        out,
        variant,
        jobs,
        watch,
        f"mixture_{{}}_{variant.mixture}.csv",
        lambda part: part,
        lambda path, part, report: _tree_rows(path, part, Path(moved or root), variant, report),
    )


def rendered(
    csvs: str | os.PathLike,
    librispeech: str | os.PathLike,
    wham: str | os.PathLike,
    out: str | os.PathLike,
    variant: Variant,
    jobs: int = 1,
    watch: Watch = lambda items, total, what: items,
) -> Report:
    """Write OUT/{train,valid,test} of the generation CSVs libri2mix_*.csv in a folder; entries are on-the-fly mixtures.

    `librispeech` has train-clean-360 and the others, `wham` tr, cv and tt. Where a noise at another speed
    (…sp08.wav, …sp12.wav) is missing, the original is played at that speed (the scripts use SoX: last bits differ).
    """
    for option, place in (("--librispeech", librispeech), ("--wham", wham)):
        if not os.path.isdir(place):
            raise UserError(f"{option} {place}: no such folder")
    return _write(
        Path(csvs),
        out,
        variant,
        jobs,
        watch,
        "libri2mix_{}.csv",
        lambda part: PARTS[part][0],
        lambda path, part, report: _generation_rows(path, Path(librispeech), Path(wham), variant, report),
    )


def _write(
    folder: Path,
    out: str | os.PathLike,
    variant: Variant,
    jobs: int,
    watch: Watch,
    pattern: str,
    name: Callable[[str], str],
    rows: Callable[[Path, str, Report], Iterator[Mixture]],
) -> Report:
    report = Report()
    paths = {part: folder / pattern.format(name(part)) for parts in variant.splits().values() for part in parts}
    absent = [part for part, path in paths.items() if not path.is_file()]
    if len(absent) == len(paths):
        raise UserError(f"{folder}: has no {pattern.format('*')}; --mixture, --mode and --rate select the variant")
    report.warnings += [f"{paths[part]}: no such file; {part} is left out" for part in absent]
    for split, parts in variant.splits().items():
        found = {}
        for part in parts:
            if part in absent:
                continue
            mixtures = _unique(list(rows(paths[part], part, report)), found, report)
            if len(mixtures) != PARTS[part][1]:
                report.warnings.append(
                    f"{paths[part]}: has {len(mixtures)} mixtures, the complete {part} {PARTS[part][1]:,}: "
                    "scores are not comparable with published ones"
                )
            for entry in watch(ordered_map(_look, mixtures, jobs), len(mixtures), part):
                if entry.error:
                    report.faults.append((entry.mixture.utt, f"{entry.mixture.where}: {entry.error}"))
                else:
                    found[entry.mixture.utt] = entry
        report.write(
            Path(out),
            split,
            {
                "noisy.scp": {utt: e.noisy for utt, e in found.items()},
                "clean.scp": {utt: e.clean for utt, e in found.items()},
                "utt2dur": {utt: e.duration for utt, e in found.items()},
                "utt2spk": {utt: utt.partition("-")[0] for utt in found},
                "utt2snr": {utt: e.mixture.snr for utt, e in found.items() if e.mixture.snr},
            },
        )
    if not any(report.counts.values()):
        reasons = f" (first fault: {report.faults[0][1]})" if report.faults else ""
        raise UserError(f"{folder}: not one mixture can be used{reasons}")
    return report


def _unique(mixtures: list[Mixture], found: dict[str, _Entry], report: Report) -> list[Mixture]:
    """The first mixture of each id that is not in `found` yet; the others are recorded as faults."""
    kept: dict[str, Mixture] = {}
    for mixture in mixtures:
        if mixture.utt in kept or mixture.utt in found:
            report.faults.append((mixture.utt, f"{mixture.where}: duplicate mixture; keep one line"))
        else:
            kept[mixture.utt] = mixture
    return list(kept.values())


def _read_csv(path: Path, columns: tuple[str, ...], report: Report) -> Iterator[tuple[str, dict[str, str]]]:
    """(file:line, row) of a CSV. A row with a missing cell or an unusable id is recorded as a fault.

    Raises UserError if it is not text, or lacks one of `columns`."""
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
                        raise UserError("the line has fewer cells than the header; download the CSV again")
                    check_id(row["mixture_ID"])
                except UserError as e:
                    report.faults.append((row["mixture_ID"], f"{where}: {e}"))
                    continue
                yield where, row
    except (UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{path}: is not a CSV ({e}); download it again") from None


def _tree_rows(path: Path, part: str, root: Path, variant: Variant, report: Report) -> Iterator[Mixture]:
    """Of mixture_<part>_<mixture>.csv."""
    snrs = _snrs(path.with_name(path.name.replace("mixture_", "metrics_", 1)), variant.mixture, report)
    mark = f"/wav{variant.rate // 1000}k/"
    for where, row in _read_csv(path, ("mixture_ID", "mixture_path"), report):
        # The target of mix_both has no column; all are next to each other.
        tail = row["mixture_path"].rpartition(mark)[2].split("/")
        if mark not in row["mixture_path"] or variant.mixture not in tail:
            report.faults.append(
                (
                    row["mixture_ID"],
                    f"{where}: {row['mixture_path']}: is not a path of a LibriMix tree, "
                    f"…{mark}{variant.mode}/{part}/{variant.mixture}/*.wav",
                )
            )
            continue
        target = [MIXTURES[variant.mixture] if name == variant.mixture else name for name in tail]
        pair = tuple(str(root.joinpath(mark.strip("/"), *names)) for names in (tail, target))
        yield Mixture(row["mixture_ID"], where, variant.rate, pair, snr=snrs.get(row["mixture_ID"], ""))


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
        raise UserError(f"{where}: {column} is {text!r}, not a number; download the CSV again")
    return value


def _generation_rows(path: Path, librispeech: Path, wham: Path, variant: Variant, report: Report) -> Iterator[Mixture]:
    """Of libri2mix_*.csv, whose paths are relative to the two corpora."""
    sources = ("source_1", "source_2", "noise")
    columns = ("mixture_ID", *(f"{s}_{what}" for s in sources for what in ("path", "gain")))
    for where, row in _read_csv(path, columns, report):
        *speech, noise = (
            (str(folder / row[f"{s}_path"]), _number(row[f"{s}_gain"], where, f"{s}_gain"))
            for s, folder in zip(sources, (librispeech, librispeech, wham))
        )
        yield Mixture(
            row["mixture_ID"],
            where,
            variant.rate,
            speech=tuple(speech),
            noise=noise,
            mode=variant.mode,
            target=variant.mixture,
        )


def _look(mixture: Mixture) -> _Entry:
    """The entry of a mixture, by the headers of its files."""
    try:
        if mixture.speech:
            return _on_the_fly(mixture)
        noisy, clean = map(check_location, mixture.pair)
        duration = pair_duration(noisy, clean)
        audio.check_mono(noisy, (info := audio.probe(noisy)).channels, info.rate, mixture.rate)
        return _Entry(mixture, noisy, clean, seconds(duration))
    except UserError as e:
        return _Entry(mixture, error=str(e))


def _on_the_fly(mixture: Mixture) -> _Entry:
    lengths = []
    for path, _ in mixture.speech:
        info = audio.probe(check_location(path))
        audio.check_mono(path, info.channels, info.rate, _SOURCE_RATE)
        lengths.append(info.frames)
    s1, s2 = (Part(path, gain) for path, gain in mixture.speech)
    noise = _noise(*mixture.noise, max(lengths))  # type: ignore[call-arg]
    noisy, clean = {
        "mix_single": ((s1, noise), (s1,)),
        "mix_both": ((s1, s2, noise), (s1, s2)),
        "mix_clean": ((s1, s2), (s1,)),
    }[mixture.target]
    length = -(-(min if mixture.mode == "min" else max)(lengths) * mixture.rate // _SOURCE_RATE)
    noisy, clean = (onthefly.Mixture(length, mixture.rate, parts).text() for parts in (noisy, clean))
    return _Entry(mixture, noisy, clean, seconds(length / mixture.rate))


def _noise(path: str, gain: float, reach: int) -> Part:
    """The noise of a mixture: a file, or another one played faster or slower."""
    speed = re.fullmatch(r"(.*)sp(08|12)(\.\w+)", path, re.DOTALL)
    if speed and not os.path.exists(path):
        part = Part(speed[1] + speed[3], gain, reach, int(speed[2]) / 10)
    else:
        part = Part(path, gain, reach)
    info = audio.probe(check_location(part.path))
    if info.rate != _SOURCE_RATE:
        raise AudioError(f"{path}: is at {info.rate} Hz; expected {_SOURCE_RATE} Hz, the rate of WHAM's wham_noise")
    return part
