/* Many small GRUs on one core: the CPU kernel behind setk/nn/gru.py, called through ctypes.

   G groups, each with its own weights, run over N = B * K sequences of T steps:

       r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
       z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
       n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
       h' = n + z * (h - n)

   It is fast at about 16 units because only x, y and their gradients go through memory.  Hidden vectors
   stay in registers.  A tile of S sequences shares every weight loaded.  The products with x are formed
   where they are used.  The backward pass computes the gates again from x and y: storing them would be
   four vectors a step written and read, four times the size of y.

   I and H are multiples of 16: the caller pads.  Sums have a fixed order: the same call returns the same
   bits on the same processor. */

#include "vec.h"

enum { S = 4 }; /* sequences in a tile */

typedef struct { /* [G, B, T, K, features]: the last axis contiguous, strides in floats */
    float *data;
    int64_t g, b, t, k;
} Frames;

typedef struct { /* weights [G, 3H, I or H], biases [G, 3H]; gates in the order r, z, n */
    float *weight_ih, *weight_hh, *bias_ih, *bias_hh;
} Weights;

typedef struct {
    int64_t G, B, T, K, I, H;
    const uint8_t *reverse; /* [G]: does the group run backwards? */
    const float *h0;        /* [G, B, K, H] */
} Shape;

/* exp(v) - 1 to 1e-7 of its value: v = k ln 2 + f, |f| <= ln 2 / 2, then 2^k (exp(f) - 1) + 2^k - 1.
   The polynomial is the minimax one for (exp(f) - 1) / f, error 2e-8.  Both comparisons are false
   for a NaN, which therefore goes through. */
INLINE V exp_minus_1(V v) {
    const V low = spread(-87.f), high = spread(87.f);
    v = choose(v < low, low, v);
    v = choose(v > high, high, v);
    const V shifted = v * 1.44269504f + 12582912.f; /* 1.5 * 2^23: the last bits are k, rounded */
    const V f = v - (shifted - 12582912.f) * 0.693147182f;
    V p = f * 0.0013882394f + 0.008367181f;
    p = p * f + 0.041667223f;
    p = p * f + 0.16666539f;
    p = p * f + 0.49999997f;
    p = p * f + 1.f;
    const V power = (V)(((VI)shifted + 127) << 23);
    return power * (p * f) + (power - 1.f);
}
INLINE V sigmoid(V v) { return 1.f / (exp_minus_1(-v) + 2.f); }
INLINE V tanh_(V v) {
    const V e = exp_minus_1(v + v);
    return e / (e + 2.f);
}

/* sum[s] += column (x[s][j] * w[j]), w [J, stride]; the one matrix product of the file */
INLINE void multiply(int s_, V *sum, const float *w, int J, int stride, const float *const *x) {
#pragma GCC unroll 4
    for (int j = 0; j < J; j++) {
        const V row = load(w + j * stride);
        EACH(s, s_) sum[s] += row * x[s][j];
    }
}

/* Its counterpart for the gradient of weights: w[j] += sum over s of d[s][j] * x[s], w [J, stride] */
INLINE void accumulate(int s_, float *w, int J, int stride, const float *const *d, const V *x) {
#pragma GCC unroll 4
    for (int j = 0; j < J; j++) {
        V row = load(w + j * stride);
        EACH(s, s_) row += x[s] * d[s][j];
        store(w + j * stride, row);
    }
}

/* The weights of a group, turned so that one load brings a weight of L hidden units:
   gate q of [3][I + H][H]; then the biases [4][H] of r, z, the input half of n, its hidden half. */
INLINE void pack(int I, int H, const Weights *w, int g, float *packed) {
    const float *wi = w->weight_ih + (int64_t)g * 3 * H * I, *wh = w->weight_hh + (int64_t)g * 3 * H * H;
    const float *bi = w->bias_ih + g * 3 * H, *bh = w->bias_hh + g * 3 * H;
    for (int q = 0; q < 3; q++)
        for (int o = 0; o < H; o++) {
            float *to = packed + q * (I + H) * H + o;
            for (int j = 0; j < I; j++) to[j * H] = wi[(q * H + o) * I + j];
            for (int j = 0; j < H; j++) to[(I + j) * H] = wh[(q * H + o) * H + j];
        }
    float *b = packed + 3 * (I + H) * H;
    for (int o = 0; o < 2 * H; o++) b[o] = bi[o] + bh[o];
    for (int o = 2 * H; o < 3 * H; o++) b[o] = bi[o], b[o + H] = bh[o];
}

/* The gates of hidden units v .. v + L for s_ sequences; hn is W_hn h + b_hn. */
INLINE void gates(int s_, int I, int H, const float *packed, int v, const float *const *x,
                  const float *const *h, V *r, V *z, V *n, V *hn) {
    const float *bias = packed + 3 * (I + H) * H + v;
    V *pre[4] = {r, z, n, hn};
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
        const V b = load(bias + q * H);
        EACH(s, s_) pre[q][s] = b;
    }
    const float *w = packed + v;
    const int gate = (I + H) * H;
    multiply(s_, r, w, I, H, x);
    multiply(s_, r, w + I * H, H, H, h);
    multiply(s_, z, w + gate, I, H, x);
    multiply(s_, z, w + gate + I * H, H, H, h);
    multiply(s_, n, w + 2 * gate, I, H, x);
    multiply(s_, hn, w + 2 * gate + I * H, H, H, h);
    EACH(s, s_) {
        r[s] = sigmoid(r[s]);
        z[s] = sigmoid(z[s]);
        n[s] = tanh_(n[s] + r[s] * hn[s]);
    }
}

