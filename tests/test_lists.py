"""Lists, data directories, whole-or-nothing files, configs."""

from __future__ import annotations

import json
import os
import pickle
import threading
import tracemalloc
from dataclasses import dataclass, field

import numpy as np
import pytest
import soundfile

from setk import audio
from setk.audio import Location
from setk.audio.mixture import Mixture, Part
from setk.core import config
from setk.data import datadir, lists
from setk.data.copies import Place, SeenAudio
from setk.data.index import ABSENT, IndexedList
from setk.core.errors import AudioError, UserError
from setk.core.files import atomic_open, write_text


def test_spaces_crlf_blank_lines_and_any_order_are_read(tmp_path):
    path = tmp_path / "a.scp"
    path.write_bytes("b  dir/with two  spaces.wav\r\n\r\na\tcat x.wav |\nü /ü.wav".encode())
    assert lists.read_list(path) == {"b": "dir/with two  spaces.wav", "a": "cat x.wav |", "ü": "/ü.wav"}
    lists.write_list(tmp_path / "b.scp", lists.read_list(path))
    assert (tmp_path / "b.scp").read_text().splitlines()[0].startswith("a ")
    assert lists.read_list(tmp_path / "b.scp") == lists.read_list(path)


@pytest.mark.parametrize(
    "text, words",
    [
        ("a x.wav\na y.wav\n", [":2:", "duplicate id"]),
        ("a\n", [":1:", "no value"]),
        ("a x\n../b y.wav\n", [":2:", "cannot be an utterance id"]),
        (".. y.wav\n", [":1:", "cannot be"]),
    ],
)
def test_a_bad_line_is_named_with_its_mend(tmp_path, text, words):
    path = tmp_path / "a.scp"
    path.write_text(text)
    with pytest.raises(UserError) as e:
        lists.read_list(path)
    assert all(word in str(e.value) for word in [*words, str(path)])


def test_other_things_than_lists(tmp_path):
    (tmp_path / "bin").write_bytes(b"\xff\xfe\x00\x80 x\n")
    for path, word in [(tmp_path, "directory"), (tmp_path / "none", "no such"), (tmp_path / "bin", "not a text file")]:
        with pytest.raises(UserError, match=word):
            lists.read_list(path)


def test_parts_cover_a_list(rng):
    items = list(range(int(rng.integers(0, 50))))
    n = int(rng.integers(1, 9))
    parts = [list(lists.take_part(items, f"{k}/{n}")) for k in range(1, n + 1)]
    assert sorted(sum(parts, [])) == items
    for bad in ("0/3", "4/3", "1", "a/b", "-1/2"):
        with pytest.raises(UserError, match="--part"):
            lists.parse_part(bad)


def test_a_data_directory_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="needs noisy.scp"):
        datadir.DataDir(tmp_path)
    (tmp_path / "noisy.scp").write_text("a x.wav\nb y.wav\n")
    (tmp_path / "clean.scp").write_text("a x.wav\n")
    with pytest.raises(UserError, match="clean.scp: b is missing"):
        datadir.DataDir(tmp_path).pairs()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError):
        with atomic_open(path) as f:
            f.write(b"half")
            raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x.json"]


@dataclass(frozen=True)
class Inner:
    low: float = 1.0


@dataclass(frozen=True)
class Outer:
    name: str
    steps: int = 3
    rate: float | None = None
    pair: tuple[float, float] = (0.0, 1.0)
    inner: Inner = Inner()
    weights: dict[str, float] = field(default_factory=dict)


def test_a_config_is_built_strictly():
    good = config.build(
        Outer, {"name": "a", "rate": "1e-3", "pair": [1, 2], "inner": {"low": 2}, "weights": {"l1": 1}}, "x"
    )
    assert good == Outer("a", 3, 0.001, (1.0, 2.0), Inner(2.0), {"l1": 1.0})
    assert config.build(Outer, config.plain(good), "x") == good
    for values, words in [
        ({"name": "a", "step": 1}, "did you mean 'steps'"),
        ({}, "'name' is missing"),
        ({"name": 3}, "expected str"),
        ({"name": "a", "steps": True}, "expected int"),
        ({"name": "a", "pair": [1]}, "expected 2 values"),
        ({"name": "a", "inner": {"lo": 1}}, "did you mean 'low'"),
    ]:
        with pytest.raises(UserError, match=words):
            config.build(Outer, values, "x.yaml")


