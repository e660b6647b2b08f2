// svd_topk for a small side above 128: one block per matrix finds those of the k <= 32 largest
// triples that its Krylov basis has not, from the Gram matrix in `saved`: tridiagonal form,
// multisection, inverse iteration, back-transformation, in as many rounds as the values ask for
// (large_context.cuh), then the long side. Launched by topk_cuda.cu.
#pragma once

#include "svd/topk/gpu/large_long.cuh"
#include "svd/topk/gpu/large_pairs.cuh"
#include "svd/topk/gpu/large_ritz.cuh"

namespace kdops::svd::gpu {

// A matrix's part of the workspace.
template <class T>
struct LargeWorkspace {
  PairWork<T> pairs;
  T* W;  // k x length

  KDOPS_DEVICE LargeWorkspace(T* base, int p, int k)
      : pairs(base, p, k), W(base + pair_numbers(p, k)) {}
};
inline constexpr int64_t large_workspace_numbers(int p, int k, int64_t length) {
  return pair_numbers(p, k) + k * length;
}

// One matrix on its way.
template <class T>
struct LargeProblem {
  Oriented<T> B;  // largest entry about one
  LargeSaved place;
  T* saved;
  LargeWorkspace<T> work;

  KDOPS_DEVICE T* band() const { return saved + place.band_at(); }
  KDOPS_DEVICE T* vectors() const { return saved + place.vectors_at(); }
  KDOPS_DEVICE T* matrix() const { return saved + place.matrix_at(); }
};

// The Gram matrix of B less the `found` triples that are known.
template <class T>
KDOPS_DEVICE void deflated_gram(const LargeContext<T>& t, const LargeProblem<T>& problem,
                                int found) {
  const Oriented<T>& B = problem.B;
  const T *W = problem.work.W, *P = problem.vectors();
  const Operand rest{B.p, !B.long_rows, [&](int64_t j, int64_t l) {
                       T entry = B.at(l, j);
#pragma unroll 1
                       for (int c = 0; c < found; ++c)
                         entry = fma(-W[c * B.length + l], P[c * int64_t(B.p) + j], entry);
                       return entry;
                     }};
#pragma unroll 1
  for (int tile = 0; tile < large_gram_tiles(t.p); ++tile)
    gram_tile_of(rest, tile, B.length, t.pool, problem.matrix());
  __syncthreads();
}

// Rows first .. first + t.k - 1 of W = P B^T.
template <class T>
KDOPS_DEVICE void multiply_vectors(const LargeContext<T>& t, const LargeProblem<T>& problem,
                                   int first, int count) {
  const int64_t length = problem.B.length;
  T* W = problem.work.W + first * length;
  const T* P = problem.vectors() + first * int64_t(t.p);
  few_times_long(
      problem.B, count, [&](int c, int j) { return P[c * int64_t(t.p) + j]; }, t.pool,
      [&](int c, int64_t i, T sum) { W[c * length + i] = sum; });
}

// By the tridiagonal form of the scaled Gram matrix, which gives way to it: as many of the `wanted`
// vectors as it resolves, at least one, as rows of P from `found` on, orthonormal to those before.
template <class T>
KDOPS_DEVICE int by_tridiagonal(LargeContext<T>& t, const LargeProblem<T>& problem, int found,
                                int wanted) {
  T *matrix = problem.matrix(), *band = problem.band();
  t.k = wanted;
  const T norm = leading_values(t, matrix, band, problem.work.pairs.x);
  const int count = resolved(t, wanted);
  t.k = count, t.kx = count | 1;
  __syncthreads();
  T* P = problem.vectors() + found * int64_t(t.p);
  const bool alone = leading_vectors<false>(t, matrix, band, norm, problem.work.pairs, P).alone;
  if (threadIdx.x == 0) {
    problem.saved[LargeSaved::kNorm] = norm;
    problem.saved[LargeSaved::kCrowded] = T(count == wanted && !alone);
    problem.saved[LargeSaved::kKrylov] = problem.saved[LargeSaved::kKept] = T(0);
  }
  P = problem.vectors();
  if (found > 0)
    orthonormalise(t.line, t.p, found, found + count,
                   [&](int64_t i, int c) -> T& { return P[c * int64_t(t.p) + i]; });
  return count;
}

// Where nothing is left: any vectors orthonormal to those before.
template <class T>
KDOPS_DEVICE void any_vectors(const LargeContext<T>& t, const LargeProblem<T>& problem, int found,
                              int k) {
  T* P = problem.vectors();
#pragma unroll 1
  for (int at = static_cast<int>(threadIdx.x); at < (k - found) * t.p; at += kTopkThreads)
    P[found * int64_t(t.p) + at] = start_entry<T>(found * t.p + at);
  __syncthreads();
  orthonormalise(t.line, t.p, found, k,
                 [&](int64_t i, int c) -> T& { return P[c * int64_t(t.p) + i]; });
}

// All k rows of P and of W, W not yet orthonormal. The first Gram matrix is scaled, and its Krylov
// basis may have found some of them.
template <class T>
KDOPS_DEVICE void all_vectors(LargeContext<T>& t, LargeProblem<T>& problem, int k) {
  const T noise = kEpsilon<T> * kEpsilon<T> * t.p, *saved = problem.saved;
  T f = saved[LargeSaved::kScale];
  const T back = problem.B.up / f, whole = trace_of(t, problem.matrix()) * back * back;
  bool exhausted = false;
  int found = static_cast<int>(saved[LargeSaved::kFound]);
  if (threadIdx.x == 0) t.whole() = saved[LargeSaved::kLargest];
  if (found > 0) multiply_vectors(t, problem, 0, found);
#pragma unroll 1
  for (bool first = found == 0; found < k && !exhausted; first = false) {
    t.p = problem.B.p = problem.place.p = forgotten(t.p);
    if (!first) deflated_gram(t, problem, found);
    const T trace = trace_of(t, problem.matrix());
    exhausted = !(trace > (first ? T(0) : whole * noise));
    int count = k - found;
    if (exhausted) {
      any_vectors(t, problem, found, k);
    } else {
      const T scale = first ? f : scale_gram(t.p, problem.matrix(), problem.B.up, trace);
      if (threadIdx.x == 0) t.whole() *= scale / f;
      f = scale;
      count = by_tridiagonal(t, problem, found, count);
      if (first && threadIdx.x == 0) t.whole() = sqrt(t.value[0]);
    }
    t.p = problem.B.p = problem.place.p = forgotten(t.p);
    multiply_vectors(t, problem, found, count);
    found += count;
  }
  if (threadIdx.x == 0) {
    problem.saved[LargeSaved::kScale] = f;
    problem.saved[LargeSaved::kExhausted] = T(exhausted);
  }
}

// Signs, then the outputs: right vectors are rows of P or of W, left ones of the other.
template <class T>
KDOPS_DEVICE void write_large(const LargeContext<T>& t, const TopkArguments<T>& args, T* P, T* W,
                              T down) {
  const int64_t index = blockIdx.x, m = args.m, n = args.n;
  const int thread = static_cast<int>(threadIdx.x), k = t.k;
  T *right = args.wide() ? W : P, *left = args.wide() ? P : W;
  if (thread < k) args.S[index * k + thread] = t.value[thread] * down;
  for (int c = warp_id(); c < k; c += kTopkThreads / kWarp) {
    const T sign = args.canonical ? canonical_sign(right + c * n, n, 1) : T(1);
    if (lane_id() == 0) t.sign[c] = sign;
  }
  __syncthreads();
  for (int c = 0; c < k; ++c) {
    const T sign = t.sign[c];
    for (int64_t j = thread; j < n; j += kTopkThreads) {
      right[c * n + j] *= sign;
      args.Vh[(index * k + c) * n + j] = right[c * n + j];
    }
    for (int64_t i = thread; i < m; i += kTopkThreads) {
      left[c * m + i] *= sign;
      if (args.U != nullptr) args.U[(index * m + i) * k + c] = left[c * m + i];
    }
  }
}

// Grid: one block per matrix, after large_krylov_kernel. parts: of large_scan_kernel; workspace:
// large_workspace_numbers().
template <class T>
__global__ void __launch_bounds__(kTopkThreads, 1)
    large_topk_kernel(TopkArguments<T> args, const T* parts, T* workspace) {
  KDOPS_DYNAMIC_SHARED(T, shared);
  const int64_t index = blockIdx.x, length = args.length();
  const int p = args.p(), k = args.k;
  const LargeSaved place{p, k};
  T* saved = args.saved + index * place.size();
  const T largest = largest_of_parts(parts + index * kScanParts);
  if (largest < T(0)) return topk_fill_nan(args);
  const Scale<T> scale = power_of_two_scale(largest);
  workspace += index * large_workspace_numbers(p, k, length);
  LargeProblem<T> problem{orient(args, scale.up), place, saved, {workspace, p, k}};
  LargeContext<T> t(shared, p, k);
  t.x = problem.work.pairs.x;
  all_vectors(t, problem, k);
  t.k = k;
  const T floor = sqrt(jacobi_limits(p, largest * scale.up).floor_squared);
  rayleigh_ritz(t, problem.work.W, length, problem.vectors(), floor);
  write_large(t, args, problem.vectors(), problem.work.W, scale.down);
}

}  // namespace kdops::svd::gpu
