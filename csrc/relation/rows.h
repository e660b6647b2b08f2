// From rows to distances: centring, and squared distances out of a Gram matrix.
//
// d2 = |x|^2 + |y|^2 - 2 <x, y> loses the digits that d2 is smaller than the norms. Pairs below
// kClosePart of the norms are therefore recomputed as the sum of squared differences of the rows as
// they were given (a centre takes digits from rows much smaller than it): equal rows get exactly
// zero, near ones a full set of digits. Zero distances have 1/d = 0. NaN stays NaN.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/blas/differences.h"
#include "common/shared/unit_row.h"
#include "relation/relation_simd.h"

namespace kdops::relation::KDOPS_ISA {

// Squared distances below this have lost digits to underflow, or are zero.
template <class T>
inline constexpr T kVanishing = sizeof(T) == 4 ? T(1e-30) : T(1e-280);
// Of (x - y) scale: the sum of the squares, each entry times `more`, and the largest |entry|.
template <class T>
struct Difference {
  T square, largest;
};
template <class T>
inline Difference<T> difference_of(const T* x, const T* y, int64_t length, T scale, T more = T(1)) {
  using P = Pack<T>;
  P sum(T(0)), top(T(0));
  for_packs<T>(length, [&](int64_t c, int lanes) {
    const P difference = load_some(x + c, lanes) * P(scale) - load_some(y + c, lanes) * P(scale);
    const P part = difference * P(more);
    sum = fma(part, part, sum);
    top = max(abs(difference), top);
  });
  return {reduce_add(sum), reduce_max(top)};
}

// Of x scale: the sum of the squares.
template <class T>
inline T scaled_square(const T* x, int64_t length, T scale) {
  Pack<T> sum(T(0));
  for_packs<T>(length, [&](int64_t c, int lanes) {
    const Pack<T> value = load_some(x + c, lanes) * Pack<T>(scale);
    sum = fma(value, value, sum);
  });
  return reduce_add(sum);
}

// Squared distances from row i of x to the rows j.. of y.
template <class T>
inline Pack<T> pair_squares(const GramRows<T>& g, int64_t i, int64_t j, int lanes, bool& near) {
  using P = Pack<T>;
  const P norms = P(g.x_norms[i]) + load_some(g.y_norms + j, lanes);
  P squares = norms - P(T(2)) * load_some(g.gram + i * g.y.count + j, lanes);
  const P limit = max(P(T(kClosePart)) * norms, P(g.far_square));
  if (!any(squares <= limit)) return squares;
  for (int l = 0; l < lanes; ++l) {
    if (!(squares.lane(l) <= limit.lane(l))) continue;
    const T *x = g.x.at(i), *y = g.y.at(j + l);
    const T exact = x == y ? T(0) : difference_of(x, y, g.x.length, g.scale).square;
    near |= exact > 0 && exact < max(kNearPart<T> * norms.lane(l), g.far_square);
    squares.set_lane(l, exact);
  }
  return squares;
}

// d and 1/d, both zero where squares <= 0.
template <class T>
struct Root {
  Pack<T> distance, inverse;
};
template <class T>
inline Root<T> safe_root(Pack<T> squares) {
  using P = Pack<T>;
  const auto zero = squares <= P(T(0));
  const P root = sqrt(select(zero, P(T(1)), squares));
  return {select(zero, P(T(0)), root), select(zero, P(T(0)), P(T(1)) / root)};
}

// d and 1/d from row i of x to the rows j.. of y; also where d^2 would vanish.
template <class T>
inline Root<T> pair_roots(const GramRows<T>& g, int64_t i, int64_t j, int lanes, bool& near) {
  using P = Pack<T>;
  const P squares = pair_squares(g, i, j, lanes, near);
  Root<T> root = safe_root(squares);
  if (!any(squares < P(kVanishing<T>))) return root;
  for (int l = 0; l < lanes; ++l) {
    const T *x = g.x.at(i), *y = g.y.at(j + l);
    if (!(squares.lane(l) < kVanishing<T>) || x == y) continue;
    const T scale = row_scale(difference_of(x, y, g.x.length, g.scale).largest);
    const T square = difference_of(x, y, g.x.length, g.scale, scale).square;
    const UnitFactors<T> norm = unit_factors(scale, square);
    near |= norm.inverse > 0;
    root.inverse.set_lane(l, norm.inverse);
    root.distance.set_lane(l, norm.inverse > 0 ? 1 / norm.unit / scale : T(0));
  }
  return root;
}

// value, or 0 where it is NaN or Inf, counted into `largest`.
template <class T>
inline Pack<T> finite_part(Pack<T> value, Pack<T>& largest) {
  using P = Pack<T>;
  const P finite = select(value - value == P(T(0)), value, P(T(0)));
  largest = max(largest, abs(finite));
  return finite;
}

template <class T>
T column_sums(Rows<T> x, T* sums, int64_t begin, int64_t end) {
  using P = Pack<T>;
  constexpr int64_t kTogether = 4;  // rows for one way through the sums
  P largest(T(0));
  int64_t i = 0;
  for (; i + kTogether <= x.count; i += kTogether)
    for_packs<T>(end - begin, [&](int64_t c, int lanes) {
      P sum = load_some(sums + begin + c, lanes);
#pragma GCC unroll 4
      for (int64_t r = 0; r < kTogether; ++r)
        sum += finite_part(load_some(x.at(i + r) + begin + c, lanes), largest);
      store_some(sum, sums + begin + c, lanes);
    });
  for (; i < x.count; ++i)
    for_packs<T>(end - begin, [&](int64_t c, int lanes) {
      const P finite = finite_part(load_some(x.at(i) + begin + c, lanes), largest);
      store_some(load_some(sums + begin + c, lanes) + finite, sums + begin + c, lanes);
    });
  return reduce_max(largest);
}

template <class T>
void centre_rows(Rows<T> x, const T* centre, T scale, T* out, int64_t out_stride, T* norms,
                 int64_t begin, int64_t end) {
  using P = Pack<T>;
  for (int64_t i = begin; i < end; ++i) {
    const T* row = x.at(i);
    T* target = out + i * out_stride;
    P norm(T(0));
    for_packs<T>(x.length, [&](int64_t c, int lanes) {
      const P value = (load_some(row + c, lanes) - load_some(centre + c, lanes)) * P(scale);
      store_some(value, target + c, lanes);
      norm = fma(value, value, norm);
    });
    norms[i] = reduce_add(norm);
  }
}

template <class T>
bool distances(const GramRows<T>& g, bool squared, T unit, T* out, int64_t begin, int64_t end) {
  using P = Pack<T>;
  bool near = false;
  for (int64_t i = begin; i < end; ++i)
    for_packs<T>(g.y.count, [&](int64_t j, int lanes) {
      const P value = squared ? pair_squares(g, i, j, lanes, near) * P(unit)
                              : pair_roots(g, i, j, lanes, near).distance;
      store_some(value * P(unit), out + i * g.y.count + j, lanes);
    });
  return near;
}

}  // namespace kdops::relation::KDOPS_ISA
