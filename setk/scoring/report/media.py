"""The start of a signal as sound and as a spectrogram, both as data URIs."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
import zlib
from typing import Iterator, NamedTuple, Sequence

import numpy as np

from setk import audio
from setk.audio import Location
from setk.core.errors import AudioError

SECONDS = 15  # of each signal that the page carries
RANGE_DB = 80
_MAX_RATE = 48_000  # no ear hears more, and browsers do not all play it
_WINDOW, _STEP = 0.032, 0.008  # seconds
_COLUMNS, _ROWS = 480, 160  # of a spectrogram, at most
# Dark to light in even steps of lightness, so that it also reads printed in grey and by the colour-blind.
_ANCHORS = ((8, 8, 24), (52, 20, 96), (124, 30, 122), (196, 52, 92), (240, 110, 50), (252, 184, 60), (254, 250, 200))
_SHADES = 64  # more look the same, and cost bytes
GRADIENT = "linear-gradient(90deg, " + ", ".join(f"rgb{c}" for c in _ANCHORS) + ")"


class Clip(NamedTuple):
    """The first seconds of one signal: samples [n] at `rate`; or, in `error`, why there are none."""

    role: str
    location: str
    samples: np.ndarray
    rate: int
    cut: bool
    error: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


class Picture(NamedTuple):
    """A spectrogram as data URI, and the frequency of its upper rim."""

    uri: str
    khz: float


def load(role: str, location: str | Location) -> Clip:
    """The start of the signal at `location`; a Clip with `error` where it cannot be read (any more)."""
    location = Location.parse(location)
    try:
        x, rate, cut = _excerpt(location)
    except AudioError as e:
        return Clip(role, location, np.zeros(0, np.float32), 1, False, str(e))
    return from_samples(role, location, x, rate, cut)


def from_samples(role: str, location: str, x: np.ndarray, rate: int, cut: bool) -> Clip:
    """The Clip of samples [n] at `rate` Hz; `cut`: the signal is longer."""
    if rate > _MAX_RATE:
        x, rate = audio.resample(x, rate, _MAX_RATE), _MAX_RATE
    return Clip(role, location, x, rate, cut, "")


def _excerpt(location: Location) -> tuple[np.ndarray, int, bool]:
    # A pipe is empty after scoring; opening it again would wait forever.
    if not location.can_be_read_again():
        raise AudioError(f"{location}: is not a file, so it cannot be read a second time")
    info, blocks = location.open(1 << 16)
    needed, parts, have = SECONDS * info.rate, [], 0
    with contextlib.closing(blocks):
        for block in blocks:
            parts.append(block[0])
            have += len(block[0])
            if have > needed:
                break
    audio.check_mono(location, info.channels, info.rate, None)
    if not have:
        raise AudioError(f"{location}: has no samples")
    return np.concatenate(parts)[:needed], info.rate, have > needed


def sound_uri(clip: Clip) -> str:
    """The clip as 16-bit FLAC, which every browser plays."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, audio.to_int16(clip.samples)[0], clip.rate, format="FLAC", subtype="PCM_16")
    return _uri("audio/flac", out.getvalue())


def spectrograms(clips: Sequence[Clip]) -> Iterator[Picture]:
    """A picture of each, all with one range of levels, below the loudest point of all, and one of frequencies."""
    levels = [_levels(clip) for clip in clips]
    rows = min((len(x) for x in levels), default=0)
    # Silence has no loudest point; -100 dB keeps it black.
    top = max([-100.0, *(float(x[:rows].max()) for x in levels)])
    for x in levels:
        shades = np.clip((x[:rows] - top) / RANGE_DB + 1, 0, 1) * (_SHADES - 1)
        # Bins are 1 / _WINDOW apart at every rate.
        yield Picture(_uri("image/png", _png(_pooled(shades)[::-1].astype(np.uint8))), round(rows / _WINDOW / 1000, 2))


def _levels(clip: Clip) -> np.ndarray:
    """Power in dB [bins, columns], with Hann windows of 32 ms; the bin at 0 Hz left out."""
    size = max(16, round(_WINDOW * clip.rate))
    hop = max(round(_STEP * clip.rate), -(-len(clip.samples) // _COLUMNS), 1)
    x = np.pad(clip.samples, (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[: len(clip.samples) : hop]
    window = np.hanning(size + 1)[:-1]
    power = np.abs(np.fft.rfft(frames * (window / window.sum()), axis=1)[:, 1:]) ** 2
    return 10 * np.log10(power.T + 1e-20)


def _pooled(x: np.ndarray) -> np.ndarray:
    """`x` [bins, columns] with neighbouring bins as one, the loudest, until there are at most _ROWS."""
    return np.maximum.reduceat(x, np.arange(0, len(x), -(-len(x) // _ROWS)), axis=0)


def _png(shades: np.ndarray) -> bytes:
    """An indexed PNG of shades [height, width], uint8. Our own, since other writers stamp their version into it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = shades.shape
    at = np.linspace(0, len(_ANCHORS) - 1, _SHADES)
    palette = np.stack([np.interp(at, range(len(_ANCHORS)), channel) for channel in zip(*_ANCHORS)], axis=1)
    unfiltered = np.pad(shades, ((0, 0), (1, 0)))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", palette.astype(np.uint8).tobytes())
        + chunk(b"IDAT", zlib.compress(unfiltered.tobytes(), 9))
        + chunk(b"IEND", b"")
    )


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
