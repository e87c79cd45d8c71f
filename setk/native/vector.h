/* Vectors of W floats, and the functions that other libraries keep in libm.
 *
 * One text serves every processor: AVX-512 (W = 16), AVX2 (8), SSE2, NEON, MVE and wasm SIMD (4), anything else or
 * -DSETK_SCALAR (1). Every kernel computes each output from the same operands in the same order for any W, so with
 * -ffp-contract=off all builds return the same bits. Where the compiler may fuse multiply and add, they differ by rounding.
 */
#if defined(__FAST_MATH__)
#error "compile without -ffast-math (and -Ofast): it removes the rounding that these functions rely on"
#endif

#if defined(SETK_SCALAR) || !defined(__GNUC__)
#define W 1
#elif defined(__AVX512F__)
#define W 16
#include <immintrin.h>
#elif defined(__AVX2__)
#define W 8
#include <immintrin.h>
#elif defined(__ARM_FEATURE_MVE) && __ARM_FEATURE_MVE & 2
#define W 4
#define FEW_REGISTERS 1
#include <arm_mve.h>
#elif defined(__SSE2__) || defined(__ARM_NEON) || defined(__wasm_simd128__)
#define W 4
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#else
#define W 1
#endif

#define PANEL 16         /* columns of weights that lie together */
#define VP (PANEL / W)   /* vectors of a panel */
#define SCALAR (W == 1)
#if !defined(FEW_REGISTERS)
#define FEW_REGISTERS SCALAR /* eight vectors at most: one row by one panel of accumulators */
#endif

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 16")
#else
#define UNROLL
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline, unused))
#define APART static __attribute__((noinline))
#define ALIGNED __attribute__((aligned(64)))
#define FETCH(p) __builtin_prefetch(p)
#else
#define INLINE static inline
#define APART static
#define ALIGNED
#define FETCH(p) (void)(p)
#endif

#if SCALAR
typedef float V;
typedef uint32_t U;
INLINE V load(const float *p) { return *p; }
INLINE void store(float *p, V x) { *p = x; }
INLINE V splat(float x) { return x; }
INLINE U bits(V x) { union { float f; uint32_t u; } b; b.f = x; return b.u; }
INLINE V number(U x) { union { float f; uint32_t u; } b; b.u = x; return b.f; }
INLINE V whole(U x) { return (float)(int32_t)x; }
INLINE U greater(V a, V b) { return a > b ? 0xffffffffu : 0; }
INLINE U at_least(V a, V b) { return a >= b ? 0xffffffffu : 0; }
INLINE U same(V a, V b) { return a == b ? 0xffffffffu : 0; }
#else
typedef float V __attribute__((vector_size(4 * W)));
typedef uint32_t U __attribute__((vector_size(4 * W)));
typedef int32_t I __attribute__((vector_size(4 * W)));
typedef float Unaligned __attribute__((vector_size(4 * W), aligned(4), may_alias));
INLINE V load(const float *p) { return *(const Unaligned *)p; }
INLINE void store(float *p, V x) { *(Unaligned *)p = x; }
INLINE V splat(float x) { return x - (V){0}; }
INLINE U bits(V x) { return (U)x; }
INLINE V number(U x) { return (V)x; }
INLINE V whole(U x) { return __builtin_convertvector((I)x, V); }
#if defined(__ARM_FEATURE_MVE) /* GCC compares the lanes of its vectors one by one */
#define WHERE(p) ((U)vpselq_u32(vdupq_n_u32(0xffffffffu), vdupq_n_u32(0), p))
INLINE U greater(V a, V b) { return WHERE(vcmpgtq_f32((float32x4_t)a, (float32x4_t)b)); }
INLINE U at_least(V a, V b) { return WHERE(vcmpgeq_f32((float32x4_t)a, (float32x4_t)b)); }
INLINE U same(V a, V b) { return WHERE(vcmpeqq_f32((float32x4_t)a, (float32x4_t)b)); }
#else
INLINE U greater(V a, V b) { return (U)(a > b); }
INLINE U at_least(V a, V b) { return (U)(a >= b); }
INLINE U same(V a, V b) { return (U)(a == b); }
#endif
#endif

