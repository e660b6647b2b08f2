// Rows of the oriented matrix B, scaled, in shared memory: every phase of the top-k kernels reads
// the matrix through stage(). Neighbouring threads read neighbouring numbers in either order of
// memory, several each before the first is stored, so that enough loads are under way. Included by
// context.cuh.
#pragma once

#include "svd/full/gpu/block_context.cuh"
#include "svd/limits.h"

namespace kdops::svd::gpu {

inline constexpr int kTopkThreads = 256, kGramTile = 8;

struct TopkPlan {
  int rows;    // rows of B that are staged at a time
  int stride;  // between staged rows: a multiple of 8 plus 4, so that 16-byte accesses spread
  int splits;  // threads (a power of two) that share a tile of the Gram matrix
  int pool;    // numbers of the region that phases use one after the other
  bool gram_shared, factors_shared;
};

// The places thread, thread + kTopkThreads, .. of a table, found without a division each.
struct TableWalk {
  int width, row, column;

  KDOPS_DEVICE explicit TableWalk(int width_)
      : width(width_),
        row(static_cast<int>(threadIdx.x) / width_),
        column(static_cast<int>(threadIdx.x) % width_) {}
  KDOPS_DEVICE void next() {
    row += kTopkThreads / width, column += kTopkThreads % width;
    if (column >= width) column -= width, ++row;
  }
};

// The largest |entry| of a matrix, or -1 if NaN or Inf is among them, by the whole block: the first
// look at a matrix, so that many loads have to be under way.
template <class T>
KDOPS_DEVICE T topk_scan(const T* A, int64_t count, T* scratch) {
  constexpr int kAtOnce = 16, kRound = kAtOnce * kTopkThreads;
  T largest = T(0);
  bool finite = true;
#pragma unroll 1
  for (int64_t begin = 0; begin < count; begin += kRound) {
    const int last = static_cast<int>(min(count - begin, int64_t(kRound))) - 1;
    T value[kAtOnce];
#pragma unroll
    for (int q = 0; q < kAtOnce; ++q)  // past the end: the last one again
      value[q] = A[begin + min(static_cast<int>(threadIdx.x) + q * kTopkThreads, last)];
#pragma unroll
    for (int q = 0; q < kAtOnce; ++q) {
      finite = finite && abs(value[q]) <= kLargestFinite<T>;
      largest = max(largest, abs(value[q]));
    }
  }
  largest = reduce_block(largest, Max(), scratch);
  return block_all(finite) ? largest : T(-1);
}

// N neighbouring numbers, a multiple of four, at a 16-byte aligned address.
template <class T, int N>
KDOPS_DEVICE void load_numbers(const T* from, T (&to)[N]) {
  constexpr int kWidth = 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < N; i += kWidth) {
    const auto part = *reinterpret_cast<const Vec<T, kWidth>*>(from + i);
#pragma unroll
    for (int q = 0; q < kWidth; ++q) to[i + q] = part.at[q];
  }
}
template <class T, int N>
KDOPS_DEVICE void store_numbers(T* to, const T (&from)[N]) {
  constexpr int kWidth = 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < N; i += kWidth) {
    Vec<T, kWidth> part;
#pragma unroll
    for (int q = 0; q < kWidth; ++q) part.at[q] = from[i + q];
    *reinterpret_cast<Vec<T, kWidth>*>(to + i) = part;
  }
}

// One matrix of a batch as the tall B.
template <class T>
struct Oriented {
  const T* A;
  int64_t length;
  int p;
  bool long_rows;  // see BatchShape
  T up;

  KDOPS_DEVICE T at(int64_t row, int64_t column) const {
    return up * A[long_rows ? row * p + column : column * length + row];
  }

  // Rows row0 .. of B to chunk[i * stride + j]; where B has no more rows, what they hold is of no
  // use, nor is what columns from p on hold. Ends with a barrier.
  KDOPS_DEVICE void stage(T* chunk, const TopkPlan& plan, int64_t row0) const {
    const int count = static_cast<int>(min(int64_t(plan.rows), length - row0));
    const T* rows = A + row0 * p;
    if (!long_rows)
      stage_columns(chunk, plan, A + row0, count);
    else if (p % kWide == 0 && reinterpret_cast<uintptr_t>(rows) % 16 == 0)
      stage_rows<kWide>(chunk, plan, rows, count);
    else
      stage_rows<1>(chunk, plan, rows, count);
    __syncthreads();
  }

 private:
  static constexpr int kWide = 16 / sizeof(T);

  // `count` rows of p numbers, one after another, kEach numbers at a time.
  template <int kEach>
  KDOPS_DEVICE void stage_rows(T* chunk, const TopkPlan& plan, const T* from, int count) const {
    constexpr int kAtOnce = kEach == 1 ? 8 : 4;
    const int thread = static_cast<int>(threadIdx.x), pieces = count * p / kEach;
    const auto* piece = reinterpret_cast<const Vec<T, kEach>*>(from);
    TableWalk walk(p / kEach);
#pragma unroll 1
    for (int begin = 0; begin < pieces; begin += kAtOnce * kTopkThreads) {
      const int at = begin + thread;
      Vec<T, kEach> value[kAtOnce];
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q)  // a load under a condition would be waited for
        value[q] = piece[min(at + q * kTopkThreads, pieces - 1)];
      sync_warp();  // lest the compiler moves each load to its store
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q) {
#pragma unroll
        for (int c = 0; c < kEach; ++c) value[q].at[c] *= up;
        T* to = chunk + walk.row * plan.stride + walk.column * kEach;
        if (at + q * kTopkThreads < pieces) *reinterpret_cast<Vec<T, kEach>*>(to) = value[q];
        walk.next();
      }
    }
    for (int i = thread; i < count; i += kTopkThreads)
      for (int j = p; j < plan.stride - 4; ++j) chunk[i * plan.stride + j] = T(0);
  }

  // p columns, of each of them `count` numbers: a thread has a row. It stores the entries of kWide
  // columns as one, since single numbers of a column would meet in the banks.
  KDOPS_DEVICE void stage_columns(T* chunk, const TopkPlan& plan, const T* from, int count) const {
    constexpr int kAtOnce = 8 / kWide, kBatch = kAtOnce * kWide;
    const int thread = static_cast<int>(threadIdx.x), columns = plan.stride - 4;
    const int parts = kTopkThreads / plan.rows, part = thread / plan.rows, i = thread % plan.rows;
    const T* row = from + min(i, count - 1);
#pragma unroll 1
    for (int begin = 0; begin < columns; begin += parts * kBatch) {
      const bool active = part < parts && begin + part * kBatch < columns;
      const int j = active ? begin + part * kBatch : 0;
      Vec<T, kWide> value[kAtOnce];
      const T* column = row + j * length;
      const int last = p - 1 - j;  // the last column again from there on
      if (last >= kBatch - 1) {
#pragma unroll
        for (int c = 0; c < kBatch; ++c, column += length) value[c / kWide].at[c % kWide] = *column;
      } else {
#pragma unroll
        for (int c = 0; c < kBatch; ++c)
          value[c / kWide].at[c % kWide] = column[min(c, last) * length];
      }
      sync_warp();
      if (!active) continue;
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q) {
#pragma unroll
        for (int c = 0; c < kWide; ++c) value[q].at[c] *= up;
        *reinterpret_cast<Vec<T, kWide>*>(chunk + i * plan.stride + j + q * kWide) = value[q];
      }
    }
  }
};

}  // namespace kdops::svd::gpu
