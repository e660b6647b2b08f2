// The top-k SVD of matrices with a small side p above 128, a block per matrix: what its kernels
// share. Names are those of context.cuh; what is of size p lies in global memory, but for the
// tridiagonal form, and vectors are rows there, one after another.
//
// A Gram matrix resolves values down to s_1 / 48. Smaller ones come in further rounds, each from
// the Gram matrix of B less the triples found so far. `saved` of a matrix, topk_saved_rows(p, k) p
// numbers, all NaN for a matrix that is not finite, describes the last round:
//   header: f, by which A is scaled; the norm of the Gram matrix of f A - (earlier triples); 1 if
//   values outside the k lie close to the k-th; 1 if nothing was left for another round; how many
//   pairs beyond the k-th are kept; 1 if they are of a Krylov basis; how many of the k the first
//   basis found, and the largest value then; at kValues the values kept
//   d, e, tau of its tridiagonal form (p each), the k small-side vectors and those beyond, as rows,
//   the reflectors as rows or, after a Krylov basis, the Gram matrix itself
#pragma once

#include <algorithm>

#include "svd/topk/gpu/context.cuh"
#include "svd/topk/gpu/large_tile.cuh"

namespace kdops::svd::gpu {

inline constexpr int kMostVectors = 32;
inline constexpr int kExtraPairs = 4;  // that a Krylov basis looks for beyond the wanted ones
inline constexpr int kSquareStride = kMostVectors + 1;
inline constexpr int kSquareNumbers = kMostVectors * kSquareStride;  // of a k x k matrix

// x, of which the compiler forgets what it knows: addresses that come of it are computed anew in
// every round of a loop, where keeping all of them would take more registers than there are.
KDOPS_DEVICE int forgotten(int x) {
#if !defined(KDOPS_SIM)
  asm volatile("" : "+r"(x));
#endif
  return x;
}

struct LargeSaved {
  int p, k;
  static constexpr int kScale = 0, kNorm = 1, kCrowded = 2, kExhausted = 3, kKept = 4, kKrylov = 5,
                       kFound = 6, kLargest = 7;
  static constexpr int kValues = 8, kHeader = kValues + kExtraPairs;
  KDOPS_DEVICE int band_at() const { return kHeader; }
  KDOPS_DEVICE int64_t vectors_at() const { return kHeader + 3 * int64_t(p); }
  KDOPS_DEVICE int64_t matrix_at() const { return vectors_at() + (k + kExtraPairs) * int64_t(p); }
  KDOPS_DEVICE int64_t size() const { return topk_saved_rows(p, k) * p; }
};

// Fields as in TopkContext; k is the number of vectors in work, X lies in global memory.
template <class T>
struct LargeContext {
  static constexpr int kMost = kMostVectors;
  static constexpr bool kAlwaysSmall = false;  // p <= 128
  int p, k, kx;
  T *d, *e;  // in the pool, while that is not in use
  T* x;
  T* line;                       // a number per thread
  T *low, *high, *value, *sign;  // kMost each
  int* counter;
  T* pool;

  KDOPS_DEVICE LargeContext(T* shared, int p_, int k_) : p(p_), k(k_), kx(k_ | 1), x(nullptr) {
    line = shared;
    low = line + kTopkThreads, high = low + kMost, value = high + kMost, sign = value + kMost;
    counter = reinterpret_cast<int*>(sign + kMost);
    pool = sign + 2 * kMost + 4;
    d = pool, e = pool + p;
  }
  // s_1 of f A, if it was found in an earlier round, else zero. In shared memory: a register that
  // lives so long is one too many.
  KDOPS_DEVICE T& whole() const { return sign[2 * kMost]; }
};
inline constexpr int large_fixed_numbers() { return kTopkThreads + 5 * kMostVectors + 4; }

inline constexpr int kTopkWarps = kTopkThreads / kWarp, kTogether = 4;
// Columns of a Gram matrix that a lane multiplies at a time, and numbers for the sums of all warps
// (large_product.cuh).
template <class T>
inline constexpr int kLaneColumns = 32 / sizeof(T);
template <class T>
inline constexpr int kProductNumbers = kTopkThreads * kTogether * kLaneColumns<T>;

// One after another: three vectors of size p, the stage of a product, two k x k matrices, the sums
// of a product with a Gram matrix.
template <class T>
inline constexpr int large_pool_numbers(int p) {
  return std::max({3 * p, FlatTile::kNumbers, 2 * kSquareNumbers, kProductNumbers<T>});
}

// For the gradient: three vectors of size p or a stage, and beside them three k x k matrices.
template <class T>
inline constexpr int large_gradient_pool_numbers(int p) {
  return std::max({3 * p, FlatTile::kNumbers, kProductNumbers<T>});
}

// V (count rows of p numbers) becomes Q V, or Q^T V: a warp per vector. Reflector j is row j of
// `reflectors`, from entry j + 1 on. Ends with a barrier.
template <class T>
KDOPS_DEVICE void reflect_rows(const T* reflectors, const T* tau, int p, T* V, int count,
                               bool transposed) {
#pragma unroll 1
  for (int c = warp_id(); c < count; c += kTopkThreads / kWarp) {
    T* x = V + c * int64_t(p);
#pragma unroll 1
    for (int step = 0; step + 2 < p; ++step) {
      const int j = transposed ? step : p - 3 - step, begin = (j + 1) / kWarp * kWarp + lane_id();
      const T* v = reflectors + j * int64_t(p);
      T dot = T(0);
#pragma unroll 4
      for (int i = begin; i < p; i += kWarp)
        if (i > j) dot = fma(v[i], x[i], dot);
      dot = tau[j] * warp_sum(dot);
#pragma unroll 4
      for (int i = begin; i < p; i += kWarp)
        if (i > j) x[i] = fma(-dot, v[i], x[i]);
    }
  }
  __syncthreads();
}

}  // namespace kdops::svd::gpu
