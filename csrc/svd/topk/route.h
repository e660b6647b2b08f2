// How the triples of a matrix were found, and when a Gram matrix is good enough for them. The CPU
// and the CUDA kernels keep the route among what the forward saves of the matrix.
#pragma once

namespace kdops::svd {

enum class TopkRoute { gram = 1, dense = 2, not_finite = 3 };

// Below this fraction of the largest, a singular value taken from the Gram matrix is refused: it
// and its vectors are exact to eps s_1 / s_k only.
template <class T>
inline constexpr T kSmallestRatio = T(1) / 48;

}  // namespace kdops::svd
