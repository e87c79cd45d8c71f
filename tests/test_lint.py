"""The linter and the type checker, as pyproject.toml configures them, find nothing."""

from __future__ import annotations

import subprocess
import sys
from importlib import util

import pytest
from conftest import ROOT


@pytest.mark.parametrize(
    "tool, args",
    [
        ("ruff", ["format", "--check", "--quiet", "."]),
        ("ruff", ["check", "--quiet", "setk", "tests", "recipes", "setup.py"]),
        ("mypy", []),
    ],
)
def test_there_is_nothing_to_say(tool, args):
    if not util.find_spec(tool):
        pytest.skip(f"{tool} is not installed (pip install 'setk[test]')")
    done = subprocess.run([sys.executable, "-m", tool, *args], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
