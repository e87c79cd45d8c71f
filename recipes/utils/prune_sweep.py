"""prune_sweep.py DIR PART…: DIR/sweep.tsv and sweep.png from DIR/PART/{count,enhanced}.json, as se-count and se-score wrote them."""

import json
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from setk.core.files import atomic_path, write_text

COSTS = ["params", "macs_per_second", "bytes", "rtf"]
METRICS = ["pesq_wb", "stoi", "si_sdr"]


def main(folder: str, *parts: str) -> None:
    rows = []
    for part in parts:
        count, scores = (json.loads((Path(folder) / part / f"{name}.json").read_text()) for name in ("count", "enhanced"))
        rows.append({"part": part, **{key: count[key] for key in COSTS}, **{name: scores["metrics"][name]["mean"] for name in METRICS}})
    write_text(Path(folder) / "sweep.tsv", "".join("\t".join(map(str, line)) + "\n" for line in [rows[0], *(row.values() for row in rows)]))

    figure = Figure(figsize=(4 * len(METRICS), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(METRICS)), METRICS):
        axes.plot([row["macs_per_second"] / 1e6 for row in rows], [row[name] for row in rows], marker="o")
        axes.set(title=name, xlabel="million MACs per second")
        axes.grid(alpha=0.3)
    with atomic_path(Path(folder) / "sweep.png") as path:
        figure.savefig(path, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
