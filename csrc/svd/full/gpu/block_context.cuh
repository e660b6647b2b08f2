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

// Host and device read the same plan; full_launch.h fills it.
struct BlockPlan {
  int threads;
  int ld;       // of W and J
  int scratch;  // numbers of scratch shared memory
  bool w_shared, j_shared;
};

inline constexpr int kBlockThreads = 256;
inline constexpr int kStagedNumbers = 8 * kBlockThreads;       // of reflectors (qr.cuh)
inline constexpr int kStagedReflectors = kStagedNumbers / 32;  // at most: a tile has 32 rows
inline constexpr int kColumnBlock = 4;                         // columns that Jacobi moves together

// W and J of so many columns fit into every device's shared memory (64 KiB and more, since sm_75), so
// that kernels for them know one way to address them.
template <class T>
inline constexpr int kAlwaysShared = sizeof(T) == 4 ? 64 : 32;

// W and J have columns for whole pairs of such blocks, zero from p on.
KDOPS_DEVICE constexpr int padded_columns(int p) {
  return (p + 2 * kColumnBlock - 1) / (2 * kColumnBlock) * (2 * kColumnBlock);
}

// Kept in shared memory; a phase copies it, so that no phase holds registers for another. Without
// padding: the compiler copies that, too, and nobody has written it.
template <class T>
struct BlockContext {
  int p, ld, threads;
  int16_t wide, in_shared;  // yes or no; in_shared: W, and J if there is one
  int64_t length;
  T *w, *j;         // W and J; j null: the long factor is not wanted
  T* scratch;       // used by one phase at a time
  T *value, *sign;  // per column: norm; canonical sign
  int* rank;        // per column: place in the output
  T* long_out;      // U (tall) or Vh (wide) of this matrix; null: not wanted
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

// The largest |entry| of a matrix, or -1 if NaN or Inf is among them, by a whole block. Entries i for
// which skip(i) holds, never the first one, do not count.
template <class T, class Skip>
KDOPS_DEVICE T scan_entries(const T* A, int64_t count, T* scratch, const Skip& skip) {
  T largest = T(0);
  bool finite = true;
  constexpr int kLoads = 16;  // under way together; past the end the last entry, again
  for (int64_t begin = threadIdx.x; begin < count; begin += kLoads * kBlockThreads) {
    T value[kLoads];
#pragma unroll
    for (int q = 0; q < kLoads; ++q) {
      const int64_t i = min(begin + q * kBlockThreads, count - 1);
      value[q] = abs(A[skip(i) ? 0 : i]);  // a branch would make the loads wait for one another
    }
#pragma unroll
    for (int q = 0; q < kLoads; ++q) {
      finite = finite && value[q] <= kLargestFinite<T>;
      largest = max(largest, value[q]);
    }
  }
  largest = reduce_block(largest, Max(), scratch);
  return block_all(finite) ? largest : T(-1);
}

// `count` numbers of the results of matrix `index`, if they are wanted, become NaN.
template <class T>
KDOPS_DEVICE void fill_nan(T* out, int64_t index, int64_t count) {
#pragma unroll 1
  for (int64_t i = threadIdx.x; out != nullptr && i < count; i += kBlockThreads)
    out[index * count + i] = kNaN<T>;
}

// The place of value[c] in descending order, equal ones in the order of their indices.
template <class T>
KDOPS_DEVICE int rank_of(const T* value, int count, int c) {
  int rank = 0;
  for (int other = 0; other < count; ++other)
    if (value[other] > value[c] || (value[other] == value[c] && other < c)) ++rank;
  return rank;
}

// Lanes in whose number this step's bit is set keep the upper half of 2 kHalf values, the others the
// lower one, with their partners' added. A recursion: indices that only unrolling would make constant
// leave the values in local memory.
template <int kHalf, int K, class T>
KDOPS_DEVICE void scatter_half(T (&value)[K]) {
  if constexpr (kHalf >= 1) {
    constexpr int kBits = kWarp * kHalf / K;
    const bool upper = lane_id() & kBits;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const T keep = upper ? value[i + kHalf] : value[i];
      const T send = upper ? value[i] : value[i + kHalf];
      value[i] = keep + shuffle_xor(send, kBits);
    }
    scatter_half<kHalf / 2>(value);
  }
}

// Sums K values over a warp; lane l receives the sum of value[l / (32 / K)]. K - 1 + log2(32 / K)
// shuffles instead of 5 K. Destroys the values.
template <int K, class T>
KDOPS_DEVICE T scatter_sum(T (&value)[K]) {
  scatter_half<K / 2>(value);
#pragma unroll
  for (int rest = kWarp / K / 2; rest >= 1; rest /= 2) value[0] += shuffle_xor(value[0], rest);
  return value[0];
}

}  // namespace kdops::svd::gpu
