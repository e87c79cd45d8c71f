"""A kill at every system call that changes a directory: no input is lost, and the same command then ends as if nothing had been.

strace (Debian: strace) kills the process as it enters the n-th such call, for every n.
"""

from __future__ import annotations

import collections
import io
import math
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import soundfile
import torch
from commands import ROOT, command

CALLS = (
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "fsync",
    "fdatasync",
    "mkdir",
    "mkdirat",
    "ftruncate",
    "link",
    "symlink",
)
LIMIT_S = 3600  # of a run, however busy the machine is
MINI = ROOT / "data" / "mini"
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed (apt-get install strace)"),
]


def strace(folder: Path, argv: list[str], *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["strace", "-f", "-qq", "-o", str(folder.parent / "trace"), *options, *argv],
        cwd=folder,
        capture_output=True,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
    )


def recordings(folder: Path) -> None:
    """Two short pairs with lists."""
    lists: dict[str, list[str]] = {"noisy": [], "clean": []}
    for kind, lines in lists.items():
        (folder / kind).mkdir()
        for source in sorted((MINI / "test" / kind).glob("*.flac"))[:2]:
            x, rate = soundfile.read(source, dtype="float32", frames=8000)
            soundfile.write(folder / kind / f"{source.stem}.wav", x, rate)
            lines.append(f"{source.stem} {kind}/{source.stem}.wav\n")
        (folder / f"{kind}.scp").write_text("".join(lines))


def data_dir(folder: Path) -> None:
    """A data directory with a fault: an utterance whose clean file is silent in length."""
    recordings(folder)
    (folder / "data").mkdir()
    for kind in ("noisy", "clean"):
        lines = (folder / f"{kind}.scp").read_text()
        (folder / "data" / f"{kind}.scp").write_text(lines + f"zz_broken {folder.name}/none.wav\n")


def speech_and_noise(folder: Path) -> None:
    recordings(folder)
    rng = np.random.default_rng(1)
    soundfile.write(folder / "n.wav", 0.1 * rng.standard_normal(16000), 16000)
    (folder / "noise.scp").write_text("n n.wav\n")


def training(folder: Path) -> None:
    """A data directory of two pairs, and a config that trains a small FSPEN for two steps and saves after each."""
    recordings(folder)
    (folder / "data").mkdir()
    for kind in ("noisy", "clean"):
        shutil.copy(folder / f"{kind}.scp", folder / "data")
    (folder / "config.yaml").write_text(
        "model: fspen\nconfig: {groups: 2, dpe_blocks: 1}\nsegment: 0.5\nbatch: 1\nsteps: 2\nsave_every: 1\nvalid_every: 1\n"
        "losses: {l1: 1}\nmetrics: [si_sdr]\nbest: si_sdr\naverage: 1\nseed: 1\ndevice: cpu\n"
    )


def nothing(folder: Path) -> None:
    """An empty folder."""


FSPEN = str(ROOT / "setk" / "pretrained" / "fspen.pt")
CASES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "pairs": (recordings, command("prep", "pairs", "noisy.scp", "clean.scp", "data")),
    "sources": (speech_and_noise, command("prep", "sources", "--speech", "clean.scp", "--noise", "noise.scp", "data")),
    "mix": (
        speech_and_noise,
        command("prep", "mix", "--speech", "clean.scp", "--noise", "noise.scp", "--snr", "5", "data"),
    ),
    "fix": (data_dir, command("prep", "fix", "data")),
    "resample": (recordings, command("prep", "resample", "noisy.scp", "out", "--rate", "8000")),
    "enhance": (recordings, command("enhance", "fspen", "--list", "noisy.scp", "--out", "out")),
    "score": (
        recordings,
        command("score", "--ref", "clean.scp", "noisy.scp", "--metrics", "si_sdr", "--summary", "summary.json"),
    ),
    "prune": (recordings, command("prune", FSPEN, "out.pt", "--method", "magnitude", "--amount", "0.3")),
    "ptq": (recordings, command("quant", "ptq", FSPEN, "out.pt", "--list", "noisy.scp")),
    "onnx": (nothing, command("quant", "export", FSPEN, "out.onnx")),
    "c": (nothing, command("quant", "export", FSPEN, "out.c")),
    "page": (nothing, command("quant", "export", FSPEN, "out.html")),
    "train": (
        training,
        command("train", "config.yaml", "--train", "data", "--valid", "data", "--out", "out"),
    ),
}
SAMPLED = {
    "train": 8,
    "onnx": 4,
    "c": 3,
    "page": 3,
}  # case that takes long -> calls at which the test kills it, drawn at random


