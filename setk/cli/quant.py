"""se-quant: a checkpoint in a form that runs elsewhere, or in fewer bits."""

from __future__ import annotations

import math
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Iterator, Optional

import typer

from setk.cli import shell
from setk.cli.train import train as se_train
from setk.core.errors import UserError

app = shell.new_app("""
se-quant export fspen fspen.onnx
se-quant export fspen fspen.c
se-quant export fspen page.html
se-quant ptq fspen fspen8.pt --list noisy.scp
se-quant check fspen fspen8.pt --list noisy.scp --ref clean.scp
""")
Source = Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint, or an included model.")]
Form = typer.Argument(help="A checkpoint, an .onnx or .ts of se-quant export, or an included model.")


class Weights(str, Enum):
    float = "float"
    int8 = "int8"


class Calibration(str, Enum):
    minmax = "minmax"
    percentile = "percentile"
    mse = "mse"


@app.callback()
def quant() -> None:
    """Round models after training; import, export and compare checkpoints."""


@shell.command(
    app, "train", examples="se-train fqse --train shards/mine --valid data/valid --out exp/mine", hidden=True
)
@wraps(se_train)
def train(**options: Any) -> None:
    shell.note("se-quant: 'se-quant train' is se-train; write se-train")
    se_train(**options)


train.__doc__ = "Run se-train, which also trains quantized models: a config with a block 'quantization'."


# fmt: off
@shell.command(
    app,
    examples="""
se-quant ptq fspen fspen8.pt --list noisy.scp --method mse
""",
)
def ptq(
    model: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT.pt", help="Checkpoint to write.")],
    list_: Annotated[str, shell.option("--list", group=shell.INPUT, metavar="LIST", help="Wav list of noisy speech like the model's input; minutes suffice.")],
    method: Annotated[Calibration, typer.Option(help="Ranges: minmax; percentile, without 1 value of 10000; mse, of least squared error.")] = Calibration.mse,
    allow_commands: shell.AllowCommands = False,
) -> None:
    # fmt: on
    """Quantize MODEL without training: measure the ranges of its activations on a list, and write a checkpoint.

    OUT is for se-enhance, for se-quant export as integers, and for se-quant check against MODEL. A signal that
    cannot be read ends the command.
    """
    import torch

    from setk import audio, checkpoint, engines
    from setk.compress import ptq
    from setk.data import lists

    source, file, about, _ = engines.model(model, weights=True)
    if source.quantization:
        raise UserError(f"{model}: is quantized already; use the float checkpoint")
    checkpoint.check_target(out, [file, list_])
    locations = lists.read_wavs(list_, allow_commands).values()
    audio.check_unread({"OUT": out}, locations)

    def waves() -> Iterator[torch.Tensor]:
        for location in locations:
            yield torch.from_numpy(location.read_mono(source.sample_rate)[0])[None]

    ptq.calibrate(source, shell.progress(waves(), len(locations), "se-quant"), method.value)
    checkpoint.save(
        out, source, {}, source=about["provenance"], sha256=about["sha256"], calibration=method.value, list=list_
    )
    shell.note(f"se-quant: {out}: {len(source.activation_quantizers)} ranges from {len(locations)} signals")


