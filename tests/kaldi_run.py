#!/usr/bin/env python3
"""The contract of Kaldi's run.pl for tests: the same command line, quoting, logs, messages and exit codes, written from its behaviour.

run.pl [OPTION VALUE...] [JOB=1:n] [OPTION VALUE...] LOG PROG ARG...: the arguments are joined, those with white space in quotes,
and evaluated by bash.
"""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def quoted(word: str) -> str:
    if re.fullmatch(r"\S+", word):
        return word
    return f"'{word}'" if '"' in word else f'"{word}"'


def ended(log: str) -> str | None:
    """The code of the last trailer in a log."""
    if not os.path.exists(log):
        return None
    codes = re.findall(r"# Ended \(code (\d+)", Path(log).read_text())
    return codes[-1] if codes else None


def main(words: list[str]) -> int:
    name, jobs, limit, pick = None, [1], None, "all"
    for _ in range(2):  # options before and after the range of jobs
        while len(words) >= 2 and words[0].startswith("-"):
            option = words.pop(0)
            if option == "-V":
                continue
            value = words.pop(0)
            if option == "-pe":
                words.pop(0)
            elif option in ("--max-jobs-run", "-tc"):
                limit = min(limit or int(value), int(value))
            elif option == "--pick":
                pick = value
        if found := re.fullmatch(r"(\w+)=(\d+)(?::(\d+))?", words[0]):
            name, first, last = found[1], int(found[2]), int(found[3] or found[2])
            if not 0 < first <= last:
                sys.exit(f"run.pl: invalid job range {words[0]}")
            jobs = list(range(first, last + 1))
            words.pop(0)
    log, *program = words
    if name and len(jobs) > 1 and name not in log:
        print(
            f"run.pl: you are trying to run a parallel job but you are putting the output into just one log file ({log})",
            file=sys.stderr,
        )
        return 1

    def run(job: int) -> int:
        command, path = " ".join(map(quoted, program)) + " ", log
        if name:
            command, path = command.replace(name, str(job)), path.replace(name, str(job))
        before = ended(path)
        if pick != "all" and before is not None and (before == "0" or pick != "failed"):
            return int(before != "0")
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "w") as f:
            f.write(f"# {command}\n# Started at now\n#\n")
            f.flush()
            code = subprocess.run(["bash", "-c", f"( {command} )"], stdout=f, stderr=f).returncode
            f.write(f"# Accounting: time=0 threads=1\n# Ended (code {code}) at now, elapsed time 0 seconds\n")
        return code

    with ThreadPoolExecutor(limit or os.cpu_count()) as pool:
        failed = sum(code != 0 for code in pool.map(run, jobs))
    if failed:
        at = log.replace(name, "*") if name else log
        print(
            f"run.pl: {failed} / {len(jobs)} failed, log is in {at}"
            if len(jobs) > 1
            else f"run.pl: job failed, log is in {at}",
            file=sys.stderr,
        )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
