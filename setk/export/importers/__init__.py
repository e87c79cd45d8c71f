"""Checkpoints that authors of papers published, as ours. Nothing in such a file is run (see `setk.checkpoint.read`).

A file of this folder is one layout: `matches(content)` recognises it, `model(content)` returns the model without weights and
its weights under our names. A weight that is missing, left over or of another shape is an error.
"""

from __future__ import annotations

import os
from typing import Any, Mapping

from torch import Tensor

from setk import checkpoint, models
from setk.core import config
from setk.core.errors import UserError
from setk.core.files import sha256


def load(path: str | os.PathLike) -> tuple[models.Model, dict[str, Any]]:
    """The model in the file of an author, in evaluation mode, and where it is from: `source`, `sha256` and `layout`.

    Raises UserError on a file of no known layout, and on one whose weights do not fit.
    """
    from setk.export.importers import asteroid, dpsnn, fqse, gtcrn

    content = checkpoint.read(path)
    layouts = {module.__name__.rpartition(".")[2]: module for module in (asteroid, dpsnn, fqse, gtcrn)}
    for name, layout in layouts.items():
        if layout.matches(content):
            try:
                model, weights = layout.model(content)
                fill(model, weights)
            except UserError as e:
                raise UserError(f"{path}: {e}") from None
            return model.eval(), {"source": str(path), "sha256": sha256(path), "layout": name}
    raise UserError(
        f"{path}: the layout is unknown; it must be a checkpoint of asteroid's Conv-TasNet, of DPSNN (Lightning), FQSE or GTCRN"
    )


def state_dict(content: Mapping[str, Any], *keys: str) -> dict[str, Tensor]:
    """The mapping of names to tensors under the first of `keys` that holds one, or `content` itself; empty if there is none."""
    for found in (*(content.get(key) for key in keys), content):
        if isinstance(found, Mapping) and found and all(isinstance(value, Tensor) for value in found.values()):
            return dict(found)
    return {}


def shape(weights: Mapping[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    """The shape of a weight from which sizes are read. Raises UserError if it is missing or has other than `dims` dimensions."""
    if name not in weights:
        raise UserError(f"{name} is missing")
    if weights[name].dim() != dims:
        raise UserError(f"{name} is {list(weights[name].shape)}; expected {dims} dimensions")
    return tuple(weights[name].shape)


def fill(model: models.Model, weights: Mapping[str, Tensor]) -> None:
    """Load `weights`, all that the model has and no others. Raises UserError with the first faults."""
    expected = model.state_dict()
    faults = [f"{name} is missing" for name in expected if name not in weights]
    faults += [f"{name} is unknown" for name in weights if name not in expected]
    faults += [
        f"{name} is {list(weights[name].shape)}, not {list(expected[name].shape)}"
        for name in expected
        if name in weights and weights[name].shape != expected[name].shape
    ]
    if faults:
        raise UserError(f"{len(faults)} weights do not fit {config.plain(model.config)}: {'; '.join(faults[:3])}")
    model.load_state_dict(weights)
