"""DPSNN: a spiking network over frames of 5 ms, between a learned encoder and decoder of waveform.

Paper: Sun, Bohte, "DPSNN: Spiking Neural Network for Low-Latency Streaming Speech Enhancement", 2024. 16 kHz; window 80,
hop 40; strictly causal, no look-ahead, algorithmic latency 5 ms.

Shapes, a frame at a time, N = B = H = 256:

    encoder     80 samples -> Linear, ReLU: e, N
    binary      LayerNorm over N -> Linear -> spikes where > threshold, B
    X blocks    depthwise convolution over this frame and the context of 10 ms, 4 frames -> leaky neurons: spikes, H
                Linear, recurrence -> adaptive neurons: spikes, B
    readout     spikes of all blocks, X B -> Linear -> leaky integrators, B; what is not above a threshold is 0
    mask        Linear, sigmoid: M, N
    decoder     e M -> Linear without bias, and one bias: 80 samples, overlap-added as they are

A signal begins in silence. Its first frame, half of which is before the signal, fills the context and has no output; the
neurons start with the second, at rest. With `segment_reset` the same happens again after that many seconds each, where the
published evaluation cuts signals into pieces. Without it the neurons run on, as a stream needs.

Deviations and readings:
  - neurons run on unless `segment_reset`; with more than one block all start together, the later ones' context empty;
  - the L1 terms of the paper's loss are over all frames; its code takes the last frame alone;
  - the readout's threshold is used in a comparison only, so its gradient is zero and it stays at zero;
  - the biases of both kinds of neurons start raised by 1 and 2. As frameworks initialise them no recurrent neuron fires,
    the slope of its surrogate is negative so far below the threshold, and the L1 terms silence the rest before it learns;
  - even so half of the recurrent neurons, and more of the readout, fall silent within fifty steps of training, and the same slope
    keeps them so. The loss `dormant` acts on the membranes of neurons that never fire, and all but a few stay alive;
  - time constants start at one half per hop, 3.6 ms, and training hardly moves them, so little but the recurrence knows what the noise was.
    In the included weights some are of up to one second (recipes/open/slow_neurons.py);
  - a loss that ignores scale leaves the output's level free. Nothing here restores it: train with one that does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from setk.audio.stft import Frames
from setk.models import Count, Model, State, Widths
from setk.nn.level import at_known_level, check_range
from setk.nn.parts import constant
from setk.nn.spiking import BASE, GAIN, AdaptiveRecurrent, Binary, LeakyConv, Readout, SteadyLinear, take_dormant


@dataclass(frozen=True)
class Config:
    window: int = 80  # L: samples of a frame
    hop: int = 40
    encoder: int = 256  # N: features of a frame
    width: int = 256  # B: spikes between blocks
    hidden: int = 256  # H: leaky neurons of a block, a multiple of B
    blocks: Count = 1  # X
    context: float = 0.01  # seconds of the past that a block's convolution sees, whole hops
    suppression: float = 0.0  # what the readout must exceed to reach the mask; more saves synaptic operations
    segment_reset: float = 0.0  # seconds after which neurons are reset, whole hops; 0: never
    level_range: tuple[float, ...] = ()  # lowest and highest dBFS that the network sees (nn/level.py); empty: any
    widths: tuple[int, ...] = ()  # of a pruned model, in the order of `units`; (): those above


class Block(nn.Module):
    """Leaky neurons within channels and then adaptive ones across them, spikes [B, T, inputs] to spikes [B, T, width].

    State: the last input frames and v of the first layer, m, eta and s of the second.
    """

    def __init__(self, inputs: int, hidden: int, width: int, taps: int):
        super().__init__()
        self.scnn = LeakyConv(inputs, hidden, taps)
        self.srnn = AdaptiveRecurrent(hidden, width)

    def init_state(self, batch: int) -> State:
        return (*self.scnn.init_state(batch), *self.srnn.init_state(batch))

    def forward(self, spikes: Tensor, state: State, hold: Tensor) -> tuple[Tensor, State]:
        spikes, *first = self.scnn(spikes, *state[:2], hold)
        spikes, *second = self.srnn(spikes, *state[2:], hold)
        return spikes, (*first, *second)


class DPSNN(Model):
    """The network over frames of waveform: forward(frames [B, T, 80], state) -> (frames, state).

    State: five tensors for each block, r [B, width] of the readout, and the position [B, 1] in the signal; with a `level_range` the
    level [B, 1]. All are zero before the signal, where `position` is 0: the neurons' rest is taken from the equations, not from the state.
    `extras` in training: "spikes" [B, T, width], the binary features; "readout" [B, T, width]; "dormant" [neurons], how far
    those that never fire, or never pass the readout's threshold, stay below their threshold (setk.nn.spiking.shortfall).
    """

    name = "dpsnn"
    paper = "Sun & Bohte, DPSNN, 2024"
    deviations = "neurons run on over segments and start lively; L1 terms over all frames (see the module's text)"
    Config = Config
    width_multiple = 16  # what the kernel of setk.nn.spiking runs
    presets = {"dpsnn": Config()}

    def __init__(self, config: Config):
        super().__init__()
        check_range(config.level_range)
        c = config
        context, self.period = (
            round(seconds * self.sample_rate / c.hop, 6) for seconds in (c.context, c.segment_reset)
        )
        if context % 1 or self.period % 1 or context < 1 or self.period < 0:
            raise ValueError(
                f"context {c.context} and segment_reset {c.segment_reset}: must be whole hops of {c.hop} samples, context 1 or more"
            )
        if c.hidden % c.width or c.blocks < 1:
            raise ValueError(
                f"hidden {c.hidden} must be a multiple of width {c.width}, and blocks {c.blocks} at least 1"
            )
        self.config, self.transform = config, Frames(c.window, c.hop)
        width = self.units = Widths(c.widths)
        features = width("encoder", c.encoder)
        # spikes[j] are the input of block j, with `fan` leaky neurons for each. Only the readout reads those of the last block.
        spikes, fan = [width(f"spikes.{j}", c.width) for j in range(c.blocks + 1)], c.hidden // c.width
        self.encoder = SteadyLinear(c.window, features)
        self.norm = nn.LayerNorm(features)
        self.binary = Binary(features, spikes[0])
        self.blocks = nn.ModuleList(Block(a, fan * a, b, round(context) + 1) for a, b in zip(spikes, spikes[1:]))
        readout = width("readout", c.width)
        self.readout = Readout(sum(spikes[1:]), readout, c.suppression)
        self.mask = nn.Linear(readout, features)
        self.decoder = nn.Linear(features, c.window, bias=False)
        self.decoder_bias = nn.Parameter(torch.zeros(()))
        for p in (self.decoder.weight, self.decoder_bias):  # as a transposed convolution starts
            nn.init.uniform_(p, -(c.window**-0.5), c.window**-0.5)
        self._start_lively()

    def _start_lively(self) -> None:
        with torch.no_grad():
            for block in self.blocks:
                block.scnn.conv.bias += 1
                block.srnn.dense.bias += 2

    def init_state(self, batch: int) -> State:
        blocks = [tensor for block in self.blocks for tensor in block.init_state(batch)]
        new = self.decoder_bias.new_zeros
        level = (new(batch, 1),) * bool(self.config.level_range)
        return (*blocks, self.readout.init_state(batch), new(batch, 1), *level)

    @property
    def parts(self) -> dict[str, Callable[[], object]]:
        def no_context() -> None:
            for block in self.blocks:
                block.scnn.conv.weight[..., :-1] = 0

        def no_recurrence() -> None:
            for block in self.blocks:
                block.srnn.recurrent.weight.zero_()

        def no_adaptation() -> None:
            # eta stays at rest, where the threshold is this much of BASE; inputs that grow as much undo that.
            rise = (BASE + GAIN * BASE) / BASE
            for block in self.blocks:
                block.srnn.ro.fill_(40.0)
                for layer in (block.srnn.dense, block.srnn.recurrent):
                    layer.weight.mul_(rise), layer.bias.mul_(rise)

        return {
            "context": no_context,
            "recurrence": no_recurrence,
            "adaptation": no_adaptation,
            "readout-leak": lambda: self.readout.alpha.fill_(-40.0),
            "suppression": lambda: self.readout.threshold.fill_(-1e9),
            "mask": lambda: constant(self.mask),
        }

    def forward(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        if not self.config.level_range:
            return self._enhance(frames, state)
        hop_s = self.transform.hop / self.sample_rate
        power = frames.square().mean(-1)
        return at_known_level(self._enhance, frames, state, power, hop_s, self.config.level_range, first=0.5)

    def _enhance(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        *blocks, r, position = state
        hold, after = self._hold(position, frames.shape[1])
        features = F.relu(self.encoder(frames))
        spikes = binary = self.binary(self.norm(features))
        silence = self.binary.constant(self.norm(F.relu(self.encoder.bias)))
        blocks[0] = torch.where(position.unsqueeze(-1) == 0, silence, blocks[0])
        outputs, states = [], []
        for i, block in enumerate(self.blocks):
            spikes, new = block(spikes, blocks[5 * i : 5 * i + 5], hold)
            outputs.append(spikes)
            states += new
        active, r = self.readout(torch.cat(outputs, -1), r, hold)
        out = self.decoder(features * torch.sigmoid(self.mask(active))) + self.decoder_bias
        if self.training:
            layers = [layer for block in self.blocks for layer in (block.scnn, block.srnn)]
            # Layers that a training holds fixed have none.
            dormant = [take_dormant(layer) for layer in (*layers, self.readout) if layer.training]
            self.extras = {
                "spikes": binary,
                "readout": active,
                "dormant": torch.cat(dormant) if dormant else out.new_zeros(1),
            }
        return out.masked_fill(hold.unsqueeze(-1), 0), (*states, r, after)

    def _hold(self, position: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """Frames [B, T] at which neurons rest, and the position [B, 1] after them: 0 before the signal, then 1 or,
        with segment_reset, 1 to the segment's length."""
        at = position + torch.arange(frames, dtype=position.dtype, device=position.device)
        if not self.period:
            return at == 0, torch.clamp(position + frames, max=1)
        if frames == 1:  # the position is at most the length, and C has no remainder
            at = torch.where(at >= self.period, at - self.period, at)
        else:
            at = torch.remainder(at, self.period)
        return at == 0, at[:, -1:] + 1

    @property
    def synapses(self) -> dict[str, tuple[str, ...]]:
        """Layers of weights that act on events only -> the layers whose output, zero or an event, they read."""
        srnn = [f"blocks.{j}.srnn" for j in range(self.config.blocks)]
        table: dict[str, tuple[str, ...]] = {"readout.dense": tuple(srnn), "mask": ("readout",)}
        for j, (source, own) in enumerate(zip(["binary", *srnn], srnn)):
            scnn = f"blocks.{j}.scnn"
            table |= {f"{scnn}.conv": (source,), f"{own}.dense": (scnn,), f"{own}.recurrent": (own,)}
        return table

    @property
    def published_synapses(self) -> dict[str, tuple[str, ...]]:
        """The authors count recurrent weights at the rate of the layer's input."""
        srnn = [f"blocks.{j}.srnn" for j in range(self.config.blocks)]
        return {f"{own}.recurrent": self.synapses[f"{own}.dense"] for own in srnn}

    @property
    def neurons(self) -> int:
        """Neurons updated at every frame."""
        layers = [layer for block in self.blocks for layer in (block.srnn.dense, block.srnn.recurrent)]
        return sum(layer.in_features for layer in layers) + self.readout.dense.out_features

    @property
    def other_ops(self) -> int:
        """Operations per frame of the LayerNorm, the sigmoid and the running level."""
        level = 3 * self.config.window if self.config.level_range else 0  # squares, products and quotients of samples
        return 10 * self.encoder.out_features + 5 + level
