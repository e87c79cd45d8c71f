"""The compiled kernels of layers, which are optional: loaded through ctypes, one build for each processor.

A kernel is a pair of custom operators of torch (`setk::gru` and its gradient, for example), with shapes for tensors without
data. Autograd, torch.compile, torch.export and autocast therefore treat it as any other operator.
"""

from __future__ import annotations

import ctypes
import importlib.util

import torch
from torch import Tensor

LANES = 16  # widths that kernels run are multiples of the widest vector


def load(name: str) -> ctypes.CDLL | None:
    """The build of setk/nn/NAME.c that suits this processor, or None if it was not built (see setup.py)."""
    builds = {"AVX512": "avx512", "AVX2": "avx2"}
    build = builds.get(torch.backends.cpu.get_cpu_capability(), "base")
    spec = importlib.util.find_spec(f"setk.nn._{name}_{build}")
    return None if spec is None else ctypes.CDLL(spec.origin)


def call(function, *arguments) -> None:
    """Call a function of a kernel. Tensors are passed by address, and live until it returns. Raises TypeError if one is not
    float32 (or bool), MemoryError if the kernel has no memory for its buffers."""
    for a in arguments:
        if isinstance(a, Tensor):
            check(a)
    if function(*(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)) != 0:
        raise MemoryError("no memory for the buffers of a compiled kernel")


def check(*tensors: Tensor) -> None:
    for a in tensors:
        if a.dtype not in (torch.float32, torch.bool):
            raise TypeError(
                f"expected float32, as the weights are, not {a.dtype}; convert the input, or the model with .to()"
            )
