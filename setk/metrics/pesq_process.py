"""The C code of PESQ in a process of its own, because some signals crash it.

One such process is started on demand for each process that scores, and serves all its utterances. If it dies, of a crash
or of its limits of time and memory, that utterance has no score, and the next one starts another.

Messages: struct REQUEST and two float64 signals of `count` samples; the answer is one float64, a score or, below 0, an
error code of the pesq package.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from typing import Iterator

import numpy as np

REQUEST, ANSWER = struct.Struct("<iiq"), struct.Struct("<d")
MODES = ("nb", "wb")
CPU_SECONDS, MEMORY = 60, 4 << 30  # of one score; five minutes of audio need some 10 s and 1 GiB


class Crash(Exception):
    """The process of PESQ died of these signals."""


class Process:
    """A running process of PESQ."""

    def __init__(self) -> None:
        argv = [sys.executable, "-P", "-m", "setk.metrics.pesq_process"]
        # Unbuffered: what a buffer keeps after a broken pipe is written again when it is closed, where SIGPIPE is not blocked.
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(argv, bufsize=0, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)

    def score(self, rate: int, ref: np.ndarray, est: np.ndarray, mode: str) -> float:
        """What pesq.pesq returns for two float signals [n]. Raises Crash; the process is then of no more use."""
        assert self._child.stdin and self._child.stdout
        try:
            with _sigpipe_blocked():
                self._send(REQUEST.pack(rate, MODES.index(mode), len(ref)))
                for x in (ref, est):
                    self._send(np.ascontiguousarray(x, "<f8").tobytes())
            answer = self._child.stdout.read(ANSWER.size)
        except BrokenPipeError:
            answer = b""
        if len(answer) != ANSWER.size:
            raise Crash(self._cause())
        return ANSWER.unpack(answer)[0]

    def _send(self, data: bytes) -> None:
        assert self._child.stdin
        rest = memoryview(data)
        while rest:
            rest = rest[self._child.stdin.write(rest) :]

    def _cause(self) -> str:
        code = self._child.wait()
        if code == -signal.SIGXCPU:
            return f"needs more than {CPU_SECONDS} s for this pair of signals"
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"crashes with this pair of signals ({name})"


@contextlib.contextmanager
def _sigpipe_blocked() -> Iterator[None]:
    """A pipe without a reader raises BrokenPipeError even where SIGPIPE ends the process, as it does in the commands."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        yield
    finally:
        if signal.SIGPIPE in signal.sigpending():
            signal.sigwait({signal.SIGPIPE})
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Own(threading.local):
    """The process of PESQ of each thread, and who started it: neither threads nor a fork may share the pipes."""

    process: Process | None = None
    owner = 0


_own = _Own()


def score(rate: int, ref: np.ndarray, est: np.ndarray, mode: str) -> float:
    """As `Process.score`, by the process of this thread, which is started if necessary."""
    process = _own.process if _own.owner == os.getpid() else None
    # Nobody's until it has answered: an answer that was not read would be that of the next pair.
    _own.process = None
    process = process or Process()
    value = process.score(rate, ref, est, mode)
    _own.process, _own.owner = process, os.getpid()
    return value


def serve() -> None:
    """Answer requests from standard input until it ends, as it does when the parent ends."""
    import resource

    from pesq import PesqError, pesq

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the C code prints to standard output
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's; this one ends with it
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    while len(head := source.read(REQUEST.size)) == REQUEST.size:
        rate, mode, count = REQUEST.unpack(head)
        ref, est = (np.frombuffer(source.read(8 * count), "<f8") for _ in range(2))
        limit = int(time.process_time()) + CPU_SECONDS + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        value = pesq(rate, ref, est, MODES[mode], on_error=PesqError.RETURN_VALUES)
        target.write(ANSWER.pack(value))
        target.flush()


if __name__ == "__main__":
    serve()
