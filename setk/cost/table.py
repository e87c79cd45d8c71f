"""The rows of se-count: what the model that MODEL names costs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence

import torch

from setk import cost, engines
from setk.audio import Location
from setk.core.errors import UserError
from setk.cost import macs, synops
from setk.cost.startup import startup
from setk.cost.timing import hop_times
from setk.nn.quantization import unquantized


def count(
    spec: str,
    convention: str = "setk",
    *,
    seconds: float = 1.0,
    layers: bool = False,
    timed: bool = False,
    signals: Iterable[str] | None = None,
    published_rates: bool = False,
    settings: Sequence[str] = (),
    trust: bool = False,
    stft: str | None = None,
) -> dict[str, Any]:
    """The row of MODEL (included name, .pt, .onnx, .ts, preset or YAML config): plain values, None where there is none.

    `convention`: "setk", "ptflops" or "legacy", the definition of a multiply-accumulate (see setk.cost). Keys:
    `model`, `params`, `params_total`, `params_nonzero`, `bytes`, `macs_per_second`, `stft_macs_per_second`,
    `synops_per_second`, `latency_ms`, `convention`. `seconds`, the length of the signal that is counted, matters to models with
    attention over time, and has a key if it is not 1. `timed` adds times on this machine, on one thread (a .ts then needs
    `trust`). `signals`, locations of audio, adds spike rates and what follows from them; with `published_rates`
    recurrent weights count at the rate of their layer's input. `settings`, "key=value", change the model's config under the same
    weights. `layers` adds a list of rows by layer. A quantized
    model is counted as the float model of the same shape. Of an .onnx of another project (`stft`: its transform, see
    engines.ForeignEngine) only size, latency and times are known. Raises UserError.

    >>> count("fspen")["macs_per_second"]
    72528000
    """
    foreign = engines.open(spec, stft=stft) if stft or spec.endswith(".onnx") else None
    if isinstance(foreign, engines.ForeignEngine):
        if layers or signals is not None or convention != "setk":
            raise UserError(f"{spec}: is of another project, whose layers setk does not know; only --time applies")
        return _foreign_row(spec, foreign, timed, stft)
    loaded = engines.model(spec, settings=settings)
    model = unquantized(loaded.model)
    engine = None
    if timed:
        # An included model is timed as it runs by its name.
        engine = engines.open(spec, trust=trust) if loaded.file else engines.TorchEngine(model)
    row = cost.report(model, convention, seconds=seconds, label=spec, file=loaded.file, engine=engine)
    if timed:
        row |= hop_times(engines.every(spec) if loaded.file else {"torch": engine})
        row |= startup(spec if loaded.file else loaded, model.causal, ["--trust"] if trust else [])
    if signals is not None:
        if loaded.file and not loaded.has_weights:
            raise UserError(f"{spec}: spikes are measured on a checkpoint; use the .pt that it was exported from")
        row |= synops.report(model.eval(), _waves(signals, model.sample_rate), published_rates)
    if loaded.file and not loaded.has_weights:
        row["params_nonzero"] = None  # unknown: an export holds the weights in another form
    if layers:
        row["layers"] = [asdict(layer) for layer in cost.layers(model, convention, seconds)]
    return row


def _foreign_row(spec: str, engine: engines.ForeignEngine, timed: bool, stft: str | None) -> dict[str, Any]:
    unknown = ("params", "params_total", "params_nonzero")
    row = {
        "model": spec,
        **dict.fromkeys(unknown),
        "bytes": Path(spec).stat().st_size,
        "macs_per_second": None,
        "stft_macs_per_second": macs.stft_macs_per_second(engine.transform, engine.sample_rate),
        "synops_per_second": None,
        "latency_ms": engines.latency_ms(engine),
        "convention": "setk",
    }
    if timed:
        row |= cost.timing(engine) | hop_times({"onnx": engine}) | startup(spec, True, ["--stft", stft] if stft else [])
    return row


def layer_rows(spec: str, convention: str = "setk", seconds: float = 1.0) -> Iterator[dict[str, Any]]:
    """A row for each layer of MODEL that has parameters or multiply-accumulates; they sum to those of `count`."""
    for layer in cost.layers(unquantized(engines.model(spec).model), convention, seconds):
        yield {"model": spec, **asdict(layer)}


def _waves(locations: Iterable[str], rate: int) -> Iterator[torch.Tensor]:
    """Utterances [n], mono. The first that cannot be read ends the measurement."""
    for location in locations:
        yield torch.from_numpy(Location.parse(location).read_mono(rate)[0])
