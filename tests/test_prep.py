"""se-prep as it is run at the shell."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import command

from setk import audio
from setk.core.errors import UserError
from setk.data import mixing, mixtures
from setk.data.datadir import DataDir
from setk.data.index import IndexedList
from setk.data.lists import read_list, write_list
from setk.data.shards import Shards


def wav(path: Path, rng: np.random.Generator, n: int = 3000, rate: int = 16000, scale: float = 0.1) -> Path:
    audio.write(path, rng.standard_normal(n) * scale, rate)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """relative path -> bytes of every file that is a result."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
        and p.name != "provenance.json"
    }


# --- pairs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path, rng):
    for kind in ("noisy", "clean"):
        for name, n in [
            ("a b.wav", 100),
            ("sub/ü.wav", 200),
            ("sub/deep/x.flac", 300),
            (".hidden.wav", 50),
            ("notes.txt", 10),
        ]:
            if name.endswith(".txt"):
                (tmp_path / kind / name).write_text("no audio")
            else:
                wav(tmp_path / kind / name, rng, n)
    return tmp_path


def test_pairs_of_folders(folders, se):
    done = se("prep", "pairs", "noisy", "clean", "out dir/data", cwd=folders)
    assert done.returncode == 0 and done.out == ""
    assert (
        folders / "out dir/data/noisy.scp"
    ).read_text() == "a_b noisy/a b.wav\nsub-deep-x noisy/sub/deep/x.flac\nsub-ü noisy/sub/ü.wav\n"
    data = DataDir(folders / "out dir/data")
    assert data.pairs()["sub-ü"] == ("noisy/sub/ü.wav", "clean/sub/ü.wav")
    assert {k: float(v) for k, v in data.table("utt2dur").items()} == {
        "a_b": 0.0063,
        "sub-ü": 0.0125,
        "sub-deep-x": 0.0187,
    }


@pytest.mark.parametrize("jobs", [1, 2])
def test_pairs_without_partner_or_unlike_are_named_and_left_out(folders, se, rng, jobs):
    wav(folders / "noisy/alone.wav", rng)
    wav(folders / "clean/solo.wav", rng)
    wav(folders / "clean/sub/ü.wav", rng, 201)
    (folders / "noisy/a b.wav").write_bytes(b"RIFF")
    done = se("prep", "pairs", "noisy", "clean", "out", "--jobs", jobs, cwd=folders)
    assert done.returncode == 1
    for words in (
        ["alone", "no partner in clean"],
        ["solo", "no partner in noisy"],
        ["sub-ü", "201"],
        ["a_b", "not a wav"],
    ):
        assert any(all(w in line for w in words) for line in done.err.splitlines()), (words, done.err)
    assert list(DataDir(folders / "out").pairs()) == ["sub-deep-x"]
    assert se("prep", "pairs", "noisy", "clean", "out", "--max-fail", 4, cwd=folders).returncode == 0


@pytest.mark.parametrize(
    "name, words",
    [("sub-ü.wav", ["sub-ü", "rename"]), ("ends in pipe |.wav", None), ("ends|", None), (" leads.wav", None)],
)
def test_names_that_make_one_id_or_no_path(folders, se, rng, name, words):
    for kind in ("noisy", "clean"):
        shutil.copy(folders / kind / "a b.wav", folders / kind / name)
    done = se("prep", "pairs", folders / "noisy", folders / "clean", folders / "out")
    assert done.returncode == (2 if words else 0)
    assert all(word in done.err for word in words or ())


def test_pairs_of_lists_with_crlf(folders, se):
    for kind in ("noisy", "clean"):
        (folders / f"{kind}.scp").write_bytes(f"u2 {kind}/sub/ü.wav\r\n\r\nu1 {kind}/a b.wav\r\n".encode())
    assert se("prep", "pairs", "noisy.scp", "clean.scp", "out", cwd=folders).returncode == 0
    assert (folders / "out/clean.scp").read_text() == "u1 clean/a b.wav\nu2 clean/sub/ü.wav\n"


