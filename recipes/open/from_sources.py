"""from_sources.py SOURCES PAIRS DIR OUT [JOBS]: the open corpus, made of files of public repositories, in OUT.

SOURCES and PAIRS are tables such as recipes/open/sources.tsv and pairs.tsv. DIR holds each repository as OWNER/NAME (or a corpus
under its name). A row of SOURCES is one recording at 16 kHz mono: its file or files (between "; ", joined with a pause), from
`start` seconds on (where that is not recorded, from the first sound), `seconds` long (empty: all), at `level`: active:DB (ITU-T
P.56), rms:DB, peak:AMPLITUDE, or keep. A row of PAIRS is the speech of that id mixed with a noise from noise_start seconds on, at
an SNR of active speech level to noise RMS.

OUT gets FLAC files, and lists/ as the recipes read them: speech_train.scp, noise_train.scp, rir_train.scp, noise2kind,
utt2spk_train, {valid,test}_{noisy,clean}.scp. Files that are there already are kept. What cannot be made is named on standard
error and left out of the lists; the exit code is then 1.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Mapping, Sequence

import numpy as np

from setk.cli import shell
from setk import audio
from setk.core.errors import AudioError
from setk.core.pool import ordered_map
from setk.data import mixing
from setk.data.lists import write_list

RATE = 16000
PAUSE_S = {"speech": 0.25, "noise": 0.2, "rir": 0.0}  # between the files of a row
FRAME = RATE // 50
SOUND_DB = -40.0  # of a frame re the loudest: the first at that level is where a recording begins
PEAK = 0.95  # that no level goes beyond

Row = Mapping[str, str]


def read_table(path: str) -> list[Row]:
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))


def recording(row: Row, sources: Path) -> np.ndarray:
    """The samples [n] of a row of SOURCES. Raises AudioError where a file is missing or no audio."""
    parts = []
    for path in row["path"].split("; "):
        x, rate = audio.read(str(sources / row["repository"] / path))
        parts += [audio.resample(x.mean(0), rate, RATE), np.zeros(round(PAUSE_S[row["role"]] * RATE), np.float32)]
    x = np.concatenate(parts[:-1])
    begin = round(float(row["start"]) * RATE) if row["start"] else first_sound(x)
    count = round(float(row["seconds"]) * RATE) if row["seconds"] else len(x)
    x = x[begin : begin + count]
    if not x.any():
        raise AudioError(f"{row['path']}: has no sound from {begin / RATE:g} s on; correct start in the table")
    return at_level(x, row["level"])


def first_sound(x: np.ndarray) -> int:
    """The sample where the first frame of `x` [n] begins that is within SOUND_DB of the loudest."""
    frames = np.resize(x, (-(-len(x) // FRAME), FRAME))
    levels = np.array([mixing.rms_level(frame) for frame in frames])
    return int(np.argmax(levels >= levels.max() + SOUND_DB)) * FRAME


def at_level(x: np.ndarray, level: str) -> np.ndarray:
    """`x` [n] at a level as in SOURCES, or lower where its peak would be above PEAK."""
    how, _, value = level.partition(":")
    peak = float(np.abs(x).max())
    if how == "keep":
        gain = 1.0
    elif how == "peak":
        gain = float(value) / peak
    else:
        now = mixing.active_level(x, RATE)[0] if how == "active" else mixing.rms_level(x)
        gain = mixing.from_db(float(value) - now)
    return (min(gain, PEAK / peak) * x).astype(np.float32)


def place(out: Path, row: Row) -> Path:
    return out / row["set"] / row["role"] / f"{row['id']}.flac"


def make_recording(task: tuple[Row, Path, Path]) -> str | None:
    """Write one row of SOURCES unless it is there; why that could not be done, or None."""
    row, sources, out = task
    path = place(out, row)
    try:
        if not path.exists():
            audio.write(path, recording(row, sources), RATE)
    except AudioError as e:
        return f"{row['set']} {row['role']} {row['id']}: {e}"
    return None


def make_pair(task: tuple[Row, Path]) -> str | None:
    """Write noisy and clean of one row of PAIRS unless they are there; why that could not be done, or None."""
    row, out = task
    noisy, clean = (out / row["set"] / kind / f"{row['id']}.flac" for kind in ("noisy", "clean"))
    try:
        if not (noisy.exists() and clean.exists()):
            speech = audio.read_mono(str(out / row["set"] / "speech" / f"{row['id']}.flac"), RATE)[0]
            noise = audio.read_mono(str(out / row["set"] / "noise" / f"{row['noise']}.flac"), RATE)[0]
            piece = mixing.loop(noise, round(float(row["noise_start"]) * RATE) % len(noise), len(speech))
            mixed = mixing.mix(speech, piece, float(row["snr_db"]), rate=RATE, active=True)
            audio.write(noisy, mixed.noisy, RATE)
            audio.write(clean, mixed.clean, RATE)
    except AudioError as e:
        return f"{row['set']} {row['id']}: {e}"
    return None


def make(work, tasks: Sequence[tuple], jobs: int) -> tuple[list[Row], int]:
    """Do `work` for tasks whose first part is a row: the rows that are there now, and how many are not."""
    made = []
    for task, fault in zip(tasks, ordered_map(work, tasks, jobs)):
        if fault:
            print(f"from_sources.py: {fault}", file=sys.stderr)
        else:
            made.append(task[0])
    return made, len(tasks) - len(made)


def write_lists(out: Path, made: Sequence[Row], pairs: Sequence[Row]) -> None:
    """Lists of what was made; paths are relative to `out`."""
    train = [row for row in made if row["set"] == "train"]
    lists = {
        f"{role}_train.scp": {row["id"]: place(Path(), row) for row in train if row["role"] == role} for role in PAUSE_S
    }
    lists["noise2kind"] = {row["id"]: row["label"] for row in train if row["role"] == "noise"}
    lists["utt2spk_train"] = {row["id"]: row["label"] for row in train if row["role"] == "speech"}
    for part in ("valid", "test"):
        for kind in ("noisy", "clean"):
            lists[f"{part}_{kind}.scp"] = {
                row["id"]: f"{part}/{kind}/{row['id']}.flac" for row in pairs if row["set"] == part
            }
    (out / "lists").mkdir(exist_ok=True)
    for name, table in lists.items():
        write_list(out / "lists" / name, table)


def main(sources_table: str, pairs_table: str, sources: str, folder: str, jobs: str = "1") -> int:
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    made, missing = make(make_recording, [(row, Path(sources), out) for row in read_table(sources_table)], int(jobs))
    pairs, unmixed = make(make_pair, [(row, out) for row in read_table(pairs_table)], int(jobs))
    write_lists(out, made, pairs)
    print(
        f"from_sources.py: {len(made)} recordings and {len(pairs)} pairs in {out}; {missing} and {unmixed} could not be made",
        file=sys.stderr,
    )
    return int(bool(missing or unmixed))


if __name__ == "__main__":
    shell.script(lambda: main(*sys.argv[1:]), "from_sources.py")
