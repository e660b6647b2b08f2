// Canonical signs of singular vectors, one text for both devices (linalg.py repeats it for torch):
// max(v) + min(v) is positive; where they cancel to 8 eps, the first entry of the largest
// magnitude, up to the same 8 eps, is.
#pragma once

#include "common/shared/vocabulary.h"

namespace kdops::svd::KDOPS_WHERE {

template <class T>
inline constexpr T kSignSlack = 8 * std::numeric_limits<T>::epsilon();

// 1 or -1 from the largest and the smallest entry of v, by which v is to be multiplied; 0: they
// cancel, and the first entry that reaches deciding_size() gives the sign.
template <class V>
KDOPS_FN V sign_of_extremes(V largest, V smallest) {
  const V zero(Scalar<V>(0)), one(Scalar<V>(1)), sum = largest + smallest;
  return select(abs(sum) <= V(kSignSlack<Scalar<V>>), zero, select(sum < zero, -one, one));
}
template <class V>
KDOPS_FN V deciding_size(V largest, V smallest) {
  return max(largest, -smallest) - V(kSignSlack<Scalar<V>>);
}

}  // namespace kdops::svd::KDOPS_WHERE