def test_pairs_of_what_is_nothing(folders, se):
    (folders / "empty").mkdir()
    for args in (["noisy", "empty"], ["noisy", "none"], ["noisy/a b.wav", "clean"]):
        done = se("prep", "pairs", *args, "out", cwd=folders)
        assert done.returncode == 2 and len(done.err.splitlines()) == 1, done.err
    assert not (folders / "out").exists()


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_output_that_cannot_be_a_folder(folders, se, out):
    (folders / "file").write_text("mine")
    for args in (
        ["pairs", "noisy", "clean"],
        ["shards", "good"],
        ["sources", "--speech", "l.scp", "--noise", "l.scp"],
        ["mix", "--speech", "l.scp", "--noise", "l.scp", "--snr", 3],
        ["resample", "l.scp", "--rate", 8000],
    ):
        (folders / "l.scp").write_text("a noisy/a b.wav\n")
        if args[0] == "shards":
            assert se("prep", "pairs", "noisy", "clean", "good", cwd=folders).returncode == 0
        done = se("prep", args[0], *([args[1], out] if args[0] == "shards" else [*args[1:], out]), cwd=folders)
        assert done.returncode in (1, 2) and "file" in done.err, (args, done.err)
    assert (folders / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_output_that_may_not_be_written(folders, se):
    (folders / "shut").mkdir(mode=0o555)
    done = se("prep", "pairs", "noisy", "clean", "shut/out", cwd=folders)
    assert done.returncode == 1 and len(done.err.splitlines()) == 1


# --- VoiceBank+DEMAND ------------------------------------------------------------------------------------------------

VBD = {
    "trainset_28spk": ["p226_001", "p226_002", "p287_003", "p227_001", "p228_226"],
    "testset": ["p232_001", "p257_002"],
}


def vbd_tree(root: Path, rng: np.random.Generator, rate: int = 48000, suffix: str = "_wav") -> Path:
    for stem, utts in VBD.items():
        for i, utt in enumerate(utts):
            for kind in ("clean", "noisy"):
                wav(root / f"{kind}_{stem}{suffix}" / f"{utt}.wav", rng, rate // 10 + i, rate)
    (root / "logfiles").mkdir(exist_ok=True)
    (root / "logfiles/log_testset.txt").write_text("p232_001 bus 17.5\np257_002 cafe 2.5\n")
    (root / "log_trainset_28spk.txt").write_text(
        "".join(f"{u} kitchen {5 * i}\r\n" for i, u in enumerate(VBD["trainset_28spk"]))
    )
    return root


def test_vbd(tmp_path, rng, se):
    root = vbd_tree(tmp_path / "p226" / "VBD", rng)  # a folder called like a speaker must not hold all of it out
    originals = tree(root)
    done = se("prep", "vbd", root, tmp_path / "data", "--jobs", 2)
    assert done.returncode == 0, done.err
    assert "5 pairs" in done.err and "11,572" in done.err and "824" in done.err and "not comparable" in done.err
    found = {split: DataDir(tmp_path / "data" / split) for split in ("train", "valid", "test")}
    assert {s: list(d.pairs()) for s, d in found.items()} == {
        "train": ["p227_001", "p228_226"],
        "valid": ["p226_001", "p226_002", "p287_003"],
        "test": ["p232_001", "p257_002"],
    }
    assert found["valid"].table("utt2spk") == {"p226_001": "p226", "p226_002": "p226", "p287_003": "p287"}
    assert found["valid"].table("utt2snr") == {"p226_001": "0", "p226_002": "5", "p287_003": "10"}
    assert found["test"].table("utt2snr") == {"p232_001": "17.5", "p257_002": "2.5"}
    for data in found.values():
        for utt, (noisy, clean) in data.pairs().items():
            assert audio.probe(noisy) == audio.probe(clean) and audio.probe(noisy).rate == 16000
            assert abs(audio.probe(noisy).frames / 16000 - float(data.table("utt2dur")[utt])) < 1e-4
            assert Path(noisy).is_relative_to(tmp_path / "data/wav16k")
    source, _ = audio.read_mono(str(root / "noisy_testset_wav/p257_002.wav"))
    np.testing.assert_allclose(
        audio.read_mono(found["test"].pairs()["p257_002"][0])[0], audio.resample(source, 48000, 16000), atol=1e-4
    )
    assert tree(root) == originals
    for split in ("train", "test"):
        done = se("prep", "check", tmp_path / "data" / split)
        assert done.returncode == 0, done.out


@pytest.mark.full
def test_vbd_resumes_and_keeps_to_one_resampler(tmp_path, rng, se):
    root = vbd_tree(tmp_path / "VBD", rng)
    assert se("prep", "vbd", root, tmp_path / "data").returncode == 0
    wavs = sorted((tmp_path / "data/wav16k").rglob("*.wav"))
    times = {p: p.stat().st_mtime_ns for p in wavs}
    whole = tree(tmp_path / "data")
    wavs[3].unlink()
    (tmp_path / "data/train/clean.scp").unlink()
    assert se("prep", "vbd", root, tmp_path / "data", "--jobs", 2).returncode == 0
    assert tree(tmp_path / "data") == whole
    assert [p for p in wavs if p.stat().st_mtime_ns != times[p]] == [wavs[3]]
    done = se("prep", "vbd", root, tmp_path / "data", "--resampler", "resampy")
    assert done.returncode == 2 and "resampler" in done.err


def test_vbd_at_16_khz_is_used_in_place_without_logs(tmp_path, rng, se):
    root = vbd_tree(tmp_path / "VBD", rng, rate=16000, suffix="_wav_16k")
    shutil.rmtree(root / "logfiles")
    assert se("prep", "vbd", "VBD", "data", cwd=tmp_path).returncode == 0
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["test", "train", "valid"]
    test = DataDir(tmp_path / "data/test")
    assert test.pairs()["p232_001"][0] == "VBD/noisy_testset_wav_16k/p232_001.wav"
    assert not (test.path / "utt2snr").exists()


def test_vbd_partial_trees(tmp_path, rng, se):
    root = vbd_tree(tmp_path / "VBD", rng)
    (root / "noisy_testset_wav/p232_001.wav").unlink()
    (root / "clean_testset_wav/p257_002.wav").write_bytes((root / "clean_testset_wav/p257_002.wav").read_bytes()[:-10])
    shutil.rmtree(root / "noisy_trainset_28spk_wav")
    done = se("prep", "vbd", root, tmp_path / "data")
    assert done.returncode == 2 and "noisy_trainset_28spk_wav is missing" in done.err
    shutil.rmtree(root / "clean_trainset_28spk_wav")
    done = se("prep", "vbd", root, tmp_path / "data")
    assert done.returncode == 1 and "no trainset_28spk folders" in done.err
    assert "p232_001" in done.err and "no partner" in done.err and "p257_002" in done.err and "truncated" in done.err
    for empty in (tmp_path / "data", tmp_path / "none"):
        done = se("prep", "vbd", empty, tmp_path / "data2")
        assert done.returncode == 2 and len(done.err.splitlines()) <= 3


# --- mix -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def talk(tmp_path, rng):
    """Folder with speech.scp (7), noise.scp (4, one shorter than the speech), rir.scp and utt2spk, paths relative to it."""
    lists = {"speech": {}, "noise": {}, "rir": {}}
    for i in range(7):
        lists["speech"][f"s{i}"] = wav(tmp_path / f"wav/s {i}.wav", rng, 4000 + 100 * i)
    for i, n in enumerate((1000, 9000, 20000, 5000)):
        lists["noise"][f"n{i}"] = wav(tmp_path / f"wav/n{i}.wav", rng, n)
    for i in range(2):
        lists["rir"][f"r{i}"] = wav(tmp_path / f"wav/r{i}.wav", rng, 500)
    for name, table in lists.items():
        write_list(tmp_path / f"{name}.scp", {utt: p.relative_to(tmp_path) for utt, p in table.items()})
    write_list(tmp_path / "utt2spk", {f"s{i}": f"spk{i % 2}" for i in range(7)})
    return tmp_path


MIX = ["mix", "--speech", "speech.scp", "--noise", "noise.scp", "--snr", "-5:20"]


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE))


