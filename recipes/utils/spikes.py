"""spikes.py: one line of `se-count MODEL --list LIST --json` to a part of RESULTS.md, in the form of the Intel N-DNS table."""

import json
import sys

# Test set 1 of the challenge, as its organisers publish it: name, latency, power and PDP proxy, parameters, size.
PUBLISHED = [["NsNet2 (Intel N-DNS)", "20.02", "136.13", "2.72", "", ""],
             ["SDNN baseline (Intel N-DNS)", "32.02", "14.52", "0.46", "525", "465"],
             ["Spiking-FullSubNet XL (winner)", "32.03", "55.91", "1.79", "1798", ""]]


def main() -> None:
    row = json.loads(sys.stdin.readline())
    m = {name: value / 1e6 for name, value in row.items() if isinstance(value, (int, float))}
    ours = [f"**{row['model']}**", f"{row['latency_ms']:.2f}", f"{m['power_proxy']:.2f}", f"{m['pdp_proxy']:.3f}",
            f"{1000 * m['params']:.0f}", f"{row['bytes'] / 1024:.0f}"]
    print("\n## Operations, as it spikes on the noisy test set\n")
    print("| system | latency, ms | power proxy, M-Ops/s | PDP proxy, M-Ops | params, k | size, KB |\n|---|---|---|---|---|---|")
    for cells in [ours, *PUBLISHED]:
        print("| " + " | ".join(cells) + " |")
    print(f"\nPower proxy: {m['synops_per_second']:.2f} M synaptic operations per second, {m['dense_ops_per_second']:.2f} M "
          f"dense ones and 10 times {m['neuron_ops_per_second']:.2f} M updates of neurons. The same network without spikes "
          f"would take {m['macs_per_second']:.0f} M multiply-accumulates. Latency is the window's; that of the others has time "
          "of computation in it.")
    print("Rates: " + ", ".join(f"{name} {rate:.3f}" for name, rate in row["spike_rates"].items()) + ".")


if __name__ == "__main__":
    main()
