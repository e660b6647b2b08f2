// One attention map as a unit vector, the difference of two, and the way back. Maps are not
// negative.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "common/simd/long_sum.h"

namespace kdops::attention::KDOPS_ISA {

// L2 norm without overflow of the squares; NaN for a NaN or an Inf.
template <class T>
inline T scaled_norm(const T* q, int64_t length) {
  const T largest = largest_size(q, length);
  const T inverse = largest >= std::numeric_limits<T>::min() ? 1 / largest : T(1);
  return static_cast<T>(std::sqrt(long_squares(q, length, inverse))) / inverse;
}

// q = q / |q|; returns 1 / |q|. A norm so small that its reciprocal would leave the range of the
// gradient counts as zero: q = 0 and 0 is returned.
template <class T>
inline T make_unit(T* q, int64_t length) {
  using Limits = std::numeric_limits<T>;
  const T norm = scaled_norm(q, length);
  const T inverse = norm < Limits::min() / Limits::epsilon() ? T(0) : 1 / norm;
  for (int64_t l = 0; l < length; ++l) q[l] *= inverse;
  return inverse;
}

// coefficient * |s - t|^2, or (paper) coefficient * |s - t|; its derivative by s goes to t.
template <class T>
inline T difference_loss(const T* s, T* t, int64_t length, bool paper, T coefficient) {
  for (int64_t l = 0; l < length; ++l) t[l] = s[l] - t[l];
  if (paper) {
    const T norm = scaled_norm(t, length);
    const T factor = norm > 0 ? coefficient / norm : norm * 0;  // NaN stays
    for (int64_t l = 0; l < length; ++l) t[l] *= factor;
    return coefficient * norm;
  }
  const double sum = long_squares(t, length, T(1));
  for (int64_t l = 0; l < length; ++l) t[l] *= 2 * coefficient;
  return static_cast<T>(coefficient * sum);
}

// g = (g - u <u, g>) * inverse, the cotangent of q from the one of u = q / |q|.
template <class T>
inline void unit_backward(const T* u, T inverse, int64_t length, T* g) {
  const T along = static_cast<T>(long_inner(u, g, length));
  for (int64_t l = 0; l < length; ++l) g[l] = (g[l] - u[l] * along) * inverse;
}

}  // namespace kdops::attention::KDOPS_ISA
