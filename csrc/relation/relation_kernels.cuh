// CUDA kernels of the relation losses, in the order in which relation_cuda.cu launches them: centre
// the rows (stats, centre), Gram matrices (the gram room), distances, loss and weights, Laplacian
// of the weights; the last product is the gram room's again, and where it cancels (rkd_distance)
// the last kernel sums differences. T is float or double; rows are contiguous. Sums that leave a
// block are double and are added in a fixed order. What only rkd_angle has is in angle_kernels.cuh.
#pragma once

#include "common/gpu/lane.cuh"
#include "common/shared/close_pair.h"
#include "common/shared/unit_row.h"

namespace kdops::relation::gpu {
using namespace kdops::gpu;

inline constexpr int kStatsCols = 32, kStatsRows = 8;  // block of relation_stats_kernel
inline constexpr int kRowThreads = 128;                // kernels with one block per row

// mean (d): column means of x (n, d), entries that are NaN or Inf counted as 0; tops (blocks): the
// largest finite |entry| of each block's columns.
template <class T>
__global__ void __launch_bounds__(kStatsCols* kStatsRows)
    relation_stats_kernel(const T* __restrict__ x, int n, int d, T* __restrict__ mean,
                          T* __restrict__ tops) {
  KDOPS_SHARED(T, sums, [kStatsRows][kStatsCols + 1]);
  const int column = static_cast<int>(blockIdx.x) * kStatsCols + static_cast<int>(threadIdx.x);
  T sum = 0, top = 0;
  if (column < d)
    for (int i = static_cast<int>(threadIdx.y); i < n; i += kStatsRows) {
      const T value = x[static_cast<int64_t>(i) * d + column];
      if (value - value == T(0)) {
        sum += value;
        top = max(top, abs(value));
      }
    }
  sums[threadIdx.y][threadIdx.x] = sum;
  top = block_max<kStatsCols * kStatsRows>(top);  // a block barrier: sums is complete
  if (threadIdx.y == 0 && column < d) {
    for (int r = 1; r < kStatsRows; ++r) sum += sums[r][threadIdx.x];
    sum /= static_cast<T>(n);
    mean[column] = sum - sum == T(0) ? sum : T(0);
  }
  if (threadIdx.x == 0 && threadIdx.y == 0) tops[blockIdx.x] = top;
}

// What relation_stats_kernel has found, in `blocks` blocks.
template <class T>
struct RowStats {
  const T *mean, *tops;
  int blocks;
};
// What relation_centre_kernel writes: the rows, their squared norms and their scale; near, which may
// be null, is what relation_pairs_kernel marks, and is cleared.
template <class T>
struct CentredRows {
  T *rows, *norms;
  double* scale;
  int* near;
};

// Block i: row i of (x - mean) * scale, and its squared norm. Block 0 stores the scale.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    relation_centre_kernel(const T* __restrict__ x, int d, RowStats<T> stats, CentredRows<T> out) {
  const int thread = static_cast<int>(threadIdx.x);
  T top = 0;
  for (int b = thread; b < stats.blocks; b += kRowThreads) top = max(top, stats.tops[b]);
  const T scale = row_scale(block_max<kRowThreads>(top));
  const int64_t row = static_cast<int64_t>(blockIdx.x) * d;
  T norm = 0;
  for (int c = thread; c < d; c += kRowThreads) {
    const T value = (x[row + c] - stats.mean[c]) * scale;
    out.rows[row + c] = value;
    norm = fma(value, value, norm);
  }
  norm = block_sum<kRowThreads>(norm);
  if (thread == 0) out.norms[blockIdx.x] = norm;
  if (thread == 0 && blockIdx.x == 0) {
    *out.scale = scale;
    if (out.near != nullptr) *out.near = 0;
  }
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

// One side's rows (n, d) as given, with the squared norms and the scale of the centred ones.
template <class T>
struct GivenRows {
  const T* data;
  int n, d;
  const T* norms;
  const double* scale;

  KDOPS_DEVICE const T* row(int64_t i) const { return data + i * d; }
};

// Distance of rows i and j, in scaled units, from their Gram entry, which is a mean over the d
// columns as the gram room gives it. Below kClosePart of the norms the digits are gone, and the
// differences of the given rows are summed: equal rows give exactly zero, others never do; `near`
// is set where T says too little of the direction (close_pair.h; far_square: kFarPart of the longest
// row's). NaN stays NaN.
template <class T>
KDOPS_DEVICE T pair_distance(const GivenRows<T>& rows, T gram, int i, int j, T far_square,
                             bool& near) {
  if (i == j) return rows.norms[i] - rows.norms[i];
  const T both = rows.norms[i] + rows.norms[j], square = fma(T(-2) * rows.d, gram, both);
  if (!(square <= max(T(kClosePart) * both, far_square))) return sqrt(square);
  const T *x = rows.row(i), *y = rows.row(j), scale = static_cast<T>(*rows.scale);
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

// Block i: distances of row i in the place of its Gram row, their sum and the number that are not
// zero.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    relation_distance_kernel(T* __restrict__ gram, GivenRows<T> rows, double* __restrict__ sums,
                             double* __restrict__ counts) {
  const int i = static_cast<int>(blockIdx.x), n = rows.n;
  T* row = gram + static_cast<int64_t>(i) * n;
  double sum = 0, count = 0;
  bool near = false;
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kRowThreads) {
    const T distance = pair_distance(rows, row[j], i, j, T(0), near);
    row[j] = distance;
    sum += distance;
    count += distance == T(0) ? 0 : 1;
  }
  sum = block_sum<kRowThreads>(sum);
  count = block_sum<kRowThreads>(count);
  if (threadIdx.x == 0) sums[i] = sum, counts[i] = count;
}

