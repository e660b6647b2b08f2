// rbf_affinity: a product of centred rows with an exp epilogue, and its fused gradient.
//
// Forward: blocks of rows of K. With y = x a block computes what lies right of its diagonal and
// mirrors it. Backward: with P = grad * K, gx_i = -2 gamma (sum_j P_ij x_i - (P y)_i), a block of
// rows of P at a time, and rows where that cancels from differences; gy from the transpose of P;
// y = x from P + P'. Entry points are serial on a range of blocks.
#pragma once

#include <algorithm>
#include <limits>
#include <numbers>

#include "common/simd/transpose.h"
#include "rbf/affinity_simd.h"
#include "rbf/rows.h"

namespace kdops::rbf::KDOPS_ISA {

// K = 2^(-rate d^2). Finite, so that equal rows have affinity one with the largest bandwidths too.
template <class T>
T rate_of(T gamma) {
  return std::min(gamma * std::numbers::log2e_v<T>, std::numeric_limits<T>::max());
}

// out[j0..j1) of row i: exp(-gamma |x_i - y_j|^2), from the inner products that lie there.
template <class T>
void exponentiate_row(const RowSet<T>& x, int64_t i, const RowSet<T>& y, int64_t j0, int64_t j1,
                      T gamma, T* out) {
  using P = Pack<T>;
  const P rate(rate_of(gamma));
  for (int64_t j = j0; j < j1; j += P::kLanes) {
    const int count = static_cast<int>(std::min<int64_t>(P::kLanes, j1 - j));
    const P squared = distances(x, i, y, j, count, load_some(out + j, count));
    store_some(exp2_of_negative(-(rate * squared)), out + j, count);
  }
}

// Rows i0..i1 of one K.
template <class T>
void affinity_block(const RowSet<T>& x, const RowSet<T>& y, bool symmetric, T gamma, int64_t i0,
                    int64_t i1, T* out) {
  const int64_t m = y.count, j0 = symmetric ? i0 : 0;
  gemm<T>(i1 - i0, m - j0, x.width, T(1), {x.centred + i0 * x.width, x.width, 1},
          {y.transposed + j0, m, 1}, {out + i0 * m + j0, m, 1});
  for (int64_t i = i0; i < i1; ++i)
    exponentiate_row(x, i, y, symmetric ? i : j0, m, gamma, out + i * m);
  if (!symmetric) return;
  for (int64_t i = i0; i < i1; ++i)
    for (int64_t j = i0; j < i; ++j) out[i * m + j] = out[j * m + i];
  transpose_block(out + i0 * m + i1, m, i1 - i0, m - i1, out + i1 * m + i0, m);
}

// sqrt(gamma) |x - y| from below: 1 - exp(-t) <= t. K near one is known to half a unit only.
template <class T>
T length_of(T k) {
  return std::sqrt(std::max(T(0), T(1) - std::numeric_limits<T>::epsilon() - k));
}

// Two n x m matrices, to be multiplied entry by entry.
template <class T>
struct GradTimesK {
  const T *grad, *k;
  int64_t n, m;
};

// weights (i1 - i0) x m: grad * K of rows i0..i1, or of columns i0..i1 (transposed), or their sum;
// and in `lengths` the length_of the K's.
template <class T>
void weight_block(const GradTimesK<T>& product, Sides sides, int64_t i0, int64_t i1, T* weights,
                  T* lengths) {
  const auto [grad, k, n, m] = product;
  const int64_t width = sides == Sides::columns ? n : m;
  if (sides != Sides::columns)
    for (int64_t i = i0; i < i1; ++i)
      for (int64_t j = 0; j < m; ++j) {
        weights[(i - i0) * width + j] = grad[i * m + j] * k[i * m + j];
        lengths[(i - i0) * width + j] = length_of(k[i * m + j]);
      }
  if (sides == Sides::rows) return;
  constexpr int64_t kBlock = 16;
  const bool add = sides == Sides::both;
  for (int64_t j0 = 0; j0 < width; j0 += kBlock)
    for (int64_t i = i0; i < i1; ++i)
      for (int64_t j = j0; j < std::min(j0 + kBlock, width); ++j) {
        const T value = grad[j * m + i] * k[j * m + i];
        T& target = weights[(i - i0) * width + j];
        target = add ? target + value : value;
        if (!add) lengths[(i - i0) * width + j] = length_of(k[j * m + i]);
      }
}

// Whether row i of x cancels with its weights; lengths are in units of 1 / sqrt(gamma).
template <class T>
bool is_lossy(const T* weights, const T* lengths, const RowSet<T>& x, int64_t i, const RowSet<T>& y,
              T gamma) {
  using P = Pack<T>;
  Cancellation<T> cancellation;
  for_packs<T>(y.count, [&](int64_t j, int lanes) {
    cancellation.add(abs(load_some(weights + j, lanes)),
                     P(x.sizes[i]) + load_some(y.sizes + j, lanes), load_some(lengths + j, lanes));
  });
  return cancellation.lossy(1 / std::sqrt(gamma));
}

// Rows i0..i1 of g: -2 gamma (sum_j w_ij x_i - (w y)_i).
template <class T>
void pull_block(const T* weights, const T* lengths, const RowSet<T>& x, const RowSet<T>& y,
                int64_t i0, int64_t i1, T gamma, T* g) {
  const int64_t width = x.width, others = y.count;
  gemm<T>(i1 - i0, width, others, T(1), {weights, others, 1}, {y.centred, width, 1}, {g, width, 1});
  for (int64_t i = i0; i < i1; ++i, weights += others, lengths += others, g += width) {
    if (is_lossy(weights, lengths, x, i, y, gamma)) {
      std::fill(g, g + width, T(0));
      add_differences(weights, others, x.given + i * width, y.given, width, width, T(1), g);
      for (int64_t k = 0; k < width; ++k) g[k] *= -2 * gamma;
      continue;
    }
    const T sum = short_sum(weights, others);
    const T* row = x.centred + i * width;
    for (int64_t k = 0; k < width; ++k) g[k] = -2 * gamma * (sum * row[k] - g[k]);
  }
}

// Sum of grad * K * d^2 over rows i0..i1; products: scratch for these rows.
template <class T>
double slope_block(const RowSet<T>& x, const RowSet<T>& y, const T* grad, const T* k, int64_t i0,
                   int64_t i1, T* products) {
  using P = Pack<T>;
  const int64_t m = y.count;
  gemm<T>(i1 - i0, m, x.width, T(1), {x.centred + i0 * x.width, x.width, 1}, {y.transposed, m, 1},
          {products, m, 1});
  double total = 0;
  for (int64_t i = i0; i < i1; ++i) {
    P sum(T(0));
    for_packs<T>(m, [&](int64_t j, int lanes) {
      const P squared = distances(x, i, y, j, lanes, load_some(products + (i - i0) * m + j, lanes));
      const P affinity = load_some(k + i * m + j, lanes);
      const auto far = affinity == P(T(0));  // and may be at Inf
      const P slope = load_some(grad + i * m + j, lanes) * affinity * select(far, P(T(0)), squared);
      sum += slope;
    });
    total += static_cast<double>(reduce_add(sum));
  }
  return total;
}

}  // namespace kdops::rbf::KDOPS_ISA
