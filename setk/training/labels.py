"""PESQ of batches, computed in worker processes while training continues. No torch here: the workers start and run without it."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from setk import metrics
from setk.core import pool
from setk.core.errors import UserError


def _pesq(clean: np.ndarray, enhanced: np.ndarray, rate: int) -> float:
    scores, _ = metrics.compute(clean, enhanced, rate, ("pesq_wb",))
    return scores["pesq_wb"]


class Labels:
    """Wideband PESQ at `rate` Hz by `jobs` processes."""

    def __init__(self, rate: int, jobs: int):
        self.rate, self._pool = rate, pool.executor(jobs, pool.leave_signals)

    def ask(self, clean: np.ndarray, enhanced: np.ndarray) -> list[Future]:
        """Begin with the scores of signals [B, n]."""
        return [self._pool.submit(_pesq, *pair, self.rate) for pair in zip(clean, enhanced)]

    def wait(self, asked: list[Future]) -> np.ndarray:
        """Labels [B], (MOS - 1) / 3.5 as in MetricGAN's descendants; nan where PESQ has no score. Raises UserError if a worker is
        killed."""
        try:
            scores = [future.result() for future in asked]
        except BrokenProcessPool:
            raise UserError(
                "a worker process that computes PESQ was killed (out of memory?); start again to continue"
            ) from None
        return (np.array(scores, np.float32) - 1) / 3.5
