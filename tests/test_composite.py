"""Segmental measures and composite ratings against a slow implementation, written frame by frame from the equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_metrics import at, pairs  # noqa: F401  (a fixture)

from setk import metrics
from setk.metrics import composite, segmental

CENTRES, WIDTHS = segmental._CENTRES, segmental._WIDTHS
EPS = 2.0**-52


def frames_of(ref, est, rate):
    """Windowed frames of both, as composite.m takes them: (n - w) / s of them, the fraction dropped."""
    w = round(0.030 * rate)
    s = w // 4
    window = [0.5 * (1 - math.cos(2 * math.pi * k / (w + 1))) for k in range(1, w + 1)]
    for i in range(int(len(ref) / s - w / s + 1e-9)):
        yield ref[i * s : i * s + w] * window, est[i * s : i * s + w] * window


def slow_ssnr(ref, est, rate):
    values = []
    for x, y in frames_of(ref, est, rate):
        snr = 10 * math.log10(sum(x**2) / (sum((x - y) ** 2) + EPS) + EPS)
        values.append(min(35, max(-10, snr)))
    return sum(values) / len(values)


def best(values):
    values = sorted(values)
    return np.mean(values[: math.floor(0.95 * len(values) + 0.5)])


def lpc(x, order):
    """Autocorrelation matrix and prediction filter, by solving the normal equations."""
    r = [np.dot(x[: len(x) - k], x[k:]) for k in range(order + 1)]
    matrix = np.array([[r[abs(i - j)] for j in range(order + 1)] for i in range(order + 1)])
    return matrix, np.append(1, -np.linalg.solve(matrix[:-1, :-1], r[1:]))


def slow_llr(ref, est, rate):
    order = 16 if rate >= 10000 else 10
    values = []
    for x, y in frames_of(ref, est, rate):
        if not (x.any() and y.any()):
            continue
        matrix, own = lpc(x, order)
        other = lpc(y, order)[1]
        values.append(math.log((other @ matrix @ other) / (own @ matrix @ own)))
    return best(values)


def band_levels(x, rate):
    nfft = 2 ** math.ceil(math.log2(2 * len(x)))
    power = abs(np.fft.fft(x, nfft)) ** 2
    levels = []
    for centre, width in zip(CENTRES, WIDTHS, strict=True):
        f0, bw = math.floor(centre / (rate / 2) * (nfft / 2)), width / (rate / 2) * (nfft / 2)
        energy = 0
        for j in range(nfft // 2):
            gain = math.exp(-11 * ((j - f0) / bw) ** 2 + math.log(70) - math.log(width))
            if gain > math.exp(-30 / (2 * 2.303)):
                energy += gain * power[j]
        levels.append(10 * math.log10(max(energy, 1e-10)))
    return levels


def weights(level, slope):
    values = []
    for i in range(24):
        n = i
        if slope[i] > 0:
            while n < 24 and slope[n] > 0:
                n += 1
            peak = level[n - 1]
        else:
            while n >= 0 and slope[n] <= 0:
                n -= 1
            peak = level[n + 1]
        values.append(20 / (20 + max(level) - level[i]) * 1 / (1 + peak - level[i]))
    return values


def slow_wss(ref, est, rate):
    values = []
    for x, y in frames_of(ref, est, rate):
        a, b = band_levels(x, rate), band_levels(y, rate)
        da, db = np.diff(a), np.diff(b)
        w = [(u + v) / 2 for u, v in zip(weights(a, da), weights(b, db), strict=True)]
        values.append(sum(k * (u - v) ** 2 for k, u, v in zip(w, da, db, strict=True)) / sum(w))
    return best(values)


def clipped(x):
    return min(5, max(1, x))


def slow_composite(pesq, llr, wss, snr):
    return {
        "csig": clipped(3.093 - 1.029 * llr + 0.603 * pesq - 0.009 * wss),
        "cbak": clipped(1.634 + 0.478 * pesq - 0.007 * wss + 0.063 * snr),
        "covl": clipped(1.594 + 0.805 * pesq - 0.512 * llr - 0.007 * wss),
    }


NAMES = ["ssnr", "llr", "wss", "csig", "cbak", "covl"]


@pytest.mark.full
@pytest.mark.parametrize("which", [0, 1, 4, 7])
def test_equal_to_the_slow_implementation(pairs, which):
    from pesq import pesq

    ref, est, rate = pairs[which]
    ref, est = ref[-20000:], est[-20000:]
    scores, reasons = metrics.compute(ref, est, rate, NAMES)
    snr, llr, wss = slow_ssnr(ref, est, rate), slow_llr(ref, est, rate), slow_wss(ref, est, rate)
    ratings = slow_composite(pesq(rate, ref, est, "wb"), llr, wss, snr)
    assert not reasons
    assert scores == pytest.approx({"ssnr": snr, "llr": llr, "wss": wss} | ratings, abs=1e-9)


@pytest.mark.full
def test_equal_to_the_slow_implementation_at_8_khz_with_raw_pesq(pairs):
    from pesq import pesq

    ref, est, rate = at(pairs[1], 8000)
    scores, _ = metrics.compute(ref, est, rate, NAMES)
    snr, llr, wss = slow_ssnr(ref, est, rate), slow_llr(ref, est, rate), slow_wss(ref, est, rate)
    mos = pesq(rate, ref, est, "nb")
    raw = composite.raw_pesq(mos)
    assert 0.999 + 4 / (1 + math.exp(-1.4945 * raw + 4.6607)) == pytest.approx(mos, abs=1e-12)
    assert scores == pytest.approx({"ssnr": snr, "llr": llr, "wss": wss} | slow_composite(raw, llr, wss, snr), abs=1e-9)


@pytest.mark.full
@pytest.mark.parametrize("rate", [11025, 44100])
def test_segmental_measures_at_other_rates(pairs, rng, rate):
    ref, est, rate = at(pairs[2], rate)
    # Above 8 kHz there must be something: LPC of an empty band is made of rounding, here as there.
    hiss = 1e-3 * rng.standard_normal(rate // 2)
    ref, est = ref[-len(hiss) :] + hiss, est[-len(hiss) :] + hiss
    scores, reasons = metrics.compute(ref, est, rate, NAMES)
    assert set(reasons) == {"csig", "cbak", "covl"} and "16000 Hz" in reasons["csig"]
    expected = [slow_ssnr(ref, est, rate), slow_llr(ref, est, rate), slow_wss(ref, est, rate)]
    assert [scores["ssnr"], scores["llr"], scores["wss"]] == pytest.approx(expected, abs=1e-8)


def test_levinson_solves_the_normal_equations(rng):
    x = rng.standard_normal((5, 400))
    r = np.array([[np.dot(row[: 400 - k], row[k:]) for row in x] for k in range(17)])
    filters, error = segmental.levinson(r)
    for i, row in enumerate(x):
        matrix, expected = lpc(row, 16)
        assert filters[:, i] == pytest.approx(expected, abs=1e-12)
        assert error[i] == pytest.approx(expected @ matrix @ expected, rel=1e-12)


def test_the_best_95_percent_are_rounded_as_in_matlab():
    """28.5 of 30 frames are 29; Python's round() says 28."""
    assert segmental._mean("llr", np.arange(30.0)) == 14.0
    assert segmental._mean("ssnr", np.arange(30.0)) == 14.5