def test_mix_has_the_snr_it_says_and_tells_what_it_is_made_of(talk, se):
    done = se("prep", *MIX, "out", "--level", "-35:-25", "--utt2spk", "utt2spk", cwd=talk)
    assert done.returncode == 0 and done.out == "", done.err
    data, table = DataDir(talk / "out"), rows(talk / "out/mix.tsv")
    assert [row["utt"] for row in table] == list(data.pairs()) == [f"s{i}" for i in range(7)]
    assert data.pairs()["s3"] == ("out/noisy/s3.wav", "out/clean/s3.wav")
    assert data.table("utt2spk") == read_list(talk / "utt2spk")
    for row in table:
        noisy, clean = (audio.read_mono(str(talk / p))[0] for p in data.pairs()[row["utt"]])
        speech, _ = audio.read_mono(str(talk / row["speech"]))
        source, _ = audio.read_mono(str(talk / read_list(talk / "noise.scp")[row["noise"]]))
        snr = mixing.rms_level(clean) - mixing.rms_level(noisy - clean)
        assert snr == pytest.approx(float(row["snr_db"]), abs=0.05)
        assert float(data.table("utt2snr")[row["utt"]]) == float(row["snr_db"]) and -5 <= float(row["snr_db"]) <= 20
        assert -35 <= float(row["level_db"]) <= -25 and mixing.rms_level(noisy) == pytest.approx(
            float(row["level_db"]), abs=0.05
        )
        noise = mixing.loop(source, int(row["noise_offset"]), len(speech))
        np.testing.assert_allclose(
            noisy, float(row["gain"]) * speech + float(row["noise_gain"]) * noise, atol=2 / 32768
        )
    assert json.loads((talk / "out/provenance.json").read_text())["settings"]["seed"] == 0


def test_mix_by_active_level_leaves_pauses_out_and_by_rir_is_in_a_room(talk, se, rng):
    for i in range(7):
        audio.write(
            talk / f"wav/s {i}.wav", np.concatenate([rng.standard_normal(16000) * 0.05, np.zeros(24000)]), 16000
        )
    for extra in ([], ["--active-level"], ["--active-level", "--rir", "rir.scp"]):
        assert se("prep", *MIX, "out", *extra, cwd=talk).returncode == 0
        for row in rows(talk / "out/mix.tsv"):
            (noisy, _), (clean, _) = (audio.read_mono(str(talk / p)) for p in DataDir(talk / "out").pairs()[row["utt"]])
            speech, _ = audio.read_mono(str(talk / row["speech"]))
            source, _ = audio.read_mono(str(talk / read_list(talk / "noise.scp")[row["noise"]]))
            noise = mixing.loop(source, int(row["noise_offset"]), len(speech)) * float(row["noise_gain"])
            if row["rir"]:
                rir, _ = audio.read_mono(str(talk / read_list(talk / "rir.scp")[row["rir"]]))
                speech, target = mixing.reverberate(speech, rir, 16000)
                np.testing.assert_allclose(clean, float(row["gain"]) * target, atol=2 / 32768)
            level = mixing.active_level(speech, 16000)[0] if extra else mixing.rms_level(speech)
            snr = level + mixing.to_db(float(row["gain"])) - mixing.rms_level(noise)
            assert snr == pytest.approx(float(row["snr_db"]), abs=0.01) and bool(row["rir"]) == ("--rir" in extra)
            np.testing.assert_allclose(noisy, float(row["gain"]) * speech + noise, atol=2 / 32768)
        shutil.rmtree(talk / "out")


@pytest.mark.full
@pytest.mark.parametrize("extra", [[], ["--rir", "rir.scp", "--active-level", "--level=-30,-20"]])
def test_mix_is_the_same_for_any_jobs_shards_and_order(talk, se, rng, extra):
    assert se("prep", *MIX, "one", *extra, cwd=talk).returncode == 0
    one = tree(talk / "one")
    lines = {name: (talk / f"{name}.scp").read_text().splitlines() for name in ("speech", "noise", "rir")}
    for name, table in lines.items():
        (talk / f"{name}.scp").write_text("\n".join(rng.permutation(table)) + "\n")
    shutil.move(talk / "one", talk / "kept")
    assert se("prep", *MIX, "one", "--jobs", 2, *extra, cwd=talk).returncode == 0
    assert tree(talk / "one") == one
    shutil.rmtree(talk / "one")
    for k in (2, 3, 1):
        assert not (talk / "one/noisy.scp").exists()
        done = se("prep", *MIX, "one", "--shard", f"{k}/3", *extra, cwd=talk)
        assert done.returncode == 0 and ("last mixture" in done.err) == (k != 1)
    assert tree(talk / "one") == one
    shutil.rmtree(talk / "one")
    assert se("prep", *MIX, "one", "--seed", 1, *extra, cwd=talk).returncode == 0
    assert tree(talk / "one") != one


def test_one_mixture_more_leaves_the_others_as_they_are(talk, se, rng):
    assert se("prep", *MIX, "a", cwd=talk).returncode == 0
    wav(talk / "wav/new.wav", rng)
    write_list(talk / "speech.scp", read_list(talk / "speech.scp") | {"a0": "wav/new.wav"})
    assert se("prep", *MIX, "b", cwd=talk).returncode == 0
    a, b = tree(talk / "a"), tree(talk / "b")
    assert all(b[name] == a[name] for name in a if name.endswith(".wav")) and len(b) == len(a) + 2


