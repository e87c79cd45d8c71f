"""FSPEN as a program of integers: which rows its layers become, and in which format each activation is."""

from __future__ import annotations

import math
from typing import Any, Callable

import numpy as np
from torch import Tensor as Values
from torch import nn
from torch.nn import functional as F

from setk.audio.stft import STFT
from setk.export.c.integer_program import (
    POINTS,
    GATE,
    HIDDEN,
    Builder,
    Integers,
    Place,
    Tensor,
    fraction_bits,
    packed,
    padded,
    quantize,
)
from setk.models.fspen import BANDS, BINS, FSPEN, GROUPS
from setk.nn import level

HALO = 3  # rows of zeros around what a convolution reads
HEADROOM = 2.0  # by which an activation may exceed what calibration saw
SPECTRUM = 21  # fractional bits of the spectrum (ANALYSE)
LOG = 1 << 24  # of a power of two


def layers(model: FSPEN) -> dict[str, tuple[nn.Module, Callable[[Any, Any], Values]]]:
    """For each activation that needs a range, by name: a module, and which function of its inputs and output the activation is."""

    def output(_: Any, y: Values) -> Values:
        return y

    def elu(_: Any, y: Values) -> Values:
        return F.elu(y)

    def relu(_: Any, y: Values) -> Values:
        return F.relu(y)

    found: dict[str, tuple[nn.Module, Callable[[Any, Any], Values]]] = {
        "full_project": (model.full_project, output),
        "merge_bands": (model.merge_bands, elu),
        "merge_channels": (model.merge_channels, output),
        "split_channels": (model.split_channels, output),
        "split_bands": (model.split_bands, elu),
    }
    for name, function in (
        ("full_encoder", output),
        ("sub_encoder", output),
        ("full_decoder", output),
        ("sub_decoder", relu),
    ):
        found |= {f"{name}.{i}": (module, function) for i, module in enumerate(getattr(model, name))}
    if model.config.decoder_1x1:
        found |= {f"squeeze.{i}": (decoder[0], output) for i, decoder in enumerate(model.full_decoder)}
    for i, block in enumerate(model.blocks):
        found |= {f"intra_fc.{i}": (block.intra_fc, output), f"inter_fc.{i}": (block.inter_fc, output)}
        found[f"blocks.{i}.intra"] = (block.inter, lambda inputs, _: inputs[0])
        found[f"blocks.{i}"] = (block, lambda _, outputs: outputs[0])
    return found


def fractions(model: FSPEN, ranges: dict[str, float]) -> dict[str, int]:
    """Fractional bits of each activation, from its greatest magnitude. What a product reads together has the same."""
    shared = [
        ["full_encoder.2", "full_project", "split_bands", *(f"sub_encoder.{i}" for i in range(len(GROUPS)))],
        ["full_decoder.0", "full_encoder.1"],
        ["full_decoder.1", "full_encoder.0"],
        ["full_decoder.2", *(f"sub_decoder.{i}" for i in range(len(GROUPS)))],
        [name for name in ranges if name == "merge_channels" or name.startswith("blocks.")],
    ]
    if not model.config.norm_inter:
        shared[-1] += [f"inter_fc.{i}" for i in range(len(model.blocks))]
    bits = {name: fraction_bits(most * HEADROOM) for name, most in ranges.items()}
    for names in shared:
        bits |= dict.fromkeys(names, min(bits[name] for name in names))
    return bits


def _numbers(x: Values) -> np.ndarray:
    return x.detach().double().numpy()


