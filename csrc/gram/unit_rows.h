// The channels of a map as unit rows and the way back: what nst_loss does around its products.
#pragma once

#include "common/blas/gemm.h"
#include "common/shared/unit_row.h"
#include "common/simd/long_sum.h"

namespace kdops::gram::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

// x (rows x length) as contiguous unit rows, by the rule of unit_row.h; inverse: 1 / norm, or 0.
template <class T>
void make_unit_rows(View<const T> x, int64_t rows, int64_t length, T* out, T* inverse) {
  using P = Pack<T>;
  for (int64_t r = 0; r < rows; ++r) {
    T* row = out + r * length;
    const T* from = x.data + r * x.row;
    for (int64_t l = 0; l < length; ++l) row[l] = from[l * x.col];
    const T scale = row_scale(largest_size(row, length));
    const auto factors = unit_factors(scale, static_cast<T>(long_squares(row, length, scale)));
    inverse[r] = factors.inverse;
    for_packs<T>(length, [&](int64_t l, int lanes) {
      store_some(P(scale) * load_some(row + l, lanes) * P(factors.unit), row + l, lanes);
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
    const P along(static_cast<T>(long_inner(unit, row, length))), scale(inverse[r]);
    for_packs<T>(length, [&](int64_t l, int lanes) {
      const P value = load_some(row + l, lanes) - along * load_some(unit + l, lanes);
      store_some(scale * value, row + l, lanes);
    });
  }
}

}  // namespace kdops::gram::KDOPS_ISA
