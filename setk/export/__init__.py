"""A checkpoint in a form that runs elsewhere: ONNX, TorchScript, C, a page, a plugin.

The package is callable, as `setk.export(MODEL, OUT)`; see `write`.
"""

from __future__ import annotations

import logging
import math
import os
import statistics
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, Iterable

from setk.core.errors import UserError
from setk.core.files import atomic_path

FORMATS = (".onnx", ".ts", ".c", ".html")
RUNTIMES = {"sherpa-onnx": ".onnx", "ladspa": ".so"}
WEIGHTS = ("float", "int8")
LEAST_PARITY = 80.0  # dB; float32 in another order of summation stays above 100
LEAST_ROUNDED = 15.0  # of a quantized model: a rounding that flips makes others flip, which leaves 20 to 50

logger = logging.getLogger("setk")


def write(
    spec: str | os.PathLike,
    out: str | os.PathLike,
    *,
    frames: int = 1,
    batch: int = 1,
    runtime: str | None = None,
    signals: Iterable[str] | None = None,
    min_snr: float | None = None,
    integer: bool = False,
    weights: str = "float",
) -> dict[str, Any]:
    """Write the checkpoint that MODEL names to OUT: .onnx, which setk runs without torch, .ts for torch.jit.load, or .c (and .h)
    for any C99 compiler, of a causal float model.

    `runtime`: None, or one of RUNTIMES, for which the file is made instead: see setk.export.sherpa and setk.export.ladspa.build.
    `weights`: of C, "float" or "int8", a step for each output channel; pages have int8 weights.
    `frames`: how many one call accepts (1 is live; 16 and more suit files); a model that is not causal accepts any number.
    `batch`: signals that one call accepts; both are 1 for C. A quantized model becomes ONNX of int8 weights and integer operators. Returns
    `nodes` of the graph, `bytes`, `snr_db` of the file's output to the checkpoint's, and of a quantized model in ONNX
    `products` (convolutions and matrix products) and how many of them are `integer`. Of C with int8 weights, `parity` is the SNR in
    dB to the program with the same rounded weights as float, and `snr_db` the effect of rounding.

    `snr_db` is over short signals of white noise; with `signals`, locations of audio, it is the mean over these. Raises
    UserError, and writes nothing, if it is below `min_snr` dB (default: LEAST_PARITY; LEAST_ROUNDED of a quantized model). White
    noise says little of a quantized model that was trained briefly: below the default it is then written with a warning.
    `signals` and `min_snr` are for .onnx and .ts without a `runtime`, and for `integer`.

    `integer`: C of a float FSPEN without floating point: int8 weights, int16 activations. `signals`, noisy speech, then determine the
    ranges of the activations; the default is data/mini of a checkout. `snr_db` is on speech and `min_snr` 20.

    >>> write("fspen", "fspen.onnx")["snr_db"] > 100
    True
    """
    from setk import engines
    from setk.export import onnx

    out = Path(out)
    if runtime is not None:
        _check_runtime(runtime, out, frames, batch)
    elif out.suffix not in FORMATS:
        raise UserError(
            f"{out}: a plugin for PipeWire, ffmpeg and audio editors needs --for ladspa; any other library is compiled from a .c"
            if out.suffix == ".so"
            else f"{out}: the name must end in .onnx, in .ts for TorchScript, in .c, or in .html for browsers"
        )
    if out.suffix == ".c" and set(out.stem) & set('"\\\n'):
        raise UserError(f"{out}: C cannot include a header with a quote, a backslash or a line break in its name")
    if weights not in WEIGHTS:
        raise UserError(f"weights '{weights}' is unknown; choose {' or '.join(WEIGHTS)}")
    if weights != "float" and (out.suffix != ".c" or integer):
        raise UserError(
            f"{out}: --weights is for C that computes in float; quantize a model for other files by se-quant ptq"
        )
    if integer:
        if out.suffix != ".c" or runtime is not None:
            raise UserError(f"{out}: the form of integers alone is C; let the name end in .c, or remove --integer")
        return _write_integer(spec, out, frames, batch, signals, min_snr)
    if (runtime is not None or out.suffix in (".c", ".html")) and (signals is not None or min_snr is not None):
        raise UserError(f"{out}: --list and --min-snr are for .onnx and .ts; remove them")
    if runtime == "sherpa-onnx":
        return _write_sherpa(spec, out)
    model, _, about, _ = engines.model(spec, weights=True)
    if not model.causal and frames != 1:
        raise UserError(f"{model.name} is not causal: its export accepts any number of frames; remove --frames")
    facts = {"scores": about["scores"], "source": about["provenance"], "sha256": about["sha256"]}
    if out.suffix in (".c", ".html", ".so"):
        return _write_native(model, spec, out, frames, batch, weights, facts)
    to_file = onnx.to_onnx if out.suffix == ".onnx" else onnx.to_torchscript
    with atomic_path(out) as temporary:
        made = to_file(model, temporary, frames=frames, batch=batch, **facts)
        engine = engines.open(str(temporary), trust=True)
        snr = onnx.parity(model, engine) if signals is None else _parity(model, engine, signals)
        least = min_snr if min_snr is not None else LEAST_ROUNDED if model.quantization else LEAST_PARITY
        if not snr >= least:
            fault = f"differs from {spec} by more than rounding (SNR {snr:.1f} dB, below {least:g})"
            if not model.quantization or signals is not None or min_snr is not None:
                raise UserError(f"{out}: not written: {fault}")
            logger.warning(f"{out}: {fault} on white noise; compare them on speech, with --list LIST or se-quant check")
    return {**made, "bytes": out.stat().st_size, "snr_db": snr}


