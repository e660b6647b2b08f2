// Rows of the oriented matrix B, scaled, in shared memory: every phase of the top-k kernels reads
// the matrix through stage(). Neighbouring threads read neighbouring numbers in either order of
// memory, several each before the first is stored, so that enough loads are under way. Included by
// context.cuh.
#pragma once

#include "svd/full/gpu/block_context.cuh"
#include "svd/limits.h"

namespace kdops::svd::gpu {
using namespace kdops::gpu;

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

template <class T>
KDOPS_DEVICE T topk_scan(const T* A, int64_t count, T* scratch) {
  return scan_entries(A, count, scratch, [](int64_t) { return false; });
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

  // Rows row0 .. of B to chunk[i * stride + j]; zeros beyond the matrix. Ends with a barrier.
  KDOPS_DEVICE void stage(T* chunk, const TopkPlan& plan, int64_t row0) const {
    const int count = static_cast<int>(min(int64_t(plan.rows), length - row0));
    if (long_rows)
      stage_rows(chunk, plan, A + row0 * p, count);
    else
      stage_columns(chunk, plan, A + row0, count);
    __syncthreads();
  }

 private:
  // `count` rows of p numbers, one after another.
  KDOPS_DEVICE void stage_rows(T* chunk, const TopkPlan& plan, const T* from, int count) const {
    constexpr int kAtOnce = 8;
    const int thread = static_cast<int>(threadIdx.x), numbers = count * p;
    TableWalk walk(p);
#pragma unroll 1
    for (int begin = 0; begin < numbers; begin += kAtOnce * kTopkThreads) {
      const int at = begin + thread;
      T value[kAtOnce];
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q)
        value[q] = at + q * kTopkThreads < numbers ? from[at + q * kTopkThreads] : T(0);
      sync_warp();  // lest the compiler moves each load to its store
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q) {
        if (at + q * kTopkThreads < numbers)
          chunk[walk.row * plan.stride + walk.column] = value[q] * up;
        walk.next();
      }
    }
    for (int i = thread; i < plan.rows; i += kTopkThreads)
      for (int j = i < count ? p : 0; j < plan.stride - 4; ++j) chunk[i * plan.stride + j] = T(0);
  }

  // p columns, of each of them `count` numbers. A thread reads kWide columns and stores their
  // entries as one, since single numbers of a column would meet in the banks.
  KDOPS_DEVICE void stage_columns(T* chunk, const TopkPlan& plan, const T* from, int count) const {
    constexpr int kWide = 16 / sizeof(T), kAtOnce = 8 / kWide;
    const int groups = (plan.stride - 4) / kWide;
    TableWalk walk(plan.rows);
#pragma unroll 1
    for (int begin = 0; begin < groups * plan.rows; begin += kAtOnce * kTopkThreads) {
      Vec<T, kWide> value[kAtOnce];
      int to[kAtOnce];
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q) {
        const int i = walk.column, j = walk.row * kWide;
        to[q] = walk.row < groups ? i * plan.stride + j : -1;
#pragma unroll
        for (int c = 0; c < kWide; ++c) {
          const bool inside = (i < count) & (j + c < p);
          value[q].at[c] = inside ? from[(j + c) * length + i] : T(0);
        }
        walk.next();
      }
      sync_warp();
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q) {
        if (to[q] < 0) continue;
#pragma unroll
        for (int c = 0; c < kWide; ++c) value[q].at[c] *= up;
        *reinterpret_cast<Vec<T, kWide>*>(chunk + to[q]) = value[q];
      }
    }
  }
};

}  // namespace kdops::svd::gpu
