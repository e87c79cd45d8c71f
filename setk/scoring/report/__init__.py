"""One HTML page of a score table, to read, listen to and forward: no network, no other files, readable without scripts.

The page grows by about 0.1 MB per 1,000 utterances of its table, and by at most 0.12 MB per second of each of the
worst and best utterances, whose three signals it holds (at 16 kHz).
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
from pathlib import Path
from string import Template
from typing import Any, Iterable, Mapping, Sequence

from setk import metrics
from setk.audio import Location
from setk.core.errors import UserError, nearest
from setk.core.files import write_text
from setk.scoring.report import media
from setk.scoring.report.histogram import histogram

_ROLES = ("noisy", "enhanced", "clean")

Row = Mapping[str, Any]
Place = tuple[str | Location, str | Location, str | Location | None]


def write_report(
    path: str | os.PathLike,
    rows: Sequence[Row],
    places: Mapping[str, Place],
    summary: Mapping[str, Any],
    *,
    worst: int = 5,
    best: int = 5,
    by: str | None = None,
) -> None:
    """Write the page to `path`, atomically; the same input gives the same bytes.

    `rows`: {"utt": id, "scores": {metric: float}, "error": reason or ""}, in the order of the table. `places`: where
    the reference, the enhanced and the noisy signal (or None) of each id are; what cannot be read any more is reported
    on the page. `summary`: what se-score --summary writes. `by`: the metric that orders the worst and the best,
    pesq_wb or else the first. Raises UserError if that is not in the table.
    """
    names = list(summary["metrics"])
    by = by or ("pesq_wb" if "pesq_wb" in names else names[0])
    if by not in names:
        raise UserError(f"'{by}' is not in the table, so it cannot order the report; {nearest(by, names)}")
    low, high = _extremes(rows, by, worst, best)
    write_text(
        path,
        page(
            "page.html",
            "page.js",
            seconds=media.SECONDS,
            counts=_counts(summary),
            interval=text("{level:.0%} intervals: {method}, {resamples:,} resamples.".format(**summary["interval"])),
            summary=_summary_rows(summary["metrics"]),
            groups="".join(_group(*item, names) for item in summary.get("groups", {}).items()),  # type: ignore[call-arg]
            histograms="".join(_distribution(name, rows, m) for name, m in summary["metrics"].items()),
            by=text(by),
            worst=_cards(low, places, by),
            best=_cards(high, places, by),
            utterances=utterances(
                "All utterances",
                names,
                "reason",
                "id or reason",
                (_row(row, names) for row in rows),
                summary["provenance"],
            ),
        ),
    )


def text(value: object) -> str:
    """Any text as HTML, safe between tags and in quoted attributes."""
    return html.escape(str(value).encode(errors="backslashreplace").decode())


def number(value: float | None) -> str:
    """A score to three places; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}".replace("-", "−")


def page(template: str, script: str, **fields: object) -> str:
    """The page that `template` makes of `fields`, with the style of all pages. Its policy allows this script alone."""
    source = part(script)
    return Template(part(template)).substitute(
        style=part("page.css"),
        script=source,
        script_hash=base64.b64encode(hashlib.sha256(source.encode()).digest()).decode(),
        gradient=media.GRADIENT,
        range=media.RANGE_DB,
        **fields,
    )


