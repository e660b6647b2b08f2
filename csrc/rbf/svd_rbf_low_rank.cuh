// svd_rbf_loss of one item on the GPU without touching its pairs, where its values lie close enough
// together (singular vectors do): the same form as svd_rbf_low_rank.h, which explains it, with a
// fixed rank, all in double. A block works on one item; where the form is not exact to rounding the
// caller goes through the pairs.
#pragma once

#include "rbf/svd_rbf_input.cuh"

namespace kdops::rbf::gpu {

inline constexpr int kRank = 8, kFeatures = 2 * kRank;
inline constexpr int kChunk = 128;            // values whose features are in shared memory
inline constexpr int kPitch = kFeatures + 2;  // doubles: 8 lanes read 8 neighbours without conflict
inline constexpr int kSlices = 16;            // threads that share a 4 x 4 tile of a Gram matrix

struct SvdRbfLowRankRoom {
  double features[kChunk][kPitch];
  double gram[2][kFeatures][kFeatures];  // of front and back
  double weight[2][kRank][kFeatures];    // of a side for the gradient of the other one
};

// 1 / sqrt(j + 1) and sqrt(j).
KDOPS_DEVICE double inverse_root_after(int j) {
  constexpr double kTable[kRank] = {1.0,
                                    0.7071067811865475,
                                    0.5773502691896258,
                                    0.5,
                                    0.4472135954999579,
                                    0.4082482904638631,
                                    0.3779644730092272,
                                    0.35355339059327373};
  return kTable[j];
}

// D_0 .. D_7, T_0 .. T_7 of a value, and the scaled student.
struct SvdRbfFeatures {
  double at[kFeatures], student;
};
template <class T>
KDOPS_DEVICE SvdRbfFeatures svd_rbf_features(const SvdRbfValue<T>& value, double centre,
                                             double unit) {
  const double s = (value.student - centre) * unit, t = (value.teacher - centre) * unit;
  const double d = static_cast<double>(value.shift) * unit;
  SvdRbfFeatures f;
  f.student = s;
  double top = exp(-0.5 * t * t), difference = top * expm1(0.5 * d * (s + t));
#pragma unroll
  for (int j = 0; j < kRank; ++j) {
    f.at[j] = difference, f.at[kRank + j] = top;
    difference = (s * difference - d * top) * inverse_root_after(j);
    top = t * top * inverse_root_after(j);
  }
  return f;
}

// Both sides of an item one after the other: value number i of front, or i - front of back.
template <class T>
struct SvdRbfItem {
  const SvdRbfLaunch<T>& q;
  int64_t b;
  int c;

  KDOPS_DEVICE SvdRbfValue<T> value(int side, int i) const {
    return side == 0 ? svd_rbf_value(q.student_front, q.teacher_front, b, i, c)
                     : svd_rbf_value(q.student_back, q.teacher_back, b, i, c);
  }
  KDOPS_DEVICE int count(int side) const { return side == 0 ? q.front : q.back; }
};

// room.gram[side]. Thread: tile of 4 x 4 features, slice of the values; the slices' sums are
// exchanged so that each lane ends with one entry.
template <class T>
KDOPS_DEVICE void svd_rbf_gram(const SvdRbfItem<T>& item, int side, double centre,
                               SvdRbfLowRankRoom& room) {
  const int thread = static_cast<int>(threadIdx.x), slice = thread % kSlices;
  const int row = thread / kSlices / 4 * 4, col = thread / kSlices % 4 * 4;
  double sum[16] = {};
  for (int first = 0; first < item.count(side); first += kChunk) {
    __syncthreads();  // the features' last readers are done
    const int mine = first + thread;
    if (thread < kChunk) {
      const SvdRbfFeatures f =
          svd_rbf_features(item.value(side, min(mine, item.count(side) - 1)), centre, item.q.unit);
      const double one = mine < item.count(side) ? 1 : 0;
#pragma unroll
      for (int i = 0; i < kFeatures; i += 2)
        *reinterpret_cast<Vec<double, 2>*>(&room.features[thread][i]) = {f.at[i] * one,
                                                                         f.at[i + 1] * one};
    }
    __syncthreads();
#pragma unroll 2
    for (int v = slice; v < kChunk; v += kSlices) {
      const double* line = room.features[v];
      Vec<double, 2> a[2], b[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        a[i] = *reinterpret_cast<const Vec<double, 2>*>(line + row + 2 * i);
        b[i] = *reinterpret_cast<const Vec<double, 2>*>(line + col + 2 * i);
      }
#pragma unroll
      for (int i = 0; i < 16; ++i)
        sum[i] = fma(a[i / 8].at[i / 4 % 2], b[i % 4 / 2].at[i % 2], sum[i]);
    }
  }
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    constexpr int kMost = kSlices / 2;
    const int width = kMost >> step;
    const bool upper = (slice & width) != 0;
#pragma unroll
    for (int i = 0; i < kMost; ++i) {
      if (i >= width) break;
      const double other = shuffle_xor<kSlices>(upper ? sum[i] : sum[i + width], width);
      sum[i] = (upper ? sum[i + width] : sum[i]) + other;
    }
  }
  room.gram[side][row + slice / 4][col + slice % 4] = sum[0];
}

