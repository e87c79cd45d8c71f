"""table.py RESULTS PICTURE PEERS: one table of all models on standard output, and quality against cost as PICTURE (PNG).

RESULTS holds a folder per model, as recipes/open/table.sh makes them, and `noisy`; sections NAME.md of it are taken in, and
training.tsv, as curve.py made it. PEERS is a table of public models on the same pairs: a
row each, with what was measured, when, by which command, and where the weights are from; a cell that is empty was not measured.
"""

import csv
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from results import score, short

METRICS = {"pesq_wb": "PESQ-WB", "stoi": "STOI", "estoi": "ESTOI", "si_sdr": "SI-SDR, dB", "csig": "CSIG", "cbak": "CBAK", "covl": "COVL",
           "dnsmos_sig": "SIG", "dnsmos_bak": "BAK", "dnsmos_ovrl": "OVRL"}
# What the papers themselves report, all on VoiceBank+DEMAND but FQSE (LibriMix, single speaker): another test, another training.
PUBLISHED = {"fspen": "PESQ 2.97, STOI .942", "lite_rtse": "PESQ 2.67, STOI .936 (a re-implementation)", "dpsnn": "SI-SNR 18.46 dB",
             "dccrn": "PESQ 2.54, STOI .938", "dpcrn_cf": "PESQ 3.18, STOI .948", "conv_tasnet": "SI-SDR 14.74 dB (LibriMix, float)",
             "fqse": "SI-SDR 14.77 dB (LibriMix)", "effifusion_gan": "PESQ 3.45"}
PEER_COLUMNS = {"pesq_wb": ".2f", "stoi": ".3f", "estoi": ".3f", "si_sdr": ".2f", "dnsmos_sig": ".2f", "dnsmos_bak": ".2f", "dnsmos_ovrl": ".2f"}
TEXT = """# The models that ship, on one test set

60 pairs of real recorded speech and noise at 2.5 to 17.5 dB, of speakers and noise files that are in neither training
nor validation. Means with their 95 % bootstrap interval over utterances. All were trained on 3.1 h of speech and 95
noises on CPU cores, for minutes to hours: the rows tell what such a training reaches, not what the papers' trainings do.
Their own figures stand in the last column: another corpus, another test.

{scores}

{costs}

MACs per second of audio as setk counts them, and by ptflops' rules; synaptic operations as measured on the noisy test
set; latency is the algorithmic one. Real-time factor: seconds of computing per second of audio, on one thread of
{machine}, live (hop by hop) and of a whole signal; of the file that runs when the model is called by its name.

![PESQ against MACs, and against hours of training]({picture})

{sections}## Public models on the same pairs

{peers}

Measured with their public weights; `{peers_file}` has the date, the command and the source of each row. All but RNNoise were
trained on hundreds of hours.

## Each number again

    bash recipes/open/table.sh --root CORPUS --out again --table again.md   # all rows
    bash recipes/open/table.sh --stage 4                       # the table from results/open as committed

and one model by itself:

    se-enhance NAME --list test/noisy.scp --out enhanced | se-score --ref test/clean.scp - --metrics {metrics}
    se-count NAME --json [--convention ptflops] [--time] [--list test/noisy.scp]
    se-score --compare {results}/fspen/scores.tsv {results}/dpcrn_cf/scores.tsv
"""


def rows_of(results: Path) -> dict[str, dict]:
    """Model -> what table.sh wrote of it, the cheapest first."""
    found = {}
    for folder in (path.parent for path in results.glob("*/scores.json")):
        files = {part: folder / f"{part}.json" for part in ("scores", "count", "count.ptflops", "time", "spikes")}
        found[folder.name] = {part: json.loads(file.read_text()) if file.exists() else {} for part, file in files.items()}
    return dict(sorted(found.items(), key=lambda item: item[1]["count"].get("macs_per_second", 0)))


def line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join([line(*header), "|---" * len(header) + "|", *(line(*row) for row in rows)])


def published(name: str) -> str:
    """The paper's own figure for a model, by the longest of the names that it begins with."""
    known = [paper for paper in PUBLISHED if name == paper or name.startswith(f"{paper}-")]
    return PUBLISHED[max(known, key=len)] if known else ""


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def cost_row(name: str, row: dict) -> list[str]:
    count, time, spikes = row["count"], row["time"], row["spikes"].get("synops_per_second")
    live = time["rtf_stream"]
    latency = count["latency_ms"]
    return [name, f"{count['params']:,}", f"{count['params_nonzero']:,}", f"{count['bytes']:,}", short(count["macs_per_second"]),
            short(row["count.ptflops"]["macs_per_second"]), short(spikes) if spikes else "",
            "whole signal" if latency is None else f"{latency:g} ms", number(live, ".3f"), number(time["rtf"], ".3f")]


def read_peers(path: Path) -> list[dict[str, str]]:
    """Rows of PEERS."""
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))


def peer_row(peer: dict[str, str]) -> list[str]:
    counts = [short(float(peer[name])) if peer[name] else "" for name in ("params", "macs_per_second")]
    scores = [format(float(peer[name]), form) if peer[name] else "" for name, form in PEER_COLUMNS.items()]
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
    points = [(name, row["count"]["macs_per_second"] / 1e6, row["scores"]["metrics"]["pesq_wb"]) for name, row in ours.items()]
    axes.errorbar([x for _, x, _ in points], [y["mean"] for *_, y in points],
                  [[y["mean"] - y["low"] for *_, y in points], [y["high"] - y["mean"] for *_, y in points]],
                  fmt="o", capsize=3, linewidth=1, label="ships with setk")
    public = [(peer["system"], float(peer["macs_per_second"]) / 1e6, float(peer["pesq_wb"])) for peer in peers
              if peer["macs_per_second"] and peer["pesq_wb"]]
    axes.plot([x for _, x, _ in public], [y for *_, y in public], "^", color="grey", label="public models")
    for name, x, y in [(name, x, y["mean"]) for name, x, y in points] + public:
        axes.annotate(name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.margins(x=0.25)
    axes.set(xscale="log", xlabel="MMAC/s", ylabel="PESQ-WB, test")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")


def main(results: str, picture: str, peers_file: str) -> None:
    models = rows_of(Path(results))
    peers = read_peers(Path(peers_file))
    draw(models, peers, Path(results) / "training.tsv", Path(picture))
    scores = [[name, *(score(row["scores"]["metrics"], m) if m in row["scores"]["metrics"] else "" for m in METRICS), published(name)] for name, row in models.items()]
    scores.sort(key=lambda row: row[0] != "noisy")
    costs = [cost_row(name, row) for name, row in models.items() if row["count"]]
    print(TEXT.format(
        scores=table(["model", *METRICS.values(), "the paper"], scores),
        costs=table(["model", "params", "non-zero", "bytes", "MACs/s", "by ptflops", "SynOps/s", "latency", "RTF live", "RTF whole"], costs),
        sections="".join(path.read_text() + "\n" for path in sorted(Path(results).glob("*.md"))),
        machine=(Path(results) / "machine").read_text().strip(), picture=Path(picture).name, peers_file=peers_file,
        peers=table(["system", "trained on", "params", "MACs/s", *(METRICS[name] for name in PEER_COLUMNS)], [peer_row(peer) for peer in peers]),
        metrics=",".join(METRICS), results=results), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
