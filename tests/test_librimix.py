"""se-prep librimix, and lists of on-the-fly mixtures: against a plain rendering of the CSVs' rows."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from conftest import MINI
from scipy.signal import resample_poly

from setk import audio
from setk.audio import Location
from setk.audio.mixture import OLD_PREFIX, PREFIX, Mixture, Part
from setk.core.errors import AudioError
from setk.data.datadir import DataDir
from setk.data.lists import read_list, read_wavs

STEP = 1 / 32768
PARTS = {"train-100": ("train", "train-clean-100"), "dev": ("valid", "dev-clean"), "test": ("test", "test-clean")}


@pytest.fixture(scope="session")
def corpora(tmp_path_factory) -> Path:
    """LibriSpeech, wham_noise and the generation CSVs in a place with an awkward name."""
    place = tmp_path_factory.mktemp("corpora") / "Libri Mix ü'é"
    runpy.run_path(str(MINI / "trees.py"))["librimix"](place)
    return place


@pytest.fixture
def own(corpora, tmp_path) -> Path:
    """A copy to be harmed."""
    return Path(shutil.copytree(corpora, tmp_path / "own"))


def generation(place: Path, part: str) -> list[dict[str, str]]:
    with open(place / f"metadata/Libri2Mix/libri2mix_{PARTS[part][1]}.csv", newline="") as f:
        return list(csv.DictReader(f))


def args(place: Path) -> list:
    return [
        "librimix",
        place / "metadata/Libri2Mix",
        "--librispeech",
        place / "LibriSpeech",
        "--wham",
        place / "wham_noise",
    ]


def plain(place: Path, row: dict[str, str], mode: str, rate: int) -> dict[str, np.ndarray]:
    """What LibriMix's description makes of a row, step by step, float32."""
    one, two = (soundfile.read(place / "LibriSpeech" / row[f"source_{i}_path"], dtype="float32")[0] for i in (1, 2))
    longest = max(len(one), len(two))
    path = place / "wham_noise" / row["noise_path"]
    if path.exists():
        noise = soundfile.read(path, dtype="float32", always_2d=True)[0][:, 0]
    else:
        whole, _ = soundfile.read(str(path).replace("sp08", ""), dtype="float32", always_2d=True)
        noise = audio.resample(whole[:, 0], 12800, 16000)
    first = noise
    hann = np.hanning(16001)
    while len(noise) < longest:
        longer = np.zeros(len(noise) + len(first) - 8001)
        longer[: len(noise)] = noise
        longer[len(noise) - 8001 : len(noise)] *= hann[8000:]
        piece = first.astype(np.float64)
        piece[:8001] *= hann[:8001]
        longer[len(noise) - 8001 :] += piece
        noise = longer
    signals = [
        np.asarray(x, np.float32) * np.float32(row[f"{name}_gain"])
        for x, name in ((one, "source_1"), (two, "source_2"), (noise[:longest], "noise"))
    ]
    signals = [resample_poly(x, rate, 16000) for x in signals]
    size = (min if mode == "min" else max)(len(x) for x in signals)
    s1, s2, n = (np.pad(x[:size], (0, size - len(x[:size]))) for x in signals)
    return {"s1": s1, "s2": s2, "noise": n, "mix_clean": s1 + s2, "mix_single": s1 + n, "mix_both": s1 + s2 + n}


TARGETS = {"mix_single": "s1", "mix_both": "mix_clean", "mix_clean": "s1"}


@pytest.mark.parametrize(
    "mixture, mode, rate", [("mix_single", "min", 16000), ("mix_both", "max", 8000), ("mix_clean", "max", 16000)]
)
def test_entries_are_what_the_rows_of_the_csv_say(corpora, tmp_path, se, mixture, mode, rate):
    done = se("prep", *args(corpora), tmp_path / "data", "--mixture", mixture, "--mode", mode, "--rate", rate)
    assert done.returncode == 0, done.err
    for part, (split, _) in PARTS.items():
        data, rows = DataDir(tmp_path / "data" / split), generation(corpora, part)
        assert sorted(row["mixture_ID"] for row in rows) == sorted(data.pairs())
        for row in rows:
            expected = plain(corpora, row, mode, rate)
            for place, name in zip(data.pairs()[row["mixture_ID"]], (mixture, TARGETS[mixture])):
                x, found = audio.read_mono(place)
                assert found == rate and audio.probe(place) == audio.Info(rate, 1, len(expected[name]))
                np.testing.assert_allclose(x, expected[name], atol=2e-6)
            assert float(data.table("utt2dur")[row["mixture_ID"]]) == pytest.approx(len(x) / rate, abs=1e-4)
            assert row["mixture_ID"].startswith(data.table("utt2spk")[row["mixture_ID"]] + "-")


