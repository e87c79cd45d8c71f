"""FSPEN: an ultra-lightweight network for real-time speech enhancement, full-band and sub-band fused.

Paper: Yang, Liu, Meng, Lee, Baek, Moon, "FSPEN: An Ultra-Lightweight Network for Real Time Speech Enhancement",
ICASSP 2024. 16 kHz; window 512, hop 256; strictly causal, no look-ahead, algorithmic latency 32 ms.

The idea. A full-band branch sees the complex spectrum and estimates a complex mask; a sub-band branch sees magnitudes, at a
resolution that falls with frequency as hearing does, and estimates a gain for each bin. Both meet in 32 bands of 16
channels, where recurrent layers work along the bands of a frame and along time. Everything except the recurrence over
time acts within a frame, so the only state is that of the inter-frame GRUs.

For a frame with compressed spectrum X = S |S|^(c - 1), c = 0.3, channels x positions:

    full-band encoder     f0 = [Re X, Im X]                      2 x 257
                          f1 = ELU BN conv6/2 f0                 4 x 128     kernel / stride over bins
                          f2 = ELU BN conv8/2 f1                16 x 64
                          f3 = ELU BN conv6/2 f2                32 x 32
    sub-band encoder      s = [ReLU BN conv_g |X|]              32 x 32      one conv for each group g of bands:
                                                                             8 + 6 + 6 + 6 + 6 bands of 2, 3, 5, 10, 20 bins
    merge                 z = conv1 ELU L [conv1 f3, s]         16 x 32      L: linear over the 32 + 32 positions
    D dual-path blocks    z <- z + LN FC BiGRU z                16 x 32      GRU along the 32 bands of the frame
                          z_p <- z_p + LN FC_p GRU_p z_p                     GRU along time, p = 1 ... P: 32 / P bands each
    split                 [u, v] = ELU L conv1 z                32 x 32 each
    full-band decoder     d1 = ELU BN convT6/2 [u, f3]          16 x 64
                          d2 = ELU BN convT8/2 [d1, f2]          4 x 128
                          M  = convT6/2 [d2, f1]                 2 x 257     complex mask
    sub-band decoder      G  = ReLU [A_g [v, s]]                 1 x 257     A_g: linear, a band's channels to its bins
    output                Z = M X,  |Y| = (|Z| + G |X|) / 2,  phase of Y = phase of Z,  expanded with 1 / c

Path extension. A GRU that all bands share has too few weights, and one as wide as the bands costs too many
multiplications. FSPEN splits the bands into P groups with a small GRU for each: GRU_p has its own weights, and
runs over the 32 / P bands of its group. The parameters grow with P, D (1632 + 272) P in all, and the multiplications not at all.

Deviations, where the paper is silent or its published re-implementations disagree:
  - the spectrum is compressed before the network and expanded after it (`compression`);
  - the last transposed conv has no norm or activation: ELU would clip the mask at -1;
  - sub-band convs read their true neighbouring bins, not zeros, at group edges, and each decoder value belongs to
    exactly one bin;
  - every block's inter-frame state is its own and starts at zero;
  - the mask starts near identity, so that training starts from the noisy signal.
Two readings have presets: `fspen` (norm after both branches, skips straight into the transposed convs, norm
in the sub-band encoder: 86 k parameters, 80 MMAC/s as ptflops counts) and `fspen-79k` (one norm, 1x1 convs
before the transposed ones: the paper's 79 k).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from setk.audio.stft import STFT, check_power, compress, magnitude
from setk.models import Count, Model, State, Widths
from setk.nn.gru import GroupedGRU, PathLinear
from setk.nn.level import check_range, spectra_at_known_level
from setk.nn.parts import constant

BINS, BANDS, WIDE, NARROW = 257, 32, 32, 16


@dataclass(frozen=True)
class BandGroup:
    """Sub-bands of equal width. The encoder is a convolution over bins [start, stop) after zero padding. The decoder puts out
    `width` values for each of the bands [first, last); of these values in a row [skip, skip + keep) are the group's bins."""

    start: int
    stop: int
    pad: tuple[int, int]
    kernel: int
    width: int  # bins per band: stride of the encoder, outputs of the decoder
    first: int
    last: int
    skip: int
    keep: int


