"""The training loop: every number of step s follows from the seed, the data and s, so a run that is killed
and started again equals one that was not (bit for bit on a CPU).

EXP holds `config.yaml`, `resume.pt` (all that the next step needs; the one before it as `resume.old.pt`),
`best.pt` and `last.pt` (checkpoints), `history.tsv` and `curves.png`; with `average` also `average/STEP.pt`, the best
checkpoints so far, and in the end `average.pt`.
"""

from __future__ import annotations

import fcntl
import os
import resource
import sys
import time
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Callable, Iterator

import torch
import yaml

from setk import models
from setk.core import config
from setk.core.errors import UserError
from setk.core.files import make_dir, write_text
from setk.training.data import TrainingData, loader
from setk.training.losses import WITHOUT_REFERENCE
from setk.training.objective import Objective
from setk.training.ranks import RankLost, joined
from setk.training.run import Pairs, Run
from setk.training.settings import Settings
from setk.training.start import begin_from
from setk.training.validation import check_pairs

REHEARSED = 10  # steps that a dry run times


def train(
    settings: Settings,
    data: TrainingData,
    valid: Pairs,
    out: Path,
    *,
    fresh: bool,
    init: str | None,
    say: Callable[[str], None],
    objective: type[Objective] = Objective,
) -> int:
    """Train to settings.steps, from resume.pt if it is there; the exit code, 128 + n if signal n ended it, 1 if another rank is gone.

    Raises UserError if EXP was made otherwise, if another process trains there, and if a pair of `valid` cannot be used.
    """
    try:
        with joined(settings.device) as ranks, alone(out) if ranks.first else nullcontext():
            return _train(Run(settings, data, out, say, ranks, objective), valid, fresh, init)
    except RankLost as e:
        say(f"error: {e}")
        # What gloo and NCCL still hold on to would abort the interpreter at its end.
        sys.stderr.flush()
        os._exit(1)


_held: set[int] = set()  # descriptors of experiment directories


def _let_go() -> None:
    for folder in _held:
        os.close(folder)
    _held.clear()


# A loader process may outlive a killed training by seconds, and would hold the directory for as long.
os.register_at_fork(after_in_child=_let_go)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the experiment directory, which is made, and removed if nothing was written to it. Raises UserError if another process
    holds it."""
    existed = out.exists()
    folder = os.open(make_dir(out), os.O_RDONLY)
    _held.add(folder)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"{out}: another se-train trains there; wait for its end, or use another --out") from None
    finally:
        if folder in _held:  # not in a forked process, which has let it go
            _held.remove(folder)
            os.close(folder)
            if not existed:
                with suppress(OSError):  # not empty
                    out.rmdir()


def _train(run: Run, valid: Pairs, fresh: bool, init: str | None) -> int:
    known_by = check_pairs(valid, run.model.sample_rate)
    run.check_teacher()
    if run.ranks.first:
        _keep_own_config(run)
    run.begin_with(init, known_by)
    if fresh and run.ranks.first:
        run.start_over(begin_from(init, run.s) if init else None)
    run.ranks.any(False)  # nobody reads what the first still clears
    if not run.resume() and init:
        run.start_from(begin_from(init, run.s))
    if run.s.warmup >= run.s.steps:
        run.say(
            f"warning: warmup: its {run.s.warmup} steps do not end within the {run.s.steps} of the training, so lr is not reached"
        )
    if unused := run.data.without_effect():
        run.say(
            f"warning: {run.data.name}: has {run.data.contents}, so these settings have no effect: {', '.join(unused)}"
        )
    if run.s.teacher and not run.s.losses.keys() - WITHOUT_REFERENCE:
        run.say(f"warning: teacher: has no effect: {', '.join(run.s.losses)} do not compare with its output")
    if choice := run.s.modelled_choice():
        run.say(
            "warning: best: {} alone chooses, which the loss {} models; the default weighs several metrics".format(
                *choice
            )
        )
    if run.ranks.first:
        write_text(run.out / "config.yaml", _dump(config.plain(run.s)))
    return run.go(valid)


def _dump(settings: dict[str, Any]) -> str:
    return yaml.safe_dump(settings, sort_keys=False)


def _keep_own_config(run: Run) -> None:
    """Raise UserError if there is a config.yaml that no training wrote: it is the user's own, with comments or a few keys."""
    path = run.out / "config.yaml"
    if not path.is_file() or run.states.exist():
        return
    text, content = path.read_text(), config.read_yaml(path)
    if text != _dump(content) or not content.keys() >= config.plain(run.s).keys():
        raise UserError(
            f"{path}: would be replaced by the settings of this training, and is not what this version of se-train wrote; "
            "use another --out"
        )


def rehearse(
    settings: Settings,
    data: TrainingData,
    valid: Pairs,
    say: Callable[[str], None],
    objective: type[Objective] = Objective,
) -> dict[str, float] | None:
    """What training would take, from some timed steps and validated utterances; writes nothing. None on ranks but
    the first."""
    with joined(settings.device) as ranks:
        found = _estimate(Run(settings, data, Path(os.devnull), say, ranks, objective), valid)
        return found if ranks.first else None


def _estimate(run: Run, valid: Pairs) -> dict[str, float]:
    """Parameters, hours of data, epochs, speed, and the hours and the memory that training would take."""
    check_pairs(valid, run.model.sample_rate)
    some = dict(list(valid.items())[: 4 * run.ranks.world])
    with closing(loader(run.data, range(REHEARSED + 2), run.s.workers, run.ranks)) as steps:
        for k, batches in enumerate(steps):
            if k == 2:  # the first two warm up
                mark = time.monotonic()
            run.update(batches)
    seconds = time.monotonic() - mark
    run.clock.steps, run.clock.seconds = REHEARSED, seconds
    began = time.monotonic()
    run.scores_of(run.result, some)
    run.clock.validation = (time.monotonic() - began) * len(valid) / len(some)
    speed, on_gpu = run.clock.speed(), run.ranks.device.type == "cuda"
    return {
        "parameters": models.count_parameters(run.model)["params"],
        "ranks": run.ranks.world,
        "data_hours": round(run.data.hours, 3),
        "epochs": round(run.s.steps / run.data.steps_per_epoch, 2),
        "steps_per_second": round(speed, 3),
        "audio_seconds_per_second": round(speed * run.s.batch * run.s.segment, 1),
        "validation_seconds": round(run.clock.validation, 1),
        "hours": round(run.clock.left(0, run.s) / 3600, 2),
        "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        **({"gpu_memory_mib": round(torch.cuda.max_memory_allocated() / 2**20)} if on_gpu else {}),
    }
