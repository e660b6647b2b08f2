// Half precision as storage, widened to float before any arithmetic. No torch header: used by the
// per-instruction-set files.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/simd/pack.h"

namespace kdops {

struct Fp16 {
  uint16_t bits;
};
struct Bf16 {
  uint16_t bits;
};

}  // namespace kdops

namespace kdops::KDOPS_ISA {

inline float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float widen(Bf16 x) { return float_from_bits(static_cast<uint32_t>(x.bits) << 16); }
inline float widen(Fp16 x) {
#if defined(__F16C__)
  return _cvtsh_ss(x.bits);
#else
  // Shift exponent and mantissa into place and rescale by 2^112, which also widens subnormals.
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u)  // infinity and NaN
    return float_from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  const float scaled = float_from_bits(magnitude << 13) * float_from_bits(0x77800000u);
  return sign ? -scaled : scaled;
#endif
}

// out[i] = from[i], contiguous both.
inline void widen(const Bf16* from, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = widen(from[i]);
}
inline void widen(const Fp16* from, int64_t count, float* out) {
  int64_t i = 0;
#if defined(__F16C__)  // the compiler does not make vectors of the scalar conversion
  for (; i + 8 <= count; i += 8)
    _mm256_storeu_ps(out + i,
                     _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
#endif
  for (; i < count; ++i) out[i] = widen(from[i]);
}

}  // namespace kdops::KDOPS_ISA