def test_mix_resumes_and_refuses_other_settings(talk, se, rng):
    assert se("prep", *MIX, "out", cwd=talk).returncode == 0
    whole, noisy = tree(talk / "out"), talk / "out/noisy/s2.wav"
    times = {p: p.stat().st_mtime_ns for p in (talk / "out/noisy").iterdir()}
    noisy.unlink()
    with open(talk / "out/.rows/1of1.1.tsv", "a") as f:
        f.write("s4\twav/s 4.wav\tn0")  # as a kill leaves it
    assert se("prep", *MIX, "out", cwd=talk).returncode == 0
    assert tree(talk / "out") == whole
    assert [p for p, t in times.items() if p.stat().st_mtime_ns != t] == [noisy]
    done = se("prep", *MIX, "out", "--seed", 5, cwd=talk)
    assert done.returncode == 2 and "another seed" in done.err and tree(talk / "out") == whole


def test_a_source_that_changed_is_mixed_again_by_whatever_part(talk, se, rng):
    assert se("prep", *MIX, "out", "--part", "1/2", cwd=talk).returncode == 0
    assert se("prep", *MIX, "out", "--part", "2/2", cwd=talk).returncode == 0
    for samples, options in ((7000, []), (5000, ["--part", "1/2"]), (9000, [])):
        os.utime(wav(talk / "wav/s 0.wav", rng, samples), (1e9, 1e9 + samples))  # an older file takes its place
        assert se("prep", *MIX, "out", *options, cwd=talk).returncode == 0
        assert audio.probe(talk / "out/clean/s0.wav").frames == samples
        assert {row["utt"]: row["frames"] for row in rows(talk / "out/mix.tsv")}["s0"] == str(samples)


def test_a_part_does_not_declare_mixtures_complete_whose_other_sources_have_changed(talk, se, rng):
    assert se("prep", *MIX, "out", cwd=talk).returncode == 0
    for name in ("s 0", "s 1"):  # of the first part and of the second
        os.utime(wav(talk / f"wav/{name}.wav", rng, 6000), (1e9, 1e9))
    for part, complete in (("1/2", False), ("2/2", True)):
        done = se("prep", *MIX, "out", "--part", part, cwd=talk)
        assert done.returncode == 0 and (talk / "out/clean.scp").exists() == complete, done.err
    assert {row["utt"]: row["frames"] for row in rows(talk / "out/mix.tsv")}["s1"] == "6000"


def test_the_last_row_of_a_job_counts_and_of_two_jobs_one_without_error(tmp_path, rng):
    utts = [f"u{i}" for i in range(12)]
    write_list(tmp_path / "speech.scp", dict.fromkeys(utts, "x.wav"))
    speech = IndexedList(tmp_path / "speech.scp")
    plan = mixtures.Plan(tmp_path, speech, speech, speech, mixing.Spread(), None, False, 0, 16000)
    (tmp_path / ".rows").mkdir()
    expected: dict[str, mixtures.Row] = {}
    for part in ("1of2", "2of2"):
        text, own = "", {}
        for number in range(int(rng.integers(30))):
            utt = str(rng.choice([*utts, "other"]))
            row = own[utt] = mixtures.Row(utt, "x.wav", snr_db=float(number), error=str(rng.choice(["", "is silent"])))
            text += row.text() + "\n"
        (tmp_path / ".rows" / f"{part}.tsv").write_text(text + "u1\tx.wav\tn0")  # as a kill leaves it
        expected |= {utt: row for utt, row in own.items() if not row.error or utt not in expected}
    rows = mixtures.Rows(plan)
    for line in range(len(speech)):
        utt, _ = speech.read(line)
        row = rows.get(line)
        assert (row and row.text()) == (utt in expected and expected[utt].text() or None)
        assert rows.is_made(line) == (utt in expected and not expected[utt].error)
    assert rows.are_complete == (set(utts) <= expected.keys())
    (tmp_path / ".rows" / "1of2.tsv").write_text("u1\tx.wav\n")
    with pytest.raises(UserError, match="1of2.tsv:1: is damaged"):
        mixtures.Rows(plan)


@pytest.mark.full
def test_mix_killed_anywhere_finishes_the_same(talk, se):
    assert se("prep", *MIX, "out", cwd=talk).returncode == 0
    whole = tree(talk / "out")
    shutil.move(talk / "out", talk / "kept")
    for wanted in (1, 3, 6):
        process = subprocess.Popen(command("prep", *MIX, "out"), cwd=talk, stderr=subprocess.DEVNULL)
        while len(list(talk.glob("out/noisy/s*.wav"))) < wanted and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in talk.glob("out/*/s*.wav"):
            assert path.read_bytes() == whole[str(path.relative_to(talk / "out"))]
    assert se("prep", *MIX, "out", cwd=talk).returncode == 0
    assert tree(talk / "out") == whole


def test_mix_names_what_cannot_be_mixed_and_goes_on(talk, se, rng):
    audio.write(talk / "wav/s 1.wav", np.zeros(3000), 16000)
    wav(talk / "wav/s 2.wav", rng, 3000, 48000)
    audio.write(talk / "wav/s 3.wav", np.zeros((2, 3000)), 16000)
    (talk / "wav/s 4.wav").unlink()
    audio.write(talk / "wav/s 5.wav", np.zeros(0), 16000)
    audio.write(talk / "wav/n0.wav", np.zeros(3000), 16000)  # silent noise: another is drawn
    done = se("prep", *MIX, "out", cwd=talk)
    assert done.returncode == 1
    for utt, word in [
        ("s1", "silent"),
        ("s2", "48000"),
        ("s3", "2 channels"),
        ("s4", "no such file"),
        ("s5", "silent"),
    ]:
        assert f"se-prep: {utt}: " in done.err and word in done.err
    assert list(DataDir(talk / "out").pairs()) == ["s0", "s6"] and se("prep", "check", "out", cwd=talk).returncode == 0
    for i in range(1, 6):
        wav(talk / f"wav/s {i}.wav", rng)
    assert se("prep", *MIX, "out", cwd=talk).returncode == 0
    assert len(DataDir(talk / "out").pairs()) == 7


