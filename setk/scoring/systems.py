"""Tables of several systems: means of their score tables with 95 % intervals, next to their costs.

Intervals and p are over utterances. They do not hold what another seed of a training would change: of a system with several seeds
the table also shows the mean of each.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

import numpy as np

from setk.core.errors import UserError, nearest
from setk.core.files import atomic_path
from setk.data.index import ABSENT
from setk.scoring.compare import compare
from setk.scoring.groups import Groups, read_groups
from setk.scoring.specs import COSTS, QUOTED, System, check_names, parse, read_published
from setk.scoring.summary import summarise

_log = logging.getLogger("setk")

FORMATS = ("md", "tsv", "json")
HEADINGS = {
    "pesq_wb": "PESQ-WB",
    "pesq_nb": "PESQ-NB",
    "stoi": "STOI",
    "estoi": "ESTOI",
    "si_sdr": "SI-SDR, dB",
    "si_sdri": "SI-SDRi, dB",
    "sdr": "SDR, dB",
    "sdri": "SDRi, dB",
    "snr": "SNR, dB",
    "csig": "CSIG",
    "cbak": "CBAK",
    "covl": "COVL",
    "ssnr": "SSNR, dB",
    "dnsmos_sig": "SIG",
    "dnsmos_bak": "BAK",
    "dnsmos_ovrl": "OVRL",
}
COST_HEADINGS = {
    "params": "params",
    "bytes": "bytes",
    "macs_per_second": "MACs/s",
    QUOTED: "MACs/s, ptflops",
    "synops_per_second": "SynOps/s",
    "latency_ms": "latency",
    "hop_us_native": "hop, C kernels",
    "hop_us_onnx": "hop, ONNX Runtime",
}


def metrics_of(systems: Sequence[System], chosen: Sequence[str] | None) -> list[str]:
    """The metrics of a table: `chosen`, or all that any system has. Raises UserError for one that no system has."""
    present = list(dict.fromkeys(name for system in systems for name in system.scores.names))
    for name in chosen or ():
        if name not in present:
            raise UserError(f"no table has the metric '{name}'; they have {', '.join(present)}")
    return list(chosen or present)


def table(
    form: str,
    specs: Sequence[str],
    metrics: Sequence[str] | None = None,
    *,
    by: Sequence[str] = (),
    bins: str | None = None,
    against: str | None = None,
    published: Path | None = None,
    png: Path | None = None,
) -> str:
    """The systems that `specs` name as one table: "md", "tsv" or "json"; with `by` (tables of groups), a table per metric and
    grouping. `metrics`: the columns, None for all. `published`: a table of papers' figures, whose rows follow in "md". `png`: also
    draw the means to this file."""
    if form not in FORMATS:
        raise UserError(f"--table {form}: choose {', '.join(FORMATS)}")
    if not specs:
        raise UserError("name the systems, as in 'se-score --table md noisy.tsv fspen=enhanced.tsv,count.json'")
    if by and (form != "md" or against):
        raise UserError("--table with --by prints Markdown (md), and has no --against")
    if published and (form != "md" or by):
        raise UserError("--published is for --table md without --by")
    if bins and not by:
        raise UserError("--bins needs --by")
    systems = [parse(spec) for spec in specs]
    check_names(system.name for system in systems)
    names = metrics_of(systems, metrics)
    for remark in _unlike(systems, names):
        _log.warning(remark)
    if png:
        plot(systems, names, png)
    if form == "tsv":
        return tsv(records(systems, names))
    if form == "json":
        return "\n".join(map(json.dumps, records(systems, names)))
    if not by:
        return overview(systems, names, against, read_published(published) if published else ())
    groupings = [read_groups(path, bins) for path in by]
    for path, groups in zip(by, groupings):
        without = int((groups.numbers_of(systems[0].scores) == ABSENT).sum())
        if without:
            _log.warning(
                "%s has no group for %d of the utterances of %s; 'all' leaves them out", path, without, systems[0].name
            )
    return "\n\n".join(by_group(systems, name, groups) for name in names for groups in groupings)


def overview(
    systems: Sequence[System], metrics: Sequence[str], against: str | None = None, published: Sequence[System] = ()
) -> str:
    """A Markdown table: a row per system, its costs and the mean of each metric; with `against`, differences to that system.
    `published` systems have the figures of papers, without intervals."""
    base = _named(systems, against) if against else None
    costs = {key: title for key, title in COST_HEADINGS.items() if any(key in s.costs for s in (*systems, *published))}
    rows = []
    for system in systems:
        row = [system.name, *(_cost(system, key) for key in costs)]
        for metric in metrics:
            row.append(_mean_of(system, metric))
            if base:
                row.append("" if system is base else _difference(base, system, metric))
        rows.append(row)
    for system in published:
        row = [system.name, *(_cost(system, key) for key in costs)]
        for metric in metrics:
            row += [system.published.get(metric, ""), *([""] if base else [])]
        rows.append(row)
    header = ["system", *costs.values()]
    for metric in metrics:
        header += [heading(metric), *([f"{heading(metric)} against {base.name}"] if base else [])]
    return markdown(header, rows)


def by_group(systems: Sequence[System], metric: str, groups: Groups) -> str:
    """A Markdown table of one metric: a row per system, a column per group of utterances with the number of its scores, and one
    for all of them."""
    shown = groups.ordered
    rows, counts = [], []
    for system in systems:
        column, numbers = system.scores.column(metric), groups.numbers_of(system.scores)
        numbers = numbers[: len(column)]
        members = [*(numbers == groups.names.index(name) for name in shown), numbers != ABSENT]
        means = [summarise(column[chosen]) for chosen in members]
        rows.append([system.name, *(mean_cell(mean, metric) for mean in means)])
        if metric in system.scores.names:
            counts.append([mean["scored"] for mean in means])
    headings = (f"{name} ({_range(scored)})" for name, scored in zip(shown, zip(*counts)))
    return markdown(["system", *headings, "all"], rows)


def records(systems: Sequence[System], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """What `overview` shows, as numbers: a mapping per system; None for a missing value."""
    keys = [key for key in (*COSTS, QUOTED) if any(key in system.costs for system in systems)]
    found = []
    for system in systems:
        row: dict[str, Any] = {"system": system.name, **{key: system.costs.get(key) for key in keys}}
        for metric in metrics:
            mean = summarise(system.scores.column(metric))
            row |= {metric: mean["mean"], f"{metric}_low": mean["low"], f"{metric}_high": mean["high"]}
            row[f"{metric}_n"] = mean["scored"]
        found.append(row)
    return found


def tsv(rows: Sequence[Mapping[str, Any]]) -> str:
    """`records` as a tab-separated table with a header; nan for a missing value."""
    lines = [list(rows[0])] + [["nan" if value is None else str(value) for value in row.values()] for row in rows]
    return "\n".join("\t".join(line) for line in lines)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def plot(systems: Sequence[System], metrics: Sequence[str], path: Path) -> None:
    """Draw the mean of each metric against MACs per second, for the systems whose MACs are known, as a PNG picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = [row for row in records(systems, metrics) if row.get("macs_per_second")]
    if not known:
        raise UserError(
            "--png: no MACs to plot against; name what se-count --json printed, as in fspen=scores.tsv,count.json"
        )
    figure = Figure(figsize=(4 * len(metrics), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics):
        points = [
            (row["macs_per_second"] / 1e6, row[metric], row["system"]) for row in known if row[metric] is not None
        ]
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], marker="o")
        for x, y, name in points:
            axes.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.set(title=heading(metric), xlabel="million MACs per second")
        axes.grid(alpha=0.3)
    with atomic_path(path) as tmp:
        figure.savefig(tmp, format="png", dpi=100, metadata={"Software": None})


