"""se-train: train a model from a conf; the same command again goes on where it stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from setk.cli import checkpoints, shell

app = shell.new_app()


@app.command()
def train(
    conf: Annotated[str, typer.Argument(metavar="CONFIG", help="An included config, such as fspen, or a YAML file.")],
    train: Annotated[Path, typer.Option(help="Data directory or shards: pairs, or speech and noise to be mixed.")],
    valid: Annotated[Path, typer.Option(help="Data directory of pairs; never the test set.")],
    out: Annotated[Path, typer.Option(help="Experiment directory: checkpoints, resume state, history.")],
    set_: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the conf; may be repeated.")] = [],
    init: Annotated[Optional[str], typer.Option(help="Start from the weights of this checkpoint.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, discarding what OUT holds.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the conf and what it would take, by ten timed steps.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Compute threads of this process.")] = 1,
) -> None:
    """Train CONF's model; best.pt and last.pt in OUT are checkpoints for se-enhance.

    Stopped at any moment (SIGTERM and SIGINT save first), the same command resumes; on a CPU the resumed run
    equals the uninterrupted one bit for bit. On many GPUs or processes:

    torchrun --nproc-per-node N -m setk train CONFIG …

    The conf's batch is that of all ranks together, so the numbers do not depend on N but by rounding.

    se-train average, se-train curves and se-train release make checkpoints and tables from trainings; each has its own --help.
    """
    import torch
    import yaml

    from setk.core import config
    from setk.core.errors import UserError
    from setk.data.datadir import DataDir
    from setk.training import loop, settings
    from setk.training.data import TrainingData
    from setk.training.metric_gan import MetricGAN
    from setk.training.objective import Objective

    torch.set_num_threads(threads)
    s = settings.resolve(conf, set_, init)
    data = TrainingData(train, s)
    objective = MetricGAN if s.discriminator else Objective
    pairs = DataDir(valid).pairs()
    if not pairs:
        raise UserError(f"{valid}: lists no pairs; training is validated on some")
    if dry_run:
        estimate = loop.rehearse(s, data, pairs, shell.say, objective)
        if estimate:
            print(yaml.safe_dump({"conf": config.plain(s), "estimate": estimate}, sort_keys=False), end="")
        return
    raise typer.Exit(loop.train(s, data, pairs, out, fresh=fresh, init=init, say=shell.say, objective=objective))


def main() -> None:
    shell.run(checkpoints.app if sys.argv[1:2] and sys.argv[1] in checkpoints.NAMES else app, "se-train")


if __name__ == "__main__":
    main()
