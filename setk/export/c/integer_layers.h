/* Layers of integers. */

/* ---- PRODUCT SCAN: sums[r][c] += sum over k of a_r[k] w_c[k] for R rows a, b and C columns, `length` a multiple of 8; returns the
 * end of the weights. Weights lie in fours as 0 2 1 3, and those of two columns in turn: SXTB16 makes pairs of the bytes 0 and 2,
 * then of 1 and 3, of a word. Bound: a column's sum of |w| is at most 2^15, so that a sum stays below 2^30 for any activations;
 * with SMLAD 36 instructions for 32 products where R = C = 2, which compilers do not reach: their schedulers run out of registers. */
INLINE const int8_t *accumulate(const int R, const int C, const int16_t *a, const int16_t *b, const int8_t *w, int length, int32_t *sums)
{
    const int8_t *end = w + C * length;
#if DSP
    int32_t u, v, x, y, t;
    if (R == 2 && C == 2) {
        do UNROLL for (int half = 0; half < 2; half++)
            __asm__("ldrd %[u], %[v], [%[w]], #8 \n ldr %[x], [%[a]], #4 \n ldr %[y], [%[b]], #4 \n"
                    "sxtb16 %[t], %[u] \n smlad %[p], %[x], %[t], %[p] \n smlad %[r], %[y], %[t], %[r] \n"
                    "sxtb16 %[t], %[v] \n smlad %[q], %[x], %[t], %[q] \n smlad %[s], %[y], %[t], %[s] \n"
                    "ldr %[x], [%[a]], #4 \n ldr %[y], [%[b]], #4 \n"
                    "sxtb16 %[u], %[u], ror #8 \n smlad %[p], %[x], %[u], %[p] \n smlad %[r], %[y], %[u], %[r] \n"
                    "sxtb16 %[v], %[v], ror #8 \n smlad %[q], %[x], %[v], %[q] \n smlad %[s], %[y], %[v], %[s]"
                    : [a] "+r"(a), [b] "+r"(b), [w] "+r"(w), [p] "+r"(sums[0]), [q] "+r"(sums[1]), [r] "+r"(sums[2]),
                      [s] "+r"(sums[3]), [u] "=&r"(u), [v] "=&r"(v), [x] "=&r"(x), [y] "=&r"(y), [t] "=&r"(t)
                    : : "memory");
        while (w < end);
        return w;
    }
    if (R == 1 && C == 2) {
        do UNROLL for (int half = 0; half < 2; half++)
            __asm__("ldrd %[u], %[v], [%[w]], #8 \n ldr %[x], [%[a]], #4 \n ldr %[y], [%[a]], #4 \n"
                    "sxtb16 %[t], %[u] \n smlad %[p], %[x], %[t], %[p] \n sxtb16 %[t], %[v] \n smlad %[q], %[x], %[t], %[q] \n"
                    "sxtb16 %[u], %[u], ror #8 \n smlad %[p], %[y], %[u], %[p] \n"
                    "sxtb16 %[v], %[v], ror #8 \n smlad %[q], %[y], %[v], %[q]"
                    : [a] "+r"(a), [w] "+r"(w), [p] "+r"(sums[0]), [q] "+r"(sums[1]), [u] "=&r"(u), [v] "=&r"(v),
                      [x] "=&r"(x), [y] "=&r"(y), [t] "=&r"(t)
                    : : "memory");
        while (w < end);
        return w;
    }
#endif
    for (; w < end; w += 4 * C, a += 4, b += 4)
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int c = 0; c < C; c++) {
                const int16_t *p = r ? b : a;
                const int8_t *q = w + 4 * c;
                sums[r * C + c] += p[0] * q[0] + p[1] * q[2] + p[2] * q[1] + p[3] * q[3];
            }
    return w;
}

/* ---- PRODUCT: y[m][n] = f(bias[n] + sum over segments and k of a[m][k] w[n][k]), f = 1, ReLU or ELU
 * A sum becomes Qf by a factor of the column and a shift of the layer: y = (sum factor / 2^16) / 2^shift, rounded down: what rounds to
 * the nearest is part of the bias. Rows of a lie anywhere, so that a convolution is a product of overlapping rows; a segment is a
 * stretch of k with a place of its own: what was concatenated. y has any strides, so that it may be written transposed. */
enum { LINEAR, RELU, ELU };
enum { SEGMENTS = 4 };

typedef struct { const int16_t *a, *b; int length; ptrdiff_t row; } Segment;

typedef struct {
    int shift, fraction, columns;
    const int32_t *bias;
    const int16_t *factor;
    const int8_t *weights;
    ptrdiff_t row, column; /* strides of y */
    const Segment *end;
    Segment s[SEGMENTS];
} Product;

