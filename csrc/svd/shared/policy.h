// The reciprocal under the degenerate policies "mask" and "lorentz" (kdops/ops/svd/gradient.py):
// one text for the gradients of the full and of the top-k SVD, on either device.
#pragma once

#include "common/shared/vocabulary.h"

namespace kdops::svd::KDOPS_WHERE {
using namespace kdops::KDOPS_WHERE;

// 1 / x under the policy; what counts as small is relative to `unit` (the largest singular value).
// A unit below the normal numbers counts as zero, and what overflows is the largest number: a zero
// cotangent meets no infinity.
template <class V>
struct PolicyInverse {
  V unit, scale, threshold;
  bool lorentz;

  KDOPS_FN PolicyInverse(V largest, int p, bool lorentz_policy)
      : unit(largest), lorentz(lorentz_policy) {
    using T = Scalar<V>;
    const Mask<V> present = unit >= V(std::numeric_limits<T>::min());
    scale = select(present, V(T(1)), V(T(0))) / select(present, unit, V(T(1)));
    threshold = V(T(p) * std::numeric_limits<T>::epsilon());
  }
  KDOPS_FN V operator()(V x) const {
    using T = Scalar<V>;
    x = x * scale;
    if (lorentz) return within(x * scale / fma(x, x, threshold * threshold));
    const Mask<V> small = abs(x) <= threshold;
    return within(select(small, V(T(0)), scale) / select(small, V(T(1)), x));
  }
  KDOPS_FN static V within(V inverse) {
    const V largest(std::numeric_limits<Scalar<V>>::max());
    return max(min(inverse, largest), -largest);
  }
};

}  // namespace kdops::svd::KDOPS_WHERE
