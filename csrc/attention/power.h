// |x|^p and its derivative on packs, for the exponents that are used (1 to 4) by multiplications,
// for any other p through the library's pow, lane by lane.
#pragma once

#include <cmath>

#include "common/simd/pack.h"

namespace kdops::attention::KDOPS_ISA {

enum class Exponent { one, two, three, four, other };

template <Exponent kind, class T>
inline Pack<T> power(Pack<T> x, T p) {
  if constexpr (kind == Exponent::one) return abs(x);
  if constexpr (kind == Exponent::two) return x * x;
  if constexpr (kind == Exponent::three) return abs(x) * (x * x);
  if constexpr (kind == Exponent::four) return (x * x) * (x * x);
  for (int i = 0; i < Pack<T>::kLanes; ++i) x.set_lane(i, std::pow(std::fabs(x.lane(i)), p));
  return x;
}

// p |x|^(p-1) sign(x); zero at zero for every p, also where the limit is not (p <= 1).
template <Exponent kind, class T>
inline Pack<T> power_slope(Pack<T> x, T p) {
  const Pack<T> zero(T(0));
  if constexpr (kind == Exponent::one) return select(x == zero, zero, copysign(Pack<T>(T(1)), x));
  if constexpr (kind == Exponent::two) return x + x;
  if constexpr (kind == Exponent::three) return Pack<T>(T(3)) * x * abs(x);
  if constexpr (kind == Exponent::four) return Pack<T>(T(4)) * x * (x * x);
  for (int i = 0; i < Pack<T>::kLanes; ++i) {
    const T value = x.lane(i);
    const T slope = p * std::pow(std::fabs(value), p - 1);
    x.set_lane(i, value == 0 ? T(0) : std::copysign(slope, value));
  }
  return x;
}

}  // namespace kdops::attention::KDOPS_ISA
