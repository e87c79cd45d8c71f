"""A data directory is replaced as a unit: killed at any step, no list is lost, and the same command then completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from setk import audio
from setk.cli import prep
from setk.core import files
from setk.core.errors import UserError
from setk.data.datadir import DataDir

CALLS = ("replace", "rename", "unlink", "remove", "fsync", "mkdir", "rmdir")
KILLED = 77


@pytest.fixture(scope="module")
def wavs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wavs")
    generator = np.random.default_rng(0)
    for kind in ("noisy", "clean"):
        for utt in "abc":
            audio.write(folder / kind / f"{utt}.wav", generator.standard_normal(800) * 0.1, 16000)
    return folder


def make_pairs(wavs: Path, data: Path) -> None:
    """Pairs a, b and c. The last line of noisy.scp has no file, so that fix has something to do."""
    data.mkdir()
    for kind in ("noisy", "clean"):
        (data / f"{kind}.scp").write_text("".join(f"{utt} {wavs / kind / utt}.wav\n" for utt in "abc"))
    with open(data / "noisy.scp", "a") as f:
        f.write(f"d {wavs}/none.wav\n")
    (data / "utt2spk").write_text("a x\nb x\nc y\n")


def make_sources(wavs: Path, data: Path) -> None:
    data.mkdir()
    (data / "speech.scp").write_text(f"a {wavs}/clean/a.wav\n")
    (data / "noise.scp").write_text(f"b {wavs}/noisy/b.wav\n")


COMMANDS = {
    "fix": (make_pairs, ["fix", "data"]),
    "pairs": (make_pairs, ["pairs", "data/noisy.scp", "data/clean.scp", "data", "--max-fail", "1"]),
    "sources": (
        make_sources,
        ["sources", "data", "--speech", "data/speech.scp", "--noise", "data/noise.scp", "--rir", "data/speech.scp"],
    ),
}


def lists(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir() if p.is_file()}


def run(cwd: Path, args: list[str], kill: int, when: str) -> tuple[int, int]:
    """Run se-prep in a forked process that ends at its call number `kill` that changes the file system, `when` before or
    after the call took effect. Exit code and number of calls."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os._exit(_prep(cwd, args, kill, when, writer))
        finally:
            os._exit(99)
    os.close(writer)
    with open(reader) as f:
        calls = f.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(calls or 0)


def _prep(cwd: Path, args: list[str], kill: int, when: str, report: int) -> int:
    os.chdir(cwd)
    sys.stdout, sys.stderr = open("stdout", "w"), open("stderr", "w")
    calls = 0

    def counted(call):
        def wrapper(*args, **kwargs):
            nonlocal calls
            calls += 1
            mine = calls == kill
            if mine and when == "before":
                os._exit(KILLED)
            try:
                return call(*args, **kwargs)
            finally:
                if mine:
                    os._exit(KILLED)

        return wrapper

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    files._sweep.cache_clear()  # as a new process has it
    try:
        prep.app(args, prog_name="se-prep")
    except SystemExit as e:
        os.write(report, str(calls).encode())
        return e.code or 0
    return 98


@pytest.mark.full
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_every_call_loses_no_list_and_the_rerun_completes(wavs, tmp_path, name, when):
    make, args = COMMANDS[name]
    make(wavs, tmp_path / "data")
    old = lists(tmp_path / "data")
    code, total = run(tmp_path, args, 0, when)
    assert code == 0, (tmp_path / "stderr").read_text()
    new = lists(tmp_path / "data")
    assert new != old and total >= 10
    for kill in range(1, total + 1):
        here = tmp_path / f"{when}{kill}"
        here.mkdir()
        make(wavs, here / "data")
        assert run(here, args, kill, when)[0] == KILLED
        # Whoever opens the directory sees all old lists, or all new ones.
        opened = DataDir(here / "data")
        found = lists(opened.path)
        assert found in (old, new), (kill, found)
        assert run(here, args, 0, when)[0] == 0, (kill, (here / "stderr").read_text())
        assert lists(here / "data") == new
        assert [
            p.name for p in (here / "data").iterdir() if p.is_dir() and p.name not in (".backup", ".backup.2")
        ] == []
        shutil.rmtree(here)


