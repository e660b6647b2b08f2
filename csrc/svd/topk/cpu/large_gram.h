// The Gram matrix of a small side above 128, as a full symmetric matrix.
//
// Half of it is summed, tile by tile (common/blas/gemm.h), straight from A whichever way A lies.
// Rows are an odd number of cache lines long, so that they spread over the cache, and padded with
// zeros.
#pragma once

#include "common/blas/gemm.h"
#include "common/simd/scratch.h"
#include "common/simd/transpose.h"
#include "svd/topk/cpu/gram.h"

namespace kdops::svd::KDOPS_ISA {

template <class T>
inline constexpr int spread_width(int p) {
  constexpr int kLine = 64 / static_cast<int>(sizeof(T));
  return ((p + kLine - 1) / kLine | 1) * kLine;
}

// The upper triangle of B Bᵀ where B, p x length, is A or Aᵀ.
template <class T>
void gram_upper(const T* A, const TopkShape& shape, T* G, int width) {
  const int64_t p = shape.p, length = shape.length;
  const int64_t row = shape.long_rows ? 1 : length, col = shape.long_rows ? p : 1;
  sum_by_slabs(length, kGramSlab, p * width, G, [&](int64_t first, int64_t count, T* out) {
    const View<const T> rows{A + first * col, row, col}, columns{A + first * col, col, row};
    gemm<T>(p, p, count, T(1), rows, columns, View<T>{out, width, 1}, false, Part::upper);
  });
}

// G times `factor`, its lower triangle from the upper one, zeros in the padding.
template <class T>
void scale_and_mirror(T* G, int p, int width, T factor) {
  constexpr int kTile = 16;
  for (int i = 0; i < p; ++i) {
    T* row = G + static_cast<int64_t>(i) * width;
    for (int j = i; j < p; ++j) row[j] *= factor;
    for (int j = p; j < width; ++j) row[j] = T(0);
  }
  for (int i0 = 0; i0 < p; i0 += kTile) {
    const int rows = std::min(kTile, p - i0);
    T* target = G + static_cast<int64_t>(i0) * width;
    transpose_block(G + i0, width, i0, rows, target, width);
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < i; ++j) target[i * width + i0 + j] = target[j * width + i0 + i];
  }
}

// G (p rows, spread_width(p) apart) of f A, and f as in gram_scale (gram.h).
template <class T>
T large_gram(const T* A, const TopkShape& shape, T* G) {
  const int p = shape.p, width = spread_width<T>(p);
  const int64_t entries = shape.m * shape.n;
  const GramScale<T> scale = gram_scale(A, entries, [&](T factor) {
    if (factor == T(1)) {
      gram_upper(A, shape, G, width);
    } else {
      Scratch<T> scaled(entries);
      for (int64_t i = 0; i < entries; ++i) scaled[i] = A[i] * factor;
      gram_upper(scaled.get(), shape, G, width);
    }
    T trace(0);
    for (int i = 0; i < p; ++i) trace += G[static_cast<int64_t>(i) * width + i];
    return trace;
  });
  if (scale.square == T(0))
    std::fill_n(G, static_cast<int64_t>(p) * width, T(0));
  else
    scale_and_mirror(G, p, width, scale.square);
  return scale.f;
}

}  // namespace kdops::svd::KDOPS_ISA
