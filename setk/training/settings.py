"""What a training is made of: a YAML config, resolved."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from setk.core import config
from setk.core.errors import UserError, nearest
from setk.nn.quantization import Scheme
from setk.training import ranges

# Weights by which checkpoints are chosen where the config names none. A weight is about 1 / the gain of a good small model over noisy
# speech, so that each metric counts as much: a model that only one judge likes, such as the one that its loss models, is
# not the best.
BALANCED = {"pesq_wb": 1.0, "stoi": 16.0, "si_sdr": 0.15, "dnsmos_ovrl": 1.3}
# Losses and the metric that each models; `discriminator` learns PESQ.
MODELLED = {
    "perceptual": "pesq_wb",
    "discriminator": "pesq_wb",
    "snr": "si_sdr",
    "si_sdr": "si_sdr",
    "hybrid": "si_sdr",
    "envelope": "stoi",
}


@dataclass(frozen=True)
class Mixing:
    """Dynamic mixing of speech and noise; without effect on pairs."""

    snr: tuple[float, float] = (-5.0, 20.0)  # dB, uniform
    level: tuple[float, float] = (-35.0, -15.0)  # RMS of the mixture, dBFS, uniform
    second_noise: float = 0.0  # probability that two noises sound together
    noise_speed: tuple[float, float] = (1.0, 1.0)  # noise is played this many times as fast, uniform
    noise_eq: float = 0.0  # dB; depth of a random equaliser on the noise
    speech_eq: float = 0.0  # dB; the same on the speech, target included
    high_voice: float = 0.0  # probability that speech is played 1.2 to 2 times as fast, with a child's pitch
    room: float = 0.0  # probability that the speech is in one of the rooms of rir.scp
    clean_only: float = 0.0  # probability that there is no noise
    noise_only: float = 0.0  # probability that there is no speech


@dataclass(frozen=True)
class Augment:
    """What is done to training examples besides; the noise of a pair is its noisy signal less its clean one."""

    remix: float = 0.0  # probability that a pair gets another pair's noise
    snr: tuple[float, float] | None = None  # dB, uniform; the noise of a pair is scaled to it, the speech is not
    band_limit: float = 0.0  # probability that all above 1/4 ... 1 of the upper band edge is cut off
    clip: float = 0.0  # probability that 0.1 to 5 % of the noisy samples are clipped; the target is not


@dataclass(frozen=True)
class Adversary:
    """A discriminator that learns to predict PESQ, and by which the model is judged besides; see training/metric_gan.py."""

    weight: float = 0.05  # of its judgement, beside the losses
    delay: int = 2  # steps until it learns from what the model made: the time that PESQ has


@dataclass(frozen=True)
class Teaching:
    """A trained model whose output is part of what the losses compare with; see docs/training.md, "From a better model"."""

    model: str  # an included model or a checkpoint, at the same rate
    weight: float = 0.7  # part of its output in the signal that losses compare with; the rest is the clean signal


@dataclass(frozen=True)
class Pruning:
    """Which weights are zero, by magnitude, while and after the model learns; see training/pruning.py."""

    amount: float = 0.0  # part of the weights in the end
    start: float = 0.1  # part of the steps after which the first go
    end: float = 0.6  # and after which none come or go
    every: int = 500  # steps between choices of them
    floor: float = 0.1  # part of each layer that stays
    layers: str = "all"  # or conv: convolutions alone
    keep: bool = False  # in place of all that: what --init has at zero stays there


@dataclass(frozen=True)
class Settings:
    model: str  # a name in setk.models
    preset: str | None = None  # the model's preset; None: its defaults
    config: dict[str, Any] = field(default_factory=dict)  # values on top of the preset; or `init`: those of --init
    quantization: Scheme | None = None  # method, observe: train with weights and activations rounded to 8 bits
    seed: int = 1
    segment: float = 2.0  # seconds of a training example
    context: float = 0.0  # seconds of other examples that a causal model hears before each of a batch's latter half
    batch: int = 16  # examples of an optimizer step, over all ranks and micro-batches
    accumulate: int = 1  # micro-batches in which a rank takes its part of the batch, to save memory
    steps: int = 0  # optimizer steps; the schedule ends with the last. Exactly one of steps and epochs is above 0
    epochs: float = 0.0  # passes over the training data, in place of steps
    only: tuple[str, ...] = ()  # parts of the model that learn, by their names; the others stay as they are; (): all
    optimizer: str = "adamw"  # or muon, which at the same lr moves all directions of a matrix by the same amount
    warmup: int = 500  # steps of linear warm-up
    lr: float = 2e-3  # peak, then as `schedule` says
    lr_end: float = 1e-6
    schedule: str = "cosine"  # after the warm-up; or exponential, as DPSNN's
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01  # not on parameters of one dimension
    clip: float = 5.0  # gradient norm; 0: not clipped
    ema: float = 0.0  # decay of the running mean of weights that is validated and saved; 0: none
    average: int = 0  # the mean of the weights of so many best validations is tried at the end
    patience: int = 0  # validations without a better one before training ends; 0: it does not
    losses: dict[str, float] = field(default_factory=dict)  # name in setk.training.losses -> weight
    discriminator: Adversary | None = (
        None  # PESQ is computed in as many processes as there are workers, but at least one
    )
    teacher: Teaching | None = None
    pruning: Pruning | None = None
    mixing: Mixing = Mixing()
    augment: Augment = Augment()
    valid_every: int = 500  # steps between validations
    save_every: int = 200  # steps between resume states
    metrics: tuple[str, ...] = ("pesq_wb", "stoi", "si_sdr")
    best: str | dict[str, float] | None = None  # picks best.pt: a metric, or metric -> weight; None: balanced
    precision: str = "float32"  # of products: float32; tf32, on GPUs; bf16, autocast
    compile: bool = False  # torch.compile; for models without long loops over time
    deterministic: bool = False  # on GPUs, the same bits from the same seed, or an error where torch cannot
    device: str = "auto"  # auto: a GPU if there is one
    workers: int = 0  # loader processes; 0: load in the training process

    # What may differ between a run and its continuation without changing a number of it; patience, to go on after all.
    FREE = ("device", "workers", "save_every", "patience")

    # The values of keys that have few.
    CHOICES = {
        "optimizer": ("adamw", "muon"),
        "schedule": ("cosine", "exponential"),
        "precision": ("float32", "tf32", "bf16"),
    }

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each metric by which checkpoints are chosen; see `merit`."""
        return {self.best: 1.0} if isinstance(self.best, str) else self.best or {}

    def modelled_choice(self) -> tuple[str, str] | None:
        """(metric, loss): the one metric that chooses best.pt, and a loss in use that models it; None if several choose, or none
        is modelled."""
        if len(self.weights) != 1:
            return None
        (metric,) = self.weights
        used = [*self.losses, *(["discriminator"] if self.discriminator else [])]
        return next(((metric, loss) for loss in used if MODELLED.get(loss) == metric), None)

    def merit(self, scores: Mapping[str, float]) -> float:
        """How good a validation with these scores is: their weighted sum, those of which less is better counted negative. nan if
        one of them is."""
        from setk.metrics import METRICS

        return sum(
            (-weight if METRICS[name].lower_is_better else weight) * scores[name]
            for name, weight in self.weights.items()
        )


