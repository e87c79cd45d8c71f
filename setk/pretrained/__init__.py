"""The included models: NAME.pt, its card NAME.md, and NAME.onnx where it serves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Iterator

from setk.core import config
from setk.core.errors import UserError

SUFFIXES = (".pt", ".onnx")
INDEX = Path(__file__).with_name("index.json")


def included(suffix: str = ".pt") -> dict[str, Path]:
    """Name -> file of every included model that exists in this format."""
    return {p.stem: p for p in sorted(Path(__file__).parent.glob(f"*{suffix}"))}


def is_file_name(spec: str) -> bool:
    """Whether MODEL is the path of a file, and not a name."""
    return os.sep in spec or spec.endswith(SUFFIXES) or Path(spec).is_file()


def find(spec: str) -> Path:
    """The checkpoint that MODEL names: a path, or the name of an included model. Raises UserError if neither."""
    if is_file_name(spec):
        return Path(spec)
    known = included()
    if spec not in known:
        raise UserError(f"no trained model is called '{spec}'; {config.nearest(spec, known)}; or use the path of a file")
    return known[spec]


def index() -> dict[str, dict[str, Any]]:
    """Name -> facts of every included model, without torch: `model`, `sample_rate`, `causal`, `params`, `scores`, and the
    `sha256` of its checkpoint. `setk.checkpoint.write_index` makes the file from the checkpoints."""
    return json.loads(INDEX.read_text(encoding="utf-8"))


def summary() -> Iterator[str]:
    """A line for each included model: name, kind of model, bytes of its checkpoint, and scores on its test set."""
    facts = index()
    for name, path in included().items():
        scores = " ".join(f"{metric}={value:.3f}" for metric, value in facts[name]["scores"].get("test", {}).items())
        yield f"{name}\t{facts[name]['model']}\t{path.stat().st_size}\t{scores}"
