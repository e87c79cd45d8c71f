"""results.py EXP PAPER LABEL TEST ROWS: RESULTS.md on standard output, from what se-score and se-count wrote in EXP.

TEST is the data directory that was scored, ROWS are the papers' own figures, lines of the table. Every number comes with the command that gives it.
"""

import json
import sys
from pathlib import Path

METRICS = ["pesq_wb", "stoi", "estoi", "si_sdr"]
TEMPLATE = """# {paper} on {label}

{note}
| system | params | MACs/s | MACs/s, ptflops | PESQ-WB | STOI | ESTOI | SI-SDR, dB |
|---|---|---|---|---|---|---|---|
{rows}

{scored} utterances of {label}; means with their 95 % bootstrap interval over utterances. {latency}, STFT {stft}/s beside the MACs.
{failed}
Each number again:

    se-score --ref {test}/clean.scp {test}/noisy.scp --summary noisy.json
    se-enhance {exp}/best.pt --list {test}/noisy.scp --out enhanced | se-score --ref {test}/clean.scp - --summary enhanced.json
    se-count {exp}/best.pt --json
    se-count {exp}/best.pt --json --convention ptflops
"""
MINI_NOTE = """**These are results on the embedded corpus (label mini): synthetic voices, a few minutes, a few steps of training.
They show that the chain runs, and say nothing of the quality of the model.**
"""


def score(metrics: dict, name: str) -> str:
    """`mean [low, high]` of one metric."""
    m = metrics[name]
    digits = 3 if name in ("stoi", "estoi") else 2
    if m["mean"] is None:
        return "-"
    mean, low, high = (f"{m[k]:.{digits}f}" if m[k] is not None else "-" for k in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def short(n: float) -> str:
    """A count with three digits: 86354 -> 86.4 k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:g}"


def main(exp: str, paper: str, label: str, test: str, papers: str) -> None:
    read = {name: json.loads((Path(exp) / f"{name}.json").read_text()) for name in ("noisy", "enhanced", "count", "count.ptflops")}
    noisy, enhanced = read["noisy"]["metrics"], read["enhanced"]["metrics"]
    cost, published = read["count"], read["count.ptflops"]
    ours = [short(cost["params"]), short(cost["macs_per_second"]), short(published["macs_per_second"])]
    rows = [["noisy", "", "", "", *(score(noisy, m) for m in METRICS)],
            [f"**{paper}, here**", *ours, *(score(enhanced, m) for m in METRICS)]]
    latency = "Not causal" if cost["latency_ms"] is None else f"Latency {cost['latency_ms']:g} ms"
    failed = len(read["enhanced"]["failed"])
    print(TEMPLATE.format(
        paper=paper, label=label, note=MINI_NOTE if label == "mini" else "", exp=exp,
        rows="\n".join(["| " + " | ".join(row) + " |" for row in rows] + papers.splitlines()),
        scored=read["enhanced"]["scored"], latency=latency, stft=short(cost["stft_macs_per_second"]),
        failed=f"\n**{failed} utterances failed.**\n" if failed else "", test=test), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
