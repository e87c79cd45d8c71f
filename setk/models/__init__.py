"""The models, and the contract that they share.

A model is a `Model`: a module whose `forward(frames, state)` accepts any number of frames, spectra or pieces of waveform as its
`transform` makes them, and returns as many, with the state for the frames that follow. Offline enhancement is one long chunk,
streaming is chunks of one frame; there is no second implementation of a model for either. A file of this folder is one
paper; its presets are named after the file ("fspen", "fspen-79k"). The variable SETK_MODELS adds files (setk.core.registry).
"""

from __future__ import annotations

import dataclasses
import os
import sys
from importlib import import_module, util
from pathlib import Path
from typing import Annotated, Any, Callable, ClassVar, Iterable, Mapping, Sequence, get_type_hints

import torch
from torch import nn

from setk.core import config, registry
from setk.audio.stft import Transform
from setk.core.errors import UserError, nearest
from setk.nn.quantization import Scheme, quantize, unquantized

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

    Class attributes: `name` (that of the file), `paper` (citation), `deviations` (from the paper, and why), `Config` (a
    dataclass of scalars and tuples), `presets` (name -> Config). Instances have `config`, `transform`,
    `lookahead` (frames) and `sample_rate`; `extras` holds what a loss may need of the last forward in training
    mode in addition to its output.

    forward(frames [B, T, *shape], state) -> (frames [B, T, *shape], state), T >= 1, with
    forward(a ++ b) = forward(a) ++ forward(b) if the second call has the state of the first; `shape` is the transform's,
    [F, 2] for spectra. A model with look-ahead answers late: its output t belongs to input t - lookahead.
    Every state tensor has the batch in the dimension that `init_state` gives it.

    A model that is not `causal` needs a full signal, or a window of a long one, in `frames`; it has no state. Files
    are processed `chunk_s` seconds at a time, by such a model in windows that overlap (see engines.Overlapped).

    `parts` are the mechanisms that its paper names; `without` takes one out of a trained model (se-prune --method part).

    A model whose constructor makes its layers of the widths in `units` (see Widths), and whose Config has
    `widths: tuple[int, ...] = ()`, can be pruned in structure.
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
    units: Mapping[str, int] = {}  # the widths that structured pruning may change (see Widths)
    width_multiple: ClassVar[int] = 8  # to which pruned widths are rounded
    bare: tuple[str, ...] = ()  # modules whose outputs quantization leaves as they are
    quantization: Scheme | None = None  # how it is quantized (see setk.nn.quantization)

    def __init__(self) -> None:
        super().__init__()
        self.extras: dict[str, torch.Tensor] = {}

    def adopt(self, source: Model) -> None:
        """Copy the weights of another model of this class. Raises ValueError if this model cannot begin from its config."""
        if config.plain(source.config) != config.plain(self.config):
            raise ValueError("its config differs")
        self.load_state_dict(source.state_dict())

    def init_state(self, batch: int) -> State:
        """The state before the first frame, for `batch` signals, on the model's device."""
        return ()

    def forward(self, frames: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        raise NotImplementedError

    @property
    def parts(self) -> Mapping[str, Callable[[], object]]:
        """Name of a mechanism -> what takes it out of this model, in place: weights with which it does nothing."""
        return {}

    def without(self, part: str) -> Model:
        """This model, from now on without one of its `parts`. Raises UserError on an unknown name."""
        if part not in self.parts:
            known = f"its parts are {', '.join(self.parts)}" if self.parts else "it names none"
            raise UserError(f"{self.name} has no part '{part}'; {known}")
        with torch.no_grad():
            self.parts[part]()
        return self

    @property
    def state_axes(self) -> tuple[int, ...]:
        """The dimension of each state tensor in which the signals of a batch lie."""
        return tuple(
            next(d for d in range(one.dim()) if one.shape[d] != two.shape[d])
            for one, two in zip(self.init_state(1), self.init_state(2))
        )

    def whole(self, frames: torch.Tensor, state: State | None = None) -> torch.Tensor:
        """All frames [B, T, *shape] of signals to as many, aligned with them, as one chunk; `state`: that of what was heard before,
        if anything was."""
        late = frames.new_zeros(len(frames), self.lookahead, *self.transform.shape)
        out, _ = self(torch.cat([frames, late], 1), self.init_state(len(frames)) if state is None else state)
        return out[:, self.lookahead :]

    def enhance(self, wave: torch.Tensor) -> torch.Tensor:
        """Waveform [B, n] to enhanced waveform [B, n], sample-aligned."""
        return self.transform.synthesis(self.whole(self.transform.analysis(wave)), wave.shape[-1])

    @property
    def latency_ms(self) -> float | None:
        """Algorithmic latency: window and look-ahead, in milliseconds; None if the model needs the full signal."""
        return None if not self.causal else 1000 * self.transform.latency(self.lookahead) / self.sample_rate


def names() -> list[str]:
    """The models' names."""
    return list(registry.model_files())


def model_class(name: str) -> type[Model]:
    """The class of a model by its name. Raises UserError, with the nearest name, on an unknown one."""
    files = registry.model_files()
    if name not in files:
        raise unknown(name, files)
    module = _imported(name, files[name])
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Model) and value.__module__ == module.__name__
    ]
    if len(found) != 1 or found[0].name != name:
        raise UserError(f"{files[name]}: expected one subclass of setk.models.Model, with name = '{name}'")
    return found[0]


