// Pack<T>: one SIMD register of T, with the width of the instruction set being compiled.
//
// Algorithms are templates on a number type V that is float, double or Pack of one of them. They
// use only the vocabulary below, which exists for all four, so that the same source runs one
// matrix (V = T) or one matrix per lane (V = Pack<T>). Comparisons give Mask<V>; select() blends.
// No torch header: this file is compiled once per instruction set (isa.h).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "common/simd/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace kdops::KDOPS_ISA {

#if defined(__AVX512F__)
inline constexpr int kPackBytes = 64;
#elif defined(__AVX2__)
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

template <class V>
struct NumberTraits {
  using Scalar = V;
  using Mask = bool;
  static constexpr int kLanes = 1;
};
template <class T>
struct NumberTraits<Pack<T>> {
  using Scalar = T;
  using Mask = PackMask<T>;
  static constexpr int kLanes = Pack<T>::kLanes;
};
template <class V>
using Mask = typename NumberTraits<V>::Mask;
template <class V>
using Scalar = typename NumberTraits<V>::Scalar;

// ---- the vocabulary, scalars -----------------------------------------------------------------

template <class T>
concept Real = std::is_same_v<T, float> || std::is_same_v<T, double>;

template <Real T>
inline T load(const T* p, T) {
  return *p;
}
template <Real T>
inline T select(bool m, T a, T b) {
  return m ? a : b;
}
template <Real T>
inline T fma(T a, T b, T c) {
  return a * b + c;
}
template <Real T>
inline T sqrt(T a) {
  return std::sqrt(a);
}
template <Real T>
inline T abs(T a) {
  return std::fabs(a);
}
template <Real T>
inline T min(T a, T b) {
  return a < b ? a : b;
}
template <Real T>
inline T max(T a, T b) {
  return a > b ? a : b;
}
template <Real T>
inline T copysign(T a, T b) {
  return std::copysign(a, b);
}
inline bool any(bool m) { return m; }
inline bool all(bool m) { return m; }

// ---- the vocabulary, packs -------------------------------------------------------------------

template <class T>
inline Pack<T> select(PackMask<T> m, Pack<T> a, Pack<T> b) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return Pack<T>(_mm256_blendv_ps(b.r, a.r, reinterpret_cast<__m256>(m.bits)));
  else
    return Pack<T>(_mm256_blendv_pd(b.r, a.r, reinterpret_cast<__m256d>(m.bits)));
#else
  return Pack<T>(m.bits ? a.r : b.r);
#endif
}
// a * b + c; the compiler contracts it to one instruction where there is one.
template <class T>
inline Pack<T> fma(Pack<T> a, Pack<T> b, Pack<T> c) {
  return a.r * b.r + c.r;
}
// a < b ? a : b, and a > b ? a : b: b where one of them is NaN. The compiler makes two instructions
// of the conditional.
template <class T>
inline Pack<T> min(Pack<T> a, Pack<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return Pack<T>(_mm512_min_ps(a.r, b.r));
  else
    return Pack<T>(_mm512_min_pd(a.r, b.r));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return Pack<T>(_mm256_min_ps(a.r, b.r));
  else
    return Pack<T>(_mm256_min_pd(a.r, b.r));
#else
  return Pack<T>(a.r < b.r ? a.r : b.r);
#endif
}
template <class T>
inline Pack<T> max(Pack<T> a, Pack<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return Pack<T>(_mm512_max_ps(a.r, b.r));
  else
    return Pack<T>(_mm512_max_pd(a.r, b.r));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return Pack<T>(_mm256_max_ps(a.r, b.r));
  else
    return Pack<T>(_mm256_max_pd(a.r, b.r));
#else
  return Pack<T>(a.r > b.r ? a.r : b.r);
#endif
}

template <class T>
inline Pack<T> sqrt(Pack<T> a) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return Pack<T>(_mm512_sqrt_ps(a.r));
  else
    return Pack<T>(_mm512_sqrt_pd(a.r));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return Pack<T>(_mm256_sqrt_ps(a.r));
  else
    return Pack<T>(_mm256_sqrt_pd(a.r));
#else
  for (int i = 0; i < Pack<T>::kLanes; ++i) a.r[i] = std::sqrt(a.r[i]);
  return a;
#endif
}

template <class T>
inline Pack<T> abs(Pack<T> a) {
  using Bits = typename PackTraits<T>::Bits;
  using Integer = typename PackTraits<T>::Integer;
  const Bits keep = std::numeric_limits<Integer>::max() - Bits{};
  return Pack<T>(reinterpret_cast<typename Pack<T>::Register>(reinterpret_cast<Bits>(a.r) & keep));
}

// |a| with the sign of b.
template <class T>
inline Pack<T> copysign(Pack<T> a, Pack<T> b) {
  using Bits = typename PackTraits<T>::Bits;
  using Integer = typename PackTraits<T>::Integer;
  const Bits keep = std::numeric_limits<Integer>::max() - Bits{};
  const Bits bits = (reinterpret_cast<Bits>(a.r) & keep) | (reinterpret_cast<Bits>(b.r) & ~keep);
  return Pack<T>(reinterpret_cast<typename Pack<T>::Register>(bits));
}

template <class T>
inline bool any(PackMask<T> m) {
#if defined(__AVX512F__)
  const auto bits = reinterpret_cast<__m512i>(m.bits);
  return _mm512_test_epi32_mask(bits, bits) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_epi8(reinterpret_cast<__m256i>(m.bits)) != 0;
#elif defined(__SSE2__)
  return _mm_movemask_epi8(reinterpret_cast<__m128i>(m.bits)) != 0;
#else
  for (int i = 0; i < PackTraits<T>::kLanes; ++i)
    if (m.bits[i]) return true;
  return false;
#endif
}
template <class T>
inline bool all(PackMask<T> m) {
  return !any(!m);
}

// Sum of all lanes, in a fixed tree order.
template <class T>
inline T reduce_add(Pack<T> a) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return _mm512_reduce_add_ps(a.r);
  else
    return _mm512_reduce_add_pd(a.r);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a.r), _mm256_extractf128_ps(a.r, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  } else {
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(a.r), _mm256_extractf128_pd(a.r, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
  }
#else
  constexpr int kLanes = Pack<T>::kLanes;
  T lanes[kLanes];
  a.store(lanes);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
#endif
}
template <class T>
inline T reduce_max(Pack<T> a) {
  T best = a.r[0];
  for (int i = 1; i < Pack<T>::kLanes; ++i) best = a.r[i] > best ? a.r[i] : best;
  return best;
}

// Lane l is base[l * stride]: the same entry of kLanes matrices that lie `stride` apart.
template <class T>
inline Pack<T> gather(const T* base, int64_t stride) {
  Pack<T> out(T(0));
  for (int i = 0; i < Pack<T>::kLanes; ++i) out.r[i] = base[i * stride];
  return out;
}
template <class T>
inline void scatter(Pack<T> a, T* base, int64_t stride) {
  for (int i = 0; i < Pack<T>::kLanes; ++i) base[i * stride] = a.r[i];
}

}  // namespace kdops::KDOPS_ISA
