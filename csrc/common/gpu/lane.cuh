// The device vocabulary: what a <op>_kernels.cuh may use, and all that it may include.
//
// The same source is compiled by nvcc (sm_75 and later) and, with KDOPS_SIM defined, by g++ against
// tests/sim/cusim.h, where every CUDA thread is a fibre. To write a kernel that works in both:
//   - put it in namespace kdops::<room>::gpu, where this vocabulary is at hand, and write ordinary
//     CUDA: __global__, __launch_bounds__, threadIdx, __syncthreads(),
//     __restrict__, `#pragma unroll`;
//   - declare shared memory with KDOPS_SHARED(float, tile, [32][33]) or, sized by the launch,
//     KDOPS_DYNAMIC_SHARED(float, pool); 16-byte aligned, in the simulator NaN until written;
//   - never rely on lockstep: lanes that exchange data through memory need sync_warp<W>() between;
//   - every lane that a mask names must still run: no early return before a warp operation of the
//     same group, none at all in a block that meets another __syncthreads();
//   - a group of W lanes (1, 2, 4, .. 32) serves one item; functions below take W and use the mask
//     of the caller's own group, so groups of one warp may run different numbers of iterations;
//   - half types are stored as Half and BFloat16: to_accum() when loading, from_accum<T>() when
//     storing, arithmetic only in Accum<T>.
// Reductions have one fixed order and give every lane the same bits.
#pragma once

#include "common/gpu/device_math.cuh"

#if defined(KDOPS_SIM)
#define KDOPS_SHARED(T, name, dims) T(&name) dims = cusim::shared_array<T dims>([] {})
#define KDOPS_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(cusim::dynamic_shared())
// a last parameter and argument that carry the caller's source line into the simulator's messages
#define KDOPS_CALLER cusim::Where where = cusim::Where::current()
#define KDOPS_AND_CALLER , KDOPS_CALLER
#define KDOPS_FROM_CALLER , where
#else
#define KDOPS_CALLER
#define KDOPS_AND_CALLER
#define KDOPS_FROM_CALLER
#define KDOPS_SHARED(T, name, dims) __shared__ __align__(16) T name dims
#define KDOPS_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char kdops_dynamic_shared[]; \
  T* name = reinterpret_cast<T*>(kdops_dynamic_shared)
#endif

