// The part of the top-k gradient for a large small side that stands for the vectors outside the
// top k: x_c = sum over j > k of v_j <v_j, b_c> / (s_c^2 - s_j^2) = (s_c^2 - G)^+ b_c, where G is
// what the forward's last round left of the Gram matrix and b is orthogonal to the k vectors.
//
// With M = s_c^2 - T and a pole a + ib, x = Re z + (a / b) Im z, z = (M - a - ib)^-1 v, is
// M ((M - a)^2 + b^2)^-1 v. Nothing grows by more than 1 / b, not even along the k vectors, where M
// is singular and v a rounding error.
//   "lorentz": a = tau^2 and b = 2 tau s_c make it inv(s_c - s_j) inv(s_c + s_j), exactly.
//   "mask": where all values outside are clear of the k-th, a = 0 and a b of some eps. Else eight
//     poles, one after another, on a circle of radius t about zero at angles (j + 1/2) pi / 8: with
//     M^2 ((M - a)^2 + b^2)^-1 for the others M^15 (M^16 + t^16)^-1, which is 1 / gap but for
//     (t / gap)^16 of it, and zero inside. One after another, since each takes away what rounding
//     lets the one before it leave there; t is where s_c - s_j = tau.
#pragma once

#include "svd/topk/gpu/inverse_iteration.cuh"
#include "svd/topk/gpu/large_gradients.cuh"
#include "svd/topk/gpu/large_reduce.cuh"

namespace kdops::svd::gpu {

// What the shifted solves of shared/ ask of a number. Comparisons are for sizes: see abs().
template <class T>
struct Complex {
  T re, im;
  KDOPS_DEVICE Complex() : re(0), im(0) {}
  KDOPS_DEVICE explicit Complex(T real, T imaginary = T(0)) : re(real), im(imaginary) {}
  KDOPS_DEVICE Complex operator-() const { return Complex(-re, -im); }
  KDOPS_DEVICE friend Complex operator-(Complex a, Complex b) {
    return Complex(a.re - b.re, a.im - b.im);
  }
  KDOPS_DEVICE friend Complex operator*(Complex a, Complex b) {
    return Complex(fma(a.re, b.re, -a.im * b.im), fma(a.re, b.im, a.im * b.re));
  }
  // scaled, lest squares overflow or vanish
  KDOPS_DEVICE friend Complex operator/(Complex a, Complex b) {
    const T size = T(1) / abs(b).re, re = b.re * size, im = b.im * size;
    const T inverse = size / fma(re, re, im * im);
    return a * Complex(re * inverse, -im * inverse);
  }
  KDOPS_DEVICE friend bool operator<(Complex a, Complex b) { return a.re < b.re; }
  KDOPS_DEVICE friend bool operator>(Complex a, Complex b) { return a.re > b.re; }
  KDOPS_DEVICE friend Complex abs(Complex x) {
    return Complex(kdops::gpu::abs(x.re) + kdops::gpu::abs(x.im));
  }
  KDOPS_DEVICE friend Complex copysign(Complex size, Complex) { return size; }
};

template <class T>
struct ComplexBand {
  const T *d, *e;
  KDOPS_DEVICE Complex<T> diagonal(int i) const { return Complex<T>(d[i]); }
  KDOPS_DEVICE Complex<T> coupling(int i) const { return Complex<T>(e[i]); }
};

// The poles of row c, in turn. value: s, descending; norm: of T.
template <class T>
struct Poles {
  int count;
  Complex<T> pole, turn;

