// CUDA kernels that only rkd_angle has, after those of relation_kernels.cuh that lead to Gram
// matrices.
//
// The triples are walked twice, so that every sum stays in one thread: thread (i, k) over all j for
// the weights at the anchor, thread (j, k) over all i for the opposite sides and the loss. With
// r = 1/d, a = d/2: cos_ijk = r_ik (a_ij - 2 r_ij a_jk^2) + r_ij a_ik (angle.h).
//
// Rows so near to each other that float says too little of the directions between them are computed
// in double. The host does not wait to learn of it: relation_pairs_kernel finds out, kernels for
// both types are launched, and those of one type return at once (is_for).
#pragma once

#include "relation/relation_kernels.cuh"

namespace kdops::relation::gpu {

// A pair seen from an anchor: 1/d and d/2 of student and teacher.
template <class T>
struct alignas(sizeof(T) == 4 ? 16 : 8) AnglePair {
  T inverse_s, half_s, inverse_t, half_t;
};

// Whether T is the type to compute in. near: of rows of float, whether some are too near for it;
// null for rows of double.
template <class T>
KDOPS_DEVICE bool is_for(const int* near) {
  return near == nullptr || (*near != 0) == (sizeof(T) == 8);
}

// Block i: one side (student or teacher) of the pairs (i, j) in `pairs` (n, n). For float it sets
// near (all threads that do write the same) where the losses need double; else near is null.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    relation_pairs_kernel(const T* __restrict__ gram, const T* __restrict__ given, int n, int d,
                          const T* __restrict__ norms, const double* __restrict__ scale,
                          bool teacher, AnglePair<T>* __restrict__ pairs, int* __restrict__ near) {
  const int i = static_cast<int>(blockIdx.x);
  const int64_t first = static_cast<int64_t>(i) * n;
  bool found = false;
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kRowThreads) {
    const T distance =
        pair_distance(given, d, static_cast<T>(*scale), norms, gram[first + j], i, j, found);
    const T inverse = inverse_distance(distance);
    AnglePair<T>& pair = pairs[first + j];
    if (teacher)
      pair.inverse_t = inverse, pair.half_t = distance / 2;
    else
      pair.inverse_s = inverse, pair.half_s = distance / 2;
  }
  if (found && near != nullptr) *near = 1;
}

// |x - y| of rows of float, which double holds whatever their size.
KDOPS_DEVICE double wide_distance(const float* x, const float* y, int d) {
  double square = 0;
  for (int c = 0; c < d; ++c) {
    const double difference = static_cast<double>(x[c]) - static_cast<double>(y[c]);
    square = fma(difference, difference, square);
  }
  return sqrt(square);
}

// Block i: the pairs (i, j) of rows of float in double, from the differences of the given rows.
__global__ void __launch_bounds__(kRowThreads)
    rkd_angle_wide_pairs_kernel(const float* __restrict__ student, int d_s,
                                const float* __restrict__ teacher, int d_t, int n,
                                const int* __restrict__ near,
                                AnglePair<double>* __restrict__ pairs) {
  if (!is_for<double>(near)) return;
  const int64_t i = blockIdx.x;
  for (int64_t j = threadIdx.x; j < n; j += kRowThreads) {
    const double s = wide_distance(student + i * d_s, student + j * d_s, d_s);
    const double t = wide_distance(teacher + i * d_t, teacher + j * d_t, d_t);
    pairs[i * n + j] = {inverse_distance(s), s / 2, inverse_distance(t), t / 2};
  }
}

// cos_S and cos_S - cos_T at the anchor, p = pair (i, j), q = pair (i, k), halves of D_jk.
template <class T>
struct AngleTerm {
  T cosine, slope, difference;
};
template <class T>
KDOPS_DEVICE AngleTerm<T> angle_term(const AnglePair<T>& p, const AnglePair<T>& q, T opposite_s,
                                     T opposite_t) {
  const T inner = fma(-p.inverse_s, opposite_s, p.half_s);
  const T cosine = fma(q.inverse_s, inner, p.inverse_s * q.half_s);
  const T inner_t = fma(-p.inverse_t, opposite_t, p.half_t);
  const T difference = fma(-p.inverse_t, q.half_t, fma(-q.inverse_t, inner_t, cosine));
  return {cosine, clamp_to_one(difference), difference};
}

