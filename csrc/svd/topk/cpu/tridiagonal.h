// Householder reduction of symmetric matrices to tridiagonal form, G = Q T Qᵀ.
//
// V is Pack<T> (a lane is a matrix) or T. G is the packed lower triangle, column after column:
// entry (i, j), i >= j, at packed_column(j, p) + i - j. On return column j holds, below its first
// entry, reflector j (with its leading 1), so that the packed array is all that Q needs beside tau.
// G must be scaled to trace ~ 1.
#pragma once

#include "svd/full/cpu/lanes_reduce.h"

namespace kdops::svd::KDOPS_ISA {

inline constexpr int packed_size(int p) { return p * (p + 1) / 2; }
inline constexpr int packed_column(int j, int p) { return j * p - j * (j - 1) / 2; }

// T: diagonal d (p entries), off-diagonal e (p - 1). Q: packed reflectors and tau (p - 2).
template <class V>
struct Tridiagonal {
  int p;
  V *packed, *d, *e, *tau;

  static int size(int order) { return packed_size(order) + 3 * order; }
  Tridiagonal(int order, V* memory)
      : p(order), packed(memory), d(packed + packed_size(p)), e(d + p), tau(e + p) {}
  const V* reflector(int j) const { return packed + packed_column(j, p) + 1; }
};

// One pass over columns j .. j + N - 1 of the trailing block: subtract the pending v wᵀ + w vᵀ, and
// add the contribution of these columns to y = G x. All vectors are indexed by the matrix row.
template <int N, class V>
inline void update_and_multiply(V* packed, int p, int j, const V* v, const V* w, const V* x, V* y) {
  V* c[N];
  V vj[N], wj[N], xj[N], sum[N];
  for (int q = 0; q < N; ++q) {
    c[q] = packed + packed_column(j + q, p) - (j + q);
    vj[q] = v[j + q], wj[q] = w[j + q], xj[q] = x[j + q], sum[q] = V(Scalar<V>(0));
  }
  for (int q = 0; q < N; ++q) {
    for (int r = q; r < N; ++r) {
      const V g = c[q][j + r] - v[j + r] * wj[q] - w[j + r] * vj[q];
      c[q][j + r] = g;
      sum[q] = fma(g, xj[r], sum[q]);
      if (r > q) sum[r] = fma(g, xj[q], sum[r]);
    }
  }
  for (int i = j + N; i < p; ++i) {
    const V vi = v[i], wi = w[i], xi = x[i];
    V yi = y[i];
    for (int q = 0; q < N; ++q) {
      const V g = c[q][i] - vi * wj[q] - wi * vj[q];
      c[q][i] = g;
      sum[q] = fma(g, xi, sum[q]);
      yi = fma(g, xj[q], yi);
    }
    y[i] = yi;
  }
  for (int q = 0; q < N; ++q) y[j + q] += sum[q];
}

// w = tau y - (tau² yᵀx / 2) x over rows [first, p): the rank-two update is x wᵀ + w xᵀ.
template <class V>
inline void finish_update(V tau, const V* x, V* y, int first, int p) {
  using T = Scalar<V>;
  V dot(T(0));
  for (int i = first; i < p; ++i) {
    y[i] = y[i] * tau;
    dot = fma(y[i], x[i], dot);
  }
  const V half = V(T(-0.5)) * tau * dot;
  for (int i = first; i < p; ++i) y[i] = fma(half, x[i], y[i]);
}

// work: 3 p packs.
template <class V>
void tridiagonalise(const Tridiagonal<V>& t, V* work) {
  const int p = t.p;
  constexpr int kColumns = kPackBytes == 64 ? 4 : 2;
  for (int i = 0; i < 2 * p; ++i) work[i] = V(Scalar<V>(0));
  V *w = work, *y = work + p;
  const V* v = work + 2 * p;  // nothing is pending at the first step: v = w = 0
  for (int i = 0; i < p; ++i) work[2 * p + i] = V(Scalar<V>(0));
  for (int j = 0; j < p; ++j) {
    V* column = t.packed + packed_column(j, p) - j;
    const V vj = v[j], wj = w[j];
    for (int i = j; i < p; ++i) column[i] = column[i] - v[i] * wj - w[i] * vj;
    t.d[j] = column[j];
    if (j + 1 == p) break;
    if (j + 2 == p) {
      t.e[j] = column[j + 1];
      V* last = t.packed + packed_column(j + 1, p);
      const int i = j + 1;
      t.d[i] = *last - v[i] * w[i] - w[i] * v[i];
      break;
    }
    const Reflector<V> h = reflector_in_place(column + j + 1, 1, p - j - 2);
    t.e[j] = h.beta, t.tau[j] = h.tau, column[j + 1] = V(Scalar<V>(1));
    for (int i = j + 1; i < p; ++i) y[i] = V(Scalar<V>(0));
    int c = j + 1;
    for (; c + kColumns <= p; c += kColumns)
      update_and_multiply<kColumns>(t.packed, p, c, v, w, column, y);
    for (; c < p; ++c) update_and_multiply<1>(t.packed, p, c, v, w, column, y);
    finish_update(t.tau[j], column, y, j + 1, p);
    V* old = w;
    w = y, y = old, v = column;
  }
}

// z (N vectors of `length`, `stride` apart) -> (I - tau x xᵀ) z.
template <int N, class V>
inline void reflect(const V* x, V tau, V* z, int stride, int length) {
  V dot[N];
  for (int c = 0; c < N; ++c) dot[c] = V(Scalar<V>(0));
  for (int i = 0; i < length; ++i)
    for (int c = 0; c < N; ++c) dot[c] = fma(x[i], z[c * stride + i], dot[c]);
  for (int c = 0; c < N; ++c) dot[c] = -(tau * dot[c]);
  for (int i = 0; i < length; ++i)
    for (int c = 0; c < N; ++c) z[c * stride + i] = fma(dot[c], x[i], z[c * stride + i]);
}

template <int N, class V>
inline void apply_q(const Tridiagonal<V>& t, V* z, bool transposed) {
  for (int step = 0; step < t.p - 2; ++step) {
    const int j = transposed ? step : t.p - 3 - step;
    reflect<N>(t.reflector(j), t.tau[j], z + j + 1, t.p, t.p - 1 - j);
  }
}

// k vectors of length p, one after the other: z -> Q z, or Qᵀ z.
template <class V>
void apply_q(const Tridiagonal<V>& t, V* z, int k, bool transposed) {
  int c = 0;
  for (; c + 4 <= k; c += 4) apply_q<4>(t, z + c * t.p, transposed);
  if (k - c == 3) apply_q<3>(t, z + c * t.p, transposed);
  if (k - c == 2) apply_q<2>(t, z + c * t.p, transposed);
  if (k - c == 1) apply_q<1>(t, z + c * t.p, transposed);
}

}  // namespace kdops::svd::KDOPS_ISA
