// svd_topk for a small side above 128: one block per matrix finds the k <= 32 largest triples from
// the Gram matrix that large_gram_kernel has left in `saved`: tridiagonal form, multisection,
// inverse iteration, back-transformation, in as many rounds as the values ask for
// (large_context.cuh), then the long side. Launched by topk_cuda.cu.
#pragma once

#include "svd/topk/gpu/large_reduce.cuh"
#include "svd/topk/gpu/large_ritz.cuh"

namespace kdops::svd::gpu {
using namespace kdops::gpu;

// A matrix's part of the workspace.
template <class T>
struct LargeWorkspace {
  T *x, *factors, *W;  // p x kx, 4 p k, k x length
  unsigned char* swapped;

  KDOPS_DEVICE LargeWorkspace(T* base, int p, int k, int64_t length) {
    x = base, factors = x + int64_t(p) * (k | 1), W = factors + int64_t(4) * p * k;
    swapped = reinterpret_cast<unsigned char*>(W + k * length);
  }
};
inline constexpr int64_t large_workspace_numbers(int p, int k, int64_t length) {
  return int64_t(p) * ((k | 1) + 5 * k) + k * length;  // flags: a number each is more than enough
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

template <class T>
KDOPS_DEVICE void large_fill_nan(const TopkArguments<T>& args, T* saved, int64_t saved_size) {
  const int64_t index = blockIdx.x;
  const auto fill = [](T* out, int64_t count) {
    for (int64_t i = threadIdx.x; out != nullptr && i < count; i += kTopkThreads) out[i] = kNaN<T>;
  };
  fill(args.S + index * args.k, args.k);
  fill(args.U == nullptr ? nullptr : args.U + index * args.m * args.k, args.m * args.k);
  fill(args.Vh + index * args.n * args.k, args.n * args.k);
  fill(saved, saved_size);
}

// The Gram matrix of B less the `found` triples that are known.
template <class T>
KDOPS_DEVICE void deflated_gram(const LargeContext<T>& t, const LargeProblem<T>& problem,
                                int found) {
  const Oriented<T>& B = problem.B;
  const T *W = problem.work.W, *P = problem.vectors();
  const Operand rest{B.p, !B.long_rows, [&](int64_t j, int64_t l) {
                       T entry = B.at(l, j);
                       for (int c = 0; c < found; ++c)
                         entry = fma(-W[c * B.length + l], P[c * int64_t(B.p) + j], entry);
                       return entry;
                     }};
#pragma unroll 1
  for (int tile = 0; tile < large_gram_tiles(t.p); ++tile)
    gram_tile_of(rest, tile, B.length, t.pool, problem.matrix());
  __syncthreads();
}

template <class T>
KDOPS_DEVICE T trace_of(const LargeContext<T>& t, const T* G) {
  T trace = T(0);
  for (int i = static_cast<int>(threadIdx.x); i < t.p; i += kTopkThreads)
    trace += G[i * int64_t(t.p + 1)];
  return reduce_block(trace, Add(), t.line);
}

// The Gram matrix of B to that of f A, of which the trace is in [1/4, 1); f. Where f would leave
// the range of the type the trace stays smaller.
template <class T>
KDOPS_DEVICE T scale_gram(const LargeProblem<T>& problem, T trace) {
  const int most = std::numeric_limits<T>::max_exponent - 4;
  const int half = max((exponent_of(trace) >> 1) + 1, exponent_of(problem.B.up) - most);
  const T square = power_of_two(T(), -2 * half);
  T* G = problem.matrix();
  const int64_t size = int64_t(problem.B.p) * problem.B.p;
  for (int64_t i = threadIdx.x; i < size; i += kTopkThreads) G[i] *= square;
  __syncthreads();
  return problem.B.up * power_of_two(T(), -half);
}

// Rows first .. first + t.k - 1 of W = P B^T.
template <class T>
KDOPS_DEVICE void multiply_vectors(const LargeContext<T>& t, const LargeProblem<T>& problem,
                                   int first, int count) {
  const int64_t length = problem.B.length;
  T* W = problem.work.W + first * length;
  block_product<FlatTile>(vectors_operand(problem.vectors() + first * int64_t(t.p), t.p, count),
                          rows_of(problem.B), t.p, t.pool,
                          [&](int64_t i, int64_t r, T sum) { W[i * length + r] = sum; });
}

// The next vectors from the scaled Gram matrix: as many of the `wanted` as it resolves, at least
// one. They become rows of P from `found` on, orthonormal to those before.
template <class T>
KDOPS_DEVICE int next_vectors(LargeContext<T>& t, const LargeProblem<T>& problem, int found,
                              int wanted) {
  const int p = t.p, thread = static_cast<int>(threadIdx.x);
  T* band = problem.band();
  tridiagonalise_rows(problem.matrix(), p, band, t.pool, problem.work.x, t.line);
#pragma unroll 1
  for (int i = thread; i < p; i += kTopkThreads) t.d[i] = band[i], t.e[i] = band[p + i];
  __syncthreads();
  const T norm = tridiagonal_norm(t);
  t.k = wanted;
  multisection(t, norm);
  int count = 1;
  while (count < wanted && t.value[count] > kSmallestRatio<T> * kSmallestRatio<T> * t.value[0])
    ++count;
  t.k = count, t.kx = count | 1;
  __syncthreads();
  FoundVectors result{false, false};
#pragma unroll 1
  for (int solves = 3; solves <= 12 && !result.good; solves *= 2)
    result = inverse_iteration(t, norm, problem.work.factors, problem.work.swapped, solves);
  if (thread == 0) {
    problem.saved[LargeSaved::kNorm] = norm;
    problem.saved[LargeSaved::kCrowded] = T(count == wanted && !result.alone);
  }
  T* P = problem.vectors();
#pragma unroll 1
  for (int at = thread; at < p * count; at += kTopkThreads)
    P[(found + at / p) * int64_t(p) + at % p] = t.x[at % p * t.kx + at / p];
  __syncthreads();
  reflect_rows(problem.matrix(), band + 2 * p, p, P + found * int64_t(p), count, false);
  if (found > 0)
    orthonormalise(t.line, p, found, found + count,
                   [&](int64_t i, int c) -> T& { return P[c * int64_t(p) + i]; });
  return count;
}

// Where nothing is left: any vectors orthonormal to those before.
template <class T>
KDOPS_DEVICE void any_vectors(const LargeContext<T>& t, const LargeProblem<T>& problem, int found,
                              int k) {
  T* P = problem.vectors();
  for (int at = static_cast<int>(threadIdx.x); at < (k - found) * t.p; at += kTopkThreads)
    P[found * int64_t(t.p) + at] = start_entry<T>(found * t.p + at);
  __syncthreads();
  orthonormalise(t.line, t.p, found, k,
                 [&](int64_t i, int c) -> T& { return P[c * int64_t(t.p) + i]; });
}

// All k rows of P and of W, W not yet orthonormal.
template <class T>
KDOPS_DEVICE void all_vectors(LargeContext<T>& t, const LargeProblem<T>& problem, int k) {
  const T noise = kEpsilon<T> * kEpsilon<T> * t.p;
  T whole = T(0), f = T(1);
  bool exhausted = false;
  int found = 0;
#pragma unroll 1
  for (bool first = true; found < k && !exhausted; first = false) {
    if (!first) deflated_gram(t, problem, found);
    const T trace = trace_of(t, problem.matrix());
    if (first) whole = trace;
    exhausted = !(trace > whole * noise);
    int count = k - found;
    if (exhausted) {
      any_vectors(t, problem, found, k);
    } else {
      const T scale = scale_gram(problem, trace);
      if (threadIdx.x == 0) t.whole() = first ? T(0) : t.whole() * (scale / f);
      f = scale;
      count = next_vectors(t, problem, found, count);
      if (first && threadIdx.x == 0) t.whole() = sqrt(t.value[0]);
    }
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

// Grid: one block per matrix. parts: of large_scan_kernel; workspace: large_workspace_numbers().
template <class T>
__global__ void __launch_bounds__(kTopkThreads, 1)
    large_topk_kernel(TopkArguments<T> args, const T* parts, T* workspace) {
  KDOPS_DYNAMIC_SHARED(T, shared);
  const int64_t index = blockIdx.x, length = args.length();
  const int p = args.p(), k = args.k;
  const LargeSaved place{p, k};
  T* saved = args.saved + index * place.size();
  const T largest = largest_of_parts(parts + index * kScanParts);
  if (largest < T(0)) return large_fill_nan(args, saved, place.size());
  const Scale<T> scale = power_of_two_scale(largest);
  workspace += index * large_workspace_numbers(p, k, length);
  const LargeProblem<T> problem{orient(args, scale.up), place, saved, {workspace, p, k, length}};
  // what no route writes must not be left to chance
  const int64_t rest = place.matrix_at() + int64_t(p) * p;
  for (int64_t i = threadIdx.x; i < place.vectors_at(); i += kTopkThreads) saved[i] = T(0);
  for (int64_t i = rest + threadIdx.x; i < place.size(); i += kTopkThreads) saved[i] = T(0);
  __syncthreads();
  LargeContext<T> t(shared, p, k);
  t.x = problem.work.x;
  all_vectors(t, problem, k);
  t.k = k;
  const T floor = sqrt(jacobi_limits(p, largest * scale.up).floor_squared);
  rayleigh_ritz(t, problem.work.W, length, problem.vectors(), floor);
  write_large(t, args, problem.vectors(), problem.work.W, scale.down);
}

}  // namespace kdops::svd::gpu
