// The channels of a map as unit rows and the way back: what nst_loss does around its products.
#pragma once

#include <cmath>
#include <limits>

#include "common/blas/gemm.h"
#include "common/simd/pack_loop.h"

namespace kdops::gram::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

// x (rows x length) as contiguous unit rows; a row of norm zero, or below the normal range, is
// zero. inverse: 1 / norm, or 0.
template <class T>
void make_unit_rows(View<const T> x, int64_t rows, int64_t length, T* out, T* inverse) {
  using P = Pack<T>;
  for (int64_t r = 0; r < rows; ++r) {
    T* row = out + r * length;
    const T* from = x.data + r * x.row;
    for (int64_t l = 0; l < length; ++l) row[l] = from[l * x.col];
    P largest(T(0)), sum(T(0));
    for_packs<T>(length, [&](int64_t l, int lanes) {
      largest = max(largest, abs(load_some(row + l, lanes)));
    });
    const T top = reduce_max(largest);
    const P unit(top > 0 ? top : T(1));  // no overflow of the squares
    for_packs<T>(length, [&](int64_t l, int lanes) {
      const P part = load_some(row + l, lanes) / unit;
      sum = fma(part, part, sum);
    });
    const T norm = unit.lane(0) * std::sqrt(reduce_add(sum));
    inverse[r] = norm < std::numeric_limits<T>::min() ? T(0) : 1 / norm;
    for_packs<T>(length, [&](int64_t l, int lanes) {
      store_some(load_some(row + l, lanes) * P(inverse[r]), row + l, lanes);
    });
  }
}

// g = (g - u <u, g>) / |x|, the cotangent of x from the one of its unit rows u.
template <class T>
void unit_rows_back(const T* u, const T* inverse, int64_t rows, int64_t length, T* g) {
  using P = Pack<T>;
  for (int64_t r = 0; r < rows; ++r) {
    const T* unit = u + r * length;
    T* row = g + r * length;
    P sum(T(0));
    for_packs<T>(length, [&](int64_t l, int lanes) {
      sum = fma(load_some(unit + l, lanes), load_some(row + l, lanes), sum);
    });
    const P along(reduce_add(sum)), scale(inverse[r]);
    for_packs<T>(length, [&](int64_t l, int lanes) {
      const P value = load_some(row + l, lanes) - along * load_some(unit + l, lanes);
      store_some(scale * value, row + l, lanes);
    });
  }
}

}  // namespace kdops::gram::KDOPS_ISA
