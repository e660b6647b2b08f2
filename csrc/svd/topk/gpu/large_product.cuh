// A large Gram matrix times few vectors that are rows of p numbers, and such rows made clear of
// others: for the Krylov basis (large_krylov.cuh) and for the gradient (large_gradients.cuh).
#pragma once

#include "svd/topk/gpu/large_context.cuh"

namespace kdops::svd::gpu {

template <class T>
inline constexpr int kRowsAhead = 16 / sizeof(T);  // that are loaded before the first is used

// put(j, c, sum over i of G[i][j] x_c[i]) for `count` <= 4 rows x. A warp takes a stretch of the rows
// of G, which is symmetric. Ends with a barrier. What a lane reads past the end of a row is of the
// next row, and past the last one of what `saved` holds behind G: such sums are dropped.
template <class T, class Put>
KDOPS_DEVICE void multiply_together(const T* G, int p, const T* x, int count, T* stage,
                                    const Put& put) {
  constexpr int kAcross = kLaneColumns<T>, kColumns = kAcross * kWarp;
  const int each = (p + kTopkWarps - 1) / kTopkWarps;
  const int begin = min(warp_id() * each, p), end = min(begin + each, p);
#pragma unroll 1
  for (int j0 = 0; j0 < p; j0 += kColumns) {
    T sum[kTogether][kAcross];
#pragma unroll
    for (int q = 0; q < kTogether * kAcross; ++q) sum[q / kAcross][q % kAcross] = T(0);
    const T* row = G + begin * int64_t(p) + j0 + lane_id();
#pragma unroll kRowsAhead < T>
    for (int i = begin; i < end; ++i, row += p) {
      T a[kAcross], b[kTogether];
#pragma unroll
      for (int q = 0; q < kAcross; ++q) a[q] = row[q * kWarp];
#pragma unroll
      for (int c = 0; c < kTogether; ++c) b[c] = x[min(c, count - 1) * p + i];
#pragma unroll
      for (int q = 0; q < kTogether * kAcross; ++q)
        sum[q / kAcross][q % kAcross] =
            fma(a[q % kAcross], b[q / kAcross], sum[q / kAcross][q % kAcross]);
    }
    __syncthreads();
#pragma unroll
    for (int q = 0; q < kTogether * kAcross; ++q)
      stage[(warp_id() * kTogether + q / kAcross) * kColumns + q % kAcross * kWarp + lane_id()] =
          sum[q / kAcross][q % kAcross];
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < kTogether * kColumns; at += kTopkThreads) {
      const int c = at / kColumns, j = j0 + at % kColumns;
      if (c >= count || j >= p) continue;
      T total = T(0);
#pragma unroll
      for (int w = 0; w < kTopkWarps; ++w) total += stage[w * kTogether * kColumns + at];
      put(j, c, total);
    }
  }
  __syncthreads();
}

// The same for any number of rows.
template <class T, class Put>
KDOPS_DEVICE void multiply_rows(const T* G, int p, const T* x, int count, T* stage,
                                const Put& put) {
#pragma unroll 1
  for (int c0 = 0; c0 < count; c0 += kTogether)
    multiply_together(G, p, x + c0 * p, min(kTogether, count - c0), stage,
                      [&](int j, int c, T sum) { put(j, c0 + c, sum); });
}

// After so many terms of a lane a sum goes to a total of its own, which keeps long sums exact.
inline constexpr int64_t kTermsTogether = 256;

