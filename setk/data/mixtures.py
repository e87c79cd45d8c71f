"""Speech and noise lists to files of noisy and clean speech, and a table of what each was made of.

Each mixture depends on (seed, utterance id) alone, so any division into jobs makes the same files. A job appends a
row to its own file in OUT/.rows when both wavs of a mixture are complete; the job that finds a row for every
utterance writes the data directory and mix.tsv.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping

import numpy as np

from setk import audio
from setk.audio import Location
from setk.audio.arrays import check_rate
from setk.core.errors import AudioError, UserError
from setk.data import mixing
from setk.data.datadir import DataDir, seconds
from setk.core.files import make_dir, write_text
from setk.data.lists import take_part
from setk.data.mixing import Spread
from setk.core.pool import ordered_map
from setk.core.provenance import Claim
from setk.core.rng import rng

# A noise this quiet would need a gain that amplifies its rounding errors: another is drawn.
_SILENCE_DB, _DRAWS = -80.0, 10
_BROKEN_ROWS = "is damaged or of another version; remove the output folder"


@dataclass(frozen=True)
class Plan:
    """All that decides the mixtures. Lists are id -> location; `noise` and `rir` are drawn by C order of ids."""

    out: Path
    speech: Mapping[str, Location]
    noise: Mapping[str, Location]
    rir: Mapping[str, Location]
    snr: Spread
    level: Spread | None
    active: bool
    seed: int
    rate: int

    def settings(self) -> dict[str, Any]:
        """The settings that must be equal for two jobs to write into one folder."""
        facts = {
            "snr": asdict(self.snr),
            "level": self.level and asdict(self.level),
            "active_level": self.active,
            "seed": self.seed,
            "rate": self.rate,
        }
        # Tuples come back from JSON as lists.
        facts = {
            key: {k: list(v) if isinstance(v, tuple) else v for k, v in f.items()} if isinstance(f, dict) else f
            for key, f in facts.items()
        }
        return facts | {name: _digest(getattr(self, name)) for name in ("speech", "noise", "rir")}


@dataclass(frozen=True)
class Row:
    """One mixture: a line of mix.tsv. Gains are linear; `error` is the reason if it was not made."""

    utt: str
    speech: str
    noise: str = ""
    rir: str = ""
    noise_offset: int = 0
    snr_db: float = math.nan
    level_db: float = math.nan
    gain: float = math.nan
    noise_gain: float = math.nan
    peak_scaled: int = 0
    frames: int = 0
    error: str = ""

    @classmethod
    def parse(cls, line: str) -> Row:
        """Read a line that `text` wrote. Raises ValueError if it is not such a line."""
        kinds = {"int": int, "float": float, "str": str}
        values = line.split("\t")
        fields = cls.__dataclass_fields__.values()
        return cls(*(kinds[f.type](value) for f, value in zip(fields, values, strict=True)))

    def text(self) -> str:
        # Paths may hold a tab; a table cannot.
        return "\t".join(str(value).replace("\t", " ").replace("\n", " ") for value in asdict(self).values())


HEADER = "\t".join(name for name in Row.__dataclass_fields__ if name != "error")


def _digest(table: Mapping[str, str]) -> str:
    rows = sorted(table.items(), key=lambda row: row[0].encode())
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


_plan: Plan
_noises: list[str]
_rirs: list[str]


def _start_worker(plan: Plan) -> None:
    """Give a worker process the plan once: the lists are too long to go with every utterance."""
    global _plan, _noises, _rirs
    _plan, _noises, _rirs = plan, sorted(plan.noise, key=str.encode), sorted(plan.rir, key=str.encode)


def write_mixtures(plan: Plan, spk: Mapping[str, str], part: str | None = None, jobs: int = 1) -> Iterator[Row]:
    """Make the missing mixtures of a part, yielding a Row for each of the part, old or new, failed or not.

    When the last one is yielded, the data directory has been written if no other job has mixtures left to do
    (`is_complete`). A failed mixture is left out of it, and tried again by the next run.
    """
    if not plan.speech or not plan.noise:
        raise UserError("the speech or the noise list is empty; nothing can be mixed")
    check_rate(plan.rate, "--rate")
    Claim(plan.out, plan.settings(), "numpy", "soundfile")()
    rows = read_rows(plan.out)
    mine = list(take_part(sorted(plan.speech, key=str.encode), part))
    made = {utt: rows[utt] for utt in mine if utt in rows and _is_current(plan, rows[utt])}
    missing = [utt for utt in mine if utt not in made]
    yield from made.values()
    if missing:
        (plan.out / "clean.scp").unlink(missing_ok=True)
        path = make_dir(plan.out / ".rows") / f"{(part or '1/1').replace('/', 'of')}.tsv"
        complete = path.read_text().rpartition("\n")[0] + "\n" if path.exists() else ""
        write_text(path, complete.lstrip("\n"))
        with open(path, "a", encoding="utf-8") as f:
            for row in ordered_map(mix_one, missing, jobs, _start_worker, (plan,)):
                f.write(row.text() + "\n")
                f.flush()
                yield row
    if is_complete(plan):
        _write_directory(plan, read_rows(plan.out), spk)


def is_complete(plan: Plan) -> bool:
    """Whether every utterance has been made, or has failed."""
    return plan.speech.keys() <= read_rows(plan.out).keys()


def read_rows(out: Path) -> dict[str, Row]:
    """The rows of all jobs so far. Within a job the last row of an utterance counts; between jobs, one without error."""
    rows: dict[str, Row] = {}
    for path in sorted((out / ".rows").glob("*of*.tsv")):
        here: dict[str, Row] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").rpartition("\n")[0].split("\n"), 1):
            if not line:
                continue
            try:
                row = Row.parse(line)
            except ValueError:
                raise UserError(f"{path}:{number}: {_BROKEN_ROWS}") from None
            here[row.utt] = row
        rows |= {utt: row for utt, row in here.items() if not row.error or utt not in rows}
    return rows


def _targets(plan: Plan, utt: str) -> tuple[Path, Path]:
    return plan.out / "noisy" / f"{utt}.wav", plan.out / "clean" / f"{utt}.wav"


def _is_current(plan: Plan, row: Row) -> bool:
    """Whether the wavs of a row exist and are not older than what they were made of."""
    targets = _targets(plan, row.utt)
    if row.error or not all(t.exists() for t in targets):
        return False
    oldest = min(t.stat().st_mtime_ns for t in targets)
    sources = (plan.speech[row.utt], plan.noise[row.noise], *([plan.rir[row.rir]] if row.rir else []))
    return all(source.changed_ns() <= oldest for source in sources)


def mix_one(utt: str) -> Row:
    """Make one mixture of the worker's plan and write its wavs."""
    plan = _plan

    def read(place: Location) -> np.ndarray:
        return place.read_mono(plan.rate)[0]

    try:
        speech = read(plan.speech[utt])
        if mixing.rms_level(speech) < _SILENCE_DB:
            raise AudioError(f"{plan.speech[utt]}: is silent, so no SNR can be set; remove it from the list")
        generator = rng(plan.seed, utt)
        for _ in range(_DRAWS):
            drawn = mixing.draw(generator, len(_noises), plan.snr, plan.level, len(_rirs))
            source = plan.noise[_noises[drawn.noise]]
            recording = read(source)
            start = mixing.noise_start(len(recording), len(speech), drawn.place)
            noise = mixing.loop(recording, start, len(speech))
            if mixing.rms_level(noise) >= _SILENCE_DB:
                break
        else:
            raise AudioError(
                f"{source}: is silent, as were {_DRAWS - 1} other noises that were drawn; remove them from the list"
            )
        rir = _rirs[drawn.rir] if drawn.rir is not None else ""
        mixed = mixing.mix(
            speech, noise, drawn.snr_db, drawn.level_db, plan.rate, plan.active, read(plan.rir[rir]) if rir else None
        )
    except AudioError as e:
        for path in _targets(plan, utt):  # of an earlier run, from sources that have changed since
            path.unlink(missing_ok=True)
        return Row(utt, plan.speech[utt], error=str(e))
    for path, x in zip(_targets(plan, utt), (mixed.noisy, mixed.clean)):
        audio.write(path, x, plan.rate)
    return Row(
        utt,
        plan.speech[utt],
        _noises[drawn.noise],
        rir,
        start,
        round(mixed.snr_db, 6),
        round(mixed.level_db, 6),
        mixed.gain,
        mixed.noise_gain,
        int(mixed.peak_scaled),
        len(speech),
    )


def _write_directory(plan: Plan, rows: Mapping[str, Row], spk: Mapping[str, str]) -> None:
    good = {
        utt: rows[utt]
        for utt in sorted(plan.speech, key=str.encode)
        if not rows[utt].error and all(path.exists() for path in _targets(plan, utt))
    }
    if not good:
        raise UserError(f"{plan.out}: no mixture could be made; see the reasons above")
    lines = [HEADER, *(row.text().rpartition("\t")[0] for row in good.values())]
    write_text(plan.out / "mix.tsv", "\n".join(lines) + "\n")
    tables = {
        "noisy.scp": {utt: _targets(plan, utt)[0] for utt in good},
        "clean.scp": {utt: _targets(plan, utt)[1] for utt in good},
        "utt2snr": {utt: row.snr_db for utt, row in good.items()},
        "utt2dur": {utt: seconds(row.frames, plan.rate) for utt, row in good.items()},
    }
    if spk:
        tables["utt2spk"] = {utt: spk[utt] for utt in good if utt in spk}
    DataDir.write(plan.out, tables)
