"""Lists, data directories, whole-or-nothing files, configs."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from setk.core import config
from setk.data import datadir, lists
from setk.core.errors import UserError
from setk.core.files import atomic_open, write_text


def test_spaces_crlf_blank_lines_and_any_order_are_read(tmp_path):
    path = tmp_path / "a.scp"
    path.write_bytes("b  dir/with two  spaces.wav\r\n\r\na\tcat x.wav |\nü /ü.wav".encode())
    assert lists.read_list(path) == {"b": "dir/with two  spaces.wav", "a": "cat x.wav |", "ü": "/ü.wav"}
    lists.write_list(tmp_path / "b.scp", lists.read_list(path))
    assert (tmp_path / "b.scp").read_text().splitlines()[0].startswith("a ")
    assert lists.read_list(tmp_path / "b.scp") == lists.read_list(path)


@pytest.mark.parametrize("text, words", [
    ("a x.wav\na y.wav\n", [":2:", "duplicate id"]),
    ("a\n", [":1:", "no value"]),
    ("a x\n../b y.wav\n", [":2:", "cannot be an utterance id"]),
    (".. y.wav\n", [":1:", "cannot be"]),
])
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
    good = config.build(Outer, {"name": "a", "rate": "1e-3", "pair": [1, 2], "inner": {"low": 2}, "weights": {"l1": 1}}, "x")
    assert good == Outer("a", 3, 0.001, (1.0, 2.0), Inner(2.0), {"l1": 1.0})
    assert config.build(Outer, config.plain(good), "x") == good
    for values, words in [({"name": "a", "step": 1}, "did you mean 'steps'"), ({}, "'name' is missing"),
                          ({"name": 3}, "str is wanted"), ({"name": "a", "steps": True}, "int is wanted"),
                          ({"name": "a", "pair": [1]}, "2 values"), ({"name": "a", "inner": {"lo": 1}}, "did you mean 'low'")]:
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
    for text, word in [("a: !!python/object/apply:os.system [true]", "is not YAML"), ("- 1", "holds no"), ("a: [1", ":1|is not YAML")]:
        path.write_text(text)
        with pytest.raises(UserError, match=word):
            config.read_yaml(path)
