// All singular pairs of one matrix on its small side, by one-sided Jacobi: the accurate route for
// what the Gram matrix of topk_forward.h cannot resolve (small singular values among the top k, a
// cluster across position k, half of the spectrum or more asked for).
//
// Rows: B is p x length, its rows being the small side. Relative accuracy is that of Jacobi's
// method; zero rows are completed to an orthonormal set.
#pragma once

#include "svd/topk_refine.h"

namespace kdops::KDOPS_ISA {

template <class T>
inline void rotate_rows_pair(T* a, T* b, int64_t n, T c, T s) {
  for (int64_t i = 0; i < n; ++i) {
    const T x = a[i], y = b[i];
    a[i] = c * x - s * y;
    b[i] = s * x + c * y;
  }
}

// Rotates rows i and j of B (and of P alike) until orthogonal. False if they were.
template <class T>
inline bool jacobi_pair(T* B, int64_t length, T* P, int p, int i, int j) {
  constexpr T eps = std::numeric_limits<T>::epsilon();
  T *a = B + i * length, *b = B + j * length;
  const T off = dot_rows(a, b, length), aa = dot_rows(a, a, length), bb = dot_rows(b, b, length);
  const bool order = aa < bb;
  const bool clear = !(std::fabs(off) > 2 * eps * std::sqrt(aa) * std::sqrt(bb));
  if (clear && !order) return false;
  T c = 1, s = 0;
  if (!clear) {
    const T zeta = (bb - aa) / (2 * off);
    const T t = std::copysign(T(1), zeta) / (std::fabs(zeta) + std::sqrt(1 + zeta * zeta));
    c = 1 / std::sqrt(1 + t * t), s = c * t;
  }
  // The larger row first: (a, b) -> (s a + c b, -(c a - s b)) is the same rotation, exchanged.
  if (order) {
    const T old = c;
    c = s, s = -old;
  }
  rotate_rows_pair(a, b, length, c, s);
  rotate_rows_pair(P + i * p, P + j * p, p, c, s);
  return !clear;
}

// Row `index` of W becomes a unit vector orthogonal to the rows before it.
template <class T>
inline void complete_row(T* W, int64_t length, int index) {
  T* row = W + index * length;
  for (int64_t start = 0; start < length; ++start) {
    for (int64_t i = 0; i < length; ++i) row[i] = T(i == start);
    for (int pass = 0; pass < 2; ++pass) {
      for (int j = 0; j < index; ++j) {
        const T along = dot_rows(W + j * length, row, length);
        for (int64_t i = 0; i < length; ++i) row[i] -= along * W[j * length + i];
      }
    }
    const T norm = std::sqrt(dot_rows(row, row, length));
    // Some unit vector keeps at least this much outside `index` < length directions.
    if (norm * norm * T(2) * T(length) < T(length - index)) continue;
    scale_row(row, length, 1 / norm);
    for (int j = 0; j < index; ++j) {
      const T along = dot_rows(W + j * length, row, length);
      for (int64_t i = 0; i < length; ++i) row[i] -= along * W[j * length + i];
    }
    scale_row(row, length, 1 / std::sqrt(dot_rows(row, row, length)));
    return;
  }
}

// B (p x length, scaled to norm ~ 1) becomes the p long-side vectors, P (p x p) the small-side
// ones, both orthonormal rows; sigma descending.
template <class T>
void jacobi_svd(T* B, int64_t length, T* P, int p, T* sigma) {
  constexpr T eps = std::numeric_limits<T>::epsilon();
  for (int i = 0; i < p * p; ++i) P[i] = T(i % (p + 1) == 0);
  bool again = true;
  for (int sweep = 0; sweep < 40 && again; ++sweep) {
    again = false;
    for (int i = 0; i < p; ++i)
      for (int j = i + 1; j < p; ++j) again |= jacobi_pair(B, length, P, p, i, j);
  }
  for (int i = 0; i < p; ++i) {
    T* row = B + i * length;
    const T norm = std::sqrt(dot_rows(row, row, length));
    // Below this the squares above have underflowed: nothing is left of the direction.
    const bool nothing = norm <= eps * eps;
    sigma[i] = nothing ? T(0) : norm;
    if (nothing)
      complete_row(B, length, i);
    else
      scale_row(row, length, 1 / norm);
  }
  for (int i = 1; i < p; ++i) sigma[i] = sigma[i] < sigma[i - 1] ? sigma[i] : sigma[i - 1];
}

// B = f A with the small side as rows.
template <class T>
inline void load_small_side_rows(const T* A, int64_t m, int64_t n, T f, T* B) {
  if (m < n) {
    for (int64_t i = 0; i < m * n; ++i) B[i] = f * A[i];
    return;
  }
  for (int64_t r = 0; r < m; ++r)
    for (int64_t c = 0; c < n; ++c) B[c * m + r] = f * A[r * n + c];
}

}  // namespace kdops::KDOPS_ISA
