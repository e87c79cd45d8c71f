"""The floors of the house: a room imports only from rooms above it, and quick commands stay quick to start."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SETK = Path(__file__).parents[1] / "setk"
FLOORS = ["files", "lists", "sums", "audio", "pool", "provenance", "config", "mixing", "dsp", "features", "shards", "metrics", "report",
          "corpora", "pretrained", "models", "checkpoint", "engines", "cost", "compress", "training", "commands"]
TORCHLESS = ["files", "lists", "sums", "audio", "pool", "provenance", "config", "mixing", "features", "shards", "metrics", "report", "corpora",
             "pretrained"]


def room_of(path: Path) -> str:
    return path.relative_to(SETK).parts[0].removesuffix(".py")


def imports(path: Path):
    """(module, whether at the top of the module) of every import in a file."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"setk.{a.name}" for a in node.names] if node.module == "setk" else [node.module]
        for name in names:
            yield name, node in tree.body


def sources():
    return [p for p in sorted(SETK.rglob("*.py")) if p.parent != SETK or p.name != "__init__.py"]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(SETK)))
def test_a_room_imports_from_rooms_above_it(path):
    own = room_of(path)
    if own == "pretrained":
        return
    for name, _ in imports(path):
        if name.startswith("setk.") and (other := name.split(".")[1]) != "__version__":
            assert FLOORS.index(other) <= FLOORS.index(own), f"{path}: {own} must not import {name}"


@pytest.mark.parametrize("path", [p for p in sources() if room_of(p) in TORCHLESS], ids=lambda p: str(p.relative_to(SETK)))
def test_the_ground_floor_needs_no_torch_or_scipy(path):
    assert not [name for name, _ in imports(path) if name.split(".")[0] in ("torch", "scipy")]


@pytest.mark.parametrize("name", ["prep", "train", "enhance", "score", "count", "quant", "prune"])
def test_help_imports_nothing_heavy(name):
    code = (f"import sys\nfrom setk.commands import {name} as c\nsys.argv=['x','--help']\n"
            "try: c.main()\nexcept SystemExit as e: assert not e.code\n"
            "bad=[m for m in ('torch','numpy','scipy','soundfile','h5py','rich') if m in sys.modules]\nassert not bad, bad")
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
