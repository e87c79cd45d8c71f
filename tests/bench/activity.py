"""Speech activity of se-enhance --report against an energy-based reference, by group of utterances.

    python tests/bench/activity.py MODEL NOISY.scp CLEAN.scp [UTT2SNR]

prints a row per group of UTT2SNR (lines `utt group`) and one of all: frames of 100 ms, the share that has speech in the
reference (setk.audio.activity.reference of the clean signal), precision, recall and F1 of the report's column `speech`, the F1 of
calling everything speech, and the F1 of the best fixed threshold on the level of the noisy input, which is chosen on these data.
"""

from __future__ import annotations

import sys
from collections import defaultdict

import numpy as np

import setk
from setk import audio
from setk.audio import activity
from setk.data.lists import read_list


def f1(truth: np.ndarray, found: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1."""
    hits = np.sum(truth & found)
    precision, recall = hits / max(1, found.sum()), hits / max(1, truth.sum())
    return precision, recall, 2 * hits / max(1, truth.sum() + found.sum())


def main(spec: str, noisy_list: str, clean_list: str, groups_path: str | None = None) -> None:
    model = setk.load(spec)
    noisy, clean = read_list(noisy_list), read_list(clean_list)
    groups = read_list(groups_path) if groups_path else {}
    found = defaultdict(list)
    for utt, path in noisy.items():
        x, rate = audio.read_mono(path)
        frames = activity.analyze(x, model.enhance(x, rate), rate)
        truth = activity.reference(audio.read_mono(clean[utt], rate)[0], rate)
        loudest = max(f.input_dbfs for f in frames)
        rows = np.array([(t, f.speech, f.input_dbfs - loudest) for t, f in zip(truth, frames)])
        for group in {groups.get(utt, "all"), "all"}:
            found[group].append(rows)
    print("group", "frames", "speech", "precision", "recall", "f1", "f1_all_speech", "f1_level", sep="\t")
    for group in sorted(found, key=lambda name: (name == "all", float(name) if name != "all" else 0)):
        rows = np.concatenate(found[group])
        truth = rows[:, 0] > 0
        level = max(f1(truth, rows[:, 2] > limit)[2] for limit in range(-60, 0))
        values = truth.mean(), *f1(truth, rows[:, 1] > 0), f1(truth, truth | True)[2], level
        print(group, len(rows), *(f"{v:.3f}" for v in values), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
