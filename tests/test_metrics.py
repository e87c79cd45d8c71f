"""The metrics against their references (pesq, pystoi, formulas), and on what they cannot measure."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import MINI

from setk import audio, metrics
from setk.data import lists
from setk.core.errors import UserError
from setk.scoring import summary
from setk.scoring.groups import Groups
from setk.scoring.pairing import Pair, Row
from setk.metrics import pesq as pesq_family
from setk.metrics import stoi as stoi_family

GAINS = {name: m.gain_of for name, m in metrics.METRICS.items() if m.gain_of}
# DNSMOS is in test_dnsmos.py: it needs a model, and no reference.
ALL = tuple(name for name in metrics.METRICS if name not in metrics.dnsmos.MODELS)
CORPUS = Path(os.environ["SETK_CORPUS"]) if "SETK_CORPUS" in os.environ else None


def speech() -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Eight pairs (clean, noisy, rate) of the corpus in SETK_CORPUS, else of data/mini."""
    if CORPUS:
        root, names = CORPUS, ("lists/test_clean.scp", "lists/test_noisy.scp")
    else:
        root, names = MINI.parents[1], ("data/mini/test/clean.scp", "data/mini/test/noisy.scp")
    clean, noisy = (lists.read_list(root / name) for name in names)
    pairs = []
    for utt in list(clean)[:8]:
        ref, rate = audio.read_mono(str(root / clean[utt]))
        pairs.append((ref.astype(float), audio.read_mono(str(root / noisy[utt]))[0].astype(float), rate))
    return pairs


@pytest.fixture(scope="module")
def pairs():
    return speech()


@pytest.fixture(scope="module")
def pair(pairs):
    return pairs[0]


def at(pair, rate: int):
    ref, est, source = pair
    return (*(audio.resample(x.astype(np.float32), source, rate).astype(float) for x in (ref, est)), rate)


def test_pesq_is_the_package_s(pairs):
    from pesq import pesq

    for ref, est, rate in pairs:
        scores, reasons = metrics.compute(ref, est, rate, ["pesq_wb", "pesq_nb"])
        assert scores == {"pesq_wb": pesq(rate, ref, est, "wb"), "pesq_nb": pesq(rate, ref, est, "nb")}
        assert not reasons


def test_pesq_narrowband_at_8_khz(pair):
    from pesq import pesq

    ref, est, rate = at(pair, 8000)
    scores, reasons = metrics.compute(ref, est, rate, ["pesq_wb", "pesq_nb"])
    assert scores["pesq_nb"] == pesq(8000, ref, est, "nb")
    assert math.isnan(scores["pesq_wb"]) and "16000" in reasons["pesq_wb"]


def test_stoi_is_pystoi_s(pairs):
    from pystoi import stoi

    for ref, est, rate in pairs:
        scores, _ = metrics.compute(ref, est, rate, ["stoi", "estoi"])
        assert scores["stoi"] == pytest.approx(stoi(ref, est, rate), abs=1e-14)
        assert scores["estoi"] == pytest.approx(stoi(ref, est, rate, extended=True), abs=1e-14)


@pytest.mark.parametrize("rate", [8000, 10000, 11025, 22050, 44100, 48000])
@pytest.mark.parametrize("cut", [0, 1, 77])
def test_stoi_is_pystoi_s_at_any_rate_and_length(pair, rate, cut):
    from pystoi import stoi

    ref, est, rate = at(pair, rate)
    ref, est = ref[cut:], est[cut:]
    scores, _ = metrics.compute(ref, est, rate, ["stoi", "estoi"])
    assert scores["stoi"] == pytest.approx(stoi(ref, est, rate), abs=1e-14)
    assert scores["estoi"] == pytest.approx(stoi(ref, est, rate, extended=True), abs=1e-14)


def test_stoi_resampler_is_octave_s(rng):
    from pystoi.utils import resample_oct

    for rate in (8000, 16000, 44100):
        for n in rng.integers(1, 5000, 5):
            x = rng.standard_normal(n)
            assert stoi_family.resample(x[None], rate)[0] == pytest.approx(resample_oct(x, 10000, rate), abs=1e-13)


def test_stoi_with_just_enough_speech_and_one_frame_less(rng):
    """pystoi's limit is 30 frames: it answers with a magic number below, and so must be silent there."""
    from pystoi import stoi

    enough = rng.standard_normal((2, 32 * 128 + 1))
    scores, _ = metrics.compute(*enough, 10000, ["stoi", "estoi"])
    assert scores["stoi"] == pytest.approx(stoi(*enough, 10000), abs=1e-14)
    scores, reasons = metrics.compute(*enough[:, :-1], 10000, ["stoi", "estoi"])
    assert math.isnan(scores["stoi"]) and "30 frames" in reasons["estoi"]
    with pytest.warns(RuntimeWarning):
        assert stoi(*enough[:, :-1], 10000) == 1e-5