def _parity(model: Any, engine: Any, signals: Iterable[str]) -> float:
    """Mean SNR in dB of the engine's output to the model's over the signals whose outputs are not equal; inf if all are."""
    from setk.audio import Location
    from setk.engines import TorchEngine, parity

    rows = list(parity.compare(TorchEngine(model), engine, ((path, Location.parse(path)) for path in signals)))
    faults = [f"{row.utt}: {row.error}" for row in rows if row.error]
    if faults or not rows:
        raise UserError(f"no signals to compare the export on: {faults[0] if faults else 'the list is empty'}")
    if all(row.silent for row in rows):
        raise UserError("no signals to compare the export on: all outputs are silent")
    different = [row.snr for row in rows if row.snr != math.inf]
    return statistics.mean(different) if different else math.inf


def _check_runtime(runtime: str, out: Path, frames: int, batch: int) -> None:
    if runtime not in RUNTIMES:
        raise UserError(f"runtime '{runtime}' is unknown; choose {' or '.join(RUNTIMES)}")
    if out.suffix != RUNTIMES[runtime]:
        raise UserError(f"{out}: the name must end in {RUNTIMES[runtime]} for {runtime}")
    if frames != 1 or batch != 1:
        raise UserError(f"{runtime} runs one frame of one signal per call; remove --frames and --batch")


def _write_sherpa(spec: str | os.PathLike, out: Path) -> dict[str, Any]:
    from setk import engines
    from setk.export import sherpa

    made = sherpa.to_onnx(engines.model(spec, weights=True)[0], out)
    return {**made, "bytes": out.stat().st_size}


def _write_native(
    model: Any, spec: str | os.PathLike, out: Path, frames: int, batch: int, weights: str, facts: dict[str, Any]
) -> dict[str, Any]:
    """The model as C, as a page or as a LADSPA plugin, by way of ONNX. `snr_db` of C is None without a compiler; `multiply_adds` are those of a hop."""
    from setk.engines.torch import TorchEngine
    from setk.export import onnx
    from setk.export.c.build import export_c

    if not model.causal:
        raise UserError(
            f"{spec}: {model.name} is not causal: it needs the complete signal, and C, pages and plugins run a hop at a time; export it as .onnx"
        )
    if model.quantization:
        raise UserError(f"{spec}: is quantized; C, pages and plugins are made of float checkpoints")
    if frames != 1 or batch != 1:
        raise UserError(f"{out}: C and pages run one hop of one signal per call; remove --frames and --batch")
    with tempfile.TemporaryDirectory(prefix="setk_") as folder:
        graph = Path(folder) / "graph.onnx"
        made = onnx.to_onnx(model, graph, **facts)
        if out.suffix == ".html":
            return {**made, **_write_page(model, graph, out)}
        if out.suffix == ".so":
            from setk.export.ladspa.build import to_plugin

            return {**made, **to_plugin(graph, out, TorchEngine(model))}
        written = export_c(graph, out, TorchEngine(model), weights)
    return {**made, **written, "bytes": out.stat().st_size}


def _write_integer(
    spec: str | os.PathLike, out: Path, frames: int, batch: int, signals: Iterable[str] | None, min_snr: float | None
) -> dict[str, Any]:
    from setk import engines
    from setk.export.c import integer_build

    model, _, about, _ = engines.model(spec, weights=True)
    if model.quantization:
        raise UserError(f"{spec}: is quantized; --integer rounds a float checkpoint")
    if frames != 1 or batch != 1:
        raise UserError(f"{out}: C runs one hop of one signal per call; remove --frames and --batch")
    least = integer_build.LEAST_SNR if min_snr is None else min_snr
    made = integer_build.export_integer(model, out, signals, about, least)
    return {**made, "bytes": out.stat().st_size}


def _write_page(model: Any, graph: Path, out: Path) -> dict[str, Any]:
    """The page of a model, with the SNR of its int8 weights to the checkpoint's, on the native engine where that was built."""
    import setk
    from setk.core.files import write_text
    from setk.engines.torch import TorchEngine
    from setk.export.web import page
    from setk.models import count_parameters
    from setk.native.translate import translate

    parameters = count_parameters(model)["params"]
    facts = f"{parameters / 1e3:.3g} k parameters, {model.latency_ms:.3g} ms latency."
    translated = translate(graph)
    snr = page.snr_to_model(translated, TorchEngine(model))
    write_text(out, page.render(page.web_model(translated, facts), setk.__version__))
    return {"bytes": out.stat().st_size, "snr_db": snr}


class _Callable(ModuleType):
    """`setk.export` is this package as soon as one of its modules is imported, and a function of the Python API too."""

    __call__ = staticmethod(write)


sys.modules[__name__].__class__ = _Callable
