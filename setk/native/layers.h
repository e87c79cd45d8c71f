/* Layers that are more than a product or a map. */

/* ---- NORMALISE SOFTMAX: the sum of f over n numbers, lane i of 16 taking every 16th number from the i-th on. */
#define LANE_SUM(sum, n, f) \
    { \
        V acc_[VP]; \
        float lane_[PANEL]; \
        int i_ = 0; \
        UNROLL for (int j_ = 0; j_ < VP; j_++) acc_[j_] = splat(0.0f); \
        for (; i_ + PANEL <= n; i_ += PANEL) \
            UNROLL for (int j_ = 0; j_ < VP; j_++) { \
                V v = load(x + i_ + j_ * W); \
                acc_[j_] = acc_[j_] + (f); \
            } \
        UNROLL for (int j_ = 0; j_ < VP; j_++) store(lane_ + j_ * W, acc_[j_]); \
        for (; i_ < n; i_++) { \
            float v = x[i_]; \
            lane_[i_ % PANEL] += (f); \
        } \
        sum = fold(lane_); \
    }

/* ---- NORMALISE: y = (x - mean) / sqrt(variance + epsilon) gain + offset, + residual if there is one */
static void normalise(const int32_t *p, const Memory *memory)
{
    int rows = p[0], n = p[1];
    const float epsilon = immediate(p[2]), *gain = from(memory, p[5]), *offset = from(memory, p[6]);
    for (int row = 0; row < rows; row++) {
        const float *x = from(memory, p[3]) + (ptrdiff_t)row * p[4];
        const float *residual = p[7] < 0 ? NULL : from(memory, p[7]) + (ptrdiff_t)row * p[8];
        float *y = to(memory, p[9]) + (ptrdiff_t)row * p[10], mean, variance, lanes[W];
        LANE_SUM(mean, n, v)
        mean /= (float)n;
        LANE_SUM(variance, n, (v - mean) * (v - mean))
        store(lanes, square_root(splat(variance / (float)n + epsilon)));
        const float scale = 1.0f / lanes[0];
        for (int i = 0; i < n; i += W) {
            V v = (load(x + i) - mean) * scale * load(gain + i) + load(offset + i);
            if (residual) v = v + load(residual + i);
            if (i + W <= n) store(y + i, v); else store_some(y + i, v, n - i);
        }
    }
}

/* ---- GATES SCAN: one step of W units of a GRU: h' = n + z (h - n), n = tanh(x_n + r h_n), from what goes into r and z. */
INLINE V gated(V r, V z, V x_n, V h_n, V h)
{
    V n = hyperbolic_tangent(x_n + sigmoid(r) * h_n);
    return n + sigmoid(z) * (h - n);
}

/* ---- GATES: one step of a GRU from the products */
static void gates(const int32_t *p, const Memory *memory)
{
    int rows = p[0], units = p[1];
    for (int i = 0; i < rows; i++) {
        const float *in[5];
        for (int j = 0; j < 5; j++) in[j] = from(memory, p[2 + 2 * j]) + (ptrdiff_t)i * p[3 + 2 * j];
        float *y = to(memory, p[12]) + (ptrdiff_t)i * p[13];
        for (int k = 0; k < units; k += W) {
            V h = gated(load(in[0] + k), load(in[1] + k), load(in[2] + k), load(in[3] + k), load(in[4] + k));
            if (k + W <= units) store(y + k, h); else store_some(y + k, h, units - k);
        }
    }
}

/* ---- SCAN: one or two GRUs over T steps, in both directions at once
 * x[t][d] holds the input's part of r, z and n, `padded` apart, biases included; weights[d][k][3 padded]; h starts at zero.
 * Bound: the latency of a step. Four partial sums over k shorten it, and the two directions overlap. */
INLINE void scan_steps(const int32_t *p, const Memory *memory, const int units, const int padded)
{
    const int steps = p[0], directions = p[1], reversed = p[4];
    const float *inputs = from(memory, p[5]), *weights = from(memory, p[8]), *bias = from(memory, p[10]);
    float *h = to(memory, p[14]), *y = to(memory, p[11]);
    for (int i = 0; i < 2 * directions * padded; i++) h[i] = 0.0f;
    for (int step = 0; step < steps; step++)
        for (int d = 0; d < directions; d++) {
            const int t = (reversed >> d) & 1 ? steps - 1 - step : step;
            const float *x = inputs + (ptrdiff_t)t * p[6] + d * p[7], *before = h + (2 * d + step % 2) * padded;
            float *after = h + (2 * d + (step + 1) % 2) * padded, *out = y + (ptrdiff_t)t * p[12] + d * p[13];
            for (int v = 0; v < units; v += W) {
                const float *w = weights + d * p[9] + v;
                V r[4], z[4], n[4];
                UNROLL for (int i = 0; i < 4; i++) r[i] = z[i] = n[i] = splat(0.0f);
                r[0] = load(x + v), z[0] = load(x + padded + v), n[0] = load(bias + d * padded + v);
                for (int k = 0; k < units; k += 4, w += 12 * padded)
                    UNROLL for (int i = 0; i < 4; i++) {
                        V s = splat(before[k + i]);
                        r[i] = r[i] + s * load(w + 3 * i * padded);
                        z[i] = z[i] + s * load(w + (3 * i + 1) * padded);
                        n[i] = n[i] + s * load(w + (3 * i + 2) * padded);
                    }
                V next = gated((r[0] + r[1]) + (r[2] + r[3]), (z[0] + z[1]) + (z[2] + z[3]), load(x + 2 * padded + v),
                               (n[0] + n[1]) + (n[2] + n[3]), load(before + v));
                if (v + W <= units) store(out + v, next); else store_some(out + v, next, units - v);
                if (v + W <= units) store(after + v, next); else store_some(after + v, next, units - v);
            }
        }
}

