// Gram entries of maps whose channels are long contiguous rows (common/blas/dot_tile.h): no packing.
#pragma once

#include <algorithm>

#include "common/blas/dot_tile.h"
#include "common/blas/gemm.h"

namespace kdops::gram::KDOPS_ISA {

// Numbers of a row that are added up without a break; the sums of the pieces are added in turn.
inline constexpr int64_t kDotPiece = 2048;

// out (c1 x c2) = scale * x yT; with `symmetric` the tiles wholly below the diagonal are left out.
// Rows of x and y are contiguous. At the edges a tile computes its last row again.
template <class T>
void gram_by_dots(int64_t c1, int64_t c2, int64_t length, bool symmetric, T scale, View<const T> x,
                  View<const T> y, T* out) {
  constexpr int R = kDotRows, C = kDotColumns;
  for (int64_t i = 0; i < c1; i += R)
    for (int64_t j = 0; j < c2; j += C) {
      if (symmetric && j + C <= i) continue;
      const T *a[R], *b[C];
      for (int r = 0; r < R; ++r) a[r] = x.data + std::min(i + r, c1 - 1) * x.row;
      for (int c = 0; c < C; ++c) b[c] = y.data + std::min(j + c, c2 - 1) * y.row;
      T tile[kDotSums<T>];
      dot_tile<false>(a, b, std::min(length, kDotPiece), T(1), tile);
      for (int64_t l = kDotPiece; l < length; l += kDotPiece) {
        for (const T*& row : a) row += kDotPiece;
        for (const T*& row : b) row += kDotPiece;
        T piece[kDotSums<T>];
        dot_tile<false>(a, b, std::min(length - l, kDotPiece), T(1), piece);
        for (int q = 0; q < R * C; ++q) tile[q] += piece[q];
      }
      for (int r = 0; r < R && i + r < c1; ++r)
        for (int c = 0; c < C && j + c < c2; ++c)
          out[(i + r) * c2 + j + c] = scale * tile[r * C + c];
    }
}

}  // namespace kdops::gram::KDOPS_ISA
