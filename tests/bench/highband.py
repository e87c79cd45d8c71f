"""The band above the model's: what --highband does to it, for several factors of its gain.

    python tests/bench/highband.py fspen noisy.scp clean.scp

The lists are of pairs at 16 kHz; no recordings at 48 kHz are needed. Each signal is made one at 48 kHz: its band of 4 to 8 kHz,
mirrored to 8 to 12 kHz, 6 dB lower. Prints the table of docs/enhance.md: means in dB over the pairs. Clean speech and noise are levels
of the upper band of the output against the input; each is enhanced alone. The SNR are of noisy speech, against the clean signal.
"""

from __future__ import annotations

import argparse

import numpy as np

from setk import audio, engines
from setk.data import lists
from setk.engines import highband, open_stream
from setk.engines.output import Output

RATE, LOW_RATE = 48000, 16000
UPPER = 8200, 12000  # Hz
FACTORS = (1.0, 2**0.5, 2.0)


def wide_band(x: np.ndarray) -> np.ndarray:
    """[n] at 16 kHz as [1, 3 n] at 48 kHz, with an upper band."""
    low, image = audio.resample(x, LOW_RATE, RATE), np.zeros(3 * len(x))
    image[::3] = 3 * x  # the spectrum of x, mirrored at 8 kHz
    return (low + 0.5 * upper(image)).astype(np.float32)[None]


def upper(x: np.ndarray) -> np.ndarray:
    """The upper band of [..., n] at 48 kHz."""
    spectrum, f = np.fft.rfft(x), np.fft.rfftfreq(x.shape[-1], 1 / RATE)
    return np.fft.irfft(spectrum * ((f >= UPPER[0]) & (f < UPPER[1])), x.shape[-1])


def decibels(signal: np.ndarray, error: np.ndarray) -> float:
    return 10 * np.log10(np.sum(signal**2, dtype=float) / max(np.sum(error**2, dtype=float), 1e-20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "noisy", "clean"):
        parser.add_argument(name)
    args = parser.parse_args()
    engine = engines.open(args.model)
    noisy, clean = (lists.read_wavs(path) for path in (args.noisy, args.clean))
    signals = []
    for utt, location in noisy.items():
        y, s = (wide_band(where.read_mono(LOW_RATE)[0]) for where in (location, clean[utt]))
        signals.append((y, s, y - s))

    def enhanced(x: np.ndarray, mode: str) -> np.ndarray:
        stream = open_stream(engine, RATE, 1, 10.0, Output(highband=mode))
        return np.concatenate([stream.push(x), stream.flush()], axis=1)

    def row(name: str, process) -> None:
        values = []
        for y, s, n in signals:
            out, speech, noise = (process(x) for x in (y, s, n))
            values.append(
                [
                    decibels(upper(speech), upper(s)),
                    decibels(upper(noise), upper(n)),
                    decibels(upper(s), upper(out - s)),
                    decibels(s, out - s),
                ]
            )
        speech, noise, high, all_bands = np.mean(values, axis=0)
        print(
            f"| {name} | {speech:.1f} | {min(v[0] for v in values):.1f} | {noise:.0f} | {high:.1f} | {all_bands:.1f} |",
            flush=True,
        )

    print(
        "| gain of the upper band | clean speech, upper band | its worst file | noise, upper band | SNR of the upper band | of all bands |"
    )
    print("|---|---|---|---|---|---|")
    row("input", lambda x: x)
    row("none", lambda x: enhanced(x, "none"))
    for factor in FACTORS:
        highband.MAKEUP = factor
        row(f"{factor:.2f} times the model's", lambda x: enhanced(x, "gain"))


if __name__ == "__main__":
    main()
