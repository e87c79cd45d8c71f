"""A model for NumPy arrays: the object that setk.load returns."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import numpy as np

from setk import pretrained
from setk.audio.arrays import as_channels, check_rate
from setk.core.errors import UserError
from setk.engines.base import Engine, latency_ms
from setk.engines.files import seconds_at_a_time
from setk.engines.output import Output
from setk.engines.overlap import open_stream
from setk.engines.resolve import model, open as open_engine

BLOCK = 1 << 16  # samples that `enhance` hands over at once; bounds memory, and does not change the output


class Enhancer:
    """A loaded model. `spec`: the name or file that it was loaded from; `name`: the model's; `engine`: what runs it.

    `sample_rate` (Hz) is the rate that the model runs at: any other rate is resampled to it and back. `causal` models
    stream with an algorithmic latency of `latency_ms`; for the others it is None.
    """

    def __init__(self, spec: str, *, trust: bool = False, stft: str | None = None):
        self.spec, self._options = spec, {"trust": trust, "stft": stft}
        self.engine = open_engine(spec, trust=trust, stft=stft)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, and other processes, load the model again: what computes it holds memory of this process."""
        return partial(Enhancer, **self._options), (self.spec,)

    def __repr__(self) -> str:
        latency = "not causal" if self.latency_ms is None else f"{self.latency_ms:g} ms"
        return f"<setk model {self.name!r} from {self.spec!r}: {self.sample_rate} Hz, {latency}>"

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def sample_rate(self) -> int:
        return self.engine.sample_rate

    @property
    def causal(self) -> bool:
        return self.engine.causal

    @property
    def latency_ms(self) -> float | None:
        return latency_ms(self.engine)

    @cached_property
    def parameters(self) -> int:
        """Learnable parameters, as se-count counts them. Imports torch unless the model is an included one."""
        if not pretrained.is_file_name(self.spec):
            return pretrained.index()[self.spec]["params"]
        from setk.models import count_parameters

        return count_parameters(model(self.spec).model)["params"]

    def enhance(
        self,
        noisy: np.ndarray,
        rate: int,
        *,
        chunk: float | None = None,
        limit_db: float | None = None,
        highband: str = "none",
    ) -> np.ndarray:
        """Enhance `noisy` [n] or [channels, n] at `rate` Hz. Returns float32 of the same shape, sample-aligned.

        Input is float with full scale 1.0, or int16. `chunk`: seconds that the model processes at a time (None: what suits
        the model), as `se-enhance --chunk`. `limit_db`: the largest noise reduction in dB, as `se-enhance --limit`.
        `highband`: "none", or "gain" to keep the band above the model's, as `se-enhance --highband`. The result, written as
        16 bits, has the same bytes as se-enhance's. Raises UserError on another shape or type, AudioError on NaN or
        infinite samples.

        >>> clean = setk.load("fspen").enhance(noisy, 16000)
        """
        samples = as_channels(noisy)
        stream = open_stream(
            self.engine,
            check_rate(rate),
            len(samples),
            seconds_at_a_time(self.engine, chunk, False),
            Output(limit_db, highband).check(),
        )
        parts = [stream.push(samples[:, at : at + BLOCK]) for at in range(0, samples.shape[1], BLOCK)]
        return np.concatenate([*parts, stream.flush()], axis=1).reshape(np.shape(noisy))

    def stream(
        self,
        rate: int,
        channels: int = 1,
        *,
        chunk: float | None = None,
        limit_db: float | None = None,
        highband: str = "none",
    ) -> BlockStream:
        """A live stream of `channels` at `rate` Hz: push blocks, get enhanced blocks. `chunk`: as in `enhance`; None: one frame.
        `limit_db` and `highband`: as in `enhance`.

        A model that is not causal needs `chunk`, the seconds to wait. Raises UserError without it.

        >>> stream = setk.load("fspen").stream(16000)
        >>> for block in blocks: play(stream.push(block))
        >>> play(stream.flush())
        """
        return BlockStream(self.engine, check_rate(rate), channels, chunk, Output(limit_db, highband).check())


class BlockStream:
    """Blocks of audio in, enhanced blocks out: over all calls as many samples as went in, aligned with them.

    `latency_ms`: the algorithmic latency, the wait for a chunk to fill, and what the resamplers hold back at another rate than the model's.
    """

    def __init__(self, engine: Engine, rate: int, channels: int, chunk: float | None, output: Output):
        if channels < 1:
            raise UserError(f"channels {channels}: must be 1 or more")
        self._stream = open_stream(engine, rate, channels, seconds_at_a_time(engine, chunk, True), output)
        self._channels, self._flat, self._open = channels, channels == 1, True
        self.latency_ms = self._stream.latency_ms

    def push(self, block: np.ndarray) -> np.ndarray:
        """Accept a block [n] (of one channel) or [channels, n] of any length, float or int16. Returns the float32 samples
        that are final now, with as many dimensions: [m] or [channels, m], m >= 0. Raises as Enhancer.enhance."""
        self._require_open()
        samples = as_channels(block)
        if len(samples) != self._channels:
            raise UserError(f"a block of {len(samples)} channels; the stream was opened for {self._channels}")
        self._flat = np.ndim(block) == 1
        return self._shaped(self._stream.push(samples))

    def flush(self) -> np.ndarray:
        """Mark the end of the input. Returns the remaining samples, shaped as those of the last push."""
        self._require_open()
        self._open = False
        return self._shaped(self._stream.flush())

    def _shaped(self, samples: np.ndarray) -> np.ndarray:
        return samples[0] if self._flat else samples

    def _require_open(self) -> None:
        if not self._open:
            raise UserError("the stream has ended; open another one")
