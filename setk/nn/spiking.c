/* Layers of spiking neurons over time on one core: the CPU kernel behind setk/nn/spiking.py, called through ctypes.

   What a spiking network does at a frame depends on comparisons, so a rounding that differs in the last bit may
   become a spike that differs.  Every sum here therefore has one order, which does not depend on the number of
   frames or signals in the call: a stream cut anywhere, and any batch, has the same spikes.

   Products with spikes add the rows of the weights whose neurons fired, as event-driven hardware does.

   Functions return 0, or -1 if memory is short.  All arrays are dense, float32 and of the shapes named below; widths
   (H, O) are multiples of 16.  `hold` [B, T] marks frames at which the neurons are at rest and put out nothing. */

#include "vec.h"

#if defined(__AVX512F__)
enum { C = 4 }; /* vectors next to each other in a tile, as the registers allow */
#else
enum { C = 2 };
#endif
enum { S = 4 }; /* rows or signals in a tile */

/* sum[s][c] += column (x[s][i] * w[i][c]), w [I, stride] */
INLINE void multiply(int s_, int c_, V sum[S][C], const float *w, int64_t I, int64_t stride, const float *x, int64_t next) {
    for (int64_t i = 0; i < I; i++) {
        V row[C];
        EACH(c, c_) row[c] = load(w + i * stride + c * L);
        EACH(s, s_) EACH(c, c_) sum[s][c] += row[c] * x[s * next + i];
    }
}

INLINE void dense_tile(int s_, int c_, int64_t I, int64_t O, const float *x, const float *w, const float *bias, float *y) {
    V sum[S][C];
    EACH(s, s_) EACH(c, c_) sum[s][c] = load(bias + c * L);
    multiply(s_, c_, sum, w, I, O, x, I);
    EACH(s, s_) EACH(c, c_) store(y + s * O + c * L, sum[s][c]);
}

/* y [N, O] = x [N, I] w [I, O] + bias [O] */
int setk_dense(int64_t N, int64_t I, int64_t O, const float *x, const float *w, const float *bias, float *y) {
    int64_t o = 0, n;
    for (; o + C * L <= O; o += C * L) {
        for (n = 0; n + S <= N; n += S) dense_tile(S, C, I, O, x + n * I, w + o, bias + o, y + n * O + o);
        for (; n < N; n++) dense_tile(1, C, I, O, x + n * I, w + o, bias + o, y + n * O + o);
    }
    for (; o < O; o += L)
        for (n = 0; n < N; n++) dense_tile(1, 1, I, O, x + n * I, w + o, bias + o, y + n * O + o);
    return 0;
}

/* A leaky membrane over K taps of its own channel:  d = bias + sum of w[k] x[t + k];  u = v + p (d - v);
   v = u, or 0 where u >= threshold.  x [B, T + K - 1, H]; w [K, H]; p [H]; v [B, H] before and after; u [B, T, H]. */
int setk_leak_forward(int64_t B, int64_t T, int64_t K, int64_t H, const float *x, const float *w, const float *bias,
                       const float *p, float threshold, const uint8_t *hold, float *v, float *u) {
    for (int64_t b = 0; b < B; b++, v += H, x += (K - 1) * H)
        for (int64_t t = 0; t < T; t++, x += H, u += H) {
            if (*hold++) {
                memset(v, 0, H * sizeof(float));
                memset(u, 0, H * sizeof(float));
                continue;
            }
            for (int64_t h = 0; h < H; h += L) {
                V d = load(bias + h);
                for (int64_t k = 0; k < K; k++) d += load(w + k * H + h) * load(x + k * H + h);
                const V before = load(v + h), now = before + (d - before) * load(p + h);
                store(u + h, now);
                store(v + h, where(now < threshold, now));
            }
        }
    return 0;
}

