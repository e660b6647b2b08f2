// svd_topk: the k <= 16 largest singular triples of matrices with a small side of up to 128, one
// block per matrix. Gram matrix, tridiagonal form, multisection, inverse iteration,
// back-transformation, then W = B V refined on the long side. A matrix whose s_k is too small for
// its Gram matrix is left to dense_kernels.cuh. Launched by topk_cuda.cu.
#pragma once

#include "svd/topk/gpu/gram.cuh"
#include "svd/topk/gpu/inverse_iteration.cuh"
#include "svd/topk/gpu/refine.cuh"
#include "svd/topk/gpu/tridiagonal.cuh"

namespace kdops::svd::gpu {

// X = the k leading eigenvectors of B^T B; reflectors, d, tau, e, route and scale go to `saved`.
// False, and nothing of use in X: the Gram matrix has lost the smallest of the values, or the
// vectors cannot be told from others.
template <class T>
KDOPS_DEVICE bool leading_vectors(const TopkContext<T>& t, const TopkPlan& plan,
                                  const Oriented<T>& B, T* saved, T* factors) {
  const int p = t.p, ld = plan.gram_shared ? p | 1 : p, thread = static_cast<int>(threadIdx.x);
  const TopkSaved place{p, t.k};
  T* reflectors = saved + place.reflectors_at();
  T* g = plan.gram_shared ? t.pool : reflectors;
  T* next = plan.gram_shared ? t.pool + (p * ld + 3) / 4 * 4 : t.pool;
  auto* swapped = reinterpret_cast<unsigned char*>(next);
  next += (p * t.k + 15) / 16 * 16 / sizeof(T);
  if (plan.factors_shared) factors = next;
  gram_matrix(t, plan, B, g, ld);
  tridiagonalise(g, p, ld, {t.d, t.e, t.tau}, t.matrix);  // and turn and line behind it
#pragma unroll 1
  for (int at = thread; at < p * p && plan.gram_shared; at += kTopkThreads)
    reflectors[at] = g[at / p * ld + at % p];
#pragma unroll 1
  for (int i = thread; i < p; i += kTopkThreads) {
    saved[place.diagonal_at() + i] = t.d[i];
    if (i + 1 < p) saved[place.off_diagonal_at() + i] = t.e[i];
    if (i + 2 < p) saved[place.tau_at() + i] = t.tau[i];
  }
  const T norm = tridiagonal_norm(t);
  multisection(t, norm);
  bool resolved = t.value[t.k - 1] > kSmallestRatio<T> * kSmallestRatio<T> * t.value[0];
  if (resolved) {
    const FoundVectors found = inverse_iteration(t, norm, factors, swapped);
    resolved = found.good && found.alone;
  }
  if (thread == 0) {
    TopkSaved::set_route(saved, resolved ? TopkRoute::gram : TopkRoute::dense);
    saved[TopkSaved::kScale] = B.up, saved[TopkSaved::kDoubt] = T(0);
  }
  if (resolved) apply_reflectors(t, g, ld, false);
  return resolved;
}

// How far the squares of the final values lie from multisection's eigenvalues, at most.
template <class T>
KDOPS_DEVICE T largest_doubt(const TopkContext<T>& t) {
  T doubt = T(0);
#pragma unroll 1
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
      const bool of_w = args.wide();
      const T sign = canonical_sign(of_w ? &w.at(0, c) : t.x + c, of_w ? w.length : int64_t(t.p),
                                    of_w ? int64_t(1) : int64_t(t.kx));
      if (lane_id() == 0) t.sign[c] = sign;
    }
    __syncthreads();
#pragma unroll 1
    for (int64_t row = thread; w.data != nullptr && row < w.length; row += kTopkThreads)
#pragma unroll 1
      for (int c = 0; c < t.k; ++c)
        if (t.sign[c] < T(0)) w.at(row, c) = -w.at(row, c);
  }
  T* out = args.wide() ? args.U : args.Vh;
  if (out == nullptr) return;
  out += index * t.p * t.k;
#pragma unroll 1
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
  T* saved = args.saved + index * TopkSaved{t.p, t.k}.size();
  if (!leading_vectors(t, plan, B, saved, factors)) return;
  finish_topk(t, args, plan, largest);
  if (threadIdx.x == 0 && t.k < t.p) saved[TopkSaved::kDoubt] = largest_doubt(t);
}

}  // namespace kdops::svd::gpu
