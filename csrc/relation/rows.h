// From rows to distances: centring, and squared distances out of a Gram matrix.
//
// d2 = |x|^2 + |y|^2 - 2 <x, y> loses the digits that d2 is smaller than the norms. Pairs below
// kClose of the norms are therefore recomputed as the sum of squared differences: equal rows get
// exactly zero, near ones a full set of digits. Zero distances have 1/d = 0. NaN stays NaN.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "common/simd/pack_loop.h"
#include "relation/relation_simd.h"

namespace kdops::relation::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

template <class T>
inline constexpr T kClose = sizeof(T) == 4 ? T(1e-2) : T(1e-6);
// Below this the direction of the pair, out of a Gram matrix, has fewer than four digits in float.
template <class T>
inline constexpr T kNear = sizeof(T) == 4 ? T(1e-5) : T(0);

template <class T>
inline T squared_difference(const T* x, const T* y, int64_t length) {
  Pack<T> sum(T(0));
  for_packs<T>(length, [&](int64_t c, int lanes) {
    const Pack<T> difference = load_some(x + c, lanes) - load_some(y + c, lanes);
    sum = fma(difference, difference, sum);
  });
  return reduce_add(sum);
}

// Squared distances from row i of x to the rows j.. of y.
template <class T>
inline Pack<T> pair_squares(const GramRows<T>& g, int64_t i, int64_t j, int lanes, bool& near) {
  using P = Pack<T>;
  const P norms = P(g.x_norms[i]) + load_some(g.y_norms + j, lanes);
  P squares = norms - P(T(2)) * load_some(g.gram + i * g.y.count + j, lanes);
  const P limit = P(kClose<T>) * norms;
  if (!any(squares <= limit)) return squares;
  for (int l = 0; l < lanes; ++l) {
    if (!(squares.lane(l) <= limit.lane(l))) continue;
    const T *x = g.x.at(i), *y = g.y.at(j + l);
    const T exact = x == y ? T(0) : squared_difference(x, y, g.x.length);
    near |= exact > 0 && exact < kNear<T> * norms.lane(l);
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
      const P squares = pair_squares(g, i, j, lanes, near);
      const P value = squared ? squares * P(unit) : safe_root(squares).distance;
      store_some(value * P(unit), out + i * g.y.count + j, lanes);
    });
  return near;
}

}  // namespace kdops::relation::KDOPS_ISA
