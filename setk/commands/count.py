"""se-count: what a model costs, in parameters, multiply-accumulates, latency and time."""

from __future__ import annotations

import json
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Iterable, Iterator

import typer

from setk.commands import shell

if TYPE_CHECKING:
    from setk.models import Model

app = shell.new_app()


class Convention(str, Enum):
    setk = "setk"
    ptflops = "ptflops"


@app.command()
def count(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="checkpoint, shipped model, preset, or YAML conf")],
    layers: Annotated[bool, typer.Option("--layers", help="a row for each layer; they sum to the model's figures")] = False,
    convention: Annotated[
        Convention, typer.Option(help="what a MAC is: setk's own, or ptflops' rules, as in published tables")
    ] = Convention.setk,
    timed: Annotated[bool, typer.Option("--time", help="measure time per hop and real-time factor, on one thread")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per model and line, instead of a table")] = False,
) -> None:
    """Count a model's parameters and multiply-accumulates (MACs) per second of audio.

    Writes a table to standard output, a row per MODEL: learnable, total and non-zero parameters, bytes on
    disk, MACs of the network and of its STFT, algorithmic latency. No bias, norm or activation counts as a
    MAC, unless --convention ptflops.
    """
    rows = _rows(models, layers, convention.value, timed, as_json)
    if as_json:
        for row in rows:
            print(json.dumps(row), flush=True)
    else:
        _table(rows)


def _rows(specs: list[str], by_layer: bool, convention: str, timed: bool, whole: bool) -> Iterator[dict[str, Any]]:
    """A row per model, or per layer; `whole` puts the layers inside their model's row."""
    from dataclasses import asdict

    from setk import cost

    for spec in specs:
        model, file = resolve(spec)
        if by_layer and not whole:
            yield from ({"model": spec, **asdict(layer)} for layer in cost.layers(model, convention))
            continue
        row = cost.report(model, convention, label=spec, file=file, timed=timed)
        yield row | ({"layers": [asdict(layer) for layer in cost.layers(model, convention)]} if by_layer else {})


def resolve(spec: str) -> tuple[Model, Path | None]:
    """The model that MODEL names, and its file if it is a checkpoint. A shipped model goes before a preset."""
    from setk import checkpoint, config, models
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
    return checkpoint.load(file)[0], file


def _table(rows: Iterable[dict[str, Any]]) -> None:
    """TSV with a header; what a model does not have is nan."""
    for i, row in enumerate(rows):
        if i == 0:
            print(*row, sep="\t")
        print(*("nan" if v is None else f"{v:.10g}" if isinstance(v, float) else v for v in row.values()), sep="\t", flush=True)


def main() -> None:
    shell.run(app, "se-count")


if __name__ == "__main__":
    main()
