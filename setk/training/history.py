"""history.tsv and curves.png: a row per validation, written again at each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Callable

from setk.core.files import atomic_path, write_text


class History:
    """Rows of a training (column -> value), and the two files that show them in `out` (None: nowhere)."""

    def __init__(self, out: Path | None):
        self.out = out
        self.rows: list[dict[str, float]] = []

    def add(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        self._write()

    def ranking(self, merit: Callable[[dict[str, float]], float]) -> list[int]:
        """Indices of the rows that have a merit, the best first, of equals the earlier."""
        merits = [merit(row) for row in self.rows]
        return sorted((i for i, value in enumerate(merits) if not math.isnan(value)), key=lambda i: -merits[i])

    def restore(self, rows: list[dict[str, float]]) -> None:
        """Rows of a resumed run; what a later, lost part of it had written is dropped."""
        self.rows = rows
        if rows:
            self._write()

    def _write(self) -> None:
        if self.out is None:
            return
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [columns] + [[repr(row.get(c, float("nan"))) for c in columns] for row in self.rows]
        write_text(self.out / "history.tsv", "".join("\t".join(line) + "\n" for line in lines))
        self._plot(columns)

    def _plot(self, columns: list[str]) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        names = [c for c in columns if c not in ("step", "hours", "lr")]
        figure = Figure(figsize=(4 * min(4, len(names)), 2.8 * -(-len(names) // 4)), layout="constrained")
        FigureCanvasAgg(figure)
        steps = [row["step"] for row in self.rows]
        for i, name in enumerate(names, 1):
            axes = figure.add_subplot(-(-len(names) // 4), min(4, len(names)), i)
            axes.plot(steps, [row.get(name, float("nan")) for row in self.rows], marker=".", linewidth=1)
            axes.set(title=name, xlabel="step")
            axes.grid(alpha=0.3)
        with atomic_path(self.out / "curves.png") as tmp:
            figure.savefig(tmp, dpi=80, metadata={"Software": None})
