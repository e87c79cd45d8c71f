"""Files that appear complete or not at all.

Every file that setk writes has a temporary name next to its final one and is renamed when it is complete. A process
killed at any moment leaves nothing that a later run could mistake for a result. The next process that writes into
the folder removes what a killed one left.

Several files that belong together (the lists of a data directory) are replaced as a unit by `replace_together`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, Iterable, Iterator, Mapping

from setk.core.errors import UserError

_LONGEST_NAME = 255  # bytes, of Linux's file systems
_PENDING, _REMOVE = ".replacing", ".remove"


def check_name(path: str | os.PathLike) -> None:
    """Raise UserError if the name of a file to write is longer than file systems allow, or is that of a directory, or is below a file."""
    name = os.path.basename(os.fspath(path))
    if (size := len(os.fsencode(name))) > _LONGEST_NAME:
        raise UserError(f"{name[:60]}...: a file name of {size} bytes, more than {_LONGEST_NAME}; use a shorter id")
    if os.path.isdir(path):
        raise UserError(f"{path}: is a directory; give the name of a file to write")
    parent = os.path.dirname(os.fspath(path))
    if os.path.exists(parent) and not os.path.isdir(parent):
        raise UserError(f"{parent}: a file has the name of this directory; choose another name")


def check_readable(path: str | os.PathLike) -> None:
    """Raise UserError if there is a file that this user may not read; a missing one is for the reader to report."""
    if os.path.exists(path) and not os.access(path, os.R_OK):
        raise UserError(f"{path}: Permission denied; make the file readable (chmod +r)")


def check_distinct(outputs: Mapping[str, str | os.PathLike | None], inputs: Iterable[str | os.PathLike | None]) -> None:
    """Raise UserError if two of the files to write are one, or one is an input, under whatever name. `outputs` are by option; None,
    `-` and devices are not files."""
    read = {os.path.realpath(path): path for path in inputs if path and os.path.isfile(path)}
    written: dict[str, str] = {}
    for option, path in outputs.items():
        if not _is_file(path):
            continue
        place = os.path.realpath(path)
        same = [
            one
            for real, one in read.items()
            if real == place or os.path.exists(place) and os.path.samefile(real, place)
        ]
        if same:
            raise UserError(f"{option} {path}: is the input {same[0]}; choose another file to write")
        if place in written:
            raise UserError(
                f"{path}: is the file of both {written[place]} and {option}; choose another for one of them"
            )
        written[place] = option


def _is_file(path: str | os.PathLike | None) -> bool:
    """Whether `path` is one that can be a regular file, or is one."""
    return path is not None and os.fspath(path) != "-" and (os.path.isfile(path) or not os.path.exists(path))


def make_dir(path: str | os.PathLike) -> Path:
    """Make a directory and those above it, if missing. Raises UserError where a file is in the way."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{path}: a file has the name of this directory; choose another name") from None
    return path


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path in the directory of `path`; rename it to `path` if the block ends without an error.

    The temporary name keeps the suffix, since writers choose their format by it. It has the process id, so that two
    writers of one file do not damage each other's, and a mark of the machine, for `_sweep`.

    A symbolic link stays, and the file that it names is replaced. A device, a named pipe, and the file that is standard
    output or error, get the bytes when the block ends.
    """
    path = Path(path)
    check_name(path)
    if _takes_bytes(path):
        with tempfile.TemporaryDirectory() as folder, naming(path):
            tmp = Path(folder, path.name)
            yield tmp
            with open(tmp, "rb") as source, _open_in_place(path) as target:
                shutil.copyfileobj(source, target)
        return
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    make_dir(path.parent)
    if not os.access(path.parent, os.W_OK):  # else the message would name the temporary file
        code = errno.EROFS if os.statvfs(path.parent).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code), str(path))
    _sweep(os.path.abspath(path.parent))
    tmp = _temporary(path)
    try:
        with naming(path):
            yield tmp
            # Data must be on disk before the name is: after a power cut a renamed file may otherwise be empty.
            _sync(tmp)
            if path.exists():  # a private file stays one
                shutil.copymode(path, tmp)
            os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Give the errors of writing the name of the file, which a write does not know."""
    try:
        yield
    except OSError as e:
        if e.filename is None and e.errno is not None:
            raise OSError(e.errno, os.strerror(e.errno), str(path)) from e
        raise


def _takes_bytes(path: Path) -> bool:
    """Whether `path` is there and must not be replaced by a file of its name."""
    return path.exists() and (not path.is_file() or _standard(path) is not None)


def _standard(path: Path) -> int | None:
    """The descriptor of standard output or error if `path` is one of them, as /dev/stdout is."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return descriptor
    return None


def _open_in_place(path: Path) -> BinaryIO:
    """What is at `path`, for writing after what this process has written to it."""
    descriptor = _standard(path)
    if descriptor is None:
        return open(path, "wb")
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    return os.fdopen(os.dup(descriptor), "wb")


@contextmanager
def atomic_open(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open `path` for writing bytes; it appears, complete, when the block ends without an error."""
    with atomic_path(path) as tmp, open(tmp, "wb") as f:
        yield f


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with atomic_open(path) as f:
        f.write(text.encode())


