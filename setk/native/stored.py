"""Programs that were translated before, in the user's cache: reading one takes a tenth of the time of a translation.

A file is a line of JSON, then its arrays. It counts only if it was made of the same .onnx by the same code and is complete;
otherwise it is written again. Without a directory that can be written, every start translates.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from setk.core.errors import UserError
from setk.core.files import atomic_path
from setk.native.program import Program

CODE = ("native/*.py", "audio/stft.py")  # of setk, that a translation depends on


@dataclass(frozen=True)
class Stored:
    """What the native engine needs of a model; `delay` is that of the output in samples, `about` the metadata of the .onnx."""

    program: Program
    about: dict[str, Any]
    hop: int
    delay: int


def load(path: Path, digest: str) -> Stored:
    """The program of an exported model, whose SHA-256 is `digest`: from the cache, or translated. Raises as translate."""
    file, key = folder() / f"{path.stem}.program", f"{digest} {_code()}"
    found = _read(file, key)
    if found is None:
        found = translated(path)
        _write(file, key, found)
    return found


def translated(path: Path) -> Stored:
    """The program of an exported model, without the cache. Raises as translate."""
    from setk.native.translate import translate

    made = translate(path)
    return Stored(made.program, made.about, made.transform.hop, made.delay)


def folder() -> Path:
    """Where programs are kept: $XDG_CACHE_HOME/setk, or ~/.cache/setk."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "setk"


def _code() -> str:
    """The hash of the source code that makes programs."""
    total, root = hashlib.sha256(), Path(__file__).parents[1]
    for pattern in CODE:
        for source in sorted(root.glob(pattern)):
            total.update(source.read_bytes())
    return total.hexdigest()


def _read(file: Path, key: str) -> Stored | None:
    try:
        data = file.read_bytes()
    except OSError:
        return None
    line, _, rest = data.partition(b"\n")
    try:
        head = json.loads(line)
    except ValueError:
        return None
    if not isinstance(head, dict) or head.get("key") != key or head.get("sha256") != hashlib.sha256(rest).hexdigest():
        return None
    words, reset = (n * 4 for n in head["counts"])
    program = Program(
        words=np.frombuffer(rest[:words], np.int32),
        reset=np.frombuffer(rest[words : words + reset], np.int32),
        constants=np.frombuffer(rest[words + reset :], np.float32),
        floats=head["floats"],
        blocks=[tuple(block) for block in head["blocks"]],
        state=head["state"],
        scratch=head["scratch"],
    )
    return Stored(program, head["about"], head["hop"], head["delay"])


def _write(file: Path, key: str, made: Stored) -> None:
    program = made.program
    rest = b"".join(np.ascontiguousarray(x).tobytes() for x in (program.words, program.reset, program.constants))
    head = {
        "key": key,
        "sha256": hashlib.sha256(rest).hexdigest(),
        "counts": [len(program.words), len(program.reset)],
        "floats": program.floats,
        "blocks": program.blocks,
        "state": program.state,
        "scratch": program.scratch,
        "about": made.about,
        "hop": made.hop,
        "delay": made.delay,
    }
    try:
        with atomic_path(file) as temporary:
            temporary.write_bytes(json.dumps(head).encode() + b"\n" + rest)
    except (OSError, UserError):  # read-only, or full: the next start translates again
        return
