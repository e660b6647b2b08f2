// rbf_affinity: a product of centred rows with an exp epilogue, and its fused gradient.
//
// Forward: blocks of rows of K. With y = x a block computes what lies right of its diagonal and
// mirrors it. Backward: with P = grad * K, gx_i = -2 gamma (sum_j P_ij x_i - (P y)_i), a block of
// rows of P at a time; gy from the transpose of P; y = x from P + P'. Entry points are serial on
// a range of blocks.
#pragma once

#include <numbers>

#include "common/simd/transpose.h"
#include "rbf/affinity_problem.h"
#include "rbf/rows.h"

namespace kdops::rbf::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

// out[j0..j1) of row i: exp(-gamma |x_i - y_j|^2), from the inner products that lie there.
template <class T>
void exponentiate_row(const Rows<T>& x, int64_t i, const Rows<T>& y, int64_t j0, int64_t j1,
                      T gamma, T* out) {
  using P = Pack<T>;
  const P rate(gamma * std::numbers::log2e_v<T>);
  for (int64_t j = j0; j < j1; j += P::kLanes) {
    const int count = static_cast<int>(std::min<int64_t>(P::kLanes, j1 - j));
    const P squared = distances(x, i, y, j, count, load_some(out + j, count));
    store_some(exp2_of_negative(-(rate * squared)), out + j, count);
  }
}

// Copies out[i][j], i in the block i0..i1, j >= i1, to out[j][i].
template <class T>
void mirror_block(T* out, int64_t n, int64_t i0, int64_t i1) {
  transpose_block(out + i0 * n + i1, n, i1 - i0, n - i1, out + i1 * n + i0, n);
}

// Rows i0..i1 of one K.
template <class T>
void affinity_block(const Rows<T>& x, const Rows<T>& y, bool symmetric, T gamma, int64_t i0,
                    int64_t i1, T* out) {
  const int64_t m = y.count, j0 = symmetric ? i0 : 0;
  gemm<T>(i1 - i0, m - j0, x.width, T(1), {x.centred + i0 * x.width, x.width, 1},
          {y.transposed + j0, m, 1}, {out + i0 * m + j0, m, 1});
  for (int64_t i = i0; i < i1; ++i)
    exponentiate_row(x, i, y, symmetric ? i : j0, m, gamma, out + i * m);
  if (!symmetric) return;
  for (int64_t i = i0; i < i1; ++i)
    for (int64_t j = i0; j < i; ++j) out[i * m + j] = out[j * m + i];
  mirror_block(out, m, i0, i1);
}

// weights (i1 - i0) x m: grad * K of rows i0..i1, or of columns i0..i1 (transposed), or their sum.
template <class T>
void weight_block(const T* grad, const T* k, int64_t n, int64_t m, Sides sides, int64_t i0,
                  int64_t i1, T* weights) {
  const int64_t width = sides == Sides::columns ? n : m;
  if (sides != Sides::columns)
    for (int64_t i = i0; i < i1; ++i)
      for (int64_t j = 0; j < m; ++j)
        weights[(i - i0) * width + j] = grad[i * m + j] * k[i * m + j];
  if (sides == Sides::rows) return;
  constexpr int64_t kBlock = 16;
  const bool add = sides == Sides::both;
  for (int64_t j0 = 0; j0 < width; j0 += kBlock)
    for (int64_t i = i0; i < i1; ++i)
      for (int64_t j = j0; j < std::min(j0 + kBlock, width); ++j) {
        const T value = grad[j * m + i] * k[j * m + i];
        T& target = weights[(i - i0) * width + j];
        target = add ? target + value : value;
      }
}

template <class T>
T sum_of(const T* values, int64_t count) {
  using P = Pack<T>;
  P sum(T(0));
  for (int64_t j = 0; j < count; j += P::kLanes)
    sum += load_some(values + j, static_cast<int>(std::min<int64_t>(P::kLanes, count - j)));
  return reduce_add(sum);
}

// g[i] = factor * (sum_j w_ij x_i - (w y)_i) for the block, and its inner product with x unless
// `moments` is null.
template <class T>
void pull_block(const T* weights, const T* x, const T* y, int64_t rows, int64_t others,
                int64_t width, T factor, T* g, double* moments) {
  gemm<T>(rows, width, others, T(1), {weights, others, 1}, {y, width, 1}, {g, width, 1});
  for (int64_t i = 0; i < rows; ++i) {
    const T sum = sum_of(weights + i * others, others);
    T* row = g + i * width;
    for (int64_t k = 0; k < width; ++k) row[k] = factor * (sum * x[i * width + k] - row[k]);
    if (moments != nullptr) moments[i] = static_cast<double>(dot(row, x + i * width, width));
  }
}

}  // namespace kdops::rbf::KDOPS_ISA
