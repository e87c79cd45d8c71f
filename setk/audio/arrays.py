"""Audio as NumPy arrays from outside: checked, and brought to the form that setk works on."""

from __future__ import annotations

from numbers import Real

import numpy as np

from setk.audio.pcm import from_int16
from setk.audio.wav import MAX_CHANNELS, MAX_RATE, MIN_RATE
from setk.core.errors import AudioError, UserError


def as_float(x: np.ndarray) -> np.ndarray:
    """Float samples with full scale 1.0: `x` itself if it is float, divided by 32768 if it is int16.

    Raises UserError on another type.
    """
    x = np.asarray(x)
    if x.dtype == np.int16:
        return from_int16(x)
    if x.dtype.kind != "f":
        raise UserError(f"audio of type {x.dtype}: expected float with full scale 1.0, or int16")
    return x


def as_channels(x: np.ndarray) -> np.ndarray:
    """[n] or [channels, n], float or int16, as float32 [channels, n].

    Raises UserError on another shape or type, AudioError on NaN or infinite samples.
    """
    if np.ndim(x) not in (1, 2) or np.ndim(x) == 2 and not len(x):
        raise UserError(f"audio of shape {np.shape(x)}: expected [n] or [channels, n]")
    if np.ndim(x) == 2 and len(x) > MAX_CHANNELS:
        raise UserError(
            f"audio of shape {np.shape(x)}: {len(x)} channels; expected [channels, n], which is x.T of soundfile's [n, channels]"
        )
    samples = np.atleast_2d(as_float(x).astype(np.float32, copy=False))
    if not np.isfinite(samples).all():
        raise AudioError("the audio holds NaN or infinite samples; fix it first")
    return samples


def as_mono(x: np.ndarray) -> np.ndarray:
    """[n] or [1, n], float or int16, as float [n]. Raises UserError on another shape or type."""
    if np.ndim(x) == 2 and len(x) == 1:
        x = np.asarray(x)[0]
    if np.ndim(x) != 1:
        raise UserError(f"audio of shape {np.shape(x)}: expected one channel, [n]")
    return as_float(x)


def check_rate(rate: float, name: str = "rate") -> int:
    """`rate` as an int. Raises UserError, which calls it `name`, if it is not a whole number of Hz within the limits of files."""
    if not isinstance(rate, Real) or not MIN_RATE <= rate <= MAX_RATE or rate != int(rate):
        raise UserError(f"{name} {rate}: expected a whole number of Hz, {MIN_RATE} ... {MAX_RATE}")
    return int(rate)
