"""The tables of integer.h and integer_transform.h, which every integer program has."""

from __future__ import annotations

import numpy as np

from setk.export.c.integer_program import POINTS


def tables() -> dict[str, np.ndarray]:
    """By name in C: powers of two, logarithms, sigmoid and exponential for linear interpolation, and the cosines of a transform."""
    i = np.arange(513)
    exact = {
        "power_table": np.exp2(i[:257] / 256) * 2**30,
        "logarithm_table": np.log2(1 + i[:257] / 256) * 2**24,
        "sigmoid_table": np.minimum(2**16 / (1 + np.exp(8 - i / 32)), 65535),
        "exponential_table": np.exp(-i / 64) * 2**15,
        "cosine_table": np.cos(2 * np.pi * np.arange(POINTS) / POINTS) * 2**30,
    }
    rounded = {name: np.rint(values).astype(np.int64) for name, values in exact.items()}
    rounded["power_table"][-1] -= 1  # 2^31 is beyond int32
    return rounded
