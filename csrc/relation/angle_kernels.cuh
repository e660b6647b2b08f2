// CUDA kernels that only rkd_angle has, after those of relation_kernels.cuh that lead to Gram
// matrices and those of angle_pairs.cuh.
//
// The triples are walked twice, so that every sum stays in one thread: thread (i, k) over all j for
// the weights at the anchor, thread (j, k) over all i for the opposite sides and the loss.
#pragma once

#include "relation/angle_pairs.cuh"

namespace kdops::relation::gpu {

inline constexpr int kWeightThreads = 64;  // entries k of a block of rkd_angle_weight_kernel
inline constexpr int kWeightAnchors = 4;   // anchors i that a thread holds
inline constexpr int kWeightStage = 32;    // rows j in shared memory at a time

// w (n, n): w[i][k] = sum over j of h_ijk (r_ij - cos_ijk r_ik). Block (x, y): entries k from
// x * kWeightThreads, anchors from y * kWeightAnchors.
template <class P>
__global__ void __launch_bounds__(kWeightThreads)
    rkd_angle_weight_kernel(const P* __restrict__ pairs, int n, const int* __restrict__ near,
                            typename P::Real* __restrict__ w) {
  using T = typename P::Real;
  if (!is_for<P>(near)) return;
  KDOPS_SHARED(P, stage, [kWeightStage][kWeightAnchors]);
  const int k = static_cast<int>(blockIdx.x) * kWeightThreads + static_cast<int>(threadIdx.x);
  const int i0 = static_cast<int>(blockIdx.y) * kWeightAnchors;
  P own[kWeightAnchors];
  T sum[kWeightAnchors];
#pragma unroll
  for (int a = 0; a < kWeightAnchors; ++a) {
    own[a] = P{};
    if (k < n && i0 + a < n) own[a] = pairs[static_cast<int64_t>(i0 + a) * n + k];
    sum[a] = 0;
  }
  for (int j0 = 0; j0 < n; j0 += kWeightStage) {
    __syncthreads();  // the stage's last readers are done
    for (int e = static_cast<int>(threadIdx.x); e < kWeightStage * kWeightAnchors;
         e += kWeightThreads) {
      const int a = e / kWeightStage, j = e % kWeightStage;
      P pair{};
      if (i0 + a < n && j0 + j < n) pair = pairs[static_cast<int64_t>(i0 + a) * n + j0 + j];
      stage[j][a] = pair;
    }
    __syncthreads();
    const int rows = min(kWeightStage, n - j0);
    for (int j = 0; j < rows; ++j) {
      P side{};
      if (k < n) side = pairs[static_cast<int64_t>(j0 + j) * n + k];
      const auto opposite = opposite_of(side);
#pragma unroll
      for (int a = 0; a < kWeightAnchors; ++a) {
        const P p = stage[j][a];
        const AngleTerm<T> term = angle_term(p, own[a], opposite);
        sum[a] = fma(term.slope, fma(-term.cosine, own[a].inverse_s, p.inverse_s), sum[a]);
      }
    }
  }
#pragma unroll
  for (int a = 0; a < kWeightAnchors; ++a)
    if (k < n && i0 + a < n) w[static_cast<int64_t>(i0 + a) * n + k] = sum[a];
}

inline constexpr int kSideTile = 32;  // rows and columns (j, k) of a block, 2 x 2 per thread
inline constexpr int kSideThreads = kSideTile / 2;
inline constexpr int kSideStage = 8;  // anchors in shared memory at a time

// First column tile >= row tile of the tile with number t in the upper triangle of `tiles` x tiles.
struct SideTile {
  int row, column;
};
KDOPS_DEVICE SideTile side_tile(int t, int tiles) {
  int row = 0;
  for (; t >= tiles - row; ++row) t -= tiles - row;
  return {row, row + t};
}

// Block (x, y): the tile x of pairs (j, k), for the anchors of split y. m (splits, n, n), upper
// triangle: sum over the split's anchors of h r_ij r_ik; losses (blocks): sum of huber over the
// tile's triples, both orders of a pair counted. m may be null.
template <class P>
__global__ void __launch_bounds__(kSideThreads* kSideThreads, 2)
    rkd_angle_side_kernel(const P* __restrict__ pairs, int n, int tiles, int split_anchors,
                          const int* __restrict__ near, typename P::Real* __restrict__ m,
                          double* __restrict__ losses) {
  using T = typename P::Real;
  if (!is_for<P>(near)) return;
  KDOPS_SHARED(P, stage, [kSideStage][2 * kSideTile]);
  const SideTile tile = side_tile(static_cast<int>(blockIdx.x), tiles);
  const int j0 = tile.row * kSideTile, k0 = tile.column * kSideTile;
  const int tx = static_cast<int>(threadIdx.x), ty = static_cast<int>(threadIdx.y);
  const int thread = ty * kSideThreads + tx;
  decltype(opposite_of(P{})) opposite[2][2];
  T sum[2][2], loss[2][2];
#pragma unroll
  for (int a = 0; a < 2; ++a)
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int j = j0 + ty + a * kSideThreads, k = k0 + tx + b * kSideThreads;
      P side{};
      if (j < n && k < n) side = pairs[static_cast<int64_t>(j) * n + k];
      opposite[a][b] = opposite_of(side);
      sum[a][b] = loss[a][b] = 0;
    }
  const int begin = static_cast<int>(blockIdx.y) * split_anchors;
  const int end = min(n, begin + split_anchors);
  for (int i0 = begin; i0 < end; i0 += kSideStage) {
    __syncthreads();  // the stage's last readers are done
    for (int e = thread; e < kSideStage * 2 * kSideTile; e += kSideThreads * kSideThreads) {
      const int i = i0 + e / (2 * kSideTile), place = e % (2 * kSideTile);
      const int other = place < kSideTile ? j0 + place : k0 + place - kSideTile;
      P pair{};
      if (i < end && other < n) pair = pairs[static_cast<int64_t>(i) * n + other];
      stage[e / (2 * kSideTile)][place] = pair;
    }
    __syncthreads();
#pragma unroll 2
    for (int i = 0; i < kSideStage; ++i) {
      const P p[2] = {stage[i][ty], stage[i][ty + kSideThreads]};
      const P q[2] = {stage[i][kSideTile + tx], stage[i][kSideTile + tx + kSideThreads]};
#pragma unroll
      for (int a = 0; a < 2; ++a)
#pragma unroll
        for (int b = 0; b < 2; ++b) {
          const AngleTerm<T> term = angle_term(p[a], q[b], opposite[a][b]);
          loss[a][b] = fma(term.slope, fma(T(-0.5), term.slope, term.difference), loss[a][b]);
          sum[a][b] = fma(term.slope * q[b].inverse_s, p[a].inverse_s, sum[a][b]);
        }
    }
  }
  double total = 0;
#pragma unroll
  for (int a = 0; a < 2; ++a)
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int j = j0 + ty + a * kSideThreads, k = k0 + tx + b * kSideThreads;
      if (j >= n || k >= n || j > k) continue;
      total += (j == k ? 1 : 2) * static_cast<double>(loss[a][b]);
      if (m != nullptr) m[(static_cast<int64_t>(blockIdx.y) * n + j) * n + k] = sum[a][b];
    }
  total = block_sum<kSideThreads * kSideThreads>(total);
  if (thread == 0) losses[static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x] = total;
}

