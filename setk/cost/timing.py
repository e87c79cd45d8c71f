"""How fast a model is on this machine, on one thread."""

from __future__ import annotations

import statistics
import time
from typing import Mapping

import numpy as np

from setk.engines import Engine, open_stream

_ROUNDS = 5
_WARM_UP = 30  # hops


def timing(engine: Engine, hops: int = 300, seconds: float = 4.0) -> dict[str, float | None]:
    """`hop_ms_median`, `hop_ms_p99`, `rtf` and `rtf_stream` of a model that is loaded.

    A hop is the network alone (with its transform in setk's own kernels, which have it inside), on a frame (or on the frames that a
    file is made for, divided by their number), with the state passed on. The real-time factors, processing time over duration, include
    the transform: `rtf` of a signal in one piece, `rtf_stream` of one hop by hop. A model that is not causal has no hop: all but `rtf`
    are None.
    """
    n = round(seconds * engine.sample_rate)
    rtf = statistics.median(_seconds(engine, n, n) for _ in range(_ROUNDS)) / seconds
    if not engine.causal:
        return {"hop_ms_median": None, "hop_ms_p99": None, "rtf": round(rtf, 6), "rtf_stream": None}
    took = 1000 * np.array(_hop_seconds(engine, hops))
    hop = engine.transform.hop * (engine.frames or 1)
    return {
        "hop_ms_median": round(float(np.median(took)), 4),
        "hop_ms_p99": round(float(np.percentile(took, 99)), 4),
        "rtf": round(rtf, 6),
        "rtf_stream": round(_seconds(engine, n, hop) / seconds, 6),
    }


def hop_times(found: Mapping[str, Engine]) -> dict[str, float | None]:
    """`hop_us_native`, `hop_us_onnx` and `hop_us_torch`: microseconds of a hop with its transform, fed through a Stream. The engines in
    `found` take turns in one run, and the median of all rounds counts. None for the others, and for models that are not causal."""
    took: dict[str, list[float]] = {name: [] for name, engine in found.items() if engine.causal}
    for _ in range(_ROUNDS):
        for name, times in took.items():
            engine = found[name]
            hop = engine.transform.hop * (engine.frames or 1)
            hops = max(1, round(engine.sample_rate / hop))  # of a second
            times.append(1e6 * _seconds(engine, hops * hop, hop) / hops / (engine.frames or 1))
    return {
        f"hop_us_{name}": round(statistics.median(took[name]), 2) if took.get(name) else None
        for name in ("native", "onnx", "torch")
    }


def _hop_seconds(engine: Engine, hops: int) -> list[float]:
    t = engine.frames or 1
    frames = (
        np.random.default_rng(0).standard_normal((hops + _WARM_UP, 1, t, *engine.transform.shape)).astype(np.float32)
    )
    state, took = engine.start(1), []
    for frame in frames:
        start = time.perf_counter()
        _, state = engine.run(frame, state)
        took.append((time.perf_counter() - start) / t)
    return took[_WARM_UP:]


def _seconds(engine: Engine, samples: int, piece: int) -> float:
    """Processing time of `samples` samples in pieces of `piece`."""
    wave = np.random.default_rng(0).standard_normal((1, samples)).astype(np.float32) * np.float32(0.1)
    start = time.perf_counter()
    stream = open_stream(engine, engine.sample_rate, 1, piece / engine.sample_rate)
    for at in range(0, samples, piece):
        stream.push(wave[:, at : at + piece])
    stream.flush()
    return time.perf_counter() - start
