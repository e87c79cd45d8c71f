"""Random numbers that depend on what they are for, and on nothing else."""

from __future__ import annotations

import hashlib

import numpy as np


def rng(seed: int, utt: str, epoch: int = 0) -> np.random.Generator:
    """The random generator of one utterance in one epoch.

    The same on every machine and in every process: independent of the number of workers, parts or ranks, and of the
    order of the list.
    """
    key = hashlib.sha256(f"{seed}\0{utt}\0{epoch}".encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "little"))
