// svd_rbf_loss on the GPU: loss and both student gradients, one block per item (sample b, component
// c): by the low-rank form where that is exact, else in one pass over the pairs. There a warp walks
// over its share of the back values, its lanes over neighbouring front values, several of which each
// keeps in registers: its pairs cost no memory access but one shared broadcast, and their sum for
// the back value one warp sum. Row sums (gradient of back) go into shared memory that only this warp
// touches; the column sums (gradient of front) stay in registers and are combined over the warps in
// ascending order. No atomics: results repeat to the bit.
// Launched by svd_rbf_cuda.cu.
#pragma once

#include "rbf/limits.h"
#include "rbf/svd_rbf_low_rank.cuh"

namespace kdops::rbf::gpu {

inline constexpr int kSvdRbfThreads = 256;
// Dynamic shared memory that leaves room for arrays of the kernel's own.
inline constexpr int64_t kSvdRbfRoomyBytes = 28 << 10;

// The powers 2^-p of the student and 2^-q of the teacher, gap = q - p: the difference is taken from
// 1 - 2^-gap where the exponents are close, so that it keeps its digits.
template <class T>
struct SvdRbfPowers {
  T student, difference;
};
KDOPS_DEVICE SvdRbfPowers<double> svd_rbf_powers(double p, double q, double gap) {
  const double student = ::exp2(-p);
  if (!(abs(gap) < 0.5)) return {student, student - ::exp2(-q)};  // far apart, or NaN
  return {student, -student * expm1(-gap * 0.6931471805599453)};
}
// Without a branch: some lane of a warp takes either way.
KDOPS_DEVICE SvdRbfPowers<float> svd_rbf_powers(float p, float q, float gap) {
  // (1 - 2^-gap) / gap within 1.2e-8 for |gap| < 0.5, interpolated in Chebyshev's points
  float series = fma(-1.545316336e-4f, gap, 1.339086331e-3f);
  series = fma(series, gap, -9.618083015e-3f);
  series = fma(series, gap, 5.550356954e-2f);
  series = fma(series, gap, -2.402265072e-1f);
  series = fma(series, gap, 6.931471825e-1f);
  const float student = exp2_near(-p), far = student - exp2_near(-q);
  return {student, abs(gap) < 0.5f ? student * gap * series : far};
}

// K_S - K_T in `delta`; returns (K_S - K_T) K_S (back - front) root, which is dL/d(back - front)
// up to `factor`. The difference of the teacher's and the student's back - front comes from the
// shifts or from themselves, whichever are smaller.
template <class T>
KDOPS_DEVICE T svd_rbf_pair(const SvdRbfValue<T>& back, const SvdRbfValue<T>& front, T root,
                            T& delta) {
  const T s = back.student - front.student, t = back.teacher - front.teacher;
  const bool close = abs(back.shift) + abs(front.shift) < abs(s) + abs(t);
  const T difference = close ? back.shift - front.shift : t - s;
  const T a_s = root * s, a_t = root * t;
  const auto powers = svd_rbf_powers(a_s * a_s, a_t * a_t, root * difference * (a_t + a_s));
  delta = powers.difference;
  return delta * powers.student * a_s;
}

// The front values of a lane, a warp apart.
template <class T, int kFronts>
struct SvdRbfFronts {
  SvdRbfValue<T> value[kFronts];
  T column[kFronts];  // minus what the pairs pull
  T loss;

