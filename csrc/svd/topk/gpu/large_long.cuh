// A few rows of the small side times a large map, sums along the small side.
#pragma once

#include "svd/topk/gpu/large_context.cuh"

namespace kdops::svd::gpu {

// kRows rows of B and kDepth columns are staged at a time: a lane has kEach rows, a warp kOf columns.
struct LongTile {
  static constexpr int kRows = 128, kDepth = 32, kPitch = kRows + 1;  // odd: written along either
  static constexpr int kEach = kRows / kWarp, kOf = kDepth / kTopkWarps;
  static constexpr int kWeights = kDepth * kTogether, kNumbers = kWeights + kDepth * kPitch;
  static_assert(kNumbers <= FlatTile::kNumbers);  // so that the pool is large enough
};

// Rows i0 .. and columns l0 .. of B to stage[l * pitch + i], any numbers of B outside.
template <class T>
KDOPS_DEVICE void stage_long(const Oriented<T>& B, int64_t i0, int l0, T* stage) {
  constexpr int kEach = LongTile::kRows * LongTile::kDepth / kTopkThreads;
  constexpr int kPitch = LongTile::kPitch;
  const int rows = static_cast<int>(min(int64_t(LongTile::kRows), B.length - i0));
  const int columns = min(LongTile::kDepth, B.p - l0), thread = static_cast<int>(threadIdx.x);
  const int width = B.long_rows ? LongTile::kDepth : LongTile::kRows;
  const int along = thread % width, line = thread / width, step = kTopkThreads / width;
  const int64_t pitch = B.long_rows ? B.p : B.length;
  const T* from = B.A + (B.long_rows ? i0 * pitch + l0 : l0 * pitch + i0);
  T value[kEach];
  load_lines(from + min(along, (B.long_rows ? columns : rows) - 1), pitch, line, step,
             B.long_rows ? rows : columns, value);
  T* to = stage + (B.long_rows ? along * kPitch + line : line * kPitch + along);
  const int to_step = step * (B.long_rows ? 1 : kPitch);
  sync_warp();  // lest the compiler moves each load to its store
#pragma unroll
  for (int q = 0; q < kEach; ++q) to[q * to_step] = B.up * value[q];
}

// put(c, i, sum over j of row(c, j) B[i][j]) for `count` rows and all i < B.length: the same bits
// however A lies. pool: LongTile::kNumbers. Ends with a barrier.
template <class T, class Row, class Put>
KDOPS_DEVICE void few_times_long(const Oriented<T>& B, int count, const Row& row, T* pool,
                                 const Put& put) {
  constexpr int kRows = LongTile::kRows, kEach = LongTile::kEach, kSums = kRows * kTogether;
  const int thread = static_cast<int>(threadIdx.x);
  T *weights = pool, *stage = pool + LongTile::kWeights;
#pragma unroll 1
  for (int c0 = 0; c0 < count; c0 += kTogether)
#pragma unroll 1
    for (int64_t i0 = 0; i0 < B.length; i0 += kRows) {
      T sum[kEach][kTogether] = {};
#pragma unroll 1
      for (int l0 = 0; l0 < B.p; l0 += LongTile::kDepth) {
        __syncthreads();
        if (thread < LongTile::kWeights) {
          const int c = c0 + thread % kTogether, j = l0 + thread / kTogether;
          const T entry = row(min(c, count - 1), min(j, B.p - 1));
          weights[thread] = c < count && j < B.p ? entry : T(0);
        }
        stage_long(B, i0, l0, stage);
        __syncthreads();
#pragma unroll
        for (int s = 0; s < LongTile::kOf; ++s) {
          const int l = warp_id() * LongTile::kOf + s;
          T weight[kTogether];
          load_numbers(weights + l * kTogether, weight);
#pragma unroll
          for (int r = 0; r < kEach; ++r) {
            const T entry = stage[l * LongTile::kPitch + lane_id() + r * kWarp];
#pragma unroll
            for (int c = 0; c < kTogether; ++c) sum[r][c] = fma(entry, weight[c], sum[r][c]);
          }
        }
      }
      __syncthreads();
#pragma unroll
      for (int r = 0; r < kEach; ++r)
        store_numbers(stage + warp_id() * kSums + (lane_id() + r * kWarp) * kTogether, sum[r]);
      __syncthreads();
#pragma unroll 1
      for (int at = thread; at < kSums; at += kTopkThreads) {
        const int c = c0 + at / kRows, i = at % kRows;
        T total = T(0);
#pragma unroll
        for (int w = 0; w < kTopkWarps; ++w) total += stage[w * kSums + i * kTogether + at / kRows];
        if (c < count && i0 + i < B.length) put(c, i0 + i, total);
      }
    }
  __syncthreads();
}

}  // namespace kdops::svd::gpu