def _folded(conv: Any, norm: nn.Module | None, outputs: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights, outputs along axis `outputs`, and bias of a convolution and the batch norm behind it."""
    weight, bias = _numbers(conv.weight), _numbers(conv.bias)
    if isinstance(norm, nn.BatchNorm1d):
        gain = _numbers(norm.weight) / np.sqrt(_numbers(norm.running_var) + norm.eps)
        weight = weight * np.moveaxis(gain.reshape(-1, 1, 1), 0, outputs)
        bias = (bias - _numbers(norm.running_mean)) * gain + _numbers(norm.bias)
    return weight, bias


def _window(kernels: np.ndarray) -> np.ndarray:
    """Kernels [N, C, K] as rows over a window of K positions with C channels each."""
    return kernels.transpose(0, 2, 1).reshape(len(kernels), -1)


class Lowering:
    """The rows of one model. Raises ValueError where a layer does not fit its formats."""

    def __init__(self, model: FSPEN, ranges: dict[str, float]):
        self.model, self.b = model, Builder()
        self.bits = fractions(model, ranges)

    def program(self) -> Integers:
        """The complete program: samples in and samples out."""
        model, b = self.model, self.b
        transform, compression = model.transform, model.config.compression
        if not isinstance(transform, STFT) or (transform.points, transform.window) != (POINTS, POINTS):
            raise ValueError(f"{transform}: the kernels have a Fourier transform of {POINTS} points")
        states = [b.buffer(BANDS * block.inter.hidden_size, "state") for block in model.blocks]
        history, tail = b.buffer(transform.overlap, "state"), b.buffer(2 * transform.overlap, "state")
        spectrum = b.buffer(4 * BINS)
        b.add("ANALYSE", transform.hop, history, spectrum, b.buffer(4 * BINS), self._shorts(transform.analysis_window))
        gain = self._level(spectrum) if model.config.level_range else -1
        unit = fraction_bits(float(transform.analysis_window.sum()) ** compression)
        x = b.tensor(BINS, 2, unit, HALO, HALO)
        magnitude = b.tensor(BINS, 1, unit, HALO, 8)
        exponent, floor = round((compression - 1) / 2 * 2**31), round(math.log2(1e-10) * LOG)
        b.add("COMPRESS", BINS, spectrum, gain, exponent, floor, unit, x.at, magnitude.at)

        skips = self._encode(x)
        bands = self._encode_bands(magnitude)
        z = self._merge(skips[-1], bands)
        for i, state in enumerate(states):
            z = self._dual_path(i, z, state)
        full, sub = self._split(z)
        for i in range(3):
            full = self._decode(i, full, skips[2 - i])
        gains = self._decode_bands(sub, bands)

        out, unit = b.buffer(4 * BINS), unit + full.fraction
        inverse, least = round(2**26 / compression), max(1, round(1e-12 * 4.0**unit))
        b.add("MASK", BINS, x.at, magnitude.at, full.at, gains.at, out, gain, inverse, unit, least)
        window = self._shorts(transform.synthesis_window)
        b.add("SYNTHESISE", transform.hop, tail, out, b.buffer(4 * BINS), window)
        return b.assemble()

    def _shorts(self, window: np.ndarray) -> int:
        """A window in Q16, of unsigned 16 bits."""
        return self.b.constant(
            "shorts", np.minimum(np.rint(window.astype(np.float64) * 65536), 65535).astype(np.uint16).view(np.int16)
        )

    def _level(self, spectrum: Place) -> Place:
        """The row of the running level; returns the place of the gain's logarithm."""
        transform, gain = self.model.transform, self.b.buffer(2)
        hop_s = transform.hop / self.model.sample_rate
        speeds = [round((1 - math.exp(-hop_s / constant)) * 2**32) for constant in (level.ATTACK_S, level.RELEASE_S)]
        decibels = [*self.model.config.level_range, level.LOWEST_DB]
        units = 2 * SPECTRUM + 2 * math.log2(transform.window) - 2  # of the sum of squares that is a power of 1
        edges = [round((math.log2(10 ** (db / 10)) + units) * LOG) for db in decibels]
        self.b.add("LEVEL", BINS, spectrum, self.b.buffer(4, "state"), *speeds, *edges, gain)
        return gain

    def _encode(self, x: Tensor) -> list[Tensor]:
        skips = []
        for i, (conv, norm, _) in enumerate(self.model.full_encoder):
            weight, bias = _folded(conv, norm)
            rows = (BINS - 1) // 2 ** (i + 1)
            y = self.b.tensor(rows, len(weight), self.bits[f"full_encoder.{i}"], HALO, HALO)
            window = (x.row(-conv.padding[0]), 2 * x.width, conv.kernel_size[0] * x.width)
            self.b.product(y, [window], _window(weight), bias, rows, x.fraction, function="elu")
            skips.append(y)
            x = y
        return skips

    def _encode_bands(self, magnitude: Tensor) -> Tensor:
        channels = self.model.full_project.out_channels
        out = self.b.tensor(BANDS, channels, self.bits["sub_encoder.0"], 0, 1)
        first = 0
        for group, encode in zip(GROUPS, self.model.sub_encoder):
            weight, bias = _folded(encode[0], encode[1])
            rows = (group.stop - group.start + sum(group.pad) - group.kernel) // group.width + 1
            window = (magnitude.row(group.start - group.pad[0]), group.width, group.kernel)
            self.b.product(
                out, [window], _window(weight), bias, rows, magnitude.fraction, function="relu", at=out.row(first)
            )
            first += rows
        return out

    def _merge(self, full: Tensor, bands: Tensor) -> Tensor:
        """Both branches next to each other, a row for each channel; then a product over bands, and one over channels."""
        model, b = self.model, self.b
        channels = model.full_project.out_channels
        both = b.tensor(channels, 2 * BANDS, bands.fraction)
        weight, bias = _folded(model.full_project, None)
        self._rows(both, full, weight[..., 0], bias, BANDS, strides=(1, 2 * BANDS))
        b.add("MOVE", BANDS, channels, bands.at, channels, 1, both.at + BANDS, 1, 2 * BANDS)
        mixed = b.tensor(BANDS, channels, self.bits["merge_bands"])
        weight, bias = _numbers(model.merge_bands.weight), _numbers(model.merge_bands.bias)
        self._rows(mixed, both, weight, bias, channels, function="elu", strides=(1, channels))
        weight, bias = _folded(model.merge_channels, None)
        z = b.tensor(BANDS, len(weight), self.bits["merge_channels"])
        self._rows(z, mixed, weight[..., 0], bias, BANDS)
        return z

    def _rows(self, out: Tensor, x: Tensor, weight: np.ndarray, bias: np.ndarray, rows: int, **options: Any) -> None:
        """A linear layer of each row of x."""
        self.b.product(out, [(x.at, x.width, weight.shape[-1])], weight, bias, rows, x.fraction, **options)

    def _dual_path(self, i: int, z: Tensor, state: Place) -> Tensor:
        block, b = self.model.blocks[i], self.b
        intra, inter = block.intra, block.inter
        units, gates = intra.hidden_size, 3 * intra.hidden_size
        # r and z add both biases; the state's part of n is multiplied by r and keeps its own.
        bias_ih, bias_hh = _numbers(intra.bias_ih), _numbers(intra.bias_hh)
        bias_ih[:, : 2 * units] += bias_hh[:, : 2 * units]
        bias_hh[:, : 2 * units] = 0
        inputs = b.tensor(BANDS, 2 * gates, GATE)
        self._rows(inputs, z, _numbers(intra.weight_ih).reshape(2 * gates, -1), bias_ih.ravel(), BANDS)
        both = b.tensor(BANDS, 2 * units, HIDDEN)
        self._scan(inputs, both, _numbers(intra.weight_hh).reshape(2 * gates, -1), bias_hh.ravel(), units)
        y = b.tensor(BANDS, z.width, self.bits[f"intra_fc.{i}"])
        self._rows(y, both, _numbers(block.intra_fc.weight), _numbers(block.intra_fc.bias), BANDS)
        z = self._normalised(y, block.intra_norm, z)

        units, gates, paths = inter.hidden_size, 3 * inter.hidden_size, inter.groups
        each = BANDS // paths
        x, h = b.tensor(BANDS, gates, GATE), b.tensor(BANDS, gates, GATE)
        past = Tensor(state, units, HIDDEN)
        for out, source, name in ((x, z, "ih"), (h, past, "hh")):
            weight, bias = (_numbers(getattr(inter, f"{kind}_{name}")) for kind in ("weight", "bias"))
            self._rows(out, source, weight, bias, each, batch=(each * source.width, each * gates))
        b.add("GATES", BANDS, units, x.at, h.at, state)
        fc = block.inter_fc
        y = b.tensor(BANDS, z.width, self.bits[f"inter_fc.{i}"])
        batch = (each * units, each * z.width)
        self._rows(y, past, _numbers(fc.weight), _numbers(fc.bias), each, batch=batch)
        if self.model.config.norm_inter:
            return self._normalised(y, block.inter_norm, z)
        out = b.tensor(BANDS, z.width, z.fraction)
        b.add("ADD", BANDS * z.width, z.at, y.at, out.at)
        return out

    def _scan(self, x: Tensor, y: Tensor, weight: np.ndarray, bias: np.ndarray, units: int) -> None:
        b, found = self.b, quantize(weight, bias, HIDDEN, GATE)
        data = np.concatenate([packed(rows, [units]) for rows in np.split(found.rows, 2)])
        b.multiply_adds += BANDS * weight.size
        tables = (b.constant("longs", found.bias), b.constant("shorts", found.factor), b.constant("bytes", data))
        work = b.buffer(padded([units]) + 3 * units)
        b.add("SCAN", BANDS, 2, units, padded([units]), found.shift, x.at, *tables, y.at, work)

    def _normalised(self, x: Tensor, norm: Any, residual: Tensor) -> Tensor:
        """residual + norm(x), over all numbers or each row."""
        n = int(np.prod(norm.normalized_shape))
        if n > 512:
            raise ValueError(f"a layer norm over {n} numbers: the kernel has room for 512")
        gain, offset = _numbers(norm.weight).ravel(), _numbers(norm.bias).ravel()
        bits, offset_bits = (min(14, fraction_bits(np.abs(v).max() * 1.001)) for v in (gain, offset))
        offset_bits = min(offset_bits, bits + 7)
        epsilon = max(1, round(norm.eps * n * n * 4.0**x.fraction))
        y = self.b.tensor(BANDS, x.width, residual.fraction)
        tables = [self.b.constant("shorts", np.rint(v * 2.0**q)) for v, q in ((gain, bits), (offset, offset_bits))]
        shift = bits + 7 - residual.fraction
        if shift < 1:
            raise ValueError(f"a layer norm with gains up to {np.abs(gain).max():g}: too large for its residual")
        lift = 1 << (bits + 7 - offset_bits)
        words = [epsilon & 0xFFFFFFFF, epsilon >> 32]
        self.b.add("NORMALISE", BANDS * x.width // n, n, *words, *tables, shift, lift, x.at, residual.at, y.at)
        return y

    def _split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The features of the full-band and of the sub-band decoder, a row for each band."""
        model, b = self.model, self.b
        weight, bias = _folded(model.split_channels, None)
        channels = len(weight)
        mixed = b.tensor(channels, BANDS, self.bits["split_channels"])
        self._rows(mixed, z, weight[..., 0], bias, BANDS, strides=(1, BANDS))
        weight, bias = _numbers(model.split_bands.weight), _numbers(model.split_bands.bias)
        parts = []
        for part in range(2):
            own = slice(part * BANDS, (part + 1) * BANDS)
            out = b.tensor(BANDS, channels, self.bits["split_bands"], HALO, HALO)
            self._rows(out, mixed, weight[own], bias[own], channels, function="elu", strides=(1, channels))
            parts.append(out)
        return parts[0], parts[1]

    def _decode(self, i: int, x: Tensor, skip: Tensor) -> Tensor:
        """A transposed convolution of stride 2 over two tensors. Outputs of the same parity are a product over a window of rows."""
        steps, last, b = list(self.model.full_decoder[i]), i == 2, self.b
        rows = (BINS - 1) // 2 ** (3 - i)
        parts = [(x, x.width), (skip, skip.width)]
        if self.model.config.decoder_1x1:
            weight, bias = _folded(steps.pop(0), None)
            y = b.tensor(rows, len(weight), self.bits[f"squeeze.{i}"], HALO, HALO)
            inputs = [(part.at, part.width, width) for part, width in parts]
            b.product(y, inputs, weight[..., 0], bias, rows, x.fraction)
            parts = [(y, y.width)]
        conv = steps[0]
        weight, bias = _folded(conv, None if last else steps[1], outputs=1)
        kernel, pad, after = conv.kernel_size[0], conv.padding[0], 2 * rows + (1 if last else 0)
        y = b.tensor(after, weight.shape[1], self.bits[f"full_decoder.{i}"], HALO, 0 if last else HALO)
        for phase in range(2):
            taps = range(kernel - 1 - (kernel - 1 - phase - pad) % 2, -1, -2)
            first = (phase + pad - taps[0]) // 2
            rowed = weight[:, :, list(taps)].transpose(1, 2, 0)  # [N, taps, C]
            pieces = np.split(rowed, np.cumsum([width for _, width in parts])[:-1], 2)
            inputs = [(part.row(first), part.width, len(taps) * width) for part, width in parts]
            flat = np.concatenate([piece.reshape(len(piece), -1) for piece in pieces], 1)
            b.product(
                y,
                inputs,
                flat,
                bias,
                (after - phase + 1) // 2,
                parts[0][0].fraction,
                function="linear" if last else "elu",
                at=y.row(phase),
                strides=(2 * y.width, 1),
            )
        return y

    def _decode_bands(self, sub: Tensor, bands: Tensor) -> Tensor:
        """The gain of each bin: a product for each group of bands, of whose values the group's bins are a stretch."""
        b, start = self.b, 0
        out = b.tensor(BINS, 1, self.bits["sub_decoder.0"])
        for group, linear in zip(GROUPS, self.model.sub_decoder):
            rows = group.last - group.first
            values = b.tensor(rows, group.width, out.fraction)
            inputs = [(x.row(group.first), x.width, x.width) for x in (sub, bands)]
            weight, bias = _numbers(linear.weight), _numbers(linear.bias)
            b.product(values, inputs, weight, bias, rows, bands.fraction, function="relu")
            b.add("MOVE", 1, group.keep, values.at + group.skip, 0, 1, out.row(start), 0, 1)
            start += group.keep
        return out
