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

/* ---- GATES SCAN CELL: one step of W units of a GRU: h' = n + z (h - n), n = tanh(x_n + r h_n), from what goes into r and z.
 * With n = s / q and b = e^-z this is (s b + h q) / (q (1 + b)): one division in place of two, and a shorter way from r to h'. */
INLINE V gated(V r, V z, V x_n, V h_n, V h)
{
    V b = two_to(z * -1.44269504f, -60.0f, 60.0f), q, s = hyperbolic_tangent_over(x_n + sigmoid(r) * h_n, &q);
    return (s * b + h * q) / (q + q * b);
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

/* ---- CELL: one step of a GRU, products and gates in one, so that what goes into the gates stays in registers
 * r and z are bias + h B + x B, h_n is of h alone and x_n of x alone, then as GATES. Weights are packed as those of PRODUCT, units
 * are a multiple of 16. Bound: one fused multiply-add of W numbers per W products, and the gates. */
#if W == 16 || W == 4 && defined(__ARM_NEON)
#define CELL_ROWS 4
#else
#define CELL_ROWS (FEW_REGISTERS ? 1 : 2)
#endif
#define CELL_VECTORS (SCALAR ? 4 : 1)

typedef struct {
    const float *a;            /* h or x */
    ptrdiff_t row, step;       /* strides of its rows and of k */
    int length;
    const float *b[3];         /* the weights of r, z and n */
} Operand;

typedef struct {
    Operand h, x;
    const float *bias[4], *before; /* of r, z, x_n and h_n; the old state */
    float *after;
    ptrdiff_t before_row, after_row;
} Cell;

/* R rows of N vectors, R N <= 4: the sums of r, z and n gain the products of an operand. */
INLINE void cell_products(const int R, const int N, const Operand *o, int m, V *r, V *z, V *n)
{
    const float *a = o->a + m * o->row, *b0 = o->b[0], *b1 = o->b[1], *b2 = o->b[2];
    const ptrdiff_t row = o->row, step = o->step;
    for (int k = o->length; k; k--, a += step, b0 += PANEL, b1 += PANEL, b2 += PANEL)
        UNROLL for (int j = 0; j < N; j++) {
            V w0 = load(b0 + j * W), w1 = load(b1 + j * W), w2 = load(b2 + j * W);
            UNROLL for (int i = 0; i < R; i++) {
                V x = splat(a[i * row]);
                r[i * N + j] = r[i * N + j] + x * w0;
                z[i * N + j] = z[i * N + j] + x * w1;
                n[i * N + j] = n[i * N + j] + x * w2;
            }
        }
}

INLINE void cell_tile(const int R, const int N, const Cell *c, int m)
{
    V r[4], z[4], x_n[4], h_n[4];
    UNROLL for (int i = 0; i < R * N; i++) {
        const int at = i % N * W;
        r[i] = load(c->bias[0] + at), z[i] = load(c->bias[1] + at), x_n[i] = load(c->bias[2] + at), h_n[i] = load(c->bias[3] + at);
    }
    cell_products(R, N, &c->h, m, r, z, h_n);
    cell_products(R, N, &c->x, m, r, z, x_n);
    UNROLL for (int i = 0; i < R * N; i++) {
        const float *h = c->before + (m + i / N) * c->before_row + i % N * W;
        store(c->after + (m + i / N) * c->after_row + i % N * W, gated(r[i], z[i], x_n[i], h_n[i], load(h)));
    }
}

static void cell(const int32_t *p, const Memory *memory)
{
    const int batch = p[0], rows = p[1], units = p[2];
    const float *both[2] = {from(memory, p[13]), from(memory, p[14])}, *alone[2] = {from(memory, p[17]), from(memory, p[20])};
    const float *operands[2] = {from(memory, p[3]), from(memory, p[8])};
    for (int i = 0; i < batch; i++)
        for (int u = 0; u < units; u += CELL_VECTORS * W) {
            Cell c;
            Operand *o[2] = {&c.h, &c.x};
            for (int j = 0; j < 2; j++) {
                const int32_t *q = p + 3 + 5 * j, *own = p + 17 + 3 * j;
                const ptrdiff_t first = (ptrdiff_t)i * p[15] + u / PANEL * p[16] + u % PANEL;
                o[j]->a = operands[j] + (ptrdiff_t)i * q[1], o[j]->row = q[2], o[j]->step = q[3], o[j]->length = q[4];
                o[j]->b[0] = both[j] + first, o[j]->b[1] = both[j] + first + units / PANEL * p[16];
                o[j]->b[2] = alone[j] + (ptrdiff_t)i * own[1] + u / PANEL * own[2] + u % PANEL;
            }
            c.bias[0] = from(memory, p[23]) + (ptrdiff_t)i * p[24] + u, c.bias[1] = c.bias[0] + units;
            c.bias[2] = from(memory, p[25]) + (ptrdiff_t)i * p[26] + u, c.bias[3] = from(memory, p[27]) + (ptrdiff_t)i * p[28] + u;
            c.before_row = p[30], c.before = from(memory, p[29]) + i * rows * c.before_row + u;
            c.after_row = p[32], c.after = to(memory, p[31]) + i * rows * c.after_row + u;
            int m = 0;
            for (; rows - m >= CELL_ROWS; m += CELL_ROWS) cell_tile(CELL_ROWS, CELL_VECTORS, &c, m);
            for (; m < rows; m++) cell_tile(1, CELL_VECTORS, &c, m);
        }
}

/* ---- SCAN: one or two GRUs over T steps, in both directions at once
 * x[t][d] holds the input's part of r, z and n, `padded` apart, biases included; weights[d][k][3 padded]; h starts at zero.
 * Bound: the latency of a step. Two partial sums over k shorten it, and the two directions overlap. */
#define SCAN_VECTORS (W == 16 ? 1 : 2) /* that read each h once */

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
            for (int first = 0; first < units; first += SCAN_VECTORS * W) {
                const float *w = weights + d * p[9] + first;
                V r[4], z[4], n[4];
                UNROLL for (int j = 0; j < SCAN_VECTORS; j++) {
                    const int v = first + j * W;
                    r[j] = load(x + v), z[j] = load(x + padded + v), n[j] = load(bias + d * padded + v);
                    r[2 + j] = z[2 + j] = n[2 + j] = splat(0.0f);
                }
                for (int k = 0; k < units; k += 4, w += 12 * padded)
                    UNROLL for (int i = 0; i < 4; i++) {
                        V s = splat(before[k + i]);
                        UNROLL for (int j = 0; j < SCAN_VECTORS; j++) {
                            const int at = i % 2 * 2 + j;
                            r[at] = r[at] + s * load(w + 3 * i * padded + j * W);
                            z[at] = z[at] + s * load(w + (3 * i + 1) * padded + j * W);
                            n[at] = n[at] + s * load(w + (3 * i + 2) * padded + j * W);
                        }
                    }
                UNROLL for (int j = 0; j < SCAN_VECTORS; j++) {
                    const int v = first + j * W;
                    V next = gated(r[j] + r[2 + j], z[j] + z[2 + j], load(x + 2 * padded + v), n[j] + n[2 + j], load(before + v));
                    if (v + W <= units) store(out + v, next); else store_some(out + v, next, units - v > 0 ? units - v : 0);
                    if (v + W <= units) store(after + v, next); else store_some(after + v, next, units - v > 0 ? units - v : 0);
                }
            }
        }
}