def test_stoi_leaves_numpy_s_random_numbers_alone(pair):
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    metrics.compute(*pair, ["stoi", "estoi"])
    assert (np.random.get_state()[1] == before).all()


def test_stoi_of_an_estimate_with_digital_silence(pair):
    """Frames without energy are uncorrelated, not NaN."""
    ref, est, rate = pair
    est = est.copy()
    est[len(est) // 3 :] = 0
    scores, reasons = metrics.compute(ref, est, rate, ["stoi", "estoi"])
    assert not reasons and 0 < scores["estoi"] < scores["stoi"] < 0.7


def test_si_sdr_is_its_definition(pairs):
    for ref, est, rate in pairs:
        s, x = ref - ref.mean(), est - est.mean()
        target = (x @ s) / (s @ s) * s
        expected = 10 * math.log10((target @ target) / ((x - target) @ (x - target)))
        assert metrics.compute(ref, est, rate, ["si_sdr"])[0]["si_sdr"] == pytest.approx(expected, abs=1e-9)


def test_si_sdr_ignores_gain_and_offset_and_any_scale(rng):
    ref = rng.standard_normal(4000)
    est = ref + 0.1 * rng.standard_normal(4000)
    value = metrics.sdr.si_sdr(ref, est)
    assert 19 < value < 21
    assert metrics.sdr.si_sdr(1e-180 * ref, 1e-200 * est) == pytest.approx(value)
    assert metrics.sdr.si_sdr(3 * ref + 1, 0.1 - est) == pytest.approx(value)


def test_si_sdr_stays_finite(rng):
    ref = rng.standard_normal(4000)
    assert metrics.compute(ref, ref, 16000, ["si_sdr"]) == ({"si_sdr": 100.0}, {})
    t = np.arange(4000) / 4000 * 2 * np.pi
    assert metrics.compute(np.sin(t), np.cos(t), 16000, ["si_sdr"])[0]["si_sdr"] == pytest.approx(-100)


def test_sdr_is_mir_eval_s(pairs):
    separation = pytest.importorskip("mir_eval.separation", reason="needs the reference: pip install mir_eval")
    for ref, est, rate in pairs[:4]:
        with pytest.warns(FutureWarning):
            expected = separation.bss_eval_sources(ref[None], est[None], compute_permutation=False)[0][0]
        assert metrics.compute(ref, est, rate, ["sdr"])[0]["sdr"] == pytest.approx(expected, abs=1e-9)


def test_sdr_is_a_least_squares_fit_of_512_delays(rng):
    """Against the definition, with the matrix of delayed references written out."""
    ref = rng.standard_normal(1500)
    est = np.convolve(ref, rng.standard_normal(600))[:1500] + rng.standard_normal(1500)
    delayed = np.stack([np.pad(ref, (k, 511 - k)) for k in range(512)], axis=1)
    padded = np.pad(est, (0, 511))
    target = delayed @ np.linalg.lstsq(delayed, padded)[0]
    expected = 10 * math.log10(np.sum(target**2) / np.sum((padded - target) ** 2))
    assert metrics.bss.sdr(ref, est) == pytest.approx(expected, abs=1e-9)
    assert metrics.bss.sdr(1e-180 * ref, 1e-200 * est) == pytest.approx(expected, abs=1e-9)


def test_sdr_forgives_a_short_filter_and_si_sdr_does_not(pair):
    ref, _, rate = pair
    est = np.convolve(ref, [0, 0, 0.5, 0.3])[: len(ref)]
    scores, _ = metrics.compute(ref, est, rate, ["sdr", "si_sdr"])
    assert scores["sdr"] > 50 and scores["si_sdr"] < 20


def test_sdr_of_signals_with_empty_bands(rng):
    """Autocorrelations that are singular but for rounding still give a number near the truth."""
    t = np.arange(8000) / 16000
    tone = np.sin(2 * np.pi * 500 * t)
    assert metrics.bss.sdr(tone, tone + 0.01 * rng.standard_normal(8000)) == pytest.approx(37, abs=1)
    assert metrics.bss.solve_toeplitz(np.ones(4), np.ones(4)).sum() == pytest.approx(1)


def test_lsd_is_its_definition(pairs):
    ref, est, rate = pairs[1]
    window = [0.5 - 0.5 * math.cos(2 * math.pi * k / 512) for k in range(512)]
    x, y = (
        np.array([abs(np.fft.fft(s[i : i + 512] * window)[:257]) ** 2 for i in range(0, len(s) - 511, 128)])
        for s in (ref, est)
    )
    floor = 1e-5 * x.max()
    values = [
        math.sqrt(np.mean((10 * np.log10(np.maximum(a, floor) / np.maximum(b, floor))) ** 2))
        for a, b in zip(x, y, strict=True)
    ]
    assert metrics.compute(ref, est, rate, ["lsd"])[0]["lsd"] == pytest.approx(np.mean(values), abs=1e-9)
    assert metrics.compute(1e-170 * ref, 1e-170 * est, rate, ["lsd"])[0]["lsd"] == pytest.approx(
        np.mean(values), abs=1e-9
    )


@pytest.mark.parametrize("place", [0, -1])
def test_lsd_of_a_reference_that_no_frame_holds_is_nan_with_a_reason(rng, place, capfd):
    """The first sample is where the window is 0; the last is beyond the last frame."""
    ref, est = np.zeros(4100), rng.standard_normal(4100)
    ref[place] = 1
    scores, reasons = metrics.compute(ref, est, 16000, ["lsd"])
    assert math.isnan(scores["lsd"]) and reasons == {"lsd": "the reference is silent in every frame"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_score_that_is_not_finite_is_nan_with_a_reason(pair, monkeypatch, value):
    ref, est, rate = pair
    monkeypatch.setattr(metrics.sdr, "compute", lambda *_: ({"si_sdr": value}, {}))
    scores, reasons = metrics.compute(ref, est, rate, ["si_sdr", "si_sdri", "lsd"], noisy=est)
    assert math.isnan(scores["si_sdr"]) and math.isnan(scores["si_sdri"]) and math.isfinite(scores["lsd"])
    assert reasons == dict.fromkeys(("si_sdr", "si_sdri"), "has no finite value for these signals")


def test_gains_are_differences(pairs):
    ref, noisy, rate = pairs[0]
    est = 0.5 * (ref + noisy)
    names = ["sdri", "si_sdri", "si_sdr"]
    scores, reasons = metrics.compute(ref, est, rate, names, noisy=noisy)
    assert not reasons and list(scores) == names
    for gain, base in GAINS.items():
        after, before = (metrics.compute(ref, x, rate, [base])[0][base] for x in (est, noisy))
        assert scores[gain] == after - before > 3


def test_gains_without_a_noisy_signal_that_can_be_scored(pair):
    ref, est, rate = pair
    assert metrics.compute(ref, est, rate, ["si_sdri"])[1]["si_sdri"] == "needs --noisy: the unprocessed signals"
    holed = np.where(np.arange(len(ref)) == 5, np.nan, est)
    for noisy, reason in (
        (0 * est, "the noisy signal is silent"),
        (est[1:], f"the noisy signal {len(est) - 1}"),
        (holed, "the noisy signal holds NaN"),
    ):
        scores, reasons = metrics.compute(ref, est, rate, ["si_sdri", "stoi", "sdri"], noisy=noisy)
        assert math.isfinite(scores["stoi"]) and set(reasons) == set(GAINS)
        assert all(math.isnan(scores[name]) and reason in reasons[name] for name in GAINS), reasons


def test_availability(monkeypatch):
    find = metrics.util.find_spec
    monkeypatch.setattr(metrics.util, "find_spec", lambda name: None if name == "pesq" else find(name))
    assert metrics.availability("si_sdr") is None
    for name in ("pesq_wb", "covl"):
        assert "pip install pesq" in metrics.availability(name)
        with pytest.raises(UserError, match=f"{name} needs the package pesq: pip install pesq"):
            metrics.select([name])


def test_a_perfect_copy(pair):
    ref, _, rate = pair
    scores, reasons = metrics.compute(ref, ref, rate, ALL, noisy=ref)
    assert not reasons
    assert scores.pop("ssnr") > 30  # 35 but for silent frames, which are at -10
    assert scores == pytest.approx(
        {
            "pesq_wb": 4.644,
            "pesq_nb": 4.549,
            "stoi": 1,
            "estoi": 1,
            "si_sdr": 100,
            "si_sdri": 0,
            "sdr": 100,
            "sdri": 0,
            "llr": 0,
            "wss": 0,
            "lsd": 0,
            "csig": 5,
            "cbak": 5,
            "covl": 5,
        },
        abs=1e-3,
    )


def broken(kind: str, ref: np.ndarray, est: np.ndarray):
    """(ref, est, rate, part of the reason) of a pair that no metric can score."""
    zero, one = np.zeros_like(ref), np.ones_like(ref)
    holed = est.copy()
    holed[7] = np.nan
    return {
        "silent reference": (zero, est, 16000, "reference is silent"),
        "silent estimate": (ref, zero, 16000, "estimate is silent"),
        "constant reference": (one, est, 16000, "reference is silent"),
        "NaN": (ref, holed, 16000, "NaN"),
        "infinite": (ref, np.where(np.isnan(holed), np.inf, holed), 16000, "infinite"),
        "lengths": (ref, est[:-1], 16000, f"{len(ref)} samples, the estimate {len(ref) - 1}"),
        "no samples": (ref[:0], est[:0], 16000, "no samples"),
        "stereo": (np.stack([ref, ref]), np.stack([est, est]), 16000, "one channel"),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["silent reference", "silent estimate", "constant reference", "NaN", "infinite", "lengths", "no samples", "stereo"],
)
def test_what_cannot_be_scored_is_nan_with_a_reason(pair, kind, capfd):
    ref, est, rate, reason = broken(kind, *pair[:2])
    scores, reasons = metrics.compute(ref, est, rate, ALL, noisy=pair[1][: len(ref)])
    assert list(scores) == list(ALL) and all(map(math.isnan, scores.values()))
    assert list(reasons) == list(ALL) and all(reason in text for text in reasons.values())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("n", [1, 2, 100, 255, 256, 257, 3999, 4000, 4799, 4800, 6000])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 15999])
