"""The models, and the contract that they share.

A model is a `Model`: a module whose `forward(frames, state)` takes any number of frames, spectra or pieces of
waveform as its `transform` makes them, and returns as many, with the state to go on from. Offline enhancement
is one long chunk, streaming is chunks of one frame; there is no second copy of a model for either. One file
per paper, named in MODELS; its presets are named by the file ("fspen", "fspen-79k").
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar, Iterable, Mapping, Sequence

import torch
from torch import nn

from setk.core import config
from setk.audio.stft import Transform
from setk.core.errors import UserError
from setk.nn.quantization import Scheme, quantize

MODELS = {"fspen": "setk.models.fspen:FSPEN", "lite_rtse": "setk.models.lite_rtse:LiteRTSE", "dpsnn": "setk.models.dpsnn:DPSNN",
          "dccrn": "setk.models.dccrn:DCCRN", "dpcrn_cf": "setk.models.dpcrn_cf:DPCRNCF",
          "effifusion_gan": "setk.models.effifusion_gan:EffiFusionGAN",
          "conv_tasnet": "setk.models.conv_tasnet:ConvTasNet", "gtcrn": "setk.models.gtcrn:GTCRN",
          "fastenhancer": "setk.models.fastenhancer:FastEnhancer"}

State = tuple[torch.Tensor, ...]


class Widths(dict[str, int]):
    """The widths of a model that structured pruning may change, by name in the order of the config's `widths`.

    A constructor asks for each width where it makes the layers: `units("encoder", 16)` is 16, the paper's number, or what the
    config of a pruned model gives. Raises ValueError on a number below 1.
    """

    def __init__(self, given: Sequence[int]):
        super().__init__()
        self._given = tuple(given)
        if any(width < 1 for width in self._given):
            raise ValueError(f"widths {self._given}: all must be 1 or more")

    def __call__(self, name: str, width: int) -> int:
        place = len(self)
        self[name] = self._given[place] if place < len(self._given) else width
        return self[name]

    def check(self) -> None:
        """Raise ValueError if the config has another number of widths than the model."""
        if self._given and len(self._given) != len(self):
            raise ValueError(f"widths {self._given}: expected {len(self)} numbers, for {', '.join(self)}")


class Model(nn.Module):
    """Contract of a model over frames.

    Class attributes: `name`, `paper` (citation), `deviations` (from the paper, and why), `Config` (a
    dataclass of scalars and tuples), `presets` (name -> Config). Instances have `config`, `transform`,
    `lookahead` (frames) and `sample_rate`; `extras` holds what a loss may want of the last forward in training
    mode besides its output.

    forward(frames [B, T, *shape], state) -> (frames [B, T, *shape], state), T >= 1, with
    forward(a ++ b) = forward(a) ++ forward(b) when the state is handed on; `shape` is the transform's,
    [F, 2] for spectra. A model that looks ahead answers late: its output t belongs to input t - lookahead.
    Every state tensor has the batch in the dimension that `init_state` gives it.

    A model that is not `causal` sees one whole signal, or a window of a long one, in `frames`; it has no state. Files
    are taken `chunk_s` seconds at a time, by such a model in windows that overlap (see engines.Overlapped).
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    deviations: ClassVar[str]
    Config: ClassVar[type]
    presets: ClassVar[Mapping[str, Any]]
    causal: ClassVar[bool] = True
    chunk_s: ClassVar[float] = 10.0

    config: Any
    transform: Transform
    lookahead: int = 0
    sample_rate: int = 16000
    units: Mapping[str, int] = {}       # the widths that structured pruning may change (see Widths)
    width_multiple: ClassVar[int] = 8   # to which pruned widths are rounded
    bare: tuple[str, ...] = ()          # modules whose outputs quantization leaves as they are
    quantization: Scheme | None = None  # how it is quantized (see setk.nn.quantization)

    def __init__(self) -> None:
        super().__init__()
        self.extras: dict[str, torch.Tensor] = {}

    def adopt(self, source: Model) -> None:
        """Take the weights of another model of this kind. Raises ValueError if its config is another, and is none that
        this model can begin from."""
        if config.plain(source.config) != config.plain(self.config):
            raise ValueError("its config is another")
        self.load_state_dict(source.state_dict())

    def init_state(self, batch: int) -> State:
        """The state before the first frame, for `batch` signals, on the model's device."""
        return ()

    def forward(self, frames: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        raise NotImplementedError

    @property
    def state_axes(self) -> tuple[int, ...]:
        """The dimension of each state tensor in which the signals of a batch lie."""
        return tuple(next(d for d in range(one.dim()) if one.shape[d] != two.shape[d])
                     for one, two in zip(self.init_state(1), self.init_state(2)))

    def whole(self, frames: torch.Tensor) -> torch.Tensor:
        """All frames [B, T, *shape] of signals to as many, aligned with them, as one chunk."""
        late = frames.new_zeros(len(frames), self.lookahead, *self.transform.shape)
        out, _ = self(torch.cat([frames, late], 1), self.init_state(len(frames)))
        return out[:, self.lookahead:]

    def enhance(self, wave: torch.Tensor) -> torch.Tensor:
        """Waveform [B, n] to enhanced waveform [B, n], sample-aligned."""
        return self.transform.synthesis(self.whole(self.transform.analysis(wave)), wave.shape[-1])

    @property
    def latency_ms(self) -> float | None:
        """Algorithmic latency: window and look-ahead, in milliseconds; None if the model wants the whole signal."""
        return None if not self.causal else 1000 * self.transform.latency(self.lookahead) / self.sample_rate


def model_class(name: str) -> type[Model]:
    """The class of a model by its name in MODELS. Raises UserError, naming the nearest, on an unknown one."""
    if name not in MODELS:
        raise unknown(name, MODELS)
    module, cls = MODELS[name].split(":")
    return getattr(import_module(module), cls)


def unknown(name: str, known: Iterable[str]) -> UserError:
    return UserError(f"no model is called '{name}'; {config.nearest(name, known)}")


def presets() -> dict[str, tuple[str, Any]]:
    """Preset name -> (model name, config), over all models."""
    return {preset: (name, cfg) for name in MODELS for preset, cfg in model_class(name).presets.items()}


def build(name: str, values: Mapping[str, Any], quantization: Mapping[str, Any] | None = None) -> Model:
    """Make a model from its name and the plain values of its config (missing ones take defaults), quantized if those of a
    Scheme are given.

    Raises UserError on an unknown name or key, and on values that the model refuses (by ValueError).
    """
    cls = model_class(name)
    try:
        model = cls(config.build(cls.Config, values, f"model {name}"))  # type: ignore[call-arg]
        if isinstance(model.units, Widths):
            model.units.check()
        if quantization is not None:
            quantize(model, config.build(Scheme, quantization, f"model {name}: quantization"))
        return model
    except ValueError as e:
        raise UserError(f"model {name}: {e}") from None


def build_preset(preset: str) -> Model:
    """Make an untrained model from a preset's name."""
    known = presets()
    if preset not in known:
        raise unknown(preset, known)
    name, cfg = known[preset]
    return build(name, config.plain(cfg))


def config_values(name: str, preset: str | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Resolved config of model `name`: `preset`'s values (defaults for None) with `overrides` on top."""
    cls = model_class(name)
    if preset is not None and preset not in cls.presets:
        raise unknown(preset, cls.presets)
    base = config.plain(cls.presets[preset] if preset else cls.Config())
    return config.plain(config.build(cls.Config, {**base, **overrides}, f"model {name}"))


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Learnable, total (with buffers) and non-zero learnable scalars."""
    learnable = [p for p in model.parameters() if p.requires_grad]
    return {"params": sum(p.numel() for p in learnable),
            "params_total": sum(t.numel() for t in model.state_dict().values()),
            "params_nonzero": sum(int(torch.count_nonzero(p)) for p in learnable)}