def test_noise_is_repeated_and_slowed_where_the_corpus_wants_it(corpora, tmp_path, se):
    assert se("prep", *args(corpora), tmp_path / "data").returncode == 0
    parts = [Mixture.parse(noisy).parts[1] for noisy, _ in DataDir(tmp_path / "data/train").pairs().values()]
    assert any(part.reach > audio.probe(part.path).frames for part in parts)
    assert sorted(part.speed for part in parts) == [0.8] + [1.0] * (len(parts) - 1)


def test_shards_of_array_jobs_hold_what_wavs_would_and_no_wav_is_written(corpora, tmp_path, se):
    assert se("prep", *args(corpora), tmp_path / "data").returncode == 0
    size = ["--shard-size", 2]
    assert se("prep", "shards", tmp_path / "data/train", tmp_path / "one", *size).returncode == 0
    for k in (3, 1, 2):
        assert (
            se("prep", "shards", tmp_path / "data/train", tmp_path / "three", *size, "--shard", f"{k}/3").returncode
            == 0
        )
    rows = {row["mixture_ID"]: plain(corpora, row, "min", 16000) for row in generation(corpora, "train-100")}
    for path in sorted((tmp_path / "one").glob("*.h5")):
        with h5py.File(path) as one, h5py.File(tmp_path / "three" / path.name) as three:
            for i, utt in enumerate(one["utt"].asstr()[:]):
                for stream, name in (("noisy", "mix_single"), ("clean", "s1")):
                    x = one[stream][one["offset"][i] : one["offset"][i + 1]]
                    assert (x == three[stream][three["offset"][i] : three["offset"][i + 1]]).all()
                    np.testing.assert_allclose(x / 32768, rows[utt][name], atol=0.6 * STEP)
    assert not list(tmp_path.rglob("*.wav"))


@pytest.mark.full
def test_entries_become_wavs_by_resample_and_any_number_of_jobs_is_the_same(corpora, tmp_path, se):
    for jobs in (1, 2):
        assert se("prep", *args(corpora), tmp_path / f"data{jobs}", "--jobs", jobs).returncode == 0
    for split in ("train", "valid", "test"):
        for name in ("noisy.scp", "clean.scp", "utt2dur", "utt2spk"):
            assert (tmp_path / "data1" / split / name).read_bytes() == (tmp_path / "data2" / split / name).read_bytes()
    done = se("prep", "resample", tmp_path / "data1/test/noisy.scp", tmp_path / "wavs")
    assert done.returncode == 0, done.err
    for utt, path in (line.split(" ", 1) for line in done.out.splitlines()):
        wav, _ = soundfile.read(path)
        np.testing.assert_allclose(
            wav, audio.read_mono(read_list(tmp_path / "data1/test/noisy.scp")[utt])[0], atol=0.6 * STEP
        )


