// The two products of a tall matrix, read where it lies: its Gram matrix and its product with a
// small square one. Unpacked operands: the small side is at most 128, a chunk of rows sits in L1.
#pragma once

#include <algorithm>

#include "common/simd/long_sum.h"
#include "common/simd/scratch.h"

namespace kdops::svd::KDOPS_ISA {

#if defined(__AVX512F__)
inline constexpr int kProductRows = 8, kProductPacks = 2;
#else
inline constexpr int kProductRows = 4, kProductPacks = 2;
#endif

// Matrices stream from L3 or memory: the hardware prefetcher stops at every page.
template <bool kForWriting = false, class T>
inline void prefetch_ahead(const T* p) {
#if defined(__GNUC__)
  __builtin_prefetch(reinterpret_cast<const char*>(p) + 3072, kForWriting ? 1 : 0, 2);
#endif
}

// Some rows of x (rows x n) and the sums that their Gram matrix goes to.
template <class T>
struct GramChunk {
  const T* x;
  int64_t stride;
  int rows, n;
  T* out;
  int out_stride;
};

// out[i][c] += sum over r of x[r][i] x[r][c] for kRows rows from i on and kPacks registers of columns
// from c on. safe_rows: those whose load of these columns ends inside the matrix.
template <int kRows, int kPacks, class T>
inline void gram_tile(const GramChunk<T>& chunk, int first, int column, int safe_rows) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  const T *x = chunk.x + first, *y = chunk.x + column;
  const int64_t stride = chunk.stride;
  const int rows = chunk.rows, valid = chunk.n - column, out_stride = chunk.out_stride;
  T* out = chunk.out + first * out_stride + column;
  P acc[kRows][kPacks];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 16
    for (int p = 0; p < kPacks; ++p) acc[i][p] = P::load(out + i * out_stride + p * kLanes);
  const auto add = [&](const P* columns) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const P weight(x[i]);
#pragma GCC unroll 16
      for (int p = 0; p < kPacks; ++p) acc[i][p] = fma(weight, columns[p], acc[i][p]);
    }
  };
  int r = 0;
  for (; r < safe_rows; ++r, x += stride, y += stride) {
    prefetch_ahead(y);
    P columns[kPacks];
#pragma GCC unroll 16
    for (int p = 0; p < kPacks; ++p) columns[p] = P::load(y + p * kLanes);
    add(columns);
  }
  for (; r < rows; ++r, x += stride, y += stride) {  // a full load might leave the matrix
    P columns[kPacks];
#pragma GCC unroll 16
    for (int p = 0; p < kPacks; ++p)
      columns[p] = P::load_partial(y + p * kLanes, std::clamp(valid - p * kLanes, 0, kLanes));
    add(columns);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 16
    for (int p = 0; p < kPacks; ++p) acc[i][p].store(out + i * out_stride + p * kLanes);
}

// Rows 0..last-1 of the columns from c on, kProductPacks registers or one.
template <class T>
inline void gram_columns(const GramChunk<T>& chunk, int c, int packs, int safe, int last) {
  int i = 0;
  if (packs == 1) {
    for (; i + 2 * kProductRows <= last; i += 2 * kProductRows)
      gram_tile<2 * kProductRows, 1>(chunk, i, c, safe);
    for (; i + 4 <= last; i += 4) gram_tile<4, 1>(chunk, i, c, safe);
    for (; i < last; ++i) gram_tile<1, 1>(chunk, i, c, safe);
    return;
  }
  for (; i + kProductRows <= last; i += kProductRows)
    gram_tile<kProductRows, kProductPacks>(chunk, i, c, safe);
  for (; i < last; ++i) gram_tile<1, kProductPacks>(chunk, i, c, safe);
}

