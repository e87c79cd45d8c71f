"""The count that published tables quote: the rules of ptflops 0.7.5 with its pytorch backend.

One second is 63 frames at 62.5 frames per second (a centred STFT of 16000 samples). Biases, norms and some
activations count; modules that ptflops does not know are zero. This module repeats its peculiarities:

  - an activation module counts twice, once as a module and once for the function that it calls;
  - a further layer of a stacked RNN, and the second direction, use the shapes of the forward weights;
  - attention that returns its weights has its two matrix products and the softmax counted again;
  - torch.matmul and similar functions count if they are called by name, operators never; a tensor's methods
    matmul, add and mul, which ptflops counts, look like operators here and are not counted.

A layer of setk.nn has its own rule, the method `ptflops(args, output)`: that of the modules which published models are built
from in its place. ptflops itself is not needed; a test compares with it. `hooks` are for those who run it.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from setk.cost.ledger import Inputs, Layer, Ledger, Rule, frame_inputs
from setk.core.errors import UserError
from setk.models import Model


def layers(model: Model, seconds: float = 1.0) -> list[Layer]:
    """MACs of the frames of `seconds` (63 for one), per second and by layer."""
    samples = round(seconds * model.sample_rate)
    per_second = Fraction(model.sample_rate, samples)
    return count(model, frame_inputs(samples // model.transform.hop + 1)).layers(per_second)


def hooks(model: nn.Module) -> dict[type[nn.Module], Callable[[nn.Module, tuple, Any], None]]:
    """The `custom_modules_hooks` with which ptflops itself reads a model of setk.

    ptflops knows a layer by its exact class. A layer of setk.nn, even one that extends nn.Conv2d, is zero to it: without the
    hooks it reads 282 M for lite_rtse, whose depth-wise convolutions are 376 M, and with them 659 M.
    """
    own = {type(module) for module in model.modules() if type(module) not in MODULES and _rule(module) is not _nothing}
    return dict.fromkeys(own, _enter)


def _enter(module: nn.Module, args: tuple, output: Any) -> None:
    """The form of a hook of ptflops: it adds to the attribute in which the tool sums up a module."""
    module.__flops__ += _rule(module)(module, args, output)


def count(model: nn.Module, inputs: Inputs, **options: Any) -> Ledger:
    """MACs of one call of any module; `inputs` makes its arguments, on the meta device."""
    ledger = Ledger(model, rule=lambda module, args, output: _rule(module)(module, args, output))
    with FunctionCounter(ledger):
        return ledger.run(inputs, **options)


class FunctionCounter(TorchFunctionMode):
    """Enters the MACs of the functions that ptflops patches into the ledger."""

    def __init__(self, ledger: Ledger):
        super().__init__()
        self.ledger = ledger

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name.startswith(("avg_pool", "max_pool", "adaptive_", "interpolate", "upsample")):
            raise UserError(
                f"{name} in layer {self.ledger.here} has no rule in the ptflops convention; count it with setk's"
            )
        if func in FUNCTIONS and not hasattr(self.ledger.module, "ptflops"):
            self.ledger.add(FUNCTIONS[func](output, *args, **kwargs))
        return output


def _rule(module: nn.Module) -> Rule:
    """A module's own, or that of its class, or of the nearest base class."""
    if hasattr(module, "ptflops"):
        return type(module).ptflops
    return next((MODULES[kind] for kind in type(module).__mro__ if kind in MODULES), _nothing)


def _nothing(module: nn.Module, args: tuple, output: Any) -> int:
    return 0


