/* Products with constant weights. */

/* ---- PRODUCT: C[m][n] = bias + sum over segments and k of A[m][k] B[k][n]
 * One operand is constant. A is read number by number with any strides; B and C have columns without gaps. Constant B is
 * packed in panels of 16 columns, zero-padded. A segment is a stretch of k with its own places: what was concatenated, or
 * the steps of a convolution's window. Bound: one fused multiply-add of W numbers per W products; at most 10 loads for 16. */
typedef struct {
    const float *a, *b;
    int row, step;      /* strides of A in m and k */
    int line, panel;    /* strides of B in k and from panel to panel */
    int length;
} Segment;

enum { SEGMENTS = 24 };

typedef struct {
    const float *bias;
    int bias_row, bias_column; /* one of the strides is 0 or both are */
    float *c;
    int row;
    int segments;
    Segment s[SEGMENTS];
} Product;

/* R rows by P panels, rows and columns from m and n on; the compiler unrolls the loops over r and j, so acc is registers. */
INLINE void tile(const int R, const int P, const Product *p, int m, int n, int columns)
{
    V acc[8][4 * VP];
    const float *bias = p->bias + (ptrdiff_t)m * p->bias_row + n * p->bias_column;
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int j = 0; j < P * VP; j++)
            acc[r][j] = p->bias_column ? load(bias + r * p->bias_row + j * W) : splat(bias[r * p->bias_row]);
    for (const Segment *s = p->s; s < p->s + p->segments; s++) {
        const ptrdiff_t row = s->row, step = s->step, line = s->line, panel = s->panel;
        const float *a = s->a + m * row, *b = s->b + n / PANEL * panel;
        for (int k = s->length; k; k--) {
            V column[4 * VP];
            UNROLL for (int q = 0; q < P; q++)
                UNROLL for (int j = 0; j < VP; j++)
                    column[q * VP + j] = load(b + q * panel + j * W);
            UNROLL for (int r = 0; r < R; r++) {
                V x = splat(a[r * row]);
                UNROLL for (int j = 0; j < P * VP; j++)
                    acc[r][j] = acc[r][j] + x * column[j];
            }
            a += step;
            b += line;
        }
    }
    UNROLL for (int r = 0; r < R; r++) {
        float *c = p->c + (ptrdiff_t)(m + r) * p->row + n;
        UNROLL for (int j = 0; j < P * VP; j++)
            if ((j + 1) * W <= columns)
                store(c + j * W, acc[r][j]);
            else if (j * W < columns)
                store_some(c + j * W, acc[r][j], columns - j * W);
    }
}

/* A function each, so that each has all registers. */
#define TILE(R, P) APART void tile_##R##x##P(const Product *p, int m, int n, int columns) { tile(R, P, p, m, n, columns); }
TILE(1, 1)
#if !FEW_REGISTERS
TILE(2, 1)
TILE(1, 2)
#endif
#if W > 4 || defined(__ARM_NEON)
TILE(4, 1)
TILE(1, 4)
#endif
#if W == 16
TILE(4, 2)
TILE(8, 1)
TILE(8, 2)
#endif

static void multiply(const Product *p, int rows, int columns)
{
    int m = 0;
#if W == 16
    for (; rows - m >= 8; m += 8) {
        int n = 0;
        for (; columns - n > PANEL; n += 2 * PANEL) tile_8x2(p, m, n, columns - n);
        if (n < columns) tile_8x1(p, m, n, columns - n);
    }
#endif
#if W > 4 || defined(__ARM_NEON)
    for (; rows - m >= 4; m += 4) {
        int n = 0;
#if W == 16
        for (; columns - n > PANEL; n += 2 * PANEL) tile_4x2(p, m, n, columns - n);
#endif
        for (; n < columns; n += PANEL) tile_4x1(p, m, n, columns - n);
    }
#endif
#if !FEW_REGISTERS
    for (; rows - m >= 2; m += 2)
        for (int n = 0; n < columns; n += PANEL) tile_2x1(p, m, n, columns - n);
#endif
    for (; m < rows; m++) {
        int n = 0;
#if W > 4 || defined(__ARM_NEON)
        for (; columns - n > 3 * PANEL; n += 4 * PANEL) tile_1x4(p, m, n, columns - n);
#endif
#if !FEW_REGISTERS
        for (; columns - n > PANEL; n += 2 * PANEL) tile_1x2(p, m, n, columns - n);
#endif
        for (; n < columns; n += PANEL) tile_1x1(p, m, n, columns - n);
    }
}

