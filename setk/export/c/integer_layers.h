/* Layers of integers. */

/* ---- PRODUCT SCAN: sums[r][c] += sum over k of a_r[k] w_c[k] for R rows and C columns, `length` a multiple of 4
 * Weights lie in fours as 0 2 1 3: SXTB16 takes the bytes 0 and 2, then 1 and 3, of a word apart, which leaves two pairs.
 * Bound: a row's sum of |w| is at most 2^15, so that a sum stays below 2^30 for any activations. 18 instructions for 16
 * products with R = C = 2 on processors with SMLAD. */
INLINE void accumulate(const int R, const int C, const int16_t *a, ptrdiff_t row, const int8_t *w, ptrdiff_t line, int length, int32_t *sums)
{
    const int8_t *end = w + length;
    for (; w < end; w += 4, a += 4) {
#if DSP
        int16x2_t x[4], y[4];
        UNROLL for (int r = 0; r < R; r++) {
            __builtin_memcpy(&x[2 * r], a + r * row, 4);
            __builtin_memcpy(&x[2 * r + 1], a + r * row + 2, 4);
        }
        UNROLL for (int c = 0; c < C; c++) {
            uint32_t four;
            __builtin_memcpy(&four, w + c * line, 4);
            y[2 * c] = __sxtb16((int8x4_t)four);
            y[2 * c + 1] = __sxtb16((int8x4_t)(four >> 8 | four << 24));
        }
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int c = 0; c < C; c++)
                sums[r * C + c] = __smlad(x[2 * r + 1], y[2 * c + 1], __smlad(x[2 * r], y[2 * c], sums[r * C + c]));
#else
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int c = 0; c < C; c++) {
                const int16_t *x = a + r * row;
                const int8_t *y = w + c * line;
                sums[r * C + c] += x[0] * y[0] + x[1] * y[2] + x[2] * y[1] + x[3] * y[3];
            }
#endif
    }
}

/* ---- PRODUCT: y[m][n] = f(bias[n] + sum over segments and k of a[m][k] w[n][k]), f = 1, ReLU or ELU
 * A sum becomes Qf by a factor of the column and a shift of the layer: y = (sum factor / 2^16) / 2^shift. Rows of a lie anywhere,
 * so that a convolution is a product of overlapping rows; a segment is a stretch of k with a place of its own: what was
 * concatenated. y has any strides, so that it may be written transposed. */
enum { LINEAR, RELU, ELU };
enum { SEGMENTS = 4 };

typedef struct {
    int function, shift, fraction, segments, columns;
    const int32_t *bias;
    const int16_t *factor;
    const int8_t *weights;
    ptrdiff_t line, row_out, column_out;
    int16_t *y;
    struct { const int16_t *a; ptrdiff_t row; int length; } s[SEGMENTS];
} Product;

INLINE void tile(const int R, const int C, const Product *p, int m, int n)
{
    int32_t sums[4];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < C; c++) sums[r * C + c] = p->bias[n + c];
    const int8_t *w = p->weights + n * p->line;
    for (int i = 0; i < p->segments; i++) {
        accumulate(R, C, p->s[i].a + m * p->s[i].row, p->s[i].row, w, p->line, p->s[i].length, sums);
        w += p->s[i].length;
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < C; c++) {
            int32_t y = rounded(scaled(sums[r * C + c], p->factor[n + c]), p->shift);
            if (p->function == RELU) y = y > 0 ? y : 0;
            if (p->function == ELU) y = linear_or_exponential(y, p->fraction);
            p->y[(m + r) * p->row_out + (n + c) * p->column_out] = saturated(y);
        }
}

static void product(const int32_t *a, const Memory *memory)
{
    const int batch = a[0], rows = a[1], columns = a[2];
    Product p;
    p.function = a[3], p.shift = a[4], p.fraction = a[5], p.columns = columns;
    p.y = numbers(memory, a[6]), p.row_out = a[8], p.column_out = a[9];
    p.bias = longs_at(memory, a[10]), p.factor = shorts_at(memory, a[11]);
    p.weights = weights_at(memory, a[12]), p.line = a[13], p.segments = a[14];
    for (int i = 0; i < p.segments; i++) {
        const int32_t *s = a + 15 + 4 * i;
        p.s[i].a = numbers(memory, s[0]), p.s[i].row = s[2], p.s[i].length = s[3];
    }
    for (int b = 0; b < batch; b++) {
        int m = 0;
        for (; m + 2 <= rows; m += 2) {
            int n = 0;
            for (; n + 2 <= columns; n += 2) tile(2, 2, &p, m, n);
            if (n < columns) tile(2, 1, &p, m, n);
        }
        for (int n = 0; m < rows && n < columns; n++) tile(1, 1, &p, m, n);
        p.y += a[7], p.bias += columns, p.factor += columns, p.weights += columns * p.line;
        for (int i = 0; i < p.segments; i++) p.s[i].a += a[15 + 4 * i + 1];
    }
}

/* ---- MOVE: y[i][j] = x[i][j], of any strides */
static void move(const int32_t *a, const Memory *memory)
{
    const int16_t *x = numbers(memory, a[2]);
    int16_t *y = numbers(memory, a[5]);
    for (ptrdiff_t i = 0; i < a[0]; i++)
        for (ptrdiff_t j = 0; j < a[1]; j++) y[i * a[6] + j * a[7]] = x[i * a[3] + j * a[4]];
}

