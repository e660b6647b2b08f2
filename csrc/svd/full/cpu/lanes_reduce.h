// Reduction of n x n matrices to bidiagonal or tridiagonal form and back, one matrix per lane.
// Matrices are V arrays, entry (i, j) at [i * n + j]; reflectors stay where they annihilated.
#pragma once

#include "svd/shared/reflector.h"

namespace kdops::svd::KDOPS_ISA {

// x[0], x[stride], ... ; the tail of a row or a column.
template <class V>
inline V squared_norm(const V* x, int stride, int count) {
  V even(Scalar<V>(0)), odd(Scalar<V>(0));
  int i = 0;
  for (; i + 2 <= count; i += 2) {
    even = fma(x[i * stride], x[i * stride], even);
    odd = fma(x[(i + 1) * stride], x[(i + 1) * stride], odd);
  }
  if (i < count) even = fma(x[i * stride], x[i * stride], even);
  return even + odd;
}

// Subtracts tau v (vT x) from kBlock vectors x (first entry, then `count` tail entries `step`
// apart; the vectors lie `next` apart). v is 1 followed by its tail, v_step apart.
template <int kBlock, class V>
inline void reflect_block(V tau, const V* v, int v_step, int count, V* x, int step, int next) {
  V sum[kBlock];
#pragma GCC unroll 16
  for (int b = 0; b < kBlock; ++b) sum[b] = x[b * next];
  for (int i = 1; i <= count; ++i) {
    const V weight = v[(i - 1) * v_step];
#pragma GCC unroll 16
    for (int b = 0; b < kBlock; ++b) sum[b] = fma(weight, x[i * step + b * next], sum[b]);
  }
#pragma GCC unroll 16
  for (int b = 0; b < kBlock; ++b) {
    sum[b] = -(tau * sum[b]);
    x[b * next] = x[b * next] + sum[b];
  }
  for (int i = 1; i <= count; ++i) {
    const V weight = v[(i - 1) * v_step];
#pragma GCC unroll 16
    for (int b = 0; b < kBlock; ++b)
      x[i * step + b * next] = fma(weight, sum[b], x[i * step + b * next]);
  }
}

template <class V>
void reflect(V tau, const V* v, int v_step, int count, V* x, int step, int next, int vectors) {
  int j = 0;
  for (; j + 4 <= vectors; j += 4)
    reflect_block<4>(tau, v, v_step, count, x + j * next, step, next);
  for (; j < vectors; ++j) reflect_block<1>(tau, v, v_step, count, x + j * next, step, next);
}

// Scales the tail of a vector into its reflector.
template <class V>
Reflector<V> reflector_in_place(V* x, int stride, int count) {
  const Reflector<V> h = make_reflector(x[0], squared_norm(x + stride, stride, count));
  for (int i = 1; i <= count; ++i) x[i * stride] = h.scale * x[i * stride];
  return h;
}

// A = U B VT: a receives the reflectors (columns below the diagonal: U; rows right of the
// superdiagonal: V), d (n) and e (n - 1) the bidiagonal, tau_u and tau_v (n each) the factors.
template <class V>
void lanes_bidiagonalise(V* a, int n, V* d, V* e, V* tau_u, V* tau_v) {
  for (int k = 0; k < n; ++k) {
    V* corner = a + k * n + k;
    const int tail = n - 1 - k;
    const Reflector<V> left = reflector_in_place(corner, n, tail);
    d[k] = left.beta;
    tau_u[k] = left.tau;
    if (tail == 0) break;
    reflect(left.tau, corner + n, n, tail, corner + 1, n, 1, tail);
    const Reflector<V> right = reflector_in_place(corner + 1, 1, tail - 1);
    e[k] = right.beta;
    tau_v[k] = right.tau;
    reflect(right.tau, corner + 2, 1, tail - 1, corner + n + 1, 1, n, tail);
  }
}

// A = Q T QT for symmetric a (the lower triangle is read), reflectors in the columns.
template <class V>
void lanes_tridiagonalise(V* a, int n, V* d, V* e, V* tau, V* work) {
  using T = Scalar<V>;
  for (int k = 0; k + 1 < n; ++k) {
    d[k] = a[k * n + k];
    V* x = a + (k + 1) * n + k;  // the column below the diagonal; v = (1, x[n], x[2 n], ...)
    const int size = n - 1 - k;
    const Reflector<V> h = reflector_in_place(x, n, size - 1);
    e[k] = h.beta;
    tau[k] = h.tau;
    x[0] = V(T(1));
    V* rest = a + (k + 1) * n + k + 1;
    V* w = work;
    for (int i = 0; i < size; ++i) w[i] = V(T(0));
    for (int i = 0; i < size; ++i) {  // w = A v from the lower triangle
      V sum = rest[i * n + i] * x[i * n];
      for (int j = 0; j < i; ++j) {
        sum = fma(rest[i * n + j], x[j * n], sum);
        w[j] = fma(rest[i * n + j], x[i * n], w[j]);
      }
      w[i] = w[i] + sum;
    }
    V dot(T(0));
    for (int i = 0; i < size; ++i) {
      w[i] = h.tau * w[i];
      dot = fma(w[i], x[i * n], dot);
    }
    const V half = V(T(-0.5)) * h.tau * dot;
    for (int i = 0; i < size; ++i) w[i] = fma(half, x[i * n], w[i]);
    for (int i = 0; i < size; ++i)
      for (int j = 0; j <= i; ++j)
        rest[i * n + j] = rest[i * n + j] - fma(x[i * n], w[j], w[i] * x[j * n]);
  }
  d[n - 1] = a[n * n - 1];
}

// QT (row j is column j of Q = H_0 H_1 ...) into q. Reflector k has its one at index k + offset;
// its tail starts at reflectors[k * diagonal + (offset + 1) * step], `step` apart.
template <class V>
void lanes_form_q(const V* reflectors, const V* tau, int n, int offset, int step, int count, V* q) {
  using T = Scalar<V>;
  for (int i = 0; i < n * n; ++i) q[i] = V(T(0));
  for (int i = 0; i < n; ++i) q[i * n + i] = V(T(1));
  for (int k = count - 1; k >= 0; --k) {
    const int at = k + offset, tail = n - 1 - at;
    const V* v = reflectors + k * (n + 1) + (offset + 1) * step;
    V* row = q + at * n + at;
    // Columns right of `at` have a zero there, column `at` is still a unit vector.
    reflect(tau[k], v, step, tail, row + n, 1, n, tail);
    row[0] = V(T(1)) - tau[k];
    for (int i = 1; i <= tail; ++i) row[i] = -(tau[k] * v[(i - 1) * step]);
  }
}

// Applies every rotation of a QR iteration at once to two rows of QT.
template <class V>
inline void rotate_rows(V* upper, V* lower, int n, V c, V s) {
  for (int i = 0; i < n; ++i) {
    const V x = upper[i], y = lower[i];
    upper[i] = fma(c, x, s * y);
    lower[i] = fma(c, y, -(s * x));
  }
}

}  // namespace kdops::svd::KDOPS_ISA
