"""Speech and noise lists to files of noisy and clean speech, and a table of what each was made of.

Each mixture depends on (seed, utterance id) alone, so any division into jobs makes the same files. A job appends a
row to its own file in OUT/.rows when both wavs of a mixture are complete; the job that finds a row for every
utterance writes the data directory and mix.tsv.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from array import array
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Sequence

import numpy as np

from setk import audio
from setk.audio import Location
from setk.audio.arrays import check_rate
from setk.core.errors import AudioError, UserError
from setk.data import mixing
from setk.data.datadir import DataDir, seconds
from setk.core.files import make_dir, write_lines
from setk.data.index import ABSENT, HashIndex, IndexedList, Lines
from setk.data.lists import parse_part, take_part
from setk.data.mixing import Draw, Spread
from setk.core.pool import ordered_map
from setk.core.provenance import Claim, Made, part_name
from setk.core.rng import rng

_DRAWS = 10  # of a noise, until one of them is not silent
FAINT_DB = -82.0  # of speech and noise, below which 16 bits change their SNR
_ROWS = "*of*.tsv"
_BROKEN_ROWS = "is damaged or of another version; remove the output folder"


@dataclass(frozen=True)
class Plan:
    """All that decides the mixtures. `noise` and `rir` are drawn by C order of ids."""

    out: Path
    speech: IndexedList
    noise: IndexedList
    rir: IndexedList
    snr: Spread
    level: Spread | None
    active: bool
    seed: int
    rate: int
    allow_commands: bool = False

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

    @property
    def is_faint(self) -> bool:
        """Whether speech or noise is so quiet that 16 bits, which add noise of -98 dBFS to their difference, move the SNR by more than
        0.1 dB."""
        noise_db = self.level_db - 10 * math.log10(1 + 10 ** (self.snr_db / 10))
        return min(noise_db, noise_db + self.snr_db) < FAINT_DB

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


_TABS = HEADER.count("\t") + 1  # of a row, which also has an error


def _digest(table: IndexedList) -> str:
    digest = hashlib.sha256(b"[")
    rows, comma = map(repr, table.locations()), ""
    while some := ", ".join(islice(rows, 4096)):
        digest.update((comma + some).encode())
        comma = ", "
    digest.update(b"]")
    return digest.hexdigest()[:16]


class Choice(NamedTuple):
    """A noise, and a room if there are any, that were drawn for an utterance, as (id, location)."""

    drawn: Draw
    noise: tuple[str, Location]
    rir: tuple[str, Location] | None


class Task(NamedTuple):
    """One mixture to be made: of the first of `choices` whose noise is not silent."""

    utt: str
    speech: Location
    choices: tuple[Choice, ...]


def write_mixtures(plan: Plan, spk: IndexedList | None, part: str | None = None, jobs: int = 1) -> Iterator[Row]:
    """Make the missing mixtures of a part, yielding a Row for each of the part, old or new, failed or not.

    When the last one is yielded, the data directory has been written if no other job has mixtures left to do
    (`is_complete`). A failed mixture is left out of it, and tried again by the next run.
    """
    if not len(plan.speech) or not len(plan.noise):
        raise UserError("the speech or the noise list is empty; nothing can be mixed")
    check_rate(plan.rate, "--rate")
    claim = Claim(plan.out, plan.settings(), "numpy", "soundfile")
    claim()
    rows, made, missing = Rows(plan), Made(claim, part), array("l")
    for line in take_part(plan.speech.order(), part):
        row = rows.get(line)
        if row and not row.error and _is_current(plan, row, made, line):
            yield row
        else:
            missing.append(line)
    if missing:
        (plan.out / "clean.scp").unlink(missing_ok=True)
        folder = make_dir(plan.out / ".rows")
        run = 1 + max(map(_run_of, folder.glob(_ROWS)), default=0)
        with open(folder / f"{part_name(part)}.{run}.tsv", "a", encoding="utf-8") as f:
            work = partial(mix_one, out=plan.out, rate=plan.rate, active=plan.active)
            for row, made_of in ordered_map(work, _tasks(plan, missing), jobs):
                f.write(row.text() + "\n")
                f.flush()
                if not row.error:
                    made.add(made_of, *_wavs(plan.out, row.utt))
                yield row
        rows = Rows(plan)
    if rows.are_complete and (part is None or _others_are_current(plan, rows, Made(claim, part), part)):
        _write_directory(plan, rows, spk)


def _others_are_current(plan: Plan, rows: Rows, made: Made, part: str) -> bool:
    """Whether the mixtures of the other parts are of the sources as they are now, or have failed."""
    (own, of), order = parse_part(part), plan.speech.order()
    others = (take_part(order, f"{k}/{of}") for k in range(1, of + 1) if k != own)
    return all(_is_current(plan, rows.get(line), made, line) for line in chain.from_iterable(others))


def _is_current(plan: Plan, row: Row | None, made: Made, line: int) -> bool:
    """Whether a row is of a failure, or its wavs are there and of the sources as they are now."""
    return row is not None and (bool(row.error) or made.has(_made_of(plan, row, line), *_wavs(plan.out, row.utt)))


def _run_of(path: Path) -> int:
    """The number of the run that wrote rows; 0 of an earlier version of setk."""
    number = path.name.split(".")[1]
    return int(number) if number.isdecimal() else 0


def is_complete(plan: Plan) -> bool:
    """Whether every utterance has been made, or has failed, so that `write_mixtures` has written the data directory."""
    return (plan.out / "clean.scp").exists()


class Rows:
    """The rows of all runs so far, by line of the speech list: 9 bytes per line. Of an utterance, the last row without error counts,
    and if there is none, the first run's last. Raises UserError on anything else than rows; an incomplete last line, as a kill leaves
    it, is left out."""

    def __init__(self, plan: Plan):
        self._places = np.full(len(plan.speech), ABSENT, np.int64)
        self._failed = np.zeros(len(plan.speech), bool)
        copy = tempfile.TemporaryFile()
        for path in sorted((plan.out / ".rows").glob(_ROWS), key=lambda path: (_run_of(path), path.name)):
            begin = copy.tell()
            with open(path, "rb") as f:
                shutil.copyfileobj(f, copy)
            copy.seek(begin)
            self._add(plan, path, copy, begin)
            copy.seek(0, 2)
        copy.flush()
        self._lines = Lines(copy, np.empty(0, np.int64))

    def _add(self, plan: Plan, path: Path, file: Any, start: int) -> None:
        """The rows of one job, which begin at `start` of the `file`."""
        starts, hashes, failed = array("q"), array("q"), bytearray()
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n") and line != b"\n":
                if line.count(b"\t") != _TABS:
                    raise UserError(f"{path}:{number}: {_BROKEN_ROWS}")
                starts.append(start)
                hashes.append(hash(line.partition(b"\t")[0]))
                failed.append(not line.endswith(b"\t\n"))
            start += len(line)
        lines = plan.speech.lines_of(HashIndex(hashes))
        # The last of each utterance, found as the first from the end.
        lines, last = np.unique(lines[::-1], return_index=True)
        last = len(hashes) - 1 - last
        wrong = np.frombuffer(failed, bool)[last]
        counts = (lines != ABSENT) & (~wrong | (self._places[lines] == ABSENT))
        lines = lines[counts]
        self._places[lines] = np.frombuffer(starts, np.int64)[last][counts]
        self._failed[lines] = wrong[counts]

    @property
    def are_complete(self) -> bool:
        """Whether every utterance has a row."""
        return bool((self._places != ABSENT).all())

    def is_made(self, line: int) -> bool:
        return self._places[line] != ABSENT and not self._failed[line]

    def text(self, line: int) -> str:
        return self._lines.text_at(int(self._places[line]))

    def get(self, line: int) -> Row | None:
        """The row of an utterance; None without one."""
        if self._places[line] == ABSENT:
            return None
        try:
            return Row.parse(self.text(line))
        except ValueError:
            raise UserError(f"{self.text(line)!r}, a row of an earlier run, {_BROKEN_ROWS}") from None


def _wavs(out: Path, utt: str) -> tuple[Path, Path]:
    return out / "noisy" / f"{utt}.wav", out / "clean" / f"{utt}.wav"


def _made_of(plan: Plan, row: Row, line: int) -> str:
    """The states of the sources of a row as they are now; empty if one is not listed any more."""
    sources = [plan.speech.location(plan.speech.read(line)[1], plan.allow_commands)]
    for table, utt in ((plan.noise, row.noise), (plan.rir, row.rir)):
        if utt:
            value = table.get(utt)
            if value is None:
                return ""
            sources.append(table.location(value, plan.allow_commands))
    return _joined([source.state() for source in sources])


def _joined(states: Sequence[str]) -> str:
    """The states of several sources as one; empty if one of them is."""
    return "\0".join(states) if all(states) else ""


def _tasks(plan: Plan, missing: array) -> Iterator[Task]:
    noises, rirs = plan.noise.order(), plan.rir.order()

    def source(table: IndexedList, line: int) -> tuple[str, Location]:
        utt, value = table.read(line)
        return utt, table.location(value, plan.allow_commands)

    for line in missing:
        utt, speech = source(plan.speech, line)
        generator, choices = rng(plan.seed, utt), []
        for _ in range(_DRAWS):
            drawn = mixing.draw(generator, len(noises), plan.snr, plan.level, len(rirs))
            room = None if drawn.rir is None else source(plan.rir, rirs[drawn.rir])
            choices.append(Choice(drawn, source(plan.noise, noises[drawn.noise]), room))
        yield Task(utt, speech, tuple(choices))


def mix_one(task: Task, out: Path, rate: int, active: bool) -> tuple[Row, str]:
    """Make one mixture and write its wavs below `out`; its row, and the states of its sources as they were read. `active`: the level
    of the speech is that of ITU-T P.56."""

    def read(place: Location) -> np.ndarray:
        return place.read_mono(rate)[0]

    try:
        spoken = task.speech.state()
        speech = read(task.speech)
        if mixing.rms_level(speech) < mixing.SILENCE_DB:
            raise AudioError(f"{task.speech}: is silent, so no SNR can be set; remove it from the list")
        for choice in task.choices:
            drawn, (noise_id, source), room = choice
            made_of = _joined([spoken, source.state(), *([room[1].state()] if room else [])])
            recording = read(source)
            start = mixing.noise_start(len(recording), len(speech), drawn.place)
            noise = mixing.loop(recording, start, len(speech))
            if mixing.rms_level(noise) >= mixing.SILENCE_DB:
                break
        else:
            raise AudioError(
                f"{source}: is silent, as were {_DRAWS - 1} other noises that were drawn; remove them from the list"
            )
        rir = read(room[1]) if room else None
        if rir is not None and not rir.any():
            raise AudioError(f"{room[1]}: is silent, or has no samples; remove it from the list of rooms")
        mixed = mixing.mix(speech, noise, drawn.snr_db, drawn.level_db, rate, active, rir)
        if np.abs(mixed.noisy).max(initial=0) <= audio.LOST:
            raise AudioError(f"its mixture is silent in 16 bits (level {mixed.level_db:.1f} dBFS); raise --level")
    except AudioError as e:
        for path in _wavs(out, task.utt):  # of an earlier run, from sources that have changed since
            path.unlink(missing_ok=True)
        return Row(task.utt, task.speech, error=str(e)), ""
    for path, x in zip(_wavs(out, task.utt), (mixed.noisy, mixed.clean)):
        audio.write(path, x, rate)
    row = Row(
        task.utt,
        task.speech,
        noise_id,
        room[0] if room else "",
        start,
        round(mixed.snr_db, 6),
        round(mixed.level_db, 6),
        mixed.gain,
        mixed.noise_gain,
        int(mixed.peak_scaled),
        len(speech),
    )
    return row, made_of


def _write_directory(plan: Plan, rows: Rows, spk: IndexedList | None) -> None:
    good = array("l")
    for line in plan.speech.order():
        if rows.is_made(line) and all(path.exists() for path in _wavs(plan.out, plan.speech.read(line)[0])):
            good.append(line)
    if not good:
        raise UserError(f"{plan.out}: no mixture could be made; see the reasons above")

    def column(value: Callable[[Row], object]) -> Iterator[tuple[str, object]]:
        for line in good:
            row = rows.get(line)
            assert row
            yield row.utt, value(row)

    lines = (rows.text(line).rpartition("\t")[0] + "\n" for line in good)
    write_lines(plan.out / "mix.tsv", chain([HEADER + "\n"], lines))
    tables = {
        "noisy.scp": column(lambda row: _wavs(plan.out, row.utt)[0]),
        "clean.scp": column(lambda row: _wavs(plan.out, row.utt)[1]),
        "utt2snr": column(lambda row: row.snr_db),
        "utt2dur": column(lambda row: seconds(row.frames / plan.rate)),
    }
    if spk:
        tables["utt2spk"] = ((utt, speaker) for utt, speaker in column(lambda row: spk.get(row.utt)) if speaker)
    DataDir.write(plan.out, tables)
