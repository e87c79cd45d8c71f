"""How far two forms of a model are apart: on a list of signals, in dB and in scores."""

from __future__ import annotations

from typing import Iterable, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

from setk import metrics
from setk.audio import Location
from setk.core.errors import AudioError, UserError
from setk.engines.base import Engine
from setk.engines.overlap import open_stream
from setk.metrics import sdr
from setk.scoring import summary


class Parity(NamedTuple):
    """One utterance: `snr` in dB of B's output to A's (inf if they are equal, nan without outputs), whether both are `silent`, and by metric the scores of A
    and of B. `error`: why one is nan."""

    utt: str
    snr: float
    scores: tuple[dict[str, float], dict[str, float]]
    error: str = ""
    silent: bool = False

    @property
    def gains(self) -> dict[str, float]:
        """By metric the score of B less that of A."""
        a, b = self.scores
        return {name: b[name] - a[name] for name in a}


def compare(
    a: Engine,
    b: Engine,
    entries: Iterable[tuple[str, Location]],
    *,
    names: Sequence[str] = (),
    clean: Mapping[str, Location] | None = None,
) -> Iterator[Parity]:
    """Compare the outputs of two engines on each (utt, location) of `entries`, mono at the rate of both.

    `names` are metrics to score both outputs by, against the locations in `clean` (utt -> location). Raises UserError if the
    engines run at different rates.
    """
    if a.sample_rate != b.sample_rate:
        raise UserError(f"A runs at {a.sample_rate} Hz, B at {b.sample_rate}: there is nothing to compare")
    for utt, location in entries:
        try:
            noisy = location.read_mono(a.sample_rate)[0]
            if names and utt not in clean:
                raise AudioError("is not in the list of clean speech")
            speech = clean[utt].read_mono(a.sample_rate)[0] if names else None
        except AudioError as e:
            yield Parity(utt, np.nan, ({}, {}), str(e))
            continue
        try:
            outputs = _enhanced(a, noisy), _enhanced(b, noisy)
        except AudioError as e:
            yield Parity(utt, np.nan, ({}, {}), str(e))
            continue
        scores = _scores(speech, outputs, noisy, a.sample_rate, names)
        yield Parity(utt, sdr.snr(*outputs), *scores, silent=not any(map(np.any, outputs)))


def words(rows: Iterable[Parity]) -> list[str]:
    """Means with their intervals over `rows`, one line for the SNR and one for each metric; equal outputs have no SNR."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in {"snr": row.snr, **row.gains}.items():
            columns.setdefault(name, []).extend([value] if np.isfinite(value) else [])
    return summary.words({name: summary.summarise(values) for name, values in columns.items()})


def _scores(
    clean: np.ndarray | None, outputs: Sequence[np.ndarray], noisy: np.ndarray, rate: int, names: Sequence[str]
) -> tuple[tuple[dict[str, float], dict[str, float]], str]:
    """The scores of both `outputs`, and why some are nan."""
    if not names:
        return ({}, {}), ""
    (first, missing), (second, more) = (metrics.compute(clean, out, rate, names, noisy=noisy) for out in outputs)
    return (first, second), "; ".join(f"{name}: {reason}" for name, reason in (missing | more).items())


def _enhanced(engine: Engine, wave: np.ndarray) -> np.ndarray:
    """A mono signal [n] at the engine's rate to enhanced [n]. Raises AudioError if the model puts out NaN or infinite values."""
    stream = open_stream(engine, engine.sample_rate, 1, engine.chunk_s)
    enhanced = np.concatenate([stream.push(wave[None]), stream.flush()], 1)[0]
    if stream.restarted:
        raise AudioError(f"the output of {engine.name} is NaN or infinite")
    return enhanced
