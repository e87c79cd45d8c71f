"""Processor time and disk per hour of audio of LibriMix and N-DNS: preparation, shards, enhancement, scores; and of the complete corpora.

    python tests/bench/corpora.py [--sizes 8,80] [--folder DIR]

Small trees of the layout of the real ones are generated of data/mini: LibriSpeech, wham_noise and a generation CSV of LibriMix; clean and
noise of N-DNS, as many hours as the clips made of them. Each step is one process of setk with one thread, on a small tree and on a large
one. The difference of both is the cost per hour of audio; what remains of the small one is the start-up. Enhancement and scores, which
cost most, use a quarter of the list. Processor time counts, as other work may share the machine.
"""

import argparse
import csv
import ctypes
import math
import os
import resource
import runpy
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from setk import audio
from setk.data.corpora.ndns_synthesis import CLIP
from setk.data.lists import read_list, write_list

TREES = runpy.run_path(str(Path(__file__).parents[2] / "data/mini/trees.py"))
RATE, HOUR = 16000, 3600
QUARTER = 4
PR_SET_CHILD_SUBREAPER = 36  # of linux/prctl.h
# Libri2Mix: 212 h + 58 h to train, 11 h to validate, 11 h to test (Cosentino et al. 2020, arXiv 2005.11262, table of the data sets).
# N-DNS: 60,000 clips of 30 s in each of three sets (Intel N-DNS challenge).
HOURS = {"librimix": 212 + 58 + 11 + 11, "ndns": 60_000 * CLIP / RATE / HOUR}


@dataclass
class Step:
    """Hours of audio, processor seconds and bytes written of a step on each tree."""

    hours: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    written: list[int] = field(default_factory=list)

    def per_hour(self, values: list) -> float:
        return (values[-1] - values[0]) / (self.hours[-1] - self.hours[0])

    def start_up(self) -> float:
        return self.seconds[0] - self.per_hour(self.seconds) * self.hours[0]


def recordings() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Speech and noise of data/mini, again and again, at another level each time, so that no two are equal."""
    pairs = TREES["load"]("train")
    rng = np.random.default_rng(0)
    while True:
        for _, noisy, clean in pairs:
            gain = rng.uniform(0.3, 0.9)
            yield gain * clean, gain * (noisy - clean)


def joined(source: Iterator, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Speech and noise of this length."""
    length, parts = round(seconds * RATE), []
    while sum(len(speech) for speech, _ in parts) < length:
        parts.append(next(source))
    speech, noise = (np.concatenate(signals)[:length] for signals in zip(*parts))
    return speech, noise


def librimix(place: Path, count: int) -> list:
    """`count` mixtures of utterances of 3 s to 20 s, which is about the range of LibriSpeech. Returns the arguments of se-prep."""
    rng, source, rows = np.random.default_rng(1), recordings(), []
    for i in range(count):
        names = []
        for k in (0, 1):
            speaker = 100 + 2 * (i // 10) + k
            utt = f"{speaker}-7-{i:04}"
            speech, noise = joined(source, rng.uniform(3, 20))
            path = f"train-clean-100/{speaker}/7/{utt}.flac"
            audio.write(place / "LibriSpeech" / path, speech, RATE)
            names.append((utt, path))
        audio.write(place / f"wham_noise/tr/{i:05}.wav", np.stack([noise, noise]), RATE)
        (one, path), (two, other) = names
        rows.append([f"{one}_{two}", path, 0.9, other, 1.1, f"tr/{i:05}.wav", 0.8])
    table = place / "metadata/Libri2Mix/libri2mix_train-clean-100.csv"
    table.parent.mkdir(parents=True)
    with open(table, "w", newline="") as f:
        sources = ("source_1", "source_2", "noise")
        csv.writer(f).writerow(["mixture_ID", *(f"{source}_{what}" for source in sources for what in ("path", "gain"))])
        csv.writer(f).writerows(rows)
    corpora = ("--librispeech", place / "LibriSpeech", "--wham", place / "wham_noise")
    return ["prep", "librimix", table.parent, place / "made/data", *corpora]


def ndns(place: Path, count: int) -> list:
    """Sources of `count` clips to train, and of one to validate and to test. Returns the arguments of se-prep."""
    source = recordings()
    for i in range(count + 2):
        speech, noise = joined(source, CLIP / RATE)
        audio.write(place / f"clean/book_{i:05}_chp_0001_reader_{i:05}_{i}.wav", speech, RATE)
        audio.write(place / f"noise/{i:05}.wav", noise, RATE)
    sources = ("--clean", place / "clean", "--noise", place / "noise", "--clips", f"{count},1,1")
    return ["prep", "ndns", place / "made/tree", place / "made/data", *sources]


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def wait_for_orphans() -> None:
    """Wait for processes whose parent has ended before them, as that of PESQ, so that their time counts."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def measured(arguments: list, out: Path, stdout: Path | None = None) -> tuple[float, int]:
    """Processor seconds of a command of setk, and the bytes that it wrote to the folder or file `out`."""
    command = [sys.executable, "-P", "-m", "setk", *map(str, arguments)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(stdout or os.devnull, "w") as f:
        done = subprocess.run(command, stdout=f, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr[-500:]}")
    wait_for_orphans()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return busy, bytes_in(out) if out.is_dir() else out.stat().st_size


def bench(corpus: str, place: Path, count: int, steps: dict[str, Step]) -> None:
    """Adds the steps on a tree of `count` mixtures."""
    prepare = (librimix if corpus == "librimix" else ndns)(place, count)
    made, few = place / "made", place / "few"
    train = made / "data/train"
    few.mkdir()

    def step(name: str, data: Path, arguments: list, out: Path, stdout: Path | None = None) -> None:
        seconds, written = measured(arguments, out, stdout)
        result = steps.setdefault(name, Step())
        result.hours.append(sum(map(float, read_list(data / "utt2dur").values())) / HOUR)
        result.seconds.append(seconds)
        result.written.append(written)

    step(f"se-prep {corpus}", train, prepare, made)
    step("se-prep shards", train, ["prep", "shards", train, place / "shards"], place / "shards")
    for name in ("noisy.scp", "clean.scp", "utt2dur"):
        entries = list(read_list(train / name).items())
        write_list(few / name, dict(entries[: count // QUARTER]))
    enhance = ["enhance", "fspen", "--list", few / "noisy.scp", "--out", place / "enhanced"]
    step("se-enhance fspen", few, enhance, place / "enhanced", few / "enhanced.scp")
    score = ["score", "--ref", few / "clean.scp", few / "enhanced.scp"]
    step("se-score", few, score, few / "scores.tsv", few / "scores.tsv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="8,80", help="mixtures of the small and of the large tree")
    parser.add_argument("--folder", help="where the trees are generated; default: the temporary folder")
    args = parser.parse_args()
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1):
        sys.exit("this needs Linux, whose prctl makes orphans children of this process")
    sizes = [int(size) for size in args.sizes.split(",")]
    print(
        "| corpus | step | core-seconds per hour | start-up, s | MB per hour | hours | core-hours | disk, GB | jobs of 1 h |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for corpus, hours in HOURS.items():
        steps: dict[str, Step] = {}
        for size in sizes:
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                bench(corpus, Path(folder), size, steps)
        for name, step in steps.items():
            seconds, written = step.per_hour(step.seconds), step.per_hour(step.written)
            total = seconds * hours / HOUR
            print(
                f"| {corpus} | {name} | {seconds:.1f} | {step.start_up():.1f} | {written / 1e6:.2f} | {hours:.0f} | {total:.1f} "
                f"| {written * hours / 1e9:.2f} | {math.ceil(total)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
