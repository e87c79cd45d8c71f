"""Training examples as a pure function of the step: no order, worker or rank can change them.

An epoch takes every utterance once, in an order drawn from (seed, epoch), one random segment of each; what an
example is made of is drawn from (seed, utterance, epoch). The last incomplete batch of an epoch is left out.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Iterable, Iterator, Protocol

import numpy as np
import torch

from setk import audio, lists, mixing
from setk.files import UserError
from setk.mixing import Spread
from setk.shards import Shards
from setk.training.settings import Settings


class Source(Protocol):
    """Utterances with parallel streams: `read(i, start, count)` gives stream -> float32 [count]."""

    ids: list[str]
    lengths: np.ndarray
    rate: int

    def read(self, i: int, start: int, count: int) -> dict[str, np.ndarray]: ...


class WavSource:
    """The wav lists of a data directory as a Source; shards are faster, and the same."""

    def __init__(self, streams: dict[str, dict[str, str]]):
        self.streams = streams
        self.ids = list(next(iter(streams.values())))
        infos = [[audio.probe(table[utt]) for table in streams.values()] for utt in self.ids]
        for utt, found in zip(self.ids, infos):
            if len(set(found)) != 1 or found[0].channels != 1 or found[0].rate != infos[0][0].rate:
                raise UserError(f"{utt}: is not mono at one rate and length in {', '.join(streams)}; se-prep check names all such faults")
        self.lengths = np.array([found[0].frames for found in infos])
        self.rate = infos[0][0].rate

    def read(self, i: int, start: int, count: int) -> dict[str, np.ndarray]:
        return {name: audio.read_mono(table[self.ids[i]], self.rate)[0][start:start + count]
                for name, table in self.streams.items()}


def open_sources(path: Path) -> dict[str, Source]:
    """"pairs", or "speech" and "noise", of shards or of a data directory. Raises UserError if it is neither."""
    if (path / "pairs.scp").exists():
        return {"pairs": Shards(path, "pairs")}
    if _lists_shards(path / "speech.scp"):
        return {name: Shards(path, name) for name in lists.MIXED}
    data = lists.DataDir(path)
    if data.is_pairs:
        pairs = data.pairs()
        return {"pairs": WavSource({name: {utt: p[k] for utt, p in pairs.items()} for k, name in enumerate(lists.PAIR)})}
    return {name: WavSource({name: data.table(f"{name}.scp")}) for name in lists.MIXED}


def _lists_shards(scp: Path) -> bool:
    return scp.exists() and next(iter(lists.read_list(scp).values()), "").endswith(".h5")


class TrainingData(torch.utils.data.Dataset):
    """data[step] -> (noisy, clean) float32 [batch, segment] at `rate` Hz, from shards or a data directory."""

    def __init__(self, path: Path, settings: Settings):
        self.name, self.s = str(path), settings
        self.sources = open_sources(path)
        main = self.sources.get("pairs") or self.sources["speech"]
        self.ids, self.rate = main.ids, main.rate
        if any(source.rate != self.rate for source in self.sources.values()):
            raise UserError(f"{path}: speech and noise are at different rates; se-prep resample mends it")
        self.steps_per_epoch = len(self.ids) // settings.batch
        if self.steps_per_epoch == 0:
            raise UserError(f"{path}: has {len(self.ids)} utterances, fewer than one batch of {settings.batch}")
        self.samples = round(settings.segment * self.rate)
        self.hours = float(main.lengths.sum()) / self.rate / 3600
        self.digest = self._digest()

    def _digest(self) -> str:
        """Hash of what is in the data by name and length, so that a resumed run notices other data."""
        h = hashlib.sha256()
        for name, source in self.sources.items():
            h.update(repr((name, source.rate, list(zip(source.ids, map(int, source.lengths))))).encode())
        return h.hexdigest()

    @lru_cache(maxsize=2)
    def _order(self, epoch: int) -> np.ndarray:
        return mixing.rng(self.s.seed, "order of the epoch", epoch).permutation(len(self.ids))

    def _items(self, step: int) -> tuple[int, np.ndarray]:
        epoch, at = divmod(step, self.steps_per_epoch)
        return epoch, self._order(epoch)[at * self.s.batch:(at + 1) * self.s.batch]

    def name_of(self, step: int) -> str:
        """The utterances of a step, for messages."""
        return " ".join(self.ids[i] for i in self._items(step)[1])

    def __len__(self) -> int:
        return self.s.steps

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, items = self._items(step)
        make = self._cut if "pairs" in self.sources else self._mix
        examples = np.stack([make(i, mixing.rng(self.s.seed, self.ids[i], epoch)) for i in items])
        noisy, clean = torch.from_numpy(examples).unbind(1)
        return noisy, clean

    def _segment(self, source: Source, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A random segment of utterance i; a shorter utterance lies at a random place in silence."""
        length, n = int(source.lengths[i]), self.samples
        if length >= n:
            return source.read(i, int(rng.integers(length - n + 1)), n)
        before = int(rng.integers(n - length + 1))
        return {name: np.pad(x, (before, n - length - before)) for name, x in source.read(i, 0, length).items()}

    def _cut(self, i: int, rng: np.random.Generator) -> np.ndarray:
        """[2, segment]: noisy and clean of a pair."""
        found = self._segment(self.sources["pairs"], i, rng)
        return np.stack([found["noisy"], found["clean"]])

    def _mix(self, i: int, rng: np.random.Generator) -> np.ndarray:
        """[2, segment]: noisy and clean, speech i mixed with noise at an SNR and a level that rng draws."""
        m = self.s.mixing
        speech = self._segment(self.sources["speech"], i, rng)["speech"]
        drawn = mixing.draw(rng, len(self.sources["noise"].ids), Spread(*m.snr), Spread(*m.level))
        noise = self._noise(drawn.noise, drawn.place, rng)
        if rng.random() < m.second_noise:
            other = self._noise(int(rng.integers(len(self.sources["noise"].ids))), float(rng.random()), rng)
            # Either may be the louder one, by up to 10 dB.
            noise = _unit(noise) + 10 ** (rng.uniform(-10, 10) / 20) * _unit(other)
        if m.speech_eq:
            speech = mixing.equalise(speech, rng, m.speech_eq)
        mixed = mixing.mix(speech, noise, drawn.snr_db, drawn.level_db, self.rate)
        return np.stack([mixed.noisy, mixed.clean])

    def _noise(self, j: int, place: float, rng: np.random.Generator) -> np.ndarray:
        """A segment of noise j, from `place` (0 ... 1) on, at a random speed and through a random equaliser."""
        m = self.s.mixing
        length = int(self.sources["noise"].lengths[j])
        wanted = round(self.samples * rng.uniform(*m.noise_speed))
        start = mixing.noise_start(length, wanted, place)
        if length >= wanted:
            noise = self.sources["noise"].read(j, start, wanted)["noise"]
        else:
            noise = mixing.loop(self.sources["noise"].read(j, 0, length)["noise"], start, wanted)
        if wanted != self.samples:
            noise = mixing.respeed(noise, self.samples)
        return mixing.equalise(noise, rng, m.noise_eq) if m.noise_eq else noise


def _unit(x: np.ndarray) -> np.ndarray:
    """`x` [n] at unit RMS; silence stays silent."""
    rms = float(np.sqrt(np.mean(np.square(x))))
    return x / rms if rms else x


def loader(data: TrainingData, steps: Iterable[int], workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of `steps` in order, made in this process or in `workers` others."""
    # A generator of its own: a loader otherwise draws from the global one whenever it starts, and a resumed run
    # starts it once more than an uninterrupted one.
    return iter(torch.utils.data.DataLoader(data, batch_size=None, sampler=list(steps), num_workers=workers,
                                            prefetch_factor=4 if workers else None, generator=torch.Generator()))
