"""Many signals through one model at once: readers in threads, one call of the engine for all that are ready."""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass, field
from typing import Iterator

import numpy as np

from setk import audio
from setk.engines import Batch, Engine, Signal
from setk.core.errors import AudioError

PATIENCE = 0.002  # seconds that ready signals wait for the others: a small part of a hop
AHEAD = 2         # blocks that a reader may be ahead of the model


@dataclass
class Job:
    """One utterance on its way: what its reader thread and the loop share."""

    utt: str
    location: audio.Location
    path: str
    room: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(AHEAD))
    files: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    signal: Signal | None = None
    writer: audio.Writer | None = None
    owed: int = 0  # blocks that were fed and not yet told to the reader


def enhance_together(engine: Engine, size: int, chunk: int, entries: Iterator[tuple[str, audio.Location, str]],
                     subtype: str) -> Iterator[tuple[str, str, str | None, int]]:
    """Enhance entries (utt, location, output path), up to `size` at a time; yields (utt, path, reason if it
    failed, clipped samples) of each as it ends.

    Locations may be live: a signal moves when it has a chunk, whether the others have or not, and an output
    that is a named pipe gets its samples at once.
    """
    batch, events = Batch(engine, size, chunk), queue.Queue()
    running: list[Job] = []

    def start_more() -> None:
        while len(running) < size and (entry := next(entries, None)):
            job = Job(*entry)
            running.append(job)
            threading.Thread(target=_read, args=(job, events), daemon=True).start()

    start_more()
    while running:
        with contextlib.suppress(queue.Empty):
            while True:
                ready = [job.signal is not None and batch.ready(job.signal) for job in running]
                if all(ready):
                    break
                job, event = events.get(timeout=PATIENCE if any(ready) else None)
                if isinstance(event, AudioError):
                    if job.signal:
                        batch.drop(job.signal)
                    running.remove(job)
                    job.files.pop_all().__exit__(AudioError, event, None)
                    yield job.utt, job.path, str(event), 0
                    start_more()
                    if not running:
                        return
                elif isinstance(event, audio.Info):
                    job.signal = Signal(engine, event.rate, 1)
                    job.writer = job.files.enter_context(audio.Writer(job.path, event.rate, 1, subtype))
                    batch.put(job.signal)
                elif event is None:
                    job.signal.end()
                else:
                    job.signal.feed(event)
                    job.owed += 1
        by_signal = {id(job.signal): job for job in running}
        for signal, samples in batch.advance():
            job = by_signal[id(signal)]
            job.writer.write(samples)
            if signal.done:
                running.remove(job)
                job.files.close()
                yield job.utt, job.path, None, job.writer.clipped
        for job in running:
            while job.owed and not batch.ready(job.signal):
                job.owed -= 1
                job.room.release()
        start_more()


def _read(job: Job, events: queue.Queue) -> None:
    """Put what there is to read: an Info, blocks, and None at the end, or an AudioError."""
    try:
        info, blocks = job.location.open(1 << 13)
        if info.channels != 1:
            raise AudioError(f"{job.location}: has {info.channels} channels; --batch takes mono, lists without it take any")
        events.put((job, info))
        for block in blocks:
            job.room.acquire()
            events.put((job, np.ascontiguousarray(block)))
        events.put((job, None))
    except AudioError as e:
        events.put((job, e))
