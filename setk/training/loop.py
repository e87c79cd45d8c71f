"""The training loop: every number of step s follows from the seed, the data and s, so a run that is killed
and started again equals one that was not (bit for bit on a CPU).

EXP holds `config.yaml`, `resume.pt` (all that the next step needs; the one before it as `resume.old.pt`),
`best.pt` and `last.pt` (checkpoints), `history.tsv` and `curves.png`; with `average` also `average/STEP.pt`, the best
checkpoints so far, and in the end `average.pt`.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import torch
import yaml

from setk import checkpoint, models
from setk.core import config
from setk.data import mixing
from setk.core.errors import UserError
from setk.core.files import write_text
from setk.metrics import METRICS
from setk.nn.quantization import quantize
from setk.training.averages import Smoothed, mean_weights
from setk.training.data import TrainingData, loader
from setk.training.history import History
from setk.training.objective import Batch, NotFinite, Objective
from setk.training.progress import Clock, Sums, show_time
from setk.training.ranks import Ranks, joined
from setk.training.settings import Settings
from setk.training.validation import validate

MAX_BAD_STEPS = 20  # non-finite losses in a row before giving up
REHEARSED = 10  # steps that a dry run times

Pairs = Mapping[str, tuple[str, str]]  # utt -> (noisy, clean) locations


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
    """Train to settings.steps, from resume.pt if it is there; the exit code, 128 + n if signal n ended it.

    Raises UserError if EXP was made otherwise.
    """
    with joined(settings.device) as ranks:
        run = Run(settings, data, out, say, ranks, objective)
        if fresh and ranks.first:
            run.clear()
        ranks.any(False)  # nobody reads what the first still clears
        if not run.resume() and init:
            run.start_from(init)
        if ranks.first:
            write_text(out / "config.yaml", yaml.safe_dump(config.plain(settings), sort_keys=False))
        code = run.go(valid)
        del run  # it holds on to the process group, see `joined`
    return code


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
        found = Run(settings, data, Path(os.devnull), say, ranks, objective).rehearse(valid)
        return found if ranks.first else None


def keep_heap() -> None:
    """Have glibc keep large blocks: training frees and takes the same megabytes every step, and giving them
    back each time costs a tenth of the step in page faults."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            m_trim_threshold, m_mmap_threshold = -1, -3
            libc.mallopt(m_mmap_threshold, 1 << 30)
            libc.mallopt(m_trim_threshold, (1 << 31) - 1)


def set_arithmetic(settings: Settings) -> None:
    """TF32 and determinism, which torch keeps for the whole process."""
    tf32 = settings.precision != "float32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def learning_rate(step: int, s: Settings) -> float:
    """Linear warm-up; then half a cosine to lr_end at the last step, or a fall by 0.9999 a step, slower where that
    would end below lr_end (the published schedule of DPSNN, which has no warm-up)."""
    if step < s.warmup:
        return s.lr * (step + 1) / s.warmup
    if s.schedule == "exponential":
        return s.lr * max(0.9999, (s.lr_end / s.lr) ** (1 / s.steps)) ** step
    part = (step - s.warmup) / max(1, s.steps - s.warmup)
    return s.lr_end + (s.lr - s.lr_end) * 0.5 * (1 + math.cos(math.pi * part))


