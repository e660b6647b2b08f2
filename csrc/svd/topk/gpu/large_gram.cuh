// The Gram matrices of large small sides, by a block per tile of their upper half.
#pragma once

#include "svd/topk/gpu/large_reduce.cuh"

namespace kdops::svd::gpu {

// A tile of 64 x 64 sums, kEach x kEach in a thread: as many as registers hold twice.
template <class T>
struct GramShape {
  static constexpr int kEach = sizeof(T) == 4 ? 8 : 4, kAcross = SquareTile::kRows / kEach;
  static constexpr int kThreads = kAcross * kAcross, kDepth = 16;
  // 16-byte accesses; written along either index
  static constexpr int kPitch = SquareTile::kRows + 4, kNumbers = kDepth * kPitch;
  // where a thread's four (double: two) neighbours begin, of which it has several
  static constexpr int kWide = 16 / sizeof(T);
  static KDOPS_DEVICE int place(int thread, int q) {
    return (q / kWide * kAcross + thread) * kWide + q % kWide;
  }
};

// Columns first .. first + 63 of B, rows l0 .. l0 + 15, to stage[l * pitch + i]; zeros for rows past
// the end, any numbers of B for columns, whose sums are dropped.
template <class T>
KDOPS_DEVICE void stage_tile(const Oriented<T>& B, int first, int64_t l0, T* stage) {
  using Shape = GramShape<T>;
  constexpr int kDepth = Shape::kDepth, kSide = SquareTile::kRows;
  constexpr int kEach = kDepth * kSide / Shape::kThreads, kAtOnce = kEach < 8 ? kEach : 8;
  const int rows = static_cast<int>(min(int64_t(kDepth), B.length - l0));
  const int columns = min(kSide, B.p - first), thread = static_cast<int>(threadIdx.x);
  const int width = B.long_rows ? kSide : kDepth, step = Shape::kThreads / width;
  const int along = thread % width, line = thread / width;
  const int64_t pitch = B.long_rows ? B.p : B.length;
  const T* from = B.A + (B.long_rows ? l0 * pitch + first : first * pitch + l0) +
                  min(along, (B.long_rows ? columns : rows) - 1);
  T* to = stage + (B.long_rows ? line * Shape::kPitch + along : along * Shape::kPitch + line);
  const int to_step = step * (B.long_rows ? Shape::kPitch : 1);
#pragma unroll 1
  for (int begin = 0; begin < kEach; begin += kAtOnce) {
    const int here = line + begin * step;
    T value[kAtOnce];
    load_lines(from, pitch, here, step, B.long_rows ? rows : columns, value);
    sync_warp();  // lest the compiler moves each load to its store
#pragma unroll
    for (int q = 0; q < kAtOnce; ++q) {
      const int l = B.long_rows ? here + q * step : along;
      to[(begin + q) * to_step] = l < rows ? B.up * value[q] : T(0);
    }
  }
}

// The sums of a stage: this thread's part of them. other: from the left operand to the right one.
template <class T>
KDOPS_DEVICE void multiply_stage(const T* stage, int other,
                                 T (&sum)[GramShape<T>::kEach][GramShape<T>::kEach]) {
  using Shape = GramShape<T>;
  constexpr int kEach = Shape::kEach, kWide = Shape::kWide;
  const int thread = static_cast<int>(threadIdx.x);
  const int down = thread / Shape::kAcross, across = thread % Shape::kAcross;
#pragma unroll 4
  for (int l = 0; l < Shape::kDepth; ++l) {
    const T *left = stage + l * Shape::kPitch, *right = left + other;
    T a[kEach], b[kEach];
#pragma unroll
    for (int q = 0; q < kEach; q += kWide) {
      const auto x = *reinterpret_cast<const Vec<T, kWide>*>(left + Shape::place(down, q));
      const auto y = *reinterpret_cast<const Vec<T, kWide>*>(right + Shape::place(across, q));
#pragma unroll
      for (int w = 0; w < kWide; ++w) a[q + w] = x.at[w], b[q + w] = y.at[w];
    }
#pragma unroll
    for (int q = 0; q < kEach * kEach; ++q)
      sum[q / kEach][q % kEach] = fma(a[q / kEach], b[q % kEach], sum[q / kEach][q % kEach]);
  }
}

// A thread's numbers of a line of G, kWide neighbours at once where `aligned`.
template <class T, class Place>
KDOPS_DEVICE void put_line(T* line, int p, bool aligned, const Place& place,
                           const T (&value)[GramShape<T>::kEach]) {
  constexpr int kWide = GramShape<T>::kWide;
#pragma unroll
  for (int q = 0; q < GramShape<T>::kEach; q += kWide) {
    if (aligned && place(q) < p) {
      Vec<T, kWide> part;
#pragma unroll
      for (int w = 0; w < kWide; ++w) part.at[w] = value[q + w];
      *reinterpret_cast<Vec<T, kWide>*>(line + place(q)) = part;
    }
#pragma unroll
    for (int w = 0; w < kWide; ++w)
      if (!aligned && place(q + w) < p) line[place(q + w)] = value[q + w];
  }
}

// Grid: large_gram_tiles(p) blocks of GramShape::kThreads per matrix. The Gram matrices of B, of
// which the largest entry is about one, to their place in `saved`.
template <class T>
__global__ void __launch_bounds__(GramShape<T>::kThreads)
    large_gram_kernel(TopkArguments<T> args, const T* parts) {
  using Shape = GramShape<T>;
  constexpr int kEach = Shape::kEach, kSide = SquareTile::kRows;
  KDOPS_SHARED(T, stage, [2 * Shape::kNumbers]);
  const int p = args.p(), tiles = large_gram_tiles(p), thread = static_cast<int>(threadIdx.x);
  const int64_t index = blockIdx.x / tiles;
  const T largest = largest_of_parts(parts + index * kScanParts);
  if (largest < T(0)) return;
  const LargeSaved saved{p, args.k};
  const Oriented<T> B{args.A + index * args.m * args.n, args.length(), p, args.long_rows(),
                      power_of_two_scale(largest).up};
  const TilePlace place = place_of_tile(static_cast<int>(blockIdx.x % tiles), p);
  T sum[kEach][kEach], total[kEach][kEach];
#pragma unroll
  for (int q = 0; q < kEach * kEach; ++q)
    sum[q / kEach][q % kEach] = total[q / kEach][q % kEach] = T(0);
  const int other = place.row == place.column ? 0 : Shape::kNumbers;
  int stages = 0;
#pragma unroll 1
  for (int64_t l0 = 0; l0 < B.length; l0 += Shape::kDepth) {
    __syncthreads();
    stage_tile(B, place.row * kSide, l0, &stage[0]);
    if (other > 0) stage_tile(B, place.column * kSide, l0, &stage[other]);
    __syncthreads();
    multiply_stage(&stage[0], other, sum);
    if (++stages % kStagesTogether != 0 && l0 + Shape::kDepth < B.length) continue;
#pragma unroll
    for (int q = 0; q < kEach * kEach; ++q) {
      total[q / kEach][q % kEach] += sum[q / kEach][q % kEach];
      sum[q / kEach][q % kEach] = T(0);
    }
  }
  T* G = args.saved + index * saved.size() + saved.matrix_at();
  const int first_row = place.row * kSide, first_column = place.column * kSide;
  const auto row = [&](int q) { return first_row + Shape::place(thread / Shape::kAcross, q); };
  const auto column = [&](int q) {
    return first_column + Shape::place(thread % Shape::kAcross, q);
  };
  const bool aligned = p % Shape::kWide == 0;  // and so is `saved`
#pragma unroll
  for (int a = 0; a < kEach; ++a) {  // a row, then a column, so that an address serves several
    T across[kEach], down[kEach];
#pragma unroll
    for (int b = 0; b < kEach; ++b) across[b] = total[a][b], down[b] = total[b][a];
    if (row(a) < p) put_line<T>(G + row(a) * int64_t(p), p, aligned, column, across);
    if (column(a) < p) put_line<T>(G + column(a) * int64_t(p), p, aligned, row, down);
  }
}

}  // namespace kdops::svd::gpu
