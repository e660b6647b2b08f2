// The vocabulary of numbers: float, double and Pack of one of them.
//
// Algorithms are templates on a number type V that is any of the four. They use only what is below,
// so that the same source runs one matrix (V = T) or one matrix per lane (V = Pack<T>). Comparisons
// give Mask<V>; select() blends. No torch header: this file is compiled once per instruction set
// (isa.h).
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

#include "common/simd/pack_type.h"

namespace kdops::KDOPS_ISA {

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
inline T select(bool m, T a, T b) {
  return m ? a : b;
}
template <Real T>
inline T fma(T a, T b, T c) {
  return a * b + c;
}
template <Real T>
inline T min(T a, T b) {
  return a < b ? a : b;
}
template <Real T>
inline T max(T a, T b) {
  return a > b ? a : b;
}
using std::abs, std::copysign, std::sqrt;
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
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return Pack<T>(KDOPS_INTRINSIC(min_ps)(a.r, b.r));
  else
    return Pack<T>(KDOPS_INTRINSIC(min_pd)(a.r, b.r));
#else
  return Pack<T>(a.r < b.r ? a.r : b.r);
#endif
}
template <class T>
inline Pack<T> max(Pack<T> a, Pack<T> b) {
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return Pack<T>(KDOPS_INTRINSIC(max_ps)(a.r, b.r));
  else
    return Pack<T>(KDOPS_INTRINSIC(max_pd)(a.r, b.r));
#else
  return Pack<T>(a.r > b.r ? a.r : b.r);
#endif
}

template <class T>
inline Pack<T> sqrt(Pack<T> a) {
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return Pack<T>(KDOPS_INTRINSIC(sqrt_ps)(a.r));
  else
    return Pack<T>(KDOPS_INTRINSIC(sqrt_pd)(a.r));
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

// Lane l of the result is lane index[l] of the pair (a, b), b's lanes counted from kLanes on.
template <int... kIndex, class T>
inline Pack<T> shuffle(Pack<T> a, Pack<T> b) {
#if defined(__clang__) || __GNUC__ >= 12
  return Pack<T>(__builtin_shufflevector(a.r, b.r, kIndex...));
#else
  using Bits = typename PackTraits<T>::Bits;
  return Pack<T>(__builtin_shuffle(a.r, b.r, Bits{kIndex...}));
#endif
}

}  // namespace kdops::KDOPS_ISA
