// The angle of Jacobi's methods, one text for both devices: of two columns (one-sided), of two
// entries of a diagonal (eigh), of two rows of a small matrix of inner products (Rayleigh-Ritz).
#pragma once

#include "common/shared/vocabulary.h"

namespace kdops::svd::KDOPS_WHERE {

// t = tan of the smaller angle that makes [aa, ab; ab, bb] diagonal, for ab != 0: a becomes
// c (a - t b) and b becomes c (b + t a), c = 1 / sqrt(1 + t^2); aa loses t ab, which bb gains.
template <class V>
KDOPS_FN V jacobi_tangent(V aa, V bb, V ab) {
  const V one(Scalar<V>(1)), two(Scalar<V>(2));
  const V zeta = (bb - aa) / (two * ab);
  return copysign(one / (abs(zeta) + sqrt(one + zeta * zeta)), zeta);
}

}  // namespace kdops::svd::KDOPS_WHERE
