"""How long se-enhance takes to start, and how much memory it needs: measured on a process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Iterator, Sequence

from setk.engines import Loaded

RATE_BYTES = 2 * 16000  # one second of s16le, whatever the model's rate
SECONDS = 10


def startup(model: Loaded | str, causal: bool, options: Sequence[str] = ()) -> dict[str, float | None]:
    """`start_s`: seconds from the start of `se-enhance MODEL - -`, with further `options`, to its first audio; `peak_mib`: its peak memory.

    `peak_mib` is None where there is no /proc: getrusage would add the memory of this process. A model that is not
    causal gets windows of a second.
    """
    with contextlib.nullcontext(model) if isinstance(model, str) else _file_of(model) as path:
        chunk = () if causal else ("--chunk", "1")
        start = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "setk.cli.enhance", str(path), "-", "-", "--raw", *chunk, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        feeder = threading.Thread(target=child.stdin.write, args=(bytes(RATE_BYTES * SECONDS),))
        feeder.start()
        child.stdout.read(1)
        first = time.perf_counter() - start
        child.stdout.read(RATE_BYTES * (SECONDS - 1))  # the rest fits into the pipe, so that neither end waits
        peak = _peak_mib(child.pid)
        feeder.join()
        child.communicate()
    return {"start_s": round(first, 3), "peak_mib": peak and round(peak, 1)}


def _peak_mib(pid: int) -> float | None:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return None


@contextlib.contextmanager
def _file_of(loaded: Loaded) -> Iterator[Path]:
    """A temporary checkpoint of a model that has no file."""
    from setk import checkpoint

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "preset.pt"
        checkpoint.save(path, loaded.model, {})
        yield path
