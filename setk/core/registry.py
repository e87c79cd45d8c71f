"""The files that models are in, by the models' names.

Every file in setk/models is a model; so is every file, or file of a folder, that the variable SETK_MODELS lists (paths separated
by ":", ";" on Windows). A file's name is the model's. Nothing is imported here.
"""

from __future__ import annotations

import os
from pathlib import Path

from setk.core.errors import UserError

INCLUDED = Path(__file__).parents[1] / "models"


def model_files() -> dict[str, Path]:
    """Name -> file. Raises UserError if SETK_MODELS lists what does not exist, or one name twice."""
    files = {path.stem: path for path in sorted(INCLUDED.glob("[!_]*.py"))}
    for entry in filter(None, os.environ.get("SETK_MODELS", "").split(os.pathsep)):
        where = Path(entry)
        if not where.exists():
            raise UserError(f"SETK_MODELS: {entry} does not exist; correct or unset the variable")
        for path in sorted(where.glob("[!_.]*.py")) if where.is_dir() else [where]:
            if path.stem in files:
                raise UserError(f"SETK_MODELS: {path} has the name of {files[path.stem]}; rename it")
            files[path.stem] = path
    return files
