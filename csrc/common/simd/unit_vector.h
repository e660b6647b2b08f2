// A row as a unit vector, by the rule of shared/unit_row.h. Callers: gram, token_gram.
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

}  // namespace kdops::KDOPS_ISA
