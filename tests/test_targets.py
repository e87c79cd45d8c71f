"""se-count --target: flash, RAM and instructions of a model's C on a Cortex-M, measured by QEMU or stored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import ROOT

from setk import export, pretrained
from setk.cli.count import Target
from setk.core.errors import UserError
from setk.core.files import sha256
from setk.export.c import boards, targets

pytestmark = pytest.mark.full

needs_tools = pytest.mark.skipif(
    boards.missing() is not None, reason=f"no {boards.missing()} (Debian: gcc-arm-none-eabi, qemu-system-arm)"
)


@pytest.fixture
def no_tools(monkeypatch):
    monkeypatch.setattr(boards, "missing", lambda: "arm-none-eabi-gcc (Debian: gcc-arm-none-eabi)")


@pytest.fixture(scope="module")
def c_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("c") / "my-model.c"
    export("fspen", path, weights="int8")
    return path


def test_the_targets_of_the_command_are_the_boards():
    assert [target.value for target in Target] == list(boards.BOARDS)


def test_the_page_has_the_stored_table():
    page = (ROOT / "docs" / "devices.md").read_text()
    assert targets.BEGIN in page and targets.in_page(page, targets.stored()) == page


def test_every_included_model_with_c_is_stored():
    found = {(row["name"], row["sha256"], row["target"], row["form"]) for row in targets.stored()}
    expected = set()
    for name, about in pretrained.index().items():
        for target, board in boards.BOARDS.items():
            for form in boards.forms(board):
                if about["causal"] and (form != "integer" or about["model"] == "fspen"):
                    expected.add((name, sha256(pretrained.included()[name]), target, form))
    assert found == expected


def test_without_tools_the_stored_rows_are_printed(se, no_tools):
    done = se("count", "fspen", "setk/pretrained/dpsnn.pt", "--target", "m7", "--json")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["model"], row["form"]) for row in found] == [
        ("fspen", "float"),
        ("fspen", "int8"),
        ("fspen", "integer"),
        ("setk/pretrained/dpsnn.pt", "float"),
        ("setk/pretrained/dpsnn.pt", "int8"),
    ]
    assert {row["source"] for row in found} == {"stored"}
    assert all(
        row["instructions_per_second"] == pytest.approx(62.5 * row["instructions_per_hop"], 1e-6) for row in found[:3]
    )
    assert found[0]["flash_bytes"] > found[1]["flash_bytes"] > 0
    assert all(row["ram_bytes"] > row["state_bytes"] + row["scratch_bytes"] > 0 for row in found)
    table = se("count", "fspen", "--target", "m3").out.splitlines()
    assert table[0].split("\t") == list(found[0]) and len(table) == 2


@pytest.mark.parametrize(
    "spec, words",
    [
        ("none", "no trained model is called 'none'"),
        ("conv_tasnet-small", "no stored measurement on m7, and no arm-none-eabi-gcc"),
        ("{untrained}", "no stored measurement on m7, and no arm-none-eabi-gcc"),
        ("setk/pretrained/fspen.onnx", "has no weights to make C of"),
        ("{c}", "add --trust"),
        ("{c} --trust", "needs arm-none-eabi-gcc"),
        ("{c}.c", "no such file"),
        ("fspen --time", "--time does not apply with --target"),
    ],
)
def test_what_is_not_stored_is_one_line(se, no_tools, untrained, c_file, spec, words):
    done = se("count", *spec.format(untrained=untrained, c=c_file).split(), "--target", "m7")
    assert (done.returncode, done.out) == (2, "") and len(done.err.splitlines()) == 1
    assert words in done.err


@pytest.mark.parametrize("spec, words", [("conv_tasnet-small", "is not causal"), ("fqse-small", "is not causal")])
def test_a_model_without_c_is_one_line(tmp_path, spec, words):
    with pytest.raises(UserError, match=words):
        targets.sources(spec, ["float"], tmp_path)


def test_a_model_without_integers_has_none(tmp_path):
    with pytest.raises(UserError, match="has no form of integers"):
        targets.sources("dpsnn", ["integer"], tmp_path)


@needs_tools
def test_the_table_is_what_is_measured(se):
    measured = [json.loads(line) for line in se("count", "fspen", "--target", "m33", "--json").out.splitlines()]
    stored = [row for row in targets.stored() if (row["name"], row["target"]) == ("fspen", "m33")]
    assert [row["form"] for row in measured] == [row["form"] for row in stored]
    for now, before in zip(measured, stored):
        # Versions of the compiler differ a little. After a change of kernels: python -m setk.export.c.targets
        assert now["source"] == "measured"
        for column in ("flash_bytes", "ram_bytes", "state_bytes", "scratch_bytes", "instructions_per_hop"):
            assert now[column] == pytest.approx(before[column], rel=0.1), (now["form"], column)


@needs_tools
def test_a_c_file_is_measured_by_its_own_names(se, c_file):
    done = se("count", c_file, "--target", "m4", "--json", "--trust")
    row = json.loads(done.out)
    stored = next(r for r in targets.stored() if (r["name"], r["target"], r["form"]) == ("fspen", "m4", "int8"))
    assert (row["form"], row["source"]) == ("int8", "measured")
    assert row["flash_bytes"] == pytest.approx(stored["flash_bytes"], rel=0.1)
    assert "only the form of se-quant export --integer runs" in se("count", c_file, "--target", "m3", "--trust").err


@needs_tools
def test_c_that_does_not_compile_is_one_line(se, c_file, tmp_path):
    for suffix in (".c", ".h"):
        shutil.copy(c_file.with_suffix(suffix), tmp_path)
    broken = tmp_path / c_file.name
    broken.write_text(broken.read_text() + "\nint broken = ;\n")
    done = se("count", broken, "--target", "m7", "--trust")
    assert done.returncode == 2 and len(done.err.splitlines()) == 1 and "does not compile for cortex-m7" in done.err