namespace kdops::gpu {

inline constexpr int kWarp = 32;
inline constexpr unsigned kFullMask = 0xffffffffu;

// ---- lanes -----------------------------------------------------------------------------------

KDOPS_DEVICE int lane_id() {
  return static_cast<int>((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) %
                          kWarp);
}
KDOPS_DEVICE int warp_id() {
  return static_cast<int>((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) /
                          kWarp);
}

// The caller's place in its group of W lanes, and the group's mask.
template <int W = kWarp>
KDOPS_DEVICE int group_lane() {
  static_assert(W >= 1 && W <= kWarp && (W & (W - 1)) == 0, "a power of two, at most 32");
  return lane_id() & (W - 1);
}
template <int W = kWarp>
KDOPS_DEVICE unsigned group_mask() {
  if constexpr (W == kWarp) {
    return kFullMask;
  } else {
    return ((1u << W) - 1u) << (lane_id() & ~(W - 1));
  }
}

template <int W = kWarp>
KDOPS_DEVICE void sync_warp(KDOPS_CALLER) {
  __syncwarp(group_mask<W>() KDOPS_FROM_CALLER);
}

// Value of lane (own ^ bits), of lane `source`, of lane (own + delta), of lane (own - delta), all
// counted inside the group; down and up return the caller's own value past the group's end. kHere:
// lanes that call together. With kWarp, where groups of a warp stay together, the mask is a constant,
// and a shuffle one instruction instead of a dozen.
template <int W = kWarp, int kHere = W, class T>
KDOPS_DEVICE T shuffle_xor(T value, int bits KDOPS_AND_CALLER) {
  return __shfl_xor_sync(group_mask<kHere>(), value, bits, W KDOPS_FROM_CALLER);
}
template <int W = kWarp, int kHere = W, class T>
KDOPS_DEVICE T shuffle(T value, int source KDOPS_AND_CALLER) {
  return __shfl_sync(group_mask<kHere>(), value, source, W KDOPS_FROM_CALLER);
}
template <int W = kWarp, class T>
KDOPS_DEVICE T shuffle_down(T value, int delta KDOPS_AND_CALLER) {
  return __shfl_down_sync(group_mask<W>(), value, static_cast<unsigned>(delta),
                          W KDOPS_FROM_CALLER);
}
template <int W = kWarp, class T>
KDOPS_DEVICE T shuffle_up(T value, int delta KDOPS_AND_CALLER) {
  return __shfl_up_sync(group_mask<W>(), value, static_cast<unsigned>(delta), W KDOPS_FROM_CALLER);
}

template <int W = kWarp>
KDOPS_DEVICE bool warp_any(bool value KDOPS_AND_CALLER) {
  return __any_sync(group_mask<W>(), value KDOPS_FROM_CALLER) != 0;
}
template <int W = kWarp>
KDOPS_DEVICE bool warp_all(bool value KDOPS_AND_CALLER) {
  return __all_sync(group_mask<W>(), value KDOPS_FROM_CALLER) != 0;
}
// Bit j is the value of the group's lane j.
template <int W = kWarp>
KDOPS_DEVICE unsigned warp_ballot(bool value KDOPS_AND_CALLER) {
  return __ballot_sync(group_mask<W>(), value KDOPS_FROM_CALLER) >> (lane_id() & ~(W - 1));
}

// ---- reductions ------------------------------------------------------------------------------

struct Add {
  template <class T>
  KDOPS_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <class T>
  KDOPS_DEVICE T operator()(T a, T b) const {
    return max(a, b);
  }
};
struct Min {
  template <class T>
  KDOPS_DEVICE T operator()(T a, T b) const {
    return min(a, b);
  }
};

// Butterfly: both partners of a step compute a + b of the same two numbers, so all lanes agree.
template <int W = kWarp, int kHere = W, class T, class Op>
KDOPS_DEVICE T warp_reduce(T value, Op op KDOPS_AND_CALLER) {
#pragma unroll
  for (int bits = W / 2; bits > 0; bits /= 2)
    value = op(value, shuffle_xor<W, kHere>(value, bits KDOPS_FROM_CALLER));
  return value;
}
template <int W = kWarp, int kHere = W, class T>
KDOPS_DEVICE T warp_sum(T value KDOPS_AND_CALLER) {
  return warp_reduce<W, kHere>(value, Add() KDOPS_FROM_CALLER);
}
template <int W = kWarp, int kHere = W, class T>
KDOPS_DEVICE T warp_max(T value KDOPS_AND_CALLER) {
  return warp_reduce<W, kHere>(value, Max() KDOPS_FROM_CALLER);
}
template <int W = kWarp, class T>
KDOPS_DEVICE T warp_min(T value KDOPS_AND_CALLER) {
  return warp_reduce<W>(value, Min() KDOPS_FROM_CALLER);
}

template <class T>
struct Indexed {
  T value;
  int index;
};
// The largest value and its index; equal values: the smallest index. A NaN never wins over a
// number.
template <int W = kWarp, class T>
KDOPS_DEVICE Indexed<T> warp_argmax(T value, int index KDOPS_AND_CALLER) {
#pragma unroll
  for (int bits = W / 2; bits > 0; bits /= 2) {
    const T other = shuffle_xor<W>(value, bits KDOPS_FROM_CALLER);
    const int other_index = shuffle_xor<W>(index, bits KDOPS_FROM_CALLER);
    const bool nan = value != value, other_nan = other != other;
    const bool tie = other == value || (nan && other_nan);
    if (other > value || (nan && !other_nan) || (tie && other_index < index)) {
      value = other;
      index = other_index;
    }
  }
  return {value, index};
}

// Over a block of kThreads threads (a multiple of 32), same result in every thread. Two block
// barriers each: all threads of the block must call it. Warps are combined in ascending order.
template <int kThreads, class T, class Op>
KDOPS_DEVICE T block_reduce(T value, Op op) {
  static_assert(kThreads % kWarp == 0 && kThreads <= 1024, "whole warps");
  value = warp_reduce(value, op);
  if constexpr (kThreads == kWarp) {
    return value;
  } else {
    KDOPS_SHARED(T, partial, [kThreads / kWarp]);
    if (lane_id() == 0) partial[warp_id()] = value;
    __syncthreads();
    value = partial[0];
#pragma unroll
    for (int w = 1; w < kThreads / kWarp; ++w) value = op(value, partial[w]);
    __syncthreads();  // the next call may write `partial` again
    return value;
  }
}
template <int kThreads, class T>
KDOPS_DEVICE T block_sum(T value) {
  return block_reduce<kThreads>(value, Add());
}
template <int kThreads, class T>
KDOPS_DEVICE T block_max(T value) {
  return block_reduce<kThreads>(value, Max());
}
template <int kThreads, class T>
KDOPS_DEVICE T block_min(T value) {
  return block_reduce<kThreads>(value, Min());
}
// Also a block barrier.
KDOPS_DEVICE bool block_any(bool value) { return __syncthreads_or(value) != 0; }
KDOPS_DEVICE bool block_all(bool value) { return __syncthreads_and(value) != 0; }

}  // namespace kdops::gpu
