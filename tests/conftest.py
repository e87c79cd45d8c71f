"""Shared by all tests: commands run as real processes, and small real files to run them on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# A shell starts what it puts in the background with SIGINT ignored, and children inherit that; tests interrupt them.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
MINI = ROOT / "data" / "mini"


def command(name: str, *args) -> list[str]:
    """argv of a setk command, as bin/se-NAME runs it."""
    return [sys.executable, "-P", "-m", f"setk.cli.{name}", *map(str, args)]


@pytest.fixture
def se():
    """se("enhance", model, "a.wav", ...) runs the command from the repository's root; the finished process."""

    def run(name: str, *args, input: bytes | None = None, **options) -> subprocess.CompletedProcess:
        options = {"cwd": ROOT, "timeout": 300, **options}
        done = subprocess.run(command(name, *args), input=input, capture_output=True, **options)
        done.out, done.err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert "Traceback" not in done.err, done.err
        return done

    return run


@pytest.fixture(scope="session")
def rng() -> np.random.Generator:
    """Random sizes differ from run to run; the seed is printed, and SETK_TEST_SEED repeats it."""
    seed = int(os.environ.get("SETK_TEST_SEED", np.random.SeedSequence().entropy % 2**32))
    print(f"SETK_TEST_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Path:
    """A checkpoint of FSPEN that changes its input clearly, though nobody trained it."""
    import torch

    from setk import checkpoint, models

    torch.manual_seed(7)
    model = models.build_preset("fspen")
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn_like(p)
    path = tmp_path_factory.mktemp("model") / "untrained.pt"
    checkpoint.save(path, model, {})
    return path
