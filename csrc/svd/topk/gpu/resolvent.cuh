// The part of the top-k gradient that stands for the vectors outside the top k:
//   x_c = sum over j > k of v_j <v_j, b_c> / (s_c^2 - s_j^2) = (s_c^2 - G)^+ b_c,
// with b_c orthogonal to V.
// After the dense route that is the sum itself, each divisor under the degenerate policy. After the
// Gram route, where nobody computed the v_j and none is near, it is tridiagonal solves with what
// the forward saved of G = Q T Q^T.
#pragma once

#include "svd/shared/policy.h"
#include "svd/topk/gpu/inverse_iteration.cuh"
#include "svd/topk/gpu/tridiagonal.cuh"

namespace kdops::svd::gpu {

// t.x = resolvent of t.x from all vectors and values of the dense route; along: columns like x's.
template <class T>
KDOPS_DEVICE void resolve_dense(const TopkContext<T>& t, const T* saved, bool lorentz, T* along) {
  const int thread = static_cast<int>(threadIdx.x), rest = t.p - t.k;
  const TopkSaved place{t.p, t.k};
  const T *value = saved + place.dense_values_at(), *vectors = saved + place.dense_vectors_at();
  const PolicyInverse<T> inverse(value[0], t.p, lorentz);
#pragma unroll 1
  for (int at = thread; at < rest * t.k; at += kTopkThreads) {
    const int j = t.k + at / t.k, c = at % t.k;
    T dot = T(0);
    for (int i = 0; i < t.p; ++i) dot = fma(vectors[j * t.p + i], t.x[i * t.kx + c], dot);
    along[j * t.kx + c] = dot * inverse.of_squares(value[c], value[j]);
  }
  __syncthreads();
#pragma unroll 1
  for (int at = thread; at < t.p * t.k; at += kTopkThreads) {
    const int i = at % t.p, c = at / t.p;
    T sum = T(0);
    for (int j = t.k; j < t.p; ++j) sum = fma(vectors[j * t.p + i], along[j * t.kx + c], sum);
    t.x[i * t.kx + c] = sum;
  }
  __syncthreads();
}

// The same for the singular values t.value (of B) after the Gram route, in the basis of T: a lane
// per vector. doubt: see shared/tridiagonal_solve.h; spare: columns like x's.
template <class T>
KDOPS_DEVICE void solve_resolvents(const TopkContext<T>& t, T doubt, T* factors,
                                   unsigned char* swapped, T* spare) {
  const int c = static_cast<int>(threadIdx.x);
  if (c < t.k) {
    const auto square = [&](int j) { return t.value[j] * t.value[j]; };
    const T shift = clear_shift(square, c, safe_distance(doubt, square(0)));
    const TridiagonalFactors<T> f{factors, swapped, t.p, t.k, c};
    factor_shifted(TridiagonalBand<T>{t.d, t.e}, t.p, shift, kEpsilon<T> * square(0), f);
    solve_complement<T>(f, t.p, shift - square(c), StridedVector<T>{t.x + c, t.kx},
                        StridedVector<T>{spare + c, t.kx});
  }
  __syncthreads();
}

// The same in the basis of B, from `saved`; flags and, where they fit, factors lie in pool.
template <class T>
KDOPS_DEVICE void resolve_tridiagonal(const TopkContext<T>& t, const TopkPlan& plan, const T* saved,
                                      T* factors, T* pool, T* spare) {
  const TopkSaved place{t.p, t.k};
  const T* reflectors = saved + place.reflectors_at();
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < t.p; i += kTopkThreads) {
    t.d[i] = saved[place.diagonal_at() + i];
    t.e[i] = i + 1 < t.p ? saved[place.off_diagonal_at() + i] : T(0);
    t.tau[i] = i + 2 < t.p ? saved[place.tau_at() + i] : T(0);
  }
  __syncthreads();
  auto* swapped = reinterpret_cast<unsigned char*>(pool);
  if (plan.factors_shared) factors = pool + (t.p * t.k + 15) / 16 * 16 / sizeof(T);
  apply_reflectors(t, reflectors, t.p, true);
  solve_resolvents(t, saved[TopkSaved::kDoubt], factors, swapped, spare);
  apply_reflectors(t, reflectors, t.p, false);
}

}  // namespace kdops::svd::gpu
