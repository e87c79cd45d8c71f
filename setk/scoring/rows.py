"""The rows of se-score: scored over processes, summed up, and written as a summary and a report."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence

from setk.core import pool
from setk.core.files import write_text
from setk.scoring import pairing, summary as summaries
from setk.scoring.pairing import How, Pair, Row
from setk.scoring.summary import Scores


def score_all(pairs: Iterable[Pair], how: How, jobs: int = 1) -> Iterator[Row]:
    """Score `pairs` in `jobs` processes: a Row for each, in order, as soon as it is ready. Rows hold no audio."""
    return pool.ordered_map(partial(pairing.score, how=how), pairs, jobs)


def describe(scores: Scores, figures: Mapping[str, Any]) -> list[str]:
    """The figures of `scores` as lines to read."""
    lines = summaries.words(figures["metrics"])
    for path, groups in figures["groups"].items():
        for group, means in groups.items():
            lines.append(f"{Path(path).name} {group}: {'; '.join(summaries.words(means)) or 'no scores'}")
        lines += summaries.named(f"{path} has no group for", *scores.without[path])
    return lines


def write_files(
    rows: Sequence[Row],
    how: How,
    figures: Mapping[str, Any],
    inputs: Iterable[str],
    *,
    summary: Path | None = None,
    html: Path | None = None,
) -> None:
    """Write `figures` with the provenance of `inputs` as JSON, and with the rows as one HTML page, each atomically."""
    if not (summary or html):
        return
    record = {**figures, **summaries.origin(how, inputs)}
    if summary:
        write_text(summary, json.dumps(record, indent=1) + "\n")
    if html:
        from setk.scoring import report

        places = {row.pair.utt: (row.pair.ref, row.pair.est, row.pair.noisy) for row in rows}
        table = [{"utt": row.pair.utt, "scores": row.scores, "error": row.error} for row in rows]
        report.write_report(html, table, places, record)
