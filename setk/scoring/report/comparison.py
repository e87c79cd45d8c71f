"""One HTML page of several systems on the same utterances: means, differences, and a player for every row of an utterance."""

from __future__ import annotations

import math
import os
from typing import Any, Mapping, NamedTuple, Sequence

from setk import metrics
from setk.audio import Location
from setk.core.files import write_text
from setk.scoring.compare import Comparison
from setk.scoring.report import bounds, media, number, page, text, utterances
from setk.scoring.specs import check_names
from setk.scoring.summary import summarise
from setk.scoring.table import Table

CARDS = 4  # utterances of each kind that the page plays


class Compared(NamedTuple):
    """A row of the page: a system with its scores and where its audio is, or a signal without scores, as the noisy one."""

    name: str
    scores: Table | None
    places: Mapping[str, str | Location]


def write_comparison(
    path: str | os.PathLike,
    rows: Sequence[Compared],
    comparisons: Mapping[str, Sequence[Comparison]],
    utts: Sequence[str],
    names: Sequence[str],
    provenance: Mapping[str, Any],
) -> None:
    """Write the page to `path`, atomically; the same input gives the same bytes.

    `rows`: the systems, and signals to listen to next to them. `comparisons`: of each system but the first, its
    differences to the first. `utts` and `names`: the utterances and metrics that all tables have. Raises UserError if two
    rows have one name.
    """
    check_names(row.name for row in rows)
    systems = [row for row in rows if row.scores]
    by = "pesq_wb" if "pesq_wb" in names else names[0]
    columns = [_column(system, by, utts) for system in systems]
    worst, differing = _choose(columns, utts, by)
    shared = {name: _scored([_column(system, name, utts) for system in systems]) for name in names}
    head = "".join(f'<th scope="col" class="num">{text(name)}</th>' for name in names)
    write_text(
        path,
        page(
            "comparison.html",
            "page.js",
            seconds=media.SECONDS,
            counts=f"{len(systems)} systems, {len(utts):,} utterances that all of them have",
            first=text(systems[0].name),
            head=head,
            means="".join(_means(system, comparisons.get(system.name), shared, len(utts)) for system in systems),
            by=text(by),
            differing="".join(_card(rows, utt, names) for utt in differing),
            worst="".join(_card(rows, utt, names) for utt in worst),
            utterances=utterances(
                f"All utterances: {text(by)}",
                [*(system.name for system in systems)],
                "best",
                "id or system",
                (_line(systems, columns, utt, by) for utt in utts),
                provenance,
            ),
        ),
    )


def _column(system: Compared, metric: str, utts: Sequence[str]) -> dict[str, float]:
    return {utt: float(system.scores.row(utt)[metric]) for utt in utts}


def _scored(columns: Sequence[Mapping[str, float]]) -> list[str]:
    """The utterances of which every system has a score."""
    return [utt for utt in columns[0] if not any(math.isnan(column[utt]) for column in columns)]


def _choose(columns: Sequence[Mapping[str, float]], utts: Sequence[str], by: str) -> tuple[list[str], list[str]]:
    """The utterances with the worst mean over the systems, and, of the others, those where the systems differ most."""
    scored = _scored(columns)
    sign = -1 if metrics.METRICS[by].lower_is_better else 1
    worst = sorted(scored, key=lambda utt: sign * sum(column[utt] for column in columns))[:CARDS]
    others = [utt for utt in scored if utt not in worst]

    def spread(utt: str) -> float:
        values = [column[utt] for column in columns]
        return max(values) - min(values)

    return worst, sorted(others, key=spread, reverse=True)[:CARDS]


def _means(
    system: Compared, comparisons: Sequence[Comparison] | None, shared: Mapping[str, Sequence[str]], count: int
) -> str:
    """A row of means over the utterances of which all systems have a score, `shared` by metric of `count`; of every system
    but the first, with the difference to it."""
    differences = {one.metric: one for one in comparisons or ()}
    cells = []
    for name, utts in shared.items():
        column = _column(system, name, utts)
        m = summarise([column[utt] for utt in utts])
        part = f"<br>over {len(utts)} of {count}" if len(utts) < count else ""
        cells.append(
            f'<td class="num"><span class="main">{number(m["mean"])}</span> <small>{bounds(m)}'
            f"{_difference(differences.get(name))}{part}</small></td>"
        )
    return f'<tr><th scope="row">{text(system.name)}</th>{"".join(cells)}</tr>'


def _difference(one: Comparison | None) -> str:
    if one is None or not one.n:
        return ""
    sign = "+" if one.diff > 0 else ""
    p = "" if math.isnan(one.p_wilcoxon) else f", p {one.p_wilcoxon:.2g}"
    return f"<br>{sign}{number(one.diff)}{p}"


def _card(rows: Sequence[Compared], utt: str, names: Sequence[str]) -> str:
    """One utterance: a row for each system and signal, with scores, player and spectrogram."""
    clips = {row.name: media.load(row.name, row.places[utt]) for row in rows if utt in row.places}
    pictures = media.spectrograms([clip for clip in clips.values() if not clip.error])
    lines = []
    for row in rows:
        scores = row.scores.row(utt) if row.scores else {}
        cells = "".join(f'<td class="num">{number(scores.get(name, math.nan))}</td>' for name in names)
        lines.append(
            f'<tr><th scope="row">{text(row.name)}</th>{cells}<td>{_player(clips.get(row.name), utt, pictures)}</td></tr>'
        )
    head = "".join(f'<th scope="col" class="num">{text(name)}</th>' for name in names)
    return (
        f'<article class="panel"><h3>{text(utt)}</h3><div class="wide" tabindex="0" role="region" aria-label="{text(utt)}">'
        f'<table class="players"><thead><tr><th scope="col">system</th>{head}<th scope="col">sound</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div></article>"
    )


def _player(clip: media.Clip | None, utt: str, pictures: Any) -> str:
    if clip is None:
        return '<span class="note">no audio was named</span>'
    if clip.error:
        return f'<span class="note">cannot be read: {text(clip.error)}</span>'
    picture = next(pictures)
    what = f"{text(clip.role)} of {text(utt)}"
    return (
        f'<div class="spectrogram"><span class="top">{picture.khz:g} kHz</span>'
        f'<img alt="Spectrogram: {what}" src="{picture.uri}"></div>'
        f'<audio controls preload="metadata" aria-label="{what}" src="{media.sound_uri(clip)}"></audio>'
    )


def _line(systems: Sequence[Compared], columns: Sequence[Mapping[str, float]], utt: str, by: str) -> str:
    """The scores of one utterance, and the system with the best one."""
    values = [column[utt] for column in columns]
    cells = "".join(f"<td>{number(value)}</td>" for value in values)
    known = [(value, system.name) for value, system in zip(values, systems) if not math.isnan(value)]
    extreme = min if metrics.METRICS[by].lower_is_better else max
    best = extreme(value for value, _ in known) if known else math.nan
    winners = ", ".join(name for value, name in known if value == best)
    return f'<tr><th scope="row">{text(utt)}</th>{cells}<td>{text(winners)}</td></tr>'
