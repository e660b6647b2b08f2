// From approximate small-side vectors to singular triplets: Rayleigh-Ritz on the long side.
//
// W holds the long-side images of k orthonormal small-side vectors P as rows (W = A P). One-sided
// Jacobi, run on the k x k matrix of W's inner products and then applied to W and P together, makes
// W's rows orthogonal to rounding although P came from a Gram matrix. Then signs and order.
#pragma once

#include <utility>

#include "svd/shared/rotation.h"
#include "svd/topk/cpu/few_vectors.h"

namespace kdops::svd::KDOPS_ISA {

template <class T>
inline T dot_rows(const T* a, const T* b, int64_t n) {
  constexpr int kLanes = Pack<T>::kLanes;
  Pack<T> sum[4];
  for (auto& s : sum) s = Pack<T>(T(0));
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int q = 0; q < 4; ++q)
      sum[q] = fma(Pack<T>::load(a + i + q * kLanes), Pack<T>::load(b + i + q * kLanes), sum[q]);
  for (; i < n; i += kLanes) {
    const int width = static_cast<int>(n - i < kLanes ? n - i : kLanes);
    sum[0] = fma(Pack<T>::load_partial(a + i, width), Pack<T>::load_partial(b + i, width), sum[0]);
  }
  return reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

template <class T>
inline void scale_row(T* a, int64_t n, T factor) {
  for (int64_t i = 0; i < n; ++i) a[i] *= factor;
}

// M <- Rᵀ M R and turn <- turn R for the rotation R that clears M[i][j]. False if it is clear.
template <class T>
inline bool rotate_pair(T* M, T* turn, int k, int i, int j, T tolerance) {
  const T off = M[i * k + j], a = M[i * k + i], b = M[j * k + j];
  if (!(std::fabs(off) > tolerance * std::sqrt(a) * std::sqrt(b))) return false;
  const T t = jacobi_tangent(a, b, off), c = 1 / std::sqrt(1 + t * t), s = c * t;
  for (int q = 0; q < k; ++q) {
    const T x = M[q * k + i], y = M[q * k + j];
    M[q * k + i] = c * x - s * y, M[q * k + j] = s * x + c * y;
    const T u = turn[q * k + i], v = turn[q * k + j];
    turn[q * k + i] = c * u - s * v, turn[q * k + j] = s * u + c * v;
  }
  for (int q = 0; q < k; ++q) {
    const T x = M[i * k + q], y = M[j * k + q];
    M[i * k + q] = c * x - s * y, M[j * k + q] = s * x + c * y;
  }
  M[i * k + j] = M[j * k + i] = T(0);
  return true;
}

// Rows x_j <- Σ_i turn[i][j] x_i.
template <class T>
inline void turn_rows(T* rows, int64_t ld, int64_t n, int k, const T* turn) {
  constexpr int kLanes = Pack<T>::kLanes;
  for (int64_t c = 0; c < n; c += kLanes) {
    const int width = static_cast<int>(n - c < kLanes ? n - c : kLanes);
    Pack<T> x[kLargestKAbove];
    for (int i = 0; i < k; ++i) x[i] = Pack<T>::load_partial(rows + i * ld + c, width);
    for (int j = 0; j < k; ++j) {
      Pack<T> sum(T(0));
      for (int i = 0; i < k; ++i) sum = fma(Pack<T>(turn[i * k + j]), x[i], sum);
      sum.store_partial(rows + j * ld + c, width);
    }
  }
}

// Columns of turn (and the squared norms) into descending order of the norms.
template <class T>
inline bool sort_descending(T* squares, T* turn, int k) {
  bool moved = false;
  for (int i = 1; i < k; ++i) {
    for (int j = i; j > 0 && squares[j] > squares[j - 1]; --j) {
      std::swap(squares[j], squares[j - 1]);
      for (int q = 0; q < k; ++q) std::swap(turn[q * k + j], turn[q * k + j - 1]);
      moved = true;
    }
  }
  return moved;
}

// One round: the inner products of W's rows, their diagonalisation, the rotation of W and P.
// squares gets the squared norms; false when the rows were orthogonal and in order.
template <class T>
inline bool orthogonalise_once(T* W, int64_t ldw, int64_t length, T* P, int p, int k, T* squares) {
  T M[kLargestKAbove * kLargestKAbove], turn[kLargestKAbove * kLargestKAbove];
  inner_products<T>({W, ldw, k}, {W, ldw, k}, length, M, k, 1);
  for (int i = 0; i < k; ++i)
    for (int j = 0; j < k; ++j) turn[i * k + j] = T(i == j);
  const T tolerance = 8 * std::numeric_limits<T>::epsilon();
  bool turned = false, again = true;
  for (int sweep = 0; sweep < 10 && again; ++sweep) {
    again = false;
    for (int i = 0; i < k; ++i)
      for (int j = i + 1; j < k; ++j) again |= rotate_pair(M, turn, k, i, j, tolerance);
    turned |= again;
  }
  for (int i = 0; i < k; ++i) squares[i] = M[i * k + i];
  turned |= sort_descending(squares, turn, k);
  if (!turned) return false;
  turn_rows(W, ldw, length, k, turn);
  turn_rows(P, p, p, k, turn);
  return true;
}

// W (k rows of `length`, ldw apart) becomes orthonormal, P (k x p) turns with it, sigma gets the
// norms in descending order; every row of W must be well above rounding.
template <class T>
inline void rayleigh_ritz(T* W, int64_t ldw, int64_t length, T* P, int p, int k, T* sigma) {
  for (int round = 0; round < 4; ++round)
    if (!orthogonalise_once(W, ldw, length, P, p, k, sigma)) break;
  for (int i = 0; i < k; ++i) {
    sigma[i] = std::sqrt(sigma[i]);
    scale_row(W + i * ldw, length, 1 / sigma[i]);
  }
}

}  // namespace kdops::svd::KDOPS_ISA