RECORDS = (".backup", ".made", ".rows")


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of the files below a folder; what killed processes left is not counted, nor how many backups there are, nor what
    each run has recorded of its work."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".tmp" not in path.name and not any(part.startswith(RECORDS) for part in path.parts)
    }


def without_clock(name: str, data: bytes) -> object:
    """What a file holds apart from times: the records of runs, and of a training its weights and scores."""
    if name.endswith((".json", ".png")):
        return None
    if name.endswith("history.tsv"):
        return [[cell for i, cell in enumerate(line.split(b"\t")) if i != 1] for line in data.splitlines()]
    if "resume" in name:
        return None
    if name.endswith(".pt"):
        weights = torch.load(io.BytesIO(data), weights_only=True)["weights"]
        return {key: value.numpy().tobytes() for key, value in weights.items()}
    return data


def calls_in(trace: str) -> list[tuple[str, int]]:
    """(name, number) of every call of CALLS in a trace. strace counts them by name, and for each process on its own."""
    made: collections.Counter = collections.Counter(re.findall(rf"^(\d+) +({'|'.join(CALLS)})\(", trace, re.MULTILINE))
    most: dict[str, int] = {}
    for (_, name), count in made.items():
        most[name] = max(count, most.get(name, 0))
    return [(name, number) for name, count in most.items() for number in range(1, count + 1)]


def campaign(
    case: str, place: Path, most: int | None = None, rng: np.random.Generator | None = None, seconds: float = math.inf
) -> tuple[int, bool]:
    """Kill a command of CASES at every call (at `most` of them, drawn by `rng`; while no more than `seconds` have passed), and run it
    again. Returns the number of kills, and whether that was at every call.

    Raises AssertionError if an input is lost, or the second run does not end as one that was not killed.
    """
    prepare, argv = CASES[case]
    calls = ",".join(f"?{name}" for name in CALLS)

    def fresh() -> Path:
        # Every run is in a folder of the same name: paths are part of what is written.
        shutil.rmtree(place / "run", ignore_errors=True)
        (place / "run").mkdir()
        prepare(place / "run")
        return place / "run"

    folder = fresh()
    before = contents(folder)
    done = strace(folder, argv, "-e", f"trace={calls}")
    assert done.returncode == 0, done.stderr.decode()
    reference = contents(folder)
    places = calls_in((place / "trace").read_text())
    assert places
    in_place = {name for name in before if reference.get(name) != before[name]}
    calls_made = len(places)
    if rng:
        most = min(most or len(places), len(places))
        places = [places[i] for i in rng.choice(len(places), most, replace=False)]
    kills, complete, end = 0, len(places) == calls_made, time.monotonic() + seconds
    for name, number in places:
        if time.monotonic() > end:
            complete = False
            break
        folder = fresh()
        killed = strace(folder, argv, "-e", f"trace={calls}", "-e", f"inject={name}:signal=KILL:when={number}")
        if killed.returncode == 0:
            continue  # a call of a child process, without which the command goes on
        kills += 1
        if killed.returncode not in (-signal.SIGKILL, 128 + signal.SIGKILL):
            # The killed process was one that the command needs, as the compiler.
            assert killed.returncode in (1, 2) and re.fullmatch(r"se-\w+: \S.*\S\n", killed.stderr.decode()), killed
        left = contents(folder)
        lost = {file for file, data in before.items() if file not in in_place and left.get(file) != data}
        assert not lost, f"{name} {number}: {lost}"
        again = subprocess.run(argv, cwd=folder, capture_output=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL)
        assert again.returncode == 0, f"{name} {number}: {again.stderr.decode()[-800:]}"
        now = contents(folder)
        assert now.keys() == reference.keys(), f"{name} {number}: {now.keys() ^ reference.keys()}"
        differ = [file for file in now if now[file] != reference[file]]
        differ = [file for file in differ if without_clock(file, now[file]) != without_clock(file, reference[file])]
        assert not differ, f"{name} {number}: {differ}"
    return kills, complete


@pytest.mark.parametrize("case", CASES)
def test_a_kill_at_every_call(case, tmp_path, rng):
    kills, _ = campaign(case, tmp_path, SAMPLED.get(case), rng)
    assert kills
