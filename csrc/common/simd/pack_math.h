// Additions to the vocabulary of pack.h for the linear algebra kernels: reciprocal square roots,
// powers of two and grouped horizontal sums.
#pragma once

#include "common/simd/pack.h"

namespace kdops::KDOPS_ISA {

// c + a b and c - a b in one rounding where the machine can. Unlike fma() of pack.h, which the
// compiler may contract differently, c is the operand that waits for one instruction only.
template <class T>
inline Pack<T> add_product(Pack<T> c, Pack<T> a, Pack<T> b) {
#if defined(__FMA__)
  if constexpr (sizeof(T) == 4)
    return Pack<T>(KDOPS_INTRINSIC(fmadd_ps)(a.r, b.r, c.r));
  else
    return Pack<T>(KDOPS_INTRINSIC(fmadd_pd)(a.r, b.r, c.r));
#else
  return c + a * b;
#endif
}
template <class T>
inline Pack<T> subtract_product(Pack<T> c, Pack<T> a, Pack<T> b) {
#if defined(__FMA__)
  if constexpr (sizeof(T) == 4)
    return Pack<T>(KDOPS_INTRINSIC(fnmadd_ps)(a.r, b.r, c.r));
  else
    return Pack<T>(KDOPS_INTRINSIC(fnmadd_pd)(a.r, b.r, c.r));
#else
  return c - a * b;
#endif
}

// 1 / sqrt(a) = estimate * correction for finite normal a, to about one unit in the last place. In
// two factors, because x / sqrt(a) = (x * estimate) * correction is ready one product earlier.
template <class V>
struct ReciprocalRoot {
  V estimate, correction;
};

template <Real T>
inline ReciprocalRoot<T> reciprocal_root(T a) {
  return {T(1) / std::sqrt(a), T(1)};
}

template <class T>
inline ReciprocalRoot<Pack<T>> reciprocal_root(Pack<T> a) {
#if defined(__AVX512F__)
  const Pack<T> half = Pack<T>(T(-0.5)) * a, three_halves(T(1.5));
  Pack<T> y;  // 14 correct bits; a Newton step doubles them
  if constexpr (sizeof(T) == 4) {
    y = Pack<T>(_mm512_rsqrt14_ps(a.r));
  } else {
    y = Pack<T>(_mm512_rsqrt14_pd(a.r));
    y = y * fma(half, y * y, three_halves);
  }
  return {y, fma(half, y * y, three_halves)};
#else
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {  // 11 correct bits; a step of third order triples them
    const Pack<T> one(T(1)), y(_mm256_rsqrt_ps(a.r));
    const Pack<T> h = subtract_product(one, a * y, y);
    return {y, add_product(one, h, add_product(Pack<T>(T(0.5)), Pack<T>(T(0.375)), h))};
  }
#endif
  return {Pack<T>(T(1)) / sqrt(a), Pack<T>(T(1))};
#endif
}

// a, negated where b is negative.
template <Real T>
inline T multiply_sign(T a, T b) {
  return std::signbit(b) ? -a : a;
}
template <class T>
inline Pack<T> multiply_sign(Pack<T> a, Pack<T> b) {
  using Bits = typename PackTraits<T>::Bits;
  const Pack<T> negative_zero(T(-0.0));
  const Bits sign = reinterpret_cast<Bits>(b.r) & reinterpret_cast<Bits>(negative_zero.r);
  return Pack<T>(reinterpret_cast<typename Pack<T>::Register>(reinterpret_cast<Bits>(a.r) ^ sign));
}

// The largest power of two <= |a|, for finite a; the smallest normal number below that.
template <class T>
inline Pack<T> floor_power_of_two(Pack<T> a) {
  using Bits = typename PackTraits<T>::Bits;
  const Pack<T> infinity(std::numeric_limits<T>::infinity());
  const Bits bits = reinterpret_cast<Bits>(a.r) & reinterpret_cast<Bits>(infinity.r);
  const Pack<T> power(reinterpret_cast<typename Pack<T>::Register>(bits));
  return max(power, Pack<T>(std::numeric_limits<T>::min()));
}
template <Real T>
inline T floor_power_of_two(T a) {
  return floor_power_of_two(Pack<T>(a)).lane(0);
}

// out[i] = the sum of all lanes of a[i], i < 4.
template <class T>
inline void reduce_add4(const Pack<T> (&a)[4], T* out) {
#if defined(__AVX512F__)
  // Pairwise interleaving sums: 13 instructions instead of four times seven.
  if constexpr (sizeof(T) == 4) {
    const __m512 low = _mm512_unpacklo_ps(a[0].r, a[1].r) + _mm512_unpackhi_ps(a[0].r, a[1].r);
    const __m512 high = _mm512_unpacklo_ps(a[2].r, a[3].r) + _mm512_unpackhi_ps(a[2].r, a[3].r);
    const __m512d first = _mm512_castps_pd(low), second = _mm512_castps_pd(high);
    const __m512 sums = _mm512_castpd_ps(_mm512_unpacklo_pd(first, second)) +
                        _mm512_castpd_ps(_mm512_unpackhi_pd(first, second));
    const __m256 half = _mm512_castps512_ps256(sums) + _mm512_extractf32x8_ps(sums, 1);
    _mm_storeu_ps(out, _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1));
  } else {
    const __m512d low = _mm512_unpacklo_pd(a[0].r, a[1].r) + _mm512_unpackhi_pd(a[0].r, a[1].r);
    const __m512d high = _mm512_unpacklo_pd(a[2].r, a[3].r) + _mm512_unpackhi_pd(a[2].r, a[3].r);
    const __m256d one = _mm512_castpd512_pd256(low) + _mm512_extractf64x4_pd(low, 1);
    const __m256d two = _mm512_castpd512_pd256(high) + _mm512_extractf64x4_pd(high, 1);
    _mm_storeu_pd(out, _mm256_castpd256_pd128(one) + _mm256_extractf128_pd(one, 1));
    _mm_storeu_pd(out + 2, _mm256_castpd256_pd128(two) + _mm256_extractf128_pd(two, 1));
  }
#else
  for (int i = 0; i < 4; ++i) out[i] = reduce_add(a[i]);
#endif
}

}  // namespace kdops::KDOPS_ISA
