// Solves (T - shift) x = b for k shifts at once, one lane each: Gaussian elimination with partial
// pivoting on a tridiagonal matrix, for real numbers (inverse iteration; gradient) and complex ones
// (gradient near equal singular values). And inverse iteration for the k largest eigenvectors.
#pragma once

#include "svd/topk/gpu/tridiagonal.cuh"

namespace kdops::svd::gpu {
using namespace kdops::gpu;

template <class T>
struct Complex {
  T re, im;
  KDOPS_DEVICE Complex(T real = T(0), T imaginary = T(0)) : re(real), im(imaginary) {}
};
template <class T>
KDOPS_DEVICE Complex<T> operator*(Complex<T> a, Complex<T> b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
template <class T>
KDOPS_DEVICE Complex<T> operator-(Complex<T> a, Complex<T> b) {
  return {a.re - b.re, a.im - b.im};
}
template <class T>
KDOPS_DEVICE T size_of(Complex<T> a) {
  return abs(a.re) + abs(a.im);
}
template <class T>
KDOPS_DEVICE T size_of(T a) {
  return abs(a);
}
template <class T>
KDOPS_DEVICE Complex<T> inverse_of(Complex<T> a) {
  if (abs(a.re) >= abs(a.im)) {
    const T r = a.im / a.re, d = T(1) / (a.re + a.im * r);
    return {d, -r * d};
  }
  const T r = a.re / a.im, d = T(1) / (a.re * r + a.im);
  return {r * d, -d};
}
template <class T>
KDOPS_DEVICE T inverse_of(T a) {
  return T(1) / a;
}

// Factors of k matrices: entry q of row i of matrix c at data[(q * p + i) * k + c]; q: 0 the
// inverse pivot, 1 and 2 the entries right of it, 3 the multiplier. swapped: rows i and i + 1 were.
template <class N>
struct TridiagonalFactors {
  N* data;
  unsigned char* swapped;
  int p, k, c;
  KDOPS_DEVICE N& at(int q, int i) const { return data[(q * p + i) * k + c]; }
  KDOPS_DEVICE unsigned char& swap(int i) const { return swapped[i * k + c]; }
};

// A pivot smaller than `least` becomes `least`: a singular matrix has a large, finite solution.
template <class N, class T>
KDOPS_DEVICE void factor_tridiagonal(const TridiagonalFactors<N>& f, const T* d, const T* e,
                                     N shift, T least) {
  N pivot = N(d[0]) - shift, right = f.p > 1 ? N(e[0]) : N(T(0));
#pragma unroll 1
  for (int i = 0; i + 1 < f.p; ++i) {
    const N below = N(e[i]), next = N(d[i + 1]) - shift;
    const N after = i + 2 < f.p ? N(e[i + 1]) : N(T(0));
    const bool swap = size_of(pivot) < size_of(below);
    if (!swap && size_of(pivot) < least) pivot = N(least);
    const N inverse = inverse_of(swap ? below : pivot);
    const N multiplier = (swap ? pivot : below) * inverse;
    f.at(0, i) = inverse;
    f.at(1, i) = swap ? next : right;
    f.at(2, i) = swap ? after : N(T(0));
    f.at(3, i) = multiplier;
    f.swap(i) = swap;
    pivot = swap ? right - multiplier * next : next - multiplier * right;
    right = swap ? N(T(0)) - multiplier * after : after;
  }
  if (size_of(pivot) < least) pivot = N(least);
  f.at(0, f.p - 1) = inverse_of(pivot);
}

// In place; x.get(i) and x.set(i, value) are entry i.
template <class N, class Vector>
KDOPS_DEVICE void solve_tridiagonal(const TridiagonalFactors<N>& f, const Vector& x) {
  N current = x.get(0);
#pragma unroll 1
  for (int i = 0; i + 1 < f.p; ++i) {
    const N next = x.get(i + 1), multiplier = f.at(3, i);
    const bool swap = f.swap(i);
    x.set(i, swap ? next : current);
    current = swap ? current - multiplier * next : next - multiplier * current;
  }
  N later = current * f.at(0, f.p - 1), latest = later;
  x.set(f.p - 1, later);
#pragma unroll 1
  for (int i = f.p - 2; i >= 0; --i) {
    N value = x.get(i) - f.at(1, i) * later;
    if (i + 2 < f.p) value = value - f.at(2, i) * latest;
    value = value * f.at(0, i);
    x.set(i, value);
    latest = later, later = value;
  }
}

// Every stride-th number from data on.
template <class T>
struct StridedVector {
  T* data;
  int stride;
  KDOPS_DEVICE T get(int i) const { return data[i * stride]; }
  KDOPS_DEVICE void set(int i, T value) const { data[i * stride] = value; }
};

// Orthonormal columns of X, in order: classical Gram-Schmidt, twice.
template <class T>
KDOPS_DEVICE void orthonormalise(const TopkContext<T>& t) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll 1
  for (int c = 0; c < t.k; ++c) {
#pragma unroll 1
    for (int pass = 0; pass < 3; ++pass) {  // the first pass only brings the vector to length one
      const int others = pass == 0 ? 0 : c;
      for (int a = warp_id(); a <= others; a += kTopkThreads / kWarp) {
        const int with = a < others ? a : c;
        T dot = T(0);
        for (int i = lane_id(); i < t.p; i += kWarp)
          dot = fma(t.x[i * t.kx + with], t.x[i * t.kx + c], dot);
        dot = warp_sum(dot);
        if (lane_id() == 0) t.line[a] = dot;
      }
      __syncthreads();
      T inside = T(0);
      for (int a = 0; a < others; ++a) inside = fma(t.line[a], t.line[a], inside);
      // what is left of the squared length; a vector that vanishes is given a finite one
      const T left = max(t.line[others] - inside, kEpsilon<T> * kEpsilon<T>);
      const T scale = pass == 0 ? rsqrt(max(t.line[others], kTiny<T>)) : rsqrt(left);
      for (int i = thread; i < t.p; i += kTopkThreads) {
        T entry = t.x[i * t.kx + c];
        for (int a = 0; a < others; ++a) entry = fma(-t.line[a], t.x[i * t.kx + a], entry);
        t.x[i * t.kx + c] = entry * scale;
      }
      __syncthreads();
    }
  }
}

// A fixed number in [-1, 1) for entry i of start vector c.
template <class T>
KDOPS_DEVICE T start_entry(int i, int c) {
  unsigned h = static_cast<unsigned>(i * kMaxK + c) * 2654435769u + 12345u;
  h = (h ^ (h >> 15)) * 2246822519u;
  h = (h ^ (h >> 13)) * 3266489917u;
  return T(h >> 8) * T(1.0 / (1 << 23)) - T(1);
}

// X: orthonormal eigenvectors of the tridiagonal matrix for value[0..k). Equal and close values are
// told apart by their start vectors and by orthogonalisation after each of three solves.
template <class T>
KDOPS_DEVICE void inverse_iteration(const TopkContext<T>& t, T norm, T* factors,
                                    unsigned char* swapped) {
  const int thread = static_cast<int>(threadIdx.x);
  const TridiagonalFactors<T> f{factors, swapped, t.p, t.k, thread};
  for (int at = thread; at < t.p * t.k; at += kTopkThreads)
    t.x[at / t.k * t.kx + at % t.k] = start_entry<T>(at / t.k, at % t.k);
  if (thread < t.k) factor_tridiagonal(f, t.d, t.e, t.value[thread], norm * kEpsilon<T>);
  __syncthreads();
#pragma unroll 1
  for (int iteration = 0; iteration < 3; ++iteration) {
    if (thread < t.k) solve_tridiagonal(f, StridedVector<T>{t.x + thread, t.kx});
    __syncthreads();
    orthonormalise(t);
  }
}

}  // namespace kdops::svd::gpu
