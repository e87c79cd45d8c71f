"""What all commands share: messages on stderr, exit codes, progress, the count of failures, options that do not apply."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Sequence, TypeVar

from setk.cli.app import (
    App as App,
    Plain as Plain,
    PlainLine as PlainLine,
    command as command,
    new_app as new_app,
    only as only,
    refuse as refuse,
)
from setk.cli.titles import (
    ADVANCED as ADVANCED,
    GENERAL as GENERAL,
    INPUT as INPUT,
    METRICS as METRICS,
    OUTPUT as OUTPUT,
    PARALLEL as PARALLEL,
    PRUNING as PRUNING,
    TABLES as TABLES,
)
from setk.core import packages
from setk.core.errors import AudioError, Killed, UserError
from setk.core.files import check_readable

if TYPE_CHECKING:
    from setk.cli.options import (
        AllowCommands as AllowCommands,
        Context as Context,
        Json as Json,
        MaxFail as MaxFail,
        Part as Part,
        Set as Set,
        Stft as Stft,
        Trust as Trust,
        argument as argument,
        check_part as check_part,
        option as option,
    )

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 30  # of progress, where standard error is not a terminal
OK, SOME_FAILED, USAGE = 0, 1, 2
# What the operating system reports of a place that cannot be written (or read): one line, no traceback.
OUTPUT_ERRORS = tuple(
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EACCES EROFS EPERM EIO ENAMETOOLONG ENOTDIR ELOOP ENXIO EMFILE ENFILE".split()
)

quiet = False  # set by --quiet


def __getattr__(name: str) -> Any:
    # What needs typer is imported when a command line is parsed: see setk.cli.app.
    from setk.cli import options

    if name not in vars(options):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(options, name)


def optional_value(argv: list[str], option: str, default: int) -> None:
    """Insert `default` after `option` in `argv` unless a number follows it: parsers know no option with an optional value."""
    if option in argv:
        after = argv.index(option) + 1
        if not (after < len(argv) and argv[after].isdigit()):
            argv.insert(after, str(default))


def say(message: str) -> None:
    """One line to stderr; stdout carries data only."""
    print(message, file=sys.stderr, flush=True)


def note(message: str) -> None:
    """One line to stderr that --quiet silences: what was done, not what went wrong."""
    if not quiet:
        say(message)


def print_json(record: Mapping[str, Any]) -> None:
    """One line of strict JSON to stdout; it has no nan and no infinity, which become null."""
    print(json.dumps(_strict(record), allow_nan=False), flush=True)


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strict(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_rows(rows: Iterable[Mapping[str, Any]], as_json: bool) -> None:
    """Rows to stdout, as JSON lines or as a table."""
    if not as_json:
        return print_table(rows)
    for row in rows:
        print_json(row)


def print_table(rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows with a header to stdout. In a pipe TSV, each row as soon as it is there, numbers in full; None is nan, a mapping is
    key=value,... On a terminal aligned columns, numbers rounded, with k, M and G."""
    if sys.stdout.isatty():
        return _print_aligned(list(rows))
    for i, row in enumerate(rows):
        if i == 0:
            print(*row, sep="\t")
        print(*map(_cell, row.values()), sep="\t", flush=True)


