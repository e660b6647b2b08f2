// Rayleigh-Ritz on the long side for vectors that are rows: W = P B^T becomes orthonormal although
// P came from Gram matrices. As refine.cuh does for small sides, after the text of cpu/refine.h.
#pragma once

#include "svd/shared/rotation.h"
#include "svd/topk/gpu/inverse_iteration.cuh"
#include "svd/topk/gpu/large_product.cuh"

namespace kdops::svd::gpu {

// M <- R^T M R and turn <- turn R for the rotation R that clears M[i][j], by one warp. False, the
// same in all lanes, if that is clear.
template <class T>
KDOPS_DEVICE bool rotate_pair(T* M, T* turn, int k, int i, int j, T tolerance) {
  const T off = M[i * kSquareStride + j], a = M[i * kSquareStride + i];
  const T b = M[j * kSquareStride + j];
  sync_warp();
  if (!(abs(off) > tolerance * sqrt(a) * sqrt(b))) return false;
  const T t = jacobi_tangent(a, b, off), c = T(1) / sqrt(1 + t * t), s = c * t;
  const auto turn_two = [&](T& x, T& y) {
    const T first = x, second = y;
    x = fma(c, first, -s * second), y = fma(s, first, c * second);
  };
  const int lane = lane_id();
  if (lane < k) {
    turn_two(M[lane * kSquareStride + i], M[lane * kSquareStride + j]);
    turn_two(turn[lane * kSquareStride + i], turn[lane * kSquareStride + j]);
  }
  sync_warp();
  if (lane < k) turn_two(M[i * kSquareStride + lane], M[j * kSquareStride + lane]);
  sync_warp();
  if (lane == 0) M[i * kSquareStride + j] = M[j * kSquareStride + i] = T(0);
  sync_warp();
  return true;
}

// Columns of turn into descending order of `value`, by one lane. Whether any moved.
template <class T>
KDOPS_DEVICE bool sort_columns(T* value, T* turn, int k) {
  bool moved = false;
  const auto trade = [](T& x, T& y) {
    const T kept = x;
    x = y, y = kept;
  };
  for (int i = 1; i < k; ++i) {
    for (int j = i; j > 0 && value[j] > value[j - 1]; --j) {
      trade(value[j], value[j - 1]);
      for (int q = 0; q < k; ++q)
        trade(turn[q * kSquareStride + j], turn[q * kSquareStride + j - 1]);
      moved = true;
    }
  }
  return moved;
}

// From M = W W^T, in shared memory: the rotation to turn, the squared norms to t.value. Whether
// anything turned, the same in every thread.
template <class T>
KDOPS_DEVICE bool diagonalise(const LargeContext<T>& t, T* M, T* turn) {
  bool turned = false;
  if (warp_id() == 0) {
    const int lane = lane_id(), k = t.k;
    for (int q = 0; q < k && lane < k; ++q) turn[q * kSquareStride + lane] = T(q == lane);
    sync_warp();
    bool again = true;
#pragma unroll 1
    for (int sweep = 0; sweep < 10 && again; ++sweep) {
      again = false;
#pragma unroll 1
      for (int i = 0; i < k; ++i)
#pragma unroll 1
        for (int j = i + 1; j < k; ++j)
          again = rotate_pair(M, turn, k, i, j, 8 * kEpsilon<T>) || again;
      turned = turned || again;
    }
    if (lane < k) t.value[lane] = M[lane * kSquareStride + lane];
    sync_warp();
    if (lane == 0) turned = sort_columns(t.value, turn, k) || turned;
  }
  return block_any(turned);
}

// Rows x_j <- sum over i of turn[i][j] x_i.
template <class T>
KDOPS_DEVICE void turn_rows(T* rows, int64_t size, int k, const T* turn) {
  for (int64_t at = threadIdx.x; at < size; at += kTopkThreads) {
    T in[kMostVectors];
#pragma unroll
    for (int i = 0; i < kMostVectors; ++i) in[i] = i < k ? rows[i * size + at] : T(0);
#pragma unroll 1
    for (int j = 0; j < k; ++j) {
      T sum = T(0);
#pragma unroll
      for (int i = 0; i < kMostVectors; ++i)
        if (i < k) sum = fma(in[i], turn[i * kSquareStride + j], sum);
      rows[j * size + at] = sum;
    }
  }
}

// out (k x k, in shared memory) = X Y^T for k vectors each of `size` numbers.
template <class T, class Left, class Right>
KDOPS_DEVICE void small_product(const Left& left, const Right& right, int64_t size, T* out) {
  dots_of_few<T>(left, right, size,
                 [&](int64_t i, int64_t j, T sum) { out[i * kSquareStride + j] = sum; });
}

// The k rows of W become orthonormal, P turns with them, t.value gets W's norms in descending
// order. Rows with a norm below the floor, which rounding made, are replaced.
template <class T>
KDOPS_DEVICE void rayleigh_ritz(const LargeContext<T>& t, T* W, int64_t length, T* P, T floor) {
  T *M = t.pool, *turn = M + kSquareNumbers;
  const auto w = vectors_operand(W, length, t.k);
#pragma unroll 1
  for (int round = 0; round < 4; ++round) {
    small_product(w, w, length, M);
    if (!diagonalise(t, M, turn)) break;
    turn_rows(W, length, t.k, turn);
    turn_rows(P, t.p, t.k, turn);
    __syncthreads();
  }
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < t.k) t.value[thread] = sqrt(max(t.value[thread], T(0)));
  __syncthreads();
  int present = 0;
  while (present < t.k && t.value[present] > floor) ++present;
  for (int c = 0; c < t.k; ++c) {
    const T inverse = c < present ? T(1) / t.value[c] : T(0);
    T* row = W + c * length;
    for (int64_t i = thread; i < length; i += kTopkThreads)
      row[i] =
          c < present ? row[i] * inverse : start_entry<T>(static_cast<int>(i) * kMostVectors + c);
  }
  __syncthreads();
  orthonormalise(t.line, length, present, t.k,
                 [&](int64_t i, int c) -> T& { return W[c * length + i]; });
}

}  // namespace kdops::svd::gpu
