// The basis of a block Krylov space of a large Gram matrix, which grows block by block.
#pragma once

#include "svd/shared/krylov_rules.h"
#include "svd/topk/gpu/inverse_iteration.cuh"
#include "svd/topk/gpu/large_pairs.cuh"
#include "svd/topk/gpu/large_product.cuh"

namespace kdops::svd::gpu {

// The largest basis: the tridiagonal form of a block's only matrix waits for every column, so that
// a basis may grow farther here than on the CPU before that costs less.
inline constexpr int most_basis(int p) {
  const int half = p / 2 / kJudgedStep * kJudgedStep;
  return half < 64 ? 64 : half > 256 ? 256 : half;
}
inline constexpr bool prefers_krylov(int k) { return k <= kLargestKrylovK; }

// Numbers of a matrix's workspace: for the projected pairs; basis and block, images, two squares, a
// band, coefficients.
inline constexpr int64_t krylov_numbers(int p, int k) {
  if (!prefers_krylov(k)) return 0;
  const int64_t limit = most_basis(p), most = k + kExtraPairs;
  return pair_numbers(most_basis(p), k + kExtraPairs) + (limit + krylov_block(k) + most) * p +
         2 * limit * limit + (3 + most) * limit;
}

// A basis on its way. What can be derived is: a kernel of so many parts is short of registers.
template <class T>
struct KrylovBasis {
  const T* G;
  T *rows, *pool;  // the workspace; shared
  int p, block, most, size = 0, replaced = 0;
  T next = T(0);    // the norm of the block that follows, before it is made orthonormal
  T missed = T(0);  // of the wanted pair of which most is missed, relative to its value

  KDOPS_DEVICE int limit() const { return most_basis(p); }
  KDOPS_DEVICE T* row(int i) const { return rows + i * p; }
  KDOPS_DEVICE T* images() const { return row(limit() + block); }  // most x p
  KDOPS_DEVICE T* projected() const { return images() + most * p; }
  KDOPS_DEVICE T* matrix() const { return projected() + limit() * limit(); }
  KDOPS_DEVICE T* band() const { return matrix() + limit() * limit(); }
  KDOPS_DEVICE T* coefficients() const { return band() + 3 * limit(); }  // most x size
  KDOPS_DEVICE T* weights() const { return pool; }                       // size x block
  KDOPS_DEVICE T* square() const { return pool + limit() * block; }      // block x block and one
};

// The block of rows from basis.size on loses its parts along the rows before, which go to weights.
template <class T>
KDOPS_DEVICE void project_block(const KrylovBasis<T>& basis) {
  const int p = basis.p, size = basis.size, block = basis.block;
  T *fresh = basis.row(size), *weights = basis.weights();
  dots_of_few<T>(vectors_operand(basis.rows, p, size), vectors_operand(fresh, p, block), p,
                 [&](int64_t i, int64_t j, T sum) { weights[i * block + j] = sum; });
  // of a thread, which share what it reads of the weights; doubles leave no registers for two
  constexpr int kPlaces = sizeof(T) == 4 ? 2 : 1;
#pragma unroll 1
  for (int first = 0; first < block; first += kTogether)
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < p; i += kPlaces * kTopkThreads) {
      T x[kPlaces][kTogether];
      int at[kPlaces];
#pragma unroll
      for (int q = 0; q < kPlaces; ++q) {
        at[q] = min(i + q * kTopkThreads, p - 1);
#pragma unroll
        for (int c = 0; c < kTogether; ++c) x[q][c] = fresh[(first + c) * p + at[q]];
      }
#pragma unroll 4
      for (int a = 0; a < size; ++a) {
        T weight[kTogether];
        load_numbers(weights + a * block + first, weight);
#pragma unroll
        for (int q = 0; q < kPlaces; ++q) {
          const T entry = basis.rows[a * p + at[q]];
#pragma unroll
          for (int c = 0; c < kTogether; ++c) x[q][c] = fma(-weight[c], entry, x[q][c]);
        }
      }
#pragma unroll
      for (int q = 0; q < kPlaces; ++q)
#pragma unroll
        for (int c = 0; c < kTogether; ++c)
          if (i + q * kTopkThreads < p) fresh[(first + c) * p + at[q]] = x[q][c];
    }
  __syncthreads();
}

