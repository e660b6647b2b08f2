// Gradient of the full thin SVD, one matrix at a time.
//
// U m x r, S r, Vh r x n and their cotangents (null: zero), r = min(m, n), row-major. With
// X = Uᵀ gU, Y = Vh gVhᵀ and inv() the reciprocal under the degenerate policy,
//     core = skew(X + Y) inv(s_j - s_i) + skew(X - Y) inv(s_j + s_i) + diag(gS)
//     tall  gA = (U (core - X inv(s)) + gU inv(s)) Vh
//     wide  gA = U ((core - inv(s) Yᵀ) Vh + inv(s) gVh)
// (kdops/ops/svd/gradient.py derives it). Caller: backward_simd.cpp.
#pragma once

#include "common/blas/gemm.h"
#include "common/simd/scratch.h"
#include "svd/shared/policy.h"

namespace kdops::svd::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

template <class T>
struct SvdCotangents {
  const T *gU, *gS, *gVh;
};

template <class T>
struct SvdTriples {
  const T *U, *S, *Vh;
};

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
  SvdBackward(int64_t rows, int64_t columns, bool lorentz_policy)
      : m(rows),
        n(columns),
        r(std::min(rows, columns)),
        lorentz(lorentz_policy),
        core(r * r),
        X(r * r),
        Y(r * r),
        side(std::max(m, n) * r) {}

  void run(const SvdCotangents<T>& g, const SvdTriples<T>& svd, T* gA) {
    const PolicyInverse<T> inverse(svd.S[0], static_cast<int>(r), lorentz);
    fill_core(g, svd, inverse);
    if (m >= n)
      write_tall(g, svd, inverse, gA);
    else
      write_wide(g, svd, inverse, gA);
  }

 private:
  void fill_core(const SvdCotangents<T>& g, const SvdTriples<T>& svd,
                 const PolicyInverse<T>& inverse);
  void write_tall(const SvdCotangents<T>& g, const SvdTriples<T>& svd,
                  const PolicyInverse<T>& inverse, T* gA);
  void write_wide(const SvdCotangents<T>& g, const SvdTriples<T>& svd,
                  const PolicyInverse<T>& inverse, T* gA);

  int64_t m, n, r;
  bool lorentz;
  Scratch<T> core, X, Y, side;
};

template <class T>
void SvdBackward<T>::fill_core(const SvdCotangents<T>& g, const SvdTriples<T>& svd,
                               const PolicyInverse<T>& inverse) {
  for (int64_t i = 0; i < r * r; ++i) X[i] = Y[i] = core[i] = T(0);
  for (int64_t i = 0; g.gS && i < r; ++i) core[i * r + i] = g.gS[i];
  if (!g.gU && !g.gVh) return;
  if (g.gU) product<T>(r, r, m, {svd.U, 1, r}, g.gU, X.get());
  if (g.gVh) {
    T* gV = side.get();
    for (int64_t i = 0; i < r; ++i)
      for (int64_t j = 0; j < n; ++j) gV[j * r + i] = g.gVh[i * n + j];
    product<T>(r, r, n, {svd.Vh, n, 1}, gV, Y.get());
  }
  for (int64_t i = 0; i < r; ++i)
    for (int64_t j = i + 1; j < r; ++j) {
      const T a = (X[i * r + j] - X[j * r + i]) / 2, b = (Y[i * r + j] - Y[j * r + i]) / 2;
      const CorePair<T> pair = core_pair(a, b, svd.S[i], svd.S[j], inverse);
      core[i * r + j] = pair.here, core[j * r + i] = pair.across;
    }
}

template <class T>
void SvdBackward<T>::write_tall(const SvdCotangents<T>& g, const SvdTriples<T>& svd,
                                const PolicyInverse<T>& inverse, T* gA) {
  T *left = side.get(), *weight = Y.get();
  const bool outside = g.gU && m > r;
  for (int64_t j = 0; outside && j < r; ++j) weight[j] = inverse(svd.S[j]);
  for (int64_t i = 0; outside && i < r; ++i)
    for (int64_t j = 0; j < r; ++j) core[i * r + j] -= X[i * r + j] * weight[j];
  product<T>(m, r, r, {svd.U, r, 1}, core.get(), left);
  for (int64_t i = 0; outside && i < m; ++i)
    for (int64_t j = 0; j < r; ++j) left[i * r + j] += g.gU[i * r + j] * weight[j];
  product<T>(m, n, r, {left, r, 1}, svd.Vh, gA);
}

template <class T>
void SvdBackward<T>::write_wide(const SvdCotangents<T>& g, const SvdTriples<T>& svd,
                                const PolicyInverse<T>& inverse, T* gA) {
  T *right = side.get(), *weight = X.get();
  for (int64_t i = 0; g.gVh && i < r; ++i) weight[i] = inverse(svd.S[i]);
  for (int64_t i = 0; g.gVh && i < r; ++i)
    for (int64_t j = 0; j < r; ++j) core[i * r + j] -= weight[i] * Y[j * r + i];
  product<T>(r, n, r, {core.get(), r, 1}, svd.Vh, right);
  for (int64_t i = 0; g.gVh && i < r; ++i)
    for (int64_t j = 0; j < n; ++j) right[i * n + j] += weight[i] * g.gVh[i * n + j];
  product<T>(m, n, r, {svd.U, r, 1}, right, gA);
}

}  // namespace kdops::svd::KDOPS_ISA
