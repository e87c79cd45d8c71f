"""recipes/open/prepare.sh: a corpus from clones of public repositories, here a small generated tree of them."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import MINI, PATIENCE, ROOT

from setk import audio
from setk.data import mixing
from setk.data.lists import read_list

COLUMNS = "set role id repository path licence label start seconds level sha256".split()
PAIR_COLUMNS = "set id noise noise_start snr_db seconds sha256".split()
SILENCE_S = 0.7


def write_table(path: Path, columns: list[str], rows: list[list]) -> Path:
    path.write_text("\n".join("\t".join(map(str, row)) for row in [columns, *rows]) + "\n")
    return path


@pytest.fixture
def tree(tmp_path, rng):
    """Two repositories: speech at 16 kHz after silence, stereo noise at 44.1 kHz, a room; and tables of them."""
    speech = [
        audio.read_mono(str(ROOT / place), 16000)[0]
        for place in list(read_list(MINI / "test" / "clean.scp").values())[:4]
    ]
    for i, x in enumerate(speech):
        audio.write(
            tmp_path / f"src/talk/er/wavs/s {i}.wav", np.concatenate([np.zeros(round(SILENCE_S * 16000)), x]), 16000
        )
    seconds = np.arange(3 * 44100) / 44100
    for i, hertz in enumerate((300, 900)):
        left = 0.3 * np.sin(2 * np.pi * hertz * seconds)
        audio.write(tmp_path / f"src/noise/maker/{i}.wav", np.stack([left, 0.5 * left]).astype(np.float32), 44100)
    response = np.zeros(800, np.float32)
    response[[10, 400]] = 0.5, 0.2
    audio.write(tmp_path / "src/noise/maker/room.wav", response, 16000)
    sources = [
        ["train", "speech", "t0", "talk/er", "wavs/s 0.wav; wavs/s 1.wav", "CC0", "ann", "", "", "active:-25", ""],
        ["train", "noise", "n0", "noise/maker", "0.wav", "CC BY 4.0", "hum", 0.5, 2, "rms:-20", ""],
        ["train", "noise", "n1", "noise/maker", "1.wav", "CC BY 4.0", "horn", 0, 1, "keep", ""],
        ["train", "rir", "r0", "noise/maker", "room.wav", "CC0", "measured", 0, "", "peak:0.9", ""],
    ]
    pairs = []
    for part, file in (("valid", 2), ("test", 3)):
        sources += [
            [part, "speech", f"{part}0", "talk/er", f"wavs/s {file}.wav", "CC0", "bob", "", 1.2, "active:-27", ""],
            [part, "noise", "n9", "noise/maker", "1.wav", "CC BY 4.0", "horn", 0, "", "keep", ""],
        ]
        pairs.append([part, f"{part}0", "n9", 2.5, 7.5, 1.2, ""])
    write_table(tmp_path / "sources.tsv", COLUMNS, sources)
    write_table(tmp_path / "pairs.tsv", PAIR_COLUMNS, pairs)
    return tmp_path


def prepare(tree, *args):
    if not (ROOT / ".venv").exists():
        pytest.skip("recipes run with the .venv of bin/setup")
    argv = ["bash", ROOT / "recipes/open/prepare.sh", "--table", "sources.tsv", "--pairs", "pairs.tsv", *args]
    return subprocess.run(list(map(str, argv)), cwd=tree, capture_output=True, text=True, timeout=PATIENCE)


def test_a_corpus_is_cut_levelled_and_mixed_as_its_tables_say(tree):
    (tree / "settings.sh").write_text("out=corpus\n")
    done = prepare(tree, "--sources", "src", "--config", "settings.sh")
    assert done.returncode == 0, done.stderr
    lists = tree / "corpus/lists"
    assert read_list(lists / "noise2kind") == {"n0": "hum", "n1": "horn"} and read_list(lists / "utt2spk_train") == {
        "t0": "ann"
    }

    def sound(name, utt):
        return audio.read_mono(str(tree / "corpus" / read_list(lists / name)[utt]), 16000)[0]

    joined = sound("speech_train.scp", "t0")
    assert mixing.active_level(joined, 16000)[0] == pytest.approx(-25, abs=0.4)
    assert np.abs(joined[:1600]).max() > 1e-3  # it begins with sound, not with the silence before
    hum, horn = sound("noise_train.scp", "n0"), sound("noise_train.scp", "n1")
    assert len(hum) == 2 * 16000 and mixing.rms_level(hum) == pytest.approx(-20, abs=0.05)
    assert len(horn) == 16000 and mixing.rms_level(horn) == pytest.approx(
        20 * np.log10(0.3 * 0.75 / np.sqrt(2)), abs=0.1
    )
    assert np.abs(sound("rir_train.scp", "r0")).max() == pytest.approx(0.9, abs=1e-3)
    for part in ("valid", "test"):
        noisy, clean = (sound(f"{part}_{kind}.scp", f"{part}0") for kind in ("noisy", "clean"))
        level = mixing.active_level(clean, 16000)[0]
        assert len(noisy) == len(clean) == 19200 and level == pytest.approx(-27, abs=0.4)
        assert level - mixing.rms_level(noisy - clean) == pytest.approx(7.5, abs=0.1)


def test_a_missing_source_is_named_and_the_rest_is_made_once(tree):
    (tree / "src/noise/maker/0.wav").unlink()
    done = prepare(tree, "--sources", "src", "--out", "corpus")
    assert (
        done.returncode == 1
        and "train noise n0: " in done.stderr
        and "0.wav" in done.stderr
        and "Traceback" not in done.stderr
    )
    assert list(read_list(tree / "corpus/lists/noise_train.scp")) == ["n1"]
    before = {path: path.stat().st_mtime_ns for path in (tree / "corpus").rglob("*.flac")}
    assert prepare(tree, "--sources", "src", "--out", "corpus").returncode == 1
    assert before == {path: path.stat().st_mtime_ns for path in (tree / "corpus").rglob("*.flac")}


@pytest.mark.full
def test_what_it_makes_is_a_corpus_that_recipes_prepare(tree):
    assert prepare(tree, "--sources", "src", "--out", "corpus").returncode == 0
    argv = [
        "bash",
        ROOT / "recipes/open/fspen.sh",
        "--root",
        tree / "corpus",
        "--dir",
        tree / "exp",
        "--data",
        tree / "data",
        "--shards",
        tree / "shards",
        "--stop-stage",
        1,
        "--nj",
        1,
    ]
    done = subprocess.run(list(map(str, argv)), cwd=tree, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tree / "data/train").iterdir()} == {
        "speech.scp",
        "noise.scp",
        "rir.scp",
        "noise2kind",
    }
    assert read_list(tree / "data/train/noise2kind") == {"n0": "hum", "n1": "horn"}
    assert (tree / "shards/rir.scp").exists()


def test_without_sources_it_says_what_is_missing(tree):
    done = prepare(tree)
    assert done.returncode == 2 and "--sources DIR is missing" in done.stderr


def test_the_committed_tables_fit_each_other():
    rows, pairs = (
        list(csv.DictReader(open(ROOT / f"recipes/open/{name}.tsv"), delimiter="\t", quoting=csv.QUOTE_NONE))
        for name in ("sources", "pairs")
    )
    assert list(rows[0]) == COLUMNS and list(pairs[0]) == PAIR_COLUMNS
    keys = {(row["set"], row["role"], row["id"]) for row in rows}
    assert len(keys) == len(rows) and all(row["licence"] and row["repository"] and row["path"] for row in rows)
    assert all(
        (pair["set"], "speech", pair["id"]) in keys and (pair["set"], "noise", pair["noise"]) in keys for pair in pairs
    )
    assert {row["level"].partition(":")[0] for row in rows} <= {"active", "rms", "peak", "keep"}
    used = {
        name: {(row["repository"], row["path"]) for row in rows if row["set"] == name}
        for name in ("train", "valid", "test")
    }
    assert not used["test"] & (used["train"] | used["valid"]) and not used["train"] & used["valid"]
