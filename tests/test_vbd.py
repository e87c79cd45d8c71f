"""se-prep vbd as array jobs, and what it holds out (the rest of it is tested in test_prep.py)."""

from __future__ import annotations

import runpy
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import MINI, command

from setk.data.datadir import DataDir


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("vbd") / "Voice Bank ü"
    runpy.run_path(str(MINI / "trees.py"))["vbd"](place)
    return place


def wavs(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("[!.]*.wav")}


def test_array_jobs_make_the_same_wavs(root, tmp_path, se):
    assert se("prep", "vbd", root, tmp_path / "one").returncode == 0
    for k in (2, 1):
        done = se("prep", "vbd", root, tmp_path / "two", "--shard", f"{k}/2")
        assert done.returncode == 0 and not (tmp_path / "two/test").exists(), done.err
    assert wavs(tmp_path / "two") == wavs(tmp_path / "one")
    records = {path.parent.parent: set() for path in (tmp_path / "two").rglob(".made/*")}
    for path in (tmp_path / "two").rglob(".made/*"):
        records[path.parent.parent].add(path.name)
    assert all(len(names) == 2 for names in records.values()), (
        records
    )  # nodes that share a disk do not append to one file
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "two").rglob("*.wav")}
    assert se("prep", "vbd", root, tmp_path / "two").returncode == 0
    assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "two").rglob("*.wav")}
    assert list(DataDir(tmp_path / "two/test").pairs()) == ["p232_001", "p232_002", "p257_001"]


@pytest.mark.full
def test_a_killed_job_leaves_nothing_half_made_and_the_next_ends_its_work(root, tmp_path, se):
    assert se("prep", "vbd", root, tmp_path / "one").returncode == 0
    process = subprocess.Popen(
        command("prep", "vbd", root, tmp_path / "killed", "--shard", "1/1"), stderr=subprocess.DEVNULL
    )
    while not wavs(tmp_path / "killed") and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert wavs(tmp_path / "killed").items() <= wavs(tmp_path / "one").items()
    assert se("prep", "vbd", root, tmp_path / "killed").returncode == 0
    assert wavs(tmp_path / "killed") == wavs(tmp_path / "one")


def test_what_is_held_out_can_be_named_by_speaker_or_utterance(root, tmp_path, se):
    (tmp_path / "ids.txt").write_text("p227_002\r\np230_001\n")
    for valid, expected in (("p228, p230", ["p228_001", "p230_001"]), (tmp_path / "ids.txt", ["p227_002", "p230_001"])):
        assert se("prep", "vbd", root, tmp_path / "out", "--valid", valid).returncode == 0
        assert list(DataDir(tmp_path / "out/valid").pairs()) == expected
        train = DataDir(tmp_path / "out/train").pairs()
        assert len(train) == 5 and not set(expected) & set(train)


@pytest.mark.parametrize("valid, culprit", [("p226,p232", "p232"), ("ids.txt", "p232_001"), ("none.txt", "none.txt")])
def test_an_entry_that_occurs_nowhere_is_an_error(root, tmp_path, se, valid, culprit):
    (tmp_path / "ids.txt").write_text("p226_001\np232_001\n")
    done = se("prep", "vbd", root, "out", "--valid", valid, cwd=tmp_path)
    assert (
        done.returncode == 2
        and f"{culprit} is not in the training subset" in done.err
        and len(done.err.splitlines()) == 1
    ), done.err
    assert not (tmp_path / "out").exists()
