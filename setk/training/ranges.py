"""The ranges of the numbers in a training config. Outside of them a training fails late, never ends, or means nothing."""

from __future__ import annotations

import dataclasses
from typing import Any, Iterator, Mapping

from setk.core.errors import UserError

_STEPS, _DB = 10**7, 200.0
PROBABILITY = (0.0, 1.0)
BELOW_ONE = (0.0, 1.0 - 1e-12)

# Key -> lowest and highest value, of each element if it is a pair. Keys of `losses` are names of the user.
RANGES: Mapping[str, tuple[float, float]] = {
    "quantization.observe": (1, _STEPS),
    "seed": (0, 2**63 - 1),
    "segment": (0.01, 600.0),
    "context": (0.0, 600.0),
    "batch": (1, 1 << 16),
    "accumulate": (1, 1 << 16),
    "steps": (0, _STEPS),
    "epochs": (0.0, 1e6),
    "warmup": (0, _STEPS),
    "lr": (1e-12, 100.0),
    "lr_end": (0.0, 100.0),
    "betas": BELOW_ONE,
    "weight_decay": (0.0, 100.0),
    "clip": (0.0, 1e9),
    "ema": BELOW_ONE,
    "average": (0, 1000),
    "patience": (0, _STEPS),
    "losses": (-1e9, 1e9),
    "discriminator.weight": (0.0, 1e6),
    "discriminator.delay": (1, 10_000),
    "teacher.weight": PROBABILITY,
    "pruning.amount": PROBABILITY,
    "pruning.start": PROBABILITY,
    "pruning.end": PROBABILITY,
    "pruning.every": (1, _STEPS),
    "pruning.floor": PROBABILITY,
    "mixing.snr": (-_DB, _DB),
    "mixing.level": (-_DB, 0.0),
    "mixing.second_noise": PROBABILITY,
    "mixing.noise_speed": (0.1, 10.0),
    "mixing.noise_eq": (0.0, 100.0),
    "mixing.speech_eq": (0.0, 100.0),
    "mixing.high_voice": PROBABILITY,
    "mixing.room": PROBABILITY,
    "mixing.clean_only": PROBABILITY,
    "mixing.noise_only": PROBABILITY,
    "augment.remix": PROBABILITY,
    "augment.snr": (-_DB, _DB),
    "augment.band_limit": PROBABILITY,
    "augment.clip": PROBABILITY,
    "valid_every": (1, _STEPS),
    "save_every": (1, _STEPS),
    "workers": (0, 1024),
}
# Pairs that are not an interval: the others begin with the lower value.
UNORDERED = ("betas",)


def check(settings: Any, where: str) -> None:
    """Raise UserError if a number of the config dataclass `settings` is outside its range, or an interval is reversed."""
    for key, value in numbers(settings):
        if key not in RANGES:
            continue
        low, high = RANGES[key]
        values = value if isinstance(value, tuple) else (value,)
        for one in values:
            if not low <= one <= high:
                most = "below 1" if (low, high) == BELOW_ONE else f"{high:g}"
                raise UserError(f"{where}: {key}: {one:g} is outside {low:g} ... {most}")
        if key not in UNORDERED and list(values) != sorted(values):
            raise UserError(f"{where}: {key}: {list(values)} is reversed; write the lower value first")


def numbers(settings: Any, prefix: str = "") -> Iterator[tuple[str, float | tuple[float, ...]]]:
    """(dotted key, value) of all numbers and tuples of numbers in a config dataclass and those below it."""
    for field in dataclasses.fields(settings):
        key, value = prefix + field.name, getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from numbers(value, f"{key}.")
        elif key == "losses":
            yield key, tuple(sorted(value.values()))
        elif _is_number(value) or isinstance(value, tuple) and value and all(map(_is_number, value)):
            yield key, value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
