/* Arithmetic of integers: what the integer kernels share. No operation here is of floating point.
 *
 * A number in Qf is an integer that counts units of 2^-f. Activations and states are int16, weights int8, sums int32; sums of
 * squares and products of two int32 are int64. Right shifts of negative numbers are arithmetic, as every compiler in use does.
 * Every result is exact integer arithmetic, so all compilers and processors return the same bits.
 */
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline, unused))
#define APART static __attribute__((noinline))
#define ALIGNED __attribute__((aligned(8)))
#define UNROLL _Pragma("GCC unroll 4")
#else
#define INLINE static inline
#define APART static
#define ALIGNED
#define UNROLL
#endif
#if defined(__clang__)
#undef UNROLL
#define UNROLL _Pragma("unroll")
#endif
#if defined(__ARM_FEATURE_SIMD32) && defined(__ARM_FEATURE_UNALIGNED) && !defined(SETK_SCALAR)
#define DSP 1 /* Cortex-M4, M7, M33 and up: two 16-bit products an instruction */
#include <arm_acle.h>
#else
#define DSP 0
#endif

/* a b / 2^16, rounded down; b is of 16 bits. */
INLINE int32_t scaled(int32_t a, int16_t b)
{
#if DSP
    int32_t y; /* GCC 12 has no __smulwb */
    __asm__("smulwb %0, %1, %2" : "=r"(y) : "r"(a), "r"(b));
    return y;
#else
    return (int32_t)(((int64_t)a * b) >> 16);
#endif
}

INLINE int32_t high(int32_t a, int32_t b) { return (int32_t)(((int64_t)a * b) >> 32); }

INLINE int16_t saturated(int32_t x)
{
#if DSP
    return (int16_t)__ssat(x, 16);
#else
    return (int16_t)(x > 32767 ? 32767 : x < -32768 ? -32768 : x);
#endif
}

/* x / 2^shift, rounded to the nearest; shift >= 1. */
INLINE int32_t rounded(int32_t x, int shift) { return (x + ((int32_t)1 << (shift - 1))) >> shift; }

/* Bits of x > 0 less one: the exponent of its leading bit. */
INLINE int leading(uint64_t x)
{
#if defined(__GNUC__)
    return x >> 32 ? 63 - __builtin_clz((uint32_t)(x >> 32)) : 31 - __builtin_clz((uint32_t)x);
#else
    int n = 0;
    while (x >>= 1) n++;
    return n;
#endif
}

/* log2 x in Q24 for x >= 1, by linear interpolation: error 3e-6. */
INLINE int32_t logarithm(uint64_t x)
{
    int n = leading(x);
    uint32_t mantissa = n > 31 ? (uint32_t)(x >> (n - 31)) : (uint32_t)x << (31 - n);
    int i = mantissa >> 23 & 255;
    uint32_t part = mantissa >> 8 & 0x7fff, step = (uint32_t)(logarithm_table[i + 1] - logarithm_table[i]);
    return n * ((int32_t)1 << 24) + logarithm_table[i] + (int32_t)(part * step >> 15);
}

/* 2^(x / 2^24) as a mantissa in Q30, from 1 to 2, and the exponent; error 1e-6. */
INLINE int32_t power(int32_t x, int *exponent)
{
    int i = x >> 16 & 255;
    *exponent = x >> 24;
    return power_table[i] + (int32_t)(((int64_t)(power_table[i + 1] - power_table[i]) * (x & 0xffff)) >> 16);
}

/* x mantissa 2^(exponent - 30), rounded to the nearest and limited to +-limit < 2^31. */
INLINE int32_t product_of(int32_t x, int32_t mantissa, int exponent, int32_t limit)
{
    int64_t p = (int64_t)x * mantissa;
    int shift = 30 - exponent;
    if (shift > 62) return 0;
    if (shift < 1) return x > 0 ? limit : x < 0 ? -limit : 0;
    p = (p + ((int64_t)1 << (shift - 1))) >> shift;
    return p > limit ? limit : p < -limit ? -limit : (int32_t)p;
}

/* x y / 2^32 of 64 and 32 bits, rounded down; |x| < 2^62. */
INLINE int64_t fraction_of(int64_t x, uint32_t y) { return (x >> 32) * y + (int64_t)(((uint64_t)(uint32_t)x * y) >> 32); }

/* 1 / (1 + e^-x) in Q16 of x in Q12, which saturates at +-8: error 2e-5 inside, 3e-4 beyond. */
INLINE int32_t sigmoid(int32_t x)
{
    x = saturated(x) + 32768;
    int32_t i = x >> 7, low = sigmoid_table[i];
    return low + (((sigmoid_table[i + 1] - low) * (x & 127) + 64) >> 7);
}

/* tanh x = 2 sigmoid(2 x) - 1 in Q15, of x in Q12. */
INLINE int32_t hyperbolic_tangent(int32_t x) { return sigmoid(2 * x) - 32768; }

/* x where x > 0, e^x - 1 elsewhere, in Qf with 6 <= f <= 15; e^x is e^-8 below -8. */
INLINE int32_t linear_or_exponential(int32_t x, int f)
{
    if (x >= 0) return x;
    const int32_t u = x > -((int32_t)8 << f) ? -x : ((int32_t)8 << f) - 1, i = u >> (f - 6), low = exponential_table[i];
    const int32_t e = low + (((exponential_table[i + 1] - low) * (u & (((int32_t)1 << (f - 6)) - 1))) >> (f - 6));
    return (e - 32768 + ((1 << (15 - f)) >> 1)) >> (15 - f);
}

/* ---- Places
 * A program is an array of int32: rows of an operation, the row's length, and its arguments. A place is three bits of memory above
 * an offset, which counts elements of a constant array, and int16 in state and scratch. int32 there have even offsets. Strides
 * count elements. Arrays of activations are followed by memory that may be read: products read up to 7 numbers beyond a row, and
 * the weights of those are 0.
 */
typedef struct {
    const int8_t *bytes;
    const int16_t *shorts;
    const int32_t *longs;
    int16_t *state, *scratch;
    const int16_t *in; /* samples of one hop */
    int16_t *out;
} Memory;

enum { BYTES, SHORTS, LONGS, STATE, SCRATCH };

INLINE int16_t *numbers(const Memory *m, int32_t place)
{
    return (place >> 28 == STATE ? m->state : m->scratch) + (place & 0xfffffff);
}

INLINE int32_t *wide(const Memory *m, int32_t place) { return (int32_t *)(void *)numbers(m, place); }
INLINE const int8_t *weights_at(const Memory *m, int32_t place) { return m->bytes + (place & 0xfffffff); }
INLINE const int16_t *shorts_at(const Memory *m, int32_t place) { return m->shorts + (place & 0xfffffff); }
INLINE const int32_t *longs_at(const Memory *m, int32_t place) { return m->longs + (place & 0xfffffff); }
