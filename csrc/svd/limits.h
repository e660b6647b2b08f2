// What the kernels of this room take: in one place for the CPU, CUDA and Python, where
// kdops/ops/svd/limits.py repeats it (tests/package/test_limits.py compares).
#pragma once

namespace kdops::svd {

// min(m, n) of the full decompositions. Up to it the top-k kernels work on many matrices together
// (the CPU), or on one in shared memory (CUDA); above it on one at a time, in memory of any size.
inline constexpr int kLargestSmallSide = 128;
// k of the top-k kernels: where min(m, n) is at most kLargestSmallSide, and above.
inline constexpr int kLargestK = 16, kLargestKAbove = 32;
// min(m, n) of top-k on CUDA, which keeps a few vectors of the small side in shared memory.
inline constexpr int kLargestTopkOnCuda = 2048;
// Where a Krylov basis costs less than the tridiagonal form: on the CPU from this small side on, on
// CUDA wherever the small side is above kLargestSmallSide.
inline constexpr int kKrylovFromSmallSide = 224, kLargestKrylovK = 8;

}  // namespace kdops::svd