/* Gradients from du [B, T, H].  dx, dw, dbias and dlogit, that of logit(p), are added to. */
int setk_leak_backward(int64_t B, int64_t T, int64_t K, int64_t H, const float *x, const float *w, const float *p,
                       float threshold, const uint8_t *hold, const float *v, const float *u, const float *du,
                       float *dx, float *dw, float *dbias, float *dlogit) {
    float *sums = malloc((K + 3) * H * sizeof(float)), *carry = sums + (K + 2) * H; /* of dw, dbias, dlogit */
    if (!sums) return -1;
    for (int64_t b = 0; b < B; b++) {
        memset(sums, 0, (K + 3) * H * sizeof(float));
        for (int64_t t = T - 1; t >= 0; t--) {
            const int64_t at = (b * T + t) * H, in = (b * (T + K - 1) + t) * H;
            if (hold[b * T + t]) {
                memset(carry, 0, H * sizeof(float));
                continue;
            }
            for (int64_t h = 0; h < H; h += L) {
                const V now = load(u + at + h), rate = load(p + h);
                V before = load(t ? u + at - H + h : v + b * H + h);
                before = where(before < threshold, before);
                const V e = load(du + at + h) + where(now < threshold, load(carry + h));
                const V dd = e * rate;
                store(carry + h, e - dd);
                for (int64_t k = 0; k < K; k++) {
                    add_to(dx + in + k * H + h, dd * load(w + k * H + h));
                    add_to(sums + k * H + h, dd * load(x + in + k * H + h));
                }
                add_to(sums + K * H + h, dd);
                add_to(sums + (K + 1) * H + h, (e - dd) * (now - before));
            }
        }
        for (int64_t i = 0; i < K * H; i++) dw[i] += sums[i];
        for (int64_t h = 0; h < H; h++) dbias[h] += sums[K * H + h], dlogit[h] += sums[(K + 1) * H + h];
    }
    free(sums);
    return 0;
}

#define BASE 1.6f
#define GAIN 0.184f
INLINE V threshold_of(V eta) { return eta * GAIN + BASE; }

INLINE int64_t fired(const float *s, int64_t n, int32_t *which) {
    int64_t count = 0;
    for (int64_t j = 0; j < n; j++) {
        which[count] = (int32_t)j;
        count += s[j] != 0;
    }
    return count;
}

typedef struct { /* of an adaptive layer of H neurons over I inputs; weights have a row for each source */
    int64_t B, T, I, H;
    const float *w, *recurrent, *bias, *alpha, *ro; /* [I, H], [H, H], [H] each */
    const uint8_t *hold;
} Layer;

INLINE void add_rows(int c_, V *sum, const float *w, int64_t stride, const int32_t *which, int64_t count) {
    for (int64_t i = 0; i < count; i++) EACH(c, c_) sum[c] += load(w + which[i] * stride + c * L);
}

/* bias + w x + recurrent s of c_ vectors of neurons from h on */
INLINE void current(int c_, const Layer *a, int64_t h, const int32_t *in, int64_t ins, const int32_t *own, int64_t owns,
                    float *to) {
    V sum[C];
    EACH(c, c_) sum[c] = load(a->bias + h + c * L);
    add_rows(c_, sum, a->w + h, a->H, in, ins);
    add_rows(c_, sum, a->recurrent + h, a->H, own, owns);
    EACH(c, c_) store(to + c * L, sum[c]);
}

/* Adaptive neurons, with s of the frame before, and spikes x [B, T, I]:
     eta = ro eta + (1 - ro) s;  theta = BASE + GAIN eta;  u = m - theta after
     m = alpha m + (1 - alpha) (bias + w x + recurrent s) - theta s;  s = u > 0
   m, eta, s [B, H] before and after; us, etas, spikes [B, T, H]. */
int setk_adaptive_forward(const Layer *a, const float *x, float *m, float *eta, float *s, float *us, float *etas, float *spikes) {
    const int64_t I = a->I, H = a->H;
    int32_t *in = malloc((I + H) * sizeof(int32_t)), *own = in + I;
    if (!in) return -1;
    for (int64_t b = 0; b < a->B; b++, m += H, eta += H, s += H)
        for (int64_t t = 0; t < a->T; t++, x += I, us += H, etas += H, spikes += H) {
            const int rest = a->hold[b * a->T + t];
            const int64_t ins = fired(x, I, in), owns = fired(s, H, own);
            int64_t h = 0;
            for (; h + C * L <= H; h += C * L) current(C, a, h, in, ins, own, owns, us + h);
            for (; h < H; h += L) current(1, a, h, in, ins, own, owns, us + h);
            for (h = 0; h < H; h += L) {
                const V alpha = load(a->alpha + h), ro = load(a->ro + h), before = load(s + h);
                V e = ro * load(eta + h) + (1.f - ro) * before;
                V now = alpha * load(m + h) + (1.f - alpha) * load(us + h) - threshold_of(e) * before;
                if (rest) e = (V){0} + BASE, now = (V){0};
                const V over = now - threshold_of(e);
                store(m + h, now), store(eta + h, e);
                store(us + h, over), store(etas + h, e);
                store(spikes + h, where(over > 0.f, (V){0} + 1.f));
            }
            memcpy(s, spikes, H * sizeof(float));
        }
    free(in);
    return 0;
}

