// The k <= 16 largest singular triples: one block per matrix (topk_kernels.cuh, what a Gram matrix
// cannot resolve in dense_kernels.cuh, and the gradient in backward_kernels.cuh). This file: the
// arguments and the shared memory; rows of B are staged by rows.cuh.
//
// B (length x p, p <= 128) is the oriented matrix, scaled by a power of two. Vectors of the small
// side lie in shared memory as X[i * kx + c], kx odd (entry i of vector c): no bank conflicts along
// either index. What the forward saves (shared/saved.h) is all NaN for a matrix that is not finite.
#pragma once

#include "svd/full/gpu/block_context.cuh"
#include "svd/shared/saved.h"
#include "svd/topk/gpu/rows.cuh"

namespace kdops::svd::gpu {

template <class T>
struct TopkArguments : BatchShape {
  const T* A = nullptr;
  T *U = nullptr, *S = nullptr, *Vh = nullptr, *saved = nullptr;  // U may be null
  int k = 0;
  bool canonical = false;
};

template <class T>
KDOPS_DEVICE Oriented<T> orient(const TopkArguments<T>& args, T up) {
  return {args.A + blockIdx.x * args.m * args.n, args.length(), args.p(), args.long_rows(), up};
}

// All results of a matrix that is not finite.
template <class T>
KDOPS_DEVICE void topk_fill_nan(const TopkArguments<T>& args) {
  fill_nan(args.S, blockIdx.x, args.k);
  fill_nan(args.U, blockIdx.x, args.m * args.k);
  fill_nan(args.Vh, blockIdx.x, args.n * args.k);
  fill_nan(args.saved, blockIdx.x, TopkSaved{args.p(), args.k}.size());
}

// A long-side matrix (length x k): entry (row, c) of U (tall) or of Vh (wide).
template <class T>
struct LongSide {
  T* data;
  int64_t length;
  int k;
  bool wide;
  KDOPS_DEVICE T& at(int64_t row, int c) const {
    return wide ? data[c * length + row] : data[row * k + c];
  }
};

template <class T>
struct TopkContext {
  static constexpr int kMost = kLargestK;
  static constexpr bool kAlwaysSmall = true;  // p <= 128
  int p, k, kx, kp;              // kx: stride of X; kp: k rounded up to a multiple of 4
  T *d, *e, *tau;                // of the tridiagonal matrix
  T* x;                          // p x kx
  T* columns;                    // p x kp: small-side vectors, padded with zero columns
  T *matrix, *turn;              // kLargestK x kLargestK each
  T* line;                       // kLargestK numbers per warp and more: sums of a block
  T *low, *high, *value, *sign;  // kLargestK each
  int *rank, *counter;           // kLargestK each
  T* pool;

  static KDOPS_DEVICE T whole() { return T(0); }  // see LargeContext

  // Places everything in shared memory; the pool comes last.
  KDOPS_DEVICE TopkContext(T* shared, int p_, int k_) : p(p_), k(k_) {
    kx = k | 1, kp = (k + 3) / 4 * 4;
    columns = shared, shared += p * kp;
    matrix = shared, shared += kLargestK * kLargestK;
    turn = shared, shared += kLargestK * kLargestK;
    line = shared, shared += kTopkThreads + 2 * kLargestK * kLargestK;
    d = shared, shared += p;
    e = shared, shared += p;
    tau = shared, shared += p;
    x = shared, shared += p * kx;
    low = shared, high = low + kLargestK, value = high + kLargestK, sign = value + kLargestK;
    rank = reinterpret_cast<int*>(sign + kLargestK), counter = rank + kLargestK;
    shared += 6 * kLargestK;
    pool = shared + (4 - (3 * p + p * kx) % 4) % 4;  // 16-byte aligned
  }
};
inline constexpr int topk_fixed_numbers(int p, int k) {
  const int kx = k | 1, kp = (k + 3) / 4 * 4;
  return p * kp + 4 * kLargestK * kLargestK + kTopkThreads + 3 * p + p * kx + 6 * kLargestK + 4;
}

// Sums over the block of value[a][b] (4 x 4), to out[a * kLargestK + b]; two barriers.
template <class T>
KDOPS_DEVICE void sum_tile(T (&value)[16], T* line, T* out) {
  const T sum = scatter_sum(value);
  if (lane_id() % 2 == 0) line[warp_id() * 16 + lane_id() / 2] = sum;
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < 16) {
    T total = T(0);
    for (int w = 0; w < kTopkThreads / kWarp; ++w) total += line[w * 16 + thread];
    out[thread / 4 * kLargestK + thread % 4] = total;
  }
  __syncthreads();
}

// out (k x k, rows kLargestK apart) = sum over rows of left(row, a) right(row, b); upper: only the
// blocks on and above the diagonal.
template <class T, class Left, class Right>
KDOPS_DEVICE void inner_products(const TopkContext<T>& t, int64_t rows, const Left& left,
                                 const Right& right, bool upper, T* out) {
#pragma unroll 1
  for (int a0 = 0; a0 < t.k; a0 += 4) {
#pragma unroll 1
    for (int b0 = upper ? a0 : 0; b0 < t.k; b0 += 4) {
      T sum[16];
#pragma unroll
      for (int i = 0; i < 16; ++i) sum[i] = T(0);
      for (int64_t row = threadIdx.x; row < rows; row += kTopkThreads) {
        T a[4], b[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          a[i] = a0 + i < t.k ? left(row, a0 + i) : T(0);
          b[i] = b0 + i < t.k ? right(row, b0 + i) : T(0);
        }
#pragma unroll
        for (int i = 0; i < 16; ++i) sum[i] = fma(a[i / 4], b[i % 4], sum[i]);
      }
      sum_tile(sum, t.line, out + a0 * kLargestK + b0);
    }
  }
}

// X = X - V (V^T X) on the small side, V orthonormal columns in t.columns, X in t.x.
template <class T>
KDOPS_DEVICE void project_out(const TopkContext<T>& t) {
  inner_products(
      t, t.p, [&](int64_t i, int c) { return t.columns[i * t.kp + c]; },
      [&](int64_t i, int c) { return t.x[i * t.kx + c]; }, false, t.matrix);
  for (int at = static_cast<int>(threadIdx.x); at < t.p * t.k; at += kTopkThreads) {
    const int i = at / t.k, c = at % t.k;
    T sum = t.x[i * t.kx + c];
    for (int a = 0; a < t.k; ++a)
      sum = fma(-t.columns[i * t.kp + a], t.matrix[a * kLargestK + c], sum);
    t.x[i * t.kx + c] = sum;
  }
  __syncthreads();
}

}  // namespace kdops::svd::gpu
