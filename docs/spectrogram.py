"""Draw docs/spectrogram.png: a noisy recording of the embedded corpus and the output of fspen. Run from the checkout."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import soundfile

import setk

UTTERANCES = ["mona_0001", "mona_0003"]
WINDOW, HOP = 512, 128


def level(wave: np.ndarray) -> np.ndarray:
    """Level in dB of each bin and frame [bins, frames] of wave [n]."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP] * np.hanning(WINDOW)
    return 20 * np.log10(np.abs(np.fft.rfft(frames)).T / (WINDOW / 4) + 1e-6)


parts = [soundfile.read(f"data/mini/test/noisy/{utt}.flac", dtype="float32") for utt in UTTERANCES]
noisy, rate = np.concatenate([wave for wave, _ in parts]), parts[0][1]
enhanced = setk.load("fspen").enhance(noisy, rate)

figure, axes = plt.subplots(1, 2, figsize=(10, 2.6), sharey=True, layout="constrained")
for axis, title, wave in zip(axes, ("noisy", "enhanced by fspen"), (noisy, enhanced)):
    image = axis.imshow(
        level(wave),
        origin="lower",
        aspect="auto",
        vmin=-85,
        vmax=-15,
        cmap="magma",
        interpolation="nearest",
        extent=(0, len(wave) / rate, 0, rate / 2000),
    )
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("s")
axes[0].set_ylabel("kHz")
figure.colorbar(image, ax=axes, label="dB")
figure.savefig("docs/spectrogram.png", dpi=110, metadata={"Software": None})
