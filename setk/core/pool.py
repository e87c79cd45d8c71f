"""Worker processes, and an ordered map over them that reads items as they arrive and holds a bounded number of them."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, TypeVar

from setk.core.errors import Killed, UserError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

T = TypeVar("T")
R = TypeVar("R")
_QUIET = "ignore::UserWarning:multiprocessing.resource_tracker"


def _begin(initializer: Callable | None, initargs: tuple) -> None:
    """Prepare a worker, and let it end with its parent, which cannot end it if a signal ends the parent, as `| head` does."""

    import multiprocessing

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if initializer:
        initializer(*initargs)


def leave_signals(*_: object) -> None:
    """Begin a worker of a process that answers signals to their whole group, and then ends its workers."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def executor(jobs: int, initializer: Callable | None = None, initargs: tuple = ()) -> ProcessPoolExecutor:
    """`jobs` worker processes, started on demand, that end with this one."""
    # Imported here: one process, which is the default, starts faster without them.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Where a signal ends this process (`| head`), the tracker of semaphores releases them, and need not warn.
    if _QUIET not in sys.warnoptions:
        sys.warnoptions.append(_QUIET)
    # Forking a process that already has threads (a feeder, OpenMP) can deadlock: so a fork server is used.
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("forkserver"), _begin, (initializer, initargs))


def ordered_map(
    work: Callable[[T], R], items: Iterable[T], jobs: int = 1, initializer: Callable | None = None, initargs: tuple = ()
) -> Iterator[R]:
    """Yield work(item) for each item, in order, over `jobs` processes (1: in this one).

    A result is yielded as soon as those before it are, even if later items have not arrived, so that
    a slow source (a pipe) is answered at once. At most 4 * jobs items are held. An exception in `work` is
    raised here. Raises Killed if a worker is.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: must be at least 1")
    if jobs == 1:
        if initializer:
            initializer(*initargs)
        yield from map(work, items)
        return
    from concurrent.futures.process import BrokenProcessPool

    pending: queue.Queue = queue.Queue(maxsize=4 * jobs)
    done = object()
    stop = threading.Event()

    def put(thing) -> None:
        while not stop.is_set():
            try:
                return pending.put(thing, timeout=0.2)
            except queue.Full:
                continue

    def feed() -> None:
        try:
            for item in items:
                if stop.is_set():
                    return
                put(pool.submit(work, item))
            put(done)
        except BaseException as e:  # handed to the consumer, which raises it
            put(e)

    with executor(jobs, initializer, initargs) as pool:
        threading.Thread(target=feed, daemon=True).start()
        try:
            while (thing := pending.get()) is not done:
                if isinstance(thing, BaseException):
                    raise thing
                yield thing.result()
        except BrokenProcessPool:
            raise Killed("a worker process was killed (out of memory?); run again with fewer --jobs") from None
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