/* C columns from n on of R rows, to y; returns the weights of the next columns. */
INLINE const int8_t *tile(const int function, const int R, const int C, const Product *p, int n, const int8_t *w, int16_t *y)
{
    int32_t sums[4];
    UNROLL for (int i = 0; i < R * C; i++) sums[i] = p->bias[n + i % C];
    const Segment *s = p->s;
    do w = accumulate(R, C, s->a, s->b, w, s->length, sums);
    while (++s < p->end);
    const int shift = p->shift, fraction = p->fraction;
    const ptrdiff_t row = p->row, column = p->column;
    const int16_t *factor = p->factor + n;
    UNROLL for (int c = 0; c < C; c++)
        UNROLL for (int r = 0; r < R; r++) {
            int32_t x = scaled(sums[r * C + c], factor[c]) >> shift;
            if (function == RELU) x = x > 0 ? x : 0;
            if (function == ELU) x = linear_or_exponential(x, fraction);
            y[r * row + c * column] = saturated(x);
        }
    return w;
}

INLINE void rows_of(const int function, const int R, const Product *p, int16_t *y)
{
    const int8_t *w = p->weights;
    int n = 0;
    for (; n + 2 <= p->columns; n += 2, y += 2 * p->column) w = tile(function, R, 2, p, n, w, y);
    if (n < p->columns) tile(function, R, 1, p, n, w, y);
}

/* A function each, so that each has all registers. */
APART void linear_2(const Product *p, int16_t *y) { rows_of(LINEAR, 2, p, y); }
APART void relu_2(const Product *p, int16_t *y) { rows_of(RELU, 2, p, y); }
APART void elu_2(const Product *p, int16_t *y) { rows_of(ELU, 2, p, y); }
APART void linear_1(const Product *p, int16_t *y) { rows_of(LINEAR, 1, p, y); }
APART void relu_1(const Product *p, int16_t *y) { rows_of(RELU, 1, p, y); }
APART void elu_1(const Product *p, int16_t *y) { rows_of(ELU, 1, p, y); }

static void product(const int32_t *a, const Memory *memory)
{
    const int batch = a[0], rows = a[1], function = a[3], line = a[13], segments = a[14];
    Product p;
    p.columns = a[2], p.shift = a[4], p.fraction = a[5], p.row = a[8], p.column = a[9];
    p.bias = longs_at(memory, a[10]), p.factor = shorts_at(memory, a[11]), p.weights = weights_at(memory, a[12]);
    p.end = p.s + segments;
    for (int i = 0; i < segments; i++) p.s[i].row = a[15 + 4 * i + 2], p.s[i].length = a[15 + 4 * i + 3];
    for (int b = 0; b < batch; b++) {
        int16_t *y = numbers(memory, a[6]) + b * a[7];
        for (int i = 0; i < segments; i++) {
            p.s[i].a = numbers(memory, a[15 + 4 * i]) + b * a[15 + 4 * i + 1];
            p.s[i].b = p.s[i].a + p.s[i].row;
        }
        for (int m = 0; m + 2 <= rows; m += 2, y += 2 * p.row) {
            (function == ELU ? elu_2 : function == RELU ? relu_2 : linear_2)(&p, y);
            for (int i = 0; i < segments; i++) p.s[i].a += 2 * p.s[i].row, p.s[i].b += 2 * p.s[i].row;
        }
        if (rows % 2) (function == ELU ? elu_1 : function == RELU ? relu_1 : linear_1)(&p, y);
        p.bias += p.columns, p.factor += p.columns, p.weights += p.columns * line;
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

/* ---- SCAN: GRUs over T steps from zero, the odd ones backwards. x[t][d] is the input's part, [r, z, n] of `units` each in Q12,
 * an even number. `work`: the state, padded to a multiple of 8, and 3 units for the state's part. */
static void scan(const int32_t *a, const Memory *memory)
{
    const int steps = a[0], directions = a[1], units = a[2], padded = a[3], shift = a[4], all = 3 * units;
    const int16_t *inputs = numbers(memory, a[5]);
    const int32_t *bias = longs_at(memory, a[6]);
    const int16_t *factor = shorts_at(memory, a[7]);
    const int8_t *weights = weights_at(memory, a[8]);
    int16_t *y = numbers(memory, a[9]), *h = numbers(memory, a[10]), *p = h + padded;
    for (int d = 0; d < directions; d++, bias += all, factor += all, weights += all * padded) {
        for (int i = 0; i < padded; i++) h[i] = 0;
        for (int step = 0; step < steps; step++) {
            const int t = d % 2 ? steps - 1 - step : step;
            const int16_t *x = inputs + (t * directions + d) * all;
            const int8_t *w = weights;
            int16_t *out = y + (t * directions + d) * units;
            for (int n = 0; n < all; n += 2) {
                int32_t sums[2] = {bias[n], bias[n + 1]};
                w = accumulate(1, 2, h, h, w, padded, sums);
                p[n] = saturated(scaled(sums[0], factor[n]) >> shift);
                p[n + 1] = saturated(scaled(sums[1], factor[n + 1]) >> shift);
            }
            for (int k = 0; k < units; k++)
                out[k] = h[k] = gated(x[k] + p[k], x[units + k] + p[units + k], x[2 * units + k], p[2 * units + k], h[k]);
        }
    }
}
