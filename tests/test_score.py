"""se-score, run as a real process, on good and on bad input."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import MINI, PATIENCE, ROOT, command

from setk import audio, metrics
from setk.audio import Location
from setk.core import files
from setk.data import lists
from setk.metrics import dnsmos
from setk.scoring import pairing, verify

FAST = ("--metrics", "stoi,si_sdr")
CLEAN, NOISY = MINI / "test" / "clean.scp", MINI / "test" / "noisy.scp"


def table(out: str) -> dict[str, dict[str, str]]:
    """utt -> column -> text of a score table."""
    head, *rows = (line.split("\t") for line in out.splitlines())
    assert head[0] == "utt" and head[-1] == "error" and all(len(row) == len(head) for row in rows)
    return {row[0]: dict(zip(head[1:], row[1:])) for row in rows}


@pytest.fixture
def corpus(tmp_path):
    """A directory with clean.scp and noisy.scp of four utterances, ids a to d, paths with blanks and umlauts."""
    rng = np.random.default_rng(3)
    for name in ("clean", "noisy"):
        (tmp_path / f"{name} übung").mkdir()
    for utt in "abcd":
        x = 0.1 * rng.standard_normal(8000)
        audio.write(tmp_path / "clean übung" / f"{utt} 1.wav", x, 16000)
        audio.write(tmp_path / "noisy übung" / f"{utt} 1.wav", x + 0.02 * rng.standard_normal(8000), 16000)
    for name in ("clean", "noisy"):
        lists.write_list(tmp_path / f"{name}.scp", {u: tmp_path / f"{name} übung" / f"{u} 1.wav" for u in "abcd"})
    return tmp_path


def scored(se, corpus, *args, **options):
    return se("score", "--ref", corpus / "clean.scp", corpus / "noisy.scp", *FAST, *args, **options)


def test_two_files(se):
    done = se("score", MINI / "test/clean/mona_0001.flac", MINI / "test/noisy/mona_0001.flac")
    ref, rate = audio.read_mono(str(MINI / "test/clean/mona_0001.flac"))
    expected, _ = metrics.compute(ref, audio.read_mono(str(MINI / "test/noisy/mona_0001.flac"))[0], rate)
    assert done.returncode == 0
    assert done.out.splitlines()[0] == "utt\tpesq_wb\tstoi\testoi\tsi_sdr\terror"
    assert table(done.out) == {"mona_0001": {**{k: repr(v) for k, v in expected.items()}, "error": ""}}


def test_two_files_one_on_standard_input(se):
    noisy = (MINI / "test/noisy/mona_0001.flac").read_bytes()
    done = se("score", MINI / "test/clean/mona_0001.flac", "-", *FAST, input=noisy)
    assert done.returncode == 0 and float(table(done.out)["-"]["si_sdr"]) == pytest.approx(2.82, abs=0.01)


def test_two_lists(se, tmp_path):
    done = se("score", "--ref", CLEAN, NOISY, *FAST, "--summary", tmp_path / "s.json")
    assert done.returncode == 0, done.err
    rows, noisy = table(done.out), lists.read_list(NOISY)
    assert list(rows) == list(noisy)
    summary = json.loads((tmp_path / "s.json").read_text())
    assert (summary["utterances"], summary["scored"], summary["failed"]) == (16, 16, {})
    for name in ("stoi", "si_sdr"):
        m = summary["metrics"][name]
        assert m["mean"] == pytest.approx(np.mean([float(row[name]) for row in rows.values()]), abs=1e-12)
        assert m["low"] < m["mean"] < m["high"] and m["scored"] == 16
        assert f"{name} {m['mean']:.3f} [{m['low']:.3f}, {m['high']:.3f}] over 16" in done.err
    assert set(summary["provenance"]["lists"]) == {str(CLEAN), str(NOISY)}
    assert set(summary["provenance"]["versions"]) >= {"numpy", "pesq"}


def test_rows_follow_the_list_and_floats_are_whole(se, corpus):
    lines = (corpus / "noisy.scp").read_text().splitlines()
    (corpus / "noisy.scp").write_text("\n".join(lines[::-1]) + "\n")
    rows = table(scored(se, corpus).out)
    assert list(rows) == list("dcba")
    assert all(repr(float(v)) == v for row in rows.values() for k, v in row.items() if k != "error")


def test_jobs_do_not_change_a_byte(se):
    one, two = (se("score", "--ref", CLEAN, NOISY, *FAST, "--jobs", n) for n in (1, 2))
    assert (one.out, one.err) == (two.out, two.err) and one.returncode == two.returncode == 0


def test_shards_together_are_the_whole(se, corpus):
    whole = table(scored(se, corpus).out)
    parts = [table(scored(se, corpus, "--shard", f"{k}/3").out) for k in (1, 2, 3)]
    assert [list(p) for p in parts] == [["a", "d"], ["b"], ["c"]]
    assert {**parts[0], **parts[1], **parts[2]} == whole


def test_jsonl_is_strict_json(se, corpus):
    (corpus / "clean übung" / "b 1.wav").unlink()
    done = scored(se, corpus, "--jsonl")
    rows = [json.loads(line, parse_constant=pytest.fail) for line in done.out.splitlines()]
    assert [row["utt"] for row in rows] == list("abcd") and done.returncode == 1
    assert rows[0]["error"] is None and rows[0]["stoi"] > 0.5
    assert rows[1]["stoi"] is None and "no such file" in rows[1]["error"]


@pytest.mark.full
def test_rows_come_while_standard_input_is_open(corpus):
    argv = command("score", "--ref", corpus / "clean.scp", "-", *FAST)
    lines = (corpus / "noisy.scp").read_text().splitlines(keepends=True)
    for jobs in (1, 2):
        with subprocess.Popen(
            [*argv, "--jobs", str(jobs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as p:
            assert p.stdout.readline().startswith("utt\t")
            for line in lines[:2]:
                p.stdin.write(line)
                p.stdin.flush()
                assert p.stdout.readline().startswith(line[0] + "\t")
            rest, _ = p.communicate()
        # The others are known to be missing when the pipe ends.
        assert [line.split("\t")[0] for line in rest.splitlines()] == ["c", "d"] and p.returncode == 1


def test_empty_standard_input(se, corpus):
    done = se("score", "--ref", corpus / "clean.scp", "-", *FAST, input=b"")
    assert done.returncode == 1 and "0 done, 4 failed" in done.err
    assert all("not in that of the enhanced files" in row["error"] for row in table(done.out).values())


def processes_marked(mark: str) -> list[str]:
    """Process ids of those that inherited SETK_TEST_MARK=mark."""

    def is_marked(pid: str) -> bool:
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                return f"SETK_TEST_MARK={mark}\0".encode() in f.read()
        except OSError:
            return False

    return [pid for pid in os.listdir("/proc") if pid.isdigit() and is_marked(pid)]


@pytest.mark.full
@pytest.mark.parametrize("jobs, lines", [(1, 1), (2, 3)])
def test_head_is_quiet_and_leaves_nobody_behind(tmp_path, jobs, lines):
    line = " ".join(f"'{word}'" for word in command("score", "--ref", CLEAN, NOISY, "--jobs", jobs))
    done = subprocess.run(
        ["bash", "-c", f"{line} | head -{lines}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "SETK_TEST_MARK": str(tmp_path)},
    )
    assert done.stdout.startswith("utt\tpesq_wb\tstoi\testoi\tsi_sdr\terror\n") and done.stdout.count("\n") == lines
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == ""
    if os.path.isdir("/proc/self"):
        deadline = time.monotonic() + PATIENCE
        while processes_marked(str(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not processes_marked(str(tmp_path))


@pytest.mark.parametrize(
    "fault", ["missing", "directory", "text", "empty", "NaN", "stereo", "rate", "length", "silent", "short"]
)
def test_one_bad_utterance_of_four(se, corpus, fault):
    """The other three are scored; the bad one is nan with a reason, named on stderr; exit 1, or 0 with --max-fail."""
    path = corpus / "noisy übung" / "b 1.wav"
    x, _ = audio.read_mono(str(path))
    path.unlink()
    reason = "no such file"
    if fault == "directory":
        path.mkdir()
        reason = "is a directory"
    elif fault in ("text", "empty"):
        path.write_text("no audio" if fault == "text" else "")
        reason = "not an audio file" if fault == "text" else "is empty"
    elif fault == "NaN":
        audio.write(path, np.where(np.arange(len(x)) == 5, np.nan, x), 16000, "FLOAT")
        reason = "NaN"
    elif fault == "stereo":
        audio.write(path, np.stack([x, x]), 16000)
        reason = "2 channels"
    elif fault == "rate":
        audio.write(path, x[::2], 8000)
        reason = "--rate 8000"
    elif fault == "length":
        audio.write(path, x[:7000], 16000)
        reason = "8000 samples (0.500 s), the estimate 7000 (0.438 s)"
    elif fault == "silent":
        audio.write(path, 0 * x, 16000)
        reason = "stoi, si_sdr: the estimate is silent"
    elif fault == "short":
        audio.write(corpus / "clean übung" / "b 1.wav", x[:2000], 16000)
        audio.write(path, x[:2000] * (1 + np.arange(2000) % 2), 16000)
        reason = "stoi: 0.125 s is too short"
    done = scored(se, corpus, "--summary", corpus / "s.json")
    rows = table(done.out)
    assert done.returncode == 1 and reason in rows["b"]["error"]
    assert rows["b"]["stoi"] == "nan" and (fault == "short") == (rows["b"]["si_sdr"] != "nan")
    assert f"se-score: b: {rows['b']['error']}" in done.err and "3 done, 1 failed" in done.err
    assert all(rows[utt]["error"] == "" for utt in "acd")
    summary = json.loads((corpus / "s.json").read_text())
    assert summary["failed"] == {"b": rows["b"]["error"]} and summary["scored"] == 3
    assert summary["metrics"]["stoi"]["mean"] == pytest.approx(np.mean([float(rows[u]["stoi"]) for u in "acd"]))
    assert scored(se, corpus, "--max-fail", 1).returncode == 0


def test_all_failed_has_no_mean(se, corpus):
    for path in (corpus / "noisy übung").iterdir():
        path.unlink()
    done = scored(se, corpus, "--summary", corpus / "s.json")
    summary = json.loads((corpus / "s.json").read_text(), parse_constant=pytest.fail)
    assert done.returncode == 1 and summary["scored"] == 0 and summary["metrics"]["stoi"]["mean"] is None


def test_tolerance_cuts_the_longer(se, corpus):
    path = corpus / "noisy übung" / "b 1.wav"
    x, _ = audio.read_mono(str(path))
    audio.write(path, x[:7900], 16000)
    assert scored(se, corpus, "--tolerance", 0.006).returncode == 1
    done = scored(se, corpus, "--tolerance", 0.00625)
    ref, _ = audio.read_mono(str(corpus / "clean übung" / "b 1.wav"))
    assert done.returncode == 0
    assert (
        float(table(done.out)["b"]["si_sdr"]) == metrics.compute(ref[:7900], x[:7900], 16000, ["si_sdr"])[0]["si_sdr"]
    )


def test_rate_resamples_both_sides(se, corpus):
    for utt in "abcd":
        path = corpus / "noisy übung" / f"{utt} 1.wav"
        x, rate = audio.read_mono(str(path))
        audio.write(path, audio.resample(x, rate, 48000), 48000)
    done = scored(se, corpus, "--rate", 8000)
    assert done.returncode == 0 and all(float(row["si_sdr"]) > 10 for row in table(done.out).values())


@pytest.mark.parametrize("rate", [8000, 11025])
def test_a_sample_of_the_coarser_rate_is_no_difference_in_length(se, corpus, rate):
    path, clean = (corpus / f"{kind} übung" / "b 1.wav" for kind in ("noisy", "clean"))
    x, _ = audio.read_mono(str(path))
    for length in (7999, 7998, 7997):
        audio.write(clean, audio.read_mono(str(clean))[0][:length], 16000)
        audio.write(path, audio.resample(x[:length], 16000, rate), rate)
        assert scored(se, corpus, "--rate", 16000).returncode == 0
    audio.write(path, audio.resample(x[:7900], 16000, rate), rate)
    assert "lengths differ" in scored(se, corpus, "--rate", 16000).err


def test_ids_in_one_list_only(se, corpus):
    clean, noisy = ((corpus / f"{n}.scp").read_text().splitlines(keepends=True) for n in ("clean", "noisy"))
    (corpus / "clean.scp").write_text("".join(clean[1:]))
    (corpus / "noisy.scp").write_text("".join(noisy[:3]))
    done = scored(se, corpus)
    rows = table(done.out)
    assert list(rows) == list("abcd") and done.returncode == 1 and "2 done, 2 failed" in done.err
    assert "not in the list of references" in rows["a"]["error"]
    assert "not in that of the enhanced" in rows["d"]["error"]


def test_utterances_missing_from_a_pipe_are_failures_as_in_a_list(se, corpus):
    part = "".join((corpus / "noisy.scp").read_text().splitlines(keepends=True)[1:3]).encode()
    done = se("score", "--ref", corpus / "clean.scp", "-", *FAST, input=part)
    rows = table(done.out)
    assert done.returncode == 1 and list(rows)[:2] == ["b", "c"] and "2 done" in done.err and "0 failed" not in done.err
    assert all("not in that of the enhanced files" in row["error"] for utt, row in rows.items() if utt not in "bc")


def test_crlf_lists_are_read(se, corpus):
    for name in ("clean.scp", "noisy.scp"):
        text = (corpus / name).read_bytes()
        (corpus / name).write_bytes(b"\r\n" + text.replace(b"\n", b"\r\n"))
    assert scored(se, corpus).returncode == 0


@pytest.mark.parametrize(
    "line, reason",
    [
        ("a x.wav", "duplicate id"),
        ("../up x.wav", "utterance id"),
        ("e", "no value"),
        ("e\udcff x.wav", "not a text file"),
    ],
)
@pytest.mark.parametrize("pipe", [False, True])
def test_bad_lists_are_usage_errors(se, corpus, line, reason, pipe):
    text = (corpus / "noisy.scp").read_bytes() + line.encode(errors="surrogateescape") + b"\n"
    (corpus / "noisy.scp").write_bytes(text)
    done = se("score", "--ref", corpus / "clean.scp", "-" if pipe else corpus / "noisy.scp", *FAST, input=text)
    assert done.returncode == 2 and reason in done.err.splitlines()[-1]
    if "text file" not in reason:
        assert ":5: " in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    "args, reason",
    [
        ((), "se-score clean.wav enhanced.wav"),
        (("a.wav",), "se-score clean.wav"),
        (("a", "b", "c"), "se-score clean.wav"),
        (("-", "-"), "standard input"),
        (("--ref", "-", "-"), "standard input"),
        (("--ref", "a"), "one wav list"),
        (("--ref", "nowhere.scp", "b.scp"), "no such list"),
        (("--metrics", "stio", "a", "b"), "did you mean 'stoi'"),
        (("--metrics", ",", "a", "b"), "no metrics"),
        (("--ref", CLEAN, NOISY, "--shard", "3/2"), "3/2"),
        (("a.wav", "b.wav", "--shard", "1/2"), "for lists"),
        (("--jobs", "0", "a", "b"), "--jobs"),
        (
            ("--metrics", "si_sdri,stoi,sdri", "a", "b"),
            "si_sdri, sdri: a gain needs the noisy signal; name it with --noisy",
        ),
        (("--metrics", "dnsmos_ovrl", "--dnsmos-model", "nowhere.onnx", "a", "b"), "nowhere.onnx"),
        (("--noisy", "-", "a", "-"), "standard input"),
        (("--ref", CLEAN, NOISY, "--by", "nowhere"), "nowhere: no such list"),
    ],
)
def test_usage_errors(se, args, reason):
    done = se("score", *args)
    assert done.returncode == 2 and reason in done.err


def test_commands_in_lists_run_only_when_allowed(se, corpus):
    lines = (corpus / "noisy.scp").read_text().splitlines()
    utt, path = lines[0].split(maxsplit=1)
    (corpus / "noisy.scp").write_text("\n".join([f"{utt} cat '{path}' |", *lines[1:3], "d false |"]) + "\n")
    done = scored(se, corpus)
    assert done.returncode == 1 and "--allow-commands" in table(done.out)["a"]["error"]
    rows = table(scored(se, corpus, "--allow-commands").out)
    assert rows["a"]["error"] == "" and "ended with code 1" in rows["d"]["error"]


def test_a_list_on_standard_input_is_not_audio_too(se, corpus):
    text = (corpus / "noisy.scp").read_text().splitlines(keepends=True)
    done = se("score", "--ref", corpus / "clean.scp", "-", *FAST, input="".join(["a -\n", *text[1:]]).encode())
    assert (
        done.returncode == 1
        and list(table(done.out)) == list("abcd")
        and "it is the list" in table(done.out)["a"]["error"]
    )


def test_an_entry_cannot_be_standard_input_of_several_processes(se, corpus):
    text = (corpus / "noisy.scp").read_text().splitlines(keepends=True)
    (corpus / "noisy.scp").write_text("".join(["a -\n", *text[1:]]))
    done = scored(se, corpus, "--jobs", 2)
    assert done.returncode == 1 and "several processes would share it" in table(done.out)["a"]["error"]


def test_file_names_that_are_no_utf8(se, corpus):
    odd = os.fsencode(corpus) + b"/b\xff 1.wav"
    os.rename(os.fsencode(corpus / "noisy übung" / "b 1.wav"), odd)
    done = se("score", corpus / "clean übung" / "b 1.wav", os.fsdecode(odd), *FAST, "--summary", corpus / "s.json")
    assert (
        done.returncode == 0 and list(table(done.out)) == ["b\\udcff_1"] and json.loads((corpus / "s.json").read_text())
    )


def test_list_metrics(se):
    done = se("score", "--list-metrics")
    assert [line.split("\t")[0] for line in done.out.splitlines()] == [
        "name",
        *metrics.METRICS,
    ] and done.returncode == 0
    rows = {line.split("\t")[0]: line.split("\t") for line in done.out.splitlines()}
    assert all(len(row) == 5 for row in rows.values()) and rows["stoi"][4] == rows["lsd"][4] == "here"
    done = se("score", "--list-metrics", "--dnsmos-p808-model", "nowhere.onnx")
    assert (
        "nowhere.onnx" in next(line for line in done.out.splitlines() if line.startswith("dnsmos_p808")).split("\t")[4]
    )


@pytest.mark.parametrize("args", [["--ref", str(CLEAN), str(NOISY), "--shard", "1/16"], ["--list-metrics"]])
def test_scoring_imports_neither_torch_nor_scipy(args):
    code = (
        "import sys\nfrom setk.cli import score\n"
        f"sys.argv = ['se-score', *{args!r}]\n"
        "try: score.main()\nexcept SystemExit as e: assert not e.code\n"
        "bad = [m for m in ('torch', 'scipy', 'pystoi', 'soxr', 'onnxruntime') if m in sys.modules]\nassert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    if "--ref" in args:
        assert math.isfinite(float(table(done.stdout)["mona_0001"]["pesq_wb"]))


def gone(path, x):
    path.unlink()


def truncated(path, x):
    path.write_bytes(path.read_bytes()[:-1000])


# What is done to the enhanced file of an utterance, and the beginning of the reason in its row.
FAULTS = {
    "missing": (gone, "no such file"),
    "truncated": (truncated, "is truncated: 1000 bytes of audio are missing"),
    "empty": (lambda path, x: path.write_bytes(b""), "is empty"),
    "text": (lambda path, x: path.write_text("no audio"), "is not an audio file"),
    "nan": (lambda path, x: audio.write(path, np.append(x[1:], np.nan), 16000, "FLOAT"), "has NaN"),
    "stereo": (lambda path, x: audio.write(path, np.stack([x, x]), 16000), "has 2 channels"),
    "rate": (lambda path, x: audio.write(path, x[::2], 8000), "the reference is at 16000 Hz, the estimate at 8000 Hz"),
    "length": (lambda path, x: audio.write(path, x[160:], 16000), "the estimate is 160 samples (10.0 ms) early"),
    "silent": (lambda path, x: audio.write(path, 0 * x, 16000), "stoi, si_sdr: the estimate is silent"),
    "short": (lambda path, x: audio.write(path, x[:2000], 16000), "stoi: 0.125 s is too short"),
    "no_ref": (lambda path, x: None, "is not in the list of references"),
}


def test_every_kind_of_bad_file_in_one_list(se, tmp_path):
    rng = np.random.default_rng(5)
    places = {"clean": {}, "noisy": {}}
    for utt in ("good", *FAULTS):
        x = 0.1 * rng.standard_normal(2000 if utt == "short" else 8000)
        for name, signal_ in (("clean", x), ("noisy", x + 0.02 * rng.standard_normal(len(x)))):
            places[name][utt] = path = tmp_path / f"{name}_{utt}.wav"
            audio.write(path, signal_, 16000)
        if utt in FAULTS:
            FAULTS[utt][0](path, audio.read_mono(str(path))[0])
    del places["clean"]["no_ref"]
    for name, place in places.items():
        lists.write_list(tmp_path / f"{name}.scp", place)
    outcomes = [scored(se, tmp_path, "--jobs", jobs, "--summary", tmp_path / "s.json") for jobs in (1, 2)]
    assert outcomes[0].out == outcomes[1].out and outcomes[0].err == outcomes[1].err
    rows = table(outcomes[0].out)
    assert list(rows) == sorted(["good", *FAULTS]) and outcomes[0].returncode == 1
    for utt, (_, reason) in FAULTS.items():
        assert reason in rows[utt]["error"] and rows[utt]["stoi"] == "nan"
        assert (utt == "short") == (rows[utt]["si_sdr"] != "nan")
        assert f"se-score: {utt}: {rows[utt]['error']}\n" in outcomes[0].err
    assert rows["good"]["error"] == "" and "1 done, 11 failed" in outcomes[0].err
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["failed"] == {utt: rows[utt]["error"] for utt in sorted(FAULTS)}
    assert summary["metrics"]["stoi"] == {"mean": float(rows["good"]["stoi"]), "low": None, "high": None, "scored": 1}
    assert scored(se, tmp_path, "--max-fail", 11).returncode == 0


@pytest.mark.parametrize(
    "change, advice",
    [
        (lambda x, y: x[:-100], "they begin together (offset 0): --tolerance SECONDS cuts the longer one"),
        (lambda x, y: x[333:], "the estimate is 333 samples (20.8 ms) early: pad its beginning"),
        (lambda x, y: np.append(np.zeros(48), -0.5 * x), "the estimate is 48 samples (3.0 ms) late: cut its beginning"),
        (lambda x, y: y[:-9], "no offset aligns the two"),
        (lambda x, y: x[:0], "no offset aligns the two"),
        (lambda x, y: 0 * x[1:], "no offset aligns the two"),
    ],
)
def test_lengths_that_differ_are_told_with_the_offset(change, advice):
    rng = np.random.default_rng(11)
    x, y = rng.standard_normal((2, 20000)).astype(np.float32)
    estimate = change(x + 0.3 * rng.standard_normal(len(x)).astype(np.float32), y)
    assert pairing._advice(x, estimate, 16000, "estimate").startswith(advice)


def test_gains_over_the_noisy_input(se, tmp_path):
    names = "si_sdr,si_sdri,sdr,sdri"
    enhanced = {}
    for utt in ("mona_0001", "noah_0002"):
        ref, est = (audio.read_mono(lists.read_list(path)[utt])[0] for path in (CLEAN, NOISY))
        enhanced[utt] = tmp_path / f"{utt}.wav"
        audio.write(enhanced[utt], 0.5 * (ref + est), 16000, "FLOAT")
    lists.write_list(tmp_path / "e.scp", enhanced)
    done = se(
        "score", "--ref", CLEAN, "-", "--noisy", NOISY, "--metrics", names, input=(tmp_path / "e.scp").read_bytes()
    )
    plain = se("score", "--ref", CLEAN, NOISY, "--metrics", "si_sdr,sdr")
    assert done.returncode == 1 and plain.returncode == 0 and "2 done, 14 failed" in done.err, done.err
    before = table(plain.out)
    for utt in enhanced:
        row = table(done.out)[utt]
        for name in ("si_sdr", "sdr"):
            assert float(row[name + "i"]) == pytest.approx(float(row[name]) - float(before[utt][name]), abs=1e-9)
            assert 5.5 < float(row[name + "i"]) < 6.5  # half of the noise is gone
    one = se(
        "score",
        lists.read_list(CLEAN)["mona_0001"],
        enhanced["mona_0001"],
        "--noisy",
        lists.read_list(NOISY)["mona_0001"],
        "--metrics",
        names,
    )
    assert one.returncode == 0 and table(one.out) == {"mona_0001": table(done.out)["mona_0001"]}


def test_a_bad_noisy_file_costs_the_gain_only(se, corpus):
    shutil.copy(corpus / "noisy.scp", corpus / "before.scp")
    x, _ = audio.read_mono(str(corpus / "noisy übung" / "a 1.wav"))
    audio.write(corpus / "long.wav", np.append(x, x[:50]), 16000)
    lists.write_list(
        corpus / "before.scp",
        {"a": corpus / "long.wav", "b": corpus / "gone.wav", "c": corpus / "noisy übung" / "c 1.wav"},
    )
    done = se(
        "score",
        "--ref",
        corpus / "clean.scp",
        corpus / "noisy.scp",
        "--noisy",
        corpus / "before.scp",
        "--metrics",
        "stoi,si_sdr,si_sdri",
    )
    rows = table(done.out)
    assert done.returncode == 1 and rows["c"] == {**rows["c"], "si_sdri": "0.0", "error": ""}
    assert rows["a"]["error"].startswith(
        "si_sdri: lengths differ: the reference has 8000 samples (0.500 s), the noisy signal 8050"
    )
    assert (
        "gone.wav: no such file" in rows["b"]["error"]
        and rows["d"]["error"] == "si_sdri: is not in the list of noisy files"
    )
    assert all(rows[u]["si_sdri"] == "nan" and rows[u]["si_sdr"] != "nan" for u in "abd")


def test_means_by_group(se, corpus):
    (corpus / "noisy übung" / "d 1.wav").unlink()
    snr, spk = corpus / "utt2snr", corpus / "utt2spk"
    lists.write_list(snr, {"a": "17.5", "b": "2.5", "c": "17.5", "elsewhere": "0"})
    lists.write_list(spk, {"a": "ann", "b": "ann", "c": "ann", "d": "dan"})
    done = scored(se, corpus, "--by", snr, "--by", spk, "--summary", corpus / "s.json")
    rows, summary = table(done.out), json.loads((corpus / "s.json").read_text())
    groups = summary["groups"]
    assert list(groups[str(snr)]) == ["2.5", "17.5"] and list(groups[str(spk)]) == ["ann", "dan"]
    wide = groups[str(snr)]["17.5"]["si_sdr"]
    assert (
        wide["mean"] == pytest.approx((float(rows["a"]["si_sdr"]) + float(rows["c"]["si_sdr"])) / 2)
        and wide["scored"] == 2
    )
    assert f"utt2snr 17.5: stoi {groups[str(snr)]['17.5']['stoi']['mean']:.3f} [" in done.err
    assert groups[str(snr)]["2.5"]["stoi"]["low"] is None
    assert groups[str(spk)]["ann"] == summary["metrics"] and groups[str(spk)]["dan"]["stoi"]["mean"] is None
    assert f"{snr} has no group for 1 utterance: d\n" in done.err and "utt2spk dan: no scores" in done.err
    assert {str(snr), str(spk)} <= set(summary["provenance"]["lists"])
    (corpus / "scores.tsv").write_text(done.out)
    scored(se, corpus, "--by", f"{corpus}/scores.tsv:si_sdr", "--bins", "0,10", "--summary", corpus / "again.json")
    hashes = json.loads((corpus / "again.json").read_text())["provenance"]["lists"]
    assert hashes[str(corpus / "scores.tsv")] == files.sha256(corpus / "scores.tsv")


def test_the_summary_of_two_files_names_them(se, tmp_path):
    clean, noisy = (next(iter(lists.read_wavs(path).values())) for path in (CLEAN, NOISY))
    assert se("score", clean, noisy, *FAST, "--summary", tmp_path / "s.json").returncode == 0
    hashes = json.loads((tmp_path / "s.json").read_text())["provenance"]["lists"]
    assert hashes == {str(path): files.sha256(path) for path in (clean, noisy)}


def test_a_report_from_lists_on_a_pipe(se, corpus):
    (corpus / "noisy übung" / "d 1.wav").unlink()
    done = se(
        "score",
        "--ref",
        corpus / "clean.scp",
        "-",
        *FAST,
        "--html",
        corpus / "r.html",
        "--noisy",
        corpus / "noisy.scp",
        "--by",
        MINI / "test" / "utt2spk",
        input=(corpus / "noisy.scp").read_bytes(),
    )
    page = (corpus / "r.html").read_text()
    assert done.returncode == 1 and list(table(done.out)) == list("abcd")
    assert all(word in page for word in ("si_sdr", "no such file", "4 utterances, 3 scored"))
    assert "has no group for 4 utterances: a, b, c, d" in done.err


def test_the_model_of_dnsmos_is_in_the_summary(se, tmp_path):
    if reason := metrics.availability("dnsmos_p808"):
        pytest.skip(f"dnsmos_p808 {reason}")
    model = dnsmos.model_file("dnsmos_p808", metrics.Extras())
    done = se(
        "score",
        "--ref",
        CLEAN,
        NOISY,
        "--shard",
        "1/8",
        "--metrics",
        "dnsmos_p808",
        "--dnsmos-p808-model",
        model,
        "--summary",
        tmp_path / "s.json",
    )
    stamp = json.loads((tmp_path / "s.json").read_text())["provenance"]
    assert (
        done.returncode == 0
        and stamp["dnsmos"] == {"dnsmos_p808": files.sha256(model)}
        and "onnxruntime" in stamp["versions"]
    )
    assert all(1 < float(row["dnsmos_p808"]) < 5 for row in table(done.out).values())


EXACT = ("pesq_wb", "pesq_nb", "stoi", "estoi")


def test_rows_to_verify_are_drawn_from_a_list_of_any_length(tmp_path):
    (tmp_path / "a.wav").touch()
    place = Location.parse(tmp_path / "a.wav")
    how = pairing.How(("stoi",), 0, 0.0, metrics.Extras())
    drawn = []
    for trial in range(300):
        sample = verify.Sample(how, 4)
        sample._rng = np.random.default_rng(trial)
        for i in range(12):
            score = math.nan if i == 5 else 0.5
            sample.add(pairing.Row(pairing.Pair(str(i), place, place), {"stoi": score}, ""))
        assert len(sample.rows) == 4
        drawn += [int(row.pair.utt) for row in sample.rows]
    counts = np.bincount(drawn, minlength=12)
    assert counts[5] == 0 and np.delete(counts, 5).min() > 60 and len(set(drawn)) == 11  # 109 each are expected


@pytest.mark.parametrize("args, count", [(["--verify"], 3), (["--verify", 2], 2), (["--verify", 2, "--jobs", 2], 2)])
def test_scores_agree_with_the_reference_implementations(se, args, count):
    done = se("score", "--ref", CLEAN, NOISY, "--part", "1/6", "--metrics", ",".join((*EXACT, "si_sdr")), *args)
    assert done.returncode == 0 and len(table(done.out)) == 3, done.err
    for name in EXACT:
        line = next(line for line in done.err.splitlines() if f"verify: {name}:" in line)
        assert f"over {count} utterances" in line and float(line.split("reference ")[1].split()[0]) < 1e-6
    assert "verify: si_sdr" not in done.err


def test_a_reference_that_random_numbers_decide_verifies_nothing(se, tmp_path):
    clean, rate = audio.read(MINI / "test/clean/mona_0001.flac")
    gap = clean.copy()
    gap[:, 8000:24000] = 0
    for name, x in (("clean", clean), ("gap", gap)):
        audio.write(tmp_path / f"{name}.wav", x, rate)
    for _ in range(3):
        done = se("score", tmp_path / "clean.wav", tmp_path / "gap.wav", "--metrics", "stoi,estoi", "--verify")
        assert done.returncode == 0 and "verify: estoi: left out 1:" in done.err, done.err
        assert "verify: stoi: largest difference" in done.err


def test_a_file_that_cannot_be_written_is_named_before_anything_is_scored(se, tmp_path):
    (tmp_path / "file").touch()
    wav = MINI / "test/clean/mona_0001.flac"
    for path, words in (
        (tmp_path, "is a directory"),
        (tmp_path / "file/s.json", "a file has the name"),
        ("x" * 300, "a file name of 300"),
    ):
        done = se("score", wav, wav, "--metrics", "si_sdr", "--summary", path)
        assert done.returncode == 2 and words in done.err and not done.out, done.err


def test_a_score_that_differs_from_its_reference_is_an_error(se, corpus, monkeypatch):

    stoi = verify.REFERENCES["stoi"]
    monkeypatch.setitem(verify.REFERENCES, "stoi", lambda ref, est, rate: stoi(ref, est, rate) + 2e-6)
    done = scored(se, corpus, "--verify")
    assert (
        done.returncode == 1
        and "verify: stoi: largest difference to the reference 2e-06" in done.err
        and "above 1e-06" in done.err
    )


@pytest.mark.parametrize(
    "args, reason",
    [(("--metrics", "si_sdr", "--verify"), "no reference implementation of si_sdr"), (("--verify", "0"), "--verify")],
)
def test_what_cannot_be_verified(se, args, reason):
    done = se("score", "--ref", CLEAN, NOISY, *args)
    assert done.returncode == 2 and reason in done.err and done.out == ""


def test_a_pipe_cannot_be_verified(se):
    noisy = (MINI / "test/noisy/mona_0001.flac").read_bytes()
    done = se("score", MINI / "test/clean/mona_0001.flac", "-", "--metrics", "stoi", "--verify", input=noisy)
    assert done.returncode == 1 and "stoi: no utterance can be recomputed" in done.err


def test_a_wrong_part_prints_no_header(se):
    done = se("score", "--ref", MINI / "test/clean.scp", MINI / "test/noisy.scp", "--part", "0/20")
    assert done.returncode == 2 and done.out == "" and "--part 0/20" in done.err