/* s_ signals of adaptive neurons backwards.  carry holds, for each signal, the gradients that the frame after gives
   to m, eta and s, and dj of this frame: [4][S][H]. */
INLINE void adaptive_backward_tile(int s_, const Layer *a, const float *weights, int64_t b, const float *m, const float *eta,
                                   const float *s, const float *us, const float *etas, const float *spikes, const float *slope,
                                   const float *ds, float *dj, float *sum, float *carry) {
    const int64_t T = a->T, H = a->H;
    float *cm = carry, *ce = cm + S * H, *cs = ce + S * H, *now = cs + S * H;
    memset(carry, 0, 4 * S * H * sizeof(float));
    for (int64_t t = T - 1; t >= 0; t--) {
        for (int i = 0; i < s_; i++) {
            const int64_t at = ((b + i) * T + t) * H, row = (b + i) * H;
            const float live = !a->hold[(b + i) * T + t];
            for (int64_t h = 0; h < H; h += L) {
                const V alpha = load(a->alpha + h), ro = load(a->ro + h);
                const V e = load(etas + at + h), theta = threshold_of(e), u = load(us + at + h);
                const V e_before = load(t ? etas + at - H + h : eta + row + h);
                const V s_before = load(t ? spikes + at - H + h : s + row + h);
                const V m_before = t ? load(us + at - H + h) + threshold_of(e_before) : load(m + row + h);
                float *to_m = cm + i * H + h, *to_e = ce + i * H + h, *to_s = cs + i * H + h;
                const V du = load(slope + at + h) * (load(ds + at + h) + load(to_s));
                const V dm = (du + load(to_m)) * live;
                const V de = (load(to_e) - GAIN * (du + dm * s_before)) * live;
                const V dcurrent = (1.f - alpha) * dm;
                store(to_m, alpha * dm), store(to_e, ro * de);
                store(to_s, (1.f - ro) * de - theta * dm);
                store(dj + at + h, dcurrent), store(now + i * H + h, dcurrent);
                add_to(sum + h, alpha * dm * (m_before - u - theta * (1.f + s_before)));
                add_to(sum + H + h, ro * de * (e_before - e));
            }
        }
        int64_t h = 0;
        for (; h + C * L <= H; h += C * L) {
            V to[S][C];
            EACH(i, s_) EACH(c, C) to[i][c] = load(cs + i * H + h + c * L);
            multiply(s_, C, to, weights + h, H, H, now, H);
            EACH(i, s_) EACH(c, C) store(cs + i * H + h + c * L, to[i][c]);
        }
        for (; h < H; h += L) {
            V to[S][C];
            EACH(i, s_) to[i][0] = load(cs + i * H + h);
            multiply(s_, 1, to, weights + h, H, H, now, H);
            EACH(i, s_) store(cs + i * H + h, to[i][0]);
        }
    }
}

/* Gradients from ds [B, T, H], that of the spikes; slope [B, T, H] is ds/du; m, eta, s [B, H] are those
   before the first frame.  weights [H, H] are recurrent turned: a row for each target.  dj [B, T, H], the gradient
   of the current, is written; dalpha and dro, of the logits, are added to. */
int setk_adaptive_backward(const Layer *a, const float *weights, const float *m, const float *eta, const float *s,
                           const float *us, const float *etas, const float *spikes, const float *slope, const float *ds,
                           float *dj, float *dalpha, float *dro) {
    const int64_t H = a->H;
    float *sum = malloc((2 + 4 * S) * H * sizeof(float)), *carry = sum + 2 * H;
    if (!sum) return -1;
    for (int64_t b = 0; b < a->B;) {
        memset(sum, 0, 2 * H * sizeof(float));
        if (b + S <= a->B) {
            adaptive_backward_tile(S, a, weights, b, m, eta, s, us, etas, spikes, slope, ds, dj, sum, carry);
            b += S;
        } else {
            adaptive_backward_tile(1, a, weights, b, m, eta, s, us, etas, spikes, slope, ds, dj, sum, carry);
            b += 1;
        }
        for (int64_t h = 0; h < H; h++) dalpha[h] += sum[h], dro[h] += sum[H + h];
    }
    free(sum);
    return 0;
}

EMPTY_MODULE("spiking")
