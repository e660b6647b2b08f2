// Gradient of the full thin SVD, one matrix at a time.
//
// U m x r, S r, Vh r x n and their cotangents (null: zero), r = min(m, n), row-major. With
// X = Uᵀ gU, Y = Vh gVhᵀ and inv() the reciprocal under the degenerate policy,
//     core = skew(X + Y) inv(s_j - s_i) + skew(X - Y) inv(s_j + s_i) + diag(gS)
//     tall  gA = (U (core - X inv(s)) + gU inv(s)) Vh
//     wide  gA = U ((core - inv(s) Yᵀ) Vh + inv(s) gVh)
// (kdops/ops/svd/gradient.py derives it). Caller: full_simd.cpp.
#pragma once

#include "common/blas/gemm.h"
#include "common/simd/scratch.h"
#include "svd/full/full_simd.h"
#include "svd/shared/policy.h"

namespace kdops::svd::KDOPS_ISA {

// c = a b for a b of a few registers' width: no packing, kRows rows of c at a time in registers.
template <class T>
void narrow_product(int64_t rows, int64_t cols, int64_t depth, View<const T> a, const T* b, T* c) {
  using P = Pack<T>;
  constexpr int kRows = 4;
  for (int64_t j = 0; j < cols; j += P::kLanes) {
    const int width = static_cast<int>(std::min<int64_t>(P::kLanes, cols - j));
    for (int64_t i = 0; i < rows; i += kRows) {
      const int count = static_cast<int>(std::min<int64_t>(kRows, rows - i));
      const T* row[kRows];  // past the end: the last row once more, and not stored
      for (int l = 0; l < kRows; ++l) row[l] = a.data + (i + std::min(l, count - 1)) * a.row;
      P sum[kRows];
      for (P& value : sum) value = P(T(0));
      for (int64_t k = 0; k < depth; ++k) {
        const P right = P::load_partial(b + k * cols + j, width);
        for (int l = 0; l < kRows; ++l) sum[l] = fma(P(row[l][k * a.col]), right, sum[l]);
      }
      for (int l = 0; l < count; ++l) sum[l].store_partial(c + (i + l) * cols + j, width);
    }
  }
}

// c (rows x cols) = a b, b and c row-major.
template <class T>
void product(int64_t rows, int64_t cols, int64_t depth, View<const T> a, const T* b, T* c) {
  constexpr int64_t kNarrow = 4 * Pack<T>::kLanes;
  if (cols <= kNarrow)
    narrow_product(rows, cols, depth, a, b, c);
  else
    gemm<T>(rows, cols, depth, T(1), a, {b, cols, 1}, {c, cols, 1});
}

template <class T>
class SvdBackward {
 public:
  SvdBackward(int64_t rows, int64_t columns)
      : m(rows),
        n(columns),
        r(std::min(rows, columns)),
        core(r * r),
        X(r * r),
        Y(r * r),
        side(std::max(m, n) * r) {}

  void run(const SvdBackwardProblem<T>& one) {
    const PolicyInverse<T> inverse(one.S[0], static_cast<int>(r), one.lorentz);
    fill_core(one, inverse);
    if (m >= n)
      write_tall(one, inverse);
    else
      write_wide(one, inverse);
  }

 private:
  void fill_core(const SvdBackwardProblem<T>& one, const PolicyInverse<T>& inverse);
  void write_tall(const SvdBackwardProblem<T>& one, const PolicyInverse<T>& inverse);
  void write_wide(const SvdBackwardProblem<T>& one, const PolicyInverse<T>& inverse);

  int64_t m, n, r;
  Scratch<T> core, X, Y, side;
};

template <class T>
void SvdBackward<T>::fill_core(const SvdBackwardProblem<T>& one, const PolicyInverse<T>& inverse) {
  for (int64_t i = 0; i < r * r; ++i) X[i] = Y[i] = core[i] = T(0);
  for (int64_t i = 0; one.gS && i < r; ++i) core[i * r + i] = one.gS[i];
  if (!one.gU && !one.gVh) return;
  if (one.gU) product<T>(r, r, m, {one.U, 1, r}, one.gU, X.get());
  if (one.gVh) {
    T* gV = side.get();
    for (int64_t i = 0; i < r; ++i)
      for (int64_t j = 0; j < n; ++j) gV[j * r + i] = one.gVh[i * n + j];
    product<T>(r, r, n, {one.Vh, n, 1}, gV, Y.get());
  }
  for (int64_t i = 0; i < r; ++i)
    for (int64_t j = i + 1; j < r; ++j) {
      const T a = (X[i * r + j] - X[j * r + i]) / 2, b = (Y[i * r + j] - Y[j * r + i]) / 2;
      const CorePair<T> pair = core_pair(a, b, one.S[i], one.S[j], inverse);
      core[i * r + j] = pair.here, core[j * r + i] = pair.across;
    }
}

template <class T>
void SvdBackward<T>::write_tall(const SvdBackwardProblem<T>& one, const PolicyInverse<T>& inverse) {
  T *left = side.get(), *weight = Y.get();
  const bool outside = one.gU && m > r;
  for (int64_t j = 0; outside && j < r; ++j) weight[j] = inverse(one.S[j]);
  for (int64_t i = 0; outside && i < r; ++i)
    for (int64_t j = 0; j < r; ++j) core[i * r + j] -= X[i * r + j] * weight[j];
  product<T>(m, r, r, {one.U, r, 1}, core.get(), left);
  for (int64_t i = 0; outside && i < m; ++i)
    for (int64_t j = 0; j < r; ++j) left[i * r + j] += one.gU[i * r + j] * weight[j];
  product<T>(m, n, r, {left, r, 1}, one.Vh, one.gA);
}

template <class T>
void SvdBackward<T>::write_wide(const SvdBackwardProblem<T>& one, const PolicyInverse<T>& inverse) {
  T *right = side.get(), *weight = X.get();
  for (int64_t i = 0; one.gVh && i < r; ++i) weight[i] = inverse(one.S[i]);
  for (int64_t i = 0; one.gVh && i < r; ++i)
    for (int64_t j = 0; j < r; ++j) core[i * r + j] -= weight[i] * Y[j * r + i];
  product<T>(r, n, r, {core.get(), r, 1}, one.Vh, right);
  for (int64_t i = 0; one.gVh && i < r; ++i)
    for (int64_t j = 0; j < n; ++j) right[i * n + j] += weight[i] * one.gVh[i * n + j];
  product<T>(m, n, r, {one.U, r, 1}, right, one.gA);
}

}  // namespace kdops::svd::KDOPS_ISA
