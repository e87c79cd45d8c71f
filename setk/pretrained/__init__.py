"""The included models: NAME.pt, its card NAME.md, and NAME.onnx where it serves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Iterator

from setk.core.errors import UserError, nearest

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
        raise UserError(f"no trained model is called '{spec}'; {nearest(spec, known)}; or use the path of a file")
    return known[spec]


def index() -> dict[str, dict[str, Any]]:
    """Name -> facts of every included model, without torch: `model`, `sample_rate`, `causal`, `params`, `scores`, and the
    `sha256` of its checkpoint. `setk.checkpoint.write_index` makes the file from the checkpoints."""
    return json.loads(INDEX.read_text(encoding="utf-8"))


BETTER = 0.5  # PESQ-WB gained on the test set, from which on a model is offered for use


def rows() -> Iterator[dict[str, Any]]:
    """The noisy input of the test set, then a row for each included model: what it is for, its size and its scores there."""
    facts, files = index(), included()
    baseline = next((about["scores"]["test_noisy"] for about in facts.values() if "test_noisy" in about["scores"]), {})
    empty = {"model": None, "purpose": "the input of the scores", "params": None, "bytes": None}
    yield {"name": "noisy", **empty, **baseline}
    for name, path in files.items():
        about = facts[name]
        yield {
            "name": name,
            "model": about["model"],
            "purpose": purpose(about),
            "params": about["params"],
            "bytes": path.stat().st_size,
            **{metric: about["scores"].get("test", {}).get(metric) for metric in baseline},
        }


def purpose(about: dict[str, Any]) -> str:
    """What a model is for: one that gains little, or loses by any metric, shows that a training works and is an experiment."""
    before, after = about["scores"].get("test_noisy", {}), about["scores"].get("test", {})
    gains = [after[metric] - before[metric] for metric in before if metric in after]
    if not gains or min(gains) < 0 or after["pesq_wb"] - before["pesq_wb"] < BETTER:
        return "experiment"
    return "live and files" if about["causal"] else "files"
