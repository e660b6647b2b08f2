// One attention map as a unit vector, the difference of two, and the way back. Maps are not
// negative.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/simd/pack_loop.h"

namespace kdops::attention::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

// L2 norm without overflow of the squares; NaN for a NaN or an Inf.
template <class T>
inline T scaled_norm(const T* q, int64_t length) {
  T largest = 0;
  for (int64_t l = 0; l < length; ++l) largest = std::max(largest, std::fabs(q[l]));
  const T inverse = largest >= std::numeric_limits<T>::min() ? 1 / largest : T(1);
  Pack<T> sum(T(0));
  for_packs<T>(length, [&](int64_t l, int lanes) {
    const Pack<T> part = Pack<T>(inverse) * load_some(q + l, lanes);
    sum = fma(part, part, sum);
  });
  return std::sqrt(reduce_add(sum)) / inverse;
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
  T sum = 0;
  for (int64_t l = 0; l < length; ++l) {
    sum += t[l] * t[l];
    t[l] *= 2 * coefficient;
  }
  return coefficient * sum;
}

// g = (g - u <u, g>) * inverse, the cotangent of q from the one of u = q / |q|.
template <class T>
inline void unit_backward(const T* u, T inverse, int64_t length, T* g) {
  T along = 0;
  for (int64_t l = 0; l < length; ++l) along += u[l] * g[l];
  for (int64_t l = 0; l < length; ++l) g[l] = (g[l] - u[l] * along) * inverse;
}

}  // namespace kdops::attention::KDOPS_ISA
