"""Shell manners that all commands share: talk on stderr, exit codes, progress, failures counted."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from typing import Iterable, Iterator, TypeVar

import typer

from setk.core import packages
from setk.core.errors import AudioError, UserError

T = TypeVar("T")
OK, SOME_FAILED, USAGE = 0, 1, 2


def new_app(**options) -> typer.Typer:
    """A Typer without boxes, colours or traceback art: plain help is read by grep too, and starts faster."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, **options)


def say(message: str) -> None:
    """One line to stderr; stdout carries data only."""
    print(message, file=sys.stderr, flush=True)


def run(app: typer.Typer, name: str) -> None:
    """Run a command: UserError is one line and exit 2 (1 for audio that cannot be used), a missing package
    one line and exit 2, a full disk one line and exit 1, SIGPIPE is quiet."""
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
        say(f"{name}: {e.filename or 'output'}: {os.strerror(e.errno)}; nothing half-written was left, run again when mended")
        # What stdout still holds cannot be written either; the interpreter would try, and exit 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(SOME_FAILED)


class Failures:
    """Utterances that failed: each is named on stderr as it happens, and the exit code tells in the end."""

    def __init__(self, command: str, max_fail: int = 0):
        self.command, self.max_fail, self.count = command, max_fail, 0

    def add(self, utt: str, reason: object) -> None:
        self.count += 1
        say(f"{self.command}: {utt}: {reason}")

    def finish(self, done: int) -> None:
        """Say how many were done and failed; leave with code 1 if more failed than is tolerated."""
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
