"""A real Slurm on this machine for tests: munged, slurmctld, and a slurmd for each node, all in one folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from commands import PATIENCE

BASH = {k: v for k, v in os.environ.items() if not k.startswith("SETK")}

# cred_expire: Slurm waits that long before it runs a requeued job again, two minutes by default.
CONF = """ClusterName=setk
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
FirstJobId={first}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge/socket,cred_expire=5
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool-%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
DefMemPerCPU=100
GresTypes=gpu
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=1000 Gres=gpu:1 State=UNKNOWN\n"


def why_no_slurm() -> str:
    missing = [p for p in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(p)]
    if missing:
        return f"no {missing[0]} here (Debian: apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "a private Slurm needs root"


def wait_for(happened, what: str, seconds: float = PATIENCE):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def stop_by_pid_file(path: Path) -> None:
    try:
        pid = int(path.read_text())
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        pass


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def first_job() -> int:
    """The number of the first job: nodes.sh chooses a port by it, and another Slurm of tests may run on this machine."""
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
    return 1 + 5000 * (worker % 2) + 1250 * (os.getppid() % 4)


def running_job(env: dict) -> str:
    """The number of the job that runs. One that ended may still be in the queue."""
    asked = ["squeue", "-h", "-t", "R", "-o", "%i"]
    (job,) = subprocess.run(asked, env=env, capture_output=True, text=True, check=True).stdout.split()
    return job


@contextmanager
def private_slurm(dir: Path, nodes: int = 1):
    """Run a Slurm of `nodes` nodes in `dir`; yields the environment in which its commands find it. Skips the test where there is
    no Slurm."""
    if reason := why_no_slurm():
        pytest.skip(reason)
    for name in ("state", "munge"):
        (dir / name).mkdir(mode=0o755)
    host = socket.gethostname().split(".")[0]
    names = [f"n{i}" for i in range(1, nodes + 1)]
    port, *ports = free_ports(nodes + 1)
    (dir / "slurm.conf").write_text(
        CONF.format(dir=dir, host=host, port=port, first=first_job())
        + "".join(NODE.format(name=name, host=host, port=port) for name, port in zip(names, ports))
    )
    (dir / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
    key = dir / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    env = {**BASH, "SLURM_CONF": str(dir / "slurm.conf")}
    munged = [
        "munged",
        "--force",
        f"--socket={dir}/munge/socket",
        f"--key-file={key}",
        f"--pid-file={dir}/munged.pid",
        f"--log-file={dir}/munged.log",
        f"--seed-file={dir}/munge/seed",
    ]
    try:
        for daemon in (munged, ["slurmctld"], *(["slurmd", "-N", name] for name in names)):
            subprocess.run(
                daemon, env=env, check=True, timeout=PATIENCE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        state = ["sinfo", "-h", "-N", "-o", "%t"]
        wait_for(
            lambda: subprocess.run(state, env=env, capture_output=True, text=True).stdout.split() == ["idle"] * nodes,
            "Slurm nodes that are idle",
        )
        yield env
    finally:
        subprocess.run(["scancel", "--user=root"], env=env, capture_output=True, timeout=PATIENCE)
        for daemon in (*(f"slurmd-{name}" for name in names), "slurmctld", "munged"):
            stop_by_pid_file(dir / f"{daemon}.pid")
