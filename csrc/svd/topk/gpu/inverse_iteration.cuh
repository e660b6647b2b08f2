// Inverse iteration for the k largest eigenvectors: the shifted solves of shared/, one lane each
// for k shifts at once, and the check that what they found are eigenvectors.
#pragma once

#include "svd/shared/tridiagonal_solve.h"
#include "svd/topk/gpu/multisection.cuh"

namespace kdops::svd::gpu {

// Factors of k matrices: entry q of row i of matrix c at data[(i * k + c) * 4 + q]; q: 0 the
// inverse pivot, 1 and 2 the entries right of it, 3 the multiplier. swapped: rows i and i + 1 were.
template <class T>
struct TridiagonalFactors {
  T* data;
  unsigned char* swapped;
  int p, k, c;
  KDOPS_DEVICE T& at(int q, int i) const { return data[(i * k + c) * 4 + q]; }
  KDOPS_DEVICE void keep(int i, T inverse, T right, T right2, T multiplier, bool swap) const {
    at(0, i) = inverse, at(1, i) = right, at(2, i) = right2, at(3, i) = multiplier;
    swapped[i * k + c] = swap;
  }
  KDOPS_DEVICE FactorRow<T> row(int i) const {
    return {at(0, i), at(1, i), at(2, i), at(3, i), swapped[i * k + c] != 0};
  }
};

// Every stride-th number from data on.
template <class T>
struct StridedVector {
  T* data;
  int stride;
  KDOPS_DEVICE T get(int i) const { return data[i * stride]; }
  KDOPS_DEVICE void set(int i, T value) const { data[i * stride] = value; }
};

// Vectors first .. count - 1, at(i, c) entry i < size of vector c, become orthonormal, to those
// before them too: classical Gram-Schmidt, twice. line: a number per vector.
template <class T, class Entry>
KDOPS_DEVICE void orthonormalise(T* line, int64_t size, int first, int count, const Entry& at) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll 1
  for (int c = first; c < count; ++c) {
#pragma unroll 1
    for (int pass = 0; pass < 3; ++pass) {
      // the first pass only scales by the largest entry, lest squares overflow or vanish
      const int others = pass == 0 ? 0 : c;
      for (int a = warp_id(); a <= others; a += kTopkThreads / kWarp) {
        const int with = a < others ? a : c;
        T dot = T(0);
        for (int64_t i = lane_id(); i < size; i += kWarp) {
          const T entry = at(i, c);
          dot = pass == 0 ? max(dot, abs(entry)) : fma(at(i, with), entry, dot);
        }
        dot = pass == 0 ? warp_max(dot) : warp_sum(dot);
        if (lane_id() == 0) line[a] = dot;
      }
      __syncthreads();
      T inside = T(0);
      for (int a = 0; a < others; ++a) inside = fma(line[a], line[a], inside);
      // what is left of the squared length; a vector that vanishes is given a finite one
      const T left = max(line[others] - inside, kEpsilon<T> * kEpsilon<T>);
      const T scale = pass == 0 ? T(1) / max(line[others], kTiny<T>) : rsqrt(left);
      for (int64_t i = thread; i < size; i += kTopkThreads) {
        T entry = at(i, c);
        for (int a = 0; a < others; ++a) entry = fma(-line[a], at(i, a), entry);
        at(i, c) = entry * scale;
      }
      __syncthreads();
    }
  }
}

// The same for the columns of X, of up to 128 rows, by one warp, which needs no barriers: four inner
// products at a time.
template <class T, template <class> class Context>
KDOPS_DEVICE void orthonormalise_by_warp(const Context<T>& t) {
  constexpr int kRows = kLargestSmallSide / kWarp;
  T* at[kRows];  // loads beyond p, without a condition, are of the last row
  bool inside[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int i = lane_id() + r * kWarp;
    inside[r] = i < t.p, at[r] = t.x + min(i, t.p - 1) * t.kx;
  }
#pragma unroll 1
  for (int c = 0; c < t.k; ++c) {
    T own[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const T entry = at[r][c];
      own[r] = inside[r] ? entry : T(0);
    }
#pragma unroll 1
    for (int pass = 0; pass < 2; ++pass) {
      T left = T(0);  // the squared length of what is left
#pragma unroll 1
      for (int a0 = 0; a0 <= c; a0 += 4) {
        T with[4][kRows], dot[4] = {};
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const int a = min(a0 + q, c);  // own from c on
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            const T entry = at[r][a];
            with[q][r] = a0 + q < c ? entry : own[r];
            dot[q] = fma(own[r], inside[r] ? with[q][r] : T(0), dot[q]);
          }
        }
        const T sum = scatter_sum(dot);  // lane l: of dot l / 8
        left = shuffle(sum, 8 * min(c - a0, 3));
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const T part = shuffle(sum, 8 * q), inner = a0 + q < c ? part : T(0);
          left = fma(-inner, inner, left);
#pragma unroll
          for (int r = 0; r < kRows; ++r) own[r] = fma(-inner, with[q][r], own[r]);
        }
      }
      // a vector that vanishes is given a finite length
      const T scale = rsqrt(max(left, kEpsilon<T> * kEpsilon<T>));
