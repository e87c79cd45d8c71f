"""A model that se-quant export wrote as C: compiled here (.c), or by its user as a shared library (.so).

Both are programs, which can run any code: `setk.engines.open` loads them only with `trust`, and only where they are named as MODEL.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from setk.audio.pcm import from_int16, to_int16
from setk.audio.stft import Frames
from setk.core.errors import UserError
from setk.core.files import sha256
from setk.native.kernels import Scratch

STRICT = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
NUMBERS = ("sample_rate", "hop", "delay", "state_bytes", "scratch_bytes")
MOST = 1 << 28  # of each of these; a stated size is memory that is reserved
_ABOUT = re.compile(rb'\{"setk_c": 1, [ -~]{10,4000}?\}\0')
_ABOUT_IN_C = re.compile(rb'^const char [A-Za-z]\w*_about\[\] =((?:\s*"(?:[ !#-~]|\\")*")+);', re.M)

# The constants of a file, whatever the spaces in them.
_CONSTANTS = re.compile(rb"static const \w+ \w+\[\d*\]\s*=\s*\{([^{}]*)\}")


def numbers_crc32(source: bytes) -> str:
    """The CRC-32 of the weights, the tables and the program in a generated file, in hexadecimal."""
    crc = 0
    for found in _CONSTANTS.finditer(source):
        crc = zlib.crc32(b"".join(found[1].split()), crc)
    return f"{crc:08x}"


def words_of(variable: str) -> list[str]:
    """The words of an environment variable as a shell reads them. Raises UserError if a quote is open."""
    text = os.environ.get(variable, "")
    try:
        return shlex.split(text)
    except ValueError as e:
        raise UserError(f"{variable}={text}: cannot be read as words ({e}); fix the variable") from None


def compiler() -> list[str] | None:
    """The C compiler to use, and its arguments: $CC, or cc."""
    program, *arguments = words_of("CC") or ["cc"]
    found = shutil.which(program)
    return [found, *arguments] if found else None


def fast() -> list[str]:
    """Flags for this processor."""
    return ["-O3", "-march=native"] if platform.machine() in ("x86_64", "AMD64") else ["-O3"]


def build(source: Path, out: Path, flags: Sequence[str]) -> None:
    """Compile a generated file, warnings being errors. Raises UserError with the compiler's first complaint."""
    program = compiler()
    if program is None:
        raise UserError(f"{source}: needs a C compiler; install one (Debian: apt-get install gcc), or set CC")
    call = [*program, *STRICT, *flags, str(source), "-o", str(out)]
    found = subprocess.run(call, capture_output=True, text=True)
    if found.returncode:
        said = found.stderr.strip()[:200] or f"{shlex.join(program)} ended with code {found.returncode}"
        first = next((line for line in found.stderr.splitlines() if "error" in line), said)
        raise UserError(f"{source}: does not compile: {first}")


