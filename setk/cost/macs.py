"""Multiply-accumulates, counted op by op: setk's own convention.

A MAC is one multiply-accumulate of a weight with an activation, or of two activations where they are
contracted (attention's Q K^T and A V). Positions that fall on zero padding count, as in every counter, and
so do the outputs that a transposed convolution crops. Nothing else counts: no bias, norm, activation,
gate, element-wise mask or STFT, so a contraction must be written as a matmul, einsum or convolution to be
seen, not as multiply and sum. A matrix product of complex tensors is four real ones, a convolution of them three.

The model runs once on the meta device, where tensors have shapes and no data, and every aten op passes
through OpCounter. On that device recurrent layers and attention, in all their fused variants, decompose
into matmuls, so that no layer needs a rule here. An op that is neither counted nor known to be free is an error, never a
zero.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from setk.cost.ledger import Inputs, Layer, Ledger, frame_inputs, frame_rate
from setk.audio.stft import STFT, Transform
from setk.core.errors import UserError
from setk.models import Model


def layers(model: Model, seconds: float = 1.0) -> list[Layer]:
    """MACs per second of audio, by layer, at the model's exact frame rate.

    `seconds` is the length that is counted, in whole frames. It matters only to models whose cost per frame
    grows with the length, such as those with attention over time.
    """
    rate = frame_rate(model)
    frames = max(1, round(seconds * rate))
    return count(model, frame_inputs(frames)).layers(rate / frames)


def count(model: nn.Module, inputs: Inputs, **options: Any) -> Ledger:
    """MACs of one call of any module; `inputs` makes its arguments, on the meta device."""
    ledger = Ledger(model)
    with OpCounter(ledger):
        return ledger.run(inputs, **options)


def stft_macs_per_second(transform: Transform, sample_rate: int) -> int:
    """Analysis and synthesis, per second of audio; 0 for a transform other than an STFT.

    A real FFT of N points takes (5/2) N log2 N real operations, a multiplication and an addition being two,
    so (5/4) N log2 N MACs, either way. The analysis window is N more, and the synthesis window with its
    overlap-add another N.
    """
    if not isinstance(transform, STFT):
        return 0
    n = transform.points
    return round(2 * (1.25 * n * math.log2(n) + transform.window) * sample_rate / transform.hop)


class OpCounter(TorchDispatchMode):
    """Enters the MACs of every aten op into the ledger. Raises UserError on an op of unknown cost."""

    def __init__(self, ledger: Ledger):
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        op = func.overloadpacket.__name__ if func.namespace == "aten" else None
        if op is None or op not in COUNTED and op.removesuffix("_") not in FREE:
            where = "the model" if self.ledger.here == "." else f"layer {self.ledger.here}"
            fix = (
                "let the layer compute on the meta device with operations of torch"
                if op is None
                else "enter it in COUNTED or FREE of setk/cost/macs.py"
            )
            raise UserError(
                f"op {func.namespace}.{func.overloadpacket.__name__} in {where} is not in the cost model; {fix}"
            )
        output = func(*args, **(kwargs or {}))
        if op in COUNTED:
            self.ledger.add(COUNTED[op](output, *args) * (4 if output.is_complex() else 1))
        return output


def _matmul(output: Tensor, a: Tensor, *_) -> int:
    """[..., m, k] by [..., k, n]."""
    return output.numel() * a.shape[-1]


def _add_matmul(output: Tensor, bias: Tensor, a: Tensor, *_) -> int:
    return _matmul(output, a)


def _convolution(
    output: Tensor, x: Tensor, weight: Tensor, bias, stride, padding, dilation, transposed: bool, *_
) -> int:
    """x [B, I, ...], weight [O, I / groups, ...], transposed [I, O / groups, ...].

    Forward, each output value takes one product per weight of its channel; transposed, each input value gives one.
    """
    return (x if transposed else output).numel() * weight[0].numel()


COUNTED = {
    "mm": _matmul,
    "bmm": _matmul,
    "mv": _matmul,
    "dot": _matmul,
    "addmm": _add_matmul,
    "baddbmm": _add_matmul,
    "addmv": _add_matmul,
    "convolution": _convolution,
}

# Names without the underscore of in-place variants.
FREE = frozenset(
    """
    empty empty_strided empty_like zeros zeros_like ones ones_like full full_like new_empty new_zeros new_ones new_full
    arange linspace scalar_tensor lift_fresh
    alias as_strided _reshape_alias detach expand permute reshape select slice split split_with_sizes unsafe_split squeeze
    t transpose unbind unfold unsqueeze view _unsafe_view view_as_complex view_as_real diagonal real imag _conj
    cat stack clone copy _to_copy fill flip roll repeat constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d
    replication_pad2d gather index index_select embedding im2col col2im pixel_shuffle pixel_unshuffle tril triu masked_fill where
    add sub rsub mul div reciprocal neg abs sign pow square sqrt rsqrt exp expm1 log log1p log2 log10 sin cos tan atan atan2
    hypot clamp clamp_min clamp_max minimum maximum floor ceil round trunc remainder fmod addcmul addcdiv lerp complex polar angle
    eq ne lt le gt ge logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_not isnan isinf
    sigmoid tanh relu elu leaky_relu prelu _prelu_kernel gelu silu mish glu hardtanh hardswish hardsigmoid softplus
    log_sigmoid_forward _softmax _log_softmax _safe_softmax logsumexp
    native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training native_layer_norm native_group_norm
    _fused_rms_norm linalg_vector_norm
    sum mean prod cumsum var std var_mean amax amin max min argmax argmin any all
    avg_pool1d avg_pool2d _adaptive_avg_pool2d max_pool2d_with_indices upsample_nearest1d upsample_nearest2d upsample_linear1d
    upsample_bilinear2d
""".split()
)
