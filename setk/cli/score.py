"""se-score: how close enhanced speech is to the clean reference, per utterance and on average."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from setk.cli import shell
from setk.core.errors import UserError

if TYPE_CHECKING:
    from setk.metrics import Extras

app = shell.new_app()
EXAMPLES = """
se-score clean.wav enhanced.wav
se-score --ref clean.scp enhanced.scp --jobs 4 --summary scores.json > scores.tsv
se-score --ref clean.scp enhanced.scp --metrics pesq_wb,stoi --by utt2snr
se-score --compare a.tsv b.tsv                           # paired test of two systems
se-score --compare a.tsv,a.scp b.tsv,b.scp c.tsv,c.scp --noisy noisy.scp --html compare.html
se-score --ref clean.scp --noisy noisy.scp enhanced.scp --html report.html > scores.tsv
"""
VERIFIED = 20  # utterances that --verify recomputes


# fmt: off
@shell.command(app, examples=EXAMPLES)
def score(
    ctx: typer.Context,
    files: Annotated[Optional[list[str]], typer.Argument(metavar="[CLEAN] ENHANCED", help="Two audio files; with --ref, one wav list. - is standard input.")] = None,
    ref: Annotated[Optional[str], shell.option(group=shell.INPUT, metavar="LIST", help="Wav list of the clean references; ENHANCED is then a wav list.")] = None,
    noisy: Annotated[Optional[str], shell.option(group=shell.INPUT, metavar="LIST", help="Noisy speech, for si_sdri and sdri: a wav list with --ref, else an audio file.")] = None,
    metrics: Annotated[Optional[str], shell.option(group=shell.METRICS, metavar="A,B,…", help="Columns of the table (default pesq_wb,stoi,estoi,si_sdr).")] = None,
    list_metrics: Annotated[bool, shell.option("--list-metrics", group=shell.METRICS, help="List all metrics, with what is missing to compute them here, and exit.")] = False,
    dnsmos_model: Annotated[Optional[str], shell.option(group=shell.METRICS, metavar="FILE", help="ONNX model of DNSMOS P.835.")] = None,
    dnsmos_p808_model: Annotated[Optional[str], shell.option(group=shell.METRICS, metavar="FILE", help="ONNX model of DNSMOS P.808.")] = None,
    by: Annotated[Optional[list[str]], shell.option(group=shell.METRICS, metavar="TABLE", help="Means by group too: utt2snr, utt2spk, any 'utt-id group', or SCORES.tsv:METRIC. May be repeated.")] = None,
    bins: Annotated[Optional[str], shell.option(group=shell.METRICS, metavar="A,B,…", help="With --by: join groups that are numbers into intervals with these limits, as in 0,6,12.")] = None,
    expect: Annotated[Optional[str], shell.option(group=shell.METRICS, metavar="METRIC=LOW:HIGH,…", help="Exit with 1 if a mean is outside its range, or missing.")] = None,
    table: Annotated[Optional[str], shell.option(group=shell.TABLES, metavar="md|tsv|json", help="Print a table of several systems, each [NAME=]SCORES.tsv[,SCORES.tsv…][,COUNT.json…], and exit. Several score tables are of as many seeds.")] = None,
    against: Annotated[Optional[str], shell.option(group=shell.TABLES, metavar="NAME", help="With --table: differences to this system too.")] = None,
    published: Annotated[Optional[Path], shell.option(group=shell.TABLES, metavar="FILE.tsv", help="With --table md: further rows, figures of papers. Columns: system, costs, metrics, as --table tsv names them.")] = None,
    png: Annotated[Optional[Path], shell.option(group=shell.TABLES, metavar="FILE", help="With --table: draw the means against MACs/s.")] = None,
    compare: Annotated[Optional[tuple[str, str]], shell.option(group=shell.TABLES, metavar="A.tsv B.tsv", help="Compare two score tables on the same utterances, and exit; further tables follow, each against A. With --html each is [NAME=]SCORES.tsv[,WAVS.scp], and --noisy and --ref are wav lists to listen to.")] = None,
    verify: Annotated[Optional[int], shell.option(group=shell.METRICS, metavar="[N]", min=1, help=f"Recompute N random utterances (default {VERIFIED}) with pystoi and pesq; " "exit with 1 if a score differs by more than 1e-6.")] = None,
    rate: Annotated[Optional[int], shell.option(group=shell.INPUT, metavar="HZ", min=1, help="Resample all signals to this rate first.")] = None,
    tolerance: Annotated[float, shell.option(group=shell.INPUT, metavar="SECONDS", min=0, help="Lengths may differ by this much; the longer is cut.")] = 0.0,
    jobs: Annotated[int, shell.option(group=shell.PARALLEL, min=1, help="With --ref: processes.")] = 1,
    part: shell.Part = None,
    max_fail: shell.MaxFail = 0,
    jsonl: Annotated[bool, shell.option("--json", "--jsonl", group=shell.OUTPUT, help="Print a JSON object per line, not a table.")] = False,
    summary: Annotated[Optional[Path], shell.option(group=shell.OUTPUT, metavar="FILE", help="Write means, intervals, counts, groups and provenance as JSON.")] = None,
    html: Annotated[Optional[Path], shell.option(group=shell.OUTPUT, metavar="FILE", help="Write a report to look at and listen to: one page without other files.")] = None,
    allow_commands: shell.AllowCommands = False,
) -> None:
    # fmt: on
    """Score enhanced speech against the clean reference: two files, or two wav lists matched by utterance.

    DNSMOS needs no reference: `se-score enhanced.wav --metrics dnsmos_ovrl`.

    A tab-separated table goes to standard output, a row as soon as it is ready, in the order of ENHANCED. A score that
    cannot be computed is nan, and the last column says why. Means with 95 % intervals go to standard error.
    With --compare, a row per metric of two such tables: B - A with its interval, and p by bootstrap and by Wilcoxon. Of more
    tables, each is compared with the first; --html has their means, and a player for every system of chosen utterances.
    With --table, a row per system: its costs, as printed by se-count --json, and means with intervals. With --by too, a
    row per system and a column per group.
    """
    if compare:
        shell.only(ctx, "with --compare", "compare", "files", "jsonl", "html", "noisy", "ref", "allow_commands")
        if html is None:
            shell.refuse(ctx, "with --compare without --html", "noisy", "ref", "allow_commands")
        return _compare([*compare, *(files or [])], jsonl, html, noisy, ref, allow_commands)
    from setk import metrics as measures
    from setk.audio import check_unread
    from setk.audio.arrays import check_rate
    from setk.core.files import check_distinct, check_name
    from setk.scoring import expect as expectations, groups as groupings, pairing, rows as library, specs, systems
    from setk.scoring import verify as verifying
    from setk.scoring.summary import Scores

    named = specs.files(files or []) if table else files or []
    tables = [groupings.split(spec)[0] for spec in by or []]
    models = [dnsmos_model, dnsmos_p808_model]
    outputs = {"--summary": summary, "--html": html, "--png": png}
    check_distinct(outputs, [ref, noisy, *named, *tables, published, *models])
    for path in filter(None, outputs.values()):
        check_name(path)
    if table:
        shell.only(ctx, "with --table", "table", "metrics", "by", "bins", "against", "published", "png", "files")
        names = measures.listed(metrics) if metrics else None
        rest = {"by": by or [], "bins": bins, "against": against, "published": published, "png": png}
        return print(systems.table(table, files or [], names, **rest))
    shell.refuse(ctx, "without --table", "against", "published", "png")
    if not by:
        shell.refuse(ctx, "without --by", "bins")

    extras = measures.Extras(dnsmos_model, dnsmos_p808_model)
    if list_metrics:
        shell.only(ctx, "with --list-metrics", "list_metrics", "dnsmos_model", "dnsmos_p808_model", "jsonl")
        return _list_metrics(extras, jsonl)
    names = measures.select(measures.DEFAULT if metrics is None else measures.listed(metrics), extras)
    measures.check_gains(names, noisy, "with --noisy")
    expected = {} if expect is None else expectations.parse(expect)
    expectations.check_names(expected, names)
    files = files or []
    if ref is None:
        shell.refuse(ctx, "without --ref, which is for lists", "jobs", "part")
    if [ref, noisy, *files, *(by or [])].count("-") > 1:
        raise UserError("only one of the inputs can be standard input")
    if ref is None:
        pairs = pairing.single(*_pair(files, measures.need_reference(names)), noisy, allow_commands)
    else:
        pairs = pairing.listed(ref, _list(files), noisy, part, allow_commands, jobs)
    groups = {path: groupings.read_groups(path, bins) for path in by or []}
    how = pairing.How(names, check_rate(rate, "--rate") if rate else 0, tolerance, extras)
    sample = verifying.Sample(how, verify) if verify else None
    failures = shell.Failures("se-score", max_fail)
    scores, rows = Scores(names, groups), []
    table_rows = None if jsonl else shell.Rows("utt", names, "error")
    for row in shell.progress(
        library.score_all(pairs, how, jobs), shell.list_length(files[0], part) if ref else None, "se-score"
    ):
        scores.add(row)
        if summary or html:
            check_unread(outputs, filter(None, (row.pair.ref, row.pair.est, row.pair.noisy)))
        if html:
            rows.append(row)
        if sample:
            sample.add(row)
        if table_rows:
            table_rows.add(row.pair.utt, map(repr, row.scores.values()), row.error)
        else:
            shell.print_json({"utt": row.pair.utt, **row.scores, "error": row.error or None})
        if row.error:
            failures.add(row.pair.utt, row.error)
    inputs = [path for path in (ref, *files, noisy, *tables) if path]
    figures = scores.figures()
    lines = library.describe(scores, figures)
    library.write_files(rows, how, figures, inputs, summary=summary, html=html)
    differences = verifying.verify(sample.rows, how, jobs) if sample else []
    unmet = expectations.unmet(expected, figures["metrics"])
    same = verifying.agree(differences)
    for line in lines:
        shell.note(f"se-score: {line}")
    for line in verifying.words(differences):
        (shell.note if same else shell.say)(f"se-score: {line}")
    for line in unmet:
        shell.say(f"se-score: unexpected mean: {line}")
    failures.finish(scores.utterances - failures.count)
    if unmet or not same:
        raise typer.Exit(shell.SOME_FAILED)


def _pair(files: list[str], need_reference: bool) -> tuple[str | None, str]:
    """The clean and the enhanced file; None for the first where metrics need no reference."""
    if len(files) == 1 and not need_reference:
        return None, files[0]
    if len(files) != 2:
        raise UserError("write 'se-score clean.wav enhanced.wav', or 'se-score --ref clean.scp enhanced.scp' for lists")
    return files[0], files[1]


def _list(files: list[str]) -> str:
    if len(files) != 1:
        raise UserError("with --ref, give one wav list: se-score --ref clean.scp enhanced.scp, or - for standard input")
    return files[0]


def _list_metrics(extras: Extras, jsonl: bool) -> None:
    from setk import metrics

    shell.print_rows(
        (
            {
                "name": m.name,
                "meaning": m.meaning,
                "range": m.range,
                "reference": m.reference,
                "available": metrics.availability(m.name, extras) or "here",
            }
            for m in metrics.METRICS.values()
        ),
        jsonl,
    )


def _compare(
    tables: list[str], jsonl: bool, html: Path | None, noisy: str | None, ref: str | None, allow_commands: bool
) -> None:
    """Print a row for each metric that all score tables have, of each table against the first, over the utterances of all."""
    from setk.core.files import check_distinct
    from setk.scoring import compare, several, specs

    check_distinct({"--html": html}, [noisy, ref, *specs.files(tables)])
    if tables.count("-") > 1:
        raise UserError("only one of the tables can be standard input")
    found = several.compare_systems(tables)
    for line in found.remarks:
        shell.note(f"se-score: {line}")
    many = len(found.systems) > 2
    columns = ("system", *compare.COLUMNS) if many else compare.COLUMNS
    table_rows = None if jsonl else shell.Rows(columns[0], columns[1:])
    for name, comparisons in found.comparisons.items():
        for one in comparisons:
            values = {**({"system": name} if many else {}), **{key: getattr(one, key) for key in compare.COLUMNS}}
            if table_rows:
                first, *rest = values.values()
                table_rows.add(first, [value if isinstance(value, str) else repr(value) for value in rest])
            else:
                shell.print_json(values)
            shell.note(f"se-score: {f'{name}: ' if many else ''}{compare.words(one)}")
    if html:
        several.write_page(html, found, noisy=noisy, clean=ref, allow_commands=allow_commands, inputs=tables)


def main() -> None:
    shell.optional_value(sys.argv, "--verify", VERIFIED)
    shell.run(app, "se-score")


if __name__ == "__main__":
    main()
