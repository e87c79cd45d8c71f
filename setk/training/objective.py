"""What a training step does: which modules it moves, by which optimizers, towards what.

The loop knows an `Objective` and nothing of losses. The plain one weighs the losses of the config. One with a
discriminator is a subclass that adds a learner and overrides `update`; what its learners hold is resumed with the
rest, and a state of any other kind goes through `state` and `restore`:

    class Adversarial(Objective):
        def __init__(self, model, settings, ranks):
            super().__init__(model, settings, ranks)
            judge = Judge().to(ranks.device)
            self.learners["judge"] = Learner(judge, torch.optim.AdamW(judge.parameters(), lr=...), settings, ranks)

        def update(self, batches):
            judged = self.learners["judge"].descend(batches, self._judge)   # two descents are two optimizer steps
            return {**super().update(batches), "judge": judged["loss"]}
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from setk import checkpoint
from setk.core.errors import UserError
from setk.models import Model, State
from setk.nn.quantization import ActivationQuantizer
from setk.training.losses import Example, weighted
from setk.training.muon import Muon
from setk.training.pruning import Masks
from setk.training.ranks import Ranks
from setk.training.settings import Settings

Batch = tuple[Tensor, Tensor]  # noisy, clean [B, n]
Loss = tuple[Tensor, Mapping[str, Tensor]]


class NotFinite(Exception):
    """A loss or gradient was not a finite number; the step was not taken. The message says which."""


class Learner:
    """A module and its optimizer, on one rank or many.

    `settings` gives the gradient's clipping; the optimizer's own learning rate is the peak of the schedule. `seen` is a
    context in which the module computes its output and gradient.
    """

    seen: Callable[[], AbstractContextManager] = nullcontext

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, settings: Settings, ranks: Ranks):
        self.module, self.optimizer, self.clip, self.ranks = module, optimizer, settings.clip, ranks
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self._call = ranks.parallel(module)

    def set_rate(self, part: float) -> None:
        """Set the learning rate to this part of its peak."""
        for group, peak in zip(self.optimizer.param_groups, self._peaks):
            group["lr"] = part * peak

    def descend(self, batches: Sequence[Batch], loss_of: Callable[..., Loss]) -> dict[str, float]:
        """One optimizer step on the mean of `loss_of(module, noisy, clean)` over `batches` and ranks.

        Returns that mean as "loss", and those of its terms. Raises NotFinite on all ranks, weights and
        buffers being as they were.
        """
        moving = [*self.module.buffers(), *_ranges(self.module)]  # a forward pass may move them
        before = [tensor.detach().clone() for tensor in moving]
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        with self.seen():
            for i, batch in enumerate(batches, 1):
                # Ranks exchange gradients once, with the last of the micro-batches.
                with self.ranks.local(self._call) if i < len(batches) else nullcontext():
                    loss, terms = loss_of(self._call, *batch)
                    (loss / len(batches)).backward()
                for name, value in {"loss": loss, **terms}.items():
                    sums[name] = sums.get(name, 0) + value.detach()
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.clip or math.inf)
        means = self.ranks.total(torch.stack(list(sums.values()))) / (len(batches) * self.ranks.world)
        found = dict(zip([*sums, "gradient"], torch.cat([means, norm[None]]).tolist()))
        if not all(map(math.isfinite, found.values())):
            with torch.no_grad():
                for tensor, value in zip(moving, before):
                    tensor.copy_(value)
            raise NotFinite("  ".join(f"{name} {value:.3g}" for name, value in found.items()))
        self.optimizer.step()
        del found["gradient"]
        return found


def _ranges(module: nn.Module) -> list[nn.Parameter]:
    """The ranges of activations that learn, which are observed first."""
    quantizers = [inner for inner in module.modules() if isinstance(inner, ActivationQuantizer)]
    return [parameter for quantizer in quantizers for parameter in quantizer.parameters()]


class Enhancer(nn.Module):
    """A model from waveform to frames, in the precision of the config: the one call that DDP and the compiler see."""

    def __init__(self, model: Model, settings: Settings):
        super().__init__()
        self.model, self.narrow = model, settings.precision == "bf16"
        # In examples; one that is not causal, which only a teacher can be then, keeps nothing of what it heard.
        self.context = settings.context / settings.segment if model.causal else 0.0

    def forward(self, noisy: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """noisy [B, n] -> frames [B, T, *shape] in float32, and the model's extras."""
        frames = self.model.transform.analysis(noisy)
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.narrow):
            frames = self.model.whole(frames, self._heard(frames) if self.context else None)
        return frames.float(), dict(self.model.extras)

    @torch.no_grad()
    def _heard(self, frames: Tensor) -> State:
        """The state before `frames` [B, T, *shape]: the first half of the examples begins a recording, and the others continue one
        that had other examples before them."""
        size, count = len(frames), math.ceil(self.context)
        begin = size - size // 2
        places = [k for k in range(1, 2 * count + 1) if k % size][:count]  # that of an example itself is left out
        heard = max(1, round(self.context * frames.shape[1]))
        before = torch.cat([frames.roll(k, 0)[begin:] for k in reversed(places)], 1)[:, -heard:]
        _, after = self.model(before, self.model.init_state(len(before)))
        fresh = self.model.init_state(begin)
        return tuple(torch.cat(halves, axis) for *halves, axis in zip(fresh, after, self.model.state_axes))


