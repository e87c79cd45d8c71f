/* What a program is made of, and the kernels that work on each element.
 *
 * A program is an array of int32: rows of an operation, the row's length, and the operation's arguments. A place is one of
 * these: three bits of memory (constants, state, scratch) above the offset in floats. Strides and offsets count floats. Every
 * array is followed by PANEL floats that may be read: a vector may begin inside an array and end beyond it. Writes are exact.
 */
typedef struct {
    const float *constants;
    float *state, *scratch;
    const float *in; /* samples of one hop */
    float *out;
    const int8_t *weights; /* of a program that keeps weights as int8, and their steps */
    const float *steps;
} Memory;

enum { CONSTANTS, STATE, SCRATCH };

INLINE const float *from(const Memory *m, int32_t place)
{
    int32_t at = place & 0xfffffff;
    switch (place >> 28) {
    case CONSTANTS: return m->constants + at;
    case STATE: return m->state + at;
    default: return m->scratch + at;
    }
}

INLINE float *to(const Memory *m, int32_t place)
{
    int32_t at = place & 0xfffffff;
    return place >> 28 == STATE ? m->state + at : m->scratch + at;
}

INLINE float immediate(int32_t x)
{
    union { int32_t i; float f; } b;
    b.i = x;
    return b.f;
}

/* ---- EXPAND: y = int8 * step, blocks of `length` numbers in rows of `columns`, each of which has a step of its own */
static void expand(const int32_t *p, const Memory *memory)
{
    const int blocks = p[0], length = p[1], columns = p[2];
    const int8_t *q = memory->weights + p[3];
    const float *steps = memory->steps + p[4];
    float *y = to(memory, p[5]);
    for (int block = 0; block < blocks; block++, q += length, y += length, steps += columns)
        if (columns == 1)
            for (int i = 0; i < length; i++) y[i] = (float)q[i] * steps[0];
        else
            for (int i = 0; i < length; i += columns)
                for (int j = 0; j < columns; j++) y[i + j] = (float)q[i + j] * steps[j];
}

/* ---- MAP: y = f(a, b, c) over three axes, the last without gaps in y and of stride 1 or 0 in a, b and c */
enum { COPY, ADD, SUB, MUL, DIV, MULADD, MAXIMUM, MINIMUM, RELU, ELU, SIGMOID, TANH, EXP, LOG, SQRT, POW, ABS, NEG, PRELU,
       EQUAL, GREATER, GREATER_EQUAL, WHERE };

typedef struct {
    const float *at;
    ptrdiff_t stride[3];
} Source;

#define LANES(s) (s.stride[2] ? load(s.at + i * s.stride[0] + j * s.stride[1] + k) : splat(s.at[i * s.stride[0] + j * s.stride[1]]))
#define EACH(operands, expression) \
    for (ptrdiff_t i = 0; i < n[0]; i++) \
        for (ptrdiff_t j = 0; j < n[1]; j++) { \
            float *to_ = y + i * step[0] + j * step[1]; \
            ptrdiff_t k = 0; \
            for (; k + W <= n[2]; k += W) { \
                operands; \
                store(to_ + k, expression); \
            } \
            if (!SCALAR && k < n[2]) { \
                operands; \
                store_some(to_ + k, expression, (int)(n[2] - k)); \
            } \
        } \
    break
#define UNARY(expression) EACH(V a = LANES(s[0]), expression)
#define BINARY(expression) EACH(V a = LANES(s[0]); V b = LANES(s[1]), expression)
#define TERNARY(expression) EACH(V a = LANES(s[0]); V b = LANES(s[1]); V c = LANES(s[2]), expression)

static void map(const int32_t *p, const Memory *memory)
{
    const ptrdiff_t n[3] = {p[2], p[3], p[4]}, step[2] = {p[6], p[7]};
    float *y = to(memory, p[5]);
    const int sources = (p[-1] - 8) / 4; /* p[-1] is the length of the row */
    Source s[3] = {{0, {0, 0, 0}}, {0, {0, 0, 0}}, {0, {0, 0, 0}}};
    for (int i = 0; i < sources; i++) {
        const int32_t *q = p + 8 + 4 * i;
        s[i].at = from(memory, q[0]);
        s[i].stride[0] = q[1], s[i].stride[1] = q[2], s[i].stride[2] = q[3];
    }
    switch (p[0]) {
    case COPY: UNARY(a);
    case ADD: BINARY(a + b);
    case SUB: BINARY(a - b);
    case MUL: BINARY(a * b);
    case DIV: BINARY(a / b);
    case MULADD: TERNARY(c + a * b);
    case MAXIMUM: BINARY(larger(a, b));
    case MINIMUM: BINARY(smaller(a, b));
    case RELU: UNARY(larger(a, splat(0.0f)));
    case ELU: UNARY(linear_or_exponential(a));
    case SIGMOID: UNARY(sigmoid(a));
    case TANH: UNARY(hyperbolic_tangent(a));
    case EXP: UNARY(exponential(a));
    case LOG: UNARY(logarithm(a));
    case SQRT: UNARY(square_root(a));
    case POW: UNARY(power(a, immediate(p[1])));
    case ABS: UNARY(magnitude(a));
    case NEG: UNARY(splat(0.0f) - a);
    case PRELU: BINARY(choose(greater(a, splat(0.0f)), a, a * b));
    case EQUAL: BINARY(choose(same(a, b), splat(1.0f), splat(0.0f)));
    case GREATER: BINARY(choose(greater(a, b), splat(1.0f), splat(0.0f)));
    case GREATER_EQUAL: BINARY(choose(at_least(a, b), splat(1.0f), splat(0.0f)));
    case WHERE: TERNARY(choose(same(a, splat(0.0f)), c, b));
    }
}

/* ---- MOVE: y = a over three axes of any strides */
static void move(const int32_t *p, const Memory *memory)
{
    const float *a = from(memory, p[3]);
    float *y = to(memory, p[7]);
    for (ptrdiff_t i = 0; i < p[0]; i++)
        for (ptrdiff_t j = 0; j < p[1]; j++)
            for (ptrdiff_t k = 0; k < p[2]; k++)
                y[i * p[8] + j * p[9] + k * p[10]] = a[i * p[4] + j * p[5] + k * p[6]];
}

/* ---- TAKE: y[i] = a[index[i]]; an index outside of a counts as the nearest, and NaN as 0 */
static void take(const int32_t *p, const Memory *memory)
{
    int n = p[0], size = p[1];
    const float *a = from(memory, p[2]), *index = from(memory, p[4]);
    float *y = to(memory, p[6]);
    for (int i = 0; i < n; i++) {
        float x = index[(ptrdiff_t)i * p[5]];
        int at = x > 0.0f ? (x < (float)size ? (int)x : size - 1) : 0;
        y[i] = a[(ptrdiff_t)at * p[3]];
    }
}

/* ---- ZERO: y = 0 */
static void zero_fill(const int32_t *p, const Memory *memory)
{
    float *y = to(memory, p[1]);
    for (int i = 0; i < p[0]; i++) y[i] = 0.0f;
}
