"""table.py RESULTS PICTURE: one table of all models on standard output, and quality against cost as PICTURE (PNG).

RESULTS holds a folder per model, as table.sh writes them, and `noisy`. It may also hold sections NAME.md, which are included;
training.tsv, as se-train curves prints it; published.tsv (model, its paper's figures) and peers.tsv: public models on the same pairs,
with what was measured (an empty cell was not), when, by which command, and where the weights are from.
"""

import csv
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from setk.cli import shell
from setk.scoring.systems import digits_of, heading, markdown, mean_cell, short

METRICS = "pesq_wb stoi estoi si_sdr csig cbak covl dnsmos_sig dnsmos_bak dnsmos_ovrl".split()
OF_PEERS = "pesq_wb stoi estoi si_sdr dnsmos_sig dnsmos_bak dnsmos_ovrl".split()
TEXT = """# The included models on one test set

60 pairs of real recorded speech and noise at 2.5 to 17.5 dB, of speakers and noise files that are in neither training
nor validation. Means with their 95 % bootstrap interval over utterances. All were trained on 3.1 h of speech and 95
noises, and at last on 3.5 h and 2,141 noises, on CPU cores, for two to twelve hours: the rows show what such a
training reaches, not what the papers' trainings reach.
The last column has the papers' own figures, which are of another corpus and another test.

{scores}

{costs}

MACs per second of audio as setk counts them, and by ptflops' rules; synaptic operations as measured on the noisy test
set; latency is the algorithmic one. Bytes are those of the file that runs when the model is called by its name: ONNX where there is one, of
int8 weights if the model is quantized. Real-time factor (RTF): seconds of computing per second of audio, of the model called by its name,
on one thread of {machine} that other work shared, live (hop by hop) and of a complete signal.

[RESULTS.html](RESULTS.html) plays the best two models on five recordings; `recipes/open/examples.sh` makes it.

![PESQ against MACs, and against hours of training]({picture})

{sections}## Public models on the same pairs

{peers}

Measured with their public weights; `{results}/peers.tsv` has the date, the command and the source of each row. All except RNNoise and
the model of VoiceBank+DEMAND were trained on hundreds of hours.

## Commands for each number

    bash recipes/open/table.sh --root CORPUS --out again --table again.md   # all rows
    bash recipes/open/table.sh --stage 4                       # the table, from the committed results/open

For one model:

    se-enhance NAME --list test/noisy.scp --out enhanced | se-score --ref test/clean.scp - --metrics {metrics}
    se-count NAME --json [--convention ptflops] [--time] [--list test/noisy.scp]
    se-score --compare {results}/fspen/scores.tsv {results}/dpcrn_cf/scores.tsv
"""


def rows_of(results: Path) -> dict[str, dict]:
    """Model -> what table.sh wrote for it, the cheapest first."""
    found = {}
    for folder in (path.parent for path in results.glob("*/scores.json")):
        files = {
            part: folder / f"{part}.json" for part in ("scores", "count", "count.ptflops", "export", "time", "spikes")
        }
        found[folder.name] = {
            part: json.loads(file.read_text()) if file.exists() else {} for part, file in files.items()
        }
    return dict(sorted(found.items(), key=lambda item: item[1]["count"].get("macs_per_second", 0)))


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated table; none without the file."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8") as f:
        return list(csv.DictReader(f, delimiter="\t"))


def published(name: str, papers: list[dict[str, str]]) -> str:
    """The paper's own figures for a model: the longest row name that its name begins with."""
    known = {
        row["model"]: row["figures"] for row in papers if name == row["model"] or name.startswith(row["model"] + "-")
    }
    return known[max(known, key=len)] if known else ""


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def cost_row(name: str, row: dict) -> list[str]:
    count, time, spikes = row["count"], row["time"], row["spikes"].get("synops_per_second")
    live = time["rtf_stream"]
    latency = count["latency_ms"]
    return [
        name,
        f"{count['params']:,}",
        f"{count['params_nonzero']:,}",
        f"{(row['export'] or count)['bytes']:,}",
        short(count["macs_per_second"]),
        short(row["count.ptflops"]["macs_per_second"]),
        short(spikes) if spikes else "",
        "complete signal" if latency is None else f"{latency:g} ms",
        number(live, ".3f"),
        number(time["rtf"], ".3f"),
    ]


