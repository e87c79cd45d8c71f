"""GTCRN's public checkpoints (`model_trained_on_dns3.tar`, `model_trained_on_vctk.tar`: a state dict under `model`), by name.

The decoder's GT blocks are transposed convolutions there: their 1x1 kernels have swapped axes, their depth-wise kernels are
flipped in time and frequency. The two ERB matrices are fixed, and are compared with ours.
"""

from __future__ import annotations

import re
from typing import Any, Mapping

import torch
from torch import Tensor

from setk import models
from setk.core.errors import UserError
from setk.export.importers import shape, state_dict

ENDS = {"conv": "0", "bn": "1", "act": "2"}
PLACES = {"encoder.en_convs.0": "narrow.0", "encoder.en_convs.1": "narrow.1"}
PLACES |= {f"encoder.en_convs.{i + 2}": f"encoder.{i}" for i in range(3)}
PLACES |= {f"decoder.de_convs.{i}": f"decoder.{i}" for i in range(3)}
PLACES |= {"decoder.de_convs.3": "widen", "decoder.de_convs.4": "mask"}
# Of a GT block.
PARTS = {
    "point_conv1": "spread.0",
    "point_bn1": "spread.1",
    "point_act": "spread.2",
    "depth_conv": "depthwise.0",
    "depth_bn": "depthwise.1",
    "depth_act": "depthwise.2",
    "point_conv2": "join.0",
    "point_bn2": "join.1",
    "tra.att_gru": "attention",
    "tra.att_fc": "gain",
}


def matches(content: Mapping[str, Any]) -> bool:
    return "erb.erb_fc.weight" in state_dict(content, "model", "state_dict")


def model(content: Mapping[str, Any]) -> tuple[models.Model, dict[str, Tensor]]:
    theirs = state_dict(content, "model", "state_dict")
    channels = shape(theirs, "encoder.en_convs.0.conv.weight", 4)[0]
    count = len({name.split(".")[0] for name in theirs if name.startswith("dpgrnn")})
    built = models.build("gtcrn", {"channels": channels, "blocks": count})
    for name, ours in (("erb.erb_fc.weight", built.erb), ("erb.ierb_fc.weight", built.erb.T)):
        if shape(theirs, name, 2) != tuple(ours.shape) or not torch.allclose(theirs.pop(name), ours, atol=1e-5):
            raise UserError(f"{name} is not the matrix of 64 ERB bands from bin 65 to 256 of GTCRN")
    weights = {}
    recurrent: dict[str, dict[tuple[int, int], Tensor]] = {}
    for name, tensor in theirs.items():
        gru = re.fullmatch(r"dpgrnn(\d)\.(intra|inter)_rnn\.rnn([12])\.(\w+)_l0(_reverse)?", name)
        if gru:
            half, reverse = int(gru[3]) - 1, int(bool(gru[5]))
            recurrent.setdefault(f"rnns.{int(gru[1]) - 1}.{gru[2]}/{gru[4]}", {})[half, reverse] = tensor
        else:
            weights[ours_of(name)] = _plain(name, tensor)
    for place, parts in recurrent.items():
        path, weight = place.split("/")
        if path.endswith("intra"):  # a module for each half of the channels, a group for each direction
            for half in (0, 1):
                weights[f"{path}.{half}.{weight}"] = _stack(place, parts, [(half, 0), (half, 1)])
        else:
            weights[f"{path}.{weight}"] = _stack(place, parts, [(0, 0), (1, 0)])
    return built, weights


def _stack(place: str, parts: Mapping[tuple[int, int], Tensor], order: list[tuple[int, int]]) -> Tensor:
    if not set(order) <= set(parts) or len({parts[key].shape for key in order}) > 1:
        raise UserError(f"{place}: the GRUs of both halves or directions are not all there, or differ in size")
    return torch.stack([parts[key] for key in order])


def ours_of(name: str) -> str:
    """Our name of a weight of GTCRN's; an unknown one is unchanged."""
    norm = re.fullmatch(r"dpgrnn(\d)\.(intra|inter)_(fc|ln)\.(\w+)", name)
    if norm:
        return f"rnns.{int(norm[1]) - 1}.{norm[2]}_{norm[3].replace('ln', 'norm')}.{norm[4]}"
    place = re.fullmatch(r"(\w+\.\w+\.\d)\.(.+)\.(\w+)", name)
    if place and place[1] in PLACES:
        part = {**ENDS, **PARTS}.get(place[2], place[2])
        return f"{PLACES[place[1]]}.{part}.{place[3]}"
    return name


def _plain(name: str, tensor: Tensor) -> Tensor:
    """The kernel of the plain convolution that a transposed one of stride 1 is."""
    if re.fullmatch(r"decoder\.de_convs\.[012]\.point_conv[12]\.weight", name) and tensor.dim() == 4:
        return tensor.transpose(0, 1).contiguous()
    if re.fullmatch(r"decoder\.de_convs\.[012]\.depth_conv\.weight", name) and tensor.dim() == 4:
        return tensor.flip(2, 3)
    return tensor
