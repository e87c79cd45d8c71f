"""setk installed as users install it: from its sdist, into fresh virtual environments, complete and light.

Other packages are linked from the environment of the tests: nothing is downloaded.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import PATIENCE, ROOT
from test_packaging import closure, names_in, project

pytestmark = pytest.mark.full

NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", "exp", "build", "dist", "__pycache__", "*.so", "*.egg-info", ".*_cache"
)
NOISY = ROOT / "data/mini/test/noisy/mona_0001.flac"
CLEAN = ROOT / "data/mini/test/clean/mona_0001.flac"


def run(*argv, **options) -> str:
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=PATIENCE, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("install")


@pytest.fixture(scope="module")
def sdist(work) -> Path:
    """The source distribution, unpacked."""
    source = shutil.copytree(ROOT, work / "source", ignore=NOT_SOURCE, symlinks=True)
    run(
        sys.executable,
        "-P",
        "-c",
        f"from setuptools import build_meta; build_meta.build_sdist({str(work)!r})",
        cwd=source,
    )
    archive = next(work.glob("setk-*.tar.gz"))
    (work / "sdist").mkdir()
    run("tar", "--extract", "--file", str(archive), "--directory", str(work / "sdist"))
    return work / "sdist" / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(work, sdist) -> Path:
    """The wheel, built from the source distribution."""
    copy = shutil.copytree(sdist, work / "build")
    run(
        sys.executable,
        "-P",
        "-c",
        f"from setuptools import build_meta; build_meta.build_wheel({str(work)!r})",
        cwd=copy,
    )
    return next(work.glob("setk-*.whl"))


def environment(folder: Path, wheel: Path, names: set[str]) -> Path:
    """The bin/ of a fresh virtual environment with the wheel of setk and what `names` need."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    site = next(folder.glob("lib/python*/site-packages"))
    for distribution in closure(names).values():
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        folder / "bin/python",
        "install",
        "--no-index",
        "--no-deps",
        "--quiet",
        wheel,
    )
    return folder / "bin"


@pytest.fixture(scope="module")
def light(work, wheel) -> Path:
    return environment(work / "light", wheel, names_in((ROOT / "requirements-light.txt").read_text().splitlines()))


@pytest.fixture(scope="module")
def complete(work, wheel) -> Path:
    needed = names_in([*project()["dependencies"], *project()["optional-dependencies"]["test"]])
    return environment(work / "complete", wheel, needed)


def here(command: str, *args) -> str:
    """Output of a command in the environment of the tests."""
    return run(sys.executable, "-P", "-m", "setk", command, *args, cwd=ROOT)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout, so no list of files to compare with")
def test_the_source_distribution_holds_every_file(sdist):
    listed = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    assert [name for name in listed if name and not (sdist / name).is_file()] == []


def test_the_wheel_holds_every_file_of_the_package(wheel, sdist):
    held = set(zipfile.ZipFile(wheel).namelist())
    files = {str(path.relative_to(sdist)) for path in (sdist / "setk").rglob("*") if path.is_file()}
    assert files - held == set()
    for suffix in (".yaml", ".onnx", ".pt", ".md", ".json", ".html", ".c"):
        assert any(name.startswith("setk/") and name.endswith(suffix) for name in held), suffix
    assert any(name.startswith("setk/nn/_gru") for name in held)  # compiled here


def test_a_light_installation_enhances_to_the_same_bytes_without_torch(light, tmp_path):
    assert subprocess.run([light / "python", "-c", "import torch"], capture_output=True).returncode == 1
    run(light / "se-enhance", "fspen", NOISY, tmp_path / "light.wav")
    here("enhance", "fspen", NOISY, tmp_path / "here.wav")
    assert (tmp_path / "light.wav").read_bytes() == (tmp_path / "here.wav").read_bytes()
    run(
        light / "se-enhance",
        "fspen",
        "--list",
        ROOT / "data/mini/test/noisy.scp",
        "--shard",
        "1/8",
        "--out",
        tmp_path / "out",
        "--jobs",
        "2",
        cwd=ROOT,
    )
    assert len(list((tmp_path / "out").glob("*.wav"))) == 2


def test_a_light_installation_lists_prepares_and_scores(light, tmp_path):
    assert run(light / "se-enhance", "--list-models") == here("enhance", "--list-models")
    prepared = run(light / "se-prep", "shards", "data/mini/valid", tmp_path / "light", cwd=ROOT)
    assert prepared == here("prep", "shards", "data/mini/valid", tmp_path / "here")
    assert sorted(p.name for p in (tmp_path / "light").iterdir()) == sorted(
        p.name for p in (tmp_path / "here").iterdir()
    )
    score = ["score", "--metrics", "stoi,estoi,si_sdr,sdr,lsd", CLEAN, NOISY]
    assert run(light / "se-score", *score[1:]) == here(*score)


@pytest.mark.parametrize(
    "args, words",
    [
        (["se-enhance", "lite_rtse", NOISY, "out.wav"], "the package torch is not installed"),
        (["se-train", "fspen", "--train", "a", "--valid", "b", "--out", "c"], "the package torch is not installed"),
        (["se-score", CLEAN, NOISY], "pesq_wb needs the package pesq"),
        (["se-count", "fspen"], "the package torch is not installed"),
    ],
)
def test_a_light_installation_names_what_more_is_needed(light, tmp_path, args, words):
    done = subprocess.run([light / args[0], *args[1:]], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and words in done.stderr, done.stderr


def test_a_complete_installation_trains_by_the_name_of_a_config_and_enhances(complete, tmp_path):
    settings = "config.groups=2 config.dpe_blocks=1 batch=2 segment=0.5 steps=2 warmup=1 valid_every=2 workers=0 metrics=[si_sdr] best=si_sdr"
    run(
        complete / "se-train",
        "fspen",
        "--train",
        "data/mini/valid",
        "--valid",
        "data/mini/valid",
        "--out",
        tmp_path / "exp",
        *(f"--set={setting}" for setting in settings.split()),
        cwd=ROOT,
    )
    run(complete / "se-enhance", tmp_path / "exp/best.pt", NOISY, tmp_path / "out.wav")
    assert (tmp_path / "out.wav").stat().st_size > 1000


def test_the_tests_of_the_source_distribution_run_with_the_installed_package(complete, sdist):
    files = ["tests/test_lists.py", "tests/test_files.py", "tests/test_packaging.py"]
    out = run(complete / "python", "-P", "-m", "pytest", "-n0", "-p", "no:cacheprovider", *files, cwd=sdist)
    assert "100%" in out


def test_the_dependencies_of_the_package_are_consistent(complete):
    assert "No broken requirements" in run(sys.executable, "-m", "pip", "--python", complete / "python", "check")