# --- a tree of wavs --------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(corpora, tmp_path) -> Path:
    """The tree that the scripts leave, its CSVs with the paths of another machine."""
    root = tmp_path / "moved ü" / "Libri2Mix"
    for part in PARTS:
        base = root / "wav16k/min" / part
        tables = {name: [] for name in ("mix_single", "mix_both")}
        for row in generation(corpora, part):
            signals, utt = plain(corpora, row, "min", 16000), row["mixture_ID"]
            for name, x in signals.items():
                (base / name).mkdir(parents=True, exist_ok=True)
                soundfile.write(base / name / f"{utt}.wav", x, 16000)
            old = {name: f"/data/old place/Libri2Mix/wav16k/min/{part}/{name}/{utt}.wav" for name in signals}
            length = len(signals["s1"])
            tables["mix_single"].append([utt, old["mix_single"], old["s1"], old["noise"], length])
            tables["mix_both"].append([utt, old["mix_both"], old["s1"], old["s2"], old["noise"], length])
        folder = root / "wav16k/min/metadata"
        folder.mkdir(exist_ok=True)
        for name, rows in tables.items():
            sources = ["source_1_path", "source_2_path"][: 1 + (name == "mix_both")]
            with open(folder / f"mixture_{part}_{name}.csv", "w", newline="") as f:
                csv.writer(f).writerows([["mixture_ID", "mixture_path", *sources, "noise_path", "length"], *rows])
            with open(folder / f"metrics_{part}_{name}.csv", "w", newline="") as f:
                csv.writer(f).writerows(
                    [["mixture_ID", "source_1_SNR", "noise_SNR"], *([row[0], 3.25, -1.5] for row in rows)]
                )
    return root


@pytest.mark.full
@pytest.mark.parametrize("mixture, snr", [("mix_single", "3.2500"), ("mix_both", "1.5000")])
def test_a_tree_of_wavs_that_was_moved_is_used_in_place_and_agrees_with_the_rendering(
    corpora, tree, tmp_path, se, mixture, snr
):
    done = se("prep", "librimix", tree, tmp_path / "wavs", "--mixture", mixture)
    assert done.returncode == 0, done.err
    assert "train-360.csv" not in done.err and "has 6 mixtures, the complete train-100 13,900" in done.err
    assert f"mixture_train-360_{mixture}.csv: no such file; train-360 is left out" in done.err
    assert se("prep", *args(corpora), tmp_path / "sums", "--mixture", mixture).returncode == 0
    for split in ("train", "valid", "test"):
        wavs, made = DataDir(tmp_path / "wavs" / split), DataDir(tmp_path / "sums" / split)
        assert wavs.table("utt2dur") == made.table("utt2dur") and wavs.pairs().keys() == made.pairs().keys()
        assert set(wavs.table("utt2snr").values()) == {snr}
        for utt, places in wavs.pairs().items():
            for ours, theirs in zip(made.pairs()[utt], places):
                assert Path(theirs).is_relative_to(tree)
                # The scripts' wavs are rounded down.
                difference = audio.read_mono(ours)[0] - audio.read_mono(theirs)[0]
                assert np.abs(difference).max() <= 1.01 * STEP
        assert se("prep", "check", tmp_path / "wavs" / split).returncode == 0


def test_the_paths_of_the_csvs_can_be_led_elsewhere(tree, tmp_path, se):
    shutil.move(tree / "wav16k/min/test", tmp_path / "scratch/wav16k/min/test")
    done = se("prep", "librimix", tree, tmp_path / "out", "--root", tmp_path / "scratch", "--train", "train-100")
    assert done.returncode == 1 and "6 failed" not in done.err  # train and dev are not there
    assert list(DataDir(tmp_path / "out/test").pairs()) and not (tmp_path / "out/train").exists()
    assert "no utterances for train" in done.err


def test_what_is_wrong_with_a_tree_is_named_and_the_rest_is_used(tree, tmp_path, se, rng):
    table = tree / "wav16k/min/metadata/mixture_train-100_mix_single.csv"
    lines = table.read_text().splitlines()
    utts = [line.partition(",")[0] for line in lines]
    folder = tree / "wav16k/min/train-100"
    (folder / "mix_single" / f"{utts[2]}.wav").unlink()
    whole = (folder / "s1" / f"{utts[3]}.wav").read_bytes()
    (folder / "s1" / f"{utts[3]}.wav").write_bytes(whole[:-100])
    audio.write(folder / "s1" / f"{utts[4]}.wav", rng.standard_normal(100) * 0.1, 16000)
    loop = folder / "mix_single" / f"{utts[5]}.wav"
    loop.unlink()
    loop.symlink_to(loop)
    evil = lines[6].replace(utts[6], "../evil", 1)
    table.write_bytes(
        "\r\n".join([*lines[:6], evil, lines[1], "short,", "x,/elsewhere/x.wav,a,b,3"]).encode() + b"\r\n"
    )
    done = se("prep", "librimix", tree, tmp_path / "out")
    assert done.returncode == 1
    assert list(DataDir(tmp_path / "out/train").pairs()) == [utts[1]]
    reasons = [
        (utts[2], "no such file"),
        (utts[3], "truncated"),
        (utts[4], "100"),
        (utts[5], "symbolic links"),
        ("../evil", "cannot be an utterance id"),
        (utts[1], "duplicate"),
        ("short", "fewer cells"),
        ("x", "is not a path of a LibriMix tree"),
    ]
    for number, (utt, words) in enumerate(reasons, 3):
        start = f"se-prep: {utt}: {table}:{number}: "
        assert any(line.startswith(start) and words in line for line in done.err.splitlines()), (words, done.err)


