"""The compiled kernels beside the models, which they can do without: loaded through ctypes, one build for each processor."""

from __future__ import annotations

import ctypes
import importlib.util

import torch


def load(name: str) -> ctypes.CDLL | None:
    """The build of setk/nn/NAME.c that suits this processor, or None where it was not built (see setup.py)."""
    builds = {"AVX512": "avx512", "AVX2": "avx2"}
    build = builds.get(torch.backends.cpu.get_cpu_capability(), "base")
    spec = importlib.util.find_spec(f"setk.nn._{name}_{build}")
    return None if spec is None else ctypes.CDLL(spec.origin)
