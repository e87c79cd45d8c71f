/* Samples to compressed spectra and back, by integers. */

INLINE int32_t cosine(int k) { return cosine_table[k & (POINTS - 1)]; }
INLINE int32_t sine(int k) { return cosine_table[(k - POINTS / 4) & (POINTS - 1)]; }
INLINE int32_t turned(int32_t a, int32_t c, int32_t b, int32_t s) { return (int32_t)(((int64_t)a * c + (int64_t)b * s + (1 << 29)) >> 30); }

/* ---- ANALYSE SYNTHESISE: the Fourier transform of h = POINTS / 2 = 256 complex numbers [h][2], from x by way of y, and back in x:
 * four steps of radix 4 (Stockham). Bound: the sum of all |x| must be below 2^31. */
static void fourier(int32_t *x, int32_t *y)
{
    const int h = POINTS / 2;
    for (int times = 1; times < h; times *= 4) {
        const int parts = h / times / 4; /* `times` finished transforms lie interleaved */
        for (int part = 0; part < parts; part++) {
            const int k = 2 * part * times;
            const int32_t c1 = cosine(k), s1 = sine(k), c2 = cosine(2 * k), s2 = sine(2 * k), c3 = cosine(3 * k), s3 = sine(3 * k);
            const int32_t *a = x + 2 * part * times, *b = a + h / 2, *c = b + h / 2, *d = c + h / 2;
            int32_t *to = y + 8 * part * times;
            for (int i = 0; i < 2 * times; i += 2, to += 2) {
                const int32_t r02 = a[i] + c[i], d02 = a[i] - c[i], r13 = b[i] + d[i], d13 = b[i] - d[i];
                const int32_t i02 = a[i + 1] + c[i + 1], e02 = a[i + 1] - c[i + 1], i13 = b[i + 1] + d[i + 1], e13 = b[i + 1] - d[i + 1];
                const int32_t p1 = d02 + e13, q1 = e02 - d13, p2 = r02 - r13, q2 = i02 - i13, p3 = d02 - e13, q3 = e02 + d13;
                to[0] = r02 + r13, to[1] = i02 + i13;
                to[2 * times] = turned(p1, c1, q1, s1), to[2 * times + 1] = turned(q1, c1, p1, -s1);
                to[4 * times] = turned(p2, c2, q2, s2), to[4 * times + 1] = turned(q2, c2, p2, -s2);
                to[6 * times] = turned(p3, c3, q3, s3), to[6 * times + 1] = turned(q3, c3, p3, -s3);
            }
        }
        int32_t *z = x;
        x = y, y = z;
    }
}

/* ---- ANALYSE: the newest hop enters the window; its spectrum [POINTS / 2 + 1][2] leaves in Q21, full scale being 1
 * Samples in Q15 times the window in Q16 become Q21. Even samples are the real and odd ones the imaginary part of a transform Z of
 * h points: X[k] = E + e^(-2 pi i k / POINTS) O, E = (Z[k] + Z*[h - k]) / 2, O = (Z[k] - Z*[h - k]) / 2i. Bound: the sum of the
 * window is below 2^8.4, so the sum of all |z| is below 2^30. */
static void analyse(const int32_t *a, const Memory *memory)
{
    const int hop = a[0], h = POINTS / 2, kept = POINTS - hop;
    int16_t *history = numbers(memory, a[1]);
    int32_t *to = wide(memory, a[2]), *z = wide(memory, a[3]);
    const int16_t *window = shorts_at(memory, a[4]);
    for (int i = 0; i < kept; i++) z[i] = rounded(history[i] * (int32_t)(uint16_t)window[i], 10);
    for (int i = 0; i < hop; i++) z[kept + i] = rounded(memory->in[i] * (int32_t)(uint16_t)window[kept + i], 10);
    for (int i = 0; i < kept; i++) history[i] = i + hop < kept ? history[i + hop] : memory->in[i + hop - kept];
    fourier(z, to);
    for (int k = 0; k <= h; k++) {
        const int32_t *p = z + 2 * (k % h), *q = z + 2 * ((h - k) % h);
        const int32_t er = (p[0] + q[0]) >> 1, ei = (p[1] - q[1]) >> 1, or_ = (p[1] + q[1]) >> 1, oi = (q[0] - p[0]) >> 1;
        to[2 * k] = er + turned(or_, cosine(k), oi, sine(k));
        to[2 * k + 1] = ei + turned(oi, cosine(k), or_, -sine(k));
    }
}

