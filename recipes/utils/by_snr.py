"""by_snr.py NOISY.tsv NAME=SCORES.tsv ...: output SI-SDR by that of the input, a part of RESULTS.md on standard output.

The tables are those of se-score, of the noisy input and of each system's output; one that is not there is left out.
"""

import math
import sys
from pathlib import Path

from setk.scoring.compare import read_table
from setk.scoring.summary import summarise

EDGES = [-math.inf, -6, 0, 6, 12, 18, math.inf]


def si_sdr(path: str) -> dict[str, float]:
    """utt -> SI-SDR."""
    table = read_table(path)
    column = table.names.index("si_sdr")
    return {utt: scores[column] for utt, scores in table.rows.items()}


def cell(values: list[float]) -> str:
    m = summarise(values)
    if m["mean"] is None:
        return "-"
    return f"{m['mean']:.2f}" + (f" [{m['low']:.2f}, {m['high']:.2f}]" if m["low"] is not None else "")


def main(noisy: str, *systems: str) -> None:
    inputs = si_sdr(noisy)
    bands = [(low, high, [u for u, snr in inputs.items() if low <= snr < high]) for low, high in zip(EDGES, EDGES[1:])]
    bands = [band for band in bands if band[2]]
    names = [f"below {high:g}" if low == -math.inf else f"{low:g} and above" if high == math.inf else f"{low:g} to {high:g}"
             for low, high, _ in bands]
    print("\n## Output SI-SDR in dB, by that of the input\n")
    print("| system | " + " | ".join(f"{name} ({len(utts)})" for name, (_, _, utts) in zip(names, bands)) + " | all |")
    print("|---" * (len(bands) + 2) + "|")
    for system in [f"noisy={noisy}", *systems]:
        name, _, path = system.partition("=")
        if Path(path).exists():
            scores = si_sdr(path)
            groups = [*(utts for _, _, utts in bands), list(inputs)]
            print("| " + " | ".join([name, *(cell([scores[u] for u in utts if u in scores]) for utts in groups)]) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