// gram (n x n, rows padded to gram_stride, a multiple of 2 kLanes) = xT x for m x n x, rows
// `stride` apart. Sums run over chunks of rows first, so that rounding errors do not grow with m.
template <class T>
void tall_gram(const T* x, int64_t m, int n, int64_t stride, T* gram, int gram_stride, T* partial) {
  constexpr int kLanes = Pack<T>::kLanes;
  const int chunk = std::clamp(16384 / static_cast<int>(sizeof(T)) / n, 32, int(kLongBlock));
  const int size = n * gram_stride;
  Scratch<T> lost(m > chunk ? size : 0);  // what LongSum keeps
  std::fill(gram, gram + size, T(0));
  std::fill_n(lost.get(), m > chunk ? size : 0, T(0));
  for (int64_t r0 = 0; r0 < m; r0 += chunk) {
    const int rows = static_cast<int>(std::min<int64_t>(chunk, m - r0));
    const GramChunk<T> block{.x = x + r0 * stride,
                             .stride = stride,
                             .rows = rows,
                             .n = n,
                             .out = partial,
                             .out_stride = gram_stride};
    std::fill(partial, partial + size, T(0));
    for (int c = 0; c < n;) {
      // The last register of columns gets a tile of its own width.
      const int packs = n - c > kLanes ? kProductPacks : 1;
      // Rows whose load of these columns ends inside the matrix.
      const int64_t room = (m - 1 - r0) * stride + n - c - packs * kLanes;
      const int safe = static_cast<int>(room < 0 ? 0 : std::min<int64_t>(room / stride + 1, rows));
      const int last = std::min(n, c + packs * kLanes);  // below: by symmetry
      gram_columns(block, c, packs, safe, last);
      c += packs * kLanes;
    }
    if (m <= chunk) {
      std::copy_n(partial, size, gram);
      break;
    }
    add_to_long_sums(partial, size, gram, lost.get());
  }
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < i; ++j) gram[i * gram_stride + j] = gram[j * gram_stride + i];
}

// Rows of contiguous numbers.
template <class T>
struct Lines {
  T* data;
  int64_t stride;
};

// out (rows x cols) = x (rows x depth) y (depth x cols); whole lines of y may be read.
template <class T>
struct TallProduct {
  int64_t rows, cols;
  int depth;
  Lines<const T> x, y;
  Lines<T> out;
};

// kRows rows of it from `first` on, kPacks registers of columns from c on.
template <int kRows, int kPacks, class T>
inline void product_tile(const TallProduct<T>& job, int64_t first, int64_t c) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes, kMost = kProductPacks * kLanes;
  // locals: the stores below might alias the job
  const int64_t x_stride = job.x.stride, y_stride = job.y.stride, out_stride = job.out.stride;
  const T *x = job.x.data + first * x_stride, *y = job.y.data + c;
  T* const out = job.out.data + first * out_stride + c;
  const int depth = job.depth, y_valid = static_cast<int>(std::min<int64_t>(kMost, y_stride - c));
  const int out_valid = static_cast<int>(std::min<int64_t>(kMost, job.cols - c));
  P acc[kRows][kPacks];
#pragma GCC unroll 16
  for (auto& row : acc)
#pragma GCC unroll 16
    for (auto& value : row) value = P(T(0));
  for (int k = 0; k < depth; ++k, y += y_stride) {
    P columns[kPacks];
#pragma GCC unroll 16
    for (int p = 0; p < kPacks; ++p)
      columns[p] =
          y_valid >= kPacks * kLanes
              ? P::load(y + p * kLanes)
              : P::load_partial(y + p * kLanes, std::clamp(y_valid - p * kLanes, 0, kLanes));
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const P weight(x[r * x_stride + k]);
#pragma GCC unroll 16
      for (int p = 0; p < kPacks; ++p) acc[r][p] = fma(weight, columns[p], acc[r][p]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
    for (int p = 0; p < kPacks; ++p) {
      const int valid = std::clamp(out_valid - p * kLanes, 0, kLanes);
      T* target = out + r * out_stride + p * kLanes;
      if (valid == kLanes)
        acc[r][p].store(target);
      else if (valid > 0)
        acc[r][p].store_partial(target, valid);
    }
}

template <class T>
void multiply(const TallProduct<T>& job) {
  constexpr int kLanes = Pack<T>::kLanes;
  const int64_t rows = job.rows, cols = job.cols;
  const bool in_order = job.out.stride == cols && cols <= kProductPacks * kLanes;
  for (int64_t c = 0; c < cols;) {
    const bool wide = cols - c > kLanes;
    int64_t r = 0;
    for (; r + kProductRows <= rows; r += kProductRows) {
      if (in_order)
        for (int i = 0; i < kProductRows; ++i) {
          prefetch_ahead(job.x.data + (r + i) * job.x.stride);
          prefetch_ahead<true>(job.out.data + (r + i) * job.out.stride + c);
        }
      if (wide)
        product_tile<kProductRows, kProductPacks>(job, r, c);
      else
        product_tile<kProductRows, 1>(job, r, c);
    }
    for (; r < rows; ++r) product_tile<1, kProductPacks>(job, r, c);
    c += wide ? kProductPacks * kLanes : kLanes;
  }
}

}  // namespace kdops::svd::KDOPS_ISA
