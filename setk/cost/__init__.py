"""What a model costs: parameters, multiply-accumulates by three conventions, synaptic operations, latency, time per hop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from setk.cost import legacy, macs, ptflops
from setk.cost.ledger import Layer
from setk.cost.timing import timing
from setk.engines import Engine
from setk.core.errors import UserError
from setk.models import Model, count_parameters

CONVENTIONS = {"setk": macs.layers, "ptflops": ptflops.layers, "legacy": legacy.layers}


def layers(model: Model, convention: str = "setk", seconds: float = 1.0) -> list[Layer]:
    """Parameters and MACs per second of each layer that has any; the columns sum to those of `report`.

    `seconds`: length of the signal that is counted. It matters to a model with attention over time, whose MACs per second grow
    with it.
    """
    if convention not in CONVENTIONS:
        raise UserError(f"no convention is called '{convention}'; known: {', '.join(CONVENTIONS)}")
    return CONVENTIONS[convention](model, seconds)


def report(
    model: Model,
    convention: str = "setk",
    *,
    seconds: float = 1.0,
    label: str | None = None,
    file: Path | None = None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """The row of `se-count` for a model that is built: plain values, None where there is none.

    `seconds`: as for `layers`; another length than 1 has a key of its own. `label` names the row (default: the model's name). `bytes` is the size of `file`, or of the weights of a
    model without one. `engine`, which runs the same model, is timed on this machine.
    """
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    return {
        "model": label or model.name,
        **count_parameters(model),
        "bytes": file.stat().st_size if file else weights,
        "macs_per_second": sum(layer.macs_per_second for layer in layers(model, convention, seconds)),
        "stft_macs_per_second": macs.stft_macs_per_second(model.transform, model.sample_rate),
        "synops_per_second": None,  # the cost of spikes is measured on audio: setk.cost.synops
        "latency_ms": model.latency_ms,
        "convention": convention,
        **({"seconds": seconds} if seconds != 1 else {}),
        **(timing(engine) if engine else {}),
    }
