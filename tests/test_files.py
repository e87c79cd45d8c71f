"""Files that are whole or not there, and what killed writers leave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from setk.core import files

WRITER = """
import sys, time
from setk.core import files
with files.atomic_path(sys.argv[1]) as tmp:
    tmp.write_bytes(b"half")
    print(tmp.name, flush=True)
    time.sleep(600)
"""
# The folder of a test is swept once by this process; a process of its own sweeps it again.
TOUCH = "import sys\nfrom setk.core import files\nfiles.write_text(sys.argv[1], 'whole')"


@pytest.fixture
def half_written(tmp_path):
    """A live writer of tmp_path/a.h5, and its temporary file."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", WRITER, tmp_path / "a.h5"], stdout=subprocess.PIPE, text=True
    )
    yield process, tmp_path / process.stdout.readline().strip()
    process.kill()
    process.wait()


def write_beside(folder) -> set[str]:
    """Write into a folder by another process; the names it then holds."""
    subprocess.run([sys.executable, "-P", "-c", TOUCH, folder / "b.txt"], check=True)
    assert (folder / "b.txt").read_text() == "whole"
    return set(os.listdir(folder)) - {"b.txt"}


def test_what_a_killed_process_leaves_is_swept_and_what_a_living_one_writes_is_not(half_written, tmp_path):
    process, tmp = half_written
    assert tmp.name.startswith(".a.") and tmp.suffix == ".h5"
    assert write_beside(tmp_path) == {tmp.name}
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert tmp.exists() and write_beside(tmp_path) == set()


def test_files_of_another_machine_are_swept_only_after_a_week(half_written, tmp_path):
    process, tmp = half_written
    process.kill()
    process.wait()
    elsewhere = tmp.rename(tmp_path / re.sub(r"[0-9a-f]{8}", "0123abcd", tmp.name))
    os.utime(elsewhere, (time.time() - 6 * 86400,) * 2)
    assert write_beside(tmp_path) == {elsewhere.name}
    os.utime(elsewhere, (time.time() - 8 * 86400,) * 2)
    assert write_beside(tmp_path) == set()


def test_hidden_files_of_others_are_left_alone(tmp_path):
    mine = {".backup", ".a.tmp", ".a.12.tmp.h5", f".x.{'0' * 8}.tmp.wav", "x.0123abcd.99999999.tmp.wav"}
    for name in mine:
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (0, 0))
    assert write_beside(tmp_path) == mine


def test_a_private_file_stays_private(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    path.chmod(0o600)
    files.write_text(path, "new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("stem", ["x" * 251, "é" * 125, os.fsdecode(b"\xff" * 251)])
def test_the_longest_name_that_a_file_system_takes_can_be_written(tmp_path, stem):
    files.write_text(tmp_path / f"{stem}.wav", "whole")
    assert os.listdir(tmp_path) == [f"{stem}.wav"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    files.write_text(tmp_path / "a", "old")
    with pytest.raises(RuntimeError), files.atomic_open(tmp_path / "a") as f:
        f.write(b"new")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/scores.json").write_text("old")
    (tmp_path / "link.json").symlink_to("run/scores.json")
    (tmp_path / "new.json").symlink_to("run/new.json")
    for name in ("link.json", "new.json"):
        files.write_text(tmp_path / name, name)
        assert (tmp_path / name).is_symlink() and (tmp_path / name).resolve().read_text() == name
    assert sorted(os.listdir(tmp_path / "run")) == ["new.json", "scores.json"]


def test_a_device_stays_a_device(tmp_path):
    (tmp_path / "null").symlink_to("/dev/null")
    files.write_text(tmp_path / "null", "text")
    assert (tmp_path / "null").is_char_device() and os.listdir(tmp_path) == ["null"]


def test_a_full_device_is_named(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as fault:
        files.write_text(tmp_path / "full", "text")
    assert fault.value.filename == str(tmp_path / "full")


def test_a_named_pipe_gets_the_bytes(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        files.write_text(tmp_path / "pipe", "text")
        assert reader.communicate()[0] == b"text"
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("place", ["file", "pipe"])
def test_standard_output_gets_the_bytes_after_what_was_printed(tmp_path, place):
    code = "import sys; from setk.core import files; print('first'); files.write_text('/proc/self/fd/1', 'second\\n'); print('third')"
    argv = [sys.executable, "-P", "-c", code]
    if place == "file":
        with open(tmp_path / "out", "wb") as out:
            subprocess.run(argv, stdout=out, check=True)
        found = (tmp_path / "out").read_text()
    else:
        found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert found.split() == ["first", "second", "third"]