def test_settings_from_the_command_line():
    base = {"a": 1, "b": {"c": 2}}
    assert config.override(base, ["a=[1, 2]", "b.c=x", "b.d=1e-3"]) == {"a": [1, 2], "b": {"c": "x", "d": "1e-3"}}
    assert base == {"a": 1, "b": {"c": 2}}
    for bad in ("a", "a.b=1", "a=[1"):
        with pytest.raises(UserError, match="--set"):
            config.override(base, [bad])


def test_yaml_holds_values_only(tmp_path):
    path = tmp_path / "c.yaml"
    for text, word in [
        ("a: !!python/object/apply:os.system [true]", "is not YAML"),
        ("- 1", "has no"),
        ("a: [1", ":1|is not YAML"),
    ]:
        path.write_text(text)
        with pytest.raises(UserError, match=word):
            config.read_yaml(path)


@pytest.fixture
def folder(tmp_path):
    for name in ("b.wav", "sub dir/a.flac", ".hidden.wav", "notes.txt", "sub dir/.skip/c.wav"):
        path = tmp_path / "wavs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, np.full(100, 0.1), 16000) if path.suffix != ".txt" else path.write_text("")
    return tmp_path / "wavs"


def test_a_folder_is_a_wav_list(folder):
    found = lists.read_wavs(folder)
    assert found == {"b": f"{folder}/b.wav", "sub_dir-a": f"{folder}/sub dir/a.flac"}
    assert [x.read()[0].shape for x in found.values()] == [(1, 100)] * 2
    assert dict(IndexedList.merged([folder]).locations()) == found
    audio.write(folder / "b.flac", np.zeros(10), 16000)
    with pytest.raises(UserError, match="b.flac and .*b.wav|b.wav and .*b.flac"):
        lists.read_wavs(folder)
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="has no audio files"):
        lists.read_wavs(folder / "empty")


def test_a_folder_leaves_no_recording_out_silently(tmp_path, se):
    samples = np.full(100, 0.1, np.float32)
    for k, (suffix, kind) in enumerate(
        [("aif", "AIFF"), ("oga", "OGG"), ("w64", "W64"), ("wave", "WAV"), ("AU", "AU")]
    ):
        soundfile.write(tmp_path / f"u{k}.{suffix}", samples, 16000, format=kind)
    for name in ("a.m4a", "b.m4a", "notes.txt", ".hidden.wma"):
        (tmp_path / name).write_bytes(b"x")
    done = se("prep", "list", tmp_path)
    assert [line.split()[0] for line in done.out.splitlines()] == ["u0", "u1", "u2", "u3", "u4"]
    assert "left out 2 .m4a" in done.err and "txt" not in done.err and "wma" not in done.err
    listed = se("prep", "list", "--help").out.replace(",", " ").replace(".", " ").split()
    assert {suffix[1:] for suffix in lists.SUFFIXES} <= set(listed)


def test_relative_paths_are_taken_from_here_or_else_from_the_folder_of_the_list(folder, tmp_path, monkeypatch):
    mixture = Mixture(50, 16000, (Part("b.wav", 0.5), Part("sub dir/a.flac")))
    (folder / "l.scp").write_text(f"a b.wav\nb none.wav\nc {mixture.text()}\nd cat x |\ne {folder}/b.wav\n")
    monkeypatch.chdir(tmp_path)
    found = lists.read_wavs("wavs/l.scp")
    assert (
        found["a"] == "wavs/b.wav"
        and found["b"] == "none.wav"
        and found["d"] == "cat x |"
        and found["e"] == f"{folder}/b.wav"
    )
    assert np.allclose(found["c"].read_mono(16000)[0], 0.15, atol=1e-4)
    audio.write("b.wav", np.zeros(7), 8000)  # the current directory comes first
    assert lists.read_wavs("wavs/l.scp")["a"] == "b.wav"
    assert lists.read_list("wavs/l.scp")["a"] == "b.wav"