#pragma unroll
      for (int r = 0; r < kRows; ++r) own[r] *= scale;
    }
    sync_warp();
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      if (inside[r]) at[r][c] = own[r];
    sync_warp();
  }
}

// The same for the columns of X. Ends with a barrier.
template <class T, template <class> class Context>
KDOPS_DEVICE void orthonormalise(const Context<T>& t) {
  if (!Context<T>::kAlwaysSmall && t.p > kLargestSmallSide)
    return orthonormalise(t.line, t.p, 0, t.k,
                          [&](int64_t i, int c) -> T& { return t.x[i * t.kx + c]; });
#pragma unroll 1
  for (int c = warp_id(); c < t.k; c += kTopkThreads / kWarp) {  // as the general one scales
    T largest = T(0);
#pragma unroll 1
    for (int i = lane_id(); i < t.p; i += kWarp) largest = max(largest, abs(t.x[i * t.kx + c]));
    const T scale = T(1) / max(warp_max(largest), kTiny<T>);
#pragma unroll 1
    for (int i = lane_id(); i < t.p; i += kWarp) t.x[i * t.kx + c] *= scale;
  }
  __syncthreads();
  if (warp_id() == 0) orthonormalise_by_warp(t);
  __syncthreads();
}

// A fixed number in [-1, 1) for an entry of a start vector, different for every place.
template <class T>
KDOPS_DEVICE T start_entry(int place) {
  unsigned h = static_cast<unsigned>(place) * 2654435769u + 12345u;
  h = (h ^ (h >> 15)) * 2246822519u;
  h = (h ^ (h >> 13)) * 3266489917u;
  return T(h >> 8) * T(1.0 / (1 << 23)) - T(1);
}

// Whether the columns of X are eigenvectors of T to rounding. Ends with a barrier.
template <class T, template <class> class Context>
KDOPS_DEVICE bool residuals_are_small(const Context<T>& t) {
  bool bad = false;
#pragma unroll 1
  for (int c = warp_id(); c < t.k; c += kTopkThreads / kWarp) {
    const auto image = [&](int i) {
      T sum = t.d[i] * t.x[i * t.kx + c];
      if (i > 0) sum = fma(t.e[i - 1], t.x[(i - 1) * t.kx + c], sum);
      return i + 1 < t.p ? fma(t.e[i], t.x[(i + 1) * t.kx + c], sum) : sum;
    };
    T quotient = T(0), square = T(0);
#pragma unroll 1
    for (int i = lane_id(); i < t.p; i += kWarp)
      quotient = fma(image(i), t.x[i * t.kx + c], quotient);
    quotient = warp_sum(quotient);
#pragma unroll 1
    for (int i = lane_id(); i < t.p; i += kWarp) {
      const T r = fma(-quotient, t.x[i * t.kx + c], image(i));
      square = fma(r, r, square);
    }
    bad = bad || !(sqrt(warp_sum(square)) <= kLargestResidual<T> * t.value[0]);
  }
  return !block_any(bad);
}

// alone: no value outside the k lies so close that only all vectors could tell.
struct FoundVectors {
  bool good, alone;
};

// X: orthonormal eigenvectors of the tridiagonal matrix for value[0..k). Equal and close values are
// told apart by their start vectors and by orthogonalisation after each of the solves.
template <class T, template <class> class Context>
KDOPS_DEVICE FoundVectors inverse_iteration(const Context<T>& t, T norm, T* factors,
                                            unsigned char* swapped, int iterations = 3) {
  const int thread = static_cast<int>(threadIdx.x);
  const TridiagonalBand<T> band{t.d, t.e};
  const TridiagonalFactors<T> f{factors, swapped, t.p, t.k, thread};
  bool crowded = false;
#pragma unroll 1
  for (int at = thread; at < t.p * t.k; at += kTopkThreads)
    t.x[at / t.k * t.kx + at % t.k] = start_entry<T>(at / t.k * t.kMost + at % t.k);
  if (thread < t.k) factor_shifted(band, t.p, t.value[thread], norm * kEpsilon<T>, f);
  if (thread == kWarp) {  // meanwhile, in another warp
    const T last = t.value[t.k - 1], whole = t.whole() * sqrt(max(last, T(0)));
    crowded = eigenvalues_above(t, last - clearance(t.p, t.value[0], whole), norm) > T(t.k);
  }
  __syncthreads();
#pragma unroll 1
  for (int iteration = 0; iteration < iterations; ++iteration) {
    if (thread < t.k) solve_shifted<T>(f, t.p, StridedVector<T>{t.x + thread, t.kx});
    __syncthreads();
    orthonormalise(t);
  }
  const bool alone = !block_any(crowded);
  return {residuals_are_small(t), alone};
}

}  // namespace kdops::svd::gpu
