"""se-enhance through the shell: files, lists, live pipes, kills, and every kind of bad input."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

import numpy as np
import pytest

from conftest import MINI, PATIENCE, ROOT, command
from setk import audio
from setk.data.datadir import DataDir
from setk.data.lists import read_list, write_list


def noise(seconds, rate=16000, channels=1, seed=0):
    return (np.random.default_rng(seed).standard_normal((channels, int(seconds * rate))) * 0.1).astype(np.float32)


@pytest.fixture
def noisy(tmp_path):
    path = tmp_path / "noisy ü.wav"
    audio.write(path, noise(1.3), 16000)
    return path


@pytest.fixture
def scp(tmp_path):
    table = {u: ROOT / p for u, p in list(read_list(MINI / "test/noisy.scp").items())[:5]}
    write_list(tmp_path / "n.scp", table)
    return tmp_path / "n.scp"


@pytest.mark.parametrize(
    "rate, channels, suffix", [(16000, 1, ".wav"), (48000, 2, ".wav"), (44100, 1, ".flac"), (8000, 2, ".flac")]
)
def test_a_file_keeps_rate_channels_and_length(se, untrained, tmp_path, rate, channels, suffix):
    n = int(1.1 * rate) + 13
    audio.write(tmp_path / f"in{suffix}", noise(2, rate, channels)[:, :n], rate)
    done = se("enhance", untrained, tmp_path / f"in{suffix}", tmp_path / f"out{suffix}")
    assert done.returncode == 0 and not done.stdout, done.err
    assert audio.probe(str(tmp_path / f"out{suffix}")) == audio.Info(rate, channels, n)
    x, y = (audio.read(str(tmp_path / f"{k}{suffix}"))[0] for k in ("in", "out"))
    assert 1e-3 < np.abs(x - y).max()
    # Aligned: no other lag correlates better with the input.
    lags = range(-40, 41)
    scores = [float(np.dot(x[0, 100:-100], np.roll(y[0], lag)[100:-100])) for lag in lags]
    assert lags[int(np.argmax(scores))] == 0


def test_a_long_file_shows_progress(se, untrained, noisy, tmp_path, monkeypatch):
    quiet = se("enhance", untrained, noisy, tmp_path / "a.wav").err
    assert " s left" not in quiet
    monkeypatch.setattr("setk.cli.shell.SECONDS_BETWEEN_LINES", 0)
    lines = se("enhance", untrained, noisy, tmp_path / "b.wav").err.splitlines()
    shown = [line for line in lines if " of 1.3 s, " in line]
    assert shown and all(line.startswith("se-enhance: ") and line.endswith(" s left") for line in shown)
    assert shown[-1].startswith("se-enhance: 1.3 s of 1.3 s")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


@pytest.mark.full
def test_the_same_input_gives_the_same_bytes(se, untrained, noisy, tmp_path):
    for k in (1, 2):
        assert se("enhance", untrained, noisy, tmp_path / f"{k}.wav").returncode == 0
    assert (tmp_path / "1.wav").read_bytes() == (tmp_path / "2.wav").read_bytes()
    outs = [se("enhance", untrained, "-", "-", input=noisy.read_bytes()).stdout for _ in range(2)]
    assert outs[0] == outs[1]
    (tmp_path / "p.wav").write_bytes(outs[0])
    a, b = audio.read(str(tmp_path / "p.wav"))[0], audio.read(str(tmp_path / "1.wav"))[0]
    assert a.shape == b.shape and np.abs(a - b).max() <= 1.01 / 32768


class Live:
    """se-enhance - - as a live process: what has come out so far, without blocking."""

    def __init__(self, *args):
        self.process = subprocess.Popen(
            command("enhance", *args), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.out, self.sent = b"", 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while chunk := os.read(self.process.stdout.fileno(), 65536):
            self.out += chunk

    def feed(self, data: bytes):
        self.sent += len(data)
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def wait_for(self, size: int, seconds: float = PATIENCE) -> bool:
        end = time.monotonic() + seconds
        while len(self.out) < size and time.monotonic() < end:
            time.sleep(0.01)
        return len(self.out) >= size

    def finish(self) -> int:
        self.process.stdin.close()
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code


def test_a_pipe_gives_audio_as_it_comes_with_the_latency_declared(untrained):
    """After n samples in, all but the 256-sample overlap of the frames that are complete must be out."""
    live = Live(untrained, "-", "-", "--raw")
    pcm = audio.to_int16(noise(1))[0][0]
    for n in (512, 2048, 5000):
        live.feed(pcm[live.sent // 2 : n].tobytes())
        assert live.wait_for(2 * (n // 256 * 256 - 256)), (n, len(live.out))
        assert len(live.out) == 2 * (n // 256 * 256 - 256)
    assert live.finish() == 0
    assert len(live.out) == 2 * 5000


def test_a_click_comes_out_where_it_went_in(se, untrained):
    pcm = np.zeros(16000, "<i2")
    pcm[7000] = 30000
    done = se("enhance", untrained, "-", "-", "--raw", input=pcm.tobytes())
    out = np.frombuffer(done.stdout, "<i2")
    assert len(out) == 16000 and abs(int(np.abs(out).argmax()) - 7000) <= 1
    assert "algorithmic latency 32.0 ms" in done.err


@pytest.mark.parametrize("samples", [0, 1, 255, 256, 257])
def test_odd_lengths_through_a_pipe(se, untrained, samples):
    x = audio.wav_header(16000, 1, samples) + b"\x10\x00" * samples
    done = se("enhance", untrained, "-", "-", input=x)
    assert done.returncode == 0 and len(done.stdout) == 44 + 2 * samples, done.err


def test_an_input_that_dies_leaves_valid_audio_and_says_so(se, untrained, noisy, tmp_path):
    audio.write(noisy, noise(2.6), 16000)
    half = noisy.read_bytes()[:20001]
    done = se("enhance", untrained, "-", "-", input=half)
    assert done.returncode == 1 and "truncated" in done.err
    (tmp_path / "o.wav").write_bytes(done.stdout)
    assert audio.read(str(tmp_path / "o.wav"))[0].shape == (1, (20001 - 44) // 2)
    done = se("enhance", untrained, "-", tmp_path / "file.wav", input=half)
    assert done.returncode == 1 and not (tmp_path / "file.wav").exists()


@pytest.mark.full
def test_a_reader_that_leaves_is_no_error_message(untrained, noisy):
    pipe = " ".join(f"'{a}'" for a in command("enhance", untrained, "-", "-"))
    done = subprocess.run(
        ["bash", "-c", f"cat '{noisy}' '{noisy}' | {pipe} | head -c 100 | wc -c; echo ${{PIPESTATUS[1]}}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    count, status = done.stdout.split()
    assert count == "100" and status in ("0", "141") and "Traceback" not in done.stderr and "Broken" not in done.stderr


def test_a_list_does_not_depend_on_jobs_or_shards(se, untrained, scp, tmp_path):
    outs = {}
    for name, options in [("one", []), ("two", ["--jobs", 2])]:
        done = se("enhance", untrained, "--list", scp, "--out", tmp_path / name, *options)
        assert done.returncode == 0, done.err
        outs[name] = read_lines(done)
        assert list(outs[name]) == list(read_list(scp))
    parts = [
        se("enhance", untrained, "--list", scp, "--out", tmp_path / "three", "--shard", f"{k}/3") for k in (1, 2, 3)
    ]
    outs["three"] = {u: p for done in parts for u, p in read_lines(done).items()}
    files = [{u: open(p, "rb").read() for u, p in sorted(out.items())} for out in outs.values()]
    assert files[0] == files[1] == files[2]


def read_lines(done):
    return dict(line.split(" ", 1) for line in done.out.splitlines())


def test_failures_are_named_counted_and_told_by_the_exit_code(se, untrained, scp, tmp_path):
    with open(scp, "a") as f:
        f.write(f"gone {tmp_path}/gone.wav\npipe false |\ndir {tmp_path}\n")
    done = se("enhance", untrained, "--list", scp, "--out", tmp_path / "o")
    assert done.returncode == 1 and len(read_lines(done)) == 5
    assert all(
        word in done.err for word in ("gone: ", "no such file", "--allow-commands", "directory", "5 done, 3 failed")
    )
    assert se("enhance", untrained, "--list", scp, "--out", tmp_path / "o", "--max-fail", 3).returncode == 0


def test_rerunning_keeps_what_is_whole_and_redoes_what_changed(se, untrained, scp, tmp_path):
    out = tmp_path / "o"
    first = read_lines(se("enhance", untrained, "--list", scp, "--out", out))
    stamps = {u: os.stat(p).st_mtime_ns for u, p in first.items()}
    changed = list(first)[2]
    table = read_list(scp)
    audio.write(tmp_path / "new.wav", noise(1), 16000)
    table[changed] = str(tmp_path / "new.wav")
    write_list(scp, table)
    again = read_lines(se("enhance", untrained, "--list", scp, "--out", out))
    assert [u for u, p in again.items() if os.stat(p).st_mtime_ns != stamps[u]] == [changed]
    assert audio.probe(again[changed]).frames == 16000


def test_files_of_two_models_do_not_mix(se, untrained, scp, tmp_path):
    import torch

    from setk import checkpoint, models

    torch.manual_seed(1)
    checkpoint.save(tmp_path / "other.pt", models.build_preset("fspen"), {})
    assert se("enhance", untrained, "--list", scp, "--out", tmp_path / "o").returncode == 0
    done = se("enhance", tmp_path / "other.pt", "--list", scp, "--out", tmp_path / "o")
    assert done.returncode == 2 and "another model sha256" in done.err and "choose another output" in done.err


@pytest.mark.full
def test_kill_in_the_middle_of_a_list_tears_nothing(untrained, tmp_path, se):
    paths = {}
    for i in range(12):
        paths[f"u{i:02d}"] = tmp_path / f"{i}.wav"
        audio.write(paths[f"u{i:02d}"], noise(6, seed=i), 16000)
    write_list(tmp_path / "n.scp", paths)
    argv = command("enhance", untrained, "--list", tmp_path / "n.scp", "--out", tmp_path / "o")
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for _ in range(4):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    # What was being written may be left under its temporary, hidden name, which pathlib's glob sees too.
    there = sorted(p for p in (tmp_path / "o").glob("*.wav") if not p.name.startswith("."))
    assert 4 <= len(there) < 12
    assert all(audio.probe(str(p)).frames == 96000 for p in there)
    assert se("enhance", untrained, "--list", tmp_path / "n.scp", "--out", tmp_path / "o").returncode == 0
    se("enhance", untrained, "--list", tmp_path / "n.scp", "--out", tmp_path / "whole")
    assert all(
        (tmp_path / "o" / f"{u}.wav").read_bytes() == (tmp_path / "whole" / f"{u}.wav").read_bytes() for u in paths
    )


def test_the_first_score_comes_before_the_last_file(untrained, tmp_path):
    """se-enhance ... | se-score ...: scp lines are scored as they come."""
    fifo = tmp_path / "late.wav"
    os.mkfifo(fifo)
    table = list(read_list(MINI / "test/noisy.scp").items())[:2]
    (tmp_path / "n.scp").write_text("".join(f"{u} {ROOT / p}\n" for u, p in table) + f"late {fifo}\n")
    refs = read_list(MINI / "test/clean.scp")
    (tmp_path / "c.scp").write_text(
        "".join(f"{u} {ROOT / refs[u]}\n" for u, _ in table) + f"late {ROOT / refs[table[0][0]]}\n"
    )
    enhance = subprocess.Popen(
        command("enhance", untrained, "--list", tmp_path / "n.scp", "--out", tmp_path / "o"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    score = subprocess.Popen(
        command("score", "--ref", tmp_path / "c.scp", "-", "--metrics", "si_sdr"),
        cwd=ROOT,
        stdin=enhance.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    enhance.stdout.close()
    header, first = score.stdout.readline(), score.stdout.readline()
    assert header.startswith("utt\tsi_sdr") and first.startswith(table[0][0])
    assert enhance.poll() is None  # it is waiting for the last input, which nobody has written yet
    with open(fifo, "wb") as f:
        f.write(open(ROOT / table[0][1], "rb").read())
    rest = score.stdout.read().splitlines()
    assert [line.split("\t")[0] for line in rest] == [table[1][0], "late"]
    assert enhance.wait(PATIENCE) == 0 and score.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    "args, words",
    [
        (["nope", "a.wav", "b.wav"], "no trained model|no model is called"),
        (["{m}"], "write 'se-enhance MODEL"),
        ([], "MODEL is missing"),
        (["{m}", "{noisy}", "o.xyz"], "cannot be written"),
        (["{m}", "{noisy}", "o.wav", "--raw"], "--raw is for pipes"),
        (["{m}", "--list", "{noisy}.scp", "--out", "o"], "no such list"),
        (["{m}", "--list", "{noisy}"], "--out DIR"),
        (["{noisy}", "{noisy}", "o.wav"], "not a checkpoint"),
    ],
)
def test_usage_errors_are_one_line_and_code_2(se, untrained, noisy, tmp_path, args, words):
    import re

    done = se(
        "enhance",
        *[a.format(m=untrained, noisy=noisy) for a in args],
        env={**os.environ, "PYTHONPATH": ""},
        cwd=tmp_path,
    )
    assert done.returncode == 2 and len(done.err.strip().splitlines()) == 1 and re.search(words, done.err), done.err


@pytest.mark.full
def test_a_full_disk_and_an_unwritable_output(se, untrained, noisy, tmp_path):
    with open("/dev/full", "wb") as full:
        argv = command("enhance", untrained, noisy, "-")
        done = subprocess.run(argv, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "No space left" in done.stderr and "Traceback" not in done.stderr
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", small], capture_output=True).returncode == 0:
        try:
            done = se("enhance", untrained, noisy, small / "o.wav")
            assert done.returncode == 1 and "No space left" in done.err
            assert not list(small.iterdir())
        finally:
            subprocess.run(["umount", small], check=True)
    (tmp_path / "file").write_text("")
    done = se("enhance", untrained, noisy, tmp_path / "file" / "o.wav")
    assert done.returncode in (1, 2) and "file" in done.err


def test_clipping_is_told(se, untrained, tmp_path):
    audio.write(tmp_path / "loud.wav", np.sign(noise(1)) * 0.999, 16000)
    done = se("enhance", untrained, tmp_path / "loud.wav", tmp_path / "o.wav")
    assert done.returncode == 0 and " samples clipped" in done.err


def test_a_model_that_wants_the_whole_signal_is_refused_live_unless_told_how_long_to_wait(se, tmp_path):
    noisy = next(iter(DataDir(MINI / "test").pairs().values()))[0]
    sound = (ROOT / noisy).read_bytes()
    done = se("enhance", "fqse-small", "-", "-", input=sound)
    assert done.returncode == 2 and "not causal" in done.err and "--chunk" in done.err and done.out == ""
    done = se("enhance", "fqse-small", "--list", MINI / "test/noisy.scp", "--out", tmp_path / "out", "--batch", 2)
    assert done.returncode == 2 and "--jobs" in done.err
    assert se("enhance", "fqse-small", noisy, tmp_path / "whole.wav").returncode == 0
    live = se("enhance", "fqse-small", "-", "-", "--chunk", 60, input=sound)
    (tmp_path / "live.wav").write_bytes(live.stdout)
    whole, piped = (audio.read(str(tmp_path / name))[0] for name in ("whole.wav", "live.wav"))
    assert live.returncode == 0 and np.array_equal(whole, piped)
