"""The model that a training begins with."""

from __future__ import annotations

from setk import checkpoint, models
from setk.core import config
from setk.core.errors import UserError
from setk.nn.quantization import quantize
from setk.training.settings import Settings


def build(settings: Settings) -> models.Model:
    """The model of the config, quantized if the config has `quantization`."""
    return models.build(settings.model, settings.config, settings.quantization and config.plain(settings.quantization))


def begin_from(spec: str, settings: Settings) -> models.Model:
    """The model of the config with the weights of another checkpoint of the same model. Where the config quantizes one in floating point, the
    ranges of weights are those of what was taken."""
    source, _ = checkpoint.load(checkpoint.find(spec))
    same = source.quantization == settings.quantization
    begun = build(settings) if same else models.build(settings.model, settings.config)
    if source.name != begun.name:
        raise UserError(
            f"--init {spec}: holds {source.name}, and the config is of {begun.name}; give a checkpoint of {begun.name}"
        )
    if not same and source.quantization:
        raise UserError(
            f"--init {spec}: is quantized, and the config {'in another way' if settings.quantization else 'is not'}; "
            "give a float checkpoint, or the quantization of this one"
        )
    try:
        begun.adopt(source)
    except ValueError as e:
        raise UserError(
            f"--init {spec}: its model settings are not those of the config ({e}); use its own with --set config=init"
        ) from None
    if not same:
        quantize(begun, settings.quantization)
    return begun