def _imported(name: str, path: Path) -> Any:
    if path.parent == registry.INCLUDED:
        return import_module(f"setk.models.{name}")
    full_name = f"setk_model_{name}"
    module = sys.modules.get(full_name)
    if module is None or module.__file__ != str(path):
        spec = util.spec_from_file_location(full_name, path)
        module = sys.modules[full_name] = util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[full_name]
            raise
    return module


def unknown(name: str, known: Iterable[str]) -> UserError:
    return UserError(f"no model is called '{name}'; {nearest(name, known)}")


def presets() -> dict[str, tuple[str, Any]]:
    """Preset name -> (model name, config), over all models."""
    return {preset: (name, cfg) for name in names() for preset, cfg in model_class(name).presets.items()}


def build(name: str, values: Mapping[str, Any], quantization: Mapping[str, Any] | None = None) -> Model:
    """Make a model from its name and the plain values of its config (the default for a missing one), quantized if those of a
    Scheme are given.

    Raises UserError on an unknown name or key, and on values that the model refuses (by ValueError).
    """
    cls = model_class(name)
    try:
        model = cls(check_sizes(config.build(cls.Config, values, f"model {name}"), name))  # type: ignore[call-arg]
        if isinstance(model.units, Widths):
            model.units.check()
        if quantization is not None:
            quantize(model, config.build(Scheme, quantization, f"model {name}: quantization"))
        return model
    except (ValueError, RuntimeError, ArithmeticError) as e:  # torch has its own for sizes that do not go together
        raise UserError(f"model {name}: {' '.join(str(e).split())[:200]}") from None


def rebuild(path: str | os.PathLike, about: Mapping[str, Any]) -> Model:
    """The model that a checkpoint or an export describes by `model`, `config` and `quantization`. Raises UserError as `build`."""
    if about["model"] not in names():
        raise UserError(
            f"{path}: is of the model '{about['model']}', which setk does not have; name its file in SETK_MODELS"
        )
    return build(about["model"], about["config"], about.get("quantization"))


Count = Annotated[int, "of layers"]  # the type of a config's key whose value says how often something is there
# Limits of the integers in a model's config: of a Count, of a rate in Hz, and of all others.
MOST_LAYERS, WIDEST, FASTEST = 64, 4096, 192_000


def check_sizes(values: Any, name: str) -> Any:
    """Return a model's config. Raises UserError on sizes far beyond any model's, for which memory and time would not suffice; the
    defaults of a Config are its author's."""
    kinds = get_type_hints(type(values), include_extras=True)
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        most = MOST_LAYERS if kinds[field.name] == Count else FASTEST if field.name == "rate" else WIDEST
        sizes = value if isinstance(value, tuple) else (value,)
        if len(sizes) > WIDEST:
            raise UserError(f"model {name}: {field.name}: has {len(sizes)} values; at most {WIDEST}")
        for size in sizes:
            if type(size) is int and not 1 <= size <= most and value != field.default:
                raise UserError(f"model {name}: {field.name}: {size} is outside 1 ... {most}")
    return values


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
        raise UserError(f"{name} has no preset called '{preset}'; {nearest(preset, cls.presets)}")
    base = config.plain(cls.presets[preset] if preset else cls.Config())
    return config.plain(config.build(cls.Config, {**base, **overrides}, f"model {name}"))


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Learnable, total (with buffers) and non-zero learnable scalars; of a quantized model those of the float model of the same shape,
    with its rounded weights: the steps of the quantizers are not weights."""
    if isinstance(model, Model):
        model = unquantized(model)
    learnable = [p for p in model.parameters() if p.requires_grad]
    return {
        "params": sum(p.numel() for p in learnable),
        "params_total": sum(t.numel() for t in model.state_dict().values()),
        "params_nonzero": sum(int(torch.count_nonzero(p)) for p in learnable),
    }
