// A row as a unit vector, by the rule of shared/unit_row.h, and the way back. Callers: gram,
// relation, token_gram.
#pragma once

#include "common/shared/unit_row.h"
#include "common/simd/long_sum.h"

namespace kdops::KDOPS_ISA {

// In place; returns 1 / |row|, or 0.
template <class T>
T make_unit(T* row, int64_t width) {
  const T scale = row_scale(largest_size(row, width));
  const auto factors = unit_factors(scale, static_cast<T>(long_squares(row, width, scale)));
  const Pack<T> wide(scale), unit(factors.unit);
  for_packs<T>(width, [&](int64_t k, int lanes) {
    store_some(wide * load_some(row + k, lanes) * unit, row + k, lanes);
  });
  return factors.inverse;
}

// g = (g - along u) inverse: the cotangent of x from the one of its unit vector u, along = <u, g>,
// inverse = 1 / |x|.
template <class T>
void keep_across(const T* u, T along, T inverse, int64_t width, T* g) {
  const Pack<T> part(along), scale(inverse);
  for_packs<T>(width, [&](int64_t k, int lanes) {
    store_some(scale * (load_some(g + k, lanes) - part * load_some(u + k, lanes)), g + k, lanes);
  });
}

}  // namespace kdops::KDOPS_ISA