def _print_aligned(rows: list[Mapping[str, Any]]) -> None:
    if not rows:
        return
    cells = [[*rows[0]], *([_short(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    numeric = [
        all(value is None or isinstance(value, (int, float)) for value in column)
        for column in zip(*(row.values() for row in rows))
    ]
    for line in cells:
        padded = [
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(line, widths, numeric)
        ]
        print("  ".join(padded).rstrip())


class Rows:
    """A table whose rows appear as they are computed: TSV in a pipe, on a terminal columns of fixed width."""

    def __init__(self, first: str, names: Sequence[str], last: str | None = None):
        self.widths = [max(24, len(first)), *(max(8, len(name)) for name in names)]
        self.terminal = sys.stdout.isatty()
        self._print([first, *names, *([last] if last else [])])

    def add(self, first: str, values: Iterable[float | str], last: str | None = None) -> None:
        """Print a row: an id, numbers (or their text for a pipe), and a remark."""
        numbers = [f"{float(value):.3f}" for value in values] if self.terminal else [str(value) for value in values]
        self._print([first, *numbers, *([last] if last is not None else [])])

    def _print(self, cells: list[str]) -> None:
        if not self.terminal:
            return print(*cells, sep="\t", flush=True)
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, self.widths))
        ]
        print("  ".join([*padded, *cells[len(self.widths) :]]).rstrip(), flush=True)


def _short(value: Any) -> str:
    """A value as a person reads it: 86354 is 86.4k, 0.91324 is 0.913."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _cell(value)
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= factor:
            return f"{value / min(factor, 1e3 if unit == 'k' else factor):.3g}{unit}"
    return str(value) if isinstance(value, int) else f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{k}={v:.4g}" for k, v in value.items())
    if value is None:
        return "nan"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def run(app: App, name: str) -> None:
    """Run a command, as `script` runs a function; wrong usage is one line and exit 2, too."""
    script(lambda: app(prog_name=name, standalone_mode=False), name)


def script(work: Callable[[], object], name: str) -> None:
    """Run `work` and exit with the number that it returns, if any: UserError is one line and exit 2 (1 for audio that cannot
    be used), a missing package is one line and exit 2, a full disk one line and exit 1, SIGPIPE is silent."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _end)
    _require_streams(name)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.stdout.reconfigure(encoding="utf-8")  # ids pass through pipes unchanged in any locale
    remarks = _Remarks(name)
    logging.getLogger("setk").addHandler(remarks)
    try:
        code = work()
        if isinstance(code, int) and code:
            sys.exit(code)
    except _usage_errors() as e:
        if not e.format_message():  # a command without arguments, which prints its help
            e.show()
        else:
            where = e.ctx.command_path if e.ctx else name
            say(f"{where}: {e.format_message().rstrip('.')}; see {where} -h")
        sys.exit(USAGE)
    except UserError as e:
        say(f"{name}: {e}")
        sys.exit(SOME_FAILED if isinstance(e, (AudioError, Killed)) else USAGE)
    except ModuleNotFoundError as e:
        if not (message := packages.explain(e)):
            raise
        say(f"{name}: {message}")
        sys.exit(USAGE)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except OSError as e:
        if e.errno not in OUTPUT_ERRORS:
            raise
        left = "no incomplete file was left" if e.filename else "standard output is incomplete"
        say(f"{name}: {e.filename or 'standard output'}: {os.strerror(e.errno)}; {left}; fix it and run again")
        # What stdout still holds cannot be written either; the interpreter would try, and exit 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(SOME_FAILED)
    except MemoryError:
        say(f"{name}: not enough memory; use shorter files, a smaller --chunk, or fewer --jobs")
        sys.exit(SOME_FAILED)
    finally:
        logging.getLogger("setk").removeHandler(remarks)


def _end(number: int, frame: Any) -> None:
    """End as by an exception, so that what is being written is completed or removed."""
    sys.exit(128 + number)


def _usage_errors() -> Any:
    """What typer raises for a wrong command line; its module depends on the version. Nothing if typer was not needed."""
    typer = sys.modules.get("typer")
    return (typer.BadParameter.__bases__[0],) if typer else ()


class _Remarks(logging.Handler):
    """Prints what the library warns of, as a line of the command."""

    def __init__(self, command: str):
        super().__init__()
        self.command = command

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{self.command}: {record.getMessage()}")


def _require_streams(name: str) -> None:
    """Exit if standard output is closed: what is written to it would be lost, or go into the next file that is opened. Let the others
    wait for data, as all readers and writers here expect: a pipe from another program may be set not to."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    if sys.stdout is None:
        say(f"{name}: standard output is closed; send it to a file, a pipe or /dev/null")
        sys.exit(USAGE)
    if sys.stdin is None:
        sys.stdin = open(os.devnull)
    for descriptor in range(3):
        with contextlib.suppress(OSError):  # a closed one
            os.set_blocking(descriptor, True)


class Failures:
    """Utterances that failed: each is named on stderr as it happens, and their number decides the exit code."""

    def __init__(self, command: str, max_fail: int = 0):
        self.command, self.max_fail, self.count = command, max_fail, 0

    def add(self, utt: str, reason: object) -> None:
        self.count += 1
        say(f"{self.command}: {utt}: {reason}")

    def finish(self, done: int) -> None:
        """Print how many were done and failed; exit with code 1 if more failed than `max_fail`."""
        note(f"{self.command}: {done} done, {self.count} failed")
        if self.count > self.max_fail:
            sys.exit(SOME_FAILED)


def list_length(list_: str, part: str | None) -> int | None:
    """Entries of a wav list that a command handles, for progress; None where counting would read what is to come."""
    if list_ == "-" or not os.path.isfile(list_):
        return None
    check_readable(list_)
    with open(list_, "rb") as f:
        entries = sum(1 for line in f if line.strip())
    from setk.data import lists

    return entries if part is None else sum(1 for _ in lists.take_part(range(entries), part))


class Progress:
    """How much of `total` (None: unknown) is done, for a person: a bar on a terminal, else a line every 30 seconds; --quiet: neither."""

    def __init__(self, total: float | None, what: str, unit: str = ""):
        self.total, self.what, self.unit, self.done = total, what, unit, 0.0
        self._start = self._last = time.monotonic()
        self._bar = None
        if sys.stderr.isatty() and not quiet:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=what, unit=unit or "it", dynamic_ncols=True, leave=not unit)

    def add(self, amount: float = 1) -> None:
        self.done += amount
        if self._bar is not None:
            self._bar.update(amount)
            return
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            left = (now - self._start) / self.done * (self.total - self.done) if self.total else 0
            of_total = f" of {self.total:g}{self.unit}, {left:.0f} s left" if self.total else ""
            note(f"{self.what}: {self.done:g}{self.unit}{of_total}")

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.close()


def progress(items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    """Pass `items` through, and show the Progress.

    Where standard output is a terminal too, the rows that appear there are the progress, and a bar would overwrite them.
    """
    if sys.stderr.isatty() and sys.stdout.isatty():
        yield from items
        return
    shown = Progress(total, what)
    for item in items:
        yield item
        shown.add()
    shown.finish()
