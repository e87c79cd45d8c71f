"""The training loop: every number of step s follows from the seed, the data and s, so a run that is killed
and started again equals one that was not (bit for bit on a CPU).

EXP holds `config.yaml`, `resume.pt` (all that the next step needs; the one before it as `resume.old.pt`),
`best.pt` and `last.pt` (checkpoints), `history.tsv` and `curves.png`.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable

import torch
import yaml

from setk import checkpoint, config, models
from setk.files import UserError, write_text
from setk.metrics import METRICS
from setk.training.data import TrainingData, loader
from setk.training.history import History
from setk.training.losses import Example, weighted
from setk.training.settings import Settings
from setk.training.validation import validate

MAX_BAD_STEPS = 20  # non-finite losses in a row before giving up


def train(settings: Settings, data: TrainingData, valid: dict[str, tuple[str, str]], out: Path, *, fresh: bool,
          init: str | None, say: Callable[[str], None]) -> None:
    """Train to settings.steps, from resume.pt if it is there. Raises UserError if EXP was made otherwise."""
    run = Run(settings, data, out, say)
    if fresh:
        for name in ("resume.pt", "resume.old.pt", "history.tsv", "best.pt", "last.pt"):
            (out / name).unlink(missing_ok=True)
    if not run.resume() and init:
        run.start_from(init)
    write_text(out / "config.yaml", yaml.safe_dump(config.plain(settings), sort_keys=False))
    run.go(valid)


def keep_heap() -> None:
    """Have glibc keep large blocks: training frees and takes the same megabytes every step, and giving them
    back each time costs a tenth of the step in page faults."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            m_trim_threshold, m_mmap_threshold = -1, -3
            libc.mallopt(m_mmap_threshold, 1 << 30)
            libc.mallopt(m_trim_threshold, (1 << 31) - 1)


def pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device '{name}' is unknown; auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: no GPU is to be seen here; use device=cpu")
    return device


def optimizer_for(model: torch.nn.Module, settings: Settings) -> torch.optim.AdamW:
    """AdamW; parameters of one dimension (most biases and norms) are not decayed."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas)


def learning_rate(step: int, s: Settings) -> float:
    """Linear warm-up, then half a cosine to lr_end at the last step."""
    if step < s.warmup:
        return s.lr * (step + 1) / s.warmup
    part = (step - s.warmup) / max(1, s.steps - s.warmup)
    return s.lr_end + (s.lr - s.lr_end) * 0.5 * (1 + math.cos(math.pi * part))


class Sums:
    """Running sums of the loss terms since the last validation; kept in the resume state, so that the means
    of a history row do not tell where a run was cut."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}

    def add(self, terms: dict[str, float]) -> None:
        if terms:
            for name, value in {**terms, "": 1.0}.items():
                self.totals[name] = self.totals.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        return {name: value / self.totals[""] for name, value in self.totals.items() if name}


