"""conditions.py NOISY.scp CLEAN.scp PAIRS.tsv RESULTS [MODEL ...]: what models do beyond the mean of the test set.

For each MODEL, writes RESULTS/NAME/conditions.tsv: of every utterance, PESQ-WB and SI-SDR of the output
  quiet   the same input LEVEL dB lower (which brings an active level of -25 dBFS to -60)
  long    the utterance within one recording of all of them, end to end, as a call or a live input that runs for minutes
  clean   the clean speech alone, which needs nothing
and `noise_left`, the level of the output re the input in dB where the input is the noise alone (noisy - clean).
Then writes RESULTS/conditions.md, a section of RESULTS.md, from all such tables that are there and from scores.tsv beside them:
those figures, and scores by SNR and by kind of noise, as PAIRS (recipes/open/pairs.tsv) says what each utterance is made of.
"""

import csv
import sys
from pathlib import Path

import numpy as np

import setk
from setk.cli import shell
from setk import audio
from setk.core.files import write_text
from setk.data.lists import read_list
from setk.engines import Enhancer
from setk.metrics import compute
from setk.scoring.summary import summarise
from setk.scoring.systems import digits_of, heading, markdown, mean_cell

RATE = 16000
LEVEL = -35.0
METRICS = ("pesq_wb", "si_sdr")
COLUMNS = (*(f"{condition}_{name}" for condition in ("quiet", "long", "clean") for name in METRICS), "noise_left")


def level(x: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(x, dtype=np.float64)) + 1e-20)


def measure(model: Enhancer, noisy: np.ndarray, clean: np.ndarray, within: np.ndarray) -> list[float]:
    """The values of COLUMNS for one pair [n]; `within` [n] is the output for it within the long recording."""
    gain = 10 ** (LEVEL / 20)
    outputs = model.enhance(gain * noisy, RATE) / gain, within, model.enhance(clean, RATE)
    scores = [compute(clean, output, RATE, METRICS)[0] for output in outputs]
    noise = noisy - clean
    return [
        *(score[name] for score in scores for name in METRICS),
        level(model.enhance(noise, RATE)) - level(noise),
    ]


def write_conditions(model: str, noisy: dict[str, str], clean: dict[str, str], results: Path) -> None:
    enhancer = setk.load(model)
    inputs = [audio.read_mono(path, RATE)[0] for path in noisy.values()]
    ends = np.cumsum([len(x) for x in inputs])
    outputs = np.split(enhancer.enhance(np.concatenate(inputs), RATE), ends[:-1])
    lines = ["\t".join(("utt", *COLUMNS))]
    for utt, x, within in zip(noisy, inputs, outputs):
        found = measure(enhancer, x, audio.read_mono(clean[utt], RATE)[0], within)
        lines.append("\t".join([utt, *(f"{value:.4f}" for value in found)]))
    folder = results / Path(model).stem
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "conditions.tsv", "\n".join(lines) + "\n")


def read_rows(path: Path, key: str = "utt") -> dict[str, dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as f:
        return {row[key]: row for row in csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE)}


def values(rows: dict[str, dict[str, str]], column: str, utts) -> list[float]:
    return [float(rows[utt].get(column) or "nan") for utt in utts if utt in rows]


def mean(found: list[float], metric: str) -> str:
    """The mean alone, without its interval."""
    value = summarise(found)["mean"]
    return "-" if value is None else f"{value:.{digits_of(metric)}f}"


def beyond_the_mean(scores: dict, conditions: dict) -> str:
    """The table of quiet, long and clean input and of noise alone."""
    rows = []
    for name, found in conditions.items():
        columns = {metric: values(scores.get(name, {}), metric, found) for metric in METRICS}
        columns |= {column: values(found, column, found) for column in COLUMNS}
        rows.append([name, *(mean_cell(summarise(of), column) if of else "" for column, of in columns.items())])
    titles = [heading(metric) for metric in METRICS]
    conditions_of = [f"{condition}: {title}" for condition in ("quiet", "long", "clean in") for title in titles]
    return markdown(["model", *titles, *conditions_of, "noise alone, dB"], rows)


def grouped(scores: dict, groups: dict[str, list[str]], metric: str) -> str:
    """Means of a metric by group of utterances, of each model."""
    header = ["model", *(f"{name} ({len(utts)})" for name, utts in groups.items())]
    rows = []
    for name, found in scores.items():
        rows.append([name, *(mean(values(found, metric, utts), metric) for utts in groups.values())])
    return markdown(header, rows)


def by(pairs: dict[str, dict[str, str]], column: str, key) -> dict[str, list[str]]:
    """The utterances of each value of a column, in the order of `key`."""
    found: dict[str, list[str]] = {}
    for utt, row in pairs.items():
        found.setdefault(row[column], []).append(utt)
    return {value: found[value] for value in sorted(found, key=key)}


def section(results: Path, pairs: dict[str, dict[str, str]]) -> str:
    scores = {path.parent.name: read_rows(path) for path in sorted(results.glob("*/scores.tsv"))}
    conditions = {path.parent.name: read_rows(path) for path in sorted(results.glob("*/conditions.tsv"))}
    pairs = {utt: row for utt, row in pairs.items() if any(utt in rows for rows in scores.values())}
    by_snr, by_noise = by(pairs, "snr_db", float), by(pairs, "noise", str)
    parts = [
        "## Quiet input, long input, clean input, noise alone",
        "",
        f"The test set {-LEVEL:g} dB quieter (active level -60 dBFS), all of it as one recording, its clean speech as input, and its noise alone",
        "(level of the output re the input). A model that ignores level scores the same when it is quiet, and one whose state does not",
        "drift the same in a long recording, except for what it needs to get used to another voice and noise every three to four seconds. One that knows",
        "speech leaves it as it is.",
        "",
        beyond_the_mean(scores, conditions),
        "",
    ]
    for metric in METRICS if pairs else ():
        parts += [
            f"## {heading(metric)}, by SNR and by noise",
            "",
            "By SNR of the input in dB:",
            "",
            grouped(scores, by_snr, metric),
            "",
            "By noise:",
            "",
            grouped(scores, by_noise, metric),
            "",
        ]
    return "\n".join(parts)


def main(noisy: str, clean: str, pairs: str, results: str, *models: str) -> None:
    if models:
        lists = read_list(noisy), read_list(clean)
        for model in models:
            write_conditions(model, *lists, Path(results))
    write_text(Path(results) / "conditions.md", section(Path(results), read_rows(Path(pairs), "id")))


if __name__ == "__main__":
    shell.script(lambda: main(*sys.argv[1:]), "conditions.py")
