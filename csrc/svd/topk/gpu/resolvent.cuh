// The part of the top-k gradient that stands for the vectors outside the top k:
//   x_c = sum over j > k of v_j <v_j, b_c> / (s_c^2 - s_j^2) = (s_c^2 - G)^-1 b_c,
// with b_c orthogonal to V.
// After the dense route that is the sum itself. After the Gram route, where nobody computed the
// v_j, it is a tridiagonal solve with what the forward saved of G = Q T Q^T. Where s_c is as good
// as equal to a value outside the top k (or the policy is "lorentz"), the shift becomes complex:
//   Re (d + i delta)^-1 = d / (d^2 + delta^2),  delta = 2 s_c tau s_1,
// which is d / (d^2 + (tau s_1)^2) of the singular values to first order. "mask" applies the filter
// d^2 / (d^2 + delta^2) in addition, so that equal values contribute nothing instead of noise.
#pragma once

#include "svd/topk/gpu/inverse_iteration.cuh"

namespace kdops::svd::gpu {
using namespace kdops::gpu;

// 1 / x under the degenerate policy; x and its threshold are relative to unit, the result is not.
template <class T>
KDOPS_DEVICE T policy_inverse(T x, T unit, T threshold, bool lorentz) {
  if (unit == T(0)) return T(0);
  x /= unit;
  if (lorentz) return x / (x * x + threshold * threshold) / unit;
  return abs(x) <= threshold ? T(0) : T(1) / x / unit;
}

// t.x = resolvent of t.x from all vectors and values of the dense route; along: columns like x's.
template <class T>
KDOPS_DEVICE void resolve_dense(const TopkContext<T>& t, const T* saved, bool lorentz, T* along) {
  const int thread = static_cast<int>(threadIdx.x), rest = t.p - t.k;
  const T *value = saved + t.p * t.p, threshold = kEpsilon<T> * t.p;
  for (int at = thread; at < rest * t.k; at += kTopkThreads) {
    const int j = t.k + at / t.k, c = at % t.k;
    T dot = T(0);
    for (int i = 0; i < t.p; ++i) dot = fma(saved[j * t.p + i], t.x[i * t.kx + c], dot);
    along[j * t.kx + c] = dot * policy_inverse(value[c] - value[j], value[0], threshold, lorentz) *
                          policy_inverse(value[c] + value[j], value[0], threshold, lorentz);
  }
  __syncthreads();
  for (int at = thread; at < t.p * t.k; at += kTopkThreads) {
    const int i = at % t.p, c = at / t.p;
    T sum = T(0);
    for (int j = t.k; j < t.p; ++j) sum = fma(saved[j * t.p + i], along[j * t.kx + c], sum);
    t.x[i * t.kx + c] = sum;
  }
  __syncthreads();
}

template <class T>
struct ComplexVector {
  T *re, *im;
  int re_stride, im_stride;
  KDOPS_DEVICE Complex<T> get(int i) const { return {re[i * re_stride], im[i * im_stride]}; }
  KDOPS_DEVICE void set(int i, Complex<T> value) const {
    re[i * re_stride] = value.re, im[i * im_stride] = value.im;
  }
};

// Column c of t.x, in the basis of T, by the lane that calls; spare, imaginary: columns like x's.
template <class T>
KDOPS_DEVICE void solve_damped(const TopkContext<T>& t, int c, T square, T delta, int filters,
                               Complex<T>* factors, unsigned char* swapped, T least, T* spare,
                               T* imaginary) {
  const TridiagonalFactors<Complex<T>> f{factors, swapped, t.p, t.k, c};
  factor_tridiagonal(f, t.d, t.e, Complex<T>(square, delta), least);
  const ComplexVector<T> x{t.x + c, imaginary + c, t.kx, t.kx};
#pragma unroll 1
  for (int round = 0; round <= filters; ++round) {
    for (int i = 0; i < t.p; ++i) spare[i * t.kx + c] = x.get(i).re, imaginary[i * t.kx + c] = T(0);
    solve_tridiagonal(f, x);
    for (int i = 0; i < t.p; ++i) {
      const Complex<T> z = x.get(i);  // minus the resolvent
      t.x[i * t.kx + c] = round < filters ? spare[i * t.kx + c] - delta * z.im : -z.re;
    }
  }
}

// The same for the singular values t.value (of B) after the Gram route, in the basis of T.
// `factors` holds complex numbers; a block that needs none runs the real elimination in the same
// memory.
template <class T>
KDOPS_DEVICE void solve_resolvents(const TopkContext<T>& t, bool lorentz, T* factors,
                                   unsigned char* swapped, T* spare, T* imaginary) {
  const int c = static_cast<int>(threadIdx.x);
  const T norm = tridiagonal_norm(t), least = norm * kEpsilon<T>;
  if (warp_id() == 0) {
    const bool active = c < t.k;
    const T s = active ? t.value[c] : T(0), window = kEpsilon<T> * t.p * t.value[0];
    const T below = s - window, edge = below > T(0) ? below * below : -norm;
    const bool met = active && eigenvalues_above(t, edge, least * kEpsilon<T>) > t.k;
    const bool damped = active && (lorentz || met);
    const bool any = warp_any(damped);
    if (active && any) {
      const T delta = damped ? max(window * max(2 * s, window), least * kEpsilon<T>) : T(0);
      solve_damped(t, c, s * s, delta, damped && !lorentz ? 1 : 0,
                   reinterpret_cast<Complex<T>*>(factors), swapped,
                   damped ? least * kEpsilon<T> : least, spare, imaginary);
    }
    if (active && !any) {
      const TridiagonalFactors<T> f{factors, swapped, t.p, t.k, c};
      factor_tridiagonal(f, t.d, t.e, s * s, least);
      solve_tridiagonal(f, StridedVector<T>{t.x + c, t.kx});
      for (int i = 0; i < t.p; ++i) t.x[i * t.kx + c] = -t.x[i * t.kx + c];
    }
  }
  __syncthreads();
}

// The same in the basis of B, from `saved`; flags and, where they fit, factors lie in pool.
template <class T>
KDOPS_DEVICE void resolve_tridiagonal(const TopkContext<T>& t, const TopkPlan& plan, const T* saved,
                                      bool lorentz, T* factors, T* pool, T* spare, T* imaginary) {
  for (int i = static_cast<int>(threadIdx.x); i < t.p; i += kTopkThreads) {
    t.d[i] = saved[t.p * t.p + i];
    t.tau[i] = saved[t.p * t.p + t.p + i];
    t.e[i] = i + 1 < t.p ? saved[t.p * t.p + 2 * t.p + i] : T(0);
  }
  __syncthreads();
  auto* swapped = reinterpret_cast<unsigned char*>(pool);
  if (plan.factors_shared) factors = pool + (t.p * t.k + 15) / 16 * 16 / sizeof(T);
  apply_reflectors(t, saved, t.p, true);
  solve_resolvents(t, lorentz, factors, swapped, spare, imaginary);
  apply_reflectors(t, saved, t.p, false);
}

}  // namespace kdops::svd::gpu