static void product(const int32_t *a, const Memory *memory)
{
    const int batch = a[0], rows = a[1], columns = a[2];
    Product p;
    p.c = to(memory, a[3]), p.row = a[5];
    p.bias = from(memory, a[6]), p.bias_row = a[8], p.bias_column = a[9];
    p.segments = a[10];
    for (int j = 0; j < p.segments; j++) {
        const int32_t *s = a + 11 + 9 * j;
        p.s[j].a = from(memory, s[0]), p.s[j].row = s[2], p.s[j].step = s[3];
        p.s[j].b = from(memory, s[4]), p.s[j].line = s[6], p.s[j].panel = s[7], p.s[j].length = s[8];
    }
    for (int i = 0; i < batch; i++) {
        multiply(&p, rows, columns);
        p.c += a[4];
        p.bias += a[7];
        for (int j = 0; j < p.segments; j++) {
            p.s[j].a += a[11 + 9 * j + 1];
            p.s[j].b += a[11 + 9 * j + 5];
        }
    }
}

/* ---- NARROW: a product of at most 16 / f columns, f = 2 or 4: lanes n f + j sum every f-th k from the j-th on, so that no lane is
 * idle; neighbours are added at the end. A has steps of 1, segments are multiples of f long. */
#define HEIGHT (W == 16 ? 8 : W == 8 ? 4 : W == 4 ? 2 : 1)

/* a[0] .. a[f - 1] over and over, for vector `part` of a panel. */
INLINE V spread(const float *a, const int f, int part)
{
#if SCALAR
    return a[part % f];
#else
    (void)part;
#if W == 16
    if (f == 4) return _mm512_broadcast_f32x4(_mm_loadu_ps(a));
#elif W == 8
    if (f == 4) return _mm256_broadcast_ps((const __m128 *)(const void *)a);
#else
    if (f == 4) return load(a);
#endif
    typedef uint64_t Pair __attribute__((aligned(4), may_alias));
    typedef uint64_t Pairs __attribute__((vector_size(4 * W)));
    return (V)(*(const Pair *)(const void *)a + (Pairs){0});
#endif
}

/* Neighbours' sums: those of a, then those of b. */
INLINE V pairs(V a, V b)
{
#if W == 16
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    return _mm512_permutex2var_ps(a, even, b) + _mm512_permutex2var_ps(a, even + 0x100000001, b);
#elif W == 8
    V even = _mm256_shuffle_ps(a, b, 0x88), odd = _mm256_shuffle_ps(a, b, 0xdd);
    return (V)_mm256_permute4x64_pd((__m256d)(even + odd), 0xd8);
#elif W == 4
    return (V){a[0], a[2], b[0], b[2]} + (V){a[1], a[3], b[1], b[3]};
#else
    return a + b;
#endif
}

INLINE void narrow_tile(const int f, const Product *p, int m, int rows, int columns)
{
    V acc[HEIGHT * VP];
    UNROLL for (int r = 0; r < HEIGHT; r++)
        UNROLL for (int j = 0; j < VP; j++)
            acc[r * VP + j] = load(p->bias + j * W);
    for (const Segment *s = p->s; s < p->s + p->segments; s++) {
        const float *a[HEIGHT], *b = s->b;
        UNROLL for (int r = 0; r < HEIGHT; r++) a[r] = s->a + (ptrdiff_t)(m + r < rows ? m + r : rows - 1) * s->row;
        for (int k = 0; k < s->length; k += f, b += PANEL)
            UNROLL for (int r = 0; r < HEIGHT; r++)
                UNROLL for (int j = 0; j < VP; j++)
                    acc[r * VP + j] = acc[r * VP + j] + spread(a[r] + k, f, j) * load(b + j * W);
    }
    int left = HEIGHT * VP;
    UNROLL for (int i = 0; i < HEIGHT * VP / 2; i++) acc[i] = pairs(acc[2 * i], acc[2 * i + 1]);
    left /= 2;
    if (f == 4) {
        UNROLL for (int i = 0; i < HEIGHT * VP / 4; i++) acc[i] = pairs(acc[2 * i], acc[2 * i + 1]);
        left /= 2;
    }
    float *c = p->c + (ptrdiff_t)m * p->row, sums[HEIGHT * PANEL];
    const int dense = columns == PANEL / f && p->row == columns && m + HEIGHT <= rows;
    UNROLL for (int i = 0; i < left; i++) store((dense ? c : sums) + i * W, acc[i]);
    if (dense) return;
    const int height = rows - m < HEIGHT ? rows - m : HEIGHT;
    if (columns == 4)
        for (int r = 0; r < height; r++)
            UNROLL for (int n = 0; n < 4; n++) c[(ptrdiff_t)r * p->row + n] = sums[r * (PANEL / f) + n];
    else
        for (int r = 0; r < height; r++)
            for (int n = 0; n < columns; n++) c[(ptrdiff_t)r * p->row + n] = sums[r * (PANEL / f) + n];
}

