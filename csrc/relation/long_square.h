// Squared distances with twice the digits of double, for angles among rows very far apart.
//
// cos_ijk = (D_ij + D_ik - D_jk) r_ij r_ik / 2. Where k lies far from i and j, D_ik and D_jk are
// nearly equal: of their difference, which is as large as d_ij d_ik, the rounding of both takes
// eps d_ik^2. So a squared distance has a second part here, with the digits that the first one
// lacks, and the long sides are subtracted before the short one is added. That keeps eight digits
// of a cosine up to rows 1e24 times as far as others are near.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/shared/vocabulary.h"

namespace kdops::relation::KDOPS_WHERE {

template <class V>
struct LongSquare {
  V square, rest;  // the sum of both
};

// a * b as a number of its own: inside a fused multiply-add it would not be rounded.
KDOPS_FN double rounded_product(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  double product = a * b;
  asm("" : "+m"(product));
  return product;
#endif
}

// |(x - y) scale|^2; scale is a power of two.
template <class T>
KDOPS_FN LongSquare<double> long_square(const T* x, const T* y, int64_t length, double scale) {
  LongSquare<double> sum{0, 0};
  for (int64_t c = 0; c < length; ++c) {
    const double a = x[c] * scale, b = y[c] * scale;
    const double difference = a - b, back = a - difference;
    const double missed = (a - (difference + back)) + (back - b);
    const double part = rounded_product(difference, difference);
    const double low = ::fma(difference, difference, -part) + 2 * difference * missed;
    const double total = sum.square + part, added = total - sum.square;
    sum.rest += ((sum.square - (total - added)) + (part - added)) + low;
    sum.square = total;
  }
  return sum;
}

// 2 d_ij d_ik cos_ijk from the sides at the anchor and the opposite one.
template <class V>
KDOPS_FN V twice_dot(const LongSquare<V>& a, const LongSquare<V>& b,
                     const LongSquare<V>& opposite) {
  const Mask<V> is_b = a.square <= b.square;
  const LongSquare<V> longer{select(is_b, b.square, a.square), select(is_b, b.rest, a.rest)};
  const V shorter = select(is_b, a.square, b.square);
  return shorter + ((longer.square - opposite.square) + (longer.rest - opposite.rest));
}

}  // namespace kdops::relation::KDOPS_WHERE
