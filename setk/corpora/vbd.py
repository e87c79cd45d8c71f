"""VoiceBank+DEMAND (Edinburgh DataShare 10283/2791) -> train, valid and test.

The corpus is 48 kHz, mono, files pSSS_NNN.wav of the same name under clean and noisy: 11,572 for training
(28 speakers), 824 for testing (p232, p257). By convention p226 and p287, the first two of the 28, are held out
for validation (770 utterances), so that nothing is ever chosen on the test set.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterable

from setk.corpora.pairs import match
from setk.corpora.tables import Faults, seconds, write_data_dir
from setk.corpora.wavs import convert_all
from setk.files import UserError

RATE = 16000
VALID_SPEAKERS = ("p226", "p287")
# Part of the corpus: stem of its folders, its log of SNRs, utterances in it.
PARTS = {"train": ("trainset_28spk", "log_trainset_28spk.txt", 11572), "test": ("testset", "log_testset.txt", 824)}


@dataclass
class Report:
    """What came of it: utterances of each split, what is odd about the tree, and what was left out and why."""

    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=list)
    clipped: int = 0


def vbd(root: str | os.PathLike, out: str | os.PathLike, jobs: int = 1, resampler: str = "soxr",
        watch: Callable[[Iterable, int, str], Iterable] = lambda items, total, what: items) -> Report:
    """Write OUT/{train,valid,test}, and under OUT/wav16k the wavs that are not at 16 kHz yet.

    Folders may be called *_wav or *_wav_16k (preferred). `watch(items, total, what)` passes the files through
    as they are done, for a progress bar. Raises UserError if the tree has no part of the corpus.
    """
    root, out, report = Path(root), Path(out), Report()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; the folder that holds noisy_testset_wav and its like is wanted")
    parts = {part: _folders(root, part, report) for part in PARTS}
    if not any(parts.values()):
        raise UserError(f"{root}: is no VoiceBank+DEMAND: it has neither noisy_trainset_28spk_wav nor noisy_testset_wav "
                        "with their clean_ partners (unpack the zips of datashare.ed.ac.uk/handle/10283/2791 there)")
    for part, folders in parts.items():
        if folders:
            tables = _part(root, part, folders, out / "wav16k" / part, jobs, resampler, watch, report)
            for split, speakers in _splits(part, tables["utt2spk"]).items():
                report.counts[split] = len(speakers)
                if speakers:
                    write_data_dir(out / split, {name: {utt: table[utt] for utt in speakers if utt in table}
                                                 for name, table in tables.items()})
                else:
                    report.warnings.append(f"{root}: nothing there for {split}; {out / split} is not made")
    return report


def _folders(root: Path, part: str, report: Report) -> tuple[Path, Path] | None:
    """The noisy and clean folder of a part; None if it has neither, which is warned about."""
    stem = PARTS[part][0]
    found = [next((f for suffix in ("_wav_16k", "_wav") if (f := root / f"{kind}_{stem}{suffix}").is_dir()), None)
             for kind in ("noisy", "clean")]
    if all(found):
        return found[0], found[1]
    if any(found):
        kind = "clean" if found[0] else "noisy"
        raise UserError(f"{root}: {kind}_{stem}_wav is missing beside {(found[0] or found[1]).name}; unpack its zip there")
    report.warnings.append(f"{root}: has no {stem} folders; no {part} directory is made of it")
    return None


def _splits(part: str, speakers: dict[str, str]) -> dict[str, list[str]]:
    """Split -> utterances of a part of the corpus."""
    if part == "test":
        return {"test": list(speakers)}
    held = {utt for utt, speaker in speakers.items() if speaker in VALID_SPEAKERS}
    return {"train": [utt for utt in speakers if utt not in held], "valid": [utt for utt in speakers if utt in held]}


def _part(root: Path, part: str, folders: tuple[Path, Path], wavs: Path, jobs: int, resampler: str,
          watch: Callable, report: Report) -> dict[str, dict[str, str]]:
    """The tables of all utterances of a part that are usable."""
    common, faults = match(*folders)
    report.faults += faults
    expected = PARTS[part][2]
    if len(common) != expected:
        report.warnings.append(f"{root}: the {part} part has {len(common)} pairs, and the whole corpus {expected:,}: "
                               "scores will not compare with published ones")
    noisy, clean = ({c.utt: c for c in watch(convert_all(((utt, pair[k]) for utt, pair in common.items()), wavs / kind,
                                                         RATE, resampler, jobs=jobs), len(common), f"{part} {kind}")}
                    for k, kind in enumerate(("noisy", "clean")))
    good = []
    for utt in common:
        a, b = noisy[utt], clean[utt]
        fault = a.error or b.error
        if not fault and a.frames != b.frames:
            fault = f"{a.path} has {a.frames} samples, {b.path} {b.frames}; unpack the zips again"
        report.faults += [(utt, fault)] if fault else []
        good += [] if fault else [utt]
        report.clipped += a.clipped + b.clipped
    tables = {"noisy.scp": {utt: noisy[utt].path for utt in good}, "clean.scp": {utt: clean[utt].path for utt in good},
              "utt2dur": {utt: seconds(noisy[utt].frames, RATE) for utt in good},
              "utt2spk": {utt: utt.partition("_")[0] for utt in good}}
    snrs = _snrs(root, PARTS[part][1])
    if any(utt in snrs for utt in good):
        tables["utt2snr"] = {utt: snrs[utt] for utt in good if utt in snrs}
    return tables


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
            raise UserError(f"{path}:{number}: no SNR at the end of the line; 'p232_001 bus 17.5' is wanted") from None
    return found
