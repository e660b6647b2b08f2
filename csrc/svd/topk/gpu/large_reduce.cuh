// Tiles of the Gram matrix of a large small side, and its tridiagonal form, in global memory.
#pragma once

#include "svd/shared/reflector.h"
#include "svd/topk/gpu/large_context.cuh"

namespace kdops::svd::gpu {

inline constexpr int kScanParts = 32;

// From the parts: the largest entry, or -1.
template <class T>
KDOPS_DEVICE T largest_of_parts(const T* parts) {
  T largest = T(0);
  bool finite = true;
  for (int i = 0; i < kScanParts; ++i) {
    largest = max(largest, parts[i]);
    finite = finite && parts[i] >= T(0);
  }
  return finite ? largest : T(-1);
}

// Grid: kScanParts blocks per matrix.
template <class T>
__global__ void __launch_bounds__(kTopkThreads)
    large_scan_kernel(const T* A, int64_t size, T* parts) {
  KDOPS_SHARED(T, scratch, [kTopkThreads / kWarp]);
  const int64_t each = (size + kScanParts - 1) / kScanParts, index = blockIdx.x / kScanParts;
  const int64_t begin = min(blockIdx.x % kScanParts * each, size);
  const T largest = topk_scan(A + index * size + begin, min(each, size - begin), scratch);
  if (threadIdx.x == 0) parts[blockIdx.x] = largest;
}

inline constexpr int large_gram_tiles(int p) {
  const int across = (p + SquareTile::kRows - 1) / SquareTile::kRows;
  return across * (across + 1) / 2;
}

struct TilePlace {
  int row, column;
};
KDOPS_DEVICE TilePlace place_of_tile(int tile, int64_t p) {
  int row = 0, across = static_cast<int>((p + SquareTile::kRows - 1) / SquareTile::kRows);
  for (; tile >= across - row; ++row) tile -= across - row;
  return {row, row + tile};
}

// Tile `tile` of the upper half of the Gram matrix of some p columns, and its mirror image.
template <class T, class Columns>
KDOPS_DEVICE void gram_tile_of(const Columns& columns, int tile, int64_t length, T* stage, T* G) {
  const int64_t p = columns.count;
  const TilePlace place = place_of_tile(tile, p);
  put_tile<SquareTile>(columns, place.row * SquareTile::kRows, columns,
                       place.column * SquareTile::kRows, length, stage,
                       [&](int64_t i, int64_t j, T sum) {
                         G[i * p + j] = sum;
                         G[j * p + i] = sum;
                       });
}

template <class T>
KDOPS_DEVICE T trace_of(const LargeContext<T>& t, const T* G) {
  T trace = T(0);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < t.p; i += kTopkThreads)
    trace += G[i * int64_t(t.p + 1)];
  return reduce_block(trace, Add(), t.line);
}

// The Gram matrix of B to that of f A, of which the trace is in [1/4, 1); f. Where f would leave
// the range of the type the trace stays smaller.
template <class T>
KDOPS_DEVICE T scale_gram(int p, T* G, T up, T trace) {
  const int most = std::numeric_limits<T>::max_exponent - 4;
  const int half = max((exponent_of(trace) >> 1) + 1, exponent_of(up) - most);
  const T square = power_of_two(T(), -2 * half);
  constexpr int kAtOnce = 8;  // loads before the first store
  const int size = p * p;
#pragma unroll 1
  for (int begin = 0; begin < size; begin += kAtOnce * kTopkThreads) {
    const int at = begin + static_cast<int>(threadIdx.x);
    T entry[kAtOnce];
#pragma unroll
    for (int q = 0; q < kAtOnce; ++q) entry[q] = G[min(at + q * kTopkThreads, size - 1)];
    sync_warp();  // lest the compiler moves each load to its store
#pragma unroll
    for (int q = 0; q < kAtOnce; ++q)
      if (at + q * kTopkThreads < size) G[at + q * kTopkThreads] = entry[q] * square;
  }
  __syncthreads();
  return up * power_of_two(T(), -half);
}

