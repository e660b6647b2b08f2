// The Gram matrix of the small side, one matrix at a time: AᵀA (tall) or AAᵀ (wide).
//
// Long rows (layout.h): rank-one updates of tiles of kGramTile x kLanes sums in registers,
// upper triangle only, on rows zero-padded to a multiple of the tile (in place where the width
// already is one). Otherwise: tiles of dot products of the p rows. Long sides are summed chunk by
// chunk, which keeps what is read again in L1 and the rounding error small; of a very long side
// the sums of a slab of chunks are added with their rounding errors put back.
#pragma once

#include <cmath>

#include "common/shared/power_of_two.h"
#include "common/simd/long_sum.h"
#include "svd/topk/cpu/few_vectors.h"
#include "svd/topk/cpu/layout.h"

namespace kdops::svd::KDOPS_ISA {

inline constexpr int kGramTile = kPackBytes == 64 ? 16 : 8;

// Columns of a padded row: a multiple of the tile and of the register.
template <class T>
inline constexpr int gram_width(int p) {
  constexpr int kUnit = kGramTile > Pack<T>::kLanes ? kGramTile : Pack<T>::kLanes;
  return (p + kUnit - 1) / kUnit * kUnit;
}

template <class T>
inline constexpr int gram_chunk(int width) {
  const int rows = 16384 / (width * static_cast<int>(sizeof(T)));
  return rows < 32 ? 32 : rows / 32 * 32;
}

// sums[i][j] += Σ_r rows[r][i] rows[r][j] for i in [i0, i0 + kGramTile), j in [j0, j0 + kLanes).
template <class T>
inline void gram_tile(const T* rows, int64_t count, int width, int i0, int j0, T* sums) {
  Pack<T> tile[kGramTile];
#pragma GCC unroll 16
  for (int i = 0; i < kGramTile; ++i) tile[i] = Pack<T>(T(0));
  for (int64_t r = 0; r < count; ++r) {
    const T* row = rows + r * width;
    const T* weights = row + i0;
    const Pack<T> x = Pack<T>::load(row + j0);
#pragma GCC unroll 16
    for (int i = 0; i < kGramTile; ++i) tile[i] = fma(Pack<T>(weights[i]), x, tile[i]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kGramTile; ++i) {
    T* out = sums + (i0 + i) * width + j0;
    (Pack<T>::load(out) + tile[i]).store(out);
  }
}

template <class T>
inline void gram_chunk_sums(const T* rows, int64_t count, int p, int width, T* sums) {
  for (int j0 = 0; j0 < p; j0 += Pack<T>::kLanes)
    for (int i0 = 0; i0 < p && i0 < j0 + Pack<T>::kLanes; i0 += kGramTile)
      gram_tile(rows, count, width, i0, j0, sums);
}

// Rows [first, first + count) of a matrix of n columns, times `factor`, into padded rows.
template <class T>
inline void stage_rows(const T* A, int n, int64_t first, int count, T factor, int width, T* stage) {
  constexpr int kLanes = Pack<T>::kLanes;
  for (int r = 0; r < count; ++r) {
    const T* row = A + (first + r) * n;
    for (int c = 0; c < width; c += kLanes) {
      const int some = std::clamp(n - c, 0, kLanes);
      (load_some(row + c, some) * Pack<T>(factor)).store(stage + r * width + c);
    }
  }
}

// sums[i][j] += Σ_c A[i][first + c] A[j][first + c] f², c < count, j >= i, for m rows of n numbers.
template <bool kScaled, class T>
inline void gram_of_rows(const T* A, int m, int64_t n, int64_t first, int64_t count, T f, int width,
                         T* sums) {
  constexpr int R = kDotRows, C = kDotColumns;
  for (int i0 = 0; i0 < m; i0 += R) {
    const T *x[R], *y[C];
    for (int r = 0; r < R; ++r) x[r] = A + std::min(i0 + r, m - 1) * n + first;
    for (int j0 = i0; j0 < m; j0 += C) {
      for (int c = 0; c < C; ++c) y[c] = A + std::min(j0 + c, m - 1) * n + first;
      T tile[kDotSums<T>];
      dot_tile<kScaled>(x, y, count, f, tile);
      for (int r = 0; r < R && i0 + r < m; ++r)
        for (int c = 0; c < C && j0 + c < m; ++c)
          sums[(i0 + r) * width + j0 + c] += tile[r * C + c];
    }
  }
}

// Positions of one slab of a very long side (sum_by_slabs).
inline constexpr int64_t kGramSlab = 512;

// Upper triangle of the Gram matrix of factor * A into sums (width x width), of the positions
// [from, from + length). stage: gram_chunk(width) * width numbers.
template <class T>
void gram_slab(const T* A, const TopkShape& shape, T factor, int64_t from, int64_t slab, T* sums,
               T* stage) {
  const int p = shape.p, width = gram_width<T>(p);
  const int64_t length = shape.length, end = from + slab, dot_chunk = 2048 / sizeof(T);
  const int64_t chunk = shape.long_rows ? gram_chunk<T>(width) : dot_chunk;
  for (int i = 0; i < width * width; ++i) sums[i] = T(0);
  for (int64_t first = from; first < end; first += chunk) {
    const int count = static_cast<int>(end - first < chunk ? end - first : chunk);
    if (!shape.long_rows) {
      if (factor == T(1))
        gram_of_rows<false>(A, p, length, first, count, factor, width, sums);
      else
        gram_of_rows<true>(A, p, length, first, count, factor, width, sums);
    } else if (width == p && factor == T(1)) {
      gram_chunk_sums(A + first * p, count, p, width, sums);
    } else {
      stage_rows(A, p, first, count, factor, width, stage);
      gram_chunk_sums(stage, count, p, width, sums);
    }
  }
}

// The same of all positions.
template <class T>
void small_gram(const T* A, const TopkShape& shape, T factor, T* sums, T* stage) {
  const int64_t width = gram_width<T>(shape.p);
  sum_by_slabs(shape.length, kGramSlab, width * width, sums,
               [&](int64_t first, int64_t count, T* out) {
                 gram_slab(A, shape, factor, first, count, out, stage);
               });
}

// max |A|, or NaN when an entry is not finite.
template <class T>
inline T largest_entry(const T* A, int64_t count) {
  T largest(0), probe(0);
  for (int64_t i = 0; i < count; ++i) {
    const T a = std::fabs(A[i]);
    largest = a > largest ? a : largest;
    probe += a * T(0);
  }
  return largest + probe;
}

// How a Gram matrix was summed: of factor * A, to be multiplied by `square`; f is the power of two
// that puts the trace of the Gram matrix of f A into [1/4, 1), 1 for a zero matrix, NaN or Inf
// where A is not finite. In the two last cases `square` is zero.
template <class T>
struct GramScale {
  T f, square;
};

// sum(factor) sums the Gram matrix of factor * A, which has `entries` entries, and returns its
// trace. The squares are taken unscaled when they are safe, so that A is usually read once.
template <class T, class Sum>
GramScale<T> gram_scale(const T* A, int64_t entries, const Sum& sum) {
  constexpr T eps = std::numeric_limits<T>::epsilon();
  const T safe_low = std::numeric_limits<T>::min() / (eps * eps);
  const T safe_high = std::numeric_limits<T>::max() * eps;
  T factor(1), trace = sum(factor);
  if (!(trace >= safe_low && trace <= safe_high)) {
    constexpr T smallest = std::numeric_limits<T>::min();  // below it 1 / f were no normal number
    const T largest = largest_entry(A, entries);
    if (!(largest >= smallest)) return {largest < smallest ? T(1) : largest, T(0)};
    factor = row_scale(largest);
    trace = sum(factor);
  }
  // trace in [2^e, 2^(e+1)); e >> 1 rounds down for negative e too.
  const int half = (exponent_of(trace) >> 1) + 1;
  return {factor * power_of_two(T(), -half), power_of_two(T(), -2 * half)};
}

// The packed lower triangle (tridiagonal.h) of the Gram matrix of f A, and f; packed is zero where
// `square` is.
template <class T>
T scaled_gram(const T* A, const TopkShape& shape, T* packed, T* sums, T* stage) {
  const int p = shape.p, width = gram_width<T>(p);
  const GramScale<T> scale = gram_scale(A, shape.m * shape.n, [&](T factor) {
    small_gram(A, shape, factor, sums, stage);
    T trace(0);
    for (int i = 0; i < p; ++i) trace += sums[i * width + i];
    return trace;
  });
  T* out = packed;
  for (int j = 0; j < p; ++j)
    for (int i = j; i < p; ++i)
      *out++ = scale.square == T(0) ? T(0) : sums[j * width + i] * scale.square;
  return scale.f;
}

}  // namespace kdops::svd::KDOPS_ISA
