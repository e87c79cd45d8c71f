"""se-train average, curves and release: what is made from trainings that have ended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from setk.cli import shell

NAMES = ("average", "curves", "release")
app = shell.new_app(
    """
se-train average mean.pt a.pt b.pt --valid data/valid
se-train curves exp/mine > curves.tsv
""",
    no_args_is_help=True,
)


# fmt: off
@shell.command(app, examples="se-train average mean.pt exp/a/best.pt exp/b/best.pt --valid data/valid")
def average(
    out: Annotated[Path, typer.Argument(help="Checkpoint to write.")],
    checkpoints: Annotated[list[str], typer.Argument(metavar="MODEL", help="Checkpoints, or included models, of one model: two or more.")],
    valid: Annotated[Path, typer.Option(help="Data directory of pairs, to score the result on.")],
    metrics: Annotated[str, typer.Option(metavar="A,B,…", help="Metrics of that score.")] = "pesq_wb,stoi,si_sdr",
) -> None:
    # fmt: on
    """Write the mean of the weights of several checkpoints of one model.

    The mean of a model and of what it became in a further training with another loss keeps most of what each is better at
    (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
    """
    from setk import checkpoint, metrics as measures
    from setk.core.errors import UserError
    from setk.data.datadir import DataDir
    from setk.training import averages

    if len(checkpoints) < 2:
        raise UserError("average: name two checkpoints or more after OUT")
    scores = averages.average(
        out, [checkpoint.find(spec) for spec in checkpoints], DataDir(valid).pairs(), measures.select(measures.listed(metrics)), shell.note
    )
    shell.note(f"se-train: {out}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))


# fmt: off
@shell.command(app, examples="se-train curves exp/mine exp/other > curves.tsv")
def curves(
    experiments: Annotated[list[Path], typer.Argument(metavar="EXP", help="Experiment directories, as in --out of a training.")],
    parts: Annotated[str, typer.Option(metavar="DIR,DIR,…", help="Folders of each EXP whose trainings continue each other, in this order; those that are missing are left out.")] = ".",
) -> None:
    # fmt: on
    """Print how models validated during training: tab-separated, a row per validation.

    `hours` are hours of training steps, without validations, and add up over the parts.
    """
    from setk.training import curves as library

    sys.stdout.write(library.table(experiments, parts.split(",")))


# fmt: off
@shell.command(app, examples="se-train release exp/open/fspen fspen.pt")
def release(
    exp: Annotated[Path, typer.Argument(help="Experiment of a recipe: best.pt, and noisy.json and enhanced.json of the test set.")],
    out: Annotated[Path, typer.Argument(help="Checkpoint to write.")],
) -> None:
    # fmt: on
    """Write the best model of an experiment with its test scores, as a checkpoint to share."""
    from setk.training.release import release as write

    write(exp, out)