def build(settings: Settings) -> models.Model:
    """The model of the conf, quantized if it says so."""
    return models.build(settings.model, settings.config, settings.quantization and config.plain(settings.quantization))


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
        if data.rate != self.model.sample_rate:
            raise UserError(
                f"{data.name}: is at {data.rate} Hz; {self.model.name} works at {self.model.sample_rate} Hz"
            )
        self.smoothed = Smoothed(self.model, settings.ema) if settings.ema else None
        self.objective = objective(self.model, settings, ranks)
        self.step, self.bad_steps = 0, 0
        self.history, self.sums, self.hours = History(out if ranks.first else None), Sums(), 0.0
        self.clock, self._last_said = Clock(), time.monotonic()
        self._stopped, self._candidates_before = 0, set()

    @property
    def result(self) -> models.Model:
        """The model that is validated and saved."""
        return self.smoothed.model if self.smoothed else self.model

    @property
    def ranking(self) -> list[int]:
        """Indices of history's rows, the best first."""
        order = self.history.ranking(f"valid_{self.s.best}", METRICS[self.s.best].lower_is_better)
        return [i for i in order if self.history.rows[i]["step"] > self.objective.unfinished]

    @property
    def candidates(self) -> list[int]:
        """Steps of the best validations, of which the mean of the weights is wanted."""
        return [self.history.rows[i]["step"] for i in self.ranking[: self.s.average]]

    @property
    def ended(self) -> bool:
        """Whether all steps are done, or patience is at an end."""
        stale = len(self.history.rows) - 1 - self.ranking[0] if self.ranking else 0
        return self.step == self.s.steps or 0 < self.s.patience <= stale

    def identity(self) -> dict[str, Any]:
        """What a continuation must have in common with the run that it continues."""
        kept = {k: v for k, v in config.plain(self.s).items() if k not in Settings.FREE}
        return {**kept, "data": self.data.digest}

    def start_from(self, spec: str) -> None:
        """Take the weights of another checkpoint of the same model. Where the conf quantizes one in floating point, the
        ranges of weights are those of what was taken."""
        source, about = checkpoint.load(checkpoint.find(spec))
        alike = source.quantization == self.s.quantization
        begun = build(self.s) if alike else models.build(self.s.model, self.s.config)
        if source.name != begun.name or not alike and source.quantization:
            raise UserError(
                f"--init {spec}: holds {about['model']}, quantized: {about.get('quantization')}; not the model of "
                "the conf"
            )
        try:
            begun.adopt(source)
        except ValueError as e:
            raise UserError(
                f"--init {spec}: holds {about['model']} {about['config']}, not the model of the conf: {e}"
            ) from None
        if not alike:
            quantize(begun, self.s.quantization)
        for model in (self.model, self.result):
            model.load_state_dict(begun.state_dict())

    def clear(self) -> None:
        """Remove what an earlier run left."""
        for name in ("resume.pt", "resume.old.pt", "history.tsv", "best.pt", "last.pt", "average.pt", "resume.new.pt"):
            (self.out / name).unlink(missing_ok=True)
        self._keep_candidates(set())

    def save(self) -> None:
        """Write resume.pt, keeping the one before; either alone suffices to go on."""
        if not self.ranks.first:
            return
        new, current = self.out / "resume.new.pt", self.out / "resume.pt"
        checkpoint.write(
            new,
            {
                "identity": self.identity(),
                "step": self.step,
                "objective": self.objective.state(),
                "smoothed": self.smoothed.model.state_dict() if self.smoothed else None,
                "bad_steps": self.bad_steps,
                "history": self.history.rows,
                "sums": self.sums.totals,
                "hours": self.hours,
            },
        )
        # A disk that is full by now has cost neither of the two states before.
        if current.exists():
            os.replace(current, self.out / "resume.old.pt")
        os.replace(new, current)
        # Those that the state before wants are kept too, lest it be needed.
        self._keep_candidates(self._candidates_before | set(self.candidates))
        self._candidates_before = set(self.candidates)

    def _keep_candidates(self, steps: set[int]) -> None:
        for path in (self.out / "average").glob("*.pt"):
            if int(path.stem) not in steps:
                path.unlink()

    def resume(self) -> bool:
        """Take up the newest readable state; False if there is none."""
        state, damaged = self._read_state()
        step = state["step"] if state else -1
        if self.ranks.total(torch.tensor(float(step))).item() != self.ranks.world * step:
            raise UserError(f"{self.out}: the ranks do not find the same resume state there; all need one file system")
        if damaged and self.ranks.first:
            # Else it would take the place of the good one before it at the next save.
            damaged.unlink(missing_ok=True)
        if state is None:
            return False
        self._check_identity(state["identity"])
        self.objective.restore(state["objective"])
        if self.smoothed:
            self.smoothed.model.load_state_dict(state["smoothed"])
        self.step, self.bad_steps = state["step"], state["bad_steps"]
        self.sums.totals, self.hours = state["sums"], state["hours"]
        self.history.restore(state["history"])
        self._candidates_before = set(self.candidates)
        self.say(f"resuming {self.out} at step {self.step} of {self.s.steps}")
        return True

    def _read_state(self) -> tuple[dict[str, Any] | None, Path | None]:
        """The newest readable state, and resume.pt if that is damaged."""
        damaged = None
        for path in (self.out / "resume.pt", self.out / "resume.old.pt"):
            if path.exists():
                try:
                    return checkpoint.read(path), damaged
                except UserError as e:
                    self.say(f"warning: {e}; falling back to the state before it")
                    damaged = damaged or path
        return None, damaged

    def _check_identity(self, before: dict[str, Any]) -> None:
        now = self.identity()
        # What settings and the model's config have got since then is as if it were not there.
        before = {**config.plain(Settings(before["model"])), **before}
        if before["model"] == now["model"]:
            before["config"] = models.config_values(now["model"], None, before["config"])
        for key in now:
            if before.get(key) != now[key]:
                what = "the training data" if key == "data" else f"'{key}' ({before.get(key)} then, {now[key]} now)"
                raise UserError(
                    f"{self.out}: was begun with another value of {what}; use another --out, or --fresh to start over"
                )

    def go(self, valid: Pairs) -> int:
        """Train from self.step on; the exit code."""
        before = {s: signal.signal(s, self._stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            stopped = self._loop(valid)
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)
        if stopped:
            self.say(f"stopped at step {self.step}; the same command goes on from here")
            return 128 + (self._stopped or signal.SIGTERM)
        return 0

    def _stop(self, number: int, frame: Any) -> None:
        self._stopped = number

    def _loop(self, valid: Pairs) -> bool:
        """Whether a signal ended it before its time."""
        s = self.s
        # A run that was stopped while it validated has that to do first.
        validated = self.history.rows and self.history.rows[-1]["step"] == self.step
        if self._due() and not validated and not self._validate(valid):
            return True
        if self.ended:
            return self._finish(valid)
        if self.ranks.first:
            (self.out / "average.pt").unlink(missing_ok=True)  # of an end that patience made, and that is none now
        mark = time.monotonic()
        for batches in loader(self.data, range(self.step, s.steps), s.workers, self.ranks):
            self.sums.add(self._update(batches))
            self.step += 1
            mark = self._tick(mark)
            stopped = self.ranks.any(bool(self._stopped))
            if self._due():
                self.save()
                if not self._validate(valid):
                    return True
                if self.ended:
                    break
                mark = time.monotonic()
            elif self.step % s.save_every == 0 or stopped:
                self.save()
            if stopped:
                return True
        return self._finish(valid)

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

    def _update(self, batches: Sequence[Batch]) -> dict[str, float]:
        """One training step; the loss terms. One whose loss or gradient is not finite is skipped."""
        # Chance inside the model (dropout) follows from the step too, and each rank has its own.
        torch.manual_seed(int(mixing.rng(self.s.seed, f"rank {self.ranks.rank}", self.step).integers(2**62)))
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
        scores = self._scores(self.result, valid)
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

    def _scores(self, model: models.Model, valid: Pairs) -> dict[str, float] | None:
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
                    **facts,
                )

    def _finish(self, valid: Pairs) -> bool:
        """Average the best checkpoints if that is wanted and not done; whether a signal came in between."""
        best = self.history.rows[self.ranking[0]][f"valid_{self.s.best}"] if self.ranking else math.nan
        done = (self.out / "average.pt").exists()
        if self.candidates and not self.ranks.any(done):
            steps = sorted(self.candidates)
            found = [checkpoint.load(self.out / "average" / f"{step}.pt")[0].state_dict() for step in steps]
            mean = build(self.s).eval()
            mean.load_state_dict(mean_weights(found))
            scores = self._scores(mean.to(self.ranks.device), valid)
            if scores is None:
                return True
            value, better = scores[self.s.best], METRICS[self.s.best].lower_is_better
            self.say(
                f"mean of steps {' '.join(map(str, steps))}: valid "
                + "  ".join(f"{n} {v:.3f}" for n, v in scores.items())
            )
            if value < best if better else value > best:
                self._write("best.pt", mean, scores, mean_of=steps)
                best = value
            self._write("average.pt", mean, scores, mean_of=steps)
        early = f"no better {self.s.best} in {self.s.patience} validations; " if self.step < self.s.steps else ""
        self.say(f"{self.out}: {early}done at step {self.step} of {self.s.steps}; best {self.s.best} {best:.3f}")
        return False

    def rehearse(self, valid: Pairs) -> dict[str, float]:
        """Parameters, hours of data, epochs, speed, and the hours that training would take."""
        some = dict(list(valid.items())[: 4 * self.ranks.world])
        for k, batches in enumerate(loader(self.data, range(REHEARSED + 2), self.s.workers, self.ranks)):
            if k == 2:  # the first two warm up
                mark = time.monotonic()
            self._update(batches)
        seconds = time.monotonic() - mark
        self.clock.steps, self.clock.seconds = REHEARSED, seconds
        began = time.monotonic()
        self._scores(self.result, some)
        self.clock.validation = (time.monotonic() - began) * len(valid) / len(some)
        speed = self.clock.speed()
        return {
            "parameters": models.count_parameters(self.model)["params"],
            "ranks": self.ranks.world,
            "data_hours": round(self.data.hours, 3),
            "epochs": round(self.s.steps / self.data.steps_per_epoch, 2),
            "steps_per_second": round(speed, 3),
            "audio_seconds_per_second": round(speed * self.s.batch * self.s.segment, 1),
            "validation_seconds": round(self.clock.validation, 1),
            "hours": round(self.clock.left(0, self.s) / 3600, 2),
        }
