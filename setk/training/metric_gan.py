"""Training against a discriminator that learns to predict PESQ.

Papers: Fu et al., "MetricGAN", 2019; the discriminator and its use as in CMGAN (Cao et al. 2022) and MP-SENet (Lu et al. 2023).

Labels are computed in worker processes (training/labels.py), off the path of a step: what the model makes of the batch of step s
goes there, and the discriminator learns from it at step s + delay, before the model's own descent. The delay is fixed, not
whatever is ready, and what waits is resumed, so the numbers do not depend on how fast PESQ is or where a run was cut.

Between ranks, what waits is exchanged and each takes its part of it again, in the order of the batch: a resumed run may have
another number of ranks.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from setk.audio.stft import compress, magnitude
from setk.models import Model
from setk.training.labels import Labels
from setk.training.losses import POWER, spectra_of, weighted
from setk.training.objective import Batch, Learner, Loss, Objective, optimizer_for
from setk.training.ranks import Ranks
from setk.training.settings import Settings


class Discriminator(nn.Module):
    """Predicted PESQ, 0 ... 1 [B], of a candidate, given the clean signal: compressed magnitudes [B, T, F, 1] each, T > 15.

    181,650 parameters. Weights are normalised by their spectral norm (Miyato et al. 2018).
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in ((2, 16), (16, 32), (32, 64), (64, 128)):
            # A group norm of single channels is the instance norm.
            layers += [spectral_norm(nn.Conv2d(i, o, 4, 2, 1, bias=False)), nn.GroupNorm(o, o), nn.PReLU(o)]
        self.layers = nn.Sequential(
            *layers,
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            spectral_norm(nn.Linear(128, 64)),
            nn.Dropout(0.3),
            nn.PReLU(64),
            spectral_norm(nn.Linear(64, 1)),
        )
        self.slope = nn.Parameter(torch.ones(1))

    def forward(self, clean: Tensor, candidate: Tensor) -> Tensor:
        return torch.sigmoid(self.slope * self.layers(torch.cat([clean, candidate], -1).permute(0, 3, 1, 2))).squeeze(1)


class Waiting(NamedTuple):
    """Clean and enhanced signals [2, B, n] of a whole batch, and the labels of this rank's part of it, being made."""

    waves: Tensor
    labels: list[Future]


class MetricGAN(Objective):
    """The weighted losses of the config, and `discriminator.weight` times (1 - predicted PESQ)^2.

    History gets `metric`, that term unweighted; `discriminator`, the discriminator's loss; `unlabelled`, the share of signals
    that PESQ had no score for, of which the discriminator learns nothing. The discriminator judges the model in evaluation
    mode, without dropout.
    """

    def __init__(self, model: Model, settings: Settings, ranks: Ranks):
        super().__init__(model, settings, ranks)
        self.ranks, self.stft = ranks, spectra_of(model.transform)
        self.judge = Discriminator().to(ranks.device)
        self.learners["discriminator"] = Learner(self.judge, optimizer_for(self.judge, settings), settings, ranks)
        self.labels = Labels(model.sample_rate, max(1, settings.workers))
        self.waiting: deque[Waiting] = deque()
        self._made: list[Tensor] = []  # clean and enhanced [2, b, n] of the micro-batches of a step

    def update(self, batches: Sequence[Batch]) -> dict[str, float]:
        judged = self._learn() if len(self.waiting) == self.settings.discriminator.delay else {}
        self.learners["model"].module.train()
        self.hold()
        self.judge.eval().requires_grad_(False)  # its weights stay, and DDP does not need to see them
        self._made = []
        terms = self.learners["model"].descend(batches, self.loss)
        self.waiting.append(self._ask(self._exchange(torch.cat(self._made, 1))))
        return terms | judged

    def loss(self, enhance: Callable, noisy: Tensor, clean: Tensor) -> Loss:
        frames, extras = enhance(noisy)
        e = self.example(noisy, clean, frames, extras)
        loss, terms = weighted(self.settings.losses, e)
        metric = (1 - self.judge(magnitude(e.clean_target), magnitude(e.consistent))).square().mean()
        self._made.append(torch.stack([e.clean, e.estimate]).detach())
        return loss + self.settings.discriminator.weight * metric, {**terms, "metric": metric}

    def _learn(self) -> dict[str, float]:
        """One step of the discriminator on the oldest batch that waits."""
        waves, asked = self.waiting.popleft()
        clean, enhanced = self._own(waves).to(self.ranks.device)
        labels = torch.from_numpy(self.labels.wait(asked)).to(clean)
        self.judge.train().requires_grad_()
        found = self.learners["discriminator"].descend([(clean, enhanced, labels)], self._judge_loss)
        return {"discriminator": found["loss"], "unlabelled": found["unlabelled"]}

    def _judge_loss(self, judge: Callable, clean: Tensor, enhanced: Tensor, labels: Tensor) -> Loss:
        """The clean signal is worth 1, the enhanced its label; one without a label counts nothing."""
        reference, candidate = (magnitude(compress(self.stft.analysis(wave), POWER)) for wave in (clean, enhanced))
        best, scored = judge(reference.repeat(2, 1, 1, 1), torch.cat([reference, candidate])).chunk(2)
        known = labels.isfinite()
        loss = (1 - best).square() + known * (labels.nan_to_num() - scored).square()
        return loss.mean(), {"unlabelled": (~known).float().mean()}

    def _exchange(self, waves: Tensor) -> Tensor:
        """Waves [2, b, n] of this rank to those of the whole batch [2, B, n], in main memory."""
        world, rank = self.ranks.world, self.ranks.rank
        whole = waves.new_zeros(2, world, *waves.shape[1:])
        whole[:, rank] = waves
        return self.ranks.total(whole).flatten(1, 2).cpu()

    def _own(self, waves: Tensor) -> Tensor:
        return waves.chunk(self.ranks.world, 1)[self.ranks.rank]

    def _ask(self, waves: Tensor) -> Waiting:
        return Waiting(waves, self.labels.ask(*self._own(waves).numpy()))

    def state(self) -> dict[str, Any]:
        return {**super().state(), "waiting": [one.waves for one in self.waiting]}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.waiting = deque(self._ask(waves) for waves in state["waiting"])
