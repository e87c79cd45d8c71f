"""DPCRN-CF (reconstruction): band gains, and between harmonics a comb filter at a pitch that the network estimates.

Paper: Le, Lei, Chen, Guo, He, Chen, Xia, Gao, Xiao, Ding, Song, Lu, "Harmonic enhancement using learnable comb
filter for light-weight full-band speech enhancement model", Interspeech 2023 (arXiv 2306.00812). Neither layer
sizes nor code are public. This is our reconstruction: of the kind that the paper describes, and of the
size and cost that it quotes, 427 k parameters and 0.30 GMAC/s. The paper's scores are not this network's. 16 kHz;
window 512, hop 128; the comb looks 256 samples ahead, algorithmic latency 48 ms.

Shapes, a frame at a time (C x positions):

    bands      log energy in 64 triangular ERB bands
    encoder    1 x 64 -> 16 x 32 -> 16 x 16 -> 32 x 16 -> 64 x 16, convs over bands
    core x 2   GRU over positions, both ways, inside a frame; then GRU over time, one for all positions
    decoder    the same way back with skips, sigmoid -> gain g and comb strength r, 64 bands each -> 257 bins
    pitch      log magnitude of bins 0 to 159 -> convs to 32 x 10; with 8 x 16 of the core -> GRU 144 -> 226 logits
    output     Y = g * ((1 - r) * X + r * P);  P: the frame of the input through a comb filter

Classes are the periods 256, 255 ... 32 samples (62.5 to 500 Hz), and unvoiced. A voiced class has three learnable
taps, at a distance of exactly its period, from [1/4 1/2 1/4] on; unvoiced has one, 1 to start with. r fades from 2.5 kHz
on and is nothing above 7.5 kHz. `dpcrn_cf-causal` has its taps at 0, -1 and -2 periods: no look-ahead, latency 32 ms.

The network is a function of spectra, and the comb filter works on samples. Undoing the window where it is at least a
half gives all samples but the last 128 of the newest frame; these are divided by what is left of the window, and since
the comb puts them where its window is smaller still, that amplifies nothing.

Choices, where the paper is silent and an obvious one would not do:
  - the comb is a soft mix of the MIXED most probable classes, weighed by how much more probable they are than the next,
    and of the frame as it is. It is continuous, as the class of highest probability is not: by rounding, a stream and
    a whole file, or an export, would now and then take different filters. Its gradient reaches the pitch network;
  - the classes learn from labels, the loss `pitch`: YIN on the clean speech, a Gaussian of 1 % about the period, and unvoiced alone. From the
    enhancement loss alone they learn nothing of pitch: a model trained so used three classes for all speakers;
  - gains start near 1 and the comb near nothing, so that training starts from the noisy signal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from setk.audio.stft import STFT
from setk.models import Model, State
from setk.nn.gru import GroupedGRU
from setk.nn.level import check_range, running_gain
from setk.nn.parts import constant
from setk.nn.pitch import LONGEST, SHORTEST, VOICED

BINS, BANDS, WIDTH, CORE, PITCH_BINS = 257, 64, 16, 64, 160
WINDOW, HOP, SIXTEEN = 512, 128, 16000
REACH = 2 * LONGEST  # samples that a comb reads in addition to its frame
PAST = (WINDOW + REACH) // HOP - 2  # hops of samples that are kept
AHEAD = LONGEST // HOP  # frames
MIXED = 2
FIRST = 1 / 4 - 2 / (3 * math.pi)  # part of the energy of a Hann window in its last quarter
FLOOR = 1e-8  # of power: 80 dB below a bin of magnitude 1


@dataclass(frozen=True)
class Config:
    one_sided: bool = False  # taps in the past only
    level_range: tuple[float, ...] = ()  # lowest and highest dBFS that the network sees (nn/level.py); empty: any


class DPCRNCF(Model):
    """The network over spectra: forward(spectrum [B, T, 257, 2], state) -> (spectrum, state).

    State: hidden states of the GRUs over time, [1, B, 16, 64] twice and of the pitch [1, B, 144]; the last 6 hops of
    samples [B, 6, 128]; unless one-sided, the last 2 frames of spectrum [B, 2, 257, 2]; with a `level_range` the level [B, 1].
    """

    name = "dpcrn_cf"
    paper = "a reconstruction after Le et al., Interspeech 2023 (arXiv 2306.00812), whose layer sizes are not public"
    deviations = "all sizes are ours; soft mix of the likeliest combs (see the module's text)"
    Config = Config
    presets = {"dpcrn_cf": Config(), "dpcrn_cf-causal": Config(one_sided=True)}

    def __init__(self, config: Config):
        super().__init__()
        check_range(config.level_range)
        self.config = config
        self.transform = STFT(WINDOW, HOP, power=1.0)
        self.lookahead = 0 if config.one_sided else AHEAD
        self.bands = Bands()
        self.encoder = nn.ModuleList(
            [_conv(1, 16, 5, 2), _conv(16, 16, 3, 2), _conv(16, 32, 3, 1), _conv(32, CORE, 3, 1)]
        )
        self.core = nn.ModuleList(DualPath() for _ in range(2))
        self.decoder = nn.ModuleList(
            [
                _transposed(2 * CORE, 32, 3, 1),
                _transposed(64, 16, 3, 1),
                _transposed(32, 16, 3, 2),
                nn.ConvTranspose1d(32, 2, 5, 2, 2, output_padding=1),
            ]
        )
        widths = [1, 8, 16, 32, 32]
        self.pitch_encoder = nn.Sequential(*(_conv(a, b, 3, 2) for a, b in zip(widths, widths[1:])))
        self.pitch_core = nn.Conv1d(CORE, 8, 1)
        self.pitch_gru = nn.GRU(32 * 10 + 8 * WIDTH, 144, batch_first=True)
        self.pitch = nn.Linear(144, VOICED + 1)
        self.comb = Comb(config.one_sided)
        with torch.no_grad():
            self.decoder[-1].weight *= 0.1
            self.decoder[-1].bias.copy_(torch.tensor([3.0, -2.0]))

    def init_state(self, batch: int) -> State:
        new = self.pitch.weight.new_zeros
        late = (new(batch, AHEAD, BINS, 2),) * (not self.config.one_sided)
        level = (new(batch, 1),) * bool(self.config.level_range)
        return (
            *(new(1, batch, WIDTH, CORE) for _ in self.core),
            new(1, batch, 144),
            new(batch, PAST, HOP),
            *late,
            *level,
        )

    @property
    def parts(self) -> dict[str, Callable[[], object]]:
        def no_gain() -> None:
            last = self.decoder[-1]
            last.weight[:, 0] = 0
            last.bias[0] = 30

        def no_comb() -> None:
            self.comb.centre.fill_(1)
            self.comb.sides.zero_()

        return {
            "gains": no_gain,
            "comb": no_comb,
            "intra-frame": lambda: constant(block.intra_norm for block in self.core),
            "inter-frame": lambda: constant(block.inter_norm for block in self.core),
        }

    def forward(self, spectrum: Tensor, state: State) -> tuple[Tensor, State]:
        *hidden, h_pitch, past = state[: len(self.core) + 2]
        samples, past = self.comb.unfold(spectrum, past)
        late, level = (), ()
        if not self.config.one_sided:
            before = state[len(self.core) + 2]
            spectrum, after = torch.cat([before, spectrum], 1).split([spectrum.shape[1], AHEAD], 1)
            late = (after.clone(),)  # a view would keep all of a long chunk

        batch, time = spectrum.shape[:2]
        power = spectrum.square().sum(-1)  # [B, T, 257]
        if self.config.level_range:
            # The output is linear in the spectrum, so only what the network hears needs the gain. By Parseval.
            heard = 2 * power.sum(-1) / (WINDOW * self.comb.window.square().sum())
            gain, after = running_gain(heard, state[-1], HOP / SIXTEEN, *self.config.level_range, first=FIRST)
            power, level = power * gain.square().unsqueeze(-1), (after,)
        x, skips = torch.log10(self.bands(power) + FLOOR).view(batch * time, 1, BANDS), []
        for layer in self.encoder:
            x = layer(x)
            skips.append(x)
        z = x.transpose(1, 2).view(batch, time, WIDTH, CORE)
        for i, block in enumerate(self.core):
            z, hidden[i] = block(z, hidden[i])
        x = z.flatten(0, 1).transpose(1, 2)  # [B T, 64, 16]

        heights = 0.5 * torch.log(power[..., :PITCH_BINS] + FLOOR)
        about = [self.pitch_encoder(heights.view(batch * time, 1, PITCH_BINS)), self.pitch_core(x)]
        about = torch.cat([part.flatten(1) for part in about], 1).view(batch, time, -1)
        about, h_pitch = self.pitch_gru(about, h_pitch)
        logits = self.pitch(about)
        filtered = self.comb(samples, logits)
        if self.training:
            self.extras = {"pitch": logits}

        for layer in self.decoder:
            x = layer(torch.cat([x, skips.pop()], 1))
        gains, strength = self.bands.expand(torch.sigmoid(x).view(batch, time, 2, BANDS)).unsqueeze(-1).unbind(2)
        y = gains * (spectrum + strength * self.comb.taper * (filtered - spectrum))
        return y, (*hidden, h_pitch, past, *late, *level)


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2), nn.BatchNorm1d(outputs), nn.PReLU(outputs)
    )


def _transposed(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.ConvTranspose1d(inputs, outputs, kernel, stride, kernel // 2, output_padding=stride - 1)
    return nn.Sequential(conv, nn.BatchNorm1d(outputs), nn.PReLU(outputs))


class Bands(nn.Module):
    """64 triangular bands whose centres lie evenly on the ERB scale (Glasberg & Moore 1990) from 20 Hz to 8 kHz, at bins of
    their own; at every bin they sum to 1."""

    def __init__(self):
        super().__init__()
        low, high = (math.log10(1 + 0.00437 * f) for f in (20, SIXTEEN / 2))
        centres = (10 ** np.linspace(low, high, BANDS) - 1) / 0.00437 * WINDOW / SIXTEEN
        at = [round(centres[0])]
        for centre in centres[1:]:
            at.append(max(round(centre), at[-1] + 1))
        bank = np.stack([np.interp(np.arange(BINS), at, row) for row in np.eye(BANDS)])
        self.register_buffer("bank", torch.from_numpy(bank.astype(np.float32)), persistent=False)

    def forward(self, power: Tensor) -> Tensor:
        """[..., 257] to energies [..., 64]."""
        return power @ self.bank.transpose(0, 1)

    def expand(self, gains: Tensor) -> Tensor:
        """[..., 64] to [..., 257], linear between the centres."""
        return gains @ self.bank


class DualPath(nn.Module):
    """[B, T, 16, 64]: along the positions of a frame, then along time."""

    def __init__(self):
        super().__init__()
        self.intra = GroupedGRU(2, CORE, CORE // 2, reverse=(False, True))
        self.inter = GroupedGRU(1, CORE, CORE)
        self.intra_fc, self.inter_fc = nn.Linear(CORE, CORE), nn.Linear(CORE, CORE)
        self.intra_norm, self.inter_norm = nn.LayerNorm(CORE, eps=1e-8), nn.LayerNorm(CORE, eps=1e-8)

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        both, _ = self.intra(z.reshape(1, -1, WIDTH, 1, CORE))
        both = both.squeeze(3).permute(1, 2, 0, 3).reshape(z.shape)
        z = z + self.intra_norm(self.intra_fc(both))
        paths, h = self.inter(z.unsqueeze(0), h)
        return z + self.inter_norm(self.inter_fc(paths.squeeze(0))), h


class Comb(nn.Module):
    """Comb filters of order 3, one for each class of pitch, on the samples of a frame and REACH about it."""

    def __init__(self, one_sided: bool):
        super().__init__()
        self.centre = nn.Parameter(torch.cat([torch.full((VOICED,), 0.5), torch.ones(1)]))
        self.sides = nn.Parameter(torch.full((VOICED, 2), 0.25))
        self.steps = (-1, -2) if one_sided else (-1, 1)  # periods from the centre
        self.first = REACH if one_sided else LONGEST  # of the frame, in the samples that are read
        self.fourier = Fourier()
        window = torch.from_numpy(STFT(WINDOW, HOP, power=1.0).analysis_window)
        fade = 0.5 + 0.5 * np.cos(np.pi * (np.arange(160) + 0.5) / 160)
        taper = np.concatenate([np.ones(80), fade, np.zeros(BINS - 240)]).astype(np.float32)
        for name, value in (("window", window), ("taper", torch.from_numpy(taper)[:, None])):
            self.register_buffer(name, value, persistent=False)

    def unfold(self, spectrum: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [B, T, 257, 2] after `past` [B, 6, 128] -> for each the last 1024 samples [B, T, 1024]; the next past."""
        time = spectrum.shape[1]
        done, newest = (self.fourier.inverse(spectrum) / self.window[WINDOW // 2 :]).split(HOP, -1)
        done = torch.cat([past, done], 1)
        return torch.cat([*(done[:, i : i + time] for i in range(PAST + 1)), newest], -1), done[:, time:].clone()

    def forward(self, samples: Tensor, logits: Tensor) -> Tensor:
        """Samples [B, T, 1024] through the comb of logits [B, T, 226]; spectra [B, T, 257, 2] of the frames."""
        classes, weights = _mix(logits)
        here = torch.arange(self.first, self.first + WINDOW, device=samples.device)
        frame = samples[..., self.first : self.first + WINDOW]
        sides = F.pad(self.sides, (0, 0, 0, 1))  # unvoiced has none
        y = frame
        for c, weight in zip(classes, weights):  # [B, T, 1] each
            period = (LONGEST - c).clamp_min(SHORTEST)
            filtered = self.centre[c] * frame
            for step, taps in zip(self.steps, sides.unbind(1)):
                filtered = filtered + taps[c] * samples.gather(-1, here + step * period)
            y = y + weight * (filtered - frame)
        return self.fourier(y * self.window)


def _mix(logits: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The MIXED most probable classes and their weights, [..., 1] each: probabilities above that of the next class,
    scaled to a sum that is near 1 where any of them is more probable than the next by over 1e-3, and less elsewhere."""
    left, numbers = torch.softmax(logits, -1), torch.arange(logits.shape[-1], device=logits.device)
    classes, heights = [], []
    for _ in range(MIXED + 1):
        best = left.argmax(-1, keepdim=True)
        classes.append(best)
        heights.append(left.gather(-1, best))
        left = left.masked_fill(numbers == best, 0)
    heights = [height - heights[-1] for height in heights[:-1]]
    total = sum(heights) + 1e-3
    return classes[:-1], [height / total for height in heights]


class Fourier(nn.Module):
    """The transform of 512 real samples, and back, as two products of small matrices (Cooley & Tukey 1965): a graph
    of ONNX has no FFT, and one product would cost as much as a sixth of the network.

    With sample n = 32 a + b and bin k = i + 16 j, exp(-2 pi i n k / 512) = exp(-2 pi i (a i / 16 + b i / 512 + b j / 32)).
    Bins i > 8 are the conjugates of others.
    """

    def __init__(self):
        super().__init__()
        a, b, i, j = np.arange(16), np.arange(32), np.arange(9), np.arange(32)

        def turn(x, y, n):
            angle = -2 * np.pi * np.multiply.outer(x, y) / n
            return np.cos(angle), np.sin(angle)

        (c1, s1), (ct, st), (c2, s2) = turn(i, a, 16), turn(i, b, 512), turn(b, j, 32)
        k = np.arange(BINS)
        i_k, j_k = k % 16, k // 16
        mirrored = i_k > 8
        where = np.where(mirrored, 16 - i_k, i_k) * 32 + np.where(mirrored, 31 - j_k, j_k)
        sign = np.stack([np.ones(BINS), np.where(mirrored, -1, 1)], -1)
        full = i[:, None] + 16 * j  # the bin of each i, j
        back = np.where(full > 256, 512 - full, full).ravel()
        back_sign = np.stack([np.ones(full.size), np.where(full > 256, -1, 1).ravel()], -1)
        once = np.where((i == 0) | (i == 8), 1, 2)[:, None] / 512  # bins 16 - i are the conjugates of bins i
        buffers = {
            "first": np.concatenate([c1, s1]),  # [18, 16]
            "twist": np.stack([ct, st]),  # [2, 9, 32]
            "second": np.block([[c2, s2], [-s2, c2]]),  # [64, 64]
            "sign": sign,
            "back_sign": back_sign,
            "second_back": np.block([[c2.T, -s2.T], [s2.T, c2.T]]),
            "last": np.concatenate([(c1 * once).T, (s1 * once).T], 1)[8:],  # [8, 18]
        }
        for name, value in buffers.items():
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)), persistent=False)
        self.register_buffer("where", torch.from_numpy(where), persistent=False)
        self.register_buffer("back", torch.from_numpy(back), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """[B, T, 512] -> [B, T, 257, 2]."""
        re, im = (self.first @ frames.unflatten(-1, (16, 32))).chunk(2, -2)  # [B, T, 9, 32]
        c, s = self.twist
        z = torch.cat([re * c - im * s, re * s + im * c], -1) @ self.second
        z = torch.stack(z.chunk(2, -1), -1).flatten(-3, -2)  # [B, T, 288, 2]
        return z.index_select(-2, self.where) * self.sign

    def inverse(self, spectrum: Tensor) -> Tensor:
        """[B, T, 257, 2] -> the last 256 of 512 samples, [B, T, 256]."""
        z = (spectrum.index_select(-2, self.back) * self.back_sign).unflatten(-2, (9, 32))
        re, im = (torch.cat(z.unbind(-1), -1) @ self.second_back).chunk(2, -1)  # [B, T, 9, 32]
        c, s = self.twist
        return (self.last @ torch.cat([re * c + im * s, im * c - re * s], -2)).flatten(-2)
