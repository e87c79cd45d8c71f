"""How layers become graphs: a layer that a runtime should see in another form than training has a method `export_forward`.

It accepts what `forward` does and returns the same up to rounding, in operations that graphs have (ONNX, TorchScript).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

from torch import nn


@contextmanager
def exporting(model: nn.Module) -> Iterator[None]:
    """In this block the layers of `model` run in the form in which they are exported."""
    layers = [layer for layer in model.modules() if hasattr(layer, "export_forward")]
    for layer in layers:
        layer.forward = layer.export_forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
