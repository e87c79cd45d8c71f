"""se-prep check and se-prep fix: the faults of data directories."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from setk.cli import shell
from setk.cli.corpora import Jobs

Dirs = Annotated[list[Path], typer.Argument(metavar="DIR", help="Data directories.")]
ExpectedRate = Annotated[
    int,
    typer.Option(
        rich_help_panel=shell.INPUT, metavar="HZ", help="Sample rate that every wav must have; 0 accepts any."
    ),
]


def check(
    directories: Dirs,
    rate: ExpectedRate = 16000,
    jobs: Jobs = 1,
    as_json: shell.Json = False,
    allow_commands: shell.AllowCommands = False,
):
    """Print every fault with file, line and fix, as a table on stdout; exit 1 if there is one.

    The same audio in two of several directories is a fault.
    """
    if _check(directories, rate, jobs, allow_commands, fix=False, as_json=as_json):
        raise typer.Exit(shell.SOME_FAILED)


def fix(
    directories: Dirs,
    rate: ExpectedRate = 16000,
    jobs: Jobs = 1,
    allow_commands: shell.AllowCommands = False,
):
    """Drop every utterance with a fault and sort the lists. The old lists go to DIR/.backup; a directory without faults is not changed."""
    _check(directories, rate, jobs, allow_commands, fix=True)


def _check(
    directories: list[Path], rate: int, jobs: int, allow_commands: bool, fix: bool, as_json: bool = False
) -> int:
    """Print the faults of the directories, fix them if asked, and return their number."""
    from setk.data import check as library

    total = 0
    if not as_json:
        print(library.Fault.HEADER)
    for data, found, faults in library.check_all(directories, rate or None, jobs, allow_commands):
        grades: Counter[str] = Counter()
        for fault in faults:
            if as_json:
                shell.print_json(asdict(fault))
            else:
                print(fault.text(), flush=True)
            grades[fault.grade] += 1
        count = grades[library.FAULT]
        total += count
        for stream, (good, seconds) in found.totals().items():
            what = "pairs" if data.is_pairs else stream
            shell.note(f"se-prep: {data.path}: {good} {what} are good, {seconds / 3600:.2f} h")
        shell.note(f"se-prep: {data.path}: {count} faults, {grades[library.REMARK]} remarks")
        if fix and count:
            backup = library.fix(data, found)
            shell.note(f"se-prep: {data.path}: fixed; the old lists are in {backup}")
    return total


# Command -> the examples of its help.
COMMANDS = {check: "se-prep check data/train data/valid data/test", fix: "se-prep fix data/mine"}
