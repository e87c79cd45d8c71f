"""Files that are complete or not there.

Every artefact of setk is written under a temporary name beside its final one and renamed when complete,
so that a process killed at any moment leaves nothing that a later run could mistake for a result; what it does leave
is taken away by the next process that writes into the folder.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, Iterator

from setk.core.errors import UserError


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
    id, so that two writers of one file do not tear each other's, and a mark of its machine, for `_sweep`.
    """
    path = Path(path)
    make_dir(path.parent)
    if path.is_dir():
        raise UserError(f"{path}: is a directory; give the name of a file to write")
    _sweep(os.path.abspath(path.parent))
    # A name may be as long as the file system takes, and with what is added here be too long.
    stem = path.stem.encode()[:200].decode(errors="ignore")
    tmp = path.with_name(f".{stem}.{_machine()}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield tmp
        # Data must be on disk before the name is: after a power cut a renamed file may otherwise be empty.
        with open(tmp, "rb") as f:
            os.fsync(f.fileno())
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


@cache
def _machine() -> str:
    """A mark of where a process id means one process: this boot and its namespace, where the kernel tells them."""
    try:
        place = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:
        place = platform.node()
    return hashlib.sha256(place.encode()).hexdigest()[:8]


_TEMPORARY = re.compile(r"\..*\.(?P<machine>[0-9a-f]{8})\.(?P<pid>\d{1,9})\.tmp(\.[^.]*)?")
_FORGOTTEN_S = 7 * 24 * 3600


@cache  # once for each folder and process: a folder may hold a million files
def _sweep(folder: str) -> None:
    """Take away the temporary files of killed processes: those of this machine whose process is gone, and those of
    others that nobody has written to for a week. A process suspended for longer fails to rename its file, and says so.
    """
    # A folder may be open to writing and not to reading, another sweeper faster, and another user's file not ours to take.
    with suppress(PermissionError):
        for found in filter(None, map(_TEMPORARY.fullmatch, os.listdir(folder))):
            path = os.path.join(folder, found.string)
            with suppress(FileNotFoundError, PermissionError):
                if _is_gone(int(found["pid"])) if found["machine"] == _machine() else _is_forgotten(path):
                    os.unlink(path)


def _is_forgotten(path: str) -> bool:
    return time.time() - os.stat(path).st_mtime > _FORGOTTEN_S


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False


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
