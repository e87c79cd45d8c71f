/* Samples to frames and back. */

/* ---- ANALYSE FRAME: a sample as the network may see it: what is not a number, is infinite or is denormal counts as silence. */
INLINE float sane(float x) { return (x > 1e-30f && x < 1e4f) || (x < -1e-30f && x > -1e4f) ? x : 0.0f; }

/* ---- ANALYSE SYNTHESISE: the Fourier transform */
INLINE V reversed(V x)
{
#if W == 16
    return _mm512_permutexvar_ps(_mm512_set_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), x);
#elif W == 8
    return _mm256_permutevar8x32_ps(x, _mm256_set_epi32(0, 1, 2, 3, 4, 5, 6, 7));
#elif W == 4
    return (V){x[3], x[2], x[1], x[0]};
#else
    return x;
#endif
}

/* Fourier transforms along the first axis of complex [n][lanes], n a power of two: steps of radix 4, and one of radix 2 if log2 n
 * is odd, from x to y and back. Returns 1 if the result is in y. `turn`: n cosines and n sines of -2 pi k / n. */
static int transform_rows(float *xr, float *xi, float *yr, float *yi, int n, int lanes, const float *turn)
{
    const float *cosine = turn, *sine = turn + n;
    int times = 1, all = n, swaps = 0; /* Stockham: after each step, `times` finished parts lie next to each other */
    while (n > 1) {
        int radix = n % 4 ? 2 : 4, parts = n / radix, each = times * lanes;
        for (int part = 0; part < parts; part++) {
            int at = part * (all / n);
            const float c1 = cosine[at], s1 = sine[at], c2 = cosine[2 * at % all], s2 = sine[2 * at % all];
            const float c3 = cosine[3 * at % all], s3 = sine[3 * at % all];
            const float *ar = xr + part * each, *ai = xi + part * each;
            float *br = yr + part * radix * each, *bi = yi + part * radix * each;
            const int far = parts * each;
            for (int i = 0; i < each; i += W) {
                if (radix == 2) {
                    V r = load(ar + i) - load(ar + far + i), m = load(ai + i) - load(ai + far + i);
                    store(br + i, load(ar + i) + load(ar + far + i));
                    store(bi + i, load(ai + i) + load(ai + far + i));
                    store(br + each + i, r * c1 - m * s1);
                    store(bi + each + i, r * s1 + m * c1);
                    continue;
                }
                V r0 = load(ar + i), r1 = load(ar + far + i), r2 = load(ar + 2 * far + i), r3 = load(ar + 3 * far + i);
                V i0 = load(ai + i), i1 = load(ai + far + i), i2 = load(ai + 2 * far + i), i3 = load(ai + 3 * far + i);
                V r02 = r0 + r2, d02 = r0 - r2, r13 = r1 + r3, d13 = r1 - r3;
                V i02 = i0 + i2, e02 = i0 - i2, i13 = i1 + i3, e13 = i1 - i3;
                V p1 = d02 + e13, q1 = e02 - d13, p2 = r02 - r13, q2 = i02 - i13, p3 = d02 - e13, q3 = e02 + d13;
                store(br + i, r02 + r13);
                store(bi + i, i02 + i13);
                store(br + each + i, p1 * c1 - q1 * s1);
                store(bi + each + i, p1 * s1 + q1 * c1);
                store(br + 2 * each + i, p2 * c2 - q2 * s2);
                store(bi + 2 * each + i, p2 * s2 + q2 * c2);
                store(br + 3 * each + i, p3 * c3 - q3 * s3);
                store(bi + 3 * each + i, p3 * s3 + q3 * c3);
            }
        }
        float *r = xr, *i = xi;
        xr = yr, xi = yi, yr = r, yi = i;
        times *= radix;
        n /= radix;
        swaps ^= 1;
    }
    return swaps;
}

/* The discrete Fourier transform of n = 16 m complex numbers in x, by way of y: over 16 rows of m, then over m rows of 16.
 * The result is in y. `tables`: 2 * 16 for the first, 2 n of -2 pi j p / n at [j][p], 2 m for the second. Each array needs
 * slack for a vector. */
static void fourier(float *xr, float *xi, float *yr, float *yi, int n, const float *tables)
{
    int m = n / 16;
    const float *twiddle = tables + 32, *second = twiddle + 2 * n;
    if (transform_rows(xr, xi, yr, yi, 16, m, tables)) return; /* 16 is 4 * 4: the result is in x */
    for (int i = 0; i < n; i += W) {
        V c = load(twiddle + i), s = load(twiddle + n + i), r = load(xr + i), q = load(xi + i);
        store(xr + i, r * c - q * s);
        store(xi + i, r * s + q * c);
    }
    for (int p = 0; p < m; p++)
        for (int j = 0; j < 16; j++) {
            yr[p * 16 + j] = xr[j * m + p];
            yi[p * 16 + j] = xi[j * m + p];
        }
    if (transform_rows(yr, yi, xr, xi, m, 16, second))
        for (int i = 0; i < n; i += W) {
            store(yr + i, load(xr + i));
            store(yi + i, load(xi + i));
        }
}

