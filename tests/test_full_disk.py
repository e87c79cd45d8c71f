"""se-prep shards on a file system without space: one line, exit code 1, nothing left."""

from __future__ import annotations

import subprocess

import pytest
from conftest import MINI, ROOT, command


@pytest.mark.full
@pytest.mark.parametrize("limit", [4, 100, 600])
def test_shards_without_space(tmp_path, limit):
    argv = command("prep", "shards", MINI / "valid", tmp_path / "s")
    script = f'ulimit -f {limit}; exec "$@"'
    done = subprocess.run(["bash", "-c", script, "bash", *argv], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "File too large" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not [path for path in (tmp_path / "s").iterdir() if path.suffix == ".h5"]


@pytest.mark.parametrize("size", [4, 100, 600])
def test_shards_on_a_full_disk(tmp_path, size):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        argv = command("prep", "shards", MINI / "valid", small / "s")
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1 and "No space left" in done.stderr and len(done.stderr.splitlines()) == 1
        assert not list((small / "s").iterdir())
    finally:
        subprocess.run(["umount", small], check=True)