@pytest.mark.parametrize("samples", [0, 500])
def test_a_room_without_sound_is_named(talk, se, rng, samples):
    audio.write(talk / "wav/r0.wav", np.zeros(samples), 16000)
    done = se("prep", *MIX, "out", "--rir", "rir.scp", cwd=talk)
    assert done.returncode == 1 and "r0.wav: is silent, or has no samples" in done.err
    assert 0 < len(DataDir(talk / "out").pairs()) < 7


def test_commands_in_lists_run_only_when_allowed(talk, se):
    table = read_list(talk / "speech.scp")
    write_list(talk / "speech.scp", {"s0": f"touch ran; cat '{table['s0']}' |"})
    done = se("prep", *MIX, "no", cwd=talk)
    assert done.returncode != 0 and "--allow-commands" in done.err and not (talk / "ran").exists()
    assert se("prep", *MIX, "yes", "--allow-commands", cwd=talk).returncode == 0 and (talk / "ran").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--snr", "20:0"],
        ["--snr", "x"],
        ["--snr", "0", "--level", "loud"],
        ["--snr", 1, "--shard", "0/2"],
        ["--snr", 1, "--noise", "noise.scp"],
        ["--snr", 1, "--jobs", 0],
    ],
)
def test_mix_usage(talk, se, options):
    done = se("prep", "mix", "--speech", "speech.scp", "--noise", "noise.scp", *options, "out", cwd=talk)
    assert done.returncode == 2 and len(done.err.splitlines()) == 1, done.err


def test_sources_are_a_data_directory_to_be_sharded(talk, se):
    write_list(talk / "more.scp", {"m": read_list(talk / "noise.scp")["n0"]})
    done = se(
        "prep", "sources", "out", "--speech", "speech.scp", "--noise", "noise.scp", "--noise", "more.scp", cwd=talk
    )
    assert done.returncode == 0
    data = DataDir(talk / "out")
    assert data.streams == ("speech", "noise") and "m" in data.table("noise.scp")
    assert se("prep", "check", "out", cwd=talk).returncode == 0
    assert se("prep", "shards", "out", "shards", cwd=talk).returncode == 0


def test_kinds_of_noises_go_with_sources_to_check_split_and_shards(talk, se):
    noises = list(read_list(talk / "noise.scp"))
    write_list(talk / "kinds", {noise: "hum" if i else "horn" for i, noise in enumerate(noises)})
    assert (
        se(
            "prep",
            "sources",
            "out",
            "--speech",
            "speech.scp",
            "--noise",
            "noise.scp",
            "--noise2kind",
            "kinds",
            cwd=talk,
        ).returncode
        == 0
    )
    assert DataDir(talk / "out").noise_kinds() == read_list(talk / "kinds")
    assert not faults(se("prep", "check", "out", cwd=talk))
    assert se("prep", "split", "out", 2, cwd=talk).returncode == 0
    assert (talk / "out/split2/2/noise2kind").read_text() == (talk / "out/noise2kind").read_text()
    assert se("prep", "shards", "out", "shards", cwd=talk).returncode == 0
    found = Shards(talk / "shards", "noise")
    assert (
        dict(zip(found.ids, found.kind)) == read_list(talk / "kinds") and Shards(talk / "shards", "speech").kind == []
    )
    with open(talk / "out/noise2kind", "a") as f:
        f.write("nobody hum\n")
    named = faults(se("prep", "check", "out", cwd=talk))
    assert [fault["utt"] for fault in named] == ["nobody"]
    assert se("prep", "fix", "out", cwd=talk).returncode == 0 and DataDir(talk / "out").noise_kinds() == read_list(
        talk / "kinds"
    )


def test_noises_without_a_kind_are_refused_and_a_fault(talk, se):
    noises = sorted(read_list(talk / "noise.scp"))
    write_list(talk / "kinds", {noises[-1]: "hum"})
    make = ["prep", "sources", "out", "--speech", "speech.scp", "--noise", "noise.scp"]
    done = se(*make, "--noise2kind", "kinds", cwd=talk)
    missing = len(noises) - 1
    assert done.returncode == 2 and f"kinds: {noises[0]} has no kind ({missing} of {len(noises)} noises" in done.err
    assert not (talk / "out").exists() and se(*make, cwd=talk).returncode == 0
    shutil.copy(talk / "kinds", talk / "out/noise2kind")
    done = se("prep", "check", "out", cwd=talk)
    assert done.returncode == 1 and [(f["utt"], f["grade"]) for f in faults(done)] == [(noises[0], "fault")]
    assert f"{missing} noises" in done.out
    # A fix drops them, as it does every utterance with a fault.
    assert se("prep", "fix", "out", cwd=talk).returncode == 0
    assert list(DataDir(talk / "out").noise_kinds()) == list(DataDir(talk / "out").wavs("noise")) == [noises[-1]]
    assert se("prep", "check", "out", cwd=talk).returncode == 0


# --- check and fix ---------------------------------------------------------------------------------------------------


def harm_truncate(path, rng):
    path.write_bytes(path.read_bytes()[:-100])


def harm_empty(path, rng):
    path.write_bytes(b"")


def harm_no_data(path, rng):
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + struct.pack("<I", 0))


def harm_text(path, rng):
    path.write_text("this is no audio at all")


