"""setk's commands as tests run them: as processes, or inside the interpreter of the tests, which costs no import of torch."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Iterator, Mapping

ROOT = Path(__file__).parents[1]
PATIENCE = 1800  # s: only what hangs takes as long, however busy the machine


def command(name: str, *args) -> list[str]:
    """argv of a setk command, as bin/se-NAME runs it."""
    return [sys.executable, "-P", "-m", f"setk.cli.{name}", *map(str, args)]


def stopping(saves: int, *args) -> list[str]:
    """argv of se-train that gets SIGTERM as its state is saved for the `saves`-th time."""
    return [sys.executable, "-P", str(ROOT / "tests/stop_training.py"), str(saves), *map(str, args)]


class Commands:
    """`se("enhance", model, "a.wav", …)` runs a command in this interpreter; `se.process(…)` runs it as a process.

    Both run from the root of the repository unless `cwd` names another directory, and return a
    subprocess.CompletedProcess with `out` and `err`, its output as text. Use a process where the process is the
    point: live pipes, signals, kills, what is imported, memory, worker processes that a test kills. With
    `always_processes`, every command is a process.
    """

    def __init__(self, always_processes: bool = False):
        self.always_processes = always_processes

    def __call__(
        self,
        name: str,
        *args,
        input: bytes | None = None,
        cwd: str | os.PathLike = ROOT,
        env: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> subprocess.CompletedProcess:
        run = self.process if self.always_processes else _run_here
        return run(name, *args, input=input, cwd=cwd, env=env, timeout=timeout)

    def process(self, name: str, *args, input: bytes | None = None, **options) -> subprocess.CompletedProcess:
        """Run a command as a process; `options` go to subprocess.run."""
        done = subprocess.run(
            command(name, *args), input=input, capture_output=True, **{"cwd": ROOT, "timeout": PATIENCE, **options}
        )
        return _checked(done)


COMMANDS = Commands()  # what the fixture `se` is, for helpers that are no fixtures


def _checked(done: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    done.out, done.err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    assert "Traceback" not in done.err, done.err
    return done


def _run_here(
    name: str, *args, input: bytes | None, cwd: str | os.PathLike, env: Mapping[str, str] | None, timeout: float
) -> subprocess.CompletedProcess:
    """Call the command's main() and put back what it may change: streams, directory, environment, handlers, modules."""
    module = importlib.import_module(f"setk.cli.{name}")
    argv = [module.__file__, *map(str, args)]
    code = 0
    with contextlib.ExitStack() as around:
        for one in (_modules(), _torch(), _environment(env), contextlib.chdir(cwd), _default_warnings(), _argv(argv)):
            around.enter_context(one)
        captured = around.enter_context(_streams(input))
        around.enter_context(_signals(argv, timeout))
        try:
            module.main()
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else int(e.code is not None)
            if isinstance(e.code, str):
                print(e.code, file=sys.stderr)
    return _checked(subprocess.CompletedProcess(argv, code, *captured))


@contextlib.contextmanager
def _streams(data: bytes | None) -> Iterator[list[bytes]]:
    """Standard input from `data`, through a pipe; what is written to descriptors 1 and 2 is in the list afterwards."""
    captured: list[bytes] = []
    before = sys.stdin, sys.stdout, sys.stderr
    feeder = None
    with contextlib.ExitStack() as around:
        out, err = (around.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        if data is None:
            source = around.enter_context(open(os.devnull, "rb"))
        else:
            ends = os.pipe()
            source = around.enter_context(open(ends[0], "rb", buffering=0))
            feeder = threading.Thread(target=_feed, args=(ends[1], data))
            feeder.start()
        saved = [os.dup(number) for number in range(3)]
        for number, file in enumerate((source, out, err)):
            os.dup2(file.fileno(), number)
        # As a process in a UTF-8 locale opens them.
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        try:
            yield captured
        finally:
            sys.stdout.flush()
            sys.stdin, sys.stdout, sys.stderr = before
            for number, file in enumerate(saved):
                os.dup2(file, number)
                os.close(file)
            for file in (out, err):
                file.seek(0)
                captured.append(file.read())
    if feeder:
        feeder.join()  # the reading end is closed by now, so that it cannot wait


def _feed(end: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(end, "wb") as pipe:
        pipe.write(data)


@contextlib.contextmanager
def _signals(argv: list[str], timeout: float) -> Iterator[None]:
    """Handlers as they were afterwards, and subprocess.TimeoutExpired where the command does not end."""

    def expire(*_) -> None:
        raise subprocess.TimeoutExpired(argv, timeout)

    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGALRM
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _environment(env: Mapping[str, str] | None) -> Iterator[None]:
    before = dict(os.environ)
    try:
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _argv(argv: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, argv
    options = list(sys.warnoptions)
    try:
        yield
    finally:
        sys.argv = before
        sys.warnoptions[:] = options


@contextlib.contextmanager
def _default_warnings() -> Iterator[None]:
    """Warnings go to standard error as in a process, not to pytest, which collects them."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = warnings._showwarning_orig
        yield


@contextlib.contextmanager
def _modules() -> Iterator[None]:
    """Empty caches in setk's modules, as in a new process, and their global variables as they were afterwards."""
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "setk"]
    before = [(vars(module), dict(vars(module))) for module in modules]
    for _, names in before:
        for value in names.values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
    try:
        yield
    finally:
        for now, names in before:
            now.update(names)


@contextlib.contextmanager
def _torch() -> Iterator[None]:
    """One compute thread, and a seed that differs from run to run as in a process; what is set for all of torch is put back."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    seed = int(torch.randint(2**62, (1,)))
    state, threads, exact = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(exact)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
