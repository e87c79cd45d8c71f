"""Files that are whole or not there, and the one exception that a user's mistake raises.

Every artefact of setk is written under a temporary name beside its final one and renamed when complete,
so that a process killed at any moment leaves nothing that a later run could mistake for a result.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator


class UserError(Exception):
    """Something the user can mend. The message names the thing and the mend; commands print it and exit 2."""


class AudioError(UserError):
    """One utterance that cannot be read or used; lists go on with the next, and the command exits 1."""


def make_dir(path: str | os.PathLike) -> Path:
    """Make a directory and those above it, unless it is there. Raises UserError where a file is in the way."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{path}: a file is in the way of this directory; name another") from None
    return path


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path in the directory of `path`; rename it to `path` if the block ends well.

    The temporary name keeps the suffix, since writers choose their format by it, and carries the process
    id, so that two writers of one file do not tear each other's.
    """
    path = Path(path)
    make_dir(path.parent)
    if path.is_dir():
        raise UserError(f"{path}: is a directory; give the name of a file to write")
    tmp = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield tmp
        # Data must be on disk before the name is: after a power cut a renamed file may otherwise be empty.
        with open(tmp, "rb") as f:
            os.fsync(f.fileno())
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


@contextmanager
def atomic_open(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open `path` for writing bytes; it appears, whole, when the block ends well."""
    with atomic_path(path) as tmp, open(tmp, "wb") as f:
        yield f


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with atomic_open(path) as f:
        f.write(text.encode())


def sha256(path: str | os.PathLike) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
