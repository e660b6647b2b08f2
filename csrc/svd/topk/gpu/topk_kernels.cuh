// svd_topk: the k <= 16 largest singular triples of matrices with a small side of up to 128, one
// block per matrix. Gram matrix, tridiagonal form, multisection, inverse iteration,
// back-transformation, then W = B V refined on the long side. A matrix whose s_k is too small for
// its Gram matrix is left to dense_kernels.cuh. Launched by topk_cuda.cu.
#pragma once

#include "svd/topk/gpu/inverse_iteration.cuh"
#include "svd/topk/gpu/refine.cuh"

namespace kdops::svd::gpu {
using namespace kdops::gpu;

template <class T>
KDOPS_DEVICE void topk_fill_nan(const TopkArguments<T>& args) {
  const int64_t index = blockIdx.x, p = args.p();
  const auto fill = [](T* out, int64_t count) {
    for (int64_t i = threadIdx.x; out != nullptr && i < count; i += kTopkThreads) out[i] = kNaN<T>;
  };
  fill(args.S + index * args.k, args.k);
  fill(args.U == nullptr ? nullptr : args.U + index * args.m * args.k, args.m * args.k);
  fill(args.Vh + index * args.n * args.k, args.n * args.k);
  fill(args.saved + index * p * (p + 3), p * (p + 3));
}

// X = the k leading eigenvectors of B^T B; reflectors, d, tau, e, route and scale go to `saved`.
// False, and nothing of use in X: the Gram matrix has lost the smallest of the values, or the
// vectors cannot be told from others.
template <class T>
KDOPS_DEVICE bool leading_vectors(const TopkContext<T>& t, const TopkPlan& plan,
                                  const Oriented<T>& B, T* saved, T* factors) {
  const int p = t.p, ld = plan.gram_shared ? p | 1 : p, thread = static_cast<int>(threadIdx.x);
  T* g = plan.gram_shared ? t.pool : saved;
  T* next = plan.gram_shared ? t.pool + (p * ld + 3) / 4 * 4 : t.pool;
  auto* swapped = reinterpret_cast<unsigned char*>(next);
  next += (p * t.k + 15) / 16 * 16 / sizeof(T);
  if (plan.factors_shared) factors = next;
  gram_matrix(t, plan, B, g, ld);
  tridiagonalise(t, g, ld);
  for (int at = thread; at < p * p && plan.gram_shared; at += kTopkThreads)
    saved[at] = g[at / p * ld + at % p];
  for (int i = thread; i < p; i += kTopkThreads) {
    saved[p * p + i] = t.d[i];
    saved[p * p + p + i] = i + 2 < p ? t.tau[i] : T(0);
    saved[p * p + 2 * p + i] = i + 1 < p ? t.e[i] : B.up;
  }
  const T norm = tridiagonal_norm(t);
  multisection(t, norm);
  bool resolved = t.value[t.k - 1] > kSmallestRatio<T> * kSmallestRatio<T> * t.value[0];
  if (resolved) {
    const FoundVectors found = inverse_iteration(t, norm, factors, swapped);
    resolved = found.good && found.alone;
  }
  if (thread == 0) set_route(saved, p, resolved ? TopkRoute::gram : TopkRoute::dense);
  if (resolved) apply_reflectors(t, g, ld, false);
  return resolved;
}

// How far the squares of the final values lie from multisection's eigenvalues, at most.
template <class T>
KDOPS_DEVICE T largest_doubt(const TopkContext<T>& t) {
  T doubt = T(0);
  for (int c = 0; c < t.k; ++c)
    doubt = max(doubt, abs(t.value[c] * t.value[c] - (t.low[c] + t.high[c]) / 2));
  return doubt;
}

// Signs, S and the small-side output, once t.x and the long side are final.
template <class T>
KDOPS_DEVICE void write_topk(const TopkContext<T>& t, const TopkArguments<T>& args,
                             const LongSide<T>& w, T down) {
  const int64_t index = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < t.k) {
    t.sign[thread] = T(1);
    args.S[index * t.k + thread] = t.value[thread] * down;
  }
  __syncthreads();
  if (args.canonical) {
    for (int c = warp_id(); c < t.k; c += kTopkThreads / kWarp) {
      const T sign = args.wide() ? canonical_sign(&w.at(0, c), w.length, 1)
                                 : canonical_sign(t.x + c, t.p, t.kx);
      if (lane_id() == 0) t.sign[c] = sign;
    }
    __syncthreads();
    for (int64_t row = thread; w.data != nullptr && row < w.length; row += kTopkThreads)
      for (int c = 0; c < t.k; ++c)
        if (t.sign[c] < T(0)) w.at(row, c) = -w.at(row, c);
  }
  T* out = args.wide() ? args.U : args.Vh;
  if (out == nullptr) return;
  out += index * t.p * t.k;
  for (int at = thread; at < t.p * t.k; at += kTopkThreads) {
    const int i = args.wide() ? at / t.k : at % t.p, c = args.wide() ? at % t.k : at / t.p;
    out[at] = t.sign[c] * t.x[i * t.kx + c];
  }
}

// From the small-side vectors in t.x to all outputs; largest: the matrix's largest entry.
template <class T>
KDOPS_DEVICE void finish_topk(const TopkContext<T>& t, const TopkArguments<T>& args,
                              const TopkPlan& plan, T largest) {
  const Scale<T> scale = power_of_two_scale(largest);
  LongSide<T> w{args.wide() ? args.Vh : args.U, args.length(), t.k, args.wide()};
  if (w.data != nullptr) w.data += blockIdx.x * w.length * t.k;
  spread_columns(t, t.columns);
  long_product(t, plan, orient(args, scale.up), w);
  const JacobiLimits<T> limits = jacobi_limits(t.p, largest * scale.up);
  if (w.data != nullptr) refine(t, w, limits);
  rank_values(t);
  sort_small_side(t);
  if (w.data != nullptr) {
    const T floor = sqrt(limits.floor_squared);
    normalise_long(t, w, floor);
    complete_long(t, w, floor);
  }
  write_topk(t, args, w, scale.down);
}

// Grid: one block per matrix. workspace: factors of each matrix where they are not in shared
// memory.
template <class T>
__global__ void __launch_bounds__(kTopkThreads, 1)
    svd_topk_kernel(TopkArguments<T> args, TopkPlan plan, T* workspace) {
  KDOPS_DYNAMIC_SHARED(T, shared);
  const int64_t index = blockIdx.x;
  const TopkContext<T> t(shared, args.p(), args.k);
  const T largest = topk_scan(args.A + index * args.m * args.n, args.m * args.n, t.line);
  if (largest < T(0)) return topk_fill_nan(args);
  const Oriented<T> B = orient(args, power_of_two_scale(largest).up);
  T* factors = plan.factors_shared ? nullptr : workspace + index * 4 * t.p * t.k;
  T* saved = args.saved + index * t.p * (t.p + 3);
  if (!leading_vectors(t, plan, B, saved, factors)) return;
  finish_topk(t, args, plan, largest);
  if (threadIdx.x == 0 && t.k < t.p) saved[doubt_at(t.p)] = largest_doubt(t);
}

}  // namespace kdops::svd::gpu
