"""One training: its model, objective, position and history, and its loop over steps."""

from __future__ import annotations

import hashlib
import math
import shutil
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Sequence

import torch

from setk import checkpoint, models
from setk.core import config
from setk.core.errors import UserError
from setk.core.files import atomic_path
from setk.core.rng import rng
from setk.training.averages import Smoothed, mean_weights
from setk.training.data import TrainingData, loader
from setk.training.history import History
from setk.training.objective import Batch, NotFinite, Objective
from setk.training.process import keep_heap, set_arithmetic
from setk.training.progress import Clock, Sums, show_time
from setk.training.ranks import Ranks
from setk.training.resume import States, check_identity, known_by
from setk.training.schedule import learning_rate
from setk.training.settings import Settings, check_defined
from setk.training.start import build
from setk.training.validation import validate

MAX_BAD_STEPS = 20  # non-finite losses in a row before giving up

Pairs = Mapping[str, tuple[str, str]]  # utt -> (noisy, clean) locations


class Run:
    """One training: model, objective, position and history, and how they are kept."""

    def __init__(
        self,
        settings: Settings,
        data: TrainingData,
        out: Path,
        say: Callable[[str], None],
        ranks: Ranks,
        objective: type[Objective] = Objective,
    ):
        keep_heap()
        set_arithmetic(settings)
        torch.manual_seed(settings.seed)
        parts = ranks.world * settings.accumulate
        if settings.batch % parts:
            raise UserError(
                f"batch {settings.batch}, which is that of all together, cannot be divided evenly among "
                f"{ranks.world} ranks x accumulate={settings.accumulate}"
            )
        self.s, self.data, self.out, self.ranks = settings, data, out, ranks
        self.warn = say
        self.say = say if ranks.first else lambda message: None
        self.model = build(settings).to(ranks.device)
        check_defined(settings, self.model.sample_rate)
        if settings.context and not self.model.causal:
            raise UserError(
                f"context {settings.context:g}: {self.model.name} is not causal, and keeps nothing of what it heard; set 0"
            )
        if settings.context and settings.batch // parts < 2:
            raise UserError(
                f"context {settings.context:g}: needs two examples or more in each of the {parts} parts of a batch"
            )
        if data.rate != self.model.sample_rate:
            raise UserError(
                f"{data.name}: is at {data.rate} Hz; {self.model.name} works at {self.model.sample_rate} Hz; convert its lists with "
                f"se-prep resample LIST OUT --rate {self.model.sample_rate}"
            )
        self.smoothed = Smoothed(self.model, settings.ema) if settings.ema else None
        self.objective = objective(self.model, settings, ranks)
        self.step, self.bad_steps = 0, 0
        self.states = States(out, self.say)
        self.history, self.sums, self.hours = History(out if ranks.first else None), Sums(), 0.0
        self.clock, self._last_said = Clock(), time.monotonic()
        self._stopped, self._candidates_before = 0, set()
        self._begun: dict[str, Any] = {}

    @property
    def result(self) -> models.Model:
        """The model that is validated and saved."""
        return self.smoothed.model if self.smoothed else self.model

    @property
    def ranking(self) -> list[int]:
        """Indices of history's rows, the best first."""
        order = self.history.ranking(self._merit)
        return [i for i in order if self.history.rows[i]["step"] > self.objective.unfinished]

    def _merit(self, row: Mapping[str, float]) -> float:
        return self.s.merit(self._chosen_by(row))

    def _chosen_by(self, row: Mapping[str, float]) -> dict[str, float]:
        """The scores of a row of history by which checkpoints are chosen."""
        return {name: row[f"valid_{name}"] for name in self.s.weights}

    @property
    def candidates(self) -> list[int]:
        """Steps of the best validations, whose weights are averaged."""
        return [self.history.rows[i]["step"] for i in self.ranking[: self.s.average]]

    @property
    def ended(self) -> bool:
        """Whether all steps are done, or patience is at an end."""
        stale = len(self.history.rows) - 1 - self.ranking[0] if self.ranking else 0
        return self.step == self.s.steps or 0 < self.s.patience <= stale

    def identity(self) -> dict[str, Any]:
        """What a continuation must have in common with the run that it continues."""
        kept = {k: v for k, v in config.plain(self.s).items() if k not in Settings.FREE}
        if self.objective.teacher:  # its file may move
            kept["teacher"] |= {"model": self.objective.teacher.sha256[:16]}
        return {**kept, "data": self.data.digest, **self._begun}

    def begin_with(self, init: str | None, valid: Mapping[str, object]) -> None:
        """Note what the run starts from, and what each pair that it validates on is known by (`check_pairs`)."""
        listed = repr(sorted(valid.items())).encode(errors="surrogateescape")
        self._begun = {
            "begun_from": known_by(init, self.out) if init else None,
            "pairs": hashlib.sha256(listed).hexdigest(),
        }

    def check_teacher(self) -> None:
        """Raise UserError if the teacher is a file that this training will write."""
        teacher = self.s.teacher and known_by(self.s.teacher.model, self.out)
        if isinstance(teacher, dict) and not teacher["sha256"]:
            raise UserError(
                f"teacher: {self.s.teacher.model}: is in {self.out}, whose checkpoints this training replaces; copy it to another folder"
            )

    def start_from(self, begun: models.Model) -> None:
        """Take the weights of a model of the same config."""
        for model in (self.model, self.result):
            model.load_state_dict(begun.state_dict())

    def start_over(self, begun: models.Model | None) -> None:
        """Remove what an earlier run left. The weights of `begun`, whose file may be part of that, are in the state of step 0."""
        self.states.clear()
        if begun:
            self.start_from(begun)
            self.save()
        for name in ("history.tsv", "best.pt", "last.pt", "average.pt"):
            (self.out / name).unlink(missing_ok=True)
        self._keep_candidates(set())

    def save(self) -> None:
        """Write resume.pt, keeping the one before; either alone suffices to continue."""
        if not self.ranks.first:
            return
        self.states.write(
            {
                "identity": self.identity(),
                "step": self.step,
                "objective": self.objective.state(),
                "smoothed": self.smoothed.model.state_dict() if self.smoothed else None,
                "bad_steps": self.bad_steps,
                "history": self.history.rows,
                "sums": self.sums.totals,
                "hours": self.hours,
            }
        )
        # Those of the state before are kept too: it may be needed.
        self._keep_candidates(self._candidates_before | set(self.candidates))
        self._candidates_before = set(self.candidates)

    def _keep_candidates(self, steps: set[int]) -> None:
        for path in (self.out / "average").glob("[!.]*.pt"):  # a killed process leaves hidden ones
            if path.stem.isdecimal() and int(path.stem) not in steps:
                path.unlink()

    def resume(self) -> bool:
        """Take up the newest readable state; False if there is none."""
        state, damaged = self.states.read()
        step = state["step"] if state else -1
        if self.ranks.total(torch.tensor(float(step), dtype=torch.float64)).item() != self.ranks.world * step:
            raise UserError(f"{self.out}: the ranks do not find the same resume state there; all need one file system")
        if damaged and self.ranks.first:
            # Else it would take the place of the good one before it at the next save.
            damaged.unlink(missing_ok=True)
        if state is None:
            return False
        before = dict(state["identity"])
        if before.get("data") == self.data.earlier_digest:
            before["data"] = self.data.digest
        check_identity(self.out, self.identity(), before)
        self.objective.restore(state["objective"])
        if self.smoothed:
            self.smoothed.model.load_state_dict(state["smoothed"])
        self.step, self.bad_steps = state["step"], state["bad_steps"]
        self.sums.restore(state["sums"])
        self.hours = state["hours"]
        self.history.restore(state["history"])
        self._candidates_before = set(self.candidates)
        if self.step:
            self.say(f"resuming {self.out} at step {self.step} of {self.s.steps}")
        return True

    def go(self, valid: Pairs) -> int:
        """Train from self.step on; the exit code."""
        before = {s: signal.signal(s, self._stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            stopped = self._loop(valid)
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)
        if stopped:
            self.say(f"stopped at step {self.step}; the same command continues from here")
            return 128 + (self._stopped or signal.SIGTERM)
        if not self.ranking:
            self.say(
                f"error: no validation gave a score, so {self.out} has no best.pt; lower lr, or look at the warnings above"
            )
            return 1
        return 0

    def _stop(self, number: int, frame: Any) -> None:
        self._stopped = number

    def _loop(self, valid: Pairs) -> bool:
        """Whether a signal ended it before its time."""
        s = self.s
        # A run that was stopped while it validated has that to do first.
        validated = bool(self.history.rows) and self.history.rows[-1]["step"] == self.step
        to_validate = self._due() and not validated
        if self.ranks.first and (to_validate or not self.ended):
            self._forget_mean()
        if to_validate and not self._validate(valid):
            return True
        if self.ended:
            return self._finish(valid)
        with closing(loader(self.data, range(self.step, s.steps), s.workers, self.ranks)) as steps:
            if self._updates(steps, valid):
                return True
        return self._finish(valid)

    def _forget_mean(self) -> None:
        """Undo the mean of an end that is none now, as patience was raised or the last state was lost: best.pt is the best
        validation again."""
        best = self.out / "best.pt"
        if self.ranking and best.exists() and "mean_of_steps" in checkpoint.read(best)["provenance"]:
            step = self.history.rows[self.ranking[0]]["step"]
            with atomic_path(best) as copy:
                shutil.copyfile(self.out / "average" / f"{step}.pt", copy)
        (self.out / "average.pt").unlink(missing_ok=True)

    def _updates(self, steps: Iterable[list[Batch]], valid: Pairs) -> bool:
        """Update for each of `steps`; whether a signal ended it."""
        mark = time.monotonic()
        for batches in steps:
            self.sums.add(self.update(batches))
            self.step += 1
            mark = self._tick(mark)
            stopped = self.ranks.any(bool(self._stopped))
            if self._due():
                self.save()
                if not self._validate(valid):
                    return True
                if self.ended:
                    return False
                mark = time.monotonic()
            elif self.step % self.s.save_every == 0 or stopped:
                self.save()
            if stopped:
                return True
        return False

    def _due(self) -> bool:
        return self.step > 0 and (self.step % self.s.valid_every == 0 or self.step == self.s.steps)

    def _tick(self, mark: float) -> float:
        """Count a step that began at `mark`, and say now and then how things stand; the time. Hours are those of
        steps, without validations."""
        now = time.monotonic()
        self.clock.steps += 1
        self.clock.seconds += now - mark
        self.hours += (now - mark) / 3600
        if now - self._last_said >= 30 or self.step == self.s.steps:
            self._last_said = now
            speed, s = self.clock.speed(), self.s
            terms = "  ".join(f"{name} {value:.4f}" for name, value in self.sums.means().items())
            self.say(
                f"step {self.step}/{s.steps}  {terms}  lr {learning_rate(self.step - 1, s):.2e}  {speed:.2f} steps/s  "
                f"{speed * s.batch * s.segment:.0f} s of audio/s  {show_time(self.clock.left(self.step, s))} left"
            )
        return now

    def update(self, batches: Sequence[Batch]) -> dict[str, float]:
        """One training step; the loss terms. One whose loss or gradient is not finite is skipped."""
        # Chance inside the model (dropout) follows from the step too, and each rank has its own.
        torch.manual_seed(int(rng(self.s.seed, f"rank {self.ranks.rank}", self.step).integers(2**62)))
        self.objective.set_rate(learning_rate(self.step, self.s) / self.s.lr)
        self.objective.prune(self.step)
        try:
            terms = self.objective.update(batches)
        except NotFinite as e:
            self.bad_steps += 1
            self.say(f"warning: step {self.step}: {e}: not finite; batch skipped ({self.data.name_of(self.step)})")
            if self.bad_steps >= MAX_BAD_STEPS:
                raise UserError(
                    f"{MAX_BAD_STEPS} batches in a row gave no finite loss; lower lr, or look at the data named above"
                ) from None
            return {}
        self.bad_steps = 0
        if self.smoothed:
            self.smoothed.update(self.model, self.step)
        return terms

    def _validate(self, valid: Pairs) -> bool:
        """Score the validation pairs, write last.pt, best.pt if it is the best, the history, and the state; False,
        and nothing of it, if a signal came in between."""
        began = time.monotonic()
        scores = self.scores_of(self.result, valid)
        if scores is None:
            return False
        row = {
            "step": self.step,
            "hours": round(self.hours, 4),
            "lr": learning_rate(self.step - 1, self.s),
            **self.sums.means(),
            **{f"valid_{name}": value for name, value in scores.items()},
        }
        self.sums = Sums()
        self.history.add(row)
        self.say(f"step {self.step}  valid " + "  ".join(f"{name} {value:.3f}" for name, value in scores.items()))
        newest = len(self.history.rows) - 1
        self._write("last.pt", self.result, scores)
        if newest in self.ranking[:1]:
            self._write("best.pt", self.result, scores)
        if self.step in self.candidates:
            self._write(f"average/{self.step}.pt", self.result, scores)
        self.save()
        self.clock.validation = time.monotonic() - began
        return True

    def scores_of(self, model: models.Model, valid: Pairs) -> dict[str, float] | None:
        with self.objective.pruned(model):
            return validate(model, valid, self.s.metrics, self.ranks, self.warn, lambda: bool(self._stopped))

    def _write(self, name: str, model: models.Model, scores: Mapping[str, float], **facts: Any) -> None:
        if self.ranks.first:
            with self.objective.pruned(model):
                checkpoint.save(
                    self.out / name,
                    model,
                    {"valid": dict(scores)},
                    step=self.step,
                    steps=self.s.steps,
                    settings=config.plain(self.s),
                    data=self.data.digest,
                    **({"teacher": self.objective.teacher.sha256} if self.objective.teacher else {}),
                    **facts,
                )

    def _finish(self, valid: Pairs) -> bool:
        """Average the best checkpoints if the config asks for it and it is not done; whether a signal came in between."""
        best = (
            self._chosen_by(self.history.rows[self.ranking[0]])
            if self.ranking
            else dict.fromkeys(self.s.weights, math.nan)
        )
        done = (self.out / "average.pt").exists()
        if self.candidates and not self.ranks.any(done):
            steps = sorted(self.candidates)
            found = [checkpoint.load(self.out / "average" / f"{step}.pt")[0].state_dict() for step in steps]
            mean = build(self.s).eval()
            mean.load_state_dict(mean_weights(found))
            scores = self.scores_of(mean.to(self.ranks.device), valid)
            if scores is None:
                return True
            self.say(
                f"mean of steps {' '.join(map(str, steps))}: valid "
                + "  ".join(f"{n} {v:.3f}" for n, v in scores.items())
            )
            if self.s.merit(scores) > self.s.merit(best):
                self._write("best.pt", mean, scores, mean_of_steps=steps)
            self._write("average.pt", mean, scores, mean_of_steps=steps)
        kept = self.out / "best.pt"
        if self.ranking and self.ranks.first:  # it can be a mean, which is in no row of history
            if not kept.exists():
                raise UserError(
                    f"{kept}: is gone, and the training has ended; use another --out, or --fresh to start over"
                )
            scores = checkpoint.read(kept)["scores"]["valid"]
            best = {name: scores[name] for name in best}
        early = f"no better {' and '.join(best)} in {self.s.patience} validations; " if self.step < self.s.steps else ""
        self.say(
            f"{self.out}: {early}done at step {self.step} of {self.s.steps}; best "
            + "  ".join(f"{name} {value:.3f}" for name, value in best.items())
        )
        return False
