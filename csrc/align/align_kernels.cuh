// The alignment of singular vectors on CUDA (align.h): a block per sample, forward and backward.
//
// A warp takes every kAlignWarps-th candidate, its lanes the entries of the vectors; every sum has
// one order, and the best of the warps is taken in the order of the warps. The gradient gathers:
// every entry adds the teacher vectors that chose its candidate, in their order.
// Launched by align_cuda.cu and tests/sim/sim_align.cpp.
#pragma once

#include "align/align.h"
#include "common/gpu/lane.cuh"

namespace kdops::align::gpu {

inline constexpr int kAlignThreads = 128, kAlignWarps = kAlignThreads / kWarp;

template <class T>
struct Candidate {
  T cosine;
  int64_t index;
};

// The one with the larger |cosine|: of equals the first, and NaN counts as the largest, as in
// torch.argmax.
template <class T>
KDOPS_DEVICE Candidate<T> nearer(Candidate<T> a, Candidate<T> b) {
  const T x = abs(a.cosine), y = abs(b.cosine);
  const bool nan = x != x, other_nan = y != y;
  const bool equal = x == y || (nan && other_nan);
  const bool take_b = equal ? b.index < a.index : other_nan || y > x;
  return take_b ? b : a;
}

// The same in every lane. x and y: entries `dx` and `dy` apart.
template <class T>
KDOPS_DEVICE T warp_cosine(const T* x, int64_t dx, const T* y, int64_t dy, int64_t length) {
  T sum = T(0);
  for (int64_t d = lane_id(); d < length; d += kWarp) sum = fma(x[d * dx], y[d * dy], sum);
  return warp_sum(sum);
}

template <class T>
__global__ void __launch_bounds__(kAlignThreads) align_vectors_kernel(Alignment<T> args) {
  KDOPS_SHARED(Candidate<T>, of_warp, [kAlignWarps]);
  const int64_t sample = blockIdx.x, length = args.sizes.length, count = args.sizes.count;
  const int64_t dx = args.student.entry, dy = args.teacher.entry;
  const T* student = args.student.data + sample * args.student.batch;
  const T* teacher = args.teacher.data + sample * args.teacher.batch;
  for (int64_t j = 0; j < count; ++j, teacher += args.teacher.vector) {
    Candidate<T> best{T(0), INT64_MAX};  // loses to every candidate
    for (int64_t i = warp_id(); i < args.sizes.candidates; i += kAlignWarps) {
      const T* candidate = student + i * args.student.vector;
      best = nearer(best, {warp_cosine(candidate, dx, teacher, dy, length), i});
    }
    if (lane_id() == 0) of_warp[warp_id()] = best;
    __syncthreads();
    best = of_warp[0];
#pragma unroll
    for (int w = 1; w < kAlignWarps; ++w) best = nearer(best, of_warp[w]);
    const bool turned = best.cosine < T(0);
    const T* chosen = student + best.index * args.student.vector;
    for (int64_t d = threadIdx.x; d < length; d += kAlignThreads)
      args.aligned[(sample * length + d) * count + j] = turned ? -chosen[d * dx] : chosen[d * dx];
    if (threadIdx.x == 0)
      args.choice[sample * count + j] = turned ? -(best.index + 1) : best.index + 1;
    __syncthreads();  // the next vector writes of_warp again
  }
}

template <class T>
__global__ void __launch_bounds__(kAlignThreads)
    align_vectors_backward_kernel(AlignmentGradient<T> args) {
  const int64_t sample = blockIdx.x, length = args.sizes.length, count = args.sizes.count;
  const int64_t entries = args.sizes.candidates * length;
  const T* grad = args.grad.data + sample * args.grad.batch;
  const int64_t* choice = args.choice + sample * count;
  for (int64_t at = threadIdx.x; at < entries; at += kAlignThreads) {
    const int64_t name = at / length + 1;
    const T* own = grad + at % length * args.grad.entry;
    T sum = T(0);
    for (int64_t j = 0; j < count; ++j) {
      if (choice[j] == name) sum += own[j * args.grad.vector];
      if (choice[j] == -name) sum -= own[j * args.grad.vector];
    }
    args.student[sample * entries + at] = sum;
  }
}

}  // namespace kdops::align::gpu