# A band of the decoder spans `width` bins around the centre of the encoder's kernel. Where that grid does not meet the
# group's edge, a band of the neighbouring group fills the gap, and the surplus values are dropped.
GROUPS = (
    BandGroup(0, 17, (1, 0), 4, 2, 0, 8, 0, 16),
    BandGroup(13, 35, (0, 0), 7, 3, 8, 14, 1, 16),
    BandGroup(30, 66, (0, 0), 11, 5, 13, 21, 4, 32),
    BandGroup(61, 131, (0, 0), 20, 10, 19, 27, 8, 64),
    BandGroup(122, 257, (0, 5), 40, 20, 25, 33, 16, 129),  # band 32 does not exist: zeros
)
_CUTS = sorted({cut for g in GROUPS for cut in (g.first, g.last)})
PIECES = [b - a for a, b in zip(_CUTS, _CUTS[1:])]  # the longest runs of bands that no group's edge divides


def _kept() -> list[int]:
    """Where each bin's gain is in a row that has, for every band, the outputs of all groups."""
    outputs = sum(g.width for g in GROUPS)
    kept, before = [], 0
    for g in GROUPS:
        for at in range(g.skip, g.skip + g.keep):
            band, value = divmod(g.first * g.width + at, g.width)
            kept.append(band * outputs + before + value)
        before += g.width
    return kept


KEPT = _kept()


@dataclass(frozen=True)
class Config:
    groups: Count = 8  # P: inter-frame GRUs per block; divides 32
    dpe_blocks: Count = 3  # D: dual-path blocks with path extension
    compression: float = 0.3  # exponent of the magnitude inside the network; 1 = none
    norm_inter: bool = True  # LayerNorm after the inter-frame branch too
    norm_bands: bool = True  # LayerNorm over bands and channels; false: over channels
    decoder_1x1: bool = False  # 1x1 conv between skip and transposed conv
    subband_norm: bool = True  # BatchNorm in the sub-band encoder
    level_range: tuple[float, ...] = ()  # lowest and highest dBFS that the network sees (nn/level.py); empty: any
    widths: tuple[int, ...] = ()  # of a pruned model, in the order of `units`; (): the paper's


