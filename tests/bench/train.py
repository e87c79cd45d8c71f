"""Training FSPEN against a plain loop: steps per second, and where the time of a step goes; one thread.

    python tests/bench/train.py [steps]

The plain loop is how such a model is usually trained: every group and direction of GRUs an nn.GRU of its own, whole
files read through a default DataLoader and cut at random, losses through torch.stft, malloc as it comes. Both take
the same batches of 16 x 2 s and the same weights to begin with; steps are timed in turn, so that a busy machine
troubles both alike. Trust the ratios, not the seconds. CPU time of this process, medians.
"""

import ctypes
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import nn

from setk import models
from setk.data.datadir import DataDir
from setk.data.lists import write_list
from setk.models.fspen import DualPath
from setk.nn.gru import GroupedGRU
from setk.data.shards import write_shards
from setk.training import loop, process
from setk.training.data import TrainingData, loader
from setk.training.ranks import Ranks
from setk.training.settings import resolve

ROOT = Path(__file__).parents[2]
BATCH, SECONDS, RATE = 16, 2.0, 16000

# What an operation of torch is counted as, by the beginning of its name.
KINDS = {
    "GRU": ("_Kernel", "aten::gru", "aten::mkldnn_rnn", "aten::_thnn"),
    "convolution": ("aten::mkldnn_conv", "aten::conv", "aten::_conv", "aten::slow_conv"),
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "norms and activations": (
        "aten::native",
        "aten::elu",
        "aten::relu",
        "aten::threshold",
        "aten::_batch",
        "aten::leaky",
    ),
    "copies": ("aten::copy_", "aten::cat", "aten::clone", "aten::fill_", "aten::constant_pad", "aten::zero"),
    "FFT": ("aten::_fft",),
    "optimizer": ("Optimizer", "aten::_foreach", "aten::_fused", "aten::lerp", "aten::addcdiv", "aten::addcmul"),
}


class SeparateGRUs(nn.Module):
    """A GroupedGRU as so many nn.GRU modules, with its weights."""

    def __init__(self, grouped: GroupedGRU):
        super().__init__()
        self.both, self.hidden_size = any(grouped.reverse), grouped.hidden_size
        cells = 1 if self.both else grouped.groups
        self.cells = nn.ModuleList(
            nn.GRU(grouped.input_size, grouped.hidden_size, batch_first=True, bidirectional=self.both)
            for _ in range(cells)
        )
        with torch.no_grad():
            for g in range(grouped.groups):
                cell, mark = (self.cells[0], "_reverse" * grouped.reverse[g]) if self.both else (self.cells[g], "")
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    getattr(cell, f"{name}_l0{mark}").copy_(getattr(grouped, name)[g])

    def forward(self, x, h=None):
        _, b, t, k, _ = x.shape
        if self.both:
            y = self.cells[0](x[0].squeeze(2))[0]
            return y.view(b, t, 1, 2, -1).permute(3, 0, 1, 2, 4), None
        rows = x.transpose(2, 3).flatten(1, 2)
        found = [cell(row, start.flatten(0, 1)[None]) for cell, row, start in zip(self.cells, rows, h)]
        y = torch.stack([y for y, _ in found]).view(len(found), b, k, t, -1).transpose(2, 3)
        return y, torch.stack([last[0].view(b, k, -1) for _, last in found])


class WholeFiles(torch.utils.data.Dataset):
    def __init__(self, pairs):
        self.pairs = list(pairs.values())

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        noisy, clean = (soundfile.read(ROOT / path, dtype="float32")[0] for path in self.pairs[i])
        n = int(SECONDS * RATE)
        noisy, clean = (np.pad(x, (0, max(0, n - len(x)))) for x in (noisy, clean))
        start = np.random.randint(len(noisy) - n + 1)
        return noisy[start : start + n], clean[start : start + n]


