"""How long a model takes on this machine, on one thread."""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from typing import Iterator

import numpy as np
import torch

from setk.models import Model


def timing(model: Model, hops: int = 300, seconds: float = 4.0) -> dict[str, float]:
    """`hop_ms_median`, `hop_ms_p99` over `hops` single frames, state handed on, and `rtf` of a whole signal.

    A hop is the network alone; the real-time factor, processing time over duration, has the STFT in it.
    """
    with _one_thread(), torch.inference_mode():
        median, p99 = 1000 * np.percentile(_hop_seconds(model, hops), [50, 99])
        rtf = statistics.median(_whole_seconds(model, seconds) for _ in range(5)) / seconds
    return {"hop_ms_median": round(float(median), 4), "hop_ms_p99": round(float(p99), 4), "rtf": round(rtf, 6)}


def _hop_seconds(model: Model, hops: int, warm_up: int = 30) -> list[float]:
    frames, state = torch.randn(hops + warm_up, 1, 1, *model.transform.shape), model.init_state(1)
    took = []
    for frame in frames:
        start = time.perf_counter()
        _, state = model(frame, state)
        took.append(time.perf_counter() - start)
    return took[warm_up:]


def _whole_seconds(model: Model, seconds: float) -> float:
    wave = 0.1 * torch.randn(1, round(seconds * model.sample_rate))
    start = time.perf_counter()
    model.enhance(wave)
    return time.perf_counter() - start


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
