"""trees.py vbd|librimix|ndns OUT: small trees of the layout of a real corpus, made of data/mini.

They are what recipes/*/prepare.sh prepares where no root is given, and what tests go by. Run with setk on the path.

    vbd        48 kHz folders of VoiceBank+DEMAND and its logs of SNRs
    librimix   LibriSpeech, wham_noise and metadata/Libri2Mix: the generation CSVs, with CRLF, as the scripts write them
    ndns       sources/clean and sources/noise, of which se-prep ndns makes a tree
"""

import csv
import sys
from pathlib import Path

import numpy as np

from setk import audio
from setk.data import mixing

MINI = Path(__file__).resolve().parent
RATE = 16000
VBD = {
    "trainset_28spk": ["p226_001", "p226_002", "p287_001", "p227_001", "p227_002", "p228_001", "p230_001"],
    "testset": ["p232_001", "p232_002", "p257_001"],
}
# CSV: folder of LibriSpeech, folder of WHAM, mixtures.
LIBRIMIX = {"train-clean-100": ("train", "tr", 6), "dev-clean": ("valid", "cv", 3), "test-clean": ("test", "tt", 4)}


def load(split: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(utterance, noisy, clean) of a split of data/mini."""
    return [
        (path.stem, *(audio.read_mono(str(MINI / split / kind / path.name), RATE)[0] for kind in ("noisy", "clean")))
        for path in sorted((MINI / split / "clean").glob("*.flac"))
    ]


def vbd(out: Path) -> None:
    pairs = iter(load("train"))
    for part, names in VBD.items():
        snrs = []
        for name in names:
            utt, noisy, clean = next(pairs)
            for kind, x in (("noisy", noisy), ("clean", clean)):
                audio.write(out / f"{kind}_{part}_wav" / f"{name}.wav", audio.resample(x, RATE, 48000), 48000)
            snrs.append(f"{name} mini {mixing.rms_level(clean) - mixing.rms_level(noisy - clean):.1f}\n")
        (out / f"log_{part}.txt").write_text("".join(snrs))


def librimix(out: Path) -> None:
    for part, (split, wham, count) in LIBRIMIX.items():
        utts, speakers = [], {}
        for name, noisy, clean in load(split):
            speaker = speakers.setdefault(name.partition("_")[0], 1000 * len(wham) + 100 * len(split) + len(speakers))
            utt = f"{speaker}-7-{name.partition('_')[2]}"
            path = f"{part}/{speaker}/7/{utt}.flac"
            audio.write(out / "LibriSpeech" / path, clean, RATE)
            noise = f"{wham}/{name}_0.5_mini_-0.5.wav"
            audio.write(out / "wham_noise" / noise, np.stack([noisy - clean, clean]), RATE)
            utts.append((utt, path, noise))
        rows = []
        for i in range(count):
            (one, path, noise), (two, other, _) = utts[i], utts[i - count]
            # Of the second training noise only the original is there, as before WHAM's is augmented.
            noise = noise.replace(".wav", "sp08.wav") if (wham, i) == ("tr", 1) else noise
            rows.append([f"{one}_{two}", path, 0.9 - 0.05 * i, other, 1.1 - 0.07 * i, noise, 0.8 + 0.1 * i])
        table = out / "metadata" / "Libri2Mix" / f"libri2mix_{part}.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        with open(table, "w", newline="") as f:
            writer = csv.writer(f)
            sources = ("source_1", "source_2", "noise")
            writer.writerow(["mixture_ID", *(f"{source}_{what}" for source in sources for what in ("path", "gain"))])
            writer.writerows(rows)


def ndns(out: Path) -> None:
    for i, (name, noisy, clean) in enumerate(load("train")):
        audio.write(out / "sources/clean" / f"book_{i:05}_chp_0001_reader_{i // 3:05}_{name}.wav", clean, RATE)
        audio.write(out / "sources/noise" / f"{name}.wav", noisy - clean, RATE)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("vbd", "librimix", "ndns"):
        sys.exit(__doc__)
    globals()[sys.argv[1]](Path(sys.argv[2]))
