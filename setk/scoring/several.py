"""Score tables of two or more systems: each against the first, over the metrics and utterances that all of them have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from setk.audio import check_unread
from setk.core import provenance
from setk.core.errors import UserError
from setk.core.files import sha256
from setk.scoring import specs
from setk.data.index import ABSENT
from setk.scoring.compare import Comparison, common_metrics, compare
from setk.scoring.specs import System
from setk.scoring.summary import NAMED, named


@dataclass(frozen=True)
class Compared:
    """`lines`: the utterances that all systems have, as lines of the first one's table. `comparisons`: name of every system but the first -> its comparisons with the first, a metric each. `remarks`: what was left out."""

    systems: list[System]
    metrics: list[str]
    lines: np.ndarray
    comparisons: dict[str, list[Comparison]]
    remarks: list[str]


def compare_systems(texts: Sequence[str]) -> Compared:
    """Read and compare the systems that `texts` name (see setk.scoring.specs). Raises UserError as `common_metrics` does, and if two
    systems of more than two have one name."""
    systems = [specs.parse(text) for text in texts]
    first, *others = systems
    if len(systems) > 2:
        specs.check_names(system.name for system in systems)
    metrics, shared = list(first.scores.names), np.ones(len(first.scores), bool)
    for other in others:
        both = common_metrics(first.scores, other.scores)
        metrics = [metric for metric in metrics if metric in both]
        shared &= first.scores.lines_in(other.scores) != ABSENT
    if not metrics or not shared.any():
        raise UserError(f"the tables have no {'utterance' if metrics else 'metric'} that all of them have")
    remarks = []
    for text, system in zip(texts, systems):
        what = f"only {text} has" if len(systems) == 2 else f"{text} has, and another table lacks,"
        own = system.scores.lines_in(first.scores)
        more = np.flatnonzero((own == ABSENT) | ~shared[own])
        remarks += named(what, len(more), [system.scores.utt(line) for line in more[:NAMED]])
    lines = np.flatnonzero(shared)
    comparisons = {other.name: list(compare(first.scores, other.scores, metrics, lines)) for other in others}
    return Compared(systems, metrics, lines, comparisons, remarks)


def write_page(
    path: Path, found: Compared, *, noisy: str | None, clean: str | None, allow_commands: bool, inputs: Sequence[str]
) -> None:
    """The systems as a page, with the audio of their wav lists, and that of a list of noisy and of clean signals."""
    from setk.data import lists
    from setk.scoring.report import comparison

    def places(audio: str | None) -> dict:
        return lists.read_wavs(audio, allow_commands) if audio else {}

    rows = [comparison.Compared("noisy", None, places(noisy))] if noisy else []
    rows += [comparison.Compared(system.name, system.scores, places(system.audio)) for system in found.systems]
    if clean:
        rows.append(comparison.Compared("clean", None, places(clean)))
    for row in rows:
        check_unread({"--html": path}, row.places.values())
    files = [*specs.files(inputs), noisy, clean]
    hashes = {file: sha256(file) for file in files if file and Path(file).is_file()}
    utts = [found.systems[0].scores.utt(line) for line in found.lines]
    comparison.write_comparison(
        path, rows, found.comparisons, utts, found.metrics, provenance.stamp("numpy", inputs=hashes)
    )