def written_snr(out, utt):
    noisy, clean = (audio.read_mono(out / kind / f"{utt}.wav")[0].astype(np.float64) for kind in ("noisy", "clean"))
    return mixing.rms_level(clean) - mixing.rms_level(noisy - clean)


@pytest.mark.parametrize("snr, level, exact", [(20, -40, True), (20, -55, True), (-20, -55, True), (40, -60, False)])
def test_an_snr_that_16_bits_change_is_named(se, talk, snr, level, exact):
    done = se("prep", *MIX[:-2], "--snr", snr, "--level", level, "out", cwd=talk)
    assert done.returncode == 0, done.err
    utts = list(DataDir(talk / "out").pairs())
    assert all(abs(written_snr(talk / "out", utt) - snr) < 0.1 for utt in utts) == exact
    assert ("below -82 dBFS" in done.err) != exact


def test_mixtures_at_the_lowest_level_are_named(se, talk):
    done = se("prep", *MIX[:-2], "--snr", 5, "--level", -100, "out", cwd=talk)
    assert done.returncode == 0 and "7 mixtures have speech or noise below -82 dBFS" in done.err


def harm_nan(path, rng):
    audio.write(path, np.full(3000, np.nan, np.float32), 16000, "FLOAT")


def harm_silence(path, rng):
    audio.write(path, np.zeros(3000), 16000)


def harm_stereo(path, rng):
    audio.write(path, rng.standard_normal((2, 3000)) * 0.1, 16000)


def harm_rate(path, rng):
    wav(path, rng, rate=48000)


def harm_length(path, rng):
    wav(path, rng, 2999)


def harm_missing(path, rng):
    path.unlink()


def harm_folder(path, rng):
    path.unlink()
    path.mkdir()


HARMS = {
    "truncated": harm_truncate,
    "is empty": harm_empty,
    "has no samples": harm_no_data,
    "not an audio file": harm_text,
    "NaN": harm_nan,
    "silent": harm_silence,
    "2 channels": harm_stereo,
    "48000 Hz": harm_rate,
    "2999": harm_length,
    "no such file": harm_missing,
    "directory": harm_folder,
}


@pytest.fixture
def data(tmp_path, rng, se):
    for kind in ("noisy", "clean"):
        for i in range(12):
            wav(tmp_path / f"{kind}/u{i:02}.wav", rng)
    assert se("prep", "pairs", tmp_path / "noisy", tmp_path / "clean", tmp_path / "data").returncode == 0
    return tmp_path / "data"


def faults(done) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(done.out), delimiter="\t", quoting=csv.QUOTE_NONE))


def test_what_can_be_converted_has_that_as_its_fix(data, rng, se):
    for name, harm in {"u00": harm_stereo, "u01": harm_rate, "u02": harm_truncate}.items():
        harm(data.parent / "noisy" / f"{name}.wav", rng)
    fixes = {(fault["utt"], "se-prep resample LIST OUT" in fault["fix"]) for fault in faults(se("prep", "check", data))}
    assert fixes == {("u00", True), ("u01", True), ("u02", False)}
    wav(data.parent / "clean/u01.wav", rng, rate=8000)
    found = [fault for fault in faults(se("prep", "check", data, "--rate", 0)) if fault["utt"] == "u01"]
    assert len(found) == 1 and "resample" in found[0]["fix"]


def test_check_names_every_bad_wav_and_fix_drops_them(data, rng, se):
    done = se("prep", "check", data)
    assert done.returncode == 0 and faults(done) == [] and "12 pairs are good" in done.err
    for i, harm in enumerate(HARMS.values()):
        harm(data.parent / "noisy" / f"u{i:02}.wav", rng)
    for jobs in (1, 2):
        done = se("prep", "check", data, "--jobs", jobs)
        assert done.returncode == 1 and "1 pairs are good" in done.err
        found = faults(done)
        for i, words in enumerate(HARMS):
            mine = [f for f in found if f["utt"] == f"u{i:02}"]
            assert any(
                words in f["fault"]
                and f["file"] in (str(data / "noisy.scp"), str(data / "clean.scp"))
                and int(f["line"]) == i + 1
                for f in mine
            ), (words, mine)
        assert all(f["fix"] for f in found)
    assert se("prep", "fix", data).returncode == 0
    assert list(DataDir(data).pairs()) == ["u11"] == list(DataDir(data).table("utt2dur"))
    assert len(read_list(data / ".backup/noisy.scp")) == 12
    assert se("prep", "check", data).returncode == 0


def test_check_names_every_bad_line_and_fix_mends_them(data, se):
    scp = data / "noisy.scp"
    lines = scp.read_text().splitlines()
    lines[2], lines[4] = lines[2].split()[0], "../evil " + lines[4].split()[1]
    scp.write_bytes("\r\n".join([*lines[1:], lines[5], "", lines[0]]).encode())  # unsorted, CRLF, a line twice
    clean = data / "clean.scp"
    clean.write_text("".join(clean.read_text().splitlines(keepends=True)[:-1]))
    with open(data / "utt2dur", "a") as f:
        f.write("ghost 3\n")
    (data / "utt2dur").write_text((data / "utt2dur").read_text().replace("u01 0.1875", "u01 0.5"))
    (data / "utt2dur").write_text((data / "utt2dur").read_text().replace("u03 0.1875", "u03 nan"))
    (data / "utt2snr").write_text("u01 loud\nu03 5\nu06 nan\n")
    done = se("prep", "check", data)
    found = {(Path(f["file"]).name, int(f["line"])): f for f in faults(done)}
    assert done.returncode == 1
    for key, word in {
        ("noisy.scp", 2): "no value",
        ("noisy.scp", 4): "cannot be an utterance id",
        ("noisy.scp", 12): "also in line 5",
        ("noisy.scp", 11): "is not in",
        ("clean.scp", 3): "is not in",
        ("clean.scp", 5): "is not in",
        ("utt2dur", 13): "in no list",
        ("utt2dur", 2): "0.1875",
        ("utt2dur", 4): "nan is not a number",
        ("utt2snr", 1): "loud",
    }.items():
        assert key in found and word in found[key]["fault"], (key, word, done.out)
    assert se("prep", "fix", data).returncode == 0
    done = se("prep", "check", data)
    assert done.returncode == 0 and "9 pairs are good" in done.err, done.out
    assert DataDir(data).table("utt2snr") == {"u03": "5", "u06": "nan"}