# fmt: off
@shell.command(
    app,
    examples="""
se-quant export fspen fspen.onnx
se-quant export fspen fspen.c
se-quant export fspen fspen.c --integer
se-quant export fspen fspen.c --weights int8
se-quant export fspen page.html
se-quant export exp/mine/best.pt mine8.onnx --batch 8
se-quant export exp/fqse/best.pt fqse.onnx --list noisy.scp
se-quant export fspen fspen_sherpa.onnx --for sherpa-onnx
se-quant export fspen fspen_ladspa.so --for ladspa
""",
)
def export(
    ctx: typer.Context,
    model: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: OUT.onnx, OUT.ts for TorchScript, OUT.c and OUT.h, or OUT.html, a page for browsers.")],
    frames: Annotated[int, typer.Option(min=1, max=65536, help="Frames that a call accepts: 1 is live; 16 and more suit files. A model that is not causal accepts any number.")] = 1,
    batch: Annotated[int, typer.Option(min=1, max=65536, help="Signals that a call accepts, for servers.")] = 1,
    weights: Annotated[Weights, shell.option(group=shell.OUTPUT, help="Of C: float, or int8 with a step for each output channel, whose constants have a third of the size.")] = Weights.float,
    runtime: Annotated[Optional[str], shell.option("--for", group=shell.OUTPUT, metavar="RUNTIME", help="Write for another runtime: sherpa-onnx (OUT.onnx, for phones and many languages), or ladspa (OUT.so, a plugin for PipeWire, ffmpeg and audio editors; needs a C compiler).")] = None,
    list_: Annotated[Optional[str], shell.option("--list", group=shell.INPUT, metavar="LIST", help="Wav list on which the file is compared with MODEL, for .onnx and .ts. Without it: white noise. With --integer: noisy speech, from which the ranges of activations come.")] = None,
    min_snr: Annotated[Optional[float], shell.option(group=shell.METRICS, metavar="DB", help="Refuse a file below this SNR to MODEL. Default: 80; 20 with --integer; 15 for a quantized model, which on white noise is a warning.")] = None,
    integer: Annotated[bool, shell.option("--integer", group=shell.OUTPUT, help="Write C without floating point, of fspen: weights are int8, activations and states int16.")] = False,
    allow_commands: shell.AllowCommands = False,
) -> None:
    # fmt: on
    """Write MODEL as ONNX, which se-enhance runs without torch, as TorchScript, for torch.jit.load, as C for a device, or as a page for browsers.

    The graph is the model's chunk forward, with its states as inputs and outputs; the STFT is not part of the graph.
    The file's metadata holds what is needed to run it, and its origin. A quantized MODEL becomes ONNX of int8 weights
    and integer operators. C is one file without libraries, with its interface in OUT.h: it runs a causal float model a hop at a
    time, samples in and samples out. With --weights int8 the file holds its weights as int8. They become float when the program
    starts, or stay int8 if it is compiled with -DSETK_WEIGHTS_INT8. With --integer it is for processors without a floating-point
    unit. A page has microphone, files and spectrograms, needs no network, and holds the weights as
    int8. The command runs the file against the checkpoint, and prints the SNR between the two to stderr.
    """
    if list_ is None:
        shell.refuse(ctx, "without --list", "allow_commands")
    from setk import export as exports
    from setk.data import lists

    signals = None if list_ is None else lists.read_wavs(list_, allow_commands).values()
    made = exports.write(
        model,
        out,
        frames=frames,
        batch=batch,
        runtime=runtime,
        weights=weights.value,
        signals=signals,
        min_snr=min_snr,
        integer=integer,
    )
    compared = "not compared with the checkpoint: no C compiler, or setk's kernels were not built"
    if made["snr_db"] is not None:
        rounded = ", on noise alone, by int8 weights" if weights is Weights.int8 or out.suffix == ".html" else ""
        compared = f"SNR {made['snr_db']:.1f} dB to the checkpoint{rounded}"
    shell.note(f"se-quant: {out}: {made['nodes']} nodes, {made['bytes']} bytes, {compared}")
    if weights is Weights.int8:
        shell.note(f"se-quant: int8 weights: {made['parity']:.1f} dB to the program with the same weights as float")
    if "integer" in made:
        shell.note(
            f"se-quant: {made['integer']} of {made['products']} convolutions and matrix products are of integers"
        )
        if made["integer"] < made["products"]:
            shell.note(
                "se-quant: the rest, recurrent layers included, computes in float from int8 weights: the file is smaller, but "
                "usually not faster than a float one (se-count --time); where time matters, export the float checkpoint"
            )


