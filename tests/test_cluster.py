"""A real Slurm of two nodes on this machine: long arrays, jobs that are queued again, training on several nodes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import MINI, PATIENCE, ROOT, SMALL
from slurm import private_slurm, running_job, wait_for

pytestmark = pytest.mark.full

UTILS = ROOT / "recipes" / "utils"
TRAINING = (
    SMALL
    + """batch: 4
steps: 90
losses: {l1: 1.0}
valid_every: 90
save_every: 5
metrics: [si_sdr]
best: si_sdr
device: cpu
workers: 0
"""
)
# se-train that is slow until the job is queued again. After the first step the time limit becomes one to two minutes from then, so that
# the limit comes during the training however slow the machine is.
SLOW = """import os, subprocess, time
begin, first = time.time(), "SLURM_RESTART_COUNT" not in os.environ
def limit(minutes):
    subprocess.run(["scontrol", "update", f"JobId={os.environ['SLURM_JOB_ID']}", f"TimeLimit={minutes}"], check=True)
if not first:
    limit(60)
from setk.cli import train
from setk.training.run import Run
update = Run.update
def slowly(self, batches):
    terms = update(self, batches)
    if first and self.step == 0:
        limit(int(time.time() - begin) // 60 + 2)
    time.sleep(2 if first else 0)
    return terms
Run.update = slowly
train.main()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment of a Slurm of two nodes."""
    with private_slurm(tmp_path_factory.mktemp("slurm"), nodes=2) as env:
        yield {**env, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def training(tmp_path):
    """The arguments of a small training into a folder."""
    (tmp_path / "conf.yaml").write_text(TRAINING)

    def arguments(out: Path) -> list:
        return [tmp_path / "conf.yaml", "--train", MINI / "train", "--valid", MINI / "valid", "--out", out]

    return arguments


def launched(env: dict, cwd: Path, *args) -> subprocess.CompletedProcess:
    argv = [UTILS / "slurm.sh", *map(str, args)]
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE)


def weights_of(path: Path) -> dict:
    return torch.load(path, weights_only=True, map_location="cpu")["weights"]


def test_an_array_of_a_thousand_jobs_runs_fifty_at_a_time(tmp_path, cluster):
    work = 'test "$1" != 700 || { squeue -h -o %K%%%r%%%F > queue; exit 3; }; squeue -h -t R | wc -l > at.$1'
    (tmp_path / "log").mkdir()
    for i in range(1, 1001):  # nearly all jobs have ended already
        if i % 20:
            (tmp_path / f"log/x.{i}.log").write_text("# Ended (code 0) at some time, elapsed time 1 seconds\n")
    job = ("--max-jobs", 50, "JOB=1:1000", "log/x.JOB.log", "bash", "-c", work, "x", "JOB")
    done = launched(cluster, tmp_path, "--pick", "incomplete", *job)
    assert done.returncode == 1 and "1 / 50 failed, log is in log/x.*.log (job 700)" in done.stderr, done.stderr
    done = launched(cluster, tmp_path, "--pick", "failed", *job)
    assert done.returncode == 1 and "1 / 1 failed" in done.stderr
    asked = subprocess.run(
        ["bash", "-c", "sbatch --array=1-1000%50 --hold --parsable --wrap true"],
        env=cluster,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    job_id = asked.stdout.strip()
    shown = subprocess.run(["scontrol", "show", "job", job_id], env=cluster, capture_output=True, text=True).stdout
    subprocess.run(["scancel", job_id], env=cluster)
    assert "ArrayTaskId=1-1000%50" in shown


def test_a_training_that_reaches_its_time_limit_goes_on_to_the_same_bits(tmp_path, cluster, training, se):
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW)
    done = launched(
        cluster,
        ROOT,
        *("--time", "1:00:00", "--requeue", "--signal=TERM@20", tmp_path / "train.log"),
        *(sys.executable, "-P", slow, *training(tmp_path / "limited")),
    )
    log = (tmp_path / "train.log").read_text()
    assert done.returncode == 0, done.stderr + log
    stops = [int(step) for step in re.findall(r"stopped at step (\d+); the same command continues", log)]
    assert len(stops) == log.count("# Requeued at") == 1 and 0 < stops[0] < 90, log
    assert log.count("# Ended (code 0)") == 1 == log.count("# Ended"), log
    assert se("train", *training(tmp_path / "free")).returncode == 0
    limited, free = (weights_of(tmp_path / name / "last.pt") for name in ("limited", "free"))
    assert limited.keys() == free.keys() and all(torch.equal(limited[key], free[key]) for key in free)


def test_a_signal_without_requeue_ends_the_job(tmp_path, cluster):
    process = subprocess.Popen(
        [UTILS / "slurm.sh", "--signal", "TERM@30", "--time", "1:00:00", "x.log", "bash", "-c", "trap 'echo saved; exit 5' TERM; touch on; while :; do sleep 0.1; done"],
        cwd=tmp_path,
        env=cluster,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    wait_for((tmp_path / "on").exists, "the job to run")
    # What Slurm sends before the limit.
    subprocess.run(["scancel", "--batch", "--signal=USR2", running_job(cluster)], env=cluster, check=True)
    err = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1 and "1 / 1 failed" in err
    log = (tmp_path / "x.log").read_text()
    assert "saved" in log and "# Ended" not in log and "# Requeued" not in log


def ranks_of(out: Path) -> dict[int, int]:
    """RANK -> process id of the training into `out`."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            argv = (path / "cmdline").read_bytes().split(b"\0")
            if str(out).encode() in argv and b"torch.distributed.run" not in argv and b"setk" in argv:
                variables = dict(v.partition(b"=")[::2] for v in (path / "environ").read_bytes().split(b"\0"))
                if b"RANK" in variables:
                    found[int(variables[b"RANK"])] = int(path.name)
        except OSError:
            continue
    return found


def on_two_nodes(tmp_path: Path, env: dict, arguments: list) -> subprocess.Popen:
    """Start a training on two nodes."""
    run = [
        *(UTILS / "slurm.sh", "--nodes", "2", tmp_path / "train.log", UTILS / "nodes.sh", "1", sys.executable),
        *("-m", "setk", "train", *arguments, "--set", "steps=150", "--set", "valid_every=150"),
    ]
    return subprocess.Popen([*map(str, run)], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)


def after_its_first_save(tmp_path: Path, process: subprocess.Popen, out: Path) -> tuple[dict[int, int], float]:
    """RANK -> process id of a training that has saved its state, and the seconds that it took to come there."""
    begin = time.monotonic()
    wait_for(lambda: (out / "resume.pt").exists() or process.poll() is not None, "a saved state")
    ranks = ranks_of(out)
    assert sorted(ranks) == [0, 1], (tmp_path / "train.log").read_text()
    return ranks, time.monotonic() - begin


def test_a_training_on_two_nodes_loses_a_rank_and_goes_on(tmp_path, cluster, training):
    out, log = tmp_path / "out", tmp_path / "train.log"
    # Only the lost connection can end the other rank.
    process = on_two_nodes(tmp_path, {**cluster, "SETK_WAIT": "3600"}, training(out))
    ranks, start = after_its_first_save(tmp_path, process, out)
    os.kill(ranks[1], signal.SIGKILL)
    # Within a minute, or within the time in which this machine starts a training, if it is so slow.
    wait_for(lambda: not ranks_of(out), "the other rank to end", max(60, start))
    err = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1 and "1 / 1 failed" in err, err + log.read_text()
    assert "error: rank 0: lost the connection to another rank" in log.read_text(), log.read_text()
    process = on_two_nodes(tmp_path, cluster, training(out))
    err = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0, err + log.read_text()
    assert log.read_text().count("resuming") == 1 and "done at step 150 of 150" in log.read_text(), log.read_text()


def test_a_rank_that_does_not_notice_a_lost_one_is_ended(tmp_path, cluster, training):
    wait, out, log = 2, tmp_path / "out", tmp_path / "train.log"
    process = on_two_nodes(tmp_path, {**cluster, "SETK_WAIT": str(wait)}, training(out))
    ranks, start = after_its_first_save(tmp_path, process, out)
    os.kill(ranks[0], signal.SIGSTOP)
    os.kill(ranks[1], signal.SIGKILL)
    # torchrun gives it 30 s after SIGTERM; the rest is for a busy machine.
    wait_for(lambda: not ranks_of(out), "the stopped rank to end", wait + 30 + max(30, start))
    err = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1 and "1 / 1 failed" in err and "srun: error" in log.read_text(), err + log.read_text()


def test_a_recipe_trains_on_the_nodes_of_slurm(tmp_path, cluster):
    if not (ROOT / ".venv").exists():
        pytest.skip("recipes run bin/se-*, which need the .venv of bin/setup")
    tiny = (
        "config.groups=2 config.dpe_blocks=1 batch=2 segment=0.5 steps=4 warmup=1 valid_every=4 save_every=2 workers=0"
    )
    done = subprocess.run(
        ["bash", ROOT / "recipes/vbd/fspen.sh", "--dir", tmp_path / "exp", "--set", tiny, "--stop-stage", "2"],
        cwd=tmp_path,
        env={**cluster, "SETK_CMD": "slurm", "SETK_NODES": "2", "SETK_GPU": "0", "VBD_ROOT": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    log = (tmp_path / "exp/log/train.log").read_text()
    assert done.returncode == 0 and "done at step 4 of 4" in log and "nodes.sh" in log, done.stderr + log
    assert (tmp_path / "exp/best.pt").exists()
