"""DCCRN: a convolutional recurrent network of complex layers, which masks the complex spectrum.

Paper: Hu, Liu, Lv, Xing, Zhang, Fu, Wu, Zhang, Xie, "DCCRN: Deep Complex Convolution Recurrent Network for
Phase-Aware Speech Enhancement", Interspeech 2020. Sizes are those of its authors' code in the variant CL: 3.67 M
parameters. 16 kHz; window 400, hop 100, FFT 512; 6 frames of look-ahead, algorithmic latency 62.5 ms.

Shapes, a frame at a time (C x F: channels, real and imaginary halves together, by bins without DC):

    encoder    2 x 256 -> 32 x 128 -> 64 x 64 -> 128 x 32 -> 256 x 16 -> 256 x 8 -> 256 x 4
    recurrent  each half 4 * 128 -> complex LSTM 128, twice -> Linear 128 -> 512, one for each half
    decoder    the same way back; layer j reads the layer before it and the encoder's at its width
    output     complex mask M at 256 bins:  Y = X * M / |M| * tanh |M|;  nothing passes at DC

Kernels are 2 frames by 5 bins, with a stride of 2 over bins. A complex layer is two real ones, R and I:
(R x_r - I x_i) + j (R x_i + I x_r), for the LSTM too. Behind all but the last, BatchNorm and PReLU.

Look-ahead: the encoder's kernels read the frame before, the decoder's the frame after, one for each of 6 layers. So
as a stream runs, decoder layer j is j frames late, and so are the skips that it reads. `dccrn-causal` has the
decoder read the frame before: the same size and cost, latency 25 ms, but not the published model.

Deviations:
  - the authors clamp the waveform to [-1, 1]; others bring the whole input to unit RMS before and back after. A
    stream knows neither its own level nor that of what is to come, so there is none of it;
  - |M| is floored, not the two parts of a phase: this form of the mask (E in the paper) needs no angles;
  - after the end of a signal the network reads frames of silence, where the authors' decoder reads nothing;
  - the mask starts near 1, so that training starts from the noisy signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from setk.audio.stft import STFT, magnitude
from setk.models import Model, State

BINS = 256  # without DC


@dataclass(frozen=True)
class Config:
    window: int = 400
    hop: int = 100
    causal: bool = False  # no look-ahead
    channels: tuple[int, ...] = (32, 64, 128, 256, 256, 256)  # of the encoder, real and imaginary together
    complex_lstm: bool = (
        True  # false: two layers of a real LSTM that reads both halves, variants R, C and E of the paper
    )
    units: int = 256  # of the LSTM, real and imaginary together


class DCCRN(Model):
    """The network over spectra: forward(spectrum [B, T, 257, 2], state) -> (spectrum, state).

    State: the last input of each encoder layer [B, C, 1, F]; h and c of the LSTMs, [2, B, 128] for R and for I of both
    layers (a real LSTM: [2, B, 256] once); of each decoder layer, what it still adds to its next frame [B, C, 1, F], and
    before that, with look-ahead, j frames of the skip of layer j > 0 [B, C, j, F]; at last 6 frames of spectrum.
    """

    name = "dccrn"
    paper = "Hu et al., DCCRN, Interspeech 2020, variant CL of its authors' code"
    deviations = (
        "no normalisation or clamp of the waveform; mask without angles; start near identity (see the module's text)"
    )
    Config = Config
    presets = {"dccrn": Config(), "dccrn-512": Config(window=512, hop=128), "dccrn-causal": Config(causal=True)}

    def __init__(self, config: Config):
        super().__init__()
        layers = len(config.channels)
        if not layers or BINS % 2**layers or any(c < 2 or c % 2 for c in (*config.channels, config.units)):
            raise ValueError("1 to 8 channels, all even, and so are units")
        self.config = config
        self.transform = STFT(config.window, config.hop, fft=512, power=1.0)
        sizes = list(pairwise((2, *config.channels)))
        self.lookahead = 0 if config.causal else len(sizes)
        self.encoder = nn.ModuleList(Encoder(a, b) for a, b in sizes)
        self.width = BINS >> len(sizes)
        features, units = config.channels[-1] * self.width, config.units
        if config.complex_lstm:
            self.recurrent = nn.ModuleList(
                [ComplexLSTM(features // 2, units // 2), ComplexLSTM(units // 2, units // 2)]
            )
            self.project = nn.ModuleList(nn.Linear(units // 2, features // 2) for _ in range(2))
        else:
            self.recurrent = nn.LSTM(features, units, 2, batch_first=True)
            self.project = nn.Linear(units, features)
        self.decoder = nn.ModuleList(Decoder(2 * b, a, last=a == 2) for a, b in reversed(sizes))
        self._start_near_identity()

    def _start_near_identity(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, std=0.05)
                nn.init.zeros_(module.bias)
        last = self.decoder[-1].conv
        with torch.no_grad():
            for conv, bias in ((last.real, 0.75), (last.imag, -0.75)):  # M = 1.5, |Y| = 0.9 |X|
                conv.weight *= 0.1
                conv.bias += bias

    def init_state(self, batch: int) -> State:
        sizes = [(c, 1, BINS >> i) for i, c in enumerate((2, *self.config.channels))]  # C, 1, F of each layer's input
        units = self.config.units
        shapes = [(batch, *size) for size in sizes[:-1]]
        shapes += [(2, batch, units // 2)] * 8 if self.config.complex_lstm else [(2, batch, units)] * 2
        for j in range(len(self.decoder)):
            if j and self.lookahead:
                c, _, width = sizes[-1 - j]
                shapes.append((batch, c, j, width))
            shapes.append((batch, *sizes[-2 - j]))
        if self.lookahead:
            shapes.append((batch, self.lookahead, BINS + 1, 2))
        return tuple(self.decoder[0].conv.real.weight.new_zeros(shape) for shape in shapes)

    def forward(self, spectrum: Tensor, state: State) -> tuple[Tensor, State]:
        left, after, skips = iter(state), [], []
        x = spectrum[:, :, 1:].permute(0, 3, 1, 2)  # [B, 2, T, 256]
        for layer in self.encoder:
            x, past = layer(x, next(left))
            skips.append(x)
            after.append(past)
        x, hidden = self._recur(x, left)
        after += hidden
        for j, layer in enumerate(self.decoder):
            skip = skips.pop()
            if j and self.lookahead:
                skip, past = _delay(next(left), skip, 2)
                after.append(past)
            x, tail = layer(x, skip, next(left))
            after.append(tail)
        if self.lookahead:
            spectrum, past = _delay(next(left), spectrum, 1)
            after.append(past)
        mask = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 0))  # [B, T, 257, 2]
        return _masked(spectrum, mask), tuple(after)

    def _recur(self, x: Tensor, state: Iterator[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """x [B, C, T, F] through LSTMs and back."""
        batch, _, time, width = x.shape
        if not self.config.complex_lstm:
            z, after = self.recurrent(x.transpose(1, 2).flatten(2), (next(state), next(state)))
            return self.project(z).view(batch, time, -1, width).transpose(1, 2), list(after)
        z, after = _stack(x).transpose(1, 2).flatten(2), []  # [2 B, T, C / 2 * F]
        for layer in self.recurrent:
            z, hidden = layer(z, [next(state) for _ in range(4)])
            after += hidden
        halves = [project(half).view(batch, time, -1, width) for project, half in zip(self.project, z.chunk(2))]
        return torch.cat(halves, 2).transpose(1, 2), after


def _stack(x: Tensor) -> Tensor:
    """Halves of the channels [B, C, ...] as items of a batch: [2 B, C / 2, ...], the real ones first."""
    return torch.cat(x.chunk(2, 1))


def _product(r: Tensor, i: Tensor, dim: int) -> Tensor:
    """What the layers R and I made of stacked halves, [2 B, ...] each, as the complex product, its halves joined in `dim`."""
    (rr, ri), (ir, ii) = r.chunk(2), i.chunk(2)
    return torch.cat([rr - ii, ri + ir], dim)


def _delay(past: Tensor, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """x after as many frames as `past` holds; the past of what follows. Time is `dim`."""
    x, after = torch.cat([past, x], dim).split([x.shape[dim], past.shape[dim]], dim)
    return x, after.clone()  # a view would keep all of a long chunk for its last frames


def _masked(x: Tensor, mask: Tensor) -> Tensor:
    """x [..., 2] by a complex mask [..., 2] whose magnitude |M| is made tanh |M|."""
    level = magnitude(mask)
    (a, b), (c, d) = x.unbind(-1), (mask * (torch.tanh(level) / level)).unbind(-1)
    return torch.stack([a * c - b * d, a * d + b * c], -1)


class ComplexConv(nn.Module):
    """Conv of 2 frames by 5 bins, stride 2 over bins, from and to channels of which a half is real and a half imaginary."""

    def __init__(self, kind: type[nn.Module], inputs: int, outputs: int, **options: Any):
        super().__init__()
        self.real, self.imag = (kind(inputs // 2, outputs // 2, (2, 5), (1, 2), (0, 2), **options) for _ in range(2))

    @property
    def bias(self) -> Tensor:
        """What it adds to its output, [C, 1, 1]."""
        return torch.cat([self.real.bias - self.imag.bias, self.real.bias + self.imag.bias])[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        x = _stack(x)
        return _product(self.real(x), self.imag(x), 1)


class Encoder(nn.Module):
    """[B, I, T, F] -> [B, O, T, F / 2], from this frame and the one before."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = ComplexConv(nn.Conv2d, inputs, outputs)
        self.norm = nn.Sequential(nn.BatchNorm2d(outputs), nn.PReLU())

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([past, x], 2)
        return self.norm(self.conv(x)), x[:, :, -1:].clone()


