"""se-count: what a model costs, in parameters, multiply-accumulates, latency and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Iterable, Iterator, Optional

import typer

from setk.cli import shell
from setk.core.errors import UserError

if TYPE_CHECKING:
    import torch

    from setk.audio import Location
    from setk.models import Model

app = shell.new_app()


class Convention(str, Enum):
    setk = "setk"
    ptflops = "ptflops"
    legacy = "legacy"


@app.command()
def count(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="checkpoint, shipped model, preset, or YAML conf")],
    layers: Annotated[bool, typer.Option("--layers", help="a row for each layer; they sum to the model's figures")] = False,
    convention: Annotated[
        Convention, typer.Option(help="what a MAC is: setk's own; or ptflops' rules, or thop's (legacy), as in published tables")
    ] = Convention.setk,
    timed: Annotated[bool, typer.Option("--time", help="measure time per hop and real-time factor, on one thread")] = False,
    list_: Annotated[Optional[str], typer.Option("--list", help="wav list on which spiking models are measured")] = None,
    published_rates: Annotated[
        bool, typer.Option("--published-rates", help="with --list: recurrent weights at the rate of their layer's input")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per model and line, instead of a table")] = False,
) -> None:
    """Count a model's parameters and multiply-accumulates (MACs) per second of audio.

    Writes a table to standard output, a row per MODEL: learnable, total and non-zero parameters, bytes on
    disk, MACs of the network and of its STFT, algorithmic latency. No bias, norm or activation counts as a
    MAC, unless --convention tells to. With --list, spiking models are run on audio, and their spike rates, synaptic
    operations per second, and power and PDP proxy, in operations, are told.
    """
    from setk.data import lists

    utts = None if list_ is None else list(lists.read_wavs(list_).values())
    rows = _rows(models, layers, convention.value, timed, as_json, utts, published_rates)
    if as_json:
        for row in rows:
            print(json.dumps(row), flush=True)
    else:
        _table(rows)


def _rows(specs: list[str], by_layer: bool, convention: str, timed: bool, whole: bool, utts: list[str] | None,
          published: bool) -> Iterator[dict[str, Any]]:
    """A row per model, or per layer; `whole` puts the layers inside their model's row."""
    from dataclasses import asdict

    from setk import cost
    from setk.cost import synops
    from setk.engines import open_engine

    for spec in specs:
        model, file = resolve(spec)
        weights = file is None or file.suffix == ".pt"
        if by_layer and not whole:
            yield from ({"model": spec, **asdict(layer)} for layer in cost.layers(model, convention))
            continue
        with _as_file(model, file) if timed else nullcontext() as path:
            row = cost.report(model, convention, label=spec, file=file, engine=path and open_engine(str(path)))
            row |= _process(path, model.causal) if path else {}
        if utts is not None:
            if not weights:
                raise UserError(f"{spec}: spikes are measured on a checkpoint; give the .pt that it was exported from")
            row |= synops.report(model.eval(), _waves(utts, model.sample_rate), published)
        if not weights:
            row["params_nonzero"] = None  # an .onnx holds them folded together
        yield row | ({"layers": [asdict(layer) for layer in cost.layers(model, convention)]} if by_layer else {})


def _waves(locations: list[Location], rate: int) -> Iterator[torch.Tensor]:
    """Utterances, mono. A measurement has no room for failures: the first that cannot be read ends it."""
    import torch

    for location in locations:
        yield torch.from_numpy(location.read_mono(rate)[0])


def resolve(spec: str) -> tuple[Model, Path | None]:
    """The model that MODEL names, and its file if it has one. A shipped model goes before a preset; of an .onnx
    the model is built from what the file says of itself, without its weights; a quantized one counts by its rounded weights."""
    from setk import checkpoint, models
    from setk.core import config
    from setk.engines import OnnxEngine
    from setk.nn.quantization import unquantized
    from setk.training.settings import Settings

    if spec.endswith((".yaml", ".yml")):
        conf = config.build(Settings, config.read_yaml(spec), spec)
        return models.build(conf.model, models.config_values(conf.model, conf.preset, conf.config)), None
    known = {*models.presets(), *checkpoint.shipped()}
    if spec in known - {*checkpoint.shipped()}:
        return models.build_preset(spec), None
    if spec not in known and os.sep not in spec and not Path(spec).is_file():
        raise models.unknown(spec, sorted(known))
    file = checkpoint.find(spec)
    if file.suffix == ".onnx":
        about = OnnxEngine(file).about
        return models.build(about["model"], about["config"]), file
    return unquantized(checkpoint.load(file)[0]), file


@contextmanager
def _as_file(model: Model, file: Path | None) -> Iterator[Path]:
    """The model's file, or one that is made of it for a while."""
    import tempfile

    from setk import checkpoint

    if file:
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "preset.pt"
        checkpoint.save(path, model, {})
        yield path


def _process(path: Path, causal: bool, seconds: int = 10) -> dict[str, float | None]:
    """Of a whole se-enhance process on a pipe: `start_s` to its first audio, and `peak_mib` of its memory, which
    is told where there is a /proc (what getrusage tells of a child includes what its parent held). A model that is not
    causal takes windows of a second."""
    start = time.perf_counter()
    window = [] if causal else ["--chunk", "1"]
    child = subprocess.Popen([sys.executable, "-P", "-m", "setk.cli.enhance", str(path), "-", "-", "--raw", *window],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    feeder = threading.Thread(target=child.stdin.write, args=(bytes(2 * 16000 * seconds),))
    feeder.start()
    child.stdout.read(1)
    first = time.perf_counter() - start
    child.stdout.read(2 * 16000 * (seconds - 1))  # what is left fits into the pipe, so that neither end waits
    status = Path(f"/proc/{child.pid}/status")
    peak = next((int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM")),
                None) if status.exists() else None
    feeder.join()
    child.communicate()
    return {"start_s": round(first, 3), "peak_mib": peak and round(peak, 1)}


def _table(rows: Iterable[dict[str, Any]]) -> None:
    """TSV with a header; what a model does not have is nan, and several values stand as name=value."""
    for i, row in enumerate(rows):
        if i == 0:
            print(*row, sep="\t")
        print(*map(_cell, row.values()), sep="\t", flush=True)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{k}={v:.4g}" for k, v in value.items())
    return "nan" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)


def main() -> None:
    shell.run(app, "se-count")


if __name__ == "__main__":
    main()
