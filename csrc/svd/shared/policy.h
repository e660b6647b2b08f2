// The reciprocal under the degenerate policies "mask" and "lorentz" (kdops/ops/svd/gradient.py).
// Used by the gradients of the full and of the top-k SVD, on a number or on a lane per matrix.
#pragma once

#include <limits>

#include "common/simd/pack.h"

namespace kdops::svd::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

// 1 / x under the policy; what counts as small is relative to `unit` (the largest singular value).
template <class V>
struct PolicyInverse {
  V unit, scale, threshold;
  bool lorentz;

  PolicyInverse(V largest, int p, bool lorentz_policy) : unit(largest), lorentz(lorentz_policy) {
    using T = Scalar<V>;
    const Mask<V> present = unit > V(T(0));
    scale = select(present, V(T(1)), V(T(0))) / select(present, unit, V(T(1)));
    threshold = V(T(p) * std::numeric_limits<T>::epsilon());
  }
  V operator()(V x) const {
    using T = Scalar<V>;
    x = x * scale;
    if (lorentz) return x * scale / fma(x, x, threshold * threshold);
    const Mask<V> small = abs(x) <= threshold;
    return select(small, V(T(0)), scale) / select(small, V(T(1)), x);
  }
};

}  // namespace kdops::svd::KDOPS_ISA
