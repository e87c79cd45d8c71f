"""The state from which a stopped training continues: two files, of which either suffices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Mapping

from setk import checkpoint, models
from setk.core import config
from setk.core.errors import UserError
from setk.core.files import sha256
from setk.pretrained import is_file_name
from setk.training.settings import Settings


# What a run is begun with that is not a setting, as messages call it.
WHERE = {"data": "the training data", "pairs": "the validation set", "begun_from": "--init"}


class States:
    """resume.pt of an experiment, and the one before it, resume.old.pt."""

    def __init__(self, out: Path, say: Callable[[str], None]):
        self.out, self.say = out, say

    def write(self, content: dict[str, Any]) -> None:
        """Write resume.pt and keep the one before."""
        new, current = self.out / "resume.new.pt", self.out / "resume.pt"
        checkpoint.write(new, content)
        # A disk that is full by now has cost neither of the two states before.
        if current.exists():
            os.replace(current, self.out / "resume.old.pt")
        os.replace(new, current)

    def exist(self) -> bool:
        """Whether a training has saved a state here."""
        return any((self.out / name).exists() for name in ("resume.pt", "resume.old.pt"))

    def clear(self) -> None:
        """Remove the states."""
        for name in ("resume.pt", "resume.old.pt", "resume.new.pt"):
            (self.out / name).unlink(missing_ok=True)

    def read(self) -> tuple[dict[str, Any] | None, Path | None]:
        """The newest readable state, and that after it if it is damaged. Raises UserError if there are states and none is readable."""
        states = [path for path in (self.out / "resume.pt", self.out / "resume.old.pt") if path.exists()]
        errors: list[UserError] = []
        for path in states:
            try:
                found = checkpoint.read(path)
            except UserError as e:
                errors.append(e)
                continue
            for error in errors:
                self.say(f"warning: {error}; falling back to the state before it")
            return found, states[0] if errors else None
        if errors:
            raise UserError(f"{errors[0]}; no state is left to continue from; --fresh starts over")
        return None, None


def known_by(init: str, out: Path) -> str | dict[str, str | None]:
    """What a checkpoint that a training begins with is known by: the name of an included model; of a file its content, or where it is in `out`,
    whose files change; and its path, for a file that is gone."""
    if not is_file_name(init):
        return init
    path, folder = os.path.realpath(init), os.path.realpath(out)
    if os.path.commonpath([path, folder]) == folder:
        return {"path": os.path.relpath(path, folder), "sha256": None}
    return {"path": os.path.abspath(init), "sha256": sha256(path) if os.path.isfile(path) else None}


def _same_start(out: Path, now: Any, before: Any) -> bool:
    """Whether two values of `known_by` are of one checkpoint. That of a file was its absolute path in setk 0.1."""
    if not isinstance(now, dict):
        return before == now
    if not isinstance(before, dict):
        return before == os.path.abspath(out / now["path"])
    if before["sha256"] and now["sha256"]:
        return before["sha256"] == now["sha256"]
    return before["path"] == now["path"]


def check_identity(out: Path, now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Raise UserError if a state was made with other settings or data (`identity` of a run) than the run that reads it."""
    # What settings and the model's config have got since then is as if it were not there.
    stored = {key: before[key] for key in Settings.__dataclass_fields__ if key in before}
    settings = config.plain(config.build(Settings, stored, f"{out}: its state"))
    before = settings | {key: before.get(key, now[key]) for key in WHERE}
    if before["model"] == now["model"]:
        before["config"] = models.config_values(now["model"], None, before["config"])
    if _same_start(out, now["begun_from"], before["begun_from"]):
        before["begun_from"] = now["begun_from"]
    for key in now:
        if before.get(key) != now[key]:
            what = WHERE.get(key) or f"'{key}' ({before.get(key)} then, {now[key]} now)"
            raise UserError(
                f"{out}: was begun with another value of {what}; use another --out, or --fresh to start over"
            )
