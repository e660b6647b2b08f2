// In-register transposes, and what they exist for: the change of layout between matrices one after
// another (how tensors lie in memory) and one matrix per lane (how a kernel on Pack<T> wants them),
// and transposed copies.
#pragma once

#include <utility>

#include "common/simd/pack_loop.h"

namespace kdops::KDOPS_ISA {

// a0 b0 a1 b1 ... of the lower (offset 0) or the upper (offset kLanes / 2) halves.
template <int kOffset, class T, size_t... I>
inline Pack<T> interleave_halves(Pack<T> a, Pack<T> b, std::index_sequence<I...>) {
  constexpr int kLanes = Pack<T>::kLanes;
  return shuffle<(static_cast<int>(I) / 2 + kOffset + (I % 2 == 0 ? 0 : kLanes))...>(a, b);
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// Interleaving within the halves first: only the last round crosses from one half to the other,
// half the instructions of perfect shuffles.
inline void transpose(Pack<float> (&rows)[8]) {
  __m256 quads[8];
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(rows[i].r, rows[i + 1].r)),
                  b = _mm256_castps_pd(_mm256_unpackhi_ps(rows[i].r, rows[i + 1].r)),
                  c = _mm256_castps_pd(_mm256_unpacklo_ps(rows[i + 2].r, rows[i + 3].r)),
                  d = _mm256_castps_pd(_mm256_unpackhi_ps(rows[i + 2].r, rows[i + 3].r));
    quads[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
    quads[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
    quads[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
    quads[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    rows[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    rows[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
}
inline void transpose(Pack<double> (&rows)[4]) {
  const __m256d a = _mm256_unpacklo_pd(rows[0].r, rows[1].r),
                b = _mm256_unpackhi_pd(rows[0].r, rows[1].r),
                c = _mm256_unpacklo_pd(rows[2].r, rows[3].r),
                d = _mm256_unpackhi_pd(rows[2].r, rows[3].r);
  rows[0] = _mm256_permute2f128_pd(a, c, 0x20);
  rows[1] = _mm256_permute2f128_pd(b, d, 0x20);
  rows[2] = _mm256_permute2f128_pd(a, c, 0x31);
  rows[3] = _mm256_permute2f128_pd(b, d, 0x31);
}
#else
// rows[i] lane j <-> rows[j] lane i: log2(kLanes) rounds of the perfect shuffle.
template <class T>
inline void transpose(Pack<T> (&rows)[Pack<T>::kLanes]) {
  constexpr int kLanes = Pack<T>::kLanes;
  using Indices = std::make_index_sequence<kLanes>;
#pragma GCC unroll 4
  for (int round = 1; round < kLanes; round *= 2) {
    Pack<T> next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = interleave_halves<0>(rows[i], rows[i + kLanes / 2], Indices{});
      next[2 * i + 1] = interleave_halves<kLanes / 2>(rows[i], rows[i + kLanes / 2], Indices{});
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}
#endif

// out[e] lane l = source[l * stride + e] for e < elements; lanes from `lanes` on are zero.
template <class T>
void gather_lanes(const T* source, int64_t stride, int lanes, int elements, Pack<T>* out) {
  constexpr int kLanes = Pack<T>::kLanes;
  for (int e = 0; e < elements; e += kLanes) {
    const int count = elements - e < kLanes ? elements - e : kLanes;
    Pack<T> rows[kLanes];
    if (count == kLanes && lanes == kLanes) {
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) rows[l] = Pack<T>::load(source + l * stride + e);
    } else {
      for (int l = 0; l < kLanes; ++l)
        rows[l] = l < lanes ? Pack<T>::load_partial(source + l * stride + e, count) : Pack<T>(T(0));
    }
    transpose(rows);
    for (int i = 0; i < count; ++i) out[e + i] = rows[i];
  }
}

// target[l * stride + e] = in[e] lane l for e < elements, l < lanes.
template <class T>
void scatter_lanes(const Pack<T>* in, int elements, int lanes, T* target, int64_t stride) {
  constexpr int kLanes = Pack<T>::kLanes;
  for (int e = 0; e < elements; e += kLanes) {
    const int count = elements - e < kLanes ? elements - e : kLanes;
    Pack<T> rows[kLanes];
    if (count == kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) rows[i] = in[e + i];
    } else {
      for (int i = 0; i < kLanes; ++i) rows[i] = i < count ? in[e + i] : Pack<T>(T(0));
    }
    transpose(rows);
    if (count == kLanes && lanes == kLanes) {
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) rows[l].store(target + l * stride + e);
    } else {
      for (int l = 0; l < kLanes && l < lanes; ++l)
        store_some(rows[l], target + l * stride + e, count);
    }
  }
}

// A tile of a matrix, rows x cols entries with at most kLanes each way, turned around: line c holds
// column c of what was loaded.
template <class T>
struct TurnedTile {
  static constexpr int kLanes = Pack<T>::kLanes;
  Pack<T> lines[kLanes];

  void load(const T* source, int64_t stride, int rows, int cols) {
    gather_lanes(source, stride, rows, cols, lines);
  }
  void store(T* target, int64_t stride, int rows, int cols) const {
    for (int r = 0; r < rows; ++r) store_some(lines[r], target + r * stride, cols);
  }
};

// At most kLanes rows and columns of transpose_block.
template <class T>
inline void transpose_tile(const T* x, int64_t x_stride, int64_t rows, int64_t cols, T* target,
                           int64_t target_stride) {
  constexpr int kLanes = Pack<T>::kLanes;
  if (rows < kLanes || cols < kLanes) {
    const int height = static_cast<int>(rows < kLanes ? rows : kLanes);
    const int width = static_cast<int>(cols < kLanes ? cols : kLanes);
    TurnedTile<T> tile;
    tile.load(x, x_stride, height, width);
    return tile.store(target, target_stride, width, height);
  }
  Pack<T> lines[kLanes];
#pragma GCC unroll 16
  for (int l = 0; l < kLanes; ++l) lines[l] = Pack<T>::load(x + l * x_stride);
  transpose(lines);
#pragma GCC unroll 16
  for (int l = 0; l < kLanes; ++l) lines[l].store(target + l * target_stride);
}

// target (cols x rows) = xT, x rows x cols; the rows of both lie their stride apart. Lines of the
// target are written whole, tile beside tile.
template <class T>
void transpose_block(const T* x, int64_t x_stride, int64_t rows, int64_t cols, T* target,
                     int64_t target_stride) {
  constexpr int64_t kLanes = Pack<T>::kLanes, kLine = 64 / sizeof(T);
  for (int64_t top = 0; top < rows; top += kLine)
    for (int64_t j = 0; j < cols; j += kLanes)
      for (int64_t i = top; i < rows && i < top + kLine; i += kLanes)
        transpose_tile(x + i * x_stride + j, x_stride, rows - i, cols - j,
                       target + j * target_stride + i, target_stride);
}

}  // namespace kdops::KDOPS_ISA
