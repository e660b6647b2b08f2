// Launch geometry of the full SVD and eigh, shared by full_cuda.cu and the simulator's tests. Host
// only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "svd/full/gpu/eigh_kernels.cuh"
#include "svd/full/gpu/gram_kernels.cuh"

namespace kdops::svd::gpu {

// Static shared memory of the kernels and the runtime's own kilobyte come off the device's limit.
inline constexpr int64_t kSharedReserve = 2048;

// Of the host's MatrixBatch (matrix_batch.h).
template <class Batch>
BatchShape shape_of_batch(const Batch& batch) {
  return {batch.count, batch.m, batch.n, batch.column_major};
}

// The lanes per matrix of svd_small_kernel and eigh_small_kernel, or 0: a block per matrix. Double
// precision has one size: 32 columns would need every register a thread can have, 8 are not worth
// compiling.
template <class T>
int small_class(int64_t m, int64_t n) {
  const int64_t side = std::max(m, n);
  if (sizeof(T) == 8) return side <= 16 ? 16 : 0;
  return side <= 8 ? 8 : side <= 16 ? 16 : side <= 32 ? 32 : 0;
}

// The instance of svd_block_kernel for a small side of p: kSide. Double precision has none for 16.
template <class T>
int block_side(int64_t p) {
  if (p <= 16 && sizeof(T) == 4) return 16;
  return p <= 32 ? 32 : p <= 64 ? 64 : 128;
}

template <class T>
size_t gram_bytes(int side) {
  return sizeof(T) * (side == 16 ? kGramNumbers<T, 16> : kGramNumbers<T, 32>);
}

// The instance of svd_gram_kernel that goes first, or 0 for none.
template <class T>
int gram_side(int64_t m, int64_t n, size_t shared_limit) {
  const int64_t p = std::min(m, n);
  const int side = p <= 16 ? 16 : 32;
  if (p > 32 || small_class<T>(m, n) > 0 || !worth_a_gram(std::max(m, n), p)) return 0;
  return gram_bytes<T>(side) <= shared_limit ? side : 0;
}

template <class T>
struct BlockLaunch {
  BlockPlan plan;
  size_t shared_bytes;
  int64_t workspace;  // numbers per matrix
};

// shared_limit: bytes a block may use on this device; with_long: J is needed.
template <class T>
BlockLaunch<T> plan_block(int64_t m, int64_t n, bool with_long, size_t shared_limit) {
  const int p = static_cast<int>(std::min(m, n));
  BlockPlan plan{};
  plan.threads = kBlockThreads;
  plan.ld = p | 1;
  const int warps = plan.threads / kWarp;
  plan.scratch = std::max(kStagedNumbers + kStagedReflectors,
                          (2 + warps) * p);  // of the QR; of missing columns
  const int columns = padded_columns(p);
  const size_t matrix = static_cast<size_t>(columns) * plan.ld * sizeof(T);
  size_t bytes = (static_cast<size_t>(plan.scratch) + 3 * columns) * sizeof(T);
  const bool always = p <= kAlwaysShared<T>;
  plan.w_shared = always || bytes + matrix <= shared_limit;
  if (plan.w_shared) bytes += matrix;
  plan.j_shared = always || !with_long || bytes + matrix <= shared_limit;
  if (plan.j_shared && with_long) bytes += matrix;
  return {plan, bytes, int64_t(!plan.w_shared + !plan.j_shared) * columns * plan.ld};
}

}  // namespace kdops::svd::gpu
