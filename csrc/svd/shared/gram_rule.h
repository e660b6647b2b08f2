// When the full SVD may go through a Gram matrix, one text for both devices.
//
// Its eigenvalues are exact to eps of the largest, l_1, so that the products of two vectors of
// U = A V / s are off by about eps l_1 / (s_i s_j), together eps times the sum of l_1 / l_i. That is
// known once they are: what fails goes through Householder QR.
#pragma once

#include "common/shared/vocabulary.h"

namespace kdops::svd::KDOPS_WHERE {

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

// Of the p eigenvalues.
template <class T>
struct GramValues {
  T most, least;
  T sum_of_inverses;
};

// False where the Gram matrix has lost too much, or for NaN. With vectors the gates want U^T U - I
// below 20 p eps. It is about 0.9 eps times the sum of l_1 / l_i where many values are small, up to
// three times as much where one is: hence a bound of its own for the least.
template <class T>
KDOPS_FN bool gram_resolves(const GramValues<T>& values, int p, bool vectors) {
  if (!vectors) return values.least * (T(16) * T(p) * T(p)) >= values.most;
  return values.least * (T(4) * T(p)) >= values.most &&
         values.most * values.sum_of_inverses <= T(16) * T(p);
}

}  // namespace kdops::svd::KDOPS_WHERE