static void scan(const int32_t *p, const Memory *memory)
{
    if (p[2] == 16) scan_steps(p, memory, 16, 16);
    else scan_steps(p, memory, p[2], p[3]);
}

/* ---- DEPTHWISE: y[f][c] = bias[c] + sum over t and k of weight[t][k][c] x_t[f + k - before][c], channels next to each other.
 * The first rows x_t are slots of a ring, the oldest at its counter, in panels of 16 channels [slot][panel][f][16]; the last is
 * the newest. Bound: with 3 or 7 taps one multiply-add of W numbers per W products, as each x is loaded once for 8 positions. */
#if W == 4 && !defined(__ARM_NEON)
#define TAPS 4 /* held in registers: without a fused multiply-add a product needs one too, of 16 */
#else
#define TAPS 7
#endif

INLINE void eight_positions(const int taps, V *acc, const float *x, ptrdiff_t step, const float *w, ptrdiff_t line)
{
    UNROLL for (int first = 0; first < taps; first += TAPS) {
        const int n = taps - first < TAPS ? taps - first : TAPS;
        V tap[TAPS];
        UNROLL for (int k = 0; k < n; k++) tap[k] = load(w + (first + k) * line);
        UNROLL for (int f = 0; f < 7 + n; f++) {
            V v = load(x + (first + f) * step);
            if (first == 0 && f < 8) FETCH(x + (f + 14) * step); /* what the next positions add to these; from the third cache it would be late */
            UNROLL for (int k = 0; k < n; k++)
                if (f >= k && f < k + 8) acc[f - k] = acc[f - k] + v * tap[k];
        }
    }
}

