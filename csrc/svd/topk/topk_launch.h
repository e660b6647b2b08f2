// Launch geometry of the top-k SVD and its gradient, shared by topk_cuda.cu and the simulator's
// tests. Host only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "svd/full/full_launch.h"
#include "svd/topk/gpu/backward_kernels.cuh"
#include "svd/topk/gpu/dense_kernels.cuh"
#include "svd/topk/gpu/large_backward.cuh"
#include "svd/topk/gpu/large_gram.cuh"
#include "svd/topk/gpu/large_kernels.cuh"
#include "svd/topk/gpu/large_krylov.cuh"
#include "svd/topk/gpu/topk_kernels.cuh"

namespace kdops::svd::gpu {

template <class Plan>
struct TopkLaunch {
  Plan plan;
  size_t shared_bytes;
  int64_t workspace;  // numbers per matrix
};

// What forward and backward differ in: numbers of the factors per row and vector, whether the Gram
// matrix needs a place, numbers of further fixed memory, and numbers per staged row beside it.
struct TopkDemand {
  int factors;
  bool gram;
  int fixed, per_row;
};

template <class T>
TopkLaunch<TopkPlan> plan_topk(int64_t m, int64_t n, int k, TopkDemand demand,
                               size_t shared_limit) {
  const int p = static_cast<int>(std::min(m, n));
  const int64_t length = std::max(m, n), limit = static_cast<int64_t>(shared_limit / sizeof(T));
  const int64_t left = limit - topk_fixed_numbers(p, k) - demand.fixed;
  TopkPlan plan{};
  const int tiles = (p + kGramTile - 1) / kGramTile;
  plan.splits = 1;
  while (plan.splits < kWarp && tiles * (tiles + 1) / 2 * plan.splits * 2 <= kTopkThreads)
    plan.splits *= 2;
  plan.stride = tiles * kGramTile + 4;
  const int64_t gram = (int64_t(p) * (p | 1) + 3) / 4 * 4;
  const int64_t flags = (int64_t(p) * k + 15) / 16 * 16 / static_cast<int64_t>(sizeof(T));
  const int64_t factors = int64_t(demand.factors) * p * k;
  int64_t pool = flags;
  plan.gram_shared = demand.gram && pool + gram <= left;
  if (plan.gram_shared) pool += gram;
  plan.factors_shared = pool + factors <= left;
  if (plan.factors_shared) pool += factors;
  // staged rows: 60 KiB, more where the pool is larger anyway, less for short matrices
  const int64_t wanted = std::max<int64_t>(pool, (60 << 10) / static_cast<int64_t>(sizeof(T)));
  const int64_t row = plan.stride + demand.per_row, fits = std::min(wanted, left) / row;
  plan.rows = static_cast<int>(
      std::max<int64_t>(1, std::min<int64_t>({fits, length, int64_t(kTopkThreads)})));
  pool = std::max<int64_t>(pool, plan.rows * row);
  if (demand.per_row > 0) pool = std::max<int64_t>(pool, int64_t(kTopkThreads) * ((k + 3) / 4 * 4));
  plan.pool = static_cast<int>(pool);
  const size_t numbers = static_cast<size_t>(topk_fixed_numbers(p, k)) + demand.fixed + plan.pool;
  return {plan, numbers * sizeof(T), plan.factors_shared ? 0 : factors};
}

template <class T>
TopkLaunch<TopkPlan> plan_topk_forward(int64_t m, int64_t n, int k, size_t shared_limit) {
  return plan_topk<T>(m, n, k, {4, true, 0, 0}, shared_limit);
}

// Room for the block SVD, then, in the same place, for what is left to do with its vectors.
template <class T>
TopkLaunch<TopkDensePlan> plan_topk_dense(int64_t m, int64_t n, int k, size_t shared_limit) {
  const auto block = plan_block<T>(m, n, false, shared_limit);
  const auto rows = plan_topk<T>(m, n, k, {0, false, 0, 0}, shared_limit);
  return {
      {block.plan, rows.plan}, std::max(block.shared_bytes, rows.shared_bytes), block.workspace};
}

// Rows are staged with their two coefficients per vector.
template <class T>
TopkLaunch<TopkPlan> plan_topk_backward(int64_t m, int64_t n, int k, size_t shared_limit) {
  const int p = static_cast<int>(std::min(m, n)), kp = (k + 3) / 4 * 4;
  return plan_topk<T>(m, n, k, {4, false, topk_gradient_numbers(p, k), 2 * kp}, shared_limit);
}

// The kernels for a small side above 128: bytes of shared memory, numbers of workspace per matrix.
struct LargeLaunch {
  size_t shared_bytes;
  int64_t workspace;
};
template <class T>
LargeLaunch plan_large_forward(int64_t m, int64_t n, int k) {
  const int p = static_cast<int>(std::min(m, n));
  const size_t numbers = static_cast<size_t>(large_fixed_numbers()) + large_pool_numbers<T>(p);
  return {numbers * sizeof(T), large_workspace_numbers(p, k, std::max(m, n))};
}
template <class T>
LargeLaunch plan_large_krylov(int64_t m, int64_t n, int k) {
  return {plan_large_forward<T>(m, n, k).shared_bytes,
          krylov_numbers(static_cast<int>(std::min(m, n)), k)};
}
template <class T>
LargeLaunch plan_large_backward(int64_t m, int64_t n, int k) {
  const int p = static_cast<int>(std::min(m, n));
  const size_t numbers = static_cast<size_t>(large_fixed_numbers()) +
                         large_gradient_pool_numbers<T>(p) + 3 * kSquareNumbers;
  return {numbers * sizeof(T), large_gradient_numbers(p, k, std::max(m, n))};
}

}  // namespace kdops::svd::gpu
