"""recipes/*/prepare.sh as a user runs them: on a generated tree where no root is given, and on a root."""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import MINI, PATIENCE, ROOT
from slurm import wait_for

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
        ("vbd/fspen.sh", ["--data", "mine"], "stage 0 prepares it from --root"),
        ("vbd/fspen.sh", ["--shards", "a/JOBS"], "a path with JOB in it"),
        ("vbd/fspen.sh", ["--cmd", "nope.sh --mem 4G"], "--cmd nope.sh --mem 4G: no such launcher"),
        ("vbd/fspen.sh", ["--cpu-cmd", "./nope.sh"], "--cpu-cmd ./nope.sh: no such launcher"),
        ("ndns/prepare.sh", ["--clean", "c", "--noise", "n"], "--clean needs --root"),
    ],
)
def test_seeds_stages_and_folders_that_cannot_be_are_refused(recipe, name, options, message):
    done = recipe(name, "--dir", "exp", *options)
    assert done.returncode == 2 and message in done.stderr, done.stderr


def test_settings_may_have_line_breaks_and_a_config_is_relative_to_where_the_user_is(recipe, tmp_path):
    (tmp_path / "my.conf").write_text("set='steps=2\nlr=1e-3'\ntrain_cmd=echo\n")
    done = recipe("vbd/fspen.sh", "--config", "my.conf", "--dir", "exp", "--stage", 2, "--stop-stage", 2)
    assert done.returncode == 0 and "--set=steps=2 --set=lr=1e-3" in done.stdout, done.stderr


def test_a_refused_resume_names_the_options_of_a_recipe(recipe, tmp_path):
    launcher = tmp_path / "launcher"
    for refusal, named in (("out: was begun with another value of 'lr'", True), ("no memory", False)):
        launcher.write_text(f'#!/bin/bash\necho "{refusal}" > "$1"\nexit 1\n')
        launcher.chmod(0o755)
        done = recipe("vbd/fspen.sh", "--dir", "exp", "--train-cmd", launcher, "--stage", 2)
        assert done.returncode == 1 and ("use another --dir" in done.stderr) == named, done.stderr


def test_prepared_data_need_no_root(recipe, tmp_path):
    done = recipe(
        "vbd/fspen.sh", "--data", "mine", "--dir", "exp", "--train-cmd", "echo", "--stage", 2, "--stop-stage", 2
    )
    assert f"--valid {tmp_path}/mine/valid" in done.stdout and "NO CORPUS ROOT" not in done.stderr, done.stderr


def test_a_config_may_choose_the_paper(recipe, tmp_path):
    (tmp_path / "my.conf").write_text("paper=fqse\n")
    done = recipe("ablation.sh", "--config", "my.conf", "--dir", "exp", "--only", "none")
    assert "LIBRIMIX_ROOT" in done.stderr and "--paper fqse" in done.stderr


def test_rooms_and_kinds_of_another_corpus_go(recipe, tmp_path):
    for name, lists in (("a", ("rir_train.scp", "noise2kind")), ("b", ())):
        (tmp_path / name / "lists").mkdir(parents=True)
        for file in ("speech_train.scp", "noise_train.scp", *lists):
            (tmp_path / name / "lists" / file).write_text(f"x {name}.wav\n")
        for part in ("valid", "test"):
            for kind in ("noisy", "clean"):
                (tmp_path / name / f"lists/{part}_{kind}.scp").write_text(f"x {name}.wav\n")
        # The audio is missing, so the check of stage 0 ends the recipe.
        recipe("open/fspen.sh", "--root", name, "--data", "d", "--dir", "exp", "--stop-stage", 0)
        found = sorted(path.name for path in (tmp_path / "d/train").iterdir())
        assert found == sorted(["speech.scp", "noise.scp", *(["rir.scp", "noise2kind"] if lists else [])])


