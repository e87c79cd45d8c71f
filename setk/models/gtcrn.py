"""GTCRN: grouped temporal convolutional recurrent network, 24 k parameters.

Paper: Rong, Sun, Zhang, Hu, Zhu, Lu, "GTCRN: A speech enhancement model requiring ultralow computational resources",
ICASSP 2024 (IEEE 10448310). The sizes are those of the authors' public weights. 16 kHz; window 512, hop 256, square-root
Hann; strictly causal, no look-ahead, algorithmic latency 32 ms.

A frame, channels x bins:

    |X|, Re X, Im X                3 x 257
    band merging                   3 x 129   bins 0 ... 64 as they are, bins 65 ... 256 as 64 ERB bands
    neighbours                     9 x 129   each band with the band below and the band above it
    E0, E1   convolutions        16 x 65, 16 x 33   strided in frequency
    E2 - E4  GT blocks             16 x 33   dilated in time by 1, 2 and 5
    two grouped dual-path RNNs     16 x 33   bidirectional along the bands of a frame, then along time
    D0 - D2  GT blocks             16 x 33   dilated in time by 5, 2 and 1
    D3, D4   transposed convs    16 x 65, 2 x 129   tanh
    band splitting                 2 x 257   the complex mask, each part within -1 ... 1

Skips are sums: each decoder layer reads the output of the one before plus that of its encoder layer.

A GT block processes one half of its channels and passes the other: neighbours, 1x1 conv, depth-wise conv over past frames,
1x1 conv, temporal recurrent attention (a gain per channel from the energy over frequency, by a GRU along time); then it
interleaves the halves (channel shuffle).

Deviation: the decoder's GT blocks are plain causal convolutions. The published ones are transposed convolutions at
stride 1, which are the same functions with flipped kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from setk.audio.stft import STFT
from setk.models import Count, Model, State, Widths
from setk.nn.gru import GroupedGRU

RATE, BINS = 16000, 257
LINEAR = 65  # bins below the ERB bands
BANDS = 64  # ERB bands
WIDTH = 33  # bands inside the network
DILATIONS = (1, 2, 5)


@dataclass(frozen=True)
class Config:
    channels: int = 16  # channels inside the network
    blocks: Count = 2  # grouped dual-path RNNs
    widths: tuple[int, ...] = ()  # of a pruned model, in the order of `units`; (): those that follow from channels


class GTCRN(Model):
    """The network over spectra: forward(spectrum [B, T, 257, 2], state) -> (spectrum, state).

    State: for each of the six GT blocks the past of its depth-wise conv [B, C, 2 d, 33] and its attention [1, B, C];
    for each dual-path RNN [2, B, 33, C / 2]. A pruned model has its own widths in place of C.
    """

    name = "gtcrn"
    paper = "Rong et al., GTCRN, ICASSP 2024 (IEEE 10448310)"
    deviations = (
        "plain causal convolutions in the decoder's GT blocks, which are the same functions with flipped kernels"
    )
    Config = Config
    presets = {"gtcrn": Config()}
    width_multiple = 4

    def __init__(self, config: Config):
        super().__init__()
        if config.channels % 4:
            raise ValueError(f"channels {config.channels}: must be a multiple of 4")
        self.config, c = config, config.channels
        width = self.units = Widths(config.widths)
        self.transform = STFT(512, 256)
        self.register_buffer("erb", torch.tensor(erb_matrix()), persistent=False)
        self.narrow = nn.ModuleList(
            [
                _conv(nn.Conv2d(9, c, (1, 5), (1, 2), (0, 2)), c),
                _conv(nn.Conv2d(c, c, (1, 5), (1, 2), (0, 2), groups=2), c),
            ]
        )
        self.encoder = nn.ModuleList(GTBlock(c, d, width, f"encoder.{i}") for i, d in enumerate(DILATIONS))
        self.rnns = nn.ModuleList(DualPath(c, width, f"rnns.{i}") for i in range(config.blocks))
        self.decoder = nn.ModuleList(GTBlock(c, d, width, f"decoder.{i}") for i, d in enumerate(reversed(DILATIONS)))
        self.widen = nn.Sequential(*_conv(nn.ConvTranspose2d(c, c, (1, 5), (1, 2), (0, 2), groups=2), c))
        self.mask = nn.Sequential(nn.ConvTranspose2d(c, 2, (1, 5), (1, 2), (0, 2)), nn.BatchNorm2d(2), nn.Tanh())

    def init_state(self, batch: int) -> State:
        pairs = [block.start(batch) for block in (*self.encoder, *self.decoder)]
        return (*(tensor for pair in pairs for tensor in pair), *(rnn.start(batch) for rnn in self.rnns))

    def forward(self, spectrum: Tensor, state: State) -> tuple[Tensor, State]:
        level = (spectrum.square().sum(-1, keepdim=True) + 1e-12).sqrt()
        x = torch.cat([level, spectrum], -1).permute(0, 3, 1, 2)  # [B, 3, T, 257]
        x = torch.cat([x[..., :LINEAR], F.linear(x[..., LINEAR:], self.erb)], -1)  # [B, 3, T, 129]
        x = neighbours(x)

        skips, after = [], []
        for layer in self.narrow:
            x = layer(x)
            skips.append(x)
        pasts = iter(state)
        for block in self.encoder:
            x, *kept = block(x, next(pasts), next(pasts))
            skips.append(x)
            after += kept
        memories = []
        for rnn, h in zip(self.rnns, state[len(state) - len(self.rnns) :]):
            x, h = rnn(x, h)
            memories.append(h)
        for block in self.decoder:
            x, *kept = block(x + skips.pop(), next(pasts), next(pasts))
            after += kept

        x = self.widen(x + skips.pop())
        mask = self.mask(x + skips.pop())  # [B, 2, T, 129]
        mask = torch.cat([mask[..., :LINEAR], F.linear(mask[..., LINEAR:], self.erb.T)], -1)
        (xr, xi), (mr, mi) = spectrum.unbind(-1), mask.unbind(1)
        return torch.stack([xr * mr - xi * mi, xr * mi + xi * mr], -1), (*after, *memories)


def erb_matrix() -> np.ndarray:
    """Triangles [64 bands, 192 bins] of height 1, evenly spaced in ERB from bin 65 to half the rate; columns sum to 1."""
    first, last = 2031.25, RATE / 2
    scale = np.linspace(21.4 * np.log10(1 + 0.00437 * first), 21.4 * np.log10(1 + 0.00437 * last), BANDS)
    peaks = np.round(512 * (10 ** (scale / 21.4) - 1) / 0.00437 / RATE)
    bins = np.arange(LINEAR, BINS)
    return np.stack([np.interp(bins, peaks, row) for row in np.eye(BANDS)]).astype(np.float32)


def neighbours(x: Tensor) -> Tensor:
    """[B, C, T, F] to [B, 3 C, T, F]: for each channel the bin below, the bin and the bin above, zeros at the ends."""
    padded = F.pad(x, (1, 1))
    return torch.stack([padded[..., :-2], x, padded[..., 2:]], 2).flatten(1, 2)


def _conv(conv: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.PReLU())


class GTBlock(nn.Module):
    """Grouped temporal convolution on [B, C, T, 33], of which the first half of the channels is processed."""

    def __init__(self, channels: int, dilation: int, width: Widths, name: str):
        super().__init__()
        half = channels // 2
        inner = width(name, channels)
        hidden = width(f"{name}.attention", channels)
        self.past = 2 * dilation
        self.spread = _conv(nn.Conv2d(3 * half, inner, 1), inner)
        self.depthwise = _conv(nn.Conv2d(inner, inner, 3, padding=(0, 1), dilation=(dilation, 1), groups=inner), inner)
        self.join = nn.Sequential(nn.Conv2d(inner, half, 1), nn.BatchNorm2d(half))
        self.attention = nn.GRU(half, hidden, batch_first=True)
        self.gain = nn.Linear(hidden, half)

    def start(self, batch: int) -> tuple[Tensor, Tensor]:
        weight, inner, hidden = self.gain.weight, self.join[0].in_channels, self.attention.hidden_size
        return weight.new_zeros(batch, inner, self.past, WIDTH), weight.new_zeros(1, batch, hidden)

    def forward(self, x: Tensor, past: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        processed, passed = x.chunk(2, 1)
        z = torch.cat([past, self.spread(neighbours(processed))], 2)
        past = z[:, :, -self.past :].clone()  # a view would keep all of a long chunk
        z = self.join(self.depthwise(z))
        energy = z.square().mean(-1).transpose(1, 2)  # [B, T, C / 2]
        gain, h = self.attention(energy, h)
        z = z * torch.sigmoid(self.gain(gain)).transpose(1, 2).unsqueeze(-1)
        return torch.stack([z, passed], 2).flatten(1, 2), past, h


class DualPath(nn.Module):
    """Grouped dual-path RNN on [B, C, T, 33]: along the bands of a frame, then along time, each half of the channels alone."""

    def __init__(self, channels: int, width: Widths, name: str):
        super().__init__()
        half = channels // 2
        intra, inter = width(f"{name}.intra", half // 2), width(f"{name}.inter", half)
        self.intra = nn.ModuleList(GroupedGRU(2, half, intra, reverse=(False, True)) for _ in range(2))
        self.intra_fc = nn.Linear(4 * intra, channels)
        self.intra_norm = nn.LayerNorm((WIDTH, channels), eps=1e-8)
        self.inter = GroupedGRU(2, half, inter)
        self.inter_fc = nn.Linear(2 * inter, channels)
        self.inter_norm = nn.LayerNorm((WIDTH, channels), eps=1e-8)

    def start(self, batch: int) -> Tensor:
        return self.inter.weight_hh.new_zeros(2, batch, WIDTH, self.inter.hidden_size)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        batch, _, time, _ = x.shape
        z = x.permute(0, 2, 3, 1)  # [B, T, 33, C]
        bands = z.reshape(1, batch * time, WIDTH, 1, -1)
        both = [
            gru(half)[0] for gru, half in zip(self.intra, bands.chunk(2, -1))
        ]  # forward and backward in time of bands, each half
        both = torch.cat(both, 0).squeeze(3).permute(1, 2, 0, 3).flatten(2).unflatten(0, (batch, time))
        z = z + self.intra_norm(self.intra_fc(both))
        paths, h = self.inter(z.unflatten(-1, (2, -1)).permute(3, 0, 1, 2, 4), h)
        z = z + self.inter_norm(self.inter_fc(paths.permute(1, 2, 3, 0, 4).flatten(3)))
        return z.permute(0, 3, 1, 2), h
