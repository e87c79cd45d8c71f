"""se-prep ndns: a tree of clips made of sources that no two sets share, and trees that are read."""

from __future__ import annotations

import csv
import os
import re
import runpy
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import COMMANDS, MINI, command

from setk import audio
from setk.data import mixing
from setk.data.datadir import DataDir

SETS = {"train": "training_set", "valid": "validation_set", "test": "test_set_1"}


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    """Folders clean and noise, with an awkward place and a few awkward files."""
    place = (
        tmp_path_factory.mktemp("dns") / "a b ü reader_1"
    )  # a folder called like a reader must not hold all together
    runpy.run_path(str(MINI / "trees.py"))["ndns"](place)
    place = place / "sources"
    x, _ = audio.read(str(place / "noise/ada_0001.wav"))
    audio.write(place / "noise/deep/é fan_snr5_tl-3_fileid_9.wav", np.concatenate([x, x[:, ::-1]]), 16000)
    audio.write(place / "noise/fullband.flac", audio.resample(x, 16000, 48000), 48000)
    shutil.copy(place / "noise/ada_0002.wav", place / "noise/copy of it.wav")
    (place / "clean/loop").symlink_to(place / "clean", target_is_directory=True)
    (place / "noise/deep/more").symlink_to(place / "noise", target_is_directory=True)
    return place


@pytest.fixture(scope="session")
def made(sources, tmp_path_factory) -> Path:
    """A folder with the tree and the data directories made of the sources; not to be changed."""
    place = tmp_path_factory.mktemp("made")
    done = COMMANDS("prep", *make(sources, place))
    assert done.returncode == 0, done.err
    return place


@pytest.fixture
def own(made, tmp_path) -> Path:
    """A copy of the tree, to be harmed."""
    return Path(shutil.copytree(made / "tree", tmp_path / "own"))


def make(sources: Path, place: Path, clips: str = "4,2,2") -> list:
    return [
        "ndns",
        place / "tree",
        place / "data",
        "--clean",
        sources / "clean",
        "--noise",
        sources / "noise",
        "--clips",
        clips,
    ]


def wavs(tree: Path) -> dict[str, bytes]:
    return {str(p.relative_to(tree)): p.read_bytes() for p in sorted(tree.rglob("*.wav"))}