INLINE V choose(U mask, V a, V b) { return number((mask & bits(a)) | (~mask & bits(b))); }

/* The greater and the lesser; b where a is not a number. */
#if W == 16
INLINE V larger(V a, V b) { return _mm512_max_ps(a, b); }
INLINE V smaller(V a, V b) { return _mm512_min_ps(a, b); }
#elif W == 8
INLINE V larger(V a, V b) { return _mm256_max_ps(a, b); }
INLINE V smaller(V a, V b) { return _mm256_min_ps(a, b); }
#elif W == 4 && defined(__ARM_FEATURE_MVE)
INLINE V larger(V a, V b) { return (V)vpselq_f32((float32x4_t)a, (float32x4_t)b, vcmpgtq_f32((float32x4_t)a, (float32x4_t)b)); }
INLINE V smaller(V a, V b) { return (V)vpselq_f32((float32x4_t)a, (float32x4_t)b, vcmpgtq_f32((float32x4_t)b, (float32x4_t)a)); }
#elif W == 4 && defined(__SSE2__)
INLINE V larger(V a, V b) { return _mm_max_ps(a, b); }
INLINE V smaller(V a, V b) { return _mm_min_ps(a, b); }
#else
INLINE V larger(V a, V b) { return choose(greater(a, b), a, b); }
INLINE V smaller(V a, V b) { return choose(greater(b, a), a, b); }
#endif
INLINE V clamp(V x, float low, float high) { return smaller(larger(x, splat(low)), splat(high)); }
INLINE V magnitude(V x) { return number(bits(x) & 0x7fffffffu); }

/* The first n < W lanes. What a load reads beyond them is inside the arrays or their slack and is never used. */
INLINE void store_some(float *p, V x, int n)
{
#if W == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), x);
#elif SCALAR
    if (n > 0) *p = x;
#else
    for (int i = 0; i < n; i++) p[i] = x[i];
#endif
}

/* 2^(whole + part), |part| <= 1, with the result between 2^-126 and 2^127. Degree 6, error 1 ulp. */
INLINE V power_of_two(V whole_part, V part)
{
    V t = clamp(whole_part + part, -126.0f, 127.0f) + 12582912.0f; /* 1.5 * 2^23: the low bits are the nearest integer */
    V n = t - 12582912.0f, r = (whole_part - n) + part;
    r = clamp(r, -1.0f, 1.0f);
    V p = splat(1.5353362e-4f);
    p = p * r + 1.3398874e-3f;
    p = p * r + 9.6184374e-3f;
    p = p * r + 5.5503324e-2f;
    p = p * r + 2.4022648e-1f;
    p = p * r + 6.9314720e-1f;
    p = p * r + 1.0f;
    return p * number((bits(t) << 23) + 0x3f800000u);
}

/* e^x = 2^n e^r, r = x - n ln 2 in two parts. x is limited to [-87, 88]; -87 where it is not a number. */
INLINE V exponential(V x)
{
    x = clamp(x, -87.0f, 88.0f);
    V t = x * 1.44269504f + 12582912.0f, n = t - 12582912.0f;
    V r = x - n * 0.693359375f + n * 2.12194440e-4f;
    V p = splat(1.9875691e-4f);
    p = p * r + 1.3981999e-3f;
    p = p * r + 8.3334519e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 5.0000001e-1f;
    p = p * r * r + r + 1.0f;
    return p * number((bits(t) << 23) + 0x3f800000u);
}

/* 2^t, t limited to [low, high] within [-60, 60]: 2^n 2^r, n being the nearest integer. Degree 5, relative error below 2e-7. */
INLINE V two_to(V t, float low, float high)
{
    t = clamp(t, low, high);
    V up = t + 12582912.0f, r = t - (up - 12582912.0f);
    V s = r * r, p = (1.32647273e-3f * r + 9.67151299e-3f) * s + (5.55073358e-2f * r + 2.40222424e-1f);
    p = p * s + (6.93147004e-1f * r + 1.0f);
    return number(bits(p) + (bits(up) << 23));
}

