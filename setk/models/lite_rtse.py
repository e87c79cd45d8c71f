"""Lite-RTSE: real-time speech enhancement in two stages, a magnitude mask and then a complex residual.

Paper: "Lite-RTSE: Exploring a Cost-Effective Lite DNN Model for Real-Time Speech Enhancement in RTC Scenarios",
2023 (IEEE 10308952). The paper is not open; the sizes are those of its public re-implementation, 1.56 M
parameters. 16 kHz; window 512, hop 256; strictly causal, no look-ahead, algorithmic latency 32 ms.

Shapes, a frame at a time (C x F: channels by bins):

    mask       |X| 257 -> LSTM -> Linear -> sigmoid;  Y1 = mask * |X|
    multi-scale, twice   1 x 257 -> 32 x 257 -> 32 x 257: (1x1, depth-wise 3x3, 1x1) times a 1x1 shortcut
    multi-order          32 -> 1x1 -> 124 + 4 channels d and p, then for q = 4, 8, 16, 32:
                         d <- depth-wise 7x7 of d;  d, r <- d without its last q channels, these q;
                         p <- 1x1 (q -> 2 q) of p * r
                         at the end d and p have 64 channels each: Y2 = 1x1 (64 -> 1) of d * p
    residual   [|X|, Y1, Y2] 771 -> Linear -> LSTM -> three Linears: Rm, Rr, Ri, 257 each
    output     |Y| = Y1 + Rm * (|X| - Y1);  phase of Y = phase of X + phase of (Rr + j Ri)

There are no other activations and no norms. The nonlinearity is in the products: a polynomial of degree 24 in Y1.

Deviations, where the paper is silent or its re-implementation would break:
  - the spectrum is compressed, magnitude ** 0.3, before the network and expanded after it (`compression`): the
    24th power of a loud bin of the plain spectrum is more than float32 holds;
  - the output fades where (Rr, Ri) is within PHASE_FLOOR of zero and has no phase to speak of: a rounding error
    would otherwise turn a bin by any angle, and gradients grow without bound;
  - one factor of each product starts near 1, and the three last Linears start near Rm = 0 without a turn, so that
    training starts from the mask alone and the polynomial from a linear map. The gradient of the mask has the
    factor 1 - Rm: near Rm = 1 it would hardly learn.
The network sees magnitudes only, which are the same whichever way the noise has turned a phase, so the turn that it can
expect of (Rr, Ri) is near none: in trained models it does nothing.
Two sizes have presets: `lite_rtse` and `lite_rtse-dense`, whose 3x3 convs are dense; that one is reported to
diverge in training, as re-implemented. The paper's figure 2 draws one depth-wise 7x7 before all the splits: `shared_depthwise`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor, nn

from setk.audio.stft import STFT, check_power, compress, magnitude
from setk.models import Model, State, Widths
from setk.nn.depthwise import Conv2d
from setk.nn.level import check_range, spectra_at_known_level
from setk.nn.parts import constant

BINS, WIDE = 257, 32
ORDERS = (4, 8, 16, 32, 64)  # channels that each step of the multi-order block splits off, and those that are left
PHASE_FLOOR = 1e-2


@dataclass(frozen=True)
class Config:
    dense_3x3: bool = False  # 3x3 convs over all channels, not depth-wise
    shared_depthwise: bool = False  # one 7x7 conv before the splits, not one before each
    compression: float = 0.3  # exponent of the magnitude inside the network; 1 = none
    level_range: tuple[float, ...] = ()  # lowest and highest dBFS that the network sees (nn/level.py); empty: any
    widths: tuple[int, ...] = ()  # of a pruned model, in the order of `units`; (): the paper's


class LiteRTSE(Model):
    """The network over spectra: forward(spectrum [B, T, 257, 2], state) -> (spectrum, state).

    State: h and c of both LSTMs, [1, B, 257] each, then the last inputs of each conv over time: two [B, 32, 2, 257],
    and [B, C, 6, 257] with C = 124, 120, 112, 96 (124 alone if shared); with a `level_range` the level [B, 1].
    """

    name = "lite_rtse"
    paper = "Lite-RTSE, 2023 (IEEE 10308952), in the sizes of its public re-implementation"
    deviations = "compressed spectrum; phase floor; starts from its mask (see the module's text)"
    Config = Config
    presets = {"lite_rtse": Config(), "lite_rtse-dense": Config(dense_3x3=True)}

    def __init__(self, config: Config):
        super().__init__()
        check_range(config.level_range)
        check_power(config.compression)
        self.config = config
        self.transform = STFT(512, 256)
        width = self.units = Widths(config.widths)
        self.mask_lstm = nn.LSTM(BINS, width("mask_lstm", BINS), batch_first=True)
        self.mask = nn.Linear(self.mask_lstm.hidden_size, BINS)
        inner, first = width("scales.0.inner", WIDE), width("scales.0", WIDE)
        second_inner, second = width("scales.1.inner", WIDE), width("scales.1", WIDE)
        self.scales = nn.ModuleList(
            [MultiScale(1, inner, first, config.dense_3x3), MultiScale(first, second_inner, second, config.dense_3x3)]
        )
        self.orders = MultiOrder(
            second, [width(f"orders.{i}", q) for i, q in enumerate(ORDERS)], config.shared_depthwise
        )
        self.merge = nn.Linear(3 * BINS, width("merge", BINS))
        self.residual_lstm = nn.LSTM(self.merge.out_features, width("residual_lstm", BINS), batch_first=True)
        self.residual = nn.ModuleList(nn.Linear(self.residual_lstm.hidden_size, BINS) for _ in range(3))
        self._start_as_mask()

    def _start_as_mask(self) -> None:
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
                nn.init.zeros_(conv.bias)
        for block in self.scales:
            _start_near(block.shortcut, 1.0)
        for causal, kept in zip(self.orders.convs, self.orders.kept):
            _start_near(causal.conv, 1.0, first=kept)
        _start_near(self.orders.joins[-1], 1.0)
        for linear, value in zip(self.residual, (0.0, 1.0, 0.0)):
            _start_near(linear, value)

    def init_state(self, batch: int) -> State:
        weight = self.mask.weight
        convs = [block.conv for block in self.scales] + list(self.orders.convs)
        lstms = [
            weight.new_zeros(1, batch, lstm.hidden_size) for lstm in (self.mask_lstm, self.residual_lstm) for _ in "hc"
        ]
        level = (weight.new_zeros(batch, 1),) * bool(self.config.level_range)
        return (*lstms, *(conv.start(batch) for conv in convs), *level)

    @property
    def parts(self) -> dict[str, Callable[[], object]]:
        gain, real, imag = self.residual

        def no_phase() -> None:
            constant(real, 1.0)
            constant(imag, 0.0)

        return {
            "mask": lambda: constant(self.mask, 30.0),
            "multi-order": lambda: constant(self.orders.project),
            "magnitude-residual": lambda: constant(gain),
            "phase": no_phase,
        }

    def forward(self, spectrum: Tensor, state: State) -> tuple[Tensor, State]:
        return spectra_at_known_level(
            self._enhance, spectrum, state, self.transform, self.sample_rate, self.config.level_range
        )

    def _enhance(self, spectrum: Tensor, state: State) -> tuple[Tensor, State]:
        h1, c1, h2, c2, *pasts = state
        x = compress(spectrum, self.config.compression)
        level = magnitude(x).squeeze(-1)  # [B, T, 257]

        z, (h1, c1) = self.mask_lstm(level, (h1, c1))
        masked = torch.sigmoid(self.mask(z)) * level

        z, after = masked.unsqueeze(1), []  # [B, C, T, 257]
        for block, past in zip(self.scales, pasts):
            z, past = block(z, past)
            after.append(past)
        z, rest = self.orders(z, pasts[len(after) :])

        z = self.merge(torch.cat([level, masked, z.squeeze(1)], -1))
        z, (h2, c2) = self.residual_lstm(z, (h2, c2))
        gain, real, imag = (linear(z) for linear in self.residual)
        y = self._rotate(x / level.unsqueeze(-1), masked + gain * (level - masked), real, imag)
        return y, (h1, c1, h2, c2, *after, *rest)

    def _rotate(self, unit: Tensor, level: Tensor, real: Tensor, imag: Tensor) -> Tensor:
        """Compressed level [B, T, 257], of either sign, on the phase of unit [B, T, 257, 2] turned by (real, imag); expanded."""
        turn = (real.square() + imag.square() + PHASE_FLOOR**2).rsqrt()
        if self.config.compression != 1:
            level = level * level.abs() ** (1 / self.config.compression - 1)
        level = level * turn
        a, b = unit.unbind(-1)
        return torch.stack([level * (a * real - b * imag), level * (a * imag + b * real)], -1)


@torch.no_grad()
def _start_near(layer: nn.Module, value: float, first: int = 0) -> None:
    """Have the outputs of a layer from `first` on start near a constant."""
    layer.weight[first:] *= 0.1
    layer.bias[first:] = value


class CausalConv(nn.Module):
    """Conv2d over past frames and both neighbours in frequency; depth-wise unless `groups` is 1."""

    def __init__(self, channels: int, kernel: int, groups: int):
        super().__init__()
        self.past = kernel - 1
        self.conv = Conv2d(channels, channels, kernel, padding=(0, kernel // 2), groups=groups)

    def start(self, batch: int) -> Tensor:
        past = self.conv.weight.new_zeros(batch, self.conv.in_channels, self.past, BINS)
        return past.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, T, F] after past [B, C, kernel - 1, F] -> y [B, C, T, F], the past of what follows."""
        # With the channels last in memory a depth-wise conv trains and runs twice as fast.
        x = torch.cat([past, x], 2).contiguous(memory_format=torch.channels_last)
        # A copy: a view would keep all of a long chunk for its last frames.
        return self.conv(x), x[:, :, -self.past :].clone()