def test_short_signals_and_odd_rates_never_raise_or_print(rng, n, rate, capfd):
    ref = rng.standard_normal(n)
    est = ref + 0.1 * rng.standard_normal(n)
    scores, reasons = metrics.compute(ref, est, rate, tuple(metrics.METRICS), noisy=est)
    assert {name for name, value in scores.items() if math.isnan(value)} == set(reasons)
    if n < 0.25 * rate and rate in (8000, 16000):
        assert set(reasons) >= {"pesq_wb", "pesq_nb", "stoi", "estoi", "csig", "cbak", "covl"}
    assert capfd.readouterr() == ("", "")


def test_faults_that_pesq_finds_become_reasons(rng, capfd):
    """The package's -7 (no speech in 25 ms) and NaN (an estimate 600 dB down) must not pass for scores."""
    noise = 0.1 * rng.standard_normal(16000)
    blip = np.where(np.arange(16000) // 400 == 20, noise, 0)
    for ref, est, reason in ((blip, noise, "No utterances"), (noise, 1e-30 * noise, "nothing to compare")):
        scores, reasons = metrics.compute(ref, est, 16000, ["pesq_wb"])
        assert math.isnan(scores["pesq_wb"]) and reason in reasons["pesq_wb"]
    assert capfd.readouterr() == ("", "")


def test_more_speech_than_pesq_has_room_for_is_refused(rng):
    """With over 50 stretches of speech the C code overruns its arrays: wrong scores, or a dead process."""

    def bursts(n):
        x = np.zeros((n, 16000))
        x[:, :8000] = 0.1 * rng.standard_normal((n, 8000))
        return x.ravel()

    for n, fits in ((40, True), (60, False), (150, False)):
        ref = bursts(n)
        assert pesq_family._stretches(ref, 16000) == n
        scores, reasons = metrics.compute(ref, ref + 0.01 * rng.standard_normal(len(ref)), 16000, ["pesq_wb", "stoi"])
        assert scores["stoi"] > 0.9
        assert math.isfinite(scores["pesq_wb"]) is fits
        assert fits or "parts of 30 s" in reasons["pesq_wb"]


def test_pesq_of_a_lecture_is_refused_unseen(rng):
    ref = rng.standard_normal(301 * 8000)
    assert "too long" in metrics.compute(ref, -ref, 8000, ["pesq_nb"])[1]["pesq_nb"]


def test_half_a_minute_of_real_speech_is_not_refused(pairs):
    ref, est = (np.concatenate([p[i] for p in pairs] * 2)[: 30 * 16000] for i in (0, 1))
    assert not metrics.compute(ref, est, 16000, ["pesq_wb", "pesq_nb"])[1]


def test_scores_come_in_the_order_asked(pair):
    names = ["si_sdr", "estoi", "pesq_nb"]
    assert list(metrics.compute(*pair, names)[0]) == names


def test_float32_scores_like_float64(pair):
    ref, est, rate = pair
    assert metrics.compute(ref.astype(np.float32), est.astype(np.float32), rate) == metrics.compute(ref, est, rate)


def test_select():
    assert metrics.select(["stoi", "si_sdr", "stoi"]) == ("stoi", "si_sdr")
    with pytest.raises(UserError, match="did you mean 'stoi'"):
        metrics.select(["stio"])
    with pytest.raises(UserError, match="no metrics"):
        metrics.select([])


def test_neither_torch_nor_scipy_is_imported():
    code = (
        "import sys, numpy as np\nfrom setk import metrics\nx = np.random.default_rng(0).standard_normal((2, 16000))\n"
        "metrics.compute(*x, 16000, ['si_sdr', 'stoi', 'estoi'])\n"
        "bad = [m for m in ('torch', 'scipy', 'pesq', 'pystoi') if m in sys.modules]\nassert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_summary_of_a_normal_sample(rng):
    x = rng.normal(3, 2, 400)
    s = summary.summarise(x)
    half = 1.96 * x.std() / math.sqrt(len(x))
    assert s["mean"] == pytest.approx(x.mean(), abs=1e-12)
    assert [s["low"], s["high"]] == pytest.approx([x.mean() - half, x.mean() + half], abs=0.15 * half)


def test_summary_is_deterministic_and_does_not_depend_on_order(rng):
    x = rng.normal(size=50)
    assert summary.summarise(x) == summary.summarise(list(x[::-1]))


def test_means_of_many_values_are_as_if_drawn(rng, monkeypatch):
    # A skewed score, such as PESQ of a test set with some very good utterances.
    x = rng.gamma(0.5, 1.0, size=3000)
    drawn = summary.bootstrap_means(x)
    monkeypatch.setattr(summary, "_MANY", 1000)
    computed = summary.bootstrap_means(x)
    spread = x.std() / math.sqrt(len(x))
    for share in (0.025, 0.25, 0.5, 0.75, 0.975):
        # A quantile of 10,000 draws has a standard error of about 0.027 spreads in the tails.
        assert abs(np.quantile(computed, share) - np.quantile(drawn, share)) < 0.1 * spread, share
    assert len(computed) == len(drawn) and not np.array_equal(computed, drawn)
    # The correction for skewness matters here: the interval is not symmetric about the mean.
    low, high = np.quantile(computed, [0.025, 0.975])
    assert high - x.mean() > 1.01 * (x.mean() - low)


def test_means_that_few_values_decide_are_drawn(monkeypatch):
    monkeypatch.setattr(summary, "_MANY", 1000)
    x = np.zeros(2000)
    x[0] = 1.0
    # The number of times that the one value is drawn is 0 with probability exp(-1).
    assert np.mean(summary.bootstrap_means(x) == 0) == pytest.approx(math.exp(-1), abs=0.02)
    assert set(summary.bootstrap_means(np.ones(2000))) == {1.0}


def test_scores_keep_numbers_and_not_rows(rng):
    names = ("stoi", "si_sdr")
    groups = {"kind": {f"u{i}": "abc"[i % 3] for i in range(100) if i != 7}}
    scores = summary.Scores(names, {"kind": Groups.of(groups["kind"])})
    rows = []
    for i in range(100):
        values = {name: math.nan if i == 9 else float(rng.normal()) for name in names}
        rows.append(Row(Pair(f"u{i}", None, None), values, "is bad" if i == 9 else ""))
        scores.add(rows[-1])
    figures = scores.figures()
    assert (figures["utterances"], figures["scored"], figures["failed"]) == (100, 99, {"u9": "is bad"})
    assert figures["metrics"]["stoi"] == summary.summarise([row.scores["stoi"] for row in rows])
    of_b = [row.scores["si_sdr"] for row in rows if groups["kind"].get(row.pair.utt) == "b"]
    assert list(figures["groups"]["kind"]) == ["a", "b", "c"] and scores.without == {"kind": (1, ["u7"])}
    assert figures["groups"]["kind"]["b"]["si_sdr"] == summary.summarise(of_b)


def test_summary_leaves_out_what_is_missing():
    assert summary.summarise([1.0, math.nan, 3.0])["mean"] == 2
    assert summary.summarise([1.0, math.nan]) == {"mean": 1.0, "low": None, "high": None, "scored": 1}
    assert (
        summary.summarise([math.nan]) == summary.summarise([]) == {"mean": None, "low": None, "high": None, "scored": 0}
    )
