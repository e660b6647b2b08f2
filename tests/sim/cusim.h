// What nvcc provides, provided for g++: CUDA's keywords and built-in functions on the simulated
// block of cusim_machine.h, and half conversions. lane.cuh includes it when KDOPS_SIM is defined; a
// test calls cusim::launch(grid, block, dynamic shared bytes, [&] { kernel<float>(arguments); }).
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "cusim_machine.h"

#define __global__ inline
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace cusim {

inline std::byte* dynamic_shared() { return machine.shared[0].memory.get() + kCanary; }

// One array per place in the source (every lambda has its own type) and per block.
template <class Array, class Place>
Array& shared_array(Place) {
  static std::byte* start = nullptr;
  static uint64_t serial = 0;
  if (serial != machine.block_serial) {
    serial = machine.block_serial;
    start = allocate_shared(sizeof(Array));
  }
  return *reinterpret_cast<Array*>(start);
}

inline float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16, exponent = half >> 10 & 31;
  const uint32_t fraction = half & 1023;
  if (exponent == 0) return std::ldexp(float(fraction), -24) * (sign ? -1.0f : 1.0f);
  const uint32_t biased = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | biased << 23 | fraction << 13);
}

inline uint16_t float_to_half(float x) {  // to nearest even
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7fffffff;
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and more
  if (magnitude < 0x38800000)                         // a subnormal half: a multiple of 2^-24
    return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(std::fabs(x), 24)));
  return sign |
         static_cast<uint16_t>((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

template <class T>
uint64_t pack(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T>
T shuffle(unsigned mask, T value, int source_in_group, bool inside, int width, Where where) {
  const int lane = static_cast<int>(machine.current % 32), group = lane & ~(width - 1);
  const int source = inside ? group | source_in_group : lane;
  const uint64_t bits = warp_operation(Kind::shuffle, mask, pack(value), source, where);
  T result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

}  // namespace cusim

// ---- CUDA's own names ------------------------------------------------------------------------

#define CUSIM_WHERE cusim::Where where = cusim::Where::current()

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUSIM_WHERE) {
  return cusim::shuffle(mask, value, source & (width - 1), true, width, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, CUSIM_WHERE) {
  const int source = static_cast<int>(cusim::machine.current & (width - 1)) ^ bits;
  return cusim::shuffle(mask, value, source, source < width, width, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUSIM_WHERE) {
  const unsigned source = (cusim::machine.current & (width - 1)) + delta;
  return cusim::shuffle(mask, value, int(source), source < unsigned(width), width, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUSIM_WHERE) {
  const int source = static_cast<int>(cusim::machine.current & (width - 1)) - int(delta);
  return cusim::shuffle(mask, value, source, source >= 0, width, where);
}
inline unsigned __ballot_sync(unsigned mask, int value, CUSIM_WHERE) {
  return unsigned(cusim::warp_operation(cusim::Kind::vote, mask, value != 0, 0, where));
}
inline int __any_sync(unsigned mask, int value, CUSIM_WHERE) {
  return __ballot_sync(mask, value, where) != 0;
}
inline int __all_sync(unsigned mask, int value, CUSIM_WHERE) {
  return __ballot_sync(mask, value, where) == mask;
}
inline void __syncwarp(unsigned mask = ~0u, CUSIM_WHERE) {
  cusim::warp_operation(cusim::Kind::sync, mask, 0, 0, where);
}
inline void __syncthreads(CUSIM_WHERE) { cusim::barrier(false, cusim::Vote::any, where); }
inline int __syncthreads_or(int value, CUSIM_WHERE) {
  return cusim::barrier(value != 0, cusim::Vote::any, where);
}
inline int __syncthreads_and(int value, CUSIM_WHERE) {
  return cusim::barrier(value != 0, cusim::Vote::all, where);
}
inline int __syncthreads_count(int value, CUSIM_WHERE) {
  return cusim::barrier(value != 0, cusim::Vote::count, where);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
// Integers only: floating-point atomics would make results depend on the run.
template <class T>
T atomicAdd(T* address, T value) {
  static_assert(std::is_integral_v<T>, "no floating-point atomics");
  return std::exchange(*address, *address + value);
}
