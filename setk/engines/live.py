"""Many signals through one model at once: readers in threads, one call of the engine for all signals that are ready."""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass, field
from typing import Callable, Iterator

import numpy as np

from setk import audio
from setk.core.errors import AudioError
from setk.engines.base import Engine
from setk.engines.batch import Batch
from setk.engines.files import Done, Entry, check_name, finished, lost_above_hz
from setk.engines.output import Output
from setk.engines.stream import Signal

PATIENCE = 0.002  # seconds that ready signals wait for the others: a small part of a hop
AHEAD = 2  # blocks that a reader may be ahead of the model


@dataclass
class Job:
    """One utterance in progress: what its reader thread and the loop share."""

    entry: Entry
    credit: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(AHEAD))
    files: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    signal: Signal | None = None
    writer: audio.Writer | None = None
    lost_above_hz: int | None = None
    made_of: str = ""
    owed: int = 0  # blocks that were fed, and whose credit the reader has not got back
    stopped: bool = False

    def stop(self, error: BaseException) -> None:
        """Close what is open without keeping the output, and end the reader."""
        self.stopped = True
        self.credit.release()
        self.files.pop_all().__exit__(type(error), error, None)

    def fail(self, error: AudioError) -> Done:
        self.stop(error)
        return Done(self.entry.utt, self.entry.path, str(error))

    def finish(self) -> Done:
        self.files.close()
        return finished(self.entry, self.made_of, self.writer.clipped, self.lost_above_hz)


class Loop:
    """The loop over running jobs, at most `size`; `run` yields a Done for each as it ends."""

    def __init__(
        self,
        engine: Engine,
        size: int,
        chunk: int,
        entries: Iterator[Entry],
        subtype: str,
        output: Output,
        before_end: Callable[[], None] | None,
    ):
        self.engine, self.size, self.entries = engine, size, entries
        self.subtype, self.output, self.before_end = subtype, output, before_end
        self.batch, self.events = Batch(engine, size, chunk), queue.Queue()
        self.running: list[Job] = []

    def run(self) -> Iterator[Done]:
        try:
            self._start_more()
            while self.running:
                yield from self._await_signals()
                yield from self._advance()
                self._start_more()
        except BaseException as e:  # the caller's end of this iterator, too
            for job in self.running:
                job.stop(e)
            raise

    def _start_more(self) -> None:
        while len(self.running) < self.size and (entry := next(self.entries, None)):
            job = Job(entry, made_of=entry.location.state())
            self.running.append(job)
            threading.Thread(target=_read, args=(job, self.events), daemon=True).start()

    def _await_signals(self) -> Iterator[Done]:
        """Handle events until every signal has a chunk, or some have and the others are slow."""
        while self.running:
            ready = [job.signal is not None and self.batch.ready(job.signal) for job in self.running]
            if all(ready):
                return
            try:
                job, event = self.events.get(timeout=PATIENCE if any(ready) else None)
            except queue.Empty:
                return
            if job.stopped:
                continue
            try:
                if isinstance(event, Exception):
                    raise event
                self._accept(job, event)
            except AudioError as e:
                yield self._give_up(job, e)
                self._start_more()

    def _give_up(self, job: Job, error: AudioError) -> Done:
        if job.signal and job.signal in self.batch.slots:
            self.batch.drop(job.signal)
        self.running.remove(job)
        return job.fail(error)

    def _accept(self, job: Job, event: audio.Info | np.ndarray | None) -> None:
        """A header, a block, or None for the end of the input."""
        if isinstance(event, audio.Info):
            job.signal = Signal(self.engine, event.rate, 1, self.output)
            job.lost_above_hz = lost_above_hz(self.engine, event.rate, self.output)
            job.writer = job.files.enter_context(audio.Writer(job.entry.path, event.rate, 1, self.subtype))
            self.batch.put(job.signal)
        elif event is None:
            job.signal.end()
        else:
            job.signal.feed(event)
            job.owed += 1
            self._let_read_on(job)

    def _let_read_on(self, job: Job) -> None:
        """Give the reader its credit back, unless the signal already has a chunk."""
        while job.owed and not self.batch.ready(job.signal):
            job.owed -= 1
            job.credit.release()

    def _advance(self) -> Iterator[Done]:
        """Run the model once, write what it returns, and let readers read on."""
        by_signal = {id(job.signal): job for job in self.running}
        for signal, samples in self.batch.advance():
            job = by_signal[id(signal)]
            try:
                job.writer.write(samples)
            except AudioError as e:
                yield self._give_up(job, e)
                continue
            if signal.done:
                self.running.remove(job)
                if self.before_end:
                    self.before_end()
                yield job.finish()
        for job in self.running:
            self._let_read_on(job)


def enhance_together(
    engine: Engine,
    size: int,
    chunk: int,
    entries: Iterator[Entry],
    subtype: str,
    output: Output = Output(),
    before_end: Callable[[], None] | None = None,
) -> Iterator[Done]:
    """Enhance `entries`, up to `size` at a time by `chunk` frames, and yield a Done for each as it ends.

    Locations may be live: a signal moves when it has a chunk, whether the others have or not, and an output
    that is a named pipe gets its samples at once. `before_end` is called before each file appears.
    """
    yield from Loop(engine, size, chunk, entries, subtype, output, before_end).run()


def _read(job: Job, events: queue.Queue) -> None:
    """Put an Info, blocks, and None at the end, or the exception that ended the thread."""
    location = job.entry.location
    try:
        check_name(job.entry)
        info, blocks = location.open(1 << 13)
        if info.channels != 1:
            raise AudioError(
                f"{location}: has {info.channels} channels; --batch needs mono, lists without it accept any"
            )
        events.put((job, info))
        for block in blocks:
            job.credit.acquire()
            if job.stopped:
                return
            events.put((job, np.ascontiguousarray(block)))
        events.put((job, None))
    except Exception as e:  # what is not put is waited for without end
        events.put((job, e))
