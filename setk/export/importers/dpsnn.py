"""DPSNN's checkpoints of PyTorch Lightning (state_dict, hyper_parameters), 24 tensors with one block, by name.

The repository of the paper (tao-sun/dpsnn) names `epoch=478-val_loss=81.5449-val_sisnr=-18.4556.ckpt`. Sizes are those of the
tensors; the hop is in no shape and is read from the hyper-parameter `stride`.
"""

from __future__ import annotations

import re
from typing import Any, Mapping

from torch import Tensor

from setk import models
from setk.core.errors import UserError
from setk.export.importers import shape, state_dict

NAMES = {
    "readout_threshold": "readout.threshold",
    "encoder_1d.weight": "encoder.weight",
    "encoder_1d.bias": "encoder.bias",
    "ln.weight": "norm.weight",
    "ln.bias": "norm.bias",
    "proj.weight": "binary.dense.weight",
    "proj.bias": "binary.dense.bias",
    "proj.threshold": "binary.threshold",
    "srnn_readout.neuro.alpha": "readout.alpha",
    "srnn_readout.dense.weight": "readout.dense.weight",
    "srnn_readout.dense.bias": "readout.dense.bias",
    "mask.weight": "mask.weight",
    "mask.bias": "mask.bias",
    "decoder_1d.weight": "decoder.weight",
    "decoder_1d.bias": "decoder_bias",
}
# Of block j, whose two parts are repeats.j.0 and repeats.j.1.
PARTS = {
    "0.dconv": "scnn.conv",
    "0.neuron": "scnn",
    "1.neuro": "srnn",
    "1.dense": "srnn.dense",
    "1.recurrent": "srnn.recurrent",
}
RESHAPED = {
    "encoder.weight": lambda w: w[:, 0],  # [N, 1, L]
    "binary.dense.weight": lambda w: w[..., 0],  # [B, N, 1]
    "mask.weight": lambda w: w[..., 0],  # [N, B, 1]
    "decoder.weight": lambda w: w[:, 0].T,  # of a transposed convolution, [N, 1, L]
    "decoder_bias": lambda b: b[0],
}


def matches(content: Mapping[str, Any]) -> bool:
    return "srnn_readout.dense.weight" in state_dict(content, "state_dict")


def model(content: Mapping[str, Any]) -> tuple[models.Model, dict[str, Tensor]]:
    theirs = state_dict(content, "state_dict")
    given = content.get("hyper_parameters") or {}
    features, _, window = shape(theirs, "encoder_1d.weight", 3)
    width = shape(theirs, "proj.weight", 3)[0]
    hidden, _, taps = shape(theirs, "repeats.0.0.dconv.weight", 3)
    hop, rate = given.get("stride"), given.get("sr", 16000)
    if not isinstance(hop, int) or not 0 < hop <= window:
        raise UserError(f"hyper_parameters: stride is {hop!r}; expected samples, at most the window of {window}")
    if rate != 16000:
        raise UserError(f"hyper_parameters: sr is {rate}; dpsnn works at 16000 Hz")
    blocks = {int(name.split(".")[1]) for name in theirs if re.match(r"repeats\.\d+\.", name)}
    built = models.build(
        "dpsnn",
        {
            "window": window,
            "hop": hop,
            "encoder": features,
            "width": width,
            "hidden": hidden,
            "blocks": len(blocks),
            "context": (taps - 1) * hop / rate,
        },
    )
    weights = {ours_of(name): tensor for name, tensor in theirs.items()}
    # A tensor of another rank stays as it is, and does not fit.
    ranks = {name: 1 if name == "decoder_bias" else 3 for name in RESHAPED}
    for name, reshaped in RESHAPED.items():
        if name in weights and weights[name].dim() == ranks[name]:
            weights[name] = reshaped(weights[name])
    return built, weights


def ours_of(name: str) -> str:
    """Our name of a weight of DPSNN's; an unknown one is unchanged."""
    block = re.fullmatch(r"repeats\.(\d+)\.(\d\.\w+)\.(\w+)", name)
    if block and block[2] in PARTS:
        return f"blocks.{block[1]}.{PARTS[block[2]]}.{block[3]}"
    return NAMES.get(name, name)