/* ---- LEVEL: the running level of frames, and the gain that leads it into a range, as in setk/nn/level.py
 * The power of a frame, 4 sum |S|^2 / POINTS^2, is the sum of squares of the integers in Q58. Powers are compared by log2 in Q24. */
static void level(const int32_t *a, const Memory *memory)
{
    const int32_t *s = wide(memory, a[1]);
    int32_t *words = wide(memory, a[2]);
    int64_t now = 0, before = (int64_t)(((uint64_t)(uint32_t)words[1] << 32) | (uint32_t)words[0]);
    for (int i = 0; i < 2 * a[0]; i++) now += (int64_t)s[i] * s[i];
    if (before > 0) now = before + fraction_of(now - before, (uint32_t)(now > before ? a[3] : a[4]));
    words[0] = (int32_t)(uint32_t)((uint64_t)now & 0xffffffffu), words[1] = (int32_t)(now >> 32);
    const int32_t low = a[5], high_ = a[6], lowest = a[7], l = logarithm(now > 0 ? (uint64_t)now : 1);
    *wide(memory, a[8]) = ((l < low ? low : l > high_ ? high_ : l) - (l < lowest ? lowest : l)) / 2;
}

/* ---- COMPRESS: X = g S (g^2 |S|^2 + floor^2)^((c - 1) / 2), and |X|, for a gain g and an exponent c
 * In logarithms: e = log2 g + (c - 1) / 2 log2 (g^2 P + floor^2), X = S 2^e, |X| = 2^(e + log2 P / 2). */
static void compress(const int32_t *a, const Memory *memory)
{
    const int32_t *s = wide(memory, a[1]), gain = a[2] < 0 ? 0 : *wide(memory, a[2]), exponent = a[3], fraction = a[5];
    int16_t *x = numbers(memory, a[6]), *magnitude = numbers(memory, a[7]);
    int n;
    const int32_t unit = 21 * (1 << 24), mantissa = power(a[4] + 2 * (unit - gain), &n);
    const int64_t floor_ = product_of(1, mantissa, n, 0x7fffffff);
    for (int k = 0; k < a[0]; k++) {
        const int32_t re = s[2 * k], im = s[2 * k + 1];
        const int64_t p = (int64_t)re * re + (int64_t)im * im;
        if (p == 0) {
            x[2 * k] = x[2 * k + 1] = magnitude[k] = 0;
            continue;
        }
        const int32_t l = logarithm((uint64_t)(p + floor_)) + 2 * (gain - unit);
        const int32_t e = gain + 2 * high(l, exponent) - unit + fraction * (1 << 24);
        int32_t m = power(e, &n);
        x[2 * k] = (int16_t)product_of(re, m, n, 32767);
        x[2 * k + 1] = (int16_t)product_of(im, m, n, 32767);
        m = power(e + logarithm((uint64_t)p) / 2, &n);
        magnitude[k] = (int16_t)product_of(1, m, n, 32767);
    }
}

/* ---- MASK: Y = Z / |Z| ((|Z| + |X| G) / 2)^(1 / c) / g, Z = X M, for the mask M and the gain G of each bin, both in Qf
 * As logarithms, too. The spectrum leaves in Q13, limited to 2^21, so that 256 bins in phase cannot exceed 2^31 in the way back. */
