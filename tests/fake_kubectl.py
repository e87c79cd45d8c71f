#!/usr/bin/env python3
"""kubectl and the cluster behind it for tests, as far as k8s.sh uses them: create, get and delete of an indexed Job.

A background process is the Job's controller. Pods are processes that know nothing of their submitter: their environment is that of a
container, with the index of the pod. Of a deleted Job, the first process of each pod gets TERM, and after 5 s all are killed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

STATE = Path(os.environ["QUEUE_STATE"])
GRACE_S = 5


def refuse(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(1)


def create(path: str) -> None:
    job = yaml.safe_load(Path(path).read_text())
    name, spec = job["metadata"]["name"], job["spec"]
    pod = spec["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    if "999" in limits.get("memory", ""):
        refuse("Error from server (Forbidden): exceeded quota")
    mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    claims = {volume["name"] for volume in pod["volumes"]}
    if (job["kind"], spec["completionMode"], pod["restartPolicy"]) != ("Job", "Indexed", "Never"):
        refuse("error: not an indexed Job")
    if claims != set(mounted) or not any(os.getcwd().startswith(place) for place in mounted.values()):
        refuse(f"error: the volumes {mounted} do not hold {os.getcwd()}")
    (STATE / f"{name}.json").write_text(json.dumps(job))
    if os.fork() == 0:
        os.setsid()
        for stream in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
        control(name, spec, pod)
        os._exit(0)
    print(f"job.batch/{name} created")


def control(name: str, spec: dict, pod: dict) -> None:
    """Run all indices; pods that fail run again, up to the limit of the Job."""
    container = pod["containers"][0]
    waiting, running, failures = list(range(spec["completions"])), {}, 0
    while waiting or running:
        if (STATE / f"{name}.deleted").exists():
            stop(list(running.values()))
            return
        while waiting and len(running) < spec["parallelism"]:
            index = waiting.pop(0)
            env = {"PATH": os.environ["PATH"], "HOME": "/", "JOB_COMPLETION_INDEX": str(index)}
            running[index] = subprocess.Popen(
                container["command"], cwd=container["workingDir"], env=env, start_new_session=True
            )
        time.sleep(0.02)
        for index in [index for index, process in running.items() if process.poll() is not None]:
            if running.pop(index).returncode:
                failures += 1
                waiting.append(index)
        if failures > spec["backoffLimit"]:
            stop(list(running.values()))
            break
    (STATE / f"{name}.ended").write_text("Failed" if failures > spec["backoffLimit"] else "Complete")


def stop(pods: list) -> None:
    for process in pods:
        process.send_signal(signal.SIGTERM)
    end = time.monotonic() + GRACE_S
    while time.monotonic() < end and any(process.poll() is None for process in pods):
        time.sleep(0.02)
    for process in pods:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def get(kind: str, name: str) -> None:
    if kind == "pods":
        return
    if not (STATE / f"{name}.json").exists() or (STATE / f"{name}.deleted").exists():
        refuse(f'Error from server (NotFound): jobs.batch "{name}" not found')
    if (STATE / f"{name}.ended").exists():
        print((STATE / f"{name}.ended").read_text(), end="")


if __name__ == "__main__":
    if sys.argv[1] == "create" and sys.argv[2] == "-f":
        create(sys.argv[3])
    elif sys.argv[1] == "get":
        get(sys.argv[2], sys.argv[3])
    elif sys.argv[1:3] == ["delete", "job"]:
        (STATE / f"{sys.argv[3]}.deleted").touch()
    else:
        refuse(f"error: unknown command {sys.argv[1:]}")
