"""se-score's metrics against a plain loop over pystoi and pesq: ratios of CPU-time medians, one thread.

    python tests/bench/score.py [repeats]

Both score the same utterances of data/mini (or of SETK_CORPUS) in turn, so that a busy machine troubles both
alike; trust the ratios, not the seconds.
"""

import os
import statistics
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import pesq
import pystoi

from setk import audio, lists, metrics

ROOT = Path(__file__).parents[2]
PLAIN = {
    "pesq_wb": lambda ref, est, rate: pesq.pesq(rate, ref, est, "wb"),
    "stoi": lambda ref, est, rate: pystoi.stoi(ref, est, rate),
    "estoi": lambda ref, est, rate: pystoi.stoi(ref, est, rate, extended=True),
}
SETS = (("stoi",), ("estoi",), ("stoi", "estoi"), ("pesq_wb",), ("pesq_wb", "stoi", "estoi"))


def pairs() -> list[tuple]:
    """(clean, noisy, rate) of the test set."""
    corpus = os.environ.get("SETK_CORPUS")
    root, where = (Path(corpus), "lists/test_{}.scp") if corpus else (ROOT, "data/mini/test/{}.scp")
    clean, noisy = (lists.read_list(root / where.format(name)) for name in ("clean", "noisy"))
    return [(audio.read_mono(str(root / clean[utt]))[0].astype(float), *audio.read_mono(str(root / noisy[utt])))
            for utt in list(clean)[:16]]


def seconds(function) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    work = [(ref, est.astype(float), rate) for ref, est, rate in pairs()]
    length = statistics.fmean(len(ref) / rate for ref, _, rate in work)
    print(f"{len(work)} utterances of {length:.2f} s, {repeats} repeats")
    print(f"{'metrics':24} {'plain utt/s':>12} {'setk utt/s':>12} {'setk / plain time':>18}")
    for names in SETS:
        plain, ours, ratios = [], [], []
        for _ in range(repeats):
            for pair in work:
                plain.append(seconds(lambda: [PLAIN[name](*pair) for name in names]))
                ours.append(seconds(lambda: metrics.compute(*pair, names)))
                ratios.append(ours[-1] / plain[-1])
        medians = [statistics.median(x) for x in (plain, ours, ratios)]
        print(f"{' '.join(names):24} {1 / medians[0]:12.1f} {1 / medians[1]:12.1f} {medians[2]:18.3f}")


if __name__ == "__main__":
    main()
