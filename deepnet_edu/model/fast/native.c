/* What is computed between the matrix products of a layer, for this folder: attention for short sequences, LayerNorm,
   GELU and sums over tokens. Compiled where there is a compiler, see native.py. C with GCC's and Clang's vector extension;
   float only, one thread, no state but scratch of the thread. Widths are multiples of 8.

   With T, S up to 128 and head_dim D of 8, 16, 32 or 64, whatever one head needs fits into the processor's inner caches,
   so weights are computed again in the backward pass: all that is kept of them is ln of their sum, (B, H, T). */

#include <math.h>

#define W 8 /* floats in a vector */
#define MAXT 128
#define MAXD 64
#define ROWS 4 /* rows whose sums stay in registers together */
#define INLINE static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(32)))

typedef float vec __attribute__((vector_size(4 * W), aligned(4)));
typedef int ivec __attribute__((vector_size(4 * W), aligned(4)));

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec v) { *(vec *)p = v; }
INLINE vec all(float x) { return (vec){x, x, x, x, x, x, x, x}; }
INLINE vec pick(ivec where, vec a, vec b) { return (vec)((where & (ivec)a) | (~where & (ivec)b)); }
INLINE int up(int n, int to) { return (n + to - 1) / to * to; }

INLINE float sum_of(vec v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }
INLINE float max_of(vec v) {
  float m = v[0];
  for (int i = 1; i < W; i++) m = v[i] > m ? v[i] : m;
  return m;
}

/* e^x = 2^n·e^r, |r| ≤ ln(2)/2, for x up to 88: within two units in the last place (the polynomial is Cephes'). Below
   -87 it stays at e^-87, 1e-38. Adding 1.5·2^23 rounds t to a whole number and leaves it in the lowest bits. */
INLINE vec exp_of(vec x) {
  x = pick(x < all(-87.0f), all(-87.0f), x);
  vec t = x * all(1.44269504f) + all(12582912.0f), n = t - all(12582912.0f);
  vec r = x - n * all(0.693359375f) - n * all(-2.12194440e-4f);
  vec y = all(1.9875691500e-4f);
  y = y * r + all(1.3981999507e-3f);
  y = y * r + all(8.3334519073e-3f);
  y = y * r + all(4.1665795894e-2f);
  y = y * r + all(1.6666665459e-1f);
  y = y * r + all(5.0000001201e-1f);
  y = y * r * r + r + all(1.0f);
  return (vec)((ivec)y + ((ivec)t << 23));
}

/* Φ(x) and e^(-x²/2). erfc(z) = t(a₁ + a₂t + …)e^(-z²) to 1.5e-7, Abramowitz and Stegun 7.1.26. */
INLINE void normal(vec x, vec *cdf, vec *bell) {
  vec z = pick(x < all(0), -x, x) * all(0.70710678f);
  vec t = all(1) / (all(1) + all(0.3275911f) * z);
  vec y = all(1.061405429f);
  y = y * t + all(-1.453152027f);
  y = y * t + all(1.421413741f);
  y = y * t + all(-0.284496736f);
  y = y * t + all(0.254829592f);
  *bell = exp_of(-z * z);
  y = y * t * *bell * all(0.5f);
  *cdf = pick(x < all(0), y, all(1) - y);
}

void gelu_forward(const float *h, float *a, long n) {
  for (long i = 0; i < n; i += W) {
    vec x = load(h + i), cdf, bell;
    normal(x, &cdf, &bell);
    store(a + i, x * cdf);
  }
}

/* a = GELU(h), and d becomes d·GELU'(h) = d·(Φ(h) + h·e^(-h²/2)/√(2π)). */
void gelu_backward(const float *h, float *a, float *d, long n) {
  for (long i = 0; i < n; i += W) {
    vec x = load(h + i), cdf, bell;
    normal(x, &cdf, &bell);
    store(a + i, x * cdf);
    store(d + i, load(d + i) * (cdf + x * bell * all(0.39894228f)));
  }
}

INLINE void add_columns(const float *x, float *sum, long rows, long n, int vectors) {
  vec total[4];
  for (int k = 0; k < vectors; k++) total[k] = all(0);
  for (long i = 0; i < rows; i++)
    for (int k = 0; k < vectors; k++) total[k] += load(x + i * n + k * W);
  for (int k = 0; k < vectors; k++) store(sum + k * W, load(sum + k * W) + total[k]);
}

/* sum (n) += Σ over rows of x (rows, n). */
void add_rows(const float *x, float *sum, long rows, long n) {
  long j = 0;
  for (; j + 4 * W <= n; j += 4 * W) add_columns(x + j, sum + j, rows, n, 4);
  for (; j < n; j += W) add_columns(x + j, sum + j, rows, n, 1);
}

