"""ablation.py DIR BASE VARIANT...: a table of variants on standard output, from what se-count and se-score wrote in DIR/VARIANT.

Differences to BASE are means over utterances, with their 95 % interval.
"""

import json
import sys
from pathlib import Path

from results import score, short

from setk.scoring.compare import compare, read_table

METRICS = ["pesq_wb", "stoi", "si_sdr"]


def main(folder: str, base: str, *variants: str) -> None:
    print(f"| variant | params | non-zero | MACs/s | PESQ-WB | against {base} | STOI | SI-SDR, dB |\n" + "|---" * 8 + "|")
    tables = {name: read_table(f"{folder}/{name}/enhanced.tsv") for name in {base, *variants}}
    for name in variants:
        at = Path(folder) / name
        cost, scores = (json.loads((at / f"{part}.json").read_text()) for part in ("count", "enhanced"))
        found = next(compare(tables[base], tables[name], ["pesq_wb"], list(tables[base].rows)))
        against = f"{found.diff:+.2f} [{found.low:.2f}, {found.high:.2f}]" if name != base else ""
        pesq, *others = (score(scores["metrics"], metric) for metric in METRICS)
        costs = [short(cost[key]) for key in ("params", "params_nonzero", "macs_per_second")]
        print("| " + " | ".join([name, *costs, pesq, against, *others]) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
