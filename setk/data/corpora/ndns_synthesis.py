"""Clips of the Intel N-DNS corpus from clean speech and noise.

Unlike the challenge's, a clip made here has the SNR that its name states: P.56 active level of the speech against
the RMS of the noise. The challenge scales its noise by levels measured before the last normalization. The source
files are split first (ROOT/sources.tsv), so that no two sets share any.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np

from setk import audio
from setk.core.errors import AudioError, UserError
from setk.core.pool import ordered_map
from setk.core.rng import rng
from setk.data import mixing
from setk.data.corpora.ndns_sources import (
    GROUP as GROUP,
    KINDS,
    NAME,
    RATE,
    SETS,
    check_sources,
    split_sources as split_sources,
)
from setk.data.lists import Faults, take_part

CLIP = 30 * RATE  # samples
_SNRS, _LEVELS = (-5, 20), (-35, -15)  # whole dB, without the upper end
_PAUSE = RATE // 5  # between two utterances of a clip
_SILENCE_DB, _DRAWS = -60.0, 20


def parse_counts(text: str) -> dict[str, int]:
    """Set -> clips, of `60000,60000,60000`."""
    numbers = text.split(",")
    if len(numbers) != len(SETS) or not all(n.isdecimal() for n in numbers):
        raise UserError(f"--clips {text}: write three numbers, as in 60000,6000,6000, for {', '.join(SETS.values())}")
    return dict(zip(SETS.values(), map(int, numbers)))


@dataclass(frozen=True)
class Synthesized:
    """Result for one clip: its set and number, sources that could not be used, and an `error` if it was not made."""

    name: str
    faults: tuple[tuple[str, str], ...] = ()
    error: str = ""

    @property
    def reasons(self) -> Faults:
        """(source or clip, why it cannot be used)."""
        return [*self.faults, *([(self.name, self.error)] if self.error else [])]


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


def synthesize(
    root: str | os.PathLike, counts: dict[str, int], seed: int = 0, part: str | None = None, jobs: int = 1
) -> Iterator[Synthesized]:
    """Make the clips 0 ... counts[set] - 1 of each set from ROOT/sources.tsv, those of a part; complete ones are kept.

    A clip depends on (seed, set, number) alone: it is the same for any number of jobs, and more can be made later.
    Its three files are the speech and the noise as they are in it, and their sum.
    """
    root = Path(root)
    pool: dict[tuple[str, str], list[str]] = {}
    for source in check_sources(root / "sources.tsv"):
        pool.setdefault((source.set, source.kind), []).append(source.path)
    made = {name: _numbers(root / name) for name in counts}
    clips = ((name, k) for name, count in counts.items() for k in range(count))
    missing = [clip for clip in take_part(clips, part) if clip[1] not in made[clip[0]]]
    yield from ordered_map(_make, missing, jobs, _start_worker, (_Pool(root, pool, seed),))


def _numbers(folder: Path) -> set[int]:
    """Numbers of the clips of a set; the noisy file is written last."""
    noisy = folder / "noisy"
    return {
        int(fields["id"]) for name in (os.listdir(noisy) if noisy.is_dir() else ()) if (fields := NAME.fullmatch(name))
    }


def _make(clip: tuple[str, int]) -> Synthesized:
    name, k = clip
    generator = rng(_pool.seed, f"{name}/{k}")
    snr, level = int(generator.integers(*_SNRS)), int(generator.integers(*_LEVELS))
    faults: list[tuple[str, str]] = []
    try:
        (speech, talkers), (noise, noises) = (
            _assemble(_pool.sources[name, kind], generator, pause, faults) for kind, pause in zip(KINDS, (_PAUSE, 0))
        )
    except AudioError as e:
        return Synthesized(f"{name}/{k}", tuple(faults), str(e))
    mixed = mixing.mix(speech, noise, snr, level, RATE, active=True)
    # As in the challenge, a clip that would be clipped is lowered, and the name states its final level.
    level = round(mixed.level_db)
    folder = _pool.root / name
    for kind, x in zip(KINDS, (mixed.clean, mixed.noise)):
        audio.write(folder / kind / f"{kind}_fileid_{k}.wav", x, RATE)
    file = f"{_stems(talkers)}_{_stems(noises)}_snr{snr}_tl{level}_fileid_{k}.wav"
    audio.write(folder / "noisy" / file, mixed.noisy, RATE)
    return Synthesized(f"{name}/{k}", tuple(faults))


def _stems(paths: list[str]) -> str:
    """Names of the sources, at most 100 bytes, so that the name is not too long."""
    text = "_".join("_".join(Path(path).stem.split()) for path in paths)
    return text.encode()[:100].decode(errors="ignore")


def _assemble(
    paths: list[str], generator: np.random.Generator, pause: int, faults: Faults
) -> tuple[np.ndarray, list[str]]:
    """CLIP samples from sources drawn one after the other, with `pause` samples between them, and their paths.

    A source that is too long is cut at a random place; of several channels the first is used. Each is scaled to a
    peak at full scale, so that faint and loud recordings count the same. Unreadable sources are added to `faults`;
    silent ones are skipped. Raises AudioError if _DRAWS in a row cannot be used.
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
        x = x[start : start + left]
        if mixing.rms_level(x) < _SILENCE_DB:
            failed += 1
            if failed == _DRAWS:
                raise AudioError(
                    f"{path}: is silent or cannot be read, as were the {_DRAWS - 1} drawn before; replace them"
                )
            continue
        failed = 0
        parts += [x / np.abs(x).max(), np.zeros(min(pause, max(left - len(x), 0)), np.float32)]
        used.append(path)
        left -= len(x) + pause
    return np.concatenate(parts)[:CLIP], used
