#!/usr/bin/env python3
"""qsub, qstat and qdel of Grid Engine and of OpenPBS for tests, as far as the launchers use them; QUEUE is "sge" or "pbs".

Options that the real command does not know are refused, and arrays have the real limits: one range per array, in PBS of two jobs
or more. A background process is the scheduler of one submission. Jobs run `-S` SHELL on the script, with the environment at the
time of qsub (`-V`), and the variables of the real scheduler.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

STATE, FLAVOUR = Path(os.environ["QUEUE_STATE"]), os.environ["QUEUE"]
ARGUMENTS = {
    "sge": {"-S": 1, "-j": 1, "-o": 1, "-N": 1, "-pe": 2, "-l": 1, "-tc": 1, "-t": 1, "-q": 1, "-P": 1},
    "pbs": {"-S": 1, "-j": 1, "-o": 1, "-N": 1, "-l": 1, "-J": 1, "-q": 1, "-A": 1},
}
FLAGS = {"sge": {"-terse", "-V", "-cwd"}, "pbs": {"-V"}}


def refuse(message: str, code: int = 1) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def qsub(words: list[str]) -> None:
    options: dict[str, list] = {}
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in FLAGS[FLAVOUR]:
            options[option] = []
        elif option in ARGUMENTS[FLAVOUR]:
            options.setdefault(option, []).append([words.pop(0) for _ in range(ARGUMENTS[FLAVOUR][option])])
        else:
            refuse(f"qsub: Unknown option {option}")
    if len(words) != 1 or not Path(words[0]).is_file():
        refuse(f"qsub: script file {words} cannot be opened")
    if re.match(r"\d", options["-N"][0][0]):
        refuse("qsub: denied: the name of a job cannot start with a digit")
    tasks, limit = submitted_range(options)
    for value in options.get("-l", []):
        if "999" in value[0]:
            refuse("qsub: Job exceeds resource limits")
    number = 1 + max((int(path.stem) for path in STATE.glob("*.json")), default=0)
    record = {
        "number": number,
        "array": tasks is not None,
        "tasks": tasks or [0],
        "limit": limit,
        "script": words[0],
        "options": options,
        "cwd": os.getcwd(),
        "done": False,
    }
    (STATE / f"{number}.json").write_text(json.dumps(record))
    # As in Grid Engine, the script is copied when it is submitted.
    (STATE / f"{number}.sh").write_bytes(Path(words[0]).read_bytes())
    if os.fork() == 0:
        os.setsid()
        for stream in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
        schedule(record, options["-S"][0][0])
        os._exit(0)
    if FLAVOUR == "sge":
        print(f"{number}.{options['-t'][0][0]}:1" if tasks else number)
    else:
        print(f"{number}{'[]' if tasks else ''}.server")


def submitted_range(options: dict) -> tuple[list[int] | None, int]:
    """Jobs of the array (None: no array), and how many of them may run at the same time."""
    if FLAVOUR == "sge":
        text, limit = options.get("-t", [[""]])[0][0], int(options.get("-tc", [["1000"]])[0][0])
        found = re.fullmatch(r"([1-9]\d*)(?:-(\d+))?", text)
    else:
        text, _, limit = options.get("-J", [[""]])[0][0].partition("%")
        found, limit = re.fullmatch(r"(\d+)-(\d+)", text), int(limit or 1000)
    if not text:
        return None, 1
    if not found or (FLAVOUR == "pbs" and int(found[1]) >= int(found[2])):
        refuse(f"qsub: illegal array range {text}")
    return list(range(int(found[1]), int(found[2] or found[1]) + 1)), limit


def schedule(record: dict, shell: str) -> None:
    """Run the tasks; killed ones end without a word. `done` when none is left."""
    number = record["number"]
    waiting, running = list(record["tasks"]), []
    while waiting or running:
        if (STATE / f"{number}.deleted").exists():
            waiting = []
            for process in running:
                os.killpg(process.pid, signal.SIGKILL)
        while waiting and len(running) < record["limit"]:
            task = waiting.pop(0)
            variables = {"SGE_TASK_ID": str(task) if record["array"] else "undefined"} if FLAVOUR == "sge" else {}
            if FLAVOUR == "pbs" and record["array"]:
                variables = {"PBS_ARRAY_INDEX": str(task)}
            script = STATE / f"{number}.sh"
            running.append(
                subprocess.Popen([shell, script], cwd="/", env={**os.environ, **variables}, start_new_session=True)
            )
        time.sleep(0.02)
        running = [process for process in running if process.poll() is None]
    (STATE / f"{number}.json").write_text(json.dumps({**record, "done": True}))


def qstat(words: list[str]) -> None:
    records = [json.loads(path.read_text() or '{"done": true}') for path in STATE.glob("*.json")]
    active = {str(r["number"]): r for r in records if not r["done"]}
    if FLAVOUR == "sge":
        if active:
            print(
                "job-ID  prior   name       user         state submit/start at     queue       slots ja-task-ID\n"
                + "-" * 90
            )
        for number, r in active.items():
            print(
                f"{number:>7} 0.50000 {r['options']['-N'][0][0][:10]:10} root         r     11/21/2026 10:00:00 main.q@host     1 1"
            )
        return
    number = re.match(r"\d+", words[0])[0]
    if number not in active:
        refuse(f"qstat: {words[0]} Job has finished, use -x or -H to obtain historical job information", 35)
    print(
        "Job id            Name             User              Time Use S Queue\n----------------  ---------------- ---------------- -------- - -----"
    )
    print(f"{words[0]:16}  {active[number]['options']['-N'][0][0][:16]:16} root              00:00:00 R workq")


def qdel(words: list[str]) -> None:
    for word in words:
        (STATE / f"{re.match(r'[0-9]+', word)[0]}.deleted").touch()


if __name__ == "__main__":
    {"qsub": qsub, "qstat": qstat, "qdel": qdel}[Path(sys.argv[0]).name](sys.argv[1:])