def peer_row(peer: dict[str, str]) -> list[str]:
    counts = [short(float(peer[name])) if peer[name] else "" for name in ("params", "macs_per_second")]
    scores = [f"{float(peer[name]):.{digits_of(name)}f}" if peer[name] else "" for name in OF_PEERS]
    return [peer["system"], peer["trained_on"], *counts, *scores]


def draw(models: dict[str, dict], peers: list[dict[str, str]], curves: Path, picture: Path) -> None:
    """PESQ against MACs per second and, where there are `curves`, against hours of training."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = 1 + curves.exists()
    figure = Figure(figsize=(6.5 * panels, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    draw_costs(models, peers, axes[0])
    if panels > 1:
        draw_curves(curves, axes[1])
    figure.savefig(picture, dpi=110, metadata={"Software": None})


def draw_curves(curves: Path, axes: Any) -> None:
    """Validation PESQ of each model by hours; a gap where a training began from the best of the one before."""
    with open(curves) as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    colors: dict[str, str] = {}
    for (model, _), part in itertools.groupby(rows, key=lambda row: (row["model"], row["part"])):
        label = None if model in colors else model
        color = colors.setdefault(model, f"C{len(colors)}")
        hours, scores = zip(*((float(row["hours"]), float(row["valid_pesq_wb"])) for row in part))
        axes.plot(hours, scores, ".-", color=color, linewidth=1, label=label)
    axes.set(xlabel="hours of one CPU core", ylabel="PESQ-WB, validation")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")


def draw_costs(models: dict[str, dict], peers: list[dict[str, str]], axes: Any) -> None:
    """PESQ with its interval against MACs per second, ours and public ones."""
    noisy = models["noisy"]["scores"]["metrics"]["pesq_wb"]["mean"]
    axes.axhline(noisy, color="grey", linewidth=1, linestyle=":", label=f"noisy, {noisy:.2f}")
    ours = {name: row for name, row in models.items() if row["count"]}
    points = [
        (name, row["count"]["macs_per_second"] / 1e6, row["scores"]["metrics"]["pesq_wb"]) for name, row in ours.items()
    ]
    axes.errorbar(
        [x for _, x, _ in points],
        [y["mean"] for *_, y in points],
        [[y["mean"] - y["low"] for *_, y in points], [y["high"] - y["mean"] for *_, y in points]],
        fmt="o",
        capsize=3,
        linewidth=1,
        label="included in setk",
    )
    public = [
        (row["system"], float(row["macs_per_second"]) / 1e6, float(row["pesq_wb"]))
        for row in peers
        if row["macs_per_second"]
    ]
    axes.plot([x for _, x, _ in public], [y for *_, y in public], "^", color="grey", label="public models")
    for name, x, y in [(name, x, y["mean"]) for name, x, y in points] + public:
        axes.annotate(name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.margins(x=0.25)
    axes.set(xscale="log", xlabel="MMAC/s", ylabel="PESQ-WB, test")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")


def main(results: str, picture: str) -> None:
    models = rows_of(Path(results))
    papers, peers = (read_tsv(Path(results) / f"{name}.tsv") for name in ("published", "peers"))
    draw(models, peers, Path(results) / "training.tsv", Path(picture))
    scores = []
    for name, row in models.items():
        means = row["scores"]["metrics"]
        cells = [mean_cell(means[metric], metric) if metric in means else "" for metric in METRICS]
        scores.append([name, *cells, published(name, papers)])
    scores.sort(key=lambda row: row[0] != "noisy")
    costs = [cost_row(name, row) for name, row in models.items() if row["count"]]
    print(
        TEXT.format(
            scores=markdown(["model", *map(heading, METRICS), "the paper"], scores),
            costs=markdown(
                [
                    "model",
                    "params",
                    "non-zero",
                    "bytes",
                    "MACs/s",
                    "by ptflops",
                    "SynOps/s",
                    "latency",
                    "RTF live",
                    "RTF complete",
                ],
                costs,
            ),
            sections="".join(path.read_text() + "\n" for path in sorted(Path(results).glob("*.md"))),
            machine=(Path(results) / "machine").read_text().strip(),
            picture=Path(picture).name,
            peers=markdown(
                ["system", "trained on", "params", "MACs/s", *map(heading, OF_PEERS)],
                [peer_row(row) for row in peers],
            ),
            metrics=",".join(METRICS),
            results=results,
        ),
        end="",
    )


if __name__ == "__main__":
    shell.script(lambda: main(*sys.argv[1:]), "table.py")