/* s = gain ⊙ (u - mean)/σ + bias, and mean and 1/σ by row. */
void norm_forward(const float *u, const float *gain, const float *bias, float eps, float *s, float *mean, float *inverse,
                  long rows, long n) {
  for (long i = 0; i < rows; i++, u += n, s += n) {
    vec total = all(0), square = all(0);
    for (long j = 0; j < n; j += W) total += load(u + j);
    float m = sum_of(total) / n;
    for (long j = 0; j < n; j += W) {
      vec x = load(u + j) - all(m);
      square += x * x;
    }
    float r = 1 / sqrtf(sum_of(square) / n + eps);
    for (long j = 0; j < n; j += W) store(s + j, (load(u + j) - all(m)) * all(r) * load(gain + j) + load(bias + j));
    mean[i] = m, inverse[i] = r;
  }
}

/* With x = (u - mean)/σ and h = gain ⊙ ds: du = (h - mean(h) - x·mean(h ⊙ x))/σ; d_gain += Σ ds ⊙ x, d_bias += Σ ds,
   where they are wanted. */
void norm_backward(const float *ds, const float *u, const float *gain, const float *mean, const float *inverse, float *du,
                   float *d_gain, float *d_bias, long rows, long n) {
  for (long i = 0; i < rows; i++, ds += n, u += n, du += n) {
    vec m = all(mean[i]), r = all(inverse[i]), total = all(0), along = all(0);
    for (long j = 0; j < n; j += W) {
      vec x = (load(u + j) - m) * r, d = load(ds + j), h = d * load(gain + j);
      total += h;
      along += h * x;
      if (d_gain) store(d_gain + j, load(d_gain + j) + d * x), store(d_bias + j, load(d_bias + j) + d);
    }
    vec a = all(sum_of(total) / n), b = all(sum_of(along) / n);
    for (long j = 0; j < n; j += W) {
      vec x = (load(u + j) - m) * r;
      store(du + j, (load(ds + j) * load(gain + j) - a - x * b) * r);
    }
  }
}

/* rows (n, D), stride apart, times factor, to packed (up(n), D) and, if wanted, to transposed (D, MAXT); zeros behind. */
INLINE void fetch(const float *rows, long stride, int n, int D, float factor, float *packed, float (*transposed)[MAXT]) {
  for (int i = 0; i < n; i++)
    for (int c = 0; c < D; c += W) store(packed + i * D + c, load(rows + i * stride + c) * all(factor));
  for (int i = n * D; i < up(n, 16) * D; i++) packed[i] = 0;
  if (transposed)
    for (int i = 0; i < up(n, 16); i++)
      for (int c = 0; c < D; c++) transposed[c][i] = packed[i * D + c];
}

/* out (ROWS, n), n a multiple of 16 = a (ROWS, D) · b (D, n). */
INLINE void scores(const float *a, const float (*b)[MAXT], int n, int D, float (*out)[MAXT]) {
  for (int j = 0; j < n; j += 2 * W) {
    vec sum[ROWS][2];
    for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = all(0);
    for (int c = 0; c < D; c++) {
      vec x = load(&b[c][j]), y = load(&b[c][j + W]);
      for (int r = 0; r < ROWS; r++) {
        vec q = all(a[r * D + c]);
        sum[r][0] += q * x;
        sum[r][1] += q * y;
      }
    }
    for (int r = 0; r < ROWS; r++) store(&out[r][j], sum[r][0]), store(&out[r][j + W], sum[r][1]);
  }
}

/* out (ROWS rows, stride apart, only the first `rows` of them) = factor · Σ_i w_i · values[i], where w_i is weights[r][i]
   or, down the columns of a matrix, weights[i][r]. */
INLINE void mix(const float (*weights)[MAXT], int down, const float *values, int from, int to, int D, const float *factor,
                int rows, float *out, long stride) {
  for (int c = 0; c < D; c += 2 * W) {
    int two = c + W < D;
    vec sum[ROWS][2];
    for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = all(0);
    for (int i = from; i < to; i++) {
      vec x = load(values + i * D + c), y = two ? load(values + i * D + c + W) : all(0);
      for (int r = 0; r < ROWS; r++) {
        vec w = all(down ? weights[i][r] : weights[r][i]);
        sum[r][0] += w * x;
        if (two) sum[r][1] += w * y;
      }
    }
    for (int r = 0; r < rows; r++) {
      store(out + r * stride + c, sum[r][0] * all(factor[r]));
      if (two) store(out + r * stride + c + W, sum[r][1] * all(factor[r]));
    }
  }
}

typedef struct {
  const float *q, *k, *v; /* rows (tokens, …), D numbers of each for this head */
  long q_stride, kv_stride, o_stride;
  int T, S, causal;
  float scale;
} head;

static __thread float K[MAXT * MAXD] ALIGNED, V[MAXT * MAXD] ALIGNED, Q[MAXT * MAXD] ALIGNED, dO[MAXT * MAXD] ALIGNED;
static __thread float KT[MAXD][MAXT] ALIGNED, VT[MAXD][MAXT] ALIGNED, P[MAXT][MAXT] ALIGNED, dP[MAXT][MAXT] ALIGNED;