class FSPEN(Model):
    """The network over spectra: forward(spectrum [B, T, 257, 2], state) -> (spectrum, state).

    State: D tensors [P, B, 32 / P, 16], the hidden states of the inter-frame GRUs, and with a `level_range` the level [B, 1].
    """

    name = "fspen"
    paper = "Yang et al., FSPEN, ICASSP 2024"
    deviations = "compressed spectrum; unbounded complex mask; exact sub-band grid (see the module's text)"
    Config = Config
    width_multiple = 4
    presets = {
        "fspen": Config(),
        "fspen-79k": Config(norm_inter=False, norm_bands=False, decoder_1x1=True, subband_norm=False),
    }

    def __init__(self, config: Config):
        super().__init__()
        if config.groups < 1 or BANDS % config.groups:
            raise ValueError(f"groups {config.groups}: must divide {BANDS}")
        check_range(config.level_range)
        check_power(config.compression)
        self.config = config
        self.transform = STFT(512, 256)
        width = self.units = Widths(config.widths)
        e0, e1, e2 = (width(f"encoder.{i}", size) for i, size in enumerate((4, 16, 32)))
        bands, trunk = width("bands", WIDE), width("trunk", NARROW)
        blocks = [
            (width(f"blocks.{i}.intra", NARROW), width(f"blocks.{i}.inter", NARROW)) for i in range(config.dpe_blocks)
        ]
        split, d0, d1 = width("split", WIDE), width("decoder.0", 16), width("decoder.1", 4)
        s0, s1, s2 = (width(f"squeeze.{i}", size) if config.decoder_1x1 else None for i, size in enumerate((32, 16, 4)))
        self.full_encoder = nn.ModuleList([_encoder(2, e0, 6, 2), _encoder(e0, e1, 8, 3), _encoder(e1, e2, 6, 2)])
        self.full_project = nn.Conv1d(e2, bands, 1)
        self.sub_encoder = nn.ModuleList(_sub_encoder(g, bands, config.subband_norm) for g in GROUPS)
        self.merge_bands = nn.Linear(2 * BANDS, BANDS)
        self.merge_channels = nn.Conv1d(bands, trunk, 1)
        self.blocks = nn.ModuleList(DualPath(config, trunk, intra, inter) for intra, inter in blocks)
        self.split_channels = nn.Conv1d(trunk, split, 1)
        self.split_bands = nn.Linear(BANDS, 2 * BANDS)
        self.full_decoder = nn.ModuleList(
            [
                _decoder(split + e2, d0, 6, 2, s0),
                _decoder(d0 + e1, d1, 8, 3, s1),
                _decoder(d1 + e0, 2, 6, 2, s2, last=True),
            ]
        )
        self.sub_decoder = SubDecoder(nn.Linear(split + bands, g.width) for g in GROUPS)
        self._start_near_identity()

    def _start_near_identity(self) -> None:
        """A mask of about 1 and a gain of about 1: the output is the noisy signal."""
        mask = self.full_decoder[-1][-1]
        with torch.no_grad():
            mask.weight.mul_(0.1)
            mask.bias.copy_(torch.tensor([1.0, 0.0]))
            for linear in self.sub_decoder:
                linear.weight.mul_(0.1)
                linear.bias.fill_(1.0)

    def init_state(self, batch: int) -> State:
        weight = self.merge_bands.weight
        p = self.config.groups
        states = tuple(weight.new_zeros(p, batch, BANDS // p, block.inter.hidden_size) for block in self.blocks)
        return (*states, weight.new_zeros(batch, 1)) if self.config.level_range else states

    @property
    def parts(self) -> dict[str, Callable[[], object]]:
        def no_mask() -> None:
            mask = self.full_decoder[-1][-1]
            constant(mask)
            mask.bias[0] = 1

        return {
            "full-band": no_mask,
            "sub-band": lambda: constant(self.sub_decoder, 1.0),
            "intra-frame": lambda: constant(block.intra_norm for block in self.blocks),
            "inter-frame": lambda: constant(
                block.inter_norm if self.config.norm_inter else block.inter_fc for block in self.blocks
            ),
        }

    def forward(self, spectrum: Tensor, state: State) -> tuple[Tensor, State]:
        return spectra_at_known_level(
            self._enhance, spectrum, state, self.transform, self.sample_rate, self.config.level_range
        )

    def _enhance(self, spectrum: Tensor, state: State) -> tuple[Tensor, State]:
        batch, time = spectrum.shape[:2]
        x = spectrum.flatten(0, 1).transpose(1, 2)  # [N, 2, 257], N = B * T frames
        x = compress(x, self.config.compression, dim=1)
        level = magnitude(x, dim=1)  # [N, 1, 257]

        skips = []
        full = x
        for layer in self.full_encoder:
            full = layer(full)
            skips.append(full)
        bands = self._encode_bands(level)  # [N, 32, 32]
        both = torch.cat([self.full_project(full), bands], -1)
        z = self.merge_channels(F.elu(self.merge_bands(both))).transpose(-1, -2)  # [N, 32 bands, 16]

        z = z.unflatten(0, (batch, time))
        after = []
        for block, h in zip(self.blocks, state, strict=True):
            z, h = block(z, h)
            after.append(h)

        z = F.elu(self.split_bands(self.split_channels(z.flatten(0, 1).transpose(-1, -2))))
        full, sub = z.chunk(2, -1)  # [N, 32, 32] each
        for layer, skip in zip(self.full_decoder, reversed(skips)):
            full = layer(torch.cat([full, skip], 1))
        gain = F.relu(self.sub_decoder(torch.cat([sub, bands], 1)).unsqueeze(1))

        y = self._mask(x, level, full, gain)
        return y.transpose(1, 2).unflatten(0, (batch, time)), tuple(after)

    def _encode_bands(self, level: Tensor) -> Tensor:
        """Magnitude [N, 1, 257] to band features [N, 32 channels, 32 bands]."""
        parts = [encode(F.pad(level[:, :, g.start : g.stop], g.pad)) for g, encode in zip(GROUPS, self.sub_encoder)]
        return torch.cat(parts, -1)

    def _mask(self, x: Tensor, level: Tensor, mask: Tensor, gain: Tensor) -> Tensor:
        """Complex mask [N, 2, 257] and gain [N, 1, 257] on the compressed x [N, 2, 257]; expands the result."""
        (xr, xi), (mr, mi) = x.split(1, 1), mask.split(1, 1)
        z = torch.cat([xr * mr - xi * mi, xr * mi + xi * mr], 1)
        z_level = magnitude(z, dim=1)
        y_level = (z_level + level * gain) / 2
        # y_level ** (1 / c) in the direction of z. Where z is 0 the output is 0: magnitudes are never 0.
        return z * (y_level ** (1 / self.config.compression) / z_level)


def _encoder(inputs: int, outputs: int, kernel: int, pad: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(inputs, outputs, kernel, 2, pad), nn.BatchNorm1d(outputs), nn.ELU())


def _sub_encoder(group: BandGroup, channels: int, norm: bool) -> nn.Sequential:
    conv = nn.Conv1d(1, channels, group.kernel, group.width)
    return nn.Sequential(conv, nn.BatchNorm1d(channels), nn.ReLU()) if norm else nn.Sequential(conv, nn.ReLU())


class DualPath(nn.Module):
    """A dual-path block with path extension on [B, T, 32 bands, 16]: along the bands of a frame, then along time in P paths."""

    def __init__(self, config: Config, width: int, intra: int, inter: int):
        super().__init__()
        shape = (BANDS, width) if config.norm_bands else (width,)
        self.paths = config.groups
        self.intra = GroupedGRU(2, width, intra, reverse=(False, True))
        self.intra_fc = nn.Linear(2 * intra, width)
        self.intra_norm = nn.LayerNorm(shape)
        self.inter = GroupedGRU(config.groups, width, inter)
        self.inter_fc = PathLinear(config.groups, inter, width)
        self.inter_norm = nn.LayerNorm(shape) if config.norm_inter else nn.Identity()

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        batch, time = z.shape[:2]
        both, _ = self.intra(z.reshape(1, batch * time, BANDS, 1, z.shape[-1]))
        both = both.squeeze(3).permute(1, 2, 0, 3).reshape(batch, time, BANDS, 2 * self.intra.hidden_size)
        z = z + self.intra_norm(self.intra_fc(both))

        paths = z.unflatten(2, (self.paths, -1)).permute(2, 0, 1, 3, 4)  # [P, B, T, 32 / P, 16]
        paths, h = self.inter(paths, h)
        paths = self.inter_fc(paths).permute(1, 2, 0, 3, 4).flatten(2, 3)
        return z + self.inter_norm(paths), h


def _decoder(
    inputs: int, outputs: int, kernel: int, pad: int, squeeze: int | None, last: bool = False
) -> nn.Sequential:
    """The input has the channels of the decoder and of the skip. The last layer reaches 257 bins by output padding."""
    layers: list[nn.Module] = [nn.Conv1d(inputs, squeeze, 1)] if squeeze else []
    layers.append(nn.ConvTranspose1d(squeeze or inputs, outputs, kernel, 2, pad, output_padding=int(last)))
    if not last:
        layers += [nn.BatchNorm1d(outputs), nn.ELU()]
    return nn.Sequential(*layers)


class SubDecoder(nn.ModuleList):
    """A linear layer for each group of bands: features [N, 64 channels, 32 bands] to one value for each bin, [N, 257]."""

    def forward(self, features: Tensor) -> Tensor:
        # Groups share bands. The gradient of overlapping slices would be as many full-size zero tensors, a
        # tenth of a training step; that of disjoint pieces is one concatenation.
        pieces = F.pad(features, (0, 1)).transpose(1, 2).split(PIECES, 1)
        starts = [sum(PIECES[:i]) for i in range(len(PIECES))]
        parts = []
        for g, decode in zip(GROUPS, self):
            own = torch.cat([piece for piece, at in zip(pieces, starts) if g.first <= at < g.last], 1)
            parts.append(decode(own).flatten(1)[:, g.skip : g.skip + g.keep])
        return torch.cat(parts, -1)

    def export_forward(self, features: Tensor) -> Tensor:
        """All widths of every band, of which most are dropped: three nodes of a runtime, not thirty."""
        weight, bias = (torch.cat([getattr(linear, name) for linear in self]) for name in ("weight", "bias"))
        return F.linear(F.pad(features, (0, 1)).transpose(1, 2), weight, bias).flatten(1)[:, KEPT]
