"""figures.py EXP: utterances, failures and cost of the STFT on one line, from EXP/enhanced.json and EXP/count.json."""

import json
import sys
from pathlib import Path

exp = Path(sys.argv[1])
scores, cost = (json.loads((exp / name).read_text()) for name in ("enhanced.json", "count.json"))
print(scores["scored"], len(scores["failed"]), f"{cost['stft_macs_per_second'] / 1e6:.3g} M MACs/s", sep="\t")
