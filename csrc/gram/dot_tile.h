// Gram entries as long dot products: for rows that are contiguous and long, a register tile of
// dot products reads both operands where they lie, with no packing. Each of kDotRows x kDotCols
// accumulators is a Pack along the positions; the loads (rows + cols) are fewer than the
// multiply-adds (rows * cols), so the multiplier is the limit, not the loads.
#pragma once

#include <algorithm>

#include "common/gemm.h"

namespace kdops::KDOPS_ISA {

#if defined(__AVX512F__)
inline constexpr int kDotRows = 4, kDotCols = 4;
#else
inline constexpr int kDotRows = 4, kDotCols = 2;
#endif

// out[r][c] = scale * <x row r, y row c>. x and y rows lie x_row and y_row apart.
template <class T, int kRows, int kCols>
inline void dot_tile(const T* x, int64_t x_row, const T* y, int64_t y_row, int64_t length, T scale,
                     T* out, int64_t out_row) {
  using P = Pack<T>;
  P acc[kRows][kCols];
  for (auto& row : acc)
    for (auto& value : row) value = P(T(0));
  int64_t l = 0;
  for (; l + P::kLanes <= length; l += P::kLanes) {
    P col[kCols];
    for (int c = 0; c < kCols; ++c) col[c] = P::load(y + c * y_row + l);
    for (int r = 0; r < kRows; ++r) {
      const P value = P::load(x + r * x_row + l);
      for (int c = 0; c < kCols; ++c) acc[r][c] = fma(value, col[c], acc[r][c]);
    }
  }
  if (const int rest = static_cast<int>(length - l)) {
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < kCols; ++c)
        acc[r][c] = fma(P::load_partial(x + r * x_row + l, rest),
                        P::load_partial(y + c * y_row + l, rest), acc[r][c]);
  }
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kCols; ++c) out[r * out_row + c] = scale * reduce_add(acc[r][c]);
}

// out (c1 x c2) = scale * x yT; with `symmetric` the tiles wholly below the diagonal are left out.
template <class T>
void gram_by_dots(int64_t c1, int64_t c2, int64_t length, bool symmetric, T scale, const T* x,
                  int64_t x_row, const T* y, int64_t y_row, T* out) {
  for (int64_t i = 0; i < c1; i += kDotRows)
    for (int64_t j = 0; j < c2; j += kDotCols) {
      if (symmetric && j + kDotCols <= i) continue;
      const T* xi = x + i * x_row;
      const T* yj = y + j * y_row;
      if (i + kDotRows <= c1 && j + kDotCols <= c2) {
        dot_tile<T, kDotRows, kDotCols>(xi, x_row, yj, y_row, length, scale, out + i * c2 + j, c2);
        continue;
      }
      for (int64_t r = i; r < std::min<int64_t>(i + kDotRows, c1); ++r)
        for (int64_t c = j; c < std::min<int64_t>(j + kDotCols, c2); ++c)
          dot_tile<T, 1, 1>(x + r * x_row, x_row, y + c * y_row, y_row, length, scale,
                            out + r * c2 + c, c2);
    }
}

}  // namespace kdops::KDOPS_ISA
