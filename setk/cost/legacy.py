"""The count that tables of U-nets quote: that of thop, in which a transposed convolution costs by its output.

With a stride of 2 over bins that is twice what it costs, because every input value meets each weight of its channel only
once. To what setk counts this convention adds

  - one for the bias of each output value of a convolution;
  - two for each output value of a batch norm, and one for each of a PReLU.

One second is as many frames as published code makes of 16000 samples: 126 at a hop of 128 and 63 at one of 256, where the
STFT is centred; but 163 at DCCRN's 400/100, with 300 zeros on either side. DCCRN comes to 11.13 G (the survey
of Zheng et al., 2023, Table 14: 11.13) and 14.37 G (elsewhere: 14.36), where the truth is 6.72 and 8.69.
"""

from __future__ import annotations

from fractions import Fraction

from torch import Tensor, nn

from setk.cost.ledger import Inputs, Layer, Ledger, frame_inputs
from setk.cost.macs import OpCounter
from setk.audio.stft import STFT, Transform
from setk.models import Model


def layers(model: Model, seconds: float = 1.0) -> list[Layer]:
    """MACs of the frames of `seconds`, per second and by layer."""
    samples = round(seconds * model.sample_rate)
    per_second = Fraction(model.sample_rate, samples)
    return count(model, frame_inputs(frames(model.transform, samples))).layers(per_second)


def frames(transform: Transform, samples: int) -> int:
    """Of an STFT by convolution, which is what zero-pads a window to the FFT's length at its end; else of a centred one."""
    padded = isinstance(transform, STFT) and transform.points > transform.window
    return transform.frames(samples) if padded else samples // transform.hop + 1


def count(model: nn.Module, inputs: Inputs) -> Ledger:
    """MACs of one call of any module; `inputs` makes its arguments, on the meta device."""
    ledger = Ledger(model)
    with _Counter(ledger):
        return ledger.run(inputs)


class _Counter(OpCounter):
    """Enters what this convention counts in addition to OpCounter."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = super().__torch_dispatch__(func, types, args, kwargs)
        op = func.overloadpacket.__name__
        if op in EXCESS:
            self.ledger.add(EXCESS[op](output, *args))
        return output


def _convolution(output, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups) -> int:
    """Transposed, weight is [I, O / groups, ...]: each output value is charged with the weights of its channel."""
    excess = output.numel() if bias is not None else 0
    if transposed:
        excess += output.numel() * weight[:, 0].numel() // groups - x.numel() * weight[0].numel()
    return excess


def _batch_norm(output: tuple[Tensor, ...], *_) -> int:
    return 2 * output[0].numel()


def _prelu(output: Tensor, *_) -> int:
    return output.numel()


EXCESS = {
    "convolution": _convolution,
    "_prelu_kernel": _prelu,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
}
