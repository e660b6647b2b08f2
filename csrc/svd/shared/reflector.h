// Householder reflectors H = I - tau v vT, v = (1, scale * tail), one text for both devices.
#pragma once

#include "common/shared/vocabulary.h"

namespace kdops::svd::KDOPS_WHERE {

// Squares below this are lost: matrices were scaled to about one or more, so that their roots are
// far below one rounding error, and a root of a denormal number would not be accurate enough to
// reflect.
template <class T>
inline constexpr T kNegligibleSquare = sizeof(T) == 4 ? T(1e-30) : T(1e-280);

template <class V>
struct Reflector {
  V beta, tau, scale;
};

// H (alpha, tail) = (beta, 0); tail_squared is the squared norm of the tail. The identity, tau and
// scale zero, where that is negligible.
template <class V>
KDOPS_FN Reflector<V> make_reflector(V alpha, V tail_squared) {
  const V zero(Scalar<V>(0)), one(Scalar<V>(1));
  const Mask<V> present = tail_squared > V(kNegligibleSquare<Scalar<V>>);
  const V norm = sqrt(fma(alpha, alpha, tail_squared));
  const V beta = select(present, -copysign(norm, alpha), alpha);
  const V difference = select(present, alpha - beta, one);
  const V inverse = one / select(present, beta * difference, one);
  return {beta, select(present, -difference * difference * inverse, zero),
          select(present, beta * inverse, zero)};
}

}  // namespace kdops::svd::KDOPS_WHERE