class Run:
    """One training: model, optimizer, position, best score and history, and how they are kept."""

    def __init__(self, settings: Settings, data: TrainingData, out: Path, say: Callable[[str], None]):
        keep_heap()
        torch.manual_seed(settings.seed)
        self.s, self.data, self.out, self.say = settings, data, out, say
        self.device = pick_device(settings.device)
        self.model = models.build(settings.model, settings.config).to(self.device)
        if data.rate != self.model.sample_rate:
            raise UserError(f"{data.name}: is at {data.rate} Hz; {self.model.name} works at {self.model.sample_rate} Hz")
        self.optimizer = optimizer_for(self.model, settings)
        self._sign = -1 if METRICS[settings.best].lower_is_better else 1
        self.step, self.best, self.bad_steps = 0, -self._sign * math.inf, 0
        self.history, self.sums, self.hours = History(out), Sums(), 0.0
        self._stopped = 0

    def identity(self) -> dict[str, Any]:
        """What a continuation must have in common with the run that it continues."""
        kept = {k: v for k, v in config.plain(self.s).items() if k not in Settings.FREE}
        return {**kept, "data": self.data.digest}

    def start_from(self, spec: str) -> None:
        """Take the weights of another checkpoint of the same model and config."""
        source, about = checkpoint.load(checkpoint.find(spec))
        if config.plain(source.config) != config.plain(self.model.config) or source.name != self.model.name:
            raise UserError(f"--init {spec}: holds {about['model']} {about['config']}, not the model of the conf")
        self.model.load_state_dict(source.state_dict())

    def save(self) -> None:
        """Write resume.pt, keeping the one before; either alone suffices to go on."""
        current = self.out / "resume.pt"
        state = {"identity": self.identity(), "step": self.step, "best": self.best, "model": self.model.state_dict(),
                 "optimizer": self.optimizer.state_dict(), "torch_rng": torch.get_rng_state(),
                 "history": self.history.rows, "sums": self.sums.totals, "hours": self.hours}
        if current.exists():
            os.replace(current, self.out / "resume.old.pt")
        checkpoint.write(current, state)

    def resume(self) -> bool:
        """Take up the newest readable state; False if there is none."""
        for name in ("resume.pt", "resume.old.pt"):
            path = self.out / name
            if not path.exists():
                continue
            try:
                state = checkpoint.read(path)
            except UserError as e:
                self.say(f"warning: {e}; falling back to the state before it")
                continue
            self._check_identity(state["identity"])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["torch_rng"])
            self.step, self.best = state["step"], state["best"]
            self.sums.totals, self.hours = state["sums"], state["hours"]
            self.history.restore(state["history"])
            self.say(f"resuming {self.out} at step {self.step} of {self.s.steps}")
            return True
        return False

    def _check_identity(self, before: dict[str, Any]) -> None:
        now = self.identity()
        for key in now:
            if before.get(key) != now[key]:
                what = "the training data" if key == "data" else f"'{key}' ({before.get(key)} then, {now[key]} now)"
                raise UserError(f"{self.out}: was begun with another value of {what}; use another --out, or --fresh to start over")

    def go(self, valid: dict[str, tuple[str, str]]) -> None:
        """Train from self.step on."""
        before = {s: signal.signal(s, self._stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._loop(valid)
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)

    def _stop(self, number: int, frame: Any) -> None:
        self._stopped = number

    def _loop(self, valid: dict[str, tuple[str, str]]) -> None:
        s = self.s
        first, began = self.step, time.monotonic()
        last_line = last_clock = began
        for noisy, clean in loader(self.data, range(self.step, s.steps), s.workers):
            self.sums.add(self._update(noisy.to(self.device), clean.to(self.device)))
            self.step += 1

            now = time.monotonic()
            self.hours += (now - last_clock) / 3600
            last_clock = now
            if now - last_line >= 30 or self.step == s.steps:
                last_line = now
                speed = (self.step - first) / (now - began)
                self.say(f"step {self.step}/{s.steps}  loss {self.sums.means().get('loss', math.nan):.4f}  "
                         f"lr {learning_rate(self.step - 1, s):.2e}  {speed:.2f} steps/s  {_time((s.steps - self.step) / speed)} left")
            if self.step % s.valid_every == 0 or self.step == s.steps:
                self._validate(valid)
                self.save()
            elif self.step % s.save_every == 0 or self._stopped:
                self.save()
            if self._stopped and self.step < s.steps:
                self.say(f"stopped at step {self.step}; the same command goes on from here")
                sys.exit(128 + self._stopped)
        self.say(f"{self.out}: done, {s.steps} steps; best {s.best} {self.best:.3f}")

    def _validate(self, valid: dict[str, tuple[str, str]]) -> None:
        """Score the validation pairs, write last.pt, best.pt if it is the best, and the history."""
        scores = validate(self.model, valid, self.s.metrics, self.device, self.say)
        row = {"step": self.step, "hours": round(self.hours, 4), "lr": learning_rate(self.step - 1, self.s),
               **self.sums.means(), **{f"valid_{name}": value for name, value in scores.items()}}
        self.sums = Sums()
        self.history.add(row)
        self.say("valid " + "  ".join(f"{name} {value:.3f}" for name, value in scores.items()))
        facts = {"step": self.step, "steps": self.s.steps, "settings": config.plain(self.s), "data": self.data.digest}
        checkpoint.save(self.out / "last.pt", self.model, {"valid": scores}, **facts)
        if self._sign * scores[self.s.best] > self._sign * self.best:
            self.best = scores[self.s.best]
            checkpoint.save(self.out / "best.pt", self.model, {"valid": scores}, **facts)

    def _update(self, noisy: torch.Tensor, clean: torch.Tensor) -> dict[str, float]:
        """One optimizer step on [B, n] waveforms; the loss terms. A non-finite loss or gradient is skipped."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.s)
        out = self.model.whole(self.model.transform.analysis(noisy))
        loss, terms = weighted(self.s.losses, Example(self.model.transform, noisy, clean, out, self.model.extras))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.s.clip or math.inf)
        if not torch.isfinite(norm) or not torch.isfinite(loss):
            self.bad_steps += 1
            self.say(f"warning: step {self.step}: loss {loss.item()} or its gradient is not finite; batch skipped ({self.data.name_of(self.step)})")
            if self.bad_steps >= MAX_BAD_STEPS:
                raise UserError(f"{MAX_BAD_STEPS} batches in a row gave no finite loss; lower lr, or look at the data named above")
            return {}
        self.bad_steps = 0
        self.optimizer.step()
        return {"loss": loss.item(), **{name: term.item() for name, term in terms.items()}}


def _time(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
