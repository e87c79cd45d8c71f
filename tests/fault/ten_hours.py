"""Hours of audio through `se-enhance MODEL - -`: length, memory on the way, and equality with the output of the file.

python tests/fault/ten_hours.py FOLDER [HOURS [MODEL]]      needs 230 MB in FOLDER for each hour

The audio is the noisy recordings of data/mini in turn, at a level that drifts by 40 dB within an hour. Exits with 1 if the
length or the samples differ, or memory grows by more than 4 MiB between a tenth of the way and the end.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from commands import ROOT, command  # noqa: E402
from setk import audio  # noqa: E402

RATE, HEADER, POINTS = 16000, 44, 10
GROWTH = 4 << 20


def write_source(path: Path, samples: int) -> None:
    files = sorted((ROOT / "data" / "mini" / "test" / "noisy").glob("*.flac"))
    with open(path, "wb") as f:
        f.write(audio.wav_header(RATE, 1, samples))
        done = number = 0
        while done < samples:
            x = audio.read_mono(files[number % len(files)])[0][: samples - done]
            gain = 10 ** (np.sin(2 * np.pi * done / (3600 * RATE)) - 1)
            f.write(audio.to_int16(x * np.float32(gain))[0].tobytes())
            done, number = done + len(x), number + 1


def digest(stream: BinaryIO) -> tuple[str, int]:
    """SHA-256 and number of the bytes after a header."""
    stream.read(HEADER)
    sha, size = hashlib.sha256(), 0
    while block := stream.read(1 << 16):
        sha.update(block)
        size += len(block)
    return sha.hexdigest(), size


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def through_the_pipe(model: str, source: Path) -> tuple[str, int, list[int], float]:
    """Digest and size of the output, memory at each of POINTS on the way, and seconds of processor time."""
    process = subprocess.Popen(
        command("enhance", model, "-", "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin and process.stdout
    memory: list[int] = []

    def feed() -> None:
        step, sent = source.stat().st_size // POINTS, 0
        with open(source, "rb") as f, process.stdin as pipe:
            while block := f.read(1 << 16):
                pipe.write(block)
                sent += len(block)
                if sent // step > len(memory):
                    memory.append(resident(process.pid))

    feeder = threading.Thread(target=feed)
    feeder.start()
    found = digest(process.stdout)
    feeder.join()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the pipe ended with {os.waitstatus_to_exitcode(status)}")
    return *found, memory, used.ru_utime + used.ru_stime


def main(folder: Path, hours: float = 10, model: str = "fspen") -> int:
    samples = round(hours * 3600 * RATE)
    source, target = folder / "source.wav", folder / "enhanced.wav"
    try:
        write_source(source, samples)
        piped, size, memory, seconds = through_the_pipe(model, source)
        print("memory, MiB:", *(f"{m / 2**20:.1f}" for m in memory), flush=True)
        print(f"{hours:g} h: {size // 2} of {samples} samples, {seconds:.0f} s of processor time", flush=True)
        start = time.monotonic()
        subprocess.run(command("enhance", model, source, target), cwd=ROOT, check=True)
        with open(target, "rb") as f:
            filed = digest(f)
        print(
            f"pipe {piped[:16]}, file {filed[0][:16]}: {'equal' if piped == filed[0] else 'different'}; {time.monotonic() - start:.0f} s"
        )
    finally:
        for path in (source, target):
            path.unlink(missing_ok=True)
    return int(size != 2 * samples or (piped, size) != filed or memory[-1] - memory[0] > GROWTH)


if __name__ == "__main__":
    given = sys.argv[1:]
    raise SystemExit(main(Path(given[0]), *map(float, given[1:2]), *given[2:3]))
