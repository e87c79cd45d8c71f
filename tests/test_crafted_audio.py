"""Recordings, lists and options that somebody made up: one line with the reason, the right exit code, and the next utterance."""

from __future__ import annotations

import struct
import subprocess

import numpy as np
import pytest
import soundfile
from conftest import PATIENCE, ROOT, command
from setk import audio
from setk.core.errors import AudioError, UserError

SAMPLES = 8000


@pytest.fixture
def samples():
    return soundfile.read(ROOT / "data/mini/test/noisy/mona_0001.flac", dtype="int16", frames=SAMPLES)[0]


@pytest.fixture
def recording(tmp_path, samples):
    soundfile.write(tmp_path / "good.wav", samples, 16000)
    return tmp_path / "good.wav"


def refused(done, words: str, code: int = 2) -> None:
    assert done.returncode == code and words in done.err and len(done.err.strip().splitlines()) == 1, done.err


def wav(data: bytes, rate: int = 16000, channels: int = 1) -> bytes:
    """A wav with any rate and any number of channels in its header."""
    align = 2 * channels
    layout = struct.pack("<HHIIHH", 1, channels, rate, rate * align % 2**32, align % 2**16, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt \x10\0\0\0"
        + layout
        + b"data"
        + struct.pack("<I", len(data))
        + data
    )


def rf64(data: bytes, sizes: bytes) -> bytes:
    """An RF64 file whose ds64 chunk is `sizes`."""
    head = wav(b"")
    chunk = b"ds64" + struct.pack("<I", len(sizes)) + sizes + bytes(len(sizes) % 2)
    return b"RF64\xff\xff\xff\xffWAVE" + chunk + head[12:36] + b"data\xff\xff\xff\xff" + data


@pytest.mark.parametrize("size", [0, 1, 4, 7, 8, 12, 15, 16, 24, 28])
def test_ds64_chunks_of_any_size(se, tmp_path, samples, size):
    sizes = struct.pack("<QQQI", 0, samples.nbytes, SAMPLES, 0)[:size]
    (tmp_path / "a.wav").write_bytes(rf64(samples.tobytes(), sizes))
    assert np.array_equal(audio.to_int16(audio.read(tmp_path / "a.wav")[0])[0][0], samples)
    assert audio.probe(tmp_path / "a.wav") == audio.Info(16000, 1, SAMPLES)
    done = se("enhance", "fspen", "-", "-", input=rf64(samples.tobytes(), sizes))
    assert done.returncode == 0 and len(done.stdout) == 44 + samples.nbytes, done.err


def test_a_ds64_chunk_with_a_false_size(se, samples):
    for size, words in ((samples.nbytes + 2 * 16000, "truncated"), (2**64 - 1, "truncated")):
        done = se("enhance", "fspen", "-", "-", input=rf64(samples.tobytes(), struct.pack("<QQQI", 0, size, 0, 0)))
        assert done.returncode == 1 and words in done.err, done.err


@pytest.mark.full
@pytest.mark.parametrize(
    "rate, channels",
    [(0, 1), (1, 1), (999, 1), (768001, 1), (4 * 10**9, 1), (2**32 - 1, 1), (16000, 0), (16000, 257), (16000, 32767), (16000, 65535)],
)  # fmt: skip
def test_rates_and_channels_beyond_the_limits(se, tmp_path, recording, samples, rate, channels):
    data = wav(samples.tobytes(), rate, channels)
    (tmp_path / "a.wav").write_bytes(data)
    refused(se("enhance", "fspen", "-", "-", input=data), "standard input", 1)
    refused(se("enhance", "fspen", tmp_path / "a.wav", tmp_path / "o.wav"), "a.wav", 1)
    (tmp_path / "l.scp").write_text(f"a {tmp_path}/a.wav\nb {recording}\n")
    for options in ([], ["--batch", 2]):
        done = se("enhance", "fspen", "--list", tmp_path / "l.scp", "--out", tmp_path / f"o{len(options)}", *options)
        assert done.returncode == 1 and "a: " in done.err and "1 done, 1 failed" in done.err, done.err
    done = se("score", "--ref", tmp_path / "l.scp", tmp_path / "l.scp", "--metrics", "si_sdr")
    assert done.returncode == 1 and "1 done, 1 failed" in done.err and done.out.count("\n") == 3, done.err


@pytest.mark.parametrize("name", ["a.raw", "a.RAW", "a.wav.raw", "a.txt", "a", "a.sph"])
def test_samples_without_a_header(se, tmp_path, recording, samples, name):
    (tmp_path / name).write_bytes(samples.tobytes())
    refused(se("enhance", "fspen", tmp_path / name, tmp_path / "o.wav"), name, 1)
    for read in (audio.read, audio.probe):
        with pytest.raises(AudioError):
            read(tmp_path / name)
    (tmp_path / "l.scp").write_text(f"a {tmp_path / name}\nb {recording}\n")
    done = se("score", "--ref", tmp_path / "l.scp", tmp_path / "l.scp", "--metrics", "si_sdr")
    assert done.returncode == 1 and "1 done, 1 failed" in done.err, done.err