INLINE void forward(head h, int D, float *o, float *lse) {
  fetch(h.q, h.q_stride, h.T, D, h.scale, Q, 0);
  fetch(h.k, h.kv_stride, h.S, D, 1, K, KT);
  fetch(h.v, h.kv_stride, h.S, D, 1, V, 0);
  for (int i = 0; i < h.T; i += ROWS) {
    int rows = h.T - i < ROWS ? h.T - i : ROWS, last = h.causal ? i + rows : h.S, n = up(last, 16);
    float inverse[ROWS];
    scores(Q + i * D, KT, n, D, P);
    for (int r = 0; r < rows; r++) {
      int seen = h.causal ? i + r + 1 : h.S;
      vec top = all(-INFINITY), total = all(0);
      for (int j = seen; j < n; j++) P[r][j] = -INFINITY;
      for (int j = 0; j < n; j += W) top = pick(load(&P[r][j]) > top, load(&P[r][j]), top);
      float m = max_of(top);
      for (int j = 0; j < n; j += W) {
        vec e = exp_of(load(&P[r][j]) - all(m));
        store(&P[r][j], e);
        total += e;
      }
      for (int j = seen; j < last; j++) P[r][j] = 0;
      float sum = sum_of(total);
      inverse[r] = 1 / sum;
      lse[i + r] = m + logf(sum);
    }
    mix(P, 0, V, 0, last, D, inverse, rows, o + i * h.o_stride, h.o_stride);
  }
}

/* With P the weights: dV = PᵀdO, dP = P ⊙ (dO·Vᵀ - Σ_c dO_c·O_c), dQ = scale·dP·K, dK = scale·dPᵀ·Q. */
INLINE void backward(head h, int D, const float *o, const float *d_o, const float *lse, float *dq, float *dk, float *dv) {
  float scale[ROWS] = {h.scale, h.scale, h.scale, h.scale}, one[ROWS] = {1, 1, 1, 1};
  fetch(h.q, h.q_stride, h.T, D, h.scale, Q, 0);
  fetch(h.k, h.kv_stride, h.S, D, 1, K, KT);
  fetch(h.v, h.kv_stride, h.S, D, 1, V, VT);
  fetch(d_o, h.o_stride, h.T, D, 1, dO, 0);
  for (int i = 0; i < h.T; i += ROWS) {
    int rows = h.T - i < ROWS ? h.T - i : ROWS, last = h.causal ? i + rows : h.S, n = up(last, 16);
    scores(Q + i * D, KT, n, D, P + i);
    scores(dO + i * D, VT, n, D, dP + i);
    for (int r = i; r < i + rows; r++) {
      int seen = h.causal ? r + 1 : h.S;
      vec delta = all(0);
      for (int c = 0; c < D; c += W) delta += load(o + r * h.o_stride + c) * load(dO + r * D + c);
      float both = sum_of(delta);
      for (int j = 0; j < n; j += W) {
        vec p = exp_of(load(&P[r][j]) - all(lse[r]));
        store(&P[r][j], p);
        store(&dP[r][j], p * (load(&dP[r][j]) - all(both)));
      }
      for (int j = seen; j < n; j++) P[r][j] = dP[r][j] = 0;
    }
    mix(dP + i, 0, K, 0, last, D, scale, rows, dq + i * h.q_stride, h.q_stride);
  }
  for (int j = 0; j < h.S; j += ROWS) {
    int rows = h.S - j < ROWS ? h.S - j : ROWS, from = h.causal ? j : 0;
    mix((const float(*)[MAXT])&dP[0][j], 1, Q, from, h.T, D, one, rows, dk + j * h.kv_stride, h.kv_stride);
    mix((const float(*)[MAXT])&P[0][j], 1, dO, from, h.T, D, one, rows, dv + j * h.kv_stride, h.kv_stride);
  }
}

/* Heads lie side by side in the rows. lse: (B, H, T). */
#define EACH_HEAD(CALL)                                                                                                 \
  for (int b = 0; b < B; b++)                                                                                           \
    for (int i = 0; i < H; i++) {                                                                                       \
      long at = b * T * q_stride + i * D, kv = b * S * kv_stride + i * D, out = b * T * (long)H * D + i * D;            \
      head h = {q + at, k + kv, v + kv, q_stride, kv_stride, (long)H * D, T, S, causal, scale};                         \
      long l = (long)(b * H + i) * T;                                                                                   \
      switch (D) {                                                                                                      \
        case 8: CALL(8); break;                                                                                         \
        case 16: CALL(16); break;                                                                                       \
        case 32: CALL(32); break;                                                                                       \
        case 64: CALL(64); break;                                                                                       \
      }                                                                                                                 \
    }

#define FORWARD(D) forward(h, D, o + out, lse + l)
void attention_forward(const float *q, const float *k, const float *v, float *o, float *lse, long q_stride,
                       long kv_stride, int B, int T, int S, int H, int D, int causal, float scale) {
  EACH_HEAD(FORWARD)
}

#define BACKWARD(D) backward(h, D, o + out, d_o + out, lse + l, dq + at, dk + kv, dv + kv)
void attention_backward(const float *q, const float *k, const float *v, const float *o, const float *lse,
                        const float *d_o, float *dq, float *dk, float *dv, long q_stride, long kv_stride, int B, int T,
                        int S, int H, int D, int causal, float scale) {
  EACH_HEAD(BACKWARD)
}
