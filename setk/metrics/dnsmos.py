"""DNSMOS: ratings by neural networks that listen to the estimate alone.

Conventions
-----------
Mean opinion scores, about 1 (bad) to 5, at 16 kHz. There is no reference: speech that is gone is not missed,
and clean speech itself gets less than 5; print its score beside. Level matters. The networks are files that
setk does not bring: the user names them, or they are those of the installed package `speechmos`. Scores of
different files are not comparable, so `identity` says which were used.

As the DNS Challenge's own script has it: windows of 9.01 s every second, shorter signals doubled until they
fill one, scores averaged over windows. That script loses windows, the 8th to the 24th and the 120th to the
123rd, whose length rounding makes one sample short; so does this module, or its numbers for files over 16 s
would not be those of the tables. A doubled signal repeats itself, and each of its windows is rated once.

Metrics
-------
dnsmos_sig, dnsmos_bak, dnsmos_ovrl: C. K. A. Reddy, V. Gopal, R. Cutler, "DNSMOS P.835: A Non-Intrusive
    Perceptual Objective Speech Quality Metric to Evaluate Noise Suppressors", ICASSP 2022.
dnsmos_p808: C. K. A. Reddy, V. Gopal, R. Cutler, "DNSMOS: A Non-Intrusive Perceptual Objective Speech Quality
    Metric to Evaluate Noise Suppressors", ICASSP 2021.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from functools import lru_cache
from importlib import util
from pathlib import Path
from typing import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from setk.core.errors import UserError
from setk.core.files import sha256
from setk.core.numerics import triangles
from setk.metrics.metric import Extras, Metric, Scores, undefined, wrong_rate

RATE, WINDOW = 16_000, 9.01  # Hz, s
SHORTEST = 0.3  # s
FRAME, HOP, BANDS = 321, 160, 120  # of the mel spectrogram that P.808 needs
_LENGTH = int(WINDOW * RATE)
_P835 = ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl")  # in the order of the network's outputs
# From the network's outputs to the scale of listeners, highest power first; they came with the models.
_POLYNOMIALS = {
    "dnsmos_sig": (-0.08397278, 1.22083953, 0.0052439),
    "dnsmos_bak": (-0.13166888, 1.60915514, -0.39604546),
    "dnsmos_ovrl": (-0.06766283, 1.11546468, 0.04602535),
}
# Metric -> field of Extras with its model; the model's file in speechmos.
MODELS = dict.fromkeys(_P835, "dnsmos_p835") | {"dnsmos_p808": "dnsmos_p808"}
_FILES = {"dnsmos_p835": "sig_bak_ovr.onnx", "dnsmos_p808": "model_v8.onnx"}
_OPTIONS = {"dnsmos_p835": "--dnsmos-model", "dnsmos_p808": "--dnsmos-p808-model"}  # of se-score
# Inputs and output of a network, without the batch.
_SHAPES = {"dnsmos_p835": ([("input_1", [_LENGTH])], [3]), "dnsmos_p808": ([("input_1", [900, BANDS])], [1])}

_IN_2022, _IN_2021 = "Reddy, Gopal, Cutler, ICASSP 2022", "Reddy, Gopal, Cutler, ICASSP 2021"
_SHARED = {"range": "1 ... 5", "needs": "onnxruntime", "rates": (RATE,)}
METRICS = (
    Metric("dnsmos_sig", "DNSMOS P.835, speech", reference=_IN_2022, **_SHARED),
    Metric("dnsmos_bak", "DNSMOS P.835, background", reference=_IN_2022, **_SHARED),
    Metric("dnsmos_ovrl", "DNSMOS P.835, overall", reference=_IN_2022, **_SHARED),
    Metric("dnsmos_p808", "DNSMOS P.808", reference=_IN_2021, **_SHARED),
)


def model_file(model: str, extras: Extras) -> Path | None:
    """The file of the network `model`, a field of Extras: the user's, else that of speechmos; None without either."""
    if named := getattr(extras, model):
        return Path(named)
    package = util.find_spec("speechmos")  # without importing it, which would import librosa
    places = package.submodule_search_locations if package else None
    files = [Path(place) / "dnsmos_models" / _FILES[model] for place in places or ()]
    return next((file for file in files if file.is_file()), None)


def missing(name: str, extras: Extras) -> str | None:
    """What metric `name` lacks here, and the fix; None if nothing."""
    if not util.find_spec("onnxruntime"):
        return "needs the package onnxruntime: pip install onnxruntime"
    model = MODELS[name]
    file = model_file(model, extras)
    if file is None:
        return f"needs a model: pip install speechmos, or name its file {_FILES[model]} with {_OPTIONS[model]} FILE"
    return None if file.is_file() else f"needs the model {file}, which is not a file"


def identity(extras: Extras = Extras()) -> dict[str, str]:
    """Field of Extras -> sha256, for each network that is found."""
    found = {model: model_file(model, extras) for model in _FILES}
    return {model: sha256(file) for model, file in found.items() if file and file.is_file()}


