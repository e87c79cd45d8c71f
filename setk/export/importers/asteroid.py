"""Conv-TasNet checkpoints of asteroid (`pytorch_model.bin`: model_name, model_args, state_dict), by name.

The pretrained ones that FQSE begins from are of this kind (JorisCos/ConvTasNet_Libri1Mix_enhsingle_16k, CC BY-SA).
"""

from __future__ import annotations

from typing import Any, Mapping

from torch import Tensor

from setk import models
from setk.core.errors import UserError

# Ours -> asteroid's argument, and what those may be of which ours knows one kind.
SIZES = {
    "window": "kernel_size",
    "filters": "n_filters",
    "bottleneck": "bn_chan",
    "hidden": "hid_chan",
    "skip": "skip_chan",
    "kernel": "conv_kernel_size",
    "blocks": "n_blocks",
    "repeats": "n_repeats",
}
KIND = {
    "fb_name": ["free"],
    "n_src": [1],
    "norm_type": ["gLN"],
    "mask_act": ["relu"],
    "causal": [False],
    "encoder_activation": [None, "linear"],
    "sample_rate": [16000],
}


def matches(content: Mapping[str, Any]) -> bool:
    return content.get("model_name") == "ConvTasNet" and {"model_args", "state_dict"} <= set(content)


def model(content: Mapping[str, Any]) -> tuple[models.Model, dict[str, Tensor]]:
    args = content["model_args"]
    missing = [theirs for theirs in SIZES.values() if theirs not in args]
    if missing:
        raise UserError(f"model_args has no {missing[0]}")
    kinds = {**KIND, "stride": [args["kernel_size"] // 2]}
    unsupported = [
        f"{key} {args[key]}, not {kind[0]}" for key, kind in kinds.items() if args.get(key, kind[0]) not in kind
    ]
    if unsupported:
        raise UserError(f"conv_tasnet does not support {'; '.join(unsupported)}")
    built = models.build("conv_tasnet", {ours: args[theirs] for ours, theirs in SIZES.items()})
    return built, {ours_of(name): tensor for name, tensor in content["state_dict"].items()}


def ours_of(name: str) -> str:
    """Our name of a weight of asteroid's."""
    name = name.replace(".filterbank._filters", ".weight")
    parent, _, last = name.rpartition(".")
    return ".".join([parent, {"gamma": "weight", "beta": "bias"}.get(last, last)])
