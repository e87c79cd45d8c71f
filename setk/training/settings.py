"""What a training is made of: the YAML conf, resolved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Sequence

from setk import config
from setk.files import UserError


@dataclass(frozen=True)
class Mixing:
    """Dynamic mixing of speech and noise; without effect on pairs."""

    snr: tuple[float, float] = (-5.0, 20.0)      # dB, uniform
    level: tuple[float, float] = (-35.0, -15.0)  # RMS of the mixture, dBFS, uniform
    second_noise: float = 0.0                    # probability that two noises sound together
    noise_speed: tuple[float, float] = (1.0, 1.0)  # noise is played this many times as fast, uniform
    noise_eq: float = 0.0                        # dB; depth of a random equaliser on the noise
    speech_eq: float = 0.0                       # dB; the same on the speech, target included
    room: float = 0.0                            # probability that the speech stands in one of the rooms of rir.scp


@dataclass(frozen=True)
class Augment:
    """What is done to training examples besides; the noise of a pair is its noisy signal less its clean one."""

    remix: float = 0.0                           # probability that a pair gets another pair's noise
    snr: tuple[float, float] | None = None       # dB, uniform; the noise of a pair is scaled to it, the speech is not
    band_limit: float = 0.0                      # probability that all above 1/4 ... 1 of the upper band edge is cut off


@dataclass(frozen=True)
class Settings:
    model: str                                   # a name in setk.models
    preset: str | None = None                    # the model's preset; None: its defaults
    config: dict[str, Any] = field(default_factory=dict)  # values on top of the preset
    seed: int = 1
    segment: float = 2.0                         # seconds of a training example
    batch: int = 16                              # examples of an optimizer step, over all ranks and micro-batches
    accumulate: int = 1                          # micro-batches in which a rank takes its part of the batch, to save memory
    steps: int = 20000                           # optimizer steps; the schedule ends with the last
    warmup: int = 500                            # steps of linear warm-up
    lr: float = 2e-3                             # peak, then as `schedule` says
    lr_end: float = 1e-6
    schedule: str = "cosine"                     # after the warm-up; or exponential, as DPSNN's
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01                   # not on parameters of one dimension
    clip: float = 5.0                            # gradient norm; 0: not clipped
    ema: float = 0.0                             # decay of the running mean of weights that is validated and saved; 0: none
    average: int = 0                             # the mean of the weights of so many best validations is tried at the end
    patience: int = 0                            # validations without a better one before training ends; 0: it does not
    losses: dict[str, float] = field(default_factory=dict)  # name in setk.training.losses -> weight
    mixing: Mixing = Mixing()
    augment: Augment = Augment()
    valid_every: int = 500                       # steps between validations
    save_every: int = 200                        # steps between resume states
    metrics: tuple[str, ...] = ("pesq_wb", "stoi", "si_sdr")
    best: str = "pesq_wb"                        # the metric that picks best.pt
    precision: str = "float32"                   # of products: float32; tf32, on GPUs; bf16, autocast
    compile: bool = False                        # torch.compile; for models without long loops over time
    deterministic: bool = False                  # on GPUs, the same bits from the same seed, or an error where torch cannot
    device: str = "auto"                         # auto: a GPU if there is one
    workers: int = 0                             # loader processes; 0: load in the training process

    # What may differ between a run and its continuation without changing a number of it; patience, to go on after all.
    FREE = ("device", "workers", "save_every", "patience")

    PRECISIONS = ("float32", "tf32", "bf16")


def resolve(conf: str, overrides: Sequence[str] = ()) -> Settings:
    """Read CONF with `--set` overrides; the model's config comes back complete, preset applied."""
    from setk import models
    from setk.metrics import METRICS, select
    from setk.training.losses import LOSSES

    values = config.override(config.read_yaml(conf), overrides)
    settings = config.build(Settings, values, conf)
    full = models.config_values(settings.model, settings.preset, settings.config)
    settings = config.build(Settings, {**values, "config": full}, conf)
    for name in settings.losses:
        if name not in LOSSES:
            raise UserError(f"{conf}: losses: '{name}' is unknown; known: {', '.join(LOSSES)}")
    for name in select(settings.metrics):
        if METRICS[name].gain_of:
            raise UserError(f"{conf}: metrics: '{name}' compares with the noisy signal; take '{METRICS[name].gain_of}', which ranks models alike")
    if not settings.losses:
        raise UserError(f"{conf}: losses: at least one is needed, as in 'losses: {{magnitude: 1.0}}'")
    if settings.best not in settings.metrics:
        raise UserError(f"{conf}: best: '{settings.best}' is not among the metrics {', '.join(settings.metrics)}")
    if settings.schedule not in ("cosine", "exponential"):
        raise UserError(f"{conf}: schedule: '{settings.schedule}' is unknown; cosine or exponential")
    for key in ("segment", "batch", "accumulate", "steps", "valid_every", "save_every", "lr"):
        if getattr(settings, key) <= 0:
            raise UserError(f"{conf}: {key}: must be above 0")
    if not 0 <= settings.ema < 1:
        raise UserError(f"{conf}: ema: {settings.ema} is no decay; 0 (none) to below 1, as in 0.999")
    if settings.precision not in Settings.PRECISIONS:
        raise UserError(f"{conf}: precision: '{settings.precision}' is unknown; known: {', '.join(Settings.PRECISIONS)}")
    return settings
