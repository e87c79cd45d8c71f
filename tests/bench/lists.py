"""Lists of 10^4, 10^5 and 10^6 utterances: peak memory, start-up and time per entry of commands that find nearly all of it done.

    python tests/bench/lists.py [--sizes 10000,100000] [--folder DIR] [--jobs 1] [--only WORD]

The tree is generated: hard links to a few short files. se-prep resample, se-prep mix, se-prep shards and se-enhance then find all but one
utterance in a thousand (of shards: but one shard) done by an earlier run. The others have nothing to skip: se-prep pairs reads all
headers, se-prep check all samples, and se-score scores all by SI-SDR. Start-up is the time to the first line of output, where a command
prints before its end. Time per entry is processor time, since other work may share the machine. Memory is the largest resident set of
the command, in MB; workers are not in it.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from setk import audio
from setk.data.datadir import DataDir
from setk.data.shards import writer
from setk.data.shards.format import fixed
from setk.scoring import pairing, summary

RATE, SAMPLES, LINKS = 16000, 400, 20_000  # file systems limit the links of a file
SHARD = 1000
# A small process that starts the command: the kernel counts the memory of the process that starts another one as that one's too.
WAIT = """import os, sys
pid = os.fork()
if not pid:
    os.execv(sys.argv[2], sys.argv[2:])
_, status, used = os.wait4(pid, 0)
open(sys.argv[1], "w").write(f"{status} {used.ru_maxrss} {used.ru_utime + used.ru_stime}")
"""


def make_files(folder: Path, count: int, rate: int, name: str = "{}.wav") -> None:
    """`count` wavs called u0000000, ... in `folder`; a new file for every LINKS of them."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, (1, SAMPLES * rate // RATE)).astype(np.float32)
    for i in range(count):
        path = folder / name.format(f"u{i:07d}")
        if i % LINKS == 0:
            audio.write(path, noise, rate)
            first = path
        else:
            os.link(first, path)


def make_list(path: Path, folder: Path, count: int) -> None:
    with open(path, "w") as f:
        f.writelines(f"u{i:07d} {folder}/u{i:07d}.wav\n" for i in range(count))


def measured(arguments: list, jobs: int | None) -> tuple[float, float, float, float]:
    """Peak memory in MB, seconds to the first line, seconds in all, and processor seconds of a command of setk."""
    command = [sys.executable, "-P", "-m", "setk", *map(str, arguments), *(["--jobs", str(jobs)] if jobs else [])]
    begin = time.monotonic()
    with tempfile.NamedTemporaryFile("r") as figures:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", WAIT, figures.name, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout
        line = process.stdout.readline()
        first = time.monotonic() - begin
        while part := process.stdout.read(1 << 16):
            line = part
        process.wait()
        seconds = time.monotonic() - begin
        status, memory, busy = map(float, figures.read().split())
    if status:
        sys.exit(f"{' '.join(command)}: {line.decode()[-500:]}")
    return memory / 1024, first, seconds, busy


def report(name: str, count: int, arguments: list, jobs: int | None, at_end: bool = False) -> None:
    """Measure a command and print its row; `at_end`: it prints nothing before its end."""
    memory, first, seconds, busy = measured(arguments, jobs)
    start = "" if at_end else f"{first:.1f}"
    row = f"| {name} | {count} | {memory:.0f} | {start} | {seconds:.0f} | {busy:.0f} | {1e6 * busy / count:.0f} |"
    print(row, flush=True)


def bench(folder: Path, count: int, jobs: int, only: str) -> None:
    data, noisy, clean = folder / "data", folder / "data" / "noisy.scp", folder / "data" / "clean.scp"
    make_files(folder / "noisy", count, RATE)
    data.mkdir()
    for path in (noisy, clean):
        make_list(path, folder / "noisy", count)
    if only in "se-prep resample":
        make_files(folder / "high", count, 2 * RATE)
        make_list(folder / "high.scp", folder / "high", count)
        resumed(
            "se-prep resample", count, ["prep", "resample", folder / "high.scp", folder / "resampled"], folder, jobs
        )
        shutil.rmtree(folder / "high")
    if only in "se-enhance":
        resumed("se-enhance", count, ["enhance", "fspen", "--list", noisy, "--out", folder / "enhanced"], folder, jobs)
    if only in "se-prep pairs":
        report("se-prep pairs", count, ["prep", "pairs", noisy, clean, folder / "pairs"], None, at_end=True)
    if only in "se-prep check":
        report("se-prep check", count, ["prep", "check", data], jobs)
    if only in "se-prep split":
        (data / "utt2dur").write_text("".join(f"u{i:07d} {SAMPLES / RATE}\n" for i in range(count)))
        report("se-prep split", count, ["prep", "split", data, 8], None, at_end=True)
        (data / "utt2dur").unlink()
    if only in "se-prep mix":
        mix(folder, noisy, count, jobs)
    if only in "se-prep shards":
        make_shards(folder, data)
        (folder / "shards" / "pairs.1.h5").unlink()
        report("se-prep shards", count, ["prep", "shards", data, folder / "shards", "--shard-size", SHARD], jobs)
        shutil.rmtree(folder / "shards")
    score = ["score", "--ref", clean, noisy, "--metrics", "si_sdr"]
    if only in "se-score --part 1/1000":
        report("se-score --part 1/1000", count, [*score, "--part", "1/1000"], jobs)
    if only in "se-score, all":
        report("se-score", count, score, jobs)
    if only in "se-score --compare":
        for name in ("a", "b"):
            make_scores(folder / f"{name}.tsv", count)
        report(
            "se-score --compare", count, ["score", "--compare", folder / "a.tsv", folder / "b.tsv"], None, at_end=True
        )
    if only in "intervals":
        intervals(count)


