// CUDA kernels of rkd_angle after rkd_angle_pairs_kernel (angle_pairs.cuh), and before and in
// relation_gradient_kernel (products.cuh). What each launch does:
//   kernel              ordinary rows           rows too near for T beside far ones
//   rkd_angle_triples   triples                 pairs in double
//   rkd_angle_laplacian loss and Laplacian      triples in double
//   relation_gradient   Laplacian times rows    loss; sums of differences in double
// The tables have room for either kind of pairs.
#pragma once

#include "relation/angle_triples.cuh"
#include "relation/products.cuh"
#include "relation/relation_kernels.cuh"

namespace kdops::relation::gpu {

// Both ways, on the same memory; near: whether some rows are too near for T.
template <class T>
struct AngleWork {
  Sides<T> sides;
  AngleTriples<AnglePair<T>> triples;
  AngleTriples<FarPair> far;
  const int* near;
  T* loss;

  // The loss, in all threads of a block of kRowThreads.
  KDOPS_DEVICE double total() const {
    const double n = triples.n;
    return block_total(triples.losses, triples.loss_count()) * (1.0 / n / n / n);
  }
};

template <class T>
__global__ void __launch_bounds__(kTripleThreads, 2) rkd_angle_triples_kernel(AngleWork<T> work) {
  if (*work.near == 0)
    angle_triples(work.triples);
  else
    angle_far_pairs(work.sides, const_cast<FarPair*>(work.far.pairs));
}

// V_ij = r_ij (w_ij + w_ji) - m_ij; zero for i = j.
template <class P>
KDOPS_DEVICE typename P::Real angle_weight(const AngleTriples<P>& t, int64_t i, int64_t j) {
  using T = typename P::Real;
  if (i == j) return T(0);
  const int64_t here = i * t.n + j, mirror = j * t.n + i, square = static_cast<int64_t>(t.n) * t.n;
  const T opposite = sum_of_parts(t.m + (i < j ? here : mirror), square, t.splits);
  return fma(t.pairs[here].inverse_s, t.w[here] + t.w[mirror], -opposite);
}

// Block i: row i of factor * (diag(V 1) - V); factor = 2 scale_inside / n^3, NaN if the loss is.
// out is null where no gradient is wanted.
template <class T>
__global__ void __launch_bounds__(kRowThreads, 2)
    rkd_angle_laplacian_kernel(AngleWork<T> work, T* __restrict__ out) {
  if (*work.near != 0) return angle_triples(work.far);
  if (out == nullptr) return;
  const int i = static_cast<int>(blockIdx.x), n = work.triples.n;
  const double loss = work.total();
  double factor = 2 * scale_inside<T>(*work.sides.student.scale) / (static_cast<double>(n) * n * n);
  if (loss != loss) factor = loss;
  if (i == 0 && threadIdx.x == 0) *work.loss = static_cast<T>(loss);
  const int64_t first = static_cast<int64_t>(i) * n;
  T sum = 0;
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kRowThreads) {
    const T weight = angle_weight(work.triples, i, j) * static_cast<T>(factor);
    sum += weight;
    out[first + j] = -weight;
  }
  sum = block_sum<kRowThreads>(sum);  // a block barrier: out[i][i] is written
  if (threadIdx.x == 0) out[first + i] = sum;
}

// For relation_gradient_kernel: among rows that lie far apart, all rows of the gradient are
// 2 / n^3 times the sum of V_ij (x_i - x_j), in double; and the loss.
template <class T>
struct FarRows {
  AngleWork<T> work;
  double factor;
  bool far;

  KDOPS_DEVICE FarRows found() const {
    static_assert(GradientTile::kThreads == kRowThreads);  // for total()
    if (*work.near == 0) return {work, 0, false};
    const double n = work.far.n, loss = work.total();
    if (blockIdx.x == 0 && threadIdx.x == 0) *work.loss = static_cast<T>(loss);
    return {work, loss == loss ? 2 / (n * n * n) : loss, true};
  }
  KDOPS_DEVICE bool again(int64_t) const { return far; }
  KDOPS_DEVICE T at(int64_t i, int c) const {
    const Side<T>& rows = work.sides.student;
    const double scale = *rows.scale, mine = rows.row(i)[c] * scale;
    double sum = 0;
    for (int64_t j = 0; j < rows.n; ++j)
      sum = fma(angle_weight(work.far, i, j), mine - rows.row(j)[c] * scale, sum);
    return static_cast<T>(factor * sum * scale);
  }
};

}  // namespace kdops::relation::gpu
