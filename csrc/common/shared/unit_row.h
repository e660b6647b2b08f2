// The one rule of unit rows u = x / |x| and of what their gradient needs, 1 / |x|, on the host and
// on the device:
//
// * a row is zero when all its entries are, and then u = 0 and 1/|x| = 0 (no gradient); a short
//   row, denormal numbers included, has the direction that it has;
// * entries are multiplied by row_scale(max |x|) (power_of_two.h), which brings the largest to
//   [1/2, 1) (what is still smaller was below 2^-126), before they are squared: nothing overflows
//   or vanishes, nothing is rounded;
// * 1/|x| of a row below 1/largest finite number is that largest number: a gradient is then
//   clipped, never NaN. NaN and Inf in a row stay in it.
//
// Use: s = row_scale(top); f = unit_factors(s, sum of (s x)^2); u = (s x) f.unit, 1/|x| is
// f.inverse.
#pragma once

#include <cmath>

#include "common/shared/power_of_two.h"

namespace kdops::KDOPS_WHERE {

template <class T>
struct UnitFactors {
  T unit, inverse;
};

// From the scale of a row and the sum of the squares of its scaled entries.
template <class T>
KDOPS_FN UnitFactors<T> unit_factors(T scale, T square) {
  constexpr T kLargest = std::numeric_limits<T>::max();
  if (square == T(0)) return {T(0), T(0)};
  const T unit = T(1) / std::sqrt(square), inverse = unit * scale;
  return {unit, inverse > kLargest ? kLargest : inverse};
}

}  // namespace kdops::KDOPS_WHERE