# --- what is wrong with the sources ----------------------------------------------------------------------------------


def test_sources_that_are_missing_or_no_audio_are_named_with_the_line_of_the_csv(own, tmp_path, se):
    rows = generation(own, "train-100")
    speech, wham = own / "LibriSpeech", own / "wham_noise"
    (speech / rows[0]["source_1_path"]).unlink()
    (wham / rows[2]["noise_path"]).unlink()
    (speech / rows[3]["source_2_path"]).write_text("no audio")
    (wham / rows[4]["noise_path"]).write_bytes(b"")
    done = se("prep", *args(own), tmp_path / "out")
    assert done.returncode == 1
    table = own / "metadata/Libri2Mix/libri2mix_train-clean-100.csv"
    for i, words in ((0, "no such file"), (2, "no such file"), (3, "not an audio file"), (4, "is empty")):
        start = f"se-prep: {rows[i]['mixture_ID']}: {table}:{i + 2}: "
        assert any(line.startswith(start) and words in line for line in done.err.splitlines()), done.err
    assert list(DataDir(tmp_path / "out/train").pairs()) == [rows[i]["mixture_ID"] for i in (1, 5)]


def test_a_truncated_flac_shows_when_it_is_read(own, tmp_path, se):
    rows = generation(own, "dev")
    path = own / "LibriSpeech" / rows[1]["source_1_path"]
    path.write_bytes(path.read_bytes()[:-9000])
    assert se("prep", *args(own), tmp_path / "out").returncode == 0
    for command in (["check", tmp_path / "out/valid"], ["shards", tmp_path / "out/valid", tmp_path / "shards"]):
        done = se("prep", *command)
        assert done.returncode == 1 and f"{path.name}: is truncated" in done.out + done.err
    assert not list((tmp_path / "shards").iterdir())


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda f: f.write_bytes(b"\xff\xfe\x00"), "is not a CSV"),
        (lambda f: f.write_text("a,b\n1,2\n"), "has no column mixture_ID"),
        (
            lambda f: f.write_text(f.read_text().replace("0.9,", "loud,", 1)),
            ":2: source_1_gain is 'loud', not a number",
        ),
    ],
)
def test_a_csv_that_is_none_is_told_in_a_line(own, tmp_path, se, change, words):
    change(own / "metadata/Libri2Mix/libri2mix_train-clean-100.csv")
    done = se("prep", *args(own), tmp_path / "out")
    assert done.returncode == 2 and words in done.err and len(done.err.splitlines()) == 1, done.err


@pytest.mark.parametrize(
    "options, words",
    [
        (["--wham", "/nope"], "need each other"),
        (["--librispeech", "/nope", "--wham", "/nope"], "no such folder"),
        (["--mixture", "mix_triple"], "choose mix_single"),
        (["--mode", "mean"], "min or max"),
        (["--rate", 44100], "16000 or 8000"),
        (["--train", "train-900"], "train-100 or train-360"),
        ([], "has no mixture_"),
    ],
)
def test_usage(tmp_path, se, options, words):
    done = se("prep", "librimix", tmp_path, tmp_path / "out", *options)
    assert done.returncode == 2 and words in done.err and len(done.err.splitlines()) == 1, done.err


