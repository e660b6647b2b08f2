// The two products of a tall matrix, read where it lies: its Gram matrix and its product with a
// small square one. Unpacked operands: the small side is at most 128, a chunk of rows sits in L1.
#pragma once

#include <algorithm>

#include "common/pack_math.h"

namespace kdops::KDOPS_ISA {

#if defined(__AVX512F__)
inline constexpr int kProductRows = 8, kProductPacks = 2;
#else
inline constexpr int kProductRows = 4, kProductPacks = 2;
#endif

// out[i][c] += sum over r of x[r][i] y[r][c], i < kRows, kPacks registers of columns c.
template <int kRows, int kPacks, class T>
inline void gram_tile(const T* x, const T* y, int64_t stride, int rows, int safe_rows, int valid,
                      T* out, int out_stride) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  P acc[kRows][kPacks];
  for (int i = 0; i < kRows; ++i)
    for (int p = 0; p < kPacks; ++p) acc[i][p] = P::load(out + i * out_stride + p * kLanes);
  const auto add = [&](const P* columns) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const P weight(x[i]);
      for (int p = 0; p < kPacks; ++p) acc[i][p] = fma(weight, columns[p], acc[i][p]);
    }
  };
  int r = 0;
  for (; r < safe_rows; ++r, x += stride, y += stride) {
    P columns[kPacks];
    for (int p = 0; p < kPacks; ++p) columns[p] = P::load(y + p * kLanes);
    add(columns);
  }
  for (; r < rows; ++r, x += stride, y += stride) {  // a full load might leave the matrix
    P columns[kPacks];
    for (int p = 0; p < kPacks; ++p)
      columns[p] = P::load_partial(y + p * kLanes, std::clamp(valid - p * kLanes, 0, kLanes));
    add(columns);
  }
  for (int i = 0; i < kRows; ++i)
    for (int p = 0; p < kPacks; ++p) acc[i][p].store(out + i * out_stride + p * kLanes);
}

// gram (n x n, rows padded to gram_stride, a multiple of 2 kLanes) = xT x for m x n x, rows
// `stride` apart. Sums run over chunks of rows first, so that rounding errors do not grow with m.
template <class T>
void tall_gram(const T* x, int64_t m, int n, int64_t stride, T* gram, int gram_stride, T* partial) {
  constexpr int kLanes = Pack<T>::kLanes, kCols = kProductPacks * kLanes;
  const int chunk = std::max(32, 16384 / static_cast<int>(sizeof(T)) / n);
  std::fill(gram, gram + n * gram_stride, T(0));
  for (int64_t r0 = 0; r0 < m; r0 += chunk) {
    const int rows = static_cast<int>(std::min<int64_t>(chunk, m - r0));
    const T* block = x + r0 * stride;
    std::fill(partial, partial + n * gram_stride, T(0));
    for (int c = 0; c < n; c += kCols) {
      // Rows whose load of kCols columns ends inside the matrix.
      const int64_t inside = ((m - 1 - r0) * stride + n - c - kCols) / stride + 1;
      const int safe = static_cast<int>(
          std::clamp<int64_t>((m - 1 - r0) * stride + n - c >= kCols ? inside : 0, 0, rows));
      const int last = std::min(n, c + kCols);  // rows of the Gram matrix below: by symmetry
      int i = 0;
      for (; i + kProductRows <= last; i += kProductRows)
        gram_tile<kProductRows, kProductPacks>(block + i, block + c, stride, rows, safe, n - c,
                                               partial + i * gram_stride + c, gram_stride);
      for (; i < last; ++i)
        gram_tile<1, kProductPacks>(block + i, block + c, stride, rows, safe, n - c,
                                    partial + i * gram_stride + c, gram_stride);
    }
    for (int i = 0; i < n * gram_stride; i += kLanes)
      (Pack<T>::load(gram + i) + Pack<T>::load(partial + i)).store(gram + i);
  }
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < i; ++j) gram[i * gram_stride + j] = gram[j * gram_stride + i];
}

// out rows r < kRows, kPacks registers of columns = sum over k of x[r][k] y[k][columns].
template <int kRows, int kPacks, class T>
inline void product_tile(const T* x, int64_t x_stride, const T* y, int64_t y_stride, int depth,
                         int y_valid, T* out, int64_t out_stride, int out_valid) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  P acc[kRows][kPacks];
  for (auto& row : acc)
    for (auto& value : row) value = P(T(0));
  for (int k = 0; k < depth; ++k, y += y_stride) {
    P columns[kPacks];
    for (int p = 0; p < kPacks; ++p)
      columns[p] =
          y_valid >= kPacks * kLanes
              ? P::load(y + p * kLanes)
              : P::load_partial(y + p * kLanes, std::clamp(y_valid - p * kLanes, 0, kLanes));
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const P weight(x[r * x_stride + k]);
      for (int p = 0; p < kPacks; ++p) acc[r][p] = fma(weight, columns[p], acc[r][p]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int p = 0; p < kPacks; ++p) {
      const int valid = std::clamp(out_valid - p * kLanes, 0, kLanes);
      T* target = out + r * out_stride + p * kLanes;
      if (valid == kLanes)
        acc[r][p].store(target);
      else if (valid > 0)
        acc[r][p].store_partial(target, valid);
    }
}

// out (rows x cols) = x (rows x depth) y (depth x cols). Rows of y may be read up to y_cols >=
// cols.
template <class T>
void product(const T* x, int64_t x_stride, int64_t rows, const T* y, int64_t y_stride, int depth,
             int64_t cols, int64_t y_cols, T* out, int64_t out_stride) {
  constexpr int kLanes = Pack<T>::kLanes;
  for (int64_t c = 0; c < cols;) {
    const bool wide = cols - c > kLanes;
    const int valid = static_cast<int>(std::min<int64_t>(kProductPacks * kLanes, cols - c));
    const int readable = static_cast<int>(std::min<int64_t>(kProductPacks * kLanes, y_cols - c));
    int64_t r = 0;
    for (; r + kProductRows <= rows; r += kProductRows)
      if (wide)
        product_tile<kProductRows, kProductPacks>(x + r * x_stride, x_stride, y + c, y_stride,
                                                  depth, readable, out + r * out_stride + c,
                                                  out_stride, valid);
      else
        product_tile<kProductRows, 1>(x + r * x_stride, x_stride, y + c, y_stride, depth, readable,
                                      out + r * out_stride + c, out_stride, valid);
    for (; r < rows; ++r)
      product_tile<1, kProductPacks>(x + r * x_stride, x_stride, y + c, y_stride, depth, readable,
                                     out + r * out_stride + c, out_stride, valid);
    c += wide ? kProductPacks * kLanes : kLanes;
  }
}

}  // namespace kdops::KDOPS_ISA
