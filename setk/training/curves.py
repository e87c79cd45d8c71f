"""Curves of several trainings in one table."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Sequence

from setk.core.errors import UserError


def table(experiments: Sequence[Path], parts: Sequence[str] = (".",)) -> str:
    """A tab-separated table of the validations in `history.tsv` of each experiment: model, part (from 1), step, hours, scores.

    `parts` are folders of an experiment whose trainings continue each other, so that their hours add up; missing ones are left
    out. Scores are those that all experiments have; raises UserError if one has no history.
    """
    histories = {experiment: _histories(experiment, parts) for experiment in experiments}
    scores = _shared_scores([rows for found in histories.values() for rows in found])
    text = io.StringIO()
    out = csv.writer(text, delimiter="\t", lineterminator="\n")
    out.writerow(["model", "part", "step", "hours", *scores])
    for experiment, found in histories.items():
        before = 0.0
        for part, rows in enumerate(found, 1):
            for row in rows:
                values = [f"{float(row[name]):.4f}" for name in scores]
                out.writerow([experiment.resolve().name, part, row["step"], f"{before + _hours(row):.4f}", *values])
            before += _hours(rows[-1])
    return text.getvalue()


def _hours(row: dict[str, str]) -> float:
    """Hours of training up to a validation; nan in a history of before they were counted."""
    return float(row.get("hours") or math.nan)


def _histories(experiment: Path, parts: Sequence[str]) -> list[list[dict[str, str]]]:
    """The rows of each history that exists, those without rows left out."""
    found = []
    for part in parts:
        path = experiment / part / "history.tsv"
        if path.exists():
            with open(path, encoding="utf-8") as f:
                found.append(list(csv.DictReader(f, delimiter="\t")))
    found = [rows for rows in found if rows]
    if not found:
        raise UserError(
            f"{experiment}: has no history.tsv with a validation; name the --out of a training, and its --parts"
        )
    return found


def _shared_scores(histories: Sequence[Sequence[dict[str, str]]]) -> list[str]:
    names = [name for name in histories[0][0] if name.startswith("valid_")]
    return [name for name in names if all(name in rows[0] for rows in histories)]