@pytest.mark.parametrize("name", ["o.raw", "o.txt", "o", "o.wav.raw", "o."])
def test_outputs_of_no_format(se, tmp_path, recording, name):
    refused(se("enhance", "fspen", recording, tmp_path / name), "cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["good.wav"]


@pytest.mark.parametrize("rate", ["1e10", "2e9", "2000000000", "9" * 40, "0", "-5", "1", "nan"])
@pytest.mark.parametrize(
    "line", ["score {f} {f} --metrics si_sdr", "prep resample {l} {o}", "prep shards {d} {o}", "prep mix --speech {l} --noise {l} --snr 5 {o}"]
)  # fmt: skip
def test_rates_that_no_file_has(se, tmp_path, recording, line, rate):
    (tmp_path / "l.scp").write_text(f"a {recording}\n")
    (tmp_path / "d").mkdir()
    for name in ("noisy", "clean"):
        (tmp_path / "d" / f"{name}.scp").write_text(f"a {recording}\n")
    name, *args = line.format(f=recording, l=tmp_path / "l.scp", d=tmp_path / "d", o=tmp_path / "o").split()
    refused(se(name, *args, "--rate", rate), "--rate")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("rate", [0, -1, 0.5, 16000.5, 2 * 10**9, float("inf"), float("nan")])
def test_rates_of_arrays(rate):
    import setk

    x = np.sin(np.arange(4000) / 9)
    for call in (lambda: setk.enhance("fspen", x, rate), lambda: setk.score(x, x, rate, ["si_sdr"])):
        with pytest.raises(UserError, match="rate"):
            call()


@pytest.mark.parametrize("prefix", ["sum:", "mix:"])
@pytest.mark.parametrize(
    "fields",
    [
        '"length": 1e999, "rate": 16000', '"length": Infinity, "rate": 16000', '"length": 268435456, "rate": 16000',
        '"length": 5, "rate": 4000000000', '"length": NaN, "rate": 16000', '"length": -1, "rate": 16000',
    ],
)  # fmt: skip
def test_mixtures_beyond_the_limits(se, tmp_path, recording, prefix, fields):
    entry = f'{prefix}{{{fields}, "parts": [{{"path": "{recording}"}}]}}'
    (tmp_path / "l.scp").write_text(f"a {entry}\nb {recording}\n")
    done = se("score", "--ref", tmp_path / "l.scp", tmp_path / "l.scp", "--metrics", "si_sdr", timeout=PATIENCE)
    assert done.returncode == 1 and "not a valid on-the-fly mixture" in done.err and "1 done, 1 failed" in done.err
    done = se("enhance", "fspen", "--list", tmp_path / "l.scp", "--out", tmp_path / "o", timeout=PATIENCE)
    assert done.returncode == 1 and "1 done, 1 failed" in done.err
    assert [path.name for path in (tmp_path / "o").glob("*.wav")] == ["b.wav"]


def test_a_zero_byte_in_a_path(se, tmp_path, recording):
    (tmp_path / "l.scp").write_bytes(f"a {recording}\0x\nb {recording}\n".encode())
    done = se("enhance", "fspen", "--list", tmp_path / "l.scp", "--out", tmp_path / "o")
    assert done.returncode == 1 and "a: " in done.err and "1 done, 1 failed" in done.err
    done = se("score", "--ref", tmp_path / "l.scp", tmp_path / "l.scp", "--metrics", "si_sdr")
    assert done.returncode == 1 and "1 done, 1 failed" in done.err


@pytest.mark.parametrize(
    "line, closed, code, words",
    [
        ("score --ref {l} - --metrics si_sdr", "<&-", 1, "0 done, 1 failed"),
        ("score --ref {l} {l} --metrics si_sdr", ">&-", 2, "standard output is closed"),
        ("prep resample - {o}", "<&-", 0, "0 done, 0 failed"),
        ("prep list {f}", ">&-", 2, "standard output is closed"),
        ("enhance fspen --list - --out {o}", "<&-", 0, "0 done, 0 failed"),
        ("count fspen", ">&-", 2, "standard output is closed"),
    ],
)
def test_closed_streams(tmp_path, recording, line, closed, code, words):
    (tmp_path / "l.scp").write_text(f"a {recording}\n")
    name, *args = line.format(l=tmp_path / "l.scp", o=tmp_path / "o", f=tmp_path).split()
    script = f'"$@" {closed}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *command(name, *args)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("pipe", [False, True])
def test_a_header_that_makes_libsndfile_seek_before_the_beginning(se, tmp_path, samples, pipe):
    path = tmp_path / "a.aiff"
    soundfile.write(path, samples, 16000)
    data = path.read_bytes()
    at = data.index(b"SSND")
    data = data[:at] + b"\xff" * 4 + data[at + 4 :]  # a chunk without an end or a name
    path.write_bytes(data)
    refused(
        se.process("enhance", "fspen", *(("-", "-") if pipe else (path, tmp_path / "o.wav")), input=data),
        "not an audio file",
        1,
    )
