"""recipes/*/prepare.sh as a user runs them: on a generated tree where no root is given, and on a root."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys

import pytest
from conftest import MINI, PATIENCE, ROOT

from setk.data import shards
from setk.data.datadir import DataDir


@pytest.fixture
def recipe(tmp_path):
    if not (ROOT / ".venv").exists():
        pytest.skip("recipes run bin/se-*, which need the .venv of bin/setup")

    def run(name, *args):
        clean = {key: value for key, value in os.environ.items() if not key.endswith("_ROOT")}
        argv = ["bash", ROOT / "recipes" / name, *map(str, args)]
        return subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE, env=clean)

    return run


@pytest.fixture
def prepare(recipe):
    return lambda dataset, *args: recipe(f"{dataset}/prepare.sh", *args)


@pytest.mark.full
@pytest.mark.parametrize("dataset, counts", [("vbd", (4, 3, 3)), ("librimix", (6, 3, 4)), ("ndns", (4, 2, 2))])
def test_without_a_root_a_generated_tree_is_prepared_and_that_is_said(prepare, tmp_path, dataset, counts):
    done = prepare(dataset, "--dir", "here", "--nj", 2)
    assert done.returncode == 0, done.stderr
    assert "NO CORPUS ROOT GIVEN" in done.stderr and f"{dataset.upper()}_ROOT" in done.stderr
    found = [DataDir(tmp_path / "here/data" / split).pairs() for split in ("train", "valid", "test")]
    assert tuple(map(len, found)) == counts
    assert sorted(shards.Shards(tmp_path / "here/shards").ids) == sorted(found[0])
    for step in ("shards", *(["prepare"] if dataset != "librimix" else [])):
        log = (tmp_path / f"here/log/{step}.2.log").read_text()
        assert "--part 2/2" in log and log.splitlines()[-1].startswith("# Ended (code 0)")


@pytest.mark.full
def test_ndns_is_made_where_there_was_nothing(prepare, tmp_path):
    runpy.run_path(str(MINI / "trees.py"))["ndns"](tmp_path)
    done = prepare(
        "ndns",
        "--root",
        "new",
        "--clean",
        "sources/clean",
        "--noise",
        "sources/noise",
        "--clips",
        "2,1,1",
        "--dir",
        "exp",
        "--data",
        "data",
        "--stop-stage",
        0,
        "--nj",
        1,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("new/*/noisy/*.wav"))) == 4 and len(DataDir(tmp_path / "data/train").pairs()) == 2


@pytest.mark.full
def test_a_recipe_runs_with_the_launcher_of_kaldi(prepare, tmp_path):
    launcher = f"{sys.executable} {ROOT}/tests/kaldi_run.py --mem 1G --num-threads 1"
    done = prepare("vbd", "--dir", "here", "--cmd", launcher)
    assert done.returncode == 0, done.stderr
    assert (
        len(DataDir(tmp_path / "here/data/train").pairs()) == 4
        and len(shards.Shards(tmp_path / "here/shards").ids) == 4
    )
    log = (tmp_path / "here/log/shards.2.log").read_text()
    assert "--part 2/2" in log and "\n# Host " not in log and "# Ended (code 0) at now" in log


def test_a_librimix_tree_without_what_is_wanted_stops_the_recipe(prepare, tmp_path):
    (tmp_path / "L2M").mkdir()
    done = prepare("librimix", "--root", "L2M", "--dir", "exp", "--data", "data")
    assert done.returncode == 2 and "has no mixture_" in done.stderr


def test_settings_of_a_slow_model_are_between_those_of_data_mini_and_the_users(tmp_path):
    def settings(script: str, *args: str) -> list[str]:
        recipe = tmp_path / "recipe.sh"
        recipe.write_text(f"""conf=fspen; . {ROOT}/recipes/utils/recipe.sh vbd x "$@"; {script}
            training_settings lr=1 steps=7; printf '%s\\n' "${{settings[@]}}" """)
        done = subprocess.run(
            ["bash", recipe, *args], capture_output=True, text=True, env={**os.environ, "VBD_ROOT": ""}
        )
        return [line.removeprefix("--set=") for line in done.stdout.splitlines()]

    assert (
        settings("")[:2] == ["lr=1", "steps=7"]
        and settings("")[-1].startswith("betas=")
        and "steps=300" in settings("")
    )
    assert settings("mini_set='steps=100'")[-1] == "steps=100"
    assert settings("mini_set='steps=100'", "--set", "steps=5 ema=0")[-3:] == ["steps=100", "steps=5", "ema=0"]
    assert settings("", "--root", str(tmp_path), "--set", "ema=0") == ["lr=1", "steps=7", "ema=0"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--set", "stps=3", "unknown key 'stps'; did you mean 'steps'?"),
        ("--conf", "fspn", "did you mean 'fspen'?"),
        ("--init", "none.pt", "none.pt: no such checkpoint"),
    ],
)
def test_a_fault_of_the_training_stops_the_recipe_before_hours_of_preparation(recipe, tmp_path, option, value, message):
    done = recipe("vbd/fspen.sh", "--root", tmp_path, "--dir", "exp", "--data", "exp/data", option, value)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "stage 0" not in done.stderr and not (tmp_path / "exp/data").exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ablation.sh", ["--seeds", " "], "--seeds ' ': write different whole numbers"),
        ("ablation.sh", ["--seeds", "1 1"], "--seeds '1 1'"),
        ("ablation.sh", ["--seeds", "1 x"], "--seeds '1 x'"),
        ("vbd/fspen.sh", ["--stage", "3", "--stop-stage", "3"], "--stage 3: there is no such stage"),
    ],
)
def test_seeds_and_stages_that_cannot_be_are_refused(recipe, name, options, message):
    done = recipe(name, "--dir", "exp", *options)
    assert done.returncode == 2 and message in done.stderr, done.stderr