// One block: out[0] = factor * sum of a; with b also out[1] = sum of b.
__global__ void __launch_bounds__(kRowThreads)
    relation_total_kernel(const double* __restrict__ a, const double* __restrict__ b, int count,
                          double factor, double* __restrict__ out) {
  double sum_a = 0, sum_b = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kRowThreads) {
    sum_a += a[i];
    if (b != nullptr) sum_b += b[i];
  }
  sum_a = block_sum<kRowThreads>(sum_a);
  sum_b = block_sum<kRowThreads>(sum_b);
  if (threadIdx.x == 0) out[0] = factor * sum_a;
  if (threadIdx.x == 0 && b != nullptr) out[1] = sum_b;
}

// What the distance kernels read from relation_total_kernel.
struct DistanceTotals {
  double sum_s, count_s, sum_t, count_t, loss, slope;
};

KDOPS_DEVICE double inverse_mean(double sum, double count) { return sum == 0 ? 0 : count / sum; }

template <class T>
KDOPS_DEVICE T clamp_to_one(T x) {
  return max(min(x, T(1)), T(-1));
}

// Block i: sums over row i of huber(p - q) and of h p, p and q the distances over their means.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    rkd_distance_loss_kernel(const T* __restrict__ student, const T* __restrict__ teacher, int n,
                             const DistanceTotals* __restrict__ totals, double* __restrict__ losses,
                             double* __restrict__ slopes) {
  const T unit_s = static_cast<T>(inverse_mean(totals->sum_s, totals->count_s));
  const T unit_t = static_cast<T>(inverse_mean(totals->sum_t, totals->count_t));
  const int64_t first = static_cast<int64_t>(blockIdx.x) * n;
  double loss = 0, slope = 0;
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kRowThreads) {
    const T ratio = student[first + j] * unit_s, difference = ratio - teacher[first + j] * unit_t;
    const T h = clamp_to_one(difference);
    loss += h * (difference - h / 2);
    slope += h * ratio;
  }
  loss = block_sum<kRowThreads>(loss);
  slope = block_sum<kRowThreads>(slope);
  if (threadIdx.x == 0) losses[blockIdx.x] = loss, slopes[blockIdx.x] = slope;
}

// The scale in two factors: what the weights of a product can take without leaving their range, and
// the rest for relation_finish_kernel. Both are powers of two.
template <class T>
KDOPS_DEVICE double scale_inside(double scale) {
  return min(scale, sizeof(T) == 4 ? 0x1p60 : 0x1p500);
}

// Block i: row i of diag(V 1) - V in the place of student, V_ij = dL/dx_i's factor of x_i - x_j;
// and whether its product with the centred rows, whose squared norms are given, cancels.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    rkd_distance_laplacian_kernel(T* __restrict__ student, const T* __restrict__ teacher, int n,
                                  const T* __restrict__ norms,
                                  const DistanceTotals* __restrict__ totals,
                                  const double* __restrict__ scale, int* __restrict__ lossy) {
  const double mean_s = inverse_mean(totals->sum_s, totals->count_s);
  const T unit_s = static_cast<T>(mean_s);
  const T unit_t = static_cast<T>(inverse_mean(totals->sum_t, totals->count_t));
  const T shift = totals->count_s == 0 ? T(0) : static_cast<T>(totals->slope / totals->count_s);
  double factor = 2 * mean_s * scale_inside<T>(*scale) / (static_cast<double>(n) * n);
  if (totals->loss != totals->loss) factor = totals->loss;
  const int i = static_cast<int>(blockIdx.x);
  T* row = student + static_cast<int64_t>(i) * n;
  const T size = sqrt(norms[i]);
  T sum = 0, sizes = 0, lengths = 0;
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kRowThreads) {
    const T distance = row[j];
    const T h = clamp_to_one(distance * unit_s - teacher[static_cast<int64_t>(i) * n + j] * unit_t);
    const T weight = static_cast<T>(factor) * (h - shift) * inverse_distance(distance);
    sum += weight;
    sizes = fma(abs(weight), size + sqrt(norms[j]), sizes);
    lengths = fma(abs(weight), distance, lengths);
    row[j] = -weight;
  }
  sizes = block_sum<kRowThreads>(sizes);
  lengths = block_sum<kRowThreads>(lengths);
  sum = block_sum<kRowThreads>(sum);  // a block barrier: row[i] is written
  if (threadIdx.x != 0) return;
  row[i] = factor == factor ? sum : static_cast<T>(factor);
  lossy[i] = sizes > T(kLossyFactor) * lengths ? 1 : 0;
}

// Block i: row i of grad (n, d), the product of the Laplacian (n, n) with the centred rows, which
// comes as the gram room gives it, a mean over n. If it is lossy it is summed from the differences
// of the given rows; then it gets the scale's rest. lossy may be null.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    relation_finish_kernel(const T* __restrict__ laplacian, GivenRows<T> rows,
                           const int* __restrict__ lossy, T* __restrict__ grad) {
  const double scale = *rows.scale;
  const T rest = static_cast<T>(scale / scale_inside<T>(scale)), unit = static_cast<T>(scale);
  const int n = rows.n, d = rows.d;
  const int64_t i = blockIdx.x;
  const bool again = lossy != nullptr && lossy[i] != 0;
  const T* weights = laplacian + i * n;
  for (int c = static_cast<int>(threadIdx.x); c < d; c += kRowThreads) {
    const T mine = rows.row(i)[c] * unit;
    T sum = 0;
    for (int j = 0; again && j < n; ++j)
      if (weights[j] != T(0)) sum = fma(-weights[j], mine - rows.row(j)[c] * unit, sum);
    grad[i * d + c] = (again ? sum : grad[i * d + c] * n) * rest;
  }
}

}  // namespace kdops::relation::gpu
