"""Conv-TasNet checkpoints of asteroid (`pytorch_model.bin`: model_name, model_args, state_dict) as ours, by name.

The pretrained ones that FQSE begins from are of this kind (JorisCos/ConvTasNet_Libri1Mix_enhsingle_16k, CC BY-SA). Nothing in
such a file is run; a weight that is missing, left over or of another shape is an error.
"""

from __future__ import annotations

import os
from typing import Any

from setk import checkpoint, models
from setk.core import config
from setk.core.errors import UserError
from setk.core.files import sha256

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


def load(path: str | os.PathLike) -> tuple[models.Model, dict[str, Any]]:
    """Conv-TasNet with the weights of asteroid's file, and where they come from: `source` and `sha256`, plain values.

    Raises UserError on any other file.
    """
    content = checkpoint.read(path)
    if content.get("model_name") != "ConvTasNet" or not {"model_args", "state_dict"} <= set(content):
        raise UserError(
            f"{path}: not a Conv-TasNet checkpoint of asteroid; expected the keys model_name (ConvTasNet), model_args and state_dict"
        )
    args = content["model_args"]
    missing = [theirs for theirs in SIZES.values() if theirs not in args]
    if missing:
        raise UserError(f"{path}: model_args has no {missing[0]}")
    kinds = {**KIND, "stride": [args["kernel_size"] // 2]}
    unsupported = [
        f"{key} {args[key]}, not {kind[0]}" for key, kind in kinds.items() if args.get(key, kind[0]) not in kind
    ]
    if unsupported:
        raise UserError(f"{path}: conv_tasnet does not support {'; '.join(unsupported)}")
    model = models.build("conv_tasnet", {ours: args[theirs] for ours, theirs in SIZES.items()})
    weights = {ours_of(name): tensor for name, tensor in content["state_dict"].items()}
    expected = model.state_dict()
    faults = [f"{name} is missing" for name in expected if name not in weights]
    faults += [f"{name} is unknown" for name in weights if name not in expected]
    faults += [
        f"{name} is {list(weights[name].shape)}, not {list(expected[name].shape)}"
        for name in expected
        if name in weights and weights[name].shape != expected[name].shape
    ]
    if faults:
        raise UserError(
            f"{path}: {len(faults)} weights do not fit {config.plain(model.config)}: {'; '.join(faults[:3])}"
        )
    model.load_state_dict(weights)
    return model.eval(), {"source": str(path), "sha256": sha256(path)}


def ours_of(name: str) -> str:
    """Our name of a weight of asteroid's."""
    name = name.replace(".filterbank._filters", ".weight")
    parent, _, last = name.rpartition(".")
    return ".".join([parent, {"gamma": "weight", "beta": "bias"}.get(last, last)])
