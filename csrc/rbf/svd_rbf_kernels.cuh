// svd_rbf_loss on the GPU: loss and both student gradients in one pass over the pairs.
//
// One block per item (sample b, component c). A warp walks over its share of the back values, its
// lanes over 32 neighbouring front values, which stay in registers: a pair costs no memory access
// but one shared broadcast. The row sums (gradient of back) are warp sums into shared memory that
// only this warp touches; the column sums (gradient of front) stay in a register and are combined
// over the warps in ascending order. No atomics: results repeat to the bit.
// Launched by svd_rbf_cuda.cu.
#pragma once

#include "common/gpu/lane.cuh"

namespace kdops::rbf::gpu {
using namespace kdops::gpu;

inline constexpr int kSvdRbfThreads = 256;

// (B, D, k) with any strides, in elements.
template <class T>
struct SvdRbfInput {
  const T* data;
  int64_t batch, row, component;
  KDOPS_DEVICE T at(int64_t b, int d, int c) const {
    return data[b * batch + d * row + c * component];
  }
};

template <class T>
struct SvdRbfLaunch {
  SvdRbfInput<T> student_front, student_back, teacher_front, teacher_back;
  int front, back, components;
  T inverse_beta;
  T factor;  // -4 scale / beta
  bool gradients;
  double* losses;                     // one per item, unscaled
  T *gradient_front, *gradient_back;  // (B, D, k) contiguous
};

// The front value of a lane, or a back value.
template <class T>
struct SvdRbfValue {
  T student, teacher, shift;  // shift = teacher - student
};

// K_S - K_T in `delta`; returns (K_S - K_T) K_S (back - front), which is dL/d(back - front) up to
// -4 scale / beta. Close exponents go through expm1, so that the difference keeps its digits.
template <class T>
KDOPS_DEVICE T svd_rbf_pair(const SvdRbfValue<T>& back, const SvdRbfValue<T>& front, T inverse_beta,
                            T& delta) {
  const T a_student = back.student - front.student, a_teacher = back.teacher - front.teacher;
  const T gap = (back.shift - front.shift) * inverse_beta * (a_teacher + a_student);
  const T p = a_student * a_student * inverse_beta, q = a_teacher * a_teacher * inverse_beta;
  T k_student;
  if (abs(gap) < T(0.5)) {
    const T base = exp(-min(p, q));
    const T lost = expm1(-abs(gap));
    delta = copysign(base * lost, gap);
    k_student = gap < T(0) ? base + base * lost : base;
  } else {  // far apart, or NaN
    k_student = exp(-p);
    delta = k_student - exp(-q);
  }
  return delta * k_student * a_student;
}

template <class T>
KDOPS_DEVICE SvdRbfValue<T> svd_rbf_value(const SvdRbfInput<T>& student,
                                          const SvdRbfInput<T>& teacher, int64_t b, int d, int c) {
  const T s = student.at(b, d, c), t = teacher.at(b, d, c);
  return {s, t, t - s};
}

// Dynamic shared memory: for every back value its three numbers and its gradient.
template <class T>
__global__ __launch_bounds__(kSvdRbfThreads) void svd_rbf_kernel(SvdRbfLaunch<T> launch) {
  constexpr int kWarps = kSvdRbfThreads / kWarp;
  KDOPS_DYNAMIC_SHARED(T, pool);
  KDOPS_SHARED(T, columns, [kWarps][kWarp]);
  const auto& q = launch;
  auto* backs = reinterpret_cast<SvdRbfValue<T>*>(pool);
  T* rows = pool + 3 * q.back;
  const int64_t b = blockIdx.x / q.components;
  const int c = static_cast<int>(blockIdx.x % q.components);
  const int lane = lane_id(), warp = warp_id();

  for (int m = static_cast<int>(threadIdx.x); m < q.back; m += kSvdRbfThreads) {
    backs[m] = svd_rbf_value(q.student_back, q.teacher_back, b, m, c);
    rows[m] = T(0);
  }
  __syncthreads();

  double total = 0;
  for (int n0 = 0; n0 < q.front; n0 += kWarp) {
    const int n = n0 + lane;
    const bool inside = n < q.front;
    SvdRbfValue<T> front{};
    if (inside) front = svd_rbf_value(q.student_front, q.teacher_front, b, n, c);
    T loss = T(0), column = T(0);
    for (int m = warp; m < q.back; m += kWarps) {
      T delta;
      T pull = svd_rbf_pair(backs[m], front, q.inverse_beta, delta);
      pull = inside ? pull : T(0);
      loss = inside ? fma(delta, delta, loss) : T(0);
      column -= pull;
      if (q.gradients) {
        const T row = warp_sum(pull);
        if (lane == 0) rows[m] += row;
      }
    }
    total += static_cast<double>(loss);
    if (!q.gradients) continue;
    columns[warp][lane] = column;
    __syncthreads();
    if (warp == 0 && inside) {
      T sum = T(0);
      for (int w = 0; w < kWarps; ++w) sum += columns[w][lane];
      q.gradient_front[(b * q.front + n) * q.components + c] = q.factor * sum;
    }
    __syncthreads();
  }

  total = block_sum<kSvdRbfThreads>(total);
  if (threadIdx.x == 0) q.losses[blockIdx.x] = total;
  if (!q.gradients) return;
  for (int m = static_cast<int>(threadIdx.x); m < q.back; m += kSvdRbfThreads)
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