// What the kernels above have left of n rows, in so many splits; the loss of all triples; and for
// which kind of pairs it is (is_for).
template <class P>
struct AngleWeights {
  using T = typename P::Real;
  const P* pairs;
  int n, splits;
  const T *w, *m;
  const double* loss;
  const int* near;

  // V_ij = r_ij (w_ij + w_ji) - m_ij; zero for i = j.
  KDOPS_DEVICE T at(int64_t i, int64_t j) const {
    if (i == j) return T(0);
    const int64_t here = i * n + j, mirror = j * n + i, square = static_cast<int64_t>(n) * n;
    T weight = 0;
    for (int s = 0; s < splits; ++s) weight -= m[s * square + (i < j ? here : mirror)];
    return fma(pairs[here].inverse_s, w[here] + w[mirror], weight);
  }
};

// Block i: row i of factor * (diag(V 1) - V); factor = 2 scale_inside / n^3, NaN if the loss is.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    rkd_angle_laplacian_kernel(AngleWeights<AnglePair<T>> weights, const double* __restrict__ scale,
                               T* __restrict__ out) {
  if (!is_for<AnglePair<T>>(weights.near)) return;
  const int i = static_cast<int>(blockIdx.x), n = weights.n;
  double factor = 2 * scale_inside<T>(*scale) / (static_cast<double>(n) * n * n);
  if (*weights.loss != *weights.loss) factor = *weights.loss;
  const int64_t first = static_cast<int64_t>(i) * n;
  T sum = 0;
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kRowThreads) {
    const T weight = weights.at(i, j) * static_cast<T>(factor);
    sum += weight;
    out[first + j] = -weight;
  }
  sum = block_sum<kRowThreads>(sum);  // a block barrier: out[i][i] is written
  if (threadIdx.x == 0) out[first + i] = sum;
}

// Block i: row i of the gradient (n, d) among rows that lie far apart, 2 / n^3 times the sum of
// V_ij (x_i - x_j) in double, over what a product has left there.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    rkd_angle_far_gradient_kernel(AngleWeights<FarPair> weights, GivenRows<T> rows,
                                  T* __restrict__ grad) {
  if (!is_for<FarPair>(weights.near)) return;
  const int n = rows.n, d = rows.d;
  const double scale = *rows.scale;
  double factor = 2 / (static_cast<double>(n) * n * n);
  if (*weights.loss != *weights.loss) factor = *weights.loss;
  const int64_t i = blockIdx.x;
  for (int c = static_cast<int>(threadIdx.x); c < d; c += kRowThreads) {
    const double mine = rows.row(i)[c] * scale;
    double sum = 0;
    for (int64_t j = 0; j < n; ++j) sum = fma(weights.at(i, j), mine - rows.row(j)[c] * scale, sum);
    grad[i * d + c] = static_cast<T>(factor * sum * scale);
  }
}

}  // namespace kdops::relation::gpu
