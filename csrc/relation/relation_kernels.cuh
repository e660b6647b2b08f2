// CUDA kernels of rkd_distance, in the order in which relation_cuda.cu launches them, after
// relation_stats_kernel and relation_gram_kernel and before relation_gradient_kernel (products.cuh):
// distances, loss, Laplacian of the weights. T is float or double; rows are contiguous. Sums that
// leave a block are double; the next kernel adds them up, every block for itself in the same order.
// What only rkd_angle has is in angle_*.cuh.
#pragma once

#include "relation/products.cuh"

namespace kdops::relation::gpu {

// What the blocks of relation_distance_kernel leave: of every row the sum of its distances and the
// number that are not zero, (2, n) each.
struct RowSums {
  double *sums, *counts;
};

// Block (i, y): distances of row i of side y in the place of its first Gram part.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    relation_distance_kernel(Sides<T> sides, RowSums out) {
  const Side<T> side = sides.at(blockIdx.y);
  const int i = static_cast<int>(blockIdx.x), n = side.n;
  const int64_t square = static_cast<int64_t>(n) * n;
  T* row = side.gram + static_cast<int64_t>(i) * n;
  const T norm = sum_of_parts(side.norms + i, n, sides.splits);
  double found[2] = {0, 0};
  bool near = false;
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kRowThreads) {
    const RowPair<T> pair{i, j, norm, sum_of_parts(side.norms + j, n, sides.splits),
                          sum_of_parts(row + j, square, sides.splits)};
    const T distance = pair_distance(side, pair, T(0), near);
    row[j] = distance;
    found[0] += distance;
    found[1] += distance == T(0) ? 0 : 1;
  }
  block_sums(found);
  const int64_t place = static_cast<int64_t>(blockIdx.y) * n + i;
  if (threadIdx.x == 0) out.sums[place] = found[0], out.counts[place] = found[1];
}

KDOPS_DEVICE double inverse_mean(double sum, double count) { return sum == 0 ? 0 : count / sum; }

// The inverse means of the distances, and how many of the student's are not zero.
struct DistanceUnits {
  double student, teacher, count;
};
KDOPS_DEVICE DistanceUnits distance_units(const RowSums& rows, int n) {
  double sums[4] = {0, 0, 0, 0};
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kRowThreads) {
    sums[0] += rows.sums[i], sums[1] += rows.counts[i];
    sums[2] += rows.sums[n + i], sums[3] += rows.counts[n + i];
  }
  block_sums(sums);
  return {inverse_mean(sums[0], sums[1]), inverse_mean(sums[2], sums[3]), sums[1]};
}

// What rkd_distance_loss_kernel leaves: of every row the sums of huber(p - q) and of h p, p and q
// the distances over their means.
struct RowLosses {
  double *losses, *slopes;  // (n)
  DistanceUnits* units;
  double factor;  // 1 / n^2, of the mean over the pairs
};

template <class T>
__global__ void __launch_bounds__(kRowThreads)
    rkd_distance_loss_kernel(Sides<T> sides, RowSums rows, RowLosses out) {
  const int n = sides.student.n;
  const DistanceUnits units = distance_units(rows, n);
  const T unit_s = static_cast<T>(units.student), unit_t = static_cast<T>(units.teacher);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * n;
  double found[2] = {0, 0};  // loss, slope
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kRowThreads) {
    const T ratio = sides.student.gram[first + j] * unit_s;
    const T difference = ratio - sides.teacher.gram[first + j] * unit_t;
    const T h = clamp_to_one(difference);
    found[0] += h * (difference - h / 2);
    found[1] += h * ratio;
  }
  block_sums(found);
  if (threadIdx.x != 0) return;
  out.losses[blockIdx.x] = found[0], out.slopes[blockIdx.x] = found[1];
  if (blockIdx.x == 0) *out.units = units;
}

// One block: loss = factor * the sum of `count` losses.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    relation_total_kernel(const double* __restrict__ losses, int count, double factor,
                          T* __restrict__ loss) {
  const double total = block_total(losses, count);
  if (threadIdx.x == 0) *loss = static_cast<T>(factor * total);
}

// Block i: row i of diag(V 1) - V in the place of the student's distances, V_ij = dL/dx_i's factor
// of x_i - x_j; and whether its product with the centred rows cancels. Block 0 stores the loss.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    rkd_distance_laplacian_kernel(Sides<T> sides, RowLosses rows, int* __restrict__ lossy,
                                  T* __restrict__ loss_out) {
  const int i = static_cast<int>(blockIdx.x), n = sides.student.n;
  double totals[2] = {0, 0};  // loss, slope
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kRowThreads)
    totals[0] += rows.losses[j], totals[1] += rows.slopes[j];
  block_sums(totals);
  const DistanceUnits units = *rows.units;
  const double loss = totals[0] * rows.factor;
  const T unit_s = static_cast<T>(units.student), unit_t = static_cast<T>(units.teacher);
  const T shift = units.count == 0 ? T(0) : static_cast<T>(totals[1] / units.count);
  double factor = 2 * units.student * scale_inside<T>(*sides.student.scale) * rows.factor;
  if (loss != loss) factor = loss;
  if (threadIdx.x == 0 && i == 0) *loss_out = static_cast<T>(loss);
  T* row = sides.student.gram + static_cast<int64_t>(i) * n;
  const T* teacher = sides.teacher.gram + static_cast<int64_t>(i) * n;
  const T* norms = sides.student.norms;
  const T size = sqrt(sum_of_parts(norms + i, n, sides.splits));
  double found[3] = {0, 0, 0};  // weights, and both sides of kLossyFactor's question
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kRowThreads) {
    const T distance = row[j];
    const T h = clamp_to_one(distance * unit_s - teacher[j] * unit_t);
    const T weight = static_cast<T>(factor) * (h - shift) * inverse_distance(distance);
    found[0] += weight;
    found[1] += abs(weight) * (size + sqrt(sum_of_parts(norms + j, n, sides.splits)));
    found[2] += abs(weight) * distance;
    row[j] = -weight;
  }
  block_sums(found);  // a block barrier: row[i] is written
  if (threadIdx.x != 0) return;
  row[i] = static_cast<T>(factor == factor ? found[0] : factor);
  lossy[i] = found[1] > kLossyFactor * found[2] ? 1 : 0;
}

}  // namespace kdops::relation::gpu
