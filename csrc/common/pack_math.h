// Additions to the vocabulary of pack.h for the linear algebra kernels: reciprocal square roots,
// powers of two and grouped horizontal sums.
#pragma once

#include "pack.h"

namespace kdops::KDOPS_ISA {

// 1 / sqrt(a) for finite a >= the smallest normal number, to about one unit in the last place.
template <Real T>
inline T rsqrt(T a) {
  return T(1) / std::sqrt(a);
}

template <class T>
inline Pack<T> rsqrt(Pack<T> a) {
#if defined(__AVX512F__)
  const Pack<T> half = Pack<T>(T(0.5)) * a;
  Pack<T> y;
  if constexpr (sizeof(T) == 4)
    y = Pack<T>(_mm512_rsqrt14_ps(a.r));
  else
    y = Pack<T>(_mm512_rsqrt14_pd(a.r));
  // Newton: 14 correct bits become 28, then 56. The correction is added last, so that it rounds.
  for (int step = 0; step < (sizeof(T) == 4 ? 1 : 2); ++step)
    y = fma(y, fma(half * y, -y, Pack<T>(T(0.5))), y);
  return y;
#else
  return Pack<T>(T(1)) / sqrt(a);
#endif
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
  for (int i = 0; i < 4; ++i) out[i] = reduce_add(a[i]);
}

}  // namespace kdops::KDOPS_ISA