def _unlike(systems: Sequence[System], metrics: Sequence[str]) -> Iterator[str]:
    """A remark for each metric whose means are over different utterances."""
    for metric in metrics:
        first, *others = (system for system in systems if metric in system.scores.names)
        scored = ~np.isnan(first.scores.column(metric))
        for other in others:
            lines = other.scores.lines_in(first.scores)
            theirs = ~np.isnan(other.scores.column(metric))
            there = theirs & (lines != ABSENT)
            if theirs.sum() == scored.sum() == scored[lines[there]].sum():
                continue
            yield (
                f"{metric}: the means are over different utterances: {first.name} has {scored.sum()} scores, {other.name} "
                f"{theirs.sum()}; --compare and --against use those of both"
            )
            break


def _named(systems: Sequence[System], name: str) -> System:
    for system in systems:
        if system.name == name:
            return system
    raise UserError(f"--against {name}: no system has that name; {nearest(name, [system.name for system in systems])}")


def _cost(system: System, key: str) -> str:
    """One cost with its unit; of parameters also how many are not zero, if some are."""
    if key not in system.costs:
        return ""
    cost, nonzero = system.costs[key], system.costs.get("params_nonzero")
    if key == "latency_ms":
        return "complete signal" if cost is None else f"{cost:.3g} ms"
    if key == "bytes" and cost is not None:
        return f"{cost:,.0f}"
    if key.startswith("hop_us"):
        return f"{cost:.0f} us"
    if key == "params" and nonzero not in (None, cost):
        return f"{short(cost)} ({short(nonzero)} non-zero)"
    return short(cost)