class Decoder(nn.Module):
    """[B, I, T, F], twice -> [B, O, T, 2 F]. The last layer has no norm and no activation."""

    def __init__(self, inputs: int, outputs: int, last: bool):
        super().__init__()
        self.conv = ComplexConv(nn.ConvTranspose2d, inputs, outputs, output_padding=(0, 1))
        self.norm = nn.Identity() if last else nn.Sequential(nn.BatchNorm2d(outputs), nn.PReLU())

    def forward(self, x: Tensor, skip: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        """`tail` is what the frame before adds to the first one; with it comes what the last one adds to the next."""
        time = x.shape[2]
        (a, b), (c, d) = x.chunk(2, 1), skip.chunk(2, 1)
        y, after = self.conv(torch.cat([a, c, b, d], 1)).split([time, 1], 2)
        return self.norm(y + F.pad(tail, (0, 0, 0, time - 1))), after - self.conv.bias


class ComplexLSTM(nn.Module):
    """Stacked halves [2 B, T, I] -> [2 B, T, O]; state h and c of R, h and c of I, [2, B, O] each."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.real, self.imag = (nn.LSTM(inputs, outputs, batch_first=True) for _ in range(2))

    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h, c, *rest = (s.flatten(0, 1).unsqueeze(0) for s in state)
        r, after = self.real(x, (h, c))
        i, more = self.imag(x, tuple(rest))
        return _product(r, i, 0), [s.view_as(old) for s, old in zip((*after, *more), state)]