class Teacher:
    """A trained model whose output is part of what another learns to put out (knowledge distillation, Hinton et al. 2015), at
    `weight`. Raises UserError if it works at another rate than the model that learns."""

    def __init__(self, settings: Settings, rate: int, device: torch.device):
        taught = settings.teacher
        model, about = checkpoint.load(checkpoint.find(taught.model))
        if model.sample_rate != rate:
            raise UserError(
                f"teacher: {taught.model} works at {model.sample_rate} Hz, the model that learns at {rate} Hz; name another"
            )
        self.weight, self.sha256 = taught.weight, about["sha256"]
        self.transform, self._enhance = model.transform, Enhancer(model.eval().to(device), settings)

    @torch.no_grad()
    def reference(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """The signal [B, n] between clean and the teacher's output that losses compare with."""
        frames, _ = self._enhance(noisy)
        return torch.lerp(clean, self.transform.synthesis(frames, clean.shape[-1]), self.weight)


def optimizer_for(model: nn.Module, settings: Settings) -> torch.optim.AdamW:
    """AdamW or Muon; parameters of one dimension (most biases and norms) are not decayed."""
    if settings.optimizer == "muon":
        return Muon(model, settings.lr, settings.betas, settings.weight_decay)
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas)


def fix_all_but(parts: Sequence[str], model: nn.Module) -> list[nn.Module]:
    """Exclude all parameters from training but those of `parts`, names of modules or parameters; the modules that are to stay as
    they are: those without any that learns, and what is in them, except for quantizers, which still observe their ranges. () excludes
    nothing. Raises UserError on a name that the model does not have."""
    if not parts:
        return []
    for part in parts:
        if not any(_within(name, part) for name, _ in model.named_parameters()):
            known = ", ".join(dict.fromkeys(name.partition(".")[0] for name, _ in model.named_parameters()))
            raise UserError(f"only: the model has no part '{part}'; its parts are {known}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(_within(name, part) for part in parts))
    fixed = [module for module in model.modules() if _is_fixed(module) and module is not model]
    within = dict.fromkeys(inner for module in fixed for inner in module.modules())
    return [module for module in within if not isinstance(module, ActivationQuantizer)]


def _is_fixed(module: nn.Module) -> bool:
    """Whether a module has parameters, and none of them learns."""
    learns = [p.requires_grad for p in module.parameters()]
    return bool(learns) and not any(learns)


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


class Objective:
    """The weighted losses of the config, on the output of one model."""

    def __init__(self, model: Model, settings: Settings, ranks: Ranks):
        self.model, self.settings = model, settings
        self.fixed = fix_all_but(settings.only, model)
        enhance = Enhancer(model, settings)
        if settings.compile:
            enhance.compile()
        self.learners = {"model": Learner(enhance, optimizer_for(model, settings), settings, ranks)}
        self.teacher = Teacher(settings, model.sample_rate, ranks.device) if settings.teacher else None
        self.masks = Masks(model, settings.pruning, settings.steps) if settings.pruning else None
        self.learners["model"].seen = self.pruned

    def pruned(self, model: Model | None = None) -> AbstractContextManager:
        """A context in which the model, or another of its kind, is pruned as the config says."""
        return self.masks.on(model or self.model) if self.masks else nullcontext()

    @property
    def unfinished(self) -> int:
        """The last step after which the model is not yet what the config asks for; -1 if it is from the start."""
        return self.masks.last if self.masks else -1

    def prune(self, step: int) -> None:
        """Choose what is pruned from `step` on, if it is time."""
        if self.masks:
            self.masks.refresh(step)

    def set_rate(self, part: float) -> None:
        """Set the learning rate of every learner to this part of its peak."""
        for learner in self.learners.values():
            learner.set_rate(part)

    def update(self, batches: Sequence[Batch]) -> dict[str, float]:
        """One training step on this rank's micro-batches; means over all ranks, "loss" first. Raises NotFinite."""
        for learner in self.learners.values():
            learner.module.train()
        self.hold()
        return self.learners["model"].descend(batches, self.loss)

    def loss(self, enhance: Callable, noisy: Tensor, clean: Tensor) -> Loss:
        """The loss of noisy and clean [B, n], and its terms."""
        frames, extras = enhance(noisy)
        return weighted(self.settings.losses, self.example(noisy, clean, frames, extras))

    def example(self, noisy: Tensor, clean: Tensor, frames: Tensor, extras: Mapping[str, Tensor]) -> Example:
        """What losses see of a batch and of what the model made of it."""
        reference = self.teacher.reference(noisy, clean) if self.teacher else None
        return Example(self.model.transform, noisy, clean, frames, extras, reference)

    def hold(self) -> None:
        """Have the layers that do not learn use their statistics as they are."""
        for layer in self.fixed:
            layer.training = False

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors and plain values."""
        return {
            "masks": self.masks.kept if self.masks else {},
            **{
                name: {"module": learner.module.state_dict(), "optimizer": learner.optimizer.state_dict()}
                for name, learner in self.learners.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, learner in self.learners.items():
            learner.module.load_state_dict(state[name]["module"])
            learner.optimizer.load_state_dict(state[name]["optimizer"])
        if self.masks:
            self.masks.restore(state["masks"])
