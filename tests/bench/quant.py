"""int8 against float in ONNX Runtime: size of the file, time on one thread, and how far the outputs are apart.

Random weights, which cost what trained ones do; ranges from noise. A causal model is timed live, a hop at a time;
Conv-TasNet, which wants the whole signal, on four seconds. Times are of the processor, the least of several runs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from setk import engines, models
from setk.compress import ptq
from setk.export import onnx

torch.set_num_threads(1)
PRESETS = ("conv_tasnet", "fqse", "conv_tasnet-small", "fspen", "lite_rtse")


def seconds_of(engine: engines.OnnxEngine, hops: int, repeats: int) -> float:
    """Processor time of one second of audio."""
    calls, frames = (1, hops) if engine.frames is None else (hops, 1)
    wave = 0.1 * np.random.default_rng(0).standard_normal((calls, 1, frames, *engine.transform.shape)).astype(
        np.float32
    )
    least = np.inf
    for _ in range(repeats):
        state, start = engine.start(1), time.process_time()
        for piece in wave:
            _, state = engine.run(piece, state)
        least = min(least, time.process_time() - start)
    return least * engine.sample_rate / (hops * engine.transform.hop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", default=PRESETS)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    print(
        "model\tfloat, bytes\tint8, bytes\tof float\tfloat, s/s\tint8, s/s\tof float\tin integers\tSNR, dB\tfor speed, export"
    )
    for preset in args.presets:
        torch.manual_seed(0)
        model = models.build_preset(preset).eval()
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("float.onnx", "int8.onnx")]
            onnx.to_onnx(model, paths[0], scores={})
            ptq.calibrate(model, [0.1 * torch.randn(1, 16000)], "minmax")
            made = onnx.to_onnx(model, paths[1], scores={})
            both = [engines.OnnxEngine(path) for path in paths]
            snr = onnx.parity(model, both[1])
            hops = round((4 if not model.causal else 1) * model.sample_rate / model.transform.hop)
            took = [seconds_of(engine, hops, args.repeats) for engine in both]
            sizes = [path.stat().st_size for path in paths]
        size, cost = sizes[1] / sizes[0], took[1] / took[0]
        print(
            preset,
            *sizes,
            f"{size:.2f}",
            *(f"{t:.4f}" for t in took),
            f"{cost:.2f}",
            f"{made['integer']} of {made['products']}",
            f"{snr:.0f}",
            "int8" if cost < 0.95 else "float",
            sep="\t",
            flush=True,
        )


if __name__ == "__main__":
    main()