// sum[a][b] += left(i0 + a, l) right(j0 + b, l) for l = begin, begin + step, .. below end.
template <class T, class Left, class Right>
KDOPS_DEVICE void add_terms(const Operand<Left>& left, int64_t i0, const Operand<Right>& right,
                            int64_t j0, int64_t begin, int64_t end, int step,
                            T (&sum)[kTogether * kTogether]) {
  constexpr bool kTotals = sizeof(T) == 4;  // doubles have digits to spare, but not registers
  T part[kTogether * kTogether];
#pragma unroll
  for (int q = 0; q < kTogether * kTogether; ++q) part[q] = kTotals ? T(0) : sum[q];
#pragma unroll kRowsAhead < T> / 2
  for (int64_t l = begin; l < end; l += step) {
    T a[kTogether], b[kTogether];
#pragma unroll
    for (int q = 0; q < kTogether; ++q) {
      a[q] = left.get(min(i0 + q, left.count - 1), l);
      b[q] = right.get(min(j0 + q, right.count - 1), l);
    }
#pragma unroll
    for (int q = 0; q < kTogether * kTogether; ++q)
      part[q] = fma(a[q / kTogether], b[q % kTogether], part[q]);
  }
#pragma unroll
  for (int q = 0; q < kTogether * kTogether; ++q) sum[q] = kTotals ? sum[q] + part[q] : part[q];
}

// put(i, j, sum over l of left(i, l) right(j, l)), where the left operand has few rows, without
// shared memory: a warp takes four by four sums at a time, a lane some of the terms.
template <class T, class Left, class Right, class Put>
KDOPS_DEVICE void dots_of_few(const Operand<Left>& left, const Operand<Right>& right, int64_t depth,
                              const Put& put) {
  const int64_t across = (right.count + kTogether - 1) / kTogether;
  const int64_t tiles = (left.count + kTogether - 1) / kTogether * across;
#pragma unroll 1
  for (int64_t tile = warp_id(); tile < tiles; tile += kTopkWarps) {
    const int64_t i0 = tile / across * kTogether, j0 = tile % across * kTogether;
    T sum[kTogether * kTogether];
#pragma unroll
    for (int q = 0; q < kTogether * kTogether; ++q) sum[q] = T(0);
#pragma unroll 1
    for (int64_t l0 = 0; l0 < depth; l0 += kTermsTogether * kWarp)
      add_terms(left, i0, right, j0, l0 + lane_id(), min(depth, l0 + kTermsTogether * kWarp), kWarp,
                sum);
    const T total = scatter_sum(sum);
    const int q = lane_id() / 2;
    const int64_t i = i0 + q / kTogether, j = j0 + q % kTogether;
    if (lane_id() % 2 == 0 && i < left.count && j < right.count) put(i, j, total);
  }
  __syncthreads();
}

// The same where neighbours in memory are neighbours in j: a lane has its own j.
template <class T, class Left, class Right, class Put>
KDOPS_DEVICE void columns_of_few(const Operand<Left>& left, const Operand<Right>& right,
                                 int64_t depth, const Put& put) {
  constexpr int kEach = kTogether * kTopkThreads;  // neighbours in j are kTopkThreads apart
#pragma unroll 1
  for (int64_t i0 = 0; i0 < left.count; i0 += kTogether)
#pragma unroll 1
    for (int64_t j0 = threadIdx.x; j0 < right.count; j0 += kEach) {
      const Operand strided{int64_t(kTogether), false, [&](int64_t j, int64_t l) {
                              return right.get(min(j0 + j * kTopkThreads, right.count - 1), l);
                            }};
      T sum[kTogether * kTogether];
#pragma unroll
      for (int q = 0; q < kTogether * kTogether; ++q) sum[q] = T(0);
#pragma unroll 1
      for (int64_t l0 = 0; l0 < depth; l0 += kTermsTogether)
        add_terms(left, i0, strided, 0, l0, min(depth, l0 + kTermsTogether), 1, sum);
#pragma unroll
      for (int q = 0; q < kTogether * kTogether; ++q) {
        const int64_t i = i0 + q / kTogether, j = j0 + q % kTogether * kTopkThreads;
        if (i < left.count && j < right.count) put(i, j, sum[q]);
      }
    }
  __syncthreads();
}

}  // namespace kdops::svd::gpu
