"""The layers of setk: a module imports only from packages listed before its own, and quick commands start quickly."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SETK = Path(__file__).parents[1] / "setk"
LAYERS = [
    "core",
    "audio",
    "data",
    "metrics",
    "scoring",
    "pretrained",
    "nn",
    "models",
    "checkpoint",
    "native",
    "engines",
    "cost",
    "export",
    "compress",
    "training",
    "cli",
]
TORCHLESS = LAYERS[: LAYERS.index("nn")]


def test_contributing_has_the_layers_in_their_order():
    text = (SETK.parent / "CONTRIBUTING.md").read_text()
    block = text.partition("\nsetk/\n")[2].partition("```")[0]
    names = [line.split()[0].removesuffix("/").removesuffix(".py") for line in block.splitlines()]
    assert [name for name in names if name != "configs"] == LAYERS


def layer_of(path: Path) -> str:
    return path.relative_to(SETK).parts[0].removesuffix(".py")


def imports(path: Path):
    """The module of every import in a file, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "setk":
            yield from (f"setk.{a.name}" for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def sources():
    return [p for p in sorted(SETK.rglob("*.py")) if p.parent != SETK or p.name not in ("__init__.py", "__main__.py")]


def test_a_module_imports_only_from_layers_before_its_own():
    wrong = []
    for path in sources():
        for name in imports(path):
            if not name.startswith("setk.") or name == "setk.__version__":
                continue
            if LAYERS.index(name.split(".")[1]) > LAYERS.index(layer_of(path)):
                wrong.append(f"{path.relative_to(SETK)} imports {name}")
    assert not wrong


def test_no_torch_and_no_scipy_before_nn():
    # The STFT is one definition for models and streams: its torch half is imported by the methods that models call.
    allowed = {SETK / "audio" / "stft.py"}
    wrong = []
    for path in sources():
        if layer_of(path) not in TORCHLESS or path in allowed:
            continue
        wrong += [
            f"{path.relative_to(SETK)} imports {name}"
            for name in imports(path)
            if name.split(".")[0] in ("torch", "scipy")
        ]
    assert not wrong


@pytest.mark.parametrize("name", ["prep", "train", "enhance", "score", "count", "quant", "prune"])
def test_help_imports_nothing_heavy(name):
    code = (
        f"import sys\nfrom setk.cli import {name} as c\nsys.argv=['x','--help']\n"
        "try: c.main()\nexcept SystemExit as e: assert not e.code\n"
        "bad=[m for m in ('torch','numpy','scipy','soundfile','h5py','rich') if m in sys.modules]\nassert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