static void narrow(const int32_t *a, const Memory *memory)
{
    const int rows = a[0], columns = a[1];
    Product p;
    p.c = to(memory, a[3]), p.row = a[4], p.bias = from(memory, a[5]), p.segments = a[6];
    for (int j = 0; j < p.segments; j++) {
        const int32_t *s = a + 7 + 4 * j;
        p.s[j].a = from(memory, s[0]), p.s[j].row = s[1], p.s[j].b = from(memory, s[2]), p.s[j].length = s[3];
    }
    for (int m = 0; m < rows; m += HEIGHT)
        if (a[2] == 4) narrow_tile(4, &p, m, rows, columns);
        else narrow_tile(2, &p, m, rows, columns);
}

/* ---- SPARSE_PRODUCT: the same for one row of A that is mostly zeros, as spikes are; only rows of B that count are read
 * c[n] = bias[n] + sum over k with a[k] != 0 of a[k] B[k][n]. `active` is scratch for the indices. */
static void sparse_product(const int32_t *a, const Memory *memory)
{
    int length = a[0], columns = a[1], line = a[6], count = 0;
    const float *x = from(memory, a[2]), *bias = from(memory, a[4]), *b = from(memory, a[5]);
    float *c = to(memory, a[7]);
    int32_t *active = (int32_t *)(void *)to(memory, a[8]);
    for (int k = 0; k < length; k++) {
        active[count] = k;
        count += x[(ptrdiff_t)k * a[3]] != 0.0f;
    }
    for (int n = 0; n < columns; n += 4 * PANEL) {
        V acc[4 * VP];
        UNROLL for (int j = 0; j < 4 * VP; j++)
            acc[j] = n + j * W < columns ? load(bias + n + j * W) : splat(0.0f);
        for (int i = 0; i < count; i++) {
            const float *w = b + (ptrdiff_t)active[i] * line + n;
            V scale = splat(x[(ptrdiff_t)active[i] * a[3]]);
            UNROLL for (int j = 0; j < 4 * VP; j++)
                acc[j] = acc[j] + scale * load(w + j * W);
        }
        UNROLL for (int j = 0; j < 4 * VP; j++)
            if (n + (j + 1) * W <= columns)
                store(c + n + j * W, acc[j]);
            else if (n + j * W < columns)
                store_some(c + n + j * W, acc[j], columns - n - j * W);
    }
}

/* ---- SPARSE_INT8: the same where B is int8 * step, a step for each column */
static void sparse_int8(const int32_t *a, const Memory *memory)
{
    int length = a[0], columns = a[1], line = a[7];
    const float *x = from(memory, a[2]), *bias = from(memory, a[4]);
    float *c = to(memory, a[8]), sum[PANEL];
    for (int n = 0; n < columns; n += PANEL) {
        const int width = columns - n < PANEL ? columns - n : PANEL;
        const float *steps = memory->steps + a[6] + n;
        for (int j = 0; j < width; j++) sum[j] = bias[n + j];
        for (int k = 0; k < length; k++) {
            const float scale = x[(ptrdiff_t)k * a[3]];
            const int8_t *q = memory->weights + a[5] + (ptrdiff_t)k * line + n;
            if (scale != 0.0f)
                for (int j = 0; j < width; j++) sum[j] = sum[j] + scale * ((float)q[j] * steps[j]);
        }
        for (int j = 0; j < width; j++) c[n + j] = sum[j];
    }
}
