"""Shared by all tests: the two lanes, the seeds, commands, and a checkpoint to run them on."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import sys
import tempfile
import zlib
from pathlib import Path

# One compute thread: two workers keep two cores busy, and sums do not depend on the machine. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests neither see nor change what the user's cache holds.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="setk_cache_")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from commands import COMMANDS, PATIENCE, ROOT, Commands, command, stopping  # noqa: E402, F401

# A shell starts what it puts in the background with SIGINT ignored, and children inherit that; tests interrupt them.
signal.signal(signal.SIGINT, signal.default_int_handler)

MINI = ROOT / "data" / "mini"
SEED = 20261121
_generator = np.random.Generator(np.random.PCG64(SEED))

# The head of a config that trains a small FSPEN in seconds.
SMALL = "model: fspen\nconfig: {groups: 2, dpe_blocks: 1}\nsegment: 0.5\n"


def pytest_addoption(parser):
    group = parser.getgroup("setk")
    group.addoption(
        "--all",
        action="store_true",
        help="run the full lane too (kills, recipes, clusters, browsers, long streams), with a random seed",
    )
    group.addoption(
        "--fuzz",
        type=int,
        default=300,
        metavar="N",
        help="damaged files of each kind that tests/fault tries (default: 300)",
    )
    group.addoption(
        "--processes",
        action="store_true",
        help="run every command of setk as a process, none in the interpreter of the tests",
    )


def pytest_configure(config):
    COMMANDS.always_processes = config.getoption("--processes")
    if config.getoption("--all"):  # in the environment, which the workers of xdist share
        os.environ.setdefault("SETK_TEST_SEED", str(random.SystemRandom().randrange(2**32)))


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"SETK_TEST_SEED={_seed()}")


PRESET_PARAMETERS = ("preset", "model", "causal", "noncausal")
# Presets of which the full lane alone runs the tests of all models: the default lane has a smaller or similar one of the same model.
FULL_PRESETS = {
    "conv_tasnet",
    "dccrn",
    "dccrn-causal",
    "dpcrn_cf-causal",
    "effifusion_gan",
    "effifusion_gan-v",
    "fastenhancer-b",
    "fastenhancer-b-48k",
    "fastenhancer-s",
    "fastenhancer-t-48k",
    "fqse",
    "fspen-79k",
    "lite_rtse-dense",
}


def pytest_collection_modifyitems(config, items):
    """Without --all, only the default lane; what is asked for by its node id or by -m runs in any case."""
    if config.getoption("--all") or config.option.markexpr or any("::" in arg for arg in config.args):
        return
    kept = [item for item in items if not _full_only(item)]
    config.hook.pytest_deselected(items=[item for item in items if _full_only(item)])
    items[:] = kept


def _full_only(item) -> bool:
    if item.get_closest_marker("full"):
        return True
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return any(params.get(name) in FULL_PRESETS for name in PRESET_PARAMETERS if isinstance(params.get(name), str))


def _seed() -> int:
    return int(os.environ.get("SETK_TEST_SEED", SEED))


def _sow(name: str) -> None:
    """Seed all generators by the run's seed and the name of a test or fixture, so that neither order nor selection of tests matters."""
    seed = zlib.crc32(name.encode(), _seed() % 2**32)
    _generator.bit_generator.state = np.random.PCG64(seed).state
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef, request):
    _sow(f"{fixturedef.baseid}:{fixturedef.argname}:{getattr(request, 'param_index', 0)}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    _sow(item.nodeid)


@pytest.fixture
def restored_sigpipe():
    """For a test that runs a command's `main` or sets the handler itself."""
    before = signal.getsignal(signal.SIGPIPE)
    yield
    signal.signal(signal.SIGPIPE, before)


@pytest.fixture(scope="session")
def rng() -> np.random.Generator:
    """Random sizes and signals. Each test begins with a seed of its own; SETK_TEST_SEED repeats those of a run with --all."""
    return _generator


@pytest.fixture(scope="session")
def se() -> Commands:
    """se("enhance", model, "a.wav", ...) runs the command in this interpreter, se.process(...) as a process."""
    return COMMANDS


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Path:
    """A checkpoint of FSPEN that changes its input clearly, though nobody trained it."""
    return moved_checkpoint(tmp_path_factory.mktemp("model") / "untrained.pt", {})


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium (see tests/browser.py); the test skips where there is none."""
    from browser import open_browser

    browser = open_browser(tmp_path)
    yield browser
    browser.close()


def moved_checkpoint(path: Path, config: dict) -> Path:
    """A checkpoint of FSPEN whose weights are moved off their start, where masks are nearly one."""
    import torch

    from setk import checkpoint, models

    torch.manual_seed(7)
    model = models.build("fspen", config)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn_like(p)
    checkpoint.save(path, model, {})
    return path