inline constexpr int kWeightThreads = 64;  // entries k of a block of rkd_angle_weight_kernel
inline constexpr int kWeightAnchors = 4;   // anchors i that a thread holds
inline constexpr int kWeightStage = 32;    // rows j in shared memory at a time

// w (n, n): w[i][k] = sum over j of h_ijk (r_ij - cos_ijk r_ik). Block (x, y): entries k from
// x * kWeightThreads, anchors from y * kWeightAnchors.
template <class T>
__global__ void __launch_bounds__(kWeightThreads)
    rkd_angle_weight_kernel(const AnglePair<T>* __restrict__ pairs, int n,
                            const int* __restrict__ near, T* __restrict__ w) {
  if (!is_for<T>(near)) return;
  KDOPS_SHARED(AnglePair<T>, stage, [kWeightStage][kWeightAnchors]);
  const int k = static_cast<int>(blockIdx.x) * kWeightThreads + static_cast<int>(threadIdx.x);
  const int i0 = static_cast<int>(blockIdx.y) * kWeightAnchors;
  AnglePair<T> own[kWeightAnchors];
  T sum[kWeightAnchors];
#pragma unroll
  for (int a = 0; a < kWeightAnchors; ++a) {
    own[a] = AnglePair<T>{};
    if (k < n && i0 + a < n) own[a] = pairs[static_cast<int64_t>(i0 + a) * n + k];
    sum[a] = 0;
  }
  for (int j0 = 0; j0 < n; j0 += kWeightStage) {
    __syncthreads();  // the stage's last readers are done
    for (int e = static_cast<int>(threadIdx.x); e < kWeightStage * kWeightAnchors;
         e += kWeightThreads) {
      const int a = e / kWeightStage, j = e % kWeightStage;
      AnglePair<T> pair{};
      if (i0 + a < n && j0 + j < n) pair = pairs[static_cast<int64_t>(i0 + a) * n + j0 + j];
      stage[j][a] = pair;
    }
    __syncthreads();
    const int rows = min(kWeightStage, n - j0);
    for (int j = 0; j < rows; ++j) {
      AnglePair<T> side{};
      if (k < n) side = pairs[static_cast<int64_t>(j0 + j) * n + k];
      const T opposite_s = 2 * side.half_s * side.half_s;
      const T opposite_t = 2 * side.half_t * side.half_t;
#pragma unroll
      for (int a = 0; a < kWeightAnchors; ++a) {
        const AnglePair<T> p = stage[j][a];
        const AngleTerm<T> term = angle_term(p, own[a], opposite_s, opposite_t);
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
template <class T>
__global__ void __launch_bounds__(kSideThreads* kSideThreads, 2)
    rkd_angle_side_kernel(const AnglePair<T>* __restrict__ pairs, int n, int tiles,
                          int split_anchors, const int* __restrict__ near, T* __restrict__ m,
                          double* __restrict__ losses) {
  if (!is_for<T>(near)) return;
  KDOPS_SHARED(AnglePair<T>, stage, [kSideStage][2 * kSideTile]);
  const SideTile tile = side_tile(static_cast<int>(blockIdx.x), tiles);
  const int j0 = tile.row * kSideTile, k0 = tile.column * kSideTile;
  const int tx = static_cast<int>(threadIdx.x), ty = static_cast<int>(threadIdx.y);
  const int thread = ty * kSideThreads + tx;
  T opposite_s[2][2], opposite_t[2][2], sum[2][2], loss[2][2];
#pragma unroll
  for (int a = 0; a < 2; ++a)
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int j = j0 + ty + a * kSideThreads, k = k0 + tx + b * kSideThreads;
      AnglePair<T> side{};
      if (j < n && k < n) side = pairs[static_cast<int64_t>(j) * n + k];
      opposite_s[a][b] = 2 * side.half_s * side.half_s;
      opposite_t[a][b] = 2 * side.half_t * side.half_t;
      sum[a][b] = loss[a][b] = 0;
    }
  const int begin = static_cast<int>(blockIdx.y) * split_anchors;
  const int end = min(n, begin + split_anchors);
  for (int i0 = begin; i0 < end; i0 += kSideStage) {
    __syncthreads();  // the stage's last readers are done
    for (int e = thread; e < kSideStage * 2 * kSideTile; e += kSideThreads * kSideThreads) {
      const int i = i0 + e / (2 * kSideTile), place = e % (2 * kSideTile);
      const int other = place < kSideTile ? j0 + place : k0 + place - kSideTile;
      AnglePair<T> pair{};
      if (i < end && other < n) pair = pairs[static_cast<int64_t>(i) * n + other];
      stage[e / (2 * kSideTile)][place] = pair;
    }
    __syncthreads();
#pragma unroll 2
    for (int i = 0; i < kSideStage; ++i) {
      const AnglePair<T> p[2] = {stage[i][ty], stage[i][ty + kSideThreads]};
      const AnglePair<T> q[2] = {stage[i][kSideTile + tx], stage[i][kSideTile + tx + kSideThreads]};
#pragma unroll
      for (int a = 0; a < 2; ++a)
#pragma unroll
        for (int b = 0; b < 2; ++b) {
          const AngleTerm<T> term = angle_term(p[a], q[b], opposite_s[a][b], opposite_t[a][b]);
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

// V_ij = r_ij (w_ij + w_ji) - m_ij, from the weights and the opposite sides above; zero for i = j.
template <class T>
KDOPS_DEVICE T angle_weight(const AnglePair<T>* pairs, int n, const T* w, const T* m, int splits,
                            int64_t i, int64_t j) {
  if (i == j) return T(0);
  const int64_t here = i * n + j, mirror = j * n + i, square = static_cast<int64_t>(n) * n;
  T weight = 0;
  for (int s = 0; s < splits; ++s) weight -= m[s * square + (i < j ? here : mirror)];
  return fma(pairs[here].inverse_s, w[here] + w[mirror], weight);
}

// Block i: row i of factor * (diag(V 1) - V); factor = 2 scale_inside / n^3, NaN if the loss is.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    rkd_angle_laplacian_kernel(const AnglePair<T>* __restrict__ pairs, int n,
                               const T* __restrict__ w, const T* __restrict__ m, int splits,
                               const double* __restrict__ loss, const double* __restrict__ scale,
                               const int* __restrict__ near, T* __restrict__ out) {
  if (!is_for<T>(near)) return;
  const int i = static_cast<int>(blockIdx.x);
  double factor = 2 * scale_inside<T>(*scale) / (static_cast<double>(n) * n * n);
  if (*loss != *loss) factor = *loss;
  const int64_t first = static_cast<int64_t>(i) * n;
  T sum = 0;
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kRowThreads) {
    const T weight = angle_weight(pairs, n, w, m, splits, i, j) * static_cast<T>(factor);
    sum += weight;
    out[first + j] = -weight;
  }
  sum = block_sum<kRowThreads>(sum);  // a block barrier: out[i][i] is written
  if (threadIdx.x == 0) out[first + i] = sum;
}

// Block i: row i of the gradient (n, d) of rows of float in double, 2 / n^3 times the sum of
// V_ij (x_i - x_j), over what a product has left there.
__global__ void __launch_bounds__(kRowThreads)
    rkd_angle_wide_gradient_kernel(const AnglePair<double>* __restrict__ pairs, int n,
                                   const double* __restrict__ w, const double* __restrict__ m,
                                   int splits, const double* __restrict__ loss,
                                   const float* __restrict__ given, int d,
                                   const int* __restrict__ near, float* __restrict__ grad) {
  if (!is_for<double>(near)) return;
  double factor = 2 / (static_cast<double>(n) * n * n);
  if (*loss != *loss) factor = *loss;
  const int64_t i = blockIdx.x;
  for (int c = static_cast<int>(threadIdx.x); c < d; c += kRowThreads) {
    const double mine = given[i * d + c];
    double sum = 0;
    for (int64_t j = 0; j < n; ++j)
      sum = fma(angle_weight(pairs, n, w, m, splits, i, j), mine - given[j * d + c], sum);
    grad[i * d + c] = static_cast<float>(factor * sum);
  }
}

}  // namespace kdops::relation::gpu