def test_a_perfect_copy_is_at_the_ends_of_the_scales(pairs):
    ref, _, rate = pairs[0]
    scores, _ = metrics.compute(ref, ref, rate, NAMES)
    assert scores["llr"] == pytest.approx(0, abs=1e-12) and scores["wss"] == 0
    assert scores["ssnr"] > 30 and scores["csig"] == scores["covl"] == 5


def test_frames_of_digital_silence_have_no_llr(pairs, recwarn):
    ref, est, rate = pairs[0]
    ref, est = ref[:rate].copy(), est[:rate].copy()
    whole = metrics.compute(ref, est, rate, NAMES)[0]
    padded = [np.concatenate([x, np.zeros(rate)]) for x in (ref, est)]
    scores, reasons = metrics.compute(*padded, rate, NAMES)
    assert not reasons and all(map(math.isfinite, scores.values()))
    values = segmental.frame_values(np.stack(padded), rate, ["llr"])["llr"]
    assert np.isnan(values).sum() > 100
    assert scores["llr"] == pytest.approx(whole["llr"], rel=0.1)
    est[rate // 2 :] = 0
    ref[: rate // 2 - 480] = 0
    scores, reasons = metrics.compute(ref, est, rate, ["llr", "wss", "ssnr"])
    assert all(map(math.isfinite, scores.values()))
    ref[: rate // 2 + 480] = 0
    scores, reasons = metrics.compute(ref, est, rate, ["llr", "wss", "ssnr", "csig"])
    assert math.isnan(scores["llr"]) and "every frame" in reasons["llr"] and "every frame" in reasons["csig"]
    assert math.isfinite(scores["wss"]) and scores["ssnr"] < 0
    assert not recwarn.list


def test_tones_and_steps_do_not_break_lpc(recwarn):
    """Frames that LPC predicts to rounding: errors fall to nothing, or below."""
    t = np.arange(8000) / 16000
    tone, other = np.sin(2 * np.pi * 440 * t), np.sin(2 * np.pi * 450 * t)
    step = np.where(t < 0.25, 0.1, 0.2)
    for ref, est in ((tone, other), (tone, tone), (step, tone), (tone, step), (step, 2 * step)):
        scores, reasons = metrics.compute(ref, est, 16000, ["llr", "wss", "ssnr"])
        assert not reasons and all(map(math.isfinite, scores.values()))
        assert scores["llr"] >= 0 and scores["wss"] >= 0
    assert not recwarn.list


def test_pesq_is_computed_once_for_all_who_ask(pairs, monkeypatch):
    calls = []
    original = metrics.pesq._score
    monkeypatch.setattr(metrics.pesq, "_score", lambda name, *rest: calls.append(name) or original(name, *rest))
    metrics.compute(*pairs[1], ["covl", "pesq_wb", "csig", "cbak"])
    assert calls == ["pesq_wb"]


def test_without_pesq_there_is_no_rating(rng):
    ref = np.where(np.arange(16000) // 400 == 20, rng.standard_normal(16000), 0)
    scores, reasons = metrics.compute(ref, rng.standard_normal(16000), 16000, ["csig", "wss", "pesq_wb"])
    assert math.isnan(scores["csig"]) and reasons["csig"] == reasons["pesq_wb"]
    assert math.isfinite(scores["wss"])


def test_too_short_or_too_low_a_rate(rng):
    x = rng.standard_normal((2, 599))
    assert "0.0375 s are needed" in metrics.compute(*x, 16000, ["wss"])[1]["wss"]
    assert "8000" in metrics.compute(*x, 4000, ["llr"])[1]["llr"]
    assert math.isfinite(metrics.compute(*np.pad(x, [(0, 0), (0, 1)], mode="wrap"), 16000, ["wss"])[0]["wss"])
