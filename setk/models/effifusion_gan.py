"""EffiFusion-GAN: magnitude and phase from depthwise-separable multi-scale convolutions and conformers; not causal.

Paper: Wen, Tan, "EffiFusion-GAN: Efficient Fusion Generative Adversarial Network for Speech Enhancement", 2025 (arXiv
2508.14525): VoiceBank+DEMAND, PESQ 3.45 with 1.08 M parameters. Layer sizes are not public to us, and there is no code.
This is our reading: MP-SENet (Lu, Ai, Ling, Interspeech 2023), which the paper builds upon, with separable
convolutions, and it has the paper's size. 16 kHz; window 400, hop 100.

Shapes at the published size, T frames:

    input       magnitude ** 0.3 and phase, of the signal at an RMS of 1                   2 x T x 201
    encoder     separable conv to 64; dense block; separable conv of stride 2             64 x T x 101
    blocks x 4  conformer along time, then along frequency, each x + conformer(x)         64 x T x 101
    magnitude   dense block; up; Conv to 1; 2 sigmoid(a_f x): mask on magnitude ** 0.3         T x 201
    phase       dense block; up; Conv to R and to I: the output's phase is that of R + iI      T x 201
    output      |Y| mask ** (1 / 0.3) (R + iI) / |R + iI|

    dense block   4 layers, dilations 1 2 4 8 in time, on all that came before, the newest first
    separable     depthwise conv, 1x1 conv, instance norm, PReLU. In a dense block the channels divide evenly among depthwise
                  kernels of several widths in frequency, which the 1x1 mixes: the multi-scale block
    conformer     x += FFN(x) / 2, x += LN(attention(LN(x))), x += convolution(x), x += FFN(x) / 2, LN(x)
    convolution   LN, 1x1 to 2 x 128, GLU, depthwise k 31, batch norm, SiLU, 1x1

`effifusion_gan-v` has MP-SENet's own ends and single-scale kernels, with which the count comes closest to the paper's; with
separable=False and second_norm=False it is MP-SENet's conformer version, 2,048,849 parameters.
`effifusion_gan-small` is for training on a CPU, some twenty times as fast: a quarter of the width, since every layer's memory
traffic falls with it, which depthwise convolutions and norms cost more than products; half the blocks; and heads as few as
still are several, as attention costs by the head. Its phase decoder gives the angle to the noisy phase (`turned`): from the
noisy phase on, short trainings get far; the phase itself takes long to learn. 50,480 parameters, 1.10 GMAC/s of 1 s, 1.26 of 2 s.

Choices, where the paper is silent:
  - attention has a norm before and one after it (the dual norm), the latter's gain starting at 0.1, so that the residual
    comes first. No positional encoding;
  - the signal's level is taken from the spectrum, by Parseval, and the mask has none: the output has the level of the input;
  - phase is a direction, never an angle: no wrapping, and silence stays silence;
  - frames are causal as everywhere in setk; MP-SENet's are centred, with reflected edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor, nn

from setk.audio.stft import STFT
from setk.models import Count, Model, State, Widths
from setk.nn.conformer import Attention, Convolution, FeedForward
from setk.nn.parts import central, constant

POWER = 0.3  # compression of magnitudes
DILATIONS = 1, 2, 4, 8
FFN, UNITS = 4, 2  # widths of a conformer's parts, in channels


@dataclass(frozen=True)
class Config:
    channels: int = 64
    blocks: Count = 4
    heads: Count = 4
    kernels: tuple[int, ...] = (3, 3, 5, 7)  # widths in frequency; each takes an equal part of the channels
    attended: int = 31  # frames, or bins, of a conformer's convolution
    separable: bool = True  # False: standard convolutions, of a single width
    second_norm: bool = True  # the norm after attention
    transposed: bool = False  # MP-SENet's ends: 1x1 in, 201 -> 100 bins, transposed convs up, a normalised magnitude
    turned: bool = False  # the phase decoder gives the angle to the noisy phase, not the phase itself
    dropout: float = 0.2  # in FFN and attention
    widths: tuple[int, ...] = ()  # of a pruned model, in the order of `units`; (): those that follow from channels


class EffiFusionGAN(Model):
    """The generator over spectra: forward(spectrum [B, T, 201, 2], ()) -> (spectrum, ()), of a full signal or window."""

    name = "effifusion_gan"
    paper = "Wen, Tan, EffiFusion-GAN, 2025 (arXiv 2508.14525)"
    deviations = "layer sizes are ours, of the published parameter count, after MP-SENet (see the module's text)"
    Config = Config
    presets = {
        "effifusion_gan": Config(),
        "effifusion_gan-v": Config(kernels=(3,), transposed=True),
        "effifusion_gan-small": Config(channels=16, blocks=2, heads=2, turned=True, dropout=0.0),
    }
    causal = False
    chunk_s = 4.0

    def __init__(self, config: Config):
        super().__init__()
        c = config.channels
        if c % config.heads or c % len(config.kernels):
            raise ValueError(
                f"channels={c} cannot be divided evenly among heads={config.heads} and {len(config.kernels)} kernels"
            )
        if not all(k % 2 for k in (*config.kernels, config.attended)):
            raise ValueError("kernels and attended must be odd")
        if not config.separable and len(set(config.kernels)) > 1:
            raise ValueError("standard convolutions are of a single width; kernels=(3,)")
        self.config, self.transform = config, STFT(400, 100, power=1.0)
        self.encoder = nn.Sequential(
            conv(2, c, (1, 1) if config.transposed else (3, 3), separable=config.separable),
            *_norm_act(c),
            Dense(config),
            conv(c, c, (1, 3), stride=2, pad=not config.transposed, separable=config.separable),
            *_norm_act(c),
        )
        self.units = Widths(config.widths)
        self.blocks = nn.ModuleList(
            TSBlock(*(Conformer(config, self.units, f"blocks.{i}.{axis}") for axis in ("time", "frequency")))
            for i in range(config.blocks)
        )
        self.magnitude = Magnitude(config, self.transform.bins)
        self.phase = Phase(config)

    @property
    def parts(self) -> dict[str, Callable[[], object]]:
        conformers = [x for block in self.blocks for x in (block.time, block.frequency)]

        def one_width() -> None:
            for block in (module for module in self.modules() if isinstance(module, MultiScale)):
                for conv in block.convs:
                    central(conv, min(self.config.kernels))

        found: dict[str, Callable[[], object]] = {
            "magnitude": lambda: self.magnitude.slope.zero_(),
            "attention": lambda: constant(x.attention.out for x in conformers),
            "convolution": lambda: constant(x.convolution.layers[-1] for x in conformers),
        }
        if len(set(self.config.kernels)) > 1:
            found["multi-scale"] = one_width
        if self.config.turned:
            found["phase"] = self._no_phase
        return found

    def _no_phase(self) -> None:
        constant(self.phase.real, 1.0)
        constant(self.phase.imag, 0.0)

    def forward(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        power = frames.square().sum(-1)
        scaled = frames * self._gain(power)[..., None, None]
        re, im = scaled.unbind(-1)
        # The offsets keep gradients finite at zero bins, as in MP-SENet.
        x = torch.stack([(re.square() + im.square() + 1e-9) ** (POWER / 2), torch.atan2(im + 1e-10, re + 1e-5)], 1)
        x = self.encoder(x)
        for block in self.blocks:
            x = block(x)
        mask, phase = self.magnitude(x).unsqueeze(-1) ** (1 / POWER), self.phase(x)
        if self.config.turned:
            (a, b), (r, i) = frames.unbind(-1), phase.unbind(-1)
            return mask * torch.stack([a * r - b * i, a * i + b * r], -1), ()
        return (power * (power + 1e-12).rsqrt()).unsqueeze(-1) * mask * phase, ()

    def _gain(self, power: Tensor) -> Tensor:
        """[B, 1] that brings the signals of power spectra [B, T, 201] to an RMS of 1."""
        both_sides = 2 * power.sum(-1) - power[..., 0] - power[..., -1]
        scale = self.transform.points * float((self.transform.analysis_window**2).sum())
        return (both_sides.mean(1, keepdim=True) / scale + 1e-10).rsqrt()


def conv(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    dilation: int = 1,
    stride: int = 1,
    pad: bool = True,
    separable: bool = True,
    widths: tuple[int, ...] = (),
) -> nn.Module:
    """A convolution over (time, frequency), standard or separable; it dilates in time and strides in frequency. `widths` are
    several kernels in frequency in place of one."""
    padding = dilation * (kernel[0] // 2), kernel[1] // 2 if pad else 0
    options = dict(stride=(1, stride), padding=padding, dilation=(dilation, 1))
    if not separable:
        return nn.Conv2d(inputs, outputs, kernel, **options)
    if len(set(widths)) > 1:
        depthwise = MultiScale(inputs, kernel[0], widths, dilation)
    else:
        depthwise = nn.Conv2d(inputs, inputs, kernel, groups=inputs, **options)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1))


def _norm_act(channels: int) -> tuple[nn.Module, nn.Module]:
    # A group norm of single channels is the instance norm, and on CPUs several times as fast.
    return nn.GroupNorm(channels, channels), nn.PReLU(channels)


class MultiScale(nn.Module):
    """Depthwise convolution whose kernels have several widths in frequency, each for an equal part of the channels."""

    def __init__(self, channels: int, height: int, widths: tuple[int, ...], dilation: int):
        super().__init__()
        self.parts = [channels // len(widths) * widths.count(width) for width in dict.fromkeys(widths)]
        self.convs = nn.ModuleList(
            nn.Conv2d(
                part,
                part,
                (height, width),
                padding=(dilation * (height // 2), width // 2),
                dilation=(dilation, 1),
                groups=part,
            )
            for part, width in zip(self.parts, dict.fromkeys(widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([conv(part) for conv, part in zip(self.convs, x.split(self.parts, 1))], 1)


class Dense(nn.Module):
    """The dilated dense block: [B, C, T, F] to the same shape."""

    def __init__(self, config: Config):
        super().__init__()
        c = config.channels
        self.layers = nn.ModuleList(
            nn.Sequential(
                conv(i * c, c, (3, config.kernels[0]), dilation, separable=config.separable, widths=config.kernels),
                *_norm_act(c),
            )
            for i, dilation in enumerate(DILATIONS, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.cat([layer(x), x], 1)
        return self.layers[-1](x)


class TSBlock(nn.Module):
    """[B, C, T, F]: a conformer along time for each bin, then one along frequency for each frame."""

    def __init__(self, time: nn.Module, frequency: nn.Module):
        super().__init__()
        self.time, self.frequency = time, frequency

    def forward(self, x: Tensor) -> Tensor:
        for permuted, conformer in (((0, 3, 2, 1), self.time), ((0, 2, 3, 1), self.frequency)):
            rows = x.permute(permuted)
            rows = rows + conformer(rows.flatten(0, 1)).view_as(rows)
            x = rows.permute((0, 3, 2, 1) if conformer is self.time else (0, 3, 1, 2))
        return x


class Conformer(nn.Module):
    """Sequences [N, L, C] to the same shape (Gulati et al. 2020)."""

    def __init__(self, config: Config, width: Widths, name: str):
        super().__init__()
        c = config.channels
        self.ffn1 = FeedForward(c, width(f"{name}.ffn1", FFN * c), config.dropout)
        head = width(f"{name}.attention", c // config.heads)
        self.attention = Attention(c, config.heads, head, config.second_norm, config.dropout)
        self.convolution = Convolution(c, width(f"{name}.convolution", UNITS * c), config.attended)
        self.ffn2 = FeedForward(c, width(f"{name}.ffn2", FFN * c), config.dropout)
        self.norm = nn.LayerNorm(c)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.ffn1(x)
        x = x + self.attention(x)
        x = x + self.convolution(x)
        x = x + 0.5 * self.ffn2(x)
        return self.norm(x)


class SubPixel(nn.Module):
    """A convolution to twice the channels, whose halves become the even and the odd bins: [B, C, T, F] -> [B, C, T, 2 F]."""

    def __init__(self, channels: int, separable: bool):
        super().__init__()
        self.conv = conv(channels, 2 * channels, (1, 3), separable=separable)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack(self.conv(x).chunk(2, 1), -1).flatten(3)


def _up(config: Config) -> nn.Module:
    c = config.channels
    return nn.ConvTranspose2d(c, c, (1, 3), (1, 2)) if config.transposed else SubPixel(c, config.separable)


class Magnitude(nn.Module):
    """[B, C, T, F / 2] to a mask [B, T, F] between 0 and 2, on compressed magnitudes."""

    def __init__(self, config: Config, bins: int):
        super().__init__()
        c = config.channels
        if config.transposed:
            head = _up(config), nn.Conv2d(c, 1, 1), *_norm_act(1), nn.Conv2d(1, 1, 1)
        else:
            head = _up(config), *_norm_act(c), nn.Conv2d(c, 1, (1, 2))
        self.layers = nn.Sequential(Dense(config), *head)
        self.slope = nn.Parameter(torch.ones(bins))

    def forward(self, x: Tensor) -> Tensor:
        return 2 * torch.sigmoid(self.slope * self.layers(x).squeeze(1))


class Phase(nn.Module):
    """[B, C, T, F / 2] to unit vectors [B, T, F, 2], cosine and sine of the phase."""

    def __init__(self, config: Config):
        super().__init__()
        c = config.channels
        self.layers = nn.Sequential(Dense(config), _up(config), *_norm_act(c))
        self.real, self.imag = (nn.Conv2d(c, 1, 1 if config.transposed else (1, 2)) for _ in range(2))
        if config.turned:  # training starts from the noisy phase
            with torch.no_grad():
                self.imag.weight *= 0.1
                self.real.weight *= 0.1
                self.imag.bias.zero_(), self.real.bias.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        x = torch.cat([self.real(x), self.imag(x)], 1).permute(0, 2, 3, 1)
        return x * (x.square().sum(-1, keepdim=True) + 1e-12).rsqrt()
