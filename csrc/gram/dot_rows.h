// Gram entries of maps whose channels are long contiguous rows (common/blas/dot_tile.h): no packing.
#pragma once

#include <algorithm>

#include "common/blas/dot_tile.h"

namespace kdops::gram::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

// out (c1 x c2) = scale * x yT; with `symmetric` the tiles wholly below the diagonal are left out.
// x and y rows lie x_row and y_row apart. At the edges a tile computes its last row again.
template <class T>
void gram_by_dots(int64_t c1, int64_t c2, int64_t length, bool symmetric, T scale, const T* x,
                  int64_t x_row, const T* y, int64_t y_row, T* out) {
  constexpr int R = kDotRows, C = kDotColumns;
  for (int64_t i = 0; i < c1; i += R)
    for (int64_t j = 0; j < c2; j += C) {
      if (symmetric && j + C <= i) continue;
      const T *a[R], *b[C];
      for (int r = 0; r < R; ++r) a[r] = x + std::min(i + r, c1 - 1) * x_row;
      for (int c = 0; c < C; ++c) b[c] = y + std::min(j + c, c2 - 1) * y_row;
      T tile[kDotSums<T>];
      dot_tile<false>(a, b, length, T(1), tile);
      for (int r = 0; r < R && i + r < c1; ++r)
        for (int c = 0; c < C && j + c < c2; ++c)
          out[(i + r) * c2 + j + c] = scale * tile[r * C + c];
    }
}

}  // namespace kdops::gram::KDOPS_ISA
