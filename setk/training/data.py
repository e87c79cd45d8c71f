"""Training examples as a pure function of the step: no order, worker or rank can change them.

An epoch takes every utterance once, in an order drawn from (seed, epoch), one random segment of each; what an
example is made of is drawn from (seed, utterance, epoch). The last incomplete batch of an epoch is left out.
Ranks and micro-batches are parts of a step's batch, in order.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Generator, Iterable, Iterator, Mapping, Protocol

import numpy as np
import torch

from setk.audio import Location, resample
from setk.core import pool
from setk.data import datadir, mixing, shards
from setk.core.errors import Killed, UserError
from setk.core.rng import rng
from setk.data.mixing import Spread
from setk.data.shards import Shards
from setk.training.ranks import Ranks
from setk.training.settings import Mixing, Settings

HIGHER = 1.2, 2.0  # times as fast, where a voice is to be a child's


class Source(Protocol):
    """Utterances with parallel streams: `read(i, start, count)` gives stream -> float32 [count]. `kind` of each, or empty."""

    ids: list[str]
    kind: list[str]
    lengths: np.ndarray
    rate: int

    def read(self, i: int, start: int, count: int) -> dict[str, np.ndarray]: ...


class WavSource:
    """The wav lists of a data directory as a Source; shards are faster, and the same."""

    def __init__(self, streams: dict[str, dict[str, Location]], kinds: dict[str, str] | None = None):
        self.streams = streams
        if not all(streams.values()):
            raise UserError(
                f"the lists of {', '.join(streams)} name no utterances; se-prep check reports what is wrong"
            )
        self.ids = sorted(next(iter(streams.values())), key=str.encode)  # as those of shards
        self.kind = [kinds[utt] for utt in self.ids] if kinds else []
        infos = [[table[utt].probe() for table in streams.values()] for utt in self.ids]
        for utt, found in zip(self.ids, infos):
            if len(set(found)) != 1 or found[0].channels != 1 or found[0].rate != infos[0][0].rate:
                raise UserError(
                    f"{utt}: is not mono at one rate and length in {', '.join(streams)}; se-prep check names all such faults"
                )
        self.lengths = np.array([found[0].frames for found in infos])
        if not self.lengths.all():
            raise UserError(f"{self.ids[int(self.lengths.argmin())]}: has no samples; se-prep fix removes such files")
        self.rate = infos[0][0].rate

    def read(self, i: int, start: int, count: int) -> dict[str, np.ndarray]:
        return {
            name: table[self.ids[i]].read_mono(self.rate)[0][start : start + count]
            for name, table in self.streams.items()
        }


def open_sources(path: Path) -> dict[str, Source]:
    """ "pairs", or "speech" and "noise" and maybe "rir", of shards or of a data directory. Raises UserError if it is neither."""
    sharded = shards.names(path)
    if "pairs" in sharded and len(sharded) > 1:
        raise UserError(
            f"{path}: has shards of {', '.join(sharded)}; write pairs and sources into folders of their own"
        )
    if "pairs" in sharded:
        return {"pairs": Shards(path, "pairs")}
    if set(datadir.MIXED) <= set(sharded):
        return {name: Shards(path, name) for name in sharded}
    if next(path.glob("*.h5"), None):
        raise UserError(f"{path}: its shards are not complete; se-prep shards completes them, and says why it cannot")
    data = datadir.DataDir(path)
    if data.is_pairs:
        pairs = data.pairs()
        streams = {name: {utt: pair[k] for utt, pair in pairs.items()} for k, name in enumerate(datadir.PAIR)}
        return {"pairs": WavSource(streams)}
    kinds = {"noise": data.noise_kinds()}
    return {name: WavSource({name: data.wavs(name)}, kinds.get(name)) for name in data.streams}


class TrainingData(torch.utils.data.Dataset):
    """Batches at `rate` Hz, from shards or a data directory. data[step, k, n] is part k (from 0) of n equal ones of
    a step's batch: (noisy, clean) float32 [batch / n, segment]."""

    def __init__(self, path: Path, settings: Settings):
        self.name, self.s = str(path), settings
        self.sources = open_sources(path)
        main = self.sources.get("pairs") or self.sources["speech"]
        self.ids, self.rate = main.ids, main.rate
        if any(source.rate != self.rate for source in self.sources.values()):
            raise UserError(f"{path}: speech and noise are at different rates; se-prep resample fixes it")
        if settings.mixing.room and "noise" in self.sources and "rir" not in self.sources:
            raise UserError(
                f"{path}: has no rir.scp for mixing.room={settings.mixing.room}; se-prep sources --rir makes one"
            )
        self.steps_per_epoch = len(self.ids) // settings.batch
        if self.steps_per_epoch == 0:
            raise UserError(
                f"{path}: has {len(self.ids)} utterances, fewer than one batch of {settings.batch}; "
                f"--set batch={len(self.ids)}, or less"
            )
        self.samples = round(settings.segment * self.rate)
        # Noises of each kind; empty where kinds are not known.
        self.kinds = mixing.by_kind(self.sources["noise"].kind) if "noise" in self.sources else []
        self.hours = float(main.lengths.sum()) / self.rate / 3600
        self.digest = self._digest({})

    @property
    def contents(self) -> str:
        """What there is, for messages."""
        return "pairs" if "pairs" in self.sources else "speech and noise to mix"

    def without_effect(self) -> list[str]:
        """Keys of the settings that are not at their defaults, and that data of this kind does not use."""
        if "pairs" in self.sources:
            return [f"mixing.{f.name}" for f in fields(Mixing) if getattr(self.s.mixing, f.name) != f.default]
        return [f"augment.{name}" for name in ("remix", "snr") if getattr(self.s.augment, name)]

    @property
    def earlier_digest(self) -> str:
        """What `digest` was of the same data in setk 0.1, which took shard 10 before shard 2."""
        return self._digest({name: s.as_listed for name, s in self.sources.items() if isinstance(s, Shards)})

    def _digest(self, orders: Mapping[str, np.ndarray]) -> str:
        """Hash of what is in the data by name and length, so that a resumed run notices other data. `orders` are those of
        the utterances of sources that are not taken as they are."""
        h = hashlib.sha256()
        for name, source in self.sources.items():
            order = orders.get(name, range(len(source.ids)))
            h.update(repr((name, source.rate, [(source.ids[i], int(source.lengths[i])) for i in order])).encode())
            if source.kind:
                h.update(repr([source.kind[i] for i in order]).encode())
        return h.hexdigest()

    @lru_cache(maxsize=2)
    def _order(self, epoch: int) -> np.ndarray:
        return rng(self.s.seed, "order of the epoch", epoch).permutation(len(self.ids))

    def _items(self, step: int) -> tuple[int, np.ndarray]:
        epoch, at = divmod(step, self.steps_per_epoch)
        return epoch, self._order(epoch)[at * self.s.batch : (at + 1) * self.s.batch]

    def name_of(self, step: int) -> str:
        """The utterances of a step, for messages."""
        return " ".join(self.ids[i] for i in self._items(step)[1])

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        step, part, parts = key
        epoch, items = self._items(step)
        make = self._cut if "pairs" in self.sources else self._mix
        examples = [make(i, rng(self.s.seed, self.ids[i], epoch)) for i in np.split(items, parts)[part]]
        noisy, clean = torch.from_numpy(np.stack(examples)).unbind(1)
        return noisy, clean

    def _segment(self, source: Source, i: int, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """A random segment of n samples of utterance i; a shorter utterance lies at a random place in silence."""
        length = int(source.lengths[i])
        if length >= n:
            return source.read(i, int(rng.integers(length - n + 1)), n)
        before = int(rng.integers(n - length + 1))
        return {name: np.pad(x, (before, n - length - before)) for name, x in source.read(i, 0, length).items()}

    def _cut(self, i: int, rng: np.random.Generator) -> np.ndarray:
        """[2, segment]: noisy and clean of a pair, augmented."""
        a, pairs = self.s.augment, self.sources["pairs"]
        found = self._segment(pairs, i, rng, self.samples)
        noisy, clean = found["noisy"], found["clean"]
        if a.remix or a.snr:
            # Remix: noises change places among utterances (Défossez et al. 2020). SNR: the noise alone is scaled,
            # which gives more cases of little noise than a corpus holds (FQSE).
            noise = noisy - clean
            if rng.random() < a.remix:
                other = self._segment(pairs, int(rng.integers(len(self.ids))), rng, self.samples)
                noise = other["noisy"] - other["clean"]
            if a.snr:
                mixed = mixing.mix(clean, noise, rng.uniform(*a.snr))
                noisy, clean = mixed.noisy, mixed.clean
            else:
                noisy = clean + noise
        return self._degrade(noisy, clean, rng)

    def _degrade(self, noisy: np.ndarray, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[2, n]: noisy and clean [n], as a poorer microphone or channel brings them."""
        if self.s.augment.clip and rng.random() < self.s.augment.clip:
            noisy = mixing.clip(noisy, 10 ** rng.uniform(-3, -1.3)).astype(np.float32)
        return self._band_limit(np.stack([noisy, clean]), rng)

    def _band_limit(self, example: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Sometimes cut noisy and clean [2, n] off above a random frequency, as narrower recordings are."""
        a = self.s.augment
        if a.band_limit and rng.random() < a.band_limit:
            return low_pass(example, 2 ** rng.uniform(-2, 0)).astype(np.float32)
        return example

    def _mix(self, i: int, rng: np.random.Generator) -> np.ndarray:
        """[2, segment]: noisy and clean, speech i mixed with noise at an SNR and a level that rng draws."""
        m = self.s.mixing
        speech = self._speech(i, rng)
        drawn = mixing.draw(rng, len(self.sources["noise"].ids), Spread(*m.snr), Spread(*m.level), groups=self.kinds)
        noise = self._noise(drawn.noise, drawn.place, rng)
        if rng.random() < m.second_noise:
            another = (
                mixing.pick(rng.random(), self.kinds)
                if self.kinds
                else int(rng.integers(len(self.sources["noise"].ids)))
            )
            other = self._noise(another, float(rng.random()), rng)
            # Either may be the louder one, by up to 10 dB.
            noise = _unit(noise) + 10 ** (rng.uniform(-10, 10) / 20) * _unit(other)
        if m.speech_eq:
            speech = mixing.equalise(speech, rng, m.speech_eq)
        room = None
        if m.room and rng.random() < m.room:
            j = int(rng.integers(len(self.sources["rir"].ids)))
            room = self.sources["rir"].read(j, 0, int(self.sources["rir"].lengths[j]))["rir"]
            if not room.any():
                raise UserError(
                    f"{self.name}: the room {self.sources['rir'].ids[j]} is silent; remove it from the list"
                )
        if m.clean_only or m.noise_only:
            u = rng.random()
            noise = noise * (u >= m.clean_only)
            speech = speech * (u < 1 - m.noise_only)
        mixed = mixing.mix(speech, noise, drawn.snr_db, drawn.level_db, self.rate, rir=room)
        return self._degrade(mixed.noisy, mixed.clean, rng)

    def _speech(self, i: int, rng: np.random.Generator) -> np.ndarray:
        """A segment of utterance i; sometimes played faster, which brings pitch and formants to those of a child."""
        size = self.samples
        if self.s.mixing.high_voice and rng.random() < self.s.mixing.high_voice:
            size = round(size * rng.uniform(*HIGHER))
        speech = self._segment(self.sources["speech"], i, rng, size)["speech"]
        return resample(speech, size, self.samples)

    def _noise(self, j: int, place: float, rng: np.random.Generator) -> np.ndarray:
        """A segment of noise j, from `place` (0 ... 1) on, at a random speed and through a random equaliser."""
        m = self.s.mixing
        length = int(self.sources["noise"].lengths[j])
        size = round(self.samples * rng.uniform(*m.noise_speed))
        start = mixing.noise_start(length, size, place)
        if length >= size:
            noise = self.sources["noise"].read(j, start, size)["noise"]
        else:
            noise = mixing.loop(self.sources["noise"].read(j, 0, length)["noise"], start, size)
        if size != self.samples:
            noise = mixing.respeed(noise, self.samples)
        return mixing.equalise(noise, rng, m.noise_eq) if m.noise_eq else noise


def low_pass(x: np.ndarray, cutoff: float) -> np.ndarray:
    """`x` [..., n] without what lies above `cutoff`, a part of the upper band edge; half a cosine over the last
    twentieth below it, no phase."""
    n = x.shape[-1]
    above = np.clip((np.fft.rfftfreq(n) * 2 / cutoff - 0.95) / 0.05, 0, 1)
    return np.fft.irfft(np.fft.rfft(x) * (0.5 + 0.5 * np.cos(np.pi * above)), n)


def _unit(x: np.ndarray) -> np.ndarray:
    """`x` [n] at unit RMS; silence stays silent."""
    rms = float(np.sqrt(np.mean(np.square(x))))
    return x / rms if mixing.rms_level(x) >= mixing.SILENCE_DB else x


class _Tried(torch.utils.data.Dataset):
    """Items of `data`, or the UserError that came instead: a worker would wrap it in its own traceback."""

    def __init__(self, data: TrainingData):
        self.data = data

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor] | UserError:
        try:
            return self.data[key]
        except FileNotFoundError as e:
            return UserError(f"{e.filename}: is missing; restore it, and the same command continues")
        except UserError as e:
            return e


def _next(batches: Iterator[Any]) -> Any:
    try:
        return next(batches)
    except RuntimeError as e:
        if "DataLoader worker" not in str(e):
            raise
        raise Killed(
            "a loader process was killed (out of memory?); the same command continues from the last state; "
            "--set workers=0 needs the least memory"
        ) from None


def loader(
    data: TrainingData, steps: Iterable[int], workers: int, ranks: Ranks
) -> Generator[list[tuple[torch.Tensor, torch.Tensor]], None, None]:
    """This rank's micro-batches of each of `steps`, in order, made in this process or in `workers` others. Close it to end these.

    Raises UserError where the data cannot be read any more.
    """
    each = data.s.accumulate
    keys = [(step, ranks.rank * each + k, ranks.world * each) for step in steps for k in range(each)]
    # A generator of its own: a loader otherwise draws from the global one.
    with warnings.catch_warnings():
        # More workers than processors are slow at worst, and the number is the user's.
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        batches = iter(
            torch.utils.data.DataLoader(
                _Tried(data),
                batch_size=None,
                sampler=keys,
                num_workers=workers,
                prefetch_factor=4 if workers else None,
                generator=torch.Generator(),
                worker_init_fn=pool.leave_signals,
                pin_memory=ranks.device.type == "cuda",
            )
        )
    try:
        for _ in steps:
            found = [_next(batches) for _ in range(each)]
            for batch in found:
                if isinstance(batch, UserError):
                    raise batch
            yield [
                (noisy.to(ranks.device, non_blocking=True), clean.to(ranks.device, non_blocking=True))
                for noisy, clean in found
            ]
    finally:
        # Only this object can end the workers, which ignore the signal by which Python ends them at its exit.
        del batches