def resumed(name: str, count: int, arguments: list, folder: Path, jobs: int) -> None:
    """Measure a command whose last argument is the folder of its output, where an earlier run has made nearly all."""
    out = Path(arguments[-1])
    # A run on one entry records the settings in the folder; links then are what it would write for all.
    one, scp = folder / "one.scp", next(arg for arg in arguments if str(arg).endswith(".scp"))
    with open(scp) as f:
        one.write_text(f.readline())
    measured([one if arg is scp else arg for arg in arguments], 1)
    shutil.move(out / "provenance.json", folder / "provenance.json")
    shutil.rmtree(out)
    make_files(out, count, RATE)
    shutil.move(folder / "provenance.json", out / "provenance.json")
    for i in range(0, count, SHARD):
        (out / f"u{i:07d}.wav").unlink()
    report(name, count, arguments, jobs)
    shutil.rmtree(out)


def mix(folder: Path, speech: Path, count: int, jobs: int) -> None:
    """Measure se-prep mix on a folder where an earlier run has made nearly all mixtures: links, and their rows."""
    out, noise = folder / "mixed", folder / "noise.scp"
    with open(speech) as f:
        noise.write_text(f.readline())
    arguments = ["prep", "mix", "--speech", speech, "--noise", noise, "--snr", "0:20", out]
    # A part with one mixture records the settings in the folder.
    measured([*arguments, "--part", f"{count}/{count}"], 1)
    (rows,) = (out / ".rows").iterdir()
    fields = rows.read_text().rstrip("\n").split("\t")
    rows.unlink()
    for stream in ("noisy", "clean"):
        shutil.rmtree(out / stream)
        make_files(out / stream, count, RATE)
    with open(out / ".rows" / "1of1.tsv", "w") as f:
        for i in range(count):
            fields[0] = f"u{i:07d}"
            f.write("\t".join(fields) + "\n")
            if i % SHARD == 0:
                (out / "noisy" / f"{fields[0]}.wav").unlink()
    report("se-prep mix", count, arguments, jobs, at_end=True)
    shutil.rmtree(out)


def make_scores(path: Path, count: int) -> None:
    """A score table of four metrics with random values."""
    rng = np.random.default_rng(ord(path.stem))
    with open(path, "w") as f:
        f.write("utt\tpesq_wb\tstoi\testoi\tsi_sdr\terror\n")
        for i in range(count):
            f.write("\t".join([f"u{i:07d}", *map(repr, rng.normal(size=4).tolist())]) + "\t\n")


def make_shards(folder: Path, data: Path) -> None:
    """The shards of an earlier run: copies of the first one, each with the digest of inputs that the run would have recorded."""
    first = folder / "first.scp"
    own = folder / "first"
    own.mkdir()
    for name in ("noisy", "clean"):
        lines = (data / f"{name}.scp").read_text().splitlines(True)[:SHARD]
        (own / f"{name}.scp").write_text("".join(lines))
    measured(["prep", "shards", own, first, "--shard-size", SHARD], 1)
    made = next(first.glob("pairs.*.h5"))
    (folder / "shards").mkdir()
    for job in writer.plan_shards(DataDir(data), folder / "shards", SHARD):
        shutil.copy(made, job.path)
        with h5py.File(job.path, "r+") as f:
            f.attrs["inputs"] = fixed([job.inputs])[0]


def intervals(count: int) -> None:
    """Means and intervals of `count` scores in four metrics: memory beyond that of the interpreter, and time."""
    names = ("pesq_wb", "stoi", "estoi", "si_sdr")
    values = np.random.default_rng(0).normal(size=(count, len(names))).tolist()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.monotonic()
    scores = summary.Scores(names, {})
    for i, row in enumerate(values):
        scores.add(pairing.Row(pairing.Pair(f"u{i}", None, None), dict(zip(names, row)), ""))
    scores.figures()
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"| intervals of 4 metrics | {count} | +{memory:.0f} | | {time.monotonic() - begin:.1f} | | |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--folder", help="where the trees are generated; default: the temporary folder")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="measure the commands whose names contain this")
    args = parser.parse_args()
    print(
        "| command | entries | memory, MB | start-up, s | time, s | processor, s | per entry, µs |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    for count in map(int, args.sizes.split(",")):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            bench(Path(folder), count, args.jobs, args.only)


if __name__ == "__main__":
    main()
