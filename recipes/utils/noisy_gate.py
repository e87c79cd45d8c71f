"""noisy_gate.py NOISY.json: stop unless the noisy test set of VoiceBank+DEMAND scores as published.

A wrong resampler, a swapped pair or a partial set shows here, before a model is blamed for it. The summary is
se-score's; published: PESQ-WB 1.97, STOI 0.921, SI-SDR 8.4 to 8.5 dB over 824 utterances.
"""

import json
import sys

PUBLISHED = {"pesq_wb": (1.965, 1.975), "stoi": (0.9205, 0.9215), "si_sdr": (8.4, 8.5)}

with open(sys.argv[1]) as f:
    means = {name: metric["mean"] for name, metric in json.load(f)["metrics"].items()}
wrong = [f"{name} {means[name]} (published {low} to {high})"
         for name, (low, high) in PUBLISHED.items() if means[name] is None or not low <= means[name] <= high]
if wrong:
    sys.exit("noisy_gate: the noisy test set does not read as VoiceBank+DEMAND's: " + ", ".join(wrong)
             + "; is the tree whole (824 test files)? --noisy-gate false goes on without this check")
print("noisy_gate: the noisy test set reads as published", file=sys.stderr)