INLINE float *sequence(const Frames *f, int64_t g, int64_t b, int64_t k) {
    return f->data + g * f->g + b * f->b + k * f->k;
}

/* s_ sequences from number m on, from the first step to the last */
INLINE void forward_tile(int s_, int I, int H, const Shape *a, const float *packed, int g, int64_t m,
                         const Frames *x, const Frames *y, float *last) {
    const float *xs[S], *hs[S];
    float *ys[S];
    const int64_t first = a->reverse[g] ? a->T - 1 : 0, way = a->reverse[g] ? -1 : 1;
    EACH(s, s_) {
        const int64_t b = (m + s) / a->K, k = (m + s) % a->K;
        xs[s] = sequence(x, g, b, k) + first * x->t;
        ys[s] = sequence(y, g, b, k) + first * y->t;
        hs[s] = a->h0 + (g * a->B * a->K + m + s) * H;
    }
    for (int64_t t = 0; t < a->T; t++) {
        for (int v = 0; v < H; v += L) {
            V r[S], z[S], n[S], hn[S];
            gates(s_, I, H, packed, v, xs, hs, r, z, n, hn);
            EACH(s, s_) store(ys[s] + v, n[s] + z[s] * (load(hs[s] + v) - n[s]));
        }
        EACH(s, s_) {
            hs[s] = ys[s];
            xs[s] += way * x->t;
            ys[s] += way * y->t;
        }
    }
    for (int s = 0; s < s_; s++) memcpy(last + (g * a->B * a->K + m + s) * H, hs[s], H * sizeof(float));
}

INLINE void forward(int I, int H, const Shape *a, const Weights *w, const Frames *x, const Frames *y,
                    float *last, float *scratch) {
    const int64_t N = a->B * a->K;
    for (int g = 0; g < a->G; g++) {
        pack(I, H, w, g, scratch);
        int64_t m = 0;
        for (; m + S <= N; m += S) forward_tile(S, I, H, a, scratch, g, m, x, y, last);
        for (; m < N; m++) forward_tile(1, I, H, a, scratch, g, m, x, y, last);
    }
}

/* y and last, the state after the last step, from x.  Returns 0, or -1 where memory is short. */
int setk_gru_forward(const Shape *a, const Weights *w, const Frames *x, const Frames *y,
                             float *last) {
    const int I = a->I, H = a->H;
    float *scratch = malloc((3 * (I + H) + 4) * H * sizeof(float));
    if (!scratch) return -1;
    if (I == 16 && H == 16)
        forward(16, 16, a, w, x, y, last, scratch);
    else
        forward(I, H, a, w, x, y, last, scratch);
    free(scratch);
    return 0;
}

/* One tile backwards.  d is the gradient at the four sums of gates(), [S][4][H]; dh the one that
   comes from the step after, [S][H]; the weights' gradients of the tile go to sum: ih [3H][I],
   hh [3H][H], biases [4][H].  Small sums first: float sums over all the frames would lose digits. */
