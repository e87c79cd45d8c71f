"""Places that cannot be written or read: one line with the operating system's reason, the right exit code, nothing changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import MINI, ROOT, SMALL, command

MODEL = ROOT / "setk" / "pretrained" / "fspen.pt"
# The root user without the right to pass over permissions.
UNPRIVILEGED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


@pytest.fixture
def inputs(tmp_path) -> Path:
    """Two pairs with lists, noise, and a training config."""
    folder = tmp_path / "in"
    folder.mkdir()
    for kind in ("noisy", "clean"):
        entries = []
        for source in sorted((MINI / "test" / kind).glob("*.flac"))[:2]:
            x, rate = soundfile.read(source, dtype="float32", frames=8000)
            soundfile.write(folder / f"{kind}_{source.stem}.wav", x, rate)
            entries.append(f"{source.stem} {folder}/{kind}_{source.stem}.wav\n")
        (folder / f"{kind}.scp").write_text("".join(entries))
    soundfile.write(folder / "n.wav", 0.1 * np.random.default_rng(1).standard_normal(16000), 16000)
    (folder / "noise.scp").write_text(f"n {folder}/n.wav\n")
    data_dir(folder / "data", folder)
    (folder / "config.yaml").write_text(
        SMALL + "batch: 1\nsteps: 2\nlosses: {l1: 1}\nmetrics: [si_sdr]\nbest: si_sdr\n"
    )
    return folder


def data_dir(path: Path, inputs: Path, fault: str = "") -> None:
    path.mkdir()
    for kind in ("noisy", "clean"):
        (path / f"{kind}.scp").write_text((inputs / f"{kind}.scp").read_text() + fault)


def fill(place: Path, inputs: Path) -> None:
    """Data directories in `place`, one of them with an utterance that has no files."""
    data_dir(place / "good", inputs)
    data_dir(place / "bad", inputs, "zz none.wav\n")


# Command line for inputs {i} and a place {p} to write to.
WRITERS = {
    "enhance": "enhance fspen {i}/n.wav {p}/o.wav",
    "enhance flac": "enhance fspen {i}/n.wav {p}/o.flac",
    "enhance list": "enhance fspen --list {i}/noisy.scp --out {p}/o",
    "enhance batch": "enhance fspen --list {i}/noisy.scp --out {p} --batch 2",
    "enhance jobs": "enhance fspen --list {i}/noisy.scp --out {p} --jobs 2",
    "report": "enhance fspen {i}/n.wav {i}/o.wav --report {p}/o.tsv",
    "summary": "score --ref {i}/clean.scp {i}/noisy.scp --metrics si_sdr --summary {p}/s.json",
    "html": "score --ref {i}/clean.scp {i}/noisy.scp --metrics si_sdr --html {p}/s.html",
    "pairs": "prep pairs {i}/noisy.scp {i}/clean.scp {p}/new",
    "sources": "prep sources --speech {i}/clean.scp --noise {i}/noise.scp {p}",
    "mix": "prep mix --speech {i}/clean.scp --noise {i}/noise.scp --snr 5 {p}/new",
    "resample": "prep resample {i}/noisy.scp {p}/new --rate 8000",
    "shards": "prep shards {i}/data {p}/shards",
    "fix": "prep fix {p}/bad",
    "split": "prep split {p}/good 2",
    "ptq": "quant ptq {m} {p}/o.pt --list {i}/noisy.scp",
    "export": "quant export {m} {p}/o.onnx",
    "c": "quant export {m} {p}/o.c",
    "prune": "prune {m} {p}/o.pt --method magnitude --amount 0.3",
    "train": "train {i}/config.yaml --train {i}/data --valid {i}/data --out {p}/o",
}
DEFAULT = (
    "enhance",
    "enhance flac",
    "enhance list",
    "enhance batch",
    "summary",
    "pairs",
    "fix",
    "shards",
)  # the rest is slow


def argv(line: str, **places: Path) -> list[str]:
    name, *args = line.format(m=MODEL, **{key: str(path) for key, path in places.items()}).split()
    return command(name, *args)


def names_in(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def refused(done: subprocess.CompletedProcess, reason: str) -> None:
    assert done.returncode == 1 and reason in done.stderr and "Traceback" not in done.stderr, done.stderr


def run(argv: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)


CASES = [pytest.param(name, marks=() if name in DEFAULT else pytest.mark.full) for name in WRITERS]


@pytest.mark.full
@pytest.mark.parametrize("case", CASES)
def test_a_read_only_file_system(inputs, tmp_path, case):
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        fill(place, inputs)
        before = names_in(place)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        refused(run(argv(WRITERS[case], i=inputs, p=place)), "Read-only file system")
        assert names_in(place) == before
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def unprivileged():
    """What to put before a command, for it to need permissions."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed (apt-get install util-linux)")
    if subprocess.run([*UNPRIVILEGED, "true"], capture_output=True).returncode:
        pytest.skip("setpriv is not permitted here")
    return UNPRIVILEGED


@pytest.mark.full
@pytest.mark.parametrize("case", CASES)
def test_a_folder_without_permission(inputs, tmp_path, case, unprivileged):
    place = tmp_path / "closed"
    place.mkdir()
    fill(place, inputs)
    before = names_in(place)
    for folder in (place / "good", place / "bad", place):
        folder.chmod(0o555)
    refused(run([*unprivileged, *argv(WRITERS[case], i=inputs, p=place)]), "Permission denied")
    assert names_in(place) == before


@pytest.mark.full
@pytest.mark.parametrize(
    "closed, line, code",
    [
        ("n.wav", "enhance fspen {i}/n.wav {p}/o.wav", 1),
        ("noisy.scp", "enhance fspen --list {i}/noisy.scp --out {p}", 2),
        ("noisy_mona_0001.wav", "enhance fspen --list {i}/noisy.scp --out {p}", 1),
        ("noisy_mona_0001.wav", "score --ref {i}/clean.scp {i}/noisy.scp --metrics si_sdr", 1),
        ("clean.scp", "score --ref {i}/clean.scp {i}/noisy.scp --metrics si_sdr", 2),
        ("noisy_mona_0001.wav", "prep check {i}/data", 1),
        ("config.yaml", "train {i}/config.yaml --train {i}/data --valid {i}/data --out {p}/o", 2),
        ("model.pt", "enhance {i}/model.pt {i}/n.wav {p}/o.wav", 2),
        ("model.onnx", "enhance {i}/model.onnx {i}/n.wav {p}/o.wav", 2),
        ("scores.tsv", "score --compare {i}/scores.tsv {i}/scores.tsv", 2),
    ],
)
def test_inputs_without_permission(inputs, tmp_path, closed, line, code, unprivileged):
    for suffix in ("pt", "onnx"):
        shutil.copy(MODEL.with_suffix(f".{suffix}"), inputs / f"model.{suffix}")
    (inputs / "scores.tsv").write_text("utt\tstoi\terror\na\t1\t\n")
    (inputs / closed).chmod(0)
    (tmp_path / "out").mkdir()
    done = run([*unprivileged, *argv(line, i=inputs, p=tmp_path / "out")])
    output = done.stdout + done.stderr  # se-prep check prints its table to standard output
    assert done.returncode == code and "Permission denied" in output and "Traceback" not in output, output
