"""A hop of FSPEN in torch, in ONNX Runtime, and through the whole pipe; a whole file; many signals at once.

    .venv/bin/python tests/bench/enhance.py [--seconds 60]

One thread. A hop is 16 ms of audio; the pipe's figure is the time from writing a hop to reading one, STFT,
conversion and two pipes included.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from setk import checkpoint, engines
from setk.export import onnx
from setk.cost.timing import timing

HOP = 256


def pipe_hop_ms(model: Path, hops: int = 2000) -> tuple[float, float]:
    """Median and 99th percentile, over a live se-enhance process."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "setk.cli.enhance", str(model), "-", "-", "--raw"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    pcm = (np.random.default_rng(0).standard_normal((hops, HOP)) * 3000).astype("<i2")
    child.stdin.write(pcm[0].tobytes())  # the first hop fills the window and gives nothing yet
    took = []
    for hop in pcm[1:]:
        start, left = time.perf_counter(), 2 * HOP
        child.stdin.write(hop.tobytes())
        while left:
            left -= len(child.stdout.read(left))
        took.append(time.perf_counter() - start)
    child.communicate()
    return tuple(1000 * np.percentile(took[100:], [50, 99]))


def batch_hop_ms(engine: engines.OnnxEngine, calls: int = 400) -> float:
    """Per signal and hop, `engine.batch` signals advancing in one call."""
    frames = np.random.default_rng(0).standard_normal((engine.batch, 1, *engine.transform.shape)).astype(np.float32)
    state, took = engine.start(engine.batch), []
    for _ in range(calls):
        start = time.perf_counter()
        _, state = engine.run(frames, state)
        took.append(time.perf_counter() - start)
    return 1000 * float(np.median(took)) / engine.batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="length of the whole signal")
    args = parser.parse_args()
    path = checkpoint.find("fspen")
    model, _ = checkpoint.load(path)
    with tempfile.TemporaryDirectory() as folder:
        made = {}
        for name, options in {"live": {}, "16 frames": {"frames": 16}, "8 signals": {"batch": 8}}.items():
            made[name] = Path(folder) / f"{name}.onnx"
            onnx.to_onnx(model, made[name], scores={}, **options)
        eager = timing(engines.TorchEngine(path), seconds=args.seconds)
        live = timing(engines.OnnxEngine(made["live"]), seconds=args.seconds)
        chunks = timing(engines.OnnxEngine(made["16 frames"]), seconds=args.seconds)
        together = batch_hop_ms(engines.OnnxEngine(made["8 signals"]))
        median, p99 = pipe_hop_ms(made["live"])
    print("ms per 16-ms hop\tmedian\tp99\tof torch")
    print(f"torch, network\t{eager['hop_ms_median']:.3f}\t{eager['hop_ms_p99']:.3f}\t1")
    print(
        f"ONNX, network\t{live['hop_ms_median']:.3f}\t{live['hop_ms_p99']:.3f}\t{live['hop_ms_median'] / eager['hop_ms_median']:.2f}"
    )
    print(f"ONNX, whole pipe\t{median:.3f}\t{p99:.3f}\t{median / eager['hop_ms_median']:.2f}")
    print(f"ONNX, 8 signals a call, each\t{together:.3f}\t\t{together / eager['hop_ms_median']:.2f}")
    print(f"\nreal-time factor of {args.seconds:g} s\twhole\thop by hop")
    for name, t in (("torch", eager), ("ONNX", live), ("ONNX, 16 frames a call", chunks)):
        print(f"{name}\t{t['rtf']:.4f}\t{t['rtf_stream']:.4f}")


if __name__ == "__main__":
    main()
