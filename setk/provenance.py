"""What made this file: command, code, libraries and inputs, small enough to stamp into every artefact.

No clock and no host name: the same input, seed and versions give the same bytes.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import setk


def command_line() -> str:
    """The running command as a user would type it."""
    program = Path(sys.argv[0])
    name = f"se-{program.stem}" if program.parent.name == "commands" else program.name
    return shlex.join([name, *sys.argv[1:]])


def git_revision() -> str | None:
    """Commit of the checkout that setk runs from, with `+` if files were changed; None outside a checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        out = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
                             capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return out.stdout.strip() or None


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of `packages`, absent ones left out; does not import them."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def stamp(*packages: str, **facts: Any) -> dict[str, Any]:
    """Provenance of what is being written: command, setk and git version, `packages`' versions, and `facts`."""
    return {"command": command_line(), "setk": setk.__version__, "git": git_revision(),
            "python": sys.version.split()[0], "versions": versions(*packages), **facts}
