"""A translated model, as the kernels run it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Program:
    """What the kernels run: the words of a hop and of a reset, the constants, and the floats of state and of scratch.

    Of the constants, `floats` come first. The rest are weights, which may be rounded to int8: `blocks` are (first, count, length,
    columns), `count` numbers in blocks of `length`, each of whose columns has a step of its own (see setk/native/int8.py).
    """

    words: np.ndarray
    reset: np.ndarray
    constants: np.ndarray
    floats: int
    blocks: list[tuple[int, int, int, int]]
    state: int
    scratch: int