def resolve(conf: str, overrides: Sequence[str] = (), init: str | None = None) -> Settings:
    """Read a config with `--set` overrides.

    Raises UserError; about a value of `--set` it names the option, not the file.

    `conf` is a YAML file or the name of an included config. The returned model config is complete: the preset is applied.
    `init` is the checkpoint that training starts from, or None; `config: init` is its config.
    """
    try:
        return _resolve(conf, overrides, init)
    except UserError as e:
        for setting in reversed(overrides):
            place = f"{conf}: {setting.partition('=')[0].replace('.', ': ')}: "
            if str(e).startswith(place):
                raise UserError(f"--set {setting}: {str(e).removeprefix(place)}") from None
        raise


def _resolve(conf: str, overrides: Sequence[str], init: str | None) -> Settings:
    from setk import models
    from setk.metrics import select

    values = config.override(config.read_yaml(config.find(conf)), overrides)
    values = _one_length(values, overrides)
    if values.get("config") == "init":
        values |= {"preset": None, "config": _config_of(conf, values.get("model"), init)}
    settings = config.build(Settings, values, conf)
    full = models.config_values(settings.model, settings.preset, settings.config)
    settings = config.build(Settings, {**values, "config": full}, conf)
    ranges.check(settings, conf)
    if (settings.steps > 0) == (settings.epochs > 0):
        raise UserError(
            f"{conf}: steps {settings.steps} and epochs {settings.epochs:g}: set exactly one of them, above 0"
        )
    for key, known in Settings.CHOICES.items():
        value = getattr(settings, key)
        if value not in known:
            raise UserError(f"{conf}: {key}: '{value}' is unknown; known: {', '.join(known)}")
    _check_losses(conf, settings)
    settings = _with_best(conf, settings)
    if settings.mixing.clean_only + settings.mixing.noise_only > 1:
        raise UserError(
            f"{conf}: mixing: clean_only and noise_only are probabilities of the same draw; lower one, their sum is above 1"
        )
    if settings.discriminator:
        select(("pesq_wb",))
        if settings.segment < 0.25:
            raise UserError(f"{conf}: segment: PESQ, which the discriminator learns, needs 0.25 s or more")
    if settings.teacher:
        _check_teacher(conf, settings.teacher)
    if settings.steps:
        _check_observed(conf, settings)
    if settings.pruning:
        _check_pruning(conf, settings.pruning, init)
    return settings


def _check_losses(conf: str, settings: Settings) -> None:
    from setk.training.losses import LOSSES

    if not settings.losses:
        raise UserError(f"{conf}: losses: at least one is needed, as in 'losses: {{compressed_magnitude: 1.0}}'")
    for name in settings.losses:
        if name not in LOSSES:
            raise UserError(f"{conf}: losses: '{name}' is unknown; {nearest(name, LOSSES)}")


