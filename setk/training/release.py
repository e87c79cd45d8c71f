"""A trained model as a checkpoint to share: with the scores of its test set."""

from __future__ import annotations

import json
from pathlib import Path

from setk import checkpoint, pretrained
from setk.core import provenance
from setk.core.errors import UserError
from setk.core.files import check_distinct

SUMMARIES = {"test_noisy": "noisy.json", "test": "enhanced.json"}


def release(experiment: Path, out: Path) -> None:
    """Write `best.pt` of `experiment` as `out`, with the means of the score summaries (`se-score --summary`) next to it.

    `scores` gets `test_noisy` (the noisy input) and `test`; `provenance.release` has this command and the versions. In the folder of
    the included models, their index is written again.
    Raises UserError if a summary is missing or is something else, and if `out` is one of the files that are read.
    """
    best, summaries = experiment / "best.pt", {name: experiment / file for name, file in SUMMARIES.items()}
    check_distinct({"OUT": out}, [best, *summaries.values()])
    content = checkpoint.read(best)
    for name, path in summaries.items():
        content["scores"][name] = _means(path)
    content["provenance"]["release"] = provenance.stamp("torch", "pesq")
    checkpoint.write(out, content)
    if out.resolve().parent == pretrained.INDEX.parent:
        checkpoint.write_index()


def _means(path: Path) -> dict[str, float | None]:
    try:
        metrics = json.loads(path.read_text())["metrics"]
        return {name: metric["mean"] for name, metric in metrics.items()}
    except FileNotFoundError:
        raise UserError(f"{path}: no such summary; write it with se-score --summary") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a summary of se-score; write it with se-score --summary") from None
