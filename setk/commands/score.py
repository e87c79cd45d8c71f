"""se-score: how close enhanced speech is to the clean reference, per utterance and on average."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Iterator, NamedTuple, Optional

import typer

from setk.commands import shell
from setk.files import AudioError, UserError, write_text

app = shell.new_app()


class Pair(NamedTuple):
    """One utterance to score, and how. `ref` None: the reference list lacks it; `est` None: nothing was enhanced."""

    utt: str
    ref: str | None
    est: str | None
    names: tuple[str, ...]
    rate: int | None
    tolerance: float
    allow_commands: bool


class Row(NamedTuple):
    """One line of the table; `error` is empty where every metric has a value."""

    utt: str
    scores: dict[str, float]
    error: str


@app.command()
def score(
    files: Annotated[Optional[list[str]], typer.Argument(metavar="[CLEAN] ENHANCED", help="Two audio files; with --ref, one wav list. - is standard input.")] = None,
    ref: Annotated[Optional[str], typer.Option(metavar="LIST", help="Wav list of the clean references; ENHANCED is then a wav list.")] = None,
    metrics: Annotated[Optional[str], typer.Option(metavar="A,B,…", help="Columns of the table (default pesq_wb,stoi,estoi,si_sdr).")] = None,
    list_metrics: Annotated[bool, typer.Option("--list-metrics", help="Tell which metrics there are, and end.")] = False,
    rate: Annotated[Optional[int], typer.Option(metavar="HZ", min=1, help="Resample both sides to this rate first.")] = None,
    tolerance: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Lengths may differ by this much; the longer is cut.")] = 0.0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    shard: Annotated[Optional[str], typer.Option(metavar="K/N", help="Every N-th utterance of ENHANCED from the K-th.")] = None,
    max_fail: Annotated[int, typer.Option(metavar="N", min=0, help="Failed utterances that still count as success.")] = 0,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="A JSON object per line instead of a table.")] = False,
    summary: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Write means, intervals, counts and provenance as JSON.")] = None,
    allow_commands: Annotated[bool, typer.Option("--allow-commands", help="Run list entries that end in '|'.")] = False,
) -> None:
    """Score enhanced speech against the clean reference: two files, or two wav lists matched by utterance.

    A tab-separated table goes to standard output, a row as soon as it is ready, in the order of ENHANCED. What
    cannot be computed is nan, with the reason in the last column. Means with 95 % intervals go to standard error.
    """
    from setk import metrics as measures

    if list_metrics:
        for m in measures.METRICS.values():
            print(m.name, m.meaning, m.range, m.reference, sep="\t")
        return
    names = measures.select(measures.DEFAULT if metrics is None else [n.strip() for n in metrics.split(",") if n.strip()])
    wanted = (names, rate, tolerance, allow_commands)
    lists_: list[str] = []
    if ref is not None:
        if len(files or ()) != 1:
            raise UserError("with --ref, give one wav list: se-score --ref clean.scp enhanced.scp, or - for standard input")
        lists_ = [ref, files[0]]
        pairs = _listed(ref, files[0], shard, wanted)
    else:
        if len(files or ()) != 2 or shard:
            raise UserError("write 'se-score clean.wav enhanced.wav', or 'se-score --ref clean.scp enhanced.scp' for lists")
        if files == ["-", "-"]:
            raise UserError("only one of the two can be standard input")
        pairs = iter([Pair(_one_line(Path(files[1]).stem).replace(" ", "_"), *files, *wanted)])
    _run(pairs, names, lists_, jobs, max_fail, jsonl, summary)


def _listed(ref: str, est: str, shard: str | None, wanted: tuple) -> Iterator[Pair]:
    """Pairs in the order of the list `est`, then the references that it never named."""
    from setk import lists

    if ref == est == "-":
        raise UserError("only one of the two lists can be standard input")
    left = lists.read_list(ref)
    for utt, location in lists.take_shard(lists.open_list(est), shard):
        if est == "-" and location == "-":
            location = "- (which is the list already)"
        yield Pair(utt, left.pop(utt, None), location, *wanted)
    # Who pipes or shards a list means a part of it; a whole list that lacks utterances is a mistake to be told.
    if est != "-" and not shard:
        yield from (Pair(utt, location, None, *wanted) for utt, location in left.items())


def _score(pair: Pair) -> Row:
    """Read and score one pair."""
    from setk import metrics

    try:
        scores, reasons = metrics.compute(*_signals(pair), pair.names)
    except AudioError as e:
        return Row(pair.utt, dict.fromkeys(pair.names, math.nan), _one_line(e))
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(reason, []).append(name)
    return Row(pair.utt, scores, _one_line("; ".join(f"{', '.join(own)}: {reason}" for reason, own in groups.items())))


def _one_line(text: object) -> str:
    """`text` fit for one field of the table, file names that are no UTF-8 included."""
    return " ".join(str(text).encode(errors="backslashreplace").decode().split())


def _signals(pair: Pair) -> tuple:
    """Reference [n], estimate [n] and their rate; AudioError if they cannot be compared."""
    from setk import audio

    if pair.ref is None:
        raise AudioError("is not in the list of references")
    if pair.est is None:
        raise AudioError("is in the list of references, but not in that of the enhanced files")
    ref, ref_rate = audio.read_mono(pair.ref, allow_commands=pair.allow_commands)
    est, rate = audio.read_mono(pair.est, allow_commands=pair.allow_commands)
    if pair.rate:
        ref, est = audio.resample(ref, ref_rate, pair.rate), audio.resample(est, rate, pair.rate)
        rate = pair.rate
    elif ref_rate != rate:
        raise AudioError(f"the reference is at {ref_rate} Hz, the estimate at {rate} Hz; --rate {min(rate, ref_rate)} resamples both")
    if abs(len(ref) - len(est)) > pair.tolerance * rate:
        raise AudioError(f"lengths differ: the reference has {len(ref)} samples ({len(ref) / rate:.3f} s), the estimate "
                         f"{len(est)} ({len(est) / rate:.3f} s); --tolerance SECONDS cuts the longer one")
    n = min(len(ref), len(est))
    return ref[:n], est[:n], rate


def _run(pairs: Iterator[Pair], names: tuple[str, ...], lists_: list[str], jobs: int, max_fail: int, jsonl: bool,
         summary: Path | None) -> None:
    """Score `pairs` and print a row of each as it is ready; then tell, and write, what they come to."""
    from setk import pool

    failures = shell.Failures("se-score", max_fail)
    failed: dict[str, str] = {}
    columns: dict[str, list[float]] = {name: [] for name in names}
    if not jsonl:
        print("utt", *names, "error", sep="\t", flush=True)
    for row in shell.progress(pool.ordered_map(_score, pairs, jobs), None, "se-score"):
        print(_json_line(row) if jsonl else "\t".join([row.utt, *map(repr, row.scores.values()), row.error]), flush=True)
        for name, value in row.scores.items():
            columns[name].append(value)
        if row.error:
            failures.add(row.utt, row.error)
            failed[row.utt] = row.error
    _conclude(columns, failed, lists_, summary)
    failures.finish(len(columns[names[0]]) - failures.count)


def _json_line(row: Row) -> str:
    scores = {name: None if math.isnan(value) else value for name, value in row.scores.items()}
    return json.dumps({"utt": row.utt, **scores, "error": row.error or None})


def _conclude(columns: dict[str, list[float]], failed: dict[str, str], lists_: list[str], summary: Path | None) -> None:
    """Means and intervals to stderr, and with counts and provenance to the file `summary`."""
    from setk import files, provenance
    from setk.metrics.summary import LEVEL, RESAMPLES, SEED, summarise

    means = {name: summarise(values) for name, values in columns.items()}
    for name, m in means.items():
        if m["mean"] is not None:
            interval = f" [{m['low']:.3f}, {m['high']:.3f}]" if m["low"] is not None else ""
            shell.say(f"se-score: {name} {m['mean']:.3f}{interval} over {m['scored']}")
    if not summary:
        return
    total = len(next(iter(columns.values())))
    write_text(summary, json.dumps({
        "utterances": total, "scored": total - len(failed), "failed": failed, "metrics": means,
        "interval": {"level": LEVEL, "method": "percentile bootstrap over utterances", "resamples": RESAMPLES, "seed": SEED},
        "provenance": provenance.stamp("numpy", "pesq", "soxr",
                                       lists={path: files.sha256(path) for path in lists_ if Path(path).is_file()}),
    }, indent=1) + "\n")


def main() -> None:
    shell.run(app, "se-score")


if __name__ == "__main__":
    main()