class MultiScale(nn.Module):
    """Multi-scale block: [B, C, T, F] -> [B, 32, T, F], a main branch times a shortcut."""

    def __init__(self, inputs: int, inner: int, outputs: int, dense: bool):
        super().__init__()
        self.spread = nn.Conv2d(inputs, inner, 1)
        self.conv = CausalConv(inner, 3, 1 if dense else inner)
        self.join = nn.Conv2d(inner, outputs, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        z, past = self.conv(self.spread(x), past)
        return self.join(z) * self.shortcut(x), past


class MultiOrder(nn.Module):
    """Multi-order block: [B, 32, T, F] -> [B, 1, T, F], by recursive products of depth-wise convs."""

    def __init__(self, inputs: int, orders: list[int], shared: bool):
        super().__init__()
        widths = [sum(orders[i:]) for i in range(len(orders))]  # 124, 120, 112, 96, 64
        # Channels of each 7x7 conv that stay in d until the next one.
        self.kept = widths[-1:] if shared else widths[1:]
        self.expand = nn.Conv2d(inputs, widths[0] + orders[0], 1)
        self.convs = nn.ModuleList(CausalConv(c, 7, c) for c in widths[: len(self.kept)])
        self.joins = nn.ModuleList(nn.Conv2d(q, after, 1) for q, after in zip(orders, orders[1:]))
        self.project = nn.Conv2d(orders[-1], 1, 1)

    def forward(self, x: Tensor, pasts: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        z = self.expand(x)
        first = self.joins[0].in_channels
        d, p = z[:, :-first], z[:, -first:]
        after = []
        for i, join in enumerate(self.joins):
            if i < len(self.convs):
                d, past = self.convs[i](d, pasts[i])
                after.append(past)
            d, r = d[:, : -join.in_channels], d[:, -join.in_channels :]
            p = join(p * r)
        return self.project(d * p), after
