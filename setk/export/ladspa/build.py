"""Writing a model as a LADSPA plugin: its C and plugin.c, compiled here, and run before the file gets its name."""

from __future__ import annotations

import shutil
import tempfile
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from setk.core.errors import UserError
from setk.core.files import atomic_path
from setk.export import LEAST_PARITY
from setk.engines.compiled import build, compiler, words_of
from setk.export.c.build import export_c
from setk.export.ladspa.host import Plugin
from setk.export.rounding import median_snr, reference

NUMBERS = (
    0xF00000,
    0x80000,
)  # the first number of our plugins, in the range that LADSPA has for them, and half of how many


def to_plugin(onnx: Path, out: Path, engine: Any) -> dict[str, Any]:
    """Write the model of an exported file as `out`, a LADSPA library with a mono plugin of the model's name and one NAME_stereo.
    `engine` is what it is compared with. Returns `bytes`, and `snr_db` of the plugin's output to the engine's at the model's rate.

    The compiler is $CC or cc; $CFLAGS are added. Raises UserError without a compiler, as `export_c` does, and if the plugin's
    output differs by more than rounding.
    """
    if compiler() is None:
        raise UserError(
            f"{out}: a plugin needs a C compiler; install one (Debian: apt-get install gcc), or set CC to its name"
        )
    with tempfile.TemporaryDirectory(prefix="setk_ladspa_") as directory:
        folder = Path(directory)
        export_c(onnx, folder / f"{engine.name}.c", engine)
        for package, name in (("setk.native", "resample.h"), ("setk.native", "live.h"), (__package__, "plugin.c")):
            (folder / name).write_text((files(package) / name).read_text())
        source = folder / "library.c"
        source.write_text(_source(engine.name))
        with atomic_path(out) as temporary:
            made = folder / "library.so"
            build(
                source,
                made,
                ["-O3", "-shared", "-fPIC", "-fvisibility=hidden", *words_of("CFLAGS")],
            )
            shutil.copyfile(made, temporary)
            snr = _parity(engine, Plugin(made, engine.name))
            if not snr >= LEAST_PARITY:
                raise UserError(f"{out}: not written: differs from the model by more than rounding (SNR {snr:.1f} dB)")
    return {"bytes": out.stat().st_size, "snr_db": snr}


def _source(name: str) -> str:
    first, half = NUMBERS
    return "\n".join(
        [
            f'#include "{name}.c"',
            f"#define MODEL(function) {name}_##function",
            f"#define SIZE(size) {name.upper()}_##size",
            f'#define LABEL "{name}"',
            f'#define TITLE "Speech enhancement by {name}"',
            f"#define NUMBER {first + 2 * (zlib.crc32(name.encode()) % half)}",
            '#include "plugin.c"',
            "",
        ]
    )


def _parity(engine: Any, plugin: Plugin) -> float:
    def expected(x: np.ndarray) -> np.ndarray:
        return reference(engine, x, delay=0)

    def found(x: np.ndarray) -> np.ndarray:
        return plugin.run(x[None], engine.sample_rate)[0]

    return median_snr(expected, found, engine.sample_rate, engine.transform.hop)
