"""se-quant: a checkpoint in a form that runs elsewhere, or in fewer bits."""

from __future__ import annotations

from enum import Enum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Iterator, Optional

import typer

from setk.cli import shell
from setk.cli.train import train as se_train
from setk.core.errors import AudioError, UserError

if TYPE_CHECKING:
    import numpy as np

    from setk.engines import Engine

app = shell.new_app()
LEAST_PARITY = 80.0   # dB; float32 in another order of summation stays above 100
LEAST_ROUNDED = 15.0  # of a quantized model on noise: a rounding that flips flips others after it, which leaves 20 to 50


class Calibration(str, Enum):
    minmax = "minmax"
    percentile = "percentile"
    mse = "mse"


@app.callback()
def quant() -> None:
    """Train with rounding, round after training, import, export and compare checkpoints."""


@app.command("train")
@wraps(se_train)
def train(conf: str, set_: list[str], init: str | None, **rest: Any) -> None:
    from setk.training import settings

    if settings.resolve(conf, set_, init).quantization is None:
        raise UserError(f"{conf}: has no block 'quantization'; write one, as 'quantization: {{method: fqse}}', or use se-train")
    se_train(conf=conf, set_=set_, init=init, **rest)


train.__doc__ = """Train CONF's model with weights and activations rounded to 8 bits, best from a float checkpoint, --init.

    As se-train, with a block 'quantization' in the conf: method 'vanilla' (ranges as observed) or 'fqse' (ranges learn), and
    'observe', the first calls, in which ranges are observed. Of conv_tasnet a float checkpoint without splitter and residual
    can begin one with them. OUT's checkpoints are for se-enhance, and for se-quant export as integers.
    """


@app.command()
def ptq(
    model: Annotated[str, typer.Argument(help="A float checkpoint, or the name of a model that ships.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.pt", help="Checkpoint to write.")],
    list_: Annotated[str, typer.Option("--list", help="Wav list of noisy speech, as the model will meet it; minutes will do.")],
    method: Annotated[Calibration, typer.Option(
        help="Ranges: minmax; percentile, which leaves out 1 value of 10000; mse, of least squared error.")] = Calibration.mse,
    allow_commands: Annotated[bool, typer.Option("--allow-commands", help="Run list entries that end in '|'.")] = False,
) -> None:
    """Write a quantized checkpoint of MODEL without training: ranges of activations are measured on a list.

    OUT is for se-enhance, for se-quant export as integers, and for se-quant check against MODEL. A signal that
    cannot be read ends the command.
    """
    from setk import checkpoint
    from setk.data import lists
    from setk.compress import ptq

    source, about = checkpoint.load(checkpoint.find(model))
    if source.quantization:
        raise UserError(f"{model}: is quantized already; give the float checkpoint")
    locations = lists.read_wavs(list_, allow_commands).values()

    def waves() -> Iterator[Any]:
        import torch

        for location in locations:
            yield torch.from_numpy(location.read_mono(source.sample_rate)[0])[None]

    ptq.calibrate(source, shell.progress(waves(), len(locations), "se-quant"), method.value)
    checkpoint.save(out, source, {}, source=about["provenance"], sha256=about["sha256"], calibration=method.value, list=list_)
    shell.say(f"se-quant: {out}: {len(source.activation_quantizers)} ranges from {len(locations)} signals")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A checkpoint, or the name of a model that ships.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: OUT.onnx, or OUT.ts for TorchScript.")],
    frames: Annotated[int, typer.Option(min=1, help="Frames that a call takes: 1 is live; 16 and more suit files. "
                                                    "A model that is not causal takes any number.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Signals that a call takes, for servers.")] = 1,
) -> None:
    """Write MODEL as ONNX, which se-enhance runs without torch, or as TorchScript, for torch.jit.load.

    The graph is the model's chunk forward, its states being inputs and outputs; the STFT stays outside. What it
    takes to run the file, and where it comes from, stands in the file's metadata. A quantized MODEL becomes ONNX of
    int8 weights and integer operators. The file is run against the checkpoint before the command ends; the SNR between
    the two goes to stderr.
    """
    from setk import checkpoint
    from setk.export import onnx
    from setk.core.files import atomic_path

    if out.suffix not in (".onnx", ".ts"):
        raise UserError(f"{out}: the name must end in .onnx, or in .ts for TorchScript")
    source, about = checkpoint.load(checkpoint.find(model))
    facts = {"scores": about["scores"], "source": about["provenance"], "sha256": about["sha256"]}
    least = LEAST_ROUNDED if source.quantization else LEAST_PARITY
    with atomic_path(out) as whole:
        write = onnx.to_onnx if out.suffix == ".onnx" else onnx.to_torchscript
        made = write(source, whole, frames=frames, batch=batch, **facts)
        snr = onnx.parity(source, _open(str(whole)))
        if snr < least:
            raise UserError(f"{out}: not written: differs from {model} by more than rounding (SNR {snr:.1f} dB)")
    shell.say(f"se-quant: {out}: {made['nodes']} nodes, {out.stat().st_size} bytes, SNR {snr:.1f} dB to the checkpoint")
    if "integer" in made:
        shell.say(f"se-quant: {made['integer']} of {made['products']} convolutions and matrix products are of integers")
        if made["integer"] < made["products"]:
            shell.say("se-quant: the rest, recurrent layers included, computes in float from int8 weights: the file is smaller, but as a "
                      "rule not faster than a float one (se-count --time); where time matters, export the float checkpoint")


