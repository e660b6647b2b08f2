// Shifted solves with a symmetric tridiagonal matrix T, one text for both devices: inverse
// iteration for the top-k vectors, and the part of their gradient that stands for all others.
//
// t.diagonal(i) and t.coupling(i) (of i and i + 1) are T's; f.keep(i, row) and f.row(i) keep the
// factors; x.get(i) and x.set(i, value) are entry i of a vector.
#pragma once

#include "common/shared/vocabulary.h"

namespace kdops::svd::KDOPS_WHERE {

// Row i of P (T - shift I) = L U: the pivot's inverse and two entries right of it, the multiplier
// of the row below, and whether that row came in this one's place.
template <class V>
struct FactorRow {
  V inverse, right, right2, multiplier;
  Mask<V> swapped;
};

// A pivot that rounding may have made, |pivot| < least, becomes +-least: a singular matrix has
// large but finite solutions. Before rows are compared, so that a row below comes up only where it
// is larger than least: a tiny coupling made into a pivot of that size would turn the vectors.
template <class V>
KDOPS_FN V floored(V pivot, V least) {
  return select(abs(pivot) < least, copysign(least, pivot), pivot);
}

template <class V, class Band, class Factors>
KDOPS_FN void factor_shifted(Band t, int p, V shift, V least, Factors f) {
  using T = Scalar<V>;
  const V zero(T(0)), one(T(1));
  V diagonal = t.diagonal(0) - shift, right = p > 1 ? t.coupling(0) : zero;
  for (int i = 0; i + 1 < p; ++i) {
    const V below = t.coupling(i), next = t.diagonal(i + 1) - shift;
    const V next_right = i + 2 < p ? t.coupling(i + 1) : zero;
    diagonal = floored(diagonal, least);
    const Mask<V> swap = abs(below) > abs(diagonal);
    const V inverse = one / select(swap, below, diagonal);
    const V multiplier = select(swap, diagonal, below) * inverse;
    const V first = select(swap, next, right), second = select(swap, next_right, zero);
    f.keep(i, inverse, first, second, multiplier, swap);
    diagonal = select(swap, right, next) - multiplier * first;
    right = select(swap, zero, next_right) - multiplier * second;
  }
  f.keep(p - 1, one / floored(diagonal, least), zero, zero, zero, zero > zero);
}

// x <- (T - shift I)^-1 x. What a step reads is asked for a step ahead.
template <class V, class Factors, class Vector>
KDOPS_FN void solve_shifted(Factors f, int p, Vector x) {
  const int last = p - 1;
  V current = x.get(0), next = current;
  if (last > 0) next = x.get(1);
  FactorRow<V> row = f.row(0);
  for (int i = 0; i < last; ++i) {
    const FactorRow<V> row_after = f.row(i + 1);
    const V next_after = x.get(i + 2 < p ? i + 2 : last);
    const V upper = select(row.swapped, next, current);
    current = select(row.swapped, current, next) - row.multiplier * upper;
    x.set(i, upper);
    row = row_after, next = next_after;
  }
  V after = current * row.inverse, after2 = V(Scalar<V>(0));
  row = f.row(last > 0 ? last - 1 : 0), next = x.get(last > 0 ? last - 1 : 0);
  x.set(last, after);
  for (int i = last - 1; i >= 0; --i) {
    const int before = i > 0 ? i - 1 : 0;
    const FactorRow<V> row_before = f.row(before);
    const V next_before = x.get(before);
    const V value = (next - row.right * after - row.right2 * after2) * row.inverse;
    x.set(i, value);
    after2 = after, after = value;
    row = row_before, next = next_before;
  }
}

// How far from every kept eigenvalue the shift of solve_complement must stay: T's own differ by up
// to `doubt` from the squared singular values that stand for them, and all by rounding of T.
template <class V>
KDOPS_FN V safe_distance(V doubt, V largest) {
  using T = Scalar<V>;
  return fma(V(T(2)), doubt, V(12 * std::numeric_limits<T>::epsilon()) * largest);
}

// The shift for vector c: at least `distance` above its own square and away from those before it,
// which may be nearly equal (square(j), j <= c, descending). All others lie farther below.
template <class V, class Square>
KDOPS_FN V clear_shift(const Square& square, int c, V distance) {
  V shift = square(c) + distance;
  for (int j = c - 1; j >= 0; --j) {
    const V other = square(j);
    shift = select(abs(shift - other) < distance, other + distance, shift);
  }
  return shift;
}

// x <- (s² I - T)^+ x on the complement of the kept vectors, for x orthogonal to all of them, from
// the factors of T - (s² + offset) I; the caller removes what x picks up along the kept ones.
//
// With s² itself the system is singular along its own vector: what a rounding error feeds into it
// comes back divided by a rounding error, and turned by another one it is left in the result. At
// an offset nothing grows. M^-1 = (D - offset)^-1, D = M + offset, is a series in offset D^-1; two
// terms of it leave (offset / (gap + offset))² of an error, gap = s² - (the first value outside).
template <class V, class Factors, class Vector, class Given>
KDOPS_FN void solve_complement(Factors f, int p, V offset, Vector x, Given given) {
  for (int i = 0; i < p; ++i) {
    const V negative = -x.get(i);
    given.set(i, negative);
    x.set(i, negative);
  }
  solve_shifted<V>(f, p, x);
  for (int i = 0; i < p; ++i) x.set(i, given.get(i) - offset * x.get(i));
  solve_shifted<V>(f, p, x);
}

}  // namespace kdops::svd::KDOPS_WHERE
