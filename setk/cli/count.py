"""se-count: what a model costs, in parameters, multiply-accumulates, latency and time."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Optional

import typer

from setk.cli import shell
from setk.core.errors import UserError

app = shell.new_app()
EXAMPLES = """
se-count fspen dpcrn_cf
se-count fspen --convention ptflops --layers
se-count fspen exp/mine/best.pt --time
se-count effifusion_gan --seconds 2
se-count fspen --target m7                               # flash, RAM and instructions of its C on a Cortex-M
se-count dpsnn --list noisy.scp                          # synaptic operations
se-count dpsnn --list noisy.scp --set suppression=0.3    # of fewer events
"""


class Convention(str, Enum):
    setk = "setk"
    ptflops = "ptflops"
    legacy = "legacy"


class Target(str, Enum):
    m3 = "m3"
    m4 = "m4"
    m7 = "m7"
    m33 = "m33"
    m55 = "m55"


# fmt: off
@shell.command(app, examples=EXAMPLES)
def count(
    ctx: typer.Context,
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="A checkpoint or its export, an included model, a preset, or a YAML config.")],
    layers: Annotated[bool, shell.option("--layers", group=shell.OUTPUT, help="Print a row for each layer; they sum to the model's figures.")] = False,
    convention: Annotated[Convention, shell.option(group=shell.METRICS, help="What a MAC is: setk's definition; the rules of ptflops; or those of thop (legacy), as in published tables.")] = Convention.setk,
    seconds: Annotated[float, shell.option(group=shell.METRICS, metavar="S", min=0.1, max=60.0, help="Length of the signal that is counted. It matters to models with attention over time, whose MACs per second grow with it.")] = 1.0,
    timed: Annotated[bool, shell.option("--time", group=shell.METRICS, help="Measure time per hop by every engine that runs the model here, real-time factor, start and memory, on one thread.")] = False,
    target: Annotated[Optional[Target], shell.option(group=shell.METRICS, help="Print flash, RAM and instructions of the model's C on a Cortex-M in place of the row: measured with gcc-arm-none-eabi and QEMU, or stored. MODEL may be a .c.")] = None,
    list_: Annotated[Optional[str], shell.option("--list", group=shell.METRICS, metavar="LIST", help="Wav list on which spiking models are measured.")] = None,
    published_rates: Annotated[bool, shell.option("--published-rates", group=shell.METRICS, help="With --list: count recurrent weights at the rate of their layer's input.")] = False,
    set_: shell.Set = [],
    as_json: shell.Json = False,
    stft: shell.Stft = None,
    trust: shell.Trust = False,
) -> None:
    # fmt: on
    """Count a model's parameters and multiply-accumulates (MACs) per second of audio.

    Writes a table to standard output, a row per MODEL: learnable, total and non-zero parameters, bytes on
    disk, MACs of the network and of its STFT, algorithmic latency. No bias, norm or activation counts as a
    MAC, except as --convention defines it. With --list, spiking models run on audio, and the row has their spike
    rates, synaptic operations per second, power proxy and PDP proxy (in operations).
    """
    if target is not None:
        shell.only(ctx, "with --target", "models", "target", "trust", "as_json")
        from setk.export.c import targets

        return shell.print_rows((row for spec in models for row in targets.rows(spec, target.value, trust=trust)), as_json)
    if layers and not as_json:
        shell.only(ctx, "with --layers, except with --json", "models", "layers", "convention", "seconds")
    if not timed:
        shell.refuse(ctx, "without --time or, for a .c, --target", "trust")
    if list_ is None:
        shell.refuse(ctx, "without --list", "published_rates")
    from setk.cost import table
    from setk.data import lists

    signals = None if list_ is None else list(lists.read_wavs(list_).values())
    if signals == []:
        raise UserError(f"{list_}: lists no utterances, so nothing was measured")
    if layers and not as_json:
        shell.print_table(row for spec in models for row in table.layer_rows(spec, convention.value, seconds))
        return
    if timed:
        shell.refuse(ctx, "with --time", "set_")
    rows = (
        table.count(
            spec,
            convention.value,
            seconds=seconds,
            layers=layers,
            timed=timed,
            signals=signals,
            published_rates=published_rates,
            settings=set_,
            trust=trust,
            stft=stft,
        )
        for spec in models
    )
    shell.print_rows(rows, as_json)


def main() -> None:
    shell.run(app, "se-count")


if __name__ == "__main__":
    main()