static void mask(const int32_t *a, const Memory *memory)
{
    const int16_t *x = numbers(memory, a[1]), *magnitude = numbers(memory, a[2]), *m = numbers(memory, a[3]), *g = numbers(memory, a[4]);
    int32_t *y = wide(memory, a[5]);
    const int32_t gain = a[6] < 0 ? 0 : *wide(memory, a[6]), inverse = a[7], unit = a[8] * (1 << 24);
    for (int k = 0; k < a[0]; k++, x += 2, m += 2, y += 2) {
        const int32_t re = x[0] * m[0] - x[1] * m[1], im = x[0] * m[1] + x[1] * m[0];
        const int64_t p = (int64_t)re * re + (int64_t)im * im;
        int n;
        const int32_t l = logarithm((uint64_t)p + (uint32_t)a[9]) / 2;
        const int32_t root = power(l, &n);
        const uint32_t twice = (uint32_t)product_of(1, root, n, 0x7fffffff) + (uint32_t)(magnitude[k] * g[k]);
        const int32_t e = logarithm(twice ? twice : 1) - unit - (1 << 24);
        const int32_t scale = power((int32_t)(((int64_t)e * inverse) >> 26) - l - gain + 13 * (1 << 24), &n);
        y[0] = product_of(re, scale, n, 1 << 21);
        y[1] = product_of(im, scale, n, 1 << 21);
    }
}

/* ---- SYNTHESISE: the way back, times the dual window in Q16, added in Q20 to what earlier frames left; a hop of samples is final
 * Z[k] = E + i O, E = (X[k] + X*[h - k]) / 2, O = e^(2 pi i k / POINTS) (X[k] - X*[h - k]) / 2. The transform with real and
 * imaginary parts exchanged is the inverse one; h x in Q13 is x in Q21. Imaginary parts at zero and at half the rate are ignored. */
static void synthesise(const int32_t *a, const Memory *memory)
{
    const int hop = a[0], h = POINTS / 2, rest = POINTS - hop;
    int32_t *tail = wide(memory, a[1]), *s = wide(memory, a[2]), *z = wide(memory, a[3]);
    const int16_t *window = shorts_at(memory, a[4]);
    s[1] = s[2 * h + 1] = 0;
    for (int k = 0; k < h; k++) {
        const int32_t *p = s + 2 * k, *q = s + 2 * (h - k);
        const int32_t er = (p[0] + q[0]) >> 1, ei = (p[1] - q[1]) >> 1, dr = (p[0] - q[0]) >> 1, di = (p[1] + q[1]) >> 1;
        z[2 * k] = ei + turned(dr, cosine(k), di, -sine(k));
        z[2 * k + 1] = er - turned(di, cosine(k), dr, sine(k));
    }
    fourier(z, s);
    for (int i = 0; i < POINTS; i++) {
        const int32_t sample = (int32_t)(((int64_t)z[i ^ 1] * (uint16_t)window[i]) >> 17);
        z[i ^ 1] = i < rest ? sample + tail[i] : sample;
    }
    for (int i = 0; i < hop; i++) memory->out[i] = saturated(rounded(z[i ^ 1], 5));
    for (int i = 0; i < rest; i++) tail[i] = z[(i + hop) ^ 1];
}

/* The loop that runs a program of `words` int32. */
enum { PRODUCT, MOVE, ZERO, ADD, NORMALISE, GATES, SCAN, ANALYSE, LEVEL, COMPRESS, MASK, SYNTHESISE };

static void run(const int32_t *program, int words, const Memory *memory)
{
    for (const int32_t *row = program; row < program + words; row += 2 + row[1]) {
        const int32_t *arguments = row + 2;
        switch (row[0]) {
        case PRODUCT: product(arguments, memory); break;
        case MOVE: move(arguments, memory); break;
        case ZERO: zero_fill(arguments, memory); break;
        case ADD: add(arguments, memory); break;
        case NORMALISE: normalise(arguments, memory); break;
        case GATES: gates(arguments, memory); break;
        case SCAN: scan(arguments, memory); break;
        case ANALYSE: analyse(arguments, memory); break;
        case LEVEL: level(arguments, memory); break;
        case COMPRESS: compress(arguments, memory); break;
        case MASK: mask(arguments, memory); break;
        case SYNTHESISE: synthesise(arguments, memory); break;
        }
    }
}
