// Pack<T>: one SIMD register of T, with the width of the instruction set being compiled. What can be
// done with it: pack.h.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/simd/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace kdops::KDOPS_ISA {

// KDOPS_INTRINSIC(min_ps)(a, b): the intrinsic for the whole of a register.
#if defined(__AVX512F__)
#define KDOPS_INTRINSIC(name) _mm512_##name
inline constexpr int kPackBytes = 64;
#elif defined(__AVX2__)
#define KDOPS_INTRINSIC(name) _mm256_##name
inline constexpr int kPackBytes = 32;
#else
inline constexpr int kPackBytes = 16;
#endif

template <class T>
struct PackTraits {
  using Register __attribute__((vector_size(kPackBytes))) = T;
  using Integer = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  using Bits __attribute__((vector_size(kPackBytes))) = Integer;
  static constexpr int kLanes = kPackBytes / static_cast<int>(sizeof(T));
};

// The outcome of a comparison, lane by lane: all ones or all zeros.
template <class T>
struct PackMask {
  typename PackTraits<T>::Bits bits;
  friend PackMask operator&(PackMask a, PackMask b) { return {a.bits & b.bits}; }
  friend PackMask operator|(PackMask a, PackMask b) { return {a.bits | b.bits}; }
  friend PackMask operator!(PackMask a) { return {~a.bits}; }
};

#if defined(__AVX2__) && !defined(__AVX512F__)
// All ones in the first `words` 32-bit words.
inline __m256i first_words(int words) {
  static constexpr int32_t kOnesThenZeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kOnesThenZeros + 8 - words));
}

// Half, quarter, eighth of the register: masked stores take tens of cycles on some processors.
inline void store_first_words(char* p, __m256i r, int words) {
  __m128i rest = _mm256_castsi256_si128(r);
  if (words >= 8) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), r);
  if (words & 4) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), rest);
    rest = _mm256_extracti128_si256(r, 1);
    p += 16;
  }
  if (words & 2) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), rest);
    rest = _mm_unpackhi_epi64(rest, rest);
    p += 8;
  }
  if (words & 1) _mm_storeu_si32(p, rest);
}
#endif

template <class T>
struct Pack {
  using Scalar = T;
  using Register = typename PackTraits<T>::Register;
  static constexpr int kLanes = PackTraits<T>::kLanes;

  Register r;

  Pack() = default;
  Pack(Register value) : r(value) {}
  Pack(T value) : r(value - Register{}) {}  // broadcast; value - 0 keeps -0.0 and NaN

  static Pack load(const T* p) {
    Pack out;
    std::memcpy(&out.r, p, kPackBytes);
    return out;
  }
  void store(T* p) const { std::memcpy(p, &r, kPackBytes); }

  // The first `count` (0..kLanes) elements; the other lanes are zero and never read.
  static Pack load_partial(const T* p, int count) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
      return Pack(_mm512_maskz_loadu_ps((1u << count) - 1u, p));
    else
      return Pack(_mm512_maskz_loadu_pd((1u << count) - 1u, p));
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4)
      return Pack(_mm256_maskload_ps(p, first_words(count)));
    else
      return Pack(_mm256_maskload_pd(p, first_words(2 * count)));
#else
    Pack out(T(0));
    std::memcpy(&out.r, p, sizeof(T) * static_cast<size_t>(count));
    return out;
#endif
  }
  void store_partial(T* p, int count) const {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
      _mm512_mask_storeu_ps(p, (1u << count) - 1u, r);
    else
      _mm512_mask_storeu_pd(p, (1u << count) - 1u, r);
#elif defined(__AVX2__)
    constexpr int kWords = sizeof(T) / 4;
    store_first_words(reinterpret_cast<char*>(p), __m256i(r), count * kWords);
#else
    std::memcpy(p, &r, sizeof(T) * static_cast<size_t>(count));
#endif
  }

  T lane(int i) const { return r[i]; }
  void set_lane(int i, T value) { r[i] = value; }

  friend Pack operator+(Pack a, Pack b) { return a.r + b.r; }
  friend Pack operator-(Pack a, Pack b) { return a.r - b.r; }
  friend Pack operator*(Pack a, Pack b) { return a.r * b.r; }
  friend Pack operator/(Pack a, Pack b) { return a.r / b.r; }
  friend Pack operator-(Pack a) { return -a.r; }
  Pack& operator+=(Pack b) {
    r += b.r;
    return *this;
  }
  Pack& operator-=(Pack b) {
    r -= b.r;
    return *this;
  }
  Pack& operator*=(Pack b) {
    r *= b.r;
    return *this;
  }
  friend PackMask<T> operator<(Pack a, Pack b) { return {a.r < b.r}; }
  friend PackMask<T> operator<=(Pack a, Pack b) { return {a.r <= b.r}; }
  friend PackMask<T> operator>(Pack a, Pack b) { return {a.r > b.r}; }
  friend PackMask<T> operator>=(Pack a, Pack b) { return {a.r >= b.r}; }
  friend PackMask<T> operator==(Pack a, Pack b) { return {a.r == b.r}; }
};

}  // namespace kdops::KDOPS_ISA
