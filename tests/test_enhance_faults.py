"""se-enhance where something is wrong: pipes that end early, outputs that are inputs, options and folders that do not fit."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile
from conftest import MINI, PATIENCE, ROOT, command
from setk import audio
from setk.data.lists import write_list

MONA = ROOT / "data/mini/test/noisy/mona_0001.flac"


@pytest.fixture
def samples():
    return soundfile.read(MONA, dtype="int16", frames=24000)[0]


@pytest.fixture
def recording(tmp_path, samples):
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    return tmp_path / "a.wav"


def refused(done, words: str, code: int = 2) -> None:
    """The command ended with `code` and one line that has `words`."""
    assert done.returncode == code and words in done.err and len(done.err.strip().splitlines()) == 1, done.err


def as_flac(x: np.ndarray) -> bytes:
    data = io.BytesIO()
    soundfile.write(data, x, 16000, format="FLAC")
    return data.getvalue()


def without_length(flac: bytes) -> bytes:
    """A FLAC whose STREAMINFO states 0 samples, which is: unknown, as an encoder writes to a pipe."""
    changed = bytearray(flac)
    assert changed[:4] == b"fLaC"
    changed[21] &= 0xF0
    changed[22:26] = bytes(4)
    return bytes(changed)


@pytest.mark.parametrize("missing", [1, 1152, 15999])
def test_a_pipe_that_ends_a_little_early_is_a_remark(se, samples, missing):
    data = audio.wav_header(16000, 1, len(samples)) + samples[:-missing].tobytes()
    done = se("enhance", "fspen", "-", "-", input=data)
    assert done.returncode == 0 and len(done.stdout) == 44 + 2 * (len(samples) - missing), done.err
    assert f"ends {missing / 16000:.3f} s before the length" in done.err
    done = se("enhance", "fspen", "-", "-", "--strict", input=data)
    assert done.returncode == 1 and "truncated" in done.err


def test_a_pipe_that_ends_a_second_early_is_an_error(se, samples):
    data = audio.wav_header(16000, 1, len(samples)) + samples[:-16000].tobytes()
    done = se("enhance", "fspen", "-", "-", input=data)
    assert done.returncode == 1 and "truncated" in done.err


def test_a_file_that_ends_early_is_an_error_on_standard_input_too(tmp_path, samples):
    (tmp_path / "cut.wav").write_bytes(audio.wav_header(16000, 1, len(samples)) + samples[:-100].tobytes())
    with open(tmp_path / "cut.wav", "rb") as f:
        done = subprocess.run(
            command("enhance", "fspen", "-", tmp_path / "o.wav"), cwd=ROOT, stdin=f, capture_output=True, text=True
        )
    assert done.returncode == 1 and "truncated" in done.stderr and not (tmp_path / "o.wav").exists()


def test_flac_of_unknown_length(se, samples, tmp_path):
    data = without_length(as_flac(samples))
    done = se("enhance", "fspen", "-", "-", input=data)
    assert done.returncode == 0 and len(done.stdout) == 44 + 2 * len(samples) and "states no length" in done.err
    assert se("enhance", "fspen", "-", "-", "--strict", input=data).returncode == 1
    (tmp_path / "a.flac").write_bytes(data)
    assert audio.probe(tmp_path / "a.flac").frames == len(samples)
    done = se("enhance", "fspen", tmp_path / "a.flac", tmp_path / "o.wav", "--quiet")
    assert done.returncode == 0 and not done.err and audio.probe(tmp_path / "o.wav").frames == len(samples)


def test_standard_output_that_is_a_file_gets_its_length(recording, samples, tmp_path):
    plain = command("enhance", "fspen", "-", "-")
    with open(recording, "rb") as source, open(tmp_path / "o.wav", "wb") as target:
        target.write(b"before")
        target.flush()
        subprocess.run(plain, cwd=ROOT, stdin=source, stdout=target, stderr=subprocess.DEVNULL, check=True)
        target.write(b"after")
    data = (tmp_path / "o.wav").read_bytes()
    assert data[:6] == b"before" and data[-5:] == b"after"
    assert data[6:50] == audio.wav_header(16000, 1, len(samples)) and len(data) == 55 + 2 * len(samples)
    with open(recording, "rb") as source, open(tmp_path / "o.wav", "ab") as target:  # >> cannot be overwritten
        subprocess.run(plain, cwd=ROOT, stdin=source, stdout=target, stderr=subprocess.DEVNULL, check=True)
    assert (tmp_path / "o.wav").read_bytes()[: len(data) + 44] == data + audio.wav_header(16000, 1, None)


@pytest.mark.parametrize("how", ["path", "symlink", "hard link", "dots"])
def test_the_input_is_not_overwritten(se, recording, tmp_path, how):
    before = recording.read_bytes()
    other = tmp_path / "b.wav"
    if how == "symlink":
        other.symlink_to(recording)
    elif how == "hard link":
        other.hardlink_to(recording)
    else:
        other = recording if how == "path" else tmp_path / ".." / tmp_path.name / "a.wav"
    refused(se("enhance", "fspen", recording, other), "same file")
    assert recording.read_bytes() == before
    with open(recording, "rb") as source:
        done = subprocess.run(command("enhance", "fspen", "-", other), cwd=ROOT, stdin=source, capture_output=True)
    assert done.returncode == 2 and recording.read_bytes() == before
    assert se("enhance", "fspen", recording, other, "--force").returncode == 0
    assert other.read_bytes() != before and audio.probe(other).frames == 24000


def test_a_folder_in_place_of_a_file_is_told_how_to_enhance_it(se, recording, tmp_path):
    refused(se("enhance", "fspen", tmp_path, tmp_path / "o"), f"--list {tmp_path} --out DIR")
    assert se("enhance", "fspen", "--list", tmp_path, "--out", tmp_path / "o").returncode == 0
    assert (tmp_path / "o/a.wav").exists()


@pytest.mark.parametrize("options", [[], ["--batch", 2], ["--jobs", 2]])
def test_a_list_does_not_overwrite_its_inputs(se, recording, tmp_path, options):
    before = recording.read_bytes()
    write_list(tmp_path / "n.scp", {"a": recording})
    done = se("enhance", "fspen", "--list", tmp_path / "n.scp", "--out", tmp_path, *options)
    refused(done, "same file")
    assert recording.read_bytes() == before and not (tmp_path / "provenance.json").exists()
    done = se("enhance", "fspen", "--list", tmp_path / "n.scp", "--out", tmp_path, "--force", *options)
    assert done.returncode == 0 and recording.read_bytes() != before


def test_files_that_setk_did_not_make_are_neither_taken_nor_lost(se, recording, tmp_path):
    """A recording in DIR with the name of an output, and one that is the input of another utterance."""
    (tmp_path / "o").mkdir()
    audio.write(tmp_path / "o/a.wav", np.full(100, 0.25), 16000)
    os.utime(tmp_path / "o/a.wav", (1e9, 1e9))
    before = (tmp_path / "o/a.wav").read_bytes()
    write_list(tmp_path / "n.scp", {"c": recording, "a": recording, "b": tmp_path / "o/a.wav"})
    call = ["enhance", "fspen", "--list", tmp_path / "n.scp", "--out", tmp_path / "o"]
    for _ in range(2):
        done = se(*call)
        assert done.returncode == 2 and "setk did not make it" in done.err
        assert (tmp_path / "o/a.wav").read_bytes() == before
    assert se(*call, "--force").returncode == 0 and audio.probe(tmp_path / "o/a.wav").frames == 24000


@pytest.mark.parametrize("options", [[], ["--batch", 2], ["--jobs", 2]])
def test_a_rerun_keeps_what_it_would_make_again_and_nothing_else(se, recording, tmp_path, options):
    other = tmp_path / "other.wav"
    audio.write(other, audio.read(recording)[0][:, 8000:], 16000)
    os.utime(other, (1e9, 1e9))  # older than any output

    def run(**entries):
        write_list(tmp_path / "n.scp", entries)
        out = ["--out", tmp_path / "o", "--allow-commands", *options]
        done = se("enhance", "fspen", "--list", tmp_path / "n.scp", *out)
        assert done.returncode == 0, done.err
        kept = re.search(r"(\d+) of \d+ kept", done.err)
        return int(kept[1]) if kept else 0, [audio.probe(tmp_path / f"o/{utt}.wav").frames for utt in entries]

    assert run(a=recording, b=f"cat {recording} |") == (0, [24000, 24000])
    assert run(a=recording, b=f"cat {recording} |") == (2, [24000, 24000])
    assert run(a=other, b=f"cat {other} |") == (0, [16000, 16000])
    os.utime(other, (2e9, 2e9))
    assert run(a=other, b=f"cat {other} |") == (1, [16000, 16000])
    assert run(a=recording, b=f"cat {recording} |") == (0, [24000, 24000])  # that they once were is no reason to keep
    assert run(a=other, b=f"cat {other} |") == (0, [16000, 16000])
    for path in (tmp_path / "o/.made").iterdir():
        path.write_bytes(path.read_bytes()[:-3])  # a kill
    assert run(b=f"cat {other} |", a=other)[0] < 2
    assert run(a=other, b=f"cat {other} |") == (2, [16000, 16000])


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="/proc has a file that cannot be read")
@pytest.mark.parametrize("options", [[], ["--batch", 2], ["--jobs", 2]])
def test_a_file_that_the_system_cannot_read_is_one_utterance(se, recording, tmp_path, options):
    write_list(tmp_path / "n.scp", {"a": recording, "b": "/proc/self/mem", "c": recording})
    done = se("enhance", "fspen", "--list", tmp_path / "n.scp", "--out", tmp_path / "o", *options)
    assert done.returncode == 1 and "b: /proc/self/mem: Input/output error" in done.err
    assert sorted(path.name for path in (tmp_path / "o").glob("*.wav")) == ["a.wav", "c.wav"]


def test_what_was_enhanced_in_place_is_not_enhanced_again(se, recording, tmp_path):
    write_list(tmp_path / "n.scp", {"a": recording})
    call = ["enhance", "fspen", "--list", tmp_path / "n.scp", "--out", tmp_path, "--force"]
    assert se(*call).returncode == 0
    once = recording.read_bytes()
    assert "1 of 1 kept" in se(*call).err and recording.read_bytes() == once


@pytest.mark.parametrize(
    "options",
    [["--subtype", "PCM16"], ["--suffix", ".xyz"], ["--chunk", "nan"], ["--suffix", ".flac", "--subtype", "FLOAT"]],
)
def test_a_failed_call_does_not_claim_the_folder(se, recording, tmp_path, options):
    write_list(tmp_path / "n.scp", {"a": recording})
    common = ["enhance", "fspen", "--list", tmp_path / "n.scp", "--out", tmp_path / "o"]
    refused(se(*common, *options), "")
    assert not (tmp_path / "o").exists()
    assert se(*common).returncode == 0


@pytest.mark.parametrize("options", [[], ["--batch", 2], ["--jobs", 2]])
def test_the_first_finished_file_claims_the_folder(se, recording, tmp_path, options):
    write_list(tmp_path / "bad.scp", {"a": tmp_path / "missing.wav"})
    out = ["--out", tmp_path / "o", *options]
    assert se("enhance", "fspen", "--list", tmp_path / "bad.scp", *out).returncode == 1
    write_list(tmp_path / "n.scp", {"a": recording})
    assert se("enhance", "fspen", "--list", tmp_path / "n.scp", "--subtype", "PCM_24", *out).returncode == 0
    assert json.loads((tmp_path / "o/provenance.json").read_text())["settings"]["subtype"] == "PCM_24"
    refused(se("enhance", "fspen", "--list", tmp_path / "n.scp", *out), "made with another subtype")


@pytest.mark.parametrize(
    "record",
    [
        "",
        "{",
        "[]",
        "null",
        '{"settings": 3}',
        '{"settings": null}',
        "[" * 100000,
        '{"settings": {"chunk": [1]}}',
        "\0é",
    ],
)
def test_a_damaged_provenance_is_one_line(se, recording, tmp_path, record):
    write_list(tmp_path / "n.scp", {"a": recording})
    (tmp_path / "o").mkdir()
    (tmp_path / "o/provenance.json").write_bytes(record.encode("latin1"))
    refused(se("enhance", "fspen", "--list", tmp_path / "n.scp", "--out", tmp_path / "o"), "provenance.json")


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e30"])
def test_chunks_out_of_range(se, recording, tmp_path, value):
    refused(se("enhance", "fspen", recording, tmp_path / "o.wav", "--chunk", value), "--chunk")


@pytest.mark.parametrize(
    "options", [["--rate", "-5"], ["--rate", "2000000000"], ["--channels", "100000"], ["--channels", "0"]]
)
def test_raw_formats_out_of_range(se, options):
    refused(se("enhance", "fspen", "-", "-", "--raw", *options, input=bytes(1000)), options[0])


@pytest.mark.parametrize(
    "options, words",
    [
        (["--batch", "100000"], "--batch"),
        (["--part", "²/3"], "--part"),
        (["--shard", "²/3"], "--part"),
        (["--part", "1/²"], "--part"),
    ],
)
def test_list_options_out_of_range(se, recording, tmp_path, options, words):
    write_list(tmp_path / "n.scp", {"a": recording})
    refused(se("enhance", "fspen", "--list", tmp_path / "n.scp", "--out", tmp_path / "o", *options), words)


@pytest.mark.parametrize("options", [[], ["--batch", 2]])
def test_long_ids(se, recording, samples, tmp_path, options):
    soundfile.write(tmp_path / "b.wav", samples[:8000], 16000)
    same = "é" * 110
    table = {
        "x" * 251: recording,
        "y" * 252: recording,
        "z" * 300: recording,
        f"{same}1": recording,
        f"{same}2": tmp_path / "b.wav",
    }
    write_list(tmp_path / "n.scp", table)
    done = se("enhance", "fspen", "--list", tmp_path / "n.scp", "--out", tmp_path / "o", *options)
    assert done.returncode == 1 and "3 done, 2 failed" in done.err and done.err.count("file name of") == 2
    lengths = {path.stem: audio.probe(path).frames for path in (tmp_path / "o").glob("*.wav")}
    assert lengths == {"x" * 251: 24000, f"{same}1": 24000, f"{same}2": 8000}


@pytest.mark.parametrize("text", ["", "\n \n\t\n", "\r\n\r\n", "\ufeff", "\ufeff\n\ufeff \r\n"])
def test_lists_without_entries(se, tmp_path, text):
    (tmp_path / "n.scp").write_text(text)
    done = se("enhance", "fspen", "--list", tmp_path / "n.scp", "--out", tmp_path / "o")
    assert done.returncode == 0 and "0 done, 0 failed" in done.err


@pytest.mark.parametrize("rate, channels", [(16000, 10), (768000, 1)])
def test_what_flac_cannot_hold_is_one_line(se, tmp_path, rate, channels):
    soundfile.write(tmp_path / "a.wav", np.zeros((1600, channels)), rate)
    refused(se("enhance", "fspen", tmp_path / "a.wav", tmp_path / "o.flac"), "use .wav", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav"]
    write_list(tmp_path / "n.scp", {"a": tmp_path / "a.wav"})
    done = se("enhance", "fspen", "--list", tmp_path / "n.scp", "--out", tmp_path / "o", "--suffix", ".flac")
    assert done.returncode == 1 and "a: " in done.err and "use .wav" in done.err


@pytest.mark.parametrize("closed, code, words", [("<&-", 1, "is empty"), (">&-", 2, "standard output is closed")])
def test_closed_streams(tmp_path, closed, code, words):
    argv = command("enhance", "fspen", "-", tmp_path / "o.wav" if "<" in closed else "-")
    done = subprocess.run(["bash", "-c", f'"$@" {closed}', "bash", *argv], cwd=ROOT, input=b"", capture_output=True)
    assert done.returncode == code and words in done.stderr.decode() and b"Traceback" not in done.stderr
    done = subprocess.run(["bash", "-c", '"$@" 2>&-', "bash", *argv], cwd=ROOT, input=b"", capture_output=True)
    assert done.returncode == 1


def small_disk(size: int, *argv) -> subprocess.CompletedProcess:
    """Run a command that can write no file beyond `size` bytes, which looks as a full disk does to libsndfile."""
    return subprocess.run(
        ["bash", "-c", 'ulimit -f "$1"; shift; exec "$@"', "bash", str(size // 1024), *command(*argv)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_limit_of_the_file_size_leaves_no_torn_file(recording, tmp_path, suffix):
    complete = tmp_path / f"complete{suffix}"
    assert small_disk(1 << 20, "enhance", "fspen", recording, complete).returncode == 0
    blocks = os.stat(complete).st_size // 1024
    for limit in (1, blocks // 2, blocks):  # the last lacks less than a block
        done = small_disk(limit * 1024, "enhance", "fspen", recording, tmp_path / f"o{suffix}")
        assert done.returncode == 1 and "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1, (
            done.stderr
        )
        assert not (tmp_path / f"o{suffix}").exists()
        assert not [path for path in tmp_path.iterdir() if ".tmp" in path.name]


@pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs")
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_full_disk_leaves_no_torn_file(recording, tmp_path, suffix):
    complete = tmp_path / f"complete{suffix}"
    assert small_disk(1 << 20, "enhance", "fspen", recording, complete).returncode == 0
    size = os.stat(complete).st_size
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        for free in (0, size // 2, size - 1):
            pages = 256 - -(-free // 4096) * 4 + (4 if free % 4096 else 0)
            (small / "full").write_bytes(bytes(pages * 1024))
            done = subprocess.run(
                command("enhance", "fspen", recording, small / f"o{suffix}"), cwd=ROOT, capture_output=True, text=True
            )
            assert done.returncode == 1 and "No space left" in done.stderr and "Traceback" not in done.stderr, (
                done.stderr
            )
            assert [path.name for path in small.iterdir()] == ["full"]
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_report_or_page_overwrites_neither_input_nor_output(se, recording, tmp_path):
    before = recording.read_bytes()
    out = tmp_path / "o.wav"
    for options, words in (
        (["--report", recording], "is the input"),
        (["--html", recording], "is the input"),
        (["--report", out], "OUT and --report"),
        (["--report", tmp_path / "r", "--html", tmp_path / "." / "r"], "--report and --html"),
        (["--report", tmp_path], "is a directory"),
        (["--html", tmp_path], "is a directory"),
    ):
        refused(se("enhance", "fspen", recording, out, *options), words)
    model = tmp_path / "m.onnx"
    shutil.copyfile(ROOT / "setk/pretrained/fspen.onnx", model)
    for option in ("--report", "--html"):
        refused(se("enhance", model, recording, out, option, model), "is the input")
    assert model.read_bytes() == (ROOT / "setk/pretrained/fspen.onnx").read_bytes()
    model.unlink()
    lists = tmp_path / "l.scp"
    write_list(lists, {"a": recording})
    for option in ("--summary", "--html"):
        refused(se("score", "--ref", lists, lists, option, lists), "is the input")
        done = se("score", "--ref", lists, lists, option, recording, "--metrics", "si_sdr")
        assert done.returncode == 2 and "is the input" in done.err
    assert recording.read_bytes() == before and str(recording) in lists.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "l.scp"]


def test_a_report_that_cannot_be_written_is_named(se, recording, tmp_path):
    done = se("enhance", "fspen", recording, tmp_path / "o.wav", "--report", "/dev/full")
    assert done.returncode == 1 and "/dev/full" in done.err and "standard output" not in done.err


def test_an_empty_recording_has_no_page(se, tmp_path):
    audio.write(tmp_path / "e.wav", np.zeros((1, 0)), 16000)
    done = se("enhance", "fspen", tmp_path / "e.wav", tmp_path / "o.wav", "--html", tmp_path / "o.html")
    refused(done, "has no samples", 1)
    assert (tmp_path / "o.wav").exists() and not (tmp_path / "o.html").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_entry_cannot_be_standard_input_where_that_is_taken(se, recording, tmp_path, jobs):
    entries = f"a {recording}\nb -\nc {recording}\n"
    done = se("enhance", "fspen", "--list", "-", "--out", tmp_path / "o", "--jobs", jobs, input=entries.encode())
    assert (
        done.returncode == 1 and "b: standard input cannot be an entry" in done.err and "2 done, 1 failed" in done.err
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_a_wav_with_its_length(samples, tmp_path, number):
    with open(tmp_path / "o.wav", "wb") as out:
        process = subprocess.Popen(
            command("enhance", "fspen", "-", "-"),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=out,
            preexec_fn=lambda: signal.signal(
                number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            ),
        )  # nohup may have run the tests, and its children ignore SIGHUP
        process.stdin.write(audio.wav_header(16000, 1, None) + samples.tobytes())
        process.stdin.flush()
        while (tmp_path / "o.wav").stat().st_size < 44 + 2 * 20000:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number
        process.stdin.close()
    size = (tmp_path / "o.wav").stat().st_size
    assert audio.probe(tmp_path / "o.wav").frames == (size - 44) // 2 and (tmp_path / "o.wav").read_bytes()[40:44] == (
        size - 44
    ).to_bytes(4, "little")


def test_a_pipe_that_begins_with_one_byte_is_answered_at_once(samples):
    process = subprocess.Popen(
        command("enhance", "fspen", "-", "-"), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    data = audio.wav_header(16000, 1, None) + samples.tobytes()
    process.stdin.write(data[:1])
    process.stdin.flush()
    time.sleep(0.5)
    process.stdin.write(data[1:])
    process.stdin.flush()
    begin = process.stdout.read(44 + 2 * 20000)  # the input has not ended
    assert begin[:4] == b"RIFF" and len(begin) == 44 + 2 * 20000
    process.stdin.close()
    assert len(process.stdout.read()) == 2 * (len(samples) - 20000) and process.wait(PATIENCE) == 0


@pytest.mark.parametrize("live", [[], ["--live"]])
def test_a_file_with_a_header_is_not_taken_for_raw_samples(se, tmp_path, live):
    wav = (MINI / "test/noisy/mona_0001.flac").read_bytes()
    done = se("enhance", "fspen", "-", "-", "--raw", *live, input=wav)
    assert done.returncode == 1 and "begins as a wav, FLAC or Ogg file does" in done.err, done.err


def test_pipes_that_are_set_not_to_wait_lose_nothing(samples):
    parts = np.split(np.tile(samples, 5), 2)  # each more than a pipe holds
    (source, feed), (drain, target) = os.pipe(), os.pipe()
    for end in (source, target):
        os.set_blocking(end, False)
    argv = [*command("enhance", "fspen", "-", "-"), "--raw"]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=source, stdout=target)
    for end in (source, target):
        os.close(end)
    with open(drain, "rb") as out:
        writer = threading.Thread(target=_write_all, args=(feed, parts[0], False))
        writer.start()
        begin = out.read(2 * len(parts[0]) - 1024)  # the process waits for more
        writer.join()
        writer = threading.Thread(target=_write_all, args=(feed, parts[1], True))
        writer.start()
        writer.join(2)  # the pipe of the output is full
        rest = out.read()
        writer.join()
    assert process.wait(PATIENCE) == 0 and len(begin) + len(rest) == 10 * len(samples)


def _write_all(descriptor: int, samples: np.ndarray, close: bool) -> None:
    with open(descriptor, "wb", closefd=close) as stream:
        stream.write(samples.tobytes())
