// The leading eigenpairs of a large Gram matrix by block Krylov, a block per matrix: the algorithm
// and the acceptance rules of cpu/krylov.h, which say why. Launched by topk_cuda.cu.
#pragma once

#include "svd/topk/gpu/large_basis.cuh"
#include "svd/topk/gpu/tridiagonal.cuh"

namespace kdops::svd::gpu {

// The tridiagonal form of the projected matrix and its t.k largest values. Its norm.
template <class T>
KDOPS_DEVICE T projected_values(const LargeContext<T>& t, const KrylovBasis<T>& basis, T* spare) {
  T *matrix = basis.matrix(), *band = basis.band();
  if constexpr (sizeof(T) == 4) {  // doubles leave no registers for it here
    if (t.p <= 2 * kWarp) {
      tridiagonalise_in_registers<2, 4>(matrix, t.p, t.p, Band<T>{band, band + t.p, band + 2 * t.p},
                                        t.pool);
      return values_of_band(t, band);
    }
  }
  return leading_values(t, matrix, band, spare);
}

// Pairs of the projection on basis.size rows: values to t.value, vectors to rows of P, what the
// basis misses of them to t.high, their residuals to t.low. False where a vector fails its check.
template <class T>
KDOPS_DEVICE bool ritz_pairs(const LargeContext<T>& outer, const KrylovBasis<T>& basis,
                             const PairWork<T>& work, T* P) {
  const int size = basis.size, most = basis.most;
  for (int at = static_cast<int>(threadIdx.x); at < size * size; at += kTopkThreads) {
    const int i = at / size, j = at % size;
    basis.matrix()[at] = basis.projected()[min(i, j) * basis.limit() + max(i, j)];
  }
  __syncthreads();
  LargeContext<T> t = outer;
  t.p = size, t.k = most, t.kx = most | 1, t.x = work.x, t.e = t.d + size;
  const T norm = projected_values(t, basis, work.x);
  const bool good = leading_vectors<sizeof(T) == 4>(t, basis.matrix(), basis.band(), norm, work,
                                                    basis.coefficients())
                        .good;
  const int p = forgotten(basis.p);
  const Operand columns{p, false, [&](int64_t j, int64_t l) { return basis.rows[l * p + j]; }};
  columns_of_few<T>(vectors_operand(basis.coefficients(), size, most), columns, size,
                    [&](int64_t c, int64_t j, T sum) { P[c * p + j] = sum; });
  multiply_rows(basis.G, p, P, most, t.pool,
                [&](int j, int c, T sum) { basis.images()[c * p + j] = sum; });
#pragma unroll 1
  for (int c = warp_id(); c < most; c += kTopkWarps) {
    T square = T(0), last = T(0);
    for (int i = lane_id(); i < p; i += kWarp) {
      const T r = fma(-t.value[c], P[c * p + i], basis.images()[c * p + i]);
      square = fma(r, r, square);
    }
    if (lane_id() < basis.block) last = basis.coefficients()[(c + 1) * size - 1 - lane_id()];
    square = warp_sum(square), last = warp_sum(last * last);
    if (lane_id() == 0) t.low[c] = sqrt(square), t.high[c] = basis.next * sqrt(last);
  }
  __syncthreads();
  return good;
}

// The leading pairs that are exact to rounding, if the others stay clear of the last of the
// `wanted`; fewer where the Gram matrix resolves no more, none where the basis has to grow.
template <class T>
KDOPS_DEVICE int good_pairs(const LargeContext<T>& t, KrylovBasis<T>& basis, int wanted) {
  const RitzPairs<T> pairs{t.value, t.high, t.low, basis.most};
  basis.missed = T(0);
  if (!(t.value[0] > T(0))) return 0;
  const int within = resolved(t, wanted);
  basis.missed = pairs.most_missed(within);
  return pairs.accepted(pairs.exact(), within, wanted, clearance(basis.p, t.value[0], T(0)));
}

// Whether the largest basis would still miss too much if that went on falling as it did since
// `before`, with an allowance as it falls ever faster; or misses nothing, and the pairs are refused.
template <class T>
KDOPS_DEVICE bool is_hopeless(const KrylovBasis<T>& basis, T before) {
  if (basis.missed <= kMissed<T>) return basis.size >= 128;
  T missed = basis.missed;
  for (int size = basis.size; size < basis.limit(); size += kJudgedStep)
    missed *= basis.missed / before;
  return missed > kAllowance<T> * kMissed<T>;
}

// t.value and rows of P: how many leading pairs of G are good. At least k, or fewer where the Gram
// matrix resolves no more; 0 where the basis has not found them.
template <class T>
KDOPS_DEVICE int krylov_pairs(const LargeContext<T>& t, const T* G, T* memory, T* P) {
  const int k = t.k, most = k + kExtraPairs;
  const PairWork<T> work(memory, most_basis(t.p), most);
  memory += pair_numbers(most_basis(t.p), most);
  KrylovBasis<T> basis{G, memory, t.pool, t.p, krylov_block(k), most};
  grow_basis(t, basis);
#pragma unroll 1
  while (basis.size < basis.limit()) {
    basis.p = forgotten(basis.p), basis.size += basis.block;
    grow_basis(t, basis);
    if (basis.size < kFirstJudged || basis.size % kJudgedStep != 0) continue;
    basis.p = forgotten(basis.p);
    const T before = basis.missed;
    const bool found = ritz_pairs(t, basis, work, P);
    const int good = good_pairs(t, basis, k);
    __syncthreads();
    if (found && good > 0) return good;
    if (!found || (basis.size > kFirstJudged && is_hopeless(basis, before))) break;
  }
  return 0;
}

// Grid: one block per matrix. Scales the Gram matrix and finds what a Krylov basis of it finds, which
// leaves it as it is; good pairs beyond the k are kept for the gradient. workspace:
// krylov_numbers() each.
template <class T>
__global__ void __launch_bounds__(kTopkThreads, 1)
    large_krylov_kernel(TopkArguments<T> args, const T* parts, T* workspace) {
  KDOPS_DYNAMIC_SHARED(T, shared);
  const int64_t index = blockIdx.x;
  const int p = args.p(), k = args.k;
  const LargeSaved place{p, k};
  T* saved = args.saved + index * place.size();
  const T largest = largest_of_parts(parts + index * kScanParts);
  if (largest < T(0)) return;
  // what no route writes must not be left to chance
  const int64_t rest = place.matrix_at() + int64_t(p) * p;
#pragma unroll 1
  for (int64_t i = threadIdx.x; i < place.matrix_at(); i += kTopkThreads) saved[i] = T(0);
#pragma unroll 1
  for (int64_t i = rest + threadIdx.x; i < place.size(); i += kTopkThreads) saved[i] = T(0);
  __syncthreads();
  const LargeContext<T> t(shared, p, k);
  T *G = saved + place.matrix_at(), f = T(1);
  if (threadIdx.x == 0) t.whole() = T(0);
  const T trace = trace_of(t, G);
  if (trace > T(0)) f = scale_gram(p, G, power_of_two_scale(largest).up, trace);
  int good = 0;
  if (trace > T(0) && prefers_krylov(k))
    good = krylov_pairs(t, G, workspace + index * krylov_numbers(p, k), saved + place.vectors_at());
  if (threadIdx.x != 0) return;
  saved[LargeSaved::kScale] = f, saved[LargeSaved::kFound] = T(min(good, k));
  saved[LargeSaved::kKrylov] = T(good > 0), saved[LargeSaved::kKept] = T(max(good - k, 0));
  if (good > 0) saved[LargeSaved::kLargest] = sqrt(t.value[0]);
#pragma unroll 1
  for (int i = 0; i < good - k; ++i) saved[LargeSaved::kValues + i] = sqrt(t.value[k + i]);
}

}  // namespace kdops::svd::gpu