def part(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def _extremes(rows: Sequence[Row], by: str, worst: int, best: int) -> tuple[list[Row], list[Row]]:
    """The worst rows, worst first, and the best, best first; in a short table none is both."""
    sign = -1 if metrics.METRICS[by].lower_is_better else 1
    scored = sorted(
        (row for row in rows if not math.isnan(row["scores"][by])), key=lambda row: sign * row["scores"][by]
    )
    worst = min(worst, max(len(scored) - best, (len(scored) + 1) // 2))
    best = min(best, len(scored) - worst)
    return scored[:worst], scored[len(scored) - best :][::-1]


def _counts(summary: Mapping[str, Any]) -> str:
    failed = len(summary["failed"])
    failures = f'<a class="bad" href="#all">{failed:,} failed</a>' if failed else "none failed"
    return f"{summary['utterances']:,} utterances, {summary['scored']:,} scored, {failures}"


def _summary_rows(means: Mapping[str, Mapping[str, Any]]) -> str:
    return "".join(
        f'<tr><th scope="row">{text(name)}</th><td class="num main">{number(m["mean"])}</td>'
        f'<td class="num">{bounds(m)}</td><td class="num">{m["scored"]:,}</td>'
        f"<td>{text(metrics.METRICS[name].meaning)} <small>{text(metrics.METRICS[name].range)}</small></td></tr>"
        for name, m in means.items()
    )


def bounds(m: Mapping[str, Any]) -> str:
    """The interval of a mean of setk.scoring.summary."""
    return "–" if m["low"] is None else f"[{number(m['low'])}, {number(m['high'])}]"


def _group(path: str, groups: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    """A table of means, a row per group."""
    table = Path(path).name
    head = "".join(f'<th scope="col" class="num">{text(name)}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{text(group)}</th>{"".join(_mean_cell(means[name]) for name in names)}</tr>'
        for group, means in groups.items()
    )
    return (
        f'<h3>By {text(table)}</h3><div class="wide" tabindex="0" role="region" aria-label="Means by {text(table)}"><table>'
        f'<thead><tr><th scope="col">{text(table)}</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _mean_cell(m: Mapping[str, Any]) -> str:
    if m["mean"] is None:
        return '<td class="num">–</td>'
    return f'<td class="num"><span class="main">{number(m["mean"])}</span> <small>of {m["scored"]:,}<br>{bounds(m)}</small></td>'


def _distribution(name: str, rows: Sequence[Row], m: Mapping[str, Any]) -> str:
    drawing = (
        histogram([row["scores"][name] for row in rows], m["mean"]) or '<p class="note">No utterance has a score.</p>'
    )
    return (
        f'<figure class="panel"><figcaption><b>{text(name)}</b> <span>mean {number(m["mean"])}</span></figcaption>'
        f"{drawing}</figure>"
    )


def _cards(rows: Sequence[Row], places: Mapping[str, Place], by: str) -> str:
    cards = "".join(_card(row, places[row["utt"]], by) for row in rows)
    return cards or '<p class="note">There are too few scored utterances.</p>'


def _card(row: Row, place: Place, by: str) -> str:
    """One utterance to look at and listen to."""
    scores = "".join(
        f"<div{' class=by' if name == by else ''}><dt>{text(name)}</dt><dd>{number(value)}</dd></div>"
        for name, value in row["scores"].items()
    )
    ref, est, noisy = place
    clips = [media.load(role, where) for role, where in zip(_ROLES, (noisy, est, ref)) if where is not None]
    pictures = media.spectrograms([clip for clip in clips if not clip.error])
    sounds = "".join(_broken(clip) if clip.error else _clip(clip, row["utt"], next(pictures)) for clip in clips)
    reason = f'<p class="bad">{text(row["error"])}</p>' if row["error"] else ""
    return (
        f'<article class="panel"><h3>{text(row["utt"])}</h3><dl class="scores">{scores}</dl>'
        f'{reason}<div class="clips">{sounds}</div></article>'
    )


def _clip(clip: media.Clip, utt: str, picture: media.Picture) -> str:
    what = f"{clip.role} signal of {text(utt)}"
    cut = f" (the first {media.SECONDS} s)" if clip.cut else ""
    return (
        f'<figure><figcaption><b>{clip.role}</b>{cut} <span class="where" title="{text(clip.location)}">{text(clip.location)}</span></figcaption>'
        f'<div class="spectrogram"><span class="top">{picture.khz:g} kHz</span>'
        f'<img alt="Spectrogram of the {what}" src="{picture.uri}"></div>'
        f'<div class="axis"><span>0 s</span><span>{clip.seconds:.1f} s</span></div>'
        f'<audio controls preload="metadata" aria-label="The {what}" src="{media.sound_uri(clip)}"></audio></figure>'
    )


def _broken(clip: media.Clip) -> str:
    return f'<figure class="gone"><figcaption><b>{clip.role}</b></figcaption><p>Cannot be read: {text(clip.error)}</p></figure>'


def _row(row: Row, names: Sequence[str]) -> str:
    cells = "".join(f"<td>{number(row['scores'][name])}</td>" for name in names)
    why = f"<b>failed</b> {text(row['error'])}" if row["error"] else ""
    return f'<tr{" class=bad" if why else ""}><th scope="row">{text(row["utt"])}</th>{cells}<td>{why}</td></tr>'


def utterances(
    title: str, columns: Sequence[str], last: str, search: str, rows: Iterable[str], provenance: Mapping[str, Any]
) -> str:
    """The end of a page: the table of all utterances, with numeric `columns` and a `last` one, and the provenance. `title` is HTML,
    `search` what the filter looks for."""
    return Template(part("utterances.html")).substitute(
        title=title,
        filter=search,
        columns="".join(f'<th scope="col" class="num">{text(name)}</th>' for name in columns)
        + f'<th scope="col">{last}</th>',
        rows="\n".join(rows),
        provenance=facts(provenance),
    )


def facts(provenance: Mapping[str, Any]) -> str:
    """Provenance as a list of terms, nested facts a line each."""

    def as_html(value: object) -> str:
        if isinstance(value, Mapping):
            return "<br>".join(f"{text(key)} <code>{text(fact)}</code>" for key, fact in value.items())
        return f"<code>{text(value if isinstance(value, str) else json.dumps(value))}</code>"

    return "".join(f"<dt>{text(key)}</dt><dd>{as_html(value)}</dd>" for key, value in provenance.items() if value)
