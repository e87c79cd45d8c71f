"""What aten operations do to channels, for the tracer: which move values, which join them element by element, which reduce."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

VIEWS = frozenset(
    """
    alias clone detach diagonal expand flip lift_fresh permute repeat roll select slice split split_with_sizes unsafe_split
    squeeze t transpose unbind unfold unsqueeze
""".split()
)
POINTWISE = frozenset(
    """
    _prelu_kernel abs add addcdiv addcmul angle atan atan2 bitwise_and bitwise_not bitwise_or ceil clamp clamp_max clamp_min cos div
    elu eq exp expm1 floor fmod ge gelu gt hardsigmoid hardswish hardtanh isinf isnan le leaky_relu lerp log log10 log1p log2
    log_sigmoid_forward logical_and logical_not logical_or logical_xor lt masked_fill maximum minimum mish mul ne neg pow reciprocal
    relu remainder round rsqrt rsub sigmoid sign silu sin softplus sqrt square sub tan tanh trunc where
""".split()
)
# Position of the dimensions among the arguments.
REDUCTIONS = {"sum": 1, "mean": 1, "amax": 1, "amin": 1, "prod": 1, "var": 1, "linalg_vector_norm": 2}
BATCH_NORMS = (
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "native_group_norm",
)
# No value of their input is in their output.
CREATED = ("empty_like", "zeros_like", "ones_like", "full_like", "new_empty", "new_zeros", "new_ones", "new_full")
SOFTMAXES = ("_softmax", "_log_softmax", "_safe_softmax")


def pairs(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that meet in an element of two tensors of one shape, those with a 0 left out."""
    a, b = a.flatten().numpy(), b.flatten().numpy()
    some = (a > 0) & (b > 0)
    return a[some], b[some]


def extremes(names: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The least and the largest name over `dims`, which stay; 0 does not count beside others."""
    high = names.amax(dims, keepdim=True)
    low = torch.where(names > 0, names, torch.iinfo(torch.long).max).amin(dims, keepdim=True)
    return torch.where(high > 0, low, 0), high


def flat(values: Any) -> list[Any]:
    return [x for value in values for x in (flat(value) if isinstance(value, (tuple, list)) else [value])]
