// Products of a few rows to a few thousand, on the house's register tile, and the transposes around
// them. The tile reads a by broadcasts and b by whole packs: x yT is x times the transposed copy of
// y. Every entry adds up its products in the order of k, whatever the strip: results depend
// neither on the number of threads nor on the side of the diagonal.
#pragma once

#include <algorithm>

#include "common/blas/gemm.h"
#include "common/simd/transpose.h"
#include "relation/relation_simd.h"

namespace kdops::relation::KDOPS_ISA {

// Rows i .. i + rows, columns j .. m of product number `item`.
template <class T>
void multiply_part(const Products<T>& p, int64_t item, int64_t i, int64_t rows, int64_t j) {
  const View<const T> a{p.a + item * p.a_step + i * p.a_row, p.a_row, p.a_col};
  const View<const T> b{p.b + item * p.b_step + j, p.b_row, 1};
  gemm<T>(rows, p.m - j, p.d, T(1), a, b, {p.out + (item * p.n + i) * p.m + j, p.m, 1});
}

template <class T>
void multiply_strips(const Products<T>& p, int64_t begin, int64_t end) {
  const int64_t strips = product_strips(p.n), rows = strip_rows(p.n);
  for (int64_t s = begin; s < end; ++s) {
    const int64_t i = s % strips * rows;
    multiply_part(p, s / strips, i, std::min(rows, p.n - i), 0);
  }
}

// Rows i .. i + rows of a symmetric product from column i on, and their mirror image below.
template <class T>
void multiply_and_mirror(const Products<T>& p, int64_t item, int64_t i, int64_t rows) {
  multiply_part(p, item, i, rows, i);
  T* const out = p.out + item * p.n * p.n;
  const int64_t right = i + rows;
  transpose_block(out + i * p.n + right, p.n, rows, p.n - right, out + right * p.n + i, p.n);
}

template <class T>
void multiply_symmetric(const Products<T>& p, int64_t begin, int64_t end) {
  const int64_t strips = product_strips(p.n), rows = strip_rows(p.n), half = symmetric_strips(p.n);
  for (int64_t s = begin; s < end; ++s) {
    const int64_t top = s % half, bottom = strips - 1 - top;
    for (const int64_t strip : {top, bottom}) {
      const int64_t i = strip * rows;
      multiply_and_mirror(p, s / half, i, std::min(rows, p.n - i));
      if (top == bottom) break;
    }
  }
}

// body(i, j, rows, cols) for the tiles of the upper half of an n x n matrix in tile rows
// begin .. end, the diagonal included.
template <class T, class Body>
void for_upper_tiles(int64_t n, int64_t begin, int64_t end, const Body& body) {
  constexpr int64_t kLanes = Pack<T>::kLanes;
  for (int64_t i = begin * kTileSide; i < std::min(n, end * kTileSide); i += kLanes)
    for (int64_t j = i; j < n; j += kLanes)
      body(i, j, static_cast<int>(std::min(kLanes, n - i)),
           static_cast<int>(std::min(kLanes, n - j)));
}

template <class T>
void transpose_rows(Rows<T> x, T* target, int64_t stride, int64_t begin, int64_t end) {
  const int64_t i = begin * kTileSide, rows = std::min(x.count, end * kTileSide) - i;
  transpose_block(x.at(i), x.stride, rows, x.length, target + i, stride);
}

template <class T>
void add_transpose(T* g, int64_t n, int64_t begin, int64_t end) {
  using P = Pack<T>;
  TurnedTile<T> upper, lower;
  for_upper_tiles<T>(n, begin, end, [&](int64_t i, int64_t j, int rows, int cols) {
    lower.load(g + j * n + i, n, cols, rows);
    for (int r = 0; r < rows; ++r) lower.lines[r] += P::load_partial(g + (i + r) * n + j, cols);
    if (i != j) {
      upper = lower;
      for (int r = rows; r < P::kLanes; ++r) upper.lines[r] = P(T(0));
      transpose(upper.lines);
      upper.store(g + j * n + i, n, cols, rows);
    }
    lower.store(g + i * n + j, n, rows, cols);
  });
}

}  // namespace kdops::relation::KDOPS_ISA