def table(tree: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((tree / "sources.tsv").open(encoding="utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.full
def test_no_source_no_reader_and_no_copy_of_a_file_is_in_two_sets(made, sources):
    rows = table(made / "tree")
    names = {str(p) for kind in ("clean", "noise") for p in (sources / kind).rglob("*") if p.is_file()}
    assert len(rows) == len(names) and {row["path"] for row in rows} == names
    assert {(row["set"], row["kind"]) for row in rows} == {(s, k) for s in SETS.values() for k in ("clean", "noise")}
    owner = {}
    for row in rows:
        reader = re.search(r"reader_\d+", Path(row["path"]).name)
        for mark in filter(None, (row["digest"], reader and reader[0])):
            assert owner.setdefault(mark, row["set"]) == row["set"]
    of_noise = {Path(row["path"]).name: row["set"] for row in rows if row["kind"] == "noise"}
    assert of_noise["copy of it.wav"] == of_noise["ada_0002.wav"]
    # What a clip says that it holds is of its set; a name is cut in the middle of the last.
    for name in SETS.values():
        stems = {"_".join(Path(row["path"]).stem.split()) for row in rows if row["set"] == name}
        for clip in (made / "tree" / name / "noisy").iterdir():
            assert any(clip.name.startswith(stem[:100]) for stem in stems)


def test_clips_have_the_layout_of_the_challenge_and_the_snr_and_level_that_their_names_say(made):
    for split, name in SETS.items():
        data = DataDir(made / "data" / split)
        assert list(data.pairs()) == [f"fileid_{k}" for k in range(4 if split == "train" else 2)]
        for utt, places in data.pairs().items():
            noise = made / "tree" / name / "noise" / f"noise_{utt}.wav"
            noisy, clean, noise = (audio.read_mono(str(place), 16000)[0] for place in (*places, noise))
            assert len(noisy) == len(clean) == len(noise) == 480000 and data.table("utt2dur")[utt] == "30.0000"
            assert Path(places[1]) == made / "tree" / name / "clean" / f"clean_{utt}.wav"
            said = re.search(r"_snr(-?\d+)_tl(-?\d+)_fileid_(\d+)\.wav$", places[0])
            assert data.table("utt2snr")[utt] == said[1] and -5 <= int(said[1]) < 20
            np.testing.assert_allclose(noisy, clean + noise, atol=2 / 32768)
            assert mixing.active_level(clean, 16000)[0] - mixing.rms_level(noise) == pytest.approx(
                int(said[1]), abs=0.1
            )
            assert mixing.rms_level(noisy) == pytest.approx(int(said[2]), abs=0.51)
            # No second of the speech is empty: the sources follow each other.
            assert np.abs(clean.reshape(30, -1)).max(axis=1).min() > 1e-3


@pytest.mark.full
def test_array_jobs_make_the_same_clips_and_a_run_without_them_writes_the_lists(made, sources, tmp_path, se):
    for k in (2, 1):
        done = se("prep", *make(sources, tmp_path), "--shard", f"{k}/2", "--jobs", k)
        assert done.returncode == 0 and not (tmp_path / "data").exists(), done.err
    assert se("prep", *make(sources, tmp_path)).returncode == 0
    assert wavs(tmp_path / "tree") == wavs(made / "tree")
    assert (tmp_path / "tree/sources.tsv").read_bytes() == (made / "tree/sources.tsv").read_bytes()
    for name in ("utt2snr", "utt2dur"):
        assert (tmp_path / "data/train" / name).read_bytes() == (made / "data/train" / name).read_bytes()


@pytest.mark.full
def test_a_killed_job_leaves_nothing_half_made_and_the_next_ends_its_work(made, sources, tmp_path, se):
    process = subprocess.Popen(command("prep", *make(sources, tmp_path)), stderr=subprocess.DEVNULL)
    while len(list(tmp_path.glob("tree/*/noisy/*.wav"))) < 2 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in tmp_path.glob("tree/*/*/[!.]*.wav"):
        assert path.read_bytes() == (made / path.relative_to(tmp_path)).read_bytes()
    assert se("prep", *make(sources, tmp_path)).returncode == 0
    results = {name: data for name, data in wavs(tmp_path / "tree").items() if "/." not in name}
    assert results == wavs(made / "tree")


def test_more_clips_can_be_made_later_and_other_settings_are_refused(own, sources, tmp_path, se):
    os.rename(own, tmp_path / "tree")
    before = wavs(tmp_path / "tree")
    done = se("prep", *make(sources, tmp_path, "5,2,2"))
    assert done.returncode == 0 and ": 1 clips made" in done.err
    assert before.items() < wavs(tmp_path / "tree").items() and len(DataDir(tmp_path / "data/train").pairs()) == 5
    done = se("prep", *make(sources, tmp_path), "--seed", 1)
    assert done.returncode == 2 and "another seed" in done.err


# --- trees that are read ---------------------------------------------------------------------------------------------


def test_sources_that_two_sets_share_fail_the_build(own, tmp_path, se):
    def refused(words: str) -> None:
        done = se("prep", "ndns", own, tmp_path / "out")
        assert done.returncode == 2 and words in done.err and len(done.err.splitlines()) == 1, done.err
        assert not (tmp_path / "out").exists()

    listed = (own / "sources.tsv").read_text()
    first, *lines = listed.splitlines()
    theirs = next(line for line in lines if line.startswith("training_set\tnoise"))
    (own / "sources.tsv").write_text("\n".join([first, *lines, theirs.replace("training_set", "test_set_1")]) + "\n")
    refused("are one file")
    (own / "sources.tsv").unlink()
    # The challenge's own tree has no such table: names and contents tell.
    theirs = next((own / "training_set/noisy").glob("*_fileid_0.wav"))
    ours = next((own / "validation_set/noisy").glob("*_fileid_1.wav"))
    renamed = ours.with_name(theirs.name.replace("_fileid_0", "_fileid_1"))
    ours.rename(renamed)
    refused("have sources in common")
    renamed.rename(ours)
    for kind in ("clean", "noise"):
        target = own / f"test_set_1/{kind}/{kind}_fileid_0.wav"
        kept = target.read_bytes()
        shutil.copy(own / f"training_set/{kind}/{kind}_fileid_2.wav", target)
        refused("have sources in common")
        target.write_bytes(kept)
    assert se("prep", "ndns", own, tmp_path / "out").returncode == 0


def test_an_awkward_tree_is_used_as_far_as_it_is_good(own, tmp_path, se):
    train = own / "training_set"
    noisy = {k: next((train / "noisy").glob(f"*_fileid_{k}.wav")) for k in range(4)}
    (train / "clean/clean_fileid_1.wav").unlink()
    noisy[2].write_bytes(noisy[2].read_bytes()[:-1000])
    (train / "noise/noise_fileid_3.wav").unlink()  # is not needed
    noisy[3].rename(train / "noisy" / "a_snr5_tl-3_fileid_8_b_snr-4_tl-20_fileid_3.wav")
    shutil.copy(noisy[0], train / "noisy" / "x_snr5_tl-20_fileid_0.wav")
    for name in ("notes.txt", "speech.wav", "a_snr5_tl2_fileid_.wav", ".hidden.wav"):
        (train / "noisy" / name).write_text("")
    shutil.rmtree(own / "validation_set")
    done = se("prep", "ndns", own, tmp_path / "out", "--jobs", 2)
    assert done.returncode == 1 and "has 3 clips" not in done.err
    data = DataDir(tmp_path / "out/train")
    assert list(data.pairs()) == ["fileid_0", "fileid_3"] and data.table("utt2snr")["fileid_3"] == "-4"
    for words in (
        ["fileid_1", "no such file"],
        ["fileid_2", "truncated"],
        ["x_snr5", "the same number"],
        ["the complete set 60,000"],
        ["notes.txt", "is not named"],
        ["speech.wav", "is not named"],
        ["a_snr5_tl2_fileid_.wav", "is not named"],
        ["no utterances for valid"],
    ):
        assert any(all(word in line for word in words) for line in done.err.splitlines()), (words, done.err)
    assert "hidden" not in done.err and sorted(p.name for p in (tmp_path / "out").iterdir()) == ["test", "train"]


@pytest.mark.parametrize(
    "options, words",
    [
        ([], "is not an N-DNS tree"),
        (["--clean", "."], "need each other"),
        (["--clean", ".", "--noise", "/nope"], "no such folder"),
        (["--clean", ".", "--noise", ".", "--clips", "1,2"], "three numbers"),
        (["--clean", ".", "--noise", ".", "--group", "("], "regular expression"),
        (["--clean", ".", "--noise", "."], "has no audio files"),
        (["--clips", "5,1,1"], "--clips does not apply without --clean and --noise"),
        (["--group", "x"], "--group does not apply"),
        (["--seed", "1"], "--seed does not apply"),
        (["--part", "1/2"], "--part does not apply"),
    ],
)
def test_usage(tmp_path, se, options, words):
    done = se("prep", "ndns", tmp_path / "tree", tmp_path / "out", *options, cwd=tmp_path)
    assert done.returncode == 2 and words in done.err and len(done.err.splitlines()) == 1, done.err


def test_a_tree_that_was_not_made_here_is_not_added_to(own, sources, tmp_path, se):
    os.rename(own, tmp_path / "tree")
    for name in ("sources.tsv", "provenance.json"):
        (tmp_path / "tree" / name).unlink()
    done = se("prep", *make(sources, tmp_path))
    assert done.returncode == 2 and "not made by setk" in done.err and not (tmp_path / "tree/sources.tsv").exists()


# --- sources ---------------------------------------------------------------------------------------------------------


def test_bad_sources_are_named_once_and_left_out(tmp_path, se, rng):
    for kind in ("clean", "noise"):
        for i in range(12):
            audio.write(tmp_path / kind / f"{kind}{i}.flac", rng.standard_normal(20000) * 0.1, 16000)
    audio.write(tmp_path / "clean/silent.flac", np.zeros(20000), 16000)
    audio.write(tmp_path / "clean/none.flac", np.zeros(0), 16000)
    (tmp_path / "clean/words.wav").write_text("no audio")
    for i in range(8):  # each passes by its header
        path = tmp_path / f"noise/noise{i}.flac"
        path.write_bytes(path.read_bytes()[:-5000])
    done = se("prep", *make(tmp_path, tmp_path, "3,1,1"))
    assert done.returncode == 1
    for words in ("none.flac: is empty", "words.wav: is no"):
        assert words in done.err
    truncated = re.findall(r"^se-prep: \S*/(noise\d+\.flac): .*truncated", done.err, re.MULTILINE)
    assert (
        truncated and len(truncated) == len(set(truncated)) and set(truncated) <= {f"noise{i}.flac" for i in range(8)}
    )
    assert "silent.flac" not in done.err


def test_too_few_sources_to_share_out_are_told(tmp_path, se, rng):
    for i in range(4):
        audio.write(tmp_path / f"clean/reader_{i % 2}_{i}.wav", rng.standard_normal(2000) * 0.1, 16000)
        audio.write(tmp_path / f"noise/{i}.wav", rng.standard_normal(2000) * 0.1, 16000)
    done = se("prep", *make(tmp_path, tmp_path))
    assert done.returncode == 2 and "has 2 usable sources of clean" in done.err
    each_its_own = [*make(tmp_path, tmp_path, "0,0,0"), "--group", r"\d\.wav", "--shard", "1/1"]
    assert se("prep", *each_its_own).returncode == 2  # the folder was begun with another group
    shutil.rmtree(tmp_path / "tree")
    assert se("prep", *each_its_own).returncode == 0
    assert len(table(tmp_path / "tree")) == 8