static void zero_fill(const int32_t *a, const Memory *memory)
{
    int16_t *y = numbers(memory, a[1]);
    for (int i = 0; i < a[0]; i++) y[i] = 0;
}

/* ---- ADD: y = a + b, all in the same Qf; y may be a or b */
static void add(const int32_t *p, const Memory *memory)
{
    const int16_t *a = numbers(memory, p[1]), *b = numbers(memory, p[2]);
    int16_t *y = numbers(memory, p[3]);
    for (int i = 0; i < p[0]; i++) y[i] = saturated(a[i] + b[i]);
}

/* ---- NORMALISE: y = residual + gain (x - mean) / sqrt(variance + epsilon) + offset, residual and y in the same Qf
 * With S = sum x, d = n x - S and V = n sum x^2 - S^2 + n^2 epsilon, all exact, the normalised value is d / sqrt(V), which is
 * below sqrt(n). It is computed in Q23, by way of log2 V. Bound: n <= 512, so that sqrt(V) < 2^24 and d < 2^25; two passes. */
static void normalise(const int32_t *a, const Memory *memory)
{
    const int rows = a[0], n = a[1], shift = a[6], lift = a[7];
    const int64_t epsilon = (int64_t)(((uint64_t)(uint32_t)a[3] << 32) | (uint32_t)a[2]);
    const int16_t *gain = shorts_at(memory, a[4]), *offset = shorts_at(memory, a[5]);
    const int16_t *x = numbers(memory, a[8]), *residual = numbers(memory, a[9]);
    int16_t *y = numbers(memory, a[10]);
    for (int row = 0; row < rows; row++, x += n, residual += n, y += n) {
        int32_t sum = 0;
        int64_t squares = 0;
        for (int i = 0; i < n; i++) sum += x[i], squares += x[i] * x[i];
        int exponent;
        const int64_t v = squares * n - (int64_t)sum * sum + epsilon;
        const int32_t mantissa = power(-(logarithm((uint64_t)v) >> 1), &exponent);
        const int32_t factor = (int32_t)1 << (25 + exponent);
        for (int i = 0; i < n; i++) {
            const int32_t z = high((n * x[i] - sum) * factor, mantissa);
            y[i] = saturated(residual[i] + rounded(scaled(z, gain[i]) + offset[i] * lift, shift));
        }
    }
}

/* ---- GATES SCAN: one unit of a GRU: h' = n + z (h - n), n = tanh(x_n + r h_n), from what goes into r and z; Q12, and h in Q15 */
INLINE int16_t gated(int32_t r, int32_t z, int32_t x_n, int32_t h_n, int32_t h)
{
    const int32_t n = hyperbolic_tangent(x_n + ((sigmoid(r) * saturated(h_n)) >> 16));
    return (int16_t)(n + (((sigmoid(z) >> 1) * (h - n)) >> 15));
}

/* ---- GATES: one step of GRUs: h[i] from the products x[i] and p[i] of input and state, [r, z, n] of `units` each */
static void gates(const int32_t *a, const Memory *memory)
{
    const int rows = a[0], units = a[1];
    const int16_t *x = numbers(memory, a[2]), *p = numbers(memory, a[3]);
    int16_t *h = numbers(memory, a[4]);
    for (int i = 0; i < rows; i++, x += 3 * units, p += 3 * units, h += units)
        for (int k = 0; k < units; k++)
            h[k] = gated(x[k] + p[k], x[units + k] + p[units + k], x[2 * units + k], p[2 * units + k], h[k]);
}

/* ---- SCAN: GRUs over T steps from zero, the odd ones backwards. x[t][d] is the input's part, [r, z, n] of `units` each in Q12.
 * `work`: the state, padded to a multiple of 4, and 3 units for the state's part. */
static void scan(const int32_t *a, const Memory *memory)
{
    const int steps = a[0], directions = a[1], units = a[2], padded = a[3], shift = a[4], gates3 = 3 * units;
    const int16_t *inputs = numbers(memory, a[5]);
    const int32_t *bias = longs_at(memory, a[6]);
    const int16_t *factor = shorts_at(memory, a[7]);
    const int8_t *weights = weights_at(memory, a[8]);
    int16_t *y = numbers(memory, a[9]), *h = numbers(memory, a[10]), *p = h + padded;
    for (int d = 0; d < directions; d++, bias += gates3, factor += gates3, weights += gates3 * padded) {
        for (int i = 0; i < padded; i++) h[i] = 0;
        for (int step = 0; step < steps; step++) {
            const int t = d % 2 ? steps - 1 - step : step;
            const int16_t *x = inputs + (t * directions + d) * gates3;
            int16_t *out = y + (t * directions + d) * units;
            for (int n = 0; n < gates3; n += 3) {
                int32_t sums[3] = {bias[n], bias[n + 1], bias[n + 2]};
                accumulate(1, 3, h, 0, weights + n * padded, padded, padded, sums);
                UNROLL for (int c = 0; c < 3; c++) p[n + c] = saturated(rounded(scaled(sums[c], factor[n + c]), shift));
            }
            for (int k = 0; k < units; k++)
                out[k] = h[k] = gated(x[k] + p[k], x[units + k] + p[units + k], x[2 * units + k], p[2 * units + k], h[k]);
        }
    }
}
