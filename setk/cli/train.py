"""se-train: train a model from a config; the same command resumes a training that was stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from setk.cli import checkpoints, shell

app = shell.new_app()
OTHERS = checkpoints.app
EXAMPLES = """
se-train fspen --train shards/mine --valid data/valid --out exp/mine
se-train fspen --train shards/mine --valid data/valid --out exp/mine --set steps=20000 --set lr=1e-3
se-train mine.yaml --train data/train --valid data/valid --out exp/tuned --init fspen
se-train fspen --train shards/mine --valid data/valid --out exp/mine --dry-run
"""


# fmt: off
@shell.command(app, examples=EXAMPLES)
def train(
    ctx: typer.Context,
    conf: Annotated[str, typer.Argument(metavar="CONFIG", help="An included config, such as fspen, or a YAML file.")],
    train: Annotated[Path, shell.option(group=shell.INPUT, metavar="DIR", help="Data directory or shards: pairs, or speech and noise to mix.")],
    valid: Annotated[Path, shell.option(group=shell.INPUT, metavar="DIR", help="Data directory of pairs; never the test set.")],
    out: Annotated[Path, shell.option(group=shell.OUTPUT, metavar="DIR", help="Experiment directory: checkpoints, resume state, history.")],
    set_: Annotated[list[str], shell.option("--set", group=shell.INPUT, metavar="KEY=VALUE", help="Override a key of the config; may be repeated.")] = [],
    init: Annotated[Optional[str], shell.option(group=shell.INPUT, metavar="MODEL", help="Start from the weights of this checkpoint.")] = None,
    fresh: Annotated[bool, shell.option("--fresh", group=shell.OUTPUT, help="Delete the training that OUT holds, and start over.")] = False,
    dry_run: Annotated[bool, shell.option("--dry-run", group=shell.GENERAL, help="Print the config and an estimate of time and memory, from ten steps.")] = False,
    threads: Annotated[int, shell.option(group=shell.PARALLEL, min=1, help="Compute threads of this process.")] = 1,
) -> None:
    # fmt: on
    """Train CONFIG's model; best.pt and last.pt in OUT are checkpoints for se-enhance. A block `quantization` rounds while it trains.

    Stopped at any moment (SIGTERM and SIGINT save first), the same command resumes; on a CPU the resumed run
    equals the uninterrupted one bit for bit. On many GPUs or processes:

    torchrun --nproc-per-node N -m setk train CONFIG …

    The config's batch is that of all ranks together, so the result depends on N only by rounding; docs/training.md has the exceptions.

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

    if dry_run:
        shell.refuse(ctx, "with --dry-run", "fresh")
    torch.set_num_threads(threads)
    s = settings.resolve(conf, set_, init)
    data = TrainingData(train, s)
    s = settings.in_steps(s, data.steps_per_epoch, conf)
    objective = MetricGAN if s.discriminator else Objective
    pairs = DataDir(valid).pairs()
    if not pairs:
        raise UserError(f"{valid}: lists no pairs; training needs some to validate on")
    if dry_run:
        estimate = loop.rehearse(s, data, pairs, shell.note, objective)
        if estimate:
            print(yaml.safe_dump({"config": config.plain(s), "estimate": estimate}, sort_keys=False), end="")
        return
    raise typer.Exit(loop.train(s, data, pairs, out, fresh=fresh, init=init, say=shell.note, objective=objective))


def main() -> None:
    shell.run(OTHERS if sys.argv[1:2] and sys.argv[1] in checkpoints.NAMES else app, "se-train")


if __name__ == "__main__":
    main()