def compute(est: np.ndarray, rate: int, names: Sequence[str], extras: Extras = Extras()) -> Scores:
    """DNSMOS of `est` [n]; UserError if a given file is not such a network."""
    if not names:
        return {}, {}
    if reason := _obstacle(est, rate):
        return undefined(names, reason)
    windows = _windows(est)
    scores: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for model in dict.fromkeys(MODELS[name] for name in names):
        own = [name for name in names if MODELS[name] == model]
        if reason := missing(own[0], extras):
            values, why = undefined(own, reason)
        else:
            values, why = _rate(model, windows, model_file(model, extras)), {}
        scores |= {name: values[name] for name in own}
        reasons |= why
    return scores, reasons


def _obstacle(est: np.ndarray, rate: int) -> str | None:
    if reason := wrong_rate((RATE,), rate):
        return reason
    if len(est) < SHORTEST * rate:
        return f"{len(est) / rate:.3f} s is too short: {SHORTEST} s are needed"
    return "the estimate is silent" if np.ptp(est) == 0 else None


def _windows(est: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """The windows [_LENGTH] of a signal [n] that differ, and how often each occurs."""
    n = len(est)
    total = n * 2 ** max(0, math.ceil(math.log2(_LENGTH / n)))
    hops = range(int(total // RATE - WINDOW) + 1)
    starts = Counter(
        i * RATE % n if total > n else i * RATE for i in hops if int((i + WINDOW) * RATE) - i * RATE == _LENGTH
    )
    tiled = np.tile(est, -(-_LENGTH // n) + 1) if total > n else est
    return [(tiled[start : start + _LENGTH], times) for start, times in starts.items()]


def _rate(model: str, windows: list[tuple[np.ndarray, int]], file: Path) -> dict[str, float]:
    """Metric -> mean score over windows, for each metric of a network."""
    session = _session(model, str(file), os.getpid())
    feature = mel_levels if model == "dnsmos_p808" else np.asarray
    outputs = [session.run(None, {"input_1": feature(x)[None].astype(np.float32)})[0][0] for x, _ in windows]
    outputs = np.array(outputs, np.float64)
    times = [times for _, times in windows]
    if model == "dnsmos_p808":
        return {"dnsmos_p808": float(np.average(outputs[:, 0], weights=times))}
    return {
        name: float(np.average(np.polyval(_POLYNOMIALS[name], outputs[:, i]), weights=times))
        for i, name in enumerate(_P835)
    }


@lru_cache(maxsize=2)
def _session(model: str, file: str, process: int):
    """The network in `file`, on one thread; a forked process makes its own. UserError if it is not of the right kind."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # an error is reported once, below
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except (
        errors.Fail,
        errors.InvalidArgument,
        errors.InvalidGraph,
        errors.InvalidProtobuf,
        errors.NotImplemented,
        errors.RuntimeException,
    ) as e:
        raise UserError(f"{file}: onnxruntime cannot read it as a model: {' '.join(str(e).split())}") from e
    inputs = [(x.name, x.shape[1:]) for x in session.get_inputs()]
    outputs = session.get_outputs()[0].shape[1:]
    if (inputs, outputs) != _SHAPES[model]:
        raise UserError(f"{file}: not a DNSMOS model {_FILES[model]}: it maps {inputs} to {outputs}")
    return session


def mel_levels(x: np.ndarray) -> np.ndarray:
    """Mel levels [frames, BANDS] of a window [_LENGTH], as P.808's network was trained on: 1 at the loudest, -1 at -80 dB.

    Its last hop is left out. Equal to librosa's `melspectrogram` and `power_to_db` with their defaults.
    """
    padded = np.pad(x[:-HOP], FRAME // 2)
    frames = sliding_window_view(padded, FRAME)[::HOP]
    spectrum = np.fft.rfft(frames * np.hanning(FRAME + 1)[:-1])
    power = np.maximum((spectrum.real**2 + spectrum.imag**2) @ _mel_bands(), 1e-10)
    level = 10 * np.log10(power / power.max())
    return (np.maximum(level, -80) + 40) / 40


@lru_cache(maxsize=1)
def _mel_bands() -> np.ndarray:
    """Matrix [FRAME // 2 + 1, BANDS] of triangles of equal area on Slaney's mel scale, 0 to 8 kHz.

    M. Slaney, "Auditory Toolbox", 1998: 200/3 Hz per mel up to 1 kHz, then a factor of 6.4 in 27 mel.
    """
    step, bend, growth = 200 / 3, 15.0, math.log(6.4) / 27
    mel = np.linspace(0, bend + math.log(RATE / 2 / 1000) / growth, BANDS + 2)
    edges = np.where(mel < bend, step * mel, 1000 * np.exp(growth * (mel - bend)))
    return triangles(edges, np.fft.rfftfreq(FRAME, 1 / RATE)) * (2 / (edges[2:] - edges[:-2]))
