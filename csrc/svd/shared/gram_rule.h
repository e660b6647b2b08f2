// When the full SVD may go through a Gram matrix, one text for both devices.
//
// Its eigenvalues are exact to eps of the largest, so that U = A V / s is orthogonal to about
// eps (s_1 / s_p)^2, which is known once they are: what fails goes through Householder QR.
#pragma once

#include "common/shared/vocabulary.h"

namespace kdops::svd::KDOPS_WHERE {
using namespace kdops::KDOPS_WHERE;

// Nearly square random matrices would be refused: not tried.
KDOPS_FN constexpr bool worth_a_gram(int64_t long_side, int64_t small_side) {
  return 2 * long_side >= 3 * small_side;
}

// From the trace; false where A must be scaled first, or holds NaN or Inf.
template <class T>
KDOPS_FN bool gram_in_range(T trace) {
  const T limit = sizeof(T) == 4 ? T(1e15) : T(1e150);
  return trace < limit && trace > T(1) / limit;
}

// From the extreme eigenvalues of p; false where the Gram matrix has lost too much, or for NaN.
template <class T>
KDOPS_FN bool gram_resolves(T least, T most, int p, bool vectors) {
  const T condition = vectors ? T(4) * T(p) : T(16) * T(p) * T(p);
  return least * condition >= most;
}

}  // namespace kdops::svd::KDOPS_WHERE
