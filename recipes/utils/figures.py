"""figures.py EXP: utterances, failures, latency and cost of the STFT on one line, from EXP/enhanced.json and EXP/count.json."""

import json
import sys
from pathlib import Path

exp = Path(sys.argv[1])
scores, cost = (json.loads((exp / name).read_text()) for name in ("enhanced.json", "count.json"))
latency = "Not causal" if cost["latency_ms"] is None else f"Latency {cost['latency_ms']:g} ms"
print(scores["scored"], len(scores["failed"]), latency, f"{cost['stft_macs_per_second'] / 1e6:.3g} M MACs/s", sep="\t")
