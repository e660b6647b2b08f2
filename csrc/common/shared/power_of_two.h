// Scales that round nothing: powers of two, one text for the host and the device.
#pragma once

#include <cmath>

#include "common/shared/vocabulary.h"

namespace kdops::KDOPS_WHERE {

// 2^e in the first argument's type.
KDOPS_FN float power_of_two(float, int e) { return ::scalbnf(1.0f, e); }
KDOPS_FN double power_of_two(double, int e) { return ::ldexp(1.0, e); }
// The exponent of x: 2^e <= |x| < 2^(e + 1), also of denormal numbers. Not ilogb for double: on the
// device a call, around which registers are spilled.
KDOPS_FN int exponent_of(float x) { return ::ilogbf(x); }
KDOPS_FN int exponent_of(double x) {
  int e = 0;
  ::frexp(x, &e);
  return e - 1;
}

// e such that 2^-e brings `largest` to [1/2, 1), or as near as a normal number with a normal inverse
// can; 0 for 0, NaN and Inf.
template <class T>
KDOPS_FN int scale_exponent(T largest) {
  constexpr int kMost = std::numeric_limits<T>::max_exponent - 2;
  if (!(largest > T(0)) || !(largest - largest == T(0))) return 0;
  const int e = exponent_of(largest) + 1;
  return e > kMost ? kMost : e < -kMost ? -kMost : e;
}

// That power of two, for the rows of unit_row.h and for all else that is only scaled up or down.
template <class T>
KDOPS_FN T row_scale(T largest) {
  return power_of_two(T(), -scale_exponent(largest));
}

}  // namespace kdops::KDOPS_WHERE
