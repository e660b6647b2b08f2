// The k largest eigenvalues of a tridiagonal matrix, by Sturm multisection.
#pragma once

#include "svd/shared/sturm.h"
#include "svd/topk/gpu/context.cuh"

namespace kdops::svd::gpu {

template <class T>
struct TridiagonalBand {
  const T *d, *e;
  KDOPS_DEVICE T diagonal(int i) const { return d[i]; }
  KDOPS_DEVICE T coupling(int i) const { return e[i]; }
  KDOPS_DEVICE T square(int i) const { return e[i] * e[i]; }
};

// From here on Context is TopkContext or LargeContext (large_context.cuh).

// How many eigenvalues of the tridiagonal matrix are larger than x.
template <class T, template <class> class Context>
KDOPS_DEVICE T eigenvalues_above(const Context<T>& t, T x, T norm) {
  T count;
  count_above<1>(TridiagonalBand<T>{t.d, t.e}, t.p, &x, norm * kEpsilon<T> * kEpsilon<T>, &count);
  return count;
}

// A bound of the tridiagonal matrix's norm, 1 for the zero matrix. Every warp computes it.
template <class T, template <class> class Context>
KDOPS_DEVICE T tridiagonal_norm(const Context<T>& t) {
  T largest = T(0);
#pragma unroll 1
  for (int i = lane_id(); i < t.p; i += kWarp) {
    const T before = i > 0 ? abs(t.e[i - 1]) : T(0), after = i + 1 < t.p ? abs(t.e[i]) : T(0);
    largest = max(largest, abs(t.d[i]) + before + after);
  }
  largest = warp_max(largest);
  return largest > T(0) ? largest : T(1);
}

// value[c]: the k largest eigenvalues, descending, to half an eps of the norm. All threads test
// points of k intervals at once; an interval shrinks by kTopkThreads / k + 1 in a round.
template <class T, template <class> class Context>
KDOPS_DEVICE void multisection(const Context<T>& t, T norm) {
  const int thread = static_cast<int>(threadIdx.x), points = kTopkThreads / t.k;
  const int c = thread % t.k, point = thread / t.k;
  if (thread < t.k) {
    t.low[thread] = -norm * kEpsilon<T> * t.p, t.high[thread] = norm * (1 + kEpsilon<T> * t.p);
    t.counter[thread] = 0;
  }
  __syncthreads();
  T width = norm;
#pragma unroll 1
  while (width > norm * kEpsilon<T> / 2) {
    const T step = (t.high[c] - t.low[c]) / (points + 1);
    const T x = fma(T(point + 1), step, t.low[c]);
    if (point < points && eigenvalues_above(t, x, norm) > T(c)) atomicAdd(&t.counter[c], 1);
    __syncthreads();
    if (thread < t.k) {
      t.low[c] = fma(T(t.counter[c]), step, t.low[c]);
      t.high[c] = t.low[c] + step;
      t.counter[c] = 0;
    }
    width /= points + 1;
    __syncthreads();
  }
  if (thread < t.k) t.value[thread] = (t.low[thread] + t.high[thread]) / 2;
  __syncthreads();
}

}  // namespace kdops::svd::gpu
