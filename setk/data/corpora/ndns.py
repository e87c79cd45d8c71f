"""The Intel Neuromorphic DNS Challenge (Timcheck et al. 2023, arXiv 2303.09503) to train, valid and test.

ROOT/{training_set,validation_set,test_set_1}/{noisy,clean,noise}, 16 kHz, clips of 30 s, in each folder

    noisy/<sources of the speech>_<of the noise>_snr<dB>_tl<dBFS>_fileid_<k>.wav
    clean/clean_fileid_<k>.wav
    noise/noise_fileid_<k>.wav

with 60,000 clips per set. The challenge's synthesizer draws its training and validation clips from one pool of
files with one seed, so they may share sources. Files that two sets share are an error here; `ndns_synthesis` makes
sets that share none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from setk import audio
from setk.core.errors import AudioError, UserError
from setk.core.pool import ordered_map
from setk.data.corpora.ndns_sources import KINDS, NAME, RATE, SETS, check_sources, digest
from setk.data.datadir import Report, Watch, seconds
from setk.data.lists import check_location
from setk.data.pairs import pair_duration

COUNT = 60000  # clips per set


@dataclass(frozen=True)
class _Clip:
    """One noisy file: the fields of its name, its duration and digests of what it was mixed from, or an `error`."""

    utt: str
    noisy: str
    clean: str
    noise: str
    sources: str = ""
    snr: str = ""
    duration: str = ""
    digests: tuple[str, ...] = ()
    error: str = ""


def ndns(
    root: str | os.PathLike, out: str | os.PathLike, jobs: int = 1, watch: Watch = lambda items, total, what: items
) -> Report:
    """Write OUT/{train,valid,test} of the sets in `root`; the wavs stay in place.

    Raises UserError if there are none, or two sets share a source: a file of sources.tsv, the text before _snr, or
    the content of a clean or a noise file.
    """
    root, out, report = Path(root), Path(out), Report()
    folders = {split: root / name for split, name in SETS.items() if (root / name / "noisy").is_dir()}
    if not folders:
        raise UserError(
            f"{root}: is not an N-DNS tree: it has no {' or '.join(f'{name}/noisy' for name in SETS.values())}; "
            "make one there with --clean and --noise"
        )
    check_sources(root / "sources.tsv")
    sets = {}
    for split, folder in folders.items():
        clips = _clips(folder, report)
        if len(clips) != COUNT:
            report.warnings.append(
                f"{folder}: has {len(clips)} clips, the complete set {COUNT:,}: "
                "scores are not comparable with published ones"
            )
        sets[split] = []
        for clip in watch(ordered_map(_look, clips, jobs), len(clips), split):
            if clip.error:
                report.faults.append((clip.utt, clip.error))
            else:
                sets[split].append(clip)
    _check_overlap(sets)
    for split in SETS:
        clips = sets.get(split, [])
        report.write(
            out,
            split,
            {
                "noisy.scp": {c.utt: c.noisy for c in clips},
                "clean.scp": {c.utt: c.clean for c in clips},
                "utt2dur": {c.utt: c.duration for c in clips},
                "utt2snr": {c.utt: c.snr for c in clips},
            },
        )
    if not any(report.counts.values()):
        reasons = f" (first fault: {report.faults[0][1]})" if report.faults else ""
        raise UserError(f"{root}: not one clip can be used{reasons}")
    return report


def _clips(folder: Path, report: Report) -> list[_Clip]:
    """The noisy files of a set by number; a name of another form is a fault."""
    found: dict[int, _Clip] = {}
    for name in sorted(os.listdir(folder / "noisy"), key=os.fsencode):
        path = str(folder / "noisy" / name)
        if name.startswith("."):
            continue
        fields = NAME.fullmatch(name)
        try:
            check_location(path)
            if not fields:
                raise UserError(f"{path}: is not named …_snr<dB>_tl<dBFS>_fileid_<number>.wav; rename it")
            number = int(fields["id"])
            if number in found:
                raise UserError(f"{path}: {found[number].noisy} has the same number; keep one")
        except UserError as e:
            report.faults.append((repr(name), str(e)))
            continue
        clean, noise = (str(folder / kind / f"{kind}_fileid_{fields['id']}.wav") for kind in KINDS)
        found[number] = _Clip(f"fileid_{fields['id']}", path, clean, noise, fields["sources"], fields["snr"])
    return [found[number] for number in sorted(found)]


def _look(clip: _Clip) -> _Clip:
    """A clip with the facts of its files. The noise alone may be missing."""
    try:
        duration = pair_duration(clip.noisy, clip.clean)
        info = audio.probe(clip.noisy)
        audio.check_mono(clip.noisy, info.channels, info.rate, RATE)
        digests = tuple(digest(path) for path in (clip.clean, clip.noise) if os.path.exists(path))
    except AudioError as e:
        return replace(clip, error=str(e))
    return replace(clip, duration=seconds(duration), digests=digests)


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
        raise UserError(
            f"{clip.noisy} and {first.noisy} have sources in common ({len(shared)} clips in all have sources of "
            "another set), so scores would be of training data; make the sets again (--clean, --noise), or remove the clips"
        )
