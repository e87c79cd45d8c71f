"""FastEnhancer: recurrent attention along frequency with time memory in GRUs only, 22 k to 194 k parameters.

Paper: Ahn, Han, Woo, Kim, "FastEnhancer: Speed-Optimized Streaming Neural Speech Enhancement", ICASSP 2026 (arXiv 2509.21867).
16 kHz: window 512, hop 256; 48 kHz: window 1024, hop 512; Hann on both sides. Strictly causal, no look-ahead; algorithmic
latency is the window.

A frame, channels x bins, F0 = 256 (512), F1 = F0 / 4:

    Xc = X |X|^(0.3 - 1), the Nyquist bin dropped          2 x F0
    E0        conv 8, stride 4                            C1 x F1
    E1 ... Ee conv 3                                      C1 x F1
    down      linear along frequency, 1x1 conv            C2 x F2
    RNNFormer, K times                                    C2 x F2
    up        1x1 conv, linear along frequency            C1 x F1
    De ... D1 1x1 conv of [x, skip], conv 3               C1 x F1
    D0        1x1 conv of [x, skip], transposed conv 8     2 x F0: the complex mask M
    Y = Yc |Yc|^(1 / 0.3 - 1) with Yc = Xc M, the Nyquist bin 0

Convolutions are along frequency only, followed by batch norm and SiLU. An RNNFormer block is a GRU along time, whose weights
all bands share, and self-attention over the bands of one frame, each with a linear layer, batch norm and a residual. The
first block adds a learned position of the bands between the two. The linear layers along frequency are fixed triangles at
16 kHz and learn from there at 48 kHz. The weight of the last layer is one learned scale times a direction of norm 1.

Published parameter counts are those after folding each batch norm into the layer before it, and do not count the fixed
triangles: 21,774 for T. `folded_parameters` gives them.

Deviations: no weight norm on GRU and attention (a reparameterization of training); |X| is floored smoothly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from setk.audio.stft import STFT, compress
from setk.models import Count, Model, State, Widths
from setk.nn.gru import GroupedGRU

POWER = 0.3


@dataclass(frozen=True)
class Config:
    channels: int = 24  # C1, channels of the convolutions
    encoders: Count = 2  # e, convolutions of width 3 in the encoder, and in the decoder
    blocks: Count = 2  # K, RNNFormer blocks
    features: int = 20  # C2, channels inside the RNNFormer
    bands: int = 16  # F2, bands inside the RNNFormer
    heads: Count = 4  # of attention
    rate: int = 16000  # sample rate [Hz]
    window: int = 512  # STFT window [samples]
    hop: int = 256  # STFT hop [samples]
    learned_bands: bool = False  # whether the linear layers along frequency learn
    widths: tuple[int, ...] = ()  # of a pruned model, in the order of `units`; (): C1, C2


def _full_band(**sizes: int) -> Config:
    return Config(rate=48000, window=1024, hop=512, learned_bands=True, **sizes)


class FastEnhancer(Model):
    """The network over spectra: forward(spectrum [B, T, F0 + 1, 2], state) -> (spectrum, state).

    State: h of each block's GRU, [1, B, F2, C2], or its own width in place of C2 in a pruned model.
    """

    name = "fastenhancer"
    paper = "Ahn et al., FastEnhancer, ICASSP 2026 (arXiv 2509.21867)"
    deviations = "no weight norm; smooth floor of the magnitude"
    Config = Config
    presets = {
        "fastenhancer-t": Config(),
        "fastenhancer-b": Config(48, 2, 3, 36, 24),
        "fastenhancer-s": Config(64, 3, 3, 48, 36),
        "fastenhancer-t-48k": _full_band(channels=24, encoders=2, blocks=2, features=20, bands=24),
        "fastenhancer-b-48k": _full_band(channels=48, encoders=2, blocks=3, features=36, bands=36),
    }
    width_multiple = 4

    def __init__(self, config: Config):
        super().__init__()
        if config.window % 8 or config.features % config.heads or config.features % 2:
            raise ValueError("window must be a multiple of 8, features of heads and of 2")
        if config.bands < 2:
            raise ValueError(f"bands {config.bands}: must be 2 or more")
        self.config, self.sample_rate = config, config.rate
        self.transform = STFT(config.window, config.hop, power=1.0)
        c1, c2, narrow, f2 = config.channels, config.features, config.window // 8, config.bands
        width = self.units = Widths(config.widths)
        skips = [width("first", c1), *(width(f"encoder.{i}", c1) for i in range(config.encoders))]
        self.first = _conv(2, skips[0], 8, stride=4, padding=2)
        self.encoder = nn.ModuleList(_conv(a, b, 3, padding=1) for a, b in zip(skips, skips[1:]))
        self.down_bands, self.up_bands = (Bands(matrix, config.learned_bands) for matrix in band_matrices(narrow, f2))
        self.down = nn.Sequential(nn.Conv1d(skips[-1], c2, 1, bias=False), nn.BatchNorm1d(c2))
        self.blocks = nn.ModuleList(
            RNNFormer(config, width, f"blocks.{i}", positioned=i == 0) for i in range(config.blocks)
        )
        x = width("up", c1)
        self.up = nn.Sequential(nn.Conv1d(c2, x, 1, bias=False), nn.BatchNorm1d(x))
        self.decoder = nn.ModuleList()
        for i, skip in enumerate(reversed(skips[1:])):
            inner, after = width(f"decoder.{i}.inner", c1), width(f"decoder.{i}", c1)
            self.decoder.append(nn.Sequential(_conv(x + skip, inner, 1), _conv(inner, after, 3, padding=1)))
            x = after
        last = width("join", c1)
        self.join = _conv(x + skips[0], last, 1)
        self.last = ScaledConvTranspose(last)

    @property
    def folded_parameters(self) -> int:
        """Learned parameters once every batch norm and the last layer's scale are part of the weights next to them."""
        learned = sum(p.numel() for p in self.parameters() if p.requires_grad)
        # A batch norm has a gain and a shift for each channel; folded, only a bias is left.
        return (
            learned
            - sum(m.num_features for m in self.modules() if isinstance(m, nn.BatchNorm1d))
            - self.last.scale.numel()
        )

    def init_state(self, batch: int) -> State:
        new = self.join[0].weight.new_zeros
        return tuple(new(1, batch, self.config.bands, block.gru.hidden_size) for block in self.blocks)

    def forward(self, spectrum: Tensor, state: State) -> tuple[Tensor, State]:
        batch, time = spectrum.shape[:2]
        compressed = compress(spectrum[:, :, :-1], POWER)  # [B, T, F0, 2]
        x = self.first(compressed.flatten(0, 1).transpose(1, 2))  # [N, C1, F1], N = B * T frames
        skips = [x]
        for layer in self.encoder:
            x = layer(x)
            skips.append(x)

        x = self.down(self.down_bands(x)).transpose(1, 2).unflatten(0, (batch, time))  # [B, T, F2, C2]
        after = []
        for block, h in zip(self.blocks, state, strict=True):
            x, h = block(x, h)
            after.append(h)
        x = self.up(self.up_bands(x.flatten(0, 1).transpose(1, 2)))

        for layer in self.decoder:
            x = layer(torch.cat([x, skips.pop()], 1))
        mask = self.last(self.join(torch.cat([x, skips.pop()], 1)))  # [N, 2, F0]
        mask = mask.transpose(1, 2).unflatten(0, (batch, time))
        (xr, xi), (mr, mi) = compressed.unbind(-1), mask.unbind(-1)
        y = compress(torch.stack([xr * mr - xi * mi, xr * mi + xi * mr], -1), 1 / POWER)
        return F.pad(y, (0, 0, 0, 1)), tuple(after)