def _range(counts: Sequence[int]) -> str:
    """Counts of several systems: one number if they agree, else the least and the greatest, as 1-3."""
    return "-".join(str(count) for count in sorted({min(counts), max(counts)}))


def heading(metric: str) -> str:
    return HEADINGS.get(metric, metric)


def digits_of(metric: str) -> int:
    return 3 if metric in ("stoi", "estoi") else 2


def mean_cell(m: Mapping[str, Any], metric: str) -> str:
    """`mean [low, high]`; `-` without scores."""
    digits = digits_of(metric)
    if m["mean"] is None:
        return "-"
    interval = f" [{m['low']:.{digits}f}, {m['high']:.{digits}f}]" if m["low"] is not None else ""
    return f"{m['mean']:.{digits}f}{interval}"


def _mean_of(system: System, metric: str) -> str:
    """The mean of a metric, and that of each seed if there are several."""
    cell = mean_cell(summarise(system.scores.column(metric)), metric)
    if len(system.seeds) < 2:
        return cell
    seeds = (summarise(seed.column(metric))["mean"] for seed in system.seeds)
    return f"{cell}; seeds " + ", ".join("-" if mean is None else f"{mean:.{digits_of(metric)}f}" for mean in seeds)


def _difference(base: System, system: System, metric: str) -> str:
    """Mean of `system` - `base` over the utterances of both, with its interval and p of Wilcoxon's signed-rank test; of several
    seeds also the difference of each."""
    if metric not in base.scores.names or metric not in system.scores.names:
        return "-"
    c = next(compare(base.scores, system.scores, [metric]))
    digits = digits_of(metric)
    if not c.n:
        return "-"
    cell = f"{c.diff:+.{digits}f}"
    if not math.isnan(c.low):
        cell += f" [{c.low:.{digits}f}, {c.high:.{digits}f}], p {c.p_wilcoxon:.2g}"
    if len(system.seeds) > 1 and len(base.seeds) == len(system.seeds):
        pairs = zip(base.seeds, system.seeds)
        each = (next(compare(one, other, [metric])).diff for one, other in pairs)
        cell += "; seeds " + ", ".join(f"{diff:+.{digits}f}" for diff in each)
    return cell


def short(n: float | None) -> str:
    """A count with three digits: 86354 -> 86.4 k; empty for None."""
    if n is None:
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:g}"