// square (block x block) = L L^T, by one warp: L below the diagonal, the inverses of its diagonal on
// it, zero for a row of which nothing is left outside those before it. Behind them the smallest
// squared length that a row has outside, zero where one was lost. Ends with a barrier.
template <class T>
KDOPS_DEVICE void factor_block(T* square, int block) {
  constexpr int kMost = kLargestKrylovK;
  constexpr T eps = kEpsilon<T>;
  const int lane = lane_id();
  if (warp_id() == 0) {
    T row[kMost], least = kLargestFinite<T>;
    const T own = lane < block ? square[lane * (block + 1)] : T(0);
#pragma unroll
    for (int c = 0; c < kMost; ++c)
      row[c] = lane < block && c < block ? square[lane * block + c] : T(0);
    sync_warp();
#pragma unroll
    for (int j = 0; j < kMost; ++j) {
      if (j >= block) continue;
      const T left = shuffle(row[j], j), whole = shuffle(own, j);
      const bool present = left > 64 * eps * whole && whole > eps * eps * eps * eps;
      const T inverse = present ? T(1) / sqrt(left) : T(0);
      least = present ? min(least, left) : T(0);
      const T entry = lane > j ? row[j] * inverse : T(0);
#pragma unroll
      for (int c = j + 1; c < kMost; ++c) row[c] = fma(-entry, shuffle(entry, c), row[c]);
      row[j] = lane == j ? inverse : entry;
    }
#pragma unroll
    for (int c = 0; c < kMost; ++c)
      if (lane < block && c <= lane) square[lane * block + c] = row[c];
    if (lane == 0) square[block * block] = least;
  }
  __syncthreads();
}

// The block becomes L^-1 times it; a row that was lost gives way to a fresh one. As factor_block.
template <class T>
KDOPS_DEVICE T orthonormalise_block(KrylovBasis<T>& basis) {
  constexpr int kMost = kLargestKrylovK;
  const int p = basis.p, block = basis.block, start = basis.limit() + basis.replaced;
  T *fresh = basis.row(basis.size), *square = basis.square();
  dots_of_few<T>(vectors_operand(fresh, p, block), vectors_operand(fresh, p, block), p,
                 [&](int64_t i, int64_t j, T sum) { square[i * block + j] = sum; });
  if (basis.next < T(0)) {  // not yet known
    T trace = T(0);
    for (int j = 0; j < block; ++j) trace += square[j * (block + 1)];
    basis.next = sqrt(trace);
    __syncthreads();
  }
  factor_block(square, block);
  const T least = square[block * block];
  for (int i = static_cast<int>(threadIdx.x); i < p; i += kTopkThreads) {
    T x[kMost];
#pragma unroll
    for (int j = 0; j < kMost; ++j) {
      if (j >= block) continue;
      T entry = fresh[j * p + i];
#pragma unroll
      for (int c = 0; c < j; ++c) entry = fma(-square[j * block + c], x[c], entry);
      const T inverse = square[j * (block + 1)];
      x[j] = inverse != T(0) ? entry * inverse : start_entry<T>((start + j) * 65536 + i);
      fresh[j * p + i] = x[j];
    }
  }
  if (least == T(0)) basis.replaced += block;
  __syncthreads();
  return least;
}

// The block from basis.size on becomes orthonormal, to all rows before it, too. Those are images
// of the last block if there are any; their parts are entries of the projected matrix.
template <class T>
KDOPS_DEVICE void append_block(KrylovBasis<T>& basis) {
  const int size = basis.size, block = basis.block;
  basis.next = T(-1);
#pragma unroll 1
  for (int round = 0; round < 5; ++round) {
    basis.p = forgotten(basis.p);
    if (size > 0) project_block(basis);
    for (int at = static_cast<int>(threadIdx.x); round == 0 && at < size * block;
         at += kTopkThreads)
      basis.projected()[at / block * basis.limit() + size - block + at % block] =
          basis.weights()[at];
    // what lost little in a later round was orthogonal to rounding before it
    if (orthonormalise_block(basis) > T(0.5) && round > 0) break;
  }
}

// The basis grows by a block: the image of the last one.
template <class T>
KDOPS_DEVICE void grow_basis(const LargeContext<T>& t, KrylovBasis<T>& basis) {
  const int p = basis.p, block = basis.block, size = basis.size;
  T* fresh = basis.row(size);
  if (size == 0) {
    for (int at = static_cast<int>(threadIdx.x); at < block * p; at += kTopkThreads)
      fresh[at] = start_entry<T>(at / p * 65536 + at % p);
    __syncthreads();
  } else {
    multiply_rows(basis.G, p, basis.row(size - block), block, t.pool,
                  [&](int j, int c, T sum) { fresh[c * p + j] = sum; });
  }
  append_block(basis);
}

}  // namespace kdops::svd::gpu
