"""The table of se-enhance --report."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Iterator, TextIO

from setk.audio.activity import Analysis, Frame
from setk.core.files import atomic_path, naming


@contextlib.contextmanager
def write_report(path: str) -> Iterator[Analysis]:
    """An observer that writes a row per frame to `path`. A file appears, complete, at the end; `-` (standard output), named pipes and
    devices get each row as soon as it is there."""
    with _opened(path) as stream:

        def write(line: str) -> None:
            with naming(path) if path != "-" else contextlib.nullcontext():
                print(line, file=stream, flush=True)

        write("\t".join(Frame._fields))
        analysis = Analysis(lambda frame: write(_row(frame)))
        yield analysis
        analysis.finish()


@contextlib.contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    if path == "-":
        yield sys.stdout
    elif os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        stream = open(path, "w")
        try:
            yield stream
        finally:
            with naming(path):  # what could not be written is tried again
                stream.close()
    else:
        with atomic_path(path) as tmp, open(tmp, "w") as stream:
            yield stream


def _row(frame: Frame) -> str:
    return (
        f"{frame.time:.1f}\t{frame.input_dbfs:.1f}\t{frame.snr_db:.1f}\t{frame.reduction_db:.1f}"
        f"\t{frame.speech}\t{frame.speech_score:.3f}"
    )
