"""What a training sets for its whole process: memory and arithmetic."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from setk.training.settings import Settings


def keep_heap() -> None:
    """Have glibc keep large blocks: training frees and takes the same megabytes every step, and giving them
    back each time costs a tenth of the step in page faults."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            m_trim_threshold, m_mmap_threshold = -1, -3
            libc.mallopt(m_mmap_threshold, 1 << 30)
            libc.mallopt(m_trim_threshold, (1 << 31) - 1)


def set_arithmetic(settings: Settings) -> None:
    """TF32 and determinism, which torch keeps for the whole process."""
    tf32 = settings.precision != "float32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
