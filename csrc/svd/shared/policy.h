// The reciprocal under the degenerate policies "mask" and "lorentz" (kdops/ops/svd/gradient.py), and
// what the gradients make of it:
// one text for the gradients of the full and of the top-k SVD, on either device.
#pragma once

#include "common/shared/vocabulary.h"

namespace kdops::svd::KDOPS_WHERE {

// A matrix whose largest singular value is smaller counts as zero: its vectors pass no gradient. Above
// it no reciprocal under the policy leaves the range of the type, not at the closest values either,
// and a zero cotangent meets no infinity.
template <class T>
inline constexpr T kLeastUnit = std::numeric_limits<T>::min() / std::numeric_limits<T>::epsilon();

// tau: values closer than this, in units of the largest, count as equal (_threshold of gradient.py says
// why). Its root is one of float for every T: cheap on the device, and the same number everywhere.
template <class T>
KDOPS_FN T closeness(int p) {
  return T(8 * sqrt(static_cast<float>(p))) * std::numeric_limits<T>::epsilon();
}

// 1 / x under the policy; what counts as small is relative to `unit` (the largest singular value).
template <class V>
struct PolicyInverse {
  V unit, scale, threshold;
  bool lorentz;

  KDOPS_FN PolicyInverse(V largest, int p, bool lorentz_policy)
      : unit(largest), lorentz(lorentz_policy) {
    using T = Scalar<V>;
    const Mask<V> present = unit >= V(kLeastUnit<T>);
    scale = select(present, V(T(1)), V(T(0))) / select(present, unit, V(T(1)));
    threshold = V(closeness<T>(p));
  }
  KDOPS_FN V operator()(V x) const {
    using T = Scalar<V>;
    x = x * scale;
    if (lorentz) return x * scale / fma(x, x, threshold * threshold);
    const Mask<V> small = abs(x) <= threshold;
    return select(small, V(T(0)), scale) / select(small, V(T(1)), x);
  }
  // 1 / (s^2 - t^2): how far two vectors turn when their values are s and t.
  KDOPS_FN V of_squares(V s, V t) const { return (*this)(s - t) * (*this)(s + t); }
};

// Entries (i, j) and (j, i), i != j, of the matrix in the middle of the gradient, U core VT:
//     core = skew(X + Y) inv(s_j - s_i) + skew(X - Y) inv(s_j + s_i),
// from entries (i, j) of the skew parts a of X = UT gU and b of Y = VT gV.
template <class V>
struct CorePair {
  V here, across;
};
template <class V>
KDOPS_FN CorePair<V> core_pair(V a, V b, V si, V sj, const PolicyInverse<V>& inverse) {
  const V even = (a + b) * inverse(sj - si), odd = (a - b) * inverse(sj + si);
  return {even + odd, even - odd};  // a, b and s_j - s_i change sign, s_j + s_i does not
}

}  // namespace kdops::svd::KDOPS_WHERE
