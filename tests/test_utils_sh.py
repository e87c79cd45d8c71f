"""What recipes use: options, launchers (this machine, a real Slurm, fakes of Grid Engine and PBS), split lists, bin/setup, se-* links."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import PATIENCE, SMALL
from slurm import BASH, private_slurm, running_job, wait_for

ROOT = Path(__file__).parents[1]
UTILS = ROOT / "recipes" / "utils"
HOSTILE = ["a b", "it's", 'say "hi"', "$HOME `id` \\", "*", "", "two\nlines", "é;|&>", "--x=JOB"]


def bash(script: str, *args: str, cwd: Path, env: dict | None = None) -> subprocess.CompletedProcess:
    path = cwd / "recipe.sh"
    path.write_text(script)
    return subprocess.run(
        ["bash", path, *args], cwd=cwd, env={**BASH, **(env or {})}, capture_output=True, text=True, timeout=PATIENCE
    )


# ── user_paths.sh ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_teacher_is_relative_to_the_users_folder(tmp_path):
    (tmp_path / "t.pt").touch()
    script = f"""set -euo pipefail
. {UTILS}/user_paths.sh
set='lr=1e-3 teacher.model=t.pt metrics=[stoi,*] ' tune='teacher.model=dpcrn_cf' prune=
cd /
user_teacher set tune prune missing
printf '%s|' "$set" "$tune" "$prune"
"""
    done = bash(script, cwd=tmp_path)
    assert done.stdout == f"lr=1e-3 teacher.model={tmp_path}/t.pt metrics=[stoi,*]|teacher.model=dpcrn_cf||", (
        done.stderr
    )


# ── parse_options.sh ────────────────────────────────────────────────────────────────────────────────────────────────

OPTIONS = f"""set -euo pipefail
help_message="usage: 100% \\$x"
nj=4 stop_stage=9 fresh=false root= train_cmd=run.sh
. {UTILS}/parse_options.sh
echo "$nj|$stop_stage|$fresh|$root|$train_cmd|$#|$*"
"""


@pytest.mark.parametrize(
    "args, out",
    [
        ("", "4|9|false||run.sh|0|"),
        ("--nj 8 --stop-stage 2 --fresh true x y", "8|2|true||run.sh|2|x y"),
        ("--stop_stage 3", "4|3|false||run.sh|0|"),
        ("--root '/a b/$c*' -- --nj 1", "4|9|false|/a b/$c*|run.sh|2|--nj 1"),
        ("--root '' x --nj 3", "4|9|false||run.sh|3|x --nj 3"),
        ("--train-cmd 'slurm.sh --gpu 2' --root -5", "4|9|false|-5|slurm.sh --gpu 2|0|"),
        ("--root ' --x' -", "4|9|false| --x|run.sh|1|-"),
        ("--nj 7 --config c.conf", "7|5|true||run.sh|0|"),
    ],
)
def test_options_become_variables(tmp_path, args, out):
    (tmp_path / "c.conf").write_text("nj=2 fresh=true\nstop_stage=5\n")
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {args}"], capture_output=True, text=True).stdout
    done = bash(OPTIONS, *(words.split("\0")[:-1] if args else []), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, out + "\n", "")


@pytest.mark.parametrize(
    "args, words",
    [
        (["--stp-stage", "1"], ["--stp-stage", "--stop-stage?"]),
        (["--wholly-other", "1"], ["--wholly-other", "--nj"]),
        (["--PATH", "1"], ["--PATH"]),
        (["--help-message", "1"], ["--help-message"]),
        (["--nj=4"], ["--nj=4", "--nj '4'"]),
        (["--nj"], ["--nj needs a value"]),
        (["--nj", "--stop-stage", "2"], ["--nj needs a value", "--stop-stage"]),
        (["--nj", "--help"], ["--nj needs a value"]),
        (["--fresh", "yes"], ["--fresh", "true or false", "yes"]),
        (["--fresh", ""], ["--fresh", "true or false"]),
        (["--train-cmd", ""], ["--train-cmd", "empty"]),
        (["--config", "none.conf"], ["none.conf", "no such file"]),
        (["--config"], ["--config", "no such file"]),
        (["--config", "typo.conf"], ["typo.conf", "stop_stag,", "--stop-stage?"]),
        (["--config", "flag.conf"], ["flag.conf", "fresh", "maybe"]),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_2(tmp_path, args, words):
    (tmp_path / "typo.conf").write_text("stop_stag=5\n")
    (tmp_path / "flag.conf").write_text("fresh=maybe\n")
    done = bash(OPTIONS, *args, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("recipe.sh: ") and all(word in done.stderr for word in words), done.stderr


def test_help_goes_to_stdout_untouched(tmp_path):
    for args in (["--help"], ["-h"], ["--nj", "3", "--help"], ["--no-such", "3", "--help"]):
        done = bash(OPTIONS, *args, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "usage: 100% $x\n", "")
    done = bash(OPTIONS.replace("help_message", "unused"), "--help", cwd=tmp_path)
    assert done.returncode == 0 and "--stop-stage '9'" in done.stdout


def test_options_leave_nothing_of_their_own_behind(tmp_path):
    script = OPTIONS + "compgen -v _po_ || compgen -A function _po_ || echo end"
    assert bash(script, "--nj", "3", cwd=tmp_path).stdout.splitlines()[1:] == ["end"]


# ── run.sh and slurm.sh ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A Slurm of one node; the environment in which its commands find it."""
    with private_slurm(tmp_path_factory.mktemp("slurm")) as env:
        yield env


