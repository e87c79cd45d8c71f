"""se-enhance --live: what waits in the pipe is dropped, and the rest comes out."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess

import numpy as np
import pytest

from conftest import PATIENCE, ROOT, command
from setk import audio
from setk.audio.live import HOLD_S, KEEP_S, LiveSource
from setk.cli import meter
from setk.core.errors import UserError

RATE = 16000
KEPT, HELD = round(KEEP_S * RATE), round(HOLD_S * RATE)


class Pipe:
    """A pipe with a source that counts: sample i has the value i, so that what comes out shows what was dropped."""

    def __init__(self, channels=1, header=b""):
        self.out, self._in = os.pipe()
        self.channels, self.sent = channels, 0
        os.write(self._in, header)

    def send(self, frames):
        ramp = np.arange(self.sent, self.sent + frames).astype("<i2")
        assert os.write(self._in, np.repeat(ramp, self.channels).tobytes()) == 2 * frames * self.channels
        self.sent += frames

    def end(self):
        os.close(self._in)


def numbers(block):
    return audio.to_int16(block)[0].astype(int)


@pytest.mark.parametrize("wav, channels", [(False, 1), (True, 1), (True, 2)])
def test_what_waits_is_dropped_at_the_start_and_after_a_stall(wav, channels):
    pipe = Pipe(channels, audio.wav_header(RATE, channels, None) if wav else b"")
    drops = []
    pipe.send(15000 // channels)
    start = pipe.sent
    with open(pipe.out, "rb") as stream:
        source = LiveSource(stream, None if wav else audio.Info(RATE, channels, None), drops.append)
        assert source.info.rate == RATE and source.info.channels == channels
        blocks = source.blocks()
        assert np.array_equal(numbers(next(blocks))[-1], np.arange(start - KEPT, start))
        assert source.dropped == start - KEPT and drops == [source.dropped / RATE]
        for count in (1, 160, HELD):  # what a source in real time delivers stays complete
            pipe.send(count)
            assert np.array_equal(numbers(next(blocks))[0], np.arange(pipe.sent - count, pipe.sent))
        before = source.dropped
        pipe.send(HELD + 1)
        assert np.array_equal(numbers(next(blocks))[0], np.arange(pipe.sent - KEPT, pipe.sent))
        assert source.dropped == before + HELD + 1 - KEPT and len(drops) == 2
        pipe.end()
        assert not list(blocks)


def test_a_frame_that_is_cut_by_the_pipe_is_completed():
    pipe = Pipe(2)
    with open(pipe.out, "rb") as stream:
        blocks = LiveSource(stream, audio.Info(RATE, 2, None)).blocks()
        os.write(pipe._in, b"\1\0\2\0\3")
        assert numbers(next(blocks)).tolist() == [[1], [2]]
        os.write(pipe._in, b"\0\4\0")
        assert numbers(next(blocks)).tolist() == [[3], [4]]
        pipe.end()


def test_a_wav_with_a_size_ends_there_also_if_audio_was_dropped():
    pipe = Pipe(header=audio.wav_header(RATE, 1, 3000))
    pipe.send(3000)
    os.write(pipe._in, b"LIST\4\0\0\0INFO")
    pipe.end()
    with open(pipe.out, "rb") as stream:
        source = LiveSource(stream)
        (only,) = source.blocks()
    assert np.array_equal(numbers(only)[0], np.arange(3000 - KEPT, 3000)) and source.dropped == 3000 - KEPT


def test_a_file_is_not_a_live_source(se, untrained, tmp_path):
    audio.write(tmp_path / "x.wav", np.zeros(100), RATE)
    with open(tmp_path / "x.wav", "rb") as stream, pytest.raises(UserError, match="is a file"):
        LiveSource(stream)
    done = se("enhance", untrained, tmp_path / "x.wav", tmp_path / "y.wav", "--live")
    assert done.returncode == 2 and "--live is for standard input" in done.err


def running(model, pipe, *args, **options):
    return subprocess.Popen(
        command("enhance", model, "-", "-", "--live", "--raw", *args),
        cwd=ROOT,
        stdin=pipe.out,
        stdout=subprocess.PIPE,
        **options,
    )


@pytest.mark.full
def test_a_process_drops_what_came_while_it_loaded_and_while_it_was_stopped(untrained):
    pipe = Pipe()
    pipe.send(30000)
    process = running(untrained, pipe, stderr=subprocess.PIPE)
    assert f"dropped {(30000 - KEPT) / RATE:.3f} s of audio that waited" in process.stderr.readline().decode()
    pipe.send(1000)
    os.read(process.stdout.fileno(), 1)  # it is past the start
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    pipe.send(20000)
    pipe.end()
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and len(out) + 1 == 2 * (2 * KEPT + 1000)
    dropped = float(re.search(r"([\d.]+) s dropped", err.decode())[1])
    assert dropped == (50000 - 2 * KEPT) / RATE and err.decode().count("dropped") == 1


@pytest.mark.full
def test_the_output_is_that_of_what_was_kept(se, untrained):
    pipe = Pipe()
    pipe.send(8000)
    pipe.end()
    process = running(untrained, pipe, stderr=subprocess.PIPE)
    out, _ = process.communicate(timeout=PATIENCE)
    kept = np.arange(8000 - KEPT, 8000).astype("<i2").tobytes()
    assert out == se("enhance", untrained, "-", "-", "--raw", input=kept).stdout


@pytest.mark.full
def test_levels_are_drawn_on_a_terminal_only(untrained):
    screen, terminal = pty.openpty()
    pipe = Pipe()
    pipe.send(4000)
    process = running(untrained, pipe, stderr=terminal)
    os.close(terminal)
    shown = b""
    while b"dropped" not in shown:
        shown += os.read(screen, 4096)
    pipe.send(4000)
    pipe.end()
    process.communicate(timeout=PATIENCE)
    try:
        while data := os.read(screen, 4096):
            shown += data
    except OSError:  # a terminal ends so
        pass
    assert re.search(rb"\rin \[#+\.*\] +-\d+ dBFS  out \[[#.]+\] +-\d+ dBFS  reduction +\d+ dB", shown), shown


def test_bars_of_levels():
    assert meter.line(1.0, 1e-12).startswith(
        "in [" + "#" * meter.WIDTH + "]    0 dBFS  out [" + "." * meter.WIDTH + "]"
    )
    assert meter.line(1e-2, 1e-4).endswith("reduction  20 dB")