def _convolution(m: nn.Module, args: tuple, output: Tensor) -> int:
    positions = args[0] if m.transposed else output
    per_position = math.prod(m.kernel_size) * m.in_channels * (m.out_channels // m.groups)
    bias = output.numel() if m.bias is not None else 0
    return per_position * len(output) * math.prod(positions.shape[2:]) + bias


def _linear(m: nn.Linear, args: tuple, output: Tensor) -> int:
    return output.numel() * (m.in_features + (m.bias is not None))


def _norm(m: nn.Module, args: tuple, output: Tensor) -> int:
    """LayerNorm names its switch otherwise, and so counts once."""
    return output.numel() * (2 if getattr(m, "affine", False) else 1)


def _activation(m: nn.Module, args: tuple, output: Tensor) -> int:
    return output.numel()


# Element-wise work per step and hidden unit, biases apart.
_GATES = {nn.RNN: 1, nn.GRU: 7, nn.LSTM: 10, nn.RNNCell: 1, nn.GRUCell: 7, nn.LSTMCell: 10}


def _rnn(m: nn.RNNBase, args: tuple, output: Any) -> int:
    steps = args[0].shape[0] * args[0].shape[1]
    layers = sum(_rnn_step(m, f"_l{i}") for i in range(m.num_layers))
    return steps * layers * (2 if m.bidirectional else 1)


def _rnn_cell(m: nn.RNNCellBase, args: tuple, output: Any) -> int:
    return args[0].shape[0] * _rnn_step(m, "")


def _rnn_step(m: nn.Module, suffix: str) -> int:
    names = ["weight_ih", "weight_hh"] + ["bias_ih", "bias_hh"] * m.bias
    return sum(getattr(m, name + suffix).numel() for name in names) + _GATES[type(m)] * m.hidden_size


def _attention(m: nn.MultiheadAttention, args: tuple, output: Any) -> int:
    """Scaling, three projections, softmax, two products, and the last projection with a bias in any case."""
    q, k, v = args[:3]
    batch, (lq, lk, lv) = q.shape[0 if m.batch_first else 1], (x.shape[1 if m.batch_first else 0] for x in (q, k, v))
    dq, dk, dv = (x.shape[2] for x in (q, k, v))
    biases = (lq + lk + lv) * dq if m.in_proj_bias is not None else 0
    heads = lq * lk * (dq + dv + m.num_heads)
    return batch * (lq * dq + lq * dq * dq + lk * dk * dk + lv * dv * dv + biases + heads + lq * dv * (dv + 1))


MODULES = {
    **dict.fromkeys([nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d], _convolution),
    nn.Linear: _linear,
    **dict.fromkeys(
        [nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm], _norm
    ),
    **dict.fromkeys([nn.ReLU, nn.PReLU, nn.ELU, nn.LeakyReLU, nn.ReLU6, nn.GELU], _activation),
    **dict.fromkeys([nn.RNN, nn.GRU, nn.LSTM], _rnn),
    **dict.fromkeys([nn.RNNCell, nn.GRUCell, nn.LSTMCell], _rnn_cell),
    nn.MultiheadAttention: _attention,
}


def _elements(output: Tensor, *args: Any, **kwargs: Any) -> int:
    return output.numel()


def _matmul(output: Tensor, a: Tensor, b: Tensor, **kwargs: Any) -> int:
    return a.numel() * b.shape[-1]


def _add_matmul(output: Tensor, bias: Tensor, a: Tensor, b: Tensor, **kwargs: Any) -> int:
    return _matmul(output, a, b) + (bias.numel() if kwargs.get("beta", 1) else 0)


def _attention_again(
    output: Any, query: Tensor, key: Tensor, value: Tensor, width: int, heads: int, *_: Any, **kwargs: Any
) -> int:
    """query [Lq, B, E], key [Lk, B, E]."""
    if not kwargs["need_weights"]:
        return 0
    return query.shape[1] * len(query) * len(key) * (2 * width + heads)


FUNCTIONS = {
    **dict.fromkeys([F.relu, F.prelu, F.elu, F.relu6, F.gelu, F.silu, F.softmax, torch.add, torch.mul], _elements),
    **dict.fromkeys([torch.matmul, torch.mm, torch.bmm, torch.Tensor.mm, torch.Tensor.bmm], _matmul),
    **dict.fromkeys([torch.addmm, torch.baddbmm, torch.Tensor.addmm], _add_matmul),
    F.multi_head_attention_forward: _attention_again,
}