def queue_of(flavour: str, folder: Path) -> dict:
    """The environment in which qsub, qstat and qdel are those of fake_queue.py, or kubectl is fake_kubectl.py."""
    tools = folder / "queue"
    (tools / "state").mkdir(parents=True)
    fake, names = ("fake_kubectl.py", ["kubectl"]) if flavour == "k8s" else ("fake_queue.py", ["qsub", "qstat", "qdel"])
    for name in names:
        (tools / name).write_text(
            (ROOT / "tests" / fake).read_text().replace("/usr/bin/env python3", sys.executable, 1)
        )
        (tools / name).chmod(0o755)
    env = {**BASH, "QUEUE": flavour, "QUEUE_STATE": str(tools / "state"), "PATH": f"{tools}:{BASH['PATH']}"}
    return env | ({"SETK_K8S": f"--image setk --volume tests:{folder}"} if flavour == "k8s" else {})


@pytest.fixture(
    params=[
        "run.sh",
        *(pytest.param(name, marks=pytest.mark.full) for name in ("slurm.sh", "sge.sh", "pbs.sh", "k8s.sh")),
    ]
)
def launcher(request, tmp_path):
    """launcher(args…) runs either launcher with the same command line; start=True leaves it running."""
    if request.param in ("sge.sh", "pbs.sh", "k8s.sh"):
        env = queue_of(request.param[:3], tmp_path)
    else:
        env = BASH if request.param == "run.sh" else request.getfixturevalue("slurm")
    # As in a recipe, where nproc would say 1.
    env = {**env, "OMP_NUM_THREADS": "1"}

    def run(*args, start=False):
        argv = [UTILS / request.param, *map(str, args)]
        process = subprocess.Popen(
            argv,
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if start:
            return process
        out, err = process.communicate(timeout=PATIENCE)
        assert out == ""
        return process.returncode, err

    run.name = request.param
    run.env = env
    return run


def trailer(log: Path) -> int | None:
    lines = log.read_text().splitlines()
    if not (ended := re.fullmatch(r"# Ended \(code (\d+)\) at .+, elapsed time \d+ seconds", lines[-1])):
        return None
    assert re.fullmatch(r"# Accounting: time=\d+ threads=\d+", lines[-2])
    return int(ended[1])


def test_every_argument_arrives_as_it_was_given(tmp_path, launcher):
    show = tmp_path / "show me.py"
    show.write_text("import sys\nprint(sys.argv[1:])\nprint('talk', file=sys.stderr)\nsys.stdout.write('no newline')\n")
    assert launcher("JOB=1:3", "log dir/JOB/x 100%d.JOB.log", "python3", show, *HOSTILE) == (0, "")
    for i in "123":
        lines = (tmp_path / "log dir" / i / f"x 100%d.{i}.log").read_text().splitlines()
        assert (
            lines[0].startswith("# python3 ")
            and lines[1].startswith("# Started at ")
            and lines[2].startswith("# Host ")
        )
        assert set(lines[4:6]) == {str([a.replace("JOB", i) for a in HOSTILE]), "talk"} and lines[6] == "no newline"
        assert trailer(tmp_path / "log dir" / i / f"x 100%d.{i}.log") == 0
        # The first line is the command, to be pasted into a shell.
        again = subprocess.run(["bash", "-c", lines[0][2:]], capture_output=True, text=True)
        assert again.stdout.splitlines()[0] == lines[4 if lines[4] != "talk" else 5]


def test_one_job_needs_no_range_and_a_shell_word_is_no_program(tmp_path, launcher):
    assert launcher(
        "--mem", "50M", "--gpu", 1, "--threads", 2, "--time", "0:05:00", "x.log", "sh", "-c", "echo JOB"
    ) == (0, "")
    text = (tmp_path / "x.log").read_text()
    assert "\nJOB\n" in text and "threads=2" in text
    code, err = launcher("y.log", "exit", "0")
    assert code == 1 and "1 / 1 failed, log is in y.log" in err and "exit" in err.splitlines()[1]
    assert trailer(tmp_path / "y.log") == 127


def test_failures_are_counted_and_pick_mends_them(tmp_path, launcher):
    for job in (2, 4):
        (tmp_path / f"break.{job}").touch()
    job = [
        "JOB=1:5",
        "x.JOB.log",
        "sh",
        "-c",
        "echo ran >> ran.JOB; test ! -e break.JOB || { echo no break.JOB; exit 7; }",
    ]
    code, err = launcher(*job)
    assert code == 1
    assert err.splitlines()[0] == (
        f"{launcher.name}: 2 / 5 failed, log is in x.*.log (job 2 4); --pick incomplete reruns those"
    )
    assert err.splitlines()[1] == "x.2.log: no break.2"
    assert [trailer(tmp_path / f"x.{i}.log") for i in range(1, 6)] == [0, 7, 0, 7, 0]

    (tmp_path / "break.2").unlink()
    code, err = launcher("--pick", "failed", *job)
    assert code == 1 and f"{launcher.name}: 1 / 2 failed" in err
    (tmp_path / "break.4").unlink()
    (tmp_path / "x.3.log").write_text("# half a log\n")
    code, err = launcher("--pick", "failed", *job)
    assert code == 0 and "skips 1" in err
    assert launcher("--pick", "incomplete", *job) == (0, "")
    assert launcher("--pick", "incomplete", *job) == (0, "")
    assert [len((tmp_path / f"ran.{i}").read_text().split()) for i in range(1, 6)] == [1, 2, 2, 3, 1]


def test_jobs_run_beside_each_other_up_to_max_jobs(tmp_path, launcher):
    meet = tmp_path / "meet.py"
    meet.write_text(
        "import os, sys, time\nme, total = sys.argv[1:]\nopen('here.' + me, 'w').close()\n"
        f"end = time.time() + {PATIENCE}\n"
        "while sum(f.startswith('here.') for f in os.listdir()) < int(total):\n"
        "    if time.time() > end: sys.exit('nobody came')\n    time.sleep(0.02)\n"
    )
    assert launcher("--max-jobs", 2, "J=1:2", "x.J.log", "python3", meet, "J", 2) == (0, "")
    count = ["sh", "-c", "mkdir only || exit 1; sleep 0.3; rmdir only"]
    assert launcher("--max-jobs", 1, "J=1:3", "y.J.log", *count) == (0, "")


def test_a_stopped_launcher_stops_its_jobs_and_no_log_claims_an_end(tmp_path, launcher):
    # A program that exits with code 0 on the signal, and its child, which would outlive it.
    work = "trap 'exit 0' TERM; touch on.JOB; (sleep 300 & echo $! > pid.JOB; wait) & wait"
    for how, code in ((signal.SIGINT, -2), (signal.SIGTERM, -15)):
        process = launcher("--max-jobs", 2, "JOB=1:3", "x.JOB.log", "bash", "-c", work, start=True)
        wait_for(
            lambda: all((tmp_path / f"pid.{i}").exists() and (tmp_path / f"pid.{i}").read_text() for i in (1, 2)),
            "two jobs at work",
        )
        process.send_signal(how)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == code and f"{launcher.name}: stopped" in err
        pids = [int((tmp_path / f"pid.{i}").read_text()) for i in (1, 2)]
        wait_for(lambda: not any(alive(pid) for pid in pids), "the jobs' children to be gone")
        assert [trailer(tmp_path / f"x.{i}.log") for i in (1, 2)] == [None, None]
        assert not (tmp_path / "on.3").exists()
        for path in (*tmp_path.glob("on.*"), *tmp_path.glob("pid.*")):
            path.unlink()


def test_the_log_of_a_running_job_is_not_emptied(tmp_path, launcher):
    if not shutil.which("flock"):
        pytest.skip("no flock here (Debian: util-linux)")
    logs = [tmp_path / f"x.{i}.log" for i in (1, 2)]
    place = ["--max-jobs", 2, "JOB=1:2", "x.JOB.log", "sh", "-c"]
    work = "echo begun; test JOB = 1 || until test -e go; do sleep 0.1; done"
    process = launcher(*place, work, start=True)
    try:
        wait_for(lambda: all(log.exists() and "\nbegun" in log.read_text() for log in logs), "two jobs at work")
        wait_for(lambda: trailer(logs[0]) == 0, "the end of the first")
        # A job outlives a launcher that is killed.
        if launcher.name == "run.sh":
            process.kill()
        for pick in ("all", "incomplete"):
            code, err = launcher("--pick", pick, *place, "echo again")
            assert code == 2 and "x.2.log: a job that is still running writes that log" in err
        assert trailer(logs[0]) == 0 and "\nbegun" in logs[1].read_text()
    finally:
        (tmp_path / "go").touch()
        wait_for(lambda: trailer(logs[1]) == 0, "the end of the second")
        process.communicate(timeout=PATIENCE)
    assert launcher(*place, "echo again") == (0, "")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_job_killed_outright_has_failed(tmp_path, launcher):
    code, err = launcher(
        "JOB=1:2",
        "x.JOB.log",
        "python3",
        "-c",
        "import os, signal, time\nif JOB == 2: os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(3)\n",
    )
    assert code == 1 and "1 / 2 failed, log is in x.*.log (job 2)" in err
    assert [trailer(tmp_path / f"x.{i}.log") for i in (1, 2)] == [0, None]


@pytest.mark.parametrize(
    "args, words",
    [
        (["JOB=1:2", "x.log", "true"], ["x.log", "put JOB"]),
        (["JOB=2:1", "x.JOB.log", "true"], ["JOB=2:1", "no job"]),
        (["JOB=1:2", "x.JOB.log"], ["needs a log and a program"]),
        (["--max-job", "2", "x.log", "true"], ["--max-job", "unknown"]),
        (["--max-jobs", "0", "x.log", "true"], ["--max-jobs 0"]),
        (["--max-jobs=2", "x.log", "true"], ["--max-jobs 2"]),
        (["--mem", "lots", "x.log", "true"], ["--mem lots", "4G"]),
        (["--mem", "4000", "x.log", "true"], ["--mem 4000", "4G"]),
        (["--time", "90", "x.log", "true"], ["--time 90", "H:M:S"]),
        (["--pick", "some", "x.log", "true"], ["--pick some", "incomplete"]),
        (["--gpu", "--mem", "x.log", "true"], ["--gpu needs a value"]),
        (["--nodes", "0", "x.log", "true"], ["--nodes 0"]),
        (["--signal", "USR1@90", "x.log", "true"], ["--signal USR1@90", "TERM@90"]),
        (["--volume", "data", "x.log", "true"], ["--volume data", "corpora:/data"]),
    ],
)
@pytest.mark.parametrize("name", ["run.sh", "slurm.sh", "sge.sh", "pbs.sh", "k8s.sh"])
def test_a_wrong_command_line_is_exit_2(tmp_path, name, args, words):
    done = subprocess.run(
        [UTILS / name, *args], cwd=tmp_path, env=BASH, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize(
    "name, args, words",
    [
        ("run.sh", ["--requeue"], "are for slurm.sh"),
        ("pbs.sh", ["--nodes", "2"], "are for slurm.sh"),
        ("sge.sh", ["--image", "setk"], "are for k8s.sh"),
        ("k8s.sh", [], "needs --image"),
        ("k8s.sh", ["--image", "setk"], "needs --volume"),
        ("k8s.sh", ["--image", "setk", "--volume", "a:/", "--time", "soon"], "--time soon"),
    ],
)
def test_an_option_of_another_launcher_is_refused(tmp_path, name, args, words):
    env = queue_of("k8s", tmp_path) | {"SETK_K8S": ""}
    done = subprocess.run(
        [UTILS / name, *args, "x.log", "true"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout) == (2, "") and words in done.stderr, done.stderr


def test_a_log_that_cannot_be_written_is_exit_2(tmp_path, launcher):
    (tmp_path / "file").touch()
    code, err = launcher("file/x.log", "true")
    assert code == 2 and "file" in err


KALDI_SCRIPT = """#!/usr/bin/env bash
nj=3
cmd=run.pl
dir=exp
. {utils}/parse_options.sh || exit 1
mkdir -p $dir
$cmd --max-jobs-run 2 --mem 2G --num-threads 1 --gpu 0 JOB=1:$nj $dir/log/count.JOB.log \\
    echo "a  b" c JOB \\| tr a-c A-C \\> $dir/out.JOB || exit 1
$cmd JOB=1:$nj --config conf/queue.conf $dir/log/check.JOB.log \\
    test JOB -ne 2 '&&' echo "it's \\$((JOB + 1))" \\; exit \\$? || exit 1
"""


@pytest.mark.parametrize("cmd", [f"{UTILS}/run.sh --shell", f"{sys.executable} {ROOT}/tests/kaldi_run.py"])
def test_a_script_written_for_kaldi_runs_with_either_launcher(tmp_path, cmd):
    done = bash(KALDI_SCRIPT.format(utils=UTILS), "--cmd", cmd, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert [(tmp_path / f"exp/out.{i}").read_text() for i in (1, 2, 3)] == [f"A  B C {i}\n" for i in (1, 2, 3)]
    assert "1 / 3 failed, log is in exp/log/check.*.log" in done.stderr
    codes = [
        re.search(r"# Ended \(code (\d+)\)", (tmp_path / f"exp/log/check.{i}.log").read_text())[1] for i in (1, 2, 3)
    ]
    assert codes == ["0", "1", "0"] and "it's 4" in (tmp_path / "exp/log/check.3.log").read_text()
    assert done.stderr.count("conf/queue.conf: not read") == cmd.endswith("--shell")


def test_options_of_kaldi_mean_the_same(tmp_path):
    run = [
        UTILS / "run.sh",
        "--max-jobs-run",
        "3",
        "--num-threads",
        "2",
        "JOB=1:3",
        "-tc",
        "1",
        "--mem",
        "4G",
        "--gpu",
        "1",
        "x.JOB.log",
    ]
    done = subprocess.run(
        [*run, "sh", "-c", "mkdir only || exit 1; sleep 0.1; rmdir only"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "threads=2" in (tmp_path / "x.3.log").read_text()


@pytest.mark.parametrize(
    "name, missing", [("slurm.sh", "sbatch"), ("sge.sh", "qsub"), ("pbs.sh", "qsub"), ("k8s.sh", "kubectl")]
)
def test_without_the_cluster_the_logs_of_the_run_before_stay(tmp_path, name, missing):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "readlink", "dirname", "seq"):
        (tools / tool).symlink_to(shutil.which(tool))
    (tmp_path / "x.1.log").write_text("# Ended (code 0) at some time, elapsed time 1 seconds\n")
    done = subprocess.run(
        [UTILS / name, "JOB=1:2", "x.JOB.log", "true"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**BASH, "PATH": str(tools)},
    )
    assert done.returncode == 2 and f"no {missing} on this machine" in done.stderr
    assert (tmp_path / "x.1.log").read_text().startswith("# Ended (code 0)") and not (tmp_path / "x.2.log").exists()


@pytest.mark.full
def test_slurm_sees_only_the_picked_jobs_and_what_they_ask_for(tmp_path, slurm):
    ask = "scontrol show job $SLURM_JOB_ID > asked.JOB; scontrol -o show job $SLURM_ARRAY_JOB_ID | wc -l > tasks.JOB"
    run = [UTILS / "slurm.sh", "--mem", "60M", "--gpu", "1", "--threads", "2", "--time", "0:07:00", "--max-jobs", "3"]
    for i in range(1, 7):
        (tmp_path / f"x.{i}.log").write_text(
            f"# Ended (code {int(i in (2, 5))}) at some time, elapsed time 1 seconds\n"
        )
    done = subprocess.run(
        [*run, "--pick", "failed", "JOB=1:6", "x.JOB.log", "sh", "-c", ask],
        cwd=tmp_path,
        env=slurm,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(p.name for p in tmp_path.glob("asked.*")) == ["asked.2", "asked.5"]
    asked = (tmp_path / "asked.5").read_text()
    for word in (
        "MinMemoryNode=60M",
        "TresPerNode=gres:gpu:1",
        "TimeLimit=00:07:00",
        "CPUs/Task=2",
        "ArrayTaskThrottle=3",
    ):
        assert word in asked, asked
    done = subprocess.run(
        [UTILS / "slurm.sh", "--mem", "900G", "y.log", "true"],
        cwd=tmp_path,
        env=slurm,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2 and "sbatch refused" in done.stderr


@pytest.mark.full
@pytest.mark.parametrize(
    "flavour, words",
    [
        (
            "sge",
            [
                ["-tc", "2"],
                ["-pe", "smp", "2"],
                ["-l", "mem_free=60M,h_vmem=60M"],
                ["-l", "h_rt=0:07:00"],
                ["-l", "gpu=1"],
                ["-q", "short.q"],
            ],
        ),
        ("pbs", [["-l", "select=1:ncpus=2:mem=60Mb:ngpus=1"], ["-l", "walltime=0:07:00"], ["-q", "short.q"]]),
    ],
)
def test_a_queue_gets_the_picked_jobs_and_what_they_ask_for(tmp_path, flavour, words):
    env = queue_of(flavour, tmp_path) | {"SETK_QSUB": "-q short.q"}
    for i in range(1, 8):
        (tmp_path / f"x.{i}.log").write_text(
            f"# Ended (code {int(i in (2, 5, 6, 7))}) at some time, elapsed time 1 seconds\n"
        )
    run = [
        UTILS / f"{flavour}.sh",
        "--mem",
        "60M",
        "--gpu",
        "1",
        "--threads",
        "2",
        "--time",
        "0-0:07",
        "--max-jobs",
        "2",
    ]
    done = subprocess.run(
        [*run, "--pick", "failed", "JOB=1:7", "x.JOB.log", "sh", "-c", "echo it is JOB"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "queue/state").glob("*.json"))]
    assert [record["tasks"] if record["array"] else None for record in records] == (
        [[2], [5, 6, 7]] if flavour == "sge" else [None, [5, 6, 7]]
    )
    asked = [[option, *value] for option, values in records[1]["options"].items() for value in values]
    assert all(word in asked for word in words), asked
    assert records[1]["limit"] == 2
    assert all(f"it is {i}\n" in (tmp_path / f"x.{i}.log").read_text() for i in (2, 5, 6, 7)) and not list(
        tmp_path.glob("q/*")
    )
    done = subprocess.run(
        [UTILS / f"{flavour}.sh", "--mem", "999G", "y.log", "true"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "qsub refused" in done.stderr


MANIFEST = ["--threads", "2", "--mem", "4G", "--gpu", "1", "--max-jobs", "3", "--volume", "scratch:/scratch"]


def submitted_manifest(tmp_path: Path, env: dict, *args: str) -> dict:
    run = [UTILS / "k8s.sh", *args, "JOB=3:7", "x.JOB.log", "sh", "-c", "echo it is JOB"]
    done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    (path,) = (tmp_path / "queue/state").glob("*.json")
    return json.loads(path.read_text())


def test_kubernetes_gets_the_picked_jobs_and_what_they_ask_for(tmp_path):
    env = queue_of("k8s", tmp_path)
    for i in range(3, 8):
        (tmp_path / f"x.{i}.log").write_text(
            f"# Ended (code {int(i in (4, 7))}) at some time, elapsed time 1 seconds\n"
        )
    job = submitted_manifest(tmp_path, env, *MANIFEST, "--time", "1-2:03", "--pick", "failed")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (2, 3, 2)
    assert pod["activeDeadlineSeconds"] == 86400 + 2 * 3600 + 3 * 60
    assert pod["securityContext"] == {"runAsUser": os.getuid(), "runAsGroup": os.getgid()}
    container = pod["containers"][0]
    assert container["image"] == "setk" and container["workingDir"] == str(tmp_path)
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": 1}
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == [str(tmp_path), "/scratch"]
    assert [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]] == ["tests", "scratch"]
    assert all(f"it is {i}\n" in (tmp_path / f"x.{i}.log").read_text() for i in (4, 7)) and not list(
        tmp_path.glob("q/*")
    )
    refused = [UTILS / "k8s.sh", "--mem", "999G", "y.log", "true"]
    done = subprocess.run(refused, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "kubectl refused the job" in done.stderr


@pytest.mark.full
@pytest.mark.parametrize("limit, seconds", [("90:00", 5400), ("1:30", 90), ("2:00:05", 7205), ("1-0", 86400)])
def test_a_time_limit_in_seconds(tmp_path, limit, seconds):
    job = submitted_manifest(tmp_path, queue_of("k8s", tmp_path), "--time", limit)
    assert job["spec"]["template"]["spec"]["activeDeadlineSeconds"] == seconds


def kept(given, found) -> list[str]:
    """The keys of `given` that `found` lacks, or has with another value, below any key."""
    if isinstance(given, dict):
        return [
            f"{key}.{below}" if below else key
            for key, value in given.items()
            for below in (kept(value, found[key]) if key in found else [""])
        ]
    if isinstance(given, list):
        return [f"{i}.{below}" for i, (a, b) in enumerate(zip(given, found, strict=True)) for below in kept(a, b)]
    return [] if str(given) == str(found) else [f"{given!r} is {found!r}"]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl here (Debian: apt-get install kubernetes-client)")
def test_kubectl_knows_every_field_of_the_manifest(tmp_path):
    job = submitted_manifest(tmp_path, queue_of("k8s", tmp_path), *MANIFEST, "--time", "10:00")
    (tmp_path / "job.json").write_text(json.dumps(job))
    # Without a server, kubectl reads the manifest into its own types: wrong types are errors, unknown fields get lost.
    local = ["kubectl", "set", "image", "--local", "-o", "json", "job=other"]
    done = subprocess.run([*local, "-f", "job.json"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    job["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    lost = kept(job, json.loads(done.stdout))
    # Indexed Jobs came with 1.21; Debian 12 has 1.20.
    version = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True).stdout
    old = re.search(r"v1\.(\d+)", version) and int(re.search(r"v1\.(\d+)", version)[1]) < 21
    assert lost == (["spec.completionMode"] if old else []), done.stdout
    job["spec"]["completions"] = "two"
    (tmp_path / "wrong.json").write_text(json.dumps(job))
    done = subprocess.run([*local, "-f", "wrong.json"], cwd=tmp_path, capture_output=True, timeout=PATIENCE)
    assert done.returncode != 0 and b"unable to decode" in done.stderr


TRAINING = (
    SMALL
    + """batch: 4
steps: 60
losses: {l1: 1.0}
valid_every: 60
save_every: 4
metrics: [si_sdr]
best: si_sdr
device: cpu
"""
)


@pytest.mark.full
def test_a_training_of_two_ranks_under_slurm_is_preempted_and_goes_on(tmp_path, slurm):
    (tmp_path / "conf.yaml").write_text(TRAINING)
    mini, out = ROOT / "data" / "mini", tmp_path / "out"
    run = [
        UTILS / "slurm.sh",
        "--threads",
        "2",
        tmp_path / "train.log",
        "srun",
        "--ntasks=2",
        "--cpus-per-task=1",
        "--overlap",
        sys.executable,
        "-P",
        "-m",
        "setk",
        "train",
        tmp_path / "conf.yaml",
        "--train",
        mini / "train",
        "--valid",
        mini / "valid",
        "--out",
        out,
    ]
    env = {**slurm, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(run, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (out / "resume.pt").exists() or process.poll() is not None, "a saved state")
    # What preemption sends before it kills: to the steps, not to the script.
    subprocess.run(["scancel", "--signal=TERM", running_job(env)], env=env, check=True)
    err = process.communicate(timeout=PATIENCE)[1]
    log = (tmp_path / "train.log").read_text()
    assert process.returncode == 1 and trailer(tmp_path / "train.log") == 143, err + log
    assert log.count("the same command continues from here") == 1 and "Traceback" not in log, log
    done = subprocess.run(run, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE)
    log = (tmp_path / "train.log").read_text()
    assert (done.returncode, trailer(tmp_path / "train.log")) == (0, 0) and log.count("resuming") == 1, log


# ── path.sh, cmd.sh, split.sh ───────────────────────────────────────────────────────────────────────────────────────


def test_a_recipe_finds_its_tools_from_anywhere(tmp_path):
    script = f"""set -euo pipefail
. {ROOT}/recipes/path.sh; . {ROOT}/recipes/path.sh; . {ROOT}/recipes/cmd.sh
echo "$PWD|$SETK_ROOT|$LC_ALL$PYTHONUNBUFFERED$OMP_NUM_THREADS|$train_cmd|$cpu_cmd"
command -v run.sh se-score; echo "${{PATH%%:/usr*}}" """
    done = bash(script, cwd=tmp_path, env={"CDPATH": "/", "OMP_NUM_THREADS": "3", "PATH": "/usr/bin:/bin"})
    assert done.stdout.splitlines() == [
        f"{tmp_path}|{ROOT}|C13|run.sh|run.sh",
        f"{UTILS}/run.sh",
        f"{ROOT}/bin/se-score",
        f"{ROOT}/bin:{UTILS}",
    ]
    assert (
        "slurm.sh --gpu 0 --nodes 1 --requeue|slurm.sh"
        in bash(script, cwd=tmp_path, env={"SETK_CMD": "slurm", "SETK_GPU": "0"}).stdout
    )
    done = bash(script, cwd=tmp_path, env={"SETK_CMD": "slrum"})
    assert done.returncode == 2 and "SETK_CMD=slrum" in done.stderr


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here (Debian: apt-get install zsh)")
def test_zsh_finds_the_tools_of_recipes_too(tmp_path):
    script = f"set -eu; . '{ROOT}/recipes/path.sh'; print -r -- \"$SETK_ROOT|$LC_ALL\"; command -v se-score"
    done = subprocess.run(
        ["zsh", "-f", "-c", script], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.splitlines() == [
        f"{ROOT}|C",
        f"{ROOT}/bin/se-score",
    ]


def test_another_shell_is_refused_in_one_line():
    done = subprocess.run(["sh", "-c", f". '{ROOT}/recipes/path.sh'"], capture_output=True, text=True)
    if "BASH" in subprocess.run(["sh", "-c", "set"], capture_output=True, text=True).stdout:
        pytest.skip("sh is bash here")
    assert done.returncode == 2 and done.stderr == "recipes/path.sh: needs bash or zsh; start bash first\n"


@pytest.mark.parametrize("lines, n", [(10, 3), (2, 5), (0, 2), (7, 1), (100, 100)])
def test_split_keeps_order_and_evens_lengths(tmp_path, lines, n):
    text = "".join(f"u{i}  a b\\n{i}.wav\n" for i in range(lines))
    (tmp_path / "a=b 1.scp").write_text(text)
    subprocess.run([UTILS / "split.sh", "a=b 1.scp", str(n), "out/it"], cwd=tmp_path, check=True)
    parts = [(tmp_path / "out" / "it" / f"a=b 1.scp.{i}").read_text() for i in range(1, n + 1)]
    assert "".join(parts) == text
    sizes = {part.count("\n") for part in parts}
    assert max(sizes) - min(sizes) <= 1 and len(os.listdir(tmp_path / "out" / "it")) == n
    assert subprocess.run([UTILS / "split.sh", "none", "2", "out"], cwd=tmp_path, capture_output=True).returncode == 2


def test_the_last_part_merges_the_list(tmp_path):
    def part(k: int, word: str) -> subprocess.CompletedProcess:
        script = f"for i in 1 2 3; do echo u$((3 * i - {k})) {word}; done; exit {int(word == 'broken')}"
        return subprocess.run([UTILS / "merge.sh", f"{k}/3", "all.scp", "sh", "-c", script], cwd=tmp_path)

    for k in (3, 1):
        assert part(k, "a").returncode == 0 and not (tmp_path / "all.scp").exists()
    assert part(2, "broken").returncode == 1 and not (tmp_path / "all.scp").exists()
    assert part(2, "b").returncode == 0
    merged = (tmp_path / "all.scp").read_text().splitlines()
    assert merged == [f"u{i} {'b' if i % 3 == 1 else 'a'}" for i in range(9)]
    # A part that runs again: the list is complete again when it ends.
    assert part(3, "c").returncode == 0 and "u0 c\n" in (tmp_path / "all.scp").read_text()
    assert sorted(os.listdir(tmp_path)) == ["all.scp", "all.scp.1", "all.scp.2", "all.scp.3"]


def test_parts_that_end_at_the_same_time_merge(tmp_path):
    # All parts wait for the last one, and then write and merge at the same time.
    script = (
        "touch here.$1; until test -e here.8; do sleep 0.01; done; for i in 0 1 2; do echo u$((8 * i + $1)) x; done"
    )
    run = [UTILS / "run.sh", "--max-jobs", "8", "JOB=1:8", "log/x.JOB.log", UTILS / "merge.sh", "JOB/8", "all.scp"]
    done = subprocess.run([*run, "sh", "-c", script, "sh", "JOB"], cwd=tmp_path, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "all.scp").read_text().splitlines() == sorted(f"u{i} x" for i in range(1, 25))
    assert sorted(p.name for p in tmp_path.glob("all.scp*")) == ["all.scp", *(f"all.scp.{i}" for i in range(1, 9))]


# ── bin/ ────────────────────────────────────────────────────────────────────────────────────────────────────────────

# A fake python3: makes a .venv that holds itself, and an "install" that takes some time and is counted.
PYTHON = """#!/bin/bash
case "$*" in
    *"version_info"* | *"import ensurepip"* | "-m pip --version") exit 0 ;;
    --version) echo "Python 3.11.0" ;;
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *sysconfig*) echo "$HEADERS" ;;
    "-m pip install"*) sleep 0.3; echo "$*" >> installs; [[ ! -e broken ]] || { echo "no such wheel"; exit 1; }
        printf '%s\\n' 'Collecting torch>=2.4 (from setk==1)' 'Requirement already satisfied: numpy>=2 in /x' \\
            '  Building wheel for pesq (pyproject.toml): started' 'Installing collected packages: a, b, c' ;;
    "-P -c import setk.cli."*) [[ ! -e ${PYTHONPATH:-.}/incomplete ]] ;;
    *) printf '%s\\n' "$PWD" "$@"; cat ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with the real bin/ and a fake python3, and the environment to run it in."""
    root = tmp_path / "a checkout"
    shutil.copytree(ROOT / "bin", root / "bin", symlinks=True)
    (root / "setk" / "nn").mkdir(parents=True)
    for name in ("pyproject.toml", "setup.py", "constraints.txt", "setk/nn/gru.c"):
        (root / name).write_text(name)
    python = tmp_path / "python3"
    python.write_text(PYTHON)
    python.chmod(0o755)
    (tmp_path / "Python.h").touch()
    env = {**BASH, "PYTHON": str(python), "HEADERS": str(tmp_path)}
    return root, env


def test_commands_set_themselves_up_once_and_run_from_anywhere(tmp_path, checkout):
    root, env = checkout
    commands = ["prep", "train", "enhance", "score", "count"]
    running = [
        subprocess.Popen(
            [root / "bin" / f"se-{c}", "a b", "*"],
            cwd=tmp_path,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for c in commands
    ]
    for c, process in zip(commands, running):
        out, err = process.communicate("input", timeout=PATIENCE)
        assert out == f"{tmp_path}\n-P\n-m\nsetk.cli.{c}\na b\n*\ninput" and "setup: " in err
    installs = (root / "installs").read_text().splitlines()
    assert len(installs) == 1 and "--constraint constraints.txt --editable .[test]" in installs[0]

    (tmp_path / "bin").symlink_to(root / "bin")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "link").symlink_to("../bin/se-score")
    (tmp_path / "other" / "alias").symlink_to("link")
    for command in ("bin/se-score", "other/link", "./other/alias", root / "bin" / "se-score"):
        done = subprocess.run([command, "x"], cwd=tmp_path, env=env, input="", capture_output=True, text=True)
        assert done.stdout == f"{tmp_path}\n-P\n-m\nsetk.cli.score\nx\n" and done.stderr == ""
    done = subprocess.run(
        ["se-score"],
        cwd=tmp_path / "other",
        env={**env, "PATH": f"../bin:{env['PATH']}"},
        input="",
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("setk.cli.score\n") and done.stderr == ""


def test_setup_runs_again_only_for_a_change(tmp_path, checkout):
    root, env = checkout

    def score():
        return subprocess.run(
            [root / "bin" / "se-score"], env=env, input="", capture_output=True, text=True, timeout=PATIENCE
        )

    def installs():
        return len((root / "installs").read_text().splitlines())

    assert score().returncode == 0 and installs() == 1
    (root / "constraints.txt").touch()
    assert score().stderr == "" and installs() == 1
    (root / "setk" / "nn" / "gru.c").write_text("changed")
    assert "step 2 of 3: install" in score().stderr and installs() == 2
    (root / "broken").touch()
    (root / "incomplete").touch()
    (root / "pyproject.toml").write_text("changed")
    done = score()
    assert done.returncode == 2 and done.stdout == "" and "no such wheel" in done.stderr and "setup.log" in done.stderr
    assert score().returncode == 2 and installs() == 4
    (root / "broken").unlink()
    (root / "incomplete").unlink()
    (root / "setup.py").write_text("changed")
    assert score().returncode == 0 and installs() == 5
    moved = root.rename(tmp_path / "moved")
    done = subprocess.run(
        [moved / "bin" / "se-score"], env=env, input="", capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0 and len((moved / "installs").read_text().splitlines()) == 6


def test_a_command_that_would_run_does_though_nothing_can_be_installed(checkout):
    root, env = checkout

    def score():
        done = subprocess.run(
            [root / "bin" / "se-score"], env=env, input="", capture_output=True, text=True, timeout=PATIENCE
        )
        return done.returncode, done.stdout.splitlines()[-1:], done.stderr.splitlines()

    assert score()[0] == 0
    (root / "broken").touch()
    (root / "constraints.txt").write_text("changed")
    code, out, err = score()
    assert (code, out) == (0, ["setk.cli.score"]) and "no such wheel" in err
    assert (
        err[-1]
        == f"se-score: the set-up of {root} is not up to date; running with {root}/.venv/bin/python; bin/setup tries again"
    )
    # The next command does not try again, until something changes or bin/setup is called.
    assert score() == (0, out, err[-1:])
    (root / "broken").unlink()
    assert subprocess.run([root / "bin" / "setup"], env=env, capture_output=True).returncode == 0
    assert score() == (0, out, [])


def test_a_checkout_that_cannot_be_written_runs_with_the_users_python(checkout):
    root, env = checkout
    (root / "setk/nn/gru.c").unlink()
    (root / "setk/nn").rmdir()
    (root / "setk").rmdir()
    (root / "setk").symlink_to(ROOT / "setk")
    (root / ".venv").touch()
    done = subprocess.run(
        [root / "bin/se-enhance", "--help"],
        env={**env, "PYTHON": sys.executable},
        input="",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Usage: se-enhance" in done.stdout
    assert done.stderr.splitlines() == [
        f"setup: cannot write {root}/.venv; make it writable",
        f"se-enhance: the set-up of {root} is not up to date; running with {sys.executable}; bin/setup tries again",
    ]


def test_setup_shows_what_it_works_on(checkout):
    root, env = checkout
    (root / "constraints.txt").write_text("# versions\ntorch==2\nnumpy==2\n")
    here, there = pty.openpty()
    done = subprocess.run([root / "bin/setup"], env=env, stderr=there, timeout=PATIENCE)
    os.close(there)
    shown = os.read(here, 1 << 16).decode()
    os.close(here)
    assert done.returncode == 0
    for words in (
        "step 1 of 3: make",
        "step 2 of 3: install",
        "package 1 of about 2: torch",
        "package 2 of about 2: numpy",
        "building pesq",
        "unpacking 3 packages",
        "step 3 of 3: check",
        "done",
    ):
        assert words in shown, shown
    log = (root / ".venv/setup.log").read_text()
    assert "Collecting torch>=2.4 (from setk==1)\n" in log


@pytest.mark.parametrize(
    "pattern, answer, words",
    [
        ("*version_info*", "exit 1", ["3.11 or newer", "Python 3.11.0", "PYTHON="]),
        ("*ensurepip*", "exit 1", ["python3-venv"]),
        ("*sysconfig*", "echo /none", ["/none/Python.h", "python3-dev"]),
    ],
)
def test_setup_says_what_is_missing(tmp_path, checkout, pattern, answer, words):
    root, env = checkout
    python = Path(env["PYTHON"])
    python.write_text(PYTHON.replace('case "$*" in', f'case "$*" in\n    {pattern}) {answer} ;;', 1))
    done = subprocess.run([root / "bin" / "setup"], env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2 and done.stdout == "" and all(word in done.stderr for word in words), done.stderr


@pytest.mark.full
@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here (Debian: apt-get install shellcheck)")
def test_shellcheck_has_nothing_to_say():
    scripts = [*ROOT.glob("recipes/**/*.sh"), ROOT / "bin" / "setup", ROOT / "bin" / ".se"]
    done = subprocess.run(["shellcheck", "-x", "-P", ROOT, *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
