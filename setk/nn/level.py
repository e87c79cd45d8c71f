"""A running level in a model's state, and the gain that brings quiet and loud recordings to levels that the model knows.

The level follows the power of frames slowly: a gain that moves within a word costs more than one that is late. With FSPEN at -60 dBFS,
SI-SDR is 10.4 dB where the level rises in 0.02 s, 11.4 in 1 s and 11.9 in 8 s (22 validation pairs; 12.1 at -25 dBFS). The first frame sets
it. Within a range of levels the gain is exactly 1: there the model is as it is without. Below and above the range the gain leads to the
nearer end of the range, so that the output only scales with the input.
"""

from __future__ import annotations

import math
from typing import Callable, Sequence

import torch
from torch import Tensor

from setk.audio.stft import STFT

ATTACK_S, RELEASE_S = 8.0, 4.0  # time constants of the level where it rises and falls
LOWEST_DB = -110.0  # the gain rises no further below this level: what is there is no signal


def check_range(level_range: Sequence[float]) -> None:
    """Raise ValueError unless a `level_range` is empty or states the lowest and the highest level in dBFS."""
    if level_range and (len(level_range) != 2 or level_range[0] >= level_range[1]):
        raise ValueError(f"level_range {level_range}: give the lowest and the highest level, as in [-42, -12]")


def running_gain(
    power: Tensor, level: Tensor, hop_s: float, low_db: float, high_db: float, first: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The gain [B, T] of each frame, from the power [B, T] of frames, mean squares of samples, and the level [B, 1] before them;
    and the level after. A level of 0 means that no frame was heard yet: the first that is not silent sets it. Of that one, which ends one
    hop after the sound began, the window leaves the part `first` of the power."""
    low, high, lowest = (level.new_tensor(10 ** (db / 10)) for db in (low_db, high_db, LOWEST_DB))
    attack, release = (1 - math.exp(-hop_s / constant) for constant in (ATTACK_S, RELEASE_S))
    levels = []
    for now, begin in zip(power.split(1, 1), (power / first).split(1, 1)):
        followed = level + torch.where(now > level, attack, release) * (now - level)
        level = torch.where(level > 0, followed, begin)
        levels.append(level)
    heard = torch.cat(levels, 1)
    return (heard.maximum(low).minimum(high) / heard.maximum(lowest)).sqrt(), level


Network = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, tuple[Tensor, ...]]]


def at_known_level(
    network: Network,
    frames: Tensor,
    state: tuple[Tensor, ...],
    power: Tensor,
    hop_s: float,
    level_range: Sequence[float],
    first: float = 1.0,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What `network` makes of frames [B, T, ...] with the running gain, without that gain again. The last tensor of the state is the
    level; `power` [B, T] and `first` as in `running_gain`."""
    gain, level = running_gain(power, state[-1], hop_s, *level_range, first=first)
    gain = gain[(..., *(None for _ in frames.shape[2:]))]
    out, after = network(frames * gain, state[:-1])
    return out / gain, (*after, level)


def spectra_at_known_level(
    network: Network,
    spectrum: Tensor,
    state: tuple[Tensor, ...],
    transform: STFT,
    sample_rate: int,
    level_range: Sequence[float],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`at_known_level` for the spectrum [B, T, bins, 2] that `transform` takes with the square root of Hann's window; `network` alone where
    `level_range` is empty."""
    if not level_range:
        return network(spectrum, state)
    # Mean square of a frame's samples, by Parseval, less what the window takes: half the power.
    power = 4 * spectrum.square().flatten(2).sum(-1) / transform.window**2
    return at_known_level(network, spectrum, state, power, transform.hop / sample_rate, level_range)
