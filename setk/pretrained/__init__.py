"""The models that ship with setk: NAME.pt, its card NAME.md, and NAME.onnx where it serves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from setk.core import config
from setk.core.errors import UserError

SUFFIXES = (".pt", ".onnx")
INDEX = Path(__file__).with_name("index.json")


def shipped(suffix: str = ".pt") -> dict[str, Path]:
    """Name -> file of every model that ships in this format."""
    return {p.stem: p for p in sorted(Path(__file__).parent.glob(f"*{suffix}"))}


def find(spec: str, suffix: str = ".pt") -> Path:
    """The file that MODEL names: a path, or the name of a model that ships. Raises UserError if neither."""
    if os.sep in spec or spec.endswith(SUFFIXES) or Path(spec).is_file():
        return Path(spec)
    known = shipped(suffix)
    if spec not in known:
        raise UserError(f"no trained model is called '{spec}'; {config.nearest(spec, known)}; or give the path of a file")
    return known[spec]


def index() -> dict[str, dict[str, Any]]:
    """Name -> facts of every included model, without torch: `model`, `sample_rate`, `causal`, `params`, `scores`, and the
    `sha256` of its checkpoint. `setk.checkpoint.write_index` makes the file from the checkpoints."""
    return json.loads(INDEX.read_text(encoding="utf-8"))
