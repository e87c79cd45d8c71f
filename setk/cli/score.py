"""se-score: how close enhanced speech is to the clean reference, per utterance and on average."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Iterable, Mapping, Optional, Sequence

import typer

from setk.cli import shell
from setk.core.errors import UserError
from setk.core.files import write_text

if TYPE_CHECKING:
    from setk.metrics import Extras
    from setk.scoring.pairing import How, Pair, Row

app = shell.new_app()


@app.command()
def score(
    ctx: typer.Context,
    files: Annotated[Optional[list[str]], typer.Argument(metavar="[CLEAN] ENHANCED", help="Two audio files; with --ref, one wav list. - is standard input.")] = None,
    ref: Annotated[Optional[str], typer.Option(metavar="LIST", help="Wav list of the clean references; ENHANCED is then a wav list.")] = None,
    noisy: Annotated[Optional[str], typer.Option(metavar="LIST", help="What was enhanced, for si_sdri and sdri: a wav list with --ref, else an audio file.")] = None,
    metrics: Annotated[Optional[str], typer.Option(metavar="A,B,…", help="Columns of the table (default pesq_wb,stoi,estoi,si_sdr).")] = None,
    list_metrics: Annotated[bool, typer.Option("--list-metrics", help="Tell which metrics there are, and which can be used here, and end.")] = False,
    dnsmos_model: Annotated[Optional[str], typer.Option(metavar="FILE", help="ONNX model of DNSMOS P.835.")] = None,
    dnsmos_p808_model: Annotated[Optional[str], typer.Option(metavar="FILE", help="ONNX model of DNSMOS P.808.")] = None,
    by: Annotated[Optional[list[str]], typer.Option(metavar="TABLE", help="Means by group too: utt2snr, utt2spk, any 'utt-id group', or SCORES.tsv:METRIC. May be repeated.")] = None,
    bins: Annotated[Optional[str], typer.Option(metavar="A,B,…", help="Groups of --by are numbers; join them into intervals with these limits, as in 0,6,12.")] = None,
    expect: Annotated[Optional[str], typer.Option(metavar="METRIC=LOW:HIGH,…", help="Exit 1 if a mean is outside its range, or missing.")] = None,
    table: Annotated[Optional[str], typer.Option(metavar="md|tsv|json", help="Print a table of several systems, each [NAME=]SCORES.tsv[,COUNT.json], and exit.")] = None,
    against: Annotated[Optional[str], typer.Option(metavar="NAME", help="With --table: differences to this system too.")] = None,
    png: Annotated[Optional[Path], typer.Option(metavar="FILE", help="With --table: draw the means against MACs/s.")] = None,
    compare: Annotated[Optional[tuple[str, str]], typer.Option(metavar="A.tsv B.tsv", help="Compare two score tables on the same utterances, and end.")] = None,
    rate: Annotated[Optional[int], typer.Option(metavar="HZ", min=1, help="Resample everything to this rate first.")] = None,
    tolerance: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Lengths may differ by this much; the longer is cut.")] = 0.0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    shard: Annotated[Optional[str], typer.Option(metavar="K/N", help="Every N-th utterance of ENHANCED from the K-th.")] = None,
    max_fail: Annotated[int, typer.Option(metavar="N", min=0, help="Failed utterances that still count as success.")] = 0,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="A JSON object per line instead of a table.")] = False,
    summary: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Write means, intervals, counts, groups and provenance as JSON.")] = None,
    html: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Write a report to look at and listen to: one page that needs nothing else.")] = None,
    allow_commands: Annotated[bool, typer.Option("--allow-commands", help="Run list entries that end in '|'.")] = False,
) -> None:
    """Score enhanced speech against the clean reference: two files, or two wav lists matched by utterance.

    A tab-separated table goes to standard output, a row as soon as it is ready, in the order of ENHANCED. What
    cannot be computed is nan, with the reason in the last column. Means with 95 % intervals go to standard error.
    With --compare, a row per metric of two such tables: B - A with its interval, and p by bootstrap and by Wilcoxon.
    With --table, a row per system: its costs, as printed by se-count --json, and means with intervals. With --by too, a
    row per system and a column per group.
    """
    if compare:
        _only(ctx, "compare", "jsonl")
        return _compare(*compare, jsonl)
    if table:
        _only(ctx, "table", "metrics", "by", "bins", "against", "png", "files")
        return _table(table, files or [], metrics, by or [], bins, against, png)
    if against or png or (bins and not by):
        raise UserError("--against and --png need --table; --bins needs --by")
    from setk import metrics as measures
    from setk.scoring import expect as expectations
    from setk.scoring import pairing, systems

    extras = measures.Extras(dnsmos_model, dnsmos_p808_model)
    if list_metrics:
        return _list_metrics(extras)
    names = measures.select(measures.DEFAULT if metrics is None else measures.listed(metrics), extras)
    if not noisy and (wanting := [name for name in names if measures.METRICS[name].gain_of]):
        raise UserError(f"{', '.join(wanting)}: what was gained needs what was enhanced; name it with --noisy")
    expected = expectations.parse(expect) if expect else {}
    expectations.check_names(expected, names)
    files = files or []
    if ref is None and (len(files) != 2 or shard):
        raise UserError("write 'se-score clean.wav enhanced.wav', or 'se-score --ref clean.scp enhanced.scp' for lists")
    if ref is not None and len(files) != 1:
        raise UserError("with --ref, give one wav list: se-score --ref clean.scp enhanced.scp, or - for standard input")
    if [ref, noisy, *files, *(by or [])].count("-") > 1:
        raise UserError("only one of the inputs can be standard input")
    groups = {table: systems.read_groups(table, bins) for table in by or []}
    pairs = pairing.single(*files, noisy) if ref is None else pairing.listed(ref, files[0], noisy, shard, allow_commands)
    how = pairing.How(names, rate or 0, tolerance, extras)
    failures = shell.Failures("se-score", max_fail)
    rows = _score_all(pairs, how, jobs, jsonl, failures)
    inputs = [path for path in (ref, *files, noisy, *groups) if path] if ref is not None else [*groups]
    means = _conclude(rows, how, groups, inputs, summary, html)
    unmet = expectations.unmet(expected, means)
    for line in unmet:
        shell.say(f"se-score: unexpected mean: {line}")
    if unmet:
        raise typer.Exit(shell.SOME_FAILED)
    failures.finish(len(rows) - failures.count)


def _list_metrics(extras: Extras) -> None:
    """Print what each metric is, and whether it can be had here or what that takes."""
    from setk import metrics

    for m in metrics.METRICS.values():
        print(m.name, m.meaning, m.range, m.reference, metrics.availability(m.name, extras) or "here", sep="\t")


def _only(ctx: typer.Context, *allowed: str) -> None:
    """UserError if other options were given: silently ignored, they would promise what is not done."""
    for name in ctx.params:
        source = ctx.get_parameter_source(name)
        if name not in allowed and source and source.name == "COMMANDLINE":
            raise UserError(f"--{allowed[0]} goes with no other option than --{', --'.join(allowed[1:])}; "
                            f"take out '{name.replace('_', '-')}'")


def _score_all(pairs: Iterable[Pair], how: How, jobs: int, jsonl: bool, failures: shell.Failures) -> list[Row]:
    """Score `pairs` and print a row of each as it is ready; the rows, which hold no audio, to conclude from."""
    from setk.core import pool
    from setk.scoring import pairing

    rows: list[Row] = []
    if not jsonl:
        print("utt", *how.names, "error", sep="\t", flush=True)
    for row in shell.progress(pool.ordered_map(partial(pairing.score, how=how), pairs, jobs), None, "se-score"):
        utt, scores = row.pair.utt, row.scores
        if jsonl:
            _print_json({"utt": utt, **scores, "error": row.error or None})
        else:
            print(utt, *map(repr, scores.values()), row.error, sep="\t", flush=True)
        if row.error:
            failures.add(utt, row.error)
        rows.append(row)
    return rows


def _print_json(record: Mapping[str, Any]) -> None:
    """One line of strict JSON, which has no nan."""
    print(json.dumps({key: None if isinstance(v, float) and math.isnan(v) else v for key, v in record.items()}), flush=True)


def _conclude(rows: list[Row], how: How, groups: Mapping[str, Mapping[str, str]], inputs: list[str], summary: Path | None,
              html: Path | None) -> dict[str, dict]:
    """Means and intervals to stderr, and with counts and provenance to the files `summary` and `html`; the means."""
    from setk.scoring import summary as summaries

    figures = summaries.figures(rows, how.names, groups)
    for line in summaries.words(figures["metrics"]):
        shell.say(f"se-score: {line}")
    for table, group_of in groups.items():
        for group, one in figures["groups"][table].items():
            shell.say(f"se-score: {Path(table).name} {group}: {'; '.join(summaries.words(one)) or 'no scores'}")
        _tell(f"{table} has no group for", [row.pair.utt for row in rows if row.pair.utt not in group_of])
    if not (summary or html):
        return figures["metrics"]
    record = {**figures, **summaries.origin(how, inputs)}
    if summary:
        write_text(summary, json.dumps(record, indent=1) + "\n")
    if html:
        from setk.scoring import report

        places = {row.pair.utt: (row.pair.ref, row.pair.est, row.pair.noisy) for row in rows}
        table = [{"utt": row.pair.utt, "scores": row.scores, "error": row.error} for row in rows]
        report.write_report(html, table, places, record)
    return figures["metrics"]


def _tell(what: str, utts: Sequence[str]) -> None:
    """Say of how many utterances `what` is true, and name the first of them."""
    if utts:
        number = f"{len(utts)} utterance{'s' if len(utts) > 1 else ''}"
        shell.say(f"se-score: {what} {number}: {', '.join(utts[:10])}{', …' if len(utts) > 10 else ''}")


def _compare(path_a: str, path_b: str, jsonl: bool) -> None:
    """Print what two score tables say of each metric that both have, on the utterances that both have."""
    from setk.scoring import compare

    if path_a == path_b == "-":
        raise UserError("only one of the two tables can be standard input")
    a, b = compare.read_table(path_a), compare.read_table(path_b)
    metrics, utts, only_a, only_b = compare.common(a, b)
    _tell(f"only {path_a} has", only_a)
    _tell(f"only {path_b} has", only_b)
    if not jsonl:
        print(*compare.COLUMNS, sep="\t", flush=True)
    for one in compare.compare(a, b, metrics, utts):
        values = {name: getattr(one, name) for name in compare.COLUMNS}
        if jsonl:
            _print_json(values)
        else:
            print(one.metric, *map(repr, list(values.values())[1:]), sep="\t", flush=True)
        shell.say(f"se-score: {compare.words(one)}")


def _table(form: str, specs: list[str], metrics: str | None, by: list[str], bins: str | None, against: str | None,
           png: Path | None) -> None:
    """Print the systems that `specs` name as one table; with `by`, a table per metric and grouping."""
    from setk import metrics as measures
    from setk.scoring import systems as library

    if form not in library.FORMATS:
        raise UserError(f"--table {form}: choose {', '.join(library.FORMATS)}")
    if not specs:
        raise UserError("name the systems, as in 'se-score --table md noisy.tsv fspen=enhanced.tsv,count.json'")
    if by and (form != "md" or against):
        raise UserError("--table with --by prints Markdown (md), and has no --against")
    if bins and not by:
        raise UserError("--bins needs --by")
    systems = [library.parse(spec) for spec in specs]
    names = library.metrics_of(systems, measures.listed(metrics) if metrics else None)
    if png:
        library.plot(systems, names, png)
    if form != "md":
        records = library.records(systems, names)
        print(library.tsv(records) if form == "tsv" else "\n".join(map(json.dumps, records)))
    elif by:
        groupings = [library.read_groups(table, bins) for table in by]
        print("\n\n".join(library.by_group(systems, name, group_of, bins) for name in names for group_of in groupings))
    else:
        print(library.overview(systems, names, against))


def main() -> None:
    shell.run(app, "se-score")


if __name__ == "__main__":
    main()
