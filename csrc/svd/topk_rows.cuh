// Rows of the oriented matrix B, scaled, in shared memory: every phase of the top-k kernels reads
// the matrix through stage(). Neighbouring threads read neighbouring numbers in either order of
// memory, several each before the first is stored, so that enough loads are under way. Included by
// topk_context.cuh.
#pragma once

#include "svd/svd_block_context.cuh"

namespace kdops::gpu {

inline constexpr int kTopkThreads = 256, kMaxK = 16, kGramTile = 8;

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

// One matrix of a batch as the tall B.
template <class T>
struct Oriented {
  const T* A;
  int64_t length;
  int p;
  bool long_rows;  // see TopkArguments
  T up;

  // Rows row0 .. of B to chunk[i * stride + j]; zeros beyond the matrix. Ends with a barrier.
  KDOPS_DEVICE void stage(T* chunk, const TopkPlan& plan, int64_t row0) const {
    if (long_rows)
      stage_table<1>(chunk, plan, row0, plan.stride - 4, plan.rows);
    else
      stage_table<16 / sizeof(T)>(chunk, plan, row0, plan.rows, plan.stride - 4);
    __syncthreads();
  }

 private:
  // kWide 1: a row of the table is a row of B. Otherwise it is kWide columns of B, of which a
  // thread reads an entry each and stores them as one: single numbers would meet in the banks.
  template <int kWide>
  KDOPS_DEVICE void stage_table(T* chunk, const TopkPlan& plan, int64_t row0, int width,
                                int height) const {
    constexpr int kAtOnce = 8 / kWide;
    TableWalk walk(width);
#pragma unroll 1
    while (walk.row * kWide < height) {
      Vec<T, kWide> value[kAtOnce];
      int to[kAtOnce];
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q) {
        const int i = kWide == 1 ? walk.row : walk.column;
        const int j = kWide == 1 ? walk.column : walk.row * kWide;
        to[q] = walk.row * kWide < height ? i * plan.stride + j : -1;
        const int64_t row = row0 + i;
#pragma unroll
        for (int c = 0; c < kWide; ++c) {
          const bool inside = to[q] >= 0 && row < length && j + c < p;
          const int64_t at = kWide == 1 ? row * p + j : (j + c) * length + row;
          value[q].at[c] = inside ? A[at] : T(0);
        }
        walk.next();
      }
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

}  // namespace kdops::gpu