def test_clipping_is_a_remark(data, se):
    x = np.zeros(3000)
    x[10:14] = 1.0
    x[50] = 0.3
    audio.write(data.parent / "clean/u03.wav", x, 16000)
    done = se("prep", "check", data)
    assert (
        done.returncode == 0
        and [f["grade"] for f in faults(done)] == ["remark"]
        and "4 samples are clipped" in done.out
    )


def test_check_of_no_data_directory(tmp_path, se):
    for path in (tmp_path, tmp_path / "none"):
        done = se("prep", "check", path)
        assert done.returncode == 2 and len(done.err.splitlines()) == 1


def test_the_same_audio_in_two_directories_is_a_fault_and_fix_keeps_the_first(data, rng, se):
    other = data.parent / "other"
    for kind in ("noisy", "clean"):
        for i in range(3):
            wav(data.parent / f"other_{kind}/v{i}.wav", rng)
    x, _ = audio.read_mono(str(data.parent / "clean/u04.wav"))
    audio.write(data.parent / "other_clean/v1.flac", x, 16000)  # another format, the same samples
    (data.parent / "other_clean/v1.wav").unlink()
    assert se("prep", "pairs", data.parent / "other_noisy", data.parent / "other_clean", other).returncode == 0
    assert se("prep", "check", data).returncode == se("prep", "check", other).returncode == 0
    for jobs in (1, 2):
        done = se("prep", "check", data, other, "--jobs", jobs)
        found = faults(done)
        assert done.returncode == 1 and len(found) == 1
        assert (found[0]["file"], found[0]["line"], found[0]["utt"]) == (str(other / "clean.scp"), "2", "v1")
        assert f"same audio as {data.parent / 'clean/u04.wav'} ({data / 'clean.scp'}:5)" in found[0]["fault"]
    before = tree(data)
    assert se("prep", "fix", data, other).returncode == 0
    assert list(DataDir(other).pairs()) == ["v0", "v2"] and tree(data) == before and not (data / ".backup").exists()
    assert se("prep", "check", other, data).returncode == 0
    done = se("prep", "check", data, data.parent / "other" / ".." / "data")
    assert done.returncode == 2 and "twice" in done.err


def test_the_same_speech_may_come_again_within_a_directory(data, se):
    shutil.copy(data.parent / "clean/u04.wav", data.parent / "clean/u05.wav")
    empty = data.parent / "empty"
    shutil.copytree(data, empty)
    for name in ("noisy.scp", "clean.scp", "utt2dur"):
        write_list(empty / name, {"u11": read_list(data / name)["u11"]})
        write_list(data / name, {utt: v for utt, v in read_list(data / name).items() if utt != "u11"})
    assert se("prep", "check", data, empty).returncode == 0


def test_a_second_fix_leaves_the_backup_of_the_first(data, rng, se):
    for i in (3, 7):
        harm_silence(data.parent / f"noisy/u{i:02}.wav", rng)
        assert se("prep", "fix", data).returncode == 0
    assert se("prep", "fix", data).returncode == 0  # nothing to mend
    backups = sorted(p.name for p in data.glob(".backup*"))
    assert backups == [".backup", ".backup.2"]
    assert [len(read_list(data / name / "noisy.scp")) for name in backups] == [12, 11]


def test_a_reader_that_leaves_early_is_no_error(data):
    for i in range(12):
        (data.parent / f"noisy/u{i:02}.wav").unlink()
    argv = " ".join(f"'{a}'" for a in command("prep", "check", data))
    done = subprocess.run(["bash", "-c", f"{argv} | head -1"], capture_output=True, text=True)
    assert done.stdout.startswith("file\tline") and "Traceback" not in done.stderr


# --- split -----------------------------------------------------------------------------------------------------------


def test_split_shares_out_everything_once_about_equally(data, rng, se):
    seconds = {utt: float(rng.uniform(1, 9)) for utt in DataDir(data).pairs()}
    write_list(data / "utt2dur", seconds)
    speakers = {utt: f"spk{i % 5}" for i, utt in enumerate(seconds)}
    write_list(data / "utt2spk", speakers)
    write_list(data / "utt2snr", {"u03": 5})
    n = int(rng.integers(2, 5))
    done = se("prep", "split", data, n)
    parts = [DataDir(path) for path in done.out.split()]
    assert done.returncode == 0 and [p.path for p in parts] == [data / f"split{n}/{k}" for k in range(1, n + 1)]
    assert sorted(utt for p in parts for utt in p.pairs()) == sorted(seconds)
    totals = [sum(seconds[utt] for utt in p.pairs()) for p in parts]
    assert max(totals) - min(totals) <= max(seconds.values())
    for p in parts:
        assert p.pairs() == {utt: DataDir(data).pairs()[utt] for utt in p.pairs()}
        assert (
            p.table("utt2spk") == {utt: speakers[utt] for utt in p.pairs()}
            and set(p.table("utt2snr")) == {"u03"} & p.pairs().keys()
        )
    before = tree(data / f"split{n}")
    assert se("prep", "split", data, n).returncode == 0 and tree(data / f"split{n}") == before
    done = se("prep", "split", data, n, "--by-speaker")
    owner = {}
    for k, path in enumerate(done.out.split()):
        for utt in DataDir(path).pairs():
            assert owner.setdefault(speakers[utt], k) == k
    assert len(owner) == 5


