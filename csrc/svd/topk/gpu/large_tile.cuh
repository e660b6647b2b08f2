// Products of a whole block, tile by tile: sums over l of left(i, l) right(j, l), from wherever the
// entries come. Both operands go through shared memory, a stage at a time.
#pragma once

#include "svd/topk/gpu/rows.cuh"

namespace kdops::svd::gpu {

// Entries get(i, l), i < count, zero outside. along_depth: neighbours in memory are neighbours in l.
template <class Get>
struct Operand {
  int64_t count;
  bool along_depth;
  Get get;
};
template <class Get>
Operand(int64_t, bool, Get) -> Operand<Get>;

// A tile of kRows x kColumns sums, 16 in each thread.
template <int kRows_, int kColumns_>
struct TileShape {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kAcross = kColumns / 4, kDepth = 16;
  static constexpr int kPitch = kRows + kColumns + 1;  // odd: a stage is written along either index
  static constexpr int kNumbers = kDepth * kPitch;
  static_assert(kRows / 4 * kAcross == kTopkThreads);
};
using SquareTile = TileShape<64, 64>;
using FlatTile = TileShape<16, 256>;  // where the left operand has few rows

// After so many stages a sum goes to a total of its own, which keeps long sums exact.
inline constexpr int kStagesTogether = 16;

// kEach numbers of a rectangle of lines of neighbouring numbers, `pitch` apart: a thread's place along
// the lines, and its lines, `step` apart. What lies past the `lines` there are is read from the last
// one: a load under a condition would be waited for before the next.
template <int kEach, class T>
KDOPS_DEVICE void load_lines(const T* from, int64_t pitch, int line, int step, int lines,
                             T (&value)[kEach]) {
  if (line + (kEach - 1) * step < lines) {
    const T* next = from + line * pitch;
    pitch *= step;
#pragma unroll
    for (int q = 0; q < kEach; ++q, next += pitch) value[q] = *next;
  } else {
#pragma unroll
    for (int q = 0; q < kEach; ++q) value[q] = from[min(line + q * step, lines - 1) * pitch];
  }
}

// Entries (first .. first + kTile, l0 .. l0 + kDepth) to stage[l * pitch + i]. What lies outside is
// read inside and dropped: a load under a condition would be waited for before the next.
template <int kTile, int kDepth, class T, class Get>
KDOPS_DEVICE void stage_operand(const Operand<Get>& from, int64_t first, int64_t l0, int64_t depth,
                                T* stage, int pitch) {
  constexpr int kEach = kTile * kDepth / kTopkThreads, kMost = 16 / sizeof(T);
  constexpr int kAtOnce = kEach < kMost ? kEach : kMost;
#pragma unroll 1
  for (int begin = 0; begin < kEach; begin += kAtOnce) {
    T value[kAtOnce];
    int to[kAtOnce];
#pragma unroll
    for (int q = 0; q < kAtOnce; ++q) {
      const int at = static_cast<int>(threadIdx.x) + (begin + q) * kTopkThreads;
      const int i = from.along_depth ? at / kDepth : at % kTile;
      const int l = from.along_depth ? at % kDepth : at / kTile;
      const bool inside = first + i < from.count && l0 + l < depth;
      const T entry = from.get(min(first + i, int64_t(from.count) - 1), min(l0 + l, depth - 1));
      value[q] = inside ? entry : T(0), to[q] = l * pitch + i;
    }
    sync_warp();  // lest the compiler moves each load to its store
#pragma unroll
    for (int q = 0; q < kAtOnce; ++q) stage[to[q]] = value[q];
  }
}

// total: rows first row 4 (thread / kAcross) of the tile, columns thread % kAcross + q kAcross.
template <class Shape, class T, class Left, class Right>
KDOPS_DEVICE void tile_product(const Operand<Left>& left, int64_t i0, const Operand<Right>& right,
                               int64_t j0, int64_t depth, T* stage, T (&total)[4][4]) {
  const int thread = static_cast<int>(threadIdx.x), across = thread % Shape::kAcross;
  const int down = thread / Shape::kAcross * 4;
  T sum[4][4];
#pragma unroll
  for (int q = 0; q < 16; ++q) sum[q / 4][q % 4] = total[q / 4][q % 4] = T(0);
  int stages = 0;
#pragma unroll 1
  for (int64_t l0 = 0; l0 < depth; l0 += Shape::kDepth) {
    __syncthreads();
    stage_operand<Shape::kRows, Shape::kDepth>(left, i0, l0, depth, stage, Shape::kPitch);
    stage_operand<Shape::kColumns, Shape::kDepth>(right, j0, l0, depth, stage + Shape::kRows,
                                                  Shape::kPitch);
    __syncthreads();
#pragma unroll 2
    for (int l = 0; l < Shape::kDepth; ++l) {
      const T* row = stage + l * Shape::kPitch;
      T a[4], b[4];
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        a[q] = row[down + q];
        b[q] = row[Shape::kRows + across + q * Shape::kAcross];
      }
#pragma unroll
      for (int q = 0; q < 16; ++q) sum[q / 4][q % 4] = fma(a[q / 4], b[q % 4], sum[q / 4][q % 4]);
    }
    if (++stages % kStagesTogether != 0) continue;
#pragma unroll
    for (int q = 0; q < 16; ++q) total[q / 4][q % 4] += sum[q / 4][q % 4], sum[q / 4][q % 4] = T(0);
  }
#pragma unroll
  for (int q = 0; q < 16; ++q) total[q / 4][q % 4] += sum[q / 4][q % 4];
}

