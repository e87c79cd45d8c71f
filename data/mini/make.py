"""Speech from espeak-ng -> data/mini: level, noise, FLAC, lists. Called by make.sh.

usage: make.py SPEECH OUT     SPEECH/{train,valid,test}/{target,babble}/*.wav -> OUT/{train,valid,test}, OUT/utterances.tsv
"""

import hashlib
import sys
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

RATE = 16000
HOP = 160  # lengths are whole hops of 10 ms, so that two decimals in utt2dur are exact
HOME = "data/mini"  # what the lists say, wherever this build lies
SNRS = {"train": (0, 5, 10, 15), "valid": (0, 5, 10, 15), "test": (2.5, 7.5, 12.5, 17.5)}
LEVEL = (-35.0, -20.0)  # dBFS, active speech
SECONDS = (1.4, 2.1)
FULL = 32768
STEP = 2  # samples are multiples of this: FLAC drops an idle last bit, here 0.5 MB of 4


def generator(utt):
    """A random generator that depends on the utterance id alone."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(utt.encode()).digest()[:8], "big"))


def load(path):
    """wav -> float64 [n] at 16 kHz, silence at both ends cut at 50 dB below the peak."""
    x, rate = sf.read(path)
    x = soxr.resample(x, rate, RATE, "VHQ")
    loud = np.flatnonzero(np.abs(x) > 10 ** (-50 / 20) * np.abs(x).max())
    return x[loud[0] : loud[-1] + 1]


def power(x):
    return np.mean(np.square(x, dtype=np.float64))


def db(ratio):
    return 10 * np.log10(ratio)


def active_level(x):
    """dBFS over the 20 ms frames within 40 dB of the loudest."""
    frames = np.square(x[: len(x) // 320 * 320], dtype=np.float64).reshape(-1, 320).mean(1)
    return db(frames[frames > 1e-4 * frames.max()].mean())


# Noises: (rng, n) -> float64 [n], of any level.


def shaped(rng, n, gain):
    """White noise [n] through a magnitude response, gain(Hz) -> amplitude; without DC."""
    response = gain(np.fft.rfftfreq(n, 1 / RATE))
    response[0] = 0
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * response, n)


def unit(x):
    """Scale to rms 1."""
    return x / np.sqrt(power(x))


def harmonics(rng, phase, amplitudes):
    """Sum of amplitudes[k] * cos((k + 1) * phase[n]) at random starting phases."""
    start = rng.uniform(0, 2 * np.pi, len(amplitudes))
    return sum(a * np.cos((k + 1) * phase + start[k]) for k, a in enumerate(amplitudes))


def white(rng, n):
    return rng.standard_normal(n)


def pink(rng, n):
    return unit(shaped(rng, n, lambda f: np.maximum(f, 20) ** -0.5))


def fan(rng, n):
    """Rushing air, a blade tone, and the slow beat of an uneven rotor."""
    t = np.arange(n) / RATE
    corner, blades, beat = rng.uniform(300, 900), rng.uniform(70, 140), rng.uniform(1, 4)
    air = unit(shaped(rng, n, lambda f: np.minimum(f / 40, 1) / (1 + (f / corner) ** 1.5)))
    tone = unit(harmonics(rng, 2 * np.pi * blades * t, rng.uniform(0.3, 1, 6) / np.arange(1, 7)))
    return (1 + 0.15 * np.cos(2 * np.pi * beat * t)) * (air + rng.uniform(0.3, 0.7) * tone)


def hum(rng, n):
    """50 or 60 Hz mains and its harmonics over a faint hiss."""
    t = np.arange(n) / RATE
    mains = rng.choice([50, 60]) + rng.uniform(-0.1, 0.1)
    k = np.arange(1, 25)
    even = np.where(k % 2, rng.uniform(0.3, 1), 1)  # a rectifier hums at twice the mains
    return unit(harmonics(rng, 2 * np.pi * mains * t, even * rng.uniform(0.3, 1, len(k)) / k)) + 0.05 * pink(rng, n)


def keyboard(rng, n):
    """Key strokes, each a press and a softer release, in a quiet room."""
    x = np.zeros(n)
    t = np.arange(int(0.03 * RATE)) / RATE
    tones = rng.uniform(600, 5500, 4)  # the body of this keyboard
    at = rng.uniform(0, 0.1)
    while at < n / RATE:
        loudness = rng.uniform(0.5, 1)
        for start, scale in ((at, loudness), (at + rng.uniform(0.05, 0.09), 0.5 * loudness)):
            ring = sum(np.sin(2 * np.pi * f * rng.uniform(0.97, 1.03) * t) for f in tones)
            click = scale * np.exp(-t / rng.uniform(0.004, 0.008)) * (ring + rng.standard_normal(len(t)))
            i = int(start * RATE)
            x[i : i + len(t)] += click[: max(n - i, 0)]
        at += rng.gamma(4, 0.035)
    return unit(x) + 0.1 * pink(rng, n)


def traffic(rng, n):
    """A steady rumble and a car or two passing: tyres and a gliding engine note."""
    t = np.arange(n) / RATE
    x = unit(shaped(rng, n, lambda f: np.minimum(f / 30, 1) / (1 + (f / 120) ** 2)))
    for _ in range(rng.integers(1, 3)):
        when, width = rng.uniform(0, n / RATE), rng.uniform(0.3, 0.8)
        near = np.exp(-0.5 * ((t - when) / width) ** 2)
        centre = rng.uniform(600, 1200)
        tyres = unit(shaped(rng, n, lambda f, centre=centre: 1 / (1 + (np.log2(np.maximum(f, 1) / centre) / 1.2) ** 4)))
        speed = 1 - 0.06 * np.tanh((t - when) / width)  # Doppler
        engine = harmonics(rng, 2 * np.pi * np.cumsum(rng.uniform(35, 70) * speed) / RATE, 1 / np.arange(1, 13))
        x += near * (rng.uniform(0.8, 1.5) * tyres + rng.uniform(0.3, 0.8) * unit(engine))
    return x


def babble(voices, rng, n):
    """Every voice [n_i] of the split, looped from a random place, near or far."""
    return sum(rng.uniform(0.5, 1) * np.resize(np.roll(v, rng.integers(len(v))), n) for v in voices)


def babble_voices(folder):
    """One float64 array of rms 1 per voice: its files (VOICE-1.wav, VOICE-2.wav ...) end to end."""
    files = {}
    for path in sorted(folder.glob("*.wav")):
        files.setdefault(path.stem.rpartition("-")[0], []).append(load(path))
    return [unit(np.concatenate(parts)) for parts in files.values()]


def quantize(x):
    return STEP * np.rint(x / STEP)


def pair(speech, noise, snr, level):
    """Speech [n], noise [n] -> clean [n], noisy [n] in whole int16 steps: noisy is clean plus noise, to the bit."""
    clean = quantize(FULL * 10 ** ((level - active_level(speech)) / 20) * speech)
    noise = quantize(noise * np.sqrt(power(clean) / power(noise) / 10 ** (snr / 10)))
    return clean, clean + noise


def make(utt, path, noise, snr):
    """One utterance: speech at path, noise(rng, n), SNR in dB -> int16 clean [n], noisy [n], and the level in dBFS."""
    rng = generator(utt)
    speech = load(path)
    lead, tail = (rng.uniform(0.06, 0.12, 2) * RATE).astype(int)
    tail += -(lead + len(speech) + tail) % HOP
    speech = np.pad(speech, (lead, tail))
    noise = noise(rng, len(speech))
    level = LEVEL[0] + (LEVEL[1] - LEVEL[0]) * rng.random() ** 2
    clean, noisy = pair(speech, noise, snr, level)
    peak = np.abs(noisy).max() / (0.97 * FULL)
    if peak > 1:
        level -= 20 * np.log10(peak)
        clean, noisy = pair(speech, noise, snr, level)

    assert SECONDS[0] <= len(clean) / RATE <= SECONDS[1], (utt, len(clean) / RATE)
    assert LEVEL[0] <= level <= LEVEL[1] and abs(active_level(clean / FULL) - level) < 0.1, (utt, level)
    assert np.abs(noisy).max() < 0.98 * FULL and np.abs(clean).max() < 0.98 * FULL, utt
    assert abs(db(power(clean) / power(noisy - clean)) - snr) < 0.05, utt
    return clean.astype(np.int16), noisy.astype(np.int16), level


def main(speech, out):
    table = ["utt\tnoise\tsnr_db\tlevel_dbfs\tseconds\n"]
    for split, snrs in SNRS.items():
        voices = babble_voices(speech / split / "babble")
        noises = {"babble": partial(babble, voices), "fan": fan, "hum": hum, "keyboard": keyboard}
        noises |= {"traffic": traffic, "white": white, "pink": pink}
        lists = {name: [] for name in ("noisy.scp", "clean.scp", "utt2dur", "utt2spk", "utt2snr")}
        for side in ("noisy", "clean"):
            (out / split / side).mkdir(parents=True)
        for i, path in enumerate(sorted((speech / split / "target").glob("*.wav"))):
            utt = path.stem
            # 7 kinds and 4 SNRs have no common factor: 28 utterances in a row meet every pair once.
            kind, snr = list(noises)[i % len(noises)], snrs[i % len(snrs)]
            clean, noisy, level = make(utt, path, noises[kind], snr)
            for side, x in (("noisy", noisy), ("clean", clean)):
                sf.write(out / split / side / f"{utt}.flac", x, RATE, subtype="PCM_16", compression_level=1.0)
                lists[f"{side}.scp"].append(f"{utt} {HOME}/{split}/{side}/{utt}.flac\n")
            lists["utt2dur"].append(f"{utt} {len(clean) / RATE:.2f}\n")
            lists["utt2spk"].append(f"{utt} {utt.partition('_')[0]}\n")
            lists["utt2snr"].append(f"{utt} {snr}\n")
            table.append(f"{utt}\t{kind}\t{snr}\t{level:.1f}\t{len(clean) / RATE:.2f}\n")
        for name, lines in lists.items():
            (out / split / name).write_text("".join(lines))
        seconds = sum(float(line.split()[1]) for line in lists["utt2dur"])
        size = sum(p.stat().st_size for p in (out / split).rglob("*.flac"))
        print(f"{split}: {len(lists['utt2dur'])} pairs, {seconds:.1f} s, {size} bytes", file=sys.stderr)
    (out / "utterances.tsv").write_text("".join(table))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
