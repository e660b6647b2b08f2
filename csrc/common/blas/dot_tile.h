// Tiles of dot products of long contiguous rows, which are read where they lie: each of kDotRows x
// kDotColumns sums is a Pack along the rows, and the loads (rows + columns) are fewer than the
// multiply-adds (rows * columns). The lanes of all sums are added together at the end, by one tree
// of shuffles. Callers: gram/dot_rows.h, svd/topk/cpu/few_vectors.h and gram.h.
#pragma once

#include <utility>

#include "common/simd/pack.h"

namespace kdops::KDOPS_ISA {

inline constexpr int kDotRows = 4, kDotColumns = kPackBytes == 64 ? 4 : kPackBytes == 32 ? 3 : 2;

// Numbers that a tile writes: its sums, rounded up to whole registers.
template <class T>
inline constexpr int kDotSums =
    (kDotRows * kDotColumns + Pack<T>::kLanes - 1) / Pack<T>::kLanes * Pack<T>::kLanes;

// Lanes at distance kStep added: lanes with bit kStep clear hold sums of a, the others of b.
template <int kStep, class T, size_t... I>
inline Pack<T> add_neighbours(Pack<T> a, Pack<T> b, std::index_sequence<I...>) {
  constexpr int n = Pack<T>::kLanes, s = kStep;
  return shuffle<((I & s) ? n + int(I) - s : int(I))...>(a, b) +
         shuffle<((I & s) ? n + int(I) : int(I) + s)...>(a, b);
}

// Lane l of the result is the sum over all lanes of rows[l]; rows is overwritten.
template <int kStep = 1, class T>
inline Pack<T> sum_lanes(Pack<T>* rows) {
  constexpr int kLanes = Pack<T>::kLanes;
  using Indices = std::make_index_sequence<kLanes>;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; i += 2 * kStep)
    rows[i] = add_neighbours<kStep>(rows[i], rows[i + kStep], Indices{});
  if constexpr (2 * kStep < kLanes)
    return sum_lanes<2 * kStep>(rows);
  else
    return rows[0];
}

// out[r kDotColumns + c] = Σ_i a[r][i] b[c][i] f², all rows of length n.
template <bool kScaled, class T>
inline void dot_tile(const T* const* a, const T* const* b, int64_t n, T f, T* out) {
  constexpr int kLanes = Pack<T>::kLanes, R = kDotRows, C = kDotColumns;
  Pack<T> sum[kDotSums<T>];
  for (int q = 0; q < kDotSums<T>; ++q) sum[q] = Pack<T>(T(0));
  const auto add = [&](int64_t i, auto fetch) {
    Pack<T> x[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) x[r] = fetch(a[r] + i);
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const Pack<T> y = fetch(b[c] + i);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r * C + c] = fma(x[r], y, sum[r * C + c]);
    }
  };
  const int64_t whole = n / kLanes * kLanes;
  const int tail = static_cast<int>(n - whole);
  const auto scale = [f](Pack<T> x) { return kScaled ? x * Pack<T>(f) : x; };
  for (int64_t i = 0; i < whole; i += kLanes)
    add(i, [&](const T* p) { return scale(Pack<T>::load(p)); });
  if (tail > 0) add(whole, [&](const T* p) { return scale(Pack<T>::load_partial(p, tail)); });
  for (int q = 0; q < kDotSums<T>; q += kLanes) sum_lanes(sum + q).store(out + q);
}

}  // namespace kdops::KDOPS_ISA