static void scan(const int32_t *p, const Memory *memory)
{
    if (p[2] == 16) scan_steps(p, memory, 16, 16);
    else scan_steps(p, memory, p[2], p[3]);
}

/* ---- DEPTHWISE: y[f][c] = bias[c] + sum over t and k of weight[t][k][c] x_t[f + k - before][c], channels next to each other.
 * The first rows x_t are slots of a ring, the oldest at its counter; the last is the newest. Bound: 9 loads for 8 products of W. */
static void depthwise(const int32_t *p, const Memory *memory)
{
    const int channels = p[0], columns = p[1], rows = p[2], taps = p[3], before = p[4], line = p[7], pitch = p[9], oldest = (int)*from(memory, p[10]);
    const float *weights = from(memory, p[5]), *bias = from(memory, p[6]), *ring = from(memory, p[11]), *newest = from(memory, p[14]);
    float *y = to(memory, p[8]);
    const int inside = columns - taps + 1; /* positions from `before` on whose taps are all inside */
    for (int c = 0; c < channels; c += W) {
        const int lanes = channels - c < W ? channels - c : W;
        for (int block = 0; block * 8 < inside; block++) {
            const int f = inside < 8 ? 0 : block * 8 + 8 <= inside ? block * 8 : inside - 8;
            V acc[8];
            UNROLL for (int i = 0; i < 8; i++) acc[i] = load(bias + c);
            const float *w = weights + c;
            for (int t = 0; t < rows; t++) {
                const int slot = oldest + t < rows - 1 ? oldest + t : oldest + t - (rows - 1), step = t < rows - 1 ? p[13] : p[15];
                const float *x = (t < rows - 1 ? ring + (ptrdiff_t)slot * p[12] : newest) + (ptrdiff_t)f * step + c;
                for (int k = 0; k < taps; k++, x += step, w += line) {
                    V s = load(w);
                    UNROLL for (int i = 0; i < 8; i++) acc[i] = acc[i] + load(x + i * step) * s;
                }
            }
            UNROLL for (int i = 0; i < 8; i++)
                if (i < inside) {
                    if (lanes == W) store(y + (ptrdiff_t)(f + before + i) * pitch + c, acc[i]);
                    else store_some(y + (ptrdiff_t)(f + before + i) * pitch + c, acc[i], lanes);
                }
        }
        for (int f = 0; f < columns; f++) {
            if (f == before && inside > 0) f += inside;
            if (f >= columns) break;
            V sum = load(bias + c);
            for (int t = 0; t < rows; t++) {
                const int slot = oldest + t < rows - 1 ? oldest + t : oldest + t - (rows - 1), step = t < rows - 1 ? p[13] : p[15];
                const float *x = (t < rows - 1 ? ring + (ptrdiff_t)slot * p[12] : newest) + c;
                for (int k = 0; k < taps; k++) {
                    const int at = f + k - before;
                    if (at >= 0 && at < columns) sum = sum + load(x + (ptrdiff_t)at * step) * load(weights + (ptrdiff_t)(t * taps + k) * line + c);
                }
            }
            if (lanes == W) store(y + (ptrdiff_t)f * pitch + c, sum);
            else store_some(y + (ptrdiff_t)f * pitch + c, sum, lanes);
        }
    }
}

/* ---- PUSH: the newest row takes the place of the oldest in a ring of `slots` */
static void push(const int32_t *p, const Memory *memory)
{
    const int columns = p[0], channels = p[1], slots = p[2];
    float *counter = to(memory, p[3]), *slot = to(memory, p[4]) + (ptrdiff_t)(int)*counter * p[5];
    const float *x = from(memory, p[7]);
    for (int f = 0; f < columns; f++, slot += p[6], x += p[8])
        for (int c = 0; c < channels; c += W)
            if (c + W <= channels) store(slot + c, load(x + c));
            else store_some(slot + c, load(x + c), channels - c);
    *counter = (int)*counter + 1 < slots ? *counter + 1.0f : 0.0f;
}

/* ---- SOFTMAX: over n numbers */
static void softmax(const int32_t *p, const Memory *memory)
{
    int n = p[0];
    const float *a = from(memory, p[1]);
    float *x = to(memory, p[2]), greatest = a[0], sum;
    for (int i = 1; i < n; i++) greatest = a[i] > greatest ? a[i] : greatest;
    for (int i = 0; i < n; i += W) {
        V e = exponential(load(a + i) - greatest);
        if (i + W <= n) store(x + i, e); else store_some(x + i, e, n - i);
    }
    LANE_SUM(sum, n, v)
    for (int i = 0; i < n; i++) x[i] /= sum;
}

/* ---- GREATEST_INDEX: the index of the first greatest of n numbers */
static void greatest_index(const int32_t *p, const Memory *memory)
{
    const float *a = from(memory, p[1]);
    int best = 0;
    for (int i = 1; i < p[0]; i++)
        if (a[i] > a[best]) best = i;
    *to(memory, p[2]) = (float)best;
}