  KDOPS_DEVICE Poles(const T* value, int c, int p, T norm, bool crowded, bool lorentz)
      : count(1), turn(T(1)) {
    const T own = value[c], tau = closeness<T>(p) * value[0], rounding = 12 * kEpsilon<T> * norm;
    if (lorentz) {
      pole = Complex<T>(tau * tau, max(2 * tau * own, rounding));
    } else if (!crowded) {
      pole = Complex<T>(T(0), rounding);
    } else {
      // of a value of one or two tau, whose square is not much more, less than tau
      const T t = max(min(tau * (2 * own - tau), T(0.75) * own * own), rounding);
      count = 8;
      pole = Complex<T>(t * T(0.98078528040323044), t * T(0.19509032201612827));  // pi / 16
      turn = Complex<T>(T(0.92387953251128676), T(0.38268343236508977));          // pi / 8
    }
  }
};

// Numbers of the workspace: factors, solutions and flags.
inline constexpr int64_t large_resolvent_numbers(int p, int k) { return int64_t(11) * p * k; }

// x (k rows of p numbers, b on entry) in the basis of T, a thread per row. value: s_c (of f A); d
// and e: T's; norm: its largest eigenvalue. work: large_resolvent_numbers().
template <class T>
KDOPS_DEVICE void solve_rows(const LargeContext<T>& t, const T* value, T norm, bool crowded,
                             bool lorentz, T* x, T* work) {
  using V = Complex<T>;
  const int p = t.p, k = t.k, c = static_cast<int>(threadIdx.x);
  if (c < k) {
    auto* factors = reinterpret_cast<V*>(work);
    const StridedVector<V> z{factors + int64_t(4) * p * k + c, k};
    auto* swapped = reinterpret_cast<unsigned char*>(factors + int64_t(5) * p * k);
    const TridiagonalFactors<V> f{factors, swapped, p, k, c};
    T* own = x + c * int64_t(p);
    Poles<T> at(value, c, p, norm, crowded, lorentz);
#pragma unroll 1
    for (int pass = 0; pass < at.count; ++pass) {
      // z = -(T - s^2 + pole)^-1 x
      factor_shifted(ComplexBand<T>{t.d, t.e}, p, V(value[c] * value[c]) - at.pole,
                     V(kEpsilon<T> * kEpsilon<T> * norm), f);
      for (int i = 0; i < p; ++i) z.set(i, V(-own[i]));
      solve_shifted<V>(f, p, z);
      const T a = at.pole.re, b = at.pole.im;
      const T keep = T(pass > 0), real = pass > 0 ? 2 * a : T(1);
      const T imaginary = pass > 0 ? (a - b) * ((a + b) / b) : a / b;
      for (int i = 0; i < p; ++i) {
        const V entry = z.get(i);
        own[i] = fma(keep, own[i], fma(real, entry.re, imaginary * entry.im));
      }
      at.pole = at.pole * at.turn;
    }
  }
  __syncthreads();
}

// x_c = resolvent of x_c by the tridiagonal form: band (d, e, tau), reflectors as rows.
template <class T>
KDOPS_DEVICE void resolve_tridiagonal(const LargeContext<T>& t, const T* band, const T* reflectors,
                                      const T* value, T norm, bool crowded, bool lorentz, T* x,
                                      T* work) {
  const int p = t.p;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < p; i += kTopkThreads)
    t.d[i] = band[i], t.e[i] = band[p + i];
  __syncthreads();
  if (norm == T(0)) norm = tridiagonal_norm(t);
  reflect_rows(reflectors, band + 2 * p, p, x, t.k, true);
  solve_rows(t, value, norm, crowded, lorentz, x, work);
  reflect_rows(reflectors, band + 2 * p, p, x, t.k, false);
}

// The same from the Gram matrix and its leading pairs by conjugate gradients; where they do not get
// there, false and the tridiagonal form of the matrix: reflectors and band (p^2 and 3 p numbers).
template <class T>
KDOPS_DEVICE bool resolve_gram(const LargeContext<T>& t, const T* saved, const T* value,
                               const PolicyInverse<T>& inverse, T* x, T* work, T* copy, T* band) {
  const int p = t.p;
  const LargeSaved place{p, t.k};
  const KeptPairs<T> kept{.G = saved + place.matrix_at(),
                          .rows = saved + place.vectors_at(),
                          .values = saved + LargeSaved::kValues,
                          .count = t.k + static_cast<int>(saved[LargeSaved::kKept])};
  if (conjugate_gradients(t, kept, value, inverse, x, work)) return true;
  for (int64_t at = threadIdx.x; at < int64_t(p) * p; at += kTopkThreads) copy[at] = kept.G[at];
  __syncthreads();
  tridiagonalise_rows(copy, p, band, t.pool, work, t.line);
  return false;
}

// x_c = resolvent of x_c from `saved`. A value of up to tau of the largest, and every value where
// nothing was left outside the k, meets only zeros. work: large_resolvent_numbers() and k p; copy,
// band: p^2 and 3 p numbers more.
template <class T>
KDOPS_DEVICE void resolve_rows(const LargeContext<T>& t, const T* saved, const T* value,
                               bool lorentz, T* x, T* work, T* copy, T* band) {
  const int p = t.p, thread = static_cast<int>(threadIdx.x);
  const LargeSaved place{p, t.k};
  const PolicyInverse<T> inverse(value[0], p, lorentz);
  const T zero = closeness<T>(p) * value[0];
  const bool exhausted = saved[LargeSaved::kExhausted] != T(0);
  T* plain = work + large_resolvent_numbers(p, t.k);  // k x p
#pragma unroll 1
  for (int at = thread; at < p * t.k; at += kTopkThreads) {
    const T against_zero = inverse(value[at / p]);
    plain[at] = x[at] * against_zero * against_zero;
  }
  __syncthreads();
  const bool krylov = saved[LargeSaved::kKrylov] != T(0);
  bool solved = exhausted;
  if (!solved && krylov) solved = resolve_gram(t, saved, value, inverse, x, work, copy, band);
  if (!solved) {
    const T norm = krylov ? T(0) : saved[LargeSaved::kNorm];
    const bool crowded = !krylov && saved[LargeSaved::kCrowded] != T(0);
    resolve_tridiagonal(t, krylov ? band : saved + place.band_at(),
                        krylov ? copy : saved + place.matrix_at(), value, norm, crowded, lorentz, x,
                        work);
  }
  __syncthreads();
#pragma unroll 1
  for (int at = thread; at < p * t.k; at += kTopkThreads)
    if (exhausted || value[at / p] <= zero) x[at] = plain[at];
  __syncthreads();
}

}  // namespace kdops::svd::gpu
