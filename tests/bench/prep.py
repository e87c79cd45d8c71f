"""48 kHz wavs to 16 kHz shards, against loops that do the same by other means: ratios of CPU-time medians, one thread.

    python tests/bench/prep.py [repeats]

All read the same 48 kHz files, bring them to 16 kHz, and write one HDF5 file of int16; ffmpeg and sox, where they
are installed, write wavs instead, a process per file, as shell scripts do. They run in turn, so that a busy machine
troubles all alike; trust the ratios, not the seconds. Children's CPU time counts. Then where setk's time goes.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import h5py
import numpy as np
import resampy
import soundfile

from setk import audio
from setk.data import datadir, lists, shards

RATE, FILES, SECONDS = 48000, 60, 3.0  # seconds: an utterance of VoiceBank+DEMAND
TARGET = 16000


def cpu() -> float:
    """CPU seconds of this process and of its finished children."""
    return sum(
        u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def seconds(function) -> float:
    start = cpu()
    function()
    return cpu() - start


def corpus(folder: Path, suffix: str) -> list[Path]:
    """FILES files of noise that fades in and out; the data directory that lists each as noisy and as clean."""
    rng, n = np.random.default_rng(0), int(SECONDS * RATE)
    paths = [folder / f"wav/{i:03}{suffix}" for i in range(FILES)]
    for path in paths:
        audio.write(path, 0.2 * np.hanning(n) * np.convolve(rng.standard_normal(n), np.ones(8) / 8, "same"), RATE)
    half = FILES // 2
    for stream, part in (("noisy", paths[:half]), ("clean", paths[half:])):
        lists.write_list(folder / f"{stream}.scp", {f"u{i:03}": path for i, path in enumerate(part)})
    return paths


def setk(folder: Path, out: Path) -> None:
    """What `se-prep shards DIR OUT --resampler soxr` does once it runs."""
    done = list(shards.write_shards(datadir.DataDir(folder), out, resampler="soxr"))
    assert [d.state for d in done] == ["made"]


def setk_by_wavs(folder: Path, out: Path) -> None:
    """What `se-prep vbd`, or `resample`, and then `shards` do: 16 kHz wavs are kept, too."""
    from setk.data.convert import convert_all

    data = datadir.DataDir(folder)
    for stream in data.streams:
        done = convert_all(data.table(f"{stream}.scp").items(), out / stream, TARGET)
        lists.write_list(out / f"{stream}.scp", {wav.utt: wav.path for wav in done})
    assert [d.state for d in shards.write_shards(datadir.DataDir(out), out)] == ["made"]


def loop(paths: list[Path], out: Path, resample) -> None:
    """soundfile, a resampler and h5py, one after the other, as scripts have it."""
    with h5py.File(out / "plain.h5", "w") as f:
        for path in paths:
            x, rate = soundfile.read(path, dtype="float32")
            y = resample(x, rate)
            f[path.stem] = np.clip(np.rint(y * 32768), -32768, 32767).astype("<i2")


def by_resampy(x, rate):
    return resampy.resample(x, rate, TARGET)


def by_process(paths: list[Path], out: Path, argv) -> None:
    for path in paths:
        subprocess.run(argv(str(path), str(out / f"{path.stem}.wav")), check=True)


def ffmpeg(source, target):
    return ["ffmpeg", "-nostdin", "-v", "error", "-threads", "1", "-i", source, "-ar", str(TARGET), "-y", target]


def sox(source, target):
    return ["sox", "-D", source, "-r", str(TARGET), target]


def only_read(paths: list[Path], out: Path) -> None:
    for path in paths:
        audio.read(str(path))


def read_and_resample(paths: list[Path], out: Path) -> None:
    for path in paths:
        audio.resample(audio.read(str(path))[0][0], RATE, TARGET)


def compare(folder: Path, suffix: str, repeats: int) -> None:
    paths = corpus(folder, suffix)
    ways = {
        "setk: shards --resampler soxr": lambda out: setk(folder, out),
        "setk: resample, then shards": lambda out: setk_by_wavs(folder, out),
        "soundfile + resampy + h5py": lambda out: loop(paths, out, by_resampy),
    }
    ways |= {
        f"{argv.__name__}, a process per file": lambda out, argv=argv: by_process(paths, out, argv)
        for argv in (ffmpeg, sox)
        if shutil.which(argv.__name__)
    }
    ways |= {
        "(setk, reading alone)": lambda out: only_read(paths, out),
        "(setk, reading and resampling)": lambda out: read_and_resample(paths, out),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory(dir=folder) as out:
                taken = seconds(lambda: way(Path(out)))
            if repeat:  # the first warms the page cache, and compiles resampy
                times[name].append(taken)
    print(f"\n{suffix[1:]}, {FILES} files of {SECONDS} s, 48 to 16 kHz {'x real time':>20} {'time / setk time':>18}")
    ours = times["setk: shards --resampler soxr"]
    for name, taken in times.items():
        ratio = statistics.median(t / o for t, o in zip(taken, ours))
        print(f"{name:40} {FILES * SECONDS / statistics.median(taken):18.0f} {ratio:18.2f}")


def segments(folder: Path) -> None:
    """Random 2-s segments from a warm file, one core."""
    n = int(60 * TARGET)
    audio.write(folder / "speech.wav", np.random.default_rng(0).uniform(-1, 1, n), TARGET)
    for stream in ("speech", "noise"):
        lists.write_list(folder / f"{stream}.scp", {"a": folder / "speech.wav"})
    list(shards.write_shards(datadir.DataDir(folder), folder / "out"))
    data = shards.Shards(folder / "out", "speech")
    starts = np.random.default_rng(1).integers(0, n - 2 * TARGET, 4000).tolist()

    def read_all():
        for start in starts:
            data.read(0, start, 2 * TARGET)

    best = min(seconds(read_all) for _ in range(5))
    print(f"\nrandom 2-s segments of a shard: {len(starts) / best:,.0f} per second")


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    started = time.perf_counter()
    for suffix in (".wav", ".flac"):
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), suffix, repeats)
    with tempfile.TemporaryDirectory() as folder:
        segments(Path(folder))
    print(f"({time.perf_counter() - started:.0f} s, load of the machine {os.getloadavg()[0]:.1f})")


if __name__ == "__main__":
    main()