  // One back value against all; the sum of their pulls. kWhole: all of them exist.
  template <bool kWhole>
  KDOPS_DEVICE T meet(const SvdRbfValue<T>& back, T root, int first, int count) {
    T row = 0;
#pragma unroll
    for (int f = 0; f < kFronts; ++f) {
      T delta, pull = svd_rbf_pair(back, value[f], root, delta);
      if (!kWhole && first + f * kWarp >= count) pull = delta = 0;
      loss = fma(delta, delta, loss);
      row += pull, column[f] -= pull;
    }
    return row;
  }
};

template <class T>
int64_t svd_rbf_bytes(const SvdRbfLaunch<T>& q) {
  const int64_t pairs = kNumbersPerBackValue * q.back * static_cast<int64_t>(sizeof(T));
  const int64_t low_rank = q.reach > 0 ? sizeof(SvdRbfLowRankRoom) : 0;
  return pairs > low_rank ? pairs : low_rank;
}

// body(number) with how many front values a lane is to keep, as a constant: no more than there are,
// and one where the back values leave little of the shared memory that every GPU has.
template <class T, class Body>
void for_svd_rbf_fronts(const SvdRbfLaunch<T>& q, const Body& body) {
  if (svd_rbf_bytes(q) > kSvdRbfRoomyBytes) return body(std::integral_constant<int, 1>());
  if (q.front <= 2 * kWarp) return body(std::integral_constant<int, 2>());
  if (q.front <= 4 * kWarp) return body(std::integral_constant<int, 4>());
  body(std::integral_constant<int, 8>());
}

// Dynamic shared memory: for every back value its three numbers and its gradient, or what the
// low-rank form needs (svd_rbf_bytes).
template <class T, int kFronts>
__global__ __launch_bounds__(kSvdRbfThreads) void svd_rbf_kernel(SvdRbfLaunch<T> launch) {
  constexpr int kWarps = kSvdRbfThreads / kWarp, kWidth = kFronts * kWarp;
  KDOPS_DYNAMIC_SHARED(T, pool);
  KDOPS_SHARED(T, columns, [kWarps][kWidth]);
  const auto& q = launch;
  auto* backs = reinterpret_cast<SvdRbfValue<T>*>(pool);
  T* rows = pool + 3 * q.back;
  const int64_t b = blockIdx.x / q.components;
  const int c = static_cast<int>(blockIdx.x % q.components), thread = static_cast<int>(threadIdx.x);
  const int lane = lane_id(), warp = warp_id();
  if (q.reach > 0 && svd_rbf_low_rank<kSvdRbfThreads>(SvdRbfItem<T>{q, b, c},
                                                      *reinterpret_cast<SvdRbfLowRankRoom*>(pool)))
    return;

  for (int m = thread; m < q.back; m += kSvdRbfThreads) {
    backs[m] = svd_rbf_value(q.student_back, q.teacher_back, b, m, c);
    rows[m] = T(0);
  }
  __syncthreads();

  double total = 0;
  for (int n0 = 0; n0 < q.front; n0 += kWidth) {
    const int n = n0 + lane;
    SvdRbfFronts<T, kFronts> fronts{};
#pragma unroll
    for (int f = 0; f < kFronts; ++f)
      fronts.value[f] =
          svd_rbf_value(q.student_front, q.teacher_front, b, min(n + f * kWarp, q.front - 1), c);
    const bool whole = n0 + kWidth <= q.front;
    for (int m = warp; m < q.back; m += kWarps) {
      T row = whole ? fronts.template meet<true>(backs[m], q.root, n, q.front)
                    : fronts.template meet<false>(backs[m], q.root, n, q.front);
      if (!q.gradients) continue;
      row = warp_sum(row);
      if (lane == 0) rows[m] += row;
    }
    total += static_cast<double>(fronts.loss);
    if (!q.gradients) continue;
#pragma unroll
    for (int f = 0; f < kFronts; ++f) columns[warp][f * kWarp + lane] = fronts.column[f];
    __syncthreads();
    static_assert(kWidth <= kSvdRbfThreads);
    if (thread < kWidth && n0 + thread < q.front) {
      T sum = T(0);
      for (int w = 0; w < kWarps; ++w) sum += columns[w][thread];
      q.gradient_front[(b * q.front + n0 + thread) * q.components + c] = q.factor * sum;
    }
    __syncthreads();
  }

  total = block_sum<kSvdRbfThreads>(total);
  if (thread == 0) q.losses[blockIdx.x] = total;
  if (!q.gradients) return;
  for (int m = thread; m < q.back; m += kSvdRbfThreads)
    q.gradient_back[(b * q.back + m) * q.components + c] = q.factor * rows[m];
}

// loss = scale * sum of the items' losses, one block, always in the same order.
template <class T>
__global__ __launch_bounds__(kSvdRbfThreads) void svd_rbf_sum_kernel(const double* losses,
                                                                     int64_t items, double scale,
                                                                     T* loss) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < items; i += kSvdRbfThreads) sum += losses[i];
  sum = block_sum<kSvdRbfThreads>(sum);
  if (threadIdx.x == 0) *loss = static_cast<T>(sum * scale);
}

}  // namespace kdops::rbf::gpu