# --- on-the-fly mixtures ------------------------------------------------------------------------------------------------------------


def test_a_list_of_mixtures_is_scored_like_one_of_files(corpora, tmp_path, se):
    assert se("prep", *args(corpora), tmp_path / "data").returncode == 0
    done = se(
        "score", "--ref", tmp_path / "data/valid/clean.scp", tmp_path / "data/valid/noisy.scp", "--metrics", "si_sdr"
    )
    assert done.returncode == 0, done.err
    found = [float(row["si_sdr"]) for row in csv.DictReader(done.out.splitlines(), delimiter="\t")]
    assert len(found) == 3 and all(np.isfinite(found))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"length": 5, "rate": 16000, "parts": []}',
        '{"length": -5, "rate": 16000, "parts": [{"path": "a.wav"}]}',
        '{"length": 1e15, "rate": 16000, "parts": [{"path": "a.wav"}]}',
        '{"length": 5, "rate": 0, "parts": [{"path": "a.wav"}]}',
        '{"length": 5, "rate": 16000, "parts": [{"path": 3}]}',
        '{"length": 5, "rate": 16000, "parts": [{"path": "a.wav", "gain": "x"}]}',
        '{"length": 5, "rate": 16000, "parts": [{"path": "a.wav", "colour": 1}]}',
        '{"length": 5, "rate": 16000, "parts": [{"path": "a.wav", "gain": NaN}]}',
        '{"length": 5, "rate": 16000, "parts": [{"path": "a.wav", "reach": 99999999999}]}',
        '{"length": 1e999, "rate": 16000, "parts": [{"path": "a.wav"}]}',
        '{"length": 5, "rate": Infinity, "parts": [{"path": "a.wav"}]}',
        '{"length": 5, "rate": 16000, "parts": [{"path": "a.wav", "reach": 1.5}]}',
        '{"length": 5, "rate": 16000, "parts": [{"path": "a\\u0000.wav"}]}',
        "[" * 100_000,
    ],
)
def test_a_malformed_mixture_is_an_audio_error(text):
    for prefix in (PREFIX, OLD_PREFIX):
        for use in (audio.probe, audio.read):
            with pytest.raises(AudioError, match="is not a valid on-the-fly mixture"):
                use(prefix + text)


def test_parts_of_other_rates_and_too_short_to_repeat_are_refused(tmp_path, rng):
    for name, samples in (("a.wav", 8001), ("b.wav", 8002)):
        audio.write(tmp_path / name, rng.standard_normal(samples) * 0.1, 16000)
    path, longer = str(tmp_path / "a.wav"), str(tmp_path / "b.wav")
    for reason, mixture in [
        ("16000 Hz; expected 44100 Hz", Mixture(5, 44100, (Part(path),))),
        ("too few to be repeated", Mixture(5, 16000, (Part(path, reach=8002),))),
        # Each repetition would add one sample.
        ("too few to be repeated", Mixture(5, 16000, (Part(longer, reach=60 * 16000),))),
        ("no such file", Mixture(5, 16000, (Part("touch ran |"),))),
    ]:
        with pytest.raises(AudioError, match=reason):
            Location.parse(mixture.text(), allow_commands=True).read()
    assert len(audio.read_mono(Mixture(8902, 16000, (Part(longer, reach=8902),)).text())[0]) == 8902


def test_any_path_passes_through_a_list(tmp_path, rng):
    path = tmp_path / 'a "b" {c} é\\|.wav'
    audio.write(path, rng.standard_normal(50) * 0.1, 16000)
    mixture = Mixture(40, 16000, (Part(str(path), 0.5), Part(str(path), -0.5, reach=30)))
    (tmp_path / "l.scp").write_text(f"utt {mixture.text()}\n", encoding="utf-8")
    location = read_wavs(tmp_path / "l.scp")["utt"]
    assert Mixture.parse(location) == mixture and "\n" not in location and json.loads(location.removeprefix("mix:"))
    x = location.read_mono()[0]
    old = audio.read_mono(location.replace("mix:", "sum:", 1))[0]
    assert (x == old).all() and not x[:30].any() and x[30:].any()
