"""What all commands share: messages on stderr, exit codes, progress, the count of failures, options that do not apply."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import sys
import time
from typing import Annotated, Any, Iterable, Iterator, Mapping, Optional, TypeVar

import typer

from setk.core import packages
from setk.core.errors import AudioError, UserError

T = TypeVar("T")
OK, SOME_FAILED, USAGE = 0, 1, 2
ALIASES = {"shard": "part"}  # options by their earlier names, which no help shows

Part = Annotated[Optional[str], typer.Option("--part", metavar="K/N", help="Every N-th utterance from the K-th, as one array job.")]
MaxFail = Annotated[int, typer.Option(metavar="N", min=0, help="Failed utterances that still count as success.")]
AllowCommands = Annotated[bool, typer.Option("--allow-commands", help="Run list entries that end in '|'.")]
Trust = Annotated[bool, typer.Option("--trust", help="Run TorchScript (.ts), which can execute any code.")]


def new_app(**options) -> typer.Typer:
    """A Typer without boxes and colours: plain help suits grep too, and starts faster."""
    context = {"token_normalize_func": lambda name: ALIASES.get(name, name), "help_option_names": ["-h", "--help"]}
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=context,
                       **options)


def only(ctx: typer.Context, where: str, *names: str) -> None:
    """Raise UserError if the command line has a parameter that is not in `names`: ignored, it would promise what is not done.

    `where` ends the sentence "--jobs does not apply ...", as in "with --compare".
    """
    refuse(ctx, where, *(name for name in ctx.params if name not in names))


def refuse(ctx: typer.Context, where: str, *names: str) -> None:
    """Raise UserError if the command line has one of the parameters `names`; the counterpart of `only`."""
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name)
        if param.name in names and source and source.name == "COMMANDLINE":
            label = param.opts[0] if param.param_type_name == "option" else (param.metavar or param.name)
            raise UserError(f"{label} does not apply {where}; remove it")


def optional_value(argv: list[str], option: str, default: int) -> None:
    """Insert `default` after `option` in `argv` unless a number follows it: parsers know no option with an optional value."""
    if option in argv:
        after = argv.index(option) + 1
        if not (after < len(argv) and argv[after].isdigit()):
            argv.insert(after, str(default))


def say(message: str) -> None:
    """One line to stderr; stdout carries data only."""
    print(message, file=sys.stderr, flush=True)


def print_json(record: Mapping[str, Any]) -> None:
    """One line of strict JSON, which has no nan, to stdout."""
    print(json.dumps({key: None if isinstance(v, float) and math.isnan(v) else v for key, v in record.items()}), flush=True)


def print_table(rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as TSV with a header to stdout, each as soon as it is there; None is nan, a mapping is key=value,..."""
    for i, row in enumerate(rows):
        if i == 0:
            print(*row, sep="\t")
        print(*map(_cell, row.values()), sep="\t", flush=True)


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{k}={v:.4g}" for k, v in value.items())
    if value is None:
        return "nan"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def run(app: typer.Typer, name: str) -> None:
    """Run a command: UserError is one line and exit 2 (1 for audio that cannot be used), a missing package is one
    line and exit 2, a full disk one line and exit 1, SIGPIPE is silent."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.stdout.reconfigure(encoding="utf-8")  # ids pass through pipes unchanged in any locale
    try:
        app(prog_name=name)
    except UserError as e:
        say(f"{name}: {e}")
        sys.exit(SOME_FAILED if isinstance(e, AudioError) else USAGE)
    except ModuleNotFoundError as e:
        if not (message := packages.explain(e)):
            raise
        say(f"{name}: {message}")
        sys.exit(USAGE)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.EIO):
            raise
        say(f"{name}: {e.filename or 'output'}: {os.strerror(e.errno)}; no incomplete file was left; fix it and run again")
        # What stdout still holds cannot be written either; the interpreter would try, and exit 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(SOME_FAILED)


class Failures:
    """Utterances that failed: each is named on stderr as it happens, and their number decides the exit code."""

    def __init__(self, command: str, max_fail: int = 0):
        self.command, self.max_fail, self.count = command, max_fail, 0

    def add(self, utt: str, reason: object) -> None:
        self.count += 1
        say(f"{self.command}: {utt}: {reason}")

    def finish(self, done: int) -> None:
        """Print how many were done and failed; exit with code 1 if more failed than `max_fail`."""
        say(f"{self.command}: {done} done, {self.count} failed")
        if self.count > self.max_fail:
            raise typer.Exit(SOME_FAILED)


def progress(items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    """Pass `items` through, with a bar on a terminal, else a line every 30 seconds."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=what, file=sys.stderr, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    for i, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= 30:
            last = now
            left = f" of {total}, {(now - start) / i * (total - i):.0f} s left" if total else ""
            say(f"{what}: {i}{left}")
