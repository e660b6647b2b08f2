// The larger full SVD: one block per matrix (block_kernels.cuh). This file: its plan, its shared
// memory and small block-wide helpers.
//
// B (length x p, p <= 128) = Q R by Householder reflectors, then one-sided Jacobi on L = R^T:
//   L J = W diag(S)   =>   B = (Q J) diag(S) W^T
// so the short factor is W and the long one Q J. Column j of L, W, J lies contiguously, `ld` (odd:
// no bank conflicts along rows) numbers after column j - 1, in shared memory where it fits.
#pragma once

#include "svd/full/gpu/device.cuh"

namespace kdops::svd::gpu {
using namespace kdops::gpu;

// Host and device read the same plan; full_launch.h fills it.
struct BlockPlan {
  int threads;
  int ld;       // of W and J
  int slices;   // a column of a tile is held by this many threads
  int tile;     // rows of a tile: slices * kSliceRows
  int scratch;  // numbers of scratch shared memory
  bool w_shared, j_shared;
};

template <class T>
inline constexpr int kSliceRows = sizeof(T) == 4 ? 32 : 16;  // rows of a tile in one thread
inline constexpr int kBlockThreads = 256;

// Kept in shared memory; a phase copies it, so that no phase holds registers for another.
template <class T>
struct BlockContext {
  int p, ld, slices, tile, threads;
  int64_t length;
  T *w, *j;         // W and J; j null: the long factor is not wanted
  T* scratch;       // used by one phase at a time
  T *value, *sign;  // per column: norm; canonical sign
  int* rank;        // per column: place in the output
  T* long_out;      // U (tall) or Vh (wide) of this matrix; null: not wanted
  bool wide;
  JacobiLimits<T> limits;
  Scale<T> scale;

  // Reflector c of the tile that starts at row0 lies where the tile's rows of the result will be.
  KDOPS_DEVICE T* reflector(int c, int64_t row0, int rows) const {
    return wide ? long_out + c * length + row0 : long_out + row0 * p + int64_t(c) * rows;
  }
};

// Same result in every thread; `scratch` holds a number per warp. Two barriers.
template <class T, class Op>
KDOPS_DEVICE T reduce_block(T value, Op op, T* scratch) {
  value = warp_reduce(value, op);
  if (lane_id() == 0) scratch[warp_id()] = value;
  __syncthreads();
  value = scratch[0];
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  for (int w = 1; w < warps; ++w) value = op(value, scratch[w]);
  __syncthreads();
  return value;
}

// Sums K values over a warp; lane l receives the sum of value[l / (32 / K)]. K - 1 + log2(32 / K)
// shuffles instead of 5 K. Destroys the values.
template <int K, class T>
KDOPS_DEVICE T scatter_sum(T (&value)[K]) {
  const int lane = lane_id();
  int bits = kWarp / 2;
#pragma unroll
  for (int half = K / 2; half >= 1; half /= 2) {
    const bool upper = lane & bits;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const T keep = upper ? value[i + half] : value[i];
      const T send = upper ? value[i] : value[i + half];
      value[i] = keep + shuffle_xor(send, bits);
    }
    bits /= 2;
  }
#pragma unroll
  for (int rest = kWarp / K / 2; rest >= 1; rest /= 2) value[0] += shuffle_xor(value[0], rest);
  return value[0];
}

}  // namespace kdops::svd::gpu