def write_lines(path: str | os.PathLike, lines: Iterable[str]) -> None:
    """Write `lines`, which have their line breaks, to `path` (UTF-8) atomically."""
    with atomic_open(path) as f:
        f.writelines(line.encode() for line in lines)


def replace_together(folder: str | os.PathLike, texts: Mapping[str, Iterable[str]], remove: Iterable[str] = ()) -> None:
    """Write the text files `texts` (name -> lines with their breaks) into `folder`, and remove the files `remove`, as a unit.

    The new files are completed in a hidden folder, which one rename declares complete. Before that rename the old
    files are as they were; after it, whoever reads or writes the folder next calls `finish_replacement`.
    """
    folder = make_dir(folder)
    finish_replacement(folder)
    _sweep(os.path.abspath(folder))
    staging = _temporary(folder / "lists")
    try:
        staging.mkdir()
        for name, lines in {**texts, _REMOVE: ["\n".join(sorted(set(remove) - texts.keys()))]}.items():
            with open(staging / name, "wb") as f:
                f.writelines(line.encode() for line in lines)
            _sync(staging / name)
        _sync(staging)
        _declare_complete(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    finish_replacement(folder)


def _declare_complete(staging: Path, folder: Path) -> None:
    while True:
        try:
            os.rename(staging, folder / _PENDING)
            break
        except OSError as e:
            if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finish_replacement(folder)  # of another process, which was faster
    _sync(folder)


def finish_replacement(folder: str | os.PathLike) -> None:
    """Complete a replacement that `replace_together` declared complete and a killed process did not finish.

    Can itself be killed and repeated at any point, and run in several processes at once. Raises UserError without
    permission to write.
    """
    pending = Path(folder) / _PENDING
    if not pending.is_dir():
        return
    try:
        begun = os.stat(pending).st_ino
        remove = (pending / _REMOVE).read_text().split("\n") if (pending / _REMOVE).exists() else []
        for name in sorted(set(os.listdir(pending)) - {_REMOVE}):
            with suppress(FileNotFoundError):
                os.replace(pending / name, pending.parent / name)
        for name in filter(None, remove):
            if os.stat(pending).st_ino != begun:  # that of the next replacement: another process has finished this one
                return
            pending.with_name(name).unlink(missing_ok=True)
        _sync(pending.parent)
        if os.stat(pending).st_ino != begun:
            return
        (pending / _REMOVE).unlink(missing_ok=True)
        pending.rmdir()
    except FileNotFoundError:  # another process has finished it
        return
    except PermissionError:
        raise UserError(
            f"{folder}: an interrupted command left this directory half replaced, and it cannot be written; "
            "run 'se-prep check' on it as its owner"
        ) from None
    except OSError as e:
        if e.errno != errno.ENOTEMPTY:  # another process has begun the next replacement
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    # A name may have the length that the file system allows, and be too long with what is added here.
    stem = path.stem
    if len(stem.encode(errors="surrogateescape")) > 200:
        mark = hashlib.sha256(path.name.encode(errors="surrogateescape")).hexdigest()[:16]
        stem = f"{stem.encode(errors='surrogateescape')[:180].decode(errors='ignore')}.{mark}"
    return path.with_name(f".{stem}.{_machine()}.{os.getpid()}.tmp{path.suffix}")


@cache
def _machine() -> str:
    """A mark of where a process id is unique: this boot and its namespace, where the kernel knows them."""
    try:
        place = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:
        place = platform.node()
    return hashlib.sha256(place.encode()).hexdigest()[:8]


_TEMPORARY = re.compile(r"\..*\.(?P<machine>[0-9a-f]{8})\.(?P<pid>\d{1,9})\.tmp(\.[^.]*)?")
_ABANDONED_S = 7 * 24 * 3600


@cache  # once for each folder and process: a folder may hold a million files
def _sweep(folder: str) -> None:
    """Remove the temporary files of killed processes: those of this machine whose process has ended, and those of
    others that nobody has written to for a week. A process suspended for longer fails to rename its file, and reports it.
    """
    # A folder may be writable but not readable, another sweeper faster, and another user's file not ours to remove.
    with suppress(PermissionError), os.scandir(folder) as entries:
        hidden = (entry.name for entry in entries if entry.name.startswith("."))
        for found in filter(None, map(_TEMPORARY.fullmatch, hidden)):
            path = os.path.join(folder, found.string)
            with suppress(FileNotFoundError, PermissionError):
                if _has_ended(int(found["pid"])) if found["machine"] == _machine() else _is_abandoned(path):
                    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def _is_abandoned(path: str) -> bool:
    return time.time() - os.stat(path).st_mtime > _ABANDONED_S


def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False


def sha256(path: str | os.PathLike) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
