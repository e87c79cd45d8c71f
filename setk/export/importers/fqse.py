"""FQSE's quantized Conv-TasNet (`.pth`: a state dict, or one under `state_dict`), of both its trainings, by name.

With a splitter and a residual block it is FQSE, without them the vanilla training that the paper compares with. FQSE's
activation ranges may begin off the grid: its 0 lies between two levels. Ours are moved so that 0 is a level, as its own
export does; this shifts a range by at most half a level. What the last block computes for nobody (res_conv's output and its sum)
has no quantizer here.
"""

from __future__ import annotations

import re
from typing import Any, Mapping

import torch
from torch import Tensor

from setk import models
from setk.core.errors import UserError
from setk.export.importers import shape, state_dict

OBSERVE = 50  # calls in which FQSE observes ranges, all of them over
FIRST = "masker.TCN.0.shared_block.0.conv1d.weight"
# Module of FQSE -> the key here of the quantizer of its output. A module that is not in the table has its own name.
ACTIVATIONS = {
    "decoder": "output",
    "decoder.residual_error_block": "sub",
    "decoder.residual": "residual_output",
    "encoder.in_quantizer": "input",
    "masker.mask_net.1": "masker/mask_net/2",
}


def matches(content: Mapping[str, Any]) -> bool:
    weights = state_dict(content, "state_dict")
    return "encoder.conv1d.weight" in weights and "decoder.convTr1d.weight" in weights


def model(content: Mapping[str, Any]) -> tuple[models.Model, dict[str, Tensor]]:
    theirs = state_dict(content, "state_dict")
    filters, planes, window = shape(theirs, "encoder.conv1d.weight", 3)
    hidden, bottleneck, _ = shape(theirs, FIRST, 3)
    skip = shape(theirs, "masker.TCN.0.skip_conv.conv1d.weight", 3)[0]
    kernel = shape(theirs, "masker.TCN.0.shared_block.3.conv1d.weight", 3)[2]
    count = len({name.split(".")[2] for name in theirs if name.startswith("masker.TCN.")})
    if count % 3:
        raise UserError(f"has {count} blocks; FQSE has three repeats")
    if shape(theirs, "masker.mask_net.1.conv1d.weight", 3)[0] != filters:
        raise UserError("separates more than one source; conv_tasnet enhances one")
    residual = "decoder.residual_error_block.residual_encoder.weight" in theirs
    sizes = {
        "window": window,
        "filters": filters,
        "bottleneck": bottleneck,
        "hidden": hidden,
        "skip": skip,
        "kernel": kernel,
        "blocks": count // 3,
        "repeats": 3,
        "splitter": planes,
        "residual": residual,
    }
    scheme = {"method": "fqse" if residual or planes > 1 else "vanilla", "observe": OBSERVE}
    built = models.build("conv_tasnet", sizes, scheme)
    weights = {}
    for name, tensor in theirs.items():
        ours = ours_of(name)
        if ours:
            weights[ours] = tensor
    weights |= _ranges(theirs, count - 1)
    # The splitter's planes are exact in 8 bits, so their quantizer is given; and every range has been observed.
    weights |= {
        name: tensor if planes > 1 and name.startswith("activation_quantizers.input.") else torch.tensor(OBSERVE)
        for name, tensor in built.state_dict().items()
        if name.endswith(".seen") or planes > 1 and name.startswith("activation_quantizers.input.")
    }
    return built, weights


def ours_of(name: str) -> str | None:
    """Our name of a weight of FQSE's; None for a range, which is two tensors there, and for what nobody reads."""
    if name.endswith("_range"):
        return None
    if name == "decoder.residual_error_block.residual_encoder.weight":
        return "residual_encoder.parametrizations.weight.original"
    fused = re.fullmatch(r"(.*\.shared_block)\.(\d)\.nl\.weight", name)
    if fused:  # PReLU, fused into the convolution before it
        return f"{fused[1]}.{int(fused[2]) + 1}.weight"
    parent, _, tail = name.rpartition(".")
    module, _, kind = parent.rpartition(".")
    if kind in ("conv1d", "convTr1d"):
        return f"{module}.parametrizations.weight.original" if tail == "weight" else f"{module}.{tail}"
    return f"{module}.{tail}" if kind in ("groupnorm", "nl") else name


def _ranges(theirs: Mapping[str, Tensor], last: int) -> dict[str, Tensor]:
    """Peaks of weights and ranges of activations under our names."""
    found = {}
    for name in theirs:
        stem, limit, _ = name.partition(".min_range")
        if not limit:
            continue
        if f"{stem}.max_range" not in theirs:
            raise UserError(f"{stem}.max_range is missing")
        low, high = theirs[name], theirs[f"{stem}.max_range"]
        module, _, kind = stem.rpartition(".")
        if kind == "weight_fake_quantize":
            module = "residual_encoder" if module == "decoder.residual_error_block" else module
            found[f"{module}.parametrizations.weight.0.peak"] = torch.maximum(low.abs(), high.abs()).flatten()
            continue
        if kind == "activation_fake_quantize_residual":
            module = "decoder.residual"
        elif kind == "in_quantizer":
            module = stem
        if module in (f"masker.TCN.{last}.res_conv", f"masker.TCN.{last}.add"):
            continue
        key = f"activation_quantizers.{_output_of(module)}"
        found |= {f"{key}.lo": low.reshape(()), f"{key}.hi": high.reshape(())}
    return found


def _output_of(module: str) -> str:
    """The key of the quantizer of what a module of FQSE's returns."""
    if module in ACTIVATIONS:
        return ACTIVATIONS[module]
    added = re.fullmatch(r"masker\.TCN\.(\d+)\.add", module)
    if added:
        return f"masker/residual_adds/{added[1]}"
    fused = re.fullmatch(r"(masker\.TCN\.\d+\.shared_block)\.([03])", module)
    if fused:
        module = f"{fused[1]}.{int(fused[2]) + 1}"
    return module.replace("masker.adds.", "masker.skip_adds.").replace(".", "/")