static void depthwise(const int32_t *p, const Memory *memory)
{
    const int channels = p[0], columns = p[1], rows = p[2], taps = p[3], before = p[4], line = p[7], pitch = p[9], oldest = (int)*from(memory, p[10]);
    const ptrdiff_t panel = p[13];
    const float *weights = from(memory, p[5]), *bias = from(memory, p[6]), *ring = from(memory, p[11]), *newest = from(memory, p[14]);
    float *y = to(memory, p[8]);
    const int inside = columns - taps + 1; /* positions from `before` on whose taps are all inside */
    for (int c = 0; c < channels; c += W) {
        const int lanes = channels - c < W ? channels - c : W;
        const float *past = ring + c / PANEL * panel + c % PANEL;
        for (int block = 0; block * 8 < inside && inside >= 8; block++) {
            const int f = block * 8 + 8 <= inside ? block * 8 : inside - 8;
            V acc[8];
            UNROLL for (int i = 0; i < 8; i++) acc[i] = load(bias + c);
            const float *w = weights + c;
            for (int t = 0; t < rows; t++) {
                const int slot = oldest + t < rows - 1 ? oldest + t : oldest + t - (rows - 1), step = t < rows - 1 ? PANEL : p[15];
                const float *x = (t < rows - 1 ? past + (ptrdiff_t)slot * p[12] : newest + c) + (ptrdiff_t)f * step;
                if (taps == 7 && !SCALAR) eight_positions(7, acc, x, step, w, line), w += 7 * line;
                else if (taps == 3 && !SCALAR) eight_positions(3, acc, x, step, w, line), w += 3 * line;
                else for (int k = 0; k < taps; k++, x += step, w += line) {
                    V s = load(w);
                    UNROLL for (int i = 0; i < 8; i++) acc[i] = acc[i] + load(x + i * step) * s;
                }
            }
            UNROLL for (int i = 0; i < 8; i++)
                if (lanes == W) store(y + (ptrdiff_t)(f + before + i) * pitch + c, acc[i]);
                else store_some(y + (ptrdiff_t)(f + before + i) * pitch + c, acc[i], lanes);
        }
        for (int f = 0; f < columns; f++) {
            if (f == before && inside >= 8) f += inside;
            if (f >= columns) break;
            V sum = load(bias + c);
            for (int t = 0; t < rows; t++) {
                const int slot = oldest + t < rows - 1 ? oldest + t : oldest + t - (rows - 1), step = t < rows - 1 ? PANEL : p[15];
                const float *x = t < rows - 1 ? past + (ptrdiff_t)slot * p[12] : newest + c;
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

/* ---- PUSH: the newest row takes the place of the oldest in a ring of `slots`. Bound: memory; a line of a panel is written at once. */
static void push(const int32_t *p, const Memory *memory)
{
    const int columns = p[0], channels = p[1], slots = p[2];
    float *counter = to(memory, p[3]), *slot = to(memory, p[4]) + (ptrdiff_t)(int)*counter * p[5];
    const float *newest = from(memory, p[7]);
    for (int c = 0; c < channels; c += PANEL, slot += p[6]) {
        float *y = slot;
        const float *x = newest + c;
        const int lanes = channels - c < PANEL ? channels - c : PANEL;
        for (int f = 0; f < columns; f++, y += PANEL, x += p[8])
            UNROLL for (int j = 0; j < PANEL; j += W)
                if (j + W <= lanes) store(y + j, load(x + j));
                else if (j < lanes) store_some(y + j, load(x + j), lanes - j);
    }
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
