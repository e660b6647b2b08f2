// What the forward of the top-k SVD saves of a matrix for its gradient: `saved`, [*, rows, p], in
// one layout on the CPU and, for p <= 128, on CUDA (above: gpu/large_context.cuh). No more than
// numbers and places, for the glue, the CPU's kernels and CUDA's alike.
#pragma once

#include <cstdint>

#include "svd/limits.h"

namespace kdops::svd {

// How the triples were found. gram: tridiagonalisation of the Gram matrix; dense: all triples;
// krylov: a Krylov basis of the Gram matrix (p > 128).
enum class TopkRoute { gram = 1, dense = 2, not_finite = 3, krylov = 4 };

// Below this fraction of the largest, a singular value taken from the Gram matrix is refused: it
// and its vectors are exact to eps s_1 / s_k only.
template <class T>
inline constexpr T kSmallestRatio = T(1) / 48;

// Rows of `saved`.
inline constexpr int64_t topk_saved_rows(int64_t p, int64_t k) {
  return p <= kLargestSmallSide ? p + 3 : p + 2 * k + 8;
}

// Everything is of f A, which has a norm of about one; p = min(m, n).
struct TopkSaved {
  int p, k;

  // The route; f, a power of two; after the Gram route by how much the squares of the k values
  // differ from the eigenvalues of T, at most.
  static constexpr int kRoute = 0, kScale = 1, kDoubt = 2, kHeader = 3;

  constexpr bool together() const { return p <= kLargestSmallSide; }
  constexpr int64_t size() const { return p * topk_saved_rows(p, k); }

  template <class T>
  static constexpr void set_route(T* saved, TopkRoute route) {
    saved[kRoute] = static_cast<T>(static_cast<int>(route));
  }
  template <class T>
  static constexpr bool took(const T* saved, TopkRoute route) {
    return saved[kRoute] == static_cast<T>(static_cast<int>(route));
  }

  // p <= 128, Gram route: G = Q T QT, T with d (p), e (p - 1), and tau (p - 2) of the reflectors,
  // which are p rows on CUDA; on the CPU these are packed (tridiagonal.h),
  // and the k small-side vectors follow. Header and T fill three rows, but that for p = 1, where k
  // is p and nobody solves with T, d shares its place.
  constexpr int diagonal_at() const { return kHeader; }
  constexpr int off_diagonal_at() const { return kHeader + p; }
  constexpr int tau_at() const { return off_diagonal_at() + p - 1; }
  constexpr int reflectors_at() const { return 3 * p; }

  // Dense route: all p singular values, all p small-side vectors as rows.
  constexpr int dense_values_at() const { return kDoubt; }  // which this route does not need
  constexpr int dense_vectors_at() const { return 3 * p; }

  // p > 128: the number of leading pairs that are kept and, of these, of those that were taken away
  // before the matrix that is kept was formed; their values and vectors (rows); then d, e, tau (p
  // each) of that matrix' Gram matrix, and its reflectors as rows or (krylov) itself, p x p.
  constexpr int most_leading() const { return 2 * k + 4; }
  constexpr int count_at() const { return kHeader; }
  constexpr int before_at() const { return kHeader + 1; }
  constexpr int leading_values_at() const { return kHeader + 2; }
  constexpr int leading_vectors_at() const { return leading_values_at() + most_leading(); }
  constexpr int64_t band_at() const { return leading_vectors_at() + most_leading() * int64_t(p); }
  constexpr int64_t matrix_at() const { return band_at() + 3 * int64_t(p); }
};

}  // namespace kdops::svd
