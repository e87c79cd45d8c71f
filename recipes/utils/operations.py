"""operations.py [ROWS]: a section of RESULTS.md in the form of the Intel N-DNS table, from a line of `se-count MODEL --list LIST --json`.

ROWS are lines of that table for other systems.
"""

import json
import sys


def main(rows: str = "") -> None:
    row = json.loads(sys.stdin.readline())
    m = {name: value / 1e6 for name, value in row.items() if isinstance(value, (int, float))}
    cells = [
        f"**{row['model']}**",
        f"{row['latency_ms']:.2f}",
        f"{m['power_proxy']:.2f}",
        f"{m['pdp_proxy']:.3f}",
        f"{1000 * m['params']:.0f}",
        f"{row['bytes'] / 1024:.0f}",
    ]
    print("\n## Operations, as it spikes on the noisy test set\n")
    print(
        "| system | latency, ms | power proxy, M-Ops/s | PDP proxy, M-Ops | params, k | size, KB |\n|---|---|---|---|---|---|"
    )
    print("| " + " | ".join(cells) + " |")
    if rows:
        print(rows.strip())
    print(
        f"\nPower proxy: {m['synops_per_second']:.2f} M synaptic operations per second, {m['dense_ops_per_second']:.2f} M "
        f"dense ones and 10 times {m['neuron_ops_per_second']:.2f} M updates of neurons. The same network without spikes "
        f"needs {m['macs_per_second']:.0f} M multiply-accumulates per second. Its latency is that of the window; the published "
        "ones include computation."
    )
    dense = ", ".join(f"{name} {ops / 1e6:.2f}" for name, ops in row["dense_layers"].items())
    share = row["dense_ops_per_second"] / row["power_proxy"]
    print(
        f"The dense operations, {share:.0%} of the power proxy, are of layers that read or write samples: {dense} M per second."
    )
    silent = ", ".join(f"{name} {count}" for name, count in row["silent_neurons"].items())
    print(f"Neurons that never fire: {silent}.")
    print("Rates: " + ", ".join(f"{name} {rate:.3f}" for name, rate in row["spike_rates"].items()) + ".")


if __name__ == "__main__":
    main(*sys.argv[1:])