# fmt: off
@shell.command(
    app,
    examples="""
se-quant check fspen fspen8.pt --list noisy.scp --ref clean.scp
se-quant check exp/fqse/best.pt fqse.onnx --list noisy.scp --integer
""",
)
def check(
    ctx: typer.Context,
    a: Annotated[str, Form],
    b: Annotated[str, Form],
    list_: Annotated[str, shell.option("--list", group=shell.INPUT, metavar="LIST", help="Wav list of noisy speech.")],
    ref: Annotated[Optional[str], shell.option(group=shell.INPUT, metavar="LIST", help="Wav list of the clean speech, to score B less A.")] = None,
    metrics: Annotated[str, shell.option(group=shell.METRICS, metavar="A,B,…", help="With --ref: metrics of se-score, by commas.")] = "pesq_wb,stoi,si_sdr",
    min_snr: Annotated[float, shell.option(group=shell.METRICS, metavar="DB", help="SNR in dB between the outputs, below which an utterance counts as failed. Float forms of a model are above 80, int8 " "is about 30 from its checkpoint, and that about 25 from float.")] = 20.0,
    integer: Annotated[bool, shell.option("--integer", group=shell.METRICS, help="Compute B, an int8 .onnx of Conv-TasNet, by integers alone.")] = False,
    part: shell.Part = None,
    max_fail: shell.MaxFail = 0,
    as_json: shell.Json = False,
    allow_commands: shell.AllowCommands = False,
    trust: shell.Trust = False,
) -> None:
    # fmt: on
    """Compare two forms of a model: the SNR in dB of B's output to A's, for each utterance of a list.

    Writes a table to standard output: utt, snr, and with --ref the score of B less that of A in each metric. Means with
    their interval go to stderr. Equal outputs have an SNR of inf, null with --json. Exits with 1 if an utterance is below
    --min-snr or lacks a score.
    """
    if ref is None:
        shell.refuse(ctx, "without --ref", "metrics")
    from setk import engines
    from setk import metrics as measures
    from setk.data import lists
    from setk.engines import parity

    names = measures.select(measures.listed(metrics)) if ref else ()
    clean = lists.read_wavs(ref, allow_commands) if ref else {}
    one = engines.open(a, trust=trust)
    if integer:
        from setk.compress.integer import IntegerEngine

        two = IntegerEngine(Path(b))
    else:
        two = engines.open(b, trust=trust)
    failures, rows, good = shell.Failures("se-quant", max_fail), [], 0
    entries = lists.take_part(lists.open_wavs(list_, allow_commands), part)
    table = None if as_json else shell.Rows("utt", ["snr", *(f"d_{name}" for name in names)])
    for row in shell.progress(
        parity.compare(one, two, entries, names=names, clean=clean), shell.list_length(list_, part), "se-quant"
    ):
        rows.append(row)
        if row.error:
            failures.add(row.utt, row.error)
        elif not row.snr >= min_snr:
            failures.add(row.utt, f"SNR {row.snr:.1f} dB, below {min_snr:g}")
        else:
            good += 1
        if math.isnan(row.snr):
            continue
        if table:
            table.add(row.utt, [f"{value:.4f}" for value in (row.snr, *row.gains.values())])
        else:
            shell.print_json(
                {"utt": row.utt, "snr": row.snr, **{f"d_{name}": gain for name, gain in row.gains.items()}}
            )
    if not rows:
        raise UserError(f"{list_}: lists no utterances, so nothing was compared")
    for line in parity.words(rows):
        shell.note(f"se-quant: {line}")
    failures.finish(good)


# fmt: off
@shell.command(
    app,
    "import",
    examples="""
se-quant import pytorch_model.bin conv_tasnet.pt
se-quant import model_trained_on_dns3.tar gtcrn.pt
""",
)
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint of an author: asteroid's pytorch_model.bin (Conv-TasNet for one source at 16 kHz), DPSNN's .ckpt, FQSE's .pth, GTCRN's .tar.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.pt", help="Checkpoint to write.")],
) -> None:
    # fmt: on
    """Convert a checkpoint that authors published to one of setk, to enhance with, to export or to train further (se-train --init).

    The layout is recognised by its content. No code in FILE is run.
    """
    from setk import checkpoint
    from setk.export import importers

    checkpoint.check_target(out, [source])
    model, facts = importers.load(source)
    checkpoint.save(out, model, {}, **facts)
    shell.note(f"se-quant: {out}: {model.name}, from a checkpoint in the layout of {facts['layout']}")


def main() -> None:
    shell.run(app, "se-quant")


if __name__ == "__main__":
    main()