def test_a_float_model_that_was_interrupted_is_trained_to_its_end_by_the_same_launcher(tmp_path):
    script = tmp_path / "recipe.sh"
    (tmp_path / "float").mkdir()
    for name in ("best.pt", "resume.pt"):
        (tmp_path / "float" / name).touch()
    (tmp_path / "float/config.yaml").write_text("steps: 20\n")
    script.write_text(f"""conf=fspen; . {ROOT}/recipes/utils/recipe.sh librimix x "$@"
        bash() {{ printf '%s\\n' "$@"; }}; bound=()
        init_from conv_tasnet {tmp_path}/float; echo "init $init" """)
    for step, unfinished in (("10", True), ("20", False)):
        (tmp_path / "float/history.tsv").write_text(f"step\thours\n{step}\t0.1\n")
        argv = ["bash", script, "--dir", tmp_path / "exp", "--train-cmd", "slurm.sh --gpu 4"]
        done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "LIBRIMIX_ROOT": ""})
        words = done.stdout.splitlines()
        assert ("recipes/librimix/conv_tasnet.sh" in words) == unfinished, done.stderr
        assert ("slurm.sh --gpu 4" in words) == unfinished and words[-1] == f"init {tmp_path}/float/best.pt"


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ([], ["--valid", "data/mini/valid"]),
        (["--data", "/mine", "--stage", "2"], ["--valid", "/mine/valid"]),
    ],
)
@pytest.mark.parametrize("name", ["librimix/fqse.sh", "librimix/qat.sh"])
def test_without_a_root_the_float_model_is_trained_first_on_the_same_data(recipe, tmp_path, name, options, places):
    # A launcher that prints the training, and fails there, so that nothing is trained.
    launcher = tmp_path / "launcher"
    launcher.write_text('#!/bin/bash\n[[ "$*" == *se-train* ]] || exit 0\nprintf "%s\\n" "$@"\nexit 1\n')
    launcher.chmod(0o755)
    done = recipe(name, "--dir", "exp/q", "--shards", "shards", "--cmd", launcher, "--stop-stage", 2, *options)
    words = done.stdout.splitlines()
    assert "se-train" in words and "conv_tasnet" in words, done.stderr
    at = words.index("--valid")
    assert words[at : at + 2] == places and words[words.index("--train") + 1] == f"{tmp_path}/shards"
    assert ("--set=preset=conv_tasnet-small" in words) == (not options)


@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv here (Debian: util-linux)")
def test_a_signal_to_the_recipe_alone_ends_what_it_runs(tmp_path):
    launcher = tmp_path / "launcher"
    launcher.write_text(f"""#!/bin/bash
        cd {tmp_path}; trap 'touch ended; exit 1' TERM; touch begun; until [[ -e go ]]; do sleep 0.1; done""")
    launcher.chmod(0o755)
    # fqse.sh runs conv_tasnet.sh, which runs the launcher.
    argv = ["bash", ROOT / "recipes/librimix/fqse.sh", "--dir", tmp_path / "q", "--cmd", launcher]
    env = {**os.environ, "LIBRIMIX_ROOT": ""}
    process = subprocess.Popen([*argv, "--data", tmp_path, "--stage", "2"], stderr=subprocess.DEVNULL, env=env)
    try:
        wait_for((tmp_path / "begun").exists, "the launcher")
        process.terminate()
        assert process.wait(PATIENCE) == -signal.SIGTERM
        wait_for((tmp_path / "ended").exists, "the launcher to be ended")
    finally:
        (tmp_path / "go").touch()


@pytest.mark.parametrize(("data", "folder"), [("/d a/vbd", "ex p/it's"), ("/data/vbd", "exp/vf")])
def test_the_commands_of_a_result_can_be_pasted(tmp_path, data, folder):
    script = tmp_path / "recipe.sh"
    script.write_text(f"""conf=fspen; . {ROOT}/recipes/utils/recipe.sh vbd fspen "$@"
        mkdir -p "$dir"; se-score() {{ :; }}; figures() {{ printf '1\\t0\\t1 M\\n'; }}; python=figures
        metrics_of() {{ echo sdri; }}; result_table""")
    argv = ["bash", script, "--data", data, "--dir", tmp_path / folder, "--stage", "6"]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "VBD_ROOT": ""})
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("    se-")]
    lists = [f"{data}/test/{name}.scp" for name in ("clean", "noisy")]
    score = ["se-score", "--ref", *lists, "--metrics", "sdri", "--noisy", lists[1], "--summary", "noisy.json"]
    assert shlex.split(lines[0]) == score, done.stderr
    assert shlex.split(lines[1])[:6] == [
        "se-enhance",
        f"{tmp_path / folder}/best.pt",
        "--list",
        lists[1],
        "--out",
        "enhanced",
    ]
    assert shlex.split(lines[3]) == ["se-count", f"{tmp_path / folder}/fspen.onnx", "--json"]
    assert " " in data or not any("'" in line for line in lines)


def test_a_model_is_not_pruned_in_another_way_where_a_training_began_from_it(tmp_path):
    script = tmp_path / "recipe.sh"
    script.write_text(f"""conf=fspen; . {ROOT}/recipes/utils/recipe.sh vbd x
        cd {tmp_path}; touch model
        pruned_before . . model --amount 0.2 || echo first; touch prune.tsv; echo x > prune.tsv
        pruned_before . . model --amount 0.2 && echo same
        pruned_before . . model --amount 0.3 || echo other
        touch resume.pt; pruned_before . . model --amount 0.4""")
    done = subprocess.run(["bash", script], capture_output=True, text=True, env={**os.environ, "VBD_ROOT": ""})
    assert done.stdout.split() == ["first", "same", "other"], done.stderr
    assert done.returncode == 2 and "use another --dir" in done.stderr
