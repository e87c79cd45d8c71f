"""se-quant: a checkpoint in a form that runs elsewhere, or in fewer bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from setk.commands import shell
from setk.files import UserError

app = shell.new_app()
LEAST_PARITY = 80.0  # dB; float32 in another order of summation stays above 100


@app.callback()
def quant() -> None:
    """Export a checkpoint."""


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A checkpoint, or the name of a model that ships.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="File to write.")],
    frames: Annotated[int, typer.Option(min=1, help="Frames that a call takes: 1 is live; 16 and more suit files.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Signals that a call takes, for servers.")] = 1,
) -> None:
    """Write MODEL as ONNX, which se-enhance runs without torch.

    The graph is the model's chunk forward, its states being inputs and outputs; the STFT stays outside. What it
    takes to run the file, and where it comes from, stands in the file's metadata. It is run against the
    checkpoint before the command ends; the SNR between the two goes to stderr.
    """
    if out.suffix != ".onnx":
        raise UserError(f"{out}: the name must end in .onnx")
    from setk import checkpoint, engines
    from setk.compress import export
    from setk.files import atomic_path

    source, about = checkpoint.load(checkpoint.find(model))
    with atomic_path(out) as whole:
        nodes = export.to_onnx(source, whole, frames=frames, batch=batch, scores=about["scores"],
                               source=about["provenance"], sha256=about["sha256"])
        snr = export.parity(source, engines.OnnxEngine(whole))
        if snr < LEAST_PARITY:
            raise UserError(f"{out}: not written: differs from {model} by more than rounding (SNR {snr:.1f} dB)")
    shell.say(f"se-quant: {out}: {nodes} nodes, {out.stat().st_size} bytes, SNR {snr:.1f} dB to the checkpoint")


def main() -> None:
    shell.run(app, "se-quant")


if __name__ == "__main__":
    main()