def _open(model: str, integer: bool = False) -> Engine:
    """The engine of any MODEL, TorchScript included; `integer`: of an int8 file in integers alone."""
    from setk import engines

    if model.endswith(".ts"):
        from setk.engines.torchscript import ScriptEngine

        return ScriptEngine(Path(model))
    if integer:
        from setk.compress.integer import IntegerEngine

        return IntegerEngine(Path(model))
    return engines.open_engine(model)


@app.command()
def check(
    a: Annotated[str, typer.Argument(metavar="A", help="A checkpoint, an .onnx or .ts of se-quant export, or the name of one that ships.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one of these.")],
    list_: Annotated[str, typer.Option("--list", help="Wav list of noisy speech.")],
    ref: Annotated[Optional[str], typer.Option(help="Wav list of the clean speech: tells what B scores above A.")] = None,
    metrics: Annotated[str, typer.Option(help="With --ref: metrics of se-score, by commas.")] = "pesq_wb,stoi,si_sdr",
    min_snr: Annotated[float, typer.Option(
        help="dB between the outputs, below which an utterance counts as failed. Float forms of a model are above 80, int8 is "
             "some 30 from its checkpoint, and that some 25 from float.")] = 20.0,
    integer: Annotated[bool, typer.Option("--integer", help="Compute B, an int8 .onnx of Conv-TasNet, by integers alone.")] = False,
    shard: Annotated[Optional[str], typer.Option(metavar="K/N", help="Every N-th utterance from the K-th.")] = None,
    max_fail: Annotated[int, typer.Option(help="Failed utterances that still count as success.")] = 0,
    allow_commands: Annotated[bool, typer.Option("--allow-commands", help="Run list entries that end in '|'.")] = False,
) -> None:
    """Tell how far two forms of a model are apart: the SNR in dB of B's output to A's, for each utterance of a list.

    Writes a table to standard output: utt, snr, and with --ref the score of B less that of A in each metric. Means with
    their interval go to stderr. Ends with 1 if an utterance is below --min-snr. Load no .ts from a stranger.
    """
    from setk.data import lists
    from setk import metrics as measures
    from setk.metrics import sdr
    from setk.scoring import summary

    names = measures.select(measures.listed(metrics)) if ref else ()
    clean = lists.read_wavs(ref, allow_commands) if ref else {}
    one, two = _open(a), _open(b, integer)
    rate = one.sample_rate
    if two.sample_rate != rate:
        raise UserError(f"{a} runs at {rate} Hz, {b} at {two.sample_rate}: there is nothing to compare")
    failures, table, good = shell.Failures("se-quant", max_fail), [], 0
    print("utt", "snr", *(f"d_{name}" for name in names), sep="\t", flush=True)
    for utt, location in shell.progress(lists.take_part(lists.open_wavs(list_, allow_commands), shard), None, "se-quant"):
        try:
            noisy = location.read_mono(rate)[0]
            if ref and utt not in clean:
                raise AudioError(f"{ref} has no such utterance")
            speech = clean[utt].read_mono(rate)[0] if ref else None
        except AudioError as e:
            failures.add(utt, str(e))
            continue
        outs = [_enhanced(engine, noisy) for engine in (one, two)]
        row = {"snr": sdr.snr(*outs)}
        if ref:
            before, after = (measures.compute(speech, out, rate, names)[0] for out in outs)
            row |= {name: after[name] - before[name] for name in names}
        print(utt, *(f"{value:.4f}" for value in row.values()), sep="\t", flush=True)
        table.append(row)
        if row["snr"] >= min_snr:
            good += 1
        else:
            failures.add(utt, f"SNR {row['snr']:.1f} dB, below {min_snr:g}")
    finite = {name: [row[name] for row in table if abs(row[name]) != float("inf")] for name in ("snr", *names)}
    for line in summary.words({name: summary.summarise(values) for name, values in finite.items()}):
        shell.say(f"se-quant: {line}")
    failures.finish(good)


def _enhanced(engine: Engine, wave: np.ndarray) -> np.ndarray:
    """Mono [n] to as much."""
    import numpy as np

    from setk.engines import open_stream

    stream = open_stream(engine, engine.sample_rate, 1, engine.chunk_s)
    return np.concatenate([stream.push(wave[None]), stream.flush()], 1)[0]


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="pytorch_model.bin of asteroid's ConvTasNet for one source at 16 kHz.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.pt", help="Checkpoint to write.")],
) -> None:
    """Write a checkpoint of asteroid's as one of conv_tasnet, to enhance with or to be quantized (--init of train)."""
    from setk import checkpoint
    from setk.export import asteroid

    model, facts = asteroid.load(source)
    checkpoint.save(out, model, {}, **facts)


def main() -> None:
    shell.run(app, "se-quant")


if __name__ == "__main__":
    main()