// put(i, j, sum) for the entries of one tile that are inside.
template <class Shape, class T, class Left, class Right, class Put>
KDOPS_DEVICE void put_tile(const Operand<Left>& left, int64_t i0, const Operand<Right>& right,
                           int64_t j0, int64_t depth, T* stage, const Put& put) {
  const int thread = static_cast<int>(threadIdx.x);
  T total[4][4];
  tile_product<Shape>(left, i0, right, j0, depth, stage, total);
#pragma unroll
  for (int q = 0; q < 16; ++q) {
    const int64_t i = i0 + thread / Shape::kAcross * 4 + q / 4;
    const int64_t j = j0 + thread % Shape::kAcross + q % 4 * Shape::kAcross;
    if (i < left.count && j < right.count) put(i, j, total[q / 4][q % 4]);
  }
}

// The same for all tiles. Ends with a barrier.
template <class Shape, class T, class Left, class Right, class Put>
KDOPS_DEVICE void block_product(const Operand<Left>& left, const Operand<Right>& right,
                                int64_t depth, T* stage, const Put& put) {
#pragma unroll 1
  for (int64_t i0 = 0; i0 < left.count; i0 += Shape::kRows)
#pragma unroll 1
    for (int64_t j0 = 0; j0 < right.count; j0 += Shape::kColumns)
      put_tile<Shape>(left, i0, right, j0, depth, stage, put);
  __syncthreads();
}

// `count` vectors of `size` numbers one after another, as an operand whose depth is along them.
template <class T>
KDOPS_DEVICE auto vectors_operand(const T* rows, int64_t size, int count) {
  return Operand{count, true, [=](int64_t i, int64_t l) { return rows[i * size + l]; }};
}

// The columns of B, for sums along the long side, and its rows, for sums along the small one.
template <class T>
KDOPS_DEVICE auto columns_of(const Oriented<T>& B) {
  return Operand{B.p, !B.long_rows, [=](int64_t j, int64_t l) { return B.at(l, j); }};
}
template <class T>
KDOPS_DEVICE auto rows_of(const Oriented<T>& B) {
  return Operand{B.length, B.long_rows, [=](int64_t i, int64_t l) { return B.at(i, l); }};
}

}  // namespace kdops::svd::gpu
