"""The integer program in NumPy: what the C must return, bit by bit. Kernels as in integer_layers.h and integer_transform.h."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from setk.export.c.integer_program import FUNCTIONS, OPERATIONS, POINTS, SPACES, Integers, unpacked
from setk.export.c.integer_tables import tables

UNIT = 21 << 24  # log2 of a spectrum's unit, in Q24
_PLACE = (1 << 28) - 1


def saturated(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -32768, 32767)


def _leading(x: np.ndarray) -> np.ndarray:
    """The exponent of the leading bit of x > 0, int64. A double rounds large integers up: hence the correction."""
    n = np.frexp(x.astype(np.float64))[1].astype(np.int64) - 1
    return n - (x >> n == 0)


class Reference:
    """A stream of one program; process(samples int16 [n], n whole hops) returns as many.

    >>> Reference(program, hop=256).process(np.zeros(512, np.int16)).dtype
    dtype('int16')
    """

    def __init__(self, program: Integers, hop: int):
        self.rows = [(OPERATIONS[op], [int(x) for x in arguments]) for op, _, *arguments in program.words]
        self.constants = {name: values.astype(np.int64) for name, values in program.constants.items()}
        self.tables = tables()
        self.memory = {
            SPACES["state"]: np.zeros(program.state, np.int16),
            SPACES["scratch"]: np.zeros(program.scratch, np.int16),
        }
        self.hop = hop
        self.weights: dict[int, np.ndarray] = {}
        self.samples = self.out = np.zeros(hop, np.int64)
        self.seen: Callable[[int, str, list[int], Reference], None] | None = None

    def process(self, samples: np.ndarray) -> np.ndarray:
        hops = []
        for hop in samples.astype(np.int64).reshape(-1, self.hop):
            self.samples = hop
            for i, (op, arguments) in enumerate(self.rows):
                getattr(self, f"_{op.lower()}")(*arguments)
                if self.seen is not None:
                    self.seen(i, op, arguments, self)
            hops.append(self.out.astype(np.int16))
        return np.concatenate(hops)

    def view(self, place: int, count: int, stride: int = 1, more: tuple[int, int] = (1, 0)) -> np.ndarray:
        """int16 of state or scratch: [more[0], count], with strides more[1] and `stride`."""
        memory = self.memory[place >> 28]
        at = place & _PLACE
        strides = (2 * more[1], 2 * stride)
        return np.lib.stride_tricks.as_strided(memory[at:], (more[0], count), strides)

    def wide(self, place: int, count: int) -> np.ndarray:
        """int32 of state or scratch."""
        return self.memory[place >> 28].view(np.int32)[(place & _PLACE) // 2 :][:count]

    def constant(self, space: str, place: int, count: int) -> np.ndarray:
        return self.constants[space][place & _PLACE :][:count]

    def logarithm(self, x: np.ndarray) -> np.ndarray:
        n, table = _leading(x), self.tables["logarithm_table"]
        mantissa = np.where(n > 31, x >> np.maximum(n - 31, 0), x << np.maximum(31 - n, 0))
        i, part = mantissa >> 23 & 255, mantissa >> 8 & 0x7FFF
        return n * (1 << 24) + table[i] + (part * (table[i + 1] - table[i]) >> 15)

    def power(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        i, table = x >> 16 & 255, self.tables["power_table"]
        return table[i] + ((table[i + 1] - table[i]) * (x & 0xFFFF) >> 16), x >> 24

    def product_of(self, x: np.ndarray, mantissa: np.ndarray, exponent: np.ndarray, limit: int) -> np.ndarray:
        shift = 30 - exponent
        p = (x * mantissa + (1 << np.clip(shift, 1, 62) - 1)) >> np.clip(shift, 1, 62)
        p = np.where(shift > 62, 0, np.where(shift < 1, np.sign(x) * limit, p))
        return np.clip(p, -limit, limit)

    def sigmoid(self, x: np.ndarray) -> np.ndarray:
        x, table = saturated(x) + 32768, self.tables["sigmoid_table"]
        i = x >> 7
        return table[i] + ((table[i + 1] - table[i]) * (x & 127) + 64 >> 7)

    def _elu(self, x: np.ndarray, f: int) -> np.ndarray:
        table = self.tables["exponential_table"]
        u = np.clip(-x, 0, (8 << f) - 1)
        i = u >> f - 6
        e = table[i] + ((table[i + 1] - table[i]) * (u & (1 << f - 6) - 1) >> f - 6)
        return np.where(x >= 0, x, (e - 32768 + (1 << 15 - f >> 1)) >> 15 - f)

    def _unpacked(self, place: int, parts: int, columns: int, line: int) -> np.ndarray:
        """Weights [parts, K, columns] as float64, in which their products with int16 and the sums are exact."""
        if place not in self.weights:
            data = self.constant("bytes", place, parts * columns * line).reshape(parts, -1)
            self.weights[place] = np.stack([unpacked(part, columns) for part in data]).astype(np.float64).swapaxes(1, 2)
        return self.weights[place]

    def _sums(self, x: np.ndarray, weights: np.ndarray, bias: np.ndarray, factor: np.ndarray, shift: int) -> np.ndarray:
        sums = (x.astype(np.float64) @ weights).astype(np.int64) + bias
        return (sums * factor >> 16) >> shift

    def _product(
        self, batch: int, rows: int, columns: int, function: int, shift: int, fraction: int, *rest: Any
    ) -> None:
        y, step, row, column, bias, factor, weights, line, _, *segments = rest
        biases = self.constant("longs", bias, batch * columns).reshape(batch, -1)
        factors = self.constant("shorts", factor, batch * columns).reshape(batch, -1)
        matrices = self._unpacked(weights, batch, columns, line)
        for b in range(batch):
            parts = [
                self.view(segments[i] + b * segments[i + 1], segments[i + 3], 1, (rows, segments[i + 2]))
                for i in range(0, len(segments), 4)
            ]
            x = self._sums(np.concatenate(parts, 1), matrices[b], biases[b], factors[b], shift)
            if function == FUNCTIONS["relu"]:
                x = np.maximum(x, 0)
            elif function == FUNCTIONS["elu"]:
                x = self._elu(x, fraction)
            self.view(y + b * step, columns, column, (rows, row))[:] = saturated(x)

    def _move(self, rows: int, columns: int, x: int, *rest: int) -> None:
        row, column, y, row_out, column_out = rest
        self.view(y, columns, column_out, (rows, row_out))[:] = self.view(x, columns, column, (rows, row))

    def _zero(self, count: int, y: int) -> None:
        self.view(y, count)[:] = 0

    def _add(self, count: int, a: int, b: int, y: int) -> None:
        self.view(y, count)[:] = saturated(self.view(a, count).astype(np.int64) + self.view(b, count))

    def _normalise(self, rows: int, n: int, low: int, top: int, *rest: int) -> None:
        gain, offset, shift, lift, x, residual, y = rest
        for row in range(rows):
            v = self.view(x + row * n, n)[0].astype(np.int64)
            variance = n * np.square(v).sum() - v.sum() ** 2 + (top << 32 | low)
            mantissa, exponent = self.power(-(self.logarithm(np.array([variance])) >> 1))
            z = ((n * v - v.sum()) * (1 << 25 + exponent) * mantissa) >> 32
            z = (z * self.constant("shorts", gain, n) >> 16) + self.constant("shorts", offset, n) * lift
            z = (z + (1 << shift - 1)) >> shift
            self.view(y + row * n, n)[0] = saturated(self.view(residual + row * n, n)[0] + z)

    def _gated(self, x: np.ndarray, p: np.ndarray, h: np.ndarray) -> np.ndarray:
        """x, p [..., 3, units] in Q12 and h [..., units] in Q15 to the next h."""
        r, z = (self.sigmoid(x[..., i, :] + p[..., i, :]) for i in range(2))
        n = self.sigmoid(2 * (x[..., 2, :] + (r * p[..., 2, :] >> 16))) - 32768
        return n + ((z >> 1) * (h - n) >> 15)

    def _gates(self, rows: int, units: int, x: int, p: int, h: int) -> None:
        count = rows * 3 * units
        x_, p_ = (self.view(at, count).astype(np.int64).reshape(rows, 3, units) for at in (x, p))
        past = self.view(h, rows * units)
        past[0] = self._gated(x_, p_, past.astype(np.int64).reshape(rows, units)).ravel()

    def _scan(self, steps: int, directions: int, units: int, line: int, shift: int, *rest: int) -> None:
        x, bias, factor, weights, y, _ = rest
        count = 3 * units
        inputs = self.view(x, steps * directions * count).astype(np.int64).reshape(steps, directions, 3, units)
        matrices = self._unpacked(weights, directions, count, line)[:, :units]
        biases = self.constant("longs", bias, directions * count).reshape(directions, -1)
        factors = self.constant("shorts", factor, directions * count).reshape(directions, -1)
        out = self.view(y, steps * directions * units).reshape(steps, directions, units)
        for d in range(directions):
            h = np.zeros(units, np.int64)
            for t in range(steps)[:: -1 if d % 2 else 1]:
                p = saturated(self._sums(h, matrices[d], biases[d], factors[d], shift)).reshape(3, units)
                out[t, d] = h = self._gated(inputs[t, d], p, h)

    def _turned(self, a: np.ndarray, k: np.ndarray, b: np.ndarray, sign: int) -> np.ndarray:
        """a cos + sign b sin of 2 pi k / points."""
        table = self.tables["cosine_table"]
        c, s = table[k % POINTS], sign * table[(k - POINTS // 4) % POINTS]
        return (a * c + b * s + (1 << 29)) >> 30

    def _fourier(self, re: np.ndarray, im: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h, times = len(re), 1
        while times < h:
            parts = h // times // 4
            (r0, r1, r2, r3), (i0, i1, i2, i3) = (v.reshape(4, parts, times) for v in (re, im))
            k = 2 * np.arange(parts)[:, None] * times
            p = [r0 + r2 + (r1 + r3), r0 - r2 + (i1 - i3), r0 + r2 - (r1 + r3), r0 - r2 - (i1 - i3)]
            q = [i0 + i2 + (i1 + i3), i0 - i2 - (r1 - r3), i0 + i2 - (i1 + i3), i0 - i2 + (r1 - r3)]
            for j in range(1, 4):
                p[j], q[j] = self._turned(p[j], j * k, q[j], 1), self._turned(q[j], j * k, p[j], -1)
            re, im = (np.stack(v, 1).ravel() for v in (p, q))
            times *= 4
        return re, im

    def _analyse(self, hop: int, history: int, spectrum: int, _: int, window: int) -> None:
        past = self.view(history, POINTS - hop)[0]
        frame = np.concatenate([past, self.samples])
        z = frame * (self.constant("shorts", window, POINTS) & 0xFFFF) + 512 >> 10
        past[:] = frame[hop:]
        re, im = self._fourier(z[::2], z[1::2])
        k = np.arange(POINTS // 2 + 1)
        pr, pi = (np.append(v, v[0]) for v in (re, im))
        qr, qi = pr[::-1], pi[::-1]
        odd_re, odd_im = (pi + qi) >> 1, (qr - pr) >> 1
        out = self.wide(spectrum, 2 * len(k))
        out[::2] = ((pr + qr) >> 1) + self._turned(odd_re, k, odd_im, 1)
        out[1::2] = ((pi - qi) >> 1) + self._turned(odd_im, k, odd_re, -1)

    def _level(self, bins: int, spectrum: int, words: int, attack: int, release: int, *rest: int) -> None:
        low, top, lowest, gain = rest
        state = self.wide(words, 2)
        before, now = state.view(np.int64).item(), int(np.square(self.wide(spectrum, 2 * bins).astype(np.int64)).sum())
        if before > 0:
            change = now - before
            speed = attack if now > before else release
            now = before + (change >> 32) * speed + ((change & 0xFFFFFFFF) * speed >> 32)
        state.view(np.int64)[0] = now
        level = int(self.logarithm(np.array([max(now, 1)]))[0])
        difference = min(max(level, low), top) - max(level, lowest)
        self.wide(gain, 1)[0] = int(difference / 2)

    def _gain(self, place: int) -> int:
        return 0 if place < 0 else int(self.wide(place, 1)[0])

    def _compress(self, bins: int, spectrum: int, gain: int, exponent: int, floor: int, *rest: int) -> None:
        fraction, x, magnitude = rest
        g = self._gain(gain)
        s = self.wide(spectrum, 2 * bins).astype(np.int64).reshape(-1, 2)
        least = self.product_of(np.array(1), *self.power(np.array(floor + 2 * (UNIT - g))), 2**31 - 1)
        p = np.square(s).sum(1)
        e = (
            g
            + 2 * ((self.logarithm(p + least + (p == 0)) + 2 * (g - UNIT)) * exponent >> 32)
            - UNIT
            + fraction * (1 << 24)
        )
        mantissa, exponents = self.power(e)
        found = self.product_of(s, mantissa[:, None], exponents[:, None], 32767)
        self.view(x, 2 * bins)[0] = np.where(p[:, None] > 0, found, 0).ravel()
        root = self.power(e + (self.logarithm(np.maximum(p, 1)) >> 1))
        self.view(magnitude, bins)[0] = np.where(p > 0, self.product_of(np.array(1), *root, 32767), 0)

    def _mask(self, bins: int, x: int, magnitude: int, mask: int, gains: int, y: int, gain: int, *rest: int) -> None:
        inverse, unit, least = rest
        (xr, xi), (mr, mi) = (self.view(at, 2 * bins).astype(np.int64).reshape(-1, 2).T for at in (x, mask))
        z = np.stack([xr * mr - xi * mi, xr * mi + xi * mr], 1)
        lg = self.logarithm(np.square(z).sum(1) + least) >> 1
        level = self.view(magnitude, bins)[0].astype(np.int64) * self.view(gains, bins)[0]
        twice = self.product_of(np.array(1), *self.power(lg), 2**31 - 1) + level
        e = self.logarithm(np.maximum(twice, 1)) - unit * (1 << 24) - (1 << 24)
        mantissa, exponents = self.power((e * inverse >> 26) - lg - self._gain(gain) + 13 * (1 << 24))
        self.wide(y, 2 * bins)[:] = self.product_of(z, mantissa[:, None], exponents[:, None], 1 << 21).ravel()

    def _synthesise(self, hop: int, tail: int, spectrum: int, _: int, window: int) -> None:
        h, rest = POINTS // 2, POINTS - hop
        s = self.wide(spectrum, 2 * h + 2).astype(np.int64).reshape(-1, 2)
        s[[0, h], 1] = 0
        (pr, pi), (qr, qi), k = s[:h].T, s[:0:-1].T, np.arange(h)
        dr, di = (pr - qr) >> 1, (pi + qi) >> 1
        im = ((pi - qi) >> 1) + self._turned(dr, k, di, -1)
        re = ((pr + qr) >> 1) - self._turned(di, k, dr, 1)
        im, re = self._fourier(im, re)
        frame = np.stack([re, im], 1).ravel() * (self.constant("shorts", window, POINTS) & 0xFFFF) >> 17
        past = self.wide(tail, rest)
        frame[:rest] += past
        self.out = saturated((frame[:hop] + 16) >> 5)
        past[:] = frame[hop:]