def band_matrices(wide: int, narrow: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangles [narrow, wide] and [wide, narrow], rows of sum 1: evenly spaced bands of a spectrum, and back."""
    spacing = (wide - 1) / (narrow - 1)
    distance = np.abs(np.arange(wide) - spacing * np.arange(narrow)[:, None])
    down = np.maximum(0, 1 - distance / spacing)
    down /= down.sum(1, keepdims=True)
    up = down.T / down.T.sum(1, keepdims=True)
    return down.astype(np.float32), up.astype(np.float32)


class Bands(nn.Module):
    """A linear layer along frequency, [..., F] to [..., G], fixed or learned from a matrix [G, F] on."""

    def __init__(self, matrix: np.ndarray, learned: bool):
        super().__init__()
        weight = torch.tensor(matrix)
        if learned:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm1d(outputs), nn.SiLU()
    )


class ScaledConvTranspose(nn.Module):
    """Transposed conv C1 -> 2, kernel 8, stride 4, whose weight is scale * V / |V|, the norm over all of V."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, 2, 8, 4, 2)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight * (self.scale / self.conv.weight.norm())
        return F.conv_transpose1d(x, weight, self.conv.bias, 4, 2)


class RNNFormer(nn.Module):
    """GRU along time, then attention over the bands of a frame, on [B, T, F2, C2]."""

    def __init__(self, config: Config, width: Widths, name: str, positioned: bool):
        super().__init__()
        features = config.features
        self.heads = config.heads
        self.scale = (features // config.heads) ** -0.5  # that of the full width, in a pruned model too
        hidden, head = width(f"{name}.gru", features), width(f"{name}.attention", features // config.heads)
        self.gru = GroupedGRU(1, features, hidden)
        self.gru_fc = nn.Linear(hidden, features, bias=False)
        self.gru_norm = nn.BatchNorm1d(features)
        self.position = nn.Parameter(torch.tensor(positions(config.bands, features))) if positioned else None
        self.qkv = nn.Linear(features, 3 * config.heads * head, bias=False)
        self.attention_fc = nn.Linear(config.heads * head, features, bias=False)
        self.attention_norm = nn.BatchNorm1d(features)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        z, h = self.gru(x.unsqueeze(0), h)
        x = x + _normed(self.gru_norm, self.gru_fc(z.squeeze(0)))
        if self.position is not None:
            x = x + self.position
        q, k, v = (
            self.qkv(x).unflatten(-1, (self.heads, 3, -1)).transpose(2, 3).unbind(-2)
        )  # [B, T, heads, F2, C2 / heads]
        weights = torch.softmax(q @ k.transpose(-1, -2) * self.scale, -1)
        z = (weights @ v).transpose(2, 3).flatten(3)
        return x + _normed(self.attention_norm, self.attention_fc(z)), h


def positions(bands: int, features: int) -> np.ndarray:
    """Sines and cosines [F2, C2] that distinguish bands: the start of the learned position."""
    angle = np.pi * np.arange(1, bands + 1) / bands
    rates = np.geomspace(1, bands - 1, features // 2)
    waves = angle[:, None] * rates
    return np.concatenate([np.sin(waves), np.cos(waves)], 1).astype(np.float32)


def _normed(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch norm over the last dimension of x [B, T, F, C]."""
    return norm(x.flatten(0, 2)).view_as(x)