def _with_best(conf: str, settings: Settings) -> Settings:
    """The settings with weights of metrics by which checkpoints are chosen. Raises UserError on metrics that cannot choose."""
    check_metrics(settings.metrics, f"{conf}: metrics")
    if not settings.best:
        chosen = {name: weight for name, weight in BALANCED.items() if name in settings.metrics}
        settings = dataclasses.replace(settings, best=chosen or settings.metrics[0])
    for name in settings.weights:
        if name not in settings.metrics:
            raise UserError(f"{conf}: best: '{name}' is not among the metrics {', '.join(settings.metrics)}")
    if not any(settings.weights.values()):
        raise UserError(f"{conf}: best: all weights are 0, so no checkpoint is better than another")
    return settings


def check_metrics(names: Sequence[str], where: str) -> None:
    """Raise UserError on a metric that is unknown, or that compares with the noisy signal."""
    from setk.metrics import METRICS, select

    for name in select(names):
        if plain := METRICS[name].gain_of:
            raise UserError(
                f"{where}: '{name}' compares with the noisy signal; take '{plain}', which ranks models the same way"
            )


def check_defined(settings: Settings, rate: int) -> None:
    """Raise UserError if a loss, the discriminator, or a metric by which checkpoints are chosen has no meaning at `rate` Hz."""
    from setk.metrics import METRICS
    from setk.metrics.metric import wrong_rate
    from setk.training.losses import AT_16_KHZ, RATE

    for name in settings.losses:
        if name in AT_16_KHZ and rate != RATE:
            raise UserError(f"losses: '{name}' is defined at {RATE} Hz, the model works at {rate} Hz; remove it")
    if settings.discriminator and wrong_rate(METRICS["pesq_wb"].rates, rate):
        raise UserError(
            f"discriminator: it learns wideband PESQ, which is defined at {RATE} Hz, not at {rate} Hz; remove it"
        )
    for name in settings.weights:
        if wrong_rate(METRICS[name].rates, rate):
            raise UserError(
                f"best: '{name}' is not defined at {rate} Hz, where the model works; set metrics and best, as in "
                "--set 'metrics=[stoi, si_sdr]'"
            )


def _one_length(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`values` without that of steps and epochs which the last --set of the other replaces."""
    lengths = [key for key in (one.partition("=")[0] for one in overrides) if key in ("steps", "epochs")]
    replaced = {"steps": "epochs", "epochs": "steps"}[lengths[-1]] if lengths else None
    return {key: value for key, value in values.items() if key != replaced}


def in_steps(settings: Settings, steps_per_epoch: int, where: str) -> Settings:
    """Settings whose length is in steps: epochs of so many. Raises UserError if they are too few; `where` is used in messages."""
    if settings.steps:
        return settings
    counted = dataclasses.replace(settings, steps=max(1, round(settings.epochs * steps_per_epoch)), epochs=0.0)
    ranges.check(counted, where)
    _check_observed(where, counted)
    return counted


def _check_observed(conf: str, settings: Settings) -> None:
    if settings.quantization and settings.quantization.observe >= min(settings.valid_every, settings.steps):
        raise UserError(
            f"{conf}: quantization.observe: nothing is rounded in these {settings.quantization.observe} calls; must be "
            "below valid_every and steps"
        )


def _config_of(conf: str, model: Any, init: str | None) -> dict[str, Any]:
    """The config of the checkpoint `init`, of the model that CONF names."""
    from setk import checkpoint

    if not init:
        raise UserError(f"{conf}: config: init is that of --init CKPT, which is missing")
    path = checkpoint.find(init)
    if not path.exists() and (path.parent / "resume.pt").exists():
        # A training that began with its own best.pt, and has had no validation yet.
        about = config.read_yaml(path.parent / "config.yaml")
    else:
        about = checkpoint.load(path)[1]
    if about["model"] != model:
        raise UserError(f"--init {init}: holds {about['model']}, not {model}, the model of the config")
    return about["config"]


def _check_teacher(conf: str, teacher: Teaching) -> None:
    from setk import pretrained

    try:
        path = pretrained.find(teacher.model)
    except UserError as e:
        raise UserError(f"{conf}: teacher: model: {e}") from None
    if not path.is_file():
        raise UserError(f"{conf}: teacher: model: {path}: no such checkpoint")


def _check_pruning(conf: str, p: Pruning, init: str | None) -> None:
    if p.keep and not init:
        raise UserError(f"{conf}: pruning.keep: keeps the zeros of --init CKPT, which is missing")
    if not p.keep and not (0 < p.amount <= 1 - p.floor and p.amount < 1) or not 0 <= p.floor <= 1:
        raise UserError(
            f"{conf}: pruning: amount {p.amount:g} must be above 0, below 1, and leave floor {p.floor:g} of each layer"
        )
    if not 0 <= p.start <= p.end <= 1 or p.every < 1:
        raise UserError(
            f"{conf}: pruning: start {p.start:g} and end {p.end:g} are parts of the steps, in this order; every is "
            "1 or more"
        )
    if p.layers not in ("all", "conv"):
        raise UserError(f"{conf}: pruning.layers: '{p.layers}' is unknown; all or conv")