def read_about(path: Path) -> dict[str, Any]:
    """What a .c or .so states about its model. Runs none of its code. Raises UserError on any other file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    data = path.read_bytes()
    try:
        if path.suffix == ".c":
            literal = _ABOUT_IN_C.search(data)
            text = "".join(map(json.loads, literal[1].decode().strip().split("\n"))) if literal else "{}"
        else:
            found = _ABOUT.search(data)
            text = found[0][:-1] if found else "{}"
        about = json.loads(text)
        prefix, numbers = about["prefix"], [about[name] for name in NUMBERS]
        fits = all(type(n) is int and 0 <= n < MOST for n in numbers) and numbers[0] and numbers[1]
        if not fits or not re.fullmatch(r"[A-Za-z]\w*", prefix) or type(about["model"]) is not str:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: not a .c of se-quant export, nor compiled from one; export the model again") from None
    if path.suffix == ".c" and about.get("numbers_crc32", "") not in ("", numbers_crc32(data)):
        raise UserError(f"{path}: is damaged: its weights are not those that were written; export the model again")
    return about


class CompiledEngine:
    """The model of a .c or .so, a hop at a time from samples to samples, through the interface of its header.

    A frame is a hop of samples, [C, T, hop], as in NativeEngine; for a program of integers they are rounded to 16 bits. Raises UserError where the file is not one of se-quant export,
    does not compile with `flags`, or cannot be loaded.
    """

    frames = None
    causal = True
    chunk_s = 10.0

    def __init__(self, path: Path, flags: Sequence[str] = ()):
        self.sha256 = sha256(path)
        self.about = read_about(path)
        if path.suffix == ".c":
            with tempfile.TemporaryDirectory(prefix="setk_c_") as folder:
                library = Path(folder) / "model.so"
                build(path, library, ["-shared", "-fPIC", *(flags or fast())])
                self._load(library)
        else:
            self._load(path)

    def _load(self, path: Path) -> None:
        prefix, self._integer = self.about["prefix"], self.about.get("samples") == "int16"
        process = "process_s16" if self._integer else "process"
        try:
            library = ctypes.CDLL(str(path.resolve()))
            if hasattr(library, "ladspa_descriptor"):
                raise UserError(
                    f"{path}: is a LADSPA plugin, for audio hosts; give the model that it was exported from, or a .so compiled from its .c"
                )
            self._init, self._reset, self._process, self._set_limit = (
                getattr(library, f"{prefix}_{name}") for name in ("init", "reset", process, "set_limit")
            )
        except (OSError, AttributeError) as e:
            raise UserError(
                f"{path}: cannot be loaded ({e}); compile its .c with -shared -fPIC on this machine"
            ) from None
        pointer = ctypes.c_void_p
        self._init.argtypes, self._init.restype = [pointer], pointer
        self._reset.argtypes, self._reset.restype = [pointer], None
        self._process.argtypes, self._process.restype = [pointer] * 4, None
        self._set_limit.argtypes, self._set_limit.restype = (
            [pointer, ctypes.c_int if self._integer else ctypes.c_float],
            None,
        )
        self.name, self.sample_rate, self.hop = (self.about[k] for k in ("model", "sample_rate", "hop"))
        self.delay = self.about["delay"]
        self.transform, self.lookahead = Frames(self.hop, self.hop), self.delay // self.hop
        self._scratch = Scratch(-(-self.about["scratch_bytes"] // 4))

    def start(self, channels: int) -> list[tuple[np.ndarray, int]]:
        memories = [_memory(self.about["state_bytes"]) for _ in range(channels)]
        return [(memory, self._init(memory.ctypes.data)) for memory in memories]

    def run(
        self, frames: np.ndarray, state: list[tuple[np.ndarray, int]], active: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[tuple[np.ndarray, int]]]:
        # NaN is silence.
        x = to_int16(np.nan_to_num(frames))[0] if self._integer else np.ascontiguousarray(frames, np.float32)
        out = np.zeros_like(x)
        scratch = self._scratch.memory.ctypes.data
        for channel, (_, stream) in enumerate(state):
            if active is None or active[channel]:
                for t in range(x.shape[1]):
                    self._process(stream, scratch, x[channel, t].ctypes.data, out[channel, t].ctypes.data)
        return (from_int16(out) if self._integer else out), state

    def restart(self, state: list[tuple[np.ndarray, int]], channel: int) -> None:
        self._reset(state[channel][1])

    def process(self, samples: np.ndarray, limit: float | None = None) -> np.ndarray:
        """What the program makes of samples [n], n whole hops, from the start of a signal: [n], late by `delay`. `limit`: the largest
        noise reduction in dB."""
        state = self.start(1)
        if limit is not None:
            self._set_limit(state[0][1], round(limit) if self._integer else limit)
        return self.run(samples.reshape(1, -1, self.hop), state)[0].ravel()


def _memory(size: int) -> np.ndarray:
    return np.zeros(-(-size // 4), np.float32)
