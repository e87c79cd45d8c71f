"""A kill at every system call that changes a directory: no input is lost, and the same command then ends as if nothing had been.

strace (Debian: strace) kills the process as it enters the n-th such call, for every n.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import soundfile
from conftest import MINI, ROOT, command

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
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed (apt-get install strace)"),
]


def strace(folder: Path, argv: list[str], *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["strace", "-f", "-qq", "-o", str(folder.parent / "trace"), *options, *argv],
        cwd=folder,
        capture_output=True,
        timeout=600,
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
}


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of the files below a folder; what killed processes left is not counted, nor how many backups there are."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".tmp" not in path.name and not any(part.startswith(".backup") for part in path.parts)
    }


@pytest.mark.parametrize("case", CASES)
def test_a_kill_at_every_call(case, tmp_path):
    prepare, argv = CASES[case]
    calls = ",".join(f"?{name}" for name in CALLS)

    def fresh(name: str) -> Path:
        # Every run is in a folder of the same name: paths are part of what is written.
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        (tmp_path / "run").mkdir()
        prepare(tmp_path / "run")
        return tmp_path / "run"

    folder = fresh("reference")
    before = contents(folder)
    done = strace(folder, argv, "-e", f"trace={calls}")
    assert done.returncode == 0, done.stderr.decode()
    reference = contents(folder)
    total = sum(
        1 for line in (tmp_path / "trace").read_text().splitlines() if re.match(rf"\d+ +({'|'.join(CALLS)})\(", line)
    )
    assert total >= 1
    in_place = {name for name in before if reference.get(name) != before[name]}
    for number in range(1, total + 1):
        folder = fresh(str(number))
        killed = strace(folder, argv, "-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={number}")
        if killed.returncode == 0:
            continue  # a call that only another thread makes
        assert killed.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), killed.stderr.decode()
        left = contents(folder)
        lost = {name for name, data in before.items() if name not in in_place and left.get(name) != data}
        assert not lost, f"call {number}: {lost}"
        again = subprocess.run(argv, cwd=folder, capture_output=True, timeout=600, stdin=subprocess.DEVNULL)
        assert again.returncode == 0, f"call {number}: {again.stderr.decode()[-800:]}"
        now = contents(folder)
        assert now.keys() == reference.keys(), f"call {number}: {now.keys() ^ reference.keys()}"
        differ = [name for name in now if now[name] != reference[name] and not name.endswith(".json")]
        assert not differ, f"call {number}: {differ}"
