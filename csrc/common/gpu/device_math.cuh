// Number types and elementary functions of device code; lane.cuh includes it, kernels include that.
// Half and BFloat16 are storage only: values are computed in Accum<T>.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#if defined(KDOPS_SIM)
#include "cusim.h"
#endif

#define KDOPS_DEVICE __device__ __forceinline__

namespace kdops::gpu {

// ---- number types ----------------------------------------------------------------------------

struct alignas(2) Half {
  uint16_t bits;
};
struct alignas(2) BFloat16 {
  uint16_t bits;
};

// The type that values of T are computed in.
template <class T>
using Accum = std::conditional_t<std::is_same_v<T, double>, double, float>;

// N values moved by one instruction; the address must be a multiple of sizeof(T) * N (N * sizeof(T)
// at most 16): *reinterpret_cast<const Vec<float, 4>*>(p).
template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  T at[N];
};

KDOPS_DEVICE float bits_to_float(uint32_t bits) {
#if defined(KDOPS_SIM)
  return std::bit_cast<float>(bits);
#else
  return __uint_as_float(bits);
#endif
}
KDOPS_DEVICE uint32_t float_to_bits(float x) {
#if defined(KDOPS_SIM)
  return std::bit_cast<uint32_t>(x);
#else
  return __float_as_uint(x);
#endif
}

KDOPS_DEVICE float to_accum(float x) { return x; }
KDOPS_DEVICE double to_accum(double x) { return x; }
KDOPS_DEVICE float to_accum(BFloat16 x) { return bits_to_float(uint32_t(x.bits) << 16); }
KDOPS_DEVICE float to_accum(Half x) {
#if defined(KDOPS_SIM)
  return cusim::half_to_float(x.bits);
#else
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
#endif
}

// Rounds to nearest even; NaN stays NaN, overflow becomes infinity.
template <class T>
KDOPS_DEVICE T from_accum(Accum<T> x) {
  if constexpr (std::is_same_v<T, Half>) {
#if defined(KDOPS_SIM)
    return Half{cusim::float_to_half(x)};
#else
    Half y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
#endif
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    const uint32_t bits = float_to_bits(x);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return BFloat16{static_cast<uint16_t>(x == x ? rounded : 0x7fc0u)};
  } else {
    return x;
  }
}

// ---- mathematics, float and double -----------------------------------------------------------
// Full precision unless said otherwise; no -use_fast_math form is used anywhere.

template <class T>
inline constexpr T kEpsilon =
    std::is_same_v<T, double> ? T(2.220446049250313e-16) : T(1.1920928955078125e-07);
template <class T>  // the smallest normal number
inline constexpr T kTiny =
    std::is_same_v<T, double> ? T(2.2250738585072014e-308) : T(1.1754943508222875e-38);

KDOPS_DEVICE float sqrt(float x) { return ::sqrtf(x); }
KDOPS_DEVICE double sqrt(double x) { return ::sqrt(x); }
KDOPS_DEVICE float abs(float x) { return ::fabsf(x); }
KDOPS_DEVICE double abs(double x) { return ::fabs(x); }
KDOPS_DEVICE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
KDOPS_DEVICE double fma(double a, double b, double c) { return ::fma(a, b, c); }
// a * b rounded to its type, never fused into an addition: x * y - x * y is zero.
KDOPS_DEVICE float rounded_product(float a, float b) {
#if defined(KDOPS_SIM)
  return a * b;
#else
  return __fmul_rn(a, b);
#endif
}
KDOPS_DEVICE double rounded_product(double a, double b) {
#if defined(KDOPS_SIM)
  return a * b;
#else
  return __dmul_rn(a, b);
#endif
}
KDOPS_DEVICE float copysign(float a, float b) { return ::copysignf(a, b); }
KDOPS_DEVICE double copysign(double a, double b) { return ::copysign(a, b); }
KDOPS_DEVICE float exp(float x) { return ::expf(x); }
KDOPS_DEVICE double exp(double x) { return ::exp(x); }
KDOPS_DEVICE float expm1(float x) { return ::expm1f(x); }
KDOPS_DEVICE double expm1(double x) { return ::expm1(x); }
// 2^x within 2 ulp, one instruction; numbers below the smallest normal one become 0.
KDOPS_DEVICE float exp2_near(float x) {
#if defined(KDOPS_SIM)
  return ::exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}
// A NaN operand is ignored, as fmax does: use them for scales, not to decide whether data is clean.
KDOPS_DEVICE float max(float a, float b) { return ::fmaxf(a, b); }
KDOPS_DEVICE double max(double a, double b) { return ::fmax(a, b); }
KDOPS_DEVICE int max(int a, int b) { return a > b ? a : b; }
KDOPS_DEVICE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
KDOPS_DEVICE float min(float a, float b) { return ::fminf(a, b); }
KDOPS_DEVICE double min(double a, double b) { return ::fmin(a, b); }
KDOPS_DEVICE int min(int a, int b) { return a < b ? a : b; }
KDOPS_DEVICE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

// The scalar form of Pack's vocabulary (pack.h), for algorithm headers shared with the CPU.
template <class T>
KDOPS_DEVICE T select(bool condition, T a, T b) {
  return condition ? a : b;
}

// 1/x and 1/sqrt(x) within 2 ulp for float (one instruction of the special function unit, subnormal
// numbers kept), exactly rounded division for double. 1/0 is inf, never a trap.
KDOPS_DEVICE float reciprocal(float x) {
#if defined(KDOPS_SIM)
  return 1.0f / x;
#else
  float y;
  asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}
KDOPS_DEVICE double reciprocal(double x) { return 1.0 / x; }
KDOPS_DEVICE float rsqrt(float x) {
#if defined(KDOPS_SIM)
  return 1.0f / ::sqrtf(x);
#else
  return ::rsqrtf(x);
#endif
}
KDOPS_DEVICE double rsqrt(double x) { return 1.0 / ::sqrt(x); }

}  // namespace kdops::gpu

namespace kdops {
using namespace gpu;  // the vocabulary of every room, kdops::<room>::gpu
}
