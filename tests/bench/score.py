"""se-score's metrics against a plain loop over pesq, pystoi and a composite of frames: ratios of CPU-time medians, one thread.

    python tests/bench/score.py [repeats]

Both score the same utterances of data/mini (or of SETK_CORPUS) in turn, so that a busy machine troubles both
alike; trust the ratios, not the seconds. The time of setk includes that of its process of PESQ. Then the same by the pool that `--jobs` is, with one process and with
two, by wall time: that needs two idle cores.
"""

import math
import os
import statistics
import sys
import time
from functools import lru_cache
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pesq
import pystoi

from setk import audio, metrics
from setk.core import pool
from setk.data import lists
from setk.metrics import pesq_process
from setk.metrics.segmental import _CENTRES, _WIDTHS

ROOT = Path(__file__).parents[2]
EPS = np.finfo(float).eps


def frames(ref, est, rate):
    length = round(0.03 * rate)
    window = np.hanning(length + 2)[1:-1]
    for i in range((len(ref) - length) // (length // 4)):
        part = slice(i * (length // 4), i * (length // 4) + length)
        yield ref[part] * window, est[part] * window


def lpc(x, order=16):
    """Autocorrelation and prediction filter of a frame, by Levinson's recursion."""
    r = np.array([np.dot(x[: len(x) - k], x[k:]) for k in range(order + 1)])
    a, error = np.array([1.0]), r[0]
    for k in range(1, order + 1):
        reflection = -np.dot(a, r[k:0:-1]) / error
        a = np.append(a, 0)
        a = a + reflection * a[::-1]
        error *= 1 - reflection**2
    return r, a


LAGS = abs(np.subtract.outer(np.arange(17), np.arange(17)))


def llr(ref, est):
    r, own = lpc(ref)
    other = lpc(est)[1]
    matrix = r[LAGS]
    return math.log((other @ matrix @ other) / (own @ matrix @ own))


@lru_cache
def bands(rate, nfft):
    bins = np.arange(nfft // 2)
    gains = [
        np.exp(-11 * ((bins - math.floor(f / rate * nfft)) / (w / rate * nfft)) ** 2) * 70 / w
        for f, w in zip(_CENTRES, _WIDTHS)
    ]
    return [gain * (gain > math.exp(-30 / 4.606)) for gain in gains]


def slopes(x, rate):
    """Slopes between bands and Klatt's weights, one frame."""
    nfft = 2 ** math.ceil(math.log2(2 * len(x)))
    power = np.abs(np.fft.fft(x, nfft)[: nfft // 2]) ** 2
    level = 10 * np.log10(np.maximum([np.sum(power * gain) for gain in bands(rate, nfft)], 1e-10))
    slope = np.diff(level)
    peak = np.empty(24)
    for i in range(24):
        n = i
        if slope[i] > 0:
            while n < 24 and slope[n] > 0:
                n += 1
            peak[i] = level[n - 1]
        else:
            while n >= 0 and slope[n] <= 0:
                n -= 1
            peak[i] = level[n + 1]
    return slope, 20 / (20 + level.max() - level[:-1]) / (1 + peak - level[:-1])


def wss(ref, est, rate):
    (a, wa), (b, wb) = slopes(ref, rate), slopes(est, rate)
    return np.sum((wa + wb) * (a - b) ** 2) / np.sum(wa + wb)


def snr(ref, est):
    return min(35, max(-10, 10 * math.log10(np.sum(ref**2) / (np.sum((ref - est) ** 2) + EPS) + EPS)))


def best(values):
    return np.mean(sorted(values)[: math.floor(0.95 * len(values) + 0.5)])


def composite(ref, est, rate, mos):
    llrs = best([llr(x, y) for x, y in frames(ref, est, rate) if x.any() and y.any()])
    wsss = best([wss(x, y, rate) for x, y in frames(ref, est, rate)])
    ssnr = np.mean([snr(x, y) for x, y in frames(ref, est, rate)])
    ratings = (
        3.093 - 1.029 * llrs + 0.603 * mos - 0.009 * wsss,
        1.634 + 0.478 * mos - 0.007 * wsss + 0.063 * ssnr,
        1.594 + 0.805 * mos - 0.512 * llrs - 0.007 * wsss,
    )
    return dict(zip(("csig", "cbak", "covl"), np.clip(ratings, 1, 5)))


def si_sdr(ref, est):
    ref, est = ref - ref.mean(), est - est.mean()
    target = (est @ ref) / (ref @ ref) * ref
    return 10 * math.log10((target @ target) / np.sum((est - target) ** 2))


def plain(ref, est, rate, names) -> dict[str, float]:
    """What a script does that calls the packages one after the other, PESQ once."""
    scores = {}
    if "pesq_wb" in names:
        scores["pesq_wb"] = pesq.pesq(rate, ref, est, "wb")
    if "stoi" in names:
        scores["stoi"] = pystoi.stoi(ref, est, rate)
    if "estoi" in names:
        scores["estoi"] = pystoi.stoi(ref, est, rate, extended=True)
    if "si_sdr" in names:
        scores["si_sdr"] = si_sdr(ref, est)
    if "csig" in names:
        scores |= composite(ref, est, rate, scores["pesq_wb"])
    return scores


COMPOSITE = ("csig", "cbak", "covl")
FULL = ("pesq_wb", "stoi", "estoi", "si_sdr", *COMPOSITE)
SETS = (
    ("stoi",),
    ("estoi",),
    ("stoi", "estoi"),
    ("pesq_wb",),
    ("pesq_wb", "stoi", "estoi"),
    ("pesq_wb", *COMPOSITE),
    FULL,
)


def pairs() -> list[tuple]:
    """(clean, noisy, rate) of the test set."""
    corpus = os.environ.get("SETK_CORPUS")
    root, where = (Path(corpus), "lists/test_{}.scp") if corpus else (ROOT, "data/mini/test/{}.scp")
    clean, noisy = (lists.read_list(root / where.format(name)) for name in ("clean", "noisy"))
    return [
        tuple(audio.read_mono(str(root / x[utt]))[0].astype(float) for x in (clean, noisy))
        + (audio.read_mono(str(root / clean[utt]))[1],)
        for utt in list(clean)[:16]
    ]


def processor_time() -> float:
    """Seconds of this process and of its process of PESQ."""
    pesq_of = pesq_process._own.process
    # The kernel's identifier of the clock of another process, as clock_getcpuclockid(3) makes it.
    return time.process_time() + (time.clock_gettime(~pesq_of._child.pid << 3 | 2) if pesq_of else 0)


def seconds(function, clock=processor_time) -> float:
    start = clock()
    function()
    return clock() - start


def full(pair) -> tuple:
    return metrics.compute(*pair, FULL)


def serial(work, repeats) -> None:
    print(f"{'metrics':42} {'plain utt/s':>12} {'setk utt/s':>12} {'plain / setk time':>18}")
    for names in SETS:
        theirs, ours, ratios = [], [], []
        for _ in range(repeats):
            for pair in work:
                theirs.append(seconds(lambda: plain(*pair, names)))
                ours.append(seconds(lambda: metrics.compute(*pair, names)))
                ratios.append(theirs[-1] / ours[-1])
        medians = [statistics.median(x) for x in (theirs, ours, ratios)]
        print(f"{' '.join(names):42} {1 / medians[0]:12.1f} {1 / medians[1]:12.1f} {medians[2]:18.2f}")


def own_process(work, repeats) -> None:
    """What it costs that PESQ runs in a process of its own: the same call here and there."""
    ratios = []
    for ref, est, rate in work * repeats:
        here = seconds(lambda: pesq.pesq(rate, ref, est, "wb"))
        ratios.append(here / seconds(lambda: pesq_process.score(rate, ref, est, "wb")))
    print(f"PESQ here / PESQ in a process of its own: {statistics.median(ratios):.3f}")


def rate_of(work, jobs) -> float:
    """Utterances per second between the first result and the last, the start of processes left out."""
    results = pool.ordered_map(full, work, jobs)
    next(results)
    return (len(work) - 1) / seconds(lambda: list(results), time.perf_counter)


def parallel(work, repeats) -> None:
    rates = [(rate_of(work * 16, 1), rate_of(work * 16, 2)) for _ in range(repeats)]
    gain = statistics.median(two / one for one, two in rates)
    print(
        f"full set by wall time: --jobs 2 scores {gain:.2f} times as many utterances per second as --jobs 1 "
        f"(load of the machine {os.getloadavg()[0]:.1f})"
    )


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    work = pairs()
    length = statistics.fmean(len(ref) / rate for ref, _, rate in work)
    apart = max(
        abs(metrics.compute(*pair, FULL)[0][name] - value)
        for pair in work[:4]
        for name, value in plain(*pair, FULL).items()
    )
    print(
        f"{len(work)} utterances of {length:.2f} s, {repeats} repeats; scores are within {apart:.1e} of the plain loop's"
    )
    serial(work, repeats)
    own_process(work, repeats)
    parallel(work, repeats)


if __name__ == "__main__":
    main()
