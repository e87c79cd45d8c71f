"""What a MODEL argument names: the only place that turns a name or a file into an engine or a torch model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

from setk import pretrained
from setk.core.errors import UserError, nearest
from setk.engines.base import Engine
from setk.engines import native
from setk.engines.native import NativeEngine
from setk.engines.torch import TorchEngine

if TYPE_CHECKING:
    from setk.models import Model

YAML = (".yaml", ".yml")
# What se-quant export writes and no engine runs, and what to do with it.
FOREIGN = {
    ".h": "a C header; compile the .c next to it",
    ".wasm": "WebAssembly; load it in a browser",
    ".html": "a web page; open it in a browser",
}
PROGRAMS = {".ts": "TorchScript", ".c": "C source", ".so": "a shared library"}
MODEL_KEYS = (
    "model",
    "preset",
    "config",
    "quantization",
)  # what a config says of the model; the other keys are se-train's


class Loaded(NamedTuple):
    """A torch model and its origin.

    `file`: the file that MODEL names, None for a preset or a config. `about`: everything that the file holds but the
    weights. `has_weights`: False for a model that was built from its config alone (preset, config, .onnx, .ts).
    """

    model: Model
    file: Path | None
    about: dict[str, Any]
    has_weights: bool


def open(
    spec: str | os.PathLike,
    *,
    trust: bool = False,
    settings: Sequence[str] = (),
    stft: str | None = None,
) -> Engine:
    """The engine that runs MODEL: an included name, .pt, .onnx, .ts, or a .c of se-quant export, or what it was compiled to, a .so.

    An included model that exists as .onnx runs from it: by setk's own kernels if these were built and the model is causal,
    otherwise by ONNX Runtime, which also runs an .onnx that is named by its path. `trust` allows TorchScript, C and
    shared libraries, which can execute any code. `settings`, "key=value", change the config of a checkpoint, which torch then
    runs (see `model`). `stft` states the transform of an .onnx that setk did not write (see ForeignEngine). Raises UserError.

    >>> engine = open("fspen")
    """
    spec = os.fspath(spec)
    if not spec.endswith(".onnx"):
        _refuse_stft(spec, stft)
    if settings:
        import hashlib

        changed = model(spec, weights=True, settings=settings)
        engine = TorchEngine(changed.model)
        named = "\n".join([changed.about["sha256"], *settings])
        engine.sha256 = hashlib.sha256(named.encode()).hexdigest()
        return engine
    if spec in pretrained.included(".onnx") and not Path(spec).is_file():
        exported = pretrained.included(".onnx")[spec]
        return NativeEngine(exported, keep=True) if native.available(exported) else _onnx(exported)
    if Path(spec).suffix in PROGRAMS:
        return _open_program(Path(spec), trust)
    path = _path(spec)
    if path is None:
        model(spec)  # may have another fault
        raise UserError(
            f"{spec}: has no weights to run; train it with se-train, or use an included model (se-enhance --list-models)"
        )
    if path.suffix == ".onnx":
        return _onnx(path, stft)
    return TorchEngine(path)


def every(spec: str | os.PathLike) -> dict[str, Engine]:
    """The engines that can run MODEL on this machine, of `native`, `onnx` and `torch`: an included model has them all, a checkpoint
    torch, and an .onnx the two others. Raises UserError."""
    spec = os.fspath(spec)
    file = _path(spec)
    exported = file if file and file.suffix == ".onnx" else None
    if not Path(spec).is_file():
        exported = pretrained.included(".onnx").get(spec, exported)
    found: dict[str, Engine] = {}
    if exported and native.available(exported):
        found["native"] = NativeEngine(exported)
    if exported:
        found["onnx"] = _onnx(exported)
    if file and file.suffix not in (".onnx", ".ts"):
        found["torch"] = TorchEngine(file)
    return found


def _refuse_stft(spec: str | os.PathLike, stft: str | None) -> None:
    if stft:
        raise UserError(f"--stft is for ONNX files of other projects, and {spec} has a transform; remove it")


def _onnx(path: Path, stft: str | None = None) -> Engine:
    # These modules check metadata with the reader of configs, which the native engine starts without.
    from setk.engines import onnx_graph
    from setk.engines.foreign import ForeignEngine
    from setk.engines.onnx import OnnxEngine, is_own

    session = onnx_graph.open_session(path)
    if not is_own(session):
        return ForeignEngine(path, session, stft)
    _refuse_stft(path, stft)
    return OnnxEngine(path, session)


def _open_program(path: Path, trust: bool) -> Engine:
    if path.suffix == ".ts":
        from setk.engines.torchscript import ScriptEngine as ProgramEngine, read_about
    else:
        from setk.engines.compiled import CompiledEngine as ProgramEngine, read_about
    read_about(path)
    if not trust:
        raise UserError(
            f"{path}: {PROGRAMS[path.suffix]} is a program that can run any code; if you trust it, add --trust "
            "(trust=True in Python)"
        )
    return ProgramEngine(path)


def model(spec: str | os.PathLike, *, weights: bool = False, settings: Sequence[str] = ()) -> Loaded:
    """The torch model that MODEL names: an included name, .pt, .onnx, .ts, preset or YAML config.

    An .onnx or .ts is rebuilt from the config that it holds, without weights, and no code of it runs. `weights` refuses
    whatever has none. `settings`, "key=value", change the config under the same weights, such as "suppression=0.3" of
    dpsnn. Raises UserError.
    """
    loaded = _load(os.fspath(spec))
    if weights and not loaded.has_weights:
        raise UserError(
            f"{spec}: needs a checkpoint with weights; use "
            + ("the .pt that it was exported from" if loaded.file else "one of se-train, or an included model")
        )
    return _with_settings(loaded, settings) if settings else loaded


def _with_settings(loaded: Loaded, settings: Sequence[str]) -> Loaded:
    """The model with other values in its config, and the weights that it has."""
    from setk import models
    from setk.core import config

    old = loaded.model
    values = config.override(config.plain(old.config), settings)
    quantization = old.quantization and config.plain(old.quantization)
    new = models.build(old.name, values, quantization)
    try:
        new.load_state_dict(old.state_dict())
    except RuntimeError:
        raise UserError(
            f"--set {' '.join(settings)}: changes the sizes of {old.name}, so that its weights do not fit; train one with se-train"
        ) from None
    return loaded._replace(model=new.train(old.training))


def _load(spec: str) -> Loaded:
    from setk import checkpoint, models

    if spec.endswith(YAML):
        return Loaded(_configured(spec), None, {}, False)
    path = _path(spec)
    if path is None:
        return Loaded(models.build_preset(spec), None, {}, False)
    if path.suffix not in (".onnx", ".ts"):
        trained, about = checkpoint.load(path)
        return Loaded(trained, path, about, True)
    if path.suffix == ".onnx":
        from setk.engines.onnx import OnnxEngine

        about = OnnxEngine(path).about
    else:
        from setk.engines.torchscript import read_about

        about = read_about(path)
    described = {name: about[name] for name in ("model", "config")}
    return Loaded(models.rebuild(path, described), path, about, False)


def _configured(path: str) -> Model:
    """The model of a YAML config of se-train. Keys that are not about the model are not looked at."""
    import difflib

    from setk import models
    from setk.core import config

    values = config.read_yaml(path)
    for key in values.keys() - set(MODEL_KEYS):
        if near := difflib.get_close_matches(str(key), MODEL_KEYS, 1, 0.75):
            raise UserError(f"{path}: unknown key '{key}'; did you mean {near[0]!r}?")
    if "model" not in values:
        raise UserError(f"{path}: 'model' is missing")
    name, overrides = str(values["model"]), values.get("config", {})
    if not isinstance(overrides, dict):
        raise UserError(f"{path}: config: {overrides!r} is not a mapping; expected 'key: value' lines")
    return models.build(name, models.config_values(name, values.get("preset"), overrides))


def _path(spec: str) -> Path | None:
    """The file that MODEL names; None if it is a preset or a YAML config. An included model goes before a preset."""
    if spec.endswith(YAML):
        return None
    if Path(spec).suffix in (".c", ".so"):
        if not Path(spec).is_file():
            raise UserError(f"{spec}: no such file")
        raise UserError(
            f"{spec}: has no model of torch in it; use the checkpoint that it was exported from, or, for the cost of a .c on a "
            "device, se-count --target"
        )
    if Path(spec).suffix in FOREIGN:
        raise UserError(f"{spec}: is {FOREIGN[Path(spec).suffix]}, or use the checkpoint that it was exported from")
    if spec.endswith(".ts") or pretrained.is_file_name(spec):
        return Path(spec)
    included = pretrained.included()
    if spec in included:
        return included[spec]
    from setk import models

    if spec in models.presets():
        return None
    raise UserError(
        f"no model is called '{spec}'; {nearest(spec, sorted({*included, *models.presets()}))}; or use the path of a file"
    )
