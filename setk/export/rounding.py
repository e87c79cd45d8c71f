"""How far the outputs of two programs are apart that differ by the order of sums, or by the rounding of weights."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from setk.core.errors import UserError
from setk.metrics import sdr
from setk.native.translate import Translated

# Samples [n], n whole hops, as a program returns them: [n], late by its delay.
Output = Callable[[np.ndarray], np.ndarray]
LEAST_PROGRAM_PARITY = 110.0  # dB of `parity` between a model and its program


def reference(engine: Any, samples: np.ndarray, delay: int) -> np.ndarray:
    """What an engine makes of n samples, as late as its program is: [n]."""
    from setk.engines import Stream

    stream = Stream(engine, engine.sample_rate, 1)
    y = np.concatenate([stream.push(samples[None]), stream.flush()], 1)[0]
    return np.concatenate([np.zeros(delay, np.float32), y])[: len(samples)]


def parity(expected: Output, found: Output, translated: Translated) -> float:
    """`median_snr` of one program's output to another's."""
    return median_snr(
        expected, found, translated.about["sample_rate"], translated.transform.hop, delay=translated.delay
    )


def median_snr(expected: Output, found: Output, rate: int, hop: int, delay: int = 0) -> float:
    """SNR in dB of one output to another, on noise at levels 50 dB apart: the median of frames of 64 ms, for what rounding
    flips, a spike or a gate that is saturated, is not a fault of a program but changes what a network does for a while."""
    generator, ratios, frame = np.random.default_rng(0), [], rate * 64 // 1000
    for level in np.logspace(-3, -0.5, 6):
        x = (level * generator.standard_normal(-(-rate // hop) * hop)).astype(np.float32)
        a, b = expected(x)[delay:], found(x)[delay:]
        signal, error = (
            np.square(y[: len(y) // frame * frame], dtype=np.float64).reshape(-1, frame).sum(1) for y in (a, b - a)
        )
        ratios.append((signal / np.maximum(error, 1e-30))[signal > 0])
    return float(10 * np.log10(np.median(np.concatenate(ratios))))


def require(found: float, complaint: str) -> None:
    """Raise UserError if a parity is below LEAST_PROGRAM_PARITY."""
    if not found >= LEAST_PROGRAM_PARITY:
        raise UserError(f"{complaint} by more than rounding (SNR {found:.1f} dB)")


def rounding_snr(exact: Output, rounded: Output, translated: Translated) -> float:
    """SNR in dB of the output with int8 weights to that with float weights, on two seconds of noise whose level moves."""
    hop, delay = translated.transform.hop, translated.delay
    rng, samples = np.random.default_rng(0), hop * (2 * translated.about["sample_rate"] // hop)
    level = np.interp(np.arange(samples), np.linspace(0, samples, 20), 10 ** rng.uniform(-2, -0.7, 20))
    noise = (rng.standard_normal(samples) * level).astype(np.float32)
    return sdr.snr(exact(noise)[delay:].astype(np.float64), rounded(noise)[delay:].astype(np.float64))