// x (p numbers, zero up to j) -> the reflector v of (x[j + 1], ...), its one included; its factor
// and the entry that is left go to tau and e. Every thread holds the same; ends with a barrier.
template <class T>
KDOPS_DEVICE T make_row_reflector(T* x, int j, int p, T* scratch, T* e, T* tau) {
  const int thread = static_cast<int>(threadIdx.x);
  T rest = T(0);
#pragma unroll 1
  for (int i = j + 2 + thread; i < p; i += kTopkThreads) rest = fma(x[i], x[i], rest);
  rest = reduce_block(rest, Add(), scratch);
  const Reflector<T> h = make_reflector(x[j + 1], rest);
  __syncthreads();
#pragma unroll 1
  for (int i = j + 1 + thread; i < p; i += kTopkThreads) x[i] = i == j + 1 ? T(1) : x[i] * h.scale;
  if (thread == 0) *e = h.beta, *tau = h.tau;
  __syncthreads();
  return h.tau;
}

// Rows first .. p - 1 of G, from column `first` on, less old w^T + w old^T; y = G v of the result.
// A warp takes four rows at a time.
template <class T>
KDOPS_DEVICE void update_and_multiply(T* G, int p, int first, const T* old, const T* w, const T* v,
                                      T* y) {
  constexpr int kTogether = 4;
#pragma unroll 1
  for (int row = first + warp_id() * kTogether; row < p; row += kTopkThreads / kWarp * kTogether) {
    T sum[kTogether], own[kTogether], own_w[kTogether];
#pragma unroll
    for (int q = 0; q < kTogether; ++q) {
      const int i = min(row + q, p - 1);
      sum[q] = T(0), own[q] = old[i], own_w[q] = w[i];
    }
#pragma unroll 2
    for (int j = first / kWarp * kWarp + lane_id(); j < p; j += kWarp) {
      if (j < first) continue;
      const T old_j = old[j], w_j = w[j], v_j = v[j];
#pragma unroll
      for (int q = 0; q < kTogether; ++q) {
        if (row + q >= p) continue;
        T* entry = G + (row + q) * int64_t(p) + j;
        const T value = fma(-own[q], w_j, fma(-own_w[q], old_j, *entry));
        *entry = value;
        sum[q] = fma(value, v_j, sum[q]);
      }
    }
    const T total = scatter_sum(sum);
    const int q = lane_id() / (kWarp / kTogether);
    if (lane_id() % (kWarp / kTogether) == 0 && row + q < p) y[row + q] = total;
  }
}

// G = Q T Q^T: d, e, tau (p each) of T to `band`, reflectors as rows in place of G. The update by a
// reflector waits until the next one is known, so that one pass over G applies it and multiplies.
// pool: 3 p numbers, shared; y: p numbers.
template <class T>
KDOPS_DEVICE void tridiagonalise_rows(T* G, int p, T* band, T* pool, T* y, T* scratch) {
  const int thread = static_cast<int>(threadIdx.x);
  T *d = band, *e = band + p, *tau = band + 2 * p;
  T *old = pool, *w = pool + p, *v = pool + 2 * p;
#pragma unroll 1
  for (int i = thread; i < p; i += kTopkThreads) old[i] = w[i] = v[i] = T(0);
  __syncthreads();
#pragma unroll 1
  for (int j = 0; j < p; ++j) {
    T* row = G + j * int64_t(p);
#pragma unroll 1
    for (int i = thread; i < p; i += kTopkThreads)
      v[i] = i < j ? T(0) : fma(-old[j], w[i], fma(-w[j], old[i], row[i]));
    __syncthreads();
    if (thread == 0) d[j] = v[j], v[j] = T(0);
    __syncthreads();
    if (j + 1 == p) break;
    T factor = T(0);
    if (j + 2 < p)
      factor = make_row_reflector(v, j, p, scratch, e + j, tau + j);
    else if (thread == 0)
      e[j] = v[j + 1], tau[j] = T(0);
#pragma unroll 1
    for (int i = thread; i < p; i += kTopkThreads) row[i] = v[i];
    update_and_multiply(G, p, j + 1, old, w, v, y);
    __syncthreads();
    T dot = T(0);
#pragma unroll 1
    for (int i = j + 1 + thread; i < p; i += kTopkThreads) dot = fma(y[i], v[i], dot);
    const T half = T(-0.5) * factor * factor * reduce_block(dot, Add(), scratch);
#pragma unroll 1
    for (int i = thread; i < p; i += kTopkThreads)
      w[i] = i > j ? fma(half, v[i], factor * y[i]) : T(0);
    T* spare = old;
    old = v, v = spare;
    __syncthreads();
  }
  if (thread == 0) e[p - 1] = tau[p - 1] = tau[p - 2] = T(0);
#pragma unroll 1
  for (int i = thread; i < p; i += kTopkThreads) G[(p - 1) * int64_t(p) + i] = T(0);
  __syncthreads();
}

}  // namespace kdops::svd::gpu
