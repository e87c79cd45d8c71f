"""VoiceBank+DEMAND (Edinburgh DataShare 10283/2791) -> train, valid and test.

The corpus is 48 kHz, mono, files pSSS_NNN.wav of the same name under clean and noisy: 11,572 for training
(28 speakers), 824 for testing (p232, p257). By convention p226 and p287, the first two of the 28, are held out
for validation (770 utterances), so that nothing is ever chosen on the test set.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Iterable

from setk.audio import Location
from setk.data.pairs import match
from setk.data.datadir import Report, Watch, seconds
from setk.data.convert import Converted, convert_all
from setk.core.errors import UserError
from setk.data.lists import take_part

RATE = 16000
VALID = "p226,p287"
# Subset of the corpus: stem of its folders, its log of SNRs, number of utterances.
SUBSETS = {"train": ("trainset_28spk", "log_trainset_28spk.txt", 11572), "test": ("testset", "log_testset.txt", 824)}


def vbd(
    root: str | os.PathLike,
    out: str | os.PathLike,
    valid: str | None = None,
    jobs: int = 1,
    part: str | None = None,
    resampler: str = "soxr",
    watch: Watch = lambda items, total, what: items,
    rate: int = RATE,
) -> Report:
    """Write OUT/{train,valid,test} at `rate` Hz, and under OUT/wav16k (of 16000 Hz) the wavs that are not at this rate yet.

    `valid` names what is held out of the training subset: speakers by commas, or a file of utterance ids; None is
    the convention, as far as it is there. `part` = "k/n" converts every n-th file from the k-th, and nothing else; a
    run without it then finds them and writes the lists.
    Folders may be called *_wav or, at 16000 Hz, *_wav_16k (preferred). `watch(items, total, what)` passes the files through
    as they are done, for a progress bar. Raises UserError if the tree has no subset of the corpus, or not all of `valid`.
    """
    root, out, report = Path(root), Path(out), Report()
    wavs = f"wav{rate / 1000:g}k"
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder that has noisy_testset_wav and the other folders")
    subsets = {subset: _folders(root, subset, rate, report) for subset in SUBSETS}
    if not any(subsets.values()):
        raise UserError(
            f"{root}: is not VoiceBank+DEMAND: it has neither noisy_trainset_28spk_wav nor noisy_testset_wav "
            "with their clean_ partners; unpack the zips of datashare.ed.ac.uk/handle/10283/2791 there"
        )
    for subset, folders in subsets.items():
        if not folders:
            continue
        common, faults = match(*folders)
        held = _held_out(valid, common) if subset == "train" else set()
        folder = out / wavs / subset
        convert = functools.partial(_convert, subset, common, folder, rate, jobs, resampler, part, watch, report)
        if part:
            report.counts[f"{wavs}/{subset}"] = len(convert(list(take_part(common, part)))["utt2dur"])
            continue
        report.faults += faults
        _warn_of_counts(root, subset, len(common), report)
        tables = convert(list(common)) | {"utt2snr": _snrs(root, SUBSETS[subset][1])}
        good = tables["noisy.scp"]
        splits = (
            {"train": good.keys() - held, "valid": good.keys() & held} if subset == "train" else {"test": good.keys()}
        )
        for split, utts in splits.items():
            report.write(
                out,
                split,
                {
                    name: {utt: table[utt] for utt in good if utt in utts and utt in table}
                    for name, table in tables.items()
                },
            )
    return report


def _held_out(valid: str | None, utts: Iterable[str]) -> set[str]:
    """The utterances of `utts` that `valid` names (see `vbd`). Raises UserError if a name occurs nowhere."""
    given = VALID if valid is None else valid
    if os.path.isfile(given):
        try:
            named = set(Path(given).read_text(encoding="utf-8").split())
        except UnicodeDecodeError:
            raise UserError(f"--valid {given}: is not a text file; expected utterance ids") from None
        found = {utt: utt for utt in utts if utt in named}
    else:
        named = {name.strip() for name in given.split(",")} - {""}
        found = {utt: _speaker(utt) for utt in utts if _speaker(utt) in named}
    unknown = sorted(named - set(found.values()))
    if unknown and valid is not None:
        raise UserError(
            f"--valid {valid}: {unknown[0]} is not in the training subset; "
            "name speakers by commas as in p226,p287, or a file of utterance ids"
        )
    return set(found)


def _speaker(utt: str) -> str:
    return utt.partition("_")[0]


def _warn_of_counts(root: Path, subset: str, count: int, report: Report) -> None:
    expected = SUBSETS[subset][2]
    if count != expected:
        report.warnings.append(
            f"{root}: the {subset} subset has {count} pairs, the complete corpus {expected:,}: "
            "scores are not comparable with published ones"
        )


def _folders(root: Path, subset: str, rate: int, report: Report) -> tuple[Path, Path] | None:
    """The noisy and clean folder of a subset; None, and a warning, if it has neither."""
    stem, suffixes = SUBSETS[subset][0], ("_wav_16k", "_wav") if rate == RATE else ("_wav",)
    found = [
        next((f for suffix in suffixes if (f := root / f"{kind}_{stem}{suffix}").is_dir()), None)
        for kind in ("noisy", "clean")
    ]
    if all(found):
        return found[0], found[1]
    if any(found):
        kind = "clean" if found[0] else "noisy"
        raise UserError(
            f"{root}: {kind}_{stem}_wav is missing next to {(found[0] or found[1]).name}; unpack its zip there"
        )
    report.warnings.append(f"{root}: has no {stem} folders; no {subset} directory is written")
    return None


def _convert(
    subset: str,
    common: dict[str, tuple[Location, Location]],
    wavs: Path,
    rate: int,
    jobs: int,
    resampler: str,
    part: str | None,
    watch: Watch,
    report: Report,
    utts: list[str],
) -> dict[str, dict[str, str]]:
    """The tables of those of `utts` that are usable, all of them converted."""

    def converted(k: int, kind: str) -> dict[str, Converted]:
        places = ((utt, common[utt][k]) for utt in utts)
        found = convert_all(places, wavs / kind, rate, resampler, jobs=jobs, part=part)
        return {c.utt: c for c in watch(found, len(utts), f"{subset} {kind}")}

    noisy, clean = converted(0, "noisy"), converted(1, "clean")
    good = []
    for utt in utts:
        a, b = noisy[utt], clean[utt]
        fault = a.error or b.error
        if not fault and a.frames != b.frames:
            fault = f"{a.path} has {a.frames} samples, {b.path} {b.frames}; unpack the zips again"
        report.faults += [(utt, fault)] if fault else []
        good += [] if fault else [utt]
        report.clipped += a.clipped + b.clipped
    return {
        "noisy.scp": {utt: noisy[utt].path for utt in good},
        "clean.scp": {utt: clean[utt].path for utt in good},
        "utt2dur": {utt: seconds(noisy[utt].frames / rate) for utt in good},
        "utt2spk": {utt: _speaker(utt) for utt in good},
    }


def _snrs(root: Path, name: str) -> dict[str, str]:
    """utt -> SNR of a log (lines `p232_001 bus 17.5`) in the root or a folder of it; empty if there is none."""
    path = next((p for pattern in (name, f"*/{name}") for p in sorted(root.glob(pattern))), None)
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path else (), 1):
        fields = line.split()
        try:
            if fields:
                found[fields[0]] = f"{float(fields[-1]):g}"
        except ValueError:
            raise UserError(
                f"{path}:{number}: no SNR at the end of the line; expected a line such as 'p232_001 bus 17.5'"
            ) from None
    return found
