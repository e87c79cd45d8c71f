"""Synaptic operations of a spiking model, measured on real audio, and the proxies of power that follow.

A weight that acts on spikes costs one accumulation for each spike that reaches it, so a layer of M multiply-accumulates
per frame costs M times the part of its inputs that is not zero. With rates r of the layers it reads:

    synops        sum over layers behind spikes of M r, per second: accumulations = spikes x fan-out
    dense ops     MACs of the other layers, and the operations of norm and sigmoid, per second
    neuron ops    neurons x frames per second
    power proxy   synops + dense ops + 10 neuron ops (Intel Neuromorphic DNS Challenge, Timcheck et al. 2023)
    PDP proxy     power proxy x latency: the operations that a signal waits for

A spiking model declares `synapses` (layer of weights -> layers whose output it reads), `neurons` and `other_ops`
(both per frame). Biases do not count.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

import torch

from setk.cost import macs
from setk.cost.ledger import frame_rate, number
from setk.models import Model

NEURON_WEIGHT = 10
CHUNK = 4000  # frames that the model takes at a time
KEYS = ("synops_per_second", "dense_ops_per_second", "neuron_ops_per_second", "power_proxy", "pdp_proxy", "spike_rates")


def report(model: Model, waves: Iterable[torch.Tensor], published: bool = False) -> dict[str, Any]:
    """KEYS of a model, measured on `waves` [n]; each is None for a model without spikes. See `synops` for `published`."""
    if not hasattr(model, "synapses"):
        return dict.fromkeys(KEYS)
    return synops(model, spike_rates(model, waves), published)


def spike_rates(model: Model, waves: Iterable[torch.Tensor]) -> dict[str, float]:
    """Part of each layer's outputs that is not zero, by the layer's path, over all frames of all waves [n]."""
    modules = dict(model.named_modules())
    counts = {name: [0, 0] for sources in model.synapses.values() for name in sources}

    def count(name: str):
        def hook(module: torch.nn.Module, args: tuple, output: Any) -> None:
            events = output[0] if isinstance(output, tuple) else output
            counts[name][0] += int(torch.count_nonzero(events))
            counts[name][1] += events.numel()

        return hook

    hooks = [modules[name].register_forward_hook(count(name)) for name in counts]
    try:
        with torch.inference_mode():
            for wave in waves:
                state = model.init_state(1)
                for frames in model.transform.analysis(wave[None]).split(CHUNK, 1):
                    _, state = model(frames, state)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: events / total if total else float("nan") for name, (events, total) in sorted(counts.items())}


def synops(model: Model, rates: Mapping[str, float], published: bool = False) -> dict[str, Any]:
    """The figures of KEYS for a model whose layers fire at `rates`, as `spike_rates` measures them.

    `published`: by the model's `published_synapses`, which differ from `synapses` where its authors count otherwise.
    """
    synapses, rate = dict(model.synapses), frame_rate(model)
    if published:
        synapses |= model.published_synapses
    events, dense = 0.0, model.other_ops * rate
    for layer in macs.layers(model, seconds=0.01):  # a spiking model costs the same at any length
        if layer.layer in synapses:
            sources = synapses[layer.layer]
            events += layer.macs_per_second * sum(rates[name] for name in sources) / len(sources)
        else:
            dense += layer.macs_per_second
    neurons = model.neurons * rate
    power = events + float(dense + NEURON_WEIGHT * neurons)
    return {
        "synops_per_second": round(events),
        "dense_ops_per_second": number(dense),
        "neuron_ops_per_second": number(neurons),
        "power_proxy": round(power),
        "pdp_proxy": round(power * model.latency_ms / 1000),
        "spike_rates": dict(rates),
    }