// The loss from the Gram matrices, and the same sum of absolute values; in all threads.
struct SvdRbfSums {
  double loss, magnitude;
};
template <int kThreads>
KDOPS_DEVICE SvdRbfSums svd_rbf_loss_of(const SvdRbfLowRankRoom& room) {
  const int thread = static_cast<int>(threadIdx.x), i = thread / kRank, j = thread % kRank;
  SvdRbfSums sums{0, 0};
  if (i < kRank) {
    const auto& f = room.gram[0];
    const auto& b = room.gram[1];
    const double sd = f[i][j] + f[kRank + i][j];
    const double ss = sd + f[i][kRank + j] + f[kRank + i][kRank + j];
    const double terms[3] = {b[i][j] * ss, 2 * b[i][kRank + j] * sd,
                             b[kRank + i][kRank + j] * f[i][j]};
    sums.loss = terms[0] + terms[1] + terms[2];
    sums.magnitude = abs(terms[0]) + abs(terms[1]) + abs(terms[2]);
  }
  return {block_sum<kThreads>(sums.loss), block_sum<kThreads>(sums.magnitude)};
}

// d loss / d value of some values, up to the factor; weight: of the other side.
template <int kValues>
KDOPS_DEVICE void svd_rbf_slopes(const SvdRbfFeatures (&f)[kValues],
                                 const double (&weight)[kRank][kFeatures],
                                 double (&total)[kValues]) {
  double before[kValues];
#pragma unroll
  for (int j = 0; j < kRank; ++j) {
    double h[kValues] = {};
#pragma unroll
    for (int i = 0; i < kFeatures; i += 2) {
      const auto w = *reinterpret_cast<const Vec<double, 2>*>(&weight[j][i]);
#pragma unroll
      for (int v = 0; v < kValues; ++v)
        h[v] = fma(f[v].at[i + 1], w.at[1], fma(f[v].at[i], w.at[0], h[v]));
    }
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      const double u = f[v].at[j] + f[v].at[kRank + j];
      const double slope =
          (j == 0 ? 0 : j * inverse_root_after(j - 1) * before[v]) - f[v].student * u;
      total[v] = j == 0 ? h[v] * slope : fma(h[v], slope, total[v]);
      before[v] = u;
    }
  }
}

// Whether the form served; then loss and gradients are written. Called by all threads of a block.
template <int kThreads, class T>
KDOPS_DEVICE bool svd_rbf_low_rank(const SvdRbfItem<T>& item, SvdRbfLowRankRoom& room) {
  static_assert(kThreads == kFeatures * kFeatures && kThreads >= kChunk);
  const SvdRbfLaunch<T>& q = item.q;
  const int thread = static_cast<int>(threadIdx.x);
  const auto for_values = [&](const auto& body) {
    for (int side = 0; side < 2; ++side)
      for (int i = thread; i < item.count(side); i += kThreads) body(side, i);
  };
  double sum = 0;
  for_values([&](int side, int i) { sum += item.value(side, i).teacher; });
  const double centre = block_sum<kThreads>(sum) / (q.front + q.back);
  double reach[2] = {0, 0};
  for_values([&](int side, int i) {
    const auto value = item.value(side, i);
    reach[side] = max(reach[side], max(abs(value.student - centre), abs(value.teacher - centre)));
  });
  const double product =
      q.unit * block_max<kThreads>(reach[0]) * q.unit * block_max<kThreads>(reach[1]);
  if (!(centre - centre == 0 && product < q.reach)) return false;
  svd_rbf_gram(item, 0, centre, room);
  svd_rbf_gram(item, 1, centre, room);
  __syncthreads();  // both Gram matrices are complete
  const SvdRbfSums sums = svd_rbf_loss_of<kThreads>(room);
  // Terms may cancel (a student that is the teacher shifted): below this the digits are gone.
  constexpr double kCancelled = sizeof(T) == 4 ? 1e-7 : 1e-2;
  if (!(sums.loss >= kCancelled * sums.magnitude)) return false;
  if (thread == 0) q.losses[blockIdx.x] = sums.loss;
  if (!q.gradients) return true;
  for (int e = thread; e < 2 * kRank * kRank; e += kThreads) {
    const int side = e / (kRank * kRank), j = e / kRank % kRank, i = e % kRank;
    const auto& g = room.gram[side];
    const double both = g[i][j] + g[i][kRank + j];
    room.weight[side][j][kRank + i] = both;
    room.weight[side][j][i] = both + g[kRank + i][j] + g[kRank + i][kRank + j];
  }
  __syncthreads();
  // Half of the threads take a side, two values at a time, which share the loads of the weights.
  constexpr int kHalf = kThreads / 2;
  const int side = thread / kHalf, count = item.count(side);
  T* gradient = side == 0 ? q.gradient_front : q.gradient_back;
  for (int first = thread % kHalf; first < count; first += 2 * kHalf) {
    SvdRbfFeatures f[2];
#pragma unroll
    for (int v = 0; v < 2; ++v)
      f[v] = svd_rbf_features(item.value(side, min(first + v * kHalf, count - 1)), centre, q.unit);
    double slope[2];
    svd_rbf_slopes(f, room.weight[1 - side], slope);
#pragma unroll
    for (int v = 0; v < 2; ++v)
      if (first + v * kHalf < count)
        gradient[(item.b * count + first + v * kHalf) * q.components + item.c] =
            static_cast<T>(q.low_rank_factor * slope[v]);
  }
  return true;
}

}  // namespace kdops::rbf::gpu
