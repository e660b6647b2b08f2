// Both sides of a relation loss on CUDA: the rows as they were given, what the kernels find out about
// them, and distances. Kernels of this room work on student and teacher in one launch: a launch
// costs more than most of them take.
#pragma once

#include "common/gpu/lane.cuh"
#include "common/shared/close_pair.h"
#include "common/shared/unit_row.h"

namespace kdops::relation::gpu {

inline constexpr int kRowThreads = 256;                 // kernels with one block per row
inline constexpr int kStatsCols = 32, kStatsRows = 32;  // block of relation_stats_kernel

// The sum of `count` parts, `stride` apart, in ascending order; four are on their way together.
template <class T>
KDOPS_DEVICE T sum_of_parts(const T* part, int64_t stride, int count) {
  T sum = 0;
  for (int p = 0; p < count; p += 4) {
    T values[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) values[q] = part[(p + q < count ? p + q : p) * stride];
#pragma unroll
    for (int q = 0; q < 4; ++q) sum += p + q < count ? values[q] : T(0);
  }
  return sum;
}

// One side: rows (n, d) as given, the column means and, by blocks of columns, the largest finite
// |entry| (relation_stats_kernel; without columns a mean of 0, at which data points, too); scale and
// the products of the centred and scaled rows, in `splits` parts (relation_gram_kernel).
template <class T>
struct Side {
  const T* data;
  int n, d;
  T *mean, *tops;   // (d), (column blocks)
  T *gram, *norms;  // (splits, n, n) and its diagonals (splits, n)
  double* scale;

  KDOPS_DEVICE const T* row(int64_t i) const { return data + i * d; }
};

template <class T>
struct Sides {
  Side<T> student, teacher;
  int column_blocks, splits;

  KDOPS_DEVICE Side<T> at(int64_t which) const { return which == 0 ? student : teacher; }
};

// Block (x, y): mean and largest entry of 32 columns of side y, entries that are NaN or Inf counted
// as 0.
template <class T>
__global__ void __launch_bounds__(kStatsCols* kStatsRows) relation_stats_kernel(Sides<T> sides) {
  constexpr int kTogether = 8;  // rows a thread has under way
  KDOPS_SHARED(T, sums, [kStatsRows][kStatsCols + 1]);
  const Side<T> side = sides.at(blockIdx.y);
  const int tx = static_cast<int>(threadIdx.x), ty = static_cast<int>(threadIdx.y);
  const int first = static_cast<int>(blockIdx.x) * kStatsCols, column = first + tx;
  T sum = 0, top = 0;
  for (int i = ty; i < side.n; i += kTogether * kStatsRows) {
    T values[kTogether];
#pragma unroll
    for (int r = 0; r < kTogether; ++r) {
      const int row = i + r * kStatsRows;
      values[r] = row < side.n && column < side.d ? side.row(row)[column] : T(0);
    }
#pragma unroll
    for (int r = 0; r < kTogether; ++r) {
      const T finite = values[r] - values[r] == T(0) ? values[r] : T(0);
      sum += finite;
      top = max(top, abs(finite));
    }
  }
  sums[ty][tx] = sum;
  top = block_max<kStatsCols * kStatsRows>(top);  // a block barrier: sums is complete
  if (tx == 0 && ty == 0) side.tops[blockIdx.x] = top;
  sum = warp_sum(sums[tx][ty]) / static_cast<T>(side.n);
  if (tx == 0 && first + ty < max(1, side.d))
    side.mean[first + ty] = sum - sum == T(0) ? sum : T(0);
}

// Sum of the squares of (x - y) scale, each entry times `more`, and the largest |entry|.
template <class T>
struct Difference {
  T square, largest;
};
template <class T>
KDOPS_DEVICE Difference<T> difference_of(const T* x, const T* y, int d, T scale, T more) {
  T square = 0, largest = 0;
  for (int c = 0; c < d; ++c) {
    const T difference = x[c] * scale - y[c] * scale, part = difference * more;
    square = fma(part, part, square);
    largest = max(largest, abs(difference));
  }
  return {square, largest};
}

// Two rows, and the squares of their norms and their product when centred.
template <class T>
struct RowPair {
  int i, j;
  T norm_i, norm_j, product;
};

// Distance of two rows in scaled units. Below kClosePart of the norms the digits of the product are
// gone, and the differences of the given rows are summed: equal rows give exactly zero, others
// never do; `near` is set where T says too little of the direction (close_pair.h; far_square:
// kFarPart of the longest row's). NaN stays NaN.
template <class T>
KDOPS_DEVICE T pair_distance(const Side<T>& rows, const RowPair<T>& pair, T far_square,
                             bool& near) {
  if (pair.i == pair.j) return pair.norm_i - pair.norm_i;
  const T both = pair.norm_i + pair.norm_j, square = fma(T(-2), pair.product, both);
  if (!(square <= max(T(kClosePart) * both, far_square))) return sqrt(square);
  const T *x = rows.row(pair.i), *y = rows.row(pair.j), scale = static_cast<T>(*rows.scale);
  const Difference<T> exact = difference_of(x, y, rows.d, scale, T(1));
  near |= exact.largest > 0 && exact.square < max(kNearPart<T> * both, far_square);
  if (!(exact.square < (sizeof(T) == 4 ? T(1e-30) : T(1e-280)))) return sqrt(exact.square);
  const T more = row_scale(exact.largest);  // their squares would vanish
  return sqrt(difference_of(x, y, rows.d, scale, more).square) / more;
}

// 1/d, or 0 where d is; a distance without a finite reciprocal has the largest number.
template <class T>
KDOPS_DEVICE T inverse_distance(T distance) {
  constexpr T kLeast = std::numeric_limits<T>::min();
  if (distance == T(0)) return T(0);
  return T(1) / (distance < kLeast ? kLeast : distance);
}

template <class T>
KDOPS_DEVICE T clamp_to_one(T x) {
  return max(min(x, T(1)), T(-1));
}

// The scale in two factors: what the weights of a product can take without leaving their range, and
// the rest for relation_gradient_kernel. Both are powers of two.
template <class T>
KDOPS_DEVICE double scale_inside(double scale) {
  return min(scale, sizeof(T) == 4 ? 0x1p60 : 0x1p500);
}

// Over a block of kRowThreads threads, several sums for two barriers.
template <int kCount>
KDOPS_DEVICE void block_sums(double (&value)[kCount]) {
  constexpr int kWarps = kRowThreads / kWarp;
  KDOPS_SHARED(double, partial, [kCount][kWarps]);
#pragma unroll
  for (int v = 0; v < kCount; ++v) {
    value[v] = warp_sum(value[v]);
    if (lane_id() == 0) partial[v][warp_id()] = value[v];
  }
  __syncthreads();
#pragma unroll
  for (int v = 0; v < kCount; ++v) {
    value[v] = partial[v][0];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) value[v] += partial[v][w];
  }
  __syncthreads();  // the next call may write `partial` again
}

// The same of `count` numbers in memory.
KDOPS_DEVICE double block_total(const double* values, int count) {
  double sum[1] = {0};
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kRowThreads) sum[0] += values[i];
  block_sums(sum);
  return sum[0];
}

}  // namespace kdops::relation::gpu