INLINE void backward_tile(int s_, int I, int H, const Shape *a, const Weights *w, const float *packed,
                          int g, int64_t m, const Frames *x, const Frames *y, const Frames *dy,
                          const Frames *dx, float *dh0, float *d, float *dh, float *sum) {
    const float *xs[S], *ys[S], *hs[S], *dys[S], *h0[S], *ds[S], *dn[S];
    float *dxs[S];
    const int64_t first = a->reverse[g] ? 0 : a->T - 1, way = a->reverse[g] ? 1 : -1;
    const float *wi = w->weight_ih + (int64_t)g * 3 * H * I, *wh = w->weight_hh + (int64_t)g * 3 * H * H;
    float *sum_h = sum + 3 * H * I, *sum_b = sum_h + 3 * H * H;
    const int add = dx->g == 0 && g > 0; /* an input that all the groups read */
    EACH(s, s_) {
        const int64_t b = (m + s) / a->K, k = (m + s) % a->K, at = (g * a->B * a->K + m + s) * H;
        xs[s] = sequence(x, g, b, k) + first * x->t;
        ys[s] = sequence(y, g, b, k) + first * y->t;
        dys[s] = sequence(dy, g, b, k) + first * dy->t;
        dxs[s] = sequence(dx, g, b, k) + first * dx->t;
        h0[s] = a->h0 + at;
        memcpy(dh + s * H, dh0 + at, H * sizeof(float));
        ds[s] = d + s * 4 * H;
        dn[s] = ds[s] + 3 * H;
    }
    for (int64_t t = a->T - 1; t >= 0; t--) {
        EACH(s, s_) hs[s] = t ? ys[s] + way * y->t : h0[s];
        for (int v = 0; v < H; v += L) {
            V r[S], z[S], n[S], hn[S], b[4] = {{0}};
            gates(s_, I, H, packed, v, xs, hs, r, z, n, hn);
            EACH(s, s_) {
                const V e = load(dys[s] + v) + load(dh + s * H + v);
                const V en = e * (1.f - z[s]) * (1.f - n[s] * n[s]);
                const V ez = e * (load(hs[s] + v) - n[s]) * z[s] * (1.f - z[s]);
                const V er = en * hn[s] * r[s] * (1.f - r[s]);
                const V eh = en * r[s];
                float *to = d + s * 4 * H + v;
                store(to, er), store(to + H, ez), store(to + 2 * H, en), store(to + 3 * H, eh);
                store(dh + s * H + v, e * z[s]);
                b[0] += er, b[1] += ez, b[2] += en, b[3] += eh;
            }
            for (int q = 0; q < 4; q++) store(sum_b + q * H + v, load(sum_b + q * H + v) + b[q]);
        }
        for (int v = 0; v < H; v += L) {
            V to[S];
            EACH(s, s_) to[s] = load(dh + s * H + v);
            multiply(s_, to, wh + v, 2 * H, H, ds);
            multiply(s_, to, wh + 2 * H * H + v, H, H, dn);
            EACH(s, s_) store(dh + s * H + v, to[s]);
            EACH(s, s_) to[s] = load(hs[s] + v);
            accumulate(s_, sum_h + v, 2 * H, H, ds, to);
            accumulate(s_, sum_h + 2 * H * H + v, H, H, dn, to);
        }
        for (int v = 0; v < I; v += L) {
            V to[S];
            EACH(s, s_) to[s] = add ? load(dxs[s] + v) : (V){0};
            multiply(s_, to, wi + v, 3 * H, I, ds);
            EACH(s, s_) store(dxs[s] + v, to[s]);
            EACH(s, s_) to[s] = load(xs[s] + v);
            accumulate(s_, sum + v, 3 * H, I, ds, to);
        }
        EACH(s, s_) {
            xs[s] += way * x->t;
            ys[s] += way * y->t;
            dys[s] += way * dy->t;
            dxs[s] += way * dx->t;
        }
    }
    for (int s = 0; s < s_; s++) memcpy(dh0 + (g * a->B * a->K + m + s) * H, dh + s * H, H * sizeof(float));
}

INLINE void add_and_clear(float *to, float *from, int count) {
    for (int i = 0; i < count; i++) to[i] += from[i], from[i] = 0;
}

INLINE void backward(int I, int H, const Shape *a, const Weights *w, const Frames *x, const Frames *y,
                     const Frames *dy, const Frames *dx, float *dh0, const Weights *dw, float *scratch) {
    const int64_t N = a->B * a->K;
    float *d = scratch + (3 * (I + H) + 4) * H, *dh = d + S * 4 * H, *sum = dh + S * H;
    float *sum_h = sum + 3 * H * I, *sum_b = sum_h + 3 * H * H;
    for (int g = 0; g < a->G; g++) {
        float *dbi = dw->bias_ih + g * 3 * H, *dbh = dw->bias_hh + g * 3 * H;
        pack(I, H, w, g, scratch);
        for (int64_t m = 0; m < N;) {
            if (m + S <= N) {
                backward_tile(S, I, H, a, w, scratch, g, m, x, y, dy, dx, dh0, d, dh, sum);
                m += S;
            } else {
                backward_tile(1, I, H, a, w, scratch, g, m, x, y, dy, dx, dh0, d, dh, sum);
                m += 1;
            }
            add_and_clear(dw->weight_ih + (int64_t)g * 3 * H * I, sum, 3 * H * I);
            add_and_clear(dw->weight_hh + (int64_t)g * 3 * H * H, sum_h, 3 * H * H);
            for (int o = 0; o < 2 * H; o++) dbh[o] += sum_b[o];
            add_and_clear(dbi, sum_b, 3 * H);
            add_and_clear(dbh + 2 * H, sum_b + 3 * H, H);
        }
    }
}

/* Gradients from dy: dx is written (its g stride 0: the sum over the groups), dh0 holds the gradient
   of last on entry and that of h0 on return, dw is added to.  Returns as setk_gru_forward. */
int setk_gru_backward(const Shape *a, const Weights *w, const Frames *x, const Frames *y,
                              const Frames *dy, const Frames *dx, float *dh0, const Weights *dw) {
    const int I = a->I, H = a->H;
    float *scratch = calloc((3 * (I + H) + 4) * H + S * 5 * H + (3 * (I + H) + 4) * H, sizeof(float));
    if (!scratch) return -1;
    if (I == 16 && H == 16)
        backward(16, 16, a, w, x, y, dy, dx, dh0, dw, scratch);
    else
        backward(I, H, a, w, x, y, dy, dx, dh0, dw, scratch);
    free(scratch);
    return 0;
}

EMPTY_MODULE("gru")
