"""Synaptic operations of a spiking model, measured on real audio, and the proxies of power that follow.

A weight that acts on spikes costs one accumulation for each spike that reaches it, so a layer of M multiply-accumulates
per frame costs M times the part of its inputs that is not zero. With rates r of the layers it reads:

    synops        sum over layers behind spikes of M r, per second: accumulations = spikes x fan-out
    dense ops     MACs of the other layers, and the operations of norm and sigmoid, per second
                  (by layer in `dense_layers`, the norm and the sigmoid as "other")
    neuron ops    neurons x frames per second
    power proxy   synops + dense ops + 10 neuron ops (Intel Neuromorphic DNS Challenge, Timcheck et al. 2023)
    PDP proxy     power proxy x latency: the operations that a signal waits for

A spiking model declares `synapses` (layer of weights -> layers whose output it reads), `neurons` and `other_ops`
(both per frame). Biases do not count. `silent_neurons` are those of each layer whose output is zero in all frames.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Iterable, Mapping

import torch

from setk.cost import macs
from setk.cost.ledger import frame_rate, number
from setk.models import Model

NEURON_WEIGHT = 10
CHUNK = 4000  # frames that the model takes at a time
KEYS = (
    *("synops_per_second", "dense_ops_per_second", "neuron_ops_per_second", "power_proxy", "pdp_proxy"),
    *("spike_rates", "silent_neurons", "dense_layers"),
)


def report(model: Model, waves: Iterable[torch.Tensor], published: bool = False) -> dict[str, Any]:
    """KEYS of a model, measured on `waves` [n]; each is None for a model without spikes. See `synops` for `published`."""
    if not hasattr(model, "synapses"):
        return dict.fromkeys(KEYS)
    found = firing_rates(model, waves)
    return synops(model, _means(found), published) | {
        "silent_neurons": {name: int((rates == 0).sum()) for name, rates in found.items()}
    }


def spike_rates(model: Model, waves: Iterable[torch.Tensor]) -> dict[str, float]:
    """Part of each layer's outputs that is not zero, by the layer's path, over all frames of all waves [n]."""
    return _means(firing_rates(model, waves))


def _means(found: Mapping[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(rates.mean()) for name, rates in found.items()}


def firing_rates(model: Model, waves: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Part of all frames in which each neuron's output is not zero, float64 [neurons], by the layer's path; nan without frames."""
    modules = dict(model.named_modules())
    names = sorted({name for sources in model.synapses.values() for name in sources})
    counts: dict[str, torch.Tensor] = {}
    frames_of = dict.fromkeys(names, 0)

    def count(name: str):
        def hook(module: torch.nn.Module, args: tuple, output: Any) -> None:
            events = output[0] if isinstance(output, tuple) else output
            counts[name] = counts.get(name, 0) + torch.count_nonzero(events.flatten(0, -2), dim=0).double()
            frames_of[name] += events.shape[:-1].numel()

        return hook

    hooks = [modules[name].register_forward_hook(count(name)) for name in names]
    try:
        with torch.inference_mode():
            for wave in waves:
                state = model.init_state(1)
                for frames in model.transform.analysis(wave[None]).split(CHUNK, 1):
                    _, state = model(frames, state)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: counts.get(name, torch.tensor([math.nan])) / max(1, frames_of[name]) for name in names}


def synops(model: Model, rates: Mapping[str, float], published: bool = False) -> dict[str, Any]:
    """The figures of KEYS for a model whose layers fire at `rates`, as `spike_rates` measures them.

    `published`: by the model's `published_synapses`, which differ from `synapses` where its authors count otherwise.
    """
    synapses, rate = dict(model.synapses), frame_rate(model)
    if published:
        synapses |= model.published_synapses
    events, dense = 0.0, {"other": model.other_ops * rate}
    for layer in macs.layers(model, seconds=0.01):  # a spiking model costs the same at any length
        if layer.layer in synapses:
            sources = synapses[layer.layer]
            events += layer.macs_per_second * sum(rates[name] for name in sources) / len(sources)
        elif layer.macs_per_second:
            dense[layer.layer] = layer.macs_per_second
    neurons = model.neurons * rate
    power = events + float(sum(dense.values()) + NEURON_WEIGHT * neurons)
    return {
        "synops_per_second": round(events),
        "dense_ops_per_second": number(sum(dense.values())),
        "neuron_ops_per_second": number(neurons),
        "power_proxy": round(power),
        "pdp_proxy": round(power * model.latency_ms / 1000),
        "spike_rates": dict(rates),
        "dense_layers": {name: number(Fraction(ops)) for name, ops in dense.items()},
    }
