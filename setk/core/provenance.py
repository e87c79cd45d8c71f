"""What made this file: command, code, libraries and inputs, small enough to stamp into every artefact.

No clock and no host name: the same input, seed and versions give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO, Iterable, Mapping

import numpy as np

import setk
from setk.core.errors import UserError
from setk.core.files import make_dir, write_text

_MARK = re.compile(rb"[0-9a-f]{16}")


def command_line() -> str:
    """The running command as a user would type it."""
    program = Path(sys.argv[0])
    name = f"se-{program.stem}" if program.parent.name == "cli" else program.name
    return shlex.join([name, *sys.argv[1:]])


def git_revision() -> str | None:
    """Commit of the checkout that setk runs from, with `+` if files were changed; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    # Without --no-optional-locks, a git that is killed leaves a lock in the checkout.
    status = ["--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        out = subprocess.run(["git", "-C", str(root), *status], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    commit = re.search("^# branch.oid ([0-9a-f]{12})", out.stdout, re.MULTILINE)
    changed = re.search("^[^#]", out.stdout, re.MULTILINE)
    return commit[1] + ("+" if changed else "") if commit else None


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of `packages`, absent ones left out; does not import them."""
    from importlib import metadata  # takes as long to import as the rest of setk.core

    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def stamp(*packages: str, **facts: Any) -> dict[str, Any]:
    """Provenance of what is being written: command, setk and git version, `packages`' versions, and `facts`."""
    return {
        "command": command_line(),
        "setk": setk.__version__,
        "git": git_revision(),
        "python": sys.version.split()[0],
        "versions": versions(*packages),
        **facts,
    }


class Claim:
    """`settings` that the provenance.json of a directory records, so that a rerun with other settings cannot mix its files
    with existing ones. `check()` raises UserError if the directory was made with others; the first call of the claim
    makes it and writes the record, unless there is one; later calls do nothing."""

    def __init__(self, path: str | os.PathLike, settings: Mapping[str, Any], *packages: str):
        self.path, self.record = Path(path), Path(path) / "provenance.json"
        self.settings = json.loads(json.dumps(dict(settings)))
        self._text = json.dumps(stamp(*packages, settings=self.settings), indent=1) + "\n"
        self._done = False

    @property
    def is_made(self) -> bool:
        """Whether the directory has a record, of this claim or an earlier one."""
        return self.record.exists()

    def check(self) -> None:
        if self._done or not self.is_made:
            return
        earlier = _recorded_settings(self.record)
        different = sorted(key for key in {*earlier, *self.settings} if earlier.get(key) != self.settings.get(key))
        if different:
            raise UserError(
                f"{self.path}: was made with another {', '.join(different)} (see {self.record}); choose another output, "
                "or remove it"
            )

    def __call__(self) -> None:
        if self._done:
            return
        make_dir(self.path)
        self.check()
        if not self.is_made:
            write_text(self.record, self._text)
        self._done = True


class Made:
    """The files of a directory: what each was made of, so that a rerun keeps a file only if it would make it again, and their names,
    so that files of others are not overwritten. The directory's claim comes first.

    A process appends marks to one file per `part` ("k/n") below DIR/.made, and knows those that all had written when it began. A mark
    whose line a kill has torn is lost, and its file is made again.
    """

    def __init__(self, claim: Claim, part: str | None = None, overwrite: bool = False):
        self._path = claim.path / ".made" / part_name(part)
        # A directory of an earlier version of setk has a claim alone.
        self._overwrite = overwrite or claim.is_made and not self._path.parent.exists()
        lines = (line for path in self._path.parent.glob("*") for line in path.read_bytes().split(b"\n"))
        self._known = np.array(sorted(int(line, 16) for line in lines if _MARK.fullmatch(line)), np.uint64)
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()

    def has(self, made_of: str, *paths: str | os.PathLike) -> bool:
        """Whether the files are there as they were made of `made_of`; False if that is empty."""
        return bool(made_of) and all(map(os.path.isfile, paths)) and _mark(made_of, paths) in self

    def take(self, path: str | os.PathLike) -> None:
        """Take the name of a file that will be made. Raises UserError if another's file has it, unless `overwrite`."""
        name = _digest("file", os.path.basename(path))
        if name in self:
            return
        if os.path.isfile(path) and not self._overwrite:
            raise UserError(f"{path}: exists, and setk did not make it; choose another folder, or remove it")
        self._append(name)

    def add(self, made_of: str, *paths: str | os.PathLike) -> None:
        """Record what files are made of that are complete now."""
        if made_of:
            self._append(_mark(made_of, paths))

    def __contains__(self, digest: str) -> bool:
        place = np.searchsorted(self._known, np.uint64(int(digest, 16)))
        return place < len(self._known) and self._known[place] == int(digest, 16)

    def _append(self, digest: str) -> None:
        with self._lock:  # files may be made while names are taken
            if self._file is None:
                make_dir(self._path.parent)
                self._file = open(self._path, "ab")
                self._file.write(b"\n")  # ends a line that a kill has torn
            self._file.write(digest.encode() + b"\n")
            self._file.flush()


def part_name(part: str | None) -> str:
    """The name of a file that a part "k/n" of a work writes for itself."""
    return (part or "1/1").replace("/", "of")


def _mark(made_of: str, paths: Iterable[str | os.PathLike]) -> str:
    return _digest(made_of, *(f"{os.path.basename(path)} {os.stat(path).st_mtime_ns}" for path in paths))


def _digest(*facts: str | int) -> str:
    return hashlib.blake2b("\0".join(map(str, facts)).encode(errors="surrogateescape"), digest_size=8).hexdigest()


def _recorded_settings(record: Path) -> Mapping[str, Any]:
    try:
        settings = json.loads(record.read_text())["settings"]
        if isinstance(settings, dict):
            return settings
    except (ValueError, TypeError, KeyError, RecursionError, IsADirectoryError):
        pass
    raise UserError(f"{record}: does not record settings of setk; remove it, or choose another output")