/* max(x, 0) + e^min(x, 0) - 1 = the exponential linear unit. e^x = 2^(x / ln 2): the rounding of that is small where e^x is. */
INLINE V linear_or_exponential(V x)
{
    return larger(x, splat(0.0f)) + (two_to(x * 1.44269504f, -36.0f, 0.0f) - 1.0f);
}

/* tanh x = x P(x^2) / Q(x^2), a minimax fit on |x| <= 9, where tanh rounds to 1; relative error below 2e-7. Returns x P. */
INLINE V hyperbolic_tangent_over(V x, V *below)
{
    x = clamp(x, -9.0f, 9.0f);
    V u = x * x, v = u * u;
    V p = (1.33544036e-8f * v + (2.06088995e-5f * u + 3.49557723e-3f)) * v + (1.33810166e-1f * u + 9.99999979e-1f);
    *below = (7.77645361e-7f * v + (3.28561684e-4f * u + 2.58769410e-2f)) * v + (4.67143322e-1f * u + 1.0f);
    return x * p;
}

INLINE V hyperbolic_tangent(V x)
{
    V below, above = hyperbolic_tangent_over(x, &below);
    return above / below;
}

/* 1 / (1 + e^-x) = 1/2 + tanh(x / 2) / 2, the factors being part of the coefficients. */
INLINE V sigmoid(V x)
{
    x = clamp(x, -18.0f, 18.0f);
    V u = x * x, v = u * u;
    V p = (1.30414098e-11f * v + (8.05035136e-8f * u + 5.46183942e-5f)) * v + (8.36313538e-3f * u + 2.49999995e-1f);
    V q = (3.03767719e-9f * v + (5.13377631e-6f * u + 1.61730881e-3f)) * v + (1.16785831e-1f * u + 1.0f);
    return x * p / q + 0.5f;
}

/* log2 x = exponent + part for x >= 2^-126 (less is taken as that), the mantissa being in [0.707, 1.414]. */
INLINE V binary_logarithm(V x, V *part)
{
    x = larger(x, splat(1.17549435e-38f));
    U raised = bits(x) + (0x3f800000u - 0x3f3504f3u);
    V exponent = whole((raised >> 23)) - 127.0f;
    V f = number((raised & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    V s = f / (f + 2.0f), z = s * s; /* log2 (1 + f) = 2 / ln 2 (s + s^3 / 3 + s^5 / 5 ...) */
    V p = 0.2623708f * z + 0.3205989f;
    p = p * z + 0.4121986f;
    p = p * z + 0.5770780f;
    p = p * z + 0.9617967f;
    *part = s * 2.88539008f + s * z * p;
    return exponent;
}

INLINE V logarithm(V x)
{
    V part, exponent = binary_logarithm(x, &part);
    return exponent * 0.693359375f + (part * 0.69314718f - exponent * 2.12194440e-4f);
}

/* x^y for x >= 0 by 2^(y log2 x). `y` times the exponent is split in two, so that large powers lose nothing. 0 where x is 0. */
INLINE V power(V x, float y)
{
    V part, exponent = binary_logarithm(x, &part);
    union { float f; uint32_t u; } high;
    high.f = y;
    high.u &= 0xffff0000u; /* times an exponent of 8 bits this is exact */
    V result = power_of_two(exponent * high.f, exponent * (y - high.f) + part * y);
    return choose(greater(x, splat(0.0f)), result, splat(0.0f));
}

/* Square root by Newton's steps from a guess of the exponent, not by an instruction: not every processor has one. 0 for x <= 0. */
INLINE V square_root(V x)
{
    V r = number(0x5f375a86u - (bits(x) >> 1)), half = 0.5f * x;
    r = r * (1.5f - half * r * r);
    r = r * (1.5f - half * r * r);
    r = r * (1.5f - half * r * r);
    V root = x * r;
    root = root + 0.5f * r * (x - root * root);
    return choose(greater(x, splat(0.0f)), root, splat(0.0f));
}

/* The sum of 16 partial sums, which are added in pairs: the same order for any W. */
INLINE float fold(const float *s)
{
    float t[8], u[4];
    for (int i = 0; i < 8; i++) t[i] = s[i] + s[i + 8];
    for (int i = 0; i < 4; i++) u[i] = t[i] + t[i + 4];
    return (u[0] + u[2]) + (u[1] + u[3]);
}
