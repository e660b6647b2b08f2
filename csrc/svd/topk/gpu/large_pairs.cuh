// The leading eigenpairs of one symmetric matrix of t.p rows in global memory, by its tridiagonal
// form.
#pragma once

#include "svd/topk/gpu/inverse_iteration.cuh"
#include "svd/topk/gpu/large_reduce.cuh"
#include "svd/topk/gpu/tridiagonal.cuh"

namespace kdops::svd::gpu {

// Global memory: vectors of the tridiagonal matrix, factors of its shifted forms.
template <class T>
struct PairWork {
  T *x, *factors;  // p x kx, 4 p k
  unsigned char* swapped;

  KDOPS_DEVICE PairWork(T* base, int p, int k) : x(base), factors(base + int64_t(p) * (k | 1)) {
    swapped = reinterpret_cast<unsigned char*>(factors + int64_t(4) * p * k);
  }
};
inline constexpr int64_t pair_numbers(int p, int k) {
  return int64_t(p) * ((k | 1) + 5 * k);  // flags: a number each is more than enough
}

// The t.k largest values of a tridiagonal form (band: d, e), to t.value. Its norm.
template <class T>
KDOPS_DEVICE T values_of_band(const LargeContext<T>& t, const T* band) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < t.p; i += kTopkThreads)
    t.d[i] = band[i], t.e[i] = band[t.p + i];
  __syncthreads();
  const T norm = tridiagonal_norm(t);
  multisection(t, norm);
  return norm;
}

// The tridiagonal form (band: d, e, tau; reflectors in place of the matrix) and its t.k largest
// values, to t.value. Its norm.
template <class T>
KDOPS_DEVICE T leading_values(const LargeContext<T>& t, T* matrix, T* band, T* spare) {
  tridiagonalise_rows(matrix, t.p, band, t.pool, spare, t.line);
  return values_of_band(t, band);
}

// Right after it, maybe with a smaller t.k: the vectors of these values as rows. kSmall: t.p may be
// 128 or less.
template <bool kSmall, class T>
KDOPS_DEVICE FoundVectors leading_vectors(const LargeContext<T>& t, const T* matrix, const T* band,
                                          T norm, const PairWork<T>& work, T* rows) {
  FoundVectors result{false, false};
#pragma unroll 1
  for (int solves = 3; solves <= 12 && !result.good; solves *= 2)
    result = inverse_iteration(t, norm, work.factors, work.swapped, solves);
#pragma unroll 1
  for (int at = static_cast<int>(threadIdx.x); at < t.p * t.k; at += kTopkThreads)
    rows[at] = t.x[at % t.p * t.kx + at / t.p];
  __syncthreads();
  const T* tau = band + 2 * t.p;
  if (kSmall && t.p <= kLargestSmallSide)
    apply_reflectors(
        Reflectors<T>{matrix, tau, t.p, t.p}, t.k,
        [&](int i, int c) -> T& { return rows[c * t.p + i]; }, false);
  else
    reflect_rows(matrix, tau, t.p, rows, t.k, false);
  return result;
}

// How many of t.value[0 .. count) a Gram matrix resolves, at least one.
template <class T>
KDOPS_DEVICE int resolved(const LargeContext<T>& t, int count) {
  int found = 1;
  while (found < count && t.value[found] > kSmallestRatio<T> * kSmallestRatio<T> * t.value[0])
    ++found;
  return found;
}

}  // namespace kdops::svd::gpu
