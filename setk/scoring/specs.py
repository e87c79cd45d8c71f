"""The systems of a table, as the command line names them.

A system is written [NAME=]SCORES.tsv[,SCORES.tsv...][,COUNT.json...][,WAVS.scp]: the score table that se-score wrote, one for each
seed, what `se-count --json` printed, and the wav list of its audio; of a cost in several files the last counts. Published figures are rows of a table.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable, Mapping, Sequence

import numpy as np

from setk.core.errors import UserError
from setk.data.index import ABSENT
from setk.metrics import METRICS
from setk.scoring.table import Table, read_table

COSTS = (
    "params",
    "params_nonzero",
    "bytes",
    "macs_per_second",
    "synops_per_second",
    "latency_ms",
    "rtf",
    "rtf_stream",
    "hop_us_native",
    "hop_us_onnx",
)
QUOTED = "macs_per_second_ptflops"


@dataclass(frozen=True)
class System:
    """`scores`: of several seeds, their mean for each utterance. `costs` holds the values of COSTS that are known, and QUOTED; the
    latency of a model that is not causal is None. `published`: metric -> a paper's figure, as written there. `audio`: a wav list, or None."""

    name: str
    scores: Table
    costs: Mapping[str, float | None]
    seeds: tuple[Table, ...] = ()
    published: Mapping[str, str] = field(default_factory=dict)
    audio: str | None = None


def split(spec: str) -> tuple[str, list[str]]:
    """NAME of `spec`, empty without one, and its files. Names of files that exist may have `=` or a comma."""
    name, equals, files = spec.partition("=")
    if not equals or Path(spec.split(",")[0]).is_file():
        name, files = "", spec
    return name, [files] if Path(files).is_file() else files.split(",")


def check_names(names: Iterable[str]) -> None:
    """Raise UserError if two systems have one name."""
    seen = set()
    for name in names:
        if name in seen:
            raise UserError(f"two systems are called '{name}'; name one of them, as in other={name}.tsv")
        seen.add(name)


def files(texts: Iterable[str]) -> list[str]:
    """The files of several systems."""
    return [file for spec in texts for file in split(spec)[1]]


def parse(spec: str) -> System:
    """Read the system that `spec` names. Without NAME, it is called like its table, or like the folder of `enhanced.tsv`."""
    name, (first, *others) = split(spec)
    if not name:
        path = Path(first)
        name = path.resolve().parent.name if path.stem in ("enhanced", "scores") else path.stem
    costs: dict[str, float | None] = {}
    wavs = [file for file in others if file.endswith(".scp") or Path(file).is_dir()]
    for count in (file for file in others if file not in wavs and not file.endswith(".tsv")):
        costs |= read_costs(count)
    audio = wavs[0] if wavs else None
    seeds = tuple(read_table(file) for file in (first, *(file for file in others if file.endswith(".tsv"))))
    return System(name, seeds[0] if len(seeds) == 1 else mean(seeds, spec), costs, seeds, audio=audio)


def mean(tables: Sequence[Table], where: str) -> Table:
    """Means over tables of the same utterances and metrics; nan where one has nan. Raises UserError if they differ."""
    one, *others = tables
    lines = [one.lines_in(table) for table in others]
    if any(
        table.names != one.names or len(table) != len(one) or (found == ABSENT).any()
        for table, found in zip(others, lines)
    ):
        raise UserError(
            f"{where}: the tables of the seeds differ in metrics or utterances; score the same list for each seed"
        )
    return one.with_values(np.mean([one.values, *(table.values[found] for table, found in zip(others, lines))], axis=0))


def read_costs(path: str) -> dict[str, float | None]:
    """The numbers in one line of `se-count --json`. Raises UserError if the file is anything else."""
    try:
        row = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; write it with se-count MODEL --json") from None
    except ValueError as e:
        raise UserError(f"{path}: not JSON ({e}); write it with se-count MODEL --json, for one model") from None
    if not isinstance(row, dict) or "macs_per_second" not in row:
        raise UserError(f"{path}: not the output of se-count --json: 'macs_per_second' is missing")
    if not isinstance(row["macs_per_second"], (int, float, type(None))):
        raise UserError(f"{path}: not the output of se-count --json: 'macs_per_second' is not a number")
    if row.get("convention") == "ptflops":
        return {QUOTED: row["macs_per_second"]}
    known = {name: row[name] for name in COSTS if isinstance(row.get(name), (int, float))}
    return {"latency_ms": None, **known} if "latency_ms" in row else known


def read_published(path: Path) -> list[System]:
    """Systems of a tab-separated table with the columns `system`, costs (numbers) and metrics (as written in the paper); a cell may be
    empty. Raises UserError on any other table."""
    try:
        with open(path, encoding="utf-8", newline="") as f:
            rows = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{path}: cannot be read ({e})") from None
    found = []
    for number, row in enumerate(rows, 2):
        unknown = [key for key in row if key not in ("system", *COSTS, QUOTED, *METRICS)]
        if unknown or not row.get("system"):
            raise UserError(
                f"{path}:{number}: " + (f"unknown column '{unknown[0]}'" if unknown else "the system has no name")
            )
        try:
            costs: dict[str, float | None] = {key: float(row[key]) for key in (*COSTS, QUOTED) if row.get(key)}
        except ValueError as e:
            raise UserError(f"{path}:{number}: {e}; costs are numbers") from None
        figures = {key: row[key] for key in METRICS if row.get(key)}
        found.append(System(row["system"], Table.of((), {}), costs, published=figures))
    return found
