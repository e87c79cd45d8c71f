"""GroupedGRU against G calls of nn.GRU at the sizes of FSPEN: ratios of CPU-time medians, one thread.

    python tests/bench/gru.py [repeats]

Forms are timed in turn, so that a busy machine troubles all of them alike; trust the ratios, not the seconds.
"""

import statistics
import sys
import time

import torch
from torch import nn

from setk.nn import gru

SIZES = {  # groups, reverse, [leading, B, T, K, I]
    "intra": (2, (False, True), (1, 16 * 126, 32, 1, 16)),
    "inter": (8, False, (8, 16, 126, 4, 16)),
    "inter, 1 frame": (8, False, (8, 1, 1, 4, 16)),
    "intra, 1 frame": (2, (False, True), (1, 1, 32, 1, 16)),
}


def separate(cells: list[nn.GRU], reverse: tuple[bool, ...], x: torch.Tensor) -> torch.Tensor:
    """The G groups as nn.GRU modules, the way they are usually written."""
    if any(reverse):  # one bidirectional module
        return cells[0](x[0].squeeze(2))[0]
    _, b, t, k, i = x.shape
    rows = x.transpose(2, 3).reshape(-1, b * k, t, i)
    return torch.stack([cell(row)[0] for cell, row in zip(cells, rows)])


def seconds(function) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    torch.set_num_threads(1)
    print(f"kernel {'built' if gru.kernel_available() else 'not built: the loop is timed'}")
    for name, (groups, reverse, shape) in SIZES.items():
        train = shape[1] > 1
        x = torch.randn(shape, requires_grad=train)
        grouped = gru.GroupedGRU(groups, 16, 16, reverse)
        both = any(grouped.reverse)
        cells = [nn.GRU(16, 16, batch_first=True, bidirectional=both) for _ in range(1 if both else groups)]
        forms = {
            "nn.GRU": lambda: separate(cells, grouped.reverse, x),
            "loop": lambda: grouped._loop(x, torch.zeros(groups, shape[1], shape[3], 16))[0],
            "GroupedGRU": lambda: grouped(x)[0],
        }
        calls = 1 if train else 200

        def run(form):
            with torch.set_grad_enabled(train):
                for _ in range(calls):
                    y = form()
                    if train:
                        y.backward(torch.ones_like(y))

        times = {form: [] for form in forms}
        for repeat in range(repeats + 1):
            for form, function in forms.items():
                spent = seconds(lambda: run(function)) / calls
                if repeat:  # the first warms up
                    times[form].append(spent)
        median = {form: statistics.median(t) for form, t in times.items()}
        what = "forward + backward" if train else "forward"
        for form, t in median.items():
            print(f"{name:15} {what:18} {form:11} {1e3 * t:9.3f} ms  {median['nn.GRU'] / t:6.2f} x")


if __name__ == "__main__":
    main()
