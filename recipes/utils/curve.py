"""curve.py EXP...: how models came to validate, a row per validation, on standard output (TSV).

EXP is that of a recipe of recipes/open; hours run on through its parts, EXP/first, EXP/second and so on. They are those of
training steps on whatever machine ran them, without validations.
"""

import csv
import sys
from pathlib import Path

PARTS = ("first", "second", "third", "fourth", "last", ".")
SCORES = ("valid_pesq_wb", "valid_stoi", "valid_si_sdr")


def main(*experiments: str) -> None:
    out = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n")
    out.writerow(["model", "part", "step", "hours", *SCORES])
    for experiment in map(Path, experiments):
        before = 0.0
        histories = [path for part in PARTS if (path := experiment / part / "history.tsv").exists()]
        for part, path in enumerate(histories, 1):
            with open(path) as f:
                rows = list(csv.DictReader(f, delimiter="\t"))
            for row in rows:
                scores = [f"{float(row[name]):.4f}" for name in SCORES]
                out.writerow([experiment.resolve().name, part, row["step"], f"{before + float(row['hours']):.4f}", *scores])
            before += float(rows[-1]["hours"])


if __name__ == "__main__":
    main(*sys.argv[1:])
