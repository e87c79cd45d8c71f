"""A step of training against the metric discriminator, with its PESQ labels made by worker processes and made in line.

    python tests/bench/train_gan.py [rounds] [key=value ...]

A fast generator (FSPEN) and EffiFusion-GAN's small preset, each without a discriminator, with one, and with one whose labels are
computed in the training process. Variants take turns of some steps, of which the first are not counted: labels wait two
steps, and must not gain the time of another variant. Key=value go to the conf: on a GPU, preset=effifusion_gan
model=effifusion_gan segment=2 workers=4 is the paper's. Trust the ratios, not the seconds; medians.

By the wall, labels are free where a core is idle. The time of this process tells what is off its path on a busy machine too.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from setk import models
from setk.training.data import TrainingData, loader
from setk.training.labels import Labels, _pesq
from setk.training.metric_gan import MetricGAN
from setk.training.objective import Objective
from setk.training.ranks import Ranks, pick_device
from setk.training.settings import resolve

ROOT = Path(__file__).parents[2]
TURN, SKIPPED = 7, 3  # steps of a turn, and how many of them are not counted
CONF = """
batch: 4
segment: 1.0
losses: {compressed_magnitude: 0.9, phase: 0.3, compressed_complex: 0.2, agreement: 0.2, l1: 0.2}
discriminator: {weight: 0.05, delay: 2}
"""


class InLine(Labels):
    """Labels that are there when they are asked for, as usual."""

    def ask(self, clean, enhanced):
        began = time.perf_counter()
        scores = [_pesq(*pair, self.rate) for pair in zip(clean, enhanced)]
        self.took = time.perf_counter() - began
        return scores

    def wait(self, asked):
        return (np.array(asked, np.float32) - 1) / 3.5


def objective(kind, settings, ranks, in_line=False):
    torch.manual_seed(1)
    found = kind(models.build(settings.model, settings.config).to(ranks.device), settings, ranks)
    if in_line:
        found.labels = InLine(16000, 1)
    return found


def bench(conf: str, rounds: int, overrides: list[str]) -> None:
    s = resolve(conf, overrides)
    ranks = Ranks(pick_device(s.device))
    variants = {
        "no discriminator": objective(Objective, s, ranks),
        "PESQ in workers": objective(MetricGAN, s, ranks),
        "PESQ in line": objective(MetricGAN, s, ranks, in_line=True),
    }
    batches = loader(TrainingData(ROOT / "data/mini/train", s), range(10**6), 0, ranks)
    times = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, one in variants.items():
            for step in range(TURN):
                batch = next(batches)
                cpu, wall = time.process_time(), time.perf_counter()
                one.update(batch)
                if turn and step >= SKIPPED:
                    times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    print(
        f"{s.preset} on {ranks.device}, batch {s.batch} x {s.segment:g} s, {rounds * (TURN - SKIPPED)} steps of each; "
        f"PESQ of a batch takes {1000 * variants['PESQ in line'].labels.took:.0f} ms"
    )
    cpu_base, wall_base = (statistics.median(t[k] for t in times["PESQ in workers"]) for k in (0, 1))
    for name, found in times.items():
        cpu, wall = (statistics.median(t[k] for t in found) for k in (0, 1))
        print(
            f"  {name:17} {wall:7.3f} s by the wall {wall / wall_base:5.2f} x    "
            f"{cpu:7.3f} s of this process's CPU {cpu / cpu_base:5.2f} x"
        )


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as tmp:
        conf = Path(tmp) / "conf.yaml"
        conf.write_text(CONF)
        for preset in ("fspen", "effifusion_gan-small"):
            bench(str(conf), rounds, [f"model={models.presets()[preset][0]}", f"preset={preset}", *sys.argv[2:]])


if __name__ == "__main__":
    main()
