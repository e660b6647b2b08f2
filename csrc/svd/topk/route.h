// How the triples of a matrix were found, and when a Gram matrix is good enough for them. The CPU
// and the CUDA kernels keep the route among what the forward saves of the matrix.
#pragma once

#include <cstdint>

#include "svd/limits.h"

namespace kdops::svd {

// gram: tridiagonalisation of the Gram matrix; krylov: a Krylov basis of it (small side > 128).
enum class TopkRoute { gram = 1, dense = 2, not_finite = 3, krylov = 4 };

// Rows of `saved`, [*, rows, p]: layout.h.
inline constexpr int64_t topk_saved_rows(int64_t p, int64_t k) {
  return p <= kLargestSmallSide ? p + 3 : p + 2 * k + 8;
}

// Below this fraction of the largest, a singular value taken from the Gram matrix is refused: it
// and its vectors are exact to eps s_1 / s_k only.
template <class T>
inline constexpr T kSmallestRatio = T(1) / 48;

}  // namespace kdops::svd