def test_a_list_of_a_folder_at_the_shell(folder, se):
    done = se("prep", "list", folder)
    assert done.returncode == 0 and done.out == f"b {folder}/b.wav\nsub_dir-a {folder}/sub dir/a.flac\n"
    done = se("prep", "resample", folder, folder.parent / "out", "--rate", 8000)
    assert done.returncode == 0 and sorted(p.name for p in (folder.parent / "out").glob("*.wav")) == [
        "b.wav",
        "sub_dir-a.wav",
    ]
    done = se("prep", "list", folder / "none")
    assert done.returncode == 2 and "no such list" in done.err


@pytest.mark.parametrize("option", ["--part", "--shard"])
def test_a_part_of_a_list_at_the_shell_by_both_names_of_the_option(folder, se, option):
    done = se("prep", "resample", folder, folder.parent / "out", option, "2/2")
    assert done.returncode == 0 and done.out.split()[0] == "sub_dir-a"
    done = se("prep", "resample", folder, folder.parent / "out", option, "\N{SUPERSCRIPT TWO}/3")
    assert done.returncode == 2 and "--part" in done.err
    assert option == "--part" or option not in se("prep", "resample", "--help").out


def test_a_location_is_its_text_and_keeps_its_permission(folder):
    location = pickle.loads(pickle.dumps(Location.parse(f"cat '{folder}/b.wav' |", allow_commands=True)))
    assert location == f"cat '{folder}/b.wav' |" and location.read()[0].shape == (1, 100)
    assert Location.parse(location) is location and json.dumps([location]) == json.dumps([str(location)])
    refused = Location.parse(str(location))
    with pytest.raises(AudioError, match="--allow-commands"):
        refused.probe()
    assert Location.parse("-").can_be_read_again() is False and Location.parse(folder / "b.wav").probe().frames == 100


def random_lines(rng, count):
    """Lines of a list in random order, with what lines may have: blanks, CRLF, tabs, spaces in paths, ids that are not ASCII."""
    ids = [f"{'ü' if i % 7 == 0 else 'u'}{i}" for i in rng.permutation(count)]
    forms = ("{} dir/{} x.wav\n", "{}\t/a/{}.wav\r\n", "\n  {}  cat {} |  \n")
    return "".join(forms[int(rng.integers(3))].format(utt, utt) for utt in ids)


@pytest.mark.parametrize("ordered", [False, True])
def test_an_indexed_list_is_the_list(tmp_path, rng, ordered):
    path = tmp_path / "a.scp"
    path.write_bytes(random_lines(rng, int(rng.integers(1, 200))).encode())
    expected = lists.read_list(path)
    if ordered:
        lists.write_list(path, expected)
        expected = lists.read_list(path)
    table = IndexedList(path)
    assert len(table) == len(expected) and all(table.get(utt) == value for utt, value in expected.items())
    assert "none" not in table and table.get("none") is table.take("none") is None
    assert list(table.sorted()) == sorted(expected.items(), key=lambda row: row[0].encode())
    some = [utt for utt in expected if rng.random() < 0.5]
    assert [table.take(utt) for utt in some] == [expected[utt] for utt in some]
    assert list(table.left()) == [(utt, value) for utt, value in expected.items() if utt not in some]


def test_an_indexed_list_of_a_pipe_and_of_a_folder(tmp_path):
    audio.write(tmp_path / "wavs" / "a b.wav", np.zeros((1, 8), np.float32), 8000)
    table = IndexedList(tmp_path / "wavs")
    assert table.location(table.get("a_b")) == str(tmp_path / "wavs" / "a b.wav")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("b 2\na 1\n",))
    writer.start()
    assert list(IndexedList(pipe).sorted()) == [("a", "1"), ("b", "2")]
    writer.join()


@pytest.mark.parametrize(
    "text, words",
    [
        ("b x.wav\n\na x.wav\nb y.wav\n", [":4:", "duplicate id 'b'"]),
        ("a x\na\n", [":2:", "no value"]),
        ("a x\n\n../b y.wav\n", [":3:", "cannot be an utterance id"]),
        (".. y.wav\n", [":1:", "cannot be"]),
    ],
)
def test_an_indexed_list_names_a_bad_line(tmp_path, text, words):
    path = tmp_path / "a.scp"
    path.write_text(text)
    with pytest.raises(UserError) as e:
        IndexedList(path)
    assert all(word in str(e.value) for word in [*words, str(path)])


