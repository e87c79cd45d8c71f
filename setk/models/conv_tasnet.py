"""Conv-TasNet: a mask on a learned encoding of the waveform, from a temporal convolutional network.

Papers: Luo, Mesgarani, "Conv-TasNet: Surpassing Ideal Time-Frequency Magnitude Masking for Speech Separation", 2019, as
asteroid configures it for one speaker at 16 kHz; and, with a splitter and a residual, the network of FQSE (Cohen et al.,
"Fully Quantized Neural Networks for Audio Source Separation", 2024), which in floating point is the same except for two small
convolutions.

Shapes, one second at the published sizes, 999 frames of 2 ms every millisecond:

    encoder     1 or 2 planes -> Conv 512, k 32, stride 16, no bias, no activation: w
    bottleneck  gLN, 1x1 to 128: x
    24 blocks   1x1 to 512, PReLU, gLN, depthwise k 3 with dilation 2^(i mod 8), PReLU, gLN: h
                x <- x + 1x1(h), skips <- skips + 1x1(h)
    mask        PReLU, 1x1 to 512, ReLU: m
    decoder     m w -> transposed Conv 1, k 32, stride 16, no bias

gLN normalises over channels and the full signal, and the convolutions look both ways: the model is not causal and processes a
signal, or a chunk of one, at once.

FQSE's splitter scales each signal to a peak of 1 and splits it into two planes that are exact in 8 bits, which together hold
15; the output gets its level back. Its residual encodes the output y0 again and decodes the difference of that to what was
decoded: y = y0 + decoder(m w - encoder'(y0)) / 256. Quantized to 8 bits, y0 and y1 hold 16 between them.

Deviations and readings:
  - the second plane's filters begin as what the float model would make of it, where FQSE draws them at random, which costs
    the first hundred steps (`adopt`);
  - the scale of the splitter is that of each signal, where the published code takes that of the batch; silence stays silent;
  - the last block's residual convolution, whose result nothing takes, is computed and counted as published; its gradient
    is zero;
  - a signal shorter than a frame is padded to one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from setk.audio.stft import Frames
from setk.models import Count, Model, State, Widths
from setk.nn.parts import central, constant, weight_of
from setk.nn.quantization import Add, Multiply, Signal, Subtract

STEP = 1 / 128  # of the splitter's planes


@dataclass(frozen=True)
class Config:
    window: int = 32  # L: samples of a frame; frames overlap by half
    filters: int = 512  # N
    bottleneck: int = 128  # B
    hidden: int = 512  # H
    skip: int = 128  # Sc
    kernel: int = 3  # P
    blocks: Count = 8  # X: blocks of a repeat, with dilations 1, 2, 4 ...
    repeats: Count = 3  # R
    splitter: Count = 1  # planes of 8 bits that the input is split into, 1 (not split) or 2
    residual: bool = False  # whether the rounding of the output is encoded and decoded again
    widths: tuple[int, ...] = ()  # of a pruned model, in the order of `units`; (): `hidden`


class Block(nn.Module):
    """x [B, bottleneck, T] -> (residual [B, bottleneck, T], skip [B, skip, T])."""

    def __init__(self, bottleneck: int, hidden: int, skip: int, kernel: int, dilation: int):
        super().__init__()
        self.shared_block = nn.Sequential(
            nn.Conv1d(bottleneck, hidden, 1),
            nn.PReLU(),
            gln(hidden),
            nn.Conv1d(hidden, hidden, kernel, padding=(kernel - 1) // 2 * dilation, dilation=dilation, groups=hidden),
            nn.PReLU(),
            gln(hidden),
        )
        self.res_conv = nn.Conv1d(hidden, bottleneck, 1)
        self.skip_conv = nn.Conv1d(hidden, skip, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.shared_block(x)
        return self.res_conv(h), self.skip_conv(h)


def gln(channels: int) -> nn.GroupNorm:
    """Global layer norm: over channels and time, with a gain and a bias for each channel."""
    return nn.GroupNorm(1, channels, eps=1e-8)


class Masker(nn.Module):
    """The encoding [B, filters, T] -> a mask [B, filters, T] of 0 and above."""

    def __init__(self, c: Config, hidden: Iterable[int]):
        super().__init__()
        self.bottleneck = nn.Sequential(gln(c.filters), nn.Conv1d(c.filters, c.bottleneck, 1))
        self.TCN = nn.ModuleList(
            Block(c.bottleneck, h, c.skip, c.kernel, 2 ** (i % c.blocks)) for i, h in enumerate(hidden)
        )
        self.residual_adds = nn.ModuleList(Add() for _ in self.TCN[1:])
        self.skip_adds = nn.ModuleList(Add() for _ in self.TCN[1:])
        self.mask_net = nn.Sequential(nn.PReLU(), nn.Conv1d(c.skip, c.filters, 1), nn.ReLU())

    def forward(self, encoding: Tensor) -> Tensor:
        x = self.bottleneck(encoding)
        residual, skips = self.TCN[0](x)
        for block, residual_add, skip_add in zip(self.TCN[1:], self.residual_adds, self.skip_adds):
            x = residual_add(x, residual)
            residual, skip = block(x)
            skips = skip_add(skips, skip)
        if torch.is_grad_enabled():
            skips = (
                skips + 0 * residual.mean()
            )  # nothing reads the last one; distributed training needs a gradient of it
        return self.mask_net(skips)


@torch.no_grad()
def split(x: Tensor) -> Tensor:
    """x [B, 1, n] in -1 ... 1 to two planes [B, 2, n] on the grid of signed 8-bit numbers / 128:
    x = s0 + (s1 + 1) / 256 up to 2^-15 (FQSE)."""
    s0 = (torch.floor(x / STEP) * STEP).clamp(-1, 1 - STEP)
    s1 = (torch.floor((2 * (x - s0) / STEP - 1) / STEP) * STEP).clamp(-1, 1 - STEP)
    return torch.cat([s0, s1], 1)


class ConvTasNet(Model):
    """The network on pieces of waveform that do not overlap: forward(frames [B, T, 16], ()) -> (frames, ())."""

    name = "conv_tasnet"
    paper = "Luo & Mesgarani, Conv-TasNet, 2019 (asteroid's 16 kHz); Cohen et al., FQSE, 2024"
    deviations = "the splitter scales each signal by itself (see the module's text)"
    Config = Config
    presets = {
        "conv_tasnet": Config(),
        "fqse": Config(splitter=2, residual=True),
        "conv_tasnet-small": Config(filters=256, bottleneck=64, hidden=128, skip=64, blocks=7, repeats=2),
        "fqse-small": Config(
            filters=256, bottleneck=64, hidden=128, skip=64, blocks=7, repeats=2, splitter=2, residual=True
        ),
    }
    causal = False

    def __init__(self, config: Config):
        super().__init__()
        c = config
        if c.window % 2 or c.kernel % 2 == 0:
            raise ValueError(f"window {c.window} must be even and kernel {c.kernel} odd")
        if c.splitter not in (1, 2):
            raise ValueError(f"splitter {c.splitter}: 1 or 2 planes")
        self.config, self.transform = config, Frames(c.window // 2, c.window // 2)
        self.input = Signal((-1.0, 1 - STEP) if c.splitter == 2 else None)
        self.encoder = nn.Conv1d(c.splitter, c.filters, c.window, c.window // 2, bias=False)
        self.units = Widths(c.widths)
        self.masker = Masker(c, [self.units(f"blocks.{i}", c.hidden) for i in range(c.repeats * c.blocks)])
        self.mul = Multiply()
        self.decoder = nn.ConvTranspose1d(c.filters, 1, c.window, c.window // 2, bias=False)
        self.output = Signal()
        self.bare = (f"masker.TCN.{len(self.masker.TCN) - 1}.res_conv", "decoder")
        if c.residual:
            self.residual_encoder = nn.Conv1d(1, c.filters, c.window, c.window // 2, bias=False)
            self.sub = Subtract()
            self.residual_output = Signal()
            self.bare += ("residual_encoder",)

    def adopt(self, source: Model) -> None:
        """Also from the same without splitter and residual, in floating point. The second plane, of weight 1 / 256, then
        has the filters of the first at that weight; those of the residual keep their start."""
        begins = replace(self.config, splitter=1, residual=False)
        if source.config != begins or source.config == self.config or source.quantization:
            return super().adopt(source)
        weights = source.state_dict()
        if self.config.splitter == 2:
            first = weights["encoder.weight"]
            weights["encoder.weight"] = torch.cat([first, first * (STEP / 2)], 1)
        self.load_state_dict(self.state_dict() | weights)

    @property
    def parts(self) -> dict[str, Callable[[], object]]:
        blocks = self.masker.TCN

        def no_dilation() -> None:
            for block in blocks:
                central(block.shared_block[3])

        found: dict[str, Callable[[], object]] = {
            "dilated": no_dilation,
            "residual-path": lambda: constant(block.res_conv for block in blocks),
            "skip-path": lambda: constant(block.skip_conv for block in blocks[:-1]),
        }
        if self.config.splitter == 2:
            found["splitter"] = lambda: weight_of(self.encoder)[:, 1].zero_()
        if self.config.residual and self.quantization:
            found["residual"] = self._no_residual
        return found

    def _no_residual(self) -> None:
        """The range of the residual's quantizer is empty, so that all that it lets pass is zero."""
        quantizer = self.activation_quantizers["residual_output"]
        quantizer.lo.zero_()
        quantizer.hi.zero_()

    def forward(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        wave = frames.flatten(1).unsqueeze(1)
        if frames.shape[1] == 1:
            wave = F.pad(wave, (0, wave.shape[-1]))
        if self.config.splitter == 1:
            out = self.separate(wave)
        else:
            peak = wave.abs().amax(-1, keepdim=True)
            out = self.separate(split(wave / peak.clamp(min=1e-12))) * peak
        return out.view(frames.shape[0], -1, frames.shape[2])[:, : frames.shape[1]], ()

    def separate(self, planes: Tensor) -> Tensor:
        """Planes [B, 1 or 2, n] to waveform [B, 1, n], n a multiple of half a window."""
        encoding = self.encoder(self.input(planes))
        features = self.mul(self.masker(encoding), encoding)
        y0 = self.output(self.decoder(features))
        if not self.config.residual:
            return y0
        rest = self.sub(features, self.residual_encoder(y0))
        return y0 + self.residual_output(self.decoder(rest)) * (STEP / 2)
