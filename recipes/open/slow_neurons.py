"""slow_neurons.py IN.pt OUT.pt readout|adaptive COUNT SECONDS: a DPSNN whose least used neurons of a layer remember for longer.

COUNT neurons get time constants spread, evenly in their logarithm, up to SECONDS. As published all start at one half per hop, 3.6 ms, and
training hardly moves them, so nothing but the recurrence knows what the noise was 20 ms ago.

readout   integrators of which the mask makes least: they begin with random inputs, and the mask does not read them yet
adaptive  neurons that the readout and the recurrence read least: their inputs grow so that each hop adds as much as before, or GROWTH
          times as much if that is less
"""

import sys

import torch

from setk import checkpoint
from setk.models.dpsnn import DPSNN

SHORTEST = {"readout": 0.03, "adaptive": 0.008}  # seconds
GROWTH = 8.0
BIAS = 0.3  # of an integrator: the mask reads what is above 0 only


def decays(model: DPSNN, layer: str, count: int, longest: float) -> torch.Tensor:
    """Parts of a membrane that remain after a hop."""
    taus = torch.logspace(0, 1, count, base=longest / SHORTEST[layer]) * SHORTEST[layer]
    return torch.exp(-model.transform.hop / model.sample_rate / taus)


@torch.no_grad()
def slow_readout(model: DPSNN, count: int, longest: float) -> None:
    chosen = model.mask.weight.norm(dim=0).argsort()[:count]
    dense = model.readout.dense
    model.readout.alpha[chosen] = torch.logit(decays(model, "readout", count, longest))
    dense.weight[chosen] = (2 * torch.rand(count, dense.in_features) - 1) / dense.in_features**0.5
    dense.bias[chosen] = BIAS
    model.mask.weight[:, chosen] = 0


@torch.no_grad()
def slow_adaptive(model: DPSNN, count: int, longest: float) -> None:
    (block,) = model.blocks
    neurons = block.srnn
    used = model.readout.dense.weight.norm(dim=0) + neurons.recurrent.weight.norm(dim=0)
    chosen = used.argsort()[:count]
    after = decays(model, "adaptive", count, longest)
    growth = ((1 - torch.sigmoid(neurons.alpha[chosen])) / (1 - after)).clamp(max=GROWTH)
    for layer in (neurons.dense, neurons.recurrent):
        layer.weight[chosen] *= growth.unsqueeze(1)
        layer.bias[chosen] *= growth
    neurons.alpha[chosen] = torch.logit(after)


def main(source: str, out: str, layer: str, count: str, longest: str) -> None:
    model, about = checkpoint.load(source)
    torch.manual_seed(0)
    {"readout": slow_readout, "adaptive": slow_adaptive}[layer](model, int(count), float(longest))
    checkpoint.save(out, model, {}, slow={layer: [int(count), float(longest)]}, source=about["provenance"])


if __name__ == "__main__":
    main(*sys.argv[1:])