def test_seen_ids_are_a_set(rng):
    seen, expected = lists.SeenIds(), set()
    for number in rng.integers(0, 3000, size=5000):
        assert seen.add(f"u{number}") == (number not in expected)
        expected.add(number)


def test_a_long_list_costs_few_bytes_per_line(tmp_path):
    count = 50_000
    path = tmp_path / "a.scp"
    path.write_text("".join(f"u{i:07d} /a/long/path/of/a/corpus/u{i:07d}.wav\n" for i in range(count)))
    tracemalloc.start()
    try:
        table = IndexedList(path)
        index = tracemalloc.get_traced_memory()[1] / count
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        assert sum(1 for _ in lists.open_wavs(path)) == len(table) == count
        stream = (tracemalloc.get_traced_memory()[1] - before) / count
    finally:
        tracemalloc.stop()
    assert index < 80 and stream < 80, (index, stream)


def test_the_lines_of_one_list_in_another(tmp_path, rng):
    tables = []
    for name in "ab":
        (tmp_path / name).write_text(random_lines(rng, int(rng.integers(1, 60))))
        tables.append((IndexedList(tmp_path / name), list(lists.read_list(tmp_path / name))))
    (a, ids), (b, others) = tables
    assert a.lines_in(b).tolist() == [others.index(utt) if utt in others else ABSENT for utt in ids]
    assert [a.read(line)[0] for line in range(len(a))] == ids and [a.line(utt) for utt in ids] == list(range(len(a)))


def test_several_lists_as_one(folder, tmp_path):
    (tmp_path / "more.scp").write_text("z wavs/b.wav\na c.wav\n")
    merged = IndexedList.merged([folder, tmp_path / "more.scp"])
    expected = {"a": "c.wav", "b": f"{folder}/b.wav", "sub_dir-a": f"{folder}/sub dir/a.flac", "z": f"{folder}/b.wav"}
    assert dict(merged.locations()) == expected and len(IndexedList.merged([])) == 0
    (tmp_path / "again.scp").write_text("c x.wav\nb y.wav\n")
    with pytest.raises(UserError, match="again.scp: duplicate id 'b', also in an earlier list"):
        IndexedList.merged([folder, tmp_path / "more.scp", tmp_path / "again.scp"])


def test_a_lenient_list_leaves_out_what_another_would_refuse(tmp_path, rng):
    path, text, good, bad = tmp_path / "a.scp", "", {}, []
    for number in range(1, int(rng.integers(2, 80))):
        utt = f"u{rng.integers(30)}"
        line, fault = [(f"{utt} x{number}", ""), (utt, "has no value"), ("../a b", "cannot be"), ("", "")][
            int(rng.choice(4, p=[0.7, 0.1, 0.1, 0.1]))
        ]
        text += line + "\n"
        if fault or (line and utt in good):
            bad.append((number, fault or f"also in line {list(good.values())[list(good).index(utt)][1:]}"))
        elif line:
            good[utt] = f"x{number}"
    path.write_text(text)
    table = IndexedList(path, lenient=True)
    assert {utt: table.get(utt) for utt in good} == good and len(table) == len(good)
    refused = list(table.refused())
    assert [number for number, _, _ in refused] == [number for number, _ in bad]
    assert all(words in reason for (_, _, reason), (_, words) in zip(refused, bad))
    for line in rng.permutation(len(table)):
        utt, value = table.read(line)
        assert table.number(line) == int(value[1:]) and good[utt] == value


def test_audio_that_was_seen_is_found_in_its_list(tmp_path, rng):
    seen, expected = SeenAudio(), {}
    for name in ("a.scp", "b.scp"):
        path = tmp_path / name
        path.write_text("".join(f"\nu{i} {name}{i}.wav\n" for i in range(20)))
        table, digests = IndexedList(path), [int(key).to_bytes(16, "little") for key in rng.integers(40, size=20)]
        assert all((place := seen.find(digest)) == expected.get(digest) for digest in digests), place
        found = {}
        for line, digest in enumerate(digests):
            place = Place(str(path), table.number(line), table.start(line), table.read(line)[1])
            seen.add([(place, digest)])
            found.setdefault(digest, place)
        expected = found | expected
        seen.close()
    assert all(seen.find(digest) == place for digest, place in expected.items())