def test_a_list_in_a_directory_that_was_left_half_replaced_is_the_new_one(tmp_path):
    data = DataDir.write(
        tmp_path / "data", {"noisy.scp": {"a": "n.wav"}, "clean.scp": {"a": "c.wav"}, "utt2spk": {"a": "x"}}
    )
    pending = tmp_path / "data" / ".replacing"
    pending.mkdir()
    (pending / "clean.scp").write_text("b new.wav\n")
    (pending / ".remove").write_text("utt2spk\nutt2dur")
    assert data.path.is_dir()
    files.finish_replacement(tmp_path / "data")
    assert lists(tmp_path / "data") == {"noisy.scp": "a n.wav\n", "clean.scp": "b new.wav\n"} and not pending.exists()


def test_a_replacement_that_others_finished_removes_nothing_of_the_next(tmp_path, monkeypatch):
    pending = tmp_path / ".replacing"
    pending.mkdir()
    (pending / "y").write_text("y")
    (pending / ".remove").write_text("x")

    def listed_late(folder):
        """What the folder holds; before this process goes on, another has finished it, and replaced x."""
        found = os_listdir(folder)
        monkeypatch.undo()
        files.replace_together(tmp_path, {"x": ["new"]})
        return found

    os_listdir = os.listdir
    monkeypatch.setattr(os, "listdir", listed_late)
    files.finish_replacement(tmp_path)
    assert (tmp_path / "x").read_text() == "new" and (tmp_path / "y").exists() and not pending.exists()


def test_a_bad_id_changes_nothing(tmp_path):
    DataDir.write(tmp_path, {"noisy.scp": {"a": "n.wav"}, "clean.scp": {"a": "c.wav"}})
    before = lists(tmp_path)
    with pytest.raises(UserError, match="cannot be an utterance id"):
        DataDir.write(tmp_path, {"noisy.scp": {"a b": "n.wav"}, "clean.scp": {"a b": "c.wav"}})
    assert lists(tmp_path) == before and os.listdir(tmp_path) == sorted(before, key=os.listdir(tmp_path).index)


@pytest.mark.parametrize(
    "tables, words", [(["utt2spk"], "not a complete"), (["noisy.scp", "clean.scp", "utt2spd"], "'utt2spk'")]
)
def test_tables_that_are_no_data_directory_replace_none(tmp_path, tables, words):
    DataDir.write(tmp_path, {"noisy.scp": {"a": "n.wav"}, "clean.scp": {"a": "c.wav"}})
    before = lists(tmp_path)
    with pytest.raises(UserError, match=words):
        DataDir.write(tmp_path, {name: {"a": "b"} for name in tables})
    assert lists(tmp_path) == before


@pytest.mark.parametrize("value", ["", " ", "x\nb y.wav", "x.wav ", "x\0.wav", os.fsdecode(b"\xff.wav")])
def test_a_value_that_a_line_cannot_hold_is_refused(tmp_path, value):
    with pytest.raises(UserError, match="^a: .* cannot be in a list"):
        DataDir.write(tmp_path / "d", {"noisy.scp": {"a": value}, "clean.scp": {"a": "c.wav"}})
    assert not list((tmp_path / "d").glob("*.scp"))


def test_two_writers_leave_the_lists_of_one_of_them(tmp_path):
    code = (
        "import sys\nfrom setk.data.datadir import DataDir\n"
        "for i in range(20): DataDir.write(sys.argv[1], {n: {f'{sys.argv[2]}{k}': 'x.wav' for k in range(50)} "
        "for n in ('noisy.scp', 'clean.scp')})"
    )
    writers = [subprocess.Popen([sys.executable, "-P", "-c", code, str(tmp_path / "data"), who]) for who in "ab"]
    assert [w.wait() for w in writers] == [0, 0]
    pairs = DataDir(tmp_path / "data").pairs()
    assert len(pairs) == 50 and len({utt[0] for utt in pairs}) == 1
    assert sorted(os.listdir(tmp_path / "data")) == ["clean.scp", "noisy.scp"]