def plain_loss(estimate, clean):
    window = torch.hann_window(512)

    def compressed(wave):
        s = torch.stft(wave, 512, 256, window=window, return_complex=True)
        level = s.abs().clamp_min(1e-5) ** 0.3
        return level, torch.polar(level, s.angle())

    (level, s), (wanted, target) = compressed(estimate), compressed(clean)
    return (
        0.3 * (level - wanted).square().mean()
        + 0.5 * torch.view_as_real(s - target).square().mean()
        + 0.2 * (estimate - clean).abs().mean()
    )


class Plain:
    def __init__(self, model, pairs, settings):
        for block in model.modules():
            if isinstance(block, DualPath):
                block.intra, block.inter = SeparateGRUs(block.intra), SeparateGRUs(block.inter)
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr)
        self.loader = torch.utils.data.DataLoader(WholeFiles(pairs), BATCH, shuffle=True, drop_last=True)
        self.batches = iter(self.loader)

    def step(self):
        try:
            noisy, clean = next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            noisy, clean = next(self.batches)
        gain = 1 / noisy.square().mean(-1, keepdim=True).sqrt()
        self.optimizer.zero_grad()
        plain_loss(self.model.enhance(noisy) * gain, clean * gain).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()


def spent(function) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    return time.process_time() - cpu, time.perf_counter() - wall


def give_heap_back() -> None:
    """malloc's own thresholds, which keep_heap raises for the whole process."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 128 * 1024), libc.mallopt(-3, 128 * 1024)


def profile(step) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        for _ in range(3):
            step()
    times: dict[str, float] = {}
    for event in found.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key.startswith(names)), "elementwise and the rest")
        times[kind] = times.get(kind, 0.0) + event.self_cpu_time_total
    total = sum(times.values())
    for kind, t in sorted(times.items(), key=lambda item: -item[1]):
        print(f"  {kind:26} {100 * t / total:5.1f} %")


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        pairs = DataDir(ROOT / "data/mini/train").pairs()
        (folder / "data").mkdir()
        for k, name in enumerate(("noisy", "clean")):
            write_list(folder / "data" / f"{name}.scp", {u: ROOT / p[k] for u, p in pairs.items()})
        for _ in write_shards(DataDir(folder / "data"), folder / "shards", size=1000):
            pass
        s = resolve("fspen", [f"batch={BATCH}", f"segment={SECONDS}", "device=cpu", "workers=0"])
        data, ranks = TrainingData(folder / "shards", s), Ranks(torch.device("cpu"))
        run = loop.Run(s, data, folder / "out", print, ranks)
        plain = Plain(models.build(s.model, s.config), pairs, s)
        batches = loader(data, range(1000), 0, ranks)

        times = {"plain loop": [], "se-train": []}
        for i in range(steps + 2):
            give_heap_back()
            a = spent(plain.step)
            process.keep_heap()
            b = spent(lambda: run.update(next(batches)))
            if i >= 2:
                times["plain loop"].append(a)
                times["se-train"].append(b)
        base = statistics.median(t[0] for t in times["plain loop"])
        print(f"FSPEN, batch {BATCH} x {SECONDS:g} s, one thread, {steps} steps of each, in turn")
        for name, found in times.items():
            cpu, wall = (statistics.median(t[k] for t in found) for k in (0, 1))
            print(
                f"{name:12} {cpu:7.3f} s of CPU  {1 / cpu:6.2f} steps/s  {BATCH * SECONDS / cpu:6.1f} s of audio/s  "
                f"{base / cpu:5.2f} x   (by the wall {1 / wall:.2f} steps/s)"
            )

        began = time.process_time()
        count = 200
        for _ in zip(range(count), loader(data, range(1000), 0, ranks)):
            pass
        rate = count * BATCH * SECONDS / (time.process_time() - began)
        print(f"the loader alone, from shards, one process: {rate:.0f} s of audio/s")
        print("a step of se-train, CPU time by kind of operation:")
        profile(lambda: run.update(next(batches)))


if __name__ == "__main__":
    main()
