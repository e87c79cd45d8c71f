"""Damaged files of every kind: each is accepted, or refused in one line, in bounded time. `--fuzz N` tries N of each kind."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).parent / "driver.py"
KINDS = ("audio", "lists", "configs", "tables", "shards", "checkpoints", "onnx")
GOOD = ("accepted", "refused")
QUIET_S = 300  # without a line from a driver: it hangs, however busy the machine is


def outcomes(kind: str, count: int, folder: Path) -> dict[int, str]:
    """What became of cases 0 ... count - 1, and of the undamaged one, -1."""
    found: dict[int, str] = {}
    first = -1
    while first < count:
        folder.joinpath(str(first)).mkdir()
        driver = subprocess.Popen(
            [sys.executable, str(DRIVER), kind, str(first), str(count - first), str(folder / str(first))],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        case = first
        for line in driver.stdout:
            said = json.loads(line)
            case = said["case"]
            found[case] = said.get("outcome", "no answer")
        code = driver.wait(QUIET_S)
        if found.get(case) == "no answer":
            found[case] = f"the process ended with {code}"
        first = case + 1
    return found


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_accepted_or_refused_in_one_line(kind, tmp_path, pytestconfig):
    count = pytestconfig.getoption("--fuzz")
    found = outcomes(kind, count, tmp_path)
    assert found.pop(-1) == "accepted"
    assert len(found) == count
    bad = {case: outcome for case, outcome in found.items() if outcome not in GOOD}
    assert not bad, f"{len(bad)} of {count}: {dict(list(bad.items())[:20])}"
    tally = collections.Counter(found.values())
    assert tally["refused"] > count / 20  # the damage is felt