def test_split_of_speech_and_noise_gives_all_noise_to_each(talk, se):
    assert (
        se(
            "prep", "sources", "out", "--speech", "speech.scp", "--noise", "noise.scp", "--rir", "rir.scp", cwd=talk
        ).returncode
        == 0
    )
    done = se("prep", "split", "out", 3, cwd=talk)  # durations by the wavs' headers
    parts = [DataDir(talk / path) for path in done.out.split()]
    assert sorted(utt for p in parts for utt in p.table("speech.scp")) == sorted(read_list(talk / "speech.scp"))
    assert all(
        p.table("noise.scp") == read_list(talk / "noise.scp") and p.table("rir.scp") == read_list(talk / "rir.scp")
        for p in parts
    )


@pytest.mark.parametrize(
    "n, extra, words",
    [(13, [], "12 utterances cannot be split into 13 parts"), (0, [], "0 parts"), (2, ["--by-speaker"], "no speaker")],
)
def test_split_that_cannot_be_made(data, se, n, extra, words):
    done = se("prep", "split", data, n, *extra)
    assert (
        done.returncode == 2 and words in done.err and len(done.err.splitlines()) == 1 and not list(data.glob("split*"))
    )


# --- resample --------------------------------------------------------------------------------------------------------


def test_resample_passes_a_list_through(tmp_path, rng, se):
    wav(tmp_path / "a.wav", rng, 4801, 48000)
    wav(tmp_path / "b.wav", rng, 1000, 16000)
    audio.write(tmp_path / "c.wav", rng.standard_normal((2, 882)) * 0.1, 44100)
    lines = "b b.wav\na a.wav\nc c.wav\n"
    done = se("prep", "resample", "-", "out", cwd=tmp_path, input=lines.encode())
    assert (
        done.returncode == 1 and done.out == "b b.wav\na out/a.wav\n" and "c: " in done.err and "--channel" in done.err
    )
    assert audio.probe(str(tmp_path / "out/a.wav")) == audio.Info(16000, 1, 1601)
    made = json.loads((tmp_path / "out/provenance.json").read_text())
    assert made["settings"]["resampler"] == "soxr" and "soxr" in made["versions"]
    done = se("prep", "resample", "-", "out2", "--channel", 2, "--jobs", 2, cwd=tmp_path, input=lines.encode())
    assert done.returncode == 0 and done.out == "b b.wav\na out2/a.wav\nc out2/c.wav\n"
    expected = audio.resample(audio.read(str(tmp_path / "c.wav"))[0][1], 44100, 16000)
    np.testing.assert_allclose(audio.read_mono(str(tmp_path / "out2/c.wav"))[0], expected, atol=1e-4)
    assert (
        se("prep", "resample", "-", "out3", "--resampler", "sinc", cwd=tmp_path, input=lines.encode()).returncode == 2
    )


def test_an_entry_that_is_standard_input_is_read_once(tmp_path, rng, se):
    x = 0.1 * rng.standard_normal(8000).astype(np.float32)
    audio.write(tmp_path / "x.wav", x, 16000)
    (tmp_path / "l.scp").write_text("u -\n")
    for rate, out in ((8000, "half"), (16000, "same")):
        done = se(
            "prep", "resample", "l.scp", out, "--rate", rate, cwd=tmp_path, input=(tmp_path / "x.wav").read_bytes()
        )
        assert done.returncode == 0 and done.out == f"u {out}/u.wav\n", done.err
        np.testing.assert_allclose(
            audio.read_mono(str(tmp_path / out / "u.wav"), rate)[0], audio.resample(x, 16000, rate), atol=2 / 32768
        )
    (tmp_path / "c.scp").write_text("u x.wav\n")
    done = se("prep", "pairs", "l.scp", "c.scp", "pairs", cwd=tmp_path, input=(tmp_path / "x.wav").read_bytes())
    assert done.returncode == 2 and "can be read only once" in done.err and not (tmp_path / "pairs").exists()


def test_a_refused_resample_does_not_claim_its_folder(tmp_path, rng, se):
    audio.write(tmp_path / "c.wav", rng.standard_normal((2, 882)) * 0.1, 44100)
    for options, code in (([], 1), (["--channel", 3], 1), (["--channel", 2], 0)):
        done = se("prep", "resample", "-", "out", *options, cwd=tmp_path, input=b"c c.wav\n")
        assert done.returncode == code and (tmp_path / "out").exists() == (code == 0), done.err


def test_a_rerun_of_resample_keeps_what_it_would_make_again_and_nothing_else(tmp_path, rng, se):
    for name, samples in (("a", 48000), ("older", 72000)):
        wav(tmp_path / f"{name}.wav", rng, samples, 48000)
    os.utime(tmp_path / "older.wav", (1e9, 1e9))

    def run(name: str) -> tuple[int, int]:
        done = se("prep", "resample", "-", "out", cwd=tmp_path, input=f"u {name}.wav\n".encode())
        assert done.returncode == 0, done.err
        made = tmp_path / "out/u.wav"
        return audio.probe(made).frames, made.stat().st_mtime_ns

    first = run("a")
    assert run("a") == first
    assert [run(name)[0] for name in ("older", "a", "older")] == [24000, 16000, 24000]


def test_resample_overwrites_neither_its_input_nor_other_files(tmp_path, rng, se):
    wav(tmp_path / "in/a.wav", rng, 48000, 48000)
    wav(tmp_path / "in/b.wav", rng, 48000, 48000)
    before = {path: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    for line, words in (("a in/a.wav\n", "is the wav to convert"), ("b in/a.wav\n", "setk did not make it")):
        done = se("prep", "resample", "-", "in", cwd=tmp_path, input=line.encode())
        assert done.returncode == 2 and words in done.err
    assert {path: path.read_bytes() for path in before} == before