/* ---- ANALYSE: the newest hop enters the window; its transform of n = 2 h points leaves as h + 1 real and imaginary parts.
 * Even samples are the real and odd ones the imaginary part of a transform of h points Z, so that the history in the state
 * holds them apart. X[k] = E + e^(-2 pi i k / n) O;  E = (Z[k] + Z*[h - k]) / 2, O = (Z[k] - Z*[h - k]) / 2i. */
static void analyse(const int32_t *p, const Memory *memory)
{
    int window = p[0] / 2, hop = p[1] / 2, h = p[2] / 2, past = window - hop;
    float *even = to(memory, p[3]), *odd = even + past, *re = to(memory, p[4]), *im = to(memory, p[5]), *work = to(memory, p[6]);
    const float *shape = from(memory, p[7]), *turn = from(memory, p[8]), *tables = from(memory, p[9]);
    float *xr = work, *xi = xr + h + PANEL, *yr = xi + h + PANEL, *yi = yr + h + PANEL;
    for (int i = 0; i < past; i++) xr[i] = even[i], xi[i] = odd[i];
    for (int i = 0; i < hop; i++) {
        xr[past + i] = sane(memory->in[2 * i]);
        xi[past + i] = sane(memory->in[2 * i + 1]);
    }
    for (int i = 0; i < past; i++) even[i] = xr[hop + i], odd[i] = xi[hop + i];
    for (int i = 0; i < window; i++) xr[i] *= shape[i], xi[i] *= shape[window + i];
    for (int i = window; i < h; i++) xr[i] = xi[i] = 0.0f;
    fourier(xr, xi, yr, yi, h, tables);
    yr[h] = yr[0], yi[h] = yi[0];
    for (int k = 0; k < h; k += W) {
        V r = load(yr + k), i = load(yi + k), c = load(turn + k), s = load(turn + h + k);
        V rr = reversed(load(yr + h - k - W + 1)), ri = reversed(load(yi + h - k - W + 1));
        V er = 0.5f * (r + rr), ei = 0.5f * (i - ri), or_ = 0.5f * (i + ri), oi = 0.5f * (rr - r);
        store(re + k, er + (c * or_ - s * oi));
        store(im + k, ei + (c * oi + s * or_));
    }
    re[h] = yr[0] - yi[0], im[h] = 0.0f;
}

/* ---- SYNTHESISE: the way back, times the dual window, added to what earlier frames left; a hop of samples is final.
 * Imaginary parts at zero and at half the rate are ignored. The window holds the factor 1 / h. */
static void synthesise(const int32_t *p, const Memory *memory)
{
    int window = p[0] / 2, hop = p[1] / 2, h = p[2] / 2, rest = window - hop;
    float *even = to(memory, p[3]), *odd = even + rest, *re = to(memory, p[4]), *im = to(memory, p[5]), *work = to(memory, p[6]);
    const float *shape = from(memory, p[7]), *turn = from(memory, p[8]), *tables = from(memory, p[9]);
    float *xr = work, *xi = xr + h + PANEL, *yr = xi + h + PANEL, *yi = yr + h + PANEL;
    im[0] = im[h] = 0.0f;
    for (int k = 0; k < h; k += W) {
        V r = load(re + k), i = load(im + k), c = load(turn + k), s = load(turn + h + k);
        V rr = reversed(load(re + h - k - W + 1)), ri = reversed(load(im + h - k - W + 1));
        V er = 0.5f * (r + rr), ei = 0.5f * (i - ri), dr = 0.5f * (r - rr), di = 0.5f * (i + ri);
        V or_ = dr * c + di * s, oi = di * c - dr * s;
        store(xr + k, er - oi);
        store(xi + k, ei + or_);
    }
    fourier(xi, xr, yi, yr, h, tables); /* with parts exchanged, forward is backward */
    for (int i = 0; i < window; i++) yr[i] *= shape[i], yi[i] *= shape[window + i];
    for (int i = 0; i < hop; i++) {
        memory->out[2 * i] = i < rest ? yr[i] + even[i] : yr[i];
        memory->out[2 * i + 1] = i < rest ? yi[i] + odd[i] : yi[i];
    }
    for (int i = 0; i < rest; i++) {
        even[i] = i + hop < rest ? even[i + hop] + yr[i + hop] : yr[i + hop];
        odd[i] = i + hop < rest ? odd[i + hop] + yi[i + hop] : yi[i + hop];
    }
}

/* ---- FRAME: the newest hop enters the window of a network that reads samples */
static void frame(const int32_t *p, const Memory *memory)
{
    int window = p[0], hop = p[1];
    float *x = to(memory, p[2]);
    for (int i = 0; i < window - hop; i++) x[i] = x[i + hop];
    for (int i = 0; i < hop; i++) x[window - hop + i] = sane(memory->in[i]);
}

/* ---- OVERLAP: frames of samples are added to what earlier ones left */
static void overlap(const int32_t *p, const Memory *memory)
{
    int rest = p[0] - p[1], hop = p[1];
    const float *x = from(memory, p[3]);
    float *tail = to(memory, p[2]);
    for (int i = 0; i < hop; i++) memory->out[i] = i < rest ? x[i] + tail[i] : x[i];
    for (int i = 0; i < rest; i++) tail[i] = i + hop < rest ? tail[i + hop] + x[i + hop] : x[i + hop];
}
